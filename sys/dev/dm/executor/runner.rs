// SPDX-License-Identifier: BSD-2-Clause

//! Runners, which poll lanes, and lanes that sleep until a moment.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::task::{Context, Waker};

use super::Executor;
#[cfg(doc)]
use crate::host::Ready;
use crate::worker::LaneFuture;

/// A lane's sleep. Only its runner's thread uses the fields; they are atomic so that lanes can be
/// shared.
#[derive(Default)]
pub(crate) struct LaneState {
    /// The moment that the lane sleeps until, if `sleeps`.
    until: AtomicU32,
    /// `true` while the lane sleeps until a moment.
    sleeps: AtomicBool,
}

impl LaneState {
    /// Notes the moment that the lane sleeps until, or that it does not sleep.
    pub(crate) fn sleep(&self, until: Option<u32>) {
        if let Some(until) = until {
            self.until.store(until, Ordering::Relaxed);
        }
        self.sleeps.store(until.is_some(), Ordering::Relaxed);
    }

    fn wakes_in(&self, now: u32) -> Option<u32> {
        let left = self.until.load(Ordering::Relaxed).wrapping_sub(now);
        // A moment in the past is more than half round the clock.
        let left = if left > u32::MAX / 2 { 0 } else { left };
        self.sleeps.load(Ordering::Relaxed).then_some(left)
    }
}

/// Polls some of an engine's lanes: those that its plan has given to the runner of this number.
/// Owned by one thread.
pub struct Runner {
    number: usize,
    executor: Arc<Executor>,
    /// The lanes' numbers and futures, in the order of their bits in [`Ready`].
    lanes: Vec<(usize, LaneFuture)>,
    /// `false` if no lane of these sleeps.
    sleepers: Cell<bool>,
}

impl Runner {
    /// A runner without lanes.
    pub(super) fn new(number: usize, executor: Arc<Executor>) -> Runner {
        Runner { number, executor, lanes: Vec::new(), sleepers: Cell::new(false) }
    }

    /// Gives the runner a lane, with its number; lanes come in the order of their numbers.
    pub(super) fn add(&mut self, lane: usize, future: LaneFuture) {
        self.lanes.push((lane, future));
    }

    /// The runner's number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Polls lanes until none is ready. Returns the number of milliseconds after which one wants to
    /// be polled again, if any sleeps.
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

    /// Marks sleeping lanes to be polled whose moment has come. Returns the number of milliseconds
    /// after which the next one's comes.
    pub(crate) fn wake_sleepers(&self) -> Option<u32> {
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
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn poll(&mut self, at: usize) {
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
