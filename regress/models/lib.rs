//! The driver's lock-free parts under loom, which runs a model through every order in which its
//! threads can meet, and every value that the memory model lets them see, up to the number of
//! preemptions that each model states.
//!
//! The very files of `sys/kern` are compiled here, on loom's atomics and loom's mutex. Loom takes
//! SeqCst accesses for weaker ones than they are; a fence makes up for it.

#![allow(dead_code, reason = "the models use part of what the driver uses")]

extern crate alloc;

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};

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

        pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            // Loom ends the model at a panic: no mutex is poisoned.
            self.0.lock().unwrap_or_else(|_| unreachable!())
        }
    }
}

#[path = "../../sys/kern/gate.rs"]
pub mod gate;
#[path = "../../sys/kern/reserve.rs"]
pub mod reserve;

#[cfg(test)]
mod tests;
