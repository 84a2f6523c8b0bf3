// SPDX-License-Identifier: BSD-2-Clause

//! Exceptions on their way into a tree, as a store is read: they are gathered, and then inserted in the order of their
//! chunks of the origin.
//!
//! An insertion by chance into a tree that is larger than the CPU's caches waits for memory several times; in order each node is
//! met once. Runs are sorted by radix, the lowest digit first, which takes the same time for each however many they are.
//! Of a chunk that is there twice the first exception counts; where one is, the order in which all came is brought back, which
//! is that of their chunks of the store.
//!
//! A batch is a chain of nodes beside the tree, with entries as in a leaf. They come from where the tree's do, and go
//! back there one by one while they are inserted, so that a batch takes no more memory than the tree that it becomes, unless chunks are
//! there twice, which a damaged store may have: that may be refused for lack of memory where its tree alone would fit.

use alloc::boxed::Box;

use super::{Exception, FAN, NEW, NONE, Runs, Tree, goes_on, pack, unpack};

/// Bits of a digit.
const BITS: u32 = 8;

/// Values of a digit.
const VALUES: usize = 1 << BITS;

/// Nodes that sorting needs beside those of a batch, at most: each digit leaves the last of a chain partly filled, of those
/// that are dealt and of those that are made.
pub const SORTING: usize = 2 * VALUES + 1;

/// Nodes of a batch that is not worth sorting, at most: the caches have a tree of as many.
const SMALL: usize = 512;

/// A chain of nodes: the numbers of the first and of the last.
#[derive(Clone, Copy)]
struct Chain {
    first: u64,
    last: u64,
}

const EMPTY: Chain = Chain { first: NONE, last: NONE };

/// A digit of an entry's key, or of its chunk of the store; number 0 is the lowest.
#[derive(Clone, Copy)]
pub enum Digit {
    Old(u32),
    New(u32),
}

impl Digit {
    fn of(self, (key, value): (u64, u64)) -> usize {
        let (number, word) = match self {
            Digit::Old(number) => (number, key),
            Digit::New(number) => (number, unpack(value).0),
        };
        word.wrapping_shr(number.wrapping_mul(BITS)) as usize % VALUES
    }
}

/// Bytes of [`Chains`].
pub const CHAINS: usize = size_of::<[Chain; VALUES]>();

/// A chain for each value of a digit.
pub struct Chains(Box<[Chain; VALUES]>);

impl Default for Chains {
    fn default() -> Chains {
        Chains(Box::new([EMPTY; VALUES]))
    }
}

/// Exceptions that were read, and are not in the tree yet.
pub struct Batch {
    chain: Chain,
    nodes: usize,
    /// The key of the first entry, and the bits in which another's differs from it.
    key: u64,
    differs: u64,
    /// The last exception.
    last: Exception,
    /// The entries have the order of their keys.
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
        let last = Exception::default();
        let (chain, in_order, rises) = (EMPTY, true, true);
        Batch { chain, nodes: 0, key: 0, differs: 0, last, in_order, rises, at: 0, on: 0 }
    }
}

impl Runs {
    /// Adds an entry at the end of a chain. The answer is the number of nodes that it got for that; `None` if there was none.
    fn push(&mut self, chain: &mut Chain, entry: (u64, u64)) -> Option<usize> {
        if let Some(last) = self.node(chain.last as usize).filter(|node| node.len() < FAN) {
            last.push(entry);
            return Some(0);
        }
        let number = self.take(false)?;
        let node = self.node(number)?;
        node.set_next(NONE);
        node.push(entry);
        self.join(chain, Chain { first: number as u64, last: number as u64 });
        Some(1)
    }

    /// Puts a chain behind another.
    fn join(&self, chain: &mut Chain, behind: Chain) {
        if behind.first == NONE {
            return;
        }
        match self.node(chain.last as usize) {
            Some(last) => last.set_next(behind.first),
            None => chain.first = behind.first,
        }
        chain.last = behind.last;
    }

    /// Takes the first node out of a chain, and gives it back.
    fn shift(&mut self, chain: &mut Chain) {
        let number = chain.first as usize;
        let Some(next) = self.node(number).map(|node| node.next()) else { return };
        self.give(number);
        *chain = if next == NONE { EMPTY } else { Chain { first: next, ..*chain } };
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
                self.key = old;
            }
            self.differs |= old ^ self.key;
            self.in_order &= self.nodes == 0 || old > self.last.old;
            let Some(more) = runs.push(&mut self.chain, (old, pack(new, 1))) else { return false };
            self.nodes = self.nodes.saturating_add(more);
        }
        self.last = exception;
        true
    }

    /// `true` while exceptions come in the order of their chunks of the store, as they are made. All that become one run come one
    /// after the other then, so that it is one already. If not, runs are what insertions in the order in which the exceptions came
    /// make of them.
    pub fn rises(&self) -> bool {
        self.rises
    }

    /// The digits to sort by, the first of them first; none where that is of no use.
    pub fn digits(&self) -> impl Iterator<Item = Digit> + use<> {
        let sorts = self.nodes > SMALL && self.rises && !self.in_order;
        let differs = if sorts { self.differs } else { 0 };
        (0..u64::BITS / BITS).map(Digit::Old).filter(move |digit| digit.of((differs, 0)) != 0)
    }

    /// The digits to bring the order back by, the first of them first; none if no chunk is there twice in a batch that
    /// was sorted.
    pub fn digits_back(&self, tree: &Tree) -> impl Iterator<Item = Digit> + use<> {
        let digits = if self.overlaps(tree) { NEW.div_ceil(BITS) } else { 0 };
        (0..digits).map(Digit::New)
    }

    fn overlaps(&self, tree: &Tree) -> bool {
        let (mut number, mut end) = (self.chain.first, 0u128);
        while let Some(node) = tree.node(number as usize) {
            for (key, value) in (0..node.len()).filter_map(|at| node.entry(at)) {
                if u128::from(key) < end {
                    return true;
                }
                end = u128::from(key).saturating_add(u128::from(unpack(value).1));
            }
            number = node.next();
        }
        false
    }

    /// Deals the first node's entries by a digit. `false` once all are dealt, and one chain again. There are [`SORTING`] nodes
    /// that are not in use before the first is dealt.
    pub fn deal(&mut self, digit: Digit, to: &mut Chains, runs: &mut Runs) -> bool {
        let number = self.chain.first as usize;
        let len = runs.node(number).map_or(0, |node| node.len());
        for at in 0..len {
            let entry = runs.node(number).and_then(|node| node.entry(at));
            let chain = entry.and_then(|entry| to.0.get_mut(digit.of(entry)));
            if let Some((entry, chain)) = entry.zip(chain) {
                runs.push(chain, entry);
            }
        }
        runs.shift(&mut self.chain);
        if self.chain.first != NONE {
            return true;
        }
        for chain in to.0.iter_mut() {
            runs.join(&mut self.chain, core::mem::replace(chain, EMPTY));
        }
        false
    }

    /// `true` if there are no exceptions.
    pub fn is_empty(&self) -> bool {
        self.chain.first == NONE
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
