// SPDX-License-Identifier: BSD-2-Clause

//! Writing the log: entries behind one another, by one lane at a time.

use super::format::{Entry, Kind, Super};
use super::{END, LogWrites, Quiesce, Unflushed, bytes};
use crate::job::Job;
use crate::lane::Lane;
use crate::{Errno, Sector};

impl LogWrites {
    /// Waits until no other lane writes to the log.
    pub(super) async fn lock(&self, lane: &mut Lane) {
        lane.until(&self.free, || {
            let mut state = self.state.lock();
            (!core::mem::replace(&mut state.busy, true)).then_some(())
        })
        .await;
    }

    pub(super) fn unlock(&self, lane: &Lane) {
        self.state.lock().busy = false;
        lane.raise(&self.free);
    }

    /// Ends the log: it is full, or broken.
    pub(super) fn give_up(&self, lane: &Lane) {
        self.state.lock().logging = false;
        lane.raise_event();
    }

    /// Puts the unflushed writes before number `before` into the log, then an entry of another
    /// kind, then the superblock.
    pub(crate) async fn commit(&self, before: u64, last: Option<Entry>, lane: &mut Lane) {
        self.lock(lane).await;
        let written = self.commit_locked(before, last, lane).await;
        self.unlock(lane);
        if written.is_err() {
            self.give_up(lane);
        }
    }

    async fn commit_locked(
        &self,
        before: u64,
        last: Option<Entry>,
        lane: &mut Lane,
    ) -> Result<(), Errno> {
        self.append_marks(lane).await?;
        self.append_unflushed(before, lane).await?;
        if let Some(entry) = last {
            self.append(entry, &[], lane).await?;
        }
        self.write_super(lane).await
    }

    /// Appends the unflushed writes before number `before`, and drops them.
    async fn append_unflushed(&self, before: u64, lane: &mut Lane) -> Result<(), Errno> {
        loop {
            let next = {
                let state = self.state.lock();
                state.unflushed.front().copied().filter(|_| state.first < before)
            };
            let Some(write) = next else { return Ok(()) };
            self.append_one(write, lane).await?;
            let mut state = self.state.lock();
            state.unflushed.pop_front();
            state.wanted = state.wanted.saturating_sub(self.taken(write.data()));
            state.first = state.first.saturating_add(1);
            if write.copy.is_some() {
                state.copied = state.copied.saturating_sub(1);
            }
        }
    }

    /// The number behind the last unflushed write that overlaps these sectors; 0 if none does.
    fn overlapped(&self, start: u64, length: u64) -> u64 {
        let end = start.saturating_add(length);
        let hit = |write: &Unflushed| {
            write.start < end && start < write.start.saturating_add(write.length)
        };
        let state = self.state.lock();
        let last = state.unflushed.iter().rposition(hit);
        last.map_or(0, |at| state.first.saturating_add(at as u64).saturating_add(1))
    }

    async fn append_one(&self, write: Unflushed, lane: &mut Lane) -> Result<(), Errno> {
        let kind = if write.copy.is_some() { Kind::Write } else { Kind::Discard };
        let entry = Entry::new(kind, write.start, write.length);
        let data = self.append(entry, &[], lane).await?;
        let (Some(data), Some(copy)) = (data, write.copy) else { return Ok(()) };
        let most = lane.buffer_sectors().0.max(self.unit);
        let mut done = 0u64;
        while done < write.length {
            let some = Sector(most.min(write.length.saturating_sub(done)));
            lane.read(self.on_log(copy.saturating_add(done)), some).await?;
            let to = self.on_log(data.saturating_add(done));
            lane.write(&[to], some, false).await.ok()?;
            done = done.saturating_add(some.0);
        }
        Ok(())
    }

    /// Appends an entry, and returns the place of its data; `None` when the log has ended.
    async fn append(
        &self,
        entry: Entry,
        text: &[u8],
        lane: &mut Lane,
    ) -> Result<Option<u64>, Errno> {
        let data = if entry.has_data() { entry.length } else { 0 };
        let end = lane.size(self.log).0;
        let at = {
            let mut state = self.state.lock();
            let next = state.tail.saturating_add(self.taken(data));
            // Copies of unflushed writes are not written over.
            let limit = if state.copied > 0 { state.copies.min(end) } else { end };
            if !state.logging {
                return Ok(None);
            }
            if next > limit {
                drop(state);
                return Err(Errno::ENOSPC);
            }
            let at = core::mem::replace(&mut state.tail, next);
            state.entries = state.entries.saturating_add(1);
            at
        };
        let unit = self.unit;
        let sector = lane.buffer().get_mut(..bytes(unit)).ok_or(Errno::EINVAL)?;
        entry.write(sector, text, unit);
        lane.write(&[self.on_log(at)], Sector(unit), false).await.ok()?;
        Ok(Some(at.saturating_add(unit)))
    }

    pub(super) async fn append_marks(&self, lane: &mut Lane) -> Result<(), Errno> {
        loop {
            let mark = self.state.lock().marks.pop_front();
            let Some(mark) = mark else { return Ok(()) };
            self.append(Entry::new(Kind::Mark, 0, 0), &mark, lane).await?;
        }
    }

    /// Writes the superblock, when all that it counts is on stable storage.
    pub(super) async fn write_super(&self, lane: &mut Lane) -> Result<(), Errno> {
        let entries = {
            let state = self.state.lock();
            if !state.logging {
                return Ok(());
            }
            state.entries
        };
        lane.flush(&[self.log]).await.ok()?;
        let unit = self.unit;
        let sector = lane.buffer().get_mut(..bytes(unit)).ok_or(Errno::EINVAL)?;
        Super { entries, sector_size: bytes(unit) as u32 }.write(sector);
        lane.write(&[self.on_log(0)], Sector(unit), true).await.ok()
    }

    /// Logs a FUA write that has been sent.
    pub(super) async fn log_fua(&self, job: &Job, lane: &mut Lane) -> Result<(), Errno> {
        self.append_marks(lane).await?;
        // Unflushed writes that this one overwrites must come before it.
        self.append_unflushed(self.overlapped(job.start().0, job.length().0), lane).await?;
        let entry = Entry::new(Kind::Fua, job.start().0, job.length().0);
        if let Some(data) = self.append(entry, &[], lane).await? {
            lane.send(job, &[self.on_log(data)]).await.ok()?;
        }
        self.write_super(lane).await
    }

    /// Completes the log, as [`Worker::stop`](crate::worker::Worker::stop) does.
    pub(super) async fn complete(&self, lane: &mut Lane) -> Result<(), Errno> {
        self.append_marks(lane).await?;
        let (tail, entries, count) = {
            let state = self.state.lock();
            (state.tail, state.entries, state.unflushed.len())
        };
        for at in 0..count {
            let write = self.state.lock().unflushed.get(at).copied();
            if let Some(write) = write {
                self.append_one(write, lane).await?;
            }
        }
        self.append(Entry::new(Kind::Mark, 0, 0), END.as_bytes(), lane).await?;
        self.write_super(lane).await?;
        let mut state = self.state.lock();
        if state.how != Quiesce::Remove {
            (state.tail, state.entries) = (tail, entries);
        }
        Ok(())
    }
}
