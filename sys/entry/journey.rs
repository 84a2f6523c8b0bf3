// SPDX-License-Identifier: BSD-2-Clause

//! The state of an I/O between the gate and biodone(9). From an I/O that one of our devices has
//! sent, the I/Os of the devices above it are found, with their states.

use core::ptr;
use core::sync::atomic::{AtomicU8, Ordering};

use super::completion::{done, track_done};
use super::io::Pass;
use super::job::{self, job_done};
use super::pieces::{Child, Parent, whole_of};
#[cfg(doc)]
use super::slot::Slot;
use crate::netbsd::buf::{self, Io};
use crate::netbsd::{cpu, sys};

/// An I/O's state from the gate to its completion, which may be in another thread and on another
/// CPU than it began.
///
/// # Invariants
/// The pass is of the gate of the slot that the I/O was sent to. No function of a [`Slot`] is given
/// another slot's journey, or another slot's [`Here`](super::io::Here): a child has a pointer to
/// its slot, and a split is reached only from children, jobs and queues of its slot.
///
/// Fields are marked by what protects them: (-) never changes; (a) atomic; (o) the owner of the
/// I/O, which of a split is the context that has dropped its last count.
pub(crate) struct Journey {
    /// (-) The I/O's reference to the state behind the gate: the table, and its open components.
    pub(super) pass: Pass<'static>,
    /// (-) The time at which the I/O came, in ticks.
    pub(super) came: i32,
    /// (o) `true` once the I/O is retried: it has failed, and its target had something else to try
    /// (`Target::map_failed`).
    pub(super) retried: bool,
    /// (a) AT_SENDER → LET_GO ([`Journey::leaves_sender`]), or IMPATIENT from the start. Written by
    /// the I/O's sender, or a split's, only.
    manner: AtomicU8,
}

/// The I/O is with its sender, in whose thread targets may compute.
const AT_SENDER: u8 = 0;
/// Another context than its sender's has let the I/O go on.
const LET_GO: u8 = 1;
/// The I/O is not to wait at a gate, here or below, but fails with EAGAIN there; no target computes
/// for it in its sender's thread.
const IMPATIENT: u8 = 2;

impl Journey {
    /// The journey of an I/O that has just entered with this pass.
    #[inline]
    pub(crate) fn new(pass: Pass<'static>) -> Journey {
        Journey { pass, came: cpu::ticks(), retried: false, manner: AtomicU8::new(AT_SENDER) }
    }

    /// The journey of an I/O that does not wait at a gate.
    pub(crate) fn impatient(pass: Pass<'static>) -> Journey {
        Journey { manner: AtomicU8::new(IMPATIENT), ..Journey::new(pass) }
    }

    /// Marks the I/O as no longer with its sender. From here on no target encrypts or hashes for it
    /// in the calling context, which lets other threads' I/O go on, and would not come back to its
    /// own work for as long as they send more.
    pub(crate) fn leaves_sender(&self) {
        if self.is_at_sender() {
            self.manner.store(LET_GO, Ordering::Relaxed);
        }
    }

    /// `true` while the I/O is with its sender.
    #[inline]
    pub(super) fn is_at_sender(&self) -> bool {
        self.manner.load(Ordering::Relaxed) == AT_SENDER
    }

    /// `true` if the I/O is not to wait at a gate.
    pub(super) fn is_impatient(&self) -> bool {
        self.manner.load(Ordering::Relaxed) == IMPATIENT
    }
}

/// The minor of the device that an impatient I/O came to, when `io` is a part of it, perhaps
/// through several of our devices; `None` for a part of any other. Another driver's device in
/// between hides it.
#[cold]
pub(super) fn impatient_origin(io: &Io) -> Option<u32> {
    above(io).find(|(_, journey)| journey.is_impatient()).map(|(io, _)| io.dev().minor())
}

/// `true` if every I/O of our devices that `io` is a part of is still with its sender. An I/O that
/// a lane sends is with its sender, the lane.
#[inline(never)]
pub(super) fn is_at_sender(io: &Io) -> bool {
    above(io).all(|(_, journey)| journey.is_at_sender())
}

/// The I/Os of our devices that `io` is a part of, the nearest first, with their journeys. They end
/// at what another driver sends, or a lane.
fn above(io: &Io) -> impl Iterator<Item = (&Io, &Journey)> {
    // SAFETY: an I/O that is in flight is not completed before its parts are, so that all that is
    // followed here stays, and is not written to, but for a journey's atomic: b_iodone and
    // `parent`, or a job's record, were set before the buffer was sent, and a split's `whole` is
    // taken by the last of its pieces.
    let whole = |io: &Io| unsafe {
        let buf: *const sys::buf = io.as_ptr();
        let iodone = (*buf).b_iodone?;
        let is = |other: buf::Done| ptr::fn_addr_eq(iodone, other);
        if is(done) || is(track_done) {
            match (*buf.cast::<Child>()).parent.assume_init_ref() {
                Parent::Whole(io, journey) => Some((io, journey)),
                Parent::Piece(split, _) => whole_of(*split),
            }
        } else if is(job_done) {
            job::whole_of(buf)
        } else {
            None
        }
    };
    core::iter::successors(whole(io), move |(io, _)| whole(io))
}
