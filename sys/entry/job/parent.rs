// SPDX-License-Identifier: BSD-2-Clause

//! The parent of a job, which the job answers: an I/O, a piece of a split, or a thread that waits
//! for a flush or a discard.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicI32, Ordering};

use dm_core::{Errno, errno};

use super::TableIo;
use crate::entry::journey::Journey;
use crate::entry::pieces::{self, Split};
use crate::netbsd::buf::Io;

/// The I/O, or the thread, that a job stands for.
pub(in crate::entry) enum JobParent {
    /// The number is not in use.
    Nothing,
    /// All of an I/O.
    Whole(Io, Journey),
    /// A piece of a split: where in it the piece begins, and how many bytes it has.
    Piece(NonNull<Split>, u32, u32),
    /// A thread in [`TableIo::barrier`] and where it looks for the answer, under `control`.
    Thread(NonNull<AtomicI32>),
}

/// No answer yet, in the place that [`JobParent::Thread`] names. No errno is negative.
pub(super) const NOT_YET: i32 = -1;
/// The job was given back.
pub(super) const GIVEN_BACK: i32 = -2;

// SAFETY: a split belongs to its pieces, in whatever thread they are; a waiting thread's place
// stays until it is answered.
unsafe impl Send for JobParent {}

impl JobParent {
    /// The I/O that the job is a part of, the first byte of the part, and the number of its bytes;
    /// none for a thread.
    ///
    /// # Safety
    /// The job is the caller's: it keeps the I/O.
    #[inline]
    pub(super) unsafe fn part(&self) -> Option<(&Io, u32, u32)> {
        if let JobParent::Whole(io, _) = self {
            return Some((io, 0, io.bytes()));
        }
        let JobParent::Piece(split, offset, bytes) = self else { return None };
        // SAFETY: a piece keeps its split, and in it the I/O (caller).
        let (io, _) = unsafe { pieces::whole_of(*split)? };
        Some((io, *offset, *bytes))
    }
}

impl TableIo {
    /// Takes the I/O or the thread that a job stands for. Context: thread or soft interrupt.
    pub(super) fn take_parent(&self, job: usize) -> JobParent {
        // SAFETY: the caller has the job, so that its cell is the caller's.
        let parent =
            unsafe { core::mem::replace(&mut *self.job(job).parent.get(), JobParent::Nothing) };
        assert!(!matches!(parent, JobParent::Nothing), "dm: a job was ended twice");
        parent
    }

    /// Answers the I/O or the thread that a job stood for: `Err` has the bytes that were moved
    /// before. Context: thread or soft interrupt, with no lock held: it calls the b_iodone of the
    /// I/O's sender. Sleeps in a thread, where a read is retried and a component's d_strategy
    /// sleeps.
    pub(super) fn answer_parent(&self, parent: JobParent, result: Result<(), (u32, Errno)>) {
        match parent {
            JobParent::Nothing => {}
            JobParent::Whole(io, journey) => match result {
                Ok(()) => self.slot.finish(io, journey, self.slot.here()),
                Err((moved, errno)) => self.slot.failed(io, journey, moved, errno),
            },
            JobParent::Piece(split, offset, _) => {
                if let Err((moved, errno)) = result {
                    self.slot.note(split, offset.saturating_add(moved), errno);
                }
                self.slot.release(split, self.slot.here());
            }
            JobParent::Thread(answer) => {
                self.answer_thread(answer, errno::raw(result.map_err(|(_, errno)| errno)));
            }
        }
    }

    /// Gives a thread in [`TableIo::barrier`] its answer. Context: thread or soft interrupt; takes
    /// `control`.
    pub(super) fn answer_thread(&self, answer: NonNull<AtomicI32>, number: i32) {
        let guard = self.control.lock();
        // SAFETY: the thread waits until it sees the answer under this lock.
        unsafe { answer.as_ref() }.store(number, Ordering::Relaxed);
        self.announced.broadcast();
        drop(guard);
    }
}
