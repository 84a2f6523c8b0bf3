// SPDX-License-Identifier: BSD-2-Clause

//! A count of I/O in flight that can be drained; counting takes no lock.
//!
//! `regress/models` includes this file and checks it, with [`Version`](crate::version::Version), under loom.

use core::fmt;

use super::atomic::{AtomicUsize, Ordering};

/// In a count: whoever drains it waits for those that are counted, and nobody is counted in.
const DRAINING: usize = 1 << (usize::BITS - 1);

/// In a count: I/O that is counted out is to ask the target. Never cleared.
const ASKING: usize = 1 << (usize::BITS - 2);

/// The number of I/Os that are under way, of those that a target counts together.
///
/// Draining, and looking whether that is over, are done under one lock, the owner's, and so are changes of what those
/// that are counted have read. Who is counted without that lock looks afterwards whether there was a change, and
/// takes itself out again if there was: either a drain waits for it, or it sees what was changed before the drain.
pub struct Tracker(AtomicUsize);

impl Default for Tracker {
    /// Nothing is under way.
    fn default() -> Tracker {
        Tracker(AtomicUsize::new(0))
    }
}

impl Tracker {
    /// Counts an I/O in. `false` if it must wait, or ask.
    #[inline]
    pub fn begin(&self) -> bool {
        if self.0.load(Ordering::Relaxed) & (DRAINING | ASKING) != 0 {
            return false;
        }
        self.0.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Counts an I/O out. `true` if the target is to be asked ([`Target::untrack`](crate::target::Target::untrack)):
    /// its owner calls [`Tracker::drained`], and more may be wrong. From anywhere.
    #[inline]
    #[must_use = "somebody may wait"]
    pub fn end(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) & (DRAINING | ASKING) != 0
    }

    /// Nobody is counted in from now on until all are out that are in. With the owner's lock.
    pub fn drain(&self) {
        if self.0.fetch_or(DRAINING, Ordering::AcqRel) & !(DRAINING | ASKING) == 0 {
            self.0.fetch_and(!DRAINING, Ordering::AcqRel);
        }
    }

    /// `true` if [`Tracker::drain`] waits for somebody.
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire) & DRAINING != 0
    }

    /// Ends the draining if nobody is in. `true` if it did, so that who waits is to be told. With the owner's lock.
    pub fn drained(&self) -> bool {
        let now = self.0.load(Ordering::Acquire);
        let empty = now & DRAINING != 0 && now & !(DRAINING | ASKING) == 0;
        let (order, failed) = (Ordering::AcqRel, Ordering::Relaxed);
        empty && self.0.compare_exchange(now, now & !DRAINING, order, failed).is_ok()
    }

    /// Has each that is counted out from now on ask.
    pub fn ask(&self) {
        self.0.fetch_or(ASKING, Ordering::AcqRel);
    }
}

/// Each is one of its own.
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
