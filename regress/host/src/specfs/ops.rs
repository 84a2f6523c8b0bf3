// SPDX-License-Identifier: BSD-2-Clause

//! Operations on open nodes. A revoked node answers as deadfs does.

use std::ffi::{c_int, c_void};

use super::node::{VCHR, node};
use crate::buf::{B_READ, biodone};
use crate::console::kassert;
use crate::devsw;
use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::frugal;
use crate::lwp;
use crate::netbsd as nb;

/// VOP_IOCTL(9): the vnode is not locked.
///
/// # Safety
///
/// As VOP_OPEN; `data` is what the command takes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn VOP_IOCTL(
    vp: *mut nb::vnode,
    cmd: nb::u_long,
    data: *mut c_void,
    flag: c_int,
    _cred: nb::kauth_cred_t,
) -> c_int {
    let n = node(vp);
    n.assert_unlocked("VOP_IOCTL");
    // A driver may do so.
    frugal::assert_may_wait("VOP_IOCTL");
    if let Err(e) = fault::check(Site::Ioctl, Errno::EIO) {
        return e.0;
    }
    let Some(_operation) = n.io_enter_open("VOP_IOCTL") else { return Errno::EBADF.0 };
    let l = lwp::current().addr() as *mut nb::lwp;
    (n.calls().ioctl)(n.device().key.1, cmd, data, flag, l)
}

/// VOP_STRATEGY(9)
///
/// # Safety
///
/// As VOP_OPEN; `bp` is a buffer ready for I/O.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn VOP_STRATEGY(vp: *mut nb::vnode, bp: *mut nb::buf) -> c_int {
    let n = node(vp);
    // SAFETY: the caller's promise.
    unsafe {
        let Some(_operation) = n.io_enter_open("VOP_STRATEGY") else {
            fail(bp, Errno::EIO);
            return Errno::EIO.0;
        };
        (*bp).b_dev = n.device().key.1;
        if (*bp).b_flags & B_READ == 0 && !(*bp).b_vp.is_null() {
            kassert!(
                (*(*bp).b_vp).v_numoutput > 0,
                "VOP_STRATEGY: a write of {} that v_numoutput does not count",
                n.name
            );
        }
        devsw::bdev_strategy(bp);
    }
    0
}

/// VOP_FDISCARD(9): the vnode is locked.
///
/// # Safety
///
/// As VOP_OPEN.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn VOP_FDISCARD(
    vp: *mut nb::vnode,
    pos: nb::__off_t,
    len: nb::__off_t,
) -> c_int {
    let n = node(vp);
    n.assert_locked("VOP_FDISCARD");
    let Some(_operation) = n.io_enter_open("VOP_FDISCARD") else { return Errno::EOPNOTSUPP.0 };
    (n.calls().discard)(n.device().key.1, pos, len)
}

macro_rules! transfers {
    ($($(#[$doc:meta])* $name:ident: $call:ident;)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// As VOP_OPEN; `uio` is a transfer.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name(
            vp: *mut nb::vnode,
            uio: *mut nb::uio,
            flag: c_int,
            _cred: nb::kauth_cred_t,
        ) -> c_int {
            let n = node(vp);
            let name = stringify!($name);
            kassert!(n.kind() == VCHR, "{name}: {} is no character device", n.name);
            let Some(_operation) = n.io_enter_open(name) else { return Errno::EIO.0 };
            devsw::$call(n.device().key.1, uio, flag)
        }
    )* };
}

transfers! {
    /// VOP_READ(9) of a character node: locked in NetBSD only while the operation is entered.
    VOP_READ: cdev_read;
    /// VOP_WRITE(9) of a character node.
    VOP_WRITE: cdev_write;
}

/// VOP_FSYNC(9): there is no cache to write back.
#[unsafe(no_mangle)]
extern "C" fn VOP_FSYNC(
    _vp: *mut nb::vnode,
    _cred: nb::kauth_cred_t,
    _flag: c_int,
    _lo: nb::__off_t,
    _hi: nb::__off_t,
) -> c_int {
    0
}

/// VOP_GETATTR(9): the type, the device number and the size.
///
/// # Safety
///
/// As VOP_OPEN; `va` points to a vattr.
#[unsafe(no_mangle)]
unsafe extern "C" fn VOP_GETATTR(
    vp: *mut nb::vnode,
    va: *mut nb::vattr,
    _cred: nb::kauth_cred_t,
) -> c_int {
    let n = node(vp);
    if n.is_dead() {
        return Errno::EBADF.0;
    }
    // SAFETY: the caller's promise; zeros are valid.
    unsafe {
        *va = std::mem::zeroed();
        (*va).va_type = n.kind();
        (*va).va_rdev = n.device().key.1;
        (*va).va_size = (*vp).v_size as nb::u_quad_t;
        (*va).va_mode = 0o640;
    }
    0
}

/// Ends an I/O with an error.
///
/// # Safety
///
/// `bp` is a buffer ready for I/O.
pub(crate) unsafe fn fail(bp: *mut nb::buf, error: Errno) {
    // SAFETY: the caller's buffer.
    unsafe {
        (*bp).b_error = error.0;
        (*bp).b_resid = (*bp).b_bcount;
        biodone(bp);
    }
}
