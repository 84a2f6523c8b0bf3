// SPDX-License-Identifier: BSD-2-Clause

//! d_ioctl(9): NETBSD_DM_IOCTL on the control node, whose commands are in `dm/commands.rs`, and a
//! disk's ioctls on the devices; `ioctl/forward.rs` has those that go to the components.

mod forward;

use core::ffi::{c_int, c_ulong, c_void};
use core::sync::atomic::Ordering;

use dm_core::device::Selector;
use dm_core::kernel::Kernel;
use dm_core::limits;
use dm_core::units::{DEV_BSIZE, Dev, Minor, Sector};
use dm_core::{Errno, errno};

use super::slot::{DiskUse, Slot};
use super::{Global, devsw, global, label};
use crate::netbsd::proplib::Dictionary;
use crate::netbsd::sys;

/// The commands, in the width that d_ioctl has them.
macro_rules! commands {
    ($($name:ident),* $(,)?) => { $(const $name: c_ulong = sys::$name as u32 as c_ulong;)* };
}

commands! {
    NETBSD_DM_IOCTL, DIOCGDINFO, DIOCSDINFO, DIOCWDINFO, DIOCGDEFLABEL, DIOCWLABEL, DIOCKLABEL,
    DIOCGWEDGEINFO, DIOCCACHESYNC, DIOCGCACHE, DIOCGSTRATEGY, DIOCGSECTORALIGN, DIOCGPARTINFO,
    DIOCGSECTORSIZE, DIOCGMEDIASIZE, DIOCAWEDGE, DIOCDWEDGE, DIOCMWEDGES, DIOCRMWEDGES,
}

const ODIOCGDINFO: c_ulong = label::old_command(false, 101);
const ODIOCSDINFO: c_ulong = label::old_command(true, 102);
const ODIOCWDINFO: c_ulong = label::old_command(true, 103);
const ODIOCGDEFLABEL: c_ulong = label::old_command(false, 114);

const EPASSTHROUGH: c_int = -4;

/// d_ioctl(9). Context: a thread with no lock held; sleeps, for the control flag of a device, for
/// I/O and for memory. It may drop the last reference to a table, and sleeps for that then: see
/// [`Table`](dm_core::table::Table).
///
/// # Safety
/// `data` is what `command` reads and writes, copied in and to be copied out by the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmioctl(
    dev: sys::dev_t,
    command: c_ulong,
    data: *mut c_void,
    flags: c_int,
    _: *mut sys::lwp,
) -> c_int {
    let _call = devsw::CALLS.begin();
    // SAFETY: the caller's promise.
    errno::raw(unsafe {
        match (Dev(dev).minor(), command) {
            (0, NETBSD_DM_IOCTL) => control(&mut *data.cast(), command, flags),
            (0, _) | (_, NETBSD_DM_IOCTL) => Err(Errno::ENOTTY),
            _ => disk(Dev(dev), command, data, flags),
        }
    })
}

/// NETBSD_DM_IOCTL: a dictionary in, the same dictionary out. Context: as for [`dmioctl`].
fn control(reference: &mut sys::plistref, command: c_ulong, flags: c_int) -> Result<(), Errno> {
    let global = global().ok_or(Errno::ENXIO)?;
    // An unprivileged process has no use for a large request, and gets no memory for one.
    let limit = match global.driver.kernel().authorize() {
        Ok(()) => limits::REQUEST,
        Err(_) => limits::UNPRIVILEGED_REQUEST,
    };
    let refused = |why: core::fmt::Arguments<'_>| {
        dm_core::commands::refused_unread(&global.driver, why);
    };
    let mut dict = Dictionary::copyin(reference, command, limit).inspect_err(|errno| {
        if *errno == Errno::E2BIG {
            refused(format_args!("{} bytes are more than the kernel reads", reference.pref_len));
        }
    })?;
    // Keys that the driver does not know go back as they came, and proplib writes them by
    // recursion.
    if dict.is_deeper_than(limits::NESTING)? {
        refused(format_args!("it nests more than {} deep", limits::NESTING));
        return Err(Errno::EINVAL);
    }
    dm_core::commands::execute(&global.driver, &mut dict, flags & sys::FWRITE != 0)?;
    dict.copyout(reference, command)
}

/// Carries out a disk's ioctl. Context: a thread with no lock held; sleeps.
///
/// # Safety
/// `data` is what `command` reads and writes.
unsafe fn disk(dev: Dev, command: c_ulong, data: *mut c_void, flags: c_int) -> Result<(), Errno> {
    let (global, slot) = devsw::slot(dev.0)?;
    let disk = slot.disk(dev.minor()).ok_or(Errno::ENXIO)?;
    let device = Device { global, slot, dev, disk };
    slot.fold();
    let write = || if flags & sys::FWRITE != 0 { Ok(()) } else { Err(Errno::EBADF) };
    // SAFETY: each command's data is of the type that its definition names (caller).
    unsafe {
        match command {
            DIOCGWEDGEINFO => device.wedge_info(cleared(data)),
            DIOCCACHESYNC => {
                write()?;
                device.sync(*data.cast())
            }
            DIOCGCACHE => {
                *data.cast() = device.cache()?;
                Ok(())
            }
            DIOCGSTRATEGY => device.strategy(cleared(data)),
            DIOCGSECTORALIGN => {
                *data.cast() = device.alignment()?;
                Ok(())
            }
            DIOCGSECTORSIZE => {
                *data.cast() = device.size().1;
                Ok(())
            }
            DIOCGMEDIASIZE => {
                // A table's size in bytes fits an off_t: `Sector::MAX`.
                *data.cast() = device.size().0.to_bytes().unwrap_or(0) as i64;
                Ok(())
            }
            DIOCGDINFO => {
                *data.cast() = device.label();
                Ok(())
            }
            ODIOCGDINFO => {
                *data.cast() = label::to_old(&device.label())?;
                Ok(())
            }
            DIOCGDEFLABEL => {
                *data.cast() = device.default_label();
                Ok(())
            }
            ODIOCGDEFLABEL => {
                *data.cast() = label::to_old(&device.default_label())?;
                Ok(())
            }
            DIOCSDINFO => {
                write()?;
                device.set_label(&*data.cast())
            }
            ODIOCSDINFO => {
                write()?;
                device.set_label(&label::from_old(&*data.cast()))
            }
            DIOCWDINFO => {
                write()?;
                device.write_label(&*data.cast())
            }
            ODIOCWDINFO => {
                write()?;
                device.write_label(&label::from_old(&*data.cast()))
            }
            DIOCWLABEL => {
                write()?;
                slot.label_writable.store(*data.cast::<c_int>() != 0, Ordering::Relaxed);
                Ok(())
            }
            // dk(4) opens a wedge's parent by a minor number made of its unit and its raw
            // partition. Ours have no partitions: that would be another device.
            DIOCAWEDGE | DIOCMWEDGES => {
                write()?;
                Err(Errno::EOPNOTSUPP)
            }
            // There are no wedges to delete: dkwedge_del looks at all disks.
            DIOCDWEDGE => {
                write()?;
                Err(Errno::ESRCH)
            }
            // Nor idle ones; disk_ioctl answers DIOCLWEDGES accordingly.
            DIOCRMWEDGES => write(),
            // The label is read anew when it is asked for after the last close.
            DIOCKLABEL => write(),
            DIOCGPARTINFO => {
                device.part_info(cleared(data));
                Ok(())
            }
            _ => device.disk.ioctl(dev, command, data, flags).map_err(|errno| match errno.raw() {
                EPASSTHROUGH => Errno::ENOTTY,
                _ => errno,
            }),
        }
    }
}

/// An ioctl's answer, of zeroes, padding and all: nothing of the kernel's memory is left in it.
///
/// # Safety
/// `data` is a `T`, which is plain numbers and characters.
unsafe fn cleared<'d, T>(data: *mut c_void) -> &'d mut T {
    // SAFETY: the caller's promise.
    unsafe {
        let data: *mut T = data.cast();
        data.write_bytes(0, 1);
        &mut *data
    }
}

/// A device that an ioctl is for.
struct Device<'s> {
    global: &'static Global,
    slot: &'static Slot,
    dev: Dev,
    disk: DiskUse<'s>,
}

impl Device<'_> {
    /// The device's size, and bytes in a sector; zeroes without a table. May sleep, where it drops
    /// the last reference to a table that it has looked at.
    fn size(&self) -> (Sector, u32) {
        let look = |current: &super::slot::Current| {
            current.table.as_ref().map(|table| (table.size(), table.sector_size()))
        };
        let now = self.slot.peek(look).flatten();
        // Suspended, the device keeps the size it had.
        now.or_else(|| {
            let minor = Minor::new(u64::from(self.dev.minor()))?;
            let found = self.global.driver.find(&Selector::Minor(minor))?;
            let table = found.device.snapshot().active?;
            Some((table.size(), table.sector_size()))
        })
        .unwrap_or((Sector::ZERO, DEV_BSIZE))
    }

    /// The whole device as a partition. disk_ioctl would look at disk(9)'s geometry without a lock,
    /// and could return half of an old size and half of a new one.
    fn part_info(&self, info: &mut sys::partinfo) {
        let (size, sector_size) = self.size();
        info.pi_size = in_sectors(size, sector_size);
        info.pi_secsize = sector_size;
        info.pi_bsize = sector_size.max(sys::BLKDEV_IOSIZE as u32) as _;
        // newfs(8) and fsck(8) ask what the partition is for.
        info.pi_fstype = sys::FS_BSDFFS as _;
    }

    /// The device as a wedge: what lvm(8) and getdisksize ask for first.
    fn wedge_info(&self, info: &mut sys::dkwedge_info) -> Result<(), Errno> {
        let minor = Minor::new(u64::from(self.dev.minor())).ok_or(Errno::ENXIO)?;
        let found = self.global.driver.find(&Selector::Minor(minor)).ok_or(Errno::ENXIO)?;
        let (size, sector_size) = self.size();
        let node = alloc::format!("dm{minor}");
        copy(&mut info.dkw_devname, node.as_bytes(), |c| c as _);
        copy(&mut info.dkw_parent, node.as_bytes(), |c| c as _);
        copy(&mut info.dkw_wname, found.name.as_str().as_bytes(), |c| c);
        copy(&mut info.dkw_ptype, sys::DKW_PTYPE_FFS, |c| c as _);
        info.dkw_size = in_sectors(size, sector_size);
        Ok(())
    }

    /// The label that DIOCGDINFO reports.
    fn label(&self) -> sys::disklabel {
        let (size, sector_size) = self.size();
        label::get(self.slot, &self.disk, self.dev, size, sector_size)
    }

    /// Sets the label in core: DIOCSDINFO.
    fn set_label(&self, label: &sys::disklabel) -> Result<(), Errno> {
        self.disk.set_label(label, self.size().1).map(drop)
    }

    /// Sets the label and writes it to the disk: DIOCWDINFO.
    fn write_label(&self, label: &sys::disklabel) -> Result<(), Errno> {
        label::write(self.slot, &self.disk, label, self.size().1)
    }

    /// The label of a disk without one: DIOCGDEFLABEL.
    fn default_label(&self) -> sys::disklabel {
        let (size, sector_size) = self.size();
        label::default(size, sector_size)
    }
}

/// A size in the device's own sectors.
fn in_sectors(size: Sector, sector_size: u32) -> u64 {
    size.0 / u64::from(sector_size / DEV_BSIZE).max(1)
}

/// Copies text into a C array, cut to leave room for the NUL; the array holds zeroes. `character`
/// makes C's char, which is signed or not, of a byte.
fn copy<T, const N: usize>(to: &mut [T; N], from: &[u8], character: impl Fn(u8) -> T) {
    for (to, from) in to.iter_mut().take(N.saturating_sub(1)).zip(from) {
        *to = character(*from);
    }
}
