//! kmem(9), as Rust's allocator. KM_SLEEP never fails, so neither does an allocation; the price
//! is that nothing may be allocated where one may not sleep, which the I/O path does not.

use core::alloc::{GlobalAlloc, Layout};

use super::sys;

/// kmem(9).
struct Kmem;

/// What kmem(9) aligns every block to, that is not a page or more.
const ALIGN: usize = core::mem::align_of::<u64>();

#[global_allocator]
static KMEM: Kmem = Kmem;

// SAFETY: kmem_alloc(9) returns a block of the size asked for, that nobody else has, until
// kmem_free(9) with the same size.
unsafe impl GlobalAlloc for Kmem {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGN {
            return core::ptr::null_mut();
        }
        // SAFETY: the size is not 0: GlobalAlloc's callers promise that.
        unsafe { sys::kmem_alloc(layout.size(), sys::KM_SLEEP as _).cast() }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGN {
            return core::ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { sys::kmem_zalloc(layout.size(), sys::KM_SLEEP as _).cast() }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc` with this layout.
        unsafe { sys::kmem_free(block.cast(), layout.size()) }
    }
}
