// SPDX-License-Identifier: BSD-2-Clause

//! A line that is being made into a target, and the requests that the target may make meanwhile.

use alloc::sync::Arc;
use core::any::{Any, TypeId};

use super::{ComponentIndex, Words};
use crate::Errno;
use crate::aes::Aes;
use crate::clock::Clock;
use crate::hash::Hash;
use crate::mistake::Mistake;
use crate::purse::Purse;
use crate::refusal::Shown;
use crate::shared::{AnyShared, Choose};
use crate::units::{Dev, Sector, SectorRange};

/// A line as it is being made into a target: what
/// [`TargetType::new`](crate::target::TargetType::new) works with.
pub struct LineSpec<'a> {
    /// The number of sectors that the line maps; never 0.
    pub length: Sector,
    /// The line's parameters.
    pub params: Words<'a>,
    pub(crate) components: &'a mut dyn AddComponent,
}

impl LineSpec<'_> {
    /// Size of a component that was opened.
    pub fn size(&self, component: ComponentIndex) -> Sector {
        self.components.size(component).1
    }

    /// Bytes in a sector of a component that was opened.
    pub fn sector_size(&self, component: ComponentIndex) -> u32 {
        self.components.size(component).2
    }

    /// Counts `bytes` that the target will keep beside its parameters. To be called before they
    /// are allocated.
    ///
    /// # Errors
    /// ENOMEM if the tables of all devices take too much already.
    pub fn reserve(&self, bytes: usize) -> Result<(), Mistake> {
        let why = "all tables together are too large";
        self.components.reserve(bytes).map_err(|errno| Mistake::new(errno, why))
    }

    /// The purse, for targets that take more memory while their table is there: of the memory that
    /// all tables share, as [`LineSpec::reserve`].
    pub fn purse(&self) -> Purse {
        self.components.purse()
    }

    /// The device number of a component that was opened.
    pub fn dev(&self, component: ComponentIndex) -> Dev {
        self.components.size(component).0
    }

    /// The clock, for targets that change with time.
    pub fn clock(&self) -> Clock {
        self.components.clock()
    }

    /// The kernel's hash function of this name, if it has one.
    pub fn hash(&self, name: &str) -> Option<&'static dyn Hash> {
        self.components.hash(name)
    }

    /// `true` if the table takes no writes: it is loaded as a read-only one.
    pub fn is_read_only(&self) -> bool {
        self.components.read_only()
    }

    /// The kernel's AES, if it has one.
    pub fn aes(&self) -> Option<&'static dyn Aes> {
        self.components.aes()
    }

    /// The number of CPUs.
    pub fn cpus(&self) -> usize {
        self.components.cpus()
    }

    /// Asks for sectors of the device that have at least so many bytes: a power of two, as those of
    /// a component.
    pub fn needs_sectors_of(&mut self, bytes: u32) {
        self.components.needs_sectors_of(bytes);
    }

    /// Opens the component that `path` names, and checks that sectors `offset` to `offset +
    /// length` lie on it and on its sectors' borders.
    ///
    /// # Errors
    /// EINVAL when they do not, EROFS for one that takes no writes unless the table takes none,
    /// else why it could not be opened.
    pub fn component(
        &mut self,
        path: &str,
        offset: Sector,
        length: Sector,
    ) -> Result<ComponentIndex, Mistake> {
        self.open(path, true, offset, length)
    }

    /// Opens, as [`LineSpec::component`] does, a component that the target only reads: it need not
    /// take writes, whatever the table is.
    ///
    /// # Errors
    /// Those of [`LineSpec::component`], without EROFS.
    pub fn only_read(
        &mut self,
        path: &str,
        offset: Sector,
        length: Sector,
    ) -> Result<ComponentIndex, Mistake> {
        self.open(path, false, offset, length)
    }

    fn open(
        &mut self,
        path: &str,
        written: bool,
        offset: Sector,
        length: Sector,
    ) -> Result<ComponentIndex, Mistake> {
        let index = self.components.add(path, written)?;
        let (_, size, _) = self.components.size(index);
        if SectorRange::new(offset, length).is_none_or(|range| range.end() > size) {
            let last = u128::from(offset.0).saturating_add(length.0.into()).saturating_sub(1);
            return Err(Mistake::new(Errno::EINVAL, "the range ends beyond its component").about(
                format_args!("sectors {offset} to {last} of `{}`, which has {size}", Shown(path)),
            ));
        }
        self.aligned(index, offset)?;
        self.aligned(index, length)?;
        Ok(index)
    }

    /// The state of type `T` that all lines share which use this component, made by `make` if no
    /// line has it, or if it does not fit any more: lines that have it keep it then. It goes with
    /// the last of them. `fits` is called with an adaptive lock held.
    ///
    /// # Panics
    /// The registry, which goes by type, has one of another type.
    pub fn shared<T: Any + Send + Sync>(
        &self,
        component: ComponentIndex,
        fits: impl Fn(&T) -> bool,
        make: impl Fn() -> T,
    ) -> Arc<T> {
        let mut choose = |known: Option<AnyShared>| -> AnyShared {
            let known = known.filter(|known| known.downcast_ref::<T>().is_none_or(&fits));
            known.unwrap_or_else(|| Arc::new(make()))
        };
        let state = self.components.shared(component, TypeId::of::<T>(), &mut choose);
        // A state of its own in its place would be that of no other line.
        state.downcast().unwrap_or_else(|_| panic!("dm: shared state of another type"))
    }

    /// The number of a component's opening:
    /// [`Component::opening`](crate::table::Component::opening).
    pub(crate) fn opening(&self, component: ComponentIndex) -> usize {
        self.components.opening(component)
    }

    /// Checks that `n` sectors are whole sectors of the component.
    ///
    /// # Errors
    /// EINVAL when they are not.
    pub fn aligned(&self, component: ComponentIndex, n: Sector) -> Result<(), Mistake> {
        let (dev, _, sector_size) = self.components.size(component);
        if n.is_aligned(sector_size) {
            return Ok(());
        }
        Err(Mistake::new(Errno::EINVAL, "the range cuts a sector of its component in two").about(
            format_args!(
                "{n} sectors are not whole sectors of {dev}, which have {sector_size} bytes"
            ),
        ))
    }
}

/// The components of a table that is being built, without their type.
pub(crate) trait AddComponent {
    /// Opens the component that `path` names; `written` if it must take writes where the table
    /// does.
    fn add(&mut self, path: &str, written: bool) -> Result<ComponentIndex, Mistake>;
    /// Device number, size, and bytes in a sector.
    fn size(&self, component: ComponentIndex) -> (Dev, Sector, u32);
    /// [`Component::opening`](crate::table::Component::opening).
    fn opening(&self, component: ComponentIndex) -> usize;
    fn reserve(&self, bytes: usize) -> Result<(), Errno>;
    fn purse(&self) -> Purse;
    fn clock(&self) -> Clock;
    fn hash(&self, name: &str) -> Option<&'static dyn Hash>;
    fn read_only(&self) -> bool;
    fn aes(&self) -> Option<&'static dyn Aes>;
    fn cpus(&self) -> usize;
    fn needs_sectors_of(&mut self, bytes: u32);
    fn shared(&self, component: ComponentIndex, kind: TypeId, choose: &mut Choose<'_>)
    -> AnyShared;
}
