// SPDX-License-Identifier: BSD-2-Clause

//! dk(4): the list of a disk's wedges.
//!
//! Wedges are made, listed and deleted as in NetBSD, with its errors. Simpler: no device node
//! appears for a wedge, nothing is read from the disk to discover any, and the parent is not
//! opened; a disk that behaves like a wedge is a component of its own ([`crate::DiskSpec::plain`]).

use std::ffi::{CStr, c_char, c_int};
use std::sync::Mutex;

use crate::copy::{copyout, strlcpy};
use crate::errno::Errno;
use crate::iostat;
use crate::netbsd as nb;

struct Wedge {
    parent: String,
    unit: u32,
    info: nb::dkwedge_info,
}

static WEDGES: Mutex<Vec<Wedge>> = Mutex::new(Vec::new());

fn wedges() -> std::sync::MutexGuard<'static, Vec<Wedge>> {
    WEDGES.lock().unwrap_or_else(|e| e.into_inner())
}

/// Wedges never deleted, for the leak report.
pub(crate) fn leaks() -> Vec<String> {
    let left = std::mem::take(&mut *wedges());
    left.into_iter().map(|w| format!("wedge dk{} on {} is left", w.unit, w.parent)).collect()
}

fn text(name: &[c_char]) -> String {
    name.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect()
}

unsafe fn disk_name(dk: *const nb::disk) -> String {
    // SAFETY: the disk is attached.
    unsafe { CStr::from_ptr((*dk).dk_name) }.to_string_lossy().into_owned()
}

fn dkw_wname(info: &nb::dkwedge_info) -> &[u8] {
    info.dkw_wname.split(|b| *b == 0).next().unwrap_or(&[])
}

/// dkwedge_add(9): EINVAL if it lies outside the disk or overlaps another, EEXIST if the name is
/// taken. The wedge's device name comes back in `dkw`.
///
/// # Safety
///
/// `dkw` is a request.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dkwedge_add(dkw: *mut nb::dkwedge_info) -> c_int {
    // SAFETY: the caller's promise; the parent is an attached disk.
    unsafe {
        let dkw = &mut *dkw;
        if let Some(last) = dkw.dkw_wname.last_mut() {
            *last = 0;
        }
        let parent = text(&dkw.dkw_parent);
        let disk = iostat::parent(&parent).cast::<nb::disk>();
        if disk.is_null() {
            return Errno::ENODEV.0;
        }
        let size = (*disk).dk_geom.dg_secperunit as u64;
        let end = (dkw.dkw_offset as u64).checked_add(dkw.dkw_size);
        if dkw.dkw_offset < 0 || end.is_none_or(|end| end > size) {
            return Errno::EINVAL.0;
        }
        let mut wedges = wedges();
        for w in wedges.iter() {
            if w.parent == parent {
                let (first, last) = (w.info.dkw_offset as u64, w.info.dkw_size);
                let mine = dkw.dkw_offset as u64;
                if mine < first + last && first < mine + dkw.dkw_size {
                    return Errno::EINVAL.0;
                }
            }
            if dkw_wname(&w.info) == dkw_wname(dkw) {
                return Errno::EEXIST.0;
            }
        }
        let unit = (0..).find(|u| wedges.iter().all(|w| w.unit != *u)).unwrap_or(0);
        let name = std::ffi::CString::new(format!("dk{unit}")).unwrap_or_default();
        strlcpy(dkw.dkw_devname.as_mut_ptr(), name.as_ptr(), dkw.dkw_devname.len());
        wedges.push(Wedge { parent, unit, info: *dkw });
        (*disk).dk_nwedges += 1;
    }
    0
}

/// dkwedge_del(9): ESRCH if there is no such wedge on the disk.
///
/// # Safety
///
/// As dkwedge_add.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dkwedge_del(dkw: *mut nb::dkwedge_info) -> c_int {
    // SAFETY: as dkwedge_add.
    unsafe {
        let (parent, name) = (text(&(*dkw).dkw_parent), text(&(*dkw).dkw_devname));
        let mut wedges = wedges();
        let at =
            wedges.iter().position(|w| w.parent == parent && text(&w.info.dkw_devname) == name);
        let Some(at) = at else { return Errno::ESRCH.0 };
        wedges.remove(at);
        let disk = iostat::parent(&parent).cast::<nb::disk>();
        if !disk.is_null() {
            (*disk).dk_nwedges -= 1;
        }
    }
    0
}

/// dkwedge_delall(9)
///
/// # Safety
///
/// `dk` is an attached disk.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dkwedge_delall(dk: *mut nb::disk) {
    // SAFETY: the caller's promise.
    unsafe {
        let name = disk_name(dk);
        wedges().retain(|w| w.parent != name);
        (*dk).dk_nwedges = 0;
    }
}

/// dkwedge_delidle(9): no wedge here is ever in use.
///
/// # Safety
///
/// As dkwedge_delall.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dkwedge_delidle(dk: *mut nb::disk) {
    // SAFETY: the caller's promise.
    unsafe { dkwedge_delall(dk) };
}

/// dkwedge_list(9): as many as fit; dkwl_nwedges says how many there are.
///
/// # Safety
///
/// As dkwedge_delall; `list` is a request.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dkwedge_list(
    dk: *mut nb::disk,
    list: *mut nb::dkwedge_list,
    _l: *mut nb::lwp,
) -> c_int {
    // SAFETY: the caller's promise; user memory is checked by copyout.
    unsafe {
        let list = &mut *list;
        let name = disk_name(dk);
        let room = list.dkwl_bufsize / size_of::<nb::dkwedge_info>();
        list.dkwl_ncopied = 0;
        let infos: Vec<nb::dkwedge_info> =
            wedges().iter().filter(|w| w.parent == name).map(|w| w.info).collect();
        list.dkwl_nwedges = infos.len() as u32;
        for (i, info) in infos.iter().take(room).enumerate() {
            let to = list.dkwl_buf.cast::<nb::dkwedge_info>().add(i);
            let error =
                copyout(std::ptr::from_ref(info).cast(), to.cast(), size_of::<nb::dkwedge_info>());
            if error != 0 {
                return error;
            }
            list.dkwl_ncopied += 1;
        }
    }
    0
}

/// dkwedge_discover(9): finds nothing.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn dkwedge_discover(_dk: *mut nb::disk) {}
