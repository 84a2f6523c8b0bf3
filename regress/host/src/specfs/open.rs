// SPDX-License-Identifier: BSD-2-Clause

//! Open and close of a device through its nodes.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::Ordering;

use super::node::{Node, VBLK, VCHR, close_has_ended, node, vput, wait_for_close};
use super::specfs;
use crate::console::kassert;
use crate::dev::Dev;
use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::lwp;
use crate::mutex;
use crate::netbsd as nb;

pub(super) const FNONBLOCK: c_int = 4;

fn fakeopen_flags(flags: c_int) -> c_int {
    flags & (nb::FREAD | nb::FWRITE | FNONBLOCK)
}

/// VOP_OPEN(9) of a device node.
///
/// # Safety
///
/// `vp` is a locked vnode of this file; so for the other operations, locked or not as they say.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn VOP_OPEN(
    vp: *mut nb::vnode,
    mode: c_int,
    _cred: nb::kauth_cred_t,
) -> c_int {
    let n = node(vp);
    n.assert_locked("VOP_OPEN");
    if n.is_dead() {
        return Errno::ENXIO.0;
    }
    if let Err(e) = fault::check(Site::Open, Errno::EIO) {
        return e.0;
    }
    let sd = n.specdev();
    let dev = n.device().key.1;
    let l = lwp::current().addr() as *mut nb::lwp;
    // SAFETY: the counts belong to the table's lock.
    unsafe {
        let mut guard = specfs();
        if n.kind() == VBLK {
            if (*sd).sd_opencnt != 0 || !(*sd).sd_mountpoint.is_null() || (*sd).sd_closing {
                return Errno::EBUSY.0;
            }
            (*sd).sd_bdevvp = vp;
        } else {
            guard = wait_for_close(guard, n);
        }
        (*sd).sd_opencnt += 1;
        n.opens().fetch_add(1, Ordering::Relaxed);
        drop(guard);
        n.unlock();
        let Some(operation) = n.io_enter() else {
            // The thread that revoked the node has closed it.
            n.lock();
            return Errno::ENXIO.0;
        };
        let mut error = (n.calls().open)(dev, fakeopen_flags(mode), n.mode(), l);
        drop(operation);
        n.lock();
        let mut needclose = false;
        {
            let _guard = specfs();
            if n.is_dead() {
                if error == 0 {
                    error = Errno::EBADF.0;
                }
            } else if error == 0 {
                (*sd).sd_opened = true;
            } else if (*sd).sd_opencnt == 1 && (*sd).sd_opened {
                // Others opened and closed it meanwhile, and left the driver's close to us.
                needclose = true;
            } else {
                (*sd).sd_opencnt -= 1;
                n.opens().fetch_sub(1, Ordering::Relaxed);
                if n.kind() == VBLK {
                    (*sd).sd_bdevvp = ptr::null_mut();
                }
            }
        }
        if needclose {
            close(n, FNONBLOCK);
        }
        if error == 0 {
            set_size(n, dev, l);
        }
        error
    }
}

/// Gives a disk's node the size of the disk, as spec_open does.
unsafe fn set_size(n: &Node, dev: Dev, l: *mut nb::lwp) {
    if (n.calls().kind)(dev) != nb::D_DISK {
        return;
    }
    let ioctl =
        |cmd: nb::u_long, data: *mut c_void| (n.calls().ioctl)(dev, cmd, data, nb::FREAD, l);
    // SAFETY: the commands fill structures of these types.
    unsafe {
        let mut pi: nb::partinfo = std::mem::zeroed();
        let mut size: i64 = 0;
        let mut error = ioctl(nb::DIOCGPARTINFO as nb::u_long, (&raw mut pi).cast());
        if error == 0 {
            size = (pi.pi_size as i64).wrapping_mul(i64::from(pi.pi_secsize));
        } else if error == Errno::ENOTTY.0 {
            error = ioctl(nb::DIOCGMEDIASIZE as nb::u_long, (&raw mut size).cast());
        }
        if error == 0 {
            (*n.vp()).v_size = size;
            (*n.vp()).v_writesize = size;
        }
    }
}

/// VOP_CLOSE(9)
///
/// # Safety
///
/// As VOP_OPEN; locked.
#[unsafe(no_mangle)]
unsafe extern "C" fn VOP_CLOSE(vp: *mut nb::vnode, flags: c_int, _cred: nb::kauth_cred_t) -> c_int {
    let n = node(vp);
    n.assert_locked("VOP_CLOSE");
    // The thread that revoked the node has closed it.
    if n.is_dead() { 0 } else { close(n, flags) }
}

/// Closes a node once; the last close calls the driver's d_close.
pub(super) fn close(n: &Node, flags: c_int) -> c_int {
    let sd = n.specdev();
    let dev = n.device().key.1;
    let lwp = lwp::current();
    // SAFETY: the counts belong to the table's lock.
    unsafe {
        {
            let _guard = specfs();
            kassert!(n.opens().load(Ordering::Relaxed) > 0, "VOP_CLOSE: {} is not open", n.name);
            n.opens().fetch_sub(1, Ordering::Relaxed);
            (*sd).sd_opencnt -= 1;
            if n.kind() == VBLK {
                (*sd).sd_bdevvp = ptr::null_mut();
            }
            if (*sd).sd_opencnt != 0 {
                return 0;
            }
            (*sd).sd_opened = false;
            (*sd).sd_closing = true;
            n.device().closer.store(lwp.addr(), Ordering::SeqCst);
        }
        let unlock = flags & FNONBLOCK == 0;
        if unlock {
            n.unlock();
        }
        let l = lwp.addr() as *mut nb::lwp;
        if (n.calls().cancel)(dev, flags, n.mode(), l) == 0 {
            n.drain();
        }
        let error = (n.calls().close)(dev, flags, n.mode(), l);
        n.drain();
        {
            let _guard = specfs();
            n.device().closer.store(0, Ordering::SeqCst);
            (*sd).sd_closing = false;
            close_has_ended();
        }
        if unlock {
            n.lock();
        }
        error
    }
}

/// vn_close(9): closes, and gives up the reference.
///
/// # Safety
///
/// `vp` is open, referenced and not locked.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn vn_close(
    vp: *mut nb::vnode,
    flags: c_int,
    cred: nb::kauth_cred_t,
) -> c_int {
    let n = node(vp);
    n.lock();
    // SAFETY: the caller's promise; the count belongs to the interlock.
    unsafe {
        if flags & nb::FWRITE != 0 {
            let lwp = lwp::current();
            mutex::enter((*vp).v_interlock, lwp);
            kassert!((*vp).v_writecount > 0, "vn_close: v_writecount of {} below 0", n.name);
            (*vp).v_writecount -= 1;
            mutex::exit((*vp).v_interlock, lwp);
        }
        let error = VOP_CLOSE(vp, flags, cred);
        vput(vp);
        error
    }
}

/// Marks a block device as mounted, or not: then it cannot be opened.
pub(crate) fn set_mounted(dev: Dev, mounted: bool) -> Result<(), Errno> {
    let specfs = specfs();
    let device = specfs.devices.get(&(VBLK, dev)).ok_or(Errno::ENXIO)?;
    let mark = if mounted { ptr::dangling_mut() } else { ptr::null_mut() };
    // SAFETY: devices in the table live; the field belongs to its lock.
    unsafe { (*(**device).specdev.get()).sd_mountpoint = mark };
    Ok(())
}

/// The number of times that the device is open, over all its nodes: (block, character).
pub(crate) fn opens(block: Dev, character: Dev) -> (u32, u32) {
    let specfs = specfs();
    let count = |key| {
        // SAFETY: devices in the table live; the count belongs to its lock.
        specfs.devices.get(&key).map_or(0, |d| unsafe { (*(**d).specdev.get()).sd_opencnt })
    };
    (count((VBLK, block)), count((VCHR, character)))
}
