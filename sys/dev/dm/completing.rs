// SPDX-License-Identifier: BSD-2-Clause

//! A count of contexts that still use memory whose end may have begun, and the wait for those that
//! were counted before.
//!
//! `regress/models` includes this file and checks it under loom.

use super::atomic::{AtomicUsize, Ordering, full_fence};

/// The contexts that use one of several things (a device's tables) while nothing else of theirs
/// keeps it.
///
/// A context counts itself in ([`Completions::enter`]) while something else keeps the thing, such
/// as the I/O that it is about to complete, or to queue for others to complete. The context that
/// ends a thing waits, when nothing else keeps it any more, with [`Completions::drain`].
///
/// A drain does not wait for contexts that come while it waits, which are those of other things:
/// there are two counts, and a drain moves newcomers to the other one. A context that had read
/// which one to use before that is still counted in the old one, so that the next drain waits for
/// the old one first.
#[derive(Default)]
pub struct Completions {
    /// The number of contexts that are counted in, by the count that was `current` when they came.
    counts: [AtomicUsize; 2],
    /// The count that newcomers use: 0 or 1.
    current: AtomicUsize,
    /// 1 while a drain is in progress.
    draining: AtomicUsize,
}

impl Completions {
    /// Counts the caller in until the returned value is dropped. In any context; does not sleep.
    #[inline]
    pub fn enter(&self) -> Completing<'_> {
        let [first, second] = &self.counts;
        let count = if self.current.load(Ordering::SeqCst) == 0 { first } else { second };
        count.fetch_add(1, Ordering::SeqCst);
        Completing(count)
    }

    /// Waits until all contexts have left that were counted in before. Calls `pause` while there
    /// are any, and while another thread drains. Context: as for `pause`; the caller is not counted
    /// in.
    pub fn drain(&self, mut pause: impl FnMut()) {
        let order = Ordering::SeqCst;
        while self.draining.compare_exchange(0, 1, order, order).is_err() {
            pause();
        }
        full_fence();
        let [first, second] = &self.counts;
        let (now, other, next) = match self.current.load(Ordering::SeqCst) {
            0 => (first, second, 1),
            _ => (second, first, 0),
        };
        // Only those are left there that had read `current` before the last drain moved it.
        while other.load(Ordering::SeqCst) != 0 {
            pause();
        }
        self.current.store(next, Ordering::SeqCst);
        full_fence();
        while now.load(Ordering::SeqCst) != 0 {
            pause();
        }
        self.draining.store(0, Ordering::SeqCst);
    }
}

/// A context that is counted in: see [`Completions`].
#[must_use = "dropped at once, it keeps nothing"]
pub struct Completing<'c>(&'c AtomicUsize);

impl Drop for Completing<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
