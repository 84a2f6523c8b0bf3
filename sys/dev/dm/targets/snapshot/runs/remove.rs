// SPDX-License-Identifier: BSD-2-Clause

//! Removal of exceptions, from the end of a run. Nodes are not filled up from each other; a node
//! that becomes empty leaves the tree, and so does a root with one branch.

use super::{MOST, NONE, Runs, pack, unpack};

impl Runs {
    /// Takes away the exception of a chunk of the origin, which ends its run, and those before it
    /// in the run, `most` in all at most. Returns how many: none if there is no such exception, or
    /// it does not end its run.
    pub fn remove(&mut self, last: u64, most: u64) -> u64 {
        let mut path = [(0usize, 0usize); MOST];
        let (mut number, mut depth) = (self.tree.root(), 0usize);
        loop {
            let Some((node, step)) = self.node(number).zip(path.get_mut(depth)) else { return 0 };
            *step = (number, node.at(node.len(), last));
            depth = depth.saturating_add(1);
            if !node.is_branch() {
                break;
            }
            let Some((_, below)) = node.entry(node.at(node.len(), last)) else { return 0 };
            number = below as usize;
        }
        let Some(leaf) = self.node(number) else { return 0 };
        let at = leaf.at(leaf.len(), last);
        let Some((key, value)) = leaf.entry(at) else { return 0 };
        let (first, length) = unpack(value);
        if key.checked_add(length.wrapping_sub(1)) != Some(last) {
            return 0;
        }
        let gone = most.min(length);
        if gone < length {
            leaf.set(at, (key, pack(first, length.wrapping_sub(gone))));
        } else {
            leaf.remove(at);
            self.prune(path.get(..depth).unwrap_or(&[]));
        }
        self.count = self.count.saturating_sub(gone);
        gone
    }

    /// Takes nodes out of the tree that have become empty: a leaf, and branches on the way to it.
    fn prune(&mut self, path: &[(usize, usize)]) {
        let mut above = path.iter().rev().skip(1);
        let mut number = path.last().map_or(self.tree.root(), |(number, _)| *number);
        while self.node(number).is_some_and(|node| node.len() == 0) {
            let Some((parent, at)) = above.next() else {
                // The root: an empty leaf.
                if let Some(root) = self.node(number).filter(|root| root.is_branch()) {
                    root.set_head(0, false);
                    self.branches = self.branches.saturating_sub(1);
                }
                return;
            };
            if let Some(parent) = self.node(*parent) {
                parent.remove(*at);
            }
            self.give(number);
            number = *parent;
        }
        while let Some(root) = self.node(self.tree.root()).filter(|root| root.head() == (1, true))
            && let Some((_, below)) = root.entry(0)
        {
            let old = self.tree.root();
            self.tree.set_root(below as usize);
            self.give(old);
        }
    }

    /// Gives back a node that is not in use any more.
    pub(super) fn give(&mut self, number: usize) {
        let next = self.free;
        let Some(node) = self.node(number) else { return };
        let branch = node.is_branch();
        node.set_head(0, false);
        node.set_next(next);
        debug_assert!(next == NONE || self.freed > 0);
        self.branches = self.branches.saturating_sub(usize::from(branch));
        (self.free, self.freed) = (number as u64, self.freed.saturating_add(1));
    }
}
