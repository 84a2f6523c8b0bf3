// SPDX-License-Identifier: BSD-2-Clause

//! module(9): the modules that are linked in.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use crate::errno::Errno;
use crate::netbsd as nb;

unsafe extern "C" {
    // The modinfo of MODULE() in the shim. A Unix linker drops the link set that a kernel reads, so the shim is
    // asked.
    fn dm_shim_modinfo() -> *const nb::modinfo;
}

/// A module that is linked in.
#[derive(Clone, Copy)]
pub(crate) struct Module(*const nb::modinfo);

impl Module {
    pub(crate) fn name(self) -> String {
        // SAFETY: link sets hold pointers to static module descriptions.
        unsafe { CStr::from_ptr((*self.0).mi_name as *const c_char) }.to_string_lossy().into_owned()
    }

    /// modcmd: ENOTTY where the module has none.
    pub(crate) fn command(self, command: nb::modcmd_t) -> Result<(), Errno> {
        // SAFETY: as above; the kernel passes a dictionary or null.
        let error: c_int = unsafe {
            match (*self.0).mi_modcmd {
                Some(modcmd) => modcmd(command, ptr::null_mut()),
                None => Errno::ENOTTY.0,
            }
        };
        Errno::check(error)
    }
}

/// All modules that are linked in.
pub(crate) fn builtin() -> Vec<Module> {
    // SAFETY: returns a static description.
    vec![Module(unsafe { dm_shim_modinfo() })]
}
