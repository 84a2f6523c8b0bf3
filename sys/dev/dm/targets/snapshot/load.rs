// SPDX-License-Identifier: BSD-2-Clause

//! The start of a snapshot's table: its store is read, made anew, or taken over from another table.

use core::sync::atomic::Ordering;

use super::cow::{Health, Keeper, Kind, Tail};
use super::format::{ENTRY, Exception, FIRST, Geometry, Header};
use super::runs::{Above, Batch, Runs, SORTER, Sorter};
use super::{Snapshot, bytes};
use crate::lane::Lane;
use crate::limits;
use crate::units::DEV_BSIZE;
use crate::{Errno, Sector};

/// Exceptions that are put into memory at a time, with the state's lock held.
const SOME: usize = 512;

/// A store as it was read.
struct ReadStore {
    geometry: Geometry,
    valid: bool,
    tail: Tail,
    next_free: u64,
    /// The next exception goes behind the end of the device.
    full: bool,
    /// Each exception has the chunk that it would have been given.
    dense: bool,
}

impl ReadStore {
    /// A store without exceptions.
    fn empty(geometry: Geometry, next_free: u64) -> ReadStore {
        let tail = Tail::default();
        ReadStore { geometry, valid: true, tail, next_free, full: false, dense: true }
    }
}

/// The exceptions as they are read.
struct Reading {
    /// The chunk behind the highest.
    next_free: u64,
    dense: bool,
    /// Exceptions that are not in the tree yet.
    batch: Batch,
}

impl Snapshot {
    /// Starts the line: [`Worker::start`](crate::worker::Worker::start). I/O of the device is held
    /// meanwhile, also where memory is asked for to read the store.
    pub(super) async fn begin(&self, lane: &mut Lane) -> Result<(), Errno> {
        let load = {
            let mut state = self.cow.state.lock();
            let other = !state.is_kept_by(self.table) && state.running;
            let another = state.doubts() && !self.merges
                || state.loaded
                    && (state.kind == Kind::Transient) != (self.kind == Kind::Transient);
            if other || another || state.loading {
                // The other table's device is not suspended, or the store is not known to be as it
                // is in memory.
                return Err(Errno::EINVAL);
            }
            state.loading = true;
            !state.loaded
        };
        let ready = self.prepare(load, lane).await;
        if ready.is_err() {
            self.cow.state.lock().loading = false;
            return ready;
        }
        self.take_over(lane);
        Ok(())
    }

    /// Reads the store, if it is to be loaded, and flushes what a table that merged has written.
    async fn prepare(&self, load: bool, lane: &mut Lane) -> Result<(), Errno> {
        if load {
            let read = self.read_store(lane).await;
            let mut state = self.cow.state.lock();
            let found = match read {
                Ok(found) => found,
                Err(errno) => {
                    state.runs.clear();
                    return Err(errno);
                }
            };
            state.loaded = true;
            (state.geometry, state.tail, state.next_free) =
                (found.geometry, found.tail, found.next_free);
            (state.dense, state.floor) = (found.dense, 0);
            if !found.valid {
                state.health = Health::Invalid;
            }
            state.sealed = found.full;
        }
        let merged = self.cow.state.lock().merges();
        if merged && !self.merges {
            // What was written to the origin: a flush of a snapshot does not reach that.
            lane.flush(&[self.origin]).await.ok()?;
        }
        Ok(())
    }

    /// Makes this table the one that does the snapshot's work.
    fn take_over(&self, lane: &Lane) {
        let (store, origin) = (lane.size(self.store), lane.size(self.origin));
        let waker = lane.waker();
        {
            let mut state = self.cow.state.lock();
            (state.kind, state.length) = (self.kind, self.length);
            (state.cow_size, state.origin_size) = (store, origin);
            if state.closing {
                // The table that had the store goes, or is gone: the origin may have been written
                // without copies since. As in Linux the store does not say so.
                state.health = Health::Invalid;
                state.give_up();
            }
            (state.running, state.closing, state.starved) = (true, false, false);
            state.loading = false;
            state.full_at = None;
            state.begin_merging(self.merges);
            let signals = self.signals.clone();
            let before = state.keeper.replace(Keeper { table: self.table, waker, signals });
            if let Some(Keeper { waker, .. }) = &before {
                // If the table before is ending its lanes return now. They see that they may when
                // the lock is free, and until then there is the engine that `before` refers to.
                waker.look_again();
            }
            drop(before);
        }
        self.begun.store(true, Ordering::Relaxed);
        self.shared.add(&self.cow);
        lane.waker().look_again();
        self.shared.wake();
    }

    /// Reads the store, or makes one.
    async fn read_store(&self, lane: &mut Lane) -> Result<ReadStore, Errno> {
        let geometry = Geometry::new(self.chunk.max(1)).ok_or(Errno::EINVAL)?;
        if self.kind == Kind::Transient {
            return Ok(ReadStore::empty(geometry, 0));
        }
        let unit = self.unit();
        lane.read(self.place(Sector::ZERO), sectors(unit)).await?;
        match Header::read(lane.buffer()) {
            Header::New => self.new_store(geometry, lane).await,
            Header::Foreign => Err(Errno::ENXIO),
            Header::Unknown => Err(Errno::EINVAL),
            Header::Store { valid, chunk } => {
                let geometry = Geometry::new(chunk).ok_or(Errno::EINVAL)?;
                let units = [self.unit, self.origin_unit];
                if units.iter().any(|unit| geometry.chunk() < *unit) {
                    return Err(Errno::EINVAL);
                }
                // The table's own chunks are bounded when it is loaded; these are known now.
                let chunks = geometry.chunk_of(lane.size(self.store));
                if chunks > limits::SNAPSHOT_CHUNKS {
                    lane.say(format_args!(
                        "the store has too many chunks: {chunks}, of {} at most",
                        limits::SNAPSHOT_CHUNKS
                    ));
                    return Err(Errno::EINVAL);
                }
                if !valid {
                    return Ok(ReadStore { valid, ..ReadStore::empty(geometry, FIRST) });
                }
                self.read_areas(geometry, lane).await
            }
        }
    }

    /// Makes a store: an empty area, and then the header.
    async fn new_store(&self, geometry: Geometry, lane: &mut Lane) -> Result<ReadStore, Errno> {
        let end = geometry.sector(FIRST).ok_or(Errno::EINVAL)?;
        if lane.size(self.store) < end {
            return Err(Errno::EINVAL);
        }
        self.zero(Sector::ZERO, end, lane).await?;
        lane.flush(&[self.store]).await.ok()?;
        let unit = self.unit();
        let buffer = lane.buffer().get_mut(..unit).ok_or(Errno::EINVAL)?;
        Header::write(buffer, true, geometry.chunk().0 as u32);
        lane.write(&[self.place(Sector::ZERO)], sectors(unit), true).await.ok()?;
        self.cow.state.lock().unit.fill(0);
        Ok(ReadStore::empty(geometry, FIRST))
    }

    /// Reads every area, up to the end of the exceptions or of the device.
    async fn read_areas(&self, geometry: Geometry, lane: &mut Lane) -> Result<ReadStore, Errno> {
        let size = lane.size(self.store);
        let mut read = Reading { next_free: FIRST, dense: true, batch: Batch::default() };
        let mut area = 0u64;
        loop {
            let start = geometry.area(area).and_then(|chunk| geometry.sector(chunk));
            let fits = |start: &Sector| {
                start.0.checked_add(geometry.chunk().0).is_some_and(|end| end <= size.0)
            };
            let Some(start) = start.filter(fits) else {
                // All there can be.
                self.insert(&mut read.batch, lane).await?;
                self.cow.state.lock().unit.fill(0);
                let tail = Tail { area, entry: 0 };
                let (next_free, dense) = (geometry.data_from(read.next_free), read.dense);
                return Ok(ReadStore { geometry, valid: true, tail, next_free, full: true, dense });
            };
            let end = self.read_area(geometry, start, &mut read, lane).await?;
            if let Some(entry) = end {
                self.insert(&mut read.batch, lane).await?;
                self.clean_tail(start, entry, geometry, lane).await?;
                let tail = Tail { area, entry };
                let (next_free, dense) = (geometry.data_from(read.next_free), read.dense);
                return Ok(ReadStore {
                    geometry,
                    valid: true,
                    tail,
                    next_free,
                    full: false,
                    dense,
                });
            }
            area = area.saturating_add(1);
        }
    }

    /// Reads an area. Returns the entry that ends the exceptions, if the area has their end.
    async fn read_area(
        &self,
        geometry: Geometry,
        start: Sector,
        read: &mut Reading,
        lane: &mut Lane,
    ) -> Result<Option<u64>, Errno> {
        let mut done = 0u64;
        while done < geometry.chunk().0 {
            let most = lane.buffer_sectors().0;
            let some = Sector(most.min(geometry.chunk().0.wrapping_sub(done)).max(1));
            lane.read(self.place(Sector(start.0.saturating_add(done))), some).await?;
            let all = bytes(some) / ENTRY;
            let mut at = 0usize;
            while at < all {
                let room = |runs: &Runs| runs.has_room(SOME);
                if !read.batch.rises() || !self.make_room(room, lane).await {
                    self.insert(&mut read.batch, lane).await?;
                    if !self.make_room(room, lane).await {
                        return Err(Errno::ENOMEM);
                    }
                }
                let mut state = self.cow.state.lock();
                let from = at.saturating_mul(ENTRY);
                let part = lane.buffer().get(from..).unwrap_or(&[]);
                for exception in Exception::read_all(part).take(SOME.min(all.wrapping_sub(at))) {
                    if exception.new == 0 {
                        let before = done.saturating_mul(u64::from(DEV_BSIZE) / ENTRY as u64);
                        return Ok(Some(before.saturating_add(at as u64)));
                    }
                    at = at.saturating_add(1);
                    read.dense &= exception.new == geometry.data_from(read.next_free);
                    read.next_free = read.next_free.max(exception.new.saturating_add(1));
                    if !read.batch.add(exception, &mut state.runs) {
                        return Err(Errno::ENOMEM);
                    }
                }
            }
            done = done.saturating_add(some.0);
        }
        Ok(None)
    }

    /// Inserts what was read into the tree, in order if that is of use and there is memory to sort
    /// with.
    async fn insert(&self, batch: &mut Batch, lane: &mut Lane) -> Result<(), Errno> {
        if batch.is_to_be_sorted() {
            let nodes = batch.sorting();
            if self.make_room(|runs| runs.has_nodes(nodes), lane).await
                && let Ok(_paid) = self.purse.take(SORTER)
                && let Some(mut sorter) = lane.make::<Sorter>().await
            {
                self.sort(batch, &mut sorter).ok_or(Errno::ENOMEM)?;
            }
        }
        let (branches, is_a_tree) =
            (batch.branches(), batch.is_a_tree(&self.cow.state.lock().runs));
        if is_a_tree && self.make_room(|runs| runs.has_nodes(branches), lane).await {
            let mut above = Above::default();
            let mut build = || batch.build(&mut above, &mut self.cow.state.lock().runs);
            while build().ok_or(Errno::ENOMEM)? {}
        }
        while !batch.is_empty() {
            let room = self.make_room(|runs| runs.has_room(SOME), lane).await;
            if !room || !batch.insert(SOME, &mut self.cow.state.lock().runs) {
                return Err(Errno::ENOMEM);
            }
        }
        Ok(())
    }

    /// Sorts the exceptions that were read by their chunks of the origin, unless a chunk is there
    /// twice. `None` if an exception was lost for lack of memory.
    fn sort(&self, batch: &mut Batch, sorter: &mut Sorter) -> Option<()> {
        sorter.begin(batch);
        while sorter.work(batch, &mut self.cow.state.lock().runs)? {}
        if sorter.begin_back(batch) {
            while sorter.work(batch, &mut self.cow.state.lock().runs)? {}
        }
        Some(())
    }

    /// Gets memory for exceptions until there is enough. `false` if it is not to be had.
    async fn make_room(&self, enough: impl Fn(&Runs) -> bool, lane: &mut Lane) -> bool {
        // The lane's buffer is not touched by this.
        while !enough(&self.cow.state.lock().runs) {
            if !self.feed(lane).await {
                return false;
            }
        }
        true
    }

    /// Makes sure that an area has nothing behind its last exception: a write that a crash has cut
    /// in pieces may have left some, which would be read once those before are there.
    async fn clean_tail(
        &self,
        area: Sector,
        entry: u64,
        geometry: Geometry,
        lane: &mut Lane,
    ) -> Result<(), Errno> {
        let unit = self.unit().max(1);
        let at = usize::try_from(entry).unwrap_or(0).saturating_mul(ENTRY);
        let (first, mut skip) = (at / unit, at % unit);
        let mut sector =
            Sector(area.0.saturating_add(bytes_to_sectors(first.saturating_mul(unit))));
        let end = area.0.saturating_add(geometry.chunk().0);
        // A sector fits into the buffer, which is some of them.
        let most = lane.buffer_sectors().0.max(1);
        let mut is_first = true;
        while let left @ 1.. = end.saturating_sub(sector.0) {
            let some = Sector(most.min(left));
            lane.read(self.place(sector), some).await?;
            let buffer = lane.buffer().get_mut(..bytes(some)).ok_or(Errno::EINVAL)?;
            let behind = buffer.get_mut(core::mem::take(&mut skip)..).unwrap_or(&mut []);
            let dirty = behind.iter().any(|byte| *byte != 0);
            behind.fill(0);
            if core::mem::take(&mut is_first) {
                let mut state = self.cow.state.lock();
                state.unit.iter_mut().zip(&*buffer).for_each(|(to, from)| *to = *from);
            }
            if dirty {
                lane.write(&[self.place(sector)], some, true).await.ok()?;
            }
            sector = Sector(sector.0.saturating_add(some.0));
        }
        Ok(())
    }

    /// Bytes in a sector of the store's device.
    fn unit(&self) -> usize {
        bytes(self.unit)
    }
}

fn bytes_to_sectors(bytes: usize) -> u64 {
    (bytes / DEV_BSIZE as usize) as u64
}

fn sectors(bytes: usize) -> Sector {
    Sector(bytes_to_sectors(bytes))
}
