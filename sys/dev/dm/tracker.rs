// SPDX-License-Identifier: BSD-2-Clause

//! A count of I/O in flight that can be drained; counting takes no lock.
//!
//! `regress/models` includes this file and checks it, with `Version`, under loom.

use core::fmt;

use super::atomic::{AtomicUsize, Ordering};

/// The bit in a count that is set while it is drained: no I/O is counted in until all that are
/// counted are out.
const DRAINING: usize = 1 << (usize::BITS - 1);

/// The bit in a count that is set once the target is to be asked about each I/O that is counted
/// out. Never cleared.
const ASKING: usize = 1 << (usize::BITS - 2);

/// The number of I/Os in flight that a target counts together.
///
/// Draining, and looking whether that is over, are done under one lock, the owner's, and so are
/// changes of the state that counted I/O was mapped by. I/O is counted in without that lock: its
/// sender looks afterwards whether the state has changed, and counts the I/O out again if it has.
/// So either a drain waits for the I/O, or the I/O sees what was changed before the drain.
pub struct Tracker(AtomicUsize);

impl Default for Tracker {
    /// A tracker with no I/O in flight.
    fn default() -> Tracker {
        Tracker(AtomicUsize::new(0))
    }
}

impl Tracker {
    /// Counts an I/O in. `false` while the count is drained, or once the target is asked: the I/O
    /// is to be a job of the target's. In any context.
    #[inline]
    pub fn begin(&self) -> bool {
        if self.0.load(Ordering::Relaxed) & (DRAINING | ASKING) != 0 {
            return false;
        }
        self.0.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Counts an I/O out. `true` if the target is to be asked
    /// ([`Target::untrack`](crate::target::Target::untrack)), which calls [`Tracker::drained`] and
    /// looks whether the I/O's result still stands. In any context.
    #[inline]
    #[must_use = "a drain may wait for this"]
    pub fn end(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) & (DRAINING | ASKING) != 0
    }

    /// Begins to drain: no I/O is counted in until all that are counted are out. With the owner's
    /// lock.
    pub fn drain(&self) {
        if self.0.fetch_or(DRAINING, Ordering::AcqRel) & !(DRAINING | ASKING) == 0 {
            self.0.fetch_and(!DRAINING, Ordering::AcqRel);
        }
    }

    /// `true` while [`Tracker::drain`] waits for counted I/O.
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire) & DRAINING != 0
    }

    /// Ends the draining if no I/O is counted. `true` if it did: whatever waits for that is to look
    /// once more. With the owner's lock.
    pub fn drained(&self) -> bool {
        let now = self.0.load(Ordering::Acquire);
        let empty = now & DRAINING != 0 && now & !(DRAINING | ASKING) == 0;
        let (order, failed) = (Ordering::AcqRel, Ordering::Relaxed);
        empty && self.0.compare_exchange(now, now & !DRAINING, order, failed).is_ok()
    }

    /// Sets the count to ask: the target is asked about each I/O that is counted out from now on.
    /// In any context.
    pub fn ask(&self) {
        self.0.fetch_or(ASKING, Ordering::AcqRel);
    }
}

/// Trackers are equal only to themselves.
impl PartialEq for Tracker {
    fn eq(&self, other: &Tracker) -> bool {
        core::ptr::eq(self, other)
    }
}

impl Eq for Tracker {}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tracker")
    }
}
