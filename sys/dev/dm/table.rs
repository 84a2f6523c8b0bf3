// SPDX-License-Identifier: BSD-2-Clause

//! Tables: the targets that answer for a device's sectors. A table is checked once, when it is
//! built (`build.rs`), and never changes.

mod build;
mod guards;
mod opener;

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use crate::Errno;
use crate::executor::{Executor, Serving};
use crate::job::Op;
use crate::target::{Devs, IoRange, Mapping, Target};
use crate::targets::linear::Linear;
use crate::tracker::Tracker;
use crate::units::{DEV_BSIZE, Dev, Sector, SectorRange};

pub use build::Builder;
pub use opener::{Component, Opener};

#[cfg(test)]
mod tests;

/// An immutable table. Its lines cover sectors 0 to [`Table::size`] without a gap.
///
/// Whichever thread drops the last reference to a table sleeps for it: any command or ioctl that
/// looks at one, a close, a removal. It waits for resident lanes (`dmtable`), for the table's
/// threads (kthread_join(9)), for contexts that are counted in
/// ([`Completions`](crate::host::Completions), `dmpause`), and closes the components. So no
/// reference is dropped with a lock held, by a thread that holds I/O, or in a soft interrupt; I/O
/// in flight refers to the table by its pass of the gate.
pub struct Table<C> {
    /// The engine, if targets of the table serve I/O themselves. Dropped before the other fields:
    /// its threads use the components.
    engine: Engine,
    /// The lines whose targets serve I/O, in order.
    serving: Box<[Serving]>,
    /// The first sector behind each line, which starts where the one before ends.
    ends: Box<[Sector]>,
    /// The device's size: the last of `ends`.
    size: Sector,
    /// The target of each line.
    targets: Box<[LineTarget]>,
    /// The components, each once.
    components: Box<[C]>,
    /// The components' device numbers.
    devs: Box<[Dev]>,
    /// Bytes in the device's sectors.
    sector_size: u32,
    /// The device's sectors that show a component's label, in order.
    guards: Box<[Sector]>,
}

/// A table's engine. It has been stopped by the time it is dropped, which ends its threads, and
/// sleeps for them.
struct Engine(Option<Arc<Executor>>);

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(engine) = &self.0 {
            engine.end();
        }
    }
}

/// A line's target. Most lines of most tables are linear: such a target lies in the table itself,
/// and is not called through a pointer.
enum LineTarget {
    Linear(Linear),
    /// A target that only says where sectors lie.
    Other(Box<dyn Target>),
    /// A target that also serves I/O; its lanes have the other reference.
    Serving(Arc<dyn Target>),
}

impl LineTarget {
    fn target(&self) -> &dyn Target {
        match self {
            LineTarget::Linear(linear) => linear,
            LineTarget::Other(target) => target.as_ref(),
            LineTarget::Serving(target) => target.as_ref(),
        }
    }

    #[inline]
    fn map(&self, range: SectorRange, op: Op) -> Mapping<'_> {
        let SectorRange { start, length } = range;
        match self {
            LineTarget::Linear(linear) => linear.map(&IoRange { start, length, op }),
            LineTarget::Other(target) => target.map(&IoRange { start, length, op }),
            LineTarget::Serving(target) => target.map(&IoRange { start, length, op }),
        }
    }
}

/// A [`Mapping`] with the component itself: the place of the first sectors of an I/O.
pub enum Piece<'t, C> {
    /// Send them to a component.
    Send(&'t C, SectorRange),
    /// Send them to a component. When it is over the tracker counts it out, and if it says so the
    /// target is asked: [`Table::untrack`].
    Track(&'t C, SectorRange, &'t Tracker),
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
            Piece::Send(_, range) | Piece::Track(_, range, _) => range.length,
            Piece::Zero(length) | Piece::Fail(length, _) | Piece::Take(length, _) => length,
        }
    }
}

impl<C> Table<C> {
    /// The device's size under this table.
    pub fn size(&self) -> Sector {
        self.size
    }

    /// Bytes in the device's sectors: as large as the largest of its components', or as a target
    /// asks for.
    pub fn sector_size(&self) -> u32 {
        self.sector_size
    }

    /// `true` if `bytes` bytes from `start` on are whole sectors of the device, at least one byte
    /// and at most `i32::MAX`: a negative b_bcount reads as more.
    #[inline]
    pub fn holds(&self, start: Sector, bytes: u32) -> bool {
        let room = self.size.0.checked_sub(start.0);
        // The low half is enough: a sector has at most 2^31 bytes.
        let borders = (start.0 as u32).wrapping_mul(DEV_BSIZE) | bytes;
        bytes.wrapping_sub(1) < i32::MAX as u32
            && room.is_some_and(|room| u64::from(bytes / DEV_BSIZE) <= room)
            && borders & self.sector_size.wrapping_sub(1) == 0
    }

    /// The range, if it lies on the device.
    pub fn range(&self, start: Sector, length: Sector) -> Option<SectorRange> {
        SectorRange::new(start, length).filter(|range| range.end() <= self.size)
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

    /// The lines, in order: the range of the device, and the target.
    pub fn lines(&self) -> impl Iterator<Item = (SectorRange, &dyn Target)> {
        let starts = core::iter::once(&Sector::ZERO).chain(self.ends.iter());
        let lines = starts.zip(self.ends.iter()).zip(self.targets.iter());
        lines.map(|((start, end), target)| (SectorRange::between(*start, *end), target.target()))
    }

    /// The line that holds `sector`, counted from 0; as many as there are if none does.
    #[inline]
    fn find(&self, sector: Sector) -> usize {
        self.ends.partition_point(|end| *end <= sector)
    }

    /// The target that holds `sector`, if the device is that large.
    pub fn target(&self, sector: Sector) -> Option<&dyn Target> {
        self.targets.get(self.find(sector)).map(LineTarget::target)
    }

    /// `true` if the target that holds `sector` can serve I/O itself. Context: any.
    pub fn is_served(&self, sector: Sector) -> bool {
        matches!(self.targets.get(self.find(sector)), Some(LineTarget::Serving(_)))
    }

    /// The tracker that counts reads from a sector on, if its target has any. Context: thread or
    /// soft interrupt.
    pub fn tracker(&self, start: Sector) -> Option<&Tracker> {
        let sector = SectorRange { start, length: Sector(1) };
        let (index, sector) = self.within(sector)?;
        self.targets.get(index)?.target().tracker(sector.start)
    }

    /// Maps the first sectors of a range; `None` past the end. Context: thread or soft interrupt;
    /// does not sleep.
    #[inline(always)]
    pub fn map(&self, range: SectorRange, op: Op) -> Option<Piece<'_, C>> {
        let (index, within) = self.within(range)?;
        let mapping = self.targets.get(index)?.map(within, op);
        Some(self.piece(mapping, index, within.start))
    }

    /// Maps the first sectors of a range whose I/O has failed where [`Table::map`] sent it; `None`
    /// if their target has nothing else to try. Context: thread or soft interrupt; does not sleep.
    #[cold]
    pub fn map_failed(&self, range: SectorRange, op: Op) -> Option<Piece<'_, C>> {
        let (index, SectorRange { start, length }) = self.within(range)?;
        let io = IoRange { start, length, op };
        let mapping = self.targets.get(index)?.target().map_failed(&io)?;
        Some(self.piece(mapping, index, start))
    }

    /// Asks the target of a range, all in its line, after the read of it, which [`Table::map`] had
    /// tracked. Returns the read's result. Context: thread or soft interrupt, with no lock held;
    /// does not sleep.
    ///
    /// # Errors
    /// The target's: those of `result`, or its own.
    pub fn untrack(&self, range: SectorRange, result: Result<(), Errno>) -> Result<(), Errno> {
        let Some((index, SectorRange { start, length })) = self.within(range) else {
            return result;
        };
        let Some(rule) = self.targets.get(index) else { return result };
        rule.target().untrack(&IoRange { start, length, op: Op::Read }, result)
    }

    /// The number of the line that holds the range's first sector, and as much of the range as the
    /// line has, counted from the line's first sector.
    #[inline(always)]
    fn within(&self, range: SectorRange) -> Option<(usize, SectorRange)> {
        let (start, length) = (range.start, range.length);
        let index = self.find(start);
        let end = self.ends.get(index)?;
        let line = index.checked_sub(1).and_then(|i| self.ends.get(i));
        // Neither can wrap: the line holds `start`.
        let within = Sector(start.0.wrapping_sub(line.map_or(0, |line| line.0)));
        let length = Sector(length.0.min(end.0.wrapping_sub(start.0)));
        Some((index, SectorRange { start: within, length }))
    }

    /// The component of a mapping in place of its index, and the line of a job.
    #[inline(always)]
    fn piece<'t>(&'t self, mapping: Mapping<'t>, index: usize, within: Sector) -> Piece<'t, C> {
        match mapping {
            Mapping::Send { component, start, length } => {
                match self.components.get(component.0 as usize) {
                    Some(component) => Piece::Send(component, SectorRange { start, length }),
                    None => Piece::Fail(length, Errno::EIO),
                }
            }
            Mapping::Track { component, start, length, tracker } => {
                match self.components.get(component.0 as usize) {
                    Some(component) => {
                        Piece::Track(component, SectorRange { start, length }, tracker)
                    }
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
        for ((line, target), rule) in self.lines().zip(&self.targets) {
            if !matches!(rule, LineTarget::Serving(_)) {
                target.extents(line.length, &mut |extent| {
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

    /// Prints line `target`'s parameters (`true`) or its state (`false`), without secrets.
    pub fn describe(&self, target: &dyn Target, parameters: bool) -> String {
        self.print(target, parameters, false)
    }

    /// Prints line `target`'s parameters, keys and all: loading them makes the same target. To be
    /// wiped (`dm_sync::wipe_text`).
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

/// The number of bytes that are written to it.
struct Length(usize);

impl fmt::Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.saturating_add(text.len());
        Ok(())
    }
}
