//! The set of devices: their minors, names and uuids; how one is made and found.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::Device;
use super::share::Purse;
use crate::kernel::{Condvar, Kernel, Mutex};
use crate::name::{Name, Uuid};
use crate::pdev::Pdevs;
use crate::shared::Registry;
use crate::units::Minor;
use crate::{Errno, limits};

/// The driver: all devices, and the components that their tables share.
pub struct Driver<K: Kernel> {
    pub(super) kernel: K,
    pub(super) devices: K::Mutex<Devices<K>>,
    /// A device that was being made is there, or has failed to come.
    pub(super) made: K::Condvar,
    pub(super) pdevs: Arc<Pdevs<K>>,
    talk: K::Mutex<Talk>,
    pub(super) purse: Purse,
    pub(super) shared: K::Mutex<Registry>,
}

/// What the console has been told of late.
#[derive(Default)]
struct Talk {
    /// The second that the counts are of.
    second: u32,
    told: u32,
    left_out: u32,
}

pub(super) struct Devices<K: Kernel> {
    /// By minor, ascending.
    pub(super) list: Vec<Entry<K>>,
    /// Where to look for the next minor: they are not reused until all have been used, so that a
    /// tool that remembers one does not meet another device.
    pub(super) next: u32,
    /// Those who wait for events, and how many of them may not change devices.
    pub(super) waiters: usize,
    pub(super) strangers: usize,
}

pub(super) struct Entry<K: Kernel> {
    pub(super) minor: Minor,
    pub(super) name: Name,
    pub(super) uuid: Option<Uuid>,
    /// Empty while the device is being made or taken away: its name and minor are taken then, but
    /// nobody can find it.
    pub(super) device: Option<Arc<Device<K>>>,
    /// Of a device that is empty: it is being taken away.
    pub(super) going: bool,
    /// Of one that is being taken away: nothing of it is left but its name and minor.
    pub(super) empty: bool,
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

/// Minors that are tried for a device that may have any, after one that the system has not let go yet.
const TRIES: u32 = 16;

impl<K: Kernel> Driver<K> {
    /// A driver without devices.
    pub fn new(kernel: K) -> Self {
        let devices = Devices { list: Vec::new(), next: 1, waiters: 0, strangers: 0 };
        let (devices, made) = (K::Mutex::new(devices), K::Condvar::new(c"dmmade"));
        let talk = K::Mutex::new(Talk::default());
        let (pdevs, purse) = (Pdevs::new(), Purse::default());
        let shared = K::Mutex::new(Registry::default());
        Driver { kernel, devices, made, pdevs, talk, purse, shared }
    }

    /// Tells the console, unless it has been told a lot in this second: whoever loads tables in a
    /// loop shall not drown what others have to say.
    pub(crate) fn say(&self, what: fmt::Arguments<'_>) {
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
        let mut tries = 0u32;
        let (minor, unit) = loop {
            let reserved = self.reserve(&name, uuid.as_ref(), minor)?;
            match self.kernel.attach(reserved) {
                Ok(unit) => break (reserved, unit),
                // The system may not be done yet with a device that had this minor. Another does.
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
        if let Ok(at) = devices.position(minor)
            && let Some(entry) = devices.list.get_mut(at)
        {
            entry.device = Some(device.clone());
        }
        drop(devices);
        self.made.broadcast();
        Ok(Found { device, name, uuid })
    }

    /// Takes a minor, this one or any, and the names for a device that is to be made.
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
        let entry = Entry { minor, name, uuid, device: None, going: false, empty: false };
        devices.list.insert(at, entry);
        Ok(minor)
    }

    pub(super) fn forget(&self, minor: Minor) {
        let mut devices = self.devices.lock();
        if let Ok(at) = devices.position(minor) {
            devices.list.remove(at);
        }
        drop(devices);
        self.made.broadcast();
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
    pub(super) fn position(&self, minor: Minor) -> Result<usize, usize> {
        self.list.binary_search_by_key(&minor, |e| e.minor)
    }

    /// The entry of a device; its minor may be another's by now.
    pub(super) fn entry_of(&mut self, device: &Device<K>) -> Result<&mut Entry<K>, Errno> {
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
