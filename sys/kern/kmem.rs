//! kmem(9), as Rust's allocator. KM_SLEEP never fails, so neither does an allocation; the price
//! is that nothing may be allocated where one may not sleep, which the I/O path does not.

use core::alloc::{GlobalAlloc, Layout};

use super::sys;

/// kmem(9).
struct Kmem;

/// What kmem(9) aligns every block to, that is not a page or more.
const ALIGN: usize = core::mem::align_of::<u64>();

// An address fits before an aligned block.
const _: () = assert!(ALIGN >= size_of::<*mut u8>());

#[global_allocator]
static KMEM: Kmem = Kmem;

/// Bytes of a block for a layout that kmem(9) does not align enough: room to move its start, and before that the
/// address of the block.
fn larger(layout: Layout) -> Option<usize> {
    layout.size().checked_add(layout.align())
}

/// Takes a block of a layout that kmem(9) does not align enough.
///
/// # Safety
/// `take` gives a block of the size asked for, aligned to [`ALIGN`].
unsafe fn aligned(layout: Layout, take: impl FnOnce(usize) -> *mut u8) -> *mut u8 {
    let Some(size) = larger(layout) else { return core::ptr::null_mut() };
    let block = take(size);
    // At least `ALIGN` from the start, since that divides both, and at most the layout's alignment.
    let start = layout.align().wrapping_sub(block.addr() & layout.align().wrapping_sub(1));
    // SAFETY: the block has as many bytes more than the layout, so that all of it lies behind `start`, and an
    // address before that.
    unsafe {
        let start = block.add(start);
        start.cast::<*mut u8>().sub(1).write(block);
        start
    }
}

// SAFETY: kmem_alloc(9) returns a block of the size asked for, that nobody else has, until
// kmem_free(9) with the same size.
unsafe impl GlobalAlloc for Kmem {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the size is not 0: GlobalAlloc's callers promise that.
        let take = |size| unsafe { sys::kmem_alloc(size, sys::KM_SLEEP as _).cast() };
        if layout.align() > ALIGN {
            // SAFETY: kmem(9) aligns so.
            return unsafe { aligned(layout, take) };
        }
        take(layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let take = |size| unsafe { sys::kmem_zalloc(size, sys::KM_SLEEP as _).cast() };
        if layout.align() > ALIGN {
            // SAFETY: as above. What is written lies before the block that is given.
            return unsafe { aligned(layout, take) };
        }
        take(layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc` with this layout, which has put the address of kmem(9)'s before it
        // if it is not kmem(9)'s own.
        unsafe {
            match larger(layout) {
                Some(size) if layout.align() > ALIGN => {
                    sys::kmem_free(block.cast::<*mut u8>().sub(1).read().cast(), size);
                }
                _ => sys::kmem_free(block.cast(), layout.size()),
            }
        }
    }
}
