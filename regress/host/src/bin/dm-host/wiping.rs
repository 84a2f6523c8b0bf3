// SPDX-License-Identifier: BSD-2-Clause

//! Memory that is wiped before it is free, in processes that have keys.
//!
//! Types that wipe themselves are for what this program keeps on purpose. A key goes further ways: through
//! buffers that grow, property lists of the hosted kernel, replies. In a process that has told so, all that
//! is freed is overwritten first.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::resource::{Resource, setrlimit};

static WIPES: AtomicBool = AtomicBool::new(false);

/// Has this process wipe memory that it frees from now on, and write none to a file when it crashes.
pub fn begin() {
    WIPES.store(true, Ordering::SeqCst);
    // A system that does not know of it has no such files.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
}

/// The system's allocator, with that.
pub struct Wiping;

/// Overwrites a block with zeroes.
///
/// # Safety
/// The block is the caller's, all of it.
unsafe fn wipe(at: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { at.write_bytes(0, bytes) };
    // To the compiler the memory is read here, so that the zeroes must be written.
    black_box(at);
}

// SAFETY: the system's allocator, with memory that is the caller's alone written to before it is freed.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the block is the caller's until it is freed, and has that size.
        unsafe {
            if WIPES.load(Ordering::Relaxed) {
                wipe(at, layout.size());
            }
            System.dealloc(at, layout);
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !WIPES.load(Ordering::Relaxed) {
            // SAFETY: the caller's promise.
            return unsafe { System.realloc(at, layout, size) };
        }
        // SAFETY: the alignment is that of a layout, and the caller promises that the size fits it; both
        // blocks hold what is copied, and are not the same.
        unsafe {
            let new = System.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(at, layout.size().min(size));
                wipe(at, layout.size());
                System.dealloc(at, layout);
            }
            new
        }
    }
}
