// SPDX-License-Identifier: BSD-2-Clause

//! Memory of a line's own that senders' threads encrypt into.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use dm_sync::Spin;

/// Buffers that a line took when it was loaded. One that was taken out has one owner, who gives it back; who finds
/// none does not wait. Context of all methods: thread or soft interrupt.
pub(super) struct Spare {
    /// Those that nobody has, the one that was used last at the end. There is room for all.
    buffers: Spin<Vec<Box<[u8]>>>,
}

impl Spare {
    /// So many buffers of so many bytes.
    pub(super) fn new(buffers: usize, bytes: usize) -> Spare {
        Spare { buffers: Spin::new((0..buffers).map(|_| vec![0; bytes].into()).collect()) }
    }

    /// Takes the buffer that was used last, which is the most likely to be in a CPU's cache.
    pub(super) fn take(&self) -> Option<Box<[u8]>> {
        self.buffers.lock().pop()
    }

    /// Gives back a buffer that was taken.
    pub(super) fn give(&self, buffer: Box<[u8]>) {
        let mut buffers = self.buffers.lock();
        debug_assert!(buffers.len() < buffers.capacity());
        buffers.push(buffer);
    }
}
