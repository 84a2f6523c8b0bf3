// SPDX-License-Identifier: BSD-2-Clause

//! Device numbers: those that the program sees, and those that the kernel has.

use crate::settings::Settings;

/// The major number of loop devices.
pub const LOOP: u32 = 7;
/// The number of a session's loop devices that are devices of the device mapper.
const DEVICES: u32 = 1 << 13;

/// The program's number for one of the kernel's.
pub fn seen(settings: &Settings, major: u32, minor: u32) -> (u32, u32) {
    match settings.loops {
        Some((base, shift))
            if major == LOOP && (base..base + DEVICES).contains(&(minor >> shift)) =>
        {
            (settings.major, (minor >> shift) - base)
        }
        _ => (major, minor),
    }
}

/// The kernel's number for one of the program's.
pub fn meant(settings: &Settings, major: u32, minor: u32) -> (u32, u32) {
    match settings.loops {
        Some((base, shift)) if major == settings.major => (LOOP, base.wrapping_add(minor) << shift),
        _ => (major, minor),
    }
}

/// The number that a program sees for a packed number; see [`seen`].
pub fn seen_dev(settings: &Settings, dev: libc::dev_t) -> libc::dev_t {
    let (major, minor) = seen(settings, libc::major(dev), libc::minor(dev));
    libc::makedev(major, minor)
}
