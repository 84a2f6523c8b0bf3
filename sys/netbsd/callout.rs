// SPDX-License-Identifier: BSD-2-Clause

//! callout(9).

use core::ffi::c_void;
use core::marker::PhantomData;

use super::fixed::Fixed;
use super::sys;

/// A target of a callout.
pub trait Tick: Sync {
    /// The function that is called, in a soft interrupt: it does not sleep.
    fn tick(&'static self);
}

/// A callout for one `T`.
///
/// # Invariants
/// The kernel's callout is initialised as long as this value lives.
pub struct Callout<T: Tick + 'static> {
    raw: Fixed<sys::callout_t>,
    target: PhantomData<&'static T>,
}

// SAFETY: callout(9) is made to be used by many threads at once.
unsafe impl<T: Tick> Send for Callout<T> {}
// SAFETY: as above.
unsafe impl<T: Tick> Sync for Callout<T> {}

unsafe extern "C" fn call<T: Tick + 'static>(target: *mut c_void) {
    // SAFETY: `Callout::new` gave a &'static T.
    unsafe { &*target.cast::<T>() }.tick();
}

impl<T: Tick> Callout<T> {
    /// A callout that calls `target`.
    pub fn new(target: &'static T) -> Self {
        // SAFETY: callout_t is plain memory that callout_init(9) fills.
        let raw: Fixed<sys::callout_t> = Fixed::new(unsafe { core::mem::zeroed() });
        // SAFETY: `raw` is fresh and stays where it is; the function's argument lives for ever.
        unsafe {
            sys::callout_init(raw.get(), sys::CALLOUT_MPSAFE as _);
            let target: *const T = target;
            sys::callout_setfunc(raw.get(), Some(call::<T>), target.cast_mut().cast());
        }
        Callout { raw, target: PhantomData }
    }

    /// Schedules the call after `ticks`. Context: thread or soft interrupt; does not sleep.
    pub fn schedule(&self, ticks: i32) {
        // SAFETY: initialised (invariant).
        unsafe { sys::callout_schedule(self.raw.get(), ticks) }
    }
}

impl<T: Tick + 'static> Callout<T> {
    /// Cancels the call, and waits for one that is in progress. Context: a thread.
    pub fn halt(&self) {
        // SAFETY: initialised (invariant). The function takes no lock of ours that is held here.
        unsafe { sys::callout_halt(self.raw.get(), core::ptr::null_mut()) };
    }
}

impl<T: Tick + 'static> Drop for Callout<T> {
    fn drop(&mut self) {
        self.halt();
        // SAFETY: initialised (invariant), and not running.
        unsafe { sys::callout_destroy(self.raw.get()) };
    }
}
