// SPDX-License-Identifier: BSD-2-Clause

//! The set of lanes that are to be polled.
//!
//! `regress/models` includes this file and checks it, with the place where a thread sleeps, under
//! loom.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::atomic::{AtomicUsize, Ordering};

/// Lanes that are to be polled: a bit each, set in any context. Without a lock.
///
/// A lane belongs to runner `lane % runners`, the thread that polls it.
pub struct Ready {
    runners: usize,
    /// For each runner, the words with its lanes' bits.
    words: Box<[Box<[AtomicUsize]>]>,
}

impl Ready {
    /// Bits for `lanes` lanes, dealt out over `runners` runners, at least one.
    pub fn new(lanes: usize, runners: usize) -> Ready {
        let runners = runners.max(1);
        let count = lanes.div_ceil(runners).div_ceil(usize::BITS as usize);
        let words = |_| (0..count).map(|_| AtomicUsize::new(0)).collect();
        Ready { runners, words: (0..runners).map(words).collect() }
    }

    /// The number of runners.
    pub fn runners(&self) -> usize {
        self.runners
    }

    /// Has a lane polled. The answer is the runner to wake, unless the bit was set before: the one who
    /// set it has woken the runner.
    #[inline]
    pub fn set(&self, lane: usize) -> Option<usize> {
        // There is one runner, nearly always.
        let (runner, at) = match self.runners {
            1 => (0, lane),
            runners => (lane.checked_rem(runners)?, lane.checked_div(runners)?),
        };
        let (word, bit) = (at / usize::BITS as usize, 1usize << (at % usize::BITS as usize));
        let word = self.words.get(runner)?.get(word)?;
        // SeqCst: a runner says that it sleeps and then looks here; who sets a bit looks afterwards
        // whether the runner sleeps.
        (word.fetch_or(bit, Ordering::SeqCst) & bit == 0).then_some(runner)
    }

    /// The words of a runner's lanes.
    #[inline]
    fn words(&self, runner: usize) -> &[AtomicUsize] {
        self.words.get(runner).map_or(&[], |words| words)
    }

    /// `true` if a lane of this runner is to be polled.
    pub fn any(&self, runner: usize) -> bool {
        self.words(runner).iter().any(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// Takes the lanes of a runner that are to be polled, one after the other, lowest first. `each` is given the
    /// lane's number, and its number among the runner's.
    #[inline]
    pub fn take(&self, runner: usize, mut each: impl FnMut(usize, usize)) {
        for (number, word) in self.words(runner).iter().enumerate() {
            let mut bits = word.swap(0, Ordering::SeqCst);
            while bits != 0 {
                let at = number * usize::BITS as usize + bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
                each(at.wrapping_mul(self.runners).wrapping_add(runner), at);
            }
        }
    }

    /// Takes one lane that is to be polled: the `choice`th of them, counted round. For a scheduler
    /// that decides the order.
    pub fn take_one(&self, runner: usize, choice: usize) -> Option<usize> {
        let set: Vec<(usize, usize)> = (self.words(runner).iter().enumerate())
            .flat_map(|(number, word)| {
                let bits = word.load(Ordering::SeqCst);
                (0..usize::BITS as usize)
                    .filter(move |bit| bits >> bit & 1 != 0)
                    .map(move |bit| (number, bit))
            })
            .collect();
        let (number, bit) = *set.get(choice.checked_rem(set.len())?)?;
        self.words(runner).get(number)?.fetch_and(!(1usize << bit), Ordering::SeqCst);
        let at = number * usize::BITS as usize + bit;
        Some(at.wrapping_mul(self.runners).wrapping_add(runner))
    }
}
