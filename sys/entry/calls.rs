// SPDX-License-Identifier: BSD-2-Clause

//! The calls of the driver that are in progress, and the look for none of them.
//!
//! `regress/models` includes this file and checks it under loom.

use super::atomic::{AtomicUsize, Ordering, full_fence};

/// Counts of d_open, d_close and d_ioctl, which use the driver although no open node need record
/// it: an open before it is recorded, a close when it no longer is, an ioctl whose node was revoked
/// (spec_close(9) calls d_close first, and waits for ioctls after that).
///
/// Both only rise, and wrap. As in the gate, what has ended is read first: a call that was seen to
/// end is seen to have begun, so that equal counts mean that none was in progress in between.
#[derive(Default)]
pub struct Calls {
    /// The number of calls that have begun.
    pub begun: AtomicUsize,
    /// The number of calls that have ended.
    pub ended: AtomicUsize,
}

impl Calls {
    /// Counts a call in until the returned value is dropped. Context: any; does not sleep.
    pub fn begin(&self) -> Call<'_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        full_fence();
        Call(&self.ended)
    }

    /// `true` if `look` returns `true`, and no call was in progress while it ran.
    pub fn none_during(&self, look: impl FnOnce() -> bool) -> bool {
        let ended = self.ended.load(Ordering::SeqCst);
        let quiet = look();
        full_fence();
        quiet && self.begun.load(Ordering::SeqCst) == ended
    }
}

/// A call that is in progress: see [`Calls`].
#[must_use = "dropped at once, the call counts as over"]
pub struct Call<'c>(&'c AtomicUsize);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
