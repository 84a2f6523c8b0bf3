//! Nested buffers of a table's own, for its lanes and its forwarded jobs.

use super::TableIo;
use super::answers::bit;
use crate::kern::fixed::Fixed;
use crate::kern::sys;
use alloc::boxed::Box;

/// A nested buffer of a table's own. Built once, as a `Child` is.
pub(super) struct Nested(Fixed<Inner>);

// SAFETY: it is a pointer here; the buffer has one user at a time, as `TableIo` says.
unsafe impl Send for Nested {}
// SAFETY: as above.
unsafe impl Sync for Nested {}

#[repr(C)]
pub(super) struct Inner {
    /// First, so that the buffer's address is that of all.
    buf: sys::buf,
    lock: sys::kmutex_t,
    pub(super) table: *const TableIo,
    /// The lane, or the job.
    pub(super) number: usize,
    /// The lane's or the job's place, as a bit.
    pub(super) place: u32,
}

impl Nested {
    /// Buffers for as many places of a lane or a job.
    pub(super) fn row(number: usize, places: usize) -> Box<[Nested]> {
        (0..places).map(|place| Nested::new(number, bit(place))).collect()
    }

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

    pub(super) fn belong_to(&self, table: *const TableIo) {
        // SAFETY: nobody uses the buffer before its table is complete.
        unsafe { (*self.0.get()).table = table };
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        // SAFETY: `new` made them, and nothing is under way when a table goes.
        unsafe {
            let raw = self.0.get();
            crate::entry::pieces::fini_nested(&raw mut (*raw).buf, &raw mut (*raw).lock);
        }
    }
}
