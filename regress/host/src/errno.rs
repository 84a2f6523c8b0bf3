// SPDX-License-Identifier: BSD-2-Clause

//! NetBSD's error numbers (intro(2)), which are not those of the system underneath.

use std::fmt;

/// A NetBSD error number, above 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Errno = Errno($number);)*

            /// The symbol, such as `EBUSY`, where this crate knows one.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// The text of strerror(3).
            pub fn text(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "Unknown error",
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
    EDEADLK = 11, "Resource deadlock avoided";
    ENOMEM = 12, "Cannot allocate memory";
    EACCES = 13, "Permission denied";
    EFAULT = 14, "Bad address";
    ENOTBLK = 15, "Block device required";
    EBUSY = 16, "Device busy";
    EEXIST = 17, "File exists";
    EXDEV = 18, "Cross-device link";
    ENODEV = 19, "Operation not supported by device";
    ENOTDIR = 20, "Not a directory";
    EISDIR = 21, "Is a directory";
    EINVAL = 22, "Invalid argument";
    ENFILE = 23, "Too many open files in system";
    EMFILE = 24, "Too many open files";
    ENOTTY = 25, "Inappropriate ioctl for device";
    EFBIG = 27, "File too large";
    ENOSPC = 28, "No space left on device";
    EROFS = 30, "Read-only file system";
    EDOM = 33, "Numerical argument out of domain";
    ERANGE = 34, "Result too large or too small";
    EAGAIN = 35, "Resource temporarily unavailable";
    EINPROGRESS = 36, "Operation now in progress";
    EALREADY = 37, "Operation already in progress";
    EOPNOTSUPP = 45, "Operation not supported";
    ETIMEDOUT = 60, "Connection timed out";
    ELOOP = 62, "Too many levels of symbolic links";
    ENAMETOOLONG = 63, "File name too long";
    ENOTEMPTY = 66, "Directory not empty";
    EFTYPE = 79, "Inappropriate file type or format";
    EOVERFLOW = 84, "Value too large to be stored in data type";
    EILSEQ = 85, "Illegal byte sequence";
    ENOTSUP = 86, "Not supported";
    ECANCELED = 87, "Operation canceled";
    ERESTART = -3, "Restart the system call";
    EPASSTHROUGH = -4, "Not handled at this layer";
}

impl Errno {
    /// The result of a C function's return value: 0 is success.
    pub fn check(error: i32) -> Result<(), Errno> {
        if error == 0 { Ok(()) } else { Err(Errno(error)) }
    }

    /// The NetBSD number for an error of the system underneath; EIO where there is none.
    pub fn from_io(error: &std::io::Error) -> Errno {
        match error.raw_os_error() {
            Some(libc::EPERM) => Errno::EPERM,
            Some(libc::ENOENT) => Errno::ENOENT,
            Some(libc::EINTR) => Errno::EINTR,
            Some(libc::EACCES) => Errno::EACCES,
            Some(libc::EBUSY) => Errno::EBUSY,
            Some(libc::EEXIST) => Errno::EEXIST,
            Some(libc::EISDIR) => Errno::EISDIR,
            Some(libc::EINVAL) => Errno::EINVAL,
            Some(libc::EFBIG) => Errno::EFBIG,
            Some(libc::ENOSPC) => Errno::ENOSPC,
            Some(libc::EROFS) => Errno::EROFS,
            Some(libc::ENOMEM) => Errno::ENOMEM,
            _ => Errno::EIO,
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({self:?})", self.text())
    }
}

impl std::error::Error for Errno {}
