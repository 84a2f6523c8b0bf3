// SPDX-License-Identifier: BSD-2-Clause

//! `snapshot-origin DEV`: a device that has snapshots. Chunks that are overwritten are copied out
//! for them first.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use dm_sync::Spin;

use super::JOBS;
use super::cow::{Ask, Cow, Signals};
use crate::job::{Job, Op, Place};
use crate::lane::{Lane, LineWaker};
use crate::mistake::Mistake;
use crate::target::{
    ComponentIndex, Devs, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType,
};
use crate::worker::{Needs, Worker};
use crate::{Errno, Sector};

/// The target type `snapshot-origin`.
pub static TYPE: TargetType = TargetType { name: "snapshot-origin", version: [1, 9, 0], new };

/// An origin's device, as all lines see it that use it: the registry has one for each device.
///
/// Locks: `members`, then a `Cow`'s; `waiting`, `merger` and `merged` are taken with neither held.
/// Context of everything here: thread or soft interrupt, but for what allocates, which is called
/// when a table comes, starts or goes.
///
/// Fields are marked by what protects them: (l) a lock of its own; (m) atomic, written with
/// `members` held.
pub struct Origin {
    /// (l) Snapshots that want copies. One is added at its first start, and removed with its table.
    members: Spin<Vec<Arc<Cow>>>,
    /// (m) The number of `members`.
    count: AtomicUsize,
    /// (l) Jobs, of the origin's lines and of its snapshots', that wait until something has
    /// changed.
    waiting: Spin<Waiting>,
    /// (l) The lane that merges a snapshot, which waits for the other snapshots.
    merger: Spin<Option<Merger>>,
    /// (l) The store that is merged, and the number of tables that do it.
    merged: Spin<(Option<Arc<Cow>>, u32)>,
}

/// The means to wake the lane that merges.
pub type Merger = (LineWaker, Arc<Signals>);

/// Jobs that wait until something has changed.
struct Waiting {
    /// The jobs, in the order in which they came. There is room for `room`.
    jobs: VecDeque<Job>,
    /// The number of jobs that all lines have together which use the origin.
    room: usize,
    /// The number of times that the jobs were woken.
    wakes: u64,
}

impl Default for Origin {
    fn default() -> Origin {
        let waiting = Waiting { jobs: VecDeque::new(), room: 0, wakes: 0 };
        Origin {
            members: Spin::new(Vec::new()),
            count: AtomicUsize::new(0),
            waiting: Spin::new(waiting),
            merger: Spin::new(None),
            merged: Spin::new((None, 0)),
        }
    }
}

impl Origin {
    /// `true`: an origin's state is good for each table that comes.
    pub fn fits(&self) -> bool {
        true
    }

    /// Makes room for a line's jobs to wait. To be undone with [`Origin::leave`].
    pub fn enter(&self) {
        let mut wanted = JOBS;
        loop {
            // Made before the lock is taken, and dropped after it.
            let mut jobs = VecDeque::with_capacity(wanted);
            let mut waiting = self.waiting.lock();
            let room = waiting.room.saturating_add(JOBS);
            if room <= waiting.jobs.capacity() {
                waiting.room = room;
                return;
            }
            if room <= jobs.capacity() {
                jobs.append(&mut waiting.jobs);
                core::mem::swap(&mut jobs, &mut waiting.jobs);
                waiting.room = room;
                drop(waiting);
                return;
            }
            wanted = room;
        }
    }

    /// Takes back what [`Origin::enter`] has made room for: the line is gone.
    pub fn leave(&self) {
        let mut waiting = self.waiting.lock();
        waiting.room = waiting.room.saturating_sub(JOBS);
    }

    /// The number of times that waiting jobs were woken. Read before the look that decides to wait,
    /// and handed to [`Origin::wait`], which refuses if it has changed.
    pub fn wakes(&self) -> u64 {
        self.waiting.lock().wakes
    }

    /// Queues a job until something has changed. Returns the job if something has changed since
    /// `wakes` was read.
    pub fn wait(&self, job: Job, wakes: u64) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        if waiting.wakes != wakes {
            return Some(job);
        }
        debug_assert!(waiting.jobs.len() < waiting.jobs.capacity());
        waiting.jobs.push_back(job);
        None
    }

    /// Requeues the jobs that wait, since something has changed, and wakes the lane that merges. In
    /// any context, with no lock held; does not sleep.
    pub fn wake(&self) {
        let mut left = {
            let mut waiting = self.waiting.lock();
            waiting.wakes = waiting.wakes.wrapping_add(1);
            waiting.jobs.len()
        };
        // From the last, so that they come to stand in their order.
        while let Some(less) = left.checked_sub(1) {
            left = less;
            // Jobs that come meanwhile stand behind these.
            let job = self.waiting.lock().jobs.remove(left);
            if let Some(job) = job {
                job.resubmit_itself();
            }
        }
        if let Some((waker, signals)) = &*self.merger.lock() {
            waker.raise(&signals.merge);
        }
    }

    /// Sets the lane that merges; `None` if there is none any more.
    pub fn merger(&self, lane: Option<Merger>) {
        let before = core::mem::replace(&mut *self.merger.lock(), lane);
        drop(before);
    }

    /// Notes that a table merges this snapshot, until [`Origin::end_merge`]. `false` if another
    /// snapshot is being merged.
    pub fn begin_merge(&self, cow: &Arc<Cow>) -> bool {
        let mut merged = self.merged.lock();
        let (of, tables) = &mut *merged;
        if of.as_ref().is_some_and(|of| !Arc::ptr_eq(of, cow)) {
            return false;
        }
        if of.is_none() {
            *of = Some(cow.clone());
        }
        *tables = tables.saturating_add(1);
        true
    }

    /// Notes that a table that merged is gone.
    pub fn end_merge(&self) {
        let mut merged = self.merged.lock();
        let (of, tables) = &mut *merged;
        *tables = tables.saturating_sub(1);
        let gone = if *tables == 0 { of.take() } else { None };
        drop(merged);
        drop(gone);
    }

    /// Adds a snapshot, if it is not there yet. Allocates.
    pub fn add(&self, cow: &Arc<Cow>) {
        let mut wanted = 4;
        loop {
            let mut more = Vec::with_capacity(wanted);
            let mut members = self.members.lock();
            if members.iter().any(|member| Arc::ptr_eq(member, cow)) {
                return;
            }
            let after = members.len().saturating_add(1);
            if members.capacity() < after && more.capacity() < after {
                wanted = after.saturating_mul(2);
                continue;
            }
            if members.capacity() < after {
                more.append(&mut members);
                core::mem::swap(&mut more, &mut members);
            }
            members.push(cow.clone());
            self.count.store(members.len(), Ordering::SeqCst);
            drop(members);
            return;
        }
    }

    /// Takes a snapshot away: nothing is copied for it any more.
    pub fn remove(&self, cow: &Arc<Cow>) {
        let mut members = self.members.lock();
        let at = members.iter().position(|member| Arc::ptr_eq(member, cow));
        let gone = at.map(|at| members.swap_remove(at));
        self.count.store(members.len(), Ordering::SeqCst);
        drop(members);
        drop(gone);
    }

    /// The sectors from `start` on, at most `length`, that may be written at once: their chunks
    /// need no copy. With none the sectors that lie in one chunk of each snapshot. Takes `members`
    /// for a walk of it, if there is any.
    pub fn clear(&self, start: Sector, length: Sector) -> Result<Sector, Sector> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return Ok(length);
        }
        let (mut clear, mut blocked) = (length, false);
        let members = self.members.lock();
        for cow in members.iter() {
            match cow.clear(start, clear) {
                Ok(some) => clear = some,
                Err(some) => (clear, blocked) = (some.min(clear), true),
            }
        }
        if blocked { Err(clear) } else { Ok(clear) }
    }

    /// Asks every snapshot for the copies that a write needs. `true` if it may go on at once. Takes
    /// `members`, and each snapshot's state under it.
    pub fn ask(&self, start: Sector, length: Sector) -> bool {
        let members = self.members.lock();
        let mut clear = true;
        for cow in members.iter() {
            clear &= cow.ask_for(start, length) == Ask::Clear;
        }
        clear
    }
}

/// A `snapshot-origin` line of a table.
struct OriginLine {
    device: ComponentIndex,
    origin: Arc<Origin>,
}

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    let path = line.params.path()?;
    line.params.end()?;
    let device = line.component(path, Sector::ZERO, line.length)?;
    let origin = line.shared(device, Origin::fits, Origin::default);
    line.reserve(super::WAITING)?;
    origin.enter();
    Ok(Made::serves(OriginLine { device, origin }))
}

impl Drop for OriginLine {
    fn drop(&mut self) {
        self.origin.leave();
    }
}

impl OriginLine {
    fn place(&self, sector: Sector) -> Place {
        Place { component: self.device, sector }
    }

    /// Sends a write when its copies are made, or queues it until they are. Context: thread or soft
    /// interrupt, with no lock held; sleeps in a thread, where a component's d_strategy does.
    fn write(&self, mut job: Job) {
        loop {
            let wakes = self.origin.wakes();
            if self.origin.ask(job.start(), job.length()) {
                let to = self.place(job.start());
                return job.forward(to);
            }
            job = match self.origin.wait(job, wakes) {
                Some(job) => job,
                None => return,
            };
        }
    }
}

impl Target for OriginLine {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        if io.op == Op::Write {
            return match self.origin.clear(io.start, io.length) {
                Ok(length) => Mapping::Send { component: self.device, start: io.start, length },
                Err(length) => Mapping::Take { length, queue: 0 },
            };
        }
        if io.op == Op::Discard {
            // To be refused: it would have to be copied out.
            return Mapping::Take { length: io.length, queue: 0 };
        }
        Mapping::Send { component: self.device, start: io.start, length: io.length }
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        write!(out, "{}", devs.get(self.device))
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        each(Extent { component: self.device, start: Sector::ZERO, length });
    }
}

impl Worker for OriginLine {
    fn needs(&self) -> Needs {
        Needs { queues: alloc::vec![2], jobs: JOBS, ..Needs::default() }
    }

    fn at_once(&self, job: Job) -> Option<Job> {
        if job.op() != Op::Write {
            return Some(job);
        }
        self.write(job);
        None
    }

    async fn serve(&self, job: Job, lane: &mut Lane) {
        match job.op() {
            Op::Write => self.write(job),
            Op::Flush => job.end(lane.flush(&[self.device]).await.ok()),
            // `map` sends reads. A discard would have to be copied out.
            Op::Read | Op::Discard => job.fail(Errno::EOPNOTSUPP),
        }
    }
}
