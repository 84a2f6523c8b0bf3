// SPDX-License-Identifier: BSD-2-Clause

//! The driver's lock-free parts under loom, which runs a model through every order in which its
//! threads can meet, and every value that the memory model lets them see, up to the number of
//! preemptions that each model states.
//!
//! The very files of `sys/entry/io`, and some of `sys/dev/dm`, are compiled here, on loom's atomics and loom's mutex. Loom
//! takes SeqCst accesses for weaker ones than they are; a fence makes up for it.

#![allow(dead_code, reason = "the models use part of what the driver uses")]

extern crate alloc;

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering, fence};

    pub(crate) fn full_fence() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

mod mutex {
    /// The driver's spin mutex.
    pub struct SpinMutex<T>(loom::sync::Mutex<T>);

    impl<T> SpinMutex<T> {
        pub fn new(data: T) -> Self {
            SpinMutex(loom::sync::Mutex::new(data))
        }

        pub fn lock(&self) -> Guard<'_, T> {
            // Loom ends the model at a panic: no mutex is poisoned.
            Guard(Some(self.0.lock().unwrap_or_else(|_| unreachable!())))
        }
    }

    /// A held mutex; empty only while its holder sleeps on a condition variable.
    pub struct Guard<'a, T>(pub Option<loom::sync::MutexGuard<'a, T>>);

    impl<T> std::ops::Deref for Guard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().unwrap_or_else(|| unreachable!())
        }
    }

    impl<T> std::ops::DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().unwrap_or_else(|| unreachable!())
        }
    }
}

mod condvar {
    use std::ffi::CStr;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// The end of a sleep by a signal.
    #[derive(Debug)]
    pub struct Interrupted;

    /// The driver's condition variable. Time does not pass here: a sleep with a timeout must be ended by a wakeup.
    pub struct Condvar {
        variable: loom::sync::Condvar,
        /// `true` until the first sleep that a signal ends.
        signal: AtomicBool,
    }

    impl Condvar {
        /// A condition variable; the first sleeper of one that is named "signal" is interrupted.
        pub fn new(name: &'static CStr) -> Self {
            let signal = AtomicBool::new(name == c"signal");
            Condvar { variable: loom::sync::Condvar::new(), signal }
        }

        pub fn wait<T>(&self, guard: &mut super::mutex::Guard<'_, T>) {
            let held = guard.0.take().unwrap_or_else(|| unreachable!());
            guard.0 = Some(self.variable.wait(held).unwrap_or_else(|_| unreachable!()));
        }

        pub fn wait_sig<T>(
            &self,
            guard: &mut super::mutex::Guard<'_, T>,
        ) -> Result<(), Interrupted> {
            if self.signal.swap(false, Ordering::Relaxed) {
                return Err(Interrupted);
            }
            self.wait(guard);
            Ok(())
        }

        pub fn wait_ticks<T>(&self, guard: &mut super::mutex::Guard<'_, T>, _: i32) {
            self.wait(guard);
        }

        pub fn broadcast(&self) {
            self.variable.notify_all();
        }
    }
}

#[path = "../../sys/entry/calls.rs"]
pub mod calls;
#[path = "../../sys/dev/dm/completing.rs"]
pub mod completing;
#[path = "../../sys/entry/io/gate.rs"]
mod gate;
#[path = "../../sys/entry/io/iogate.rs"]
pub mod iogate;
#[path = "../../sys/dev/dm/numbers.rs"]
pub mod numbers;
#[path = "../../sys/entry/io/parker.rs"]
pub mod parker;
#[path = "../../sys/entry/io/queue.rs"]
pub mod queue;
#[path = "../../sys/dev/dm/ready.rs"]
pub mod ready;
#[path = "../../sys/entry/io/reserve.rs"]
pub mod reserve;
#[path = "../../sys/dev/dm/tracker.rs"]
pub mod tracker;
#[path = "../../sys/dev/dm/version.rs"]
pub mod version;

#[cfg(test)]
#[path = "calls.rs"]
mod calls_tests;
#[cfg(test)]
#[path = "completing.rs"]
mod completing_tests;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tracked;

/// Runs `f` in every interleaving of its threads with at most so many preemptions.
#[cfg(test)]
fn model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}
