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

/// A [`Queue`] in order of arrival, in which one that was taken back can be the first again.
pub trait Ordered: Queue {
    /// Puts one before all that wait.
    fn push_front(&mut self, item: Self::Item);
    /// `true` if none waits.
    fn is_empty(&self) -> bool;
}
