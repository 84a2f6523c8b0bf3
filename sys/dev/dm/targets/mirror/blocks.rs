// SPDX-License-Identifier: BSD-2-Clause

//! The sectors of a mirror that are being written, so that writes which overlap wait for one
//! another: they could reach the legs in different orders.

use alloc::boxed::Box;

use crate::Sector;

/// The number of flags, and their bytes.
pub(super) const FLAGS: usize = 1024;

/// Sectors in a block.
const BLOCK: u64 = 8;

/// The sectors that are being written, roughly: a flag for each block of [`BLOCK`] sectors, which
/// blocks of the same remainder by [`FLAGS`] share. Under the mirror's state lock.
pub(super) struct Blocks(Box<[bool; FLAGS]>);

impl Blocks {
    /// Flags, none of them set.
    pub(super) fn new() -> Blocks {
        Blocks(Box::new([false; FLAGS]))
    }

    /// The first block of these sectors, and the last. There is at least one sector, and they lie
    /// on the device.
    #[inline]
    fn of(start: Sector, length: Sector) -> (u64, u64) {
        (start.0 / BLOCK, start.0.wrapping_add(length.0).wrapping_sub(1) / BLOCK)
    }

    /// The flags from a first block to a last one, each once.
    fn flags((first, last): (u64, u64)) -> impl Iterator<Item = usize> {
        let count = last.wrapping_sub(first).saturating_add(1).min(FLAGS as u64);
        (0..count).map(move |n| (first.wrapping_add(n) % FLAGS as u64) as usize)
    }

    /// Begins a write, unless another that is in flight may overlap it: `false` then.
    #[inline]
    pub(super) fn enter(&mut self, start: Sector, length: Sector) -> bool {
        let (first, last) = Blocks::of(start, length);
        if first != last {
            return self.enter_all((first, last));
        }
        let block = self.0.get_mut((first % FLAGS as u64) as usize);
        block.is_some_and(|busy| !core::mem::replace(busy, true))
    }

    #[inline(never)]
    fn enter_all(&mut self, blocks: (u64, u64)) -> bool {
        let busy = |at: usize| self.0.get(at).is_none_or(|busy| *busy);
        if Blocks::flags(blocks).any(busy) {
            return false;
        }
        self.put_all(blocks, true);
        true
    }

    /// Ends a write that was begun.
    #[inline]
    pub(super) fn leave(&mut self, start: Sector, length: Sector) {
        let (first, last) = Blocks::of(start, length);
        if first != last {
            return self.put_all((first, last), false);
        }
        if let Some(busy) = self.0.get_mut((first % FLAGS as u64) as usize) {
            *busy = false;
        }
    }

    #[inline(never)]
    fn put_all(&mut self, blocks: (u64, u64), busy: bool) {
        for at in Blocks::flags(blocks) {
            if let Some(block) = self.0.get_mut(at) {
                *block = busy;
            }
        }
    }
}
