// SPDX-License-Identifier: BSD-2-Clause

//! The end of open nodes when their device goes: vdevgone, VOP_REVOKE, vgone.

use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::Ordering;

use super::node::{Node, VBLK, node, vput, wait_for_close};
use super::open::{FNONBLOCK, close};
use super::specfs;
use crate::console::kassert;
use crate::dev::{Dev, makedev};
use crate::lwp;
use crate::netbsd as nb;

/// vdevgone: revokes the nodes of a driver's minors, open or not, and waits for calls of the driver
/// through them to come back.
///
/// # Safety
///
/// The driver refuses new opens, and lets go of whoever sleeps in it.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn vdevgone(major: c_int, first: c_int, last: c_int, kind: nb::vtype) {
    lwp::current().assert_sleepable("vdevgone");
    kassert!(major >= 0 && first >= 0, "vdevgone: major {major}, minor {first}");
    for minor in first..=last {
        let dev = makedev(major as u32, minor as u32);
        while let Some(vp) = find(kind, dev) {
            revoke(vp);
        }
    }
}

/// spec_node_lookup_by_dev: a referenced node of the device; the open one, of a block device.
fn find(kind: nb::vtype, dev: Dev) -> Option<*mut nb::vnode> {
    let specfs = specfs();
    let of_device = |n: &&*mut Node| {
        // SAFETY: nodes in the table live.
        unsafe { (***n).device().key == (kind, dev) }
    };
    let first = specfs.nodes.values().find(of_device)?.cast::<nb::vnode>();
    // SAFETY: as above; the counts belong to the table's lock.
    unsafe {
        let open = (*node(first).specdev()).sd_bdevvp;
        let vp = if kind == VBLK && !open.is_null() { open } else { first };
        (*vp).v_usecount += 1;
        Some(vp)
    }
}

/// vgone: the node is dead to all who have it. Gives the reference up.
fn revoke(vp: *mut nb::vnode) {
    let n = node(vp);
    n.lock();
    let mut guard = specfs();
    if !n.is_dead() {
        // From here on nobody begins an operation; close waits for those who have.
        n.set_dead();
        guard.nodes.retain(|_, other| !ptr::eq(*other, n));
        guard.dead.push(vp.cast());
        // SAFETY: the counts belong to the table's lock.
        let open = unsafe {
            let opens = n.opens().load(Ordering::Relaxed);
            if opens > 0 {
                (*n.specdev()).sd_opencnt -= opens - 1;
                n.opens().store(1, Ordering::Relaxed);
            }
            opens > 0
        };
        if open {
            drop(guard);
            close(n, FNONBLOCK);
            guard = specfs();
        }
        guard = wait_for_close(guard, n);
    }
    drop(guard);
    // SAFETY: `find` took the reference, and the lock is ours.
    unsafe { vput(vp) };
}
