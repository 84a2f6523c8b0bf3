// SPDX-License-Identifier: BSD-2-Clause

//! Memory of a `crypt` line's own that senders' threads encrypt writes into.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use dm_sync::Spin;

/// The buffers for encrypted writes that a line took when it was loaded. A buffer that is taken out
/// belongs to the write that it was taken for until [`WriteBuffers::give`]; a write that finds none
/// does not wait. Context of all methods: thread or soft interrupt.
pub(super) struct WriteBuffers {
    /// The buffers that no write has, the one that was used last at the end. There is room for all.
    buffers: Spin<Vec<Box<[u8]>>>,
}

impl WriteBuffers {
    /// A set of `buffers` buffers, of `bytes` bytes each.
    pub(super) fn new(buffers: usize, bytes: usize) -> WriteBuffers {
        WriteBuffers { buffers: Spin::new((0..buffers).map(|_| vec![0; bytes].into()).collect()) }
    }

    /// Takes the buffer that was used last, which is the most likely to be in a CPU's cache.
    pub(super) fn take(&self) -> Option<Box<[u8]>> {
        self.buffers.lock().pop()
    }

    /// Returns a buffer that was taken.
    pub(super) fn give(&self, buffer: Box<[u8]>) {
        let mut buffers = self.buffers.lock();
        debug_assert!(buffers.len() < buffers.capacity());
        buffers.push(buffer);
    }
}
