// SPDX-License-Identifier: BSD-2-Clause

//! autoconf(9) and module(9): how the driver and its devices come and go. Context of everything
//! here: a thread.

use alloc::boxed::Box;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};

use dm_core::device::Driver;
use dm_core::units::Minor;
use dm_core::{Errno, errno};

use super::kernel::NetBsd;
use super::minors::Slots;
use super::stats::FOLDER;
use super::{
    BACKGROUND_SHARE, Global, devsw, dm_background_share, dm_label_guard, dm_legacy_errors, global,
    set_global, take_global,
};
use crate::netbsd::callout::Callout;
use crate::netbsd::mutex;
use crate::netbsd::pool_cache::PoolCache;
use crate::netbsd::{cpu, sys};

/// `true` from the start of a `dm_module_fini` that does not fail until a `dm_module_init` has
/// succeeded: opens of the control node fail, without which no device is made.
static UNLOADING: AtomicBool = AtomicBool::new(true);

/// `true` if opens of the control node fail, since the driver is being loaded or unloaded.
pub(crate) fn is_unloading() -> bool {
    UNLOADING.load(Ordering::SeqCst)
}

/// MODULE_CMD_INIT: initialises the driver, loaded or built in.
///
/// # Safety
/// module(9) calls it, once before `dm_module_fini`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dm_module_init() -> c_int {
    errno::raw(init())
}

fn init() -> Result<(), Errno> {
    mutex::provide();
    // The variables' first values: in the hosted kernel the driver is loaded many times in one
    // process.
    dm_legacy_errors.store(0, Ordering::Relaxed);
    dm_label_guard.store(1, Ordering::Relaxed);
    dm_background_share.store(BACKGROUND_SHARE, Ordering::Relaxed);
    set_global(Box::new(Global {
        driver: Driver::new(NetBsd),
        slots: Slots::new(),
        children: PoolCache::new(c"dmbuf"),
        splits: PoolCache::new(c"dmsplit"),
        folder: Callout::new(&FOLDER),
    }));
    // SAFETY: registers tables of the driver's that live as long as it; each step is undone when
    // a later one fails.
    let result = unsafe { register() };
    match result {
        Ok(()) => UNLOADING.store(false, Ordering::SeqCst),
        Err(_) => free(),
    }
    result
}

/// Registers the driver with autoconf(9), devsw(9) and sysctl(9).
///
/// # Safety
/// The driver is ready to be called.
unsafe fn register() -> Result<(), Errno> {
    // SAFETY: the shim's functions register the shim's own tables.
    unsafe {
        Errno::check(sys::dm_shim_config_attach())?;
        // Built in, the tables are in the kernel's own already.
        match Errno::check(sys::dm_shim_devsw_attach()) {
            Ok(()) => {}
            Err(Errno::EEXIST) if sys::dm_shim_bmajor() >= 0 => {}
            Err(errno) => {
                sys::dm_shim_config_detach();
                return Err(errno);
            }
        }
        if let Err(errno) = Errno::check(sys::dm_shim_sysctl_attach()) {
            sys::dm_shim_devsw_detach();
            sys::dm_shim_config_detach();
            return Err(errno);
        }
    }
    Ok(())
}

/// MODULE_CMD_FINI: EBUSY while there are devices, the control node is open, or an open, a close or
/// an ioctl is in progress. Sleeps until each CPU has run another thread (xc_barrier(9)), so that
/// no soft interrupt is in the driver; a thread that was preempted there may be: see safety.md,
/// modunload.
///
/// # Safety
/// module(9) calls it, once after `dm_module_init`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dm_module_fini() -> c_int {
    errno::raw(fini())
}

fn fini() -> Result<(), Errno> {
    let global = global().ok_or(Errno::ENXIO)?;
    // From here on no open of the control node succeeds; one that was quicker is seen below.
    UNLOADING.store(true, Ordering::SeqCst);
    // A device that is removed has left the driver's list before its last reference goes.
    let nothing_is_used =
        || !devsw::control_is_open() && global.driver.count() == 0 && !global.slots.are_in_use();
    if !devsw::CALLS.none_during(nothing_is_used) {
        UNLOADING.store(false, Ordering::SeqCst);
        return Err(Errno::EBUSY);
    }
    // SAFETY: takes back what `register` registered; no device is left.
    unsafe {
        // The one that may fail comes first.
        if let Err(errno) = Errno::check(sys::dm_shim_config_detach()) {
            UNLOADING.store(false, Ordering::SeqCst);
            return Err(errno);
        }
        sys::dm_shim_sysctl_detach();
        sys::dm_shim_devsw_detach();
    }
    free();
    Ok(())
}

/// Frees the driver's state.
fn free() {
    let Some(global) = global() else { return };
    // The callout of statistics walks all slots: it is stopped first.
    global.folder.halt();
    FOLDER.reset();
    // The completion of the last I/O may still have a few instructions of the driver's to run.
    // SAFETY: the thread may sleep.
    unsafe { sys::dm_shim_barrier() };
    // SAFETY: no thread can call the driver any more. The pools, into which the slots' reserves go,
    // are still there.
    unsafe { global.slots.clear() };
    drop(take_global());
    mutex::withdraw();
}

/// ca_match.
#[unsafe(no_mangle)]
pub extern "C" fn dm_match(_: sys::device_t, _: sys::cfdata_t, _: *mut c_void) -> c_int {
    // A pseudo-device is there whenever it is asked for.
    1
}

/// ca_attach: called while a device is created. Context: config_attach_pseudo(9), with the kernel
/// lock.
///
/// # Safety
/// autoconf(9) calls it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dm_attach(_: sys::device_t, device: sys::device_t, _: *mut c_void) {
    // SAFETY: the device is being attached, so lives.
    if !unsafe { sys::dm_shim_pmf_register(device) } {
        cpu::say(format_args!("dm: could not establish a power handler"));
    }
}

/// ca_detach: called when a device is detached, by config_detach(9) of a removal, `drvctl -d`, or
/// the end of the system, where devices in use refuse (DVF_DETACH_SHUTDOWN is set, and DETACH_FORCE
/// is not). Context: a thread with the kernel lock, which autoconf(9) takes for this in every
/// release, and which is given up while the thread sleeps; no lock of the driver's is held. Sleeps,
/// deaf to signals, until the device's I/O is over and its tables are gone.
///
/// # Safety
/// autoconf(9) calls it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dm_detach(device: sys::device_t, flags: c_int) -> c_int {
    // SAFETY: the device lives until this returns.
    let number = unsafe { sys::device_unit(device) };
    let minor = u64::try_from(number).ok().and_then(Minor::new);
    let (Some(global), Some(minor)) = (global(), minor) else { return 0 };
    if let Err(errno) = global.driver.detach(minor, flags & sys::DETACH_FORCE != 0) {
        return errno.raw();
    }
    // SAFETY: the device lives until this returns.
    unsafe { sys::pmf_device_deregister(device) };
    0
}
