// SPDX-License-Identifier: BSD-2-Clause

//! Error numbers, as errno(2) has them.

use core::fmt;
use core::num::NonZeroI32;

/// Why something failed. Never zero; the numbers are NetBSD's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(NonZeroI32);

macro_rules! errnos {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Errno {
            $(
                #[doc = $text]
                pub const $name: Errno = Errno(NonZeroI32::new($number).unwrap());
            )*
        }

        impl fmt::Display for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0.get() {
                    $($number => f.write_str($text),)*
                    other => write!(f, "error {other}"),
                }
            }
        }

        impl fmt::Debug for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0.get() {
                    $($number => f.write_str(stringify!($name)),)*
                    other => write!(f, "E#{other}"),
                }
            }
        }
    };
}

errnos! {
    EPERM = 1, "Operation not permitted";
    ENOENT = 2, "No such file or directory";
    ESRCH = 3, "No such process";
    EINTR = 4, "Interrupted system call";
    EIO = 5, "Input/output error";
    ENXIO = 6, "Device not configured";
    E2BIG = 7, "Argument list too long";
    EBADF = 9, "Bad file descriptor";
    ENOMEM = 12, "Cannot allocate memory";
    EACCES = 13, "Permission denied";
    EFAULT = 14, "Bad address";
    ENOTBLK = 15, "Block device required";
    EBUSY = 16, "Device busy";
    EEXIST = 17, "File exists";
    ENODEV = 19, "Operation not supported by device";
    EINVAL = 22, "Invalid argument";
    ENOTTY = 25, "Inappropriate ioctl for device";
    ENOSPC = 28, "No space left on device";
    EROFS = 30, "Read-only file system";
    EAGAIN = 35, "Resource temporarily unavailable";
    EOPNOTSUPP = 45, "Operation not supported";
    ELOOP = 62, "Too many levels of symbolic links";
    ENAMETOOLONG = 63, "File name too long";
}

impl Errno {
    /// The error with this number, or `None` for 0, which is no error. Negative numbers
    /// (ERESTART and its kin) are errors that only a kernel sees.
    pub fn from_raw(number: i32) -> Option<Errno> {
        NonZeroI32::new(number).map(Errno)
    }

    /// `Ok` for 0, else the error: how the kernel's functions answer.
    pub fn check(number: i32) -> Result<(), Errno> {
        Errno::from_raw(number).map_or(Ok(()), Err)
    }

    /// The number.
    pub const fn raw(self) -> i32 {
        self.0.get()
    }
}

impl core::error::Error for Errno {}

/// The number a kernel function returns: 0 for `Ok`.
pub fn raw(result: Result<(), Errno>) -> i32 {
    result.map_or_else(Errno::raw, |()| 0)
}
