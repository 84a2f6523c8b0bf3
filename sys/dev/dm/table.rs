// SPDX-License-Identifier: BSD-2-Clause

//! Tables: which target answers for which sectors. Checked once, when they are built; after that
//! they never change.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::{Any, TypeId};
use core::fmt;

use crate::aes::Aes;
use crate::device::Purse;
use crate::executor::{Executor, Serving};
use crate::hash::Hash;
use crate::job::Op;
use crate::label::Guard;
use crate::refusal::Shown;
use crate::shared::AnyShared;
use crate::target::{ComponentIndex, Devs, IoRange, Made, Mapping, Target, TargetType, Words};
use crate::targets::linear::{self, Linear};
use crate::units::{DEV_BSIZE, Dev, Sector};
use crate::worker::Lanes;
use crate::{Errno, limits, targets};

#[cfg(test)]
mod tests;

/// A block device that a table maps to, opened.
pub trait Component {
    /// The component's device number.
    fn dev(&self) -> Dev;
    /// The component's size.
    fn size(&self) -> Sector;
    /// Bytes in the smallest I/O that the component takes: a power of two, at least [`DEV_BSIZE`].
    fn sector_size(&self) -> u32;
    /// `true` if the component takes writes.
    fn writable(&self) -> bool;
    /// The component's sectors that hold its disk's label and boot code, if it carries a label.
    fn guard(&self) -> Option<Guard>;
}

/// The way to components and to the kernel's means for a table that is being built.
pub trait Opener {
    /// An opened component.
    type Component: Component;

    /// Opens the block device that `path`, a path or `major:minor`, names, for writing if it takes writes.
    ///
    /// # Errors
    /// ENOENT, ENOTBLK, EBUSY, or whatever the device's driver says.
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
    fn shared(&self, _dev: Dev, _kind: TypeId, make: &mut dyn FnMut() -> AnyShared) -> AnyShared {
        make()
    }

    /// The kernel's AES, if it has one. The default has none.
    fn aes(&self) -> Option<&'static dyn Aes> {
        None
    }

    /// The number of CPUs. The default has one.
    fn cpus(&self) -> usize {
        1
    }

    /// The account of the memory that a target takes while its table is there. The default has one of its own.
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

/// A clock that counts seconds, for targets that change with time. It may be read from anywhere.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u32 + Send + Sync>);

impl Clock {
    /// A clock that reads as `seconds` says.
    pub fn new(seconds: impl Fn() -> u32 + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(seconds))
    }

    /// Seconds since some moment; they wrap around.
    pub fn seconds(&self) -> u32 {
        (self.0)()
    }
}

/// A mistake in a line of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// The error that userland gets.
    pub errno: Errno,
    /// The kind of mistake, in words.
    pub why: &'static str,
    /// The names and numbers that it is about, in words; empty if there are none.
    pub about: String,
}

impl Mistake {
    /// A mistake without names or numbers.
    pub const fn new(errno: Errno, why: &'static str) -> Mistake {
        Mistake { errno, why, about: String::new() }
    }

    /// Adds the names and numbers that the mistake is about.
    pub fn about(mut self, what: fmt::Arguments<'_>) -> Mistake {
        self.about = alloc::format!("{what}");
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.about.as_str() {
            "" => f.write_str(self.why),
            about => write!(f, "{}: {about}", self.why),
        }
    }
}

/// A mistake in a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableError {
    /// The line, counted from 0 in the order that they came, if it is one line's fault.
    pub line: Option<usize>,
    /// The mistake.
    pub mistake: Mistake,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {}: {}", line.saturating_add(1), self.mistake),
            None => self.mistake.fmt(f),
        }
    }
}

/// A line as it is being made into a target: what [`TargetType::new`](crate::target::TargetType::new) works with.
pub struct LineSpec<'a> {
    /// The number of sectors that the line maps; never 0.
    pub length: Sector,
    /// The line's parameters.
    pub params: Words<'a>,
    components: &'a mut dyn AddComponent,
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

    /// The purse, for targets that take more memory while their table is there: as [`LineSpec::reserve`] does,
    /// of what the tables of all devices may take.
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

    /// Has the device's sectors be at least this large, in bytes: a power of two, as those of a component.
    pub fn needs_sectors_of(&mut self, bytes: u32) {
        self.components.needs_sectors_of(bytes);
    }

    /// Opens the component that `path` names, and checks that sectors `offset` to `offset +
    /// length` lie on it and on its sectors' borders.
    ///
    /// # Errors
    /// EINVAL when they do not, EROFS for one that takes no writes unless the table takes none, else why it
    /// could not be opened.
    pub fn component(
        &mut self,
        path: &str,
        offset: Sector,
        length: Sector,
    ) -> Result<ComponentIndex, Mistake> {
        self.open(path, true, offset, length)
    }

    /// Opens, as [`LineSpec::component`] does, a component that the target only reads: it need not take writes, whatever
    /// the table is.
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
        if offset.checked_add(length).is_none_or(|end| end > size) {
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
    /// line has it. It goes with the last of them.
    pub fn shared<T: Any + Send + Sync>(
        &self,
        component: ComponentIndex,
        make: impl Fn() -> T,
    ) -> Arc<T> {
        let mut made = || -> AnyShared { Arc::new(make()) };
        let state = self.components.shared(component, TypeId::of::<T>(), &mut made);
        // The registry goes by type, so that this does not fail.
        state.downcast().unwrap_or_else(|_| Arc::new(make()))
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
trait AddComponent {
    /// Opens it; `written` if it must take writes where the table does.
    fn add(&mut self, path: &str, written: bool) -> Result<ComponentIndex, Mistake>;
    /// Device number, size, and bytes in a sector.
    fn size(&self, component: ComponentIndex) -> (Dev, Sector, u32);
    fn reserve(&self, bytes: usize) -> Result<(), Errno>;
    fn purse(&self) -> Purse;
    fn clock(&self) -> Clock;
    fn hash(&self, name: &str) -> Option<&'static dyn Hash>;
    fn read_only(&self) -> bool;
    fn aes(&self) -> Option<&'static dyn Aes>;
    fn cpus(&self) -> usize;
    fn needs_sectors_of(&mut self, bytes: u32);
    fn shared(
        &self,
        component: ComponentIndex,
        kind: TypeId,
        make: &mut dyn FnMut() -> AnyShared,
    ) -> AnyShared;
}

struct Components<'k, O: Opener> {
    opener: &'k O,
    by_path: BTreeMap<String, ComponentIndex>,
    opened: Vec<O::Component>,
    /// Bytes of the largest sectors that a target has asked for.
    sector_size: u32,
}

impl<O: Opener> Components<'_, O> {
    fn opened(&mut self, path: &str) -> Result<ComponentIndex, Mistake> {
        if let Some(index) = self.by_path.get(path) {
            return Ok(*index);
        }
        let component = self.opener.open(path).map_err(|errno| {
            let why = match errno {
                Errno::ENOENT => "a component does not exist",
                Errno::ENOTBLK | Errno::ENODEV => "a component is not a block device",
                Errno::EBUSY => "a component is in use by someone else",
                Errno::ELOOP => "the table would map a device to itself",
                _ => "a component could not be opened",
            };
            let (mistake, path) = (Mistake::new(errno, why), Shown(path));
            match why {
                "a component could not be opened" => {
                    mistake.about(format_args!("`{path}` ({errno})"))
                }
                _ => mistake.about(format_args!("`{path}`")),
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
        make: &mut dyn FnMut() -> AnyShared,
    ) -> AnyShared {
        let (dev, ..) = self.size(component);
        self.opener.shared(dev, kind, make)
    }
}

/// The number of bytes that are written to it.
struct Length(usize);

impl fmt::Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.saturating_add(text.len());
        Ok(())
    }
}

/// The sectors from one up to another, which is not among them, for messages.
struct Between(Sector, Sector);

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0, self.1.0.saturating_sub(1));
        match first.0 == last {
            true => write!(f, "sector {first}"),
            false => write!(f, "sectors {first} to {last}"),
        }
    }
}

struct Line {
    end: Sector,
    target: Rule,
    lanes: Option<Arc<dyn Lanes>>,
}

/// A line's target. Most lines of most tables are linear: such a target lies in the table itself,
/// and is not called through a pointer.
enum Rule {
    Linear(Linear),
    Other(Box<dyn Target>),
    Serving(Arc<dyn Target>),
}

impl Rule {
    fn new(
        kind: &'static TargetType,
        line: &mut LineSpec<'_>,
    ) -> Result<(Rule, Option<Arc<dyn Lanes>>), Mistake> {
        match core::ptr::eq(kind, &linear::TYPE) {
            true => Ok((Rule::Linear(Linear::new(line)?), None)),
            false => match (kind.new)(line)? {
                Made::Maps(target) => Ok((Rule::Other(target), None)),
                Made::Serves(target, lanes) => Ok((Rule::Serving(target), Some(lanes))),
            },
        }
    }

    fn target(&self) -> &dyn Target {
        match self {
            Rule::Linear(linear) => linear,
            Rule::Other(target) => target.as_ref(),
            Rule::Serving(target) => target.as_ref(),
        }
    }

    #[inline]
    fn map(&self, start: Sector, length: Sector, op: Op) -> Mapping {
        match self {
            Rule::Linear(linear) => linear.map(&IoRange { start, length, op }),
            Rule::Other(target) => target.map(&IoRange { start, length, op }),
            Rule::Serving(target) => target.map(&IoRange { start, length, op }),
        }
    }
}

/// Takes lines, in any order, and makes a table of them.
pub struct Builder<'k, O: Opener> {
    components: Components<'k, O>,
    /// By start, and among those by the order they came in. A tree, because sorting takes more
    /// stack than a kernel has to spare.
    lines: BTreeMap<(Sector, usize), Line>,
    given: usize,
    types: &'static [&'static TargetType],
}

impl<'k, O: Opener> Builder<'k, O> {
    /// An empty one, whose components `opener` opens.
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
        let (target, lanes) = Rule::new(kind, &mut line)?;
        self.lines.insert((start, number), Line { end, target, lanes });
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
                    format_args!("{}", Between(end, *start)),
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

/// An immutable table. Its lines cover sectors 0 to [`Table::size`] without a gap.
pub struct Table<C> {
    /// Where targets of the table serve I/O themselves. The first to be dropped: its threads use
    /// the components.
    engine: Engine,
    /// The lines whose targets do, in order.
    serving: Box<[Serving]>,
    /// Where each line ends; it starts where the one before ends.
    ends: Box<[Sector]>,
    /// Where the last one ends.
    size: Sector,
    /// The target of each line.
    targets: Box<[Rule]>,
    components: Box<[C]>,
    devs: Box<[Dev]>,
    sector_size: u32,
    /// The sectors that show a component's label, in order.
    guards: Box<[Sector]>,
}

/// A table's engine. Dropping it ends the engine's threads, and sleeps for them.
struct Engine(Option<Arc<Executor>>);

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(engine) = &self.0 {
            engine.end();
        }
    }
}

/// A [`Mapping`] with the component itself: the place of the first sectors of an I/O.
pub enum Piece<'t, C> {
    /// Send them to a component.
    Send(&'t C, Sector, Sector),
    /// Send them to a component, and tell the target when it is over: [`Table::untrack`].
    Track(&'t C, Sector, Sector),
    /// Zero them, or drop the write.
    Zero(Sector),
    /// Fail them.
    Fail(Sector, Errno),
    /// Make a job of them.
    Take(Sector, Taken),
}

/// A stretch of I/O that a line's target serves itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// The line, counted from 0 in the order of the table.
    pub line: usize,
    /// The queue that it named.
    pub queue: usize,
    /// The first sector, counted from the line's start.
    pub start: Sector,
}

impl<C> Piece<'_, C> {
    /// The number of sectors that the piece has.
    pub fn length(&self) -> Sector {
        match *self {
            Piece::Send(_, _, length)
            | Piece::Track(_, _, length)
            | Piece::Zero(length)
            | Piece::Fail(length, _)
            | Piece::Take(length, _) => length,
        }
    }
}

impl<C> Table<C> {
    /// The device's size under this table.
    pub fn size(&self) -> Sector {
        self.size
    }

    /// Bytes in the device's sectors: as large as the largest of its components', or as a target asks for.
    pub fn sector_size(&self) -> u32 {
        self.sector_size
    }

    /// `true` if `bytes` bytes from `start` on are whole sectors of the device, at least one byte and at most
    /// `i32::MAX`: a negative b_bcount reads as more.
    #[inline]
    pub fn holds(&self, start: Sector, bytes: u32) -> bool {
        let room = self.size.0.checked_sub(start.0);
        // The low half is enough: a sector has at most 2^31 bytes.
        let borders = (start.0 as u32).wrapping_mul(DEV_BSIZE) | bytes;
        bytes.wrapping_sub(1) < i32::MAX as u32
            && room.is_some_and(|room| u64::from(bytes / DEV_BSIZE) <= room)
            && borders & self.sector_size.wrapping_sub(1) == 0
    }

    /// The number of lines; at least 1.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// `false`: a table has a line.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The table's components, each once.
    pub fn components(&self) -> &[C] {
        &self.components
    }

    /// The components' device numbers, each once.
    pub fn devs(&self) -> &[Dev] {
        &self.devs
    }

    /// The lines, in order: start, length, target.
    pub fn lines(&self) -> impl Iterator<Item = (Sector, Sector, &dyn Target)> {
        let starts = core::iter::once(&Sector::ZERO).chain(self.ends.iter());
        let lines = starts.zip(self.ends.iter()).zip(self.targets.iter());
        lines.map(|((start, end), target)| {
            (*start, Sector(end.0.saturating_sub(start.0)), target.target())
        })
    }

    /// The line that holds `sector`, counted from 0; as many as there are if none does.
    #[inline]
    fn find(&self, sector: Sector) -> usize {
        self.ends.partition_point(|end| *end <= sector)
    }

    /// The target that holds `sector`, if the device is that large.
    pub fn target(&self, sector: Sector) -> Option<&dyn Target> {
        self.targets.get(self.find(sector)).map(Rule::target)
    }

    /// Maps the first of `length` sectors from `start` on; `None` past the end.
    #[inline(always)]
    pub fn map(&self, start: Sector, length: Sector, op: Op) -> Option<Piece<'_, C>> {
        let (index, within, length) = self.within(start, length)?;
        let mapping = self.targets.get(index)?.map(within, length, op);
        Some(self.piece(mapping, index, within))
    }

    /// Maps the first of `length` sectors from `start` on whose I/O has failed where
    /// [`Table::map`] had it sent; `None` if their target has nothing else to try.
    #[cold]
    pub fn map_failed(&self, start: Sector, length: Sector, op: Op) -> Option<Piece<'_, C>> {
        let (index, within, length) = self.within(start, length)?;
        let io = IoRange { start: within, length, op };
        let mapping = self.targets.get(index)?.target().map_failed(&io)?;
        Some(self.piece(mapping, index, within))
    }

    /// Tells the target of `length` sectors from `start` on, all in its line, that their read is over, which
    /// [`Table::map`] had tracked. The answer is the read's result.
    ///
    /// # Errors
    /// The target's: those of `result`, or its own.
    pub fn untrack(
        &self,
        start: Sector,
        length: Sector,
        result: Result<(), Errno>,
    ) -> Result<(), Errno> {
        let Some((index, start, length)) = self.within(start, length) else { return result };
        let Some(rule) = self.targets.get(index) else { return result };
        rule.target().untrack(&IoRange { start, length, op: Op::Read }, result)
    }

    /// The number of the line that holds `start`, `start` counted from the line's first sector, and as many of
    /// `length` sectors as the line has.
    #[inline(always)]
    fn within(&self, start: Sector, length: Sector) -> Option<(usize, Sector, Sector)> {
        let index = self.find(start);
        let end = self.ends.get(index)?;
        let line = index.checked_sub(1).and_then(|i| self.ends.get(i));
        // Neither can wrap: the line holds `start`.
        let within = Sector(start.0.wrapping_sub(line.map_or(0, |line| line.0)));
        Some((index, within, Sector(length.0.min(end.0.wrapping_sub(start.0)))))
    }

    /// The component of a mapping in place of its index, and the line of a job.
    #[inline(always)]
    fn piece(&self, mapping: Mapping, index: usize, within: Sector) -> Piece<'_, C> {
        match mapping {
            Mapping::Send { component, start, length } => {
                match self.components.get(component.0 as usize) {
                    Some(component) => Piece::Send(component, start, length),
                    None => Piece::Fail(length, Errno::EIO),
                }
            }
            Mapping::Track { component, start, length } => {
                match self.components.get(component.0 as usize) {
                    Some(component) => Piece::Track(component, start, length),
                    None => Piece::Fail(length, Errno::EIO),
                }
            }
            Mapping::Zero { length } => Piece::Zero(length),
            Mapping::Fail { length, error } => Piece::Fail(length, error),
            Mapping::Take { length, queue } => {
                Piece::Take(length, Taken { line: index, queue, start: within })
            }
        }
    }

    /// Asks every target before a flush.
    ///
    /// # Errors
    /// That of the first target that does not allow it.
    pub fn may_flush(&self) -> Result<(), Errno> {
        self.targets.iter().try_for_each(|target| target.target().may_flush())
    }

    /// The lines whose targets serve I/O themselves.
    pub fn serving(&self) -> &[Serving] {
        &self.serving
    }

    /// The components, by their index, that lines reach whose targets do not serve I/O.
    pub fn reached_by_others(&self) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        for ((_, length, target), rule) in self.lines().zip(&self.targets) {
            if !matches!(rule, Rule::Serving(_)) {
                target.extents(length, &mut |extent| {
                    reached.insert(extent.component.0 as usize);
                });
            }
        }
        reached
    }

    /// Gives the table the engine that runs these lines' lanes. It ends with the table.
    pub fn set_engine(&mut self, engine: Arc<Executor>) {
        self.engine = Engine(Some(engine));
    }

    /// The engine, where targets of the table serve I/O themselves.
    pub fn engine(&self) -> Option<&Arc<Executor>> {
        self.engine.0.as_ref()
    }

    /// `true` if a write of `length` sectors from `start` on would reach a component's label.
    #[inline]
    pub fn hits_label(&self, start: Sector, length: Sector) -> bool {
        !self.guards.is_empty() && self.shows_label(start, length)
    }

    /// Apart, since few tables have any.
    #[cold]
    fn shows_label(&self, start: Sector, length: Sector) -> bool {
        // The first that is not before it.
        let at = self.guards.partition_point(|sector| *sector < start);
        self.guards.get(at).is_some_and(|sector| sector.0 < start.0.saturating_add(length.0))
    }

    /// Prints line `target`'s parameters (`true`) or its state (`false`), without secrets.
    pub fn describe(&self, target: &dyn Target, parameters: bool) -> String {
        self.print(target, parameters, false)
    }

    /// Prints line `target`'s parameters, keys and all: loading them makes the same target. To be wiped
    /// (`dm_sync::wipe_text`).
    pub fn secrets(&self, target: &dyn Target) -> String {
        self.print(target, true, true)
    }

    fn print(&self, target: &dyn Target, parameters: bool, secrets: bool) -> String {
        let devs = Devs { devs: &self.devs, secrets };
        let tell = |out: &mut dyn fmt::Write| match parameters {
            true => target.table(out, &devs),
            false => target.status(out, &devs),
        };
        // Whole at once: a text that grows leaves what it had behind.
        let mut length = Length(0);
        // Neither refuses what is written to it.
        let _ = tell(&mut length);
        let mut text = String::with_capacity(length.0);
        let _ = tell(&mut text);
        text
    }
}

impl<C: Component> Table<C> {
    /// Calls `each` with every range of the table that reaches into the sectors reserved for its
    /// component's label and boot code: the component, the sector there, the first safe one.
    pub fn reserved(&self, each: &mut dyn FnMut(Dev, Sector, Sector)) {
        for (_, length, target) in self.lines() {
            target.extents(length, &mut |extent| {
                let Some(component) = self.components.get(extent.component.0 as usize) else {
                    return;
                };
                if let Some(guard) = component.guard()
                    && extent.start < guard.first_safe
                {
                    each(component.dev(), extent.start, guard.first_safe);
                }
            });
        }
    }

    /// Where on the device the label sectors of its components show, in order.
    fn guarded(&self) -> Box<[Sector]> {
        let label_of = |component: ComponentIndex| {
            let component = self.components.get(component.0 as usize)?;
            component.guard().map(|guard| guard.label)
        };
        let mut guards: Vec<Sector> = Vec::new();
        for (start, length, target) in self.lines() {
            // A component may be in a line many times.
            let mut reached = Vec::new();
            target.extents(length, &mut |extent| {
                let label = label_of(extent.component);
                if label.is_some_and(|label| label.hit(extent.start, extent.length))
                    && !reached.contains(&extent.component)
                {
                    reached.push(extent.component);
                }
            });
            for component in reached {
                let label = label_of(component).into_iter();
                for sector in label.flat_map(|label| label.sectors()) {
                    target.locate(component, sector, length, &mut |at| {
                        let Some(sector) = start.checked_add(at) else { return };
                        // Nearly always the end. Sorting would take much stack.
                        let place = guards.partition_point(|guard| *guard < sector);
                        if guards.get(place) != Some(&sector) {
                            guards.insert(place, sector);
                        }
                    });
                }
            }
        }
        guards.into()
    }
}
