// SPDX-License-Identifier: BSD-2-Clause

//! dm-core's [`Kernel`] for NetBSD, and what a component is to it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;

use dm_core::aes::Aes;
use dm_core::hash::Hash;
use dm_core::host::{Host, Plan, Ready};
use dm_core::kernel::{Answer, Kernel, LabelGuard};
use dm_core::label::{Guard, Port, Slices};
use dm_core::pdev::Pdev;
use dm_core::table::Clock;
use dm_core::units::{DEV_BSIZE, Dev, Minor, Sector};
use dm_core::{Errno, errno};

use super::job::{self, TableIo};
use super::unit::Unit;
use super::{dm_label_guard, dm_legacy_errors, global};
use crate::netbsd::condvar::Condvar;
use crate::netbsd::mutex::{Guard as Held, Mutex};
use crate::netbsd::vnode::{self, BlockDevice};
use crate::netbsd::{aes, cpu, hash, sys};

/// NetBSD's kernel, as dm-core sees it.
pub struct NetBsd;

/// This port's labels, as its machine/disklabel.h has them.
pub const PORT: Port = Port { label_sector: sys::LABELSECTOR as u32, slices: SLICES };

const SLICES: Slices = match (sys::LABELUSESMBR, sys::RAW_PART) {
    (0, _) => Slices::None,
    (_, 3) => Slices::PartitionC,
    _ => Slices::Unnamed,
};

impl Kernel for NetBsd {
    type Mutex<T: Send> = Mutex<T>;
    type Condvar = Condvar;
    type Disk = Disk;
    type Unit = Unit;
    type Frugal = cpu::Frugal;

    fn find(&self, path: &str) -> Result<Dev, Errno> {
        vnode::find(path)
    }

    fn open(&self, dev: Dev) -> Result<Disk, Errno> {
        BlockDevice::open(dev).map(Disk)
    }

    fn ask(&self, disk: &Disk) -> Result<Answer, Errno> {
        let device = disk.device();
        let writable = device.ask_writable()?;
        let own = device.dev().major() == self.block_major();
        let (size, sector_size) = match device.size() {
            // getdisksize(9) takes no disk of no size.
            Err(Errno::EINVAL) if own => (Sector::ZERO, DEV_BSIZE),
            answer => answer?,
        };
        // A dm device has no label of its driver's: the label sectors below it are guarded there. And it may be
        // suspended, to be resumed by this very thread, so that reading it must not wait.
        let looked_for = self.label_guard() != LabelGuard::Off && !own;
        let guard = if looked_for { guard(device, size, sector_size)? } else { None };
        Ok(Answer { size, sector_size, writable, guard })
    }

    fn is_gone(&self, disk: &Disk) -> bool {
        disk.device().is_dead()
    }

    const NESTED: usize = job::NESTED;

    fn host(
        &self,
        minor: Minor,
        plan: &Plan,
        ready: Arc<Ready>,
        components: &[Pdev<NetBsd>],
    ) -> Result<Arc<dyn Host>, Errno> {
        let slot = global().and_then(|global| global.slots.get(minor.get()));
        let disks = components.iter().map(Pdev::share).collect::<Option<Box<[_]>>>();
        let (slot, disks) = slot.zip(disks).ok_or(Errno::ENXIO)?;
        // A device of ours may be suspended, and answer only when it no longer is; and its next table
        // may answer otherwise. So it is flushed after a write.
        let own = self.block_major();
        let keeps_fua =
            |disk: &Arc<Disk>| disk.device().dev().major() != own && disk.device().keeps_fua();
        let keeps_fua = disks.iter().map(keeps_fua).collect();
        Ok(TableIo::new(slot, minor, plan, ready, disks, keeps_fua))
    }

    fn attach(&self, minor: Minor) -> Result<Unit, Errno> {
        Unit::attach(minor)
    }

    fn block_major(&self) -> u32 {
        // SAFETY: looks the driver's own table up.
        u32::try_from(unsafe { sys::dm_shim_bmajor() }).unwrap_or(u32::MAX)
    }

    fn authorize(&self) -> Result<(), Errno> {
        // SAFETY: asks about the calling thread.
        errno::Errno::check(unsafe { sys::dm_shim_authorize() })
    }

    fn process(&self) -> u64 {
        // SAFETY: asks about the calling thread.
        u64::from(unsafe { sys::dm_shim_process() }.cast_unsigned())
    }

    fn legacy_errors(&self) -> bool {
        dm_legacy_errors.load(Ordering::Relaxed) != 0
    }

    fn label_guard(&self) -> LabelGuard {
        match dm_label_guard.load(Ordering::Relaxed) {
            0 => LabelGuard::Off,
            2 => LabelGuard::Tables,
            _ => LabelGuard::Writes,
        }
    }

    fn frugal(&self) -> cpu::Frugal {
        cpu::Frugal::new()
    }

    fn seconds(&self) -> u32 {
        seconds()
    }

    fn clock(&self) -> Clock {
        Clock::new(seconds)
    }

    fn hash(&self, name: &str) -> Option<&'static dyn Hash> {
        hash::find(name)
    }

    fn aes(&self) -> Option<&'static dyn Aes> {
        aes::find()
    }

    fn cpus(&self) -> usize {
        cpu::count()
    }

    fn say(&self, what: fmt::Arguments<'_>) {
        cpu::say(what);
    }
}

/// Seconds of the clock that counts ticks(9).
fn seconds() -> u32 {
    cpu::ticks().cast_unsigned() / cpu::hz().cast_unsigned().max(1)
}

impl dm_core::kernel::Condvar<NetBsd> for Condvar {
    fn new(name: &'static core::ffi::CStr) -> Condvar {
        Condvar::new(name)
    }

    fn wait<T: Send>(&self, guard: &mut Held<'_, T, crate::netbsd::mutex::Adaptive>) {
        self.wait(guard);
    }

    fn wait_sig<T: Send>(
        &self,
        guard: &mut Held<'_, T, crate::netbsd::mutex::Adaptive>,
    ) -> Result<(), Errno> {
        self.wait_sig(guard)
    }

    fn broadcast(&self) {
        self.broadcast();
    }
}

/// An opened component.
pub struct Disk(BlockDevice);

impl Disk {
    /// The block device.
    #[inline]
    pub fn device(&self) -> &BlockDevice {
        &self.0
    }
}

/// The sectors of a component that hold its disk's label and boot code. `None` for wedges, for drivers without
/// labels, and where the driver made its label up: the label sector has no DISKMAGIC then. If that sector cannot be
/// read, a label is assumed.
///
/// # Errors
/// The component's driver's, when it has labels but does not return this one.
fn guard(device: &BlockDevice, size: Sector, sector_size: u32) -> Result<Option<Guard>, Errno> {
    // SAFETY: plain numbers and characters.
    let mut label: sys::disklabel = unsafe { core::mem::zeroed() };
    // SAFETY: as above.
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
            // A label sector that lies before this partition cannot be read through it. Where the slice is
            // known a label is assumed.
            None => (PORT.slices != Slices::Unnamed).then_some(guard),
        }
    });
    Ok(found)
}

/// The sectors that would be guarded if the slice started there, counted in sectors of the disk, and the component's
/// sector with the label, unless it lies before the component.
fn place(sector_size: u32, slice: u64, offset: u64) -> Option<(Guard, Option<Sector>)> {
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
