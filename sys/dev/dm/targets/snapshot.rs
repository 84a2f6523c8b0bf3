// SPDX-License-Identifier: BSD-2-Clause

//! `snapshot ORIGIN STORE P|PO|N CHUNK [#FEATURES FEATURE…]`: the content that an origin had at
//! some moment, with what was written to the snapshot since.
//!
//! The origin is written through a `snapshot-origin` line (`snapshot/origin.rs`). Before a chunk of
//! it is overwritten, each snapshot's lanes copy the chunk into a free one of the *store*; that is
//! an *exception*. Reads of the snapshot find a chunk's exception, or go to the origin. A write to
//! the snapshot goes to the exception, which is made first; one that covers a chunk needs no copy.
//!
//! Exceptions are in memory as runs (`runs.rs`), and with `P` on the store's device (`format.rs`)
//! in the order in which their chunks of it were given out. A write, of the origin or the snapshot,
//! goes on when its exception is on stable storage: the data, then the entry, one write for all
//! that are ready. With `N` the store is in memory, and begins anew with each table.
//!
//! Tables share a `Cow` for each store's device, and an [`Origin`] for each origin's. A table that
//! is loaded over another with the same store takes over the `Cow` when it is started, which it is
//! when the other's device is suspended; the store is not read again. The work is done by
//! *resident* lanes of the table that was started last (`keep.rs`), also while its device is
//! suspended: the origin's writes wait for them. `cow.rs` has the states and their consequences.
//!
//! Locks, outermost first: the origin's members, a `Cow`'s state, what waking a lane takes. The
//! origin's waiting jobs have a lock that is taken alone. None is held over an `await`. I/O that is
//! only mapped takes:
//!
//! | line | I/O | lock |
//! |---|---|---|
//! | `snapshot` | reads, writes | none (`cow/view.rs`), but the state's while that is changed |
//! | `snapshot-origin` | reads | none |
//! | `snapshot-origin` | writes | none without snapshots; else the members', states' as above |
//! | `snapshot-merge` | reads, writes | the state's, and that of a write of `snapshot-origin` |

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::job::{Job, Op};
use crate::lane::{Lane, Outcome};
use crate::purse::Purse;
use crate::target::{ComponentIndex, Devs, Extent, IoRange, Mapping, Target, TargetType};
use crate::tracker::Tracker;
use crate::worker::{Needs, Worker};
use crate::{Errno, Sector};

mod cow;
mod format;
mod keep;
mod load;
pub mod merge;
mod merging;
pub mod origin;
mod params;
mod runs;
mod serve;

use cow::{Cow, Health, Kind, Signals, State};
use format::Geometry;
use origin::Origin;
use params::{Features, invalid, new, parse};
use runs::{FoundRun, NOWHERE};

/// The target type `snapshot`.
pub static TYPE: TargetType = TargetType { name: "snapshot", version: [1, 16, 0], new };

/// Jobs of a line, of an origin or a snapshot.
const JOBS: usize = 64;

/// Bytes that the place of a line's waiting jobs takes.
const WAITING: usize = JOBS * size_of::<Job>();

/// Bytes that are copied at once, at most.
const COPY: usize = 64 * 1024;

/// Bytes of buffers in which chunks are copied.
const COPIES: usize = 512 * 1024;

/// Sectors in a chunk where neither the table nor the store says.
const CHUNK: u32 = 32;

/// The bit in a job's tag that says that the job is a read of the origin which a tracker has
/// counted in.
const COUNTED: u64 = 1 << 63;

/// The bit in a job's tag that says that the job is a write of a whole chunk, whose exception it
/// makes; the rest of the tag is the exception's number.
const OWN: u64 = 1 << 62;

/// A `snapshot` line, or the part of a `snapshot-merge` line that is the same. Only `begun`
/// changes, which is atomic; all other changing state is in the [`Cow`] and the [`Origin`], under
/// their locks.
struct Snapshot {
    /// The line's number among all that were ever made, which tells the tables of one store apart:
    /// see `keep.rs`.
    table: u64,
    /// The store's state, which all tables of the store share.
    cow: Arc<Cow>,
    /// The signals of this line's lanes.
    signals: Arc<Signals>,
    /// The origin's state, which all lines that use the origin share.
    shared: Arc<Origin>,
    /// The account of tables' memory, which pays for exceptions.
    purse: Purse,
    /// The origin.
    origin: ComponentIndex,
    /// The store's device.
    store: ComponentIndex,
    /// The size of a sector of the store's device.
    unit: Sector,
    /// The size of a sector of the origin.
    origin_unit: Sector,
    /// The length of the line.
    length: Sector,
    /// The kind of store.
    kind: Kind,
    /// Sectors in a chunk of a new store.
    chunk: u32,
    /// Sectors in a chunk as the table has them; 0 for the store's own.
    named: u32,
    /// The features that the table asks for.
    features: Features,
    /// `true` for a line of `snapshot-merge`.
    merges: bool,
    /// `true` once this table's lanes have done the store's work; another table's may do it since.
    begun: AtomicBool,
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if self.merges {
            self.shared.end_merge();
        }
        self.shared.leave();
        let mut state = self.cow.state.lock();
        state.tables = state.tables.saturating_sub(1);
        if state.tables == 0 {
            state.origin = None;
        }
    }
}

/// The store's sector where an exception has a sector of its chunk; `None` if the store has no such
/// chunk.
fn in_store(geometry: Geometry, size: Sector, found: FoundRun, start: Sector) -> Option<Sector> {
    if found.new == NOWHERE {
        return None;
    }
    let chunk = geometry.sector(found.new)?;
    let end = chunk.0.checked_add(geometry.chunk().0).filter(|end| *end <= size.0);
    end.map(|_| Sector(chunk.0.wrapping_add(geometry.offset(start))))
}

impl Snapshot {
    /// `true` if another table has taken over what this one had.
    fn is_source(&self, state: &State) -> bool {
        self.begun.load(Ordering::Relaxed) && !state.is_kept_by(self.table)
    }

    /// Maps a read or a write without a lock; `None` if the state was changed meanwhile.
    #[inline]
    fn map_now(&self, io: &IoRange) -> Option<Mapping<'_>> {
        let view = self.cow.state.view();
        let seen = view.look()?;
        let (mode, write) = (view.mode(), io.is_write());
        if !mode.serves(write) {
            return Some(Mapping::Fail { length: io.length, error: Errno::EIO });
        }
        let geometry = mode.geometry();
        let (chunk, first) = (geometry.chunk_of(io.start), geometry.within(io.start, io.length));
        let Some(found) = view.find(chunk) else {
            let tracker = self.cow.tracker(chunk);
            // Only once the store was read, and where no write of the origin waits for reads to
            // end.
            if write || !view.is_kept_by(self.table) || !tracker.begin() {
                return view.is(seen).then_some(Mapping::Take { length: first, queue: 0 });
            }
            if !view.is(seen) {
                self.end_tracked(tracker);
                return None;
            }
            let (component, start) = (self.origin, io.start);
            return Some(Mapping::Track { component, start, length: first, tracker });
        };
        // The chunks that the store has from there on, and the run.
        let has = view.chunks().saturating_sub(found.new).min(found.left);
        if !view.is(seen) {
            return None;
        }
        if has == 0 {
            return Some(Mapping::Fail { length: first, error: Errno::EIO });
        }
        let shift = geometry.shift;
        let length = Sector(first.0.wrapping_add(has.wrapping_sub(1).wrapping_shl(shift)));
        let within = geometry.offset(io.start);
        let start = Sector(found.new.wrapping_shl(shift).wrapping_add(within));
        let length = length.min(io.length);
        Some(Mapping::Send { component: self.store, start, length })
    }

    /// The tracker of a sector's chunk, which some other chunks share.
    fn tracker_of(&self, sector: Sector) -> &Tracker {
        self.cow.tracker(self.cow.state.view().mode().geometry().chunk_of(sector))
    }

    /// Counts out a read of the origin that is over, or was not sent after all, or a write that
    /// merging counted in. `true` if the tracker says that the target is to be asked. Context:
    /// thread or soft interrupt, with no lock held; does not sleep.
    fn end_tracked(&self, tracker: &Tracker) -> bool {
        let asks = tracker.end();
        if asks && self.cow.drained(tracker) {
            self.shared.wake();
        }
        asks
    }
}

impl Target for Snapshot {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        if io.op == Op::Discard {
            return Mapping::Take { length: io.length, queue: 0 };
        }
        loop {
            match self.map_now(io) {
                Some(mapping) => return mapping,
                // The thread that changes the state holds the lock until it is done.
                None => drop(self.cow.state.lock()),
            }
        }
    }

    fn tracker(&self, start: Sector) -> Option<&Tracker> {
        Some(self.tracker_of(start))
    }

    fn untrack(&self, io: &IoRange, result: Result<(), Errno>) -> Result<(), Errno> {
        if self.cow.drained(self.tracker_of(io.start)) {
            self.shared.wake();
        }
        self.unless_lost(result)
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        self.write_params(out, devs)
    }

    fn status(&self, out: &mut dyn fmt::Write, _devs: &Devs<'_>) -> fmt::Result {
        let (good, failed, overflow, (used, meta), size) = {
            let state = self.cow.state.lock();
            let good = state.health == Health::Good && !self.is_source(&state);
            let failed = state.merge_failed();
            (good, failed, state.overflow, state.usage(), state.cow_size)
        };
        match (good, failed, overflow) {
            (false, ..) => out.write_str("Invalid"),
            (true, true, _) => out.write_str("Merge failed"),
            (true, false, true) => out.write_str("Overflow"),
            (true, false, false) => write!(out, "{used}/{size} {meta}"),
        }
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        each(Extent { component: self.origin, start: Sector::ZERO, length });
        let chunks = Sector(u64::from(self.chunk).saturating_mul(format::FIRST));
        each(Extent { component: self.store, start: Sector::ZERO, length: chunks });
    }

    /// No write of the line reaches the origin; of the store it writes only chunks that were given
    /// to it.
    fn shown(&self, _length: Sector, _each: &mut dyn FnMut(Extent)) {}
}

impl Worker for Snapshot {
    fn needs(&self) -> Needs {
        let buffer = keep::buffer(bytes(self.unit), Sector(self.chunk.into()));
        let copies = (COPIES / buffer.max(1)).clamp(4, 16);
        Needs {
            queues: alloc::vec![2],
            jobs: JOBS,
            buffer: if self.features.zeroes { 4096.max(bytes(self.unit)) } else { 0 },
            residents: keep::COPIES.saturating_add(copies),
            resident_buffer: buffer,
            control_buffer: COPY,
            grows: true,
            ..Needs::default()
        }
    }

    fn at_once(&self, job: Job) -> Option<Job> {
        match job.op() {
            Op::Read => self.read(job),
            Op::Write => self.write(job),
            Op::Flush | Op::Discard => return Some(job),
        }
        None
    }

    fn answered(&self, job: Job, outcome: Outcome) -> Option<Job> {
        if job.tag() & COUNTED != 0 {
            let asks = self.end_tracked(self.tracker_of(job.start()));
            job.end(if asks { self.unless_lost(outcome.ok()) } else { outcome.ok() });
            return None;
        }
        // The job waits for the entry that says where its data are.
        self.cow.copied(job.tag() & !OWN, outcome.failed == 0);
        Some(job)
    }

    async fn serve(&self, job: Job, lane: &mut Lane) {
        match job.op() {
            Op::Read => self.read(job),
            Op::Write => self.write(job),
            Op::Flush => job.end(lane.flush(&[self.store]).await.ok()),
            Op::Discard => self.discard(job, lane).await,
        }
    }

    async fn resident(&self, number: usize, lane: &mut Lane) {
        match number {
            keep::COMMITS => self.commit(lane).await,
            keep::GROWS => self.grow(lane).await,
            _ => self.copy(lane).await,
        }
    }

    async fn start(&self, lane: &mut Lane) -> Result<(), Errno> {
        self.begin(lane).await
    }

    async fn stop(&self, _lane: &mut Lane) {
        let mut state = self.cow.state.lock();
        if state.is_kept_by(self.table) {
            state.running = false;
        }
    }
}

/// Bytes in some sectors, of which there are few.
fn bytes(sectors: Sector) -> usize {
    sectors.to_bytes().unwrap_or(0) as usize
}
