// SPDX-License-Identifier: BSD-2-Clause

//! The removal of a device: by request, at its last close, or by autoconf(9).
//!
//! ```text
//!  DM_DEV_REMOVE, remove_all ── remove ────┐
//!  d_close, with a deferred                │ the control flag is taken;
//!  removal ─────────────────── last_close ─┼─────────────────────────────► tear_down
//!  drvctl -d, shutdown:                    │ a signal ends remove's wait
//!  config_detach ─ ca_detach ─ detach ─────┘ for it only
//!
//!  tear_down
//!    1 begin_detach                 opens are refused; EBUSY if one is open and nothing forces it
//!    2 entry: Live → Draining       nobody finds the device
//!    3 kill                         held I/O fails, I/O in flight ends
//!    4 detach_disk                  vdevgone (forced), disk_detach
//!    5 the engine stops             state: Gone; a detach that waits for the flag returns
//!    6 entry: Draining → Detached   a detach that found the entry Draining returns
//!    7 the tables are dropped       components are closed
//!
//!  Then remove and last_close call config_detach(9), which comes back here as detach and finds
//!  the entry Detached; then, and after detach, the entry is removed.
//! ```
//!
//! The order:
//! - 1 first: nothing has changed if it fails, and no node is opened after it, which would keep the
//!   disk(9) that 4 detaches.
//! - 2 before 3: no command finds a device whose gate is dead. One that has found it before may
//!   still load an inactive table, which 7 drops.
//! - 3 before 4: vdevgone(9) waits for reads and writes through the nodes, and they for I/O that is
//!   held or in flight.
//! - 4 before 5: the disk(9) has the name of the device_t, which config_detach(9) frees when a
//!   `detach` returns.
//! - 5 before 7: the engine needs the table.
//! - 7 last: to close a component may come back into this driver, to a dm device below. No lock is
//!   held, and nobody waits for it.

use alloc::vec::Vec;

use super::set::EntryState;
use super::{Device, Driver, IoState, Selector};
use crate::Errno;
use crate::kernel::{Condvar, Kernel, Mutex, Unit};
use crate::units::Minor;
use crate::worker::Quiesce;

impl<K: Kernel> Driver<K> {
    /// Removes a device, or with `deferred` marks one that is open to be removed at its last close.
    /// `true` if the device is gone. Context: a thread with no lock held; waits for the control
    /// flag, then for I/O.
    ///
    /// # Errors
    /// EBUSY while the device is open, ENXIO if it is gone already, EINTR.
    pub fn remove(&self, device: &Device<K>, deferred: bool) -> Result<bool, Errno> {
        let control = device.control()?;
        match self.tear_down(device, false) {
            Err(Errno::EBUSY) if deferred => {
                device.state.lock().remove_at_close = true;
                // The last close may have come after tear_down said EBUSY and before the mark was
                // set: then it has removed nothing.
                drop(control);
                if device.unit.open_count() == 0 {
                    self.last_close(device.minor);
                }
                Ok(device.is_gone())
            }
            Err(errno) => Err(errno),
            Ok(()) => {
                self.leave_system(device);
                Ok(true)
            }
        }
    }

    /// Removes every device that is not open, until none is left that could go: those that
    /// only another device kept open go with it.
    ///
    /// # Errors
    /// EINTR; a device that is in use is no error.
    pub fn remove_all(&self, deferred: bool) -> Result<(), Errno> {
        loop {
            let devices = self.devices.lock();
            let all: Vec<_> = devices.list.iter().filter_map(|e| e.device().cloned()).collect();
            drop(devices);
            let mut removed = false;
            for device in all {
                match self.remove(&device, deferred) {
                    Ok(gone) => removed |= gone,
                    Err(Errno::EBUSY | Errno::ENXIO) => {}
                    Err(errno) => return Err(errno),
                }
            }
            if !removed {
                return Ok(());
            }
        }
    }

    /// Detaches a device for autoconf(9), in ca_detach: `drvctl -d`, the end of the system, or the
    /// second half of a removal. When this has returned `Ok`, nothing of the device refers to its
    /// device_t. Context: a thread with the kernel lock, as ca_detach is called, which is given up
    /// while the thread sleeps; no other lock is held. Sleeps, deaf to signals.
    ///
    /// # Errors
    /// EBUSY while the device is open and `force` is not set.
    pub fn detach(&self, minor: Minor, force: bool) -> Result<(), Errno> {
        let mut devices = self.devices.lock();
        let device = loop {
            match devices.position(minor).ok().and_then(|at| devices.list.get(at)).map(|e| &e.state)
            {
                // A removal has called config_detach(9), or is done.
                None | Some(EntryState::Detached) => return Ok(()),
                Some(EntryState::Live(device)) => break device.clone(),
                // config_attach_pseudo(9) has returned, but `create` has not published the device;
                // or another thread removes it, whose disk(9) still has the device_t's name.
                Some(EntryState::Attaching | EntryState::Draining) => {
                    self.entry_changed.wait(&mut devices);
                }
            }
        };
        drop(devices);
        let Some(_control) = device.control_uninterruptible() else { return Ok(()) };
        self.tear_down(&device, force)?;
        self.forget(minor);
        Ok(())
    }

    /// Removes a device whose last open node was closed, if that was deferred until now. Context:
    /// d_close, so a thread with no lock held, which has no reference to the device's disk(9);
    /// sleeps, deaf to signals.
    pub fn last_close(&self, minor: Minor) {
        let Some(found) = self.find(&Selector::Minor(minor)) else { return };
        let device = &found.device;
        if !device.state.lock().remove_at_close {
            return;
        }
        let Some(_control) = device.control_uninterruptible() else { return };
        // EBUSY: opened again meanwhile; the next last close removes it.
        if self.tear_down(device, false).is_ok() {
            self.leave_system(device);
        }
    }

    /// Detaches the device_t of a device that was torn down (config_detach(9)), and frees its minor
    /// and names. Context: a thread with no lock held; sleeps for another thread's ca_detach of the
    /// device_t.
    fn leave_system(&self, device: &Device<K>) {
        // An error would mean that autoconf(9) took the device_t away first.
        let _ = device.unit.detach();
        self.forget(device.minor);
    }

    /// Steps 1 to 7 of the picture above. Context: the thread that has the control flag, with no
    /// lock held, but perhaps the kernel lock; sleeps, deaf to signals, for I/O, closes, ioctls,
    /// and what the tables' ends wait for.
    ///
    /// # Errors
    /// EBUSY while the device is open and `force` is not set: nothing has changed then.
    fn tear_down(&self, device: &Device<K>, force: bool) -> Result<(), Errno> {
        device.unit.begin_detach(force)?;
        self.entry_goes(device, EntryState::Draining);
        let active = device.state.lock().active.as_ref().map(|loaded| loaded.table.clone());
        let engine = active.as_ref().and_then(|table| table.engine());
        if let Some(engine) = engine {
            engine.suspending(Quiesce::Remove);
        }
        let table = device.unit.kill();
        device.unit.detach_disk();
        if let Some(engine) = engine {
            engine.stop();
        }
        let mut state = device.state.lock();
        state.io = IoState::Gone;
        let tables = (state.active.take(), state.inactive.take());
        drop(state);
        device.forget_lines();
        device.changed.broadcast();
        self.entry_goes(device, EntryState::Detached);
        drop(tables);
        drop(table);
        Ok(())
    }

    /// Moves the entry of a device that is being removed to its next state. Context: as for
    /// [`Driver::detach`].
    fn entry_goes(&self, device: &Device<K>, next: EntryState<K>) {
        let mut devices = self.devices.lock();
        let at = devices.position(device.minor).ok();
        let Some(entry) = at.and_then(|at| devices.list.get_mut(at)) else {
            panic!("dm: a device that is being removed has lost its entry");
        };
        let old = core::mem::replace(&mut entry.state, next);
        drop(devices);
        self.entry_changed.broadcast();
        // Perhaps one of the last references; not under the lock.
        drop(old);
    }
}
