// SPDX-License-Identifier: BSD-2-Clause

//! `snapshot ORIGIN STORE P|PO|N CHUNK [#FEATURES FEATURE…]`: the content that an origin had at some moment, with
//! what was written to the snapshot since.
//!
//! The origin is written through a `snapshot-origin` line (`snapshot/origin.rs`). Before a chunk of it is overwritten, each
//! snapshot's lanes copy the chunk into a free one of the *store*; that is an *exception*. Reads of the snapshot find a
//! chunk's exception, or go to the origin. A write to the snapshot goes to the exception, which is made first; one that
//! covers a chunk needs no copy.
//!
//! Exceptions are in memory as runs (`runs.rs`), and with `P` on the store's device (`format.rs`) in the order in which their chunks
//! of it were given out. A write, of the origin or the snapshot, goes on when its exception is on stable storage: the
//! data, then the entry, one write for all that are ready. With `N` the store is in memory, and begins anew with each table.
//!
//! What tables share: a [`Cow`] for each store's device, an [`Origin`] for each origin's. A table that is loaded over another with
//! the same store takes over the [`Cow`] when it is started, which it is when the other's device is suspended; the store
//! is not read again. The work is done by *resident* lanes of the table that was started last (`keep.rs`), also while its
//! device is suspended: the origin's writes wait for them. States and what follows from them: `cow.rs`.
//!
//! Locks, outermost first: the origin's members, a [`Cow`]'s state, what waking a lane takes. The origin's waiting jobs have a
//! lock that is taken alone. None is held over an `await`. I/O that is only sent on takes none (`cow/view.rs`), but an origin's
//! writes the members'.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::device::Purse;
use crate::job::{Job, Op, Place};
use crate::lane::{Lane, Outcome};
use crate::table::{LineSpec, Mistake};
use crate::target::{ComponentIndex, Devs, Extent, IoRange, Made, Mapping, Target, TargetType};
use crate::tracker::Tracker;
use crate::units::DEV_BSIZE;
use crate::worker::{Needs, Worker};
use crate::{Errno, Sector, limits};

mod cow;
mod format;
mod keep;
mod load;
pub mod merge;
mod merging;
pub mod origin;
mod runs;

use cow::{Cow, Health, Kind, Signals, State, Write};
use format::Geometry;
use origin::Origin;
use runs::{Found, NOWHERE};

/// What a table calls `snapshot`.
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

/// In a job's tag: a read of the origin that is counted as under way.
const COUNTED: u64 = 1 << 63;

/// In a job's tag: a write that makes an exception itself, the number of which is the rest.
const OWN: u64 = 1 << 62;

struct Snapshot {
    /// Its table's number, which tells it from others on the same store.
    table: u64,
    cow: Arc<Cow>,
    signals: Arc<Signals>,
    shared: Arc<Origin>,
    purse: Purse,
    origin: ComponentIndex,
    store: ComponentIndex,
    /// Sectors in a sector of the store's device, and of the origin's.
    unit: Sector,
    origin_unit: Sector,
    length: Sector,
    kind: Kind,
    /// Sectors in a chunk of a new store, and as the table has them, which may be 0.
    chunk: u32,
    named: u32,
    features: Features,
    /// `true` for a line of `snapshot-merge`.
    merges: bool,
    /// `true` once its lanes have done the work; others may do it since.
    begun: AtomicBool,
}

/// The features that the table names.
#[derive(Clone, Copy, Default)]
struct Features {
    zeroes: bool,
    passes: bool,
}

/// The number of the next table.
static TABLES: AtomicU64 = AtomicU64::new(1);

fn invalid(why: &'static str) -> Mistake {
    Mistake::new(Errno::EINVAL, why)
}

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    Ok(Made::serves(parse(line, false)?))
}

/// Makes a snapshot of a line's parameters; `merges` for a line of `snapshot-merge`, whose origin is written.
fn parse(line: &mut LineSpec<'_>, merges: bool) -> Result<Snapshot, Mistake> {
    let origin_path = line.params.path()?;
    let origin = line.only_read(origin_path, Sector::ZERO, line.length)?;
    let path = line.params.path()?;
    let store = line.component(path, Sector::ZERO, Sector::ZERO)?;
    if store == origin {
        return Err(invalid("a snapshot's store lies on its origin"));
    }
    let kind = new_kind(line.params.word("the kind of store is missing")?)?;
    let named = line.params.small_number("the chunk size is not a number of sectors")?;
    let least = line.sector_size(store).max(line.sector_size(origin)) / DEV_BSIZE;
    let chunk = if named == 0 { CHUNK.max(least) } else { named };
    let geometry = Geometry::new(chunk).filter(|_| chunk >= least).ok_or_else(|| {
        invalid("the chunk size is wrong").about(format_args!(
            "{named} sectors, where a power of two is wanted from {least} to {}",
            1u32 << 21
        ))
    })?;
    let chunks = geometry.chunk_of(line.size(store));
    if chunks > limits::SNAPSHOT_CHUNKS {
        return Err(invalid("the store has too many chunks")
            .about(format_args!("{chunks}, of {} at most", limits::SNAPSHOT_CHUNKS)));
    }
    if kind != Kind::Transient && chunks < format::FIRST {
        return Err(invalid("the store is too small")
            .about(format_args!("{} sectors, of two chunks at least", line.size(store))));
    }
    let features = new_features(line)?;
    line.params.end()?;
    if features.passes || merges {
        // It is written, in a way.
        line.component(origin_path, Sector::ZERO, line.length)?;
    }
    let unit = line.sector_size(store) as usize;
    line.reserve(WAITING.saturating_add(cow::BYTES))?;
    let purse = line.purse();
    let cow = line.shared(store, || Cow::new(&purse, unit));
    let shared = line.shared(origin, Origin::default);
    {
        let mut state = cow.state.lock();
        let dev = line.dev(origin);
        if state.tables >= 2 {
            return Err(Mistake::new(Errno::EINVAL, "two tables use the store already"));
        }
        if state.origin.is_some_and(|of| of != dev) {
            return Err(Mistake::new(Errno::EINVAL, "the store is another origin's"));
        }
        state.origin = Some(dev);
        if !state.loaded && state.tables == 0 {
            // What a status shows before the table is started.
            let next_free = if kind == Kind::Transient { 0 } else { format::FIRST };
            (state.kind, state.geometry, state.next_free) = (kind, geometry, next_free);
            (state.cow_size, state.origin_size) = (line.size(store), line.size(origin));
        }
        state.tables = state.tables.saturating_add(1);
    }
    shared.enter();
    Ok(Snapshot {
        table: TABLES.fetch_add(1, Ordering::Relaxed),
        cow,
        signals: Arc::default(),
        shared,
        purse,
        origin,
        store,
        unit: Sector((unit / DEV_BSIZE as usize) as u64),
        origin_unit: Sector(u64::from(line.sector_size(origin) / DEV_BSIZE)),
        length: line.length,
        kind,
        chunk,
        named,
        features,
        // Set when the origin knows of it.
        merges: false,
        begun: AtomicBool::new(false),
    })
}

fn new_kind(word: &str) -> Result<Kind, Mistake> {
    let mut letters = word.bytes().map(|byte| byte.to_ascii_uppercase());
    match (letters.next(), letters.next()) {
        (Some(b'P'), None) => Ok(Kind::Persistent { overflow: false }),
        (Some(b'P'), Some(b'O')) => Ok(Kind::Persistent { overflow: true }),
        (Some(b'N'), _) => Ok(Kind::Transient),
        _ => Err(invalid("no such kind of store").about(format_args!("P, PO or N"))),
    }
}

fn new_features(line: &mut LineSpec<'_>) -> Result<Features, Mistake> {
    let mut features = Features::default();
    if line.params.left() == 0 {
        return Ok(features);
    }
    for _ in 0..line.params.number("the number of features is no number")? {
        match line.params.word("a feature is missing")? {
            "discard_zeroes_cow" => features.zeroes = true,
            "discard_passdown_origin" => features.passes = true,
            _ => return Err(invalid("no such feature")),
        }
    }
    if features.passes && !features.zeroes {
        return Err(invalid("discard_passdown_origin is of use with discard_zeroes_cow only"));
    }
    Ok(features)
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

/// The store's sector where an exception has a sector of its chunk; `None` if the store has no such chunk.
fn in_store(geometry: Geometry, size: Sector, found: Found, start: Sector) -> Option<Sector> {
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

    fn forward(&self, job: Job, sector: Option<Sector>) {
        match sector {
            Some(sector) => job.forward(self.place(sector)),
            None => job.fail(Errno::EIO),
        }
    }

    /// Sends a read to a chunk's exception, or to the origin, where it is counted as under way.
    fn read(&self, mut job: Job) {
        loop {
            let turn = self.shared.turn();
            let state = self.cow.state.lock();
            if state.health != Health::Good {
                drop(state);
                return job.fail(Errno::EIO);
            }
            let (geometry, size) = (state.geometry, state.cow_size);
            let chunk = geometry.chunk_of(job.start());
            if let Some(found) = state.runs.find(chunk) {
                drop(state);
                let to = in_store(geometry, size, found, job.start());
                return self.forward(job, to);
            }
            let counted = self.cow.tracker(chunk).begin();
            drop(state);
            if counted {
                job.set_tag(COUNTED);
                let from = Place { component: self.origin, sector: job.start() };
                return job.forward_each(&[from]);
            }
            job = match self.shared.wait(job, turn) {
                Some(job) => job,
                None => return,
            };
        }
    }

    /// Maps a read or a write, unless something changes meanwhile. Takes no lock.
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
            // Only once the store was read, and where no write of the origin waits for reads to end.
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

    /// The count of reads of a sector's chunk, and of others.
    fn tracker_of(&self, sector: Sector) -> &Tracker {
        self.cow.tracker(self.cow.state.view().mode().geometry().chunk_of(sector))
    }

    /// Counts out what a tracker has counted in. `true` if it was to ask.
    fn end_tracked(&self, tracker: &Tracker) -> bool {
        let asks = tracker.end();
        if asks && self.cow.drained(tracker) {
            self.shared.wake();
        }
        asks
    }

    /// The result of a read of the origin that was to ask. Once the snapshot is lost the origin does not wait for reads. As
    /// long as it is not, it has waited for this one, whose data are there.
    fn unless_lost(&self, result: Result<(), Errno>) -> Result<(), Errno> {
        if self.cow.state.lock().health != Health::Good { Err(Errno::EIO) } else { result }
    }

    /// Sends a write to its chunk's exception, which is made first.
    fn write(&self, mut job: Job) {
        loop {
            let turn = self.shared.turn();
            if job.tag() & OWN != 0 {
                let (good, over) = {
                    let state = self.cow.state.lock();
                    (state.health == Health::Good, state.is_over(job.tag() & !OWN))
                };
                match (good, over) {
                    (false, _) => return job.fail(Errno::EIO),
                    (true, true) => return job.done(),
                    (true, false) => {}
                }
            } else {
                let (geometry, size, origin) = {
                    let state = self.cow.state.lock();
                    (state.geometry, state.cow_size, state.origin_size)
                };
                let (start, length) = (job.start(), job.length());
                // The last chunk ends with the origin.
                let left = origin.0.saturating_sub(start.0).min(geometry.chunk().0);
                let whole = geometry.within(start, geometry.chunk()) == geometry.chunk()
                    && length.0 >= left;
                match self.cow.write(geometry.chunk_of(start), whole) {
                    Write::Fail => return job.fail(Errno::EIO),
                    Write::There(found) => {
                        let to = in_store(geometry, size, found, start);
                        return self.forward(job, to);
                    }
                    Write::Own(number, new) => {
                        let Some(to) = geometry.sector(new) else { return job.fail(Errno::EIO) };
                        job.set_tag(OWN | number & !COUNTED);
                        return job.forward_each(&[self.place(to)]);
                    }
                    Write::Wait => {}
                }
            }
            job = match self.shared.wait(job, turn) {
                Some(job) => job,
                None => return,
            };
        }
    }

    /// Tells that sectors are not needed. Where all of a chunk is not, its exception reads as zeroes from then on.
    async fn discard(&self, job: Job, lane: &mut Lane) {
        if !self.features.zeroes {
            return job.fail(Errno::EOPNOTSUPP);
        }
        let (start, end) = (job.start().0, job.start().0.saturating_add(job.length().0));
        let mut result = Ok(());
        let mut at = start;
        while at < end && result.is_ok() {
            let (geometry, size, good, found) = {
                let state = self.cow.state.lock();
                let chunk = state.geometry.chunk_of(Sector(at));
                (
                    state.geometry,
                    state.cow_size,
                    state.health == Health::Good,
                    state.runs.find(chunk),
                )
            };
            let some = geometry.within(Sector(at), Sector(end.wrapping_sub(at)));
            if !good {
                result = Err(Errno::EIO);
            } else if let Some(found) = found
                && some == geometry.chunk()
                && let Some(to) = in_store(geometry, size, found, Sector(at))
            {
                result = self.zero(to, some, lane).await;
            }
            at = at.saturating_add(some.0.max(1));
        }
        if self.features.passes && result.is_ok() {
            let from = Place { component: self.origin, sector: job.start() };
            result = lane.discard(from, job.length()).await;
        }
        job.end(result);
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
                // Whoever changes it holds the lock.
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
        let chunk = {
            let state = self.cow.state.lock();
            let kept = state.loaded && state.is_kept_by(self.table);
            let named = if self.is_source(&state) { 0 } else { u64::from(self.named) };
            if kept { state.geometry.chunk().0 } else { named }
        };
        let kind = match self.kind {
            Kind::Persistent { overflow: false } => "P",
            Kind::Persistent { overflow: true } => "PO",
            Kind::Transient => "N",
        };
        write!(out, "{} {} {kind} {chunk}", devs.get(self.origin), devs.get(self.store))?;
        out.write_str(match (self.features.zeroes, self.features.passes) {
            (false, _) => "",
            (true, false) => " 1 discard_zeroes_cow",
            (true, true) => " 2 discard_zeroes_cow discard_passdown_origin",
        })
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

    /// No write of the line reaches the origin, and of the store only what was given to it.
    fn locate(&self, _: ComponentIndex, _: Sector, _: Sector, _: &mut dyn FnMut(Sector)) {}
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
        // It waits for what says where it is.
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
