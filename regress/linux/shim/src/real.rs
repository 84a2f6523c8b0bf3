// SPDX-License-Identifier: BSD-2-Clause

//! The C library's own functions, behind ours.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function of the C library's, looked up once.
pub struct Symbol {
    name: &'static CStr,
    at: AtomicPtr<c_void>,
}

impl Symbol {
    /// The function with this name.
    pub const fn new(name: &'static CStr) -> Symbol {
        Symbol { name, at: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// The function's address. A function that this C library does not have ends the program.
    pub fn get(&self) -> *mut c_void {
        let known = self.at.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: dlsym(3) with a string; RTLD_NEXT is what comes after this library.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        if found.is_null() {
            // SAFETY: abort(3) takes nothing and does not return.
            unsafe { libc::abort() };
        }
        self.at.store(found, Ordering::Relaxed);
        found
    }
}

/// Calls the C library's function of a name, whose type is given.
macro_rules! real {
    ($name:literal as fn($($kind:ty),*) -> $result:ty, $($argument:expr),*) => {{
        static SYMBOL: $crate::real::Symbol = $crate::real::Symbol::new($name);
        // SAFETY: the C library's function of that name has this type: its header says so.
        let function = unsafe {
            std::mem::transmute::<*mut std::ffi::c_void, unsafe extern "C" fn($($kind),*) -> $result>(
                SYMBOL.get(),
            )
        };
        // SAFETY: the arguments are those that our caller gave for the same function, or ones of
        // the same kind that live at least as long as the call.
        unsafe { function($($argument),*) }
    }};
}
pub(crate) use real;

/// Sets errno and returns -1.
pub fn fail(errno: i32) -> i32 {
    // SAFETY: errno is the calling thread's own.
    unsafe { *libc::__errno_location() = errno };
    -1
}
