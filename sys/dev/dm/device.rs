//! Devices: the set of them, and what can be done to one.
//!
//! Locks, outermost first: `Driver::devices`, `Device::state`, the set of components. None is
//! held while a component is opened or closed, or while I/O drains. What takes that long is
//! serialised per device by `Device::control`, which is a flag to sleep on and no lock.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::kernel::{Condvar, Geometry, Kernel, LabelGuard, LiveTable, Mutex, Unit};
use crate::name::{Name, Uuid};
use crate::pdev::{Pdev, Pdevs};
use crate::table::{Builder, Component, Mistake, Opener, Table, TableError};
use crate::units::{Dev, Minor, Sector};
use crate::{Errno, limits};

mod share;
mod stack;
#[cfg(test)]
mod tests;

use share::{Budget, Share};

/// The driver: all devices, and the components that their tables share.
pub struct Driver<K: Kernel> {
    kernel: K,
    devices: K::Mutex<Devices<K>>,
    /// A device that was being made is there, or has failed to come.
    made: K::Condvar,
    pdevs: Arc<Pdevs<K>>,
    talk: K::Mutex<Talk>,
    budget: Budget,
}

/// What the console has been told of late.
#[derive(Default)]
struct Talk {
    /// The second that the counts are of.
    second: u32,
    told: u32,
    left_out: u32,
}

struct Devices<K: Kernel> {
    /// By minor, ascending.
    list: Vec<Entry<K>>,
    /// Where to look for the next minor: they are not reused until all have been used, so that a
    /// tool that remembers one does not meet another device.
    next: u32,
    /// Those who wait for events, and how many of them may not change devices.
    waiters: usize,
    strangers: usize,
}

struct Entry<K: Kernel> {
    minor: Minor,
    name: Name,
    uuid: Option<Uuid>,
    /// Empty while the device is being made or taken away: its name and minor are taken then, but
    /// nobody can find it.
    device: Option<Arc<Device<K>>>,
    /// Of a device that is empty: it is being taken away.
    going: bool,
    /// Of one that is being taken away: nothing of it is left but its name and minor.
    empty: bool,
}

/// How userland says which device it means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selector {
    /// By minor number.
    Minor(Minor),
    /// By name.
    Name(Name),
    /// By uuid.
    Uuid(Uuid),
    /// By something that no device can have.
    None,
}

/// A device that was found, with the names it had then.
pub struct Found<K: Kernel> {
    /// The device.
    pub device: Arc<Device<K>>,
    /// Its name.
    pub name: Name,
    /// Its uuid, if it has one.
    pub uuid: Option<Uuid>,
}

/// One device.
pub struct Device<K: Kernel> {
    minor: Minor,
    unit: K::Unit,
    state: K::Mutex<State<K>>,
    /// An event has come, or [`State::controlled`] was cleared, or the device is gone.
    changed: K::Condvar,
}

struct State<K: Kernel> {
    active: Option<Loaded<K>>,
    inactive: Option<Loaded<K>>,
    /// Lines of a table that comes in several requests.
    parts: Parts,
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

/// Lines, and what is paid for them.
#[derive(Default)]
struct Parts {
    lines: Vec<Line>,
    share: Option<Share>,
}

/// A line as userland sends it.
#[derive(Clone, Debug)]
pub struct Line {
    /// The first sector.
    pub start: u64,
    /// How many sectors.
    pub length: u64,
    /// The target's name.
    pub kind: String,
    /// Its parameters.
    pub params: String,
}

impl Line {
    /// Bytes of its target's name and parameters.
    fn text(&self) -> usize {
        self.kind.len().saturating_add(self.params.len())
    }

    /// What it takes of [`limits::TABLES`], in bytes: at least what its target does in a table,
    /// where four characters may be a stripe.
    fn cost(&self) -> usize {
        self.text().saturating_mul(8).saturating_add(64)
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

impl<K: Kernel> Driver<K> {
    /// A driver without devices.
    pub fn new(kernel: K) -> Self {
        let devices = Devices { list: Vec::new(), next: 1, waiters: 0, strangers: 0 };
        let (devices, made) = (K::Mutex::new(devices), K::Condvar::new(c"dmmade"));
        let talk = K::Mutex::new(Talk::default());
        Driver { kernel, devices, made, pdevs: Pdevs::new(), talk, budget: Budget::default() }
    }

    /// Tells the console, unless it has been told a lot in this second: whoever loads tables in a
    /// loop shall not drown what others have to say.
    fn say(&self, what: fmt::Arguments<'_>) {
        let second = self.kernel.seconds();
        let mut talk = self.talk.lock();
        let mut left_out = 0;
        if talk.second != second {
            left_out = talk.left_out;
            *talk = Talk { second, ..Talk::default() };
        }
        let tell = talk.told < limits::MESSAGES;
        let count = if tell { &mut talk.told } else { &mut talk.left_out };
        *count = count.saturating_add(1);
        drop(talk);
        if left_out > 0 {
            self.kernel.say(format_args!("dm: {left_out} messages were left out"));
        }
        if tell {
            self.kernel.say(what);
        }
    }

    /// The kernel it runs in.
    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    /// How many devices there are, those that come or go among them.
    pub fn count(&self) -> usize {
        self.devices.lock().list.len()
    }

    /// Finds a device.
    pub fn find(&self, which: &Selector) -> Option<Found<K>> {
        let devices = self.devices.lock();
        let entry = devices.list.iter().find(|e| match which {
            Selector::Minor(minor) => e.minor == *minor,
            Selector::Name(name) => e.name == *name,
            Selector::Uuid(uuid) => e.uuid.as_ref() == Some(uuid),
            Selector::None => false,
        })?;
        let device = entry.device.clone()?;
        Some(Found { device, name: entry.name.clone(), uuid: entry.uuid.clone() })
    }

    /// Whether a device takes no writes; one that does not exist takes them as well as any.
    pub fn is_read_only(&self, minor: Minor) -> bool {
        self.find(&Selector::Minor(minor)).is_some_and(|found| found.device.snapshot().read_only)
    }

    /// All devices' names and minors, by minor.
    pub fn names(&self) -> Vec<(Name, Minor)> {
        let devices = self.devices.lock();
        let there = devices.list.iter().filter(|e| e.device.is_some());
        there.map(|e| (e.name.clone(), e.minor)).collect()
    }

    /// Makes a device without a table, with the given minor or any.
    ///
    /// # Errors
    /// EEXIST if the name or the uuid is taken, EBUSY if the minor is, ENOSPC if there are too
    /// many devices, or those of [`Kernel::attach`]. Nothing is left behind then.
    pub fn create(
        &self,
        name: Name,
        uuid: Option<Uuid>,
        minor: Option<Minor>,
        read_only: bool,
    ) -> Result<Found<K>, Errno> {
        let minor = {
            let mut devices = self.devices.lock();
            devices.check_free(&name, uuid.as_ref(), None)?;
            if devices.list.len() >= limits::DEVICES {
                return Err(Errno::ENOSPC);
            }
            let minor = match minor {
                Some(minor) => minor,
                None => devices.next_minor().ok_or(Errno::ENOSPC)?,
            };
            let at = match devices.position(minor) {
                Ok(_) => return Err(Errno::EBUSY),
                Err(at) => at,
            };
            let (name, uuid) = (name.clone(), uuid.clone());
            let entry = Entry { minor, name, uuid, device: None, going: false, empty: false };
            devices.list.insert(at, entry);
            minor
        };
        let unit = self.kernel.attach(minor).inspect_err(|_| self.forget(minor))?;
        let state = State {
            active: None,
            inactive: None,
            parts: Parts::default(),
            created_read_only: read_only,
            suspended: true,
            quiesced: false,
            slot: false,
            event_nr: 0,
            controlled: false,
            remove_at_close: false,
            gone: false,
        };
        let (state, changed) = (K::Mutex::new(state), K::Condvar::new(c"dmdev"));
        let device = Arc::new(Device { minor, unit, state, changed });
        let mut devices = self.devices.lock();
        if let Ok(at) = devices.position(minor)
            && let Some(entry) = devices.list.get_mut(at)
        {
            entry.device = Some(device.clone());
        }
        drop(devices);
        self.made.broadcast();
        Ok(Found { device, name, uuid })
    }

    fn forget(&self, minor: Minor) {
        let mut devices = self.devices.lock();
        if let Ok(at) = devices.position(minor) {
            devices.list.remove(at);
        }
        drop(devices);
        self.made.broadcast();
    }

    /// Gives a device another name.
    ///
    /// # Errors
    /// EEXIST if another device has it, ENXIO if the device is gone.
    pub fn rename(&self, device: &Device<K>, name: Name) -> Result<(), Errno> {
        let mut devices = self.devices.lock();
        devices.check_free(&name, None, Some(device.minor))?;
        devices.entry_of(device)?.name = name;
        Ok(())
    }

    /// Gives a device its first uuid.
    ///
    /// # Errors
    /// EEXIST if another device has it, EINVAL if the device has one, ENXIO if it is gone.
    pub fn set_uuid(&self, device: &Device<K>, uuid: Uuid) -> Result<(), Errno> {
        let mut devices = self.devices.lock();
        if devices.list.iter().any(|e| e.minor != device.minor && e.uuid.as_ref() == Some(&uuid)) {
            return Err(Errno::EEXIST);
        }
        let entry = devices.entry_of(device)?;
        if entry.uuid.as_ref().is_some_and(|old| *old != uuid) {
            return Err(Errno::EINVAL);
        }
        entry.uuid = Some(uuid);
        Ok(())
    }

    /// Builds a table and puts it into the inactive slot, in place of what was there. With `more`
    /// the lines are kept until the request that brings the last of them.
    ///
    /// # Errors
    /// What is wrong with the table; both slots are as they were then, and lines that were kept
    /// are dropped.
    pub fn reload(
        &self,
        device: &Device<K>,
        lines: Vec<Line>,
        read_only: bool,
        more: bool,
    ) -> Result<(), Errno> {
        let refuse = |why: &dyn fmt::Display| {
            device.forget_lines();
            self.say(format_args!("dm{}: table refused: {why}", device.minor));
        };
        let cost = lines.iter().map(Line::cost).fold(0usize, usize::saturating_add);
        let share =
            self.budget.take(cost).inspect_err(|_| refuse(&"all tables together are too large"))?;
        let (Parts { lines, share }, read_only) = {
            let mut state = device.state.lock();
            let parts = &mut state.parts;
            parts.lines.extend(lines);
            match &mut parts.share {
                Some(all) => all.join(share),
                none => *none = Some(share),
            }
            let bytes = parts.lines.iter().map(Line::text).fold(0usize, usize::saturating_add);
            if parts.lines.len() > limits::LINES || bytes > limits::TABLE_BYTES {
                drop(state);
                refuse(&"too many lines");
                return Err(Errno::E2BIG);
            }
            if more {
                return Ok(());
            }
            (core::mem::take(&mut state.parts), read_only || state.created_read_only)
        };
        let table = self.build(device.minor, &lines, read_only).map_err(|error| {
            refuse(&error);
            error.mistake.errno
        })?;
        let loaded = Loaded { table: Arc::new(table), read_only, share: share.map(Arc::new) };
        self.install(device, loaded).inspect_err(|errno| {
            if *errno == Errno::ELOOP {
                refuse(&"the table would map a device to itself, or stack too many");
            }
        })
    }

    fn build(
        &self,
        minor: Minor,
        lines: &[Line],
        read_only: bool,
    ) -> Result<LiveTable<K>, TableError> {
        let opener = TableOpener { driver: self, minor, read_only };
        let mut builder = Builder::new(&opener);
        for line in lines {
            builder.line(line.start, line.length, &line.kind, &line.params)?;
        }
        let table = builder.build()?;
        let guard = self.kernel.label_guard();
        let mut first = None;
        if guard != LabelGuard::Off {
            table.reserved(&mut |dev, at, safe| first = first.or(Some((dev, at, safe))));
        }
        if let Some((dev, at, safe)) = first {
            self.say(format_args!(
                "dm{minor}: the table uses sector {at} of {dev}, which is kept for its label and \
                 boot code; the first safe sector is {safe}"
            ));
            if guard == LabelGuard::Tables {
                let why = "the table uses sectors kept for a component's label";
                let mistake = Mistake::new(Errno::EINVAL, why);
                return Err(TableError { line: None, mistake });
            }
        }
        Ok(table)
    }

    /// Puts a built table into the inactive slot. Loops are looked for here, under the lock that
    /// all tables are installed under, so that two tables cannot close one together.
    fn install(&self, device: &Device<K>, loaded: Loaded<K>) -> Result<(), Errno> {
        let devices = self.devices.lock();
        let below =
            devices.depth_below(self.kernel.block_major(), loaded.table.devs(), device.minor)?;
        if below > 0 {
            devices.depth_above(self.kernel.block_major(), device.minor, below)?;
        }
        let mut state = device.state.lock();
        if state.gone {
            return Err(Errno::ENXIO);
        }
        let old = state.inactive.replace(loaded);
        // Dropping a table closes components: not under these locks.
        drop(state);
        drop(devices);
        drop(old);
        Ok(())
    }

    /// Drops the inactive table.
    pub fn clear(&self, device: &Device<K>) {
        let mut state = device.state.lock();
        let old = (state.inactive.take(), core::mem::take(&mut state.parts));
        drop(state);
        drop(old);
    }

    /// Makes the inactive table active, if there is one, and lets I/O go.
    ///
    /// # Errors
    /// EINTR when a signal came before I/O had drained; nothing has changed then.
    pub fn resume(&self, device: &Device<K>) -> Result<(), Errno> {
        let _control = device.control()?;
        let (switch, quiesced) = {
            let state = device.state.lock();
            (state.inactive.is_some(), state.quiesced)
        };
        if switch && !quiesced {
            device.unit.quiesce()?;
        }
        // The table stays in its slot until here, for those who look for loops. It may have been
        // replaced, or cleared, since.
        let mut state = device.state.lock();
        // One that came where there was none waits for the next resume: I/O is not held for it.
        let loaded = if switch || quiesced { state.inactive.take() } else { None };
        let old = loaded.clone().map(|loaded| {
            state.slot = !state.slot;
            state.event_nr = state.event_nr.wrapping_add(1);
            state.active.replace(loaded)
        });
        drop(state);
        let before = loaded.map(|l| device.unit.set_table(l.table, l.read_only));
        if switch || quiesced {
            device.unit.release();
        }
        let mut state = device.state.lock();
        (state.suspended, state.quiesced) = (false, false);
        drop(state);
        device.changed.broadcast();
        // Closes components that no table uses any more.
        drop((old, before));
        Ok(())
    }

    /// Holds I/O until the next resume, and waits until none is in flight.
    ///
    /// # Errors
    /// EINTR when a signal came first; nothing has changed then.
    pub fn suspend(&self, device: &Device<K>) -> Result<(), Errno> {
        let _control = device.control()?;
        let state = device.state.lock();
        let hold = state.active.is_some() && !state.quiesced;
        drop(state);
        if hold {
            device.unit.quiesce()?;
        }
        let mut state = device.state.lock();
        state.suspended = true;
        state.quiesced |= hold;
        Ok(())
    }

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
        let table = device.unit.kill();
        let mut state = device.state.lock();
        state.gone = true;
        let parts = core::mem::take(&mut state.parts);
        let tables = (state.active.take(), state.inactive.take(), parts);
        drop(state);
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
            suspended: state.suspended,
            slot: state.slot,
            event_nr: state.event_nr,
            open_count,
            remove_at_close: state.remove_at_close,
        }
    }

    /// Tells those who wait that something has happened: a target may, too.
    pub fn raise_event(&self) {
        let mut state = self.state.lock();
        state.event_nr = state.event_nr.wrapping_add(1);
        drop(state);
        self.changed.broadcast();
    }

    /// Hands a message to the target that holds `sector`; one that begins with `@` is for the
    /// device.
    ///
    /// # Errors
    /// EINVAL if there is no such sector or nobody understands, ENXIO without a table.
    pub fn message(&self, sector: Sector, text: &str) -> Result<(), Errno> {
        if text.starts_with('@') {
            if text != "@cancel_deferred_remove" {
                return Err(Errno::EINVAL);
            }
            self.state.lock().remove_at_close = false;
            return Ok(());
        }
        let table = self.snapshot().active.ok_or(Errno::ENXIO)?;
        table.target(sector).ok_or(Errno::EINVAL)?.message(text)
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

    /// Drops the lines that were kept for a table in several requests.
    pub fn forget_lines(&self) {
        let parts = core::mem::take(&mut self.state.lock().parts);
        drop(parts);
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

/// The right to change a device's tables, or to take it away.
struct Control<'d, K: Kernel>(&'d Device<K>);

impl<K: Kernel> Drop for Control<'_, K> {
    fn drop(&mut self) {
        self.0.state.lock().controlled = false;
        self.0.changed.broadcast();
    }
}

impl<K: Kernel> Devices<K> {
    fn position(&self, minor: Minor) -> Result<usize, usize> {
        self.list.binary_search_by_key(&minor, |e| e.minor)
    }

    /// The entry of a device; its minor may be another's by now.
    fn entry_of(&mut self, device: &Device<K>) -> Result<&mut Entry<K>, Errno> {
        let at = self.position(device.minor).map_err(|_| Errno::ENXIO)?;
        let entry = self.list.get_mut(at).ok_or(Errno::ENXIO)?;
        let same = entry.device.as_ref().is_some_and(|d| core::ptr::eq(Arc::as_ptr(d), device));
        same.then_some(entry).ok_or(Errno::ENXIO)
    }

    /// That no device but `except` has this name or uuid.
    fn check_free(
        &self,
        name: &Name,
        uuid: Option<&Uuid>,
        except: Option<Minor>,
    ) -> Result<(), Errno> {
        let taken = self
            .list
            .iter()
            .filter(|e| Some(e.minor) != except)
            .any(|e| e.name == *name || uuid.is_some_and(|uuid| e.uuid.as_ref() == Some(uuid)));
        if taken { Err(Errno::EEXIST) } else { Ok(()) }
    }

    fn next_minor(&mut self) -> Option<Minor> {
        let last = Minor::MAX.get();
        let from_here = (self.next..=last).chain(1..self.next);
        let minor = from_here
            .filter_map(|n| Minor::new(u64::from(n)))
            .find(|minor| self.position(*minor).is_err())?;
        self.next = if minor.get() == last { 1 } else { minor.get().saturating_add(1) };
        Some(minor)
    }
}

/// Opens the components of a table that is meant for one device.
struct TableOpener<'d, K: Kernel> {
    driver: &'d Driver<K>,
    minor: Minor,
    read_only: bool,
}

impl<K: Kernel> Opener for TableOpener<'_, K> {
    type Component = Pdev<K>;

    fn open(&self, path: &str) -> Result<Pdev<K>, Errno> {
        let kernel = &self.driver.kernel;
        let dev = match device_number(path) {
            Some(dev) => dev?,
            None => kernel.find(path)?,
        };
        if dev.major() == kernel.block_major() {
            if dev.minor() == self.minor.get() {
                return Err(Errno::ELOOP);
            }
            if dev.minor() == 0 {
                return Err(Errno::ENOTBLK);
            }
        }
        let pdev = self.driver.pdevs.open(kernel, dev)?;
        if !self.read_only && !pdev.writable() {
            return Err(Errno::EROFS);
        }
        Ok(pdev)
    }
}

/// Reads `major:minor`; `None` if it is not written like that.
///
/// # Errors
/// ENXIO if no device can have these numbers.
fn device_number(path: &str) -> Option<Result<Dev, Errno>> {
    let (major, minor) = path.split_once(':')?;
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(major) || !digits(minor) {
        return None;
    }
    let dev = major.parse().ok().zip(minor.parse().ok());
    Some(dev.and_then(|(major, minor)| Dev::new(major, minor)).ok_or(Errno::ENXIO))
}

/// Turns a table back into the lines that would load it.
pub fn lines<C>(table: &Table<C>) -> Vec<Line> {
    let line = |(start, length, target): (Sector, Sector, &dyn crate::target::Target)| Line {
        start: start.0,
        length: length.0,
        kind: target.kind().name.into(),
        params: table.describe(target, true),
    };
    table.lines().map(line).collect()
}
