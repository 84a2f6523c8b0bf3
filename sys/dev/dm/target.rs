// SPDX-License-Identifier: BSD-2-Clause

//! Targets: the rules that say where a line's sectors really live.

mod line_spec;
mod words;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use crate::Errno;
use crate::job::Op;
use crate::mistake::Mistake;
use crate::tracker::Tracker;
use crate::units::{Dev, Sector, SectorRange};
use crate::worker::{Lanes, Worker};

pub(crate) use line_spec::AddComponent;
pub use line_spec::LineSpec;
pub use words::Words;

/// A kind of target: its name in tables, and its constructor. [`crate::targets::TARGETS`] lists
/// them all.
pub struct TargetType {
    /// The word in a table, such as `linear`.
    pub name: &'static str,
    /// Major, minor, patch level, as `dmsetup targets` shows them.
    pub version: [u32; 3],
    /// Makes the target of one line. The error is the mistake in the line.
    pub new: fn(&mut LineSpec<'_>) -> Result<Made, Mistake>,
}

/// The target of one line, as [`TargetType::new`] makes it.
pub enum Made {
    /// A target that only says where sectors lie.
    Maps(Box<dyn Target>),
    /// A target that also serves I/O itself.
    Serves(Arc<dyn Target>, Arc<dyn Lanes>),
}

impl Made {
    /// A target that only says where sectors lie.
    pub fn maps(target: impl Target + 'static) -> Made {
        Made::Maps(Box::new(target))
    }

    /// A target that also serves I/O itself: its [`Target::map`] may answer [`Mapping::Take`].
    pub fn serves<T: Worker>(target: T) -> Made {
        let target = Arc::new(target);
        Made::Serves(target.clone(), target)
    }
}

/// The index of a component in its table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ComponentIndex(pub u32);

/// A stretch of I/O that lies within one line.
#[derive(Clone, Copy, Debug)]
pub struct IoRange {
    /// The first sector, counted from the line's start.
    pub start: Sector,
    /// The number of sectors; never 0.
    pub length: Sector,
    /// The kind of I/O: reading, writing or discarding.
    pub op: Op,
}

impl IoRange {
    /// `true` unless the I/O only reads.
    #[inline]
    pub fn is_write(&self) -> bool {
        self.op != Op::Read
    }
}

/// The place of the first sectors of an [`IoRange`]. `length` is at least 1 and at most the
/// range's; the caller maps the rest by another call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mapping<'t> {
    /// The sectors are `length` sectors of a component, from `start` on.
    Send {
        /// The component.
        component: ComponentIndex,
        /// The first sector there.
        start: Sector,
        /// The number of sectors.
        length: Sector,
    },
    /// The sectors are those of a component, as with `Send`. A tracker of the target's has counted
    /// the I/O in, and counts it out when it is over; if the tracker says so, the target is asked
    /// then, with [`Target::untrack`]. Reads only.
    Track {
        /// The component.
        component: ComponentIndex,
        /// The first sector there.
        start: Sector,
        /// The number of sectors.
        length: Sector,
        /// The count, which is that of [`Target::tracker`] for these sectors.
        tracker: &'t Tracker,
    },
    /// The sectors read as zeroes, and a write of them is dropped.
    Zero {
        /// The number of sectors.
        length: Sector,
    },
    /// I/O of the sectors fails.
    Fail {
        /// The number of sectors.
        length: Sector,
        /// The error.
        error: Errno,
    },
    /// The target serves the sectors itself, as one job: see [`Worker`].
    Take {
        /// The number of sectors.
        length: Sector,
        /// The queue that the job waits in, as [`Needs::queues`](crate::worker::Needs::queues)
        /// counts them.
        queue: usize,
    },
}

impl Mapping<'_> {
    /// The number of sectors that are mapped.
    pub fn length(&self) -> Sector {
        match *self {
            Mapping::Send { length, .. }
            | Mapping::Track { length, .. }
            | Mapping::Zero { length }
            | Mapping::Fail { length, .. }
            | Mapping::Take { length, .. } => length,
        }
    }
}

/// A stretch of a component that a target reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The component.
    pub component: ComponentIndex,
    /// The first sector there.
    pub start: Sector,
    /// The number of sectors.
    pub length: Sector,
}

impl Extent {
    /// The extent's sectors there.
    pub fn range(&self) -> SectorRange {
        SectorRange { start: self.start, length: self.length }
    }
}

/// The rule of one line. [`Target::map`], [`Target::map_failed`], [`Target::tracker`] and
/// [`Target::untrack`] are called on many CPUs at once, by threads and soft interrupts: they do not
/// sleep or allocate, and take no lock but, for a few instructions, a [`Spin`](dm_sync::Spin). All
/// other methods are called by threads with no lock held.
pub trait Target: Send + Sync {
    /// The target's type.
    fn kind(&self) -> &'static TargetType;

    /// Maps the first sectors of `io`.
    fn map(&self, io: &IoRange) -> Mapping<'_>;

    /// Maps a read that [`Target::map`] had sent and that has failed, to retry it: `None` if the
    /// failure is to stand, else most often [`Mapping::Take`]. Asked once for an I/O, with the
    /// parts of it that lie in the line, those that have not failed among them. Context: thread or
    /// soft interrupt (the read's completion).
    fn map_failed(&self, _io: &IoRange) -> Option<Mapping<'_>> {
        None
    }

    /// The tracker that counts reads from this sector of the line on, where [`Mapping::Track`] may
    /// be the answer.
    fn tracker(&self, _start: Sector) -> Option<&Tracker> {
        None
    }

    /// Ends what [`Mapping::Track`] has begun, where [`Tracker::end`] has answered `true`: the read
    /// of these sectors is over, or was not sent for lack of memory and will be mapped once more.
    /// Called from anywhere, soft interrupts included: must not sleep. Returns the read's result.
    fn untrack(&self, _io: &IoRange, result: Result<(), Errno>) -> Result<(), Errno> {
        result
    }

    /// Writes its parameters as `table` shows them; loading them makes the same target again.
    ///
    /// # Errors
    /// Only those of `out`.
    fn table(&self, _out: &mut dyn fmt::Write, _devs: &Devs<'_>) -> fmt::Result {
        Ok(())
    }

    /// Writes its state as `status` shows it.
    ///
    /// # Errors
    /// Only those of `out`.
    fn status(&self, _out: &mut dyn fmt::Write, _devs: &Devs<'_>) -> fmt::Result {
        Ok(())
    }

    /// Names every stretch of a component that a line of `length` sectors reaches.
    fn extents(&self, _length: Sector, _each: &mut dyn FnMut(Extent)) {}

    /// Names those extents that lie under all of a line of `length` sectors, sector by sector. The
    /// default is for targets that have no others; one that has, as a log, leaves these out.
    fn shown(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        self.extents(length, each);
    }

    /// Names every place in a line of `length` sectors where a component's sector shows: one may
    /// show in several. The default goes by [`Target::shown`].
    fn locate(
        &self,
        component: ComponentIndex,
        sector: Sector,
        length: Sector,
        each: &mut dyn FnMut(Sector),
    ) {
        self.shown(length, &mut |extent| {
            let at = extent.range().place_of(sector);
            if let Some(at) = at.filter(|_| extent.component == component) {
                each(at);
            }
        });
    }

    /// Asked before a flush (DIOCCACHESYNC) goes to the components.
    ///
    /// # Errors
    /// The error that the flush is to fail with: no component is flushed then.
    fn may_flush(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// Takes a message from userland (`dmsetup message`), and writes the answer, if there is one.
    ///
    /// # Errors
    /// EINVAL unless the target has such a message.
    fn message(&self, _text: &str, _reply: &mut String) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
}

/// The device numbers of a table's components, for a target to print, and whether it may print
/// secrets.
pub struct Devs<'a> {
    pub(crate) devs: &'a [Dev],
    pub(crate) secrets: bool,
}

impl Devs<'_> {
    /// Prints a component as `major:minor`.
    pub fn get(&self, component: ComponentIndex) -> impl fmt::Display + use<> {
        self.devs.get(component.0 as usize).copied().unwrap_or(Dev(0))
    }

    /// `true` if keys may be shown: the ioctl's caller may change devices.
    pub fn shows_secrets(&self) -> bool {
        self.secrets
    }
}
