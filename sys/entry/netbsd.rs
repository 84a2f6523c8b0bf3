//! dm-core's kernel: this one.

use core::fmt;
use core::sync::atomic::Ordering;

use dm_core::kernel::{Kernel, LabelGuard};
use dm_core::label::{Guard, Port};
use dm_core::table::Component;
use dm_core::units::{DEV_BSIZE, Dev, Minor, Sector};
use dm_core::{Errno, errno};

use super::unit::Unit;
use super::{dm_label_guard, dm_legacy_errors};
use crate::kern::condvar::Condvar;
use crate::kern::mutex::{Guard as Held, Mutex};
use crate::kern::vnode::{self, BlockDevice};
use crate::kern::{cpu, sys};

/// NetBSD's kernel.
pub struct NetBsd;

/// This port's labels, as its machine/disklabel.h has them. The ports that keep LABELSECTOR from
/// the start of an MBR slice are those with a raw partition `d`.
pub const PORT: Port = Port { label_sector: sys::LABELSECTOR as u32, mbr: sys::RAW_PART == 3 };

impl Kernel for NetBsd {
    type Mutex<T: Send> = Mutex<T>;
    type Condvar = Condvar;
    type Disk = Disk;
    type Unit = Unit;

    fn find(&self, path: &str) -> Result<Dev, Errno> {
        vnode::find(path)
    }

    fn open(&self, dev: Dev) -> Result<Disk, Errno> {
        let device = BlockDevice::open(dev)?;
        let guard = guard(&device);
        Ok(Disk { device, guard })
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

    fn say(&self, what: fmt::Arguments<'_>) {
        cpu::say(what);
    }
}

impl dm_core::kernel::Condvar<NetBsd> for Condvar {
    fn new(name: &'static core::ffi::CStr) -> Condvar {
        Condvar::new(name)
    }

    fn wait<T: Send>(&self, guard: &mut Held<'_, T, crate::kern::mutex::Adaptive>) {
        self.wait(guard);
    }

    fn wait_sig<T: Send>(
        &self,
        guard: &mut Held<'_, T, crate::kern::mutex::Adaptive>,
    ) -> Result<(), Errno> {
        self.wait_sig(guard)
    }

    fn broadcast(&self) {
        self.broadcast();
    }
}

/// An opened component, and what of it belongs to its disk's label.
pub struct Disk {
    device: BlockDevice,
    guard: Option<Guard>,
}

impl Disk {
    /// The block device.
    #[inline]
    pub fn device(&self) -> &BlockDevice {
        &self.device
    }
}

impl Component for Disk {
    fn dev(&self) -> Dev {
        self.device.dev()
    }

    fn size(&self) -> Sector {
        self.device.size()
    }

    fn sector_size(&self) -> u32 {
        self.device.sector_size()
    }

    fn writable(&self) -> bool {
        self.device.writable()
    }

    fn guard(&self) -> Option<Guard> {
        self.guard
    }
}

/// What of a component is kept for its disk's label. A wedge has no label, and neither has a disk
/// whose driver made one up: the label sector says which.
fn guard(device: &BlockDevice) -> Option<Guard> {
    // SAFETY: plain numbers and characters.
    let mut label: sys::disklabel = unsafe { core::mem::zeroed() };
    // SAFETY: as above.
    let mut part: sys::partinfo = unsafe { core::mem::zeroed() };
    // SAFETY: DIOCGDINFO gives a struct disklabel, DIOCGPARTINFO a struct partinfo.
    unsafe {
        device.ioctl(sys::DIOCGDINFO as u32, &mut label).ok()?;
        device.ioctl(sys::DIOCGPARTINFO as u32, &mut part).ok()?;
    }
    let per_sector = u64::from(device.sector_size() / DEV_BSIZE);
    let in_dev_bsize = |n: u64| n.checked_mul(per_sector).map(Sector);
    // Partition c is the NetBSD slice on the ports that have one.
    let slice = label.d_partitions.get(2).map_or(0, |c| u64::from(c.p_offset));
    let guard = PORT.guard(in_dev_bsize(slice)?, in_dev_bsize(part.pi_offset)?, per_sector)?;
    // Where the label itself is, if it is on the component; before it, nobody can look.
    let label = u64::from(PORT.label_sector).checked_mul(per_sector)?;
    let base = if PORT.mbr { in_dev_bsize(slice)? } else { Sector::ZERO };
    let at = base.checked_add(Sector(label))?.checked_sub(in_dev_bsize(part.pi_offset)?);
    at.is_none_or(|at| carries_label(device, at)).then_some(guard)
}

/// Whether a component's sector holds a label.
fn carries_label(device: &BlockDevice, at: Sector) -> bool {
    let mut sector = alloc::vec![0u8; device.sector_size() as usize];
    if device.read(at, &mut sector).is_err() {
        return false;
    }
    let magic = sector.get(sys::LABELOFFSET as usize..).and_then(|bytes| bytes.first_chunk::<4>());
    magic.is_some_and(|magic| u32::from_ne_bytes(*magic) == sys::DISKMAGIC as u32)
}
