// SPDX-License-Identifier: BSD-2-Clause

//! The nodes of a tree of runs, as lookups see them: without a lock, while exceptions may be added.
//!
//! All is atomics. What a lookup finds during a change may be anything, but it ends: see
//! [`Version`](crate::version::Version).

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dm_sync::Grown;

use super::{FAN, MOST, NODES, NOWHERE, unpack};

/// Words of a node: one for [`Node::head`], [`FAN`] keys, [`FAN`] values, and [`Node::next`].
const WORDS: usize = 128;

/// The words of a block's nodes.
type Words = [AtomicU64; WORDS * NODES];

/// Nodes that are allocated together.
pub struct Block(Box<Words>);

/// Bytes of a block.
pub const BLOCK: usize = size_of::<Words>();

const _: () = assert!(FAN * 2 + 2 <= WORDS);

impl Default for Block {
    /// A block of nodes that are not in use.
    fn default() -> Block {
        // On the heap from the start: it is too large for a kernel's stack.
        let words: Box<[AtomicU64]> = (0..WORDS * NODES).map(|_| AtomicU64::new(0)).collect();
        match words.try_into() {
            Ok(words) => Block(words),
            Err(_) => unreachable!(),
        }
    }
}

/// A node of the tree.
#[derive(Clone, Copy)]
pub(super) struct Node<'t>(&'t [AtomicU64; WORDS]);

impl Node<'_> {
    #[inline]
    fn word(self, at: usize) -> u64 {
        self.0.get(at % WORDS).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn put(self, at: usize, value: u64) {
        if let Some(word) = self.0.get(at % WORDS) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// The entries in use, and `true` if these are branches, and not runs.
    #[inline]
    pub(super) fn head(self) -> (usize, bool) {
        let word = self.word(0);
        (word as u32 as usize, word >> 32 != 0)
    }

    /// The number of entries in use.
    pub(super) fn len(self) -> usize {
        self.head().0
    }

    /// `true` if its entries are branches, and not runs.
    pub(super) fn is_branch(self) -> bool {
        self.head().1
    }

    pub(super) fn set_head(self, len: usize, branch: bool) {
        self.put(0, (len.min(FAN) as u64) | u64::from(branch) << 32);
    }

    /// The first chunk of the origin that a run, or any run under a branch, has. A node's own first
    /// is not looked at in a branch.
    #[inline]
    pub(super) fn key(self, at: usize) -> u64 {
        self.word(at.wrapping_add(1))
    }

    /// A run's chunk of the store and its length less one, or the number of the node under a
    /// branch.
    #[inline]
    pub(super) fn value(self, at: usize) -> u64 {
        self.word(at.wrapping_add(FAN).wrapping_add(1))
    }

    /// The last entry of the first `len` whose key is at most this one; the first if none is.
    #[inline]
    pub(super) fn at(self, mut len: usize, key: u64) -> usize {
        let mut at = 0usize;
        while len > 1 {
            let half = len / 2;
            let middle = at.wrapping_add(half);
            if self.key(middle) <= key {
                at = middle;
            }
            len = len.wrapping_sub(half);
        }
        at
    }

    pub(super) fn entry(self, at: usize) -> Option<(u64, u64)> {
        (at < self.len()).then(|| (self.key(at), self.value(at)))
    }

    /// Changes an entry that there is.
    pub(super) fn set(self, at: usize, (key, value): (u64, u64)) {
        if at < FAN {
            self.put(at.wrapping_add(1), key);
            self.put(at.wrapping_add(FAN).wrapping_add(1), value);
        }
    }

    /// The number of the next node of a chain, or [`NONE`](super::NONE), where the node is not in
    /// the tree.
    pub(super) fn next(self) -> u64 {
        self.word(WORDS - 1)
    }

    pub(super) fn set_next(self, next: u64) {
        self.put(WORDS - 1, next);
    }

    /// Puts an entry behind the others. There is room.
    pub(super) fn push(self, entry: (u64, u64)) {
        let (len, branch) = self.head();
        self.set(len, entry);
        self.set_head(len.wrapping_add(1), branch);
    }

    /// Puts an entry at a place, and moves those behind it. There is room.
    pub(super) fn insert(self, at: usize, entry: (u64, u64)) {
        let (len, branch) = self.head();
        if at <= len && len < FAN {
            for to in (at.wrapping_add(1)..=len).rev() {
                let from = to.wrapping_sub(1);
                self.set(to, (self.key(from), self.value(from)));
            }
            self.set_head(len.wrapping_add(1), branch);
            self.set(at, entry);
        }
    }

    /// Takes an entry away, and moves those behind it.
    pub(super) fn remove(self, at: usize) {
        let (len, branch) = self.head();
        if at < len && len <= FAN {
            for to in at..len.wrapping_sub(1) {
                let from = to.wrapping_add(1);
                self.set(to, (self.key(from), self.value(from)));
            }
            self.set_head(len.wrapping_sub(1), branch);
        }
    }
}

/// A run as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundRun {
    /// The chunk of the store, or [`NOWHERE`].
    pub new: u64,
    /// The chunks of the run from here on.
    pub left: u64,
}

/// The tree: its nodes, and which of them is the root.
pub struct Tree {
    blocks: Grown<Words>,
    root: AtomicUsize,
}

impl Tree {
    /// A tree without nodes, with room for so many blocks of them.
    pub(super) fn new(blocks: usize) -> Tree {
        Tree { blocks: Grown::new(blocks), root: AtomicUsize::new(0) }
    }

    /// The number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// `true` if there is room for another block.
    pub(super) fn can_grow(&self) -> bool {
        self.blocks.len() < self.blocks.room()
    }

    /// Adds a block of nodes. Returns the block if there is no room for one.
    pub(super) fn grow(&self, block: Block) -> Option<Block> {
        self.blocks.push(block.0).map(Block)
    }

    pub(super) fn root(&self) -> usize {
        self.root.load(Ordering::Relaxed)
    }

    pub(super) fn set_root(&self, number: usize) {
        self.root.store(number, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn node(&self, number: usize) -> Option<Node<'_>> {
        let block = self.blocks.get(number / NODES)?;
        block.as_chunks::<WORDS>().0.get(number % NODES).map(Node)
    }

    /// The exception of a chunk of the origin.
    #[inline]
    pub fn find(&self, old: u64) -> Option<FoundRun> {
        let mut node = self.node(self.root())?;
        for _ in 0..MOST {
            let (len, branch) = node.head();
            let at = node.at(len, old);
            let value = node.value(at);
            if !branch {
                let on = old.checked_sub(node.key(at)).filter(|_| len != 0)?;
                let (new, length) = unpack(value);
                let left = length.checked_sub(on).filter(|left| *left != 0)?;
                let new = if new == NOWHERE { NOWHERE } else { new.wrapping_add(on) };
                return Some(FoundRun { new, left });
            }
            node = self.node(value as usize)?;
        }
        None
    }
}
