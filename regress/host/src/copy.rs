// SPDX-License-Identifier: BSD-2-Clause

//! copy(9), uiomove(9): between the kernel and its callers' memory, which here is one.
//!
//! Addresses are checked by the system underneath, so that a wild pointer in a request gives
//! EFAULT, as in a kernel, and not a signal.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::netbsd as nb;

/// `true` if the system refuses process_vm_readv: addresses are then trusted.
static UNCHECKED: AtomicBool = AtomicBool::new(false);

/// Copies `len` bytes. EFAULT if one of the ranges is not there.
///
/// # Safety
///
/// The kernel's side of the copy is valid memory.
unsafe fn copy(from: *const c_void, to: *mut c_void, len: usize, reading: bool) -> c_int {
    if len == 0 {
        return 0;
    }
    if from.is_null() || to.is_null() {
        return Errno::EFAULT.0;
    }
    if !UNCHECKED.load(Ordering::Relaxed) {
        let user = if reading { from.cast_mut() } else { to };
        let kernel = if reading { to } else { from.cast_mut() };
        let local = libc::iovec { iov_base: kernel, iov_len: len };
        let remote = libc::iovec { iov_base: user, iov_len: len };
        // SAFETY: the system checks both ranges.
        let done = unsafe {
            if reading {
                libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0)
            } else {
                libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0)
            }
        };
        if done == len as isize {
            return 0;
        }
        let error = std::io::Error::last_os_error().raw_os_error();
        if done >= 0 || error == Some(libc::EFAULT) || error == Some(libc::EINVAL) {
            return Errno::EFAULT.0;
        }
        // A sandbox refuses the call itself.
        UNCHECKED.store(true, Ordering::Relaxed);
    }
    // SAFETY: the caller's promise for one side, trust for the other.
    unsafe { std::ptr::copy(from.cast::<u8>(), to.cast::<u8>(), len) };
    0
}

/// copyin(9): EFAULT if the caller's memory is not there.
///
/// # Safety
///
/// `kernel` is `len` bytes of the kernel's memory.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn copyin(
    user: *const c_void,
    kernel: *mut c_void,
    len: usize,
) -> c_int {
    if let Err(e) = fault::check(Site::Copyin, Errno::EFAULT) {
        return e.0;
    }
    // SAFETY: the caller's promise.
    unsafe { copy(user, kernel, len, true) }
}

/// copyout(9): EFAULT if the caller's memory is not there.
///
/// # Safety
///
/// `kernel` is `len` bytes of the kernel's memory.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn copyout(
    kernel: *const c_void,
    user: *mut c_void,
    len: usize,
) -> c_int {
    if let Err(e) = fault::check(Site::Copyout, Errno::EFAULT) {
        return e.0;
    }
    // SAFETY: the caller's promise.
    unsafe { copy(kernel, user, len, false) }
}

/// copyinstr(9): ENAMETOOLONG if the string does not end within `len` bytes.
///
/// # Safety
///
/// `kernel` is `len` bytes of the kernel's memory; `done` is null or receives the length with NUL.
#[unsafe(no_mangle)]
unsafe extern "C" fn copyinstr(
    user: *const c_void,
    kernel: *mut c_void,
    len: usize,
    done: *mut usize,
) -> c_int {
    if let Err(e) = fault::check(Site::Copyin, Errno::EFAULT) {
        return e.0;
    }
    for i in 0..len {
        // SAFETY: the caller's promise; the user's byte is checked.
        unsafe {
            let to = kernel.cast::<u8>().add(i);
            let error = copy(user.cast::<u8>().add(i).cast(), to.cast(), 1, true);
            if error != 0 {
                return error;
            }
            if *to == 0 {
                if !done.is_null() {
                    *done = i + 1;
                }
                return 0;
            }
        }
    }
    Errno::ENAMETOOLONG.0
}

/// uiomove(9)
///
/// # Safety
///
/// `buf` is `n` bytes of the kernel's memory; `uio` is a transfer that somebody prepared.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn uiomove(buf: *mut c_void, n: usize, uio: *mut nb::uio) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let uio = &mut *uio;
        let mut buf = buf.cast::<u8>();
        let mut left = n;
        while left > 0 && uio.uio_resid > 0 && uio.uio_iovcnt > 0 {
            let iov = &mut *uio.uio_iov;
            if iov.iov_len == 0 {
                uio.uio_iov = uio.uio_iov.add(1);
                uio.uio_iovcnt -= 1;
                continue;
            }
            let count = iov.iov_len.min(left);
            let error = if uio.uio_rw == nb::uio_rw_UIO_READ {
                copyout(buf.cast(), iov.iov_base, count)
            } else {
                copyin(iov.iov_base, buf.cast(), count)
            };
            if error != 0 {
                return error;
            }
            iov.iov_base = iov.iov_base.cast::<u8>().add(count).cast();
            iov.iov_len -= count;
            uio.uio_resid -= count;
            uio.uio_offset += count as nb::__off_t;
            buf = buf.add(count);
            left -= count;
        }
    }
    0
}

/// strlcpy(3), for the shim.
///
/// # Safety
///
/// `from` is a string, `to` has `size` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn strlcpy(
    to: *mut c_char,
    from: *const c_char,
    size: usize,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let len = libc::strlen(from);
        if size != 0 {
            let count = len.min(size - 1);
            std::ptr::copy_nonoverlapping(from, to, count);
            *to.add(count) = 0;
        }
        len
    }
}

/// Reads one byte at an address of the process, which may have no memory there.
///
/// # Safety
///
/// `kernel` is one byte of the kernel's memory.
pub(crate) unsafe fn probe(user: *const c_void, kernel: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { copy(user, kernel, 1, true) }
}
