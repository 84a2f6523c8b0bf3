// SPDX-License-Identifier: BSD-2-Clause

//! Sorting a batch: its entries are dealt out over nodes by their highest bits, which makes up to
//! 256 stretches of nodes. Each of these is dealt by the next bits, and so on; where a stretch has
//! a single node, the entries in it are put in order.
//!
//! The first stretch is always the next to be dealt. So all dealings but the first of many entries
//! are of nodes that the CPU's caches have, and nodes are free again that were dealt; entries that
//! are in order go to the end of another chain. Whatever the entries are, none is dealt more often
//! than there are bits in which they may differ. The order of entries with the same chunk is that
//! in which they came only after a second sort, which brings that order back
//! ([`Sorter::begin_back`]).

use alloc::boxed::Box;

use super::super::{NODES, NOWHERE};
use super::{Batch, Chain, EMPTY, FAN, FILL, Node, Runs, unpack};

/// The most bits that one dealing settles.
const BITS: u32 = 8;

/// The most stretches that one dealing makes.
const WAYS: usize = 1 << BITS;

/// The number of nodes that are handled in one call.
const SOME: usize = 8;

/// The chunk by which a batch is sorted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The chunk of the origin.
    Old,
    /// The chunk of the store.
    New,
}

impl By {
    #[inline]
    fn of(self, (key, value): (u64, u64)) -> u64 {
        match self {
            By::Old => key,
            By::New => unpack(value).0,
        }
    }
}

/// The next step of sorting a stretch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The stretch is dealt by [`BITS`] bits, of which this is the lowest.
    Deal(u32),
    /// The nodes are in order already; the entries of each are put in order.
    Settle,
}

impl Way {
    /// The step for a stretch of `nodes` nodes, whose entries differ in the lowest `open` bits
    /// only.
    fn new(open: u32, nodes: usize) -> Way {
        // Stretches of some 15 entries are wanted in the end: a node has room for 55.
        let most = bits(nodes.saturating_mul(4).saturating_sub(1) as u64).min(BITS);
        match open {
            0 => Way::Settle,
            _ => Way::Deal(open.saturating_sub(most)),
        }
    }
}

impl Node<'_> {
    /// Records the next step of a stretch in its first node, in the place of the last entry, which
    /// batches do not use.
    fn set_way(self, way: Way) {
        let bit = match way {
            Way::Deal(bit) => u64::from(bit),
            Way::Settle => u64::MAX,
        };
        self.set(FAN - 1, (bit, 0));
    }

    fn way(self) -> Way {
        u32::try_from(self.key(FAN - 1)).map_or(Way::Settle, Way::Deal)
    }
}

const _: () = assert!(FILL < FAN);

/// Bits of a number.
fn bits(number: u64) -> u32 {
    u64::BITS.wrapping_sub(number.leading_zeros())
}

/// A stretch that is being made.
#[derive(Clone, Copy)]
struct Pile {
    chain: Chain,
    nodes: usize,
    /// The number of entries in the last node. The node's head has it only after [`Pile::end`], so
    /// that adding an entry does not touch the head.
    len: usize,
}

const NO_PILE: Pile = Pile { chain: EMPTY, nodes: 0, len: FILL };

impl Pile {
    /// Adds an entry. `false` if it needed a node, and none was left.
    fn push(&mut self, entry: (u64, u64), runs: &mut Runs) -> bool {
        if self.len >= FILL {
            self.end(runs);
            if runs.push(&mut self.chain, entry, false).is_none() {
                return false;
            }
            (self.nodes, self.len) = (self.nodes.saturating_add(1), 1);
        } else if let Some(last) = runs.node(self.chain.last as usize) {
            last.set(self.len, entry);
            self.len = self.len.wrapping_add(1);
        }
        true
    }

    /// Writes the number of entries into the last node's head.
    fn end(&self, runs: &Runs) {
        if let Some(last) = runs.node(self.chain.last as usize) {
            last.set_head(self.len, false);
        }
    }
}

/// Bytes of a [`Sorter`].
pub const SORTER: usize =
    size_of::<Sort>() + size_of::<[Pile; WAYS]>() + size_of::<[(u64, u64); FILL]>();

/// A batch's way into its order.
pub struct Sorter(Box<Sort>);

struct Sort {
    by: By,
    /// The lowest of what entries are sorted by.
    low: u64,
    /// The step for the first stretch; `None` before its first node is handled.
    way: Option<Way>,
    /// A stretch for each value of the bits that it is dealt by.
    to: Box<[Pile]>,
    /// The entries of a node.
    few: Box<[(u64, u64)]>,
    /// Entries in order, and the end of the last one's run.
    done: Chain,
    end: u128,
    /// `true` once a run was found that begins within the run before.
    overlaps: bool,
    /// `true` once an entry found no node: it is lost.
    lost: bool,
}

impl Default for Sorter {
    fn default() -> Sorter {
        Sorter(Box::new(Sort {
            by: By::Old,
            low: 0,
            way: None,
            // On the heap from the start: a kernel's stack is small.
            to: (0..WAYS).map(|_| NO_PILE).collect(),
            few: (0..FILL).map(|_| (0, 0)).collect(),
            done: EMPTY,
            end: 0,
            overlaps: false,
            lost: false,
        }))
    }
}

impl Batch {
    /// The lowest of what entries are sorted by, and the bits of the difference from the highest.
    fn spread(&self, by: By) -> (u64, u32) {
        let (low, high) = match by {
            By::Old => (self.low, self.high),
            By::New => (self.from.min(NOWHERE), self.last.new.min(NOWHERE)),
        };
        (low, bits(high.saturating_sub(low)))
    }

    /// The most nodes that sorting needs beside those of the batch: each dealing leaves nodes
    /// partly filled, 32 at most for each bit that it settles.
    pub fn sorting(&self) -> usize {
        let ((_, old), (_, new)) = (self.spread(By::Old), self.spread(By::New));
        // One more node that is being dealt, and one that is being filled.
        (old.max(new) as usize).saturating_mul(WAYS / BITS as usize).saturating_add(2)
    }
}

const _: () = assert!(WAYS / BITS as usize == NODES);

impl Sorter {
    /// Begins to sort by chunks of the origin. [`Batch::sorting`] nodes are not in use.
    pub fn begin(&mut self, batch: &Batch) {
        self.begin_by(By::Old, batch);
    }

    /// Begins to bring the order back in which the exceptions came, where a chunk is there twice.
    /// `false` if none is: the batch is in order.
    pub fn begin_back(&mut self, batch: &mut Batch) -> bool {
        batch.in_order = !self.0.overlaps;
        self.begin_by(By::New, batch);
        self.0.overlaps
    }

    fn begin_by(&mut self, by: By, batch: &Batch) {
        let (low, open) = batch.spread(by);
        (self.0.by, self.0.low, self.0.way) = (by, low, Some(Way::new(open, batch.nodes)));
    }

    /// Handles some nodes. `false` once all are in order, and in the batch again; `None` if there
    /// was no node for an entry, which is lost: fewer than [`Batch::sorting`] were left.
    pub fn work(&mut self, batch: &mut Batch, runs: &mut Runs) -> Option<bool> {
        for _ in 0..SOME {
            let Some(node) = runs.node(batch.chain.first as usize) else {
                batch.chain = core::mem::replace(&mut self.0.done, EMPTY);
                return (!self.0.lost).then_some(false);
            };
            let (_, is_last) = node.behind();
            let way = self.0.way.unwrap_or(if is_last { Way::Settle } else { node.way() });
            self.0.way = if is_last { None } else { Some(way) };
            // All entries first: the CPU waits for the memory of all of them together.
            let len = node.len().min(FILL);
            for (at, entry) in self.0.few.iter_mut().enumerate().take(len) {
                *entry = (node.key(at), node.value(at));
            }
            runs.shift(&mut batch.chain);
            match way {
                Way::Deal(bit) => {
                    self.0.deal(len, bit, runs);
                    if is_last {
                        self.0.gather(bit, batch, runs);
                    }
                }
                Way::Settle => self.0.settle(len, runs),
            }
        }
        (!self.0.lost).then_some(true)
    }
}

impl Sort {
    /// Deals the entries of a node.
    fn deal(&mut self, len: usize, bit: u32, runs: &mut Runs) {
        for entry in self.few.iter().take(len) {
            let value = self.by.of(*entry).wrapping_sub(self.low).wrapping_shr(bit);
            // Higher bits are the same for the whole stretch.
            if let Some(pile) = self.to.get_mut(value as usize % WAYS) {
                self.lost |= !pile.push(*entry, runs);
            }
        }
    }

    /// Puts the stretches that were made before the others.
    fn gather(&mut self, bit: u32, batch: &mut Batch, runs: &Runs) {
        let mut all = EMPTY;
        for pile in &mut self.to {
            let pile = core::mem::replace(pile, NO_PILE);
            if let Some(first) = runs.node(pile.chain.first as usize) {
                pile.end(runs);
                first.set_way(Way::new(bit, pile.nodes));
                runs.join(&mut all, pile.chain);
            }
        }
        runs.join(&mut all, batch.chain);
        batch.chain = all;
    }

    /// Puts the entries of a node in order, behind those that are.
    fn settle(&mut self, len: usize, runs: &mut Runs) {
        for at in 1..len {
            let Some(entry) = self.few.get(at).copied() else { return };
            let (place, mut to) = (self.by.of(entry), at);
            while let Some(before) = to.checked_sub(1).and_then(|before| self.few.get(before))
                && self.by.of(*before) > place
            {
                let before = *before;
                if let Some(behind) = self.few.get_mut(to) {
                    *behind = before;
                }
                to = to.wrapping_sub(1);
            }
            if let Some(to) = self.few.get_mut(to) {
                *to = entry;
            }
        }
        for (key, value) in self.few.iter().take(len) {
            self.overlaps |= u128::from(*key) < self.end;
            self.end = u128::from(*key).saturating_add(u128::from(unpack(*value).1));
            self.lost |= runs.push(&mut self.done, (*key, *value), false).is_none();
        }
    }
}
