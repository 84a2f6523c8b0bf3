// SPDX-License-Identifier: BSD-2-Clause

//! Exceptions in memory: a tree of runs.
//!
//! A *run* is some consecutive chunks of the origin that lie in consecutive chunks of the store, as
//! copies that are made in order do: sixteen bytes for up to 65,536 of them. Runs stand in the
//! leaves of a B+ tree by their first chunk of the origin. A node has room for [`FAN`] runs or
//! branches; a full one is split on the way down, so that an insertion never goes back up. At the
//! end of the tree a split leaves most where it was, which fills nodes where chunks come in order.
//!
//! The nodes (`runs/tree.rs`) are searched without a lock, and changed by the owner of the one
//! [`Runs`].
//!
//! They come from [`Block`]s that were allocated before ([`Runs::grow`]): inserting never
//! allocates. While a store is read its exceptions are gathered beside the tree, to be inserted in
//! order (`runs/batch.rs`). An exception is taken away from the end of its run only
//! (`runs/remove.rs`), and a node that has become empty is free again.

use alloc::sync::Arc;
use core::ops::Range;

use super::format::Exception;

mod batch;
mod remove;
mod tree;

pub use batch::{Above, Batch, SORTER, Sorter};
use tree::Node;
pub use tree::{BLOCK, Block, FoundRun, Tree};

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

/// Exceptions by their chunk of the origin.
pub struct Runs {
    /// The nodes. They are changed here alone.
    tree: Arc<Tree>,
    /// The number of nodes that have been in use: they are the first of all.
    used: usize,
    /// The number of nodes that have been in use and are not any more.
    freed: usize,
    /// The first of those, by its number.
    free: u64,
    /// Nodes in use that are branches.
    branches: usize,
    /// The number of exceptions.
    count: u64,
}

fn pack(new: u64, length: u64) -> u64 {
    new.min(NOWHERE) | length.wrapping_sub(1).wrapping_shl(NEW)
}

fn unpack(value: u64) -> (u64, u64) {
    (value & NOWHERE, value.wrapping_shr(NEW).wrapping_add(1))
}

impl Runs {
    /// No exceptions, with room for so many blocks and none yet.
    pub fn new(blocks: usize) -> Runs {
        let tree = Arc::new(Tree::new(blocks));
        Runs { tree, used: 0, freed: 0, free: NONE, branches: 0, count: 0 }
    }

    /// The nodes, for lookups that have no lock.
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// Adds a block of nodes. Returns the block if there is no room for one.
    pub fn grow(&mut self, block: Block) -> Option<Block> {
        let left = self.tree.grow(block);
        if left.is_none() && self.used == 0 {
            // The root.
            self.used = 1;
        }
        left
    }

    /// `true` if so many insertions are certain to find room, wherever they fall.
    pub fn has_room(&self, insertions: usize) -> bool {
        let used = self.used.saturating_sub(self.freed);
        let leaves = used.saturating_sub(self.branches);
        // A split leaves SLACK free entries at least in both halves. So a leaf is split where it
        // was full before, which each of those there can be once, or after SLACK insertions into it
        // since; and each insertion splits one leaf at most. A new leaf is an entry of a branch, to
        // which the same applies: a branch that was full is split if it is on the way of an
        // insertion, MOST of which are. The root may grow by MOST levels.
        let on_way = insertions.saturating_mul(MOST);
        let leaves = insertions.min(leaves.saturating_add(insertions / SLACK));
        let branches = self.branches.min(on_way).saturating_add(leaves / SLACK);
        self.has_nodes(leaves.saturating_add(branches).saturating_add(MOST))
    }

    /// `true` if so many nodes are not in use.
    pub fn has_nodes(&self, nodes: usize) -> bool {
        let all = self.tree.blocks().saturating_mul(NODES);
        all.saturating_sub(self.used.saturating_sub(self.freed)) >= nodes
    }

    /// Forgets every exception, and keeps the blocks.
    pub fn clear(&mut self) {
        (self.used, self.count) = (self.tree.blocks().min(1), 0);
        (self.freed, self.free, self.branches) = (0, NONE, 0);
        self.tree.set_root(0);
        if let Some(root) = self.node(0) {
            root.set_head(0, false);
        }
    }

    /// `true` if there is room for another block.
    pub fn can_grow(&self) -> bool {
        self.tree.can_grow()
    }

    /// Bytes of all blocks.
    pub fn bytes(&self) -> usize {
        self.tree.blocks().saturating_mul(BLOCK)
    }

    /// The number of exceptions.
    pub fn len(&self) -> u64 {
        self.count
    }

    fn node(&self, number: usize) -> Option<Node<'_>> {
        self.tree.node(number)
    }

    /// The exception of a chunk of the origin.
    pub fn find(&self, old: u64) -> Option<FoundRun> {
        self.tree.find(old)
    }

    /// Adds an exception; one whose chunk of the origin has one changes nothing. `false` if there
    /// was no room.
    pub fn insert(&mut self, exception: Exception) -> bool {
        let Exception { old, new } = exception;
        let mut number = self.tree.root();
        if self.node(number).is_none() {
            return false;
        }
        if self.is_full(number) {
            let Some(root) = self.take(true).filter(|root| self.split(*root, 0, number, old))
            else {
                return false;
            };
            self.tree.set_root(root);
            number = root;
        }
        loop {
            let Some(node) = self.node(number) else { return false };
            if !node.is_branch() {
                return self.insert_in_leaf(number, old, new);
            }
            let at = node.at(node.len(), old);
            let Some((_, below)) = node.entry(at) else { return false };
            let mut below = below as usize;
            if self.is_full(below) && !self.extends(below, old, new) {
                if !self.split(number, at, below, old) {
                    return false;
                }
                let Some(node) = self.node(number) else { return false };
                let Some((_, now)) = node.entry(node.at(node.len(), old)) else { return false };
                below = now as usize;
            }
            number = below;
        }
    }

    /// `true` if an exception makes a run of a leaf longer, or is there: the leaf need not be split
    /// for it.
    fn extends(&self, number: usize, old: u64, new: u64) -> bool {
        let Some(leaf) = self.node(number).filter(|node| !node.is_branch()) else { return false };
        leaf.entry(leaf.at(leaf.len(), old)).is_some_and(|(key, value)| {
            let inside = old.checked_sub(key).is_some_and(|on| on < unpack(value).1);
            inside || goes_on((key, value), old, new)
        })
    }

    fn insert_in_leaf(&mut self, number: usize, old: u64, new: u64) -> bool {
        let Some(leaf) = self.node(number) else { return false };
        let at = leaf.at(leaf.len(), old);
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
        if leaf.len() >= FAN {
            return false;
        }
        let behind = leaf.entry(at).is_some_and(|(key, _)| key <= old);
        leaf.insert(at.saturating_add(usize::from(behind)), (old, pack(new, 1)));
        self.count = self.count.saturating_add(1);
        true
    }

    fn is_full(&self, number: usize) -> bool {
        self.node(number).is_some_and(|node| node.len() >= FAN)
    }

    /// Takes a node that is not in use.
    fn take(&mut self, branch: bool) -> Option<usize> {
        let number = if self.free == NONE { self.used } else { self.free as usize };
        let node = self.node(number)?;
        let next = node.next();
        node.set_head(0, branch);
        if self.free == NONE {
            self.used = number.wrapping_add(1);
        } else {
            (self.free, self.freed) = (next, self.freed.saturating_sub(1));
        }
        self.branches = self.branches.saturating_add(usize::from(branch));
        Some(number)
    }

    /// Splits the full node under branch `at` of another, or under a new root, for a chunk that
    /// will be inserted there.
    fn split(&mut self, above: usize, at: usize, number: usize, old: u64) -> bool {
        let Some(node) = self.node(number) else { return false };
        let (last, branch) = (node.key(FAN.saturating_sub(1)), node.is_branch());
        // In order, nodes stay as full as they may be; a branch needs something on both sides.
        let keep = if old > last { FAN.saturating_sub(SLACK) } else { FAN / 2 };
        let Some(new) = self.take(branch) else { return false };
        let Some((node, second)) = self.node(number).zip(self.node(new)) else { return false };
        for entry in (keep..FAN).filter_map(|from| node.entry(from)) {
            second.insert(second.len(), entry);
        }
        node.set_head(keep, branch);
        let key = second.entry(0).map_or(old, |(key, _)| key);
        if let Some(above) = self.node(above) {
            if above.len() == 0 {
                above.insert(0, (0, number as u64));
            }
            above.insert(at.saturating_add(1), (key, new as u64));
        }
        true
    }

    /// Calls `each` with every run: its chunks of the origin, and the first chunk of the store.
    pub fn each(&self, each: &mut dyn FnMut(Range<u64>, u64)) {
        self.each_under(self.tree.root(), MOST, each);
    }

    fn each_under(&self, number: usize, depth: usize, each: &mut dyn FnMut(Range<u64>, u64)) {
        let Some((node, below)) = self.node(number).zip(depth.checked_sub(1)) else { return };
        for at in 0..node.len() {
            let Some((key, value)) = node.entry(at) else { return };
            if !node.is_branch() {
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
