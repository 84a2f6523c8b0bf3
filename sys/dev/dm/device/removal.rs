//! How devices go: removed, removed at their last close, or taken away by autoconf(9).

use alloc::vec::Vec;

use super::set::Entry;
use super::{Device, Driver, Selector};
use crate::Errno;
use crate::kernel::{Condvar, Kernel, Mutex, Unit};
use crate::units::Minor;
use crate::worker::Quiesce;

impl<K: Kernel> Driver<K> {
    /// Takes a device away, or with `deferred` has it go at its last close. The answer is whether
    /// it is gone.
    ///
    /// # Errors
    /// EBUSY while it is open, ENXIO if it is gone already, EINTR.
    pub fn remove(&self, device: &Device<K>, deferred: bool) -> Result<bool, Errno> {
        let control = device.control()?;
        match self.dismantle(device, false) {
            Err(Errno::EBUSY) if deferred => {
                device.state.lock().remove_at_close = true;
                // It may have been closed in between; that close could not see the mark.
                drop(control);
                if device.unit.open_count() == 0 {
                    self.closed(device.minor);
                }
                Ok(device.state.lock().gone)
            }
            Err(errno) => Err(errno),
            Ok(()) => {
                // An error would mean that autoconf(9) took it away first.
                let _ = device.unit.detach();
                self.forget(device.minor);
                Ok(true)
            }
        }
    }

    /// Takes away every device that is not open, until none is left that could go: those that
    /// only another device kept open go with it.
    ///
    /// # Errors
    /// EINTR; a device that is in use is no error.
    pub fn remove_all(&self, deferred: bool) -> Result<(), Errno> {
        loop {
            let devices = self.devices.lock();
            let all: Vec<_> = devices.list.iter().filter_map(|e| e.device.clone()).collect();
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

    /// Has autoconf(9) take a device away: `drvctl -d`, or the end of the system.
    ///
    /// # Errors
    /// EBUSY while it is open and `force` is not set.
    pub fn detached(&self, minor: Minor, force: bool) -> Result<(), Errno> {
        let mut devices = self.devices.lock();
        let device = loop {
            match devices.position(minor).ok().and_then(|at| devices.list.get(at)) {
                Some(Entry { device: Some(device), .. }) => break device.clone(),
                // Attached, and about to be ready: taken away now, it would be there for the
                // driver alone.
                Some(Entry { going: false, .. }) => self.made.wait(&mut devices),
                // A remove is at work, and this is its autoconf half.
                Some(Entry { empty: true, .. }) | None => return Ok(()),
                // It is at work, and this is someone else: what autoconf(9) has must live until the
                // device has let go of it.
                Some(_) => self.made.wait(&mut devices),
            }
        };
        drop(devices);
        let _control = device.control_unless_gone();
        match self.dismantle(&device, force) {
            Err(Errno::ENXIO) => Ok(()),
            Err(errno) => Err(errno),
            Ok(()) => {
                self.forget(minor);
                Ok(())
            }
        }
    }

    /// The last open node of a device was closed.
    pub fn closed(&self, minor: Minor) {
        let Some(found) = self.find(&Selector::Minor(minor)) else { return };
        if !found.device.state.lock().remove_at_close {
            return;
        }
        let _control = found.device.control_unless_gone();
        if self.dismantle(&found.device, false).is_ok() {
            // An error would mean that autoconf(9) took it away first.
            let _ = found.device.unit.detach();
            self.forget(minor);
        }
    }

    /// Empties a device: nobody can find it or open it, its I/O is over, its components are let
    /// go. With [`Device::control`] held.
    fn dismantle(&self, device: &Device<K>, force: bool) -> Result<(), Errno> {
        if device.state.lock().gone {
            return Err(Errno::ENXIO);
        }
        device.unit.begin_detach(force)?;
        if let Ok(entry) = self.devices.lock().entry_of(device) {
            (entry.device, entry.going) = (None, true);
        }
        let active = device.state.lock().active.as_ref().map(|loaded| loaded.table.clone());
        let engine = active.as_ref().and_then(|table| table.engine());
        if let Some(engine) = engine {
            engine.suspending(Quiesce::Remove);
        }
        let table = device.unit.kill();
        if let Some(engine) = engine {
            engine.stop();
        }
        let mut state = device.state.lock();
        state.gone = true;
        let tables = (state.active.take(), state.inactive.take());
        drop(state);
        device.forget_lines();
        device.changed.broadcast();
        let mut devices = self.devices.lock();
        if let Ok(at) = devices.position(device.minor)
            && let Some(entry) = devices.list.get_mut(at)
        {
            entry.empty = entry.going;
        }
        drop(devices);
        self.made.broadcast();
        drop(tables);
        drop(table);
        Ok(())
    }
}
