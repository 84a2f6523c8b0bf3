// SPDX-License-Identifier: BSD-2-Clause

//! prop_copyin_ioctl(9), prop_copyout_ioctl(9): property lists of an ioctl.

use std::ffi::{c_int, c_void};

use super::{Body, Ref, xml};
use crate::console::kassert;
use crate::copy::{copyin, copyout};
use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::lwp;
use crate::netbsd as nb;

/// prop_object_copyin_limit: a request must be shorter, in bytes.
const LIMIT: usize = 65536;

/// The most arrays and dictionaries in one another. NetBSD writes a property list by recursion, which takes some 150
/// bytes of an 8 KiB stack for each of them; it surely has room for so many.
const NESTING: usize = 24;

const IOC_OUT: u64 = 0x4000_0000;
const IOC_IN: u64 = 0x8000_0000;
const PAGE: usize = 4096;

/// Memory that a copyout has given to the caller of an ioctl. Dropping this frees it.
pub struct Reply {
    at: *mut c_void,
    len: usize,
}

impl Reply {
    /// Takes over the property list that a plistref refers to after an ioctl.
    ///
    /// # Safety
    ///
    /// `reference` was filled by prop_*_copyout_ioctl, and nobody else takes it over.
    pub unsafe fn take(reference: &nb::plistref) -> Reply {
        Reply { at: reference.pref_plist, len: reference.pref_len }
    }

    /// The property list.
    pub fn text(&self) -> String {
        if self.at.is_null() {
            return String::new();
        }
        // SAFETY: copyout wrote `len` bytes, the last of them NUL.
        let bytes = unsafe { std::slice::from_raw_parts(self.at.cast::<u8>(), self.len) };
        String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.at.is_null() {
            // SAFETY: mapped by `copyout_object`, this length rounded up.
            unsafe { libc::munmap(self.at, self.len.next_multiple_of(PAGE)) };
        }
    }
}

/// A plistref to a request, which must outlive it.
pub fn request(text: &[u8]) -> nb::plistref {
    nb::plistref { pref_plist: text.as_ptr().cast_mut().cast(), pref_len: text.len() }
}

fn copyin_object(
    reference: *const nb::plistref,
    limit: usize,
    wanted: fn(&Body) -> bool,
    out: *mut nb::prop_object_t,
) -> c_int {
    lwp::current().assert_sleepable("prop_copyin");
    crate::frugal::assert_may_wait("prop_copyin");
    // SAFETY: drivers pass the plistref of their ioctl, and a place for the object.
    unsafe {
        let (at, len) = ((*reference).pref_plist, (*reference).pref_len);
        if len >= limit {
            return Errno::E2BIG.0;
        }
        if let Err(e) = fault::check(Site::Kmem, Errno::ENOMEM) {
            return e.0;
        }
        let mut text = vec![0u8; len];
        let error = copyin(at, text.as_mut_ptr().cast(), len);
        if error != 0 {
            return error;
        }
        let text = match text.iter().position(|b| *b == 0) {
            Some(end) => &text[..end],
            None => &text[..],
        };
        match xml::internalize(text).filter(|o| wanted(o.body())) {
            Some(object) => {
                *out = object.into_raw();
                0
            }
            None => Errno::EIO.0,
        }
    }
}

fn copyout_object(reference: *mut nb::plistref, object: nb::prop_object_t) -> c_int {
    lwp::current().assert_sleepable("prop_copyout");
    crate::frugal::assert_may_wait("prop_copyout");
    let Some(object) = Ref::retain(object) else { return Errno::EINVAL.0 };
    let text = xml::externalize(&object);
    let nesting = text.lines().map(|line| line.bytes().take_while(|b| *b == b'\t').count()).max();
    kassert!(
        nesting.unwrap_or(0) <= NESTING,
        "prop_copyout: {nesting:?} containers in one another: NetBSD's recursion would run out of stack"
    );
    let mut text = text.into_bytes();
    text.push(0);
    let mapped = text.len().next_multiple_of(PAGE);
    // SAFETY: a fresh mapping of that size; the plistref is the driver's.
    unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            mapped,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if at == libc::MAP_FAILED {
            return Errno::ENOMEM.0;
        }
        let error = copyout(text.as_ptr().cast(), at, text.len());
        if error != 0 {
            libc::munmap(at, mapped);
            return error;
        }
        (*reference).pref_plist = at;
        (*reference).pref_len = text.len();
    }
    0
}

fn any(_: &Body) -> bool {
    true
}

fn is_array(body: &Body) -> bool {
    matches!(body, Body::Array(_))
}

fn is_dictionary(body: &Body) -> bool {
    matches!(body, Body::Dictionary(_))
}

macro_rules! copy_functions {
    ($($wanted:ident: $in:ident $in_size:ident $in_ioctl:ident $in_ioctl_size:ident $out:ident $out_ioctl:ident;)*) => { $(
        /// prop_copyin(9): E2BIG from 64 KiB on, EIO for what is no such property list.
        ///
        /// # Safety
        ///
        /// `reference` is a plistref; `object` receives a reference. So for the functions below.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $in(
            reference: *const nb::plistref,
            object: *mut nb::prop_object_t,
        ) -> c_int {
            copyin_object(reference, LIMIT, $wanted, object)
        }

        /// prop_copyin(9) with a limit of the driver's own, in bytes.
        ///
        /// # Safety
        ///
        /// As above.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $in_size(
            reference: *const nb::plistref,
            object: *mut nb::prop_object_t,
            limit: usize,
        ) -> c_int {
            copyin_object(reference, limit, $wanted, object)
        }

        /// prop_copyin_ioctl(9): EFAULT if the command copies nothing in.
        ///
        /// # Safety
        ///
        /// As above.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $in_ioctl(
            reference: *const nb::plistref,
            cmd: nb::u_long,
            object: *mut nb::prop_object_t,
        ) -> c_int {
            if cmd & IOC_IN == 0 {
                return Errno::EFAULT.0;
            }
            copyin_object(reference, LIMIT, $wanted, object)
        }

        /// prop_copyin_ioctl(9) with a limit of the driver's own, in bytes.
        ///
        /// # Safety
        ///
        /// As above.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $in_ioctl_size(
            reference: *const nb::plistref,
            cmd: nb::u_long,
            object: *mut nb::prop_object_t,
            limit: usize,
        ) -> c_int {
            if cmd & IOC_IN == 0 {
                return Errno::EFAULT.0;
            }
            copyin_object(reference, limit, $wanted, object)
        }

        /// prop_copyout(9): gives the caller memory with the property list.
        ///
        /// # Safety
        ///
        /// As above.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $out(
            reference: *mut nb::plistref,
            object: nb::prop_object_t,
        ) -> c_int {
            copyout_object(reference, object)
        }

        /// prop_copyout_ioctl(9): EFAULT if the command copies nothing out.
        ///
        /// # Safety
        ///
        /// As above.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $out_ioctl(
            reference: *mut nb::plistref,
            cmd: nb::u_long,
            object: nb::prop_object_t,
        ) -> c_int {
            if cmd & IOC_OUT == 0 {
                return Errno::EFAULT.0;
            }
            copyout_object(reference, object)
        }
    )* };
}

copy_functions! {
    any: prop_object_copyin prop_object_copyin_size prop_object_copyin_ioctl
        prop_object_copyin_ioctl_size prop_object_copyout prop_object_copyout_ioctl;
    is_array: prop_array_copyin prop_array_copyin_size prop_array_copyin_ioctl
        prop_array_copyin_ioctl_size prop_array_copyout prop_array_copyout_ioctl;
    is_dictionary: prop_dictionary_copyin prop_dictionary_copyin_size prop_dictionary_copyin_ioctl
        prop_dictionary_copyin_ioctl_size prop_dictionary_copyout prop_dictionary_copyout_ioctl;
}
