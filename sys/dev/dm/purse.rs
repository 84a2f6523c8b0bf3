// SPDX-License-Identifier: BSD-2-Clause

//! The limit on the memory of all tables together.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::{Errno, limits};

/// A reference to the account of tables' memory, of which there is one a driver, with
/// [`limits::ALL_TABLES`] bytes: the driver has one, and each target that takes memory while its
/// table is there.
#[derive(Clone, Default)]
pub struct Purse(Arc<AtomicUsize>);

/// Bytes taken from a [`Purse`], which come back when the value is dropped.
pub struct Share {
    of: Purse,
    bytes: usize,
}

impl Purse {
    /// Takes some bytes. Context: any; does not sleep.
    ///
    /// # Errors
    /// ENOMEM if there is not that much left.
    pub fn take(&self, bytes: usize) -> Result<Share, Errno> {
        let more = |spent: usize| spent.checked_add(bytes).filter(|sum| *sum <= limits::ALL_TABLES);
        let spent = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        spent.map(|_| Share { of: self.clone(), bytes }).map_err(|_| Errno::ENOMEM)
    }
}

impl Share {
    /// Takes over another share's bytes.
    pub fn join(&mut self, mut other: Share) {
        self.bytes = self.bytes.saturating_add(core::mem::take(&mut other.bytes));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
