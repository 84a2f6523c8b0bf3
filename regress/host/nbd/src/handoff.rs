// SPDX-License-Identifier: BSD-2-Clause

//! The place as the reader: the right to read a connection's next request, handed from thread to thread.
//!
//! A connection is served by one thread as long as nothing makes it wait: it reads a request,
//! carries it out and answers it, with no other thread to be woken. Where it is about to wait (for
//! a disk, for a held I/O, for a client that does not take its answer) it first hands its place as
//! the reader to another thread, so that later requests do not wait with it.
//!
//! Whatever may wait says so with [`about_to_block`]. It costs a look at a thread-local variable,
//! and does nothing in threads that serve no connection.

use std::cell::RefCell;
use std::sync::Arc;

use crate::reader::Reader;

/// A pool of threads that the place as the reader can be handed to.
pub(crate) trait Successors {
    /// Has another thread read on.
    fn take_over(self: Arc<Self>, reader: Box<Reader>);
}

type Place = (Arc<dyn Successors>, Box<Reader>);

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// Hands on the place as the reader, if the calling thread has it: the thread is about to wait.
#[inline]
pub fn about_to_block() {
    PLACE.with(|place| {
        // Taken out first: whoever takes over may wait as well.
        let taken = place.try_borrow_mut().ok().and_then(|mut place| place.take());
        if let Some((successors, reader)) = taken {
            successors.take_over(reader);
        }
    });
}

/// `true` in a thread that would hand its place on. A caller that can avoid a wait should do so then.
#[inline]
pub fn is_reader() -> bool {
    PLACE.with(|place| place.try_borrow().is_ok_and(|place| place.is_some()))
}

/// Runs `f`, in which the place may be handed on; gives it back if it was not.
pub(crate) fn with_place(
    successors: Arc<dyn Successors>,
    reader: Box<Reader>,
    f: impl FnOnce(),
) -> Option<Box<Reader>> {
    PLACE.with(|place| *place.borrow_mut() = Some((successors, reader)));
    f();
    PLACE.with(|place| place.borrow_mut().take()).map(|(_, reader)| reader)
}
