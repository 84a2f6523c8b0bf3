// SPDX-License-Identifier: BSD-2-Clause

//! A snapshot's resident lanes: they copy chunks, commit exceptions and get memory. They go on
//! while the snapshot's device is suspended, since the origin waits for them.

use super::cow::{Health, Kind, Task};
use super::format::{ENTRY, Header};
use super::runs::{BLOCK, Block};
use super::{COPY, Snapshot, bytes};
use crate::job::Place;
use crate::lane::Lane;
use crate::units::DEV_BSIZE;
use crate::{Errno, Sector};

/// A lane's part, by its number.
pub const COMMITS: usize = 0;
pub const GROWS: usize = 1;
pub const COPIES: usize = 2;

/// The number of times that a commit lets other lanes run first, at most.
const YIELDS: usize = 16;

impl Snapshot {
    /// Copies the chunks that are queued.
    pub(super) async fn copy(&self, lane: &mut Lane) {
        let waker = lane.waker();
        loop {
            let next = || {
                let next = self.cow.next_copy(self.table).map(Some);
                // The lane that commits lets go of the snapshot when nothing is pending any more.
                next.or_else(|| (waker.ending() && !self.is_keeper()).then_some(None))
            };
            let Some((number, exception)) = lane.until(&self.signals.work, next).await else {
                return;
            };
            let copied = self.copy_chunk(exception.old, exception.new, lane).await;
            self.cow.copied(number, copied.is_ok());
        }
    }

    /// Copies a chunk of the origin into the store, up to the origin's end, or behind it to the end
    /// of a sector of the store's.
    async fn copy_chunk(&self, old: u64, new: u64, lane: &mut Lane) -> Result<(), Errno> {
        let (geometry, end) = {
            let state = self.cow.state.lock();
            (state.geometry, state.origin_size)
        };
        let from = geometry.sector(old).filter(|from| *from < end);
        let (Some(from), Some(to)) = (from, geometry.sector(new)) else { return Err(Errno::EIO) };
        let all = geometry.chunk().0.min(end.0.wrapping_sub(from.0));
        let most = lane.buffer_sectors().0.min((COPY / DEV_BSIZE as usize) as u64);
        let mut done = 0u64;
        while done < all {
            let length = Sector(most.min(all.wrapping_sub(done)));
            let at = |component, sector: Sector| Place {
                component,
                sector: Sector(sector.0.saturating_add(done)),
            };
            lane.read(at(self.origin, from), length).await?;
            let written = self.whole(length);
            lane.write(&[at(self.store, to)], written, false).await.ok()?;
            done = done.saturating_add(length.0.max(1));
        }
        Ok(())
    }

    /// Commits exceptions, and marks the store of a snapshot that is lost.
    pub(super) async fn commit(&self, lane: &mut Lane) {
        let waker = lane.waker();
        loop {
            let next = || {
                let next = self.cow.next_task(self.table, waker.ending()).map(Some);
                next.or_else(|| (waker.ending() && !self.is_keeper()).then_some(None))
            };
            match lane.until(&self.signals.ready, next).await {
                None => return,
                Some(Task::Event) => lane.raise_event(),
                Some(Task::Size) => {
                    self.ask_size(lane);
                    self.shared.wake();
                }
                Some(Task::Commit(count)) => {
                    let count = self.gather(count, lane).await;
                    if self.commit_some(count, lane).await.is_err() {
                        self.cow.fail(&mut self.cow.state.lock());
                    }
                    self.cow.is_done();
                    self.shared.wake();
                }
                Some(Task::Invalidate) => {
                    // A store that cannot be marked is lost all the same.
                    let _ = self.mark_invalid(lane).await;
                    // Before the origin does not wait for reads any more.
                    self.cow.ask_all();
                    {
                        let mut state = self.cow.state.lock();
                        state.health = Health::Invalid;
                        state.give_up();
                    }
                    self.cow.is_done();
                    lane.raise_event();
                    self.shared.wake();
                }
                Some(Task::Close) => self.let_go(),
            }
        }
    }

    /// Lets other lanes run before a commit, as long as more exceptions are ready after they have:
    /// those that come together are committed together.
    async fn gather(&self, mut count: usize, lane: &mut Lane) -> usize {
        for _ in 0..YIELDS {
            lane.yield_now().await;
            match self.cow.ready_now() {
                more if more > count => count = more,
                _ => break,
            }
        }
        count
    }

    /// Looks whether the store's device has grown.
    fn ask_size(&self, lane: &Lane) {
        let size = lane.size(self.store);
        let mut state = self.cow.state.lock();
        if size > state.cow_size {
            state.cow_size = size;
        } else {
            state.full_at = Some(state.cow_size);
        }
    }

    /// Commits the first pending exceptions: their data, then their entries.
    async fn commit_some(&self, count: usize, lane: &mut Lane) -> Result<(), Errno> {
        let (kind, geometry, tail) = {
            let state = self.cow.state.lock();
            (state.kind, state.geometry, state.tail)
        };
        if kind != Kind::Transient {
            if tail.entry.saturating_add(count as u64) >= geometry.entries() {
                // The next area is empty before an entry fills this one, after which a reader of
                // the store goes on there.
                let next = geometry.area(tail.area.saturating_add(1));
                let next = next.and_then(|chunk| geometry.sector(chunk)).ok_or(Errno::EIO)?;
                self.zero(next, geometry.chunk(), lane).await?;
            }
            lane.flush(&[self.store]).await.ok()?;
            let (start, length) = self.cow.fill(count, lane.buffer());
            let area = geometry.area(tail.area).and_then(|chunk| geometry.sector(chunk));
            let area = area.ok_or(Errno::EIO)?;
            let sector = Sector(area.0.saturating_add((start / DEV_BSIZE as usize) as u64));
            let length = Sector((length / DEV_BSIZE as usize) as u64);
            lane.write(&[self.place(sector)], length, true).await.ok()?;
        }
        self.cow.publish(count, lane.buffer());
        Ok(())
    }

    /// Writes zeroes to sectors of the store.
    pub(super) async fn zero(
        &self,
        start: Sector,
        length: Sector,
        lane: &mut Lane,
    ) -> Result<(), Errno> {
        lane.buffer().fill(0);
        let (most, mut done) = (lane.buffer_sectors().0.max(1), 0u64);
        while done < length.0 {
            let some = Sector(most.min(length.0.wrapping_sub(done)));
            let at = self.place(Sector(start.0.saturating_add(done)));
            lane.write(&[at], some, false).await.ok()?;
            done = done.saturating_add(some.0);
        }
        Ok(())
    }

    /// Says in the store's header that it is lost.
    async fn mark_invalid(&self, lane: &mut Lane) -> Result<(), Errno> {
        let (kind, chunk, unit) = {
            let state = self.cow.state.lock();
            (state.kind, state.geometry.chunk(), state.unit.len())
        };
        if kind == Kind::Transient {
            return Ok(());
        }
        let buffer = lane.buffer().get_mut(..unit).ok_or(Errno::EIO)?;
        Header::write(buffer, false, chunk.0 as u32);
        let length = Sector((unit / DEV_BSIZE as usize) as u64);
        lane.write(&[self.place(Sector::ZERO)], length, true).await.ok()
    }

    /// Lets go of the snapshot, since the table goes: the origin waits for it no more, and it is
    /// lost for a table that has the same state. Does nothing if another table has taken it over.
    fn let_go(&self) {
        let keeper = {
            let mut state = self.cow.state.lock();
            if !state.is_kept_by(self.table) {
                return;
            }
            self.cow.let_go(&mut state);
            let keeper = state.keeper.take();
            if let Some(keeper) = &keeper {
                keeper.waker.look_again();
            }
            keeper
        };
        drop(keeper);
        self.shared.remove(&self.cow);
        self.shared.wake();
    }

    /// Gets memory for exceptions before it is needed.
    pub(super) async fn grow(&self, lane: &mut Lane) {
        let waker = lane.waker();
        loop {
            let next = || {
                let hungry = self.cow.is_hungry(self.table).then_some(true);
                hungry.or_else(|| (waker.ending() && !self.is_keeper()).then_some(false))
            };
            if !lane.until(&self.signals.hungry, next).await {
                return;
            }
            if !self.feed(lane).await {
                self.cow.starve();
            }
            self.shared.wake();
        }
    }

    /// Gets memory for some more exceptions. `false` if none is to be had.
    pub(super) async fn feed(&self, lane: &mut Lane) -> bool {
        if !self.cow.state.lock().runs.can_grow() {
            return false;
        }
        let Ok(share) = self.purse.take(BLOCK) else { return false };
        let Some(block) = lane.make::<Block>().await else { return false };
        self.cow.feed(block, share);
        true
    }

    /// Rounds up to whole sectors of the store's device.
    pub(super) fn whole(&self, length: Sector) -> Sector {
        // A chunk has whole ones, so that there is no overflow.
        Sector(length.0.next_multiple_of(self.unit.0.max(1)))
    }

    pub(super) fn is_keeper(&self) -> bool {
        self.cow.state.lock().is_kept_by(self.table)
    }

    pub(super) fn place(&self, sector: Sector) -> Place {
        Place { component: self.store, sector }
    }
}

/// Bytes of a resident lane's buffer, for a store's device with sectors of `unit` bytes and chunks
/// of so many sectors.
pub fn buffer(unit: usize, chunk: Sector) -> usize {
    let entries = super::cow::BATCH.saturating_mul(ENTRY);
    let commit = unit.saturating_mul(2).saturating_add(entries).next_multiple_of(unit.max(1));
    bytes(chunk).clamp(4096, COPY).max(commit)
}
