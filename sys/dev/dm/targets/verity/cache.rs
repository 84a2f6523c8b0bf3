// SPDX-License-Identifier: BSD-2-Clause

//! Hash blocks that have been verified, kept in memory that was taken with the table.
//!
//! A block can lie in one of the [`WAYS`] slots of its set only, so that looking for it and for the
//! slot to give up takes a few comparisons. A slot is *empty*, *valid*, or *being loaded* by one
//! lane, which has its memory meanwhile.

use alloc::boxed::Box;
use alloc::vec;

use crate::hash::Digest;

use super::tree::Spot;

/// Slots in a set.
const WAYS: usize = 8;

/// The state of a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    Valid,
    Loading,
}

struct Slot {
    state: State,
    block: u64,
    /// The moment of its last use, by the cache's own clock.
    used: u64,
    /// Empty while the slot is being loaded.
    data: Box<[u8]>,
}

/// A slot that a lane is to load.
#[must_use = "a slot must be returned"]
pub struct Claim {
    slot: usize,
    data: Box<[u8]>,
}

/// The result of a search for a digest.
pub enum Lookup {
    /// The digest.
    Digest(Digest),
    /// Another lane is loading the block.
    Loading,
    /// The block is to be loaded, and into this slot if there is one.
    Claimed(Option<Claim>),
}

/// Verified hash blocks. All fields: under [`Verity::cache`](super::Verity).
pub struct Cache {
    /// The slots, those of a set together.
    slots: Box<[Slot]>,
    /// The number of uses so far.
    clock: u64,
    /// Bytes of a digest.
    digest: usize,
}

/// The number of slots for a tree of so many blocks of `bytes` bytes, of which `most` bytes are to
/// be kept.
fn slots(blocks: u64, bytes: usize, most: usize) -> usize {
    let wanted = usize::try_from(blocks).unwrap_or(usize::MAX).div_ceil(WAYS);
    let sets = most.checked_div(bytes).unwrap_or(0) / WAYS;
    wanted.min(sets).max(1).saturating_mul(WAYS)
}

/// Bytes that a cache takes.
pub fn bytes(blocks: u64, bytes: usize, most: usize) -> usize {
    slots(blocks, bytes, most).saturating_mul(bytes.saturating_add(size_of::<Slot>()))
}

impl Cache {
    /// An empty cache for a tree of so many blocks of `bytes` bytes, of at most `most` bytes or one
    /// set.
    pub fn new(blocks: u64, bytes: usize, most: usize, digest: usize) -> Cache {
        let slot = |_| Slot { state: State::Empty, block: 0, used: 0, data: vec![0; bytes].into() };
        let slots = (0..slots(blocks, bytes, most)).map(slot).collect();
        Cache { slots, clock: 0, digest }
    }

    /// The slots that a block may lie in, with their numbers.
    fn set(&mut self, block: u64) -> impl Iterator<Item = (usize, &mut Slot)> {
        let sets = (self.slots.len() / WAYS).max(1) as u64;
        let first = (block.checked_rem(sets).unwrap_or(0) as usize).wrapping_mul(WAYS);
        self.slots.iter_mut().enumerate().skip(first).take(WAYS)
    }

    fn tick(&mut self) -> u64 {
        self.clock = self.clock.wrapping_add(1);
        self.clock
    }

    /// The digest at a spot, if its block is there.
    pub fn get(&mut self, spot: Spot) -> Option<Digest> {
        match self.look(spot)? {
            Lookup::Digest(digest) => Some(digest),
            _ => None,
        }
    }

    /// The digest, or that its block is being loaded; `None` if it is not there.
    fn look(&mut self, spot: Spot) -> Option<Lookup> {
        let (now, size) = (self.tick(), self.digest);
        let here = |slot: &Slot| slot.state != State::Empty && slot.block == spot.block;
        let (_, slot) = self.set(spot.block).find(|(_, slot)| here(slot))?;
        if slot.state == State::Loading {
            return Some(Lookup::Loading);
        }
        slot.used = now;
        copy(&slot.data, spot.offset, size).map(Lookup::Digest)
    }

    /// Looks for a digest, and claims a slot for its block where it is not there.
    pub fn claim(&mut self, spot: Spot) -> Lookup {
        if let Some(found) = self.look(spot) {
            return found;
        }
        // An empty slot, else the one that was not used for longest.
        let age = |slot: &Slot| if slot.state == State::Empty { 0 } else { slot.used };
        let free = self.set(spot.block).filter(|(_, slot)| slot.state != State::Loading);
        Lookup::Claimed(free.min_by_key(|(_, slot)| age(slot)).map(|(number, slot)| {
            (slot.state, slot.block) = (State::Loading, spot.block);
            Claim { slot: number, data: core::mem::take(&mut slot.data) }
        }))
    }

    /// Returns a slot that was claimed: with its block, if that was verified.
    pub fn put(&mut self, claim: Claim, valid: bool) {
        let now = self.tick();
        if let Some(slot) = self.slots.get_mut(claim.slot) {
            slot.state = if valid { State::Valid } else { State::Empty };
            (slot.data, slot.used) = (claim.data, now);
        }
    }

    /// Notes that a block is in use, if it is there.
    pub fn touch(&mut self, block: u64) {
        let now = self.tick();
        if let Some((_, slot)) = self.set(block).find(|(_, slot)| slot.block == block) {
            slot.used = now;
        }
    }
}

impl Claim {
    /// The slot's memory.
    pub fn data(&mut self) -> &mut [u8] {
        &mut self.data
    }
}

/// A digest out of a block.
pub fn copy(block: &[u8], offset: usize, size: usize) -> Option<Digest> {
    let mut digest = [0; crate::hash::LARGEST];
    let from = block.get(offset..offset.checked_add(size)?)?;
    digest.get_mut(..size)?.copy_from_slice(from);
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(block: u64) -> Spot {
        Spot { block, offset: 32 }
    }

    fn load(cache: &mut Cache, block: u64) {
        let Lookup::Claimed(Some(mut claim)) = cache.claim(spot(block)) else { panic!("{block}") };
        claim.data().fill(block as u8);
        assert!(matches!(cache.claim(spot(block)), Lookup::Loading));
        assert!(cache.get(spot(block)).is_none());
        cache.put(claim, true);
    }

    #[test]
    fn blocks_are_found_until_others_need_their_room() {
        let mut cache = Cache::new(1000, 512, 32 * 512, 32);
        assert_eq!(cache.slots.len(), 32);
        for block in 0..32 {
            load(&mut cache, block);
        }
        for block in 0..32 {
            assert_eq!(cache.get(spot(block)).map(|digest| digest[31]), Some(block as u8));
        }
        // Of the set of 0, 4, 8…: all but 4 are used again.
        for block in (0..32).step_by(4).filter(|block| *block != 4) {
            cache.touch(block);
        }
        load(&mut cache, 32);
        assert!(cache.get(spot(4)).is_none() && cache.get(spot(0)).is_some());
        assert!(cache.get(spot(1)).is_some());
    }

    #[test]
    fn a_tree_that_fits_stays() {
        for blocks in [1, 7, 8, 9, 63, 100] {
            let mut cache = Cache::new(blocks, 512, 1 << 20, 32);
            (100..100 + blocks).for_each(|block| load(&mut cache, block));
            (100..100 + blocks).for_each(|block| assert!(cache.get(spot(block)).is_some()));
        }
    }

    #[test]
    fn what_was_not_verified_is_not_there() {
        let mut cache = Cache::new(8, 512, 4096, 32);
        let Lookup::Claimed(Some(claim)) = cache.claim(spot(3)) else { panic!() };
        cache.put(claim, false);
        assert!(cache.get(spot(3)).is_none());
        assert!(matches!(cache.claim(spot(3)), Lookup::Claimed(Some(_))));
    }

    #[test]
    fn a_set_that_is_being_loaded_has_no_room() {
        let mut cache = Cache::new(1000, 512, 8 * 512, 32);
        let claims: alloc::vec::Vec<_> = (0..8)
            .map(|block| match cache.claim(spot(block)) {
                Lookup::Claimed(Some(claim)) => claim,
                _ => panic!("{block}"),
            })
            .collect();
        assert!(matches!(cache.claim(spot(8)), Lookup::Claimed(None)));
        claims.into_iter().for_each(|claim| cache.put(claim, true));
        assert!(matches!(cache.claim(spot(8)), Lookup::Claimed(Some(_))));
    }

    #[test]
    fn a_digest_beyond_its_block_is_none() {
        assert!(copy(&[1; 512], 512 - 32, 32).is_some());
        assert!(copy(&[1; 512], 512 - 31, 32).is_none());
        assert!(copy(&[1; 512], usize::MAX, 32).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        assert_eq!(slots(u64::MAX, 4096, 4 << 20), 1024);
        assert_eq!(slots(3, 4096, 4 << 20), 8);
        assert_eq!(slots(u64::MAX, 512 << 10, 4 << 20), 8);
        assert_eq!(slots(u64::MAX, 512 << 10, 1), 8);
        assert!(bytes(u64::MAX, 4096, 4 << 20) < 5 << 20);
    }
}
