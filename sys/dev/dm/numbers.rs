// SPDX-License-Identifier: BSD-2-Clause

//! Numbers that are in use or not, as those of a line's jobs.
//!
//! `regress/models` includes this file and checks it, with senders that wait for a number, under
//! loom.

use alloc::boxed::Box;

use super::atomic::{AtomicUsize, Ordering, full_fence};

/// The set of numbers from `first` on that are not in use, a bit each. Numbers are taken and freed
/// in any context, without a lock.
///
/// A sender that finds none and waits counts itself in first ([`Numbers::add_waiter`]) and then
/// looks again; the context that frees a number looks at the count afterwards. All of this is
/// sequentially consistent, so that one of the two sees the other.
pub struct Numbers {
    first: usize,
    words: Box<[AtomicUsize]>,
    /// The number of senders that wait for a number, or are about to.
    waiters: AtomicUsize,
}

impl Numbers {
    /// A set of `count` numbers from `first` on, none in use.
    pub fn new(first: usize, count: usize) -> Numbers {
        let bits = usize::BITS as usize;
        let word = |at: usize| match count.saturating_sub(at.saturating_mul(bits)) {
            left if left < bits => (1usize << left).wrapping_sub(1),
            _ => usize::MAX,
        };
        let words = (0..count.div_ceil(bits)).map(|at| AtomicUsize::new(word(at))).collect();
        Numbers { first, words, waiters: AtomicUsize::new(0) }
    }

    /// Takes a number that is not in use, if there is any.
    #[inline]
    pub fn take(&self) -> Option<usize> {
        full_fence();
        for (at, word) in self.words.iter().enumerate() {
            let mut bits = word.load(Ordering::SeqCst);
            while bits != 0 {
                let lowest = bits.trailing_zeros() as usize;
                let bit = 1usize << lowest;
                // Nothing but the bit is asked of the answer, so that it is one instruction.
                if word.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
                    let number = at.wrapping_mul(usize::BITS as usize).wrapping_add(lowest);
                    return Some(self.first.wrapping_add(number));
                }
                bits = word.load(Ordering::SeqCst);
            }
        }
        None
    }

    /// Frees a number that was taken from here. `true` if a sender waits for one: the caller has to
    /// let the waiting ones go on.
    #[inline]
    pub fn put(&self, number: usize) -> bool {
        let number = number.wrapping_sub(self.first);
        let bit = 1usize << (number % usize::BITS as usize);
        if let Some(word) = self.words.get(number / usize::BITS as usize) {
            let before = word.fetch_or(bit, Ordering::SeqCst);
            debug_assert!(before & bit == 0, "freed twice");
        }
        full_fence();
        self.waiters.load(Ordering::SeqCst) != 0
    }

    /// Counts a sender in that has found no number and waits for one. The caller must look for a
    /// number once more afterwards.
    pub fn add_waiter(&self) {
        self.waiters.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a sender out that waited.
    pub fn remove_waiter(&self) {
        self.waiters.fetch_sub(1, Ordering::SeqCst);
    }

    /// `true` if a number is not in use.
    pub fn any(&self) -> bool {
        self.words.iter().any(|word| word.load(Ordering::SeqCst) != 0)
    }
}

/// Work that one caller at a time does, in a loop. A call that comes while another works, or from
/// inside the work itself, makes that one do it once more. So the stack does not grow where work
/// asks for more of its kind. From anywhere, without a lock.
#[derive(Default)]
pub struct InTurn {
    /// Calls since the last look; not 0 while a caller works.
    asked: AtomicUsize,
}

impl InTurn {
    /// Does `work`, once or more, after this call has begun; a caller that is at it already does it
    /// in this one's place.
    pub fn ask(&self, mut work: impl FnMut()) {
        if self.asked.fetch_add(1, Ordering::SeqCst) != 0 {
            return;
        }
        let mut seen = 1;
        while seen != 0 {
            work();
            let before = self.asked.fetch_sub(seen, Ordering::SeqCst);
            seen = before.wrapping_sub(seen);
        }
    }
}
