// SPDX-License-Identifier: BSD-2-Clause

//! Writes, flushes, discards, and reads that have failed once.

use super::failure::{Kind, Verdict};
use super::{Mirror, State, has};
use crate::Errno;
use crate::job::Job;
use crate::lane::Lane;
use crate::limits;
use crate::target::ComponentIndex;

/// The bit in a write's tag that says that some leg has not taken it; the low half has a bit for
/// each place that failed.
pub(super) const FAILED: u64 = 1 << 63;

/// The bit in a write's tag that says that it went to one leg only, whose number is in the byte at
/// [`LEG`].
const ALONE: u64 = 1 << 62;
const LEG: u32 = 32;

/// The next step of a write.
enum Admit {
    /// The write goes to all legs, and is counted as in flight.
    All,
    /// The write goes to this leg only, and is counted as in flight.
    Alone(usize),
    /// The write waits for another write, or for recovery.
    Wait,
    /// The write's region is to be marked in the log before.
    Mark,
    /// The write waits for another table.
    Hold,
}

/// The legs that a write did not reach, a bit each, and `true` if there is none that it did.
pub(super) fn failed_legs(job: &Job, legs: usize) -> (u32, bool) {
    let tag = job.tag();
    if tag & ALONE != 0 {
        return (1u32.wrapping_shl((tag >> LEG) as u32 & 31), true);
    }
    let failed = tag as u32;
    (failed, failed.count_ones() as usize >= legs)
}

impl Mirror {
    /// Decides about a write. `unlogged` if its region cannot be marked, and it goes on without.
    fn admit(&self, state: &mut State, job: &Job, unlogged: bool) -> Admit {
        let region = self.region(job.start());
        if state.recovering == Some(region) {
            return Admit::Wait;
        }
        let source = self.source();
        let synced = self.sync.get(region);
        // Also where a region went out of sync while it was being marked.
        if state.clean.get(region) || state.logged.get(region) {
            state.clean.put(region, false);
            state.idle.put(region, false);
            state.marked = true;
            match self.log.disk {
                None => state.logged.put(region, false),
                Some(_) if unlogged => {}
                Some(_) => return Admit::Mark,
            }
        }
        // The program that looks after the device (dmeventd) is to replace the leg before more is
        // acknowledged without it.
        let lost = || source != 0 || state.errors.iter().any(|errors| errors.lost());
        if !synced && self.features.hold() && lost() {
            return Admit::Hold;
        }
        if !state.blocks.enter(job.start(), job.length()) {
            return Admit::Wait;
        }
        if let Some(writes) = state.writes.get_mut(region as usize) {
            *writes = writes.saturating_add(1);
        }
        state.idle.put(region, false);
        if synced { Admit::All } else { Admit::Alone(source) }
    }

    /// Sends a write that has just come, if nothing has to be done before; else returns it.
    /// Context: thread or soft interrupt; sleeps in a thread, where a component's d_strategy does.
    #[inline]
    pub(super) fn write_at_once(&self, job: Job) -> Option<Job> {
        let admit = {
            let mut state = self.state.lock();
            match state.waiters {
                0 => self.admit(&mut state, &job, false),
                _ => Admit::Wait,
            }
        };
        self.go(job, admit)
    }

    /// Sends a write where it may go; else returns it.
    #[inline(always)]
    fn go(&self, job: Job, admit: Admit) -> Option<Job> {
        // There are two legs, nearly always.
        if let (Admit::All, [first, second]) = (&admit, &*self.legs) {
            let start = job.start();
            job.forward_each(&[first.place(start), second.place(start)]);
            return None;
        }
        self.go_elsewhere(job, admit)
    }

    /// [`Mirror::go`], where there are more legs or the write does not go to all.
    #[inline(never)]
    fn go_elsewhere(&self, mut job: Job, admit: Admit) -> Option<Job> {
        let start = job.start();
        match admit {
            Admit::All => {
                let (places, count) = self.places(start, None);
                job.forward_each(places.get(..count).unwrap_or(&places));
                None
            }
            Admit::Alone(leg) => {
                self.used.store(true, core::sync::atomic::Ordering::Relaxed);
                job.set_tag(ALONE | (leg as u64).wrapping_shl(LEG));
                match self.legs.get(leg) {
                    Some(leg) => job.forward_each(&[leg.place(start)]),
                    None => job.fail(Errno::EIO),
                }
                None
            }
            Admit::Wait | Admit::Mark | Admit::Hold => Some(job),
        }
    }

    /// Counts a write out that was in flight. Context: thread or soft interrupt, with no lock held;
    /// does not sleep.
    #[inline(always)]
    pub(super) fn write_over(&self, job: &Job) {
        let region = self.region(job.start());
        let (waiters, drained) = {
            let mut state = self.state.lock();
            state.blocks.leave(job.start(), job.length());
            let mut left = 0;
            if let Some(writes) = state.writes.get_mut(region as usize) {
                *writes = writes.saturating_sub(1);
                left = *writes;
            }
            let drained = left == 0 && state.recovering == Some(region);
            (core::mem::take(&mut state.waiters), drained)
        };
        if waiters != 0 || drained {
            self.let_go_on(job, drained);
        }
    }

    /// Requeues the jobs that wait for a write to complete, and wakes recovery if its region has no
    /// write any more. Context: as for [`Mirror::write_over`].
    #[cold]
    fn let_go_on(&self, job: &Job, drained: bool) {
        job.resubmit(&self.waiting);
        if drained {
            job.raise(&self.changed);
        }
    }

    /// Serves a write for which something has to be done first. While it waits for other writes,
    /// recovery or the log it is set aside, and holds no lane.
    pub(super) async fn write(&self, mut job: Job, lane: &mut Lane) {
        let mut unlogged = false;
        loop {
            let admit = {
                let mut state = self.state.lock();
                match self.admit(&mut state, &job, unlogged) {
                    Admit::Wait => {
                        state.waiters = state.waiters.saturating_add(1);
                        return self.waiting.push(job);
                    }
                    Admit::Hold => return self.hold_locked(state, job, lane),
                    Admit::Mark if state.log_busy => return self.marking.push(job),
                    Admit::Mark => {
                        state.log_busy = true;
                        Admit::Mark
                    }
                    admit => admit,
                }
            };
            let marks = matches!(admit, Admit::Mark);
            job = match self.go(job, admit) {
                Some(job) => job,
                None => return,
            };
            if marks {
                lane.raise(&self.dirtied);
                let written = self.write_log(false, lane).await;
                self.log_is_free(lane);
                match written {
                    true => {}
                    false if self.features.keep_log => return job.fail(Errno::EIO),
                    false if self.features.handle_errors => return self.hold(job, lane),
                    false => unlogged = true,
                }
            }
        }
    }

    /// Serves a flush: flushes all legs, for one job at a time.
    pub(super) async fn flush(&self, job: Job, lane: &mut Lane) {
        {
            let mut state = self.state.lock();
            if core::mem::replace(&mut state.flushing, true) {
                // Under the lock: the lane that flushes looks here after it has had the lock.
                return self.flushes.push(job);
            }
        }
        let failed = self.flush_legs(lane).await;
        let verdict = self.flush_failed(failed, lane);
        self.flush_is_over(lane);
        if verdict == Verdict::Done && self.features.hold() {
            let state = self.state.lock();
            // What the first leg has lost is not safe before it is copied back, or the table is
            // another.
            let lost = state.errors.first().is_some_and(|errors| errors.has(Kind::Flush));
            if lost && !state.in_sync {
                return self.hold_locked(state, job, lane);
            }
        }
        self.act(job, verdict, lane);
    }

    /// Flushes the legs. Returns a bit for each that failed.
    pub(super) async fn flush_legs(&self, lane: &mut Lane) -> u32 {
        let mut components = [ComponentIndex(0); limits::MIRROR_LEGS];
        for (component, leg) in components.iter_mut().zip(&self.legs) {
            *component = leg.component;
        }
        lane.flush(components.get(..self.legs.len()).unwrap_or(&components)).await.failed
    }

    /// Lets the next flush go on.
    pub(super) fn flush_is_over(&self, lane: &Lane) {
        self.state.lock().flushing = false;
        lane.resubmit(&self.flushes);
    }

    /// Discards on all legs. Their contents may differ then; a leg that fails is as good as before.
    pub(super) async fn discard(&self, job: Job, lane: &mut Lane) {
        let (start, length) = (job.start(), job.length());
        {
            let mut state = self.state.lock();
            if !state.blocks.enter(start, length) {
                state.waiters = state.waiters.saturating_add(1);
                return self.waiting.push(job);
            }
        }
        let mut result = Ok(());
        for leg in &self.legs {
            result = result.and(lane.discard(leg.place(start), length).await);
        }
        let waiters = {
            let mut state = self.state.lock();
            state.blocks.leave(start, length);
            core::mem::take(&mut state.waiters)
        };
        if waiters != 0 {
            lane.resubmit(&self.waiting);
        }
        job.end(result);
    }

    /// Serves a read that has failed on some leg: tries those that are as good, one after the
    /// other.
    pub(super) async fn read(&self, job: Job, lane: &mut Lane) {
        let (mut tried, mut errno) = (0u32, Errno::EIO);
        loop {
            let leg = self.leg_to_read(&self.state.lock(), job.start(), tried);
            let Some((leg, to)) = leg.and_then(|leg| Some((leg, self.legs.get(leg)?))) else {
                return if lane.keeps_failed() { job.give_back() } else { job.fail(errno) };
            };
            match lane.send(&job, &[to.place(job.start())]).await.ok() {
                Ok(()) => return job.done(),
                Err(failed) => errno = failed,
            }
            tried |= 1u32.wrapping_shl(leg as u32);
            self.leg_failed(leg, Kind::Read, lane);
            debug_assert!(has(tried, leg));
        }
    }
}
