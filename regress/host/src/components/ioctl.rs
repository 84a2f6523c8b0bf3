// SPDX-License-Identifier: BSD-2-Clause

//! Disks beside I/O: ioctls, size, dump and discard, as wd(4) and ld(4) have them, or dk(4) for a plain disk.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::Ordering;

use super::driver::Unit;
use super::label::{FS_SWAP, fabricated};
use crate::copy::strlcpy;
use crate::dev::Dev;
use crate::disk;
use crate::errno::Errno;
use crate::netbsd as nb;

/// Copies a text into an array of characters.
unsafe fn set(to: &mut [c_char], text: &str) {
    let text = std::ffi::CString::new(text).unwrap_or_default();
    // SAFETY: the destination has that size.
    unsafe { strlcpy(to.as_mut_ptr(), text.as_ptr(), to.len()) };
}

/// d_ioctl
///
/// # Safety
///
/// `data` is what the command takes.
pub(super) unsafe fn ioctl(
    unit: &Unit,
    dev: Dev,
    cmd: nb::u_long,
    data: *mut c_void,
    flag: c_int,
    l: *mut nb::lwp,
) -> c_int {
    const CACHESYNC: i64 = nb::DIOCCACHESYNC;
    const GCACHE: i64 = nb::DIOCGCACHE as i64;
    const GSTRATEGY: i64 = nb::DIOCGSTRATEGY as i64;
    const GSECTORALIGN: i64 = nb::DIOCGSECTORALIGN as i64;
    const GWEDGEINFO: i64 = nb::DIOCGWEDGEINFO as i64;
    const GDEFLABEL: i64 = nb::DIOCGDEFLABEL as i64;
    const SDINFO: i64 = nb::DIOCSDINFO;
    const WDINFO: i64 = nb::DIOCWDINFO;
    const WLABEL: i64 = nb::DIOCWLABEL;
    const KLABEL: i64 = nb::DIOCKLABEL;
    const GDINFO: i64 = nb::DIOCGDINFO as i64;
    const GPARTINFO: i64 = nb::DIOCGPARTINFO;
    if let Err(error) = unit.faults.ioctl(cmd) {
        return error.0;
    }
    let plain = unit.driver.plain;
    let writing = flag & nb::FWRITE != 0;
    // SAFETY: the caller's promise.
    unsafe {
        // A wedge has no label or partitions of its own.
        let own = matches!(cmd as i64, GDINFO | GPARTINFO) && plain;
        if !own {
            let error = disk::disk_ioctl(unit.disk.get(), dev, cmd, data, flag, l);
            if error != Errno::EPASSTHROUGH.0 {
                return error;
            }
        }
        match cmd as i64 {
            CACHESYNC => {
                if !writing {
                    return Errno::EBADF.0;
                }
                unit.rare().flushes.fetch_add(1, Ordering::Relaxed);
                unit.backend.sync().err().map_or(0, |e| e.0)
            }
            GCACHE => {
                *data.cast::<c_int>() = unit.cache;
                0
            }
            GSTRATEGY => {
                let strategy = &mut *data.cast::<nb::disk_strategy>();
                set(&mut strategy.dks_name, "fcfs");
                strategy.dks_paramlen = 0;
                0
            }
            GSECTORALIGN => {
                let align = &mut *data.cast::<nb::disk_sectoralign>();
                (align.dsa_firstaligned, align.dsa_alignment) = unit.align;
                0
            }
            GWEDGEINFO if plain => {
                let info = &mut *data.cast::<nb::dkwedge_info>();
                *info = std::mem::zeroed();
                set(&mut info.dkw_devname, &unit.name);
                for (to, from) in info.dkw_wname.iter_mut().zip(unit.name.bytes()) {
                    *to = from;
                }
                // A wedge without a disk under it: its sector size is its own.
                set(&mut info.dkw_parent, &unit.name);
                set(&mut info.dkw_ptype, "ffs");
                info.dkw_size = unit.sectors;
                0
            }
            _ if plain => Errno::ENOTTY.0,
            GDEFLABEL => {
                *data.cast::<nb::disklabel>() = fabricated(unit.secsize, unit.sectors);
                0
            }
            WLABEL | KLABEL if !writing => Errno::EBADF.0,
            WLABEL => {
                unit.wlabel.store(*data.cast::<c_int>() != 0, Ordering::Relaxed);
                0
            }
            KLABEL => 0,
            SDINFO | WDINFO if !writing => Errno::EBADF.0,
            SDINFO | WDINFO => set_label(unit, &*data.cast(), cmd as i64 == WDINFO),
            _ => Errno::ENOTTY.0,
        }
    }
}

unsafe extern "C" {
    fn setdisklabel(
        old: *mut nb::disklabel,
        new: *mut nb::disklabel,
        openmask: nb::u_long,
        osdep: *mut nb::cpu_disklabel,
    ) -> c_int;
    fn writedisklabel(
        dev: Dev,
        strategy: Option<unsafe extern "C" fn(*mut nb::buf)>,
        label: *mut nb::disklabel,
        osdep: *mut nb::cpu_disklabel,
    ) -> c_int;
}

/// Carries out DIOCSDINFO, and with `to_disk` DIOCWDINFO.
unsafe fn set_label(unit: &Unit, label: &nb::disklabel, to_disk: bool) -> c_int {
    // SAFETY: the disk is attached; the opens' lock keeps others from its label.
    unsafe {
        let dk = unit.disk.get();
        let mut new = *label;
        {
            let opens = unit.opens();
            let mask = u64::from(opens.block | opens.character);
            let error = setdisklabel((*dk).dk_label, &mut new, mask, (*dk).dk_cpulabel);
            if error != 0 {
                return error;
            }
        }
        if !to_disk {
            return 0;
        }
        let block = unit.raw_dev(true);
        let before = unit.wlabel.swap(true, Ordering::Relaxed);
        let strategy = crate::devsw::bdev_strategy;
        let error = writedisklabel(block, Some(strategy), (*dk).dk_label, (*dk).dk_cpulabel);
        unit.wlabel.store(before, Ordering::Relaxed);
        error
    }
}

/// d_psize: the size of a swap partition, or of a plain disk, in blocks of 512 bytes; -1 for other partitions.
pub(super) fn size(unit: &Unit, dev: Dev) -> c_int {
    if unit.faults.vanished() {
        return -1;
    }
    let swap = match unit.label() {
        None => true,
        Some(label) => label.d_partitions[disk::part(dev)].p_fstype == FS_SWAP,
    };
    if swap { c_int::try_from(unit.range(dev).1).unwrap_or(c_int::MAX) } else { -1 }
}

/// d_dump
///
/// # Safety
///
/// `va` is `size` bytes of memory.
pub(super) unsafe fn dump(
    unit: &Unit,
    dev: Dev,
    blkno: i64,
    va: *mut c_void,
    size: usize,
) -> Result<(), Errno> {
    unit.takes(unit.dump)?;
    let scale = (unit.secsize / 512) as i64;
    if !size.is_multiple_of(unit.secsize as usize) || blkno < 0 || blkno % scale != 0 {
        return Err(Errno::EFAULT);
    }
    let (first, blocks) = unit.range(dev);
    if blkno as u64 + size as u64 / 512 > blocks {
        return Err(Errno::EINVAL);
    }
    unit.rare().dumps.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the caller's promise; the range was checked.
    unsafe { unit.backend.write((first + blkno as u64) * 512, va.cast(), size, false) }
}

/// d_discard: `pos` and `len` in bytes.
pub(super) fn discard(unit: &Unit, dev: Dev, pos: i64, len: i64) -> Result<(), Errno> {
    unit.takes(unit.discard)?;
    let (first, blocks) = unit.range(dev);
    let end = pos.checked_add(len).ok_or(Errno::EINVAL)?;
    let secsize = i64::from(unit.secsize);
    if pos < 0 || len < 0 || end as u64 > blocks * 512 || pos % secsize != 0 || len % secsize != 0 {
        return Err(Errno::EINVAL);
    }
    unit.rare().discards.fetch_add(1, Ordering::Relaxed);
    unit.backend.discard(first * 512 + pos as u64, len as u64)
}
