// SPDX-License-Identifier: BSD-2-Clause

//! `mirror LOG #ARGS ARG… #LEGS (DEV OFFSET)… [#FEATURES FEATURE…]`: the same content on several
//! components, its *legs*.
//!
//! The line is cut into *regions*. A region is *in sync* when all legs have the same content there;
//! elsewhere only one leg, the *source*, is right. Reads of regions in sync are spread over the
//! legs, others go to the source. A write goes to all legs at once, or in a region that is not in
//! sync to the source alone.
//!
//! A crash in the middle of a write leaves legs that differ. So a region is *marked* in the log
//! before the first write to it, and the mark is taken away when the region has not been written
//! for a while and the legs were flushed. A table that starts takes regions without a mark for in
//! sync, and copies the others from the source, in order and in the background. With the log `core`
//! marks are in memory only: each table begins with all regions out of sync, or with `nosync` in
//! sync.
//!
//! | a region | sync bit | clean bit, in memory | clean bit, in the log | read from | written to |
//! |---|---|---|---|---|---|
//! | clean | 1 | 1 | 1 | any leg | nothing, before it is marked |
//! | being marked | 1 | 0 | 1 | any leg | nothing |
//! | dirty | 1 | 0 | 0 | any leg | all legs |
//! | out of sync | 0 | 0 | 0 | the source | the source |
//! | being recovered | 0 | 0 | 0 | the source | nothing |
//!
//! A write that a leg does not take puts its region out of sync. What becomes of the write:
//! `failure.rs`. The log: `log.rs`, `format.rs`. Copying: `recovery.rs`.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dm_sync::Spin;

use crate::job::{Job, Op, Place};
use crate::lane::{Aside, Lane, Outcome, Signal};
use crate::target::{ComponentIndex, Devs, Extent, IoRange, Mapping, Target, TargetType};
use crate::targets::bits::{Bits, SharedBits};
use crate::worker::{Needs, Quiesce, Worker};
use crate::{Errno, Sector, limits};

mod blocks;
mod failure;
mod format;
mod log;
mod params;
mod recovery;
mod write;

use blocks::Blocks;
use failure::{Errors, Kind};
use params::{Features, Log, new};

/// The target type `mirror`.
pub static TYPE: TargetType = TargetType { name: "mirror", version: [1, 14, 0], new };

/// Jobs of a line.
const JOBS: usize = 64;

/// The queue of writes, flushes and discards, and that of reads that have failed.
const WRITES: usize = 0;
const READS: usize = 1;

/// Bytes that recovery copies at once.
const COPY: usize = 64 * 1024;

/// Bytes of the log that are read or written at once, at least.
const LOG_BYTES: usize = 4096;

/// A `mirror` line.
///
/// Fields are marked by what protects them: (-) never changes; (a) atomic; (s) atomic, written with
/// `state` held; (l) a lock of its own.
struct Mirror {
    /// (-) The legs, in the table's order.
    legs: Box<[Leg]>,
    /// (-) The log.
    log: Log,
    /// (-) Sectors in the line.
    length: Sector,
    /// (-) Sectors in a region, as a power of two.
    shift: u32,
    /// (-) The number of regions.
    regions: u64,
    /// (-) The features that the table asks for.
    features: Features,
    /// (s) A bit for each region, 1 if it is in sync.
    sync: SharedBits,
    /// (s) `true` while all regions are in sync and no leg has failed.
    whole: AtomicBool,
    /// (s) The leg that is right where the legs differ.
    source: AtomicU32,
    /// (a) `true` if there was I/O since recovery has last looked.
    used: AtomicBool,
    /// (l) Everything else that changes.
    state: Spin<State>,
    /// (l) Jobs that wait for other writes or for recovery.
    waiting: Aside,
    /// (l) Jobs that wait for the log.
    marking: Aside,
    /// (l) Flushes that wait for another.
    flushes: Aside,
    /// (l) Writes and flushes that failed on some leg, and wait for another table.
    held: Aside,
    /// (a) Raised when a region has no write any more, or the log is free.
    changed: Signal,
    /// (a) Raised when a region was marked.
    dirtied: Signal,
}

/// A component that has all of the content.
#[derive(Clone, Copy)]
struct Leg {
    component: ComponentIndex,
    offset: Sector,
}

impl Leg {
    fn place(&self, sector: Sector) -> Place {
        // The sum cannot wrap: the line was checked against the component's end.
        let sector = Sector(self.offset.0.wrapping_add(sector.0));
        Place { component: self.component, sector }
    }
}

/// The changing state of a mirror that [`Target::map`] reads in degraded mirrors only. All fields:
/// under [`Mirror::state`].
struct State {
    /// A bit for each region: 1 if it is clean, or to be so.
    clean: Bits,
    /// A bit for each region: 0 if the log on its disk is known to have its mark.
    logged: Bits,
    /// A bit for each region: 1 if neither a write nor recovery has written to it since the bit was
    /// set, when it was in sync and not clean.
    idle: Bits,
    /// Writes in flight in each region.
    writes: Box<[u16]>,
    /// The sectors of the writes and discards in flight.
    blocks: Blocks,
    /// The region that is being recovered.
    recovering: Option<u64>,
    /// `true` if a leg's flush has failed since that region's recovery began: the leg may have lost
    /// a part of the copy.
    spoilt: bool,
    /// The number of regions in sync.
    synced: u64,
    /// `true` once all regions were in sync, until a write fails.
    in_sync: bool,
    /// `true` once the target has been started.
    started: bool,
    /// `true` if there may be regions that are in sync and not clean.
    marked: bool,
    /// `true` while a lane writes the log.
    log_busy: bool,
    /// `true` while a lane flushes the legs.
    flushing: bool,
    /// The kind of I/O with which the log has failed, until it was written again.
    log_failed: Option<Kind>,
    /// The failures of each leg.
    errors: Box<[Errors]>,
    /// Jobs in `waiting`.
    waiters: usize,
}

impl Mirror {
    /// The region that has a sector.
    fn region(&self, sector: Sector) -> u64 {
        sector.0.wrapping_shr(self.shift)
    }

    /// The sectors from `start` to the end of its region, of which there are `length` at most.
    fn within_region(&self, start: Sector, length: Sector) -> Sector {
        let size = 1u64.wrapping_shl(self.shift);
        let left = size.wrapping_sub(start.0 & size.wrapping_sub(1));
        Sector(length.0.min(left))
    }

    /// The leg that is right where the legs differ.
    fn source(&self) -> usize {
        self.source.load(Ordering::Acquire) as usize
    }

    /// The mapping of sectors to a leg.
    fn send(&self, leg: usize, start: Sector, length: Sector) -> Mapping<'_> {
        match self.legs.get(leg) {
            Some(leg) => {
                let Place { component, sector } = leg.place(start);
                Mapping::Send { component, start: sector, length }
            }
            None => Mapping::Fail { length, error: Errno::EIO },
        }
    }

    /// The places of a sector on all legs but one, if any is left out, and how many they are.
    fn places(&self, sector: Sector, but: Option<usize>) -> ([Place; limits::MIRROR_LEGS], usize) {
        let none = Place { component: ComponentIndex(0), sector };
        let mut places = [none; limits::MIRROR_LEGS];
        let legs = self.legs.iter().enumerate().filter(|(leg, _)| Some(*leg) != but);
        for (place, (_, leg)) in places.iter_mut().zip(legs) {
            *place = leg.place(sector);
        }
        (places, self.legs.len().saturating_sub(usize::from(but.is_some())))
    }

    /// The leg that reads of a sector go to while all is well.
    #[inline]
    fn near(&self, start: Sector) -> usize {
        // There are two legs, nearly always.
        let turn = self.region(start);
        match self.legs.len() {
            2 => (turn & 1) as usize,
            legs => turn.checked_rem(legs as u64).unwrap_or(0) as usize,
        }
    }

    /// Maps a read while recovery runs or a leg has failed: then each read takes `state`.
    #[cold]
    fn map_degraded(&self, io: &IoRange) -> Mapping<'_> {
        self.used.store(true, Ordering::Relaxed);
        let length = self.within_region(io.start, io.length);
        let leg = self.leg_to_read(&self.state.lock(), io.start, 0);
        self.send(leg.unwrap_or(self.source()), io.start, length)
    }

    /// The leg to read a sector from, of those whose bit is not set in `tried`.
    fn leg_to_read(&self, state: &State, start: Sector, tried: u32) -> Option<usize> {
        let source = self.source();
        let untried = |leg: &usize| !has(tried, *leg);
        if !self.sync.get(self.region(start)) {
            return Some(source).filter(untried);
        }
        let near = self.near(start);
        let all = (near..self.legs.len()).chain(0..near).filter(untried);
        // A leg that has failed before is better than none.
        let sound = |leg: &usize| state.errors.get(*leg).is_some_and(|errors| errors.none());
        all.clone().find(sound).or(all.min())
    }
}

/// `true` if a leg's bit is set.
fn has(legs: u32, leg: usize) -> bool {
    legs.checked_shr(leg as u32).unwrap_or(0) & 1 != 0
}

impl Target for Mirror {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        if io.is_write() {
            return Mapping::Take {
                length: self.within_region(io.start, io.length),
                queue: WRITES,
            };
        }
        if self.whole.load(Ordering::Acquire) {
            return self.send(self.near(io.start), io.start, io.length);
        }
        self.map_degraded(io)
    }

    fn map_failed(&self, io: &IoRange) -> Option<Mapping<'_>> {
        let length = self.within_region(io.start, io.length);
        (!io.is_write()).then_some(Mapping::Take { length, queue: READS })
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        self.write_params(out, devs)
    }

    fn status(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        let mut health = [' '; limits::MIRROR_LEGS];
        let (synced, log_failed) = {
            let state = self.state.lock();
            for (letter, errors) in health.iter_mut().zip(&state.errors) {
                *letter = errors.letter();
            }
            (state.synced, state.log_failed)
        };
        write!(out, "{}", self.legs.len())?;
        for leg in &self.legs {
            write!(out, " {}", devs.get(leg.component))?;
        }
        write!(out, " {synced}/{} 1 ", self.regions)?;
        let health = health.iter().take(self.legs.len());
        health.clone().try_for_each(|letter| out.write_char(*letter))?;
        match self.log.disk {
            None => out.write_str(" 1 core"),
            Some(disk) => {
                let letter = log_failed.map_or('A', Kind::letter);
                write!(out, " 3 disk {} {letter}", devs.get(disk))
            }
        }
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        self.shown(length, each);
        if let Some(component) = self.log.disk {
            each(Extent { component, start: Sector::ZERO, length: self.log.sectors });
        }
    }

    fn shown(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        for leg in &self.legs {
            each(Extent { component: leg.component, start: leg.offset, length });
        }
    }
}

impl Worker for Mirror {
    fn needs(&self) -> Needs {
        let unit = bytes(self.log.unit).max(LOG_BYTES);
        let log = if self.log.disk.is_some() { unit } else { 0 };
        Needs {
            queues: alloc::vec![4, 2],
            background: 2,
            jobs: JOBS,
            fan: self.legs.len(),
            width: self.legs.len(),
            buffer: log,
            background_buffer: COPY,
            control_buffer: log,
            threads: 1,
            ..Needs::default()
        }
    }

    fn at_once(&self, job: Job) -> Option<Job> {
        match job.op() {
            Op::Write => self.write_at_once(job),
            _ => Some(job),
        }
    }

    fn answered(&self, mut job: Job, outcome: Outcome) -> Option<Job> {
        if outcome.failed != 0 {
            job.set_tag(job.tag() | write::FAILED | u64::from(outcome.failed));
            return Some(job);
        }
        self.write_over(&job);
        job.done();
        None
    }

    async fn serve(&self, job: Job, lane: &mut Lane) {
        match job.op() {
            Op::Read => self.read(job, lane).await,
            Op::Write if job.tag() & write::FAILED != 0 => self.write_failed(job, lane),
            Op::Write => self.write(job, lane).await,
            Op::Flush => self.flush(job, lane).await,
            Op::Discard => self.discard(job, lane).await,
        }
    }

    async fn background(&self, number: usize, lane: &mut Lane) {
        match number {
            0 => self.recover(lane).await,
            _ => self.clean(lane).await,
        }
    }

    async fn start(&self, lane: &mut Lane) -> Result<(), Errno> {
        self.open_log(lane).await;
        Ok(())
    }

    async fn stop(&self, lane: &mut Lane) {
        self.close_log(lane).await;
    }

    fn suspending(&self, _how: Quiesce) {
        // Held jobs go to the next table, if the suspend is with noflush; else they fail.
        while let Some(job) = self.held.pop() {
            job.give_back();
        }
    }
}

/// Bytes in some sectors, of which there are few.
fn bytes(sectors: Sector) -> usize {
    sectors.to_bytes().unwrap_or(0) as usize
}
