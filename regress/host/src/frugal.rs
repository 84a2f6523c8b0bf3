// SPDX-License-Identifier: BSD-2-Clause

//! Threads that hold I/O: while one does, nothing that it needs may wait for memory.
//!
//! The driver says when (dm_shim_frugal). From then on the machine stops when the thread asks for
//! memory that it would wait for: from kmem(9), from a pool, from proplib, or from the heap of the
//! process, where the driver's is. A mutex that such a thread has taken once is remembered: whoever
//! waits for memory with it held stops the machine too.
//!
//! The heap is looked at in programs whose `#[global_allocator]` is [`Watched`]. What the hosted
//! kernel takes from it for itself, inside [`within`], does not count.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;

use crate::console::kpanic;
use crate::lwp::{self, Lwp};
use crate::mutex;
use crate::netbsd as nb;

/// Adaptive mutexes that were taken by a thread that holds I/O.
static TAKEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// Records that a thread that holds I/O has taken a mutex.
pub(crate) fn took(m: *const nb::kmutex_t) {
    within(|| {
        let mut taken = TAKEN.lock().unwrap_or_else(|e| e.into_inner());
        if !taken.contains(&(m as usize)) {
            taken.push(m as usize);
        }
    });
}

/// Forgets a mutex.
pub(crate) fn destroyed(m: *const nb::kmutex_t) {
    TAKEN.lock().unwrap_or_else(|e| e.into_inner()).retain(|taken| *taken != m as usize);
}

/// Stops the machine if the thread may not wait for memory.
#[inline]
pub(crate) fn assert_may_wait(what: &str) {
    let lwp = lwp::current();
    if lwp.is_frugal() || lwp.held.get() != 0 {
        look_closer(lwp, what);
    }
}

#[cold]
#[inline(never)]
fn look_closer(lwp: &Lwp, what: &str) {
    if lwp.inside.get() != 0 || std::thread::panicking() {
        return;
    }
    if lwp.is_frugal() {
        kpanic!("{what} by a thread that holds I/O");
    }
    // `destroyed` frees nothing, so the lock is not held by this thread.
    let taken = TAKEN.lock().unwrap_or_else(|e| e.into_inner());
    let mut held = taken.iter().copied().filter(|m| mutex::owned(*m as *const nb::kmutex_t));
    if let Some(m) = held.next() {
        kpanic!("{what} with mutex {m:#x} held, which is taken while I/O is held");
    }
}

/// Runs a part of the hosted kernel that uses the heap for itself.
#[inline]
pub(crate) fn within<R>(f: impl FnOnce() -> R) -> R {
    let lwp = lwp::current();
    lwp.inside.set(lwp.inside.get() + 1);
    let result = f();
    lwp.inside.set(lwp.inside.get() - 1);
    result
}

/// A `#[global_allocator]` that stops the machine when a thread that may not wait for memory asks for some.
pub struct Watched;

impl Watched {
    /// Stops the machine if the calling thread may not ask for memory. For other allocators.
    #[inline]
    pub fn look() {
        assert_may_wait("an allocation");
    }
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Watched::look();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Watched::look();
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Watched::look();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

/// The function that dm_shim_frugal calls.
#[unsafe(no_mangle)]
extern "C" fn dm_host_frugal(on: bool) {
    lwp::current().set_frugal(on);
}
