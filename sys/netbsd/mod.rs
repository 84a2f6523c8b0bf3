// SPDX-License-Identifier: BSD-2-Clause

//! NetBSD's kernel interface, made safe: a file per manual page, as `mutex.rs` for mutex(9). Beside
//! them stands `fixed.rs`, memory that does not move.
//!
//! Raw pointers and error integers do not leave this module and [`crate::entry`].

pub mod aes;
pub mod buf;
pub mod callout;
pub mod condvar;
pub mod cpu;
pub mod disk;
pub mod fixed;
pub mod hash;
#[cfg(not(feature = "hosted"))]
pub mod kmem;
pub mod kthread;
#[cfg(test)]
mod layout;
pub mod mount;
pub mod mutex;
pub mod pool_cache;
pub mod proplib;
pub mod vnode;

/// The bindings that bindgen made from the headers of one NetBSD release.
#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    dead_code,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    reason = "generated"
)]
pub mod sys {
    include!(concat!(env!("OUT_DIR"), "/netbsd.rs"));
}

/// A constant of the C headers as the driver uses it.
macro_rules! c_const {
    ($($(#[$doc:meta])* $vis:vis $name:ident: $ty:ty;)*) => {
        $($(#[$doc])* $vis const $name: $ty = $crate::netbsd::sys::$name as $ty;)*
    };
}
pub(crate) use c_const;

/// The atomic types that the lock-free parts use; the models replace them by loom's.
pub(crate) mod atomic {
    pub(crate) use core::sync::atomic::{AtomicUsize, Ordering};

    /// Does nothing: each caller's accesses on both sides of the call are SeqCst, or ordered by a
    /// lock that the other side takes too. The models, whose checker knows no SeqCst accesses, have
    /// a fence here.
    #[inline(always)]
    pub(crate) fn full_fence() {}
}
