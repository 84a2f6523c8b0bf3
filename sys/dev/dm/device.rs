// SPDX-License-Identifier: BSD-2-Clause

//! Devices: the set of them, and what can be done to one.
//!
//! This file has a device and its states; `set.rs` has all of them, `load.rs` how a table comes,
//! `removal.rs` how a device goes, `stack.rs` how they lie on one another, `share.rs` what their
//! tables may take.
//!
//! Locks, outermost first: `Driver::devices`, `Device::state`, the set of components. None is
//! held while a component is opened or closed, or while I/O drains. What takes that long is
//! serialised per device by `Device::control`, a flag to sleep on and no lock. Context of everything here: a
//! thread, in an ioctl, a close or a detach.

use alloc::string::String;
use alloc::sync::Arc;

use crate::executor::Executor;
use crate::kernel::{Condvar, Geometry, Kernel, LiveTable, Mutex, Unit};
use crate::units::{Minor, Sector};
use crate::worker::Quiesce;
use crate::{Errno, limits};

mod load;
mod removal;
mod set;
mod share;
mod stack;
#[cfg(test)]
mod tests;

pub use load::{Line, Load, lines};
pub use set::{Driver, Found, Selector};
pub use share::{Purse, Share};

use load::Parts;

/// A device.
pub struct Device<K: Kernel> {
    /// The device's minor. Never changes.
    minor: Minor,
    /// The device as the system sees it. Guards itself.
    unit: K::Unit,
    /// The tables and flags. Taken while I/O is held: its holder waits for no memory.
    state: K::Mutex<State<K>>,
    /// Lines of a table that comes in several requests. They are added to under this lock, which is not taken
    /// while I/O is held.
    parts: K::Mutex<Parts>,
    /// An event has come, or [`State::controlled`] was cleared, or the device is gone. With `state`.
    changed: K::Condvar,
}

/// A device's tables and flags.
///
/// All fields are read and written under [`Device::state`]. Those marked (c) are written only by the thread that
/// has the control flag, which may therefore believe what it has read of them after it has let the lock go.
struct State<K: Kernel> {
    /// (c) The active table, which also stands behind the device's gate.
    active: Option<Loaded<K>>,
    /// The table that the next resume makes active. Written by any reload and clear, too.
    inactive: Option<Loaded<K>>,
    /// READONLY of the `create`: it holds for all tables. Never changes.
    created_read_only: bool,
    /// (c) The state of the device's I/O.
    io: IoState,
    /// (c) Which of the two slots that userland sees the active table is in; changes with each table.
    slot: bool,
    /// The number of events so far; wraps.
    event_nr: u32,
    /// The control flag: `true` while a thread has a [`Control`].
    controlled: bool,
    /// `true` if the device is to be removed at its last close.
    remove_at_close: bool,
}

/// The states of a device's I/O.
///
/// ```text
///          resume            suspend, with a table
///   Bare ─────────► Running ───────────────────────► Suspended   any ── tear_down ──► Gone
///     ▲                │  ▲                              │
///     └────────────────┘  └──────────────────────────────┘
///      suspend, without            resume
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum IoState {
    /// Never resumed, or suspended while there was no active table. Userland sees a suspended device. The gate is
    /// open, and I/O fails with ENXIO for lack of a table.
    Bare,
    /// Resumed: the gate is open. Without a table I/O fails with ENXIO.
    Running,
    /// Suspended, with an active table: the gate is shut, I/O is held, none is in flight.
    Suspended,
    /// Removed, but for its name and minor: the gate is dead.
    Gone,
}

/// A table of a device, active or inactive.
struct Loaded<K: Kernel> {
    table: Arc<LiveTable<K>>,
    read_only: bool,
    /// The memory that the table takes of [`limits::ALL_TABLES`].
    share: Option<Arc<Share>>,
}

impl<K: Kernel> Clone for Loaded<K> {
    fn clone(&self) -> Self {
        let (table, share) = (self.table.clone(), self.share.clone());
        Loaded { table, read_only: self.read_only, share }
    }
}

/// A device's state at one moment.
pub struct Snapshot<K: Kernel> {
    /// The active table.
    pub active: Option<Arc<LiveTable<K>>>,
    /// The inactive table.
    pub inactive: Option<Arc<LiveTable<K>>>,
    /// `true` if the device takes no writes.
    pub read_only: bool,
    /// `true` if there is an inactive table that takes no writes.
    pub inactive_read_only: bool,
    /// `true` if the device is suspended, or was never resumed.
    pub suspended: bool,
    /// The slot that the active table is in: 0 or 1.
    pub slot: bool,
    /// The number of events so far; wraps.
    pub event_nr: u32,
    /// The number of open device nodes.
    pub open_count: u32,
    /// `true` if the device is to be removed at its last close.
    pub remove_at_close: bool,
}

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
    /// EINTR when a signal came before I/O had drained, or what a target of the table that is to be
    /// active says when it starts; nothing has changed then.
    pub fn resume(&self, device: &Device<K>, mounted: FileSystem) -> Result<(), Errno> {
        let switches =
            |state: &State<K>| state.inactive.is_some() && state.io != IoState::Suspended;
        let (_control, suspended) = device.control_with(mounted, switches)?;
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
        drop((old, before));
        Ok(())
    }

    /// Holds I/O until the next resume, and waits until none is in flight. If a file system is mounted on the
    /// device and `mounted` says so, the components then hold it as it was just synchronised. Context: a thread
    /// with no lock held; sleeps, see share/doc/locking.md.
    ///
    /// # Errors
    /// EINTR when a signal came first; nothing has changed then. With [`Quiesce::NoFlush`] targets
    /// may give back I/O that cannot complete, which the next table gets.
    pub fn suspend(
        &self,
        device: &Device<K>,
        how: Quiesce,
        mounted: FileSystem,
    ) -> Result<(), Errno> {
        let (_control, _suspended) =
            device.control_with(mounted, |state| state.io != IoState::Suspended)?;
        let _frugal = self.kernel.frugal();
        let state = device.state.lock();
        let hold = state.active.is_some() && state.io != IoState::Suspended;
        drop(state);
        if hold {
            device.drain(how)?;
        }
        let mut state = device.state.lock();
        state.io = if state.active.is_some() { IoState::Suspended } else { IoState::Bare };
        Ok(())
    }

    /// Waits until a device's event number is not `event_nr`. Context: a thread with no lock held.
    ///
    /// # Errors
    /// ENXIO if the device goes, EINTR, EAGAIN if too many wait already.
    pub fn wait_event(&self, device: &Device<K>, event_nr: u32) -> Result<(), Errno> {
        let unprivileged = usize::from(self.kernel.authorize().is_err());
        {
            let mut devices = self.devices.lock();
            let all = devices.unprivileged.saturating_add(unprivileged);
            if devices.waiters >= limits::WAITERS || all > limits::UNPRIVILEGED_WAITERS {
                return Err(Errno::EAGAIN);
            }
            devices.waiters = devices.waiters.saturating_add(1);
            devices.unprivileged = all;
        }
        let mut state = device.state.lock();
        let mut result = Ok(());
        while result.is_ok() && state.io != IoState::Gone && state.event_nr == event_nr {
            result = device.changed.wait_sig(&mut state);
        }
        if state.io == IoState::Gone {
            result = Err(Errno::ENXIO);
        }
        drop(state);
        let mut devices = self.devices.lock();
        devices.waiters = devices.waiters.saturating_sub(1);
        devices.unprivileged = devices.unprivileged.saturating_sub(unprivileged);
        result
    }
}

impl<K: Kernel> Device<K> {
    /// A device without a table, which nobody can find yet.
    fn new(minor: Minor, unit: K::Unit, created_read_only: bool) -> Self {
        let state = State {
            active: None,
            inactive: None,
            created_read_only,
            io: IoState::Bare,
            slot: false,
            event_nr: 0,
            controlled: false,
            remove_at_close: false,
        };
        let (state, changed) = (K::Mutex::new(state), K::Condvar::new(c"dmdev"));
        let parts = K::Mutex::new(Parts::default());
        Device { minor, unit, state, parts, changed }
    }

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

    /// The device's minor.
    pub fn minor(&self) -> Minor {
        self.minor
    }

    /// The device as the system sees it.
    pub fn unit(&self) -> &K::Unit {
        &self.unit
    }

    /// `true` once the device is removed, but for its name and minor.
    fn is_gone(&self) -> bool {
        self.state.lock().io == IoState::Gone
    }

    /// The device's state now.
    pub fn snapshot(&self) -> Snapshot<K> {
        let open_count = self.unit.open_count();
        let state = self.state.lock();
        let read_only = state.active.as_ref().map_or(state.created_read_only, |l| l.read_only);
        Snapshot {
            active: state.active.as_ref().map(|l| l.table.clone()),
            inactive: state.inactive.as_ref().map(|l| l.table.clone()),
            read_only,
            inactive_read_only: state.inactive.as_ref().is_some_and(|l| l.read_only),
            suspended: matches!(state.io, IoState::Bare | IoState::Suspended),
            slot: state.slot,
            event_nr: state.event_nr,
            open_count,
            remove_at_close: state.remove_at_close,
        }
    }

    /// Raises the event of another name, or of a uuid. As in Linux that is none for a device without an active
    /// table.
    pub(super) fn renamed(&self) {
        if self.state.lock().active.is_some() {
            self.raise_event();
        }
    }

    /// Raises an event: [`Driver::wait_event`] returns. Context: a thread, for a target one that polls lanes.
    pub fn raise_event(&self) {
        let mut state = self.state.lock();
        state.event_nr = state.event_nr.wrapping_add(1);
        drop(state);
        self.changed.broadcast();
    }

    /// Hands a message to the target that holds `sector`, which may write a reply; one that begins
    /// with `@` is for the device.
    ///
    /// # Errors
    /// EINVAL if there is no such sector or nobody understands, ENXIO without a table.
    pub fn message(&self, sector: Sector, text: &str, reply: &mut String) -> Result<(), Errno> {
        if text.starts_with('@') {
            if text != "@cancel_deferred_remove" {
                return Err(Errno::EINVAL);
            }
            self.state.lock().remove_at_close = false;
            return Ok(());
        }
        let table = self.snapshot().active.ok_or(Errno::ENXIO)?;
        table.target(sector).ok_or(Errno::EINVAL)?.message(text, reply)?;
        // A lane may wait for what the message changed.
        if let Some(engine) = table.engine() {
            engine.look_again();
        }
        Ok(())
    }

    /// Sets the geometry that the disk reports.
    ///
    /// # Errors
    /// ENXIO if the device is gone, EINTR.
    pub fn set_geometry(&self, geometry: Geometry) -> Result<(), Errno> {
        let _control = self.control()?;
        self.unit.set_geometry(geometry);
        Ok(())
    }

    /// Takes the control flag, as [`Device::control`] does, with the file system suspended that is mounted on the
    /// device, if that is asked for and `holds` says that I/O is about to be held.
    ///
    /// The thread that has the control flag may wait for that file system, as when it opens a component by a
    /// path. So the file system is suspended first, and goes on while the control flag is waited for.
    fn control_with(
        &self,
        mounted: FileSystem,
        holds: impl Fn(&State<K>) -> bool,
    ) -> Result<Controlled<'_, K>, Errno> {
        loop {
            let state = self.state.lock();
            let wanted = mounted == FileSystem::Sync && state.active.is_some() && holds(&state);
            drop(state);
            let suspended = if wanted { self.unit.suspend_file_system()? } else { None };
            if suspended.is_none() {
                return Ok((self.control()?, None));
            }
            let mut state = self.state.lock();
            if !state.controlled && state.io != IoState::Gone {
                state.controlled = true;
                drop(state);
                return Ok((Control(self), suspended));
            }
            drop(state);
            drop(suspended);
            drop(self.control()?);
        }
    }

    /// Takes the control flag: the right to change the active table or to remove the device. Context: a thread
    /// with no lock held.
    ///
    /// # Errors
    /// EINTR, ENXIO if the device is gone.
    fn control(&self) -> Result<Control<'_, K>, Errno> {
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

    /// Takes the control flag, deaf to signals; `None` if the device is gone. Context: a close or a detach, with
    /// no lock of the driver's held.
    fn control_uninterruptible(&self) -> Option<Control<'_, K>> {
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

/// The control flag of a device, and the file system that is mounted on the device, if that is suspended.
type Controlled<'d, K> = (Control<'d, K>, Option<<<K as Kernel>::Unit as Unit<K>>::Suspended>);

/// The control flag of a device: the right to change its active table or to remove it.
#[must_use = "dropped at once, the control flag is free again"]
struct Control<'d, K: Kernel>(&'d Device<K>);

impl<K: Kernel> Drop for Control<'_, K> {
    fn drop(&mut self) {
        self.0.state.lock().controlled = false;
        self.0.changed.broadcast();
    }
}
