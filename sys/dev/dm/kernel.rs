//! What the device mapper needs of a kernel.

use alloc::sync::Arc;
use core::fmt;
use core::ops::DerefMut;

use crate::aes::Aes;
use crate::hash::Hash;
use crate::host::{Host, Plan, Ready};
use crate::label::Guard;
use crate::table::{Clock, Table};
use crate::units::{Dev, Minor, Sector};
use crate::{Errno, pdev::Pdev};

/// A kernel. One value of it lives as long as the driver.
pub trait Kernel: Sized + Send + Sync + 'static {
    /// mutex(9), adaptive.
    type Mutex<T: Send>: Mutex<T>;
    /// condvar(9).
    type Condvar: Condvar<Self>;
    /// A block device, opened. Dropping it closes it, which may sleep.
    type Disk: Send + Sync;
    /// A device as the system sees it.
    type Unit: Unit<Self> + Send + Sync;
    /// A thread's promise to ask for no memory, see [`Kernel::frugal`].
    type Frugal;

    /// Finds the block device at `path`.
    ///
    /// # Errors
    /// ENOENT, ENOTBLK, or what the file system says.
    fn find(&self, path: &str) -> Result<Dev, Errno>;

    /// Opens a block device, for writing too if it can be.
    ///
    /// # Errors
    /// ENXIO, EBUSY, or what its driver says.
    fn open(&self, dev: Dev) -> Result<Self::Disk, Errno>;

    /// Bytes of a nested buffer of a table's own, with what is kept for a lane's place or a job.
    const NESTED: usize;

    /// Takes what the engine of a device's table needs. Dropping the last reference gives it back.
    ///
    /// # Errors
    /// ENOMEM.
    fn host(
        &self,
        minor: Minor,
        plan: &Plan,
        ready: Arc<Ready>,
        components: &[Pdev<Self>],
    ) -> Result<Arc<dyn Host>, Errno>;

    /// Asks an opened block device what it is like now. Its driver may have changed it since it was
    /// opened: no answer is good for the next table. A device of ours that has no active table has
    /// no sectors.
    ///
    /// # Errors
    /// What its driver says; EINTR when a signal came.
    fn ask(&self, disk: &Self::Disk) -> Result<Answer, Errno>;

    /// `true` if an opened block device was taken away from its nodes (revoke(2), or its driver let
    /// the unit go): it does nothing more, and the unit that now has its number is another opening.
    fn is_gone(&self, disk: &Self::Disk) -> bool;

    /// Presents a device, without a table, to the system.
    ///
    /// # Errors
    /// ENOMEM, or what autoconf(9) says.
    fn attach(&self, minor: Minor) -> Result<Self::Unit, Errno>;

    /// The major number of the driver's block devices.
    fn block_major(&self) -> u32;

    /// Whether who asks may change devices: KAUTH_SYSTEM_DEVMAPPER.
    ///
    /// # Errors
    /// EPERM.
    fn authorize(&self) -> Result<(), Errno>;

    /// A number that the calling process has, and no other that lives.
    fn process(&self) -> u64;

    /// sysctl hw.dm.legacy_errors.
    fn legacy_errors(&self) -> bool;

    /// sysctl hw.dm.label_guard.
    fn label_guard(&self) -> LabelGuard;

    /// Has the calling thread promise, as long as the value lives, to do nothing that may wait for
    /// memory, nor to take a lock under which anybody does. It is about to hold I/O, or holds some:
    /// a page-out may be among it, and the memory that it would free the memory waited for. A
    /// kernel may check that the promise is kept.
    fn frugal(&self) -> Self::Frugal;

    /// A clock that counts seconds, from anywhere.
    fn seconds(&self) -> u32;

    /// The same clock, for targets to keep.
    fn clock(&self) -> Clock;

    /// The kernel's hash function of this name, if it has one.
    fn hash(&self, name: &str) -> Option<&'static dyn Hash>;

    /// The kernel's AES, if it has one.
    fn aes(&self) -> Option<&'static dyn Aes>;

    /// The number of CPUs.
    fn cpus(&self) -> usize;

    /// Tells the console, on a line of its own.
    fn say(&self, what: fmt::Arguments<'_>);
}

/// What a block device was like when it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Its size.
    pub size: Sector,
    /// Bytes in the smallest I/O that it takes: a power of two, at least 512.
    pub sector_size: u32,
    /// `true` if it takes writes.
    pub writable: bool,
    /// Which of its sectors hold its disk's label and boot code, if it carries a label. Nobody looks
    /// for a label while [`Kernel::label_guard`] is off.
    pub guard: Option<Guard>,
}

/// What to do about tables that reach into the sectors of a component's label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LabelGuard {
    /// Nothing.
    Off,
    /// Accept them with a message, and refuse writes to the label.
    Writes,
    /// Refuse them.
    Tables,
}

/// A lock that owns its data.
pub trait Mutex<T>: Send + Sync {
    /// What holds it; dropping it lets go.
    type Guard<'a>: DerefMut<Target = T>
    where
        Self: 'a;

    /// A new one.
    fn new(data: T) -> Self;

    /// Takes it, sleeping until it is free.
    fn lock(&self) -> Self::Guard<'_>;
}

/// Something to sleep on.
pub trait Condvar<K: Kernel>: Send + Sync {
    /// A new one; `name` is what ps(1) shows of a sleeper, 8 bytes at most.
    fn new(name: &'static core::ffi::CStr) -> Self;

    /// Lets go of `guard`'s mutex, sleeps until woken, and takes it again.
    fn wait<T: Send>(&self, guard: &mut <K::Mutex<T> as Mutex<T>>::Guard<'_>);

    /// The same, but a signal ends the sleep too.
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

/// A device as the system sees it: a disk(9) with I/O going through it. The caller serialises
/// [`Unit::quiesce`], [`Unit::set_table`], [`Unit::release`], [`Unit::tell`] and [`Unit::detach`].
pub trait Unit<K: Kernel> {
    /// A file system that is mounted on the device and begins nothing new until the value is dropped, by the
    /// thread that has it. It is kept for a moment only, in which nobody waits for anything but I/O.
    type Suspended;

    /// Has the file system that is mounted on the device write all that it has, and begin nothing new. `None` if
    /// there is none, it cannot do this, or it could not write because this device or one below it is suspended.
    /// I/O is not held by the caller, who has no lock.
    ///
    /// # Errors
    /// EINTR, or ERESTART as the kernel has it, when a signal came first.
    fn suspend_file_system(&self) -> Result<Option<Self::Suspended>, Errno>;

    /// Holds I/O that comes from now on, and waits until none is in flight.
    ///
    /// # Errors
    /// EINTR when a signal came first: nothing is held then, as before.
    fn quiesce(&self) -> Result<(), Errno>;

    /// Lets I/O go again, the held first and in its order.
    fn release(&self);

    /// Changes the table, while I/O is held and none is in flight, and returns the old one. It
    /// waits for no memory. [`Unit::tell`] follows when I/O goes again.
    fn set_table(&self, table: Arc<LiveTable<K>>, read_only: bool) -> Option<Arc<LiveTable<K>>>;

    /// Tells the system the size of a table that has become active. It may wait for memory, so I/O
    /// is not held now.
    fn tell(&self, table: &LiveTable<K>);

    /// Gives the disk a geometry of the caller's. It may wait for memory.
    fn set_geometry(&self, geometry: Geometry);

    /// How many device nodes (block, character) are open.
    fn open_count(&self) -> u32;

    /// Refuses opens from now on.
    ///
    /// # Errors
    /// EBUSY when it is open and `force` is not set: nothing has changed then.
    fn begin_detach(&self, force: bool) -> Result<(), Errno>;

    /// Fails all I/O, held and to come, with ENXIO, waits for what is in flight, and gives back
    /// the table. After [`Unit::begin_detach`].
    fn kill(&self) -> Option<Arc<LiveTable<K>>>;

    /// Takes the device from the system. After [`Unit::kill`].
    ///
    /// # Errors
    /// What autoconf(9) says.
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
    /// The sector that the device starts at, on the disk that it plays.
    pub start: Sector,
}
