// SPDX-License-Identifier: BSD-2-Clause

//! The engine of one table: lanes, the jobs that wait for them, start and stop.
//!
//! A *lane* is a future that was made when the table was loaded. Serving lanes take a job from
//! their queue, serve it, and come back for the next; background lanes do work that no I/O asks for; resident
//! lanes go on while the device is suspended; one control lane a line starts and stops its target. A *runner*
//! polls the lanes that are ready; a thread of the host's has it to itself, so that no lock is held while a
//! lane runs.
//!
//! Whatever a lane waits for has the lane's number and sets its bit in [`Ready`]: a job that comes,
//! a component that answers, a [`Signal`](crate::lane::Signal), a moment that has come. So waking
//! needs no memory and no lock, and a lane that is woken while it runs is polled again.
//!
//! Contexts: *anywhere* below means a thread or a soft interrupt (a completion); nothing that may be called
//! from anywhere sleeps or allocates. [`Executor::start`], [`Executor::stop`] and [`Executor::end`] sleep: they
//! are called by the thread that has the device's control flag, or drops the table, never by one that polls
//! lanes. Lanes run in their runner's thread.
//!
//! | state of the engine | jobs come | background runs | left by |
//! |---|---|---|---|
//! | Stopped (as made) | no | no | [`Executor::start`] |
//! | Running | yes | yes | [`Executor::suspending`] |
//! | Suspending | those there are end | returns | [`Executor::stop`], or [`Executor::go_on`] |

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use core::task::{Context, Waker};

use dm_sync::Spin;

use crate::Errno;
use crate::host::{Host, Plan, Ready};
use crate::job::{Job, JobInfo};
use crate::lane::{Aside, Lane, Outcome};
use crate::numbers::{InTurn, Numbers};
use crate::worker::{LANES, LaneFuture, Lanes, Needs, Order, Quiesce, Role};

#[cfg(test)]
mod tests;

const STOPPED: u8 = 0;
const RUNNING: u8 = 1;
const SUSPENDING: u8 = 2;

/// The engine of one table. Referenced by the table, by its lanes and by jobs in flight.
///
/// Fields are marked by what protects them: (-) never changes; (a) atomic; (c) atomic, and written by the thread that has the
/// device's control flag only.
pub struct Executor {
    /// (-) The kernel's part of the table.
    host: Arc<dyn Host>,
    /// (-) The set of lanes to be polled.
    ready: Arc<Ready>,
    /// (-) Lines whose targets serve I/O, in the table's order.
    lines: Box<[ServingLine]>,
    /// (-) Lanes of all lines, by number.
    lanes: Box<[LaneState]>,
    /// (c) See the table above.
    state: AtomicU8,
    /// (c) The number of suspends that have begun; wraps around.
    suspends: AtomicU32,
    /// (c) [`Quiesce::NoFlush`]: failed jobs are given back instead of answered.
    keeps_failed: AtomicBool,
    /// (a) [`Hastened`] values there are: threads for which jobs do not wait.
    hastened: AtomicU32,
    /// (a) `true` once the table goes.
    ending: AtomicBool,
    /// (-) Raises an event of the device. A thread only: it takes an adaptive lock.
    raise: Box<dyn Fn() + Send + Sync>,
}

/// A line whose target serves I/O.
///
/// Fields are marked by what protects them: (-) never changes; (a) atomic; (l) a lock of its own, at IPL_BIO, a leaf.
struct ServingLine {
    /// (-) The line's number in the table.
    number: usize,
    /// (-) The line's target.
    target: Arc<dyn Lanes>,
    /// (-) The number of the line's first lane; its others follow, the control lane last.
    first_lane: usize,
    /// (-) The number of the line's first job; its others follow.
    first_job: usize,
    /// (l) Jobs that no lane has taken yet.
    queues: Box<[Spin<Queue>]>,
    /// (a) Numbers of jobs that are not in use.
    free: Numbers,
    /// (a) Who has I/O go on that waits for a number.
    going_on: InTurn,
    /// (l) The control lane's work.
    orders: Spin<Orders>,
    /// (a) Background lanes that are in [`Worker::background`](crate::worker::Worker::background).
    busy: AtomicU32,
    /// (a) `true` once the line's target has been started.
    begun: AtomicBool,
    /// (a) Resident lanes that have not returned from [`Worker::resident`](crate::worker::Worker::resident)
    /// since.
    residents: AtomicU32,
}

/// Jobs that no lane has taken yet.
struct Queue {
    /// In the order they came. It has room for every job of the line, so that it never grows.
    jobs: VecDeque<Job>,
    /// Lanes of the line, a bit each, that wait for a job.
    idle: u32,
}

/// The control lane's work: None → Given ([`Executor::order`]) → Taken (by the lane) → Obeyed → None (by the
/// thread that gave the order).
#[derive(Default)]
enum Orders {
    #[default]
    None,
    Given(Order),
    Taken,
    Obeyed(Result<(), Errno>),
}

/// A lane's sleep. Only its runner's thread uses the fields; they are atomic so that lanes can be shared.
pub(crate) struct LaneState {
    /// The moment that the lane sleeps until, if `sleeps`.
    until: AtomicU32,
    /// `true` while the lane sleeps until a moment.
    sleeps: AtomicBool,
}

/// A target that serves I/O, and the line of the table that it stands in.
pub type Serving = (usize, Arc<dyn Lanes>);

/// The plan of the engine for these lines.
///
/// # Errors
/// E2BIG if a line wants more lanes than there can be.
pub fn plan(lines: &[Serving]) -> Result<Plan, Errno> {
    let mut plan = Plan::default();
    let asks = |(_, target): &Serving| target.needs().threads.max(1);
    let most = lines.iter().map(asks).max().unwrap_or(1);
    // The runner of lines that ask for one, unless there are no others.
    let shared = usize::from(most > 1 && lines.iter().any(|line| asks(line) == 1));
    plan.threads = most.saturating_add(shared);
    for (_, target) in lines {
        let needs = target.needs();
        if needs.lanes() > LANES
            || needs.width.max(needs.fan) > u32::BITS as usize
            || needs.jobs == 0
        {
            return Err(Errno::E2BIG);
        }
        plan.lanes.extend((0..needs.lanes()).map(|_| needs.width.max(1)));
        plan.runners.extend((0..needs.lanes()).map(|lane| match needs.threads.max(1) {
            1 => 0,
            threads => shared.saturating_add(lane.checked_rem(threads).unwrap_or(0)),
        }));
        plan.residents
            .extend(needs.roles().iter().map(|(role, _)| matches!(role, Role::Resident(_))));
        plan.grows |= needs.grows;
        plan.lines = plan.lines.saturating_add(1);
        plan.jobs.extend((0..needs.jobs).map(|_| needs.fan.max(1)));
    }
    Ok(plan)
}

impl Executor {
    /// The engine of a table with these lines, in order, on `host`, which was made for [`plan`] of
    /// them and for `ready`. `raise` raises an event of the device. The runners come with it.
    pub fn new(
        host: Arc<dyn Host>,
        ready: Arc<Ready>,
        lines: Vec<Serving>,
        raise: Box<dyn Fn() + Send + Sync>,
    ) -> (Arc<Executor>, Vec<Runner>) {
        let (mut first_lane, mut first_job) = (0usize, 0usize);
        let mut made = Vec::new();
        // For each lane: its line, its role, bytes of its buffer.
        let mut roles: Vec<(usize, Role, usize)> = Vec::new();
        for (at, (number, target)) in lines.into_iter().enumerate() {
            let needs = target.needs();
            let roles_of_line = needs.roles();
            let lanes = roles_of_line.len();
            roles.extend(roles_of_line.into_iter().map(|(role, buffer)| (at, role, buffer)));
            let queue =
                |_: &usize| Spin::new(Queue { jobs: VecDeque::with_capacity(needs.jobs), idle: 0 });
            let last_job = first_job.saturating_add(needs.jobs);
            made.push(ServingLine {
                number,
                target,
                first_lane,
                first_job,
                queues: needs.queues.iter().map(queue).collect(),
                free: Numbers::new(first_job, needs.jobs),
                going_on: InTurn::default(),
                orders: Spin::default(),
                busy: AtomicU32::new(0),
                begun: AtomicBool::new(false),
                residents: AtomicU32::new(0),
            });
            first_lane = first_lane.saturating_add(lanes);
            first_job = last_job;
        }
        let lane = |_: &(usize, Role, usize)| LaneState {
            until: AtomicU32::new(0),
            sleeps: AtomicBool::new(false),
        };
        let executor = Arc::new(Executor {
            host,
            ready,
            lines: made.into(),
            lanes: roles.iter().map(lane).collect(),
            state: AtomicU8::new(STOPPED),
            suspends: AtomicU32::new(0),
            hastened: AtomicU32::new(0),
            keeps_failed: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            raise,
        });
        let runners = executor.ready.runners();
        let mut all: Vec<Runner> = (0..runners)
            .map(|number| Runner {
                number,
                executor: executor.clone(),
                lanes: Vec::new(),
                sleepers: Cell::new(false),
            })
            .collect();
        for (number, (line, role, buffer)) in roles.into_iter().enumerate() {
            let Some(target) = executor.lines.get(line).map(|line| line.target.clone()) else {
                continue;
            };
            let lane = Lane::new(executor.clone(), number, line, role, buffer);
            let future = target.future(lane);
            if let Some(runner) = all.get_mut(executor.ready.runner(number)) {
                runner.lanes.push((number, future));
            }
            // Each is polled once, so that it waits for what it has to wait for.
            executor.wake(number);
        }
        (executor, all)
    }

    pub(crate) fn host(&self) -> &dyn Host {
        self.host.as_ref()
    }

    /// The host, for the kernel's side.
    pub fn shared_host(&self) -> Arc<dyn Host> {
        self.host.clone()
    }

    pub(crate) fn keeps_failed(&self) -> bool {
        self.keeps_failed.load(Ordering::Acquire)
    }

    pub(crate) fn raise_event(&self) {
        (self.raise)();
    }

    /// Has a lane polled. From anywhere.
    pub(crate) fn wake(&self, lane: usize) {
        if let Some(runner) = self.ready.set(lane) {
            self.host.kick(runner);
        }
    }

    /// Has lanes of a line polled, a bit each. From anywhere.
    pub(crate) fn wake_all(&self, line: usize, mut lanes: u32) {
        let Some(first) = self.lines.get(line).map(|line| line.first_lane) else { return };
        while lanes != 0 {
            self.wake(first.wrapping_add(lanes.trailing_zeros() as usize));
            lanes &= lanes.wrapping_sub(1);
        }
    }

    /// A lane's bit among those of its line.
    pub(crate) fn bit(&self, line: usize, lane: usize) -> u32 {
        let first = self.lines.get(line).map_or(0, |line| line.first_lane);
        1u32.checked_shl(lane.wrapping_sub(first) as u32).unwrap_or(0)
    }

    /// The number among serving lines of a line of the table, if its target serves I/O.
    #[inline]
    pub fn serving(&self, number: usize) -> Option<usize> {
        // Where all lines before it serve, too, it has the same number here.
        if self.lines.get(number).is_some_and(|line| line.number == number) {
            return Some(number);
        }
        self.lines.binary_search_by_key(&number, |line| line.number).ok()
    }

    /// The number of serving lines.
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// Takes the number of a job that is not in use. `None`: the caller must wait for [`Host::freed`]. From
    /// anywhere.
    #[inline]
    pub fn claim(&self, line: usize) -> Option<usize> {
        self.lines.get(line)?.free.take()
    }

    /// Gives back a number that was claimed, and lets I/O go on that waits for one. From anywhere.
    #[inline]
    pub fn unclaim(&self, line: usize, number: usize) {
        if let Some(of) = self.lines.get(line)
            && of.free.put(number)
        {
            self.let_go_on(line);
        }
    }

    /// Counts somebody in who waits for a number of a line's jobs, until [`Executor::waited`]. The caller must try
    /// to claim one once more afterwards. From anywhere.
    pub fn wait_for_number(&self, line: usize) {
        if let Some(line) = self.lines.get(line) {
            line.free.wait();
        }
    }

    /// Counts somebody out who has waited for a number. From anywhere.
    pub fn waited(&self, line: usize) {
        if let Some(line) = self.lines.get(line) {
            line.free.waited();
        }
    }

    /// Puts a job in its queue, and has a lane take it. Its number was claimed, and the host knows
    /// the I/O. While the engine is stopped, which is so when a start has failed, the job fails
    /// with EIO: no target sees I/O that it has not been started for. From anywhere; calls
    /// [`Worker::at_once`](crate::worker::Worker::at_once).
    #[inline]
    pub fn submit(self: &Arc<Self>, info: JobInfo) {
        let job = Job { info, executor: Some(self.clone()) };
        if self.state.load(Ordering::Acquire) == STOPPED {
            return job.fail(Errno::EIO);
        }
        let Some(line) = self.lines.get(info.line()) else { return job.fail(Errno::EIO) };
        if let Some(job) = line.target.at_once(job) {
            self.queue(line, job);
        }
    }

    /// Tells the target that all places of a job that was forwarded to each of them have answered. From anywhere:
    /// the host calls it in the last one's completion.
    #[inline]
    pub fn answered(self: &Arc<Self>, info: JobInfo, outcome: Outcome) {
        let job = Job { info, executor: Some(self.clone()) };
        let Some(line) = self.lines.get(info.line()) else { return job.fail(Errno::EIO) };
        if let Some(job) = line.target.answered(job, outcome) {
            self.queue(line, job);
        }
    }

    /// Puts a job at the end of its queue, and has a lane take it.
    fn queue(&self, line: &ServingLine, mut job: Job) {
        job.info.at_sender = false;
        let Some(queue) = line.queues.get(usize::from(job.info.queue)) else {
            // A target that names a queue it does not have is a bug; the I/O fails.
            debug_assert!(false, "no such queue");
            return job.fail(Errno::EIO);
        };
        let mut queue = queue.lock();
        debug_assert!(queue.jobs.len() < queue.jobs.capacity());
        queue.jobs.push_back(job);
        let idle = queue.idle;
        queue.idle &= idle.wrapping_sub(1);
        drop(queue);
        if idle != 0 {
            self.wake(line.first_lane.wrapping_add(idle.trailing_zeros() as usize));
        }
    }

    /// Puts jobs that were set aside at the front of their queue again, in their order.
    pub(crate) fn resubmit(&self, jobs: impl DoubleEndedIterator<Item = Job>) {
        for mut job in jobs.rev() {
            job.info.at_sender = false;
            let queue = self
                .lines
                .get(job.info.line())
                .and_then(|l| l.queues.get(usize::from(job.info.queue)));
            let Some(queue) = queue else { continue };
            let line = job.info.line();
            let mut queue = queue.lock();
            queue.jobs.push_front(job);
            let idle = queue.idle;
            queue.idle &= idle.wrapping_sub(1);
            drop(queue);
            self.wake_all(line, idle & idle.wrapping_neg());
        }
    }

    /// Puts all jobs that were set aside in one place at the front of their queues again, in their order.
    pub(crate) fn resubmit_all(&self, jobs: &Aside) {
        while let Some(job) = jobs.pop_last() {
            self.resubmit(core::iter::once(job));
        }
    }

    /// Takes the first job of a queue, or notes that the lane waits for one.
    pub(crate) fn take_job(&self, line: usize, queue: usize, lane: u32) -> Option<Job> {
        let mut queue = self.lines.get(line)?.queues.get(queue)?.lock();
        let job = queue.jobs.pop_front();
        match job {
            Some(_) => queue.idle &= !lane,
            None => queue.idle |= lane,
        }
        job
    }

    /// Frees the number of a job that is ended, and lets I/O go on that waits for one. From anywhere.
    #[inline]
    pub(crate) fn free(&self, info: &JobInfo) {
        self.unclaim(info.line(), info.number());
    }

    /// Lets I/O that waits for numbers of a line's jobs go on, as far as there are any. Not each
    /// takes the number that it waited for: the target may map it elsewhere by now. From anywhere. What goes on
    /// may end before that returns, and have more go on: one thread at a time does it.
    #[cold]
    fn let_go_on(&self, at: usize) {
        let Some(line) = self.lines.get(at) else { return };
        line.going_on.ask(|| {
            while line.free.any() && self.host.freed(at) {
                line.free.waited();
            }
        });
    }

    /// Frees the number of a forwarded job, which its component has answered. From anywhere: the host calls it in
    /// the component's completion, before it answers the I/O.
    pub fn forwarded(&self, info: &JobInfo) {
        self.free(info);
    }

    pub(crate) fn lane_state(&self, lane: usize) -> Option<&LaneState> {
        self.lanes.get(lane)
    }

    /// `true` from [`Executor::start`] until [`Executor::suspending`].
    pub fn is_running(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNNING
    }

    /// `true` from [`Executor::suspending`] until [`Executor::stop`] or [`Executor::go_on`], and while there is a
    /// [`Hastened`].
    pub(crate) fn is_suspending(&self) -> bool {
        self.state.load(Ordering::Acquire) == SUSPENDING || self.is_hastened()
    }

    /// `true` while there is a [`Hastened`].
    fn is_hastened(&self) -> bool {
        self.hastened.load(Ordering::SeqCst) != 0
    }

    /// Starts every line, in order. Does nothing unless the engine is stopped. Context: the thread that has
    /// the control flag; sleeps for I/O, deaf to signals.
    ///
    /// # Errors
    /// That of the first line that does not start; those before it are stopped again.
    pub fn start(&self) -> Result<(), Errno> {
        if self.state.load(Ordering::Acquire) != STOPPED {
            return Ok(());
        }
        for at in 0..self.lines.len() {
            if let Err(errno) = self.order(at, Order::Start) {
                for started in (0..at).rev() {
                    // Stopping has no result.
                    let _ = self.order(started, Order::Stop);
                }
                return Err(errno);
            }
        }
        self.keeps_failed.store(false, Ordering::Release);
        self.state.store(RUNNING, Ordering::Release);
        self.look_again();
        Ok(())
    }

    /// Tells every line that new I/O is held and that jobs must end. Context: the thread that has the control
    /// flag; does not sleep.
    pub fn suspending(&self, how: Quiesce) {
        // First what becomes of jobs, then that they must end: a lane that sees the second acts on the first.
        self.keeps_failed.store(how == Quiesce::NoFlush, Ordering::SeqCst);
        // SeqCst, as a background lane counts itself in and then looks at the state.
        let begun =
            self.state.compare_exchange(RUNNING, SUSPENDING, Ordering::SeqCst, Ordering::Acquire);
        if begun.is_ok() {
            self.suspends.fetch_add(1, Ordering::SeqCst);
        }
        self.tell_suspending(how);
    }

    /// Has no job wait for anything but its components until the value is dropped, while new I/O still comes and the
    /// background goes on: what is done to a job that is held back when the device is suspended is done now. From a
    /// thread; does not sleep.
    pub fn hasten(self: Arc<Self>, how: Quiesce) -> Hastened {
        // First that jobs must go, then that they are looked at again.
        self.hastened.fetch_add(1, Ordering::SeqCst);
        self.tell_suspending(how);
        Hastened(self)
    }

    /// Tells every line's target, and has its lanes look again.
    fn tell_suspending(&self, how: Quiesce) {
        for (at, line) in self.lines.iter().enumerate() {
            line.target.suspending(how);
            // Those that sleep, and the background.
            self.wake_all(at, u32::MAX >> (LANES - self.lanes_of(at).min(LANES)) as u32);
        }
    }

    /// Goes on after all: waiting for the I/O in flight was interrupted. Context: as for
    /// [`Executor::suspending`].
    pub fn go_on(&self) {
        let back =
            self.state.compare_exchange(SUSPENDING, RUNNING, Ordering::AcqRel, Ordering::Acquire);
        self.keeps_failed.store(false, Ordering::Release);
        if back.is_ok() {
            self.look_again();
        }
    }

    /// Stops every line, when no job is left. Does nothing when the engine is stopped. Context: as for
    /// [`Executor::start`].
    pub fn stop(&self) {
        if self.state.load(Ordering::Acquire) == STOPPED {
            return;
        }
        self.suspend_if_running();
        self.host.wait(&mut || self.lines.iter().all(|l| l.busy.load(Ordering::SeqCst) == 0));
        for at in (0..self.lines.len()).rev() {
            // Stopping has no result.
            let _ = self.order(at, Order::Stop);
        }
        self.state.store(STOPPED, Ordering::Release);
    }

    fn suspend_if_running(&self) {
        if self.is_running() {
            self.suspending(Quiesce::Flush);
        }
    }

    /// Ends the threads, when resident lanes have returned; nothing else is in flight. The lanes'
    /// futures are dropped. Context: the thread that drops the table, with no lock held and I/O not held;
    /// sleeps, deaf to signals.
    pub fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        if self.lines.iter().any(|line| line.residents.load(Ordering::SeqCst) != 0) {
            self.look_again();
            let gone = |line: &ServingLine| line.residents.load(Ordering::SeqCst) == 0;
            self.host.wait(&mut || self.lines.iter().all(gone));
        }
        self.host.end_threads();
    }

    /// `true` once the table goes.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// `true` once a line's resident lanes may begin; they are counted from then on.
    pub(crate) fn residence_begins(&self, line: usize) -> bool {
        self.lines.get(line).is_some_and(|line| line.begun.load(Ordering::SeqCst))
    }

    /// Counts a resident lane out.
    pub(crate) fn residence_is_over(&self, line: usize) {
        if let Some(line) = self.lines.get(line) {
            line.residents.fetch_sub(1, Ordering::SeqCst);
        }
        self.host.announce();
    }

    fn lanes_of(&self, line: usize) -> usize {
        let first = |at: usize| self.lines.get(at).map(|line| line.first_lane);
        let end = first(line.saturating_add(1)).unwrap_or(self.lanes.len());
        end.saturating_sub(first(line).unwrap_or(end))
    }

    /// Has every lane look again whether what it waits for has come.
    pub fn look_again(&self) {
        for (lane, _) in self.lanes.iter().enumerate() {
            self.wake(lane);
        }
    }

    /// Has a line's control lane do something, and waits for it.
    fn order(&self, at: usize, order: Order) -> Result<(), Errno> {
        let Some(line) = self.lines.get(at) else { return Err(Errno::EIO) };
        *line.orders.lock() = Orders::Given(order);
        // The control lane is the line's last.
        self.wake(line.first_lane.saturating_add(self.lanes_of(at)).saturating_sub(1));
        let mut result = Err(Errno::EIO);
        self.host.wait(&mut || {
            let mut orders = line.orders.lock();
            match core::mem::take(&mut *orders) {
                Orders::Obeyed(obeyed) => {
                    result = obeyed;
                    true
                }
                other => {
                    *orders = other;
                    false
                }
            }
        });
        result
    }

    /// Takes the order that a line's control lane has been given, if any.
    pub(crate) fn take_order(&self, line: usize) -> Option<Order> {
        let mut orders = self.lines.get(line)?.orders.lock();
        match *orders {
            Orders::Given(order) => {
                *orders = Orders::Taken;
                Some(order)
            }
            _ => None,
        }
    }

    /// Reports that a line's control lane has obeyed an order.
    pub(crate) fn report(&self, at: usize, started: bool, result: Result<(), Errno>) {
        if let Some(line) = self.lines.get(at) {
            if started && result.is_ok() && !line.begun.load(Ordering::SeqCst) {
                let residents = u32::try_from(line.target.needs().residents).unwrap_or(0);
                line.residents.store(residents, Ordering::SeqCst);
                line.begun.store(true, Ordering::SeqCst);
                self.wake_all(at, u32::MAX >> (LANES - self.lanes_of(at).min(LANES)) as u32);
            }
            *line.orders.lock() = Orders::Obeyed(result);
        }
        self.host.announce();
    }

    /// Counts a background lane in, if the engine runs. The answer tells this run from others.
    pub(crate) fn run_begins(&self, line: usize) -> Option<u32> {
        let line = self.lines.get(line)?;
        // Before the look: a suspend that comes in between is another's run.
        let run = self.suspends.load(Ordering::SeqCst);
        // Counted before the look, as a stop looks at the count after it has changed the state.
        line.busy.fetch_add(1, Ordering::SeqCst);
        if self.state.load(Ordering::SeqCst) == RUNNING {
            return Some(run);
        }
        line.busy.fetch_sub(1, Ordering::SeqCst);
        self.host.announce();
        None
    }

    /// `true` once a run of a background lane is over: the engine was suspended since, even if that
    /// was called off before the lane had returned.
    pub(crate) fn run_is_over(&self, run: u32) -> bool {
        !self.is_running() || self.suspends.load(Ordering::SeqCst) != run
    }

    /// Counts a background lane out.
    pub(crate) fn run_over(&self, line: usize) {
        if let Some(line) = self.lines.get(line) {
            line.busy.fetch_sub(1, Ordering::SeqCst);
        }
        self.host.announce();
    }

    /// Numbers of a line's jobs, for hosts that keep them apart.
    pub fn jobs_of(&self, line: usize) -> core::ops::Range<usize> {
        let first = |at: usize| self.lines.get(at).map(|line| line.first_job);
        let start = first(line).unwrap_or(0);
        start..first(line.saturating_add(1)).unwrap_or(usize::MAX)
    }
}

/// An engine whose jobs do not wait, from [`Executor::hasten`] on. It may be the last reference to the engine and so to
/// components: dropped by a thread with no lock held.
pub struct Hastened(Arc<Executor>);

impl Drop for Hastened {
    fn drop(&mut self) {
        self.0.hastened.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Needs {
    /// The roles of a line's lanes, in order, with the bytes of their buffers.
    fn roles(&self) -> Vec<(Role, usize)> {
        let mut roles = Vec::new();
        for (queue, lanes) in self.queues.iter().enumerate() {
            let buffer = if queue < self.buffered { self.buffer } else { 0 };
            roles.extend((0..*lanes).map(|_| (Role::Serve(queue), buffer)));
        }
        let background = |n| (Role::Background(n), self.background_buffer);
        roles.extend((0..self.background).map(background));
        let resident = |n| (Role::Resident(n), self.resident_buffer);
        roles.extend((0..self.residents).map(resident));
        roles.push((Role::Control, self.control_buffer));
        roles
    }
}

impl LaneState {
    /// The lane sleeps until this moment, or does not.
    pub(crate) fn sleep(&self, until: Option<u32>) {
        if let Some(until) = until {
            self.until.store(until, Ordering::Relaxed);
        }
        self.sleeps.store(until.is_some(), Ordering::Relaxed);
    }

    fn wakes_in(&self, now: u32) -> Option<u32> {
        let left = self.until.load(Ordering::Relaxed).wrapping_sub(now);
        // What lies in the past is more than half round.
        let left = if left > u32::MAX / 2 { 0 } else { left };
        self.sleeps.load(Ordering::Relaxed).then_some(left)
    }
}

/// Polls some of an engine's lanes: those that its plan has given to the runner of this number. Owned by one thread.
pub struct Runner {
    number: usize,
    executor: Arc<Executor>,
    /// The lanes' numbers and futures, in the order of their bits in [`Ready`].
    lanes: Vec<(usize, LaneFuture)>,
    /// `false` if no lane of these sleeps.
    sleepers: Cell<bool>,
}

impl Runner {
    /// The runner's number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Polls lanes until none is ready. The answer is in how many milliseconds one wants to be
    /// polled again, if any sleeps.
    pub fn run(&mut self) -> Option<u32> {
        loop {
            let Runner { number, executor, lanes, sleepers } = &mut *self;
            executor.ready.take(*number, |at| {
                if let Some((lane, future)) = lanes.get_mut(at) {
                    poll(executor, future, sleepers, *lane);
                }
            });
            let next = self.wake_sleepers();
            if !self.executor.ready.any(self.number) {
                return next;
            }
        }
    }

    /// Has sleeping lanes polled whose moment has come. The answer is in how many milliseconds the next
    /// one's does.
    pub fn wake_sleepers(&self) -> Option<u32> {
        if !self.sleepers.replace(false) {
            return None;
        }
        let mut next: Option<u32> = None;
        let mut now = None;
        for (lane, _) in &self.lanes {
            let Some(state) = self.executor.lanes.get(*lane) else { continue };
            if !state.sleeps.load(Ordering::Relaxed) {
                continue;
            }
            self.sleepers.set(true);
            let now = *now.get_or_insert_with(|| self.executor.host.now());
            match state.wakes_in(now) {
                Some(0) => {
                    let _ = self.executor.ready.set(*lane);
                }
                Some(left) => next = Some(next.map_or(left, |least| least.min(left))),
                None => {}
            }
        }
        next
    }

    /// Polls one lane of this runner, by its place among the runner's.
    pub fn poll(&mut self, at: usize) {
        if let Some((lane, future)) = self.lanes.get_mut(at) {
            poll(&self.executor, future, &self.sleepers, *lane);
        }
    }

    /// The runner's engine.
    pub fn executor(&self) -> &Arc<Executor> {
        &self.executor
    }
}

/// Polls one of a runner's lanes, and notes whether it sleeps then.
fn poll(executor: &Executor, future: &mut LaneFuture, sleepers: &Cell<bool>, lane: usize) {
    // A lane's own number is all that wakes it: no waker is asked for.
    let done = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    debug_assert!(done.is_pending(), "a lane never ends");
    let state = executor.lanes.get(lane);
    if state.is_some_and(|state| state.sleeps.load(Ordering::Relaxed)) {
        sleepers.set(true);
    }
}
