// SPDX-License-Identifier: BSD-2-Clause

//! `flakey DEV OFFSET UP DOWN [COUNT FEATURE…]`: a range of one component that is good for UP
//! seconds and bad for DOWN seconds, over and over, from when its table was loaded.

use core::fmt;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Clock;
use crate::job::{Job, Op, Place};
use crate::lane::Lane;
use crate::mistake::Mistake;
use crate::target::{
    ComponentIndex, Devs, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType,
};
use crate::units::DEV_BSIZE;
use crate::worker::{Needs, Worker};
use crate::{Errno, Sector};

mod features;

use features::{Change, Features};

/// The target type `flakey`.
pub static TYPE: TargetType = TargetType { name: "flakey", version: [1, 5, 0], new };

/// A `flakey` line. Only `random` changes, which is atomic.
struct Flakey {
    /// The component.
    component: ComponentIndex,
    /// The first sector there.
    offset: Sector,
    /// The up interval, in seconds.
    up: u32,
    /// The down interval, in seconds.
    down: u32,
    /// The length of both intervals together, in seconds.
    period: NonZeroU32,
    /// The clock that the intervals go by.
    clock: Clock,
    /// The time at which the table was loaded.
    since: u32,
    /// The features that the table names.
    features: Features,
    /// The last random number.
    random: AtomicU64,
    /// Sectors that the component writes at least.
    unit: Sector,
}

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    let invalid = |why| Mistake::new(Errno::EINVAL, why);
    let path = line.params.path()?;
    let offset = Sector(line.params.number("the offset is not a number of sectors")?);
    let wrong = "an interval is not a number of seconds below 2^32";
    let (up, down) = (line.params.small_number(wrong)?, line.params.small_number(wrong)?);
    let period = up.checked_add(down).ok_or(invalid("both intervals are too long together"))?;
    let period = NonZeroU32::new(period).ok_or(invalid("both intervals are 0"))?;
    let features = Features::new(&mut line.params)?;
    let component = line.component(path, offset, line.length)?;
    let unit = Sector(u64::from(line.sector_size(component) / DEV_BSIZE));
    let clock = line.clock();
    let since = clock.seconds();
    let changes_data = features.change_reads() || features.change_writes();
    let random = AtomicU64::new(since.into());
    let flakey =
        Flakey { component, offset, up, down, period, clock, since, features, random, unit };
    Ok(if changes_data { Made::serves(flakey) } else { Made::maps(flakey) })
}

impl Flakey {
    /// `true` in a bad interval.
    fn is_down(&self) -> bool {
        self.clock.seconds().wrapping_sub(self.since) % self.period >= self.up
    }

    fn place(&self, start: Sector) -> Place {
        // The sum cannot wrap: the line was checked against the component's end.
        let sector = Sector(self.offset.0.wrapping_add(start.0));
        Place { component: self.component, sector }
    }

    /// A random number. The same ones come after every start of the clock, in the same order.
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9), (27, 0x94d0_49bb_1331_11eb)] {
            mixed = (mixed ^ mixed >> shift).wrapping_mul(factor);
        }
        mixed ^ mixed >> 31
    }

    /// Writes a job's data as it is, but for the bytes that change: the sender's data stays, so
    /// they go by way of the lane's buffer, with the sectors they are in.
    async fn write(
        &self,
        job: &mut Job,
        changes: [Option<Change>; 2],
        lane: &mut Lane,
    ) -> Result<(), Errno> {
        let unit_bytes = self.unit.to_bytes().unwrap_or(u64::MAX);
        let mut units = changes.map(|change| change.map(|change| change.at as u64 / unit_bytes));
        units.sort_unstable();
        let mut done = Sector::ZERO;
        for unit in units.into_iter().flatten() {
            let start = Sector(unit.wrapping_mul(self.unit.0));
            if start < done {
                // Both changes are in one sector.
                continue;
            }
            let place = self.place(Sector(job.start().0.wrapping_add(done.0)));
            lane.send_part(job, done..start, &[place]).await.ok()?;
            let first = unit.wrapping_mul(unit_bytes) as usize;
            let buffer = lane.buffer();
            let copied = job.with_data(|data| {
                let from = data.get(first..first.wrapping_add(buffer.len()))?;
                buffer.copy_from_slice(from);
                Some(())
            });
            copied.flatten().ok_or(Errno::EIO)?;
            for change in changes.iter().flatten() {
                change.apply(buffer, first);
            }
            let place = self.place(Sector(job.start().0.wrapping_add(start.0)));
            lane.write(&[place], self.unit, job.fua()).await.ok()?;
            done = Sector(start.0.wrapping_add(self.unit.0));
        }
        let place = self.place(Sector(job.start().0.wrapping_add(done.0)));
        lane.send_part(job, done..job.length(), &[place]).await.ok()
    }
}

impl Target for Flakey {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        let length = io.length;
        if self.is_down() {
            let features = &self.features;
            let (fails, changes) = match io.op {
                Op::Read => (features.fail_reads(), features.change_reads()),
                Op::Write => (features.fail_writes(), features.change_writes()),
                Op::Discard | Op::Flush => (features.fail_writes(), false),
            };
            if fails {
                return Mapping::Fail { length, error: Errno::EIO };
            } else if io.is_write() && features.drop_writes {
                return Mapping::Zero { length };
            } else if changes {
                return Mapping::Take { length, queue: 0 };
            }
        }
        let Place { component, sector } = self.place(io.start);
        Mapping::Send { component, start: sector, length }
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        let Flakey { component, offset, up, down, features, .. } = self;
        write!(out, "{} {offset} {up} {down} {features}", devs.get(*component))
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        each(Extent { component: self.component, start: self.offset, length });
    }

    fn may_flush(&self) -> Result<(), Errno> {
        match self.features.fail_writes() && self.is_down() {
            true => Err(Errno::EIO),
            false => Ok(()),
        }
    }
}

/// A line whose features change data serves the I/O that they may change. All other I/O is sent.
impl Worker for Flakey {
    fn needs(&self) -> Needs {
        let buffer = self.unit.to_bytes().unwrap_or(0) as usize;
        Needs { queues: alloc::vec![4], jobs: 32, buffer, ..Needs::default() }
    }

    async fn serve(&self, mut job: Job, lane: &mut Lane) {
        let bytes = job.length().to_bytes().unwrap_or(0) as usize;
        let changes = self.features.changes(&job, bytes, || self.random());
        let place = self.place(job.start());
        let result = match job.op() {
            Op::Read => {
                let read = lane.send(&job, &[place]).await.ok();
                if changes.iter().any(Option::is_some) {
                    job.with_data(|data| changes.iter().flatten().for_each(|c| c.apply(data, 0)));
                }
                read
            }
            Op::Write => self.write(&mut job, changes, lane).await,
            // Asked for before, by `may_flush`.
            Op::Flush => lane.flush(&[self.component]).await.ok(),
            Op::Discard => lane.discard(place, job.length()).await,
        };
        job.end(result);
    }
}
