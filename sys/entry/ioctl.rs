// SPDX-License-Identifier: BSD-2-Clause

//! d_ioctl(9): NETBSD_DM_IOCTL on the control node, whose commands are `dm/commands.rs`, and a disk's ioctls on the
//! devices.

use alloc::sync::Arc;
use core::ffi::{c_int, c_ulong, c_void};
use core::sync::atomic::Ordering;

use dm_core::device::Selector;
use dm_core::job::Op;
use dm_core::kernel::{Kernel, LiveTable};
use dm_core::limits;
use dm_core::table::Component;
use dm_core::units::{DEV_BSIZE, Dev, Minor, Sector};
use dm_core::{Errno, errno};

use super::kernel::NetBsd;
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

/// d_ioctl(9).
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
    // SAFETY: the caller's promise.
    errno::raw(unsafe {
        match (Dev(dev).minor(), command) {
            (0, NETBSD_DM_IOCTL) => control(&mut *data.cast(), command, flags),
            (0, _) | (_, NETBSD_DM_IOCTL) => Err(Errno::ENOTTY),
            _ => disk(Dev(dev), command, data, flags),
        }
    })
}

/// NETBSD_DM_IOCTL: a dictionary in, the same dictionary out.
fn control(reference: &mut sys::plistref, command: c_ulong, flags: c_int) -> Result<(), Errno> {
    let global = global().ok_or(Errno::ENXIO)?;
    // Who may not change devices has no use for a large request, and gets no memory for one.
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
    // What the driver does not know goes back as it came, and proplib writes it by recursion.
    if dict.is_deeper_than(limits::NESTING)? {
        refused(format_args!("it nests more than {} deep", limits::NESTING));
        return Err(Errno::EINVAL);
    }
    dm_core::commands::execute(&global.driver, &mut dict, flags & sys::FWRITE != 0)?;
    dict.copyout(reference, command)
}

/// # Safety
/// `data` is what `command` reads and writes.
unsafe fn disk(dev: Dev, command: c_ulong, data: *mut c_void, flags: c_int) -> Result<(), Errno> {
    let (global, slot) = devsw::slot(dev.0)?;
    let disk = slot.disk().ok_or(Errno::ENXIO)?;
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
            // Nor idle ones; DIOCLWEDGES, which disk_ioctl answers, says so too.
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

struct Device<'s> {
    global: &'static Global,
    slot: &'static Slot,
    dev: Dev,
    disk: DiskUse<'s>,
}

impl Device<'_> {
    /// The device's size, and bytes in a sector; zeroes without a table.
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
    /// and could tell half of an old size and half of a new one.
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
        copy(&mut info.dkw_devname, node.as_bytes());
        copy(&mut info.dkw_parent, node.as_bytes());
        copy(&mut info.dkw_wname, found.name.as_str().as_bytes());
        copy(&mut info.dkw_ptype, sys::DKW_PTYPE_FFS);
        info.dkw_size = in_sectors(size, sector_size);
        Ok(())
    }

    /// The active table, once the device is not suspended. Its components stay open as long as it is
    /// kept, but nobody is inside the gate for it: what a component's driver does for an ioctl may
    /// wait for memory, and a resume or suspend holds I/O while it waits for who is inside.
    fn table(&self) -> Result<Arc<LiveTable<NetBsd>>, Errno> {
        let inside = self.slot.enter_sleeping()?;
        inside.current().table.clone().ok_or(Errno::ENXIO)
    }

    /// Calls `f` with every component, once each.
    fn components(
        &self,
        mut f: impl FnMut(&crate::netbsd::vnode::BlockDevice) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let table = self.table()?;
        let mut result = Ok(());
        for component in table.components() {
            let one = component.disk().map_or(Err(Errno::EIO), |disk| f(disk.device()));
            result = result.and(one);
        }
        result
    }

    /// DIOCCACHESYNC: every line whose target serves I/O flushes itself, and every component that
    /// another line reaches is flushed. The first error is returned, when all have been asked.
    fn sync(&self, force: c_int) -> Result<(), Errno> {
        let (table, mut result) = loop {
            let table = self.table()?;
            table.may_flush()?;
            if let Some(result) = self.flush_lines(&table)? {
                break (table, result);
            }
        };
        let left = table.engine().map(|_| table.reached_by_others());
        for (at, component) in table.components().iter().enumerate() {
            if left.as_ref().is_none_or(|left| left.contains(&at)) {
                let flushed = component.disk().map_or(Err(Errno::EIO), |d| d.device().flush(force));
                result = result.and(flushed);
            }
        }
        result
    }

    /// Has the lines of a table flush themselves whose targets serve I/O; inside the gate, as every
    /// job. `None` if that table is not the active one any more, or a target gave its job back.
    ///
    /// # Errors
    /// EINTR while the device is suspended, ENXIO if it goes.
    fn flush_lines(
        &self,
        table: &Arc<LiveTable<NetBsd>>,
    ) -> Result<Option<Result<(), Errno>>, Errno> {
        let Some(engine) = table.engine() else { return Ok(Some(Ok(()))) };
        let inside = self.slot.enter_sleeping()?;
        let current = inside.current();
        let (Some(host), Some(active)) = (&current.host, &current.table) else { return Ok(None) };
        if !Arc::ptr_eq(active, table) {
            return Ok(None);
        }
        let mut result = Ok(());
        for line in 0..engine.lines() {
            match host.barrier(engine, line, Op::Flush, (Sector::ZERO, Sector::ZERO)) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(errno) => result = result.and(Err(errno)),
            }
        }
        Ok(Some(result))
    }

    /// DIOCGCACHE: what all components can; a write cache of one is a write cache.
    fn cache(&self) -> Result<c_int, Errno> {
        let either = (sys::DKCACHE_WRITE | sys::DKCACHE_WCHANGE) as c_int;
        let mut all = None;
        self.components(|device| {
            let mut bits: c_int = 0;
            // SAFETY: DIOCGCACHE gives an int.
            unsafe { device.ioctl(sys::DIOCGCACHE as u32, &mut bits)? };
            all = Some(all.map_or(bits, |all: c_int| all & bits | (all | bits) & either));
            Ok(())
        })?;
        Ok(all.unwrap_or(0))
    }

    /// DIOCGSTRATEGY: the queue is the component's, if there is one component.
    fn strategy(&self, info: &mut sys::disk_strategy) -> Result<(), Errno> {
        let mut count = 0usize;
        self.components(|_| {
            count = count.saturating_add(1);
            Ok(())
        })?;
        if count == 1 {
            // SAFETY: DIOCGSTRATEGY gives a struct disk_strategy.
            return self
                .components(|device| unsafe { device.ioctl(sys::DIOCGSTRATEGY as u32, info) });
        }
        copy(&mut info.dks_name, b"none");
        Ok(())
    }

    /// DIOCGSECTORALIGN: where a device's first sector lies in its component's large sectors. What
    /// more than one component says is told only if it is the same.
    fn alignment(&self) -> Result<sys::disk_sectoralign, Errno> {
        let table = self.table()?;
        let none = sys::disk_sectoralign { dsa_firstaligned: 0, dsa_alignment: 1 };
        let mut all: Option<sys::disk_sectoralign> = None;
        let mut differ = false;
        for (range, target) in table.lines() {
            target.extents(range.length, &mut |extent| {
                let device = table.components().get(extent.component.0 as usize);
                let Some(component) = device else { return };
                let Some(disk) = component.disk() else { return };
                let mut one = none;
                // SAFETY: DIOCGSECTORALIGN gives a struct disk_sectoralign.
                let asked = unsafe { disk.device().ioctl(sys::DIOCGSECTORALIGN as u32, &mut one) };
                if asked.is_err() || one.dsa_alignment == 0 {
                    one = none;
                }
                let unit = u64::from(component.sector_size() / DEV_BSIZE).max(1);
                let alignment = u64::from(one.dsa_alignment);
                // Sector s of the component is sector s - extent.start + range.start of the device.
                let shift = (extent.start.0 / unit + alignment - range.start.0 / unit % alignment)
                    % alignment;
                let first =
                    (u64::from(one.dsa_firstaligned) % alignment + alignment - shift) % alignment;
                one.dsa_firstaligned = u32::try_from(first).unwrap_or(0);
                differ |= all.is_some_and(|all| {
                    (all.dsa_firstaligned, all.dsa_alignment)
                        != (one.dsa_firstaligned, one.dsa_alignment)
                });
                all = Some(one);
            });
        }
        Ok(all.filter(|_| !differ).unwrap_or(none))
    }

    /// The label to tell.
    fn label(&self) -> sys::disklabel {
        let (size, sector_size) = self.size();
        label::get(self.slot, &self.disk, self.dev, size, sector_size)
    }

    fn set_label(&self, label: &sys::disklabel) -> Result<(), Errno> {
        self.disk.set_label(label, self.size().1).map(drop)
    }

    fn write_label(&self, label: &sys::disklabel) -> Result<(), Errno> {
        label::write(self.slot, &self.disk, label, self.size().1)
    }

    fn default_label(&self) -> sys::disklabel {
        let (size, sector_size) = self.size();
        label::default(size, sector_size)
    }
}

/// A size in the device's own sectors.
fn in_sectors(size: Sector, sector_size: u32) -> u64 {
    size.0 / u64::from(sector_size / DEV_BSIZE).max(1)
}

/// Copies text into a C array, cut to leave room for the NUL; the array holds zeroes.
fn copy<T: Byte, const N: usize>(to: &mut [T; N], from: &[u8]) {
    for (to, from) in to.iter_mut().take(N.saturating_sub(1)).zip(from) {
        *to = T::byte(*from);
    }
}

/// A C character, signed or not.
trait Byte {
    fn byte(byte: u8) -> Self;
}

impl Byte for u8 {
    fn byte(byte: u8) -> u8 {
        byte
    }
}

impl Byte for i8 {
    fn byte(byte: u8) -> i8 {
        byte as i8
    }
}
