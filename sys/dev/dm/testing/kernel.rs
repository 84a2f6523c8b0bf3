// SPDX-License-Identifier: BSD-2-Clause

//! A fake kernel: disks with a name, a number and a size, and no data.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, DerefMut};
use std::sync::PoisonError;

use super::aes;
use super::hash;
use super::host::FakeHost;
use super::thread;
use super::unit::FakeUnit;
use crate::aes::Aes;
use crate::clock::Clock;
use crate::guard::GuardedSectors;
use crate::hash::Hash;
use crate::host::{Host, Plan, Ready};
use crate::kernel::{Answer, Condvar, Kernel, LabelGuard, Mutex};
use crate::pdev::Pdev;
use crate::table::Component;
use crate::{Dev, Errno, Minor, Sector};

/// The major number of the driver's own block devices, which is NetBSD's.
pub const BLOCK_MAJOR: u32 = 169;

/// A block device, as a test describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// The disk's device number.
    pub dev: Dev,
    /// The disk's size.
    pub size: Sector,
    /// Bytes in one of the disk's sectors.
    pub sector_size: u32,
    /// `true` if the disk takes writes.
    pub writable: bool,
    /// The sectors of the disk's label, which are guarded.
    pub guard: Option<GuardedSectors>,
}

impl Disk {
    /// A disk of 512-byte sectors that takes writes.
    ///
    /// # Panics
    /// When there is no such device number.
    pub fn new(major: u32, minor: u32, sectors: u64) -> Disk {
        let dev = Dev::new(major, minor).expect("a device number");
        Disk { dev, size: Sector(sectors), sector_size: 512, writable: true, guard: None }
    }
}

impl Component for Disk {
    fn dev(&self) -> Dev {
        self.dev
    }

    fn size(&self) -> Sector {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn writable(&self) -> bool {
        self.writable
    }

    fn guard(&self) -> Option<GuardedSectors> {
        self.guard
    }
}

/// The fake kernel's state: disks, openings, and the calls that are to fail.
#[derive(Default)]
pub(super) struct World {
    disks: BTreeMap<Dev, Disk>,
    paths: BTreeMap<String, Result<Dev, Errno>>,
    /// The number of openings of each device, revoked ones too.
    open: BTreeMap<Dev, usize>,
    /// Devices with an opening that was not revoked: each has one at most.
    live: BTreeSet<Dev>,
    /// The number of times that each disk was revoked.
    revoked: BTreeMap<Dev, usize>,
    elsewhere: BTreeSet<Dev>,
    fail_open: BTreeMap<Dev, Errno>,
    fail_attach: Option<Errno>,
    thread_bytes: usize,
    fail_requests: bool,
    pub(super) fail_quiesce: Option<Errno>,
    pub(super) fail_detach: Option<Errno>,
    pub(super) units: BTreeMap<Minor, FakeUnit>,
    opens: usize,
    said: Vec<String>,
    seconds: u32,
    process: u64,
    unprivileged: bool,
    lacks_aes: bool,
    legacy_errors: bool,
    label_guard: Option<LabelGuard>,
    last_close: Option<LastClose>,
}

type LastClose = Arc<dyn Fn(Minor) + Send + Sync>;

/// A fake kernel, by reference: a clone is the same kernel.
#[derive(Clone, Default)]
pub struct Fake(Arc<std::sync::Mutex<World>>);

impl Fake {
    /// A kernel without disks, where everything is allowed.
    pub fn new() -> Fake {
        Fake::default()
    }

    pub(super) fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches a disk under a path.
    pub fn disk(&self, path: &str, disk: Disk) -> &Self {
        let mut world = self.world();
        world.paths.insert(path.to_owned(), Ok(disk.dev));
        world.disks.insert(disk.dev, disk);
        drop(world);
        self
    }

    /// Makes a path that leads to a device number, or fails.
    pub fn path(&self, path: &str, found: Result<Dev, Errno>) -> &Self {
        self.world().paths.insert(path.to_owned(), found);
        self
    }

    /// Removes a path.
    pub fn unlink(&self, path: &str) {
        self.world().paths.remove(path);
    }

    /// Revokes all openings of a disk, as a forced detach does. The disk is there again at once,
    /// under its number and its path.
    pub fn revoke(&self, dev: Dev) {
        let mut world = self.world();
        if world.live.remove(&dev) {
            *world.revoked.entry(dev).or_default() += 1;
        }
    }

    /// Has another user of the kernel open a device, or close it: a block device can be open only
    /// once.
    pub fn open_elsewhere(&self, dev: Dev, open: bool) {
        match open {
            true => self.world().elsewhere.insert(dev),
            false => self.world().elsewhere.remove(&dev),
        };
    }

    /// Has every open of a device fail with `errno`, or with `None` succeed again.
    pub fn fail_open(&self, dev: Dev, errno: Option<Errno>) {
        match errno {
            Some(errno) => self.world().fail_open.insert(dev, errno),
            None => self.world().fail_open.remove(&dev),
        };
    }

    /// Has requests of lanes fail with EIO from now on.
    pub fn fail_requests(&self) {
        self.world().fail_requests = true;
    }

    pub(super) fn fails_requests(&self) -> bool {
        self.world().fail_requests
    }

    /// Sets the bytes that each thread of a table is charged with; 0 at first.
    pub fn set_thread_bytes(&self, bytes: usize) {
        self.world().thread_bytes = bytes;
    }

    /// Has attaching a device fail with `errno`, or with `None` succeed again.
    pub fn fail_attach(&self, errno: Option<Errno>) {
        self.world().fail_attach = errno;
    }

    /// Has waiting for I/O fail with `errno`, or with `None` succeed again.
    pub fn fail_quiesce(&self, errno: Option<Errno>) {
        self.world().fail_quiesce = errno;
    }

    /// Has autoconf(9) refuse to detach a device, or allow it again.
    pub fn fail_detach(&self, errno: Option<Errno>) {
        self.world().fail_detach = errno;
    }

    /// Grants KAUTH_SYSTEM_DEVMAPPER to who asks, or denies it.
    pub fn privileged(&self, privileged: bool) {
        self.world().unprivileged = !privileged;
    }

    /// Has the kernel lack AES.
    pub fn without_aes(&self) {
        self.world().lacks_aes = true;
    }

    /// Sets sysctl hw.dm.legacy_errors.
    pub fn set_legacy_errors(&self, legacy: bool) {
        self.world().legacy_errors = legacy;
    }

    /// Has requests come from process number `process` from now on; at first they come from 0.
    pub fn become_process(&self, process: u64) {
        self.world().process = process;
    }

    /// Advances the clock by a second.
    pub fn pass_second(&self) {
        self.world().seconds += 1;
    }

    /// Sets sysctl hw.dm.label_guard.
    pub fn set_label_guard(&self, guard: LabelGuard) {
        self.world().label_guard = Some(guard);
    }

    /// Sets the function that is called when the last open node of a device was closed: the
    /// driver's.
    pub fn on_last_close(&self, call: impl Fn(Minor) + Send + Sync + 'static) {
        self.world().last_close = Some(Arc::new(call));
    }

    /// The disks and devices that the driver has open.
    pub fn open_now(&self) -> Vec<Dev> {
        self.world().open.keys().copied().collect()
    }

    /// The number of opens so far, failed ones included.
    pub fn opens(&self) -> usize {
        self.world().opens
    }

    /// The messages that the driver has sent to the console.
    pub fn said(&self) -> Vec<String> {
        self.world().said.clone()
    }

    /// The unit with this minor, while it is attached.
    pub fn unit(&self, minor: u32) -> Option<FakeUnit> {
        self.world().units.get(&Minor::new(u64::from(minor))?).cloned()
    }

    /// All attached units.
    pub fn units(&self) -> Vec<FakeUnit> {
        self.world().units.values().cloned().collect()
    }

    pub(super) fn last_close(&self, minor: Minor) {
        let call = self.world().last_close.clone();
        if let Some(call) = call {
            call(minor);
        }
    }
}

impl Kernel for Fake {
    type Mutex<T: Send> = FakeMutex<T>;
    type Condvar = FakeCondvar;
    type Disk = OpenDisk;
    type Handle = ();
    type Unit = FakeUnit;
    type Frugal = ();

    fn handle(_: &OpenDisk) {}

    fn find(&self, path: &str) -> Result<Dev, Errno> {
        self.world().paths.get(path).copied().unwrap_or(Err(Errno::ENOENT))
    }

    fn open(&self, dev: Dev) -> Result<OpenDisk, Errno> {
        let mut world = self.world();
        world.opens += 1;
        if let Some(errno) = world.fail_open.get(&dev) {
            return Err(*errno);
        }
        let mut unit = None;
        match world.disks.get(&dev) {
            Some(_) => {}
            None if dev.major() == BLOCK_MAJOR => {
                let minor = Minor::new(u64::from(dev.minor())).ok_or(Errno::ENXIO)?;
                let own = world.units.get(&minor).ok_or(Errno::ENXIO)?.clone();
                own.as_disk(dev)?;
                unit = Some(own);
            }
            None => return Err(Errno::ENXIO),
        }
        if world.elsewhere.contains(&dev) || !world.live.insert(dev) {
            return Err(Errno::EBUSY);
        }
        let revoked = world.revoked.get(&dev).copied().unwrap_or(0);
        drop(world);
        if let Some(unit) = &unit
            && let Err(errno) = unit.open_node()
        {
            self.world().live.remove(&dev);
            return Err(errno);
        }
        *self.world().open.entry(dev).or_default() += 1;
        Ok(OpenDisk { dev, unit, kernel: self.clone(), revoked })
    }

    fn ask(&self, disk: &OpenDisk) -> Result<Answer, Errno> {
        let now = match &disk.unit {
            Some(unit) => unit.as_disk(disk.dev)?,
            None => self.world().disks.get(&disk.dev).cloned().ok_or(Errno::ENXIO)?,
        };
        let guard = now.guard.filter(|_| self.label_guard() != LabelGuard::Off);
        let Disk { size, sector_size, writable, .. } = now;
        Ok(Answer { size, sector_size, writable, guard })
    }

    fn is_gone(&self, disk: &OpenDisk) -> bool {
        disk.is_gone(&self.world())
    }

    const NESTED: usize = 400;

    fn thread_bytes(&self) -> usize {
        self.world().thread_bytes
    }

    fn host(
        &self,
        _: Minor,
        plan: &Plan,
        ready: Arc<Ready>,
        components: &[Pdev<Fake>],
    ) -> Result<Arc<dyn Host>, Errno> {
        Ok(FakeHost::new(self.clone(), plan, ready, components))
    }

    fn attach(&self, minor: Minor) -> Result<FakeUnit, Errno> {
        let mut world = self.world();
        if let Some(errno) = world.fail_attach {
            return Err(errno);
        }
        let unit = FakeUnit::new(minor, self.clone());
        let before = world.units.insert(minor, unit.clone());
        assert!(before.is_none(), "minor {minor} was attached twice");
        Ok(unit)
    }

    fn block_major(&self) -> u32 {
        BLOCK_MAJOR
    }

    fn authorize(&self) -> Result<(), Errno> {
        if self.world().unprivileged { Err(Errno::EPERM) } else { Ok(()) }
    }

    fn process(&self) -> u64 {
        self.world().process
    }

    fn legacy_errors(&self) -> bool {
        self.world().legacy_errors
    }

    fn label_guard(&self) -> LabelGuard {
        self.world().label_guard.unwrap_or(LabelGuard::Off)
    }

    fn frugal(&self) {}

    fn seconds(&self) -> u32 {
        self.world().seconds
    }

    fn clock(&self) -> Clock {
        let kernel = self.clone();
        Clock::new(move || kernel.world().seconds)
    }

    fn hash(&self, name: &str) -> Option<&'static dyn Hash> {
        hash::find(name)
    }

    fn aes(&self) -> Option<&'static dyn Aes> {
        let lacks = self.world().lacks_aes;
        (!lacks).then_some(&aes::RUST)
    }

    fn cpus(&self) -> usize {
        2
    }

    fn say(&self, what: fmt::Arguments<'_>) {
        self.world().said.push(format!("{what}"));
    }
}

/// An open disk, or an open device of the driver's own.
pub struct OpenDisk {
    dev: Dev,
    unit: Option<FakeUnit>,
    kernel: Fake,
    /// The number of times that the disk had been revoked when it was opened.
    revoked: usize,
}

impl OpenDisk {
    fn is_gone(&self, world: &World) -> bool {
        world.revoked.get(&self.dev).copied().unwrap_or(0) != self.revoked
    }
}

impl Drop for OpenDisk {
    fn drop(&mut self) {
        let mut world = self.kernel.world();
        let count = world.open.remove(&self.dev).unwrap_or(0);
        if count > 1 {
            world.open.insert(self.dev, count - 1);
        }
        let was_open = count > 0 && (self.is_gone(&world) || world.live.remove(&self.dev));
        drop(world);
        if let Some(unit) = &self.unit {
            unit.close_node();
        }
        // A second panic while a thread unwinds would abort the process without a message.
        assert!(was_open || std::thread::panicking(), "{} was closed twice", self.dev);
    }
}

/// A mutex(9) of the fake kernel.
pub struct FakeMutex<T>(std::sync::Mutex<T>);

/// The guard of a [`FakeMutex`]. `None` only while its holder sleeps on a [`FakeCondvar`].
pub struct FakeGuard<'a, T>(Option<std::sync::MutexGuard<'a, T>>);

impl<T: Send> Mutex<T> for FakeMutex<T> {
    type Guard<'a>
        = FakeGuard<'a, T>
    where
        T: 'a;

    fn new(data: T) -> Self {
        FakeMutex(std::sync::Mutex::new(data))
    }

    fn lock(&self) -> FakeGuard<'_, T> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        thread::locks();
        FakeGuard(Some(guard))
    }
}

impl<T> Drop for FakeGuard<'_, T> {
    fn drop(&mut self) {
        drop(self.0.take());
        thread::unlocks();
    }
}

impl<T> Deref for FakeGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().expect("a held lock")
    }
}

impl<T> DerefMut for FakeGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_deref_mut().expect("a held lock")
    }
}

/// A condvar(9) of the fake kernel.
pub struct FakeCondvar(Arc<std::sync::Condvar>);

impl FakeCondvar {
    fn sleep<T>(&self, guard: &mut FakeGuard<'_, T>) {
        thread::falls_asleep(&self.0);
        let held = guard.0.take().expect("a held lock");
        guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
        thread::wakes();
    }
}

impl Condvar<Fake> for FakeCondvar {
    fn new(name: &'static core::ffi::CStr) -> Self {
        assert!(name.to_bytes().len() <= 8, "ps(1) shows 8 bytes");
        FakeCondvar(Arc::default())
    }

    fn wait<T: Send>(&self, guard: &mut FakeGuard<'_, T>) {
        self.sleep(guard);
    }

    fn wait_sig<T: Send>(&self, guard: &mut FakeGuard<'_, T>) -> Result<(), Errno> {
        if thread::take_signal() {
            return Err(Errno::EINTR);
        }
        self.sleep(guard);
        if thread::take_signal() { Err(Errno::EINTR) } else { Ok(()) }
    }

    fn broadcast(&self) {
        self.0.notify_all();
    }
}

/// A driver on a fake kernel that is told of its devices' last closes.
pub fn driver(kernel: Fake) -> Arc<crate::device::Driver<Fake>> {
    let driver = Arc::new(crate::device::Driver::new(kernel.clone()));
    let weak = Arc::downgrade(&driver);
    let call: Box<dyn Fn(Minor) + Send + Sync> = Box::new(move |minor| {
        if let Some(driver) = weak.upgrade() {
            driver.last_close(minor);
        }
    });
    kernel.on_last_close(call);
    driver
}
