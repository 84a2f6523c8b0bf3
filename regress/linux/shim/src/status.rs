// SPDX-License-Identifier: BSD-2-Clause

//! stat(2) and its kin: the control node, nodes, and numbers.

use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::mem;

use crate::numbers;
use crate::place::{self, Place};
use crate::real::{fail, real};
use crate::settings::{self, Settings};

/// The control node's number.
const MISC: (u32, u32) = (10, 236);

/// Changes the kernel's answer into the one that the program shall see.
///
/// # Safety
/// `to` is a filled-in `struct stat`.
unsafe fn change(settings: &Settings, to: *mut libc::stat64) {
    // SAFETY: the caller's promise.
    let status = unsafe { &mut *to };
    status.st_dev = numbers::seen_dev(settings, status.st_dev);
    if status.st_mode & libc::S_IFMT == libc::S_IFBLK {
        status.st_rdev = numbers::seen_dev(settings, status.st_rdev);
    }
}

/// The control node, where its folder is: libdevmapper makes the folder when it misses the node.
///
/// # Safety
/// `path` is a string, `to` room for a `struct stat`.
unsafe fn control(path: *const c_char, to: *mut libc::stat64) -> c_int {
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    let folder = path.strip_suffix(b"/control").and_then(|folder| CString::new(folder).ok());
    let there = folder.is_some_and(|folder| {
        // SAFETY: faccessat(2) with a string.
        unsafe {
            libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, folder.as_ptr(), libc::F_OK) == 0
        }
    });
    if !there {
        return fail(libc::ENOENT);
    }
    // SAFETY: the caller's promise; a stat is integers, for which zeros are valid.
    unsafe {
        let mut status: libc::stat64 = mem::zeroed();
        status.st_mode = libc::S_IFCHR | 0o600;
        status.st_nlink = 1;
        status.st_rdev = libc::makedev(MISC.0, MISC.1);
        to.write(status);
    }
    0
}

/// Looks at a path with `ask`, which is given the path to look at.
///
/// # Safety
/// `path` is NULL or a string, `to` room for a `struct stat`.
unsafe fn look(
    path: *const c_char,
    to: *mut libc::stat64,
    ask: impl FnOnce(*const c_char) -> c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    let (place, settings) = unsafe { place::of(path) };
    let Some(settings) = settings else { return ask(path) };
    let other: Option<CString> = match place {
        // SAFETY: the caller's promise.
        Place::Control => return unsafe { control(path, to) },
        Place::Elsewhere(ref other) => Some(other.clone()),
        _ => None,
    };
    let result = ask(other.as_ref().map_or(path, |other| other.as_ptr()));
    if result != 0 {
        return result;
    }
    // SAFETY: filled in.
    unsafe {
        change(settings, to);
        if matches!(place, Place::Node) && (*to).st_mode & libc::S_IFMT == libc::S_IFREG {
            let minor = u32::try_from((*to).st_size - 1).unwrap_or(0);
            (*to).st_mode = (*to).st_mode & !libc::S_IFMT | libc::S_IFBLK;
            (*to).st_rdev = libc::makedev(settings.major, minor);
            (*to).st_size = 0;
        }
    }
    0
}

macro_rules! looks {
    ($name:ident, $real:literal) => {
        /// # Safety
        /// As in the C library.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, to: *mut libc::stat64) -> c_int {
            let ask =
                |path| real!($real as fn(*const c_char, *mut libc::stat64) -> c_int, path, to);
            // SAFETY: as in the C library.
            unsafe { look(path, to, ask) }
        }
    };
}
looks!(stat, c"stat");
looks!(stat64, c"stat64");
looks!(lstat, c"lstat");
looks!(lstat64, c"lstat64");

macro_rules! looks_at {
    ($name:ident, $real:literal) => {
        /// # Safety
        /// As in the C library.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            folder: c_int,
            path: *const c_char,
            to: *mut libc::stat64,
            flags: c_int,
        ) -> c_int {
            let ask = |path| {
                real!(
                    $real as fn(c_int, *const c_char, *mut libc::stat64, c_int) -> c_int,
                    folder,
                    path,
                    to,
                    flags
                )
            };
            // SAFETY: as in the C library.
            unsafe { look(path, to, ask) }
        }
    };
}
looks_at!(fstatat, c"fstatat");
looks_at!(fstatat64, c"fstatat64");

macro_rules! looks_through {
    ($name:ident, $real:literal) => {
        /// # Safety
        /// As in the C library.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(fd: c_int, to: *mut libc::stat64) -> c_int {
            let result = real!($real as fn(c_int, *mut libc::stat64) -> c_int, fd, to);
            if result == 0
                && let Some(settings) = settings::get()
            {
                // SAFETY: filled in.
                unsafe { change(settings, to) };
            }
            result
        }
    };
}
looks_through!(fstat, c"fstat");
looks_through!(fstat64, c"fstat64");

/// # Safety
/// As in the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn statx(
    folder: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    to: *mut libc::statx,
) -> c_int {
    // SAFETY: a string, as for statx(2).
    let (place, settings) = unsafe { place::of(path) };
    let path = match &place {
        Place::Elsewhere(other) => other.as_ptr(),
        // Something that is a character device; its number is put right below.
        Place::Control => c"/dev/null".as_ptr(),
        _ => path,
    };
    let result = real!(
        c"statx" as fn(c_int, *const c_char, c_int, c_uint, *mut libc::statx) -> c_int,
        folder,
        path,
        flags,
        mask,
        to
    );
    if result == 0
        && let Some(settings) = settings
    {
        // SAFETY: filled in.
        let status = unsafe { &mut *to };
        let (dev, rdev) = (
            numbers::seen(settings, status.stx_dev_major, status.stx_dev_minor),
            numbers::seen(settings, status.stx_rdev_major, status.stx_rdev_minor),
        );
        (status.stx_dev_major, status.stx_dev_minor) = dev;
        let kind = libc::mode_t::from(status.stx_mode) & libc::S_IFMT;
        if matches!(place, Place::Control) {
            (status.stx_rdev_major, status.stx_rdev_minor) = MISC;
        } else if kind == libc::S_IFBLK {
            (status.stx_rdev_major, status.stx_rdev_minor) = rdev;
        }
    }
    result
}
