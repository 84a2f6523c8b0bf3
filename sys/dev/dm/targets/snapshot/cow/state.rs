// SPDX-License-Identifier: BSD-2-Clause

//! The changing state of a snapshot, under its one lock.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::merging::Merging;
use super::{BATCH, Health, Kind, PENDING, Signals};
use crate::Sector;
use crate::lane::{LineWaker, Signal};
use crate::purse::Share;
use crate::targets::snapshot::format::{ENTRY, Exception, Geometry};
use crate::targets::snapshot::runs::Runs;
use crate::units::Dev;

/// The changing state of a snapshot. All fields: under the lock of
/// [`Cow::state`](super::Cow::state).
pub struct State {
    /// The origin's device, while a table uses the store.
    pub origin: Option<Dev>,
    /// The opening of the store's device, which all tables have that use it.
    pub opening: usize,
    /// The number of tables that use the store: two while one is exchanged for the other.
    pub tables: u32,
    /// The table whose lanes do the work.
    pub keeper: Option<Keeper>,
    /// `true` while the keeper's device is not suspended.
    pub running: bool,
    /// `true` while some table begins: it reads the store, or waits to take over. No other table
    /// begins then.
    pub loading: bool,
    /// `true` once the store was read.
    pub loaded: bool,
    /// `true` once the keeper's table goes: no new exception is begun, and a table that takes over
    /// finds the snapshot lost.
    pub closing: bool,
    /// The kind of store.
    pub kind: Kind,
    /// The size of chunks.
    pub geometry: Geometry,
    /// Sectors of the snapshot.
    pub length: Sector,
    /// Sectors of the origin's device.
    pub origin_size: Sector,
    /// Sectors of the store's device.
    pub cow_size: Sector,
    /// The progress of the keeper's merge of the snapshot into its origin; `None` while it does not
    /// merge.
    pub merging: Option<Merging>,
    /// The store's size when it was found to be too small; it is asked again before a snapshot
    /// fails for that.
    pub full_at: Option<Sector>,
    /// `true` if the lane that commits is to ask for the size of the store's device.
    pub ask_size: bool,
    /// `true` if areas may lie behind the end of the store's device: nothing is added to it.
    pub sealed: bool,
    /// The state of the snapshot's content.
    pub health: Health,
    /// `true` once a store of kind PO was full: writes of the snapshot fail.
    pub overflow: bool,
    /// `true` while a lane commits, or marks the store: of the keeper's table, or of the one
    /// before.
    pub busy: bool,
    /// `true` if an event is to be raised.
    pub event: bool,
    /// The exceptions that are visible.
    pub runs: Runs,
    /// The memory that was taken for the blocks of `runs`.
    pub(super) paid: Vec<Share>,
    /// `true` if no more memory is to be had.
    pub starved: bool,
    /// The next chunk of the store to be given out, if it is not below `floor`.
    pub next_free: u64,
    /// `true` if the exceptions have the store's chunks in their order, without a gap, as far as
    /// the store was read.
    pub dense: bool,
    /// The lowest chunk that may be given out next: merging sets `next_free` back, as Linux shows
    /// it.
    pub floor: u64,
    /// The place in the store where the next exception is written.
    pub tail: Tail,
    /// The pending exceptions, in the order of their chunks of the store. There is room for
    /// [`PENDING`].
    pub(super) pending: VecDeque<Pending>,
    /// The number of the first pending exception.
    pub(super) first: u64,
    /// The sector of the store's device that `tail` lies in, as it is there.
    pub unit: Box<[u8]>,
}

/// A place for an exception in a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tail {
    /// The area.
    pub area: u64,
    /// The entry there.
    pub entry: u64,
}

/// The table whose lanes do a snapshot's work.
pub struct Keeper {
    /// The table's number.
    pub table: u64,
    /// The way to its lanes.
    pub waker: LineWaker,
    /// The signals that they wait for.
    pub signals: Arc<Signals>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Queued,
    Copying,
    Copied,
}

#[derive(Clone, Copy)]
pub(super) struct Pending {
    pub(super) exception: Exception,
    pub(super) step: Step,
}

/// The reasons why an exception cannot be begun now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cannot {
    /// Too many are pending.
    Busy,
    /// The memory is used up that was taken for exceptions.
    Memory,
    /// The store is full.
    Full,
}

impl State {
    /// `true` if the lanes of this table do the work.
    pub fn is_kept_by(&self, table: u64) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| keeper.table == table)
    }

    /// Wakes the keeper's lanes that wait for a signal.
    pub fn raise(&self, signal: fn(&Signals) -> &Signal) {
        if let Some(keeper) = &self.keeper {
            keeper.waker.raise(signal(&keeper.signals));
        }
    }

    /// `true` if the keeper merges the snapshot: no exception is begun any more.
    pub fn merges(&self) -> bool {
        self.merging.is_some()
    }

    /// `true` if the origin never waits for this snapshot.
    pub(super) fn asks_nothing(&self) -> bool {
        self.health == Health::Invalid || self.merges() && self.pending.is_empty()
    }

    /// `true` if a chunk's exception is pending.
    pub(super) fn pending(&self, chunk: u64) -> bool {
        self.pending.iter().any(|pending| pending.exception.old == chunk)
    }

    /// The first pending exceptions whose chunks are written, and how many may be committed at
    /// once.
    pub(super) fn copied(&self) -> (usize, usize) {
        let copied = self.pending.iter().take_while(|p| p.step == Step::Copied).count();
        let left = self.geometry.entries().saturating_sub(self.tail.entry);
        (copied, BATCH.min(usize::try_from(left).unwrap_or(BATCH)))
    }

    /// `true` if the pending exception with this number is not pending any more.
    pub fn is_over(&self, number: u64) -> bool {
        number < self.first
    }

    /// Begins an exception. Returns its number and its chunk of the store.
    pub(super) fn allocate(&mut self, old: u64, step: Step) -> Result<(u64, u64), Cannot> {
        let waiting = self.pending.len();
        if waiting >= PENDING {
            return Err(Cannot::Busy);
        }
        if !self.runs.has_room(waiting.saturating_add(1)) {
            return Err(Cannot::Memory);
        }
        let geometry = self.geometry;
        let fits = |chunk: u64| {
            let end = chunk.checked_add(1).and_then(|end| geometry.sector(end));
            end.is_some_and(|end| end <= self.cow_size)
        };
        let new = self.next_free.max(self.floor);
        if !fits(new) || self.sealed {
            return Err(Cannot::Full);
        }
        if self.kind != Kind::Transient {
            // The last of an area is written when the next area is there.
            let entry = self.tail.entry.saturating_add(waiting as u64);
            let (over, at) = (entry / geometry.entries().max(1), entry % geometry.entries().max(1));
            let area = self.tail.area.saturating_add(over);
            let next = geometry.area(area.saturating_add(1));
            let here = geometry.area(area).is_some_and(fits);
            if !here || at.saturating_add(1) >= geometry.entries() && !next.is_some_and(fits) {
                return Err(Cannot::Full);
            }
        }
        let after = new.saturating_add(1);
        self.next_free = match self.kind {
            Kind::Transient => after,
            Kind::Persistent { .. } => geometry.data_from(after),
        };
        self.pending.push_back(Pending { exception: Exception { old, new }, step });
        Ok((self.first.wrapping_add(waiting as u64), new))
    }

    /// Moves the tail behind `count` entries that were written there; `bytes` is what
    /// [`Cow::fill`](super::Cow::fill) made.
    pub(super) fn advance(&mut self, count: usize, bytes: &[u8]) {
        let unit = self.unit.len().max(1);
        let entry = self.tail.entry.saturating_add(count as u64);
        let before =
            usize::try_from(self.tail.entry).unwrap_or(0).saturating_mul(ENTRY) / unit * unit;
        let after = usize::try_from(entry).unwrap_or(0).saturating_mul(ENTRY) / unit * unit;
        // A tail at the start of a sector has an empty sector, of which `bytes` has nothing.
        let now = bytes.get(after.saturating_sub(before)..).unwrap_or(&[]);
        let full = entry.saturating_mul(ENTRY as u64).is_multiple_of(unit as u64);
        let now = if full { &[] } else { now };
        self.unit.fill(0);
        self.unit.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
        self.tail = match entry >= self.geometry.entries() {
            true => Tail { area: self.tail.area.saturating_add(1), entry: 0 },
            false => Tail { entry, ..self.tail },
        };
    }

    /// Drops the pending exceptions: the snapshot is lost, and copies in progress have no use.
    pub fn give_up(&mut self) {
        self.first = self.first.wrapping_add(self.pending.len() as u64);
        self.pending.clear();
    }

    /// Sectors of the store in use, and of those the ones for exceptions, as a status shows them.
    pub fn usage(&self) -> (u64, u64) {
        let chunk = self.geometry.chunk().0;
        let meta = match self.kind {
            Kind::Transient => 0,
            Kind::Persistent { .. } => self.tail.area.saturating_add(2),
        };
        (self.next_free.saturating_mul(chunk), meta.saturating_mul(chunk))
    }
}
