// SPDX-License-Identifier: BSD-2-Clause

//! Merging: the background lane of `snapshot-merge` brings exceptions back into the origin, from
//! the last one of the store backwards, a run at a time.
//!
//! In this order, so that whenever it stops each chunk has its content where the store says: the
//! other snapshots of the origin get exceptions of the chunks; writes of the chunks are held, and
//! those in flight waited for; the content is copied to the origin, and flushed; the entries become
//! zeroes in the store, the first one's sector last; then they go from memory. Copying may stop
//! anywhere, and begins anew.

use core::sync::atomic::AtomicBool;

use super::cow::{MERGED, Run, Tail};
use super::format::{ENTRY, Exception};
use super::{COPIES, Snapshot, bytes};
use crate::job::Place;
use crate::lane::Lane;
use crate::targets::disk_share::DiskShare;
use crate::units::DEV_BSIZE;
use crate::{Errno, Sector};

/// Bytes in a run, at most, if it has more than one chunk: writes of them wait while it is merged.
const RUN: u64 = 4 << 20;

/// Sectors for which other snapshots are asked at once.
const ASKED: u64 = 128;

/// Bytes of an area that are read at once, if a sector is not larger.
const WINDOW: usize = MERGED as usize * ENTRY;

/// Bytes of the lane's buffer, for a store's device with sectors of so many bytes: a window, and
/// the data that are copied at once.
pub fn buffer(unit: usize) -> usize {
    WINDOW.max(unit).saturating_add(COPIES)
}

/// A part of an area, at the start of the lane's buffer.
#[derive(Clone, Copy, Default)]
struct Window {
    area: u64,
    /// The window's first exception, and the one behind its last. Both are the first of a sector of
    /// the store's device.
    first: u64,
    end: u64,
}

impl Window {
    fn has(&self, last: Tail) -> bool {
        self.area == last.area && (self.first..self.end).contains(&last.entry)
    }
}

impl Snapshot {
    /// Merges until there is nothing left, it fails, or the device is being suspended.
    pub(super) async fn merge(&self, used: &AtomicBool, lane: &mut Lane) {
        self.shared.merger(Some((lane.waker(), self.signals.clone())));
        let merged = self.merge_all(used, lane).await;
        self.shared.merger(None);
        self.cow.rest(merged.is_err());
        // For programs in `dmsetup wait`.
        if merged != Ok(false) {
            lane.raise_event();
        }
        self.shared.wake();
    }

    /// `true` if all is merged, and was not before.
    async fn merge_all(&self, used: &AtomicBool, lane: &mut Lane) -> Result<bool, Errno> {
        let (mut share, mut window, mut merged) = (DiskShare::new(lane), Window::default(), false);
        loop {
            let may = || self.cow.may_merge(self.table);
            match lane.until_stopping(&self.signals.merge, may).await {
                None => return Ok(false),
                Some(false) => return Ok(merged),
                Some(true) => {}
            }
            if let Some(run) = self.cow.written() {
                self.forget(run, &mut window, lane).await?;
            } else {
                let run = self.last_run(&mut window, lane).await?;
                let copied = self.ask_others(run, lane).await
                    && self.hold(run, lane).await
                    && self.copy_back(run, used, &mut share, lane).await?;
                if !copied {
                    return Ok(false);
                }
                self.forget(run, &mut window, lane).await?;
            }
            merged = true;
            self.shared.wake();
        }
    }

    /// Reads the end of the store: its last exceptions, as many as are one run.
    ///
    /// # Errors
    /// EINVAL if the store does not have there what memory has, EIO if the run lies beyond a
    /// device's end, or those of the read.
    async fn last_run(&self, window: &mut Window, lane: &mut Lane) -> Result<Run, Errno> {
        let (geometry, tail, size) = {
            let state = self.cow.state.lock();
            (state.geometry, state.tail, state.cow_size)
        };
        let last = match (tail.entry.checked_sub(1), tail.area.checked_sub(1)) {
            (Some(entry), _) => Tail { entry, ..tail },
            (None, Some(area)) => Tail { area, entry: geometry.entries().wrapping_sub(1) },
            (None, None) => return Err(Errno::EINVAL),
        };
        self.look(window, last, lane).await?;
        let count = last.entry.wrapping_sub(window.first).saturating_add(1);
        let count = usize::try_from(count).unwrap_or(0);
        let entries = lane.buffer().as_chunks::<ENTRY>().0.get(..count).unwrap_or(&[]);
        let run = self.run_that_ends_at(last, entries)?;
        // The store has the run, and the origin at least a part of the last chunk.
        let end = run.new.checked_add(run.chunks).and_then(|end| geometry.sector(end));
        let last = run.old.checked_add(run.chunks.wrapping_sub(1));
        let last = last.and_then(|last| geometry.sector(last));
        let on_origin = last.is_some_and(|last| last < lane.size(self.origin));
        match end.is_some_and(|end| end <= size.min(lane.size(self.store))) && on_origin {
            true => Ok(run),
            false => Err(Errno::EIO),
        }
    }

    /// The longest run that may be merged at once and ends with the exception at `last`. `entries`
    /// are that exception's and those before it in its area, as the store has them.
    ///
    /// A store that another program has changed, or that has a chunk twice, is not to be trusted:
    /// only what is in memory too is merged, since the device shows that.
    ///
    /// # Errors
    /// EINVAL if the exception at `last` is not in memory, or does not end its run there.
    fn run_that_ends_at(&self, last: Tail, entries: &[[u8; ENTRY]]) -> Result<Run, Errno> {
        let state = self.cow.state.lock();
        let find = |exception: Exception| {
            state.runs.find(exception.old).filter(|found| found.new == exception.new)
        };
        let places = (0..=last.entry).rev().map(|entry| Tail { entry, ..last });
        let mut exceptions =
            entries.iter().rev().flat_map(|bytes| Exception::read_all(bytes)).zip(places);

        let (Exception { old, new }, at) = exceptions.next().ok_or(Errno::EINVAL)?;
        if find(Exception { old, new }).is_none_or(|found| found.left > 1) {
            return Err(Errno::EINVAL);
        }
        let mut run = Run { old, new, chunks: 1, at };
        let most = RUN.wrapping_shr(9).wrapping_shr(state.geometry.shift).clamp(1, MERGED);
        for (chunks, (exception, at)) in (2..=most).zip(exceptions) {
            if !run.follows(exception) || find(exception).is_none() {
                break;
            }
            run = Run { old: exception.old, new: exception.new, chunks, at };
        }
        Ok(run)
    }

    /// Reads a part of an area that ends with the sector of an exception, unless it is there.
    async fn look(&self, window: &mut Window, last: Tail, lane: &mut Lane) -> Result<(), Errno> {
        if window.has(last) {
            return Ok(());
        }
        let geometry = self.cow.state.lock().geometry;
        let unit = bytes(self.unit).max(ENTRY);
        let in_unit = (unit / ENTRY) as u64;
        let end = last.entry.saturating_add(1).next_multiple_of(in_unit).min(geometry.entries());
        let first = end.saturating_sub((WINDOW.max(unit) / ENTRY) as u64);
        let sector = self.sector_of(Tail { entry: first, ..last })?;
        *window = Window::default();
        lane.read(self.place(sector), in_sectors(end.wrapping_sub(first))).await?;
        *window = Window { area: last.area, first, end };
        Ok(())
    }

    /// The sector of the store where an exception stands that is the first of a sector.
    fn sector_of(&self, at: Tail) -> Result<Sector, Errno> {
        let geometry = self.cow.state.lock().geometry;
        let area = geometry.area(at.area).and_then(|chunk| geometry.sector(chunk));
        let sector = area.and_then(|area| area.0.checked_add(in_sectors(at.entry).0));
        sector.map(Sector).ok_or(Errno::EIO)
    }

    /// The sectors of the origin that a run has.
    fn on_origin(&self, run: Run, lane: &Lane) -> (Sector, u64) {
        let geometry = self.cow.state.lock().geometry;
        let start = geometry.sector(run.old).unwrap_or(Sector::ZERO);
        let left = lane.size(self.origin).0.saturating_sub(start.0);
        (start, run.chunks.saturating_mul(geometry.chunk().0).min(left))
    }

    /// Asks the other snapshots of the origin for exceptions of a run's chunks, and waits until
    /// they have them. `false` when the device is being suspended.
    async fn ask_others(&self, run: Run, lane: &mut Lane) -> bool {
        let (start, length) = self.on_origin(run, lane);
        let mut done = 0u64;
        while done < length {
            let some = Sector(ASKED.min(length.wrapping_sub(done)));
            let at = Sector(start.0.saturating_add(done));
            let wakes = self.shared.wakes();
            if self.shared.ask(at, some) {
                done = done.saturating_add(some.0);
                continue;
            }
            let woken = || (self.shared.wakes() != wakes).then_some(());
            if lane.until_stopping(&self.signals.merge, woken).await.is_none() {
                return false;
            }
        }
        !lane.stopping()
    }

    /// Holds writes of a run's chunks, and waits for those in flight. `false` when the device is
    /// being suspended.
    async fn hold(&self, run: Run, lane: &mut Lane) -> bool {
        self.cow.block(run);
        let drained = || self.cow.is_drained(run);
        lane.until_stopping(&self.signals.merge, drained).await.is_some()
    }

    /// Copies a run to the origin, and flushes it. `false` when the device is being suspended.
    async fn copy_back(
        &self,
        run: Run,
        used: &AtomicBool,
        share: &mut DiskShare,
        lane: &mut Lane,
    ) -> Result<bool, Errno> {
        let from = self.cow.state.lock().geometry.sector(run.new).ok_or(Errno::EIO)?;
        let (to, length) = self.on_origin(run, lane);
        let skip = in_sectors((WINDOW.max(bytes(self.unit)) / ENTRY) as u64);
        let most = (COPIES / DEV_BSIZE as usize) as u64;
        let mut done = 0u64;
        while done < length {
            if !share.pass(used, lane).await {
                return Ok(false);
            }
            let some = Sector(most.min(length.wrapping_sub(done)));
            let on = |sector: Sector| Sector(sector.0.saturating_add(done));
            lane.read_at(self.place(on(from)), self.whole(some), skip).await?;
            let to = Place { component: self.origin, sector: on(to) };
            lane.write_at(&[to], some, skip, false).await.ok()?;
            done = done.saturating_add(some.0);
        }
        lane.flush(&[self.origin]).await.ok()?;
        Ok(true)
    }

    /// Takes a run that is in the origin from the store, and then from memory. Where that fails it
    /// is not known which of its entries are there.
    async fn forget(&self, run: Run, window: &mut Window, lane: &mut Lane) -> Result<(), Errno> {
        let zeroed = self.zero_entries(run, window, lane).await;
        if zeroed.is_err() {
            self.cow.doubt();
            *window = Window::default();
        }
        let unit = zeroed?;
        self.cow.forget(run, lane.buffer().get(unit..).unwrap_or(&[]));
        Ok(())
    }

    /// Writes zeroes over a run's entries: the sector with the first of them last, which ends the
    /// exceptions for a reader of the store. Returns the place of that sector in the buffer, as the
    /// tail has it then.
    async fn zero_entries(
        &self,
        run: Run,
        window: &mut Window,
        lane: &mut Lane,
    ) -> Result<usize, Errno> {
        let last = run.at.entry.saturating_add(run.chunks.wrapping_sub(1));
        self.look(window, Tail { entry: last, ..run.at }, lane).await?;
        let unit = bytes(self.unit).max(ENTRY);
        let in_unit = (unit / ENTRY) as u64;
        // In the window, in sectors of the store's device.
        let first = run.at.entry.checked_sub(window.first).ok_or(Errno::EINVAL)?;
        let last = last.checked_sub(window.first).ok_or(Errno::EINVAL)?;
        let (first_unit, last_unit) = (first / in_unit.max(1), last / in_unit.max(1));
        let behind = last_unit.saturating_add(1).saturating_mul(in_unit);
        let at = |entry: u64| usize::try_from(entry).unwrap_or(0).saturating_mul(ENTRY);
        lane.buffer().get_mut(at(first)..at(behind)).ok_or(Errno::EINVAL)?.fill(0);
        let start = first_unit.saturating_mul(in_unit);
        let sector = |entry: u64| {
            let entry = window.first.saturating_add(entry);
            self.sector_of(Tail { entry, ..run.at }).map(|sector| self.place(sector))
        };
        if let rest @ 1.. = last_unit.saturating_sub(first_unit) {
            let second = start.saturating_add(in_unit);
            let length = in_sectors(rest.saturating_mul(in_unit));
            let skip = in_sectors(second);
            lane.write_at(&[sector(second)?], length, skip, true).await.ok()?;
        }
        let skip = in_sectors(start);
        lane.write_at(&[sector(start)?], in_sectors(in_unit), skip, true).await.ok()?;
        Ok(at(start))
    }
}

/// The sectors that so many entries take: those of a sector of a device, or more.
fn in_sectors(entries: u64) -> Sector {
    Sector(entries / (u64::from(DEV_BSIZE) / ENTRY as u64))
}
