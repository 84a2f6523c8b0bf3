// SPDX-License-Identifier: BSD-2-Clause

//! The big lock, KERNEL_LOCK(9): recursive, and released by a thread that sleeps.

use std::ffi::c_int;
use std::sync::{Condvar, Mutex};

use crate::console::kassert;
use crate::lwp::{self, Lwp};

/// Address of the owning lwp, or 0.
static OWNER: Mutex<u64> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// The depth to which a sleeping thread held the big lock.
#[must_use]
pub(crate) struct Released(u32);

fn acquire(lwp: &Lwp) {
    let mut owner = OWNER.lock().unwrap_or_else(|e| e.into_inner());
    while *owner != 0 {
        owner = FREED.wait(owner).unwrap_or_else(|e| e.into_inner());
    }
    *owner = lwp.addr();
}

fn release() {
    *OWNER.lock().unwrap_or_else(|e| e.into_inner()) = 0;
    FREED.notify_one();
}

/// KERNEL_UNLOCK_ALL
pub(crate) fn release_all(lwp: &Lwp) -> Released {
    let depth = lwp.biglock.replace(0);
    if depth != 0 {
        release();
    }
    Released(depth)
}

/// Takes back the big lock as deep as [`release_all`] found it.
pub(crate) fn reacquire(released: Released, lwp: &Lwp) {
    if released.0 != 0 {
        acquire(lwp);
        lwp.biglock.set(released.0);
    }
}

/// KERNEL_LOCK
#[unsafe(no_mangle)]
extern "C" fn _kernel_lock(count: c_int) {
    let lwp = lwp::current();
    if count <= 0 {
        return;
    }
    if lwp.biglock.get() == 0 {
        kassert!(lwp.nosleep.get() & lwp::HARD == 0, "KERNEL_LOCK in a hard interrupt");
        acquire(lwp);
    }
    lwp.biglock.set(lwp.biglock.get() + count as u32);
}

/// KERNEL_UNLOCK_ONE and KERNEL_UNLOCK_ALL (`count` of 0).
///
/// # Safety
///
/// `depth` is null or receives how deep the lock was held.
#[unsafe(no_mangle)]
unsafe extern "C" fn _kernel_unlock(count: c_int, depth: *mut c_int) {
    let lwp = lwp::current();
    let held = lwp.biglock.get();
    if !depth.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *depth = held as c_int };
    }
    kassert!(held != 0 || count == 0, "KERNEL_UNLOCK: the kernel lock is not held");
    let left = if count == 0 { 0 } else { held.saturating_sub(count as u32) };
    lwp.biglock.set(left);
    if held != 0 && left == 0 {
        release();
    }
}

/// KERNEL_LOCK(1)
pub(crate) fn kernel_lock() {
    _kernel_lock(1);
}

/// KERNEL_UNLOCK_ONE
pub(crate) fn kernel_unlock() {
    // SAFETY: no place for the depth.
    unsafe { _kernel_unlock(1, std::ptr::null_mut()) };
}
