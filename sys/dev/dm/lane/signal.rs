// SPDX-License-Identifier: BSD-2-Clause

//! Signals: conditions that a lane waits for beside its own requests, and that other lanes, senders
//! or completions change.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use super::{Lane, until_some};
use crate::executor::Executor;

/// A reference to a line's engine with which its lanes are woken from outside: by another table's
/// lanes, in a sender's thread, or in a soft interrupt, where an I/O of another table is over. It
/// keeps the engine, so that it must be dropped before the table can go; a soft interrupt does not
/// drop it.
pub struct LineWaker {
    pub(super) executor: Arc<Executor>,
    pub(super) line: usize,
}

impl LineWaker {
    /// Wakes the lanes that wait for a signal. Context: thread or soft interrupt; does not sleep. A
    /// target's [`Spin`](dm_sync::Spin) may be held.
    pub fn raise(&self, signal: &Signal) {
        self.executor.wake_all(self.line, signal.take());
    }

    /// Wakes all lanes of the line, which then look whether their waits are over. Context: as for
    /// [`LineWaker::raise`].
    pub fn look_again(&self) {
        self.executor.wake_line(self.line);
    }

    /// `true` once the engine's table goes.
    pub fn ending(&self) -> bool {
        self.executor.is_ending()
    }
}

/// A condition variable for the lanes of one line: [`Lane::until`], [`Lane::raise`]. The condition
/// itself is kept elsewhere, under the target's own lock or in atomics.
#[derive(Default)]
pub struct Signal {
    /// The lanes that wait, a bit each.
    waiting: AtomicU32,
}

impl Signal {
    /// A signal that no lane waits for.
    pub const fn new() -> Signal {
        Signal { waiting: AtomicU32::new(0) }
    }

    /// The lanes that waited, a bit each; they wait no more.
    pub(crate) fn take(&self) -> u32 {
        self.waiting.swap(0, Ordering::SeqCst)
    }
}

impl Lane {
    /// Waits until `condition` returns something. It is called at once and whenever `signal` is
    /// raised; it must not sleep.
    pub async fn until<T>(
        &mut self,
        signal: &Signal,
        mut condition: impl FnMut() -> Option<T>,
    ) -> T {
        until_some(|| self.look(signal, &mut condition)).await
    }

    /// Waits as [`Lane::until`] does; `None` when the device is being suspended first.
    pub async fn until_stopping<T>(
        &mut self,
        signal: &Signal,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        until_some(|| match self.look(signal, &mut condition) {
            None if self.stopping() => Some(None),
            found => found.map(Some),
        })
        .await
    }

    fn look<T>(&self, signal: &Signal, condition: &mut impl FnMut() -> Option<T>) -> Option<T> {
        // First the bit, then the look: a context changes the condition before it raises the
        // signal.
        signal.waiting.fetch_or(self.bit, Ordering::SeqCst);
        let found = condition();
        if found.is_some() {
            signal.waiting.fetch_and(!self.bit, Ordering::SeqCst);
        }
        found
    }

    /// Wakes the lanes that wait for a signal.
    pub fn raise(&self, signal: &Signal) {
        self.executor.wake_all(self.line, signal.take());
    }
}
