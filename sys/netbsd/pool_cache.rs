// SPDX-License-Identifier: BSD-2-Clause

//! pool_cache(9): objects that are constructed once and used many times.

use core::ffi::{CStr, c_int, c_void};
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::sys;

/// An object of a [`PoolCache`].
///
/// # Safety
/// `init` leaves a valid object in memory that held anything, `fini` ends it, and an object is
/// valid between the two wherever in memory it lies but does not move.
pub unsafe trait Pooled {
    /// Builds an object.
    ///
    /// # Safety
    /// `object` points to memory for one that is not in use.
    unsafe fn init(object: *mut Self);

    /// Takes an object down.
    ///
    /// # Safety
    /// `object` was built by `init` and is not in use.
    unsafe fn fini(object: *mut Self);
}

/// A cache of built objects.
///
/// # Invariants
/// The kernel's cache lives as long as this value.
pub struct PoolCache<T: Pooled> {
    raw: sys::pool_cache_t,
    objects: PhantomData<T>,
}

// SAFETY: pool_cache(9) is made to be used by many CPUs at once; its objects are raw memory.
unsafe impl<T: Pooled> Send for PoolCache<T> {}
// SAFETY: as above.
unsafe impl<T: Pooled> Sync for PoolCache<T> {}

unsafe extern "C" fn construct<T: Pooled>(_: *mut c_void, object: *mut c_void, _: c_int) -> c_int {
    // SAFETY: pool_cache(9) calls the constructor with memory of the size given to `new`.
    unsafe { T::init(object.cast()) };
    0
}

unsafe extern "C" fn destruct<T: Pooled>(_: *mut c_void, object: *mut c_void) {
    // SAFETY: pool_cache(9) calls the destructor with an object that the constructor built and
    // that was put back.
    unsafe { T::fini(object.cast()) };
}

impl<T: Pooled> PoolCache<T> {
    /// A new cache; `name` is what vmstat(8) shows.
    pub fn new(name: &'static CStr) -> Self {
        // SAFETY: size and functions fit `T`; pool_cache_init(9) sleeps and does not fail.
        let raw = unsafe {
            sys::pool_cache_init(
                size_of::<T>(),
                align_of::<T>() as _,
                0,
                0,
                name.as_ptr(),
                core::ptr::null_mut(),
                sys::IPL_VM as _,
                Some(construct::<T>),
                Some(destruct::<T>),
                core::ptr::null_mut(),
            )
        };
        PoolCache { raw, objects: PhantomData }
    }

    /// An object, if one can be had without sleeping. Context: thread or soft interrupt.
    #[inline]
    pub fn get(&self) -> Option<NonNull<T>> {
        // SAFETY: the cache lives (invariant).
        NonNull::new(unsafe { sys::dm_shim_pool_get(self.raw, sys::PR_NOWAIT as _) }.cast())
    }

    /// An object. Context: a thread; sleeps until there is one.
    pub fn get_sleeping(&self) -> NonNull<T> {
        loop {
            // SAFETY: the cache lives (invariant). PR_WAITOK does not fail.
            let object = unsafe { sys::dm_shim_pool_get(self.raw, sys::PR_WAITOK as _) };
            if let Some(object) = NonNull::new(object.cast()) {
                return object;
            }
        }
    }

    /// Puts an object back. Context: thread or soft interrupt; does not sleep.
    ///
    /// # Safety
    /// It came from this cache, and the caller does not use it again.
    #[inline]
    pub unsafe fn put(&self, object: NonNull<T>) {
        // SAFETY: the caller's promise.
        unsafe { sys::dm_shim_pool_put(self.raw, object.as_ptr().cast()) }
    }
}

impl<T: Pooled> Drop for PoolCache<T> {
    fn drop(&mut self) {
        // SAFETY: the cache lives (invariant) and does not any longer from here on. An object that
        // is still out could only come back through this cache.
        unsafe { sys::pool_cache_destroy(self.raw) }
    }
}
