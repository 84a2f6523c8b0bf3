// SPDX-License-Identifier: BSD-2-Clause

//! Completion of a disk's I/O: its context and order.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::unit::Unit;
use crate::frugal;
use crate::lwp::{self, Context};
use crate::netbsd as nb;

/// The context and order in which a disk's I/O completes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completion {
    /// I/O completes in the thread that sends it, before d_strategy returns.
    Inline,
    /// I/O completes in another thread, in order.
    Thread,
    /// I/O completes in a hard interrupt; NetBSD then completes the buffer in a soft interrupt.
    Interrupt,
    /// I/O completes in a hard interrupt and out of order, as this seed says.
    Shuffled(u64),
}

/// An I/O that waits.
pub(super) struct Pending {
    pub(super) bp: *mut nb::buf,
}

// SAFETY: a buffer in the queue belongs to the disk.
unsafe impl Send for Pending {}

pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    pending: VecDeque<Pending>,
    completion: Completion,
    held: bool,
    /// `true` while a worker runs; it ends when the disk is detached.
    worker: bool,
    ending: bool,
    random: u64,
}

impl Queue {
    pub(super) fn new(completion: Completion) -> Queue {
        Queue {
            state: Mutex::new(State {
                pending: VecDeque::new(),
                completion,
                held: false,
                worker: false,
                ending: false,
                random: seed(completion),
            }),
            wake: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// `true` if I/O need not wait here, and completes at once.
    pub(super) fn is_inline(&self) -> bool {
        let state = self.state();
        state.completion == Completion::Inline && !state.held && state.pending.is_empty()
    }

    /// Takes an I/O; gives it back if it is to be done at once.
    pub(super) fn push(&self, unit: &Arc<Unit>, pending: Pending) -> Option<Pending> {
        let mut state = self.state();
        if state.completion == Completion::Inline && !state.held {
            return Some(pending);
        }
        frugal::within(|| state.pending.push_back(pending));
        if state.completion != Completion::Inline && !state.worker {
            state.worker = true;
            let unit = unit.clone();
            let spawned = frugal::within(|| {
                let name = format!("disk {}", unit.name);
                std::thread::Builder::new().name(name).spawn(move || work(&unit))
            });
            if spawned.is_err() {
                crate::console::stop("no thread for a disk");
            }
        }
        self.wake.notify_one();
        None
    }

    pub(super) fn set(&self, completion: Completion) {
        let mut state = self.state();
        state.completion = completion;
        state.random = seed(completion);
        self.wake.notify_one();
    }

    pub(super) fn hold(&self) {
        self.state().held = true;
    }

    pub(super) fn held(&self) -> usize {
        let state = self.state();
        if state.held { state.pending.len() } else { 0 }
    }

    pub(super) fn release(&self, unit: &Arc<Unit>) {
        loop {
            let next = {
                let mut state = self.state();
                if state.completion != Completion::Inline {
                    state.held = false;
                    self.wake.notify_one();
                    return;
                }
                let next = state.pending.pop_front();
                if next.is_none() {
                    state.held = false;
                }
                next
            };
            match next {
                Some(pending) => unit.finish(pending.bp),
                None => return,
            }
        }
    }

    pub(super) fn release_one(&self, unit: &Arc<Unit>, index: usize) -> bool {
        let next = {
            let mut state = self.state();
            if !state.held {
                return false;
            }
            state.pending.remove(index)
        };
        next.is_some_and(|pending| {
            unit.finish(pending.bp);
            true
        })
    }

    /// Ends the disk's worker, as the disk is detached.
    pub(super) fn end(&self) {
        self.state().ending = true;
        self.wake.notify_all();
    }
}

fn seed(completion: Completion) -> u64 {
    match completion {
        Completion::Shuffled(seed) => seed.wrapping_mul(2).wrapping_add(1),
        _ => 1,
    }
}

fn work(unit: &Arc<Unit>) {
    lwp::begin();
    let queue = &unit.queue;
    let mut state = queue.state();
    loop {
        if state.ending && state.pending.is_empty() {
            return;
        }
        if state.held || state.pending.is_empty() {
            state = queue.wake.wait(state).unwrap_or_else(|e| e.into_inner());
            continue;
        }
        let mut context = Context::HardInterrupt;
        let at = match state.completion {
            Completion::Inline | Completion::Thread => {
                context = Context::Thread;
                0
            }
            Completion::Interrupt => 0,
            Completion::Shuffled(_) => {
                if state.pending.len() == 1 {
                    // Something to change places with may be on its way.
                    let wait = Duration::from_micros(50);
                    state =
                        queue.wake.wait_timeout(state, wait).unwrap_or_else(|e| e.into_inner()).0;
                    if state.pending.is_empty() || state.held {
                        continue;
                    }
                }
                // xorshift
                state.random ^= state.random << 13;
                state.random ^= state.random >> 7;
                state.random ^= state.random << 17;
                (state.random % state.pending.len() as u64) as usize
            }
        };
        let Some(pending) = state.pending.remove(at) else { continue };
        drop(state);
        lwp::with_context(context, || unit.finish(pending.bp));
        state = queue.state();
    }
}
