// SPDX-License-Identifier: BSD-2-Clause

//! Jobs that go to components without a lane, and the completions of their nested buffers.
//!
//! Context of everything here: thread or soft interrupt, with no lock held. In a thread it sleeps
//! where a component's d_strategy does: where it sends, and where the end of a job has a read
//! retried or lets other I/O go on.

use alloc::boxed::Box;

use dm_core::Errno;
#[cfg(doc)]
use dm_core::host::Host;
use dm_core::job::{JobInfo, Place};

use super::nested::Inner;
use super::{JobCell, JobParent, TableIo};
use crate::entry::journey::Journey;
use crate::entry::pieces;
use crate::netbsd::buf::{self, Io};
use crate::netbsd::sys;

impl TableIo {
    /// [`Host::forward`].
    pub(super) fn forward_to(&self, job: &JobInfo, to: Place) {
        let cell = self.job(job.number());
        // SAFETY: the job is ours, and with it its cell, its nested buffer, its piece and the I/O;
        // `job_done` ends it.
        unsafe {
            *cell.forwarded.get() = *job;
            let part = (*cell.parent.get()).part().zip(cell.nested.first());
            let Some(((io, offset, bytes), nested, device)) = part
                .zip(self.device(to.component))
                .map(|((part, nested), device)| (part, nested, device))
            else {
                return self.forwarded_over(job.number(), Err((0, Errno::EIO)));
            };
            buf::nest(nested.buf(), io, offset, bytes, to.sector, job_done);
            device.vnode().strategy(nested.buf());
        }
    }

    /// [`Host::forward_each`].
    #[inline]
    pub(super) fn forward_to_each(&self, job: &JobInfo, to: &[Place]) {
        let cell = self.job(job.number());
        // SAFETY: the job is ours, and with it its cell, its nested buffers, its piece and the I/O,
        // until all places have answered, and this sender counts as one more.
        unsafe {
            *cell.forwarded.get() = *job;
            cell.answers.begin(to.len().saturating_add(1));
            let part = (*cell.parent.get()).part();
            for (at, place) in to.iter().enumerate() {
                let (nested, device) = (cell.nested.get(at), self.device(place.component));
                let (Some((io, offset, bytes)), Some(nested), Some(device)) =
                    (part, nested, device)
                else {
                    cell.answers.add_lost(at);
                    continue;
                };
                let buf = nested.buf();
                buf::nest(buf, io, offset, bytes, place.sector, job_done);
                device.vnode().strategy(buf);
            }
            if cell.answers.add_done() {
                self.all_answered(job.number(), true);
            }
        }
    }

    /// [`Host::forward_changed`].
    #[inline]
    pub(super) fn forward_other_data(&self, job: &JobInfo, data: Box<[u8]>, to: Place) {
        let cell = self.job(job.number());
        let bytes = job.length.to_bytes().and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = bytes.filter(|bytes| *bytes <= data.len() && i32::try_from(*bytes).is_ok());
        // SAFETY: the job is ours, and with it its cell and its nested buffer, until the place has
        // answered, and this sender counts as one more. The data stay in the cell, where they are
        // not touched, until the target takes them back, which it does after that; the length was
        // looked at.
        unsafe {
            let data = (*cell.changed.get()).insert(data).as_mut_ptr();
            *cell.forwarded.get() = *job;
            cell.answers.begin(2);
            match cell.nested.first().zip(self.device(to.component)).zip(bytes) {
                Some(((nested, device), bytes)) => {
                    let buf = nested.buf();
                    buf::fill(buf, data, bytes, to.sector, (true, job.fua), job_done);
                    device.vnode().strategy(buf);
                }
                None => cell.answers.add_lost(0),
            }
            if cell.answers.add_done() {
                self.all_answered(job.number(), true);
            }
        }
    }

    /// Tells the target that all places of a job that was forwarded to each have answered.
    /// `at_sender` is `true` where the sender does.
    ///
    /// # Safety
    /// The caller's result was the last. Something other than the job keeps the table: the sender's
    /// pass or count of the split, or a [`Completing`](dm_core::host::Completing).
    #[inline(always)]
    unsafe fn all_answered(&self, number: usize, at_sender: bool) {
        let cell = self.job(number);
        // SAFETY: the last one has the cell to itself.
        unsafe {
            (*cell.forwarded.get()).at_sender &= at_sender;
            self.engine().answered(*cell.forwarded.get(), cell.answers.outcome());
        }
    }

    /// Ends a job that was forwarded to one place, which has answered.
    ///
    /// # Safety
    /// As for [`TableIo::all_answered`].
    unsafe fn forwarded_over(&self, number: usize, outcome: buf::NestedResult) {
        let cell = self.job(number);
        let parent = self.take_parent(number);
        // The I/O first: freeing the number may let others' I/O go on.
        self.answer_parent(parent, outcome);
        // SAFETY: the place has answered, so that the cell is ours until the number is freed. So
        // the description is copied.
        unsafe {
            let info = *cell.forwarded.get();
            self.engine().free(&info);
        }
    }
}

/// The I/O that a forwarded job is, or is a piece of, and its journey.
///
/// # Safety
/// `buf` belongs to a job that is forwarded, and stays so while the returned references are used.
pub(in crate::entry) unsafe fn whole_of<'a>(buf: *const sys::buf) -> Option<(&'a Io, &'a Journey)> {
    // SAFETY: the caller's promise: the buffer is the first field of its record, and the job's
    // record does not change.
    unsafe {
        let inner = buf.cast::<Inner>();
        let table = &*(*inner).table;
        match &*table.job((*inner).number).parent.get() {
            JobParent::Whole(io, journey) => Some((io, journey)),
            JobParent::Piece(split, ..) => pieces::whole_of(*split),
            JobParent::Thread(_) | JobParent::Nothing => None,
        }
    }
}

/// b_iodone of a forwarded job's nested buffer. Context: see this file's head.
///
/// # Safety
/// biodone(9) calls it, once, with the buffer of a forwarded job that was sent.
pub(in crate::entry) unsafe extern "C" fn job_done(buf: *mut sys::buf) {
    // SAFETY: the buffer is the first field of an `Inner`; the job's piece is inside the gate,
    // which keeps the table until it is answered, last of all.
    unsafe {
        let inner = buf.cast::<Inner>();
        let (table, number) = (&*(*inner).table, (*inner).number);
        let cell = table.job(number);
        if !buf::is_complete(buf) || !cell.answers.are_awaited() {
            return job_done_otherwise(inner, cell);
        }
        if cell.answers.add_done() {
            last_done(table, number, None);
        }
    }
}

/// [`job_done`] of a job that was forwarded to one place, or of a place that has failed.
///
/// # Safety
/// As for [`job_done`]; the record is the job's.
#[inline(never)]
unsafe fn job_done_otherwise(inner: *mut Inner, cell: &JobCell) {
    // SAFETY: the record is the job's, whose piece keeps the table until it is answered, last of
    // all.
    unsafe {
        let (table, number, place) = (&*(*inner).table, (*inner).number, (*inner).place);
        let result = buf::nested_result(inner.cast());
        if !cell.answers.are_awaited() {
            last_done(table, number, Some(result));
        } else if cell.answers.add(place, result.map_err(|(_, errno)| errno)) {
            last_done(table, number, None);
        }
    }
}

/// The end of a forwarded job, in the completion of its last place: its one place has this outcome,
/// or, `None`, all have answered.
///
/// # Safety
/// The place's buffer is done, and the job is the caller's to end.
#[inline(never)]
unsafe fn last_done(table: &TableIo, number: usize, outcome: Option<buf::NestedResult>) {
    // Answering the I/O may let a drain of the gate end, while this is still in a function of the
    // table's.
    let _kept = table.slot.completing.enter();
    // SAFETY: the caller's promise.
    unsafe {
        match outcome {
            Some(outcome) => table.forwarded_over(number, outcome),
            None => table.all_answered(number, false),
        }
    }
}
