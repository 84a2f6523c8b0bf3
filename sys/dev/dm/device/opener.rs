// SPDX-License-Identifier: BSD-2-Clause

//! The components of a table that is being loaded: found by path or number, opened, and seen as
//! they will be when the devices below are resumed.

use core::any::TypeId;
use core::cell::RefCell;

use super::{Driver, Selector};
use crate::Errno;
use crate::aes::Aes;
use crate::clock::Clock;
use crate::hash::Hash;
use crate::kernel::{Kernel, Mutex};
#[cfg(doc)]
use crate::limits;
use crate::pdev::Pdev;
use crate::purse::{Purse, Share};
use crate::shared::{AnyShared, Choose};
use crate::table::{Component, Opener};
use crate::units::{Dev, Minor, Sector};

impl<K: Kernel> Driver<K> {
    /// Size, bytes in a sector, and READONLY of a device of ours by the table that is to be its
    /// first: lvm(8) loads tables for several devices and resumes them when all are loaded. `None`
    /// if there is no such table.
    fn to_come(&self, dev: Dev) -> Option<(Sector, u32, bool)> {
        let found = self.find(&Selector::Minor(Minor::new(u64::from(dev.minor()))?))?;
        let state = found.device.state.lock();
        // The active one, if the device was resumed in the meantime: it is the same table.
        let loaded = state.active.as_ref().or(state.to_come())?;
        Some((loaded.table.size(), loaded.table.sector_size(), loaded.read_only))
    }

    /// `true` for a device of ours that has an inactive table which takes writes: lvm(8) makes a
    /// volume writable by tables for it and for what lies below it, which it resumes when both are
    /// loaded.
    fn will_take_writes(&self, dev: Dev) -> bool {
        let minor = Minor::new(u64::from(dev.minor()));
        let found = minor.and_then(|minor| self.find(&Selector::Minor(minor)));
        found.is_some_and(|found| {
            let state = found.device.state.lock();
            state.to_come().is_some_and(|loaded| !loaded.read_only)
        })
    }
}

/// Opens the components of a table that is meant for one device.
pub(super) struct TableOpener<'d, K: Kernel> {
    /// The driver.
    pub(super) driver: &'d Driver<K>,
    /// The device's minor.
    pub(super) minor: Minor,
    /// `true` if the table takes no writes.
    pub(super) read_only: bool,
    /// The memory that the table takes of [`limits::ALL_TABLES`]; what its targets keep is added.
    pub(super) share: &'d RefCell<Option<Share>>,
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
        let mut pdev = self.driver.pdevs.open(kernel, dev)?;
        if dev.major() == kernel.block_major() {
            if pdev.size() == Sector::ZERO {
                let (size, sector_size, read_only) =
                    self.driver.to_come(dev).ok_or(Errno::EINVAL)?;
                pdev.will_be(size, sector_size, read_only);
            } else if !pdev.writable() && self.driver.will_take_writes(dev) {
                pdev.will_take_writes();
            }
        }
        Ok(pdev)
    }

    fn reserve(&self, bytes: usize) -> Result<(), Errno> {
        let share = self.driver.purse.take(bytes)?;
        match &mut *self.share.borrow_mut() {
            Some(all) => all.join(share),
            none => *none = Some(share),
        }
        Ok(())
    }

    fn aes(&self) -> Option<&'static dyn Aes> {
        self.driver.kernel.aes()
    }

    fn cpus(&self) -> usize {
        self.driver.kernel.cpus()
    }

    fn purse(&self) -> Purse {
        self.driver.purse.clone()
    }

    fn clock(&self) -> Clock {
        self.driver.kernel.clock()
    }

    fn hash(&self, name: &str) -> Option<&'static dyn Hash> {
        self.driver.kernel.hash(name)
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn shared(&self, dev: Dev, kind: TypeId, choose: &mut Choose<'_>) -> AnyShared {
        self.driver.shared.lock().get(dev, kind, choose)
    }
}

/// The device number that `major:minor` means; `None` if `path` is not of that form.
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
