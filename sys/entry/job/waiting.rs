// SPDX-License-Identifier: BSD-2-Clause

//! The queue of splits that wait for the number of a job.

use core::ptr::NonNull;

use crate::entry::pieces::Split;

/// Splits in the order in which they came, linked through themselves. One that goes on and finds
/// that a newcomer has taken the number comes again, as the last.
#[derive(Default)]
pub(super) struct Waiting {
    first: Option<NonNull<Split>>,
    last: Option<NonNull<Split>>,
}

// SAFETY: it owns its splits.
unsafe impl Send for Waiting {}

impl Waiting {
    /// Adds a split at the end.
    pub(super) fn push(&mut self, split: NonNull<Split>) {
        // SAFETY: a split that waits is not touched by any other context; `last` waits here too.
        unsafe {
            (*split.as_ptr()).next = None;
            match self.last {
                Some(last) => (*last.as_ptr()).next = Some(split),
                None => self.first = Some(split),
            }
        }
        self.last = Some(split);
    }

    /// Takes the first split.
    pub(super) fn pop(&mut self) -> Option<NonNull<Split>> {
        let split = self.first?;
        // SAFETY: a split that waits is not touched by any other context.
        self.first = unsafe { (*split.as_ptr()).next };
        if self.first.is_none() {
            self.last = None;
        }
        Some(split)
    }
}
