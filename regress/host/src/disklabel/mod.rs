// SPDX-License-Identifier: BSD-2-Clause

//! disklabel(9) as amd64 and i386 have it: the label lies LABELSECTOR after the start of the
//! disk's NetBSD slice, or of the disk where there is no master boot record.

mod scan;

use std::ffi::{CStr, c_char, c_int};

use crate::dev::Dev;
use crate::errno::Errno;
use crate::netbsd as nb;
use scan::Scan;

/// DISKMAGIC
pub const MAGIC: u32 = 0x8256_4557;
/// Partition type of NetBSD in a master boot record.
pub const MBR_NETBSD: u8 = 169;
const PARTITIONS: usize = nb::MAXPARTITIONS as usize;
const LABEL_SIZE: usize = size_of::<nb::disklabel>();

type Strategy = unsafe extern "C" fn(*mut nb::buf);

/// dkcksum(9): the exclusive or of the label's 16-bit words.
pub fn checksum(label: &nb::disklabel) -> u16 {
    let count = usize::from(label.d_npartitions).min(PARTITIONS);
    let bytes =
        std::mem::offset_of!(nb::disklabel, d_partitions) + count * size_of::<nb::partition>();
    let words = std::ptr::from_ref(label).cast::<u16>();
    // SAFETY: a label is plain data without holes, and `bytes` lies in it.
    (0..bytes / 2).fold(0, |sum, i| sum ^ unsafe { words.add(i).read() })
}

/// The label as bytes.
pub fn bytes(label: &nb::disklabel) -> &[u8] {
    // SAFETY: as in `checksum`.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(label).cast(), LABEL_SIZE) }
}

/// A label for a disk of that size: partition d is the whole disk, as on amd64, a and c as well.
pub fn default_label(secsize: u32, sectors: u64) -> nb::disklabel {
    // SAFETY: a label is integers, for which zeros are valid.
    let mut label: nb::disklabel = unsafe { std::mem::zeroed() };
    let size = u32::try_from(sectors).unwrap_or(u32::MAX);
    label.d_magic = MAGIC;
    label.d_magic2 = MAGIC;
    label.d_type = nb::DKTYPE_LD as u16;
    label.d_secsize = secsize;
    label.d_nsectors = 32;
    label.d_ntracks = 64;
    label.d_secpercyl = 32 * 64;
    label.d_ncylinders = size / (32 * 64);
    label.d_secperunit = size;
    label.d_rpm = 3600;
    label.d_interleave = 1;
    label.d_npartitions = nb::RAW_PART as u16 + 1;
    label.d_partitions[nb::RAW_PART as usize].p_size = size;
    label.d_checksum = checksum(&label);
    label
}

/// `true` for a valid label.
pub fn valid(label: &nb::disklabel) -> bool {
    label.d_magic == MAGIC
        && label.d_magic2 == MAGIC
        && usize::from(label.d_npartitions) <= PARTITIONS
        && checksum(label) == 0
}

/// Finds a label in a sector, at any multiple of four bytes.
fn find_label(sector: &[u8]) -> Option<(usize, nb::disklabel)> {
    (0..sector.len().saturating_sub(LABEL_SIZE - 1)).step_by(4).find_map(|at| {
        // SAFETY: LABEL_SIZE bytes follow `at`, and any bytes are a disklabel.
        let label: nb::disklabel =
            unsafe { sector.as_ptr().add(at).cast::<nb::disklabel>().read_unaligned() };
        valid(&label).then_some((at, label))
    })
}

/// readdisklabel(9): null if a label was found, else what is wrong.
///
/// # Safety
///
/// `strategy` is the driver's; `lp` holds the geometry and receives the label.
#[unsafe(no_mangle)]
unsafe extern "C" fn readdisklabel(
    dev: Dev,
    strategy: Option<Strategy>,
    lp: *mut nb::disklabel,
    _osdep: *mut nb::cpu_disklabel,
) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(strategy) = strategy else { return c"no strategy routine".as_ptr() };
        let lp = &mut *lp;
        lp.d_secsize = lp.d_secsize.max(512);
        if lp.d_secperunit == 0 {
            lp.d_secperunit = 0x1fff_ffff;
        }
        if lp.d_secpercyl == 0 {
            return c"invalid geometry".as_ptr();
        }
        lp.d_npartitions = lp.d_npartitions.max(nb::RAW_PART as u16 + 1);
        let raw = &mut lp.d_partitions[nb::RAW_PART as usize];
        if raw.p_size == 0 {
            raw.p_size = lp.d_secperunit;
        }
        Scan::new(dev, strategy, lp, false).find().map_or(std::ptr::null(), CStr::as_ptr)
    }
}

/// setdisklabel(9): EBUSY if an open partition would move or shrink.
///
/// # Safety
///
/// The labels are the disk's and the new one.
#[unsafe(no_mangle)]
unsafe extern "C" fn setdisklabel(
    old: *mut nb::disklabel,
    new: *mut nb::disklabel,
    openmask: nb::u_long,
    _osdep: *mut nb::cpu_disklabel,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let (old, new) = (&mut *old, &mut *new);
        if new.d_secpercyl == 0 || new.d_secsize == 0 || new.d_secsize % 512 != 0 {
            return Errno::EINVAL.0;
        }
        // So that a label can be taken away: nothing else of it is looked at.
        if new.d_magic == u32::MAX {
            *old = *new;
            return 0;
        }
        if !valid(new) {
            return Errno::EINVAL.0;
        }
        for i in (0..PARTITIONS).filter(|i| openmask & (1 << i) != 0 && *i != nb::RAW_PART as usize)
        {
            let was = &old.d_partitions[i];
            let is = &new.d_partitions[i];
            if i >= usize::from(new.d_npartitions)
                || is.p_offset != was.p_offset
                || is.p_size < was.p_size
            {
                return Errno::EBUSY.0;
            }
        }
        new.d_checksum = 0;
        new.d_checksum = checksum(new);
        *old = *new;
    }
    0
}

/// writedisklabel(9): ESRCH if there is no label to replace and no room is known for one.
///
/// # Safety
///
/// `strategy` is the driver's; `lp` is the disk's label.
#[unsafe(no_mangle)]
unsafe extern "C" fn writedisklabel(
    dev: Dev,
    strategy: Option<Strategy>,
    lp: *mut nb::disklabel,
    _osdep: *mut nb::cpu_disklabel,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(strategy) = strategy else { return Errno::EINVAL.0 };
        Scan::new(dev, strategy, &mut *lp, true).put()
    }
}
