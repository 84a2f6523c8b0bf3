// SPDX-License-Identifier: BSD-2-Clause

//! The answers of the places of one request, gathered as they come.

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};

use dm_core::Errno;
use dm_core::lane::Outcome;

/// The answers to one request, of a lane's or of a job that was forwarded to several places. It is
/// used for one request after the other, and may be added to from any context.
#[derive(Default)]
pub(super) struct Answers {
    /// The number of places that have not answered, and one for the request's sender while it is
    /// still sending.
    pending: AtomicUsize,
    /// A bit for each place that failed.
    failed: AtomicU32,
    /// Why the first failed; 0 for not at all.
    errno: AtomicI32,
}

impl Answers {
    /// Begins anew, with so many answers to come. No place has been sent to.
    pub(super) fn begin(&self, pending: usize) {
        self.failed.store(0, Ordering::Relaxed);
        self.errno.store(0, Ordering::Relaxed);
        self.pending.store(pending, Ordering::Relaxed);
    }

    /// `true` while answers are to come.
    pub(super) fn are_awaited(&self) -> bool {
        self.pending.load(Ordering::Relaxed) != 0
    }

    /// Adds the answer of a place, which is given as a bit; 0 for the request's sender. `true` if
    /// it is the last: then all is the caller's.
    pub(super) fn add(&self, place: u32, result: Result<(), Errno>) -> bool {
        if let Err(errno) = result {
            self.note(place, errno);
        }
        self.add_done()
    }

    /// Adds the answer of a place that did all it was asked to. `true` if it is the last.
    #[inline]
    pub(super) fn add_done(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Adds the answer of a place, by its number, that could not be sent to. It is not the last:
    /// the request's sender is.
    #[cold]
    pub(super) fn add_lost(&self, place: usize) {
        self.add(bit(place), Err(Errno::EIO));
    }

    /// Notes that a place has failed.
    #[cold]
    fn note(&self, place: u32, errno: Errno) {
        self.failed.fetch_or(place, Ordering::Relaxed);
        let (none, errno) = (0, errno.raw());
        let _ = self.errno.compare_exchange(none, errno, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The outcome, after the last answer.
    pub(super) fn outcome(&self) -> Outcome {
        let errno = Errno::from_raw(self.errno.load(Ordering::Relaxed)).unwrap_or(Errno::EIO);
        Outcome { failed: self.failed.load(Ordering::Relaxed), errno }
    }
}

/// The bit of a place, by its number.
pub(super) fn bit(place: usize) -> u32 {
    1u32.checked_shl(place as u32).unwrap_or(0)
}
