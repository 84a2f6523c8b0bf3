// SPDX-License-Identifier: BSD-2-Clause

//! Devices: the set of them, and the operations on one.
//!
//! This file has a device, its states and its events; `set.rs` has all devices, `load.rs` how a
//! table comes, `opener.rs` how its components are opened, `suspend.rs` how it becomes active,
//! `removal.rs` how a device goes, `control.rs` that one thread at a time does either, `stack.rs`
//! how devices lie on one another.
//!
//! Locks, outermost first: `Driver::devices`, `Device::state`, the set of components. None is held
//! while a component is opened or closed, or while I/O drains. What takes that long is serialised
//! per device by `Device::control`, a flag to sleep on and no lock. Context of everything here: a
//! thread, in an ioctl, a close or a detach; [`Device::raise_event`] alone runs in a table's
//! threads, too.

use alloc::string::String;
use alloc::sync::Arc;

use crate::kernel::{Condvar, Geometry, Kernel, LiveTable, Mutex, Unit};
use crate::purse::Share;
use crate::units::{Minor, Sector};
use crate::{Errno, limits};

mod control;
mod load;
mod opener;
mod removal;
mod set;
mod stack;
mod suspend;
#[cfg(test)]
mod tests;

pub use load::{LineRequest, Load, lines};
pub use set::{Driver, FoundDevice, Selector};
pub use suspend::FileSystem;

use load::Parts;

/// A mapped device, as commands see it.
pub struct Device<K: Kernel> {
    /// The device's minor. Never changes.
    minor: Minor,
    /// The device as the system sees it. Guards itself.
    unit: K::Unit,
    /// The tables and flags. Taken while I/O is held: its holder waits for no memory.
    state: K::Mutex<State<K>>,
    /// Lines of a table that comes in several requests. They are added to under this lock, which is
    /// not taken while I/O is held.
    parts: K::Mutex<Parts>,
    /// An event has come, or [`State::controlled`] was cleared, or the device is gone. With
    /// `state`.
    changed: K::Condvar,
}

/// A device's tables and flags.
///
/// All fields are read and written under [`Device::state`]. Those marked (c) are written only by
/// the thread that has the control flag, which may therefore believe what it has read of them after
/// it has let the lock go.
struct State<K: Kernel> {
    /// (c) The active table, which also stands behind the device's gate.
    active: Option<Loaded<K>>,
    /// The table that the next resume makes active. Written by any reload and clear, too.
    inactive: Option<Loaded<K>>,
    /// (c) The table whose engine a resume starts: it was inactive, and is active, or inactive
    /// again, when that is over. For userland, and for the search for loops, it is inactive.
    starting: Option<Loaded<K>>,
    /// `true` if `starting` was cleared: if it does not start it does not become inactive again.
    cleared: bool,
    /// READONLY of the `create`: it holds for all tables. Never changes.
    created_read_only: bool,
    /// (c) The state of the device's I/O.
    io: IoState,
    /// (c) Which of the two slots that userland sees the active table is in; changes with each
    /// table.
    slot: bool,
    /// The number of events so far; wraps.
    event_nr: u32,
    /// The control flag: `true` while a thread has a [`control::Control`].
    controlled: bool,
    /// `true` if the device is to be removed at its last close.
    remove_at_close: bool,
}

impl<K: Kernel> State<K> {
    /// `true` if the device takes no writes.
    fn is_read_only(&self) -> bool {
        self.active.as_ref().map_or(self.created_read_only, |loaded| loaded.read_only)
    }

    /// The table that is inactive for userland: the inactive one, or else the one that a resume
    /// starts.
    fn to_come(&self) -> Option<&Loaded<K>> {
        self.inactive.as_ref().or(self.starting.as_ref().filter(|_| !self.cleared))
    }
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
    /// Never resumed, or suspended while there was no active table. Userland sees a suspended
    /// device. The gate is open, and I/O fails with ENXIO for lack of a table.
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

/// A device's state at one moment, with its tables. Dropping it may drop the last reference to a
/// table, which sleeps ([`Table`](crate::table::Table)): not with a lock held, nor while I/O is
/// held.
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

impl<K: Kernel> Driver<K> {
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
    /// A device without a table, which no lookup finds yet.
    fn new(minor: Minor, unit: K::Unit, created_read_only: bool) -> Self {
        let state = State {
            active: None,
            inactive: None,
            starting: None,
            cleared: false,
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
        let inactive = state.to_come();
        Snapshot {
            active: state.active.as_ref().map(|l| l.table.clone()),
            inactive: inactive.map(|l| l.table.clone()),
            read_only: state.is_read_only(),
            inactive_read_only: inactive.is_some_and(|l| l.read_only),
            suspended: matches!(state.io, IoState::Bare | IoState::Suspended),
            slot: state.slot,
            event_nr: state.event_nr,
            open_count,
            remove_at_close: state.remove_at_close,
        }
    }

    /// Raises the event of another name, or of a uuid. As in Linux that is none for a device
    /// without an active table.
    pub(super) fn renamed(&self) {
        if self.state.lock().active.is_some() {
            self.raise_event();
        }
    }

    /// Raises an event: [`Driver::wait_event`] returns. Context: a thread, for a target one that
    /// polls lanes.
    pub fn raise_event(&self) {
        let mut state = self.state.lock();
        state.event_nr = state.event_nr.wrapping_add(1);
        drop(state);
        self.changed.broadcast();
    }

    /// Hands a message to the target that holds `sector`, which may write a reply; one that begins
    /// with `@` is for the device. Context: a thread in an ioctl, with no lock held; sleeps.
    ///
    /// # Errors
    /// EINVAL if there is no such sector or its target does not understand, ENXIO without a table.
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
}
