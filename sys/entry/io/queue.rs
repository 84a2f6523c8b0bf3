// SPDX-License-Identifier: BSD-2-Clause

//! The interface that queues of waiting I/O share.

/// Things that wait. Which of them is the next is the implementor's to say.
pub trait Queue: Default {
    /// A thing that waits.
    type Item;
    /// Adds one.
    fn push(&mut self, item: Self::Item);
    /// Takes the next one.
    fn pop(&mut self) -> Option<Self::Item>;
}

/// A [`Queue`] in order of arrival.
pub trait Ordered: Queue {
    /// `true` if none waits.
    fn is_empty(&self) -> bool;
}

/// Things that wait at a gate: those that came back from inside, then those that have not been
/// inside, each in the order in which they came.
#[derive(Default)]
pub struct Held<Q> {
    returned: Q,
    arrived: Q,
}

impl<Q: Ordered> Held<Q> {
    /// Adds one that has not been inside.
    pub fn push(&mut self, item: Q::Item) {
        self.arrived.push(item);
    }

    /// Adds one that comes back from inside.
    pub fn push_returned(&mut self, item: Q::Item) {
        self.returned.push(item);
    }

    /// Takes the next one.
    pub fn pop(&mut self) -> Option<Q::Item> {
        self.returned.pop().or_else(|| self.arrived.pop())
    }

    /// `true` if none waits.
    pub fn is_empty(&self) -> bool {
        self.returned.is_empty() && self.arrived.is_empty()
    }
}
