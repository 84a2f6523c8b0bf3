//! Devices: the set of them, and what can be done to one.
//!
//! This file has a device and its states; `set.rs` has all of them, `load.rs` how a table comes,
//! `removal.rs` how a device goes, `stack.rs` how they lie on one another, `share.rs` what their
//! tables may take.
//!
//! Locks, outermost first: `Driver::devices`, `Device::state`, the set of components. None is
//! held while a component is opened or closed, or while I/O drains. What takes that long is
//! serialised per device by `Device::control`, which is a flag to sleep on and no lock.

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

/// One device.
pub struct Device<K: Kernel> {
    minor: Minor,
    unit: K::Unit,
    /// Taken while I/O is held: its holder waits for no memory.
    state: K::Mutex<State<K>>,
    /// Lines of a table that comes in several requests. It grows under this lock, which is not taken
    /// while I/O is held.
    parts: K::Mutex<Parts>,
    /// An event has come, or [`State::controlled`] was cleared, or the device is gone.
    changed: K::Condvar,
}

struct State<K: Kernel> {
    active: Option<Loaded<K>>,
    inactive: Option<Loaded<K>>,
    created_read_only: bool,
    suspended: bool,
    /// I/O is being held: suspended, and with a table.
    quiesced: bool,
    /// Which of the two slots the active table is in.
    slot: bool,
    event_nr: u32,
    controlled: bool,
    remove_at_close: bool,
    gone: bool,
}

struct Loaded<K: Kernel> {
    table: Arc<LiveTable<K>>,
    read_only: bool,
    share: Option<Arc<Share>>,
}

impl<K: Kernel> Clone for Loaded<K> {
    fn clone(&self) -> Self {
        let (table, share) = (self.table.clone(), self.share.clone());
        Loaded { table, read_only: self.read_only, share }
    }
}

/// What a device is like at one moment.
pub struct Snapshot<K: Kernel> {
    /// The active table.
    pub active: Option<Arc<LiveTable<K>>>,
    /// The inactive one.
    pub inactive: Option<Arc<LiveTable<K>>>,
    /// Whether it takes no writes.
    pub read_only: bool,
    /// `true` if there is an inactive table that takes no writes.
    pub inactive_read_only: bool,
    /// Whether it is suspended, or was never resumed.
    pub suspended: bool,
    /// Which slot is active, 0 or 1.
    pub slot: bool,
    /// Events so far.
    pub event_nr: u32,
    /// Open device nodes.
    pub open_count: u32,
    /// Whether it goes at its last close.
    pub remove_at_close: bool,
}

/// What happens to a file system that is mounted on a device when I/O of that is to be held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileSystem {
    /// All that it has is written before, and it begins nothing new until I/O is held.
    Sync,
    /// Nothing.
    Leave,
}

impl<K: Kernel> Driver<K> {
    /// Makes the inactive table active, if there is one, and lets I/O go.
    ///
    /// # Errors
    /// EINTR when a signal came before I/O had drained, or what a target of the table that is to be
    /// active says when it starts; nothing has changed then.
    pub fn resume(&self, device: &Device<K>, mounted: FileSystem) -> Result<(), Errno> {
        let switches = |state: &State<K>| state.inactive.is_some() && !state.quiesced;
        let (_control, suspended) = device.control_with(mounted, switches)?;
        let frugal = self.kernel.frugal();
        let (switch, quiesced) = {
            let state = device.state.lock();
            (state.inactive.is_some(), state.quiesced)
        };
        if switch && !quiesced {
            device.drain(Quiesce::Flush)?;
        }
        drop(suspended);
        let started = if switch || quiesced { device.start() } else { Ok(()) };
        if let Err(errno) = started {
            if !quiesced {
                if let Some(active) = device.engine() {
                    // It ran before. If it does not start now, its targets fail what comes.
                    let _ = active.start();
                }
                device.unit.release();
            }
            return Err(errno);
        }
        // The table stays in its slot until here, for those who look for loops.
        let mut state = device.state.lock();
        // One that came where there was none waits for the next resume: I/O is not held for it.
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
        let mut state = device.state.lock();
        (state.suspended, state.quiesced) = (false, false);
        drop(state);
        device.changed.broadcast();
        // Closes components that no table uses any more.
        drop((old, before));
        Ok(())
    }

    /// Holds I/O until the next resume, and waits until none is in flight. What lies on the components
    /// then is what a file system has that was just synchronised, if one is mounted on the device and
    /// `mounted` says so.
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
        let (_control, _suspended) = device.control_with(mounted, |state| !state.quiesced)?;
        let _frugal = self.kernel.frugal();
        let state = device.state.lock();
        let hold = state.active.is_some() && !state.quiesced;
        drop(state);
        if hold {
            device.drain(how)?;
        }
        let mut state = device.state.lock();
        state.suspended = true;
        state.quiesced |= hold;
        Ok(())
    }

    /// Waits until a device's event number is not `event_nr`.
    ///
    /// # Errors
    /// ENXIO if the device goes, EINTR, EAGAIN if too many wait already.
    pub fn wait_event(&self, device: &Device<K>, event_nr: u32) -> Result<(), Errno> {
        let stranger = usize::from(self.kernel.authorize().is_err());
        {
            let mut devices = self.devices.lock();
            let strangers = devices.strangers.saturating_add(stranger);
            if devices.waiters >= limits::WAITERS || strangers > limits::STRANGERS {
                return Err(Errno::EAGAIN);
            }
            devices.waiters = devices.waiters.saturating_add(1);
            devices.strangers = strangers;
        }
        let mut state = device.state.lock();
        let mut result = Ok(());
        while result.is_ok() && !state.gone && state.event_nr == event_nr {
            result = device.changed.wait_sig(&mut state);
        }
        if state.gone {
            result = Err(Errno::ENXIO);
        }
        drop(state);
        let mut devices = self.devices.lock();
        devices.waiters = devices.waiters.saturating_sub(1);
        devices.strangers = devices.strangers.saturating_sub(stranger);
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
            suspended: true,
            quiesced: false,
            slot: false,
            event_nr: 0,
            controlled: false,
            remove_at_close: false,
            gone: false,
        };
        let (state, changed) = (K::Mutex::new(state), K::Condvar::new(c"dmdev"));
        let parts = K::Mutex::new(Parts::default());
        Device { minor, unit, state, parts, changed }
    }

    /// The engine of the active table, if targets of it serve I/O.
    fn engine(&self) -> Option<Arc<Executor>> {
        self.state.lock().active.as_ref()?.table.engine().cloned()
    }

    /// Holds I/O, waits until none is in flight, and stops the active table's engine. With the
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
    /// held, and the active table's engine is stopped. With the control flag.
    ///
    /// # Errors
    /// What a target says; the active table's engine is still stopped.
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

    /// Its minor.
    pub fn minor(&self) -> Minor {
        self.minor
    }

    /// What the system sees of it.
    pub fn unit(&self) -> &K::Unit {
        &self.unit
    }

    /// What it is like now.
    pub fn snapshot(&self) -> Snapshot<K> {
        let open_count = self.unit.open_count();
        let state = self.state.lock();
        let read_only = state.active.as_ref().map_or(state.created_read_only, |l| l.read_only);
        Snapshot {
            active: state.active.as_ref().map(|l| l.table.clone()),
            inactive: state.inactive.as_ref().map(|l| l.table.clone()),
            read_only,
            inactive_read_only: state.inactive.as_ref().is_some_and(|l| l.read_only),
            suspended: state.suspended,
            slot: state.slot,
            event_nr: state.event_nr,
            open_count,
            remove_at_close: state.remove_at_close,
        }
    }

    /// Tells those who wait for an event that the device has another name, or a uuid. As in Linux that
    /// is none for a device without an active table.
    pub(super) fn renamed(&self) {
        if self.state.lock().active.is_some() {
            self.raise_event();
        }
    }

    /// Tells those who wait that something has happened: a target does.
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

    /// Sets the geometry that the disk tells.
    ///
    /// # Errors
    /// ENXIO if the device is gone, EINTR.
    pub fn set_geometry(&self, geometry: Geometry) -> Result<(), Errno> {
        let _control = self.control()?;
        self.unit.set_geometry(geometry);
        Ok(())
    }

    /// The same as [`Device::control`], with the file system suspended that is mounted on the device, if that is
    /// asked for and I/O is about to be held, which `holds` tells.
    ///
    /// Whoever has the control may wait for that file system, as when it loads a table by a path. So the
    /// file system is suspended first, and goes on while the control is waited for.
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
            if !state.controlled && !state.gone {
                state.controlled = true;
                drop(state);
                return Ok((Control(self), suspended));
            }
            drop(state);
            drop(suspended);
            drop(self.control()?);
        }
    }

    /// Waits for the right to change the device's tables or to take it away.
    fn control(&self) -> Result<Control<'_, K>, Errno> {
        let mut state = self.state.lock();
        while state.controlled {
            self.changed.wait_sig(&mut state)?;
        }
        if state.gone {
            return Err(Errno::ENXIO);
        }
        state.controlled = true;
        drop(state);
        Ok(Control(self))
    }

    /// The same, deaf to signals.
    fn control_unless_gone(&self) -> Option<Control<'_, K>> {
        let mut state = self.state.lock();
        // Whoever takes the device away waits for autoconf(9), which may be here: not the other way
        // round too.
        while state.controlled && !state.gone {
            self.changed.wait(&mut state);
        }
        if state.gone {
            return None;
        }
        state.controlled = true;
        drop(state);
        Some(Control(self))
    }
}

/// The control of a device, and the file system that is mounted on it, if that is suspended.
type Controlled<'d, K> = (Control<'d, K>, Option<<<K as Kernel>::Unit as Unit<K>>::Suspended>);

/// The right to change a device's tables, or to take it away.
struct Control<'d, K: Kernel>(&'d Device<K>);

impl<K: Kernel> Drop for Control<'_, K> {
    fn drop(&mut self) {
        self.0.state.lock().controlled = false;
        self.0.changed.broadcast();
    }
}
