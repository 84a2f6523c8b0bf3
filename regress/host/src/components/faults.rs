// SPDX-License-Identifier: BSD-2-Clause

//! The faults of one disk.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::errno::Errno;

#[derive(Default)]
pub(super) struct Faults {
    state: Mutex<State>,
    /// An ioctl is stalled, or no longer.
    stalled: Condvar,
}

#[derive(Default)]
struct State {
    /// I/Os seen since the last order that counts.
    seen: u64,
    failing: Vec<(u64, Errno)>,
    short: Vec<(u64, usize)>,
    /// Blocks whose I/O fails with b_resid 0.
    all: Vec<(Range<u64>, Errno)>,
    ranges: Vec<(Range<u64>, Errno)>,
    vanished: bool,
    ioctls: HashMap<u64, Errno>,
    /// The ioctl that waits, and the number of threads that wait in it.
    stalled: Option<(u64, usize)>,
}

/// The decision about an I/O.
pub(super) enum Verdict {
    Good,
    Fail(Errno),
    /// So many bytes are transferred, and no more.
    Short(usize),
    /// The I/O fails, and the driver says all the same that nothing is left (b_resid is 0).
    FailAll(Errno),
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn any(&self) -> bool {
        let s = self.state();
        s.vanished
            || !s.failing.is_empty()
            || !s.short.is_empty()
            || !s.ranges.is_empty()
            || !s.all.is_empty()
    }

    pub(super) fn fail_nth(&self, nth: u64, error: Errno) {
        let mut s = self.state();
        let at = s.seen + nth;
        s.failing.push((at, error));
    }

    pub(super) fn short_nth(&self, nth: u64, bytes: usize) {
        let mut s = self.state();
        let at = s.seen + nth;
        s.short.push((at, bytes));
    }

    pub(super) fn fail_range(&self, blocks: Range<u64>, error: Errno) {
        self.state().ranges.push((blocks, error));
    }

    pub(super) fn fail_range_all_done(&self, blocks: Range<u64>, error: Errno) {
        self.state().all.push((blocks, error));
    }

    pub(super) fn vanish(&self, gone: bool) {
        self.state().vanished = gone;
    }

    pub(super) fn vanished(&self) -> bool {
        self.state().vanished
    }

    pub(super) fn heal(&self) {
        *self.state() = State::default();
        self.stalled.notify_all();
    }

    pub(super) fn fail_ioctl(&self, cmd: u64, error: Option<Errno>) {
        let mut s = self.state();
        match error {
            Some(error) => s.ioctls.insert(cmd, error),
            None => s.ioctls.remove(&cmd),
        };
    }

    pub(super) fn stall_ioctl(&self, cmd: u64) {
        self.state().stalled = Some((cmd, 0));
    }

    /// The number of threads that wait in the stalled ioctl.
    pub(super) fn stalled(&self) -> usize {
        self.state().stalled.map_or(0, |(_, threads)| threads)
    }

    pub(super) fn ioctl(&self, cmd: u64) -> Result<(), Errno> {
        let mut s = self.state();
        if let Some((_, threads)) = s.stalled.as_mut().filter(|(stalled, _)| *stalled == cmd) {
            *threads += 1;
            let over = self.stalled.wait_while(s, |s| s.stalled.is_some());
            s = over.unwrap_or_else(|e| e.into_inner());
        }
        if s.vanished {
            return Err(Errno::ENXIO);
        }
        s.ioctls.get(&cmd).map_or(Ok(()), |error| Err(*error))
    }

    pub(super) fn judge(&self, blocks: Range<u64>) -> Verdict {
        let mut s = self.state();
        if s.vanished {
            return Verdict::Fail(Errno::ENXIO);
        }
        s.seen += 1;
        let now = s.seen;
        if let Some(at) = s.failing.iter().position(|(nth, _)| *nth == now) {
            return Verdict::Fail(s.failing.swap_remove(at).1);
        }
        if let Some(at) = s.short.iter().position(|(nth, _)| *nth == now) {
            return Verdict::Short(s.short.swap_remove(at).1);
        }
        let hit = |r: &Range<u64>| r.start < blocks.end && blocks.start < r.end;
        if let Some((_, error)) = s.all.iter().find(|(r, _)| hit(r)) {
            return Verdict::FailAll(*error);
        }
        match s.ranges.iter().find(|(r, _)| hit(r)) {
            Some((_, error)) => Verdict::Fail(*error),
            None => Verdict::Good,
        }
    }
}
