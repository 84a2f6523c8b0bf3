// SPDX-License-Identifier: BSD-2-Clause

//! kmem(9).
//!
//! Every block stands in a registry with its size, and is followed by a guard word: kmem_free of
//! an unknown pointer, with another size, or of a block written past its end stops the machine.
//! Fresh memory can be filled with a pattern; freed memory always is.

use std::alloc::{Layout, alloc, dealloc};
use std::backtrace::Backtrace;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};

use crate::console::{kassert, kpanic};
use crate::errno::Errno;
use crate::fault::{self, PLAN, Site};
use crate::frugal;
use crate::lwp;
use crate::netbsd as nb;
use crate::registry::Registry;

const ALIGN: usize = 64;
const GUARD: u64 = 0x6b6d_656d_2165_6e64;
const FREED: u8 = 0xdf;

struct Block {
    size: usize,
    from: Option<Box<Backtrace>>,
}

static BLOCKS: Registry<Block> = Registry::new();
static PATTERN: AtomicU32 = AtomicU32::new(0);
static TRACE: AtomicBool = AtomicBool::new(false);
static MEMORY: Mutex<()> = Mutex::new(());
static RETURNED: Condvar = Condvar::new();

/// Sets the pattern that fresh memory is filled with (0 for none), and whether each block records its caller.
pub(crate) fn configure(pattern: u32, trace: bool) {
    PATTERN.store(pattern, Ordering::Relaxed);
    TRACE.store(trace, Ordering::Relaxed);
}

/// Waits while memory is exhausted; the caller may sleep.
pub(crate) fn wait_for_memory() {
    let mut guard = MEMORY.lock().unwrap_or_else(|e| e.into_inner());
    while PLAN.exhausted() {
        guard = RETURNED.wait(guard).unwrap_or_else(|e| e.into_inner());
    }
}

/// Wakes threads that wait for memory.
pub(crate) fn memory_returned() {
    let _guard = MEMORY.lock().unwrap_or_else(|e| e.into_inner());
    RETURNED.notify_all();
}

/// Fills memory that was not written yet with the machine's pattern.
pub(crate) fn fill_fresh(at: *mut u8, size: usize) {
    let pattern = PATTERN.load(Ordering::Relaxed).to_ne_bytes();
    if pattern != [0; 4] {
        for i in 0..size {
            // SAFETY: the caller owns `size` bytes at `at`.
            unsafe { *at.add(i) = pattern[i % 4] };
        }
    }
}

fn layout(size: usize) -> Layout {
    match size.checked_add(8).map(|size| Layout::from_size_align(size, ALIGN)) {
        Some(Ok(layout)) => layout,
        _ => kpanic!("kmem_alloc: {size} bytes"),
    }
}

fn allocate(size: usize, flags: nb::km_flag_t, zero: bool, intr: bool) -> *mut c_void {
    let lwp = lwp::current();
    kassert!(size != 0, "kmem_alloc: no bytes");
    kassert!(
        intr || (lwp.context() == lwp::Context::Thread && lwp.spins() == 0),
        "kmem_alloc in an interrupt or while holding a spin mutex"
    );
    if flags & nb::KM_SLEEP as nb::km_flag_t != 0 {
        lwp.assert_sleepable("kmem_alloc(KM_SLEEP)");
        frugal::assert_may_wait("kmem_alloc(KM_SLEEP)");
        if PLAN.exhausted() {
            wait_for_memory();
        }
    } else {
        kassert!(flags & nb::KM_NOSLEEP as nb::km_flag_t != 0, "kmem_alloc: flags {flags:#x}");
        if PLAN.exhausted() || fault::check(Site::Kmem, Errno::ENOMEM).is_err() {
            return ptr::null_mut();
        }
    }
    // SAFETY: the size is above 0.
    let at = unsafe { alloc(layout(size)) };
    kassert!(!at.is_null(), "kmem_alloc: the process has no memory for {size} bytes");
    // SAFETY: the block is `size` bytes and the guard's eight.
    unsafe {
        if zero {
            ptr::write_bytes(at, 0, size);
        } else {
            fill_fresh(at, size);
        }
        at.add(size).cast::<u64>().write_unaligned(GUARD);
    }
    let from = TRACE.load(Ordering::Relaxed).then(|| Box::new(Backtrace::force_capture()));
    BLOCKS.insert(at as usize, Block { size, from });
    at.cast()
}

fn free(at: *mut c_void, size: usize) {
    let Some(block) = BLOCKS.remove(at as usize) else {
        kpanic!("kmem_free: {at:p} ({size} bytes) was not allocated, or is free already");
    };
    kassert!(
        block.size == size,
        "kmem_free: {at:p} is {} bytes, not {size}{}",
        block.size,
        block.from.map(|b| format!("; allocated at\n{b}")).unwrap_or_default()
    );
    let at = at.cast::<u8>();
    // SAFETY: a block of the registry, of that size, and now nobody's.
    unsafe {
        let guard = at.add(size).cast::<u64>().read_unaligned();
        kassert!(guard == GUARD, "kmem_free: {at:p} was written past its {size} bytes");
        ptr::write_bytes(at, FREED, size);
        dealloc(at, layout(size));
    }
}

/// Blocks never freed, for the leak report.
pub(crate) fn leaks() -> Vec<String> {
    BLOCKS
        .drain()
        .into_iter()
        .map(|(at, block)| {
            let from = block.from.map(|b| format!(", allocated at\n{b}")).unwrap_or_default();
            format!("{} bytes of kmem at {at:#x} were not freed{from}", block.size)
        })
        .collect()
}

/// kmem_alloc(9)
#[unsafe(no_mangle)]
pub(crate) extern "C" fn kmem_alloc(size: usize, flags: nb::km_flag_t) -> *mut c_void {
    allocate(size, flags, false, false)
}

/// kmem_zalloc(9)
#[unsafe(no_mangle)]
pub(crate) extern "C" fn kmem_zalloc(size: usize, flags: nb::km_flag_t) -> *mut c_void {
    allocate(size, flags, true, false)
}

/// kmem_free(9)
#[unsafe(no_mangle)]
pub(crate) extern "C" fn kmem_free(at: *mut c_void, size: usize) {
    let lwp = lwp::current();
    kassert!(
        lwp.context() == lwp::Context::Thread && lwp.spins() == 0,
        "kmem_free in an interrupt or while holding a spin mutex"
    );
    free(at, size);
}

/// kmem_intr_alloc(9)
#[unsafe(no_mangle)]
extern "C" fn kmem_intr_alloc(size: usize, flags: nb::km_flag_t) -> *mut c_void {
    allocate(size, flags, false, true)
}

/// kmem_intr_zalloc(9)
#[unsafe(no_mangle)]
extern "C" fn kmem_intr_zalloc(size: usize, flags: nb::km_flag_t) -> *mut c_void {
    allocate(size, flags, true, true)
}

/// kmem_intr_free(9)
#[unsafe(no_mangle)]
extern "C" fn kmem_intr_free(at: *mut c_void, size: usize) {
    free(at, size);
}

/// Copies a string to kmem; the opposite of kmem_strfree.
///
/// # Safety
///
/// `text` is a string.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dm_host_strdup(text: *const c_char) -> *mut c_char {
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes_with_nul();
    let at = kmem_alloc(bytes.len(), nb::KM_SLEEP as nb::km_flag_t);
    // SAFETY: the block has that size.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at.cast(), bytes.len()) };
    at.cast()
}

/// kmem_strdupsize(9)
///
/// # Safety
///
/// `text` is a string; `size` is null or receives the block's size.
#[unsafe(no_mangle)]
unsafe extern "C" fn kmem_strdupsize(
    text: *const c_char,
    size: *mut usize,
    flags: nb::km_flag_t,
) -> *mut c_char {
    // SAFETY: the caller's promise; the block has the string's size.
    unsafe {
        let bytes = CStr::from_ptr(text).to_bytes_with_nul();
        let at = kmem_alloc(bytes.len(), flags).cast::<u8>();
        if !at.is_null() {
            ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
            if !size.is_null() {
                *size = bytes.len();
            }
        }
        at.cast()
    }
}

/// kmem_strfree(9)
///
/// # Safety
///
/// `text` is null or a string from one of the functions above.
#[unsafe(no_mangle)]
unsafe extern "C" fn kmem_strfree(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: the caller's promise.
        let size = unsafe { CStr::from_ptr(text) }.to_bytes_with_nul().len();
        kmem_free(text.cast(), size);
    }
}
