// SPDX-License-Identifier: BSD-2-Clause

//! kauth(9): the hosted process is root, or is not.

use std::ffi::{c_int, c_void};

use crate::errno::Errno;
use crate::lwp;
use crate::netbsd as nb;

/// kauth_cred_get(9): the calling lwp stands for its credentials.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn kauth_cred_get() -> nb::kauth_cred_t {
    (lwp::current().addr() as usize) as nb::kauth_cred_t
}

/// kauth_cred_geteuid(9): of the calling lwp, whose credentials are the only ones there are.
#[unsafe(no_mangle)]
extern "C" fn kauth_cred_geteuid(_cred: nb::kauth_cred_t) -> u32 {
    lwp::current().uid.get()
}

/// kauth_authorize_system(9): everything for root, nothing for others (EPERM).
#[unsafe(no_mangle)]
extern "C" fn kauth_authorize_system(
    _cred: nb::kauth_cred_t,
    _action: nb::kauth_action_t,
    _req: nb::kauth_system_req,
    _arg1: *mut c_void,
    _arg2: *mut c_void,
    _arg3: *mut c_void,
) -> c_int {
    if lwp::current().uid.get() == 0 { 0 } else { Errno::EPERM.0 }
}

/// kauth_authorize_device_spec(9): there is no securelevel that would forbid it.
#[unsafe(no_mangle)]
extern "C" fn kauth_authorize_device_spec(
    _cred: nb::kauth_cred_t,
    _req: nb::kauth_device_req,
    _vp: *mut nb::vnode,
) -> c_int {
    0
}
