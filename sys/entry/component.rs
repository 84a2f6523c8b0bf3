// SPDX-License-Identifier: BSD-2-Clause

//! An opened component, and the sectors of it that hold its disk's label. Context of everything
//! here that asks a device: a thread that holds no lock; sleeps in the device's driver.

use alloc::vec::Vec;

use dm_core::Errno;
use dm_core::guard::{GuardedSectors, Port, Slices};
use dm_core::units::{DEV_BSIZE, Dev, Sector};

use crate::netbsd::sys;
use crate::netbsd::vnode::BlockDevice;

/// This port's labels, as its machine/disklabel.h has them.
pub const PORT: Port = Port { label_sector: sys::LABELSECTOR as u32, slices: SLICES };

const SLICES: Slices = match (sys::LABELUSESMBR, sys::RAW_PART) {
    (0, _) => Slices::None,
    (_, 3) => Slices::PartitionC,
    _ => Slices::Unnamed,
};

/// An opened component.
pub struct Disk(BlockDevice);

impl Disk {
    /// Opens a block device, for writing if it takes writes.
    ///
    /// # Errors
    /// Those of [`BlockDevice::open`].
    pub fn open(dev: Dev) -> Result<Disk, Errno> {
        BlockDevice::open(dev).map(Disk)
    }

    /// The block device.
    #[inline]
    pub fn device(&self) -> &BlockDevice {
        &self.0
    }
}

/// The sectors of a component that hold its disk's label and boot code. `None` for wedges, for
/// drivers without labels, and where the driver made its label up: the label sector has no
/// DISKMAGIC then. If that sector cannot be read, a label is assumed.
///
/// # Errors
/// The component's driver's, when it has labels but does not return this one.
pub fn guarded(
    device: &BlockDevice,
    size: Sector,
    sector_size: u32,
) -> Result<Option<GuardedSectors>, Errno> {
    // SAFETY: plain numbers and characters.
    let mut label: sys::disklabel = unsafe { core::mem::zeroed() };
    // SAFETY: plain numbers.
    let mut part: sys::partinfo = unsafe { core::mem::zeroed() };
    // SAFETY: DIOCGDINFO gives a struct disklabel, DIOCGPARTINFO a struct partinfo.
    let asked = unsafe {
        device
            .ioctl(sys::DIOCGDINFO as u32, &mut label)
            .and_then(|()| device.ioctl(sys::DIOCGPARTINFO as u32, &mut part))
    };
    match asked {
        Ok(()) => {}
        // The answers of disk_ioctl(9) and of drivers without labels.
        Err(Errno::ENOTTY | Errno::ENODEV | Errno::EOPNOTSUPP | Errno::EBUSY) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    // Partition c is the NetBSD slice on the ports that have one.
    let c = label.d_partitions.get(2).map_or(0, |c| u64::from(c.p_offset));
    let offset = part.pi_offset;
    let first = match (PORT.slices, offset) {
        (Slices::Unnamed, 0) => read_sector(device, Sector::ZERO, sector_size).ok(),
        _ => None,
    };
    let found = PORT.slices(c, offset, first.as_deref()).into_iter().find_map(|slice| {
        let (guard, at) = place(sector_size, slice, offset)?;
        match at {
            Some(at) => {
                let there = PORT.slices != Slices::Unnamed || at < size;
                (there && carries_label(device, at, sector_size)).then_some(guard)
            }
            // A label sector that lies before this partition cannot be read through it. Where the
            // slice is known a label is assumed.
            None => (PORT.slices != Slices::Unnamed).then_some(guard),
        }
    });
    Ok(found)
}

/// The sectors that would be guarded if the slice started there, counted in sectors of the disk,
/// and the component's sector with the label, unless it lies before the component.
fn place(sector_size: u32, slice: u64, offset: u64) -> Option<(GuardedSectors, Option<Sector>)> {
    let per_sector = u64::from(sector_size / DEV_BSIZE);
    let in_dev_bsize = |n: u64| n.checked_mul(per_sector).map(Sector);
    let (base, offset) = (in_dev_bsize(slice)?, in_dev_bsize(offset)?);
    let guard = PORT.guard(base, offset, per_sector)?;
    let label = in_dev_bsize(u64::from(PORT.label_sector))?;
    Some((guard, base.checked_add(label)?.checked_sub(offset)))
}

/// Reads one sector of a component.
///
/// # Errors
/// Its driver's.
fn read_sector(device: &BlockDevice, at: Sector, sector_size: u32) -> Result<Vec<u8>, Errno> {
    let mut sector = alloc::vec![0u8; sector_size as usize];
    device.read(at, &mut sector)?;
    Ok(sector)
}

/// `true` if a component's sector holds a label, or cannot be read.
fn carries_label(device: &BlockDevice, at: Sector, sector_size: u32) -> bool {
    let Ok(sector) = read_sector(device, at, sector_size) else { return true };
    let magic = sector.get(sys::LABELOFFSET as usize..).and_then(|bytes| bytes.first_chunk::<4>());
    magic.is_some_and(|magic| u32::from_ne_bytes(*magic) == sys::DISKMAGIC as u32)
}
