// SPDX-License-Identifier: BSD-2-Clause

//! The device mapper: virtual disks made of ranges of other disks.
//!
//! This crate decides; it never touches a kernel. It gets all that it needs of one (locks, opened
//! components, a disk to present) through the traits of [`kernel`], and reads userland's requests
//! through those of [`proplib`]. So it runs in NetBSD's kernel, in a Unix process and under a
//! property test, unchanged.
//!
//! A *table* ([`table::Table`]) is a list of lines; each hands a range of sectors to a *target*
//! ([`target::Target`]); a *device* ([`device::Device`]) has two table slots; [`commands`] has the
//! commands that userland gives.
//!
//! # Files
//!
//! Requests and devices: `commands.rs` carries out what userland asks for, `proplib.rs` is how it
//! reads a request, `refusal.rs` has the reasons of what fails, `name.rs` names and uuids;
//! `device.rs` has devices and the set of them, `pdev.rs` the components that their tables share,
//! `purse.rs` the memory that tables may take, `limits.rs` all limits.
//!
//! Tables: `table.rs` has a table as I/O sees it, `table/build.rs` makes it of lines, `mistake.rs`
//! has what may be wrong with one; `target.rs` is the trait of a target and the line that it is
//! made of, `targets/` has the targets, `clock.rs` the clock that they may keep, `shared.rs` the
//! state that lines of several tables share, `guard.rs` the sectors of components' labels.
//!
//! I/O that targets serve themselves: `worker.rs` is the trait of such a target, `job.rs` a stretch
//! of I/O, `lane.rs` what a target's code may do while it serves one, `executor.rs` the engine that
//! runs lanes, `ready.rs` the set of lanes to be polled, `numbers.rs` the numbers of jobs,
//! `completing.rs` the count of contexts that the end of a table waits for. Targets that map I/O
//! while their state changes use `tracker.rs`, a count of I/O in flight that can be drained, and
//! `version.rs`, by which data are read without their lock.
//!
//! The kernel: `kernel.rs` has the traits of a kernel, and `host.rs` those of its part of a table
//! whose targets serve I/O; `aes.rs` and `hash.rs` are its ciphers and hash functions. `units.rs`
//! has sectors and device numbers, `errno.rs` error numbers, `testing/` kernels and disks for
//! tests.

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
mod ready;
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

    /// Does nothing: each caller's accesses on both sides of the call are SeqCst, or ordered by a
    /// lock that the other side takes too. The models, whose checker knows no SeqCst accesses, have
    /// a fence here.
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
