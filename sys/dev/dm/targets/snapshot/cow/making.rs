// SPDX-License-Identifier: BSD-2-Clause

//! The making of exceptions: the chunks that are to be copied, those that are, their commit, and
//! the moment in which they become visible. Context of everything here: lanes of the store's
//! tables, and completions of writes of whole chunks.

use super::state::Step;
use super::{Cow, Health, Kind, ROOM};
use crate::targets::snapshot::format::{ENTRY, Exception};

/// Exceptions in one commit, at most.
pub const BATCH: usize = 64;

/// The next task of the lane that commits.
pub enum Task {
    /// Commit so many exceptions.
    Commit(usize),
    /// Mark the store.
    Invalidate,
    /// Ask for the size of the store's device.
    Size,
    /// Raise an event.
    Event,
    /// Let go of the snapshot: nothing is pending, and the table goes.
    Close,
}

impl Cow {
    /// Notes that the chunk of a pending exception is written, or, unless `ok`, could not be.
    pub fn copied(&self, number: u64, ok: bool) {
        let mut state = self.state.lock();
        if !ok {
            return self.fail(&mut state);
        }
        let at = number.checked_sub(state.first).and_then(|at| usize::try_from(at).ok());
        if let Some(pending) = at.and_then(|at| state.pending.get_mut(at)) {
            pending.step = Step::Copied;
            state.raise(|signals| &signals.ready);
        }
    }

    /// The next chunk to be copied, for a lane of this table.
    pub fn next_copy(&self, table: u64) -> Option<(u64, Exception)> {
        let mut state = self.state.lock();
        if !state.is_kept_by(table) || state.health != Health::Good {
            return None;
        }
        let first = state.first;
        let queued = state.pending.iter_mut().zip(first..).find(|(p, _)| p.step == Step::Queued);
        let (pending, number) = queued?;
        pending.step = Step::Copying;
        let exception = pending.exception;
        Some((number, exception))
    }

    /// The next task of the lane that commits, if it is of the keeper's table.
    pub fn next_task(&self, table: u64, ending: bool) -> Option<Task> {
        let mut state = self.state.lock();
        if !state.is_kept_by(table) {
            return None;
        }
        if core::mem::take(&mut state.event) {
            return Some(Task::Event);
        }
        if state.busy {
            return None;
        }
        match state.health {
            Health::Failing => {
                state.busy = true;
                return Some(Task::Invalidate);
            }
            Health::Invalid if ending => return Some(Task::Close),
            Health::Invalid => return None,
            Health::Good => {}
        }
        if core::mem::take(&mut state.ask_size) {
            return Some(Task::Size);
        }
        state.closing |= ending;
        if ending && state.pending.is_empty() {
            return Some(Task::Close);
        }
        let (copied, most) = state.copied();
        let all = copied == state.pending.len() || copied >= most;
        let now = all || state.kind == Kind::Transient;
        state.busy = copied > 0 && now;
        state.busy.then_some(Task::Commit(copied.min(most)))
    }

    /// The number of exceptions that can be committed now.
    pub fn ready_now(&self) -> usize {
        let (copied, most) = self.state.lock().copied();
        copied.min(most)
    }

    /// Notes that the lane that commits is done with its task.
    pub fn is_done(&self) {
        let mut state = self.state.lock();
        state.busy = false;
        state.raise(|signals| &signals.ready);
        state.raise(|signals| &signals.merge);
    }

    /// Fills `bytes` with the store's content from the tail's sector on, the first `count` pending
    /// exceptions included. Returns the offset of that sector in its area, and the number of bytes.
    pub fn fill(&self, count: usize, bytes: &mut [u8]) -> (usize, usize) {
        let state = self.state.lock();
        let unit = state.unit.len().max(1);
        let at = usize::try_from(state.tail.entry).unwrap_or(0).saturating_mul(ENTRY);
        let (skip, start) = (at % unit, at / unit * unit);
        let length = skip.saturating_add(count.saturating_mul(ENTRY)).next_multiple_of(unit);
        bytes.iter_mut().take(length).for_each(|byte| *byte = 0);
        bytes.iter_mut().zip(&state.unit).take(skip).for_each(|(to, from)| *to = *from);
        for (pending, at) in state.pending.iter().take(count).zip(skip / ENTRY..) {
            pending.exception.write(bytes, at);
        }
        (start, length)
    }

    /// Makes the first pending exceptions visible, which are on stable storage. `bytes` is what
    /// [`Cow::fill`] made.
    pub fn publish(&self, count: usize, bytes: &[u8]) {
        let mut state = self.state.lock();
        if state.health != Health::Good {
            return;
        }
        let persistent = state.kind != Kind::Transient;
        for _ in 0..count {
            let Some(pending) = state.pending.pop_front() else { break };
            state.first = state.first.wrapping_add(1);
            let old = pending.exception.old;
            if !state.runs.insert(pending.exception) {
                // There was room when it was begun.
                return self.fail(&mut state);
            }
            self.tracker(old).drain();
        }
        if persistent {
            state.advance(count, bytes);
        }
        if !state.runs.has_room(ROOM) {
            state.raise(|signals| &signals.hungry);
        }
        // A lane that copies looks once more, and finds nothing. Jobs that wait for a place among
        // the pending exceptions are woken by `Origin::wake`, which follows.
        state.raise(|signals| &signals.work);
    }
}
