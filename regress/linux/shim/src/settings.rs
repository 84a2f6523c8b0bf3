// SPDX-License-Identifier: BSD-2-Clause

//! The settings that `dm-host linux` hands down in environment variables.

use std::ffi::{CStr, CString};
use std::sync::OnceLock;

/// The server and its numbers.
pub struct Settings {
    /// The path of its socket.
    pub socket: CString,
    /// The device mapper's major number.
    pub major: u32,
    /// The loop device of minor 0, and the bits to shift its number by; `None` without block
    /// devices.
    pub loops: Option<(u32, u32)>,
    /// The folder with `sys` in it, and without block devices also `dev`.
    pub folder: CString,
}

/// The settings; `None` in a program that `dm-host linux` did not start.
pub fn get() -> Option<&'static Settings> {
    static SETTINGS: OnceLock<Option<Settings>> = OnceLock::new();
    SETTINGS.get_or_init(read).as_ref()
}

fn read() -> Option<Settings> {
    let major = text(c"DM_HOST_LINUX_MAJOR")?.to_str().ok()?.parse().ok()?;
    let loops = text(c"DM_HOST_LINUX_LOOPS").and_then(|text| {
        let (base, shift) = text.to_str().ok()?.split_once(' ')?;
        let base = base.parse().ok().filter(|base: &u32| *base < 1 << 20)?;
        Some((base, shift.parse().ok().filter(|shift: &u32| *shift < 12)?))
    });
    Some(Settings {
        socket: text(c"DM_HOST_LINUX_SOCKET")?.to_owned(),
        major,
        loops,
        folder: text(c"DM_HOST_LINUX_FOLDER")?.to_owned(),
    })
}

fn text(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: getenv(3) returns NULL or a string; the environment is read once, before a program
    // that changes it could have asked anything of the device mapper.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value))
    }
}
