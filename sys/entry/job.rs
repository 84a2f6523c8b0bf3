// SPDX-License-Identifier: BSD-2-Clause

//! NetBSD's part of tables whose targets serve I/O themselves: where their jobs are kept, the
//! nested buffers of their lanes, the threads that poll them.
//!
//! A job is an I/O, or a piece of a [`Split`], which it keeps as a nested buffer would, or a thread that waits
//! for a flush or a discard. A lane has one request under way at a time, with a nested buffer for
//! each place that it goes to; the last buffer to be done has the lane polled. What may sleep, a
//! flush or a discard, is the errand of a thread of its own.
//!
//! Everything here is made when a table is loaded and goes with it. Nothing is allocated for an
//! I/O.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::fmt::{self, Write as _};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use dm_core::Errno;
use dm_core::errno;
use dm_core::executor::{Executor, Runner};
use dm_core::host::{Answer, Completions, End, Host, Plan, Ready, Request};
use dm_core::job::{JobInfo, Op, Place};
use dm_core::lane::Outcome;
use dm_core::table::Taken;
use dm_core::target::ComponentIndex;
use dm_core::units::{DEV_BSIZE, Minor, Sector, SectorRange};

use super::component::Disk;
use super::pieces::{self, Journey, Split};
use super::slot::Slot;
use crate::entry::io::parker::Parker;
use crate::netbsd::buf::{self, Io};
use crate::netbsd::condvar::Condvar;
use crate::netbsd::cpu::Text;
use crate::netbsd::kthread::Thread;
use crate::netbsd::mutex::{Mutex, SpinMutex};
use crate::netbsd::{cpu, sys};

mod answers;
mod lane;
mod nested;

use answers::Answers;
use lane::{Errands, LaneCell};
use nested::{Inner, Nested};

/// Bytes that one lane's or job's nested buffer takes.
pub const NESTED: usize = size_of::<Inner>() + size_of::<JobCell>();

/// NetBSD's part of one table whose targets serve I/O.
///
/// Fields are marked by what protects them: (-) never changes; (a) atomic; (l) a lock of its own; (j) the job's owner; (r) the
/// lane's runner, and while a request is in flight what completes it.
///
/// # Invariants
/// Lanes are touched as the engine says: [`Host::begin`] and [`Host::answer`] by the one thread
/// that polls the lane, and while its request is under way by what completes it. A job's cell is
/// touched by the one who has the job.
pub struct TableIo {
    /// (-) The device's slot.
    slot: &'static Slot,
    /// (-) The device's minor.
    minor: Minor,
    /// (-) The set of lanes to be polled.
    ready: Arc<Ready>,
    /// The table's engine, from [`Host::run`] until [`Host::end_threads`]: it is there while a job or a lane's request
    /// is.
    engine: Handed<Option<Arc<Executor>>>,
    /// (-) The components, by [`ComponentIndex`].
    disks: Box<[Arc<Disk>]>,
    /// (-) For each component, `true` if its driver does what B_MEDIA_FUA asks for, whatever happens to it.
    keeps_fua: Box<[bool]>,
    /// (j) Each job's record, by its number.
    jobs: Box<[JobCell]>,
    /// (r) Each lane's record, by its number.
    lanes: Box<[LaneCell]>,
    /// (l) For each line, splits that wait for the number of a job. Empty, nearly always.
    waiting: Box<[SpinMutex<Waiting>]>,
    /// (l) For each runner, where its thread sleeps.
    parkers: Box<[Parker]>,
    /// (l) Work that may sleep: one queue for flushes and discards, and where targets ask for memory one for that.
    errands: Box<[Errands]>,
    /// (l) The threads, until they are joined.
    threads: Mutex<Vec<Thread>>,
    /// (a) `true` once the threads are to end.
    ending: AtomicBool,
    /// The lock under which [`Host::wait`] asks whether it is over.
    control: SpinMutex<()>,
    /// What a thread in [`Host::wait`] waits for may have come. With `control`.
    told: Condvar,
}

/// Splits in the order in which they came, linked through themselves. One that goes on and finds that a newcomer has
/// taken the number comes again, as the last.
#[derive(Default)]
struct Waiting {
    first: Option<NonNull<Split>>,
    last: Option<NonNull<Split>>,
}

// SAFETY: it owns its splits.
unsafe impl Send for Waiting {}

impl Waiting {
    fn push(&mut self, split: NonNull<Split>) {
        // SAFETY: a split that waits is not touched by anyone else; `last` waits here too.
        unsafe {
            (*split.as_ptr()).next = None;
            match self.last {
                Some(last) => (*last.as_ptr()).next = Some(split),
                None => self.first = Some(split),
            }
        }
        self.last = Some(split);
    }

    fn pop(&mut self) -> Option<NonNull<Split>> {
        let split = self.first?;
        // SAFETY: as above.
        self.first = unsafe { (*split.as_ptr()).next };
        if self.first.is_none() {
            self.last = None;
        }
        Some(split)
    }
}

/// The I/O, or the thread, that a job stands for.
pub(super) enum JobParent {
    /// The number is not in use.
    Nothing,
    /// All of an I/O.
    Whole(Io, Journey),
    /// A piece of a split: where in it the piece begins, and how many bytes it has.
    Piece(NonNull<Split>, u32, u32),
    /// A thread in [`TableIo::barrier`] and where it looks for the answer, under `control`.
    Thread(NonNull<AtomicI32>),
}

/// No answer yet, in the place that [`JobParent::Thread`] names. No errno is negative.
const NOT_YET: i32 = -1;
/// The job was given back.
const GIVEN_BACK: i32 = -2;

// SAFETY: a split belongs to its pieces, in whatever thread they are; a waiting thread's place stays
// until it is answered.
unsafe impl Send for JobParent {}

impl JobParent {
    /// The I/O that the job is a part of, the first byte of the part, and the number of its bytes; none for a
    /// thread.
    ///
    /// # Safety
    /// The job is the caller's: it keeps the I/O.
    #[inline]
    unsafe fn part(&self) -> Option<(&Io, u32, u32)> {
        if let JobParent::Whole(io, _) = self {
            return Some((io, 0, io.bytes()));
        }
        let JobParent::Piece(split, offset, bytes) = self else { return None };
        // SAFETY: a piece keeps its split, and in it the I/O (caller).
        let (io, _) = unsafe { pieces::whole_of(*split)? };
        Some((io, *offset, *bytes))
    }
}

/// A value that has one user at a time, in any context: see [`TableIo`]'s invariants.
struct Handed<T>(UnsafeCell<T>);

// SAFETY: it has one user at a time, and the hand-over from one to the next is by the engine's
// locks, by a lane's `state` or a job's number or answers, released and acquired, or by the component's driver,
// from d_strategy to biodone(9).
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

/// The record of one job. It belongs to the job's owner (see [`Job`](dm_core::job::Job)), and while the job is
/// forwarded to the completion of its last place.
struct JobCell {
    /// The I/O, or the thread, that the job stands for.
    parent: Handed<JobParent>,
    /// The description of a job that is forwarded.
    forwarded: Handed<JobInfo>,
    /// The answers to [`Host::forward_each`]; none is awaited of a job that is forwarded to one place, whose
    /// target is not told.
    answers: Answers,
    /// The data of a write that its target has changed, from [`Host::forward_changed`] until the target takes them
    /// back.
    changed: Handed<Option<Box<[u8]>>>,
    /// Buffers for the places that the job is forwarded to.
    nested: Box<[Nested]>,
}

impl TableIo {
    /// Takes what a plan names, for a table with these components, and what is known of each of them.
    pub(crate) fn new(
        slot: &'static Slot,
        minor: Minor,
        plan: &Plan,
        ready: Arc<Ready>,
        disks: Box<[Arc<Disk>]>,
        keeps_fua: Box<[bool]>,
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
            disks,
            keeps_fua,
            jobs: plan.jobs.iter().enumerate().map(job).collect(),
            lanes: plan.lanes.iter().enumerate().map(lane).collect(),
            waiting: (0..plan.lines).map(|_| SpinMutex::new(Waiting::default())).collect(),
            parkers,
            errands: (0..=usize::from(plan.grows))
                .map(|_| Errands::new(plan.lanes.len()))
                .collect(),
            threads: Mutex::new(Vec::new()),
            ending: AtomicBool::new(false),
            control: SpinMutex::new(()),
            told: Condvar::new(c"dmtable"),
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
    /// A job or a lane's request is under way.
    unsafe fn engine(&self) -> &Arc<Executor> {
        // SAFETY: written by `run`, before there were any, and by `end_threads`, when there are none.
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

    fn device(&self, component: ComponentIndex) -> Option<&crate::netbsd::vnode::BlockDevice> {
        self.disks.get(component.0 as usize).map(|disk| disk.device())
    }

    /// Makes a job of an I/O, or of a piece of a split that the caller has counted as in flight, with the description
    /// that [`describe`] gives. The caller has claimed the job's number.
    ///
    /// # Safety
    /// The I/O is the caller's to send and inside the gate behind which `engine`'s table stands, and the piece lies in it.
    /// Until this returns something else of the caller's keeps the table: the sender's count of the split, or
    /// another pass.
    #[inline(always)]
    pub(super) unsafe fn submit(&self, engine: &Arc<Executor>, parent: JobParent, info: JobInfo) {
        self.keep_parent(info.number(), parent);
        engine.submit(info);
    }

    /// Keeps what a job stands for, whose number the caller has claimed.
    fn keep_parent(&self, number: usize, parent: JobParent) {
        let cell = self.job(number);
        // SAFETY: the number was claimed by the caller, so that the cell is the caller's; it is empty,
        // and there is nothing to drop.
        unsafe { cell.parent.get().write(parent) };
    }

    /// Has a split wait for the number of a job of a table's line. Context: thread or soft interrupt.
    pub(super) fn wait_for_job(&self, engine: &Arc<Executor>, line: usize, split: NonNull<Split>) {
        // Once it waits, others may carry the split on to its end, and with it what keeps the table.
        let _kept = self.slot.completing.enter();
        engine.wait_for_number(line);
        if let Some(waiting) = self.waiting.get(line) {
            waiting.lock().push(split);
        }
        // One may have come back before the split was in the queue.
        if let Some(number) = engine.claim(line) {
            engine.unclaim(line, number);
        }
    }

    /// Flushes or discards a stretch of a serving line, and waits for it. `false`: the target gave the job back,
    /// and the next table is to be asked. Context: a thread (an ioctl, d_discard) that keeps the table; sleeps,
    /// deaf to signals.
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
        engine.wait_for_number(line);
        self.wait(&mut || {
            number = number.or_else(|| engine.claim(line));
            number.is_some()
        });
        engine.waited(line);
        let number = number.ok_or(Errno::EIO)?;
        let answer = AtomicI32::new(NOT_YET);
        self.keep_parent(number, JobParent::Thread(NonNull::from(&answer)));
        engine.submit(JobInfo::new(number, (line, 0), op, range));
        // The answer is given under the lock that the question is asked under, so that whoever
        // gives it is done with `answer` when this returns.
        self.wait(&mut || answer.load(Ordering::Relaxed) != NOT_YET);
        match answer.load(Ordering::Relaxed) {
            GIVEN_BACK => Ok(false),
            errno => Errno::check(errno).map(|()| true),
        }
    }

    /// Takes the I/O or the thread that a job stands for.
    fn take_parent(&self, job: usize) -> JobParent {
        // SAFETY: the caller has the job, so that its cell is the caller's.
        let parent =
            unsafe { core::mem::replace(&mut *self.job(job).parent.get(), JobParent::Nothing) };
        assert!(!matches!(parent, JobParent::Nothing), "dm: a job was ended twice");
        parent
    }

    /// Answers the I/O or the thread that a job stood for: `Err` has the bytes that were moved before. Context:
    /// thread or soft interrupt.
    fn answer_parent(&self, parent: JobParent, result: Result<(), (u32, Errno)>) {
        match parent {
            JobParent::Nothing => {}
            JobParent::Whole(io, journey) => match result {
                Ok(()) => self.slot.finish(io, journey),
                Err((moved, errno)) => self.slot.failed(io, journey, moved, errno),
            },
            JobParent::Piece(split, offset, _) => {
                if let Err((moved, errno)) = result {
                    self.slot.note(split, offset.saturating_add(moved), errno);
                }
                self.slot.release(split);
            }
            JobParent::Thread(answer) => {
                self.answer_thread(answer, errno::raw(result.map_err(|(_, errno)| errno)));
            }
        }
    }

    /// Gives a thread in [`TableIo::barrier`] its answer.
    fn answer_thread(&self, answer: NonNull<AtomicI32>, number: i32) {
        let guard = self.control.lock();
        // SAFETY: the thread waits until it sees the answer under this lock.
        unsafe { answer.as_ref() }.store(number, Ordering::Relaxed);
        self.told.broadcast();
        drop(guard);
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }
}

impl Host for TableIo {
    fn run(self: Arc<Self>, runners: Vec<Runner>) -> Result<(), Errno> {
        // SAFETY: no thread polls lanes yet, and no I/O comes before this is over.
        unsafe { *self.engine.get() = runners.first().map(|runner| runner.executor().clone()) };
        let mut threads = Vec::new();
        let start = |threads: &mut Vec<Thread>| {
            for mut runner in runners {
                let table = self.clone();
                threads.push(Thread::start(&name(self.minor), move || {
                    let number = runner.number();
                    loop {
                        let next = runner.run();
                        if table.is_ending() {
                            return;
                        }
                        let Some(parker) = table.parkers.get(number) else { return };
                        let work = || table.ready.any(number) || table.is_ending();
                        parker.park(work, next.map(cpu::ticks_in));
                    }
                })?);
            }
            for which in 0..self.errands.len() {
                let table = self.clone();
                threads.push(Thread::start(&name(self.minor), move || {
                    let Some(errands) = table.errands.get(which) else { return };
                    while !table.is_ending() {
                        table.do_errands(errands);
                        let work = || !errands.is_empty() || table.is_ending();
                        errands.parker.park(work, None);
                    }
                })?);
            }
            Ok(())
        };
        let started = start(&mut threads);
        *self.threads.lock() = threads;
        if started.is_err() {
            self.end_threads();
        }
        started
    }

    fn end_threads(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.parkers.iter().for_each(Parker::unpark);
        self.errands.iter().for_each(|errands| errands.parker.unpark());
        let threads = core::mem::take(&mut *self.threads.lock());
        // Waits for each.
        drop(threads);
        // A component's completion may have woken a lane, which has ended since, and not have returned yet:
        // nothing else keeps this memory. It is counted in by now.
        self.slot.completing.drain(cpu::pause);
        // SAFETY: nothing is in flight, and the threads have ended.
        drop(unsafe { (*self.engine.get()).take() });
    }

    fn kick(&self, runner: usize) {
        if let Some(parker) = self.parkers.get(runner) {
            parker.unpark();
        }
    }

    fn begin(&self, lane: usize, request: Request, places: &[Place]) {
        self.begin_request(lane, request, places);
    }

    fn send(&self, lane: usize, job: &JobInfo, part: SectorRange, places: &[Place]) {
        self.send_job(lane, job, part, places);
    }

    fn answer(&self, lane: usize) -> Option<Answer> {
        self.take_answer(lane)
    }

    fn outcome(&self, lane: usize) -> Option<Outcome> {
        self.take_outcome(lane)
    }

    fn data(&self, job: usize, use_it: &mut dyn FnMut(&mut [u8])) {
        let cell = self.job(job);
        // SAFETY: the caller has the job, so that its cell and its piece are the caller's. The
        // data is mapped until the I/O is complete, and while the job is not with a component
        // nobody else has it.
        unsafe {
            let Some((io, offset, bytes)) = (*cell.parent.get()).part() else {
                return use_it(&mut []);
            };
            let data = io.data(offset, bytes);
            if !data.is_null() {
                use_it(core::slice::from_raw_parts_mut(data, bytes as usize));
            }
        }
    }

    fn end(&self, job: usize, result: Result<(), Errno>) {
        let parent = self.job(job).parent.get();
        // SAFETY: the caller has the job, so that its cell is the caller's; what is read is written over.
        unsafe {
            if let (Ok(()), JobParent::Whole(io, journey)) = (result, &*parent) {
                let (io, journey) = (ptr::read(io), ptr::read(journey));
                parent.write(JobParent::Nothing);
                return self.slot.finish(io, journey);
            }
        }
        self.answer_parent(self.take_parent(job), result.map_err(|errno| (0, errno)));
    }

    fn give_back(&self, job: usize) {
        match self.take_parent(job) {
            JobParent::Whole(io, journey) => self.slot.hold_again(io, journey),
            JobParent::Piece(split, ..) => {
                // SAFETY: the piece keeps the split; the flag is looked at by the last to leave.
                unsafe { &(*split.as_ptr()).again }.store(true, Ordering::Relaxed);
                self.slot.release(split);
            }
            JobParent::Thread(answer) => self.answer_thread(answer, GIVEN_BACK),
            JobParent::Nothing => {}
        }
    }

    fn forward(&self, job: &JobInfo, to: Place) {
        let cell = self.job(job.number());
        // SAFETY: the job is ours, and with it its cell, its nested buffer, its piece and the I/O;
        // `job_done` ends it.
        unsafe {
            *cell.forwarded.get() = *job;
            let part = (*cell.parent.get()).part().zip(cell.nested.first());
            let Some(((io, offset, bytes), nested, device)) = part
                .zip(self.device(to.component))
                .map(|((part, nested), device)| (part, nested, device))
            else {
                return self.forwarded_over(job.number(), Err((0, Errno::EIO)));
            };
            buf::nest(nested.buf(), io, offset, bytes, to.sector, job_done);
            device.vnode().strategy(nested.buf());
        }
    }

    fn forward_each(&self, job: &JobInfo, to: &[Place]) {
        let cell = self.job(job.number());
        // SAFETY: the job is ours, and with it its cell, its nested buffers, its piece and the I/O,
        // until all places have answered, and whoever sends counts as one more.
        unsafe {
            *cell.forwarded.get() = *job;
            cell.answers.begin(to.len().saturating_add(1));
            let part = (*cell.parent.get()).part();
            for (at, place) in to.iter().enumerate() {
                let (nested, device) = (cell.nested.get(at), self.device(place.component));
                let (Some((io, offset, bytes)), Some(nested), Some(device)) =
                    (part, nested, device)
                else {
                    cell.answers.add_lost(at);
                    continue;
                };
                let buf = nested.buf();
                buf::nest(buf, io, offset, bytes, place.sector, job_done);
                device.vnode().strategy(buf);
            }
            if cell.answers.add_done() {
                self.all_answered(job.number(), true);
            }
        }
    }

    fn forward_changed(&self, job: &JobInfo, data: Box<[u8]>, to: Place) {
        let cell = self.job(job.number());
        let bytes = job.length.to_bytes().and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = bytes.filter(|bytes| *bytes <= data.len() && i32::try_from(*bytes).is_ok());
        // SAFETY: the job is ours, and with it its cell and its nested buffer, until the place has answered, and
        // whoever sends counts as one more. The data stay in the cell, where nobody touches them, until the target
        // takes them back, which it does after that; the length was looked at.
        unsafe {
            let data = (*cell.changed.get()).insert(data).as_mut_ptr();
            *cell.forwarded.get() = *job;
            cell.answers.begin(2);
            match cell.nested.first().zip(self.device(to.component)).zip(bytes) {
                Some(((nested, device), bytes)) => {
                    let buf = nested.buf();
                    buf::fill(buf, data, bytes, to.sector, (true, job.fua), job_done);
                    device.vnode().strategy(buf);
                }
                None => cell.answers.add_lost(0),
            }
            if cell.answers.add_done() {
                self.all_answered(job.number(), true);
            }
        }
    }

    fn take_changed(&self, job: usize) -> Option<Box<[u8]>> {
        // SAFETY: the caller has the job, so that its cell is the caller's, and no place that has the data.
        unsafe { (*self.job(job).changed.get()).take() }
    }

    fn may_compute(&self, job: usize) -> bool {
        // SAFETY: the caller has the job, so that its cell is the caller's.
        let part = unsafe { (*self.job(job).parent.get()).part() };
        cpu::in_thread() && part.is_none_or(|(io, ..)| pieces::is_at_sender(io))
    }

    fn keeps_fua(&self, component: ComponentIndex) -> bool {
        self.keeps_fua.get(component.0 as usize).is_some_and(|keeps| *keeps)
    }

    fn completing(&self) -> &'static Completions {
        &self.slot.completing
    }

    fn freed(&self, line: usize) -> bool {
        let split = self.waiting.get(line).and_then(|waiting| waiting.lock().pop());
        if let Some(split) = split {
            self.slot.go_on(split);
        }
        // A flush or a discard may wait, too.
        self.announce();
        split.is_some()
    }

    fn say(&self, what: fmt::Arguments<'_>) {
        let mut text = Text::new();
        // Text takes all that is written to it.
        let _ = writeln!(text, "dm{}: {what}", self.minor);
        text.print();
    }

    fn end_system(&self, end: End, why: &CStr) {
        match end {
            End::Restart => cpu::restart(why),
            End::Panic => cpu::panic(why),
        }
    }

    fn background_share(&self) -> u32 {
        super::dm_background_share.load(Ordering::Relaxed).unsigned_abs()
    }

    fn now(&self) -> u32 {
        cpu::milliseconds()
    }

    fn max_io(&self) -> usize {
        sys::MAXPHYS as usize
    }

    fn size(&self, component: ComponentIndex) -> Sector {
        let now = self.device(component).and_then(|device| device.size().ok());
        now.map_or(Sector::ZERO, |(size, _)| size)
    }

    fn wait(&self, done: &mut dyn FnMut() -> bool) {
        let mut guard = self.control.lock();
        while !done() {
            self.told.wait(&mut guard);
        }
    }

    fn announce(&self) {
        let guard = self.control.lock();
        self.told.broadcast();
        drop(guard);
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

/// The name that ps(1) shows of a device's threads.
fn name(minor: Minor) -> alloc::ffi::CString {
    alloc::ffi::CString::new(alloc::format!("dm{minor}")).unwrap_or_default()
}

impl TableIo {
    /// Tells the target that all places of a job that was forwarded to each have answered. `at_sender` is `true` where the
    /// sender does.
    ///
    /// # Safety
    /// The caller's answer was the last. Something other than the job keeps the table: the sender's pass or count of the
    /// split, or a [`Completing`](dm_core::host::Completing).
    #[inline(always)]
    unsafe fn all_answered(&self, number: usize, at_sender: bool) {
        let cell = self.job(number);
        // SAFETY: the last one has the cell to itself.
        unsafe {
            (*cell.forwarded.get()).at_sender &= at_sender;
            self.engine().answered(*cell.forwarded.get(), cell.answers.outcome());
        }
    }

    /// Ends a job that was forwarded to one place, which has answered.
    ///
    /// # Safety
    /// As for [`TableIo::all_answered`].
    unsafe fn forwarded_over(&self, number: usize, outcome: buf::NestedResult) {
        let cell = self.job(number);
        let parent = self.take_parent(number);
        // SAFETY: the place has answered, so that the cell is ours until the number is given back. So the description is
        // copied.
        unsafe {
            let info = *cell.forwarded.get();
            self.engine().forwarded(&info);
        }
        self.answer_parent(parent, outcome);
    }
}

/// The I/O that a forwarded job is, or is a piece of, and its journey.
///
/// # Safety
/// `buf` is a nested buffer of a job that is forwarded until the answer is used no more.
pub(super) unsafe fn whole_of<'a>(buf: *const sys::buf) -> Option<(&'a Io, &'a Journey)> {
    // SAFETY: the caller's promise: the buffer is the first field of its record, and the job's record does not change.
    unsafe {
        let inner = buf.cast::<Inner>();
        let table = &*(*inner).table;
        match &*table.job((*inner).number).parent.get() {
            JobParent::Whole(io, journey) => Some((io, journey)),
            JobParent::Piece(split, ..) => pieces::whole_of(*split),
            JobParent::Thread(_) | JobParent::Nothing => None,
        }
    }
}

/// b_iodone of a forwarded job's nested buffer. Context: thread or soft interrupt, no lock held; does not sleep.
///
/// # Safety
/// As for [`lane_done`].
pub(super) unsafe extern "C" fn job_done(buf: *mut sys::buf) {
    // SAFETY: as for `lane_done`; the job's piece is inside the gate, which keeps the table until
    // it is answered, last of all.
    unsafe {
        let inner = buf.cast::<Inner>();
        let (table, number) = (&*(*inner).table, (*inner).number);
        let cell = table.job(number);
        if !buf::is_complete(buf) || !cell.answers.are_awaited() {
            return job_done_otherwise(inner, cell);
        }
        if cell.answers.add_done() {
            last_done(table, number, None);
        }
    }
}

/// [`job_done`] of a job that was forwarded to one place, or of a place that has failed.
///
/// # Safety
/// As for [`job_done`]; the record is the job's.
#[inline(never)]
unsafe fn job_done_otherwise(inner: *mut Inner, cell: &JobCell) {
    // SAFETY: as for `job_done`.
    unsafe {
        let (table, number, place) = (&*(*inner).table, (*inner).number, (*inner).place);
        let result = buf::nested_result(inner.cast());
        if !cell.answers.are_awaited() {
            last_done(table, number, Some(result));
        } else if cell.answers.add(place, result.map_err(|(_, errno)| errno)) {
            last_done(table, number, None);
        }
    }
}

/// The end of a forwarded job, in the completion of its last place: its one place has this outcome, or, `None`, all
/// have answered.
///
/// # Safety
/// The place's buffer is done, and the job is the caller's to end.
#[inline(never)]
unsafe fn last_done(table: &TableIo, number: usize, outcome: Option<buf::NestedResult>) {
    // The answer may let the gate go, while this is still in a function of the table's.
    let _kept = table.slot.completing.enter();
    // SAFETY: the caller's promise.
    unsafe {
        match outcome {
            Some(outcome) => table.forwarded_over(number, outcome),
            None => table.all_answered(number, false),
        }
    }
}
