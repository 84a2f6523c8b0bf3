// SPDX-License-Identifier: BSD-2-Clause

//! A device as NetBSD sees it: dm-core's unit, on a slot, a device_t and a disk(9).
//!
//! Context of everything here: a thread, with no lock of the driver's held; in a detach with the
//! kernel lock, which is given up while it sleeps. `device/removal.rs` has the steps in which a
//! device goes.

use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::Ordering;

use dm_core::Errno;
use dm_core::errno;
use dm_core::kernel::{self, Geometry, LiveTable};
use dm_core::units::{Minor, Sector};

use super::io::Door;
use super::journey::Journey;
use super::kernel::NetBsd;
use super::slot::{Current, Slot};
use super::{dm_device_count, global, in_use};
use crate::netbsd::disk::Disk;
use crate::netbsd::mount::{Mounted, Suspended};
use crate::netbsd::mutex::Mutex;
use crate::netbsd::{cpu, sys};

/// A device as NetBSD sees it.
///
/// # Invariants
/// The slot is this device's until the unit is dropped.
pub struct Unit {
    slot: &'static Slot,
    minor: Minor,
    /// Held while disk_set_info(9) is called, which takes dk_openlock and waits for memory.
    info: Mutex<DiskInfo>,
}

/// The arguments of disk_set_info(9). All fields: under [`Unit::info`].
#[derive(Default)]
struct DiskInfo {
    /// The geometry that userland gave, if any.
    geometry: Option<Geometry>,
    /// The size, and the bytes of a sector, once a table has been active.
    size: Option<(Sector, u32)>,
}

impl Unit {
    /// Attaches a pseudo-device with this unit number, and its disk.
    ///
    /// # Errors
    /// EBUSY while another device of this number is being detached or autoconf(9) has not collected
    /// it yet, ENXIO when the driver is not there.
    pub(crate) fn attach(minor: Minor) -> Result<Unit, Errno> {
        let global = global().ok_or(Errno::ENXIO)?;
        let slot = global.slots.take(minor);
        let unit = Unit { slot, minor, info: Mutex::new(DiskInfo::default()) };
        // SAFETY: no other thread has the slot's cfdata yet but, for an assertion, one that
        // detaches the slot's last device once more (`CfData`), and it lives longer than the
        // device. config_attach_pseudo calls `dm_attach`. The device lives until `dm_detach` has
        // detached the disk that is named after it.
        let disk = cpu::with_kernel_lock(|| unsafe {
            // A device_t with this unit may still be in config_detach(9). The kernel lock keeps
            // other threads from attaching one between this look and config_attach_pseudo(9).
            if sys::dm_shim_attached(minor.get()) {
                return Err(Errno::EBUSY);
            }
            sys::dm_shim_cfdata_init(slot.cfdata(), minor.get());
            let device = sys::config_attach_pseudo(slot.cfdata());
            // With the driver's tables registered autoconf(9) has one reason to refuse: the number
            // is taken, be it by a device_t that autoconf(9) does not find any more. For memory it
            // waits.
            if device.is_null() { Err(Errno::EBUSY) } else { Ok(Disk::attach(device)) }
        });
        // Dropping the unit gives the slot back.
        slot.set_disk(disk?);
        global.slots.publish(minor, slot);
        dm_device_count.fetch_add(1, Ordering::Relaxed);
        Ok(unit)
    }

    /// Updates disk(9)'s size and geometry. disk_set_info(9) makes property lists, for which it
    /// waits for memory, with `info` and dk_openlock held: neither is taken while I/O is held.
    fn update_disk(&self, change: impl FnOnce(&mut DiskInfo)) {
        let mut info = self.info.lock();
        change(&mut info);
        if let Some((size, sector_size)) = info.size
            && let Some(disk) = self.slot.disk(self.minor.get())
        {
            disk.set_info(size, sector_size, info.geometry);
        }
    }
}

impl kernel::Unit<NetBsd> for Unit {
    type Suspended = Suspended;

    fn suspend_file_system(&self) -> Result<Option<Suspended>, Errno> {
        if self.slot.is_suspended() {
            return Ok(None);
        }
        let Some(mounted) = Mounted::on(self.slot.dev())? else { return Ok(None) };
        let failed = |errno: Errno| {
            let minor = self.minor.get();
            cpu::say(format_args!(
                "dm: the file system on minor {minor} is not synchronised: {errno}"
            ));
        };
        let suspended = match mounted.suspend() {
            Ok(suspended) => suspended,
            // The device can be suspended all the same.
            Err(errno) if errno != Errno::EINTR && errno.raw() > 0 => {
                failed(errno);
                return Ok(None);
            }
            Err(errno) => return Err(errno),
        };
        // Another thread was quicker: what is written now would wait for the next resume.
        if self.slot.is_suspended() {
            return Ok(None);
        }
        suspended.sync().unwrap_or_else(failed);
        Ok(Some(suspended))
    }

    fn quiesce(&self) -> Result<(), Errno> {
        self.slot.gate.quiesce()
    }

    fn release(&self) {
        let slot = self.slot;
        slot.gate.release(cpu::current, |pass, io| slot.dispatch(io, Journey::new(pass)));
    }

    fn set_table(
        &self,
        table: Arc<LiveTable<NetBsd>>,
        read_only: bool,
    ) -> Option<Arc<LiveTable<NetBsd>>> {
        let host: Option<Arc<dyn Any + Send + Sync>> =
            table.engine().map(|engine| engine.shared_host() as _);
        let host = host.and_then(|host| host.downcast().ok());
        let new = Current { table: Some(table), read_only, host };
        // SAFETY: the caller has quiesced the device and serialises this with `release`.
        unsafe { self.slot.gate.replace(new) }.table
    }

    fn tell(&self, table: &LiveTable<NetBsd>) {
        self.update_disk(|info| info.size = Some((table.size(), table.sector_size())));
    }

    fn set_geometry(&self, geometry: Geometry) {
        self.update_disk(|info| info.geometry = Some(geometry));
    }

    fn open_count(&self) -> u32 {
        self.slot.disk(self.minor.get()).map_or(0, |disk| disk.open_count())
    }

    fn begin_detach(&self, force: bool) -> Result<(), Errno> {
        self.slot.refuse_opens(force)
    }

    fn kill(&self) -> Option<Arc<LiveTable<NetBsd>>> {
        let slot = self.slot;
        let mut queue = slot.gate.kill();
        let mut starved = slot.reserve.take_starved();
        while let Some(io) = queue.pop().or_else(|| starved.pop()) {
            io.fail(0, Errno::ENXIO);
        }
        // SAFETY: the gate is dead and empty, and the caller serialises.
        unsafe { slot.gate.replace(Current::NOTHING) }.table
    }

    fn detach_disk(&self) {
        // Only a forced detach finds nodes open. Without, vdevgone(9) must not be called: a removal
        // at the last close is inside d_close, and vdevgone would wait for that close.
        if self.open_count() > 0 {
            // SAFETY: no lock is held. Opens are refused, threads that slept at the gate were woken
            // and fail with ENXIO, and a close needs nothing that this thread has.
            unsafe { sys::dm_shim_revoke(self.minor.get()) };
        }
        self.slot.take_disk();
        in_use().slots.withdraw(self.minor);
        dm_device_count.fetch_sub(1, Ordering::Relaxed);
    }

    fn detach(&self) -> Result<(), Errno> {
        // SAFETY: asks autoconf(9) to detach our own device, which calls `dm_detach`.
        errno::Errno::check(unsafe { sys::dm_shim_detach(self.minor.get()) })
    }
}

impl Drop for Unit {
    /// Gives the slot back. Context: whichever thread drops the last reference to the device.
    fn drop(&mut self) {
        debug_assert_ne!(self.slot.gate.door(), Door::Suspended);
        let global = in_use();
        self.slot.empty_caches(global);
        global.slots.give_back(self.slot);
    }
}
