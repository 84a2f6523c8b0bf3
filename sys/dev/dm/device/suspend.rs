// SPDX-License-Identifier: BSD-2-Clause

//! Suspend and resume: a device's I/O is held, and goes on with another table or the same.

use alloc::sync::Arc;

use super::{Device, Driver, IoState, Loaded, State};
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
    /// Makes the inactive table active, if there is one, and lets I/O go. If the device is not
    /// suspended its I/O is held before, as [`Driver::suspend`] does with `how`. Context: a thread
    /// with no lock held; sleeps, see share/doc/locking.md.
    ///
    /// # Errors
    /// ENXIO if the device is gone; EINTR when a signal came before I/O had drained; or the errno
    /// of a target of the new table that does not start. The device and its tables are as they were
    /// then; but a file system may have been written out, I/O that targets held back may have gone
    /// or failed, and a target of the old table that does not start again fails its I/O.
    pub fn resume(
        &self,
        device: &Device<K>,
        how: Quiesce,
        mounted: FileSystem,
    ) -> Result<(), Errno> {
        let switches =
            |state: &State<K>| state.inactive.is_some() && state.io != IoState::Suspended;
        let (_control, suspended, hastened) = device.control_with(mounted, how, switches)?;
        let frugal = self.kernel.frugal();
        let (switch, quiesced) = {
            let state = device.state.lock();
            (state.inactive.is_some(), state.io == IoState::Suspended)
        };
        if switch && !quiesced {
            device.drain(how)?;
        }
        drop(suspended);
        // A table that was loaded after `switch` was read waits for the next resume: I/O is not
        // held for it.
        let started = if switch || quiesced { device.start() } else { Ok(None) };
        let switched = match started {
            Ok(switched) => switched,
            Err((errno, left_over)) => {
                if !quiesced {
                    if let Some(active) = device.engine() {
                        // The active engine ran before. If it does not start now, its targets
                        // fail what comes.
                        let _ = active.start();
                    }
                    device.unit.release();
                }
                drop(frugal);
                drop(left_over);
                return Err(errno);
            }
        };
        let new = switched.as_ref().map(|(loaded, _)| loaded.table.clone());
        let before = switched
            .map(|(loaded, old)| (device.unit.set_table(loaded.table, loaded.read_only), old));
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
        drop((before, hastened));
        Ok(())
    }

    /// Holds I/O until the next resume, and waits until none is in flight. If a file system is
    /// mounted on the device and `mounted` says so, the components then hold it as it was just
    /// synchronised. Context: a thread with no lock held; sleeps, see share/doc/locking.md.
    ///
    /// With [`Quiesce::NoFlush`] targets may give back I/O that cannot complete, which the next
    /// table gets.
    ///
    /// # Errors
    /// ENXIO if the device is gone; EINTR when a signal came first. The device goes on then; but a
    /// file system may have been written out, and I/O that targets held back may have gone or
    /// failed.
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

    /// Holds I/O, waits until none is in flight, and stops the active table's engine. Context: the
    /// thread that has the control flag, with no lock held; sleeps.
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
                // Before the I/O that was held: it would be given back, or fail, in an engine that
                // is being suspended.
                Err(_) => engine.go_on(),
            }
        }
        if drained.is_err() {
            self.unit.release();
        }
        drained
    }

    /// Starts the engine of the table that is to be active: the inactive one, which becomes active,
    /// if there is one. I/O is held, and the active table's engine is stopped. Context: the thread
    /// that has the control flag, with no lock held; sleeps, deaf to signals, for I/O of the
    /// targets that start, and where one of them asks for memory for that, too.
    ///
    /// # Errors
    /// A target's. The active table's engine is still stopped, and the inactive table is inactive
    /// again, unless another one was loaded meanwhile or it was cleared: then it is left over, and
    /// is dropped when the caller may wait for memory again.
    fn start(&self) -> Result<Option<Switched<K>>, NotStarted<K>> {
        // Taken before it is started: a reload or a clear does not get at a table whose engine
        // starts, or runs.
        let mut state = self.state.lock();
        state.starting = state.inactive.take();
        state.cleared = false;
        let next = state.starting.as_ref().or(state.active.as_ref());
        let engine = next.and_then(|loaded| loaded.table.engine().cloned());
        drop(state);
        let started = engine.map_or(Ok(()), |engine| engine.start());
        let mut state = self.state.lock();
        let starting = state.starting.take();
        if let Err(errno) = started {
            if state.inactive.is_some() || state.cleared {
                return Err((errno, starting));
            }
            state.inactive = starting;
            return Err((errno, None));
        }
        Ok(starting.map(|loaded| {
            state.slot = !state.slot;
            (loaded.clone(), state.active.replace(loaded))
        }))
    }
}

/// Why a table was not started, and the table that is left over.
type NotStarted<K> = (Errno, Option<Loaded<K>>);

/// The table that has become active, and the one that was active before.
type Switched<K> = (Loaded<K>, Option<Loaded<K>>);
