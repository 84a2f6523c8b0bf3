// SPDX-License-Identifier: BSD-2-Clause

//! A place where one thread sleeps until there is work for it.
//!
//! A thread or soft interrupt that has work for the sleeper makes it visible first and then calls
//! [`Parker::unpark`]. The sleeper says that it is about to sleep and then looks for work, so that
//! one of the two always sees the other; while it is awake, unparking costs one load.
//!
//! `regress/models` includes this file and checks it under loom.

use super::atomic::{AtomicUsize, Ordering, full_fence};
use super::condvar::Condvar;
use super::mutex::SpinMutex;

/// A place for one thread to sleep.
pub struct Parker {
    /// 1 from before the thread looks for work until it is awake. Atomic.
    asleep: AtomicUsize,
    /// Held from the look for work until the thread sleeps, and to wake it, so that no wake-up
    /// comes in between. It has no data of its own; locks that the look takes are taken under it.
    lock: SpinMutex<()>,
    /// Broadcast, with `lock` held, when there is work.
    woken: Condvar,
}

impl Parker {
    /// A place without a sleeper; `name` is what ps(1) shows of a sleeper, 8 bytes at most.
    pub fn new(name: &'static core::ffi::CStr) -> Parker {
        let (lock, woken) = (SpinMutex::new(()), Condvar::new(name));
        Parker { asleep: AtomicUsize::new(0), lock, woken }
    }

    /// Sleeps unless `work` says that there is some, until unparked or until so many ticks have
    /// passed; spurious wakeups happen. Context: one thread at a time, with no lock held.
    pub fn park(&self, work: impl FnOnce() -> bool, ticks: Option<i32>) {
        let mut guard = self.lock.lock();
        self.asleep.store(1, Ordering::SeqCst);
        full_fence();
        if !work() {
            match ticks {
                None => self.woken.wait(&mut guard),
                Some(ticks) => self.woken.wait_ticks(&mut guard, ticks),
            }
        }
        self.asleep.store(0, Ordering::SeqCst);
    }

    /// Wakes the thread, if it sleeps or is about to. The work was made visible before, with a
    /// SeqCst store or under a lock that the look at it takes. Context: thread or soft interrupt;
    /// does not sleep.
    #[inline]
    pub fn unpark(&self) {
        full_fence();
        if self.asleep.load(Ordering::SeqCst) != 0 {
            let guard = self.lock.lock();
            self.woken.broadcast();
            drop(guard);
        }
    }
}
