// SPDX-License-Identifier: BSD-2-Clause

//! The control flag: one thread at a time changes a device's active table or removes the device.

use alloc::sync::{Arc, Weak};

use super::{Device, FileSystem, IoState, State};
use crate::Errno;
use crate::kernel::{Condvar, Kernel, LiveTable, Mutex, Unit};
use crate::worker::Quiesce;

impl<K: Kernel> Device<K> {
    /// Takes the control flag, as [`Device::control`] does, with the file system suspended that is
    /// mounted on the device, if that is asked for and `holds` says that I/O is about to be held.
    ///
    /// The thread that has the control flag may wait for that file system, as when it opens a
    /// component by a path. So the file system is suspended first, and goes on while the control
    /// flag is waited for.
    ///
    /// The file system waits for its I/O, and what it writes out waits, too. So no target may hold
    /// back jobs until the device is suspended: the active table's engine is hastened before, and
    /// for as long as the result's last part is kept. That is dropped after the file system goes
    /// on, and where memory may be asked for. Where a drain was interrupted it is dropped just
    /// before: by then the file system has been written out, and waits for no I/O to go on.
    ///
    /// Context: a thread with no lock held; sleeps for the file system and for the control flag.
    ///
    /// # Errors
    /// EINTR, ENXIO if the device is gone.
    pub(super) fn control_with(
        &self,
        mounted: FileSystem,
        how: Quiesce,
        holds: impl Fn(&State<K>) -> bool,
    ) -> Result<Controlled<'_, K>, Errno> {
        loop {
            let state = self.state.lock();
            let wanted = mounted == FileSystem::Sync && holds(&state);
            let active = state.active.as_ref().filter(|_| wanted).map(|l| l.table.clone());
            drop(state);
            let wanted = active.is_some();
            let hastened = active.and_then(|table| Hastened::new(&table, how));
            let suspended = if wanted { self.unit.suspend_file_system()? } else { None };
            if suspended.is_none() {
                drop(hastened);
                return Ok((self.control()?, None, None));
            }
            let mut state = self.state.lock();
            if !state.controlled && state.io != IoState::Gone {
                state.controlled = true;
                drop(state);
                return Ok((Control(self), suspended, hastened));
            }
            drop(state);
            drop(suspended);
            drop(hastened);
            drop(self.control()?);
        }
    }

    /// Takes the control flag: the right to change the active table or to remove the device.
    /// Context: a thread with no lock held.
    ///
    /// # Errors
    /// EINTR, ENXIO if the device is gone.
    pub(super) fn control(&self) -> Result<Control<'_, K>, Errno> {
        let mut state = self.state.lock();
        while state.controlled {
            self.changed.wait_sig(&mut state)?;
        }
        if state.io == IoState::Gone {
            return Err(Errno::ENXIO);
        }
        state.controlled = true;
        drop(state);
        Ok(Control(self))
    }

    /// Takes the control flag, deaf to signals; `None` if the device is gone. Context: a close or a
    /// detach, with no lock of the driver's held.
    pub(super) fn control_uninterruptible(&self) -> Option<Control<'_, K>> {
        let mut state = self.state.lock();
        // Of a device that is gone the flag is not waited for: the thread that has it may be in
        // config_detach(9), which waits for ca_detach, which may be here.
        while state.controlled && state.io != IoState::Gone {
            self.changed.wait(&mut state);
        }
        if state.io == IoState::Gone {
            return None;
        }
        state.controlled = true;
        drop(state);
        Some(Control(self))
    }
}

/// The control flag of a device, the file system that is mounted on the device, if that is
/// suspended, and the engine that was hastened for it.
pub(super) type Controlled<'d, K> =
    (Control<'d, K>, Option<<<K as Kernel>::Unit as Unit<K>>::Suspended>, Option<Hastened<K>>);

/// A table whose engine's jobs do not wait, from
/// [`Executor::hasten`](crate::executor::Executor::hasten) on. It does not keep the table: another
/// thread may put a new one in its place meanwhile, and the old one's components are closed then.
pub(super) struct Hastened<K: Kernel>(Weak<LiveTable<K>>);

impl<K: Kernel> Hastened<K> {
    /// Hastens a table's engine, if it has one.
    fn new(table: &Arc<LiveTable<K>>, how: Quiesce) -> Option<Hastened<K>> {
        table.engine()?.hasten(how);
        Some(Hastened(Arc::downgrade(table)))
    }
}

impl<K: Kernel> Drop for Hastened<K> {
    fn drop(&mut self) {
        // The last reference to the table, if another thread has just dropped its own.
        let table = self.0.upgrade();
        if let Some(engine) = table.as_ref().and_then(|table| table.engine()) {
            engine.hastened_is_over();
        }
    }
}

/// The control flag of a device: the right to change its active table or to remove it.
#[must_use = "dropped at once, the control flag is free again"]
pub(super) struct Control<'d, K: Kernel>(&'d Device<K>);

impl<K: Kernel> Drop for Control<'_, K> {
    fn drop(&mut self) {
        self.0.state.lock().controlled = false;
        self.0.changed.broadcast();
    }
}
