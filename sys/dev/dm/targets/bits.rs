// SPDX-License-Identifier: BSD-2-Clause

//! Bitmaps with a bit for each region of a mirror, or for each block of a verity line.

use alloc::boxed::Box;
use alloc::vec;
use core::sync::atomic::{AtomicU32, Ordering};

/// The word that a bit lies in, and the bit there.
#[inline]
fn place(bit: u64) -> (usize, u32) {
    ((bit / 32) as usize, 1u32.wrapping_shl((bit % 32) as u32))
}

/// The number of words for so many bits.
pub fn words(bits: u64) -> usize {
    usize::try_from(bits.div_ceil(32)).unwrap_or(usize::MAX)
}

/// A bitmap that its owner locks.
pub struct Bits(pub Box<[u32]>);

impl Bits {
    /// A bitmap of `bits` bits, all clear.
    pub fn new(bits: u64) -> Bits {
        Bits(vec![0; words(bits)].into())
    }

    /// `true` if the bit is set.
    #[inline]
    pub fn get(&self, bit: u64) -> bool {
        let (word, mask) = place(bit);
        self.0.get(word).is_some_and(|word| word & mask != 0)
    }

    /// Sets or clears a bit.
    #[inline]
    pub fn put(&mut self, bit: u64, set: bool) {
        let (word, mask) = place(bit);
        if let Some(word) = self.0.get_mut(word) {
            *word = if set { *word | mask } else { *word & !mask };
        }
    }

    /// Changes a word.
    pub fn set(&mut self, at: usize, word: u32) {
        if let Some(to) = self.0.get_mut(at) {
            *to = word;
        }
    }

    /// Sets more bits of a word.
    pub fn or(&mut self, at: usize, word: u32) {
        if let Some(to) = self.0.get_mut(at) {
            *to |= word;
        }
    }

    /// Sets or clears all bits from one on, up to `count`, and clears those behind.
    pub fn fill(&mut self, from: u64, count: u64, set: bool) {
        for (word, first) in self.0.iter_mut().zip((0u64..).step_by(32)) {
            let below = |end: u64| match end.saturating_sub(first) {
                bits @ 0..32 => 1u32.wrapping_shl(bits as u32).wrapping_sub(1),
                _ => u32::MAX,
            };
            let (keep, all) = (below(from.min(count)), below(count));
            *word = *word & keep | if set { all & !keep } else { 0 };
        }
    }
}

/// A bitmap that is read, and whose bits are set and cleared, without a lock. A caller of
/// [`SharedBits::change`], which changes whole words, keeps other changes out by a lock.
pub struct SharedBits(Box<[AtomicU32]>);

impl SharedBits {
    /// A bitmap of `bits` bits, all clear.
    pub fn new(bits: u64) -> SharedBits {
        SharedBits((0..words(bits)).map(|_| AtomicU32::new(0)).collect())
    }

    /// `true` if the bit is set.
    #[inline]
    pub fn get(&self, bit: u64) -> bool {
        let (word, mask) = place(bit);
        self.0.get(word).is_some_and(|word| word.load(Ordering::Acquire) & mask != 0)
    }

    /// A word.
    pub fn word(&self, at: usize) -> u32 {
        self.0.get(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Sets or clears a bit. `true` if that changed it.
    pub fn put(&self, bit: u64, set: bool) -> bool {
        let (word, mask) = place(bit);
        let Some(word) = self.0.get(word) else { return false };
        let before = match set {
            true => word.fetch_or(mask, Ordering::AcqRel),
            false => word.fetch_and(!mask, Ordering::AcqRel),
        };
        (before & mask != 0) != set
    }

    /// Changes each word as `change` says, which is given the word's number and the word. Returns
    /// the number of bits that are set then.
    pub fn change(&self, mut change: impl FnMut(usize, u32) -> u32) -> u64 {
        let each = |(at, word): (usize, &AtomicU32)| {
            let new = change(at, word.load(Ordering::Relaxed));
            word.store(new, Ordering::Release);
            u64::from(new.count_ones())
        };
        self.0.iter().enumerate().map(each).fold(0, u64::wrapping_add)
    }

    /// The first bit that is clear among `from..count`.
    pub fn next_clear(&self, from: u64, count: u64) -> Option<u64> {
        let (first, mask) = place(from);
        let mut ignore = mask.wrapping_sub(1);
        for (at, word) in self.0.iter().enumerate().skip(first) {
            let clear = !(word.load(Ordering::Acquire) | ignore);
            ignore = 0;
            if clear != 0 {
                let bit = (at as u64).wrapping_mul(32).wrapping_add(clear.trailing_zeros().into());
                return (bit < count).then_some(bit);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_filled_from_one_on() {
        for from in [0, 1, 31, 32, 33, 69, 70, 200] {
            let mut bits = Bits::new(70);
            bits.0.fill(0xffff_ffff);
            bits.fill(from, 70, false);
            for bit in 0..96 {
                assert_eq!(bits.get(bit), bit < from.min(70), "{from}: {bit}");
            }
            bits.fill(from, 70, true);
            for bit in 0..96 {
                assert_eq!(bits.get(bit), bit < 70, "{from}: {bit}");
            }
        }
    }

    #[test]
    fn clear_bits_are_found() {
        let bits = SharedBits::new(70);
        assert_eq!(bits.change(|_, _| u32::MAX), 96);
        assert_eq!(bits.next_clear(0, 70), None);
        assert!(bits.put(33, false) && !bits.put(33, false) && bits.put(69, false));
        assert_eq!(bits.next_clear(0, 70), Some(33));
        assert_eq!(bits.next_clear(33, 70), Some(33));
        assert_eq!(bits.next_clear(34, 70), Some(69));
        assert_eq!(bits.next_clear(34, 69), None);
        assert_eq!(bits.next_clear(70, 70), None);
        assert!(bits.get(32) && !bits.get(33));
    }
}
