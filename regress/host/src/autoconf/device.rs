// SPDX-License-Identifier: BSD-2-Clause

//! References to devices, look-up of devices, and their properties.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use super::{CHANGED, config, dev, text, wait};
use crate::console::kassert;
use crate::lwp;
use crate::netbsd as nb;

/// device_acquire(9)
///
/// # Safety
///
/// The device is attached and cannot go away meanwhile.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn device_acquire(d: nb::device_t) {
    let _config = config();
    dev(d).references += 1;
}

/// device_release(9)
///
/// # Safety
///
/// The caller holds a reference.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn device_release(d: nb::device_t) {
    let _config = config();
    kassert!(dev(d).references > 0, "device_release: no reference is held");
    dev(d).references -= 1;
    CHANGED.notify_all();
}

/// device_lookup(9): null if there is no such unit.
///
/// # Safety
///
/// `cd` is a registered driver.
#[unsafe(no_mangle)]
unsafe extern "C" fn device_lookup(cd: nb::cfdriver_t, unit: c_int) -> nb::device_t {
    let _config = config();
    lookup(cd, unit)
}

fn lookup(cd: nb::cfdriver_t, unit: c_int) -> nb::device_t {
    // SAFETY: cd_devs has cd_ndevs entries while the lock is held.
    unsafe {
        if unit < 0 || unit >= (*cd).cd_ndevs {
            return ptr::null_mut();
        }
        *(*cd).cd_devs.add(unit as usize)
    }
}

/// device_lookup_private(9)
///
/// # Safety
///
/// As device_lookup.
#[unsafe(no_mangle)]
unsafe extern "C" fn device_lookup_private(cd: nb::cfdriver_t, unit: c_int) -> *mut c_void {
    let _config = config();
    let d = lookup(cd, unit);
    if d.is_null() { ptr::null_mut() } else { dev(d).private }
}

/// device_lookup_acquire(9): waits for an attach or detach to finish.
///
/// # Safety
///
/// As device_lookup.
#[unsafe(no_mangle)]
unsafe extern "C" fn device_lookup_acquire(cd: nb::cfdriver_t, unit: c_int) -> nb::device_t {
    let mut guard = config();
    loop {
        let d = lookup(cd, unit);
        if d.is_null() || dev(d).committed {
            return ptr::null_mut();
        }
        if dev(d).attaching == 0 && dev(d).detaching == 0 {
            dev(d).references += 1;
            return d;
        }
        if dev(d).attaching == lwp::current().addr() {
            return ptr::null_mut();
        }
        guard = wait(guard);
    }
}

macro_rules! accessors {
    ($($(#[doc = $doc:literal])* $name:ident: $type:ty = |$d:ident| $value:expr;)*) => {
        $(
            $(#[doc = $doc])*
            ///
            /// # Safety
            ///
            /// The device is attached.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(d: nb::device_t) -> $type {
                let $d = dev(d);
                $value
            }
        )*
    };
}

accessors! {
    /// device_xname(9)
    device_xname: *const c_char = |d| d.xname.as_ptr();
    /// device_unit(9)
    device_unit: c_int = |d| d.unit;
    /// device_cfdata(9)
    device_cfdata: nb::cfdata_t = |d| d.cfdata;
    /// device_cfdriver(9)
    device_cfdriver: nb::cfdriver_t = |d| d.driver;
    /// device_cfattach(9)
    device_cfattach: nb::cfattach_t = |d| d.attach;
    /// device_private(9)
    device_private: *mut c_void = |d| d.private;
    /// device_properties(9)
    device_properties: nb::prop_dictionary_t = |d| d.properties;
    /// device_is_active(9)
    device_is_active: bool = |d| d.active;
    /// device_class(9)
    device_class: nb::devclass = |d| {
        // SAFETY: registered tables stay valid.
        unsafe { (*d.driver).cd_class }
    };
}

/// device_parent(9): pseudo-devices have none.
#[unsafe(no_mangle)]
extern "C" fn device_parent(_d: nb::device_t) -> nb::device_t {
    ptr::null_mut()
}

/// device_set_private(9): once only, and not where autoconf allocated it.
///
/// # Safety
///
/// The device is attached.
#[unsafe(no_mangle)]
unsafe extern "C" fn device_set_private(d: nb::device_t, private: *mut c_void) {
    // SAFETY: registered tables stay valid.
    let size = unsafe { (*dev(d).attach).ca_devsize };
    kassert!(size == 0, "device_set_private: autoconf allocated it");
    kassert!(
        dev(d).private.is_null() || private.is_null() || dev(d).private == private,
        "device_set_private: set already"
    );
    dev(d).private = private;
}

/// device_is_a(9)
///
/// # Safety
///
/// The device is attached; `name` is a string.
#[unsafe(no_mangle)]
unsafe extern "C" fn device_is_a(d: nb::device_t, name: *const c_char) -> bool {
    // SAFETY: registered tables stay valid.
    text(unsafe { (*dev(d).driver).cd_name }) == text(name)
}

/// device_find_by_xname(9)
///
/// # Safety
///
/// `name` is a string.
#[unsafe(no_mangle)]
unsafe extern "C" fn device_find_by_xname(name: *const c_char) -> nb::device_t {
    let name = text(name);
    let config = config();
    // SAFETY: listed devices live.
    let found = config.devices.iter().find(|d| unsafe { text((***d).xname.as_ptr()) } == name);
    found.map_or(ptr::null_mut(), |d| d.cast())
}
