// SPDX-License-Identifier: BSD-2-Clause

//! The set of lanes that are to be polled.
//!
//! `regress/models` includes this file and checks it, with the place where a thread sleeps, under
//! loom.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::atomic::{AtomicUsize, Ordering};

/// The set of lanes that are to be polled, a bit each, set in any context without a lock.
///
/// Each lane belongs to a runner, whose thread polls it. Bits of a runner's lanes lie together, in
/// the order of the lanes' numbers.
pub struct Ready {
    /// For each lane its runner, and its place among the runner's lanes. Empty if there is one
    /// runner, which has all.
    lanes: Box<[(usize, usize)]>,
    /// For each runner, the words with its lanes' bits.
    words: Box<[Box<[AtomicUsize]>]>,
}

impl Ready {
    /// A set without lanes in it; `runners` has the runner of each lane. There are `count` runners,
    /// at least one.
    pub fn new(runners: &[usize], count: usize) -> Ready {
        let count = count.max(1);
        let of = |runner: usize| runners.iter().filter(move |of| **of == runner).count();
        let words = |runner| {
            let words = of(runner).div_ceil(usize::BITS as usize);
            (0..words).map(|_| AtomicUsize::new(0)).collect()
        };
        let words = (0..count).map(words).collect();
        let place = |(lane, runner): (usize, &usize)| {
            let before = runners.iter().take(lane).filter(|of| *of == runner).count();
            (*runner, before)
        };
        let lanes = match count {
            1 => Box::default(),
            _ => runners.iter().enumerate().map(place).collect(),
        };
        Ready { lanes, words }
    }

    /// The number of runners.
    pub fn runners(&self) -> usize {
        self.words.len()
    }

    /// The runner of a lane.
    pub fn runner(&self, lane: usize) -> usize {
        self.lanes.get(lane).map_or(0, |(runner, _)| *runner)
    }

    /// Marks a lane to be polled. Returns the runner to wake; `None` if the bit was set before, by
    /// a context that has woken the runner, or will.
    #[inline]
    pub fn set(&self, lane: usize) -> Option<usize> {
        // There is one runner, nearly always.
        let (runner, at) = match self.lanes.is_empty() {
            true => (0, lane),
            false => *self.lanes.get(lane)?,
        };
        let (word, bit) = (at / usize::BITS as usize, 1usize << (at % usize::BITS as usize));
        let word = self.words.get(runner)?.get(word)?;
        // SeqCst: a runner says that it sleeps and then looks here; what sets a bit looks
        // afterwards whether the runner sleeps.
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

    /// Takes the lanes of a runner that are to be polled, one after the other, lowest first. `each`
    /// is given the lane's place among the runner's.
    #[inline]
    pub fn take(&self, runner: usize, mut each: impl FnMut(usize)) {
        for (number, word) in self.words(runner).iter().enumerate() {
            let mut bits = word.swap(0, Ordering::SeqCst);
            while bits != 0 {
                each(number * usize::BITS as usize + bits.trailing_zeros() as usize);
                bits &= bits.wrapping_sub(1);
            }
        }
    }

    /// Takes one lane of a runner that is to be polled, by its place among the runner's: the
    /// `choice`th of them, counted round. For the simulation, which decides the order.
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
        Some(number * usize::BITS as usize + bit)
    }
}
