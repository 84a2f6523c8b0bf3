// SPDX-License-Identifier: BSD-2-Clause

//! Disks: the components that a machine's devices are mapped to.
//!
//! A disk has a backing store (a file, memory, or nothing), a driver that answers as NetBSD's own
//! do, and knobs: how and when its I/O completes, and what goes wrong.

mod backend;
mod driver;
mod faults;
mod ioctl;
mod label;
mod queue;
mod spec;
mod unit;

use std::sync::Arc;

use crate::dev::{Dev, major, minor};
use crate::errno::Errno;
use crate::netbsd as nb;

pub use backend::{Allocation, Backend};
pub use label::{Label, Partition};
pub use queue::Completion;
pub use spec::DiskSpec;

pub(crate) use driver::{allocation, attach, detach_all, release_all, sector_size};

use driver::Unit;

/// Counts of a disk's operations, since it was attached or [`Disk::reset_counters`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Reads that reached the disk.
    pub reads: u64,
    /// Writes that reached the disk.
    pub writes: u64,
    /// Bytes asked for by reads.
    pub bytes_read: u64,
    /// Bytes asked for by writes.
    pub bytes_written: u64,
    /// Reads and writes with B_MEDIA_FUA.
    pub fua: u64,
    /// Reads and writes with B_MEDIA_DPO.
    pub dpo: u64,
    /// Reads and writes of priority BPRIO_TIMECRITICAL.
    pub time_critical: u64,
    /// Reads and writes of priority BPRIO_TIMELIMITED (the lowest).
    pub low_priority: u64,
    /// The number of DIOCCACHESYNC ioctls.
    pub flushes: u64,
    /// Opens that succeeded, of any partition.
    pub opens: u64,
    /// The number of closes.
    pub closes: u64,
    /// The number of discards.
    pub discards: u64,
    /// Pieces of crash dumps.
    pub dumps: u64,
}

/// A disk that is attached. It stays attached when the handle is dropped.
#[derive(Clone)]
pub struct Disk(pub(crate) Arc<Unit>);

impl Disk {
    /// The disk's name, such as `wd0`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The block device number of the whole disk (of the raw partition where there are any).
    pub fn dev(&self) -> Dev {
        self.0.raw_dev(true)
    }

    /// The character device number of the whole disk.
    pub fn rdev(&self) -> Dev {
        self.0.raw_dev(false)
    }

    /// The block device number of a partition, `'a'` to `'p'`; the whole disk where there are no
    /// partitions.
    pub fn part_dev(&self, partition: char) -> Dev {
        self.0.part_dev(true, partition as u32 - 'a' as u32)
    }

    /// The path of the block node of the whole disk.
    pub fn path(&self) -> String {
        format!("/dev/{}", self.0.name)
    }

    /// The path of the character node of the whole disk.
    pub fn rpath(&self) -> String {
        format!("/dev/r{}", self.0.name)
    }

    /// The path of the block node of a partition, `'a'` to `'p'`.
    pub fn part_path(&self, partition: char) -> String {
        format!("/dev/{}{partition}", self.0.name)
    }

    /// The whole disk as a table line names it: `major:minor`.
    pub fn major_minor(&self) -> String {
        format!("{}:{}", major(self.dev()), minor(self.dev()))
    }

    /// Sectors, of the disk's own size.
    pub fn sectors(&self) -> u64 {
        self.0.sectors
    }

    /// Bytes in a sector.
    pub fn sector_size(&self) -> u32 {
        self.0.secsize
    }

    /// The counts of the disk's operations.
    pub fn counters(&self) -> Counters {
        self.0.counters()
    }

    /// Starts counting anew.
    pub fn reset_counters(&self) {
        self.0.reset_counters();
    }

    /// I/Os that the disk was given and has not completed.
    pub fn in_flight(&self) -> i64 {
        self.0.in_flight()
    }

    /// Reads the backing store behind the kernel's back; `offset` in bytes.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) {
        // SAFETY: `buf` is that much memory.
        let done = unsafe { self.0.backend.read(offset, buf.as_mut_ptr(), buf.len()) };
        assert!(done.is_ok(), "{}: cannot read the backing store", self.0.name);
    }

    /// Writes the backing store behind the kernel's back; `offset` in bytes.
    pub fn write_at(&self, offset: u64, data: &[u8]) {
        // SAFETY: `data` is that much memory.
        let done = unsafe { self.0.backend.write(offset, data.as_ptr(), data.len(), false) };
        assert!(done.is_ok(), "{}: cannot write the backing store", self.0.name);
    }

    /// Marks the driver's d_strategy as one that may sleep, as vnd(4)'s is for some files: from now on the machine
    /// stops where it is called in an interrupt, hard or soft.
    pub fn sleep_in_strategy(&self) {
        self.0.sleep_in_strategy();
    }

    /// Has I/O wait from now on, until [`Disk::release`].
    pub fn hold(&self) {
        self.0.hold();
    }

    /// Lets all held I/O go, in the order in which it came; later I/O is not held.
    pub fn release(&self) {
        self.0.release();
    }

    /// Completes one held I/O, the `index`th of those that wait, and holds the rest. `false` if there is no such I/O.
    pub fn release_one(&self, index: usize) -> bool {
        self.0.release_one(index)
    }

    /// I/Os that are held.
    pub fn held(&self) -> usize {
        self.0.held()
    }

    /// Sets how I/O completes from now on.
    pub fn set_completion(&self, completion: Completion) {
        self.0.set_completion(completion);
    }

    /// Has the `nth` I/O from now on, counted from 1, fail.
    pub fn fail_nth(&self, nth: u64, error: Errno) {
        self.0.faults.fail_nth(nth, error);
        self.0.update_slow();
    }

    /// Has I/O on these blocks of 512 bytes, counted from the start of the disk, fail until [`Disk::heal`].
    pub fn fail_range(&self, blocks: std::ops::Range<u64>, error: Errno) {
        self.0.faults.fail_range(blocks, error);
        self.0.update_slow();
    }

    /// Has I/O on these blocks fail until [`Disk::heal`], with a b_resid of 0 as if all were done.
    pub fn fail_range_all_done(&self, blocks: std::ops::Range<u64>, error: Errno) {
        self.0.faults.fail_range_all_done(blocks, error);
        self.0.update_slow();
    }

    /// Has every I/O fail until [`Disk::heal`].
    pub fn fail(&self, error: Errno) {
        self.fail_range(0..u64::MAX, error);
    }

    /// Has the `nth` I/O from now on transfer `bytes` bytes only, without an error.
    pub fn short_nth(&self, nth: u64, bytes: usize) {
        self.0.faults.short_nth(nth, bytes);
        self.0.update_slow();
    }

    /// Has the disk vanish: all but closing it fails with ENXIO, until [`Disk::heal`].
    pub fn vanish(&self) {
        self.0.faults.vanish(true);
        self.0.update_slow();
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.0.faults.heal();
        self.0.update_slow();
    }

    /// Has an ioctl of the disk, `netbsd::DIOC…` in `cmd`, fail with this error, or with `None` work.
    pub fn fail_ioctl(&self, cmd: u64, error: Option<Errno>) {
        self.0.faults.fail_ioctl(cmd, error);
    }

    /// Has an ioctl of the disk, `netbsd::DIOC…` in `cmd`, wait until [`Disk::heal`].
    pub fn stall_ioctl(&self, cmd: u64) {
        self.0.faults.stall_ioctl(cmd);
    }

    /// The number of threads that wait in the ioctl of [`Disk::stall_ioctl`].
    pub fn stalled(&self) -> usize {
        self.0.faults.stalled()
    }

    /// Takes the disk off the machine: EBUSY while it is open, unless forced. A forced detach
    /// fails its I/O with ENXIO and revokes its open nodes.
    pub fn detach(&self, force: bool) -> Result<(), Errno> {
        driver::detach(&self.0, force)
    }

    /// The disk's label, where it has partitions.
    pub fn label(&self) -> Option<nb::disklabel> {
        self.0.label()
    }
}
