// SPDX-License-Identifier: BSD-2-Clause

//! Exceptions on their way into a tree, as a store is read: they are gathered, sorted by their
//! chunks of the origin, and become the leaves of the tree, which are in order then. Where the tree
//! is not empty, or there is no memory to sort with, they are inserted one by one.
//!
//! An insertion by chance into a tree that is larger than the CPU's caches waits for memory several
//! times; in order each node is met once. Sorting (`runs/batch/sort.rs`) takes nearly the same time
//! for each, however many they are. Of a chunk that is there twice the first exception counts;
//! where one is, the order in which all came is brought back, which is that of their chunks of the
//! store.
//!
//! A batch is a chain of nodes beside the tree, with entries as in a leaf. They come from where the
//! tree's do, and become leaves or go back there one by one while they are inserted, so that a
//! batch takes no more memory than the tree that it becomes, unless chunks are there twice, which a
//! damaged store may have: that may be refused for lack of memory where its tree alone would fit.

use super::{Exception, FAN, NONE, Node, Runs, SLACK, goes_on, pack, unpack};

mod build;
mod sort;

pub use build::Above;
pub use sort::{SORTER, Sorter};

/// Entries in a node of a batch, at most: those of a tree that is made in order have as many.
const FILL: usize = FAN - SLACK;

/// Nodes of a batch that is not worth sorting, at most: the caches have a tree of as many.
const SMALL: usize = 512;

/// A bit beside the number of a chain's next node, in a node that is the last of its stretch.
const LAST: u64 = 1 << 63;

/// A chain of nodes: the numbers of the first and of the last. While a batch is sorted, its chain
/// consists of stretches; all entries of one go before those of the next.
#[derive(Clone, Copy)]
struct Chain {
    first: u64,
    last: u64,
}

const EMPTY: Chain = Chain { first: NONE, last: NONE };

/// Exceptions that were read, and are not in the tree yet.
pub struct Batch {
    chain: Chain,
    nodes: usize,
    /// The number of exceptions.
    count: u64,
    /// The lowest chunk of the origin that starts a run, and the highest.
    low: u64,
    high: u64,
    /// The chunk of the store of the first exception.
    from: u64,
    /// The last exception.
    last: Exception,
    /// The entries have the order of their keys, and no chunk is there twice.
    in_order: bool,
    /// See [`Batch::rises`].
    rises: bool,
    /// The exceptions of the first node's first entries, and of the next, that are in the tree.
    at: usize,
    on: u64,
}

impl Default for Batch {
    /// No exceptions.
    fn default() -> Batch {
        Batch {
            chain: EMPTY,
            nodes: 0,
            count: 0,
            low: u64::MAX,
            high: 0,
            from: 0,
            last: Exception::default(),
            in_order: true,
            rises: true,
            at: 0,
            on: 0,
        }
    }
}

impl Chain {
    fn is_empty(self) -> bool {
        self.first == NONE
    }

    /// Leaves out the first node, behind which `next` stands.
    fn pass(&mut self, next: u64) {
        *self = if next == NONE { EMPTY } else { Chain { first: next, ..*self } };
    }
}

impl Node<'_> {
    /// The number of the node behind this one in a chain, or [`NONE`], and `true` if this one is
    /// the last of its stretch.
    fn behind(self) -> (u64, bool) {
        match self.next() {
            NONE => (NONE, true),
            next => (next & !LAST, next & LAST != 0),
        }
    }
}

impl Runs {
    /// Adds an entry at the end of a chain. Returns the number of nodes that it took for that;
    /// `None` if there was none.
    fn push(&mut self, chain: &mut Chain, entry: (u64, u64), branch: bool) -> Option<usize> {
        if let Some(last) = self.node(chain.last as usize).filter(|node| node.len() < FILL) {
            last.push(entry);
            return Some(0);
        }
        let number = self.take(branch)?;
        let node = self.node(number)?;
        node.set_next(NONE);
        node.push(entry);
        match self.node(chain.last as usize) {
            Some(last) => last.set_next(number as u64),
            None => chain.first = number as u64,
        }
        chain.last = number as u64;
        Some(1)
    }

    /// Puts a chain behind another; each is a stretch, or several.
    fn join(&self, chain: &mut Chain, behind: Chain) {
        if behind.is_empty() {
            return;
        }
        match self.node(chain.last as usize) {
            Some(last) => last.set_next(behind.first | LAST),
            None => chain.first = behind.first,
        }
        chain.last = behind.last;
    }

    /// Takes the first node out of a chain, and gives it back.
    fn shift(&mut self, chain: &mut Chain) {
        let number = chain.first as usize;
        let Some((next, _)) = self.node(number).map(Node::behind) else { return };
        self.give(number);
        chain.pass(next);
    }
}

impl Batch {
    /// Adds an exception. `false` if there was no room.
    pub fn add(&mut self, exception: Exception, runs: &mut Runs) -> bool {
        let Exception { old, new } = exception;
        self.rises &= new > self.last.new;
        let last = runs.node(self.chain.last as usize);
        let last = last.and_then(|node| Some((node, node.len().checked_sub(1)?)));
        if let Some((node, at)) = last
            && let Some(entry) = node.entry(at)
            && goes_on(entry, old, new)
        {
            let (first, length) = unpack(entry.1);
            node.set(at, (entry.0, pack(first, length.wrapping_add(1))));
        } else {
            if self.nodes == 0 {
                self.from = new;
            }
            (self.low, self.high) = (self.low.min(old), self.high.max(old));
            self.in_order &= self.nodes == 0 || old > self.last.old;
            let Some(more) = runs.push(&mut self.chain, (old, pack(new, 1)), false) else {
                return false;
            };
            self.nodes = self.nodes.saturating_add(more);
        }
        self.count = self.count.saturating_add(1);
        self.last = exception;
        true
    }

    /// `true` while exceptions come in the order of their chunks of the store, as they are made.
    /// All that become one run come one after the other then, so that it is one already. If not,
    /// runs are what insertions in the order in which the exceptions came make of them.
    pub fn rises(&self) -> bool {
        self.rises
    }

    /// `true` if the exceptions are many and out of order, so that sorting saves time.
    pub fn is_to_be_sorted(&self) -> bool {
        self.nodes > SMALL && self.rises && !self.in_order
    }

    /// `true` if there are no exceptions.
    pub fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }

    /// Inserts the next exceptions, at most this many. `false` if there was no room.
    pub fn insert(&mut self, most: usize, runs: &mut Runs) -> bool {
        for _ in 0..most {
            let entry = runs.node(self.chain.first as usize).and_then(|node| node.entry(self.at));
            let Some((key, value)) = entry else { return true };
            let (new, length) = unpack(value);
            let (old, new) = (key.wrapping_add(self.on), new.wrapping_add(self.on));
            if !runs.insert(Exception { old, new }) {
                return false;
            }
            self.on = self.on.wrapping_add(1);
            if self.on < length {
                continue;
            }
            (self.at, self.on) = (self.at.wrapping_add(1), 0);
            if runs.node(self.chain.first as usize).is_none_or(|node| self.at >= node.len()) {
                self.at = 0;
                runs.shift(&mut self.chain);
                if self.is_empty() {
                    *self = Batch::default();
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
