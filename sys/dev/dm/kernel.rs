// SPDX-License-Identifier: BSD-2-Clause

//! The interface to the kernel that the device mapper runs in. `sys/entry/kernel.rs` and
//! `sys/entry/unit.rs` implement NetBSD's.
//!
//! Contexts: dm-core's commands run in threads that hold no lock of the kernel's. Unless a method
//! says that it may be called from anywhere, which includes soft interrupts, it is called by such a
//! thread, without a lock of ours.

use alloc::sync::Arc;
use core::fmt;
use core::ops::DerefMut;

use crate::aes::Aes;
use crate::clock::Clock;
use crate::guard::GuardedSectors;
use crate::hash::Hash;
use crate::host::{Host, Plan, Ready};
use crate::table::Table;
use crate::units::{Dev, Minor, Sector};
use crate::{Errno, pdev::Pdev};

/// A kernel. One value of this type lives as long as the driver.
pub trait Kernel: Sized + Send + Sync + 'static {
    /// mutex(9), adaptive.
    type Mutex<T: Send>: Mutex<T>;
    /// condvar(9).
    type Condvar: Condvar<Self>;
    /// A block device, opened. Dropping it closes it, which may sleep.
    type Disk: Send + Sync;
    /// The handle that starts I/O on an open block device. Each table has a copy of it for each
    /// component.
    type Handle: Copy + Send + Sync;
    /// A device as the system sees it.
    type Unit: Unit<Self> + Send + Sync;
    /// The promise of a thread to ask for no memory, see [`Kernel::frugal`].
    type Frugal;

    /// The handle of an open block device, valid for as long as the device is open.
    fn handle(disk: &Self::Disk) -> Self::Handle;

    /// Finds the block device at `path`. Sleeps for the file system.
    ///
    /// # Errors
    /// ENOENT, ENOTBLK, or the file system's.
    fn find(&self, path: &str) -> Result<Dev, Errno>;

    /// Opens a block device, for writing too if it can be. Sleeps in its driver.
    ///
    /// # Errors
    /// ENXIO, EBUSY, or its driver's.
    fn open(&self, dev: Dev) -> Result<Self::Disk, Errno>;

    /// Bytes of a table's own nested buffer, with the record of a lane's place or a job.
    const NESTED: usize;

    /// Bytes of a kernel thread's u-area, which has its stack.
    fn thread_bytes(&self) -> usize;

    /// Allocates the host of a device's table. Dropping the last reference frees it. Sleeps for
    /// memory.
    ///
    /// # Errors
    /// ENXIO if the device goes.
    fn host(
        &self,
        minor: Minor,
        plan: &Plan,
        ready: Arc<Ready>,
        components: &[Pdev<Self>],
    ) -> Result<Arc<dyn Host>, Errno>;

    /// Asks an opened block device for its size, sectors, label and whether it takes writes. Its
    /// driver may have changed them since it was opened: no answer is good for the next table. A
    /// device of ours that has no active table has no sectors. Sleeps in its driver.
    ///
    /// # Errors
    /// Its driver's; EINTR when a signal came; EINVAL for a size or sectors that are not to be
    /// worked with.
    fn ask(&self, disk: &Self::Disk) -> Result<Answer, Errno>;

    /// `true` if an opened block device was revoked (revoke(2), or its driver let the unit go): it
    /// does nothing more, and opening its number again opens another unit.
    fn is_gone(&self, disk: &Self::Disk) -> bool;

    /// Attaches a device, without a table, to the system. Sleeps.
    ///
    /// # Errors
    /// EBUSY while a device of this minor is not let go, ENXIO if the driver goes.
    fn attach(&self, minor: Minor) -> Result<Self::Unit, Errno>;

    /// The major number of the driver's block devices.
    fn block_major(&self) -> u32;

    /// Checks that the calling thread may change devices (KAUTH_SYSTEM_DEVMAPPER).
    ///
    /// # Errors
    /// EPERM.
    fn authorize(&self) -> Result<(), Errno>;

    /// The number of the calling process, which no other that lives has.
    fn process(&self) -> u64;

    /// The variable hw.dm.legacy_errors of sysctl(8). From anywhere.
    fn legacy_errors(&self) -> bool;

    /// The variable hw.dm.label_guard of sysctl(8). From anywhere.
    fn label_guard(&self) -> LabelGuard;

    /// Marks the calling thread, as long as the value lives, as one that does nothing that may wait
    /// for memory, nor takes a lock under which another thread does. It holds I/O, or is about to:
    /// a page-out may be among that, which would free the very memory. A kernel may check that the
    /// promise is kept.
    ///
    /// One exception is not seen by that check: the thread waits for
    /// [`Worker::start`](crate::worker::Worker::start) of the next table's targets, and a
    /// snapshot's asks another thread for memory when it reads its store.
    fn frugal(&self) -> Self::Frugal;

    /// A clock that counts seconds, from anywhere.
    fn seconds(&self) -> u32;

    /// The clock of [`Kernel::seconds`], for targets to keep.
    fn clock(&self) -> Clock;

    /// The kernel's hash function of this name, if it has one.
    fn hash(&self, name: &str) -> Option<&'static dyn Hash>;

    /// The kernel's AES, if it has one.
    fn aes(&self) -> Option<&'static dyn Aes>;

    /// The number of CPUs.
    fn cpus(&self) -> usize;

    /// Prints a line on the console. Sleeps for memory.
    fn say(&self, what: fmt::Arguments<'_>);
}

/// A block device's size, sectors, label and mode at the moment of [`Kernel::ask`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The device's size.
    pub size: Sector,
    /// Bytes in the smallest I/O that the device takes: a power of two, from 512 to
    /// [`limits::SECTOR`](crate::limits::SECTOR).
    pub sector_size: u32,
    /// `true` if the device takes writes.
    pub writable: bool,
    /// The device's sectors that hold its disk's label and boot code, if it carries a label. No
    /// label is looked for while [`Kernel::label_guard`] is off.
    pub guard: Option<GuardedSectors>,
}

/// The policy for tables that reach into the sectors of a component's label (hw.dm.label_guard).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LabelGuard {
    /// Tables and writes are accepted.
    Off,
    /// Tables that reach into a label's sectors are accepted with a message; writes to the label
    /// are refused.
    Writes,
    /// Tables that reach into a label's sectors are refused.
    Tables,
}

/// A lock that owns its data.
pub trait Mutex<T>: Send + Sync {
    /// The proof that the lock is held; dropping it releases the lock.
    type Guard<'a>: DerefMut<Target = T>
    where
        Self: 'a;

    /// A new lock around `data`.
    fn new(data: T) -> Self;

    /// Takes the lock, sleeping until it is free. Threads only.
    fn lock(&self) -> Self::Guard<'_>;
}

/// A condition variable.
pub trait Condvar<K: Kernel>: Send + Sync {
    /// A new condition variable; `name` is what ps(1) shows of a sleeper, 8 bytes at most.
    fn new(name: &'static core::ffi::CStr) -> Self;

    /// Lets go of `guard`'s mutex, sleeps until woken, and takes it again.
    fn wait<T: Send>(&self, guard: &mut <K::Mutex<T> as Mutex<T>>::Guard<'_>);

    /// Waits as [`Condvar::wait`] does, until woken or until a signal comes.
    ///
    /// # Errors
    /// EINTR, or ERESTART as the kernel has it.
    fn wait_sig<T: Send>(
        &self,
        guard: &mut <K::Mutex<T> as Mutex<T>>::Guard<'_>,
    ) -> Result<(), Errno>;

    /// Wakes all sleepers.
    fn broadcast(&self);
}

/// The table of a running driver.
pub type LiveTable<K> = Table<Pdev<K>>;

/// A device as the system sees it: a disk(9) with I/O going through it.
///
/// The caller has the device's control flag for all methods but [`Unit::open_count`] and
/// [`Unit::suspend_file_system`]; it holds no lock. Order: `quiesce`, perhaps `set_table`,
/// `release`, then `tell`; in the end `begin_detach`, `kill`, `detach_disk`, `detach`. All of them
/// are called by threads and may sleep, but `set_table`; between `quiesce` and `release` nothing
/// waits for memory, with the exception that [`Kernel::frugal`] names.
pub trait Unit<K: Kernel> {
    /// A suspension of the file system that is mounted on the device: it begins nothing new until
    /// the value is dropped, by the thread that has it. No other file system of the system is
    /// suspended or unmounted meanwhile, so that it is kept for a moment only, in which the thread
    /// waits for nothing but I/O.
    type Suspended;

    /// Suspends the file system that is mounted on the device, and writes out all that it has.
    /// `None` if there is none, it cannot do this, or it could not write because this device or one
    /// below it is suspended. The caller holds no I/O, and has no lock.
    ///
    /// # Errors
    /// EINTR, or ERESTART as the kernel has it, when a signal came first.
    fn suspend_file_system(&self) -> Result<Option<Self::Suspended>, Errno>;

    /// Holds I/O that comes from now on, and waits until none is in flight.
    ///
    /// # Errors
    /// EINTR when a signal came first: I/O is held, and [`Unit::release`] must follow.
    fn quiesce(&self) -> Result<(), Errno>;

    /// Lets I/O go again, the held first and in its order.
    fn release(&self);

    /// Changes the table, while I/O is held and none is in flight, and returns the old one.
    /// [`Unit::tell`] follows when I/O goes again.
    fn set_table(&self, table: Arc<LiveTable<K>>, read_only: bool) -> Option<Arc<LiveTable<K>>>;

    /// Gives disk(9) the size of a table that has become active. Waits for memory: I/O is not held
    /// now.
    fn tell(&self, table: &LiveTable<K>);

    /// Gives disk(9) a geometry of the caller's. Waits for memory: I/O may be held, but not by this
    /// thread.
    fn set_geometry(&self, geometry: Geometry);

    /// The number of device nodes (block, character) that are open.
    fn open_count(&self) -> u32;

    /// Refuses opens from now on.
    ///
    /// # Errors
    /// EBUSY when it is open and `force` is not set: nothing has changed then.
    fn begin_detach(&self, force: bool) -> Result<(), Errno>;

    /// Fails all I/O, held and to come, with ENXIO, waits for what is in flight, and returns the
    /// table. Called once, after [`Unit::begin_detach`].
    fn kill(&self) -> Option<Arc<LiveTable<K>>>;

    /// Revokes the nodes that are open, withdraws the minor and detaches disk(9). Called once,
    /// after [`Unit::kill`]; waits for closes and for threads in ioctls of the disk, deaf to
    /// signals.
    fn detach_disk(&self);

    /// Detaches the device_t (config_detach(9)). Called once at most, after [`Unit::detach_disk`].
    ///
    /// # Errors
    /// autoconf(9)'s.
    fn detach(&self) -> Result<(), Errno>;
}

/// A disk's geometry, as `setgeometry` gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u32,
    /// Heads: tracks per cylinder.
    pub heads: u32,
    /// Sectors per track.
    pub sectors: u32,
    /// The start sector that userland gave with the geometry; stored, not used.
    pub start: Sector,
}
