// SPDX-License-Identifier: BSD-2-Clause

//! Legs that fail: the record of failures, and their consequences for the I/O.
//!
//! A write that some leg has not taken puts its region out of sync, and the region has a source
//! that took it: the source as it was, or, if that has failed and all regions were in sync before,
//! another leg. The write is then as the table's features want it:
//!
//! | | some legs took it | not the source, which cannot be another | no leg did |
//! |---|---|---|---|
//! | no features | done | EIO | EIO |
//! | `handle_errors` | waits for another table | waits for another table | EIO |
//! | `handle_errors keep_log` | done | EIO | EIO |
//!
//! With `handle_errors` alone, later writes of regions out of sync wait too, until all is in sync
//! again.
//!
//! A leg's flush that fails is a failure of all writes since its last one. With `handle_errors`
//! alone, and if it is the first leg, which a table begins with as its source, later flushes wait
//! too: they would promise writes that other legs alone may have.

use super::{Mirror, State, has, write};
use crate::Errno;
use crate::job::Job;
use crate::lane::Lane;
use core::sync::atomic::Ordering;
use dm_sync::Guard;

/// The kinds of I/O that may fail on a leg, or on the log's device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A flush.
    Flush,
    /// A write.
    Write,
    /// A read or a write of recovery.
    Sync,
    /// A read.
    Read,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Flush, Kind::Write, Kind::Sync, Kind::Read];

    /// The letter that a status has for it.
    pub fn letter(self) -> char {
        match self {
            Kind::Flush => 'F',
            Kind::Write => 'D',
            Kind::Sync => 'S',
            Kind::Read => 'R',
        }
    }
}

/// The kinds of failures of one leg.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Errors(u8);

impl Errors {
    /// Adds a kind. `true` if it is a new one.
    pub fn add(&mut self, kind: Kind) -> bool {
        let bit = 1u8.wrapping_shl(kind as u32);
        let new = self.0 & bit == 0;
        self.0 |= bit;
        new
    }

    /// `true` if nothing has failed.
    pub fn none(self) -> bool {
        self.0 == 0
    }

    /// `true` if this kind has failed.
    pub fn has(self, kind: Kind) -> bool {
        self.0 & 1u8.wrapping_shl(kind as u32) != 0
    }

    /// `true` if the leg has not taken something that was written.
    pub fn lost(self) -> bool {
        self.has(Kind::Flush) || self.has(Kind::Write)
    }

    /// The letter of the worst; `A` if there is none.
    pub fn letter(self) -> char {
        Kind::ALL.into_iter().find(|kind| self.has(*kind)).map_or('A', Kind::letter)
    }
}

/// The fate of a write or flush that all legs have answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The write is done.
    Done,
    /// The write waits for another table.
    Hold,
    /// The write has failed.
    Fail,
}

impl Mirror {
    /// Remembers failures of legs, a bit each. `true` if they are news.
    fn remember(&self, state: &mut State, failed: u32, kind: Kind) -> bool {
        let mut news = false;
        for (leg, errors) in state.errors.iter_mut().enumerate() {
            news |= has(failed, leg) && errors.add(kind);
        }
        self.whole.store(false, Ordering::Release);
        news
    }

    /// Moves the source to another leg, if it is among those that have not taken a write or a flush
    /// and all regions were in sync.
    fn choose_source(&self, state: &State, failed: u32) {
        if !has(failed, self.source()) || !state.in_sync {
            return;
        }
        let mut legs = state.errors.iter().enumerate();
        if let Some((leg, _)) = legs.find(|(leg, errors)| errors.none() && !has(failed, *leg)) {
            self.source.store(leg as u32, Ordering::Release);
        }
    }

    /// Puts a region out of sync.
    fn out_of_sync(&self, state: &mut State, region: u64) {
        if self.sync.put(region, false) {
            state.synced = state.synced.saturating_sub(1);
        }
        state.in_sync = false;
    }

    /// The fate of a write or flush that these legs, a bit each, or all legs have not taken: see
    /// the table above.
    fn verdict(&self, failed: u32, all: bool) -> Verdict {
        match () {
            () if all => Verdict::Fail,
            () if self.features.hold() => Verdict::Hold,
            () if has(failed, self.source()) => Verdict::Fail,
            () => Verdict::Done,
        }
    }

    /// Remembers that a leg has failed with something that another can do.
    pub(super) fn leg_failed(&self, leg: usize, kind: Kind, lane: &Lane) {
        let failed = 1u32.wrapping_shl(leg as u32);
        if self.remember(&mut self.state.lock(), failed, kind) {
            lane.raise_event();
        }
    }

    /// Ends a write that some leg has not taken, or holds it.
    pub(super) fn write_failed(&self, job: Job, lane: &Lane) {
        let (failed, all) = write::failed_legs(&job, self.legs.len());
        let (news, verdict) = {
            let mut state = self.state.lock();
            // Before the region is out of sync, so that a read that sees it so goes to the right
            // leg.
            self.choose_source(&state, failed);
            let news = self.remember(&mut state, failed, Kind::Write);
            self.out_of_sync(&mut state, self.region(job.start()));
            (news, self.verdict(failed, all))
        };
        self.write_over(&job);
        if news {
            lane.raise_event();
        }
        self.act(job, verdict, lane);
    }

    /// Puts regions that may have lost writes out of sync, after a flush that failed on these legs
    /// (a bit each).
    pub(super) fn flush_failed(&self, failed: u32, lane: &Lane) -> Verdict {
        if failed == 0 {
            return Verdict::Done;
        }
        let (news, verdict) = {
            let mut state = self.state.lock();
            self.choose_source(&state, failed);
            let news = self.remember(&mut state, failed, Kind::Flush);
            // Out of sync is everything written since the last flush that reached all legs.
            let clean = &state.clean.0;
            let synced = self.sync.change(|at, word| word & clean.get(at).copied().unwrap_or(0));
            state.in_sync &= synced == state.synced;
            state.synced = synced;
            // They are no longer in sync, and may be recovered while the next flush is in flight.
            state.idle.0.fill(0);
            state.spoilt = true;
            (news, self.verdict(failed, failed.count_ones() as usize >= self.legs.len()))
        };
        if news {
            lane.raise_event();
        }
        verdict
    }

    /// Ends, holds or gives back a job, as the verdict says.
    pub(super) fn act(&self, job: Job, verdict: Verdict, lane: &Lane) {
        match verdict {
            Verdict::Done => job.done(),
            Verdict::Hold => self.hold(job, lane),
            Verdict::Fail if lane.keeps_failed() => job.give_back(),
            Verdict::Fail => job.fail(Errno::EIO),
        }
    }

    /// Holds a job until another table comes, or all legs are well again.
    pub(super) fn hold(&self, job: Job, lane: &Lane) {
        self.hold_locked(self.state.lock(), job, lane);
    }

    /// [`Mirror::hold`] of a job that recovery may let go on, with the lock held in which it was
    /// found that not all is in sync: recovery looks here after it has had the lock.
    #[inline(never)]
    pub(super) fn hold_locked(&self, state: Guard<'_, State>, mut job: Job, lane: &Lane) {
        job.set_tag(0);
        self.held.push(job);
        drop(state);
        self.give_back_held(lane);
    }

    /// Gives held jobs back if the device is being suspended already: `suspending` was called
    /// before they were held.
    pub(super) fn give_back_held(&self, lane: &Lane) {
        while lane.suspending()
            && let Some(job) = self.held.pop()
        {
            job.give_back();
        }
    }
}
