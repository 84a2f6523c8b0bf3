// SPDX-License-Identifier: BSD-2-Clause

//! Exceptions in memory: a tree of runs.
//!
//! A *run* is some consecutive chunks of the origin that lie in consecutive chunks of the store, as copies that are made
//! in order do: sixteen bytes for up to 65,536 of them. Runs stand in the leaves of a B+ tree by their first chunk of the
//! origin. A node has room for [`FAN`] runs or branches; a full one is split on the way down, so that an insertion
//! never goes back up. At the end of the tree a split leaves most where it was, which fills nodes where
//! chunks come in order.
//!
//! Nodes come from [`Block`]s that were allocated before ([`Runs::grow`]): inserting never allocates. An exception is taken away
//! from the end of its run only (`runs/remove.rs`), and a node that has become empty is free again.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::format::Exception;

mod remove;

/// Runs, or branches, in a node.
pub const FAN: usize = 63;

/// Nodes in a block.
const NODES: usize = 32;

/// Levels of a tree that cannot be higher, and one for a root.
const MOST: usize = 12;

/// Entries that a split leaves free, at least.
const SLACK: usize = 8;

/// No node.
const NONE: u64 = u64::MAX;

/// Bits of a chunk of the store; the others count the run.
const NEW: u32 = 48;

/// A chunk of the store that there is not: where a run leads whose chunk no store can have.
pub const NOWHERE: u64 = (1 << NEW) - 1;

/// The most chunks in a run.
const LONGEST: u64 = 1 << 16;

/// A node of the tree, some 1,000 bytes: too many for a kernel's stack.
#[derive(Clone)]
struct Node {
    /// The entries in use.
    len: u16,
    /// `true` if its entries are branches, and not runs.
    branch: bool,
    /// The first chunk of the origin that a run, or any run under a branch, has. A node's own first is not
    /// looked at in a branch.
    keys: [u64; FAN],
    /// A run's chunk of the store and its length less one, or the number of the node under a branch. The first of a node
    /// that is free is the number of the next that is, or [`NONE`].
    values: [u64; FAN],
}

/// Nodes that are allocated together.
pub struct Block(Box<[Node]>);

/// Bytes of a block.
pub const BLOCK: usize = size_of::<Node>() * NODES;

impl Default for Block {
    /// A block of nodes that are not in use.
    fn default() -> Block {
        const EMPTY: Node = Node { len: 0, branch: false, keys: [0; FAN], values: [0; FAN] };
        Block(vec![EMPTY; NODES].into())
    }
}

/// Exceptions by their chunk of the origin.
pub struct Runs {
    /// It has room for as many as there may be.
    blocks: Vec<Block>,
    /// Nodes that have been in use: the first of them all.
    used: usize,
    /// Those of them that are not any more, and the number of the first.
    freed: usize,
    free: u64,
    /// Nodes in use that are branches.
    branches: usize,
    root: usize,
    /// The number of exceptions.
    count: u64,
}

/// A run as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// The chunk of the store, or [`NOWHERE`].
    pub new: u64,
    /// The chunks of the run from here on.
    pub left: u64,
}

fn pack(new: u64, length: u64) -> u64 {
    new.min(NOWHERE) | length.wrapping_sub(1).wrapping_shl(NEW)
}

fn unpack(value: u64) -> (u64, u64) {
    (value & NOWHERE, value.wrapping_shr(NEW).wrapping_add(1))
}

impl Node {
    fn keys(&self) -> &[u64] {
        self.keys.get(..usize::from(self.len)).unwrap_or(&self.keys)
    }

    /// The last entry whose key is at most this one; the first if none is.
    #[inline]
    fn at(&self, key: u64) -> usize {
        self.keys().partition_point(|k| *k <= key).saturating_sub(1)
    }

    fn entry(&self, at: usize) -> Option<(u64, u64)> {
        if at >= usize::from(self.len) {
            return None;
        }
        self.keys.get(at).copied().zip(self.values.get(at).copied())
    }

    fn set(&mut self, at: usize, (key, value): (u64, u64)) {
        if let Some((k, v)) = self.keys.get_mut(at).zip(self.values.get_mut(at)) {
            (*k, *v) = (key, value);
        }
    }

    /// Puts an entry at a place, and moves those behind it. There is room.
    fn insert(&mut self, at: usize, entry: (u64, u64)) {
        let len = usize::from(self.len);
        if at <= len && len < FAN {
            self.keys.copy_within(at..len, at.saturating_add(1));
            self.values.copy_within(at..len, at.saturating_add(1));
            self.len = self.len.saturating_add(1);
            self.set(at, entry);
        }
    }
}

impl Runs {
    /// No exceptions, with room for so many blocks and none yet.
    pub fn new(blocks: usize) -> Runs {
        let blocks = Vec::with_capacity(blocks);
        Runs { blocks, used: 0, freed: 0, free: NONE, branches: 0, root: 0, count: 0 }
    }

    /// Adds a block of nodes. The answer is the block if there is no room for one.
    pub fn grow(&mut self, block: Block) -> Option<Block> {
        if self.blocks.len() >= self.blocks.capacity() {
            return Some(block);
        }
        self.blocks.push(block);
        if self.used == 0 {
            // The root.
            self.used = 1;
        }
        None
    }

    /// `true` if so many insertions are certain to find room, wherever they fall.
    pub fn has_room(&self, insertions: usize) -> bool {
        let all = self.blocks.len().saturating_mul(NODES);
        let used = self.used.saturating_sub(self.freed);
        let leaves = used.saturating_sub(self.branches);
        // Each splits a leaf at most. One that is there may be full, and what a split has made is full after some
        // more; so with branches, of which each insertion meets one a level.
        let on_way = insertions.saturating_mul(MOST);
        let leaves = insertions.min(leaves.saturating_add(insertions / SLACK));
        let branches = self.branches.min(on_way).saturating_add(leaves / SLACK);
        all.saturating_sub(used) >= leaves.saturating_add(branches).saturating_add(MOST)
    }

    /// Forgets every exception, and keeps the blocks.
    pub fn clear(&mut self) {
        (self.used, self.root, self.count) = (usize::from(!self.blocks.is_empty()), 0, 0);
        (self.freed, self.free, self.branches) = (0, NONE, 0);
        if let Some(root) = self.node_mut(0) {
            (root.len, root.branch) = (0, false);
        }
    }

    /// `true` if there is room for another block.
    pub fn can_grow(&self) -> bool {
        self.blocks.len() < self.blocks.capacity()
    }

    /// Bytes of all blocks.
    pub fn bytes(&self) -> usize {
        self.blocks.len().saturating_mul(BLOCK)
    }

    /// The number of exceptions.
    pub fn len(&self) -> u64 {
        self.count
    }

    fn node(&self, number: usize) -> Option<&Node> {
        self.blocks.get(number / NODES)?.0.get(number % NODES)
    }

    fn node_mut(&mut self, number: usize) -> Option<&mut Node> {
        self.blocks.get_mut(number / NODES)?.0.get_mut(number % NODES)
    }

    /// The leaf that a chunk belongs in.
    #[inline]
    fn leaf(&self, old: u64) -> Option<&Node> {
        let mut node = self.node(self.root)?;
        while node.branch {
            let (_, below) = node.entry(node.at(old))?;
            node = self.node(below as usize)?;
        }
        Some(node)
    }

    /// The exception of a chunk of the origin.
    #[inline]
    pub fn find(&self, old: u64) -> Option<Found> {
        let leaf = self.leaf(old)?;
        let (key, value) = leaf.entry(leaf.at(old))?;
        let (new, length) = unpack(value);
        let on = old.checked_sub(key).filter(|on| *on < length)?;
        let new = if new == NOWHERE { NOWHERE } else { new.wrapping_add(on) };
        Some(Found { new, left: length.wrapping_sub(on) })
    }

    /// Adds an exception; one whose chunk of the origin has one changes nothing. `false` if there was no
    /// room.
    pub fn insert(&mut self, exception: Exception) -> bool {
        let Exception { old, new } = exception;
        let mut number = self.root;
        if self.node(number).is_none() {
            return false;
        }
        if self.is_full(number) {
            let Some(root) = self.take(true).filter(|root| self.split(*root, 0, number, old))
            else {
                return false;
            };
            self.root = root;
            number = root;
        }
        loop {
            let Some(node) = self.node(number) else { return false };
            if !node.branch {
                return self.insert_in_leaf(number, old, new);
            }
            let at = node.at(old);
            let Some((_, below)) = node.entry(at) else { return false };
            let mut below = below as usize;
            if self.is_full(below) && !self.extends(below, old, new) {
                if !self.split(number, at, below, old) {
                    return false;
                }
                let Some(node) = self.node(number) else { return false };
                let Some((_, now)) = node.entry(node.at(old)) else { return false };
                below = now as usize;
            }
            number = below;
        }
    }

    /// `true` if an exception makes a run of a leaf longer, or is there: the leaf need not be split for it.
    fn extends(&self, number: usize, old: u64, new: u64) -> bool {
        let Some(leaf) = self.node(number).filter(|node| !node.branch) else { return false };
        leaf.entry(leaf.at(old)).is_some_and(|(key, value)| {
            let inside = old.checked_sub(key).is_some_and(|on| on < unpack(value).1);
            inside || goes_on((key, value), old, new)
        })
    }

    fn insert_in_leaf(&mut self, number: usize, old: u64, new: u64) -> bool {
        let Some(leaf) = self.node_mut(number) else { return false };
        let at = leaf.at(old);
        if let Some((key, value)) = leaf.entry(at) {
            let (first, length) = unpack(value);
            if old.checked_sub(key).is_some_and(|on| on < length) {
                return true;
            }
            if goes_on((key, value), old, new) {
                leaf.set(at, (key, pack(first, length.wrapping_add(1))));
                self.count = self.count.saturating_add(1);
                return true;
            }
        }
        if usize::from(leaf.len) >= FAN {
            return false;
        }
        let place = leaf.keys().partition_point(|key| *key <= old);
        leaf.insert(place, (old, pack(new, 1)));
        self.count = self.count.saturating_add(1);
        true
    }

    fn is_full(&self, number: usize) -> bool {
        self.node(number).is_some_and(|node| usize::from(node.len) >= FAN)
    }

    /// Takes a node that is not in use.
    fn take(&mut self, branch: bool) -> Option<usize> {
        let number = if self.free == NONE { self.used } else { self.free as usize };
        let node = self.node_mut(number)?;
        let next = node.values.first().copied().unwrap_or(NONE);
        (node.len, node.branch) = (0, branch);
        if self.free == NONE {
            self.used = number.wrapping_add(1);
        } else {
            (self.free, self.freed) = (next, self.freed.saturating_sub(1));
        }
        self.branches = self.branches.saturating_add(usize::from(branch));
        Some(number)
    }

    /// Splits the full node under branch `at` of another, or under a new root, for a chunk that will be
    /// inserted there.
    fn split(&mut self, above: usize, at: usize, number: usize, old: u64) -> bool {
        let Some(node) = self.node(number) else { return false };
        let last = node.keys().last().copied().unwrap_or(0);
        // In order, nodes stay as full as they may be; a branch needs something on both sides.
        let keep = if old > last { FAN.saturating_sub(SLACK) } else { FAN / 2 };
        let Some(new) = self.take(node.branch) else { return false };
        for from in keep..FAN {
            let entry = self.node(number).and_then(|node| node.entry(from));
            if let Some((entry, new)) = entry.zip(self.node_mut(new)) {
                new.insert(usize::from(new.len), entry);
            }
        }
        if let Some(node) = self.node_mut(number) {
            node.len = keep as u16;
        }
        let key = self.node(new).and_then(|node| node.entry(0)).map_or(old, |(key, _)| key);
        if let Some(above) = self.node_mut(above) {
            if above.len == 0 {
                above.insert(0, (0, number as u64));
            }
            above.insert(at.saturating_add(1), (key, new as u64));
        }
        true
    }

    /// Calls `each` with every run: its chunks of the origin, and the first chunk of the store.
    pub fn each(&self, each: &mut dyn FnMut(Range<u64>, u64)) {
        self.each_under(self.root, MOST, each);
    }

    fn each_under(&self, number: usize, depth: usize, each: &mut dyn FnMut(Range<u64>, u64)) {
        let Some((node, below)) = self.node(number).zip(depth.checked_sub(1)) else { return };
        for at in 0..usize::from(node.len) {
            let Some((key, value)) = node.entry(at) else { return };
            if !node.branch {
                let (new, length) = unpack(value);
                each(key..key.saturating_add(length), new);
            } else {
                self.each_under(value as usize, below, each);
            }
        }
    }
}

/// `true` if an exception is the next of a run that may be longer.
fn goes_on((key, value): (u64, u64), old: u64, new: u64) -> bool {
    let (first, length) = unpack(value);
    first != NOWHERE
        && new < NOWHERE
        && length < LONGEST
        && key.checked_add(length) == Some(old)
        && first.wrapping_add(length) == new
}

#[cfg(test)]
mod tests;
