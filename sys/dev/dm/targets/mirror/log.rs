// SPDX-License-Identifier: BSD-2-Clause

//! The log: read when a table starts; written before a region is, and when regions are clean again.

use super::failure::Kind;
use super::format::{self, BITMAP, Header};
use super::params::Word;
use super::{LOG_BYTES, Mirror, State, bytes};
use crate::Errno;
use crate::Sector;
use crate::job::Place;
use crate::lane::Lane;
use crate::target::ComponentIndex;
use crate::targets::bits;
use crate::units::DEV_BSIZE;
use core::sync::atomic::Ordering;

/// Milliseconds between two looks for regions that are not written any more. A region's mark goes
/// after one to two of them.
const REST: u32 = 500;

/// Words of the bitmaps that are looked at with the lock held. It is the longest that the lock is
/// held: 32,768 regions, with the counts of their writes.
const WORDS: usize = 1024;

/// The next step in writing a log.
enum Next {
    /// A stretch is to be written: its first byte, and how many.
    Write(usize, usize),
    /// Nothing was found before this byte.
    Look(usize),
    /// Nothing is left.
    End,
}

impl Mirror {
    /// The number of regions in sync before a log is read.
    pub(super) fn first_sync(&self) -> u64 {
        if self.log.word == Some(Word::NoSync) { self.regions } else { 0 }
    }

    /// Bytes of the log that are read or written at once: whole sectors of its device.
    fn log_step(&self) -> usize {
        let unit = bytes(self.log.unit).max(1);
        LOG_BYTES.max(unit) / unit * unit
    }

    /// Finds out which regions are in sync, and writes that to the log. A failure of the log is
    /// recorded and reported; nothing is in sync then, if it is the table's first start.
    pub(super) async fn open_log(&self, lane: &mut Lane) {
        let first = !core::mem::replace(&mut self.state.lock().started, true);
        let set = first && self.log.word == Some(Word::NoSync);
        let known = match self.log.disk {
            None => None,
            Some(disk) => self.read_log(disk, first, lane).await.ok(),
        };
        if self.log.disk.is_some() && known.is_none() {
            self.log_has_failed(lane);
        }
        let done = {
            let mut state = self.state.lock();
            let State { clean, .. } = &mut *state;
            if first || known.is_some() {
                clean.fill(known.unwrap_or(0), self.regions, set);
            }
            let synced = self.sync.change(|at, word| {
                let Some(clean) = clean.0.get_mut(at) else { return 0 };
                match (first, known) {
                    (true, _) => {}
                    // Regions that went out of sync since the last start stay so.
                    (false, Some(_)) => *clean &= word,
                    // No log was read: the state in memory from the stop is true.
                    (false, None) => *clean = word,
                }
                *clean
            });
            state.synced = synced;
            if synced != self.regions {
                state.in_sync = false;
                self.whole.store(false, Ordering::Release);
            }
            state.idle.0.fill(0);
            // Until it is written, it may have anything.
            state.logged.0.fill(u32::MAX);
            state.recovering = None;
            self.all_in_sync(&mut state)
        };
        if done {
            lane.raise_event();
        }
        // All of it: the header may be new, and the device may hold anything.
        self.write_log(true, lane).await;
    }

    /// Looks whether all regions are in sync. `true` if they are, and were not before: then
    /// failures of before are forgotten.
    pub(super) fn all_in_sync(&self, state: &mut State) -> bool {
        let all = state.synced == self.regions;
        if !all || state.in_sync {
            return false;
        }
        state.in_sync = true;
        state.errors.iter_mut().for_each(|errors| *errors = Default::default());
        self.whole.store(true, Ordering::Release);
        true
    }

    /// Reads the bitmap. Returns the number of regions that the log knew.
    async fn read_log(
        &self,
        disk: ComponentIndex,
        first: bool,
        lane: &mut Lane,
    ) -> Result<u64, Errno> {
        let (all, step) = (bytes(self.log.sectors), self.log_step());
        let mut known = 0;
        let mut at = 0usize;
        while at < all {
            let length = step.min(all.saturating_sub(at));
            let sectors = Sector(length as u64 / u64::from(DEV_BSIZE));
            lane.read(log_place(disk, at), sectors).await?;
            let bytes = lane.buffer().get(..length).unwrap_or(&[]);
            if at == 0 {
                known = match Header::read(bytes) {
                    // The table's word counts at its first start.
                    Header::Log(_) if first && self.log.word.is_some() => 0,
                    Header::Log(regions) => regions.min(self.regions),
                    Header::None => 0,
                    Header::Unknown => return Err(Errno::EINVAL),
                };
            }
            let mut state = self.state.lock();
            format::read(bytes, at, |at, word| state.clean.set(at, word));
            drop(state);
            at = at.saturating_add(length);
        }
        Ok(known)
    }

    /// Records that the log has failed, which is an event the first time.
    fn log_has_failed(&self, lane: &Lane) {
        let before = self.state.lock().log_failed.replace(Kind::Write);
        if before.is_none() {
            lane.raise_event();
        }
    }

    /// Finds the next stretch of the log to be written, from byte `from` on; with `all`, all of it
    /// is. Looks at some words at a time, for the lock is not to be held for long.
    fn next_stretch(&self, state: &State, from: usize, all: bool) -> Next {
        let (size, step) = (bytes(self.log.sectors), self.log_step());
        let unit = bytes(self.log.unit).max(1);
        let down = |byte: usize| byte / unit * unit;
        if all {
            return match size.saturating_sub(from) {
                0 => Next::End,
                left => Next::Write(from, step.min(left)),
            };
        }
        let word_at = |byte: usize| byte.saturating_sub(BITMAP) / 4;
        let byte_of = |word: usize| word.saturating_mul(4).saturating_add(BITMAP);
        let differs = |word: &usize| state.clean.0.get(*word) != state.logged.0.get(*word);
        let (first, words) = (word_at(from), state.clean.0.len());
        let end = first.saturating_add(WORDS).min(words);
        let Some(word) = (first..end).find(differs) else {
            return if end < words { Next::Look(byte_of(end)) } else { Next::End };
        };
        let start = down(byte_of(word));
        let end = start.saturating_add(step).min(size);
        let last = (word..word_at(end)).rev().find(differs).unwrap_or(word);
        let end = down(byte_of(last)).saturating_add(unit).min(end);
        Next::Write(start, end.saturating_sub(start))
    }

    /// Writes the log where it is not as it should be, or all of it. `true` if it is on stable
    /// storage. The caller has set `log_busy`, or is the control lane, beside which no other runs.
    pub(super) async fn write_log(&self, all: bool, lane: &mut Lane) -> bool {
        let Some(disk) = self.log.disk else {
            // The log is the bitmap itself.
            let mut state = self.state.lock();
            let State { clean, logged, .. } = &mut *state;
            logged.0.copy_from_slice(&clean.0);
            return true;
        };
        let mut from = 0;
        loop {
            let next = {
                let mut state = self.state.lock();
                let next = self.next_stretch(&state, from, all);
                if let Next::Write(start, length) = next {
                    let buffer = lane.buffer().get_mut(..length).unwrap_or(&mut []);
                    format::write(buffer, start, self.regions, &state.clean.0);
                    // Until it is known which of the two the log has, it may have either.
                    format::read(buffer, start, |at, word| state.logged.or(at, word));
                }
                next
            };
            let (start, length) = match next {
                Next::Write(start, length) => (start, length),
                Next::Look(at) => {
                    from = at;
                    continue;
                }
                Next::End => break,
            };
            let sectors = Sector(length as u64 / u64::from(DEV_BSIZE));
            let to = [log_place(disk, start)];
            let written = lane.write(&to, sectors, true).await.ok().is_ok();
            if !written {
                self.log_has_failed(lane);
                return false;
            }
            let buffer = lane.buffer().get(..length).unwrap_or(&[]);
            let mut state = self.state.lock();
            format::read(buffer, start, |at, word| state.logged.set(at, word));
            drop(state);
            from = start.saturating_add(length);
        }
        self.state.lock().log_failed = None;
        true
    }

    /// Lets another lane write the log, and requeues jobs that waited for a mark.
    pub(super) fn log_is_free(&self, lane: &Lane) {
        self.state.lock().log_busy = false;
        lane.resubmit(&self.marking);
        lane.raise(&self.changed);
    }

    /// Takes marks away, as long as the device runs.
    pub(super) async fn clean(&self, lane: &mut Lane) {
        if self.log.disk.is_none() {
            return;
        }
        loop {
            let marked = || self.state.lock().marked.then_some(());
            if lane.until_stopping(&self.dirtied, marked).await.is_none() {
                return;
            }
            if !lane.sleep(REST).await {
                return;
            }
            self.clean_idle(lane).await;
        }
    }

    /// Takes away the marks of regions that neither a write nor recovery has written to since the
    /// last time.
    async fn clean_idle(&self, lane: &mut Lane) {
        if core::mem::replace(&mut self.state.lock().flushing, true) {
            // Another lane's flush is in flight, and began before some of the writes were over.
            return;
        }
        // A region that is idle now, and still is after the flush, is on stable storage. No bit is
        // set meanwhile.
        if self.change_words(&mut |_, word| *word.idle & word.dirty()) == 0 {
            self.flush_is_over(lane);
            self.note_idle();
            return;
        }
        let failed = self.flush_legs(lane).await;
        self.flush_failed(failed, lane);
        if failed == 0 {
            self.change_words(&mut |_, word| {
                let done = *word.idle & word.dirty();
                *word.clean |= done;
                done
            });
        }
        self.flush_is_over(lane);
        self.note_idle();
        let taken = || (!core::mem::replace(&mut self.state.lock().log_busy, true)).then_some(());
        lane.until(&self.changed, taken).await;
        self.write_log(false, lane).await;
        self.log_is_free(lane);
    }

    /// Notes the marked regions that no write is in flight to.
    fn note_idle(&self) {
        self.state.lock().marked = false;
        let marked = self.change_words(&mut |writes, word| {
            let dirty = word.dirty();
            let busy = writes.iter().enumerate().filter(|(_, writes)| **writes != 0);
            let busy = busy.fold(0, |bits, (bit, _)| bits | 1u32.wrapping_shl(bit as u32));
            *word.idle |= dirty & !busy;
            dirty
        });
        self.state.lock().marked |= marked != 0;
    }

    /// Calls `change` with each word of the bitmaps and the counts of its regions' writes. Returns
    /// the number of bits that are set in all that it returns. The kernel's object
    /// has it once: `change` is no type parameter.
    fn change_words(&self, change: &mut dyn FnMut(&[u16], &mut Word32<'_>) -> u32) -> u64 {
        let mut sum = 0u64;
        let mut first = 0;
        while first < bits::words(self.regions) {
            let mut state = self.state.lock();
            let State { clean, idle, writes, .. } = &mut *state;
            let clean = clean.0.iter_mut().enumerate().skip(first).take(WORDS);
            let writes = writes.chunks(32).skip(first);
            for (((at, clean), idle), writes) in
                clean.zip(idle.0.iter_mut().skip(first)).zip(writes)
            {
                let mut word = Word32 { clean, idle, synced: self.sync.word(at) };
                sum = sum.wrapping_add(change(writes, &mut word).count_ones().into());
            }
            first = first.saturating_add(WORDS);
        }
        sum
    }

    /// Closes the log when no I/O is left: regions in sync are marked clean. So they are
    /// in a log in memory, for a start of the same table.
    pub(super) async fn close_log(&self, lane: &mut Lane) {
        let failed = self.flush_legs(lane).await;
        self.flush_failed(failed, lane);
        if failed == 0 {
            self.change_words(&mut |_, word| {
                *word.clean |= word.synced;
                0
            });
        }
        self.write_log(false, lane).await;
    }
}

fn log_place(disk: ComponentIndex, byte: usize) -> Place {
    Place { component: disk, sector: Sector(byte as u64 / u64::from(DEV_BSIZE)) }
}

/// A word of each bitmap.
struct Word32<'s> {
    clean: &'s mut u32,
    idle: &'s mut u32,
    synced: u32,
}

impl Word32<'_> {
    /// Regions in sync that are not clean.
    fn dirty(&self) -> u32 {
        self.synced & !*self.clean
    }
}
