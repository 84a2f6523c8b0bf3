// SPDX-License-Identifier: BSD-2-Clause

//! autoconf(9), pmf(9): drivers, attachments and device instances.
//!
//! Only pseudo-devices attach. As in NetBSD a detach waits for the references that
//! device_lookup_acquire gave, and config_attach_pseudo panics where the driver's tables are
//! missing. Simpler than NetBSD: no parents, no deferred attachment; suspend and resume run the
//! handlers of every registered device in order of attachment, or the reverse.
//!
//! This file has how devices come and go; `tables.rs` the drivers' tables, `device.rs` what a
//! driver asks about its device, `pmf.rs` sleep and shutdown.

mod device;
mod pmf;
mod tables;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::console::{self, kassert, kpanic};
use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::kmem::{kmem_free, kmem_zalloc};
use crate::lwp;
use crate::netbsd as nb;
use crate::proplib;
use device::{device_acquire, device_release};
use pmf::Pmf;
pub(crate) use pmf::{pmf_shutdown, power};

/// The object that a device_t points to.
struct Device {
    xname: CString,
    unit: c_int,
    cfdata: nb::cfdata_t,
    driver: *mut nb::cfdriver,
    attach: *mut nb::cfattach,
    private: *mut c_void,
    properties: nb::prop_dictionary_t,
    references: u32,
    attaching: u64,
    detaching: u64,
    committed: bool,
    active: bool,
    pmf: Option<Pmf>,
}

struct Config {
    drivers: Vec<*mut nb::cfdriver>,
    attachments: Vec<(String, *mut nb::cfattach)>,
    devices: Vec<*mut Device>,
}

// SAFETY: what the pointers lead to is used under the lock, or belongs to a device that its user
// holds a reference to.
unsafe impl Send for Config {}

static CONFIG: Mutex<Config> =
    Mutex::new(Config { drivers: Vec::new(), attachments: Vec::new(), devices: Vec::new() });
static CHANGED: Condvar = Condvar::new();

fn config() -> MutexGuard<'static, Config> {
    CONFIG.lock().unwrap_or_else(|e| e.into_inner())
}

fn wait(guard: MutexGuard<'static, Config>) -> MutexGuard<'static, Config> {
    CHANGED.wait(guard).unwrap_or_else(|e| e.into_inner())
}

fn dev<'a>(d: nb::device_t) -> &'a mut Device {
    // SAFETY: callers pass a device_t of this file, which lives until its detach is over.
    unsafe { &mut *d.cast::<Device>() }
}

fn text(s: *const c_char) -> String {
    // SAFETY: callers pass strings.
    unsafe { CStr::from_ptr(s) }.to_string_lossy().into_owned()
}

fn tables(cf: nb::cfdata_t) -> Option<(*mut nb::cfdriver, *mut nb::cfattach)> {
    // SAFETY: callers pass a cfdata whose names are strings.
    let (name, atname) = unsafe { (text((*cf).cf_name), text((*cf).cf_atname)) };
    let config = config();
    // SAFETY: registered tables stay valid.
    let driver = config.drivers.iter().find(|d| unsafe { text((***d).cd_name) } == name)?;
    let attach = config
        .attachments
        .iter()
        // SAFETY: as above.
        .find(|(driver, ca)| *driver == name && unsafe { text((**ca).ca_name) } == atname)?;
    Some((*driver, attach.1))
}

/// Drivers, attachments and devices that are still there, for the leak report.
pub(crate) fn leaks() -> Vec<String> {
    let mut config = config();
    let mut left = Vec::new();
    for device in config.devices.drain(..) {
        // SAFETY: listed devices live.
        left.push(format!("device {} was not detached", text(unsafe { (*device).xname.as_ptr() })));
    }
    for (driver, _) in config.attachments.drain(..) {
        left.push(format!("cfattach of {driver} was not detached"));
    }
    for driver in config.drivers.drain(..) {
        // SAFETY: registered tables stay valid.
        left.push(format!("cfdriver {} was not detached", unsafe { text((*driver).cd_name) }));
    }
    left
}

/// Names of the devices that are attached, in order of attachment.
pub fn devices() -> Vec<String> {
    // SAFETY: listed devices live.
    config().devices.iter().map(|d| unsafe { text((**d).xname.as_ptr()) }).collect()
}

/// config_detach of a device by name; ENXIO if there is none.
pub(crate) fn detach_by_name(name: &str, flags: c_int) -> Result<(), Errno> {
    let device = {
        let config = config();
        // SAFETY: listed devices live.
        let found = config.devices.iter().find(|d| unsafe { text((***d).xname.as_ptr()) } == name);
        let Some(device) = found.copied() else { return Err(Errno::ENXIO) };
        // SAFETY: as above.
        unsafe { (*device).references += 1 };
        device
    };
    // SAFETY: we hold a reference, which is given up.
    Errno::check(unsafe { config_detach_release(device.cast(), flags) })
}

/// config_detach_all: detaches the devices that can be detached at shutdown. The answer is the names of the others.
pub(crate) fn detach_all(flags: c_int) -> Vec<String> {
    let mut names = devices();
    names.reverse();
    names.retain(|name| detach_by_name(name, flags).is_err());
    names
}

/// config_attach_pseudo_acquire(9): the caller releases the device with device_release.
///
/// # Safety
///
/// `cf` stays valid until the device is detached.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_attach_pseudo_acquire(
    cf: nb::cfdata_t,
    aux: *mut c_void,
) -> nb::device_t {
    lwp::current().assert_sleepable("config_attach_pseudo");
    crate::frugal::assert_may_wait("config_attach_pseudo");
    if fault::check(Site::ConfigAttach, Errno::ENOMEM).is_err() {
        return ptr::null_mut();
    }
    let Some((driver, attach)) = tables(cf) else {
        kpanic!("config_attach_pseudo: no driver or attachment of that name is registered");
    };
    // SAFETY: the caller's promise; registered tables stay valid.
    unsafe {
        let mut config = config();
        let star = (*cf).cf_fstate == nb::FSTATE_STAR as u8;
        let taken = |unit: c_int| {
            unit < (*driver).cd_ndevs && !(*(*driver).cd_devs.add(unit as usize)).is_null()
        };
        let mut unit = cf_unit(cf);
        if star {
            while taken(unit) {
                unit += 1;
            }
        } else {
            if taken(unit) {
                return ptr::null_mut();
            }
            kassert!(
                (*cf).cf_fstate == nb::FSTATE_NOTFOUND as u8,
                "config_attach_pseudo: cf_fstate {} of a cfdata that is in use",
                (*cf).cf_fstate
            );
            (*cf).cf_fstate = nb::FSTATE_FOUND as u8;
        }
        let name = format!("{}{unit}", text((*driver).cd_name));
        kassert!(name.len() < 16, "config_attach_pseudo: the name {name} is too long");
        let size = (*attach).ca_devsize;
        let private = if size > 0 {
            // Not under the lock: it may sleep in a real kernel. Here it may wait for memory.
            drop(config);
            let private = kmem_zalloc(size, nb::KM_SLEEP as nb::km_flag_t);
            config = self::config();
            private
        } else {
            ptr::null_mut()
        };
        let device = Box::into_raw(Box::new(Device {
            xname: CString::new(name).unwrap_or_default(),
            unit,
            cfdata: cf,
            driver,
            attach,
            private,
            properties: proplib::dictionary_create(),
            references: 1,
            attaching: lwp::current().addr(),
            detaching: 0,
            committed: false,
            active: true,
            pmf: None,
        }));
        set_devs(driver, unit, device.cast());
        config.devices.push(device);
        drop(config);
        if let Some(attach) = (*attach).ca_attach {
            attach(ptr::null_mut(), device.cast(), aux);
        }
        let _config = self::config();
        (*device).attaching = 0;
        CHANGED.notify_all();
        device.cast()
    }
}

/// config_attach_pseudo(9)
///
/// # Safety
///
/// As config_attach_pseudo_acquire.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_attach_pseudo(cf: nb::cfdata_t) -> nb::device_t {
    // SAFETY: the caller's promise.
    unsafe {
        let device = config_attach_pseudo_acquire(cf, ptr::null_mut());
        if !device.is_null() {
            device_release(device);
        }
        device
    }
}

/// The unit that a cfdata asks for.
fn cf_unit(cf: nb::cfdata_t) -> c_int {
    // SAFETY: callers pass a cfdata.
    unsafe { (*cf).cf_unit() as c_int }
}

/// Grows cd_devs as needed, in kmem as NetBSD does, and sets one entry.
fn set_devs(cd: *mut nb::cfdriver, unit: c_int, device: nb::device_t) {
    // SAFETY: a registered driver; cd_devs has cd_ndevs entries, and the lock is held.
    unsafe {
        if unit >= (*cd).cd_ndevs {
            let count = (unit as usize + 1).next_power_of_two().max(4);
            let devs = Box::into_raw(vec![ptr::null_mut::<nb::device>(); count].into_boxed_slice())
                .cast::<nb::device_t>();
            let (old, old_count) = ((*cd).cd_devs, (*cd).cd_ndevs as usize);
            if !old.is_null() {
                ptr::copy_nonoverlapping(old, devs, old_count);
                drop(Box::from_raw(ptr::slice_from_raw_parts_mut(old, old_count)));
            }
            (*cd).cd_devs = devs;
            (*cd).cd_ndevs = count as c_int;
        }
        *(*cd).cd_devs.add(unit as usize) = device;
    }
}

/// config_detach_release(9): gives up the caller's reference and detaches.
///
/// # Safety
///
/// The caller holds a reference to the device.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_detach_release(d: nb::device_t, flags: c_int) -> c_int {
    let lwp = lwp::current();
    lwp.assert_sleepable("config_detach");
    let device = d.cast::<Device>();
    let me = lwp.addr();
    let mut guard = config();
    // SAFETY: the device lives while it is listed; fields are used under the lock.
    unsafe {
        kassert!(guard.devices.contains(&device), "config_detach: {d:p} is not attached");
        kassert!((*device).references > 0, "config_detach: no reference is held");
        // NetBSD gives the reference up only after this wait, so that two detaches at once wait
        // for each other; here the second finds the device gone.
        (*device).references -= 1;
        CHANGED.notify_all();
        loop {
            let Device { attaching, detaching, .. } = *device;
            if attaching == 0 && detaching == 0 {
                break;
            }
            kassert!(detaching != me, "config_detach: recursively");
            guard = wait(guard);
            if !guard.devices.contains(&device) {
                return Errno::ENOENT.0;
            }
        }
        (*device).detaching = me;
        drop(guard);

        let name = text((*device).xname.as_ptr());
        let shutdown = nb::DETACH_SHUTDOWN;
        let unforced = flags & (shutdown | nb::DETACH_FORCE) == shutdown;
        let error = match (*(*device).attach).ca_detach {
            _ if unforced && (*(*device).attach).ca_flags & nb::DVF_DETACH_SHUTDOWN == 0 => {
                Errno::EOPNOTSUPP.0
            }
            Some(detach) => detach(d, flags),
            None => Errno::EOPNOTSUPP.0,
        };
        let mut guard = config();
        if error != 0 {
            kassert!(!(*device).committed, "{name}: detach failed after config_detach_commit");
            if flags & nb::DETACH_FORCE != 0 {
                kpanic!("config_detach: forced detach of {name} failed ({error})");
            }
            (*device).detaching = 0;
            CHANGED.notify_all();
            return error;
        }
        (*device).committed = true;
        (*device).active = false;
        CHANGED.notify_all();
        loop {
            let Device { references, .. } = *device;
            if references == 0 {
                break;
            }
            guard = wait(guard);
        }
        kassert!((*device).pmf.is_none(), "config_detach: {name} is still registered with pmf(9)");
        *(*(*device).driver).cd_devs.add((*device).unit as usize) = ptr::null_mut();
        guard.devices.retain(|d| *d != device);
        CHANGED.notify_all();
        drop(guard);
        proplib::release((*device).properties.cast());
        let size = (*(*device).attach).ca_devsize;
        if size > 0 {
            kmem_free((*device).private, size);
        }
        drop(Box::from_raw(device));
        if flags & nb::DETACH_QUIET == 0 {
            console::print(&format!("{name}: detached\n"));
        }
    }
    0
}

/// config_detach(9)
///
/// # Safety
///
/// The device is attached.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_detach(d: nb::device_t, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        device_acquire(d);
        config_detach_release(d, flags)
    }
}

/// config_detach_commit(9)
///
/// # Safety
///
/// Called by the device's own detach.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_detach_commit(d: nb::device_t) {
    let _config = config();
    kassert!(dev(d).detaching == lwp::current().addr(), "config_detach_commit: not detaching");
    dev(d).committed = true;
    CHANGED.notify_all();
}
