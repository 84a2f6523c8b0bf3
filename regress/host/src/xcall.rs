// SPDX-License-Identifier: BSD-2-Clause

//! xcall(9): the barrier.
//!
//! Simpler than NetBSD: CPUs are threads, and what interrupts them is a completion: the barrier waits
//! for threads that are in one.

use std::ffi::c_uint;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lwp;

static BARRIERS: AtomicU64 = AtomicU64::new(0);

/// The number of times that a driver has waited for the other CPUs.
pub(crate) fn barriers() -> u64 {
    BARRIERS.load(Ordering::SeqCst)
}

/// xc_barrier(9): waits until each CPU has come to run a thread's code.
#[unsafe(no_mangle)]
extern "C" fn xc_barrier(_flags: c_uint) {
    lwp::current().assert_sleepable("xc_barrier");
    lwp::wait_for_completions();
    BARRIERS.fetch_add(1, Ordering::SeqCst);
}
