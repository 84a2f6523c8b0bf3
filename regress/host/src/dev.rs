// SPDX-License-Identifier: BSD-2-Clause

//! Device numbers: `dev_t`, and makedev(3), major(3), minor(3).

use crate::netbsd as nb;

/// NetBSD's `dev_t`: a major and a minor number.
pub type Dev = nb::dev_t;

/// `makedev(3)`.
pub const fn makedev(major: u32, minor: u32) -> Dev {
    let (major, minor) = (major as Dev, minor as Dev);
    ((major << 8) & 0x000f_ff00) | ((minor << 12) & 0xfff0_0000) | (minor & 0xff)
}

/// `major(3)`.
pub const fn major(dev: Dev) -> u32 {
    ((dev & 0x000f_ff00) >> 8) as u32
}

/// `minor(3)`.
pub const fn minor(dev: Dev) -> u32 {
    (((dev & 0xfff0_0000) >> 12) | (dev & 0xff)) as u32
}

/// `NODEV`: no device.
pub const NODEV: Dev = Dev::MAX;
