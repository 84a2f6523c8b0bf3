// SPDX-License-Identifier: BSD-2-Clause

//! `delay DEV OFFSET MS [DEV OFFSET MS [DEV OFFSET MS]]`: reads, writes and flushes that are sent
//! on some milliseconds after they came.

use alloc::vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::Sector;
use crate::job::{Job, Op, Place};
use crate::lane::Lane;
use crate::mistake::Mistake;
use crate::target::{
    ComponentIndex, Devs, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType,
};
use crate::worker::{Needs, Worker};

/// The target type `delay`.
pub static TYPE: TargetType = TargetType { name: "delay", version: [1, 3, 0], new };

/// The queues: one for each class of I/O, with a lane of its own, so that each class keeps its
/// order. Flushes and discards always come to the first.
const FLUSH: usize = 0;
const READ: usize = 1;
const WRITE: usize = 2;

/// The longest that a lane is asked to sleep at once, in milliseconds.
const NAP: u32 = 1 << 30;

/// A `delay` line. Only each class's count changes, which is atomic.
struct Delay {
    /// The number of classes that the table named, 1 to 3; the others are as the one named last
    /// before them.
    named: usize,
    read: Class,
    write: Class,
    flush: Class,
}

/// A class of I/O (reads, writes or flushes): the component that it goes to, and the delay.
struct Class {
    component: ComponentIndex,
    offset: Sector,
    /// Milliseconds from its coming to its going.
    delay: u32,
    /// The number of jobs that wait.
    waiting: AtomicU32,
}

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    let read = Class::new(line)?;
    let mut named = 1;
    let write = Class::next(line, &read, &mut named)?;
    let flush = Class::next(line, &write, &mut named)?;
    line.params.end()?;
    let delay = Delay { named, read, write, flush };
    match [&delay.read, &delay.write, &delay.flush].iter().all(|class| class.delay == 0) {
        true => Ok(Made::maps(delay)),
        false => Ok(Made::serves(delay)),
    }
}

impl Class {
    fn new(line: &mut LineSpec<'_>) -> Result<Class, Mistake> {
        let path = line.params.path()?;
        let offset = Sector(line.params.number("an offset is not a number of sectors")?);
        let wrong = "a delay is not a number of milliseconds below 2^32";
        let delay = line.params.small_number(wrong)?;
        let component = line.component(path, offset, line.length)?;
        Ok(Class { component, offset, delay, waiting: AtomicU32::new(0) })
    }

    /// The class that the table names next, or one like the class before it.
    fn next(line: &mut LineSpec<'_>, before: &Class, named: &mut usize) -> Result<Class, Mistake> {
        if line.params.left() == 0 {
            let Class { component, offset, delay, .. } = *before;
            return Ok(Class { component, offset, delay, waiting: AtomicU32::new(0) });
        }
        *named = named.saturating_add(1);
        Class::new(line)
    }

    fn place(&self, start: Sector) -> Place {
        // The sum cannot wrap: the line was checked against the component's end.
        let sector = Sector(self.offset.0.wrapping_add(start.0));
        Place { component: self.component, sector }
    }
}

impl Delay {
    /// The class of an I/O, and its queue.
    fn class(&self, op: Op) -> (&Class, usize) {
        match op {
            Op::Read => (&self.read, READ),
            Op::Write | Op::Discard => (&self.write, WRITE),
            Op::Flush => (&self.flush, FLUSH),
        }
    }

    /// The classes that the table named.
    fn named(&self) -> impl Iterator<Item = &Class> {
        [&self.read, &self.write, &self.flush].into_iter().take(self.named)
    }
}

impl Target for Delay {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        let (class, queue) = self.class(io.op);
        if class.delay > 0 {
            return Mapping::Take { length: io.length, queue };
        }
        let Place { component, sector } = class.place(io.start);
        Mapping::Send { component, start: sector, length: io.length }
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        self.named().enumerate().try_for_each(|(number, class)| {
            let space = if number > 0 { " " } else { "" };
            write!(out, "{space}{} {} {}", devs.get(class.component), class.offset, class.delay)
        })
    }

    fn status(&self, out: &mut dyn fmt::Write, _devs: &Devs<'_>) -> fmt::Result {
        let waiting = |class: &Class| class.waiting.load(Ordering::Relaxed);
        let Delay { read, write, flush, .. } = self;
        write!(out, "{} {} {}", waiting(read), waiting(write), waiting(flush))
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        for class in self.named() {
            each(Extent { component: class.component, start: class.offset, length });
        }
    }
}

impl Worker for Delay {
    fn needs(&self) -> Needs {
        Needs { queues: vec![1, 1, 1], jobs: 64, ..Needs::default() }
    }

    fn at_once(&self, mut job: Job) -> Option<Job> {
        self.class(job.op()).0.waiting.fetch_add(1, Ordering::Relaxed);
        // When the job came, for `serve`.
        job.set_tag(u64::from(job.now()));
        Some(job)
    }

    async fn serve(&self, job: Job, lane: &mut Lane) {
        let (class, _) = self.class(job.op());
        let waited = lane.now().wrapping_sub(job.tag() as u32);
        let mut left = class.delay.saturating_sub(waited);
        // A sleep ends early when the device is being suspended: then all goes at once.
        while left > 0 && lane.sleep(left.min(NAP)).await {
            left = left.saturating_sub(NAP);
        }
        class.waiting.fetch_sub(1, Ordering::Relaxed);
        let place = class.place(job.start());
        match job.op() {
            Op::Read | Op::Write => job.forward(place),
            Op::Flush => job.end(lane.flush(&[class.component]).await.ok()),
            Op::Discard => {
                let discarded = lane.discard(place, job.length()).await;
                job.end(discarded);
            }
        }
    }
}
