// SPDX-License-Identifier: BSD-2-Clause

//! The tables of drivers and their attachments.

use std::ffi::{c_char, c_int};
use std::ptr;

use super::{config, text};
use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::netbsd as nb;

/// config_cfdriver_attach(9)
///
/// # Safety
///
/// `cd` stays valid until config_cfdriver_detach.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_cfdriver_attach(cd: *mut nb::cfdriver) -> c_int {
    if let Err(e) = fault::check(Site::ConfigTables, Errno::EEXIST) {
        return e.0;
    }
    let mut config = config();
    // SAFETY: the caller's promise; registered tables stay valid.
    unsafe {
        let name = text((*cd).cd_name);
        if config.drivers.iter().any(|d| text((**d).cd_name) == name) {
            return Errno::EEXIST.0;
        }
        (*cd).cd_devs = ptr::null_mut();
        (*cd).cd_ndevs = 0;
    }
    config.drivers.push(cd);
    0
}

/// config_cfdriver_detach(9): EBUSY while it has devices or attachments.
///
/// # Safety
///
/// As config_cfdriver_attach.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_cfdriver_detach(cd: *mut nb::cfdriver) -> c_int {
    let mut config = config();
    // SAFETY: the caller's promise; listed devices live.
    unsafe {
        let name = text((*cd).cd_name);
        if config.devices.iter().any(|d| (**d).driver == cd)
            || config.attachments.iter().any(|(driver, _)| *driver == name)
        {
            return Errno::EBUSY.0;
        }
    }
    match config.drivers.iter().position(|d| *d == cd) {
        Some(at) => {
            config.drivers.remove(at);
            drop(config);
            free_devs(cd);
            0
        }
        None => Errno::ESRCH.0,
    }
}

/// config_cfattach_attach(9)
///
/// # Safety
///
/// `name` is a string; `ca` stays valid until config_cfattach_detach.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_cfattach_attach(name: *const c_char, ca: *mut nb::cfattach) -> c_int {
    if let Err(e) = fault::check(Site::ConfigTables, Errno::EEXIST) {
        return e.0;
    }
    let name = text(name);
    let mut config = config();
    // SAFETY: registered tables stay valid.
    unsafe {
        if !config.drivers.iter().any(|d| text((**d).cd_name) == name) {
            return Errno::ESRCH.0;
        }
        let atname = text((*ca).ca_name);
        if config.attachments.iter().any(|(d, a)| *d == name && text((**a).ca_name) == atname) {
            return Errno::EEXIST.0;
        }
    }
    config.attachments.push((name, ca));
    0
}

/// config_cfattach_detach(9): EBUSY while it has devices.
///
/// # Safety
///
/// As config_cfattach_attach.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_cfattach_detach(name: *const c_char, ca: *mut nb::cfattach) -> c_int {
    let name = text(name);
    let mut config = config();
    // SAFETY: listed devices live.
    if config.devices.iter().any(|d| unsafe { (**d).attach == ca }) {
        return Errno::EBUSY.0;
    }
    match config.attachments.iter().position(|(d, a)| *d == name && *a == ca) {
        Some(at) => {
            config.attachments.remove(at);
            0
        }
        None => Errno::ESRCH.0,
    }
}

fn free_devs(cd: *mut nb::cfdriver) {
    // SAFETY: as set_devs.
    unsafe {
        let (old, count) = ((*cd).cd_devs, (*cd).cd_ndevs as usize);
        if !old.is_null() {
            drop(Box::from_raw(ptr::slice_from_raw_parts_mut(old, count)));
        }
        (*cd).cd_devs = ptr::null_mut();
        (*cd).cd_ndevs = 0;
    }
}
