// SPDX-License-Identifier: BSD-2-Clause

//! The engine of one table: lanes, the jobs that wait for them, start and stop. This file has its
//! parts and makes them; `executor/jobs.rs` has the way of a job, `executor/states.rs` start,
//! suspend, stop and end, `executor/runner.rs` the polling.
//!
//! A *lane* is a future that was made when the table was loaded. Serving lanes take a job from
//! their queue, serve it, and come back for the next; background lanes do work that no I/O asks
//! for; resident lanes go on while the device is suspended; one control lane a line starts and
//! stops its target. A *runner* polls the lanes that are ready; a thread of the host's has it to
//! itself, so that no lock is held while a lane runs.
//!
//! Everything that a lane waits for has the lane's number and sets its bit in [`Ready`]: a job that
//! comes, a component that answers, a [`Signal`](crate::lane::Signal), a moment that has come. So
//! waking needs no memory and no lock, and a lane that is woken while it runs is polled again.
//!
//! Contexts: *anywhere* below means a thread or a soft interrupt (a completion); nothing that may
//! be called from anywhere sleeps or allocates. [`Executor::start`], [`Executor::stop`] and
//! [`Executor::end`] sleep: they are called by the thread that has the device's control flag, or
//! drops the table, never by one that polls lanes. Lanes run in their runner's thread.
//!
//! | state of the engine | jobs come | background runs | left by |
//! |---|---|---|---|
//! | Stopped (as made) | no | no | [`Executor::start`], or [`Executor::end`] |
//! | Running | yes | yes | [`Executor::suspending`] |
//! | Suspending | no; those there are end | returns | [`Executor::stop`], or [`Executor::go_on`] |
//!
//! Two facts stand beside the state. *Hastened* ([`Executor::hasten`]) goes with any state, since
//! threads that have not the control flag hasten. Jobs then wait for nothing but their components,
//! as in Suspending; whether jobs come and the background runs is still as the state says. *Ending*
//! ([`Executor::end`]) goes with Stopped only, and no other state follows: resident lanes return.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use dm_sync::Spin;

use crate::Errno;
use crate::host::{Host, Plan, Ready};
use crate::job::Job;
use crate::lane::Lane;
use crate::numbers::{InTurn, Numbers};
use crate::worker::{LANES, Lanes, Needs, Order, Role};

mod jobs;
mod runner;
mod states;
#[cfg(test)]
mod tests;

pub(crate) use runner::LaneState;
pub use runner::Runner;

const STOPPED: u8 = 0;
const RUNNING: u8 = 1;
const SUSPENDING: u8 = 2;

/// The engine of one table. Referenced by the table, by its lanes and by jobs in flight.
///
/// Fields are marked by what protects them: (-) never changes; (a) atomic; (c) atomic, and written
/// by the thread that has the device's control flag only.
pub struct Executor {
    /// (-) The kernel's part of the table.
    host: Arc<dyn Host>,
    /// (-) The set of lanes to be polled.
    ready: Arc<Ready>,
    /// (-) Lines whose targets serve I/O, in the table's order.
    lines: Box<[ServingLine]>,
    /// (-) Lanes of all lines, by number.
    lanes: Box<[LaneState]>,
    /// (c) STOPPED, RUNNING or SUSPENDING: see the table above.
    state: AtomicU8,
    /// (c) The number of suspends that have begun; wraps around.
    suspends: AtomicU32,
    /// (c) `true` after [`Quiesce::NoFlush`](crate::worker::Quiesce), until the engine runs again:
    /// failed jobs are given back instead of answered.
    keeps_failed: AtomicBool,
    /// (a) The number of threads for which jobs do not wait: see [`Executor::hasten`]. It may be
    /// above 0 in any state.
    hastened: AtomicU32,
    /// (a) `true` once the table goes: `state` is STOPPED, and stays so.
    ending: AtomicBool,
    /// (-) Raises an event of the device. A thread only: it takes an adaptive lock.
    raise: Box<dyn Fn() + Send + Sync>,
}

/// A line whose target serves I/O.
///
/// Fields are marked by what protects them: (-) never changes; (a) atomic; (l) a lock of its own,
/// at IPL_BIO, a leaf.
struct ServingLine {
    /// (-) The line's number in the table.
    number: usize,
    /// (-) The line's target.
    target: Arc<dyn Lanes>,
    /// (-) The number of the line's first lane; its others follow, the control lane last.
    first_lane: usize,
    /// (l) Jobs that no lane has taken yet.
    queues: Box<[Spin<Queue>]>,
    /// (a) Numbers of jobs that are not in use.
    free: Numbers,
    /// (a) The right to have I/O go on that waits for a number: one context's at a time.
    going_on: InTurn,
    /// (a) `true` if the control lane is to let I/O go on: a soft interrupt has left it to a
    /// thread.
    left_to_lane: AtomicBool,
    /// (l) The control lane's work.
    orders: Spin<Orders>,
    /// (a) Background lanes that are in [`Worker::background`](crate::worker::Worker::background).
    busy: AtomicU32,
    /// (a) `true` once the line's target has been started.
    begun: AtomicBool,
    /// (a) Resident lanes that have not returned from
    /// [`Worker::resident`](crate::worker::Worker::resident) since.
    residents: AtomicU32,
}

/// Jobs that no lane has taken yet.
struct Queue {
    /// The jobs that wait, in the order they came. It has room for every job of the line, so that
    /// it never grows.
    jobs: VecDeque<Job>,
    /// Lanes of the line, a bit each, that wait for a job.
    idle: u32,
}

/// The control lane's work: None → Given ([`Executor::order`]) → Taken (by the lane) → Obeyed →
/// None (by the thread that gave the order).
#[derive(Default)]
enum Orders {
    #[default]
    None,
    Given(Order),
    Taken,
    Obeyed(Result<(), Errno>),
}

/// A target that serves I/O, and the line of the table that it stands in.
pub type Serving = (usize, Arc<dyn Lanes>);

/// The plan of the engine for these lines.
///
/// # Panics
/// A target asks for more lanes or places than there can be, or for no job: its jobs would never be
/// served.
pub fn plan(lines: &[Serving]) -> Plan {
    let mut plan = Plan::default();
    let asks = |(_, target): &Serving| target.needs().threads.max(1);
    let most = lines.iter().map(asks).max().unwrap_or(1);
    // The runner of lines that ask for one, unless there are no others.
    let shared = usize::from(most > 1 && lines.iter().any(|line| asks(line) == 1));
    plan.threads = most.saturating_add(shared);
    for (_, target) in lines {
        let needs = target.needs();
        let places = needs.width.max(needs.fan);
        if needs.lanes() > LANES || places > u32::BITS as usize || needs.jobs == 0 {
            panic!("dm: a target with strange needs");
        }
        plan.lanes.extend((0..needs.lanes()).map(|_| needs.width.max(1)));
        plan.runners.extend((0..needs.lanes()).map(|lane| match needs.threads.max(1) {
            1 => 0,
            threads => shared.saturating_add(lane.checked_rem(threads).unwrap_or(0)),
        }));
        #[cfg(any(test, feature = "testing"))]
        plan.residents
            .extend(needs.roles().iter().map(|(role, _)| matches!(role, Role::Resident(_))));
        plan.grows |= needs.grows;
        plan.lines = plan.lines.saturating_add(1);
        plan.jobs.extend((0..needs.jobs).map(|_| needs.fan.max(1)));
    }
    plan
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
            made.push(ServingLine {
                number,
                target,
                first_lane,
                queues: needs.queues.iter().map(queue).collect(),
                free: Numbers::new(first_job, needs.jobs),
                going_on: InTurn::default(),
                left_to_lane: AtomicBool::new(false),
                orders: Spin::default(),
                busy: AtomicU32::new(0),
                begun: AtomicBool::new(false),
                residents: AtomicU32::new(0),
            });
            first_lane = first_lane.saturating_add(lanes);
            first_job = first_job.saturating_add(needs.jobs);
        }
        let executor = Arc::new(Executor {
            host,
            ready,
            lines: made.into(),
            lanes: roles.iter().map(|_| LaneState::default()).collect(),
            state: AtomicU8::new(STOPPED),
            suspends: AtomicU32::new(0),
            hastened: AtomicU32::new(0),
            keeps_failed: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            raise,
        });
        let runners = executor.ready.runners();
        let mut all: Vec<Runner> =
            (0..runners).map(|number| Runner::new(number, executor.clone())).collect();
        for (number, (line, role, buffer)) in roles.into_iter().enumerate() {
            let Some(target) = executor.lines.get(line).map(|line| line.target.clone()) else {
                continue;
            };
            let lane = Lane::new(executor.clone(), number, line, role, buffer);
            let future = target.future(lane);
            if let Some(runner) = all.get_mut(executor.ready.runner(number)) {
                runner.add(number, future);
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

    /// `true` if jobs that have failed are given back, and not answered. From anywhere.
    pub(crate) fn keeps_failed(&self) -> bool {
        self.keeps_failed.load(Ordering::Acquire)
    }

    /// Raises an event of the device. From a thread: it takes an adaptive lock.
    pub(crate) fn raise_event(&self) {
        (self.raise)();
    }

    /// Wakes a lane: its runner polls it. From anywhere.
    pub(crate) fn wake(&self, lane: usize) {
        if let Some(runner) = self.ready.set(lane) {
            self.host.kick(runner);
        }
    }

    /// Wakes lanes of a line, a bit each. From anywhere.
    pub(crate) fn wake_all(&self, line: usize, mut lanes: u32) {
        let Some(first) = self.lines.get(line).map(|line| line.first_lane) else { return };
        while lanes != 0 {
            self.wake(first.wrapping_add(lanes.trailing_zeros() as usize));
            lanes &= lanes.wrapping_sub(1);
        }
    }

    /// Wakes every lane of a line. From anywhere.
    pub(crate) fn wake_line(&self, line: usize) {
        self.wake_all(line, u32::MAX >> (LANES - self.lanes_of(line).min(LANES)) as u32);
    }

    /// A lane's bit among those of its line.
    pub(crate) fn bit(&self, line: usize, lane: usize) -> u32 {
        let first = self.lines.get(line).map_or(0, |line| line.first_lane);
        1u32.checked_shl(lane.wrapping_sub(first) as u32).unwrap_or(0)
    }

    /// The number among serving lines of a line of the table, if its target serves I/O.
    #[inline]
    pub fn serving(&self, number: usize) -> Option<usize> {
        // A line has the same number here if all lines before it serve, too.
        if self.lines.get(number).is_some_and(|line| line.number == number) {
            return Some(number);
        }
        self.lines.binary_search_by_key(&number, |line| line.number).ok()
    }

    /// The number of serving lines.
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    pub(crate) fn lane_state(&self, lane: usize) -> Option<&LaneState> {
        self.lanes.get(lane)
    }

    fn lanes_of(&self, line: usize) -> usize {
        let first = |at: usize| self.lines.get(at).map(|line| line.first_lane);
        let end = first(line.saturating_add(1)).unwrap_or(self.lanes.len());
        end.saturating_sub(first(line).unwrap_or(end))
    }

    /// Wakes every lane, which then looks whether its wait is over. From anywhere.
    pub fn look_again(&self) {
        for (lane, _) in self.lanes.iter().enumerate() {
            self.wake(lane);
        }
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
