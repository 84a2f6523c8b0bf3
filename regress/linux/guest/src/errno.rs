// SPDX-License-Identifier: BSD-2-Clause

//! Names of Linux's error numbers.

use std::io;

/// The name of an error.
pub fn name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => of(number),
        None => error.to_string(),
    }
}

macro_rules! names {
    ($($name:ident)*) => {
        fn of(number: i32) -> String {
            match number {
                $(libc::$name => stringify!($name).to_owned(),)*
                other => format!("errno {other}"),
            }
        }
    };
}

names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG EBADF EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST
    EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC EROFS EDOM ERANGE
    EDEADLK ENAMETOOLONG ENOSYS ELOOP ENODATA EPROTO EOVERFLOW EILSEQ EOPNOTSUPP ETIMEDOUT
    EALREADY EINPROGRESS ENOMEDIUM EBADMSG EREMOTEIO ENOKEY EKEYREJECTED
}
