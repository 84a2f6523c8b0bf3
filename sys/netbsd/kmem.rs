// SPDX-License-Identifier: BSD-2-Clause

//! kmem(9), as Rust's allocator. KM_SLEEP never fails, so neither does an allocation; the price
//! is that nothing may be allocated where one may not sleep, which the I/O path does not.

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;
use core::ptr;

use super::sys;

/// kmem(9).
struct Kmem;

/// The alignment of kmem(9)'s blocks, but for those of a page or more.
const ALIGN: usize = core::mem::align_of::<u64>();

// An address fits before an aligned block.
const _: () = assert!(ALIGN >= size_of::<*mut u8>());

#[global_allocator]
static KMEM: Kmem = Kmem;

/// Takes a block for a layout. Where kmem(9) does not align enough the block is larger by the
/// alignment: its start is moved, and the address that kmem(9) gave lies before that.
///
/// # Safety
/// `take` is one of kmem(9)'s; the layout's size is not 0.
unsafe fn block(
    layout: Layout,
    take: unsafe extern "C" fn(usize, sys::km_flag_t) -> *mut c_void,
) -> *mut u8 {
    // SAFETY: the caller's promise.
    let take = |size| unsafe { take(size, sys::KM_SLEEP as _).cast::<u8>() };
    if layout.align() <= ALIGN {
        return take(layout.size());
    }
    let Some(size) = layout.size().checked_add(layout.align()) else { return ptr::null_mut() };
    let whole = take(size);
    // At least `ALIGN`, since that divides both, and at most the layout's alignment.
    let skip = layout.align().wrapping_sub(whole.addr() & layout.align().wrapping_sub(1));
    // SAFETY: the block has as many bytes more than the layout, so that all of it lies behind what
    // is skipped, and an address there.
    unsafe {
        let start = whole.add(skip);
        start.cast::<*mut u8>().sub(1).write(whole);
        start
    }
}

// SAFETY: kmem_alloc(9) returns a block of the size asked for, that no other owner has, until
// kmem_free(9) with the same size.
unsafe impl GlobalAlloc for Kmem {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the size is not 0: GlobalAlloc's callers promise that.
        unsafe { block(layout, sys::kmem_alloc) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the size is not 0: GlobalAlloc's callers promise that.
        unsafe { block(layout, sys::kmem_zalloc) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc` with this layout, which has put the address of
        // kmem(9)'s before it where it is not kmem(9)'s own. The sum is one that `alloc` has found
        // not to wrap.
        unsafe {
            if layout.align() <= ALIGN {
                return sys::kmem_free(block.cast(), layout.size());
            }
            let whole = block.cast::<*mut u8>().sub(1).read();
            sys::kmem_free(whole.cast(), layout.size().wrapping_add(layout.align()));
        }
    }
}
