// SPDX-License-Identifier: BSD-2-Clause

//! Nested buffers of a table's own, for its lanes and its forwarded jobs.

use super::TableIo;
use super::answers::bit;
use crate::netbsd::fixed::Fixed;
use crate::netbsd::sys;
use alloc::boxed::Box;

/// A nested buffer of a table's own. Constructed once, as a `Child` is.
pub(super) struct Nested(Fixed<Inner>);

// SAFETY: a `Nested` is a pointer; the buffer behind it has one user at a time, as `TableIo` says.
unsafe impl Send for Nested {}
// SAFETY: the buffer has one user at a time, as `TableIo` says.
unsafe impl Sync for Nested {}

/// The memory of a nested buffer of a table's own. A buffer is one of these if its b_iodone is
/// `lane_done` or `job_done`; it is a `Child` if that is `done` or `track_done`.
#[repr(C)]
pub(super) struct Inner {
    /// The buffer: the first field, so that its address is that of all.
    buf: sys::buf,
    /// The buffer's b_objlock.
    lock: sys::kmutex_t,
    /// The table, which stays as long as its buffers.
    pub(super) table: *const TableIo,
    /// The number of the lane or of the job.
    pub(super) number: usize,
    /// The place among the lane's or the job's, as a bit.
    pub(super) place: u32,
}

impl Nested {
    /// Buffers for as many places of a lane or a job.
    pub(super) fn row(number: usize, places: usize) -> Box<[Nested]> {
        (0..places).map(|place| Nested::new(number, bit(place))).collect()
    }

    /// A buffer for one place.
    fn new(number: usize, place: u32) -> Nested {
        // SAFETY: a buf and a kmutex_t are plain memory until they are initialised.
        let inner: Fixed<Inner> = Fixed::new(unsafe { core::mem::zeroed() });
        // SAFETY: fresh memory, which stays where it is.
        unsafe {
            let raw = inner.get();
            crate::entry::pieces::init_nested(&raw mut (*raw).buf, &raw mut (*raw).lock);
            ((*raw).number, (*raw).place) = (number, place);
        }
        Nested(inner)
    }

    /// The buffer, for one user.
    pub(super) fn buf(&self) -> *mut sys::buf {
        self.0.get().cast()
    }

    /// Sets the table that the buffer is of.
    pub(super) fn belong_to(&self, table: *const TableIo) {
        // SAFETY: the buffer is not used before its table is complete.
        unsafe { (*self.0.get()).table = table };
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        // SAFETY: `new` made them, and nothing is in flight when a table goes.
        unsafe {
            let raw = self.0.get();
            crate::entry::pieces::fini_nested(&raw mut (*raw).buf, &raw mut (*raw).lock);
        }
    }
}
