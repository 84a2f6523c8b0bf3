// SPDX-License-Identifier: BSD-2-Clause

//! condvar(9).

use core::ffi::CStr;

use dm_core::Errno;

use super::fixed::Fixed;
use super::mutex::{Guard, Kind};
use super::sys;

/// The end of a sleep by a signal: EINTR, or ERESTART as the kernel has it.
pub type Interrupted = Errno;

/// A condition variable. Only threads sleep on one, and hold no other mutex then than the one
/// given; that may be a spin mutex at IPL_BIO, which cv_wait(9) allows.
///
/// # Invariants
/// The kernel's variable is initialised as long as this value lives.
pub struct Condvar(Fixed<sys::kcondvar_t>);

// SAFETY: condvar(9) is made to be used by many threads at once.
unsafe impl Send for Condvar {}
// SAFETY: as above.
unsafe impl Sync for Condvar {}

impl Condvar {
    /// A new condition variable; `name` is what ps(1) shows of a sleeper, 8 bytes at most.
    pub fn new(name: &'static CStr) -> Condvar {
        // SAFETY: kcondvar_t is plain memory that cv_init(9) fills.
        let raw = Fixed::new(unsafe { core::mem::zeroed() });
        // SAFETY: `raw` is fresh and stays where it is; `name` lives for ever.
        unsafe { sys::cv_init(raw.get(), name.as_ptr()) };
        Condvar(raw)
    }

    /// Sleeps until woken, without the mutex.
    pub fn wait<T, K: Kind>(&self, guard: &mut Guard<'_, T, K>) {
        // SAFETY: initialised (invariant); the guard shows that this thread holds the mutex, and
        // being borrowed mutably, that it has no reference into the data while others have it.
        unsafe { sys::cv_wait(self.0.get(), guard.raw()) }
    }

    /// Sleeps until woken or until a signal comes, without the mutex.
    ///
    /// # Errors
    /// EINTR or ERESTART.
    pub fn wait_sig<T, K: Kind>(&self, guard: &mut Guard<'_, T, K>) -> Result<(), Interrupted> {
        // SAFETY: initialised (invariant), and the guard, borrowed mutably, shows that this thread
        // holds the mutex and has no reference into the data.
        Errno::check(unsafe { sys::cv_wait_sig(self.0.get(), guard.raw()) })
    }

    /// Sleeps until woken, without the mutex, or until so many ticks have passed, at least one.
    pub fn wait_ticks<T, K: Kind>(&self, guard: &mut Guard<'_, T, K>, ticks: i32) {
        // SAFETY: initialised (invariant), and the guard, borrowed mutably, shows that this thread
        // holds the mutex and has no reference into the data. That it was the time is no error.
        unsafe { sys::cv_timedwait(self.0.get(), guard.raw(), ticks.max(1)) };
    }

    /// Wakes all sleepers. Context: thread or soft interrupt; does not sleep.
    pub fn broadcast(&self) {
        // SAFETY: initialised (invariant).
        unsafe { sys::cv_broadcast(self.0.get()) }
    }
}

impl Drop for Condvar {
    fn drop(&mut self) {
        // SAFETY: initialised (invariant), and nobody sleeps on it: that would borrow it.
        unsafe { sys::cv_destroy(self.0.get()) }
    }
}
