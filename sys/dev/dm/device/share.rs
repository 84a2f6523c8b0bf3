//! What tables may take of memory, all together.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::{Errno, limits};

/// How much of [`limits::TABLES`] is taken, in bytes.
#[derive(Default)]
pub(super) struct Budget(Arc<AtomicUsize>);

/// The budget, for targets that take of it while their table is there.
#[derive(Clone, Default)]
pub struct Purse(Arc<AtomicUsize>);

impl Purse {
    /// Takes a part of the budget, which comes back when it is dropped; `None` if there is not that much left.
    /// From anywhere; does not sleep.
    pub fn take(&self, bytes: usize) -> Option<Share> {
        Budget(self.0.clone()).take(bytes).ok()
    }
}

/// A part of the budget, which comes back when it is dropped.
pub struct Share {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Budget {
    /// Takes a part.
    ///
    /// # Errors
    /// ENOMEM if there is not that much left.
    pub(super) fn take(&self, bytes: usize) -> Result<Share, Errno> {
        let more = |spent: usize| spent.checked_add(bytes).filter(|sum| *sum <= limits::TABLES);
        let spent = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        spent.map(|_| Share { of: self.0.clone(), bytes }).map_err(|_| Errno::ENOMEM)
    }
}

impl Budget {
    pub(super) fn purse(&self) -> Purse {
        Purse(self.0.clone())
    }
}

impl Share {
    /// Takes another over.
    pub fn join(&mut self, mut other: Share) {
        self.bytes = self.bytes.saturating_add(core::mem::take(&mut other.bytes));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
