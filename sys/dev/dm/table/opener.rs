// SPDX-License-Identifier: BSD-2-Clause

//! Components, and the kernel's means to open them, as a [`Builder`](super::Builder) asks for them.

use core::any::TypeId;

use crate::Errno;
use crate::aes::Aes;
use crate::clock::Clock;
use crate::guard::GuardedSectors;
use crate::hash::Hash;
use crate::purse::Purse;
use crate::shared::{AnyShared, Choose};
use crate::units::{Dev, Sector};

/// A block device that a table maps to, opened.
pub trait Component {
    /// The component's device number.
    fn dev(&self) -> Dev;
    /// The component's size.
    fn size(&self) -> Sector;
    /// Bytes in the smallest I/O that the component takes: a power of two, at least
    /// [`DEV_BSIZE`](crate::units::DEV_BSIZE).
    fn sector_size(&self) -> u32;
    /// `true` if the component takes writes.
    fn writable(&self) -> bool;
    /// The component's sectors that hold its disk's label and boot code, if it carries a label.
    fn guard(&self) -> Option<GuardedSectors>;
    /// A number that tells the opening from others of the device, for as long as either has it: a
    /// device that was taken away is opened anew when it is back. The default knows one opening.
    fn opening(&self) -> usize {
        0
    }
}

/// The way to components and to the kernel's means for a table that is being built.
pub trait Opener {
    /// An opened component.
    type Component: Component;

    /// Opens the block device that `path`, a path or `major:minor`, names, for writing if it takes
    /// writes.
    ///
    /// # Errors
    /// ENOENT, ENOTBLK, EBUSY, or those of the device's driver.
    fn open(&self, path: &str) -> Result<Self::Component, Errno>;

    /// Counts `bytes` that a target of the table keeps beside its parameters.
    ///
    /// # Errors
    /// ENOMEM if the tables of all devices take too much already.
    fn reserve(&self, _bytes: usize) -> Result<(), Errno> {
        Ok(())
    }

    /// The state of a type that lines of all tables share for a component: see
    /// [`Registry`](crate::shared::Registry). The default shares nothing.
    fn shared(&self, _dev: Dev, _kind: TypeId, choose: &mut Choose<'_>) -> AnyShared {
        choose(None)
    }

    /// The kernel's AES, if it has one. The default has none.
    fn aes(&self) -> Option<&'static dyn Aes> {
        None
    }

    /// The number of CPUs. The default has one.
    fn cpus(&self) -> usize {
        1
    }

    /// The account of the memory that a target takes while its table is there. The default has one
    /// of its own.
    fn purse(&self) -> Purse {
        Purse::default()
    }

    /// The clock for the table's targets. The default stands still.
    fn clock(&self) -> Clock {
        Clock::new(|| 0)
    }

    /// The hash function of this name. The default has none.
    fn hash(&self, _name: &str) -> Option<&'static dyn Hash> {
        None
    }

    /// `true` if the table takes no writes, whatever its lines say.
    fn read_only(&self) -> bool {
        false
    }
}
