// SPDX-License-Identifier: BSD-2-Clause

//! Paths that mean something else than their file.

use std::ffi::{CStr, CString, c_char};

use crate::settings::{self, Settings};

/// The meaning of a path.
pub enum Place {
    /// The file that the path names.
    Plain,
    /// The control node.
    Control,
    /// Another path.
    Elsewhere(CString),
    /// A file of proc(5) that has to be changed.
    Proc(crate::proc::Kind),
    /// A device's node, in a session without block devices.
    Node,
}

/// The meaning of a path, and the settings for which it has that.
///
/// # Safety
/// `path` is NULL or a string.
pub unsafe fn of(path: *const c_char) -> (Place, Option<&'static Settings>) {
    let Some(settings) = settings::get().filter(|_| !path.is_null()) else {
        return (Place::Plain, None);
    };
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    (place(settings, bytes), Some(settings))
}

fn place(settings: &Settings, path: &[u8]) -> Place {
    if path.ends_with(b"/mapper/control") {
        return Place::Control;
    }
    if let Some(kind) = crate::proc::Kind::of(path) {
        return Place::Proc(kind);
    }
    let folder = settings.folder.to_bytes();
    if let Some(inside) = path.strip_prefix(b"/sys/") {
        let block = format!("dev/block/{}:", settings.major);
        if inside.starts_with(b"block/dm-") || inside.starts_with(block.as_bytes()) {
            let whole = [folder, b"/sys/", inside].concat();
            return CString::new(whole).map_or(Place::Plain, Place::Elsewhere);
        }
    }
    if settings.loops.is_none() {
        let inside = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix(b"/dev/mapper/"));
        if inside.is_some_and(|name| !name.is_empty()) {
            return Place::Node;
        }
    }
    Place::Plain
}
