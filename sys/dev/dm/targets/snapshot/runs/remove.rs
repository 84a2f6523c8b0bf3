// SPDX-License-Identifier: BSD-2-Clause

//! How exceptions are taken away: from the end of a run. Nodes are not filled up from each other; one that is
//! empty leaves the tree, and a root with one branch does.

use super::{FAN, MOST, NONE, Node, Runs, pack, unpack};

impl Node {
    /// Takes an entry away, and moves those behind it.
    fn remove(&mut self, at: usize) {
        let len = usize::from(self.len);
        if at < len && len <= FAN {
            self.keys.copy_within(at.saturating_add(1)..len, at);
            self.values.copy_within(at.saturating_add(1)..len, at);
            self.len = self.len.saturating_sub(1);
        }
    }
}

impl Runs {
    /// Takes away the exception of a chunk of the origin, which ends its run, and those before it in the run, `most` in all
    /// at most. The answer is how many: none if there is no such exception, or it does not end its run.
    pub fn remove(&mut self, last: u64, most: u64) -> u64 {
        let mut path = [(0usize, 0usize); MOST];
        let (mut number, mut depth) = (self.root, 0usize);
        loop {
            let Some((node, step)) = self.node(number).zip(path.get_mut(depth)) else { return 0 };
            *step = (number, node.at(last));
            depth = depth.saturating_add(1);
            if !node.branch {
                break;
            }
            let Some((_, below)) = node.entry(node.at(last)) else { return 0 };
            number = below as usize;
        }
        let Some(leaf) = self.node_mut(number) else { return 0 };
        let at = leaf.at(last);
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
        let mut number = path.last().map_or(self.root, |(number, _)| *number);
        while self.node(number).is_some_and(|node| node.len == 0) {
            let Some((parent, at)) = above.next() else {
                // The root: an empty leaf.
                if let Some(root) = self.node_mut(number).filter(|root| root.branch) {
                    root.branch = false;
                    self.branches = self.branches.saturating_sub(1);
                }
                return;
            };
            if let Some(parent) = self.node_mut(*parent) {
                parent.remove(*at);
            }
            self.give(number);
            number = *parent;
        }
        while let Some(root) = self.node(self.root).filter(|root| root.branch && root.len == 1)
            && let Some((_, below)) = root.entry(0)
        {
            let old = self.root;
            self.root = below as usize;
            self.give(old);
        }
    }

    /// A node is not in use any more.
    fn give(&mut self, number: usize) {
        let next = self.free;
        let Some(node) = self.node_mut(number) else { return };
        let branch = core::mem::take(&mut node.branch);
        node.len = 0;
        if let Some(value) = node.values.first_mut() {
            *value = next;
        }
        debug_assert!(next == NONE || self.freed > 0);
        self.branches = self.branches.saturating_sub(usize::from(branch));
        (self.free, self.freed) = (number as u64, self.freed.saturating_add(1));
    }
}
