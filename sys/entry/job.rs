// SPDX-License-Identifier: BSD-2-Clause

//! NetBSD's part of tables whose targets serve I/O themselves: the records of their jobs, the
//! nested buffers of their lanes, the threads that poll them.
//!
//! A job is an I/O, or a piece of a [`Split`], which it keeps as a nested buffer would, or a thread
//! that waits for a flush or a discard. A lane has one request in flight at a time, with a nested
//! buffer for each place that it goes to; the completion of the last buffer wakes the lane. A flush
//! or a discard, which may sleep, is an errand of another thread.
//!
//! Everything here is made when a table is loaded and goes with it. Nothing is allocated for an
//! I/O. This file has the records, and how a job comes; `job/host.rs` is the engine's host,
//! `job/forward.rs` has jobs that go to components without a lane, `job/lane.rs` lanes' requests,
//! `job/parent.rs` the receivers of jobs' results.
//!
//! A job's I/O keeps its table, by the pass in its journey, until it is answered. That may be in
//! the middle of a function here; what keeps the table until the function has returned depends on
//! how it was entered:
//!
//! | entered by | kept until it returns by |
//! |---|---|
//! | the sender of a whole I/O: `Slot::hand_over` | a second pass of its own |
//! | the sender of a split: `Slot::advance` | its count of the split, whose I/O has the pass |
//! | the completion of a nested buffer that is not the last | the job, which is not over |
//! | that of the last: `last_done`, `lane_done` | the slot's `completing`, until it is drained |
//! | a sender that queues its split: `TableIo::queue_for_number` | the slot's `completing` |
//! | what resubmits a job, as other tables' I/O: `Job::resubmit_itself` | the slot's `completing` |
//! | a runner, or a thread that does errands | the thread, which [`Host::end_threads`] joins |
//! | a thread that flushes or discards: `TableIo::barrier` | the caller's reference to the table |
//!
//! [`Host::end_threads`] drains `completing`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use dm_core::Errno;
use dm_core::executor::Executor;
use dm_core::host::{Host, Plan, Ready};
use dm_core::job::{JobInfo, Op};
use dm_core::table::Taken;
use dm_core::target::ComponentIndex;
use dm_core::units::{DEV_BSIZE, Minor, Sector};

use super::component::Disk;
use super::journey::Journey;
use super::pieces::Split;
use super::slot::Slot;
use crate::entry::io::parker::Parker;
use crate::netbsd::buf::Io;
use crate::netbsd::condvar::Condvar;
use crate::netbsd::kthread::Thread;
use crate::netbsd::mutex::{Mutex, SpinMutex};
use crate::netbsd::vnode::BlockDevice;

mod answers;
mod forward;
mod host;
mod lane;
mod nested;
mod parent;
mod waiting;

use answers::Answers;
pub(super) use forward::{job_done, whole_of};
use lane::{Errands, LaneCell};
use nested::{Inner, Nested};
pub(super) use parent::JobParent;
use parent::{GIVEN_BACK, NOT_YET};
use waiting::Waiting;

/// Bytes of a table's own nested buffer, with a job's record: an upper bound, since a job may have
/// several buffers, and a lane's have none.
pub const NESTED: usize = size_of::<Inner>() + size_of::<JobCell>();

/// NetBSD's part of one table whose targets serve I/O.
///
/// Fields are marked by what protects them: (-) never changes; (a) atomic; (l) a lock of its own;
/// (j) the job's owner; (r) the lane's runner, and while a request is in flight what completes it;
/// (e) written by the thread in [`Host::run`] or [`Host::end_threads`], while there is neither a
/// job nor a lane's request.
///
/// # Invariants
/// Lanes are touched as the engine says: [`Host::begin`] and [`Host::answer`] by the one thread
/// that polls the lane, and while its request is in flight by what completes it. A job's cell is
/// touched by the job's owner.
pub struct TableIo {
    /// (-) The device's slot.
    slot: &'static Slot,
    /// (-) The device's minor.
    minor: Minor,
    /// (-) The set of lanes to be polled.
    ready: Arc<Ready>,
    /// (e) The table's engine, from [`Host::run`] until [`Host::end_threads`]: it is there while a
    /// job or a lane's request is.
    engine: Handed<Option<Arc<Executor>>>,
    /// (-) The components, by [`ComponentIndex`].
    components: Box<[Opened]>,
    /// (j) Each job's record, by its number.
    jobs: Box<[JobCell]>,
    /// (r) Each lane's record, by its number.
    lanes: Box<[LaneCell]>,
    /// (l) For each line, splits that wait for the number of a job. Empty, nearly always.
    waiting: Box<[SpinMutex<Waiting>]>,
    /// (l) For each runner, where its thread sleeps.
    parkers: Box<[Parker]>,
    /// (l) Work that may sleep: one queue for flushes and discards, and where targets ask for
    /// memory one for that.
    errands: Box<[Errands]>,
    /// (l) The threads, until they are joined.
    threads: Mutex<Vec<Thread>>,
    /// (a) `true` once the threads are to end.
    ending: AtomicBool,
    /// (l) The lock under which [`Host::wait`] looks whether its wait is over, and
    /// [`JobParent::Thread`] is answered. It has no data of its own.
    control: SpinMutex<()>,
    /// (-) Broadcast, with `control` held, when the wait of a thread in [`Host::wait`] may be over.
    announced: Condvar,
}

/// A value that has one user at a time, in any context: see [`TableIo`]'s invariants.
struct Handed<T>(UnsafeCell<T>);

// SAFETY: it has one user at a time, and the hand-over from one to the next is by the engine's
// locks, by a lane's `state` or a job's number or answers, released and acquired, or by the
// component's driver, from d_strategy to biodone(9).
unsafe impl<T: Send> Sync for Handed<T> {}

impl<T> Handed<T> {
    fn new(value: T) -> Handed<T> {
        Handed(UnsafeCell::new(value))
    }

    /// The value, for its user.
    fn get(&self) -> *mut T {
        self.0.get()
    }
}

/// The record of one job. It belongs to the job's owner (see [`Job`](dm_core::job::Job)), and while
/// the job is forwarded to the completion of its last place.
///
/// Fields are marked by what protects them: (a) atomic, added to by each place's completion; (j)
/// the owner; (n) the owner, and in flight each buffer's component and then its completion.
struct JobCell {
    /// (j) The I/O, or the thread, that the job stands for.
    parent: Handed<JobParent>,
    /// (j) The description of a job that is forwarded.
    forwarded: Handed<JobInfo>,
    /// (a) The answers to [`Host::forward_each`]; none is awaited of a job that is forwarded to one
    /// place, whose target is not told.
    answers: Answers,
    /// (j) The data of a write that its target has changed, from [`Host::forward_changed`] until
    /// the target takes them back.
    changed: Handed<Option<Box<[u8]>>>,
    /// (n) Buffers for the places that the job is forwarded to.
    nested: Box<[Nested]>,
}

/// A component of a table, and its properties when the table was loaded.
pub(crate) struct Opened {
    pub(crate) disk: Arc<Disk>,
    /// The component's size.
    pub(crate) size: Sector,
    /// `true` if the component's driver obeys B_MEDIA_FUA, under every condition.
    pub(crate) keeps_fua: bool,
}

impl TableIo {
    /// Allocates the resources that a plan names, for a table with these components.
    pub(crate) fn new(
        slot: &'static Slot,
        minor: Minor,
        plan: &Plan,
        ready: Arc<Ready>,
        components: Box<[Opened]>,
    ) -> Arc<TableIo> {
        let job = |(number, fan): (usize, &usize)| JobCell {
            parent: Handed::new(JobParent::Nothing),
            forwarded: Handed::new(JobInfo::new(
                number,
                (0, 0),
                Op::Read,
                (Sector::ZERO, Sector::ZERO),
            )),
            answers: Answers::default(),
            changed: Handed::new(None),
            nested: Nested::row(number, *fan),
        };
        let lane = |(number, width): (usize, &usize)| LaneCell::new(number, *width);
        let parkers = (0..ready.runners()).map(|_| Parker::new(c"dmlane")).collect();
        let table = Arc::new(TableIo {
            slot,
            minor,
            ready,
            engine: Handed::new(None),
            components,
            jobs: plan.jobs.iter().enumerate().map(job).collect(),
            lanes: plan.lanes.iter().enumerate().map(lane).collect(),
            waiting: (0..plan.lines).map(|_| SpinMutex::new(Waiting::default())).collect(),
            parkers,
            errands: (0..plan.errand_threads()).map(|_| Errands::new(plan.lanes.len())).collect(),
            threads: Mutex::new(Vec::new()),
            ending: AtomicBool::new(false),
            control: SpinMutex::new(()),
            announced: Condvar::new(c"dmtable"),
        });
        let all = table.lanes.iter().flat_map(|lane| lane.nested.iter());
        for nested in all.chain(table.jobs.iter().flat_map(|job| job.nested.iter())) {
            nested.belong_to(Arc::as_ptr(&table));
        }
        table
    }

    /// The table's engine.
    ///
    /// # Safety
    /// A job or a lane's request is in flight.
    unsafe fn engine(&self) -> &Arc<Executor> {
        // SAFETY: written by `run`, before there were any, and by `end_threads`, when there are
        // none.
        let Some(engine) = (unsafe { &*self.engine.get() }) else {
            panic!("dm: a job without its engine")
        };
        engine
    }

    /// The record of a job.
    ///
    /// # Panics
    /// The table has no such number: the I/O that has it would never be answered.
    #[inline]
    fn job(&self, number: usize) -> &JobCell {
        let Some(cell) = self.jobs.get(number) else { panic!("dm: a job with a strange number") };
        cell
    }

    /// The record of a lane.
    ///
    /// # Panics
    /// The table has no such number: the lane that has it would wait for ever.
    #[inline]
    fn lane(&self, number: usize) -> &LaneCell {
        let Some(cell) = self.lanes.get(number) else { panic!("dm: a lane with a strange number") };
        cell
    }

    /// The splits that wait for the number of a job of a line.
    ///
    /// # Panics
    /// The table has no such line: a split that waits for it would never go on.
    fn waiting_of(&self, line: usize) -> &SpinMutex<Waiting> {
        let Some(waiting) = self.waiting.get(line) else {
            panic!("dm: a line with a strange number")
        };
        waiting
    }

    /// The place where the thread of a runner sleeps.
    ///
    /// # Panics
    /// The table has no such runner: its lanes would not be polled again.
    fn parker(&self, runner: usize) -> &Parker {
        let Some(parker) = self.parkers.get(runner) else {
            panic!("dm: a runner with a strange number")
        };
        parker
    }

    /// A component, if the table has that many.
    fn component(&self, component: ComponentIndex) -> Option<&Opened> {
        self.components.get(component.0 as usize)
    }

    /// A component's device, if the table has that many.
    fn device(&self, component: ComponentIndex) -> Option<&BlockDevice> {
        self.component(component).map(|opened| opened.disk.device())
    }

    /// Makes a job of an I/O, or of a piece of a split that the caller has counted as in flight,
    /// with the description that [`describe`] gives. The caller has claimed the job's number.
    ///
    /// # Safety
    /// The I/O is the caller's to send and inside the gate behind which `engine`'s table stands,
    /// and the piece lies in it. Until this returns something else of the caller's keeps the table:
    /// the sender's count of the split, or another pass.
    #[inline(always)]
    pub(super) unsafe fn submit(&self, engine: &Arc<Executor>, parent: JobParent, info: JobInfo) {
        self.keep_parent(info.number(), parent);
        engine.submit(info);
    }

    /// Keeps the parent of a job whose number the caller has claimed.
    fn keep_parent(&self, number: usize, parent: JobParent) {
        let cell = self.job(number);
        // SAFETY: the number was claimed by the caller, so that the cell is the caller's; it is
        // empty, and there is nothing to drop.
        unsafe { cell.parent.get().write(parent) };
    }

    /// Queues a split until there is the number of a job of a table's line. Context: thread or soft
    /// interrupt, with no lock held; sleeps where a component's d_strategy does, in a thread.
    pub(super) fn queue_for_number(
        &self,
        engine: &Arc<Executor>,
        line: usize,
        split: NonNull<Split>,
    ) {
        // Once it waits, another context may carry the split on to its end, and with it what keeps
        // the table.
        let _kept = self.slot.completing.enter();
        engine.add_waiter(line);
        self.waiting_of(line).lock().push(split);
        // A number may have come back before the split was in the queue.
        if let Some(number) = engine.claim(line) {
            engine.unclaim(line, number);
        }
    }

    /// Flushes or discards a stretch of a serving line, and waits for it. `false` if the target
    /// gave the job back: the next table is to be asked. Context: a thread (an ioctl, d_discard)
    /// that keeps the table; sleeps, deaf to signals.
    ///
    /// # Errors
    /// The target's.
    pub(super) fn barrier(
        &self,
        engine: &Arc<Executor>,
        line: usize,
        op: Op,
        range: (Sector, Sector),
    ) -> Result<bool, Errno> {
        let mut number = None;
        engine.add_waiter(line);
        self.wait(&mut || {
            number = number.or_else(|| engine.claim(line));
            number.is_some()
        });
        engine.remove_waiter(line);
        let number = number.ok_or(Errno::EIO)?;
        let answer = AtomicI32::new(NOT_YET);
        self.keep_parent(number, JobParent::Thread(NonNull::from(&answer)));
        engine.submit(JobInfo::new(number, (line, 0), op, range));
        // The answer is given under the lock that the question is asked under, so that the context
        // that gives it is done with `answer` when this returns.
        self.wait(&mut || answer.load(Ordering::Relaxed) != NOT_YET);
        match answer.load(Ordering::Relaxed) {
            GIVEN_BACK => Ok(false),
            errno => Errno::check(errno).map(|()| true),
        }
    }
}

/// The description of the job, with a number of a line's, that `bytes` bytes of an I/O become.
#[inline]
pub(super) fn describe(
    io: &Io,
    journey: &Journey,
    bytes: u32,
    (line, number): (usize, usize),
    taken: Taken,
) -> JobInfo {
    let range = (taken.start, Sector(u64::from(bytes / DEV_BSIZE)));
    let op = Op::rw(io.is_write());
    let (fua, at_sender) = (io.is_fua(), journey.is_at_sender());
    JobInfo { fua, at_sender, ..JobInfo::new(number, (line, taken.queue), op, range) }
}
