// SPDX-License-Identifier: BSD-2-Clause

//! Files: open(2) and its kin, fopen(3), opendir(3), mknod(2), ioctl(2).

use std::ffi::{CString, c_char, c_int, c_ulong, c_void};

use crate::place::{self, Place};
use crate::real::{fail, real};
use crate::{control, numbers, proc, settings};

/// Tells, once, why a node cannot be opened.
fn no_blocks() -> c_int {
    static TOLD: std::sync::Once = std::sync::Once::new();
    TOLD.call_once(|| {
        eprintln!(
            "dm-host: this session has no block devices (they want root, /dev/fuse and \
             /dev/loop-control): dmsetup works, what opens a device does not"
        );
    });
    fail(libc::ENXIO)
}

/// Opens a path that means something else than its file, as open(2) would; `None` for all other paths.
///
/// # Safety
/// `path` is NULL or a string.
unsafe fn special(path: *const c_char, flags: c_int) -> Result<c_int, Option<CString>> {
    // SAFETY: the caller's promise.
    match unsafe { place::of(path) } {
        (Place::Control, Some(settings)) => Ok(control::open(settings, flags)),
        (Place::Proc(kind), Some(settings)) => Ok(proc::open(settings, kind, flags)),
        (Place::Node, _) => Ok(no_blocks()),
        (Place::Elsewhere(other), _) => Err(Some(other)),
        _ => Err(None),
    }
}

/// The path to go on with.
fn path_of(other: &Option<CString>, path: *const c_char) -> *const c_char {
    other.as_ref().map_or(path, |other| other.as_ptr())
}

macro_rules! opens {
    ($name:ident, $real:literal) => {
        /// # Safety
        /// As in the C library.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
            // SAFETY: a string, as for open(2).
            match unsafe { special(path, flags) } {
                Ok(fd) => fd,
                Err(other) => {
                    real!(
                        $real as fn(*const c_char, c_int, c_int) -> c_int,
                        path_of(&other, path),
                        flags,
                        mode
                    )
                }
            }
        }
    };
}
opens!(open, c"open");
opens!(open64, c"open64");

macro_rules! opens_at {
    ($name:ident, $real:literal) => {
        /// # Safety
        /// As in the C library.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            folder: c_int,
            path: *const c_char,
            flags: c_int,
            mode: c_int,
        ) -> c_int {
            // SAFETY: a string, as for openat(2).
            match unsafe { special(path, flags) } {
                Ok(fd) => fd,
                Err(other) => {
                    real!(
                        $real as fn(c_int, *const c_char, c_int, c_int) -> c_int,
                        folder,
                        path_of(&other, path),
                        flags,
                        mode
                    )
                }
            }
        }
    };
}
opens_at!(openat, c"openat");
opens_at!(openat64, c"openat64");

/// # Safety
/// As in the C library; what a program compiled with fortification calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __open_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { open(path, flags, 0) }
}

/// # Safety
/// As in the C library; what a program compiled with fortification calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { open64(path, flags, 0) }
}

macro_rules! fopens {
    ($name:ident, $real:literal) => {
        /// # Safety
        /// As in the C library.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            path: *const c_char,
            mode: *const c_char,
        ) -> *mut libc::FILE {
            // SAFETY: a string, as for fopen(3).
            match unsafe { special(path, 0) } {
                Ok(fd) if fd < 0 => std::ptr::null_mut(),
                // SAFETY: a descriptor that is nobody else's.
                Ok(fd) => unsafe { libc::fdopen(fd, c"r".as_ptr()) },
                Err(other) => {
                    real!(
                        $real as fn(*const c_char, *const c_char) -> *mut libc::FILE,
                        path_of(&other, path),
                        mode
                    )
                }
            }
        }
    };
}
fopens!(fopen, c"fopen");
fopens!(fopen64, c"fopen64");

/// The other path of one that means something else.
///
/// # Safety
/// `path` is NULL or a string.
unsafe fn elsewhere(path: *const c_char) -> Option<CString> {
    // SAFETY: the caller's promise.
    match unsafe { place::of(path) } {
        (Place::Elsewhere(other), _) => Some(other),
        _ => None,
    }
}

/// # Safety
/// As in the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn opendir(path: *const c_char) -> *mut libc::DIR {
    // SAFETY: a string, as for opendir(3).
    let other = unsafe { elsewhere(path) };
    real!(c"opendir" as fn(*const c_char) -> *mut libc::DIR, path_of(&other, path))
}

/// # Safety
/// As in the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn readlink(path: *const c_char, to: *mut c_char, size: usize) -> isize {
    // SAFETY: a string, as for readlink(2).
    let other = unsafe { elsewhere(path) };
    real!(
        c"readlink" as fn(*const c_char, *mut c_char, usize) -> isize,
        path_of(&other, path),
        to,
        size
    )
}

/// # Safety
/// As in the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realpath(path: *const c_char, to: *mut c_char) -> *mut c_char {
    // SAFETY: a string, as for realpath(3).
    let other = unsafe { elsewhere(path) };
    real!(c"realpath" as fn(*const c_char, *mut c_char) -> *mut c_char, path_of(&other, path), to)
}

/// # Safety
/// As in the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn access(path: *const c_char, mode: c_int) -> c_int {
    // SAFETY: a string, as for access(2).
    match unsafe { place::of(path) } {
        (Place::Control, Some(_)) => 0,
        (Place::Elsewhere(other), _) => {
            real!(c"access" as fn(*const c_char, c_int) -> c_int, other.as_ptr(), mode)
        }
        _ => real!(c"access" as fn(*const c_char, c_int) -> c_int, path, mode),
    }
}

/// # Safety
/// As in the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mknod(path: *const c_char, mode: libc::mode_t, dev: libc::dev_t) -> c_int {
    // SAFETY: a string, as for mknod(2).
    let place = unsafe { place::of(path) };
    let block = mode & libc::S_IFMT == libc::S_IFBLK;
    match place {
        // The control node exists already.
        (Place::Control, Some(_)) => 0,
        (_, Some(settings)) if block && libc::major(dev) == settings.major => {
            let (major, minor) = numbers::meant(settings, libc::major(dev), libc::minor(dev));
            if settings.loops.is_none() {
                // SAFETY: a string.
                return unsafe { placeholder(path, mode, minor) };
            }
            real!(
                c"mknod" as fn(*const c_char, libc::mode_t, libc::dev_t) -> c_int,
                path,
                mode,
                libc::makedev(major, minor)
            )
        }
        _ => {
            real!(
                c"mknod" as fn(*const c_char, libc::mode_t, libc::dev_t) -> c_int,
                path,
                mode,
                dev
            )
        }
    }
}

/// An empty file instead of a node, whose size tells its minor number: minor + 1.
///
/// # Safety
/// `path` is a string.
unsafe fn placeholder(path: *const c_char, mode: libc::mode_t, minor: u32) -> c_int {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_CLOEXEC;
    let fd = real!(
        c"open" as fn(*const c_char, c_int, c_int) -> c_int,
        path,
        flags,
        (mode & 0o777) as c_int
    );
    if fd < 0 {
        return -1;
    }
    // SAFETY: our own descriptor.
    unsafe {
        let done = libc::ftruncate(fd, libc::off_t::from(minor) + 1);
        libc::close(fd);
        done
    }
}

/// # Safety
/// As in the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    if control::is_ours(request as u32)
        && let Some(settings) = settings::get()
    {
        // SAFETY: an ioctl of the device mapper's has a struct dm_ioctl.
        return unsafe { control::ioctl(settings, fd, request as u32, argument) };
    }
    let result = real!(c"ioctl" as fn(c_int, c_ulong, *mut c_void) -> c_int, fd, request, argument);
    if request as u32 == LOOP_CTL_GET_FREE
        && let Ok(number) = u32::try_from(result)
        && let Some((_, shift)) = settings::get().and_then(|settings| settings.loops)
        && let Ok(path) = CString::new(format!("/dev/loop{number}"))
    {
        let dev = libc::makedev(numbers::LOOP, number << shift);
        // SAFETY: mknod(2) with a string; where the node is, it stays. It has no result to give.
        unsafe {
            let mode = libc::S_IFBLK | 0o660;
            libc::syscall(libc::SYS_mknodat, libc::AT_FDCWD, path.as_ptr(), mode, dev)
        };
    }
    result
}

/// A program asks for a loop device: the session's /dev has no node of one that is new.
const LOOP_CTL_GET_FREE: u32 = 0x4c82;
