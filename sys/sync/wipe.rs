// SPDX-License-Identifier: BSD-2-Clause

//! Wiping of memory, which no optimiser may leave out.

use alloc::string::String;
use core::sync::atomic::{Ordering, compiler_fence};

/// A plain number, for which zero is a value like any other.
pub trait Number: Copy {
    /// Zero.
    const ZERO: Self;
}

impl Number for u8 {
    const ZERO: u8 = 0;
}

impl Number for u64 {
    const ZERO: u64 = 0;
}

/// Overwrites memory with zeroes, even if it is never read afterwards: for keys.
#[inline(never)]
pub fn wipe<T: Number>(memory: &mut [T]) {
    for at in memory {
        // SAFETY: a reference may be written through.
        unsafe { core::ptr::write_volatile(at, T::ZERO) };
    }
    // Later accesses, such as giving the memory back, stay behind the writes.
    compiler_fence(Ordering::SeqCst);
}

/// Overwrites a text with zeroes, as far as it was ever written to, and empties it.
pub fn wipe_text(text: &mut String) {
    let mut bytes = core::mem::take(text).into_bytes();
    bytes.resize(bytes.capacity(), 0);
    wipe(&mut bytes);
}
