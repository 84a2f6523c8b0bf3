// SPDX-License-Identifier: BSD-2-Clause

//! The state of a snapshot that is being merged: its exceptions go, from the last one of the store
//! backwards.
//!
//! A *run* is some exceptions at the end of the store whose chunks are consecutive, of the origin
//! and of the store. It is merged as one:
//!
//! | run | writes of its chunks | next |
//! |---|---|---|
//! | none | go to the store | the other snapshots have exceptions: blocked |
//! | blocked | wait; those that were in flight end | copied to the origin, and flushed |
//! | written | fail | its entries are zeroes in the store |
//! | gone | go to the origin | — |
//!
//! *Written* is a run only where its entries could not be zeroed: what the store has is not known
//! then, and both its places have the content. It is tried again with the next start. All else that
//! fails leaves the exceptions as they are.

use super::{Cow, Health, State, Tail};
use crate::Sector;
use crate::targets::snapshot::format::{Exception, Geometry};
use crate::targets::snapshot::runs::FoundRun;

/// Chunks in a run, at most: each has its own bucket of writes that are in flight.
pub const MERGED: u64 = super::READS as u64 / 2;

/// The progress of merging.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Merging {
    /// The chunks that are being merged.
    run: Option<Run>,
    /// `true` if the run is in the origin, and perhaps in the store no more.
    written: bool,
    /// `true` if merging has failed since the last start.
    pub failed: bool,
}

/// Consecutive exceptions at the end of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first chunk of the origin, and of the store.
    pub old: u64,
    pub new: u64,
    /// The number of chunks.
    pub chunks: u64,
    /// The place of the first exception.
    pub at: Tail,
}

impl Run {
    /// `true` if the run goes on where `exception` ends, in the origin and in the store.
    pub fn follows(self, exception: Exception) -> bool {
        exception.old.checked_add(1) == Some(self.old)
            && exception.new.checked_add(1) == Some(self.new)
    }

    fn has(&self, chunk: u64) -> bool {
        chunk.checked_sub(self.old).is_some_and(|on| on < self.chunks)
    }
}

/// The place of I/O on a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// The I/O goes to the store; a write is counted as in flight.
    Store(FoundRun),
    /// The I/O goes to the origin.
    Origin,
    /// The I/O must wait, and be placed once more.
    Wait,
    /// The I/O fails.
    Fail,
}

impl State {
    /// Sets whether the keeper's table, which begins, merges the snapshot.
    pub fn begin_merging(&mut self, merges: bool) {
        if !merges {
            self.merging = None;
            return;
        }
        if self.merging.is_none() && !self.dense {
            // Chunks that merging sets back may be in use.
            self.floor = self.floor.max(self.next_free);
        }
        // A run that is written stays, and with it that merging has failed.
        self.merging = Some(self.merging.filter(|merging| merging.written).unwrap_or_default());
    }

    /// `true` if the store may lack exceptions that are in memory.
    pub fn doubts(&self) -> bool {
        self.merging.is_some_and(|merging| merging.written)
    }

    /// `true` if merging has failed.
    pub fn merge_failed(&self) -> bool {
        self.merging.is_some_and(|merging| merging.failed)
    }

    /// `true` if nothing is left that is not on the origin.
    pub fn is_merged(&self) -> bool {
        self.health == Health::Invalid || self.runs.len() == 0 && self.pending.is_empty()
    }

    /// The place of I/O on a chunk through the device that merges.
    pub fn put(&self, chunk: u64, write: bool) -> Put {
        if self.health != Health::Good {
            return Put::Origin;
        }
        if self.pending(chunk) {
            // Begun before merging was.
            return Put::Wait;
        }
        let Some(found) = self.runs.find(chunk) else { return Put::Origin };
        match self.merging {
            Some(Merging { run: Some(run), written, .. }) if write && run.has(chunk) => {
                if written {
                    Put::Fail
                } else {
                    Put::Wait
                }
            }
            _ => Put::Store(found),
        }
    }
}

impl Cow {
    /// The place of I/O on the chunk of a sector through the device that merges, with the geometry
    /// and the store's size. A write in the store is counted as in flight.
    pub fn put(&self, start: Sector, write: bool) -> (Put, Geometry, Sector) {
        let state = self.state.lock();
        let (geometry, size) = (state.geometry, state.cow_size);
        let chunk = geometry.chunk_of(start);
        let put = match state.put(chunk, write) {
            Put::Store(_) if write && !self.tracker(chunk).begin() => Put::Wait,
            put => put,
        };
        (put, geometry, size)
    }

    /// `Some` when all work that began before merging is over: `true` if there is something to
    /// merge.
    pub fn may_merge(&self, table: u64) -> Option<bool> {
        let state = self.state.lock();
        if !state.is_kept_by(table) || !state.merges() || state.health == Health::Invalid {
            return Some(false);
        }
        (state.pending.is_empty() && !state.busy && state.health == Health::Good)
            .then_some(state.tail != Tail::default())
    }

    /// A run that is written, and is to be taken out of the store.
    pub fn written(&self) -> Option<Run> {
        let merging = self.state.lock().merging?;
        merging.run.filter(|_| merging.written)
    }

    /// Blocks writes of a run's chunks: they wait from now on.
    pub fn block(&self, run: Run) {
        let mut state = self.state.lock();
        if let Some(merging) = &mut state.merging {
            (merging.run, merging.written) = (Some(run), false);
        }
        (0..run.chunks).for_each(|on| self.tracker(run.old.wrapping_add(on)).drain());
    }

    /// `Some` when no write of a run's chunks is in flight that was before it was blocked.
    pub fn is_drained(&self, run: Run) -> Option<()> {
        let draining = |on| self.tracker(run.old.wrapping_add(on)).is_draining();
        (!(0..run.chunks).any(draining)).then_some(())
    }

    /// Notes that the run's entries could not be zeroed, though it is in the origin.
    pub fn doubt(&self) {
        if let Some(merging) = &mut self.state.lock().merging {
            merging.written = merging.run.is_some();
        }
    }

    /// Notes that merging has failed, or is stopped: no write waits for it any more.
    pub fn rest(&self, failed: bool) {
        if let Some(merging) = &mut self.state.lock().merging {
            merging.run = merging.run.filter(|_| merging.written);
            merging.failed |= failed;
        }
    }

    /// Removes a run from memory that is on the store no more. `unit` is the sector of the store's
    /// device that its first entry was in, as it is now.
    pub fn forget(&self, run: Run, unit: &[u8]) {
        let mut state = self.state.lock();
        let mut left = run.chunks;
        while let Some(less) = left.checked_sub(1) {
            let gone = state.runs.remove(run.old.wrapping_add(less), left);
            debug_assert!(gone > 0, "a run ends with the last exception");
            left = left.saturating_sub(gone.max(1));
        }
        state.tail = run.at;
        state.unit.iter_mut().zip(unit).for_each(|(to, from)| *to = *from);
        // As Linux counts it.
        let area = state.geometry.area(run.at.area).unwrap_or(0);
        state.next_free = area.saturating_add(1).saturating_add(run.at.entry);
        if let Some(merging) = &mut state.merging {
            *merging = Merging::default();
        }
    }
}
