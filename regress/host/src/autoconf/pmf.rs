// SPDX-License-Identifier: BSD-2-Clause

//! pmf(9): handlers for when the machine sleeps, wakes up and shuts down.

use std::ffi::c_int;
use std::ptr;

use super::{Device, config, dev, text};
use crate::console::kassert;
use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::netbsd as nb;

type Handler = unsafe extern "C" fn(nb::device_t, *const nb::pmf_qual_t) -> bool;
type Shutdown = unsafe extern "C" fn(nb::device_t, c_int) -> bool;

#[derive(Clone, Copy)]
pub(super) struct Pmf {
    suspend: Option<Handler>,
    resume: Option<Handler>,
    shutdown: Option<Shutdown>,
}

/// Runs the devices' suspend or resume handlers. The error is the name of the first that refuses.
pub(crate) fn power(resume: bool) -> Result<(), String> {
    let mut all: Vec<*mut Device> = config().devices.clone();
    if !resume {
        all.reverse();
    }
    for device in all {
        // SAFETY: tests do not detach devices during a suspend.
        let d = unsafe { &*device };
        let handler = d.pmf.and_then(|p| if resume { p.resume } else { p.suspend });
        if let Some(handler) = handler {
            // SAFETY: the driver's handler, for its device.
            if !unsafe { handler(device.cast(), ptr::null()) } {
                return Err(text(d.xname.as_ptr()));
            }
        }
    }
    Ok(())
}

/// Runs the devices' shutdown handlers.
pub(crate) fn pmf_shutdown() {
    let mut all: Vec<*mut Device> = config().devices.clone();
    all.reverse();
    for device in all {
        // SAFETY: as in `power`.
        if let Some(shutdown) = unsafe { (*device).pmf }.and_then(|p| p.shutdown) {
            // SAFETY: the driver's handler, for its device.
            unsafe { shutdown(device.cast(), 0) };
        }
    }
}

/// pmf_device_register1(9)
///
/// # Safety
///
/// The device is attached; the handlers take it.
#[unsafe(no_mangle)]
unsafe extern "C" fn pmf_device_register1(
    d: nb::device_t,
    suspend: Option<Handler>,
    resume: Option<Handler>,
    shutdown: Option<Shutdown>,
) -> bool {
    if fault::check(Site::Pmf, Errno::ENOMEM).is_err() {
        return false;
    }
    let _config = config();
    kassert!(dev(d).pmf.is_none(), "pmf_device_register: registered already");
    dev(d).pmf = Some(Pmf { suspend, resume, shutdown });
    true
}

/// pmf_device_deregister(9)
///
/// # Safety
///
/// The device is attached.
#[unsafe(no_mangle)]
unsafe extern "C" fn pmf_device_deregister(d: nb::device_t) {
    let _config = config();
    dev(d).pmf = None;
}
