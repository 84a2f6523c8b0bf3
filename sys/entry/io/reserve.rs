// SPDX-License-Identifier: BSD-2-Clause

//! A device's reserve: one child and one split for when the pools are empty, and the I/O that waits
//! for them.
//!
//! An I/O needs a child, and one in several pieces a split and then a child for each piece. I/O
//! that finds the pools empty and the reserve taken waits; the reserve comes back when the I/O that
//! has it is done. So there is always one I/O that goes on, and a page-out does not wait for the
//! memory that it is to free.
//!
//! Context of everything here: thread or soft interrupt, no lock of the driver's held; nothing
//! sleeps.
//!
//! Generic in what it keeps, so that `regress/models` can check it under loom.

use super::mutex::SpinMutex;
use super::queue::Queue;

/// A reserve of one child `C` and one split `S`; whole I/O waits in an `I`, splits that need a
/// child for their next piece wait in a `P`.
pub struct Reserve<C, S, I: Queue, P: Queue>(SpinMutex<State<C, S, I, P>>);

struct State<C, S, I, P> {
    /// The reserve's child, unless an I/O has it.
    child: Option<C>,
    /// The reserve's split, unless an I/O has it.
    split: Option<S>,
    /// Whole I/O, outside the gate, that waits for both.
    starved: I,
    /// Splits, inside the gate, that wait for the child for their next piece.
    halted: P,
    /// `true` while a thread is in [`Reserve::serve`].
    serving: bool,
}

/// The next that goes on.
pub enum Next<I, P> {
    /// An I/O, from the start.
    Starved(I),
    /// A split, with its next piece.
    Halted(P),
}

impl<C, S, I: Queue, P: Queue> Reserve<C, S, I, P> {
    /// A reserve of these two.
    pub fn new(child: Option<C>, split: Option<S>) -> Self {
        let (starved, halted) = (I::default(), P::default());
        Reserve(SpinMutex::new(State { child, split, starved, halted, serving: false }))
    }

    /// Takes the child.
    pub fn take_child(&self) -> Option<C> {
        self.0.lock().child.take()
    }

    /// Takes the split.
    pub fn take_split(&self) -> Option<S> {
        self.0.lock().split.take()
    }

    /// Takes the child for a split's next piece, or queues the split until the child comes back.
    pub fn take_child_or_halt(&self, split: P::Item) -> Option<C> {
        let mut state = self.0.lock();
        let child = state.child.take();
        if child.is_none() {
            state.halted.push(split);
        }
        child
    }

    /// Queues an I/O until child and split have come back. [`Reserve::serve`] must follow: they may
    /// have by now.
    pub fn starve(&self, io: I::Item) {
        self.0.lock().starved.push(io);
    }

    /// Brings the child back. [`Reserve::serve`] must follow.
    pub fn put_child(&self, child: C) {
        self.0.lock().child = Some(child);
    }

    /// Brings the split back. [`Reserve::serve`] must follow.
    pub fn put_split(&self, split: S) {
        self.0.lock().split = Some(split);
    }

    /// Takes the whole I/O that waits.
    pub fn take_starved(&self) -> I {
        core::mem::take(&mut self.0.lock().starved)
    }

    /// Lets I/O that waits go on, as far as the reserve goes; splits first, since they hold what
    /// other I/O waits for. One thread serves at a time, in a loop: a component that completes at
    /// once comes back here from within `go`, and must not make the stack grow. `go` is called with
    /// no lock held.
    pub fn serve(&self, mut go: impl FnMut(Next<I::Item, P::Item>)) {
        let mut state = self.0.lock();
        if state.serving {
            return;
        }
        state.serving = true;
        while state.child.is_some() {
            let next = match state.halted.pop() {
                Some(split) => Next::Halted(split),
                None if state.split.is_none() => break,
                None => match state.starved.pop() {
                    Some(io) => Next::Starved(io),
                    None => break,
                },
            };
            drop(state);
            go(next);
            state = self.0.lock();
        }
        state.serving = false;
    }
}
