// SPDX-License-Identifier: BSD-2-Clause

//! The set of devices: their minors, names and uuids; how one is made and found.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::Device;
use crate::kernel::{Condvar, Kernel, Mutex};
use crate::name::{Name, Uuid};
use crate::pdev::Pdevs;
use crate::purse::Purse;
use crate::shared::Registry;
use crate::units::Minor;
use crate::{Errno, limits};

/// The driver: all devices, and the components that their tables share. Each field guards itself.
pub struct Driver<K: Kernel> {
    pub(super) kernel: K,
    /// The set of devices.
    pub(super) devices: K::Mutex<Devices<K>>,
    /// An entry of `devices` has changed its [`EntryState`] or was removed.
    pub(super) entry_changed: K::Condvar,
    /// The components that are open.
    pub(super) pdevs: Arc<Pdevs<K>>,
    console: K::Mutex<ConsoleRate>,
    /// The memory that tables may take.
    pub(super) purse: Purse,
    /// The state that lines of several tables share for a component.
    pub(super) shared: K::Mutex<Registry>,
}

/// The messages of the present second. As ppsratecheck(9), but messages that are left out are
/// counted.
#[derive(Default)]
struct ConsoleRate {
    /// The second that is counted.
    second: u32,
    /// Messages that were printed.
    printed: u32,
    /// Messages that were not.
    left_out: u32,
}

/// The set of devices. All fields: under [`Driver::devices`].
pub(super) struct Devices<K: Kernel> {
    /// The entries, by minor, ascending.
    pub(super) list: Vec<Entry<K>>,
    /// The minor from which on a free one is looked for: minors are not reused until all have been
    /// used, so that a tool that remembers one does not meet another device.
    pub(super) next: u32,
    /// Threads in [`Driver::wait_event`].
    pub(super) waiters: usize,
    /// The unprivileged ones among `waiters`.
    pub(super) unprivileged: usize,
}

/// A device's place in the set: its minor and names are taken as long as it exists.
pub(super) struct Entry<K: Kernel> {
    pub(super) minor: Minor,
    pub(super) name: Name,
    pub(super) uuid: Option<Uuid>,
    pub(super) state: EntryState<K>,
}

/// The states of an entry, and with it of a device, as dk(4) has DKW_STATE_LARVAL to DEAD.
///
/// ```text
///  reserve             create        tear_down            tear_down            forget
///  ───────► Attaching ───────► Live ──────────► Draining ──────────► Detached ───────► (no entry)
///               │                                                       ▲
///               └─ attaching failed: forget                             └─ waiting detach returns
/// ```
///
/// Each change wakes [`Driver::entry_changed`].
pub(super) enum EntryState<K: Kernel> {
    /// The device is being made: no lookup finds it. Owner: the thread in [`Driver::create`].
    Attaching,
    /// The device can be found.
    Live(Arc<Device<K>>),
    /// The device is being removed: no lookup finds it, but its I/O or its disk(9) may be there.
    /// Owner: the thread that has the control flag.
    Draining,
    /// Only the minor, the names, and perhaps the device_t are left. Owner: as for `Draining`.
    Detached,
}

impl<K: Kernel> Entry<K> {
    /// The device, if it can be found.
    pub(super) fn device(&self) -> Option<&Arc<Device<K>>> {
        match &self.state {
            EntryState::Live(device) => Some(device),
            EntryState::Attaching | EntryState::Draining | EntryState::Detached => None,
        }
    }
}

/// The way in which userland names a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selector {
    /// The device with this minor number.
    Minor(Minor),
    /// The device with this name.
    Name(Name),
    /// The device with this uuid.
    Uuid(Uuid),
    /// A selector that no device matches.
    None,
}

/// A device that was found, with the names it had then.
pub struct FoundDevice<K: Kernel> {
    /// The device.
    pub device: Arc<Device<K>>,
    /// The device's name.
    pub name: Name,
    /// The device's uuid, if it has one.
    pub uuid: Option<Uuid>,
}

/// The minors that are tried for a device that may have any, where the system has not let go of the
/// first.
const TRIES: u32 = 16;

impl<K: Kernel> Driver<K> {
    /// A driver without devices.
    pub fn new(kernel: K) -> Self {
        let devices = Devices { list: Vec::new(), next: 1, waiters: 0, unprivileged: 0 };
        let (devices, entry_changed) = (K::Mutex::new(devices), K::Condvar::new(c"dmmade"));
        let console = K::Mutex::new(ConsoleRate::default());
        let (pdevs, purse) = (Pdevs::new(), Purse::default());
        let shared = K::Mutex::new(Registry::default());
        Driver { kernel, devices, entry_changed, pdevs, console, purse, shared }
    }

    /// Prints a line on the console, unless [`limits::MESSAGES`] were printed in this second: a
    /// process that loads tables in a loop shall not drown other messages. Context: a thread; waits
    /// for memory.
    pub(crate) fn say(&self, what: fmt::Arguments<'_>) {
        let second = self.kernel.seconds();
        let mut rate = self.console.lock();
        let mut left_out = 0;
        if rate.second != second {
            left_out = rate.left_out;
            *rate = ConsoleRate { second, ..ConsoleRate::default() };
        }
        let print = rate.printed < limits::MESSAGES;
        let count = if print { &mut rate.printed } else { &mut rate.left_out };
        *count = count.saturating_add(1);
        drop(rate);
        if left_out > 0 {
            self.kernel.say(format_args!("dm: {left_out} messages were left out"));
        }
        if print {
            self.kernel.say(what);
        }
    }

    /// The kernel that the driver runs in.
    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    /// The number of devices, those that come or go among them.
    pub fn count(&self) -> usize {
        self.devices.lock().list.len()
    }

    /// Finds a device. Context: a thread; takes `devices`.
    pub fn find(&self, which: &Selector) -> Option<FoundDevice<K>> {
        let devices = self.devices.lock();
        let entry = devices.list.iter().find(|e| match which {
            Selector::Minor(minor) => e.minor == *minor,
            Selector::Name(name) => e.name == *name,
            Selector::Uuid(uuid) => e.uuid.as_ref() == Some(uuid),
            Selector::None => false,
        })?;
        let device = entry.device()?.clone();
        Some(FoundDevice { device, name: entry.name.clone(), uuid: entry.uuid.clone() })
    }

    /// `true` if a device exists and takes no writes. Context: a thread; takes `devices`, then the
    /// device's `state`.
    pub fn is_read_only(&self, minor: Minor) -> bool {
        let found = self.find(&Selector::Minor(minor));
        found.is_some_and(|found| found.device.state.lock().is_read_only())
    }

    /// All devices' names and minors, by minor.
    pub fn names(&self) -> Vec<(Name, Minor)> {
        let devices = self.devices.lock();
        let there = devices.list.iter().filter(|e| e.device().is_some());
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
    ) -> Result<FoundDevice<K>, Errno> {
        let mut tries = 0u32;
        let (minor, unit) = loop {
            let reserved = self.reserve(&name, uuid.as_ref(), minor)?;
            match self.kernel.attach(reserved) {
                Ok(unit) => break (reserved, unit),
                // The system may not have let go yet of a device that had this minor: try another.
                Err(Errno::EBUSY) if minor.is_none() && tries < TRIES => {
                    self.forget(reserved);
                    tries = tries.saturating_add(1);
                }
                Err(errno) => {
                    self.forget(reserved);
                    return Err(errno);
                }
            }
        };
        let device = Arc::new(Device::new(minor, unit, read_only));
        let mut devices = self.devices.lock();
        let at = devices.position(minor).ok();
        let Some(entry) = at.and_then(|at| devices.list.get_mut(at)) else {
            panic!("dm: a device that is being made has lost its entry");
        };
        entry.state = EntryState::Live(device.clone());
        drop(devices);
        self.entry_changed.broadcast();
        Ok(FoundDevice { device, name, uuid })
    }

    /// Makes the entry of a device that is to be made, with this minor or any.
    fn reserve(
        &self,
        name: &Name,
        uuid: Option<&Uuid>,
        minor: Option<Minor>,
    ) -> Result<Minor, Errno> {
        let mut devices = self.devices.lock();
        devices.check_free(name, uuid, None)?;
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
        let (name, uuid) = (name.clone(), uuid.cloned());
        let entry = Entry { minor, name, uuid, state: EntryState::Attaching };
        devices.list.insert(at, entry);
        Ok(minor)
    }

    /// Removes the entry of a device that is gone or has not come: its minor and names are free.
    /// Context: a thread; takes `devices`.
    pub(super) fn forget(&self, minor: Minor) {
        let mut devices = self.devices.lock();
        if let Ok(at) = devices.position(minor) {
            devices.list.remove(at);
        }
        drop(devices);
        self.entry_changed.broadcast();
    }

    /// Gives a device another name, which is an event of it.
    ///
    /// # Errors
    /// EEXIST if another device has it, ENXIO if the device is gone.
    pub fn rename(&self, device: &Device<K>, name: Name) -> Result<(), Errno> {
        let mut devices = self.devices.lock();
        devices.check_free(&name, None, Some(device.minor))?;
        let entry = devices.entry_of(device)?;
        let changed = entry.name != name;
        entry.name = name;
        drop(devices);
        if changed {
            device.renamed();
        }
        Ok(())
    }

    /// Gives a device its first uuid, which is an event of it.
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
        let changed = entry.uuid.is_none();
        entry.uuid = Some(uuid);
        drop(devices);
        if changed {
            device.renamed();
        }
        Ok(())
    }
}

impl<K: Kernel> Devices<K> {
    /// The place of a minor's entry in the list, or the one where it would stand.
    pub(super) fn position(&self, minor: Minor) -> Result<usize, usize> {
        self.list.binary_search_by_key(&minor, |e| e.minor)
    }

    /// The entry of a device that can be found.
    ///
    /// # Errors
    /// ENXIO if the device is being removed, or is gone: its minor may be another's by now.
    pub(super) fn entry_of(&mut self, device: &Device<K>) -> Result<&mut Entry<K>, Errno> {
        let at = self.position(device.minor).map_err(|_| Errno::ENXIO)?;
        let entry = self.list.get_mut(at).ok_or(Errno::ENXIO)?;
        let same = entry.device().is_some_and(|d| core::ptr::eq(Arc::as_ptr(d), device));
        same.then_some(entry).ok_or(Errno::ENXIO)
    }

    /// Checks that no device but `except` has this name or uuid.
    ///
    /// # Errors
    /// EEXIST.
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
