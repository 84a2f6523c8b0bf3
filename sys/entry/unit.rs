//! A device as NetBSD sees it: dm-core's unit on a slot, a device_t and a disk(9).

use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::Ordering;

use dm_core::Errno;
use dm_core::errno;
use dm_core::kernel::{self, Geometry, LiveTable};
use dm_core::units::{Minor, Sector};

use super::netbsd::NetBsd;
use super::pieces::Journey;
use super::slot::{Current, Slot};
use super::{dm_device_count, global};
use crate::kern::buf::IoQueue;
use crate::kern::disk::Disk;
use crate::kern::gate::Door;
use crate::kern::mount::{Mounted, Suspended};
use crate::kern::mutex::Mutex;
use crate::kern::reserve::Line;
use crate::kern::{cpu, sys};

/// A device.
///
/// # Invariants
/// The slot is this device's until the unit is dropped.
pub struct Unit {
    slot: &'static Slot,
    minor: Minor,
    told: Mutex<Told>,
}

/// What disk(9) is told of a device.
#[derive(Default)]
struct Told {
    geometry: Option<Geometry>,
    size: Option<(Sector, u32)>,
}

impl Unit {
    /// Attaches a pseudo-device with this unit number, and its disk.
    ///
    /// # Errors
    /// EBUSY while another device of this number is being detached or autoconf(9) has not collected it
    /// yet, ENXIO when the driver is not there.
    pub(crate) fn attach(minor: Minor) -> Result<Unit, Errno> {
        let global = global().ok_or(Errno::ENXIO)?;
        let slot = global.slots.take(minor);
        let unit = Unit { slot, minor, told: Mutex::new(Told::default()) };
        // SAFETY: the slot's cfdata is nobody else's yet and lives longer than the device.
        // config_attach_pseudo calls `dm_attach`. The device lives until `dm_detach` has detached
        // the disk that is named after it.
        let disk = cpu::with_kernel_lock(|| unsafe {
            // A device of this number that autoconf(9) is just taking away: nobody else attaches
            // one meanwhile.
            if sys::dm_shim_attached(minor.get()) {
                return Err(Errno::EBUSY);
            }
            sys::dm_shim_cfdata_init(slot.cfdata(), minor.get());
            let device = sys::config_attach_pseudo(slot.cfdata());
            // With its tables registered it has one reason not to: the number is taken, be it by a device
            // that nobody can find any more. For memory it waits.
            if device.is_null() { Err(Errno::EBUSY) } else { Ok(Disk::attach(device)) }
        });
        // Dropping the unit gives the slot back.
        slot.set_disk(disk?);
        global.slots.publish(minor, Some(slot));
        dm_device_count.fetch_add(1, Ordering::Relaxed);
        Ok(unit)
    }

    /// Tells disk(9) what the device is like now. disk_set_info makes property lists, for which it
    /// waits for memory, with `told` and dk_openlock held: neither is taken while I/O is held.
    fn tell_disk(&self, change: impl FnOnce(&mut Told)) {
        let mut told = self.told.lock();
        change(&mut told);
        if let Some((size, sector_size)) = told.size
            && let Some(disk) = self.slot.disk()
        {
            disk.set_info(size, sector_size, told.geometry);
        }
    }

    /// Takes the disk away from a device whose I/O is over and that nobody can open.
    fn dismantle(&self) {
        // Only a forced detach finds nodes open. It must not be asked for without: a removal at the
        // last close is inside that close, and revoking waits for closes.
        if kernel::Unit::open_count(self) > 0 {
            // SAFETY: no lock is held. Opens are refused, sleepers at the gate were sent away, and
            // a close needs nothing that is held here.
            unsafe { sys::dm_shim_revoke(self.minor.get()) };
        }
        self.slot.take_disk();
        if let Some(global) = global() {
            global.slots.publish(self.minor, None);
        }
        dm_device_count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Lets the I/O in `queue` go, which the gate has held.
    fn replay(&self, mut queue: IoQueue) {
        while let Some(io) = queue.pop() {
            let pass = self.slot.gate.admit(cpu::current());
            self.slot.dispatch(io, Journey::new(pass));
        }
    }
}

impl kernel::Unit<NetBsd> for Unit {
    type Suspended = Suspended;

    fn suspend_file_system(&self) -> Result<Option<Suspended>, Errno> {
        if self.slot.is_held() {
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
        // Somebody was quicker: what is written now would wait for the next resume.
        if self.slot.is_held() {
            return Ok(None);
        }
        suspended.sync().unwrap_or_else(failed);
        Ok(Some(suspended))
    }

    fn quiesce(&self) -> Result<(), Errno> {
        let slot = self.slot;
        let mut held = slot.held.lock();
        slot.gate.hold();
        let mut result = Ok(());
        while result.is_ok() && !slot.gate.is_empty() {
            result = slot.gate_moved.wait_sig(&mut held);
        }
        drop(held);
        if result.is_err() {
            self.release();
        }
        result
    }

    fn release(&self) {
        let slot = self.slot;
        loop {
            let mut held = slot.held.lock();
            if held.is_empty() {
                slot.gate.open();
                slot.gate_moved.broadcast();
                return;
            }
            // What comes while these go waits behind them: the door is still shut.
            let queue = core::mem::take(&mut *held);
            drop(held);
            self.replay(queue);
        }
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
        self.tell_disk(|told| told.size = Some((table.size(), table.sector_size())));
    }

    fn set_geometry(&self, geometry: Geometry) {
        self.tell_disk(|told| told.geometry = Some(geometry));
    }

    fn open_count(&self) -> u32 {
        self.slot.disk().map_or(0, |disk| disk.open_count())
    }

    fn begin_detach(&self, force: bool) -> Result<(), Errno> {
        self.slot.refuse_opens(force)
    }

    fn kill(&self) -> Option<Arc<LiveTable<NetBsd>>> {
        let slot = self.slot;
        let mut held = slot.held.lock();
        slot.gate.kill();
        slot.gate_moved.broadcast();
        let mut queue = core::mem::take(&mut *held);
        while !slot.gate.is_empty() {
            slot.gate_moved.wait(&mut held);
        }
        drop(held);
        let mut starved = slot.reserve.take_starved();
        while let Some(io) = queue.pop().or_else(|| starved.pop()) {
            io.fail(0, Errno::ENXIO);
        }
        // SAFETY: the gate is dead and empty, and the caller serialises.
        let table =
            unsafe { slot.gate.replace(Current { table: None, read_only: false, host: None }) }
                .table;
        self.dismantle();
        table
    }

    fn detach(&self) -> Result<(), Errno> {
        // SAFETY: asks autoconf(9) to detach our own device, which calls `dm_detach`.
        errno::Errno::check(unsafe { sys::dm_shim_detach(self.minor.get()) })
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        debug_assert_ne!(self.slot.gate.door(), Door::Held);
        if let Some(global) = global() {
            self.slot.put_spares(global);
            global.slots.give_back(self.slot);
        }
    }
}
