// SPDX-License-Identifier: BSD-2-Clause

//! Building a table: its components are opened and its lines are made into targets, one by one,
//! then all of them are checked together.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::TypeId;
use core::fmt;

use super::{Component, Engine, LineTarget, Opener, Table};
use crate::aes::Aes;
use crate::clock::Clock;
use crate::hash::Hash;
use crate::mistake::{Mistake, TableError};
use crate::purse::Purse;
use crate::refusal::Shown;
use crate::shared::{AnyShared, Choose};
use crate::target::{AddComponent, ComponentIndex, LineSpec, Made, TargetType, Words};
use crate::targets::linear::{self, Linear};
use crate::units::{DEV_BSIZE, Dev, Sector, SectorRange};
use crate::worker::Lanes;
use crate::{Errno, limits, targets};

/// Builds a table from lines that come in any order.
pub struct Builder<'k, O: Opener> {
    components: Components<'k, O>,
    /// The lines, by start and number in the order that they came. A tree, because sorting takes
    /// more stack than a kernel has to spare.
    lines: BTreeMap<(Sector, usize), BuiltLine>,
    /// The number of lines that were given, the wrong ones among them.
    given: usize,
    /// The types of target that a line may name.
    types: &'static [&'static TargetType],
}

impl<'k, O: Opener> Builder<'k, O> {
    /// A builder without lines, whose components `opener` opens.
    pub fn new(opener: &'k O) -> Self {
        Builder::with_types(opener, targets::TARGETS)
    }

    /// A builder of a table with targets of these kinds only.
    pub fn with_types(opener: &'k O, types: &'static [&'static TargetType]) -> Self {
        let (by_path, opened) = (BTreeMap::new(), Vec::new());
        let components = Components { opener, by_path, opened, sector_size: DEV_BSIZE };
        Builder { components, lines: BTreeMap::new(), given: 0, types }
    }

    /// Adds a line: `length` sectors from `start` are for a target of this kind.
    ///
    /// # Errors
    /// The line's own mistake; more lines may still be added, to find more
    /// mistakes, but a table must not be made of the rest.
    #[inline(never)]
    pub fn line(
        &mut self,
        start: u64,
        length: u64,
        kind: &str,
        params: &str,
    ) -> Result<(), TableError> {
        let number = self.given;
        self.given = number.saturating_add(1);
        self.add(number, start, length, kind, params)
            .map_err(|mistake| TableError { line: Some(number), mistake })
    }

    fn add(
        &mut self,
        number: usize,
        start: u64,
        length: u64,
        kind: &str,
        params: &str,
    ) -> Result<(), Mistake> {
        let invalid = |why| Mistake::new(Errno::EINVAL, why);
        if number >= limits::LINES {
            let most = format_args!("a table has {} at most", limits::LINES);
            return Err(Mistake::new(Errno::E2BIG, "too many lines").about(most));
        }
        if params.len() > limits::PARAMS {
            return Err(Mistake::new(Errno::ENAMETOOLONG, "the parameters are too long")
                .about(format_args!("{} bytes, of {} at most", params.len(), limits::PARAMS)));
        }
        let (start, length) = (Sector(start), Sector(length));
        if length == Sector::ZERO {
            return Err(invalid("the length is 0"));
        }
        let end = start.checked_add(length).ok_or_else(|| {
            invalid("the line ends beyond any disk").about(format_args!(
                "{length} sectors from sector {start} on; the last that can be is {}",
                Sector::MAX.0.saturating_sub(1)
            ))
        })?;
        let known = self.types.iter().find(|known| known.name == kind);
        let kind = known.ok_or_else(|| {
            Mistake::new(Errno::ENOENT, "no such target type").about(format_args!(
                "`{}`; there are {}",
                Shown::word(kind),
                targets::Names
            ))
        })?;
        let params = Words::new(params);
        let mut line = LineSpec { length, params, components: &mut self.components };
        let (target, lanes) = LineTarget::new(kind, &mut line)?;
        self.lines.insert((start, number), BuiltLine { end, target, lanes });
        Ok(())
    }

    /// Makes the table.
    ///
    /// # Errors
    /// EINVAL when the lines do not cover the device from sector 0 on, without a gap and without
    /// an overlap, or cut in two a sector of the device, whose sectors are as large as the
    /// largest of its components', or as a target asks for.
    #[inline(never)]
    pub fn build(self) -> Result<Table<O::Component>, TableError> {
        let sizes = self.components.opened.iter().map(Component::sector_size);
        let sector_size = sizes.fold(self.components.sector_size, u32::max);
        let mut end = Sector::ZERO;
        for ((start, number), line) in &self.lines {
            let invalid = |why, about: fmt::Arguments<'_>| {
                let mistake = Mistake::new(Errno::EINVAL, why).about(about);
                Err(TableError { line: Some(*number), mistake })
            };
            if *start > end && end == Sector::ZERO {
                return invalid(
                    "the table does not begin at sector 0",
                    format_args!("its first line begins at sector {start}"),
                );
            } else if *start > end {
                return invalid(
                    "there is a gap before the line",
                    format_args!("{}", SectorRange::between(end, *start)),
                );
            } else if *start < end {
                return invalid(
                    "the line overlaps another",
                    format_args!("it begins at sector {start}, and the other ends before {end}"),
                );
            } else if !start.is_aligned(sector_size) || !line.end.is_aligned(sector_size) {
                return invalid(
                    "the line cuts a sector of the device in two",
                    format_args!("sectors {start} to {}, of {sector_size} bytes", line.end),
                );
            }
            end = line.end;
        }
        if self.lines.is_empty() {
            let mistake = Mistake::new(Errno::EINVAL, "the table has no lines");
            return Err(TableError { line: None, mistake });
        }
        let size = end;
        let ends = self.lines.values().map(|line| line.end).collect();
        let lanes = self.lines.values().map(|line| line.lanes.clone()).enumerate();
        let serving = lanes.filter_map(|(at, lanes)| Some((at, lanes?))).collect();
        let targets = self.lines.into_values().map(|line| line.target).collect();
        let components = self.components.opened.into_boxed_slice();
        let devs = components.iter().map(Component::dev).collect();
        let mut table = Table {
            engine: Engine(None),
            serving,
            ends,
            size,
            targets,
            components,
            devs,
            sector_size,
            guards: [].into(),
        };
        table.guards = table.guarded();
        Ok(table)
    }
}

/// A line that has become a target.
struct BuiltLine {
    /// The first sector after the line.
    end: Sector,
    target: LineTarget,
    /// The target's lanes, if it serves I/O.
    lanes: Option<Arc<dyn Lanes>>,
}

impl LineTarget {
    /// The target of a line, and its lanes if it serves I/O.
    fn new(
        kind: &'static TargetType,
        line: &mut LineSpec<'_>,
    ) -> Result<(LineTarget, Option<Arc<dyn Lanes>>), Mistake> {
        match core::ptr::eq(kind, &linear::TYPE) {
            true => Ok((LineTarget::Linear(Linear::new(line)?), None)),
            false => match (kind.new)(line)? {
                Made::Maps(target) => Ok((LineTarget::Other(target), None)),
                Made::Serves(target, lanes) => Ok((LineTarget::Serving(target), Some(lanes))),
            },
        }
    }
}

/// The components of the table that is being built, and the opener that has opened them.
struct Components<'k, O: Opener> {
    opener: &'k O,
    /// The names that lines have used.
    by_path: BTreeMap<String, ComponentIndex>,
    /// Each component once, whatever its names.
    opened: Vec<O::Component>,
    /// Bytes of the largest sectors that a target has asked for.
    sector_size: u32,
}

impl<O: Opener> Components<'_, O> {
    /// The component that `path` names, opened if no line has opened it.
    fn opened(&mut self, path: &str) -> Result<ComponentIndex, Mistake> {
        if let Some(index) = self.by_path.get(path) {
            return Ok(*index);
        }
        let component = self.opener.open(path).map_err(|errno| {
            let why = match errno {
                Errno::ENOENT => Some("a component does not exist"),
                Errno::ENOTBLK | Errno::ENODEV => Some("a component is not a block device"),
                Errno::EBUSY => Some("a component is in use by someone else"),
                Errno::ELOOP => Some("the table would map a device to itself"),
                _ => None,
            };
            let path = Shown(path);
            match why {
                Some(why) => Mistake::new(errno, why).about(format_args!("`{path}`")),
                // The errno tells more than the reason.
                None => Mistake::new(errno, "a component could not be opened")
                    .about(format_args!("`{path}` ({errno})")),
            }
        })?;
        // The same device may go by several names; one entry serves them all.
        let known = self.opened.iter().position(|c| c.dev() == component.dev());
        let index = known.unwrap_or(self.opened.len());
        let too_many = Mistake::new(Errno::E2BIG, "too many components");
        let index = ComponentIndex(u32::try_from(index).map_err(|_| too_many)?);
        if known.is_none() {
            self.opened.push(component);
        }
        self.by_path.insert(path.into(), index);
        Ok(index)
    }
}

impl<O: Opener> AddComponent for Components<'_, O> {
    fn add(&mut self, path: &str, written: bool) -> Result<ComponentIndex, Mistake> {
        let index = self.opened(path)?;
        let takes_none = |component: &O::Component| !component.writable();
        if written
            && !self.opener.read_only()
            && self.opened.get(index.0 as usize).is_some_and(takes_none)
        {
            let why = "a component is read-only, and the table is not";
            return Err(Mistake::new(Errno::EROFS, why).about(format_args!("`{}`", Shown(path))));
        }
        Ok(index)
    }

    fn size(&self, component: ComponentIndex) -> (Dev, Sector, u32) {
        self.opened
            .get(component.0 as usize)
            .map_or((Dev(0), Sector::ZERO, DEV_BSIZE), |c| (c.dev(), c.size(), c.sector_size()))
    }

    fn opening(&self, component: ComponentIndex) -> usize {
        self.opened.get(component.0 as usize).map_or(0, Component::opening)
    }

    fn reserve(&self, bytes: usize) -> Result<(), Errno> {
        self.opener.reserve(bytes)
    }

    fn purse(&self) -> Purse {
        self.opener.purse()
    }

    fn clock(&self) -> Clock {
        self.opener.clock()
    }

    fn hash(&self, name: &str) -> Option<&'static dyn Hash> {
        self.opener.hash(name)
    }

    fn read_only(&self) -> bool {
        self.opener.read_only()
    }

    fn aes(&self) -> Option<&'static dyn Aes> {
        self.opener.aes()
    }

    fn cpus(&self) -> usize {
        self.opener.cpus()
    }

    fn needs_sectors_of(&mut self, bytes: u32) {
        self.sector_size = self.sector_size.max(bytes);
    }

    fn shared(
        &self,
        component: ComponentIndex,
        kind: TypeId,
        choose: &mut Choose<'_>,
    ) -> AnyShared {
        let (dev, ..) = self.size(component);
        self.opener.shared(dev, kind, choose)
    }
}
