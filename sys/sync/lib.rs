// SPDX-License-Identifier: BSD-2-Clause

//! A spin mutex for code that is independent of the kernel.
//!
//! Targets keep state that [`map`] reads on any CPU and that lanes change, so they need a lock
//! that may be taken in a soft interrupt. `dm-core` is not generic in the kernel where targets are
//! concerned, and may not use `unsafe`; so the lock stands here. In a kernel it is mutex(9) at
//! IPL_BIO, reached through [`Calls`]; where nobody has called [`use_calls`] (tests of `dm-core`,
//! the simulation) it is a plain spin lock.
//!
//! [`map`]: ../dm_core/target/trait.Target.html#tymethod.map

#![no_std]

extern crate alloc;

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

mod grown;
mod wipe;

pub use grown::Grown;
pub use wipe::{Number, wipe, wipe_text};

/// The kernel's spin mutexes: `alloc` makes one that is free, the others take the pointer it gave.
pub struct Calls {
    /// Makes a mutex. May sleep for memory.
    pub alloc: fn() -> NonNull<()>,
    /// Destroys a mutex that is not held.
    pub free: unsafe fn(NonNull<()>),
    /// Takes a mutex.
    pub enter: unsafe fn(NonNull<()>),
    /// Lets go of a mutex that this CPU holds.
    pub exit: unsafe fn(NonNull<()>),
}

static CALLS: AtomicPtr<Calls> = AtomicPtr::new(ptr::null_mut());

/// Gives every [`Spin`] that is made from now on a mutex of a kernel's.
pub fn use_calls(calls: &'static Calls) {
    CALLS.store(ptr::from_ref(calls).cast_mut(), Ordering::Release);
}

/// Gives every [`Spin`] that is made from now on a plain spin lock again.
pub fn use_own() {
    CALLS.store(ptr::null_mut(), Ordering::Release);
}

/// The lock itself.
enum Raw {
    /// The kernel's, and the functions that made it.
    Kernel(NonNull<()>, &'static Calls),
    /// Our own: `true` while it is held.
    Own(AtomicBool),
}

impl Raw {
    fn new() -> Raw {
        // SAFETY: null, or a &'static Calls from `use_calls`.
        match unsafe { CALLS.load(Ordering::Acquire).as_ref() } {
            Some(calls) => Raw::Kernel((calls.alloc)(), calls),
            None => Raw::Own(AtomicBool::new(false)),
        }
    }

    #[inline]
    fn enter(&self) {
        match self {
            // SAFETY: `alloc` of the same calls made it, and `Spin::drop` alone frees it.
            Raw::Kernel(raw, calls) => unsafe { (calls.enter)(*raw) },
            Raw::Own(held) => {
                while held.swap(true, Ordering::Acquire) {
                    core::hint::spin_loop();
                }
            }
        }
    }

    #[inline]
    fn exit(&self) {
        match self {
            // SAFETY: `alloc` of the same calls made it, and the guard that calls this has taken
            // it.
            Raw::Kernel(raw, calls) => unsafe { (calls.exit)(*raw) },
            Raw::Own(held) => held.store(false, Ordering::Release),
        }
    }
}

/// A spin mutex that owns its data. Its holder does not sleep, allocate or take an adaptive lock.
/// It is held for a few instructions, in a kernel at IPL_BIO; targets that hold one for longer say
/// for how long at most.
pub struct Spin<T> {
    raw: Raw,
    data: UnsafeCell<T>,
}

// SAFETY: the lock gives the data to one thread at a time, which is what `T: Send` allows; the
// kernel's mutex may be used from any thread.
unsafe impl<T: Send> Send for Spin<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Spin<T> {}

impl<T> Spin<T> {
    /// A free mutex around `data`. May sleep for memory, so it is made when a table is loaded.
    pub fn new(data: T) -> Spin<T> {
        Spin { raw: Raw::new(), data: UnsafeCell::new(data) }
    }

    /// Takes the mutex. Context: thread or soft interrupt. The guard is not `Send`: a future that
    /// holds one across an `await` is refused by the compiler where lanes are made.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        self.raw.enter();
        Guard { spin: self, here: PhantomData }
    }

    /// The data, to who has the mutex for itself.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }
}

impl<T: Default> Default for Spin<T> {
    fn default() -> Self {
        Spin::new(T::default())
    }
}

impl<T> Drop for Spin<T> {
    fn drop(&mut self) {
        if let Raw::Kernel(raw, calls) = &self.raw {
            // SAFETY: `alloc` of the same calls made it, and no guard borrows it any more.
            unsafe { (calls.free)(*raw) };
        }
    }
}

/// A held [`Spin`]; dropping it lets go.
pub struct Guard<'a, T> {
    spin: &'a Spin<T>,
    here: PhantomData<*mut ()>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the mutex is held, so nobody else has the data.
        unsafe { &*self.spin.data.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the mutex is held, so nobody else has the data, and the guard is borrowed
        // mutably.
        unsafe { &mut *self.spin.data.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.spin.raw.exit();
    }
}
