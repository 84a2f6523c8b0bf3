// SPDX-License-Identifier: BSD-2-Clause

//! The device mapper: virtual disks made of ranges of other disks.
//!
//! This crate decides; it never touches a kernel. It gets all that it needs of one (locks, opened components, a disk
//! to present) through the traits of [`kernel`], and reads userland's requests through those of [`proplib`]. So it
//! runs in NetBSD's kernel, in a Unix process and under a property test, unchanged.
//!
//! A *table* ([`table::Table`]) is a list of lines; each hands a range of sectors to a *target*
//! ([`target::Target`]); a *device* ([`device::Device`]) has two table slots; [`commands`] has the
//! commands that userland gives.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "testing"))]
extern crate std;

pub mod aes;
pub mod clock;
pub mod commands;
mod completing;
pub mod device;
pub mod errno;
pub mod executor;
pub mod guard;
pub mod hash;
pub mod host;
pub mod job;
pub mod kernel;
pub mod lane;
pub mod limits;
pub mod mistake;
pub mod name;
mod numbers;
pub mod pdev;
pub mod proplib;
pub mod purse;
pub mod ready;
pub mod refusal;
pub mod shared;
pub mod table;
pub mod target;
pub mod targets;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tracker;
pub mod units;
mod version;
pub mod worker;

/// The atomic types of the parts that the models check; there they are loom's.
mod atomic {
    pub(crate) use core::sync::atomic::{AtomicUsize, Ordering, fence};

    /// Does nothing: the accesses before and after the calls are sequentially consistent anyway. The models' atomics
    /// are weaker, and have a fence there.
    #[inline(always)]
    pub(crate) fn full_fence() {}
}

pub use errno::Errno;
pub use refusal::Refusal;
pub use units::{Dev, Minor, Sector, SectorRange};

/// Keeps the page true: its example is compiled and run as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../../../share/doc/adding-a-target.md")]
struct AddingATarget;
