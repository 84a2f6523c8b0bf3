// SPDX-License-Identifier: BSD-2-Clause

//! Memory whose address the kernel keeps.

use alloc::boxed::Box;
use core::ptr::NonNull;

/// A value on the heap at an address that C, or another thread, may keep while this value moves.
///
/// A `Box` will not do for that: it promises that its owner alone has its address, each time that
/// it is moved anew, and the compiler may rely on it. Nothing here makes a reference to the value.
///
/// # Invariants
/// The pointer is that of a box, which is freed when this value is dropped and not before.
pub struct Fixed<T>(NonNull<T>);

// SAFETY: it owns a `T`, as a box would.
unsafe impl<T: Send> Send for Fixed<T> {}
// SAFETY: it gives a pointer only; the code that follows it has to say why that may be done.
unsafe impl<T: Sync> Sync for Fixed<T> {}

impl<T> Fixed<T> {
    /// Puts a value where it stays.
    pub fn new(value: T) -> Fixed<T> {
        Fixed(NonNull::from(Box::leak(Box::new(value))))
    }

    /// The value's address.
    #[inline]
    pub fn get(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Fixed<T> {
    fn drop(&mut self) {
        // SAFETY: it is a box's pointer (invariant).
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}
