// SPDX-License-Identifier: BSD-2-Clause

//! A version of data that are changed under a lock and read without one.
//!
//! A reader relies on what it has read if the version is the same afterwards. The data are atomics,
//! which may be relaxed, so that what is read during a change is some value, and is thrown away.
//!
//! `regress/models` includes this file and checks it, with [`Tracker`](crate::tracker::Tracker),
//! under loom.

use super::atomic::{AtomicUsize, Ordering, fence};

/// The number of changes of some data, times two; odd during a change.
pub struct Version(AtomicUsize);

/// A version that a reader has seen before it looked at the data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seen(usize);

impl Default for Version {
    /// The first version.
    fn default() -> Version {
        Version(AtomicUsize::new(0))
    }
}

impl Version {
    /// The version before a look at the data. `None` during a change.
    #[inline]
    pub fn look(&self) -> Option<Seen> {
        let now = self.0.load(Ordering::Acquire);
        (now & 1 == 0).then_some(Seen(now))
    }

    /// `true` if nothing has changed since: the values that were read belong together.
    #[inline]
    pub fn is(&self, seen: Seen) -> bool {
        // After the data.
        fence(Ordering::Acquire);
        self.0.load(Ordering::Relaxed) == seen.0
    }

    /// Begins a change. The caller has the lock under which the data are changed.
    pub fn begin(&self) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now | 1, Ordering::Relaxed);
        // Before the data.
        fence(Ordering::Release);
    }

    /// Ends a change that [`Version::begin`] has begun. The caller still has the lock.
    pub fn end(&self) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store((now | 1).wrapping_add(1), Ordering::Release);
    }
}
