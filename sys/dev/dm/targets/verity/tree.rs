// SPDX-License-Identifier: BSD-2-Clause

//! The shape of a tree of digests: numbers only.
//!
//! The digests of all data blocks fill the blocks of level 0, those of level 0's blocks level 1,
//! and so on up to one block, whose digest is the root. The levels lie on the hash device from the
//! top down, each in whole blocks. A single data block has no tree: its digest is the root.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// The place of a digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spot {
    /// The hash block, counted on the hash device.
    pub block: u64,
    /// The digest's first byte in the block.
    pub offset: usize,
}

/// The shape of a tree.
pub struct Tree {
    /// The number of digests in a hash block, as a power of two.
    bits: u32,
    /// Bytes from one digest to the next.
    step: usize,
    /// The first block of each level, from level 0 on.
    levels: Box<[u64]>,
    /// The hash block behind the last.
    end: u64,
}

impl Tree {
    /// The tree over some data blocks, at least one, that begins at hash block `start`. A hash
    /// block has `bytes` bytes, at least two digests of `digest` bytes, in which digests of type 0
    /// stand without gaps. `None` if no device can hold it.
    pub fn new(kind: u32, blocks: u64, start: u64, bytes: u32, digest: usize) -> Option<Tree> {
        let digests = bytes.checked_div(u32::try_from(digest).ok()?)?;
        let bits = digests.checked_ilog2().filter(|bits| *bits > 0)?;
        let step = if kind == 0 { digest } else { (bytes >> bits) as usize };
        let last = blocks.checked_sub(1)?;
        // The number of blocks of the levels, from level 0 on.
        let mut counts: Vec<u64> = Vec::new();
        let mut shift = 0u32;
        while last.checked_shr(shift).unwrap_or(0) != 0 {
            shift = shift.checked_add(bits)?;
            counts.push(last.checked_shr(shift).unwrap_or(0).checked_add(1)?);
        }
        let (mut levels, mut end) = (Vec::with_capacity(counts.len()), start);
        for count in counts.iter().rev() {
            levels.push(end);
            end = end.checked_add(*count)?;
        }
        levels.reverse();
        Some(Tree { bits, step, levels: levels.into(), end })
    }

    /// The number of levels.
    pub fn levels(&self) -> usize {
        self.levels.len()
    }

    /// The hash block behind the last.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The place, on a level, of the digest that a data block's chain of digests goes through.
    pub fn spot(&self, block: u64, level: usize) -> Option<Spot> {
        let first = self.levels.get(level)?;
        let position = block.checked_shr(self.bits.checked_mul(level as u32)?)?;
        let (high, mask) = (position >> self.bits, (1u64 << self.bits).wrapping_sub(1));
        let offset = ((position & mask) as usize).checked_mul(self.step)?;
        Some(Spot { block: first.checked_add(high)?, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(kind: u32, blocks: u64, bytes: u32, digest: usize) -> (usize, u64) {
        let tree = Tree::new(kind, blocks, 1, bytes, digest).unwrap();
        (tree.levels(), tree.end())
    }

    #[test]
    fn trees_have_the_size_that_veritysetup_gives_them() {
        // One data block, then one hash block, then two and their parent.
        assert_eq!(shape(1, 1, 4096, 32), (0, 1));
        assert_eq!(shape(1, 2, 4096, 32), (1, 2));
        assert_eq!(shape(1, 128, 4096, 32), (1, 2));
        assert_eq!(shape(1, 129, 4096, 32), (2, 4));
        assert_eq!(shape(1, 300, 4096, 32), (2, 5));
        // SHA-1: 204 would fit, 128 are used, with gaps or without.
        assert_eq!(shape(1, 129, 4096, 20), (2, 4));
        assert_eq!(shape(0, 129, 4096, 20), (2, 4));
        assert_eq!(shape(1, 8 * 8 + 1, 512, 64), (3, 1 + 1 + 2 + 9));
    }

    #[test]
    fn spots_lie_in_their_level_in_order() {
        let tree = Tree::new(1, 129, 1, 4096, 32).unwrap();
        let spot = |block, level| tree.spot(block, level).map(|spot| (spot.block, spot.offset));
        assert_eq!(spot(0, 0), Some((2, 0)));
        assert_eq!(spot(127, 0), Some((2, 127 * 32)));
        assert_eq!(spot(128, 0), Some((3, 0)));
        assert_eq!(spot(0, 1), Some((1, 0)));
        assert_eq!(spot(128, 1), Some((1, 32)));
        assert_eq!(spot(0, 2), None);
        let packed = Tree::new(0, 129, 0, 4096, 20).unwrap();
        assert_eq!(packed.spot(127, 0), Some(Spot { block: 1, offset: 127 * 20 }));
    }

    #[test]
    fn each_digest_has_a_place_of_its_own() {
        for (kind, blocks, bytes, digest) in
            [(1, 1000, 512, 32), (0, 1000, 512, 20), (1, 700, 1024, 64), (0, 9, 512, 64)]
        {
            let tree = Tree::new(kind, blocks, 7, bytes, digest).unwrap();
            let mut below: Vec<u64> = (0..blocks).collect();
            let mut seen = std::collections::BTreeSet::new();
            for level in 0..tree.levels() {
                let mut parents = Vec::new();
                let per = 1u64 << (tree.bits * level as u32);
                for at in 0..below.len() as u64 {
                    let spot = tree.spot(at * per, level).unwrap();
                    assert!(seen.insert((spot.block, spot.offset)), "{kind} {blocks} {level}");
                    assert!((7..tree.end()).contains(&spot.block));
                    assert!(spot.offset + digest <= bytes as usize);
                    parents.push(spot.block);
                }
                parents.dedup();
                below = parents;
            }
            assert_eq!(below, [7], "the top is one block, and lies first");
            let all: std::collections::BTreeSet<u64> = seen.iter().map(|spot| spot.0).collect();
            assert_eq!(all.len() as u64, tree.end() - 7, "no block is left out");
        }
    }

    #[test]
    fn trees_that_no_device_holds_are_refused() {
        assert!(Tree::new(1, 0, 0, 4096, 32).is_none());
        assert!(Tree::new(1, 1 << 20, u64::MAX, 4096, 32).is_none());
        assert!(Tree::new(1, 1 << 20, u64::MAX - (1 << 13), 4096, 32).is_none());
        assert!(Tree::new(1, 1 << 20, 0, 512, 512).is_none());
        assert!(Tree::new(1, 1 << 20, 0, 512, 0).is_none());
        // The most that there can be has an end.
        let tree = Tree::new(1, u64::MAX, 0, 512, 64).unwrap();
        assert_eq!(tree.levels(), 22);
        assert!(tree.spot(u64::MAX - 1, 21).is_some() && tree.end() > u64::MAX / 8);
        assert!(Tree::new(1, u64::MAX, u64::MAX - u64::MAX / 8, 512, 64).is_none());
    }
}
