// SPDX-License-Identifier: BSD-2-Clause

//! The driver as NetBSD calls it: dm-core behind a C interface.
//!
//! `devsw.rs` has the entry points of bdevsw and cdevsw, `autoconf.rs` those of autoconf(9) and
//! module(9), `calls.rs` the count of calls that the driver must not end under, `ioctl.rs` the
//! ioctls of a disk and of the control node, `label.rs` the device's own label; `strategy.rs` is
//! the I/O path down, `split.rs` that of an I/O in several pieces, `completion.rs` the way back,
//! `pieces.rs` has the nested buffers and the accounts of I/O in flight, `journey.rs` an I/O's
//! state from the gate to its end, `slot.rs` a device's part in the path, `minors.rs` the slots by
//! minor, `stats.rs` the counts of I/O, `io/` the gate and the reserve, `job.rs` and `job/` I/O
//! that targets serve themselves; `unit.rs` and `kernel.rs` are dm-core's traits for this kernel,
//! `component.rs` is an opened component, `panic.rs` turns Rust's panics into panic(9).

mod autoconf;
mod calls;
mod completion;
mod component;
mod devsw;
mod io;
mod ioctl;
mod job;
mod journey;
mod kernel;
mod label;
mod minors;
#[cfg(all(test, miri))]
#[path = "../../regress/miri/mod.rs"]
mod miri;
#[cfg(not(feature = "hosted"))]
mod panic;
mod pieces;
mod slot;
mod split;
mod stats;
mod strategy;
mod unit;

use alloc::boxed::Box;
use core::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

use dm_core::device::Driver;

use crate::netbsd::atomic;
use crate::netbsd::callout::Callout;
use crate::netbsd::pool_cache::PoolCache;
use kernel::NetBsd;
use minors::Slots;
use pieces::{Child, Split};

/// The state of the driver while it is initialised. Each field guards itself.
pub(crate) struct Global {
    /// dm-core's driver: the set of devices.
    pub(crate) driver: Driver<NetBsd>,
    /// The I/O path's part of each device.
    pub(crate) slots: Slots,
    /// The pool of nested buffers.
    pub(crate) children: PoolCache<Child>,
    /// Accounts of I/O in several pieces.
    pub(crate) splits: PoolCache<Split>,
    /// The callout that adds statistics up.
    pub(crate) folder: Callout<stats::Folder>,
}

static GLOBAL: AtomicPtr<Global> = AtomicPtr::new(core::ptr::null_mut());

/// The driver's state, if it is initialised: between `dm_module_init` and `dm_module_fini`, which
/// makes sure that no thread can still call it. Entry points ask, for a module may be asked before
/// or after.
#[inline]
pub(crate) fn global() -> Option<&'static Global> {
    // SAFETY: set to a leaked box before anyone can call the driver, and freed only after
    // devsw_detach(9), when no thread can any more.
    unsafe { GLOBAL.load(Ordering::Acquire).as_ref() }
}

/// The driver's state, for code that runs on behalf of a device or an I/O: there is none after
/// `dm_module_fini`, which refuses while there are devices.
#[inline]
pub(crate) fn in_use() -> &'static Global {
    let Some(global) = global() else { panic!("dm: a device outlives the driver") };
    global
}

/// Puts the driver's state in place.
pub(crate) fn set_global(new: Box<Global>) {
    GLOBAL.store(Box::into_raw(new), Ordering::Release);
}

/// Takes the driver's state out of its place, for `dm_module_fini` to free.
pub(crate) fn take_global() -> Option<Box<Global>> {
    let old = GLOBAL.swap(core::ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: it came from `set_global`, and no other thread can take it any more.
    (!old.is_null()).then(|| unsafe { Box::from_raw(old) })
}

/// sysctl hw.dm.legacy_errors.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "a C name")]
pub static dm_legacy_errors: AtomicI32 = AtomicI32::new(0);

/// sysctl hw.dm.label_guard.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "a C name")]
pub static dm_label_guard: AtomicI32 = AtomicI32::new(1);

/// sysctl hw.dm.background_share, in percent.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "a C name")]
pub static dm_background_share: AtomicI32 = AtomicI32::new(BACKGROUND_SHARE);

/// The first value of [`dm_background_share`].
pub(crate) const BACKGROUND_SHARE: i32 = 25;

/// sysctl hw.dm.devices.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "a C name")]
pub static dm_device_count: AtomicI32 = AtomicI32::new(0);
