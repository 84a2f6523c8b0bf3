//! What tables may take of memory, all together.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::{Errno, limits};

/// The memory that tables may take, [`limits::TABLES`], of which each clone takes: the driver's, and those of targets
/// that take some while their table is there.
#[derive(Clone, Default)]
pub struct Purse(Arc<AtomicUsize>);

/// A part of it, which comes back when it is dropped.
pub struct Share {
    of: Purse,
    bytes: usize,
}

impl Purse {
    /// Takes a part. From anywhere; does not sleep.
    ///
    /// # Errors
    /// ENOMEM if there is not that much left.
    pub fn take(&self, bytes: usize) -> Result<Share, Errno> {
        let more = |spent: usize| spent.checked_add(bytes).filter(|sum| *sum <= limits::TABLES);
        let spent = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        spent.map(|_| Share { of: self.clone(), bytes }).map_err(|_| Errno::ENOMEM)
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
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
