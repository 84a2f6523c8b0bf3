// SPDX-License-Identifier: BSD-2-Clause

//! Suspend and resume: a device's I/O is held, and goes on with another table or the same.

use alloc::sync::Arc;

use super::{Device, Driver, IoState, State};
use crate::Errno;
use crate::executor::Executor;
use crate::kernel::{Condvar, Kernel, Mutex, Unit};
use crate::worker::Quiesce;

/// The treatment of a file system that is mounted on a device whose I/O is to be held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileSystem {
    /// The file system is suspended and written out before, and goes on when I/O is held.
    Sync,
    /// The file system is left alone.
    Leave,
}

impl<K: Kernel> Driver<K> {
    /// Makes the inactive table active, if there is one, and lets I/O go. Context: a thread with no lock held;
    /// sleeps, see share/doc/locking.md.
    ///
    /// # Errors
    /// EINTR when a signal came before I/O had drained, or the errno of a target of the new table that does not
    /// start; nothing has changed then.
    pub fn resume(&self, device: &Device<K>, mounted: FileSystem) -> Result<(), Errno> {
        let switches =
            |state: &State<K>| state.inactive.is_some() && state.io != IoState::Suspended;
        let (_control, suspended, hastened) =
            device.control_with(mounted, Quiesce::Flush, switches)?;
        let frugal = self.kernel.frugal();
        let (switch, quiesced) = {
            let state = device.state.lock();
            (state.inactive.is_some(), state.io == IoState::Suspended)
        };
        if switch && !quiesced {
            device.drain(Quiesce::Flush)?;
        }
        drop(suspended);
        let started = if switch || quiesced { device.start() } else { Ok(()) };
        if let Err(errno) = started {
            if !quiesced {
                if let Some(active) = device.engine() {
                    // The active engine ran before. If it does not start now, its targets fail what comes.
                    let _ = active.start();
                }
                device.unit.release();
            }
            return Err(errno);
        }
        // The table stays `inactive` while I/O drains, so that depth_below() of a concurrent reload sees it.
        let mut state = device.state.lock();
        // A table that was loaded after `switch` was read waits for the next resume: I/O is not held for it.
        let loaded = if switch || quiesced { state.inactive.take() } else { None };
        let old = loaded.clone().map(|loaded| {
            state.slot = !state.slot;
            state.active.replace(loaded)
        });
        drop(state);
        let new = loaded.as_ref().map(|loaded| loaded.table.clone());
        let before = loaded.map(|l| device.unit.set_table(l.table, l.read_only));
        if switch || quiesced {
            device.unit.release();
        }
        drop(frugal);
        if let Some(table) = new {
            device.unit.tell(&table);
        }
        device.state.lock().io = IoState::Running;
        device.changed.broadcast();
        // Closes components that no table uses any more.
        drop((old, before, hastened));
        Ok(())
    }

    /// Holds I/O until the next resume, and waits until none is in flight. If a file system is mounted on the
    /// device and `mounted` says so, the components then hold it as it was just synchronised. Context: a thread
    /// with no lock held; sleeps, see share/doc/locking.md.
    ///
    /// # Errors
    /// EINTR when a signal came first; the device goes on then, but I/O that a target held back has failed. With [`Quiesce::NoFlush`] targets
    /// may give back I/O that cannot complete, which the next table gets.
    pub fn suspend(
        &self,
        device: &Device<K>,
        how: Quiesce,
        mounted: FileSystem,
    ) -> Result<(), Errno> {
        let (_control, suspended, hastened) =
            device.control_with(mounted, how, |state| state.io != IoState::Suspended)?;
        let frugal = self.kernel.frugal();
        let state = device.state.lock();
        let hold = state.active.is_some() && state.io != IoState::Suspended;
        drop(state);
        if hold {
            device.drain(how)?;
        }
        let mut state = device.state.lock();
        state.io = if state.active.is_some() { IoState::Suspended } else { IoState::Bare };
        drop(state);
        drop((frugal, suspended));
        drop(hastened);
        Ok(())
    }
}

impl<K: Kernel> Device<K> {
    /// The engine of the active table, if targets of it serve I/O.
    fn engine(&self) -> Option<Arc<Executor>> {
        self.state.lock().active.as_ref()?.table.engine().cloned()
    }

    /// Holds I/O, waits until none is in flight, and stops the active table's engine. The caller has the
    /// control flag.
    ///
    /// # Errors
    /// EINTR; nothing is held then.
    fn drain(&self, how: Quiesce) -> Result<(), Errno> {
        let engine = self.engine();
        if let Some(engine) = &engine {
            engine.suspending(how);
        }
        let drained = self.unit.quiesce();
        if let Some(engine) = &engine {
            match drained {
                Ok(()) => engine.stop(),
                Err(_) => engine.go_on(),
            }
        }
        drained
    }

    /// Starts the engine of the table that is to be active: the inactive one, if there is one. I/O is
    /// held, and the active table's engine is stopped. The caller has the control flag.
    ///
    /// # Errors
    /// A target's; the active table's engine is still stopped.
    fn start(&self) -> Result<(), Errno> {
        loop {
            let next = self.state.lock().inactive.as_ref().map(|loaded| loaded.table.clone());
            let engine = match &next {
                Some(table) => table.engine().cloned(),
                None => self.engine(),
            };
            if let Some(engine) = &engine
                && let Err(errno) = engine.start()
            {
                return Err(errno);
            }
            // Another one may have been loaded meanwhile, or this one cleared.
            let state = self.state.lock();
            let inactive = state.inactive.as_ref().map(|loaded| Arc::as_ptr(&loaded.table));
            let same = inactive == next.as_ref().map(Arc::as_ptr);
            drop(state);
            if same {
                return Ok(());
            }
            if let Some(engine) = &engine {
                engine.stop();
            }
        }
    }
}
