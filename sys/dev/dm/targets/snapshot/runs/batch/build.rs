// SPDX-License-Identifier: BSD-2-Clause

//! Building a tree from a batch that is in order: the batch's nodes are the leaves, and branches
//! are put above them, level by level.

use super::super::MOST;
use super::{Batch, Chain, EMPTY, FILL, Runs};

/// Nodes that are handled at a time.
const SOME: usize = 64;

/// The branches above the nodes of a batch, as far as they are made.
pub struct Above(Chain);

impl Default for Above {
    fn default() -> Above {
        Above(EMPTY)
    }
}

impl Batch {
    /// `true` if the exceptions are the leaves of a tree as they are, and there is no other tree.
    pub fn is_a_tree(&self, runs: &Runs) -> bool {
        self.in_order && !self.is_empty() && (self.at, self.on) == (0, 0) && runs.len() == 0
    }

    /// The branches above the leaves of a tree, at most.
    pub fn branches(&self) -> usize {
        (self.nodes / FILL.saturating_sub(1)).saturating_add(MOST)
    }

    /// Puts branches above some of the nodes. `false` once the batch is the tree; `None` if there
    /// was no room, which there is for [`Batch::branches`].
    pub fn build(&mut self, above: &mut Above, runs: &mut Runs) -> Option<bool> {
        for _ in 0..SOME {
            if self.is_empty() {
                self.chain = core::mem::replace(&mut above.0, EMPTY);
            }
            let number = self.chain.first;
            if number == self.chain.last && above.0.is_empty() {
                runs.count = self.count;
                runs.give(runs.tree.root());
                runs.tree.set_root(number as usize);
                *self = Batch::default();
                return Some(false);
            }
            let node = runs.node(number as usize)?;
            let (key, (next, _)) = (node.key(0), node.behind());
            runs.push(&mut above.0, (key, number), true)?;
            self.chain.pass(next);
        }
        Some(true)
    }
}
