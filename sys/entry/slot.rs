// SPDX-License-Identifier: BSD-2-Clause

//! Slots: the part of a device that the I/O path uses, found by the minor number without a lock.
//!
//! A slot is freed when the driver is unloaded and not before (`&'static Slot` means as long as that): an
//! I/O that has just left a removed device's gate may still look at it. A removed device's slot serves
//! another device later; an I/O for the old one that enters it then finds another minor in it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::mem::ManuallyDrop;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use dm_core::Errno;
use dm_core::kernel::LiveTable;
use dm_core::pdev::Pdev;
use dm_core::units::{Dev, Minor};

use super::io::iogate::IoGate;
use super::io::reserve::Reserve;
use super::io::{Door, Pass};
use super::job::TableIo;
use super::kernel::NetBsd;
use super::pieces::{Child, Halted, Idle, Spare, Split};
use super::stats::{Folded, Tallies};
use crate::netbsd::buf::IoQueue;
use crate::netbsd::condvar::Condvar;
use crate::netbsd::disk::Disk;
use crate::netbsd::fixed::Fixed;
use crate::netbsd::mutex::{Mutex, SpinMutex};
use crate::netbsd::{cpu, sys};

/// The most counts that a gate has: one for each CPU up to this many.
pub const CELLS: usize = 8;

/// The value behind a device's gate. It does not change while an I/O is inside.
pub struct Current {
    /// The active table; without one, I/O fails with ENXIO.
    pub table: Option<Arc<LiveTable<NetBsd>>>,
    /// `true` if writes fail with EROFS.
    pub read_only: bool,
    /// The table's jobs and lanes, if targets of it serve I/O themselves.
    pub(crate) host: Option<Arc<TableIo>>,
}

impl Current {
    /// No table.
    pub(crate) const NOTHING: Current = Current { table: None, read_only: false, host: None };
}

/// The part of a slot that each CPU has apart, beside its count in the gate. All of it is atomic: a thread
/// may go on using that of the CPU that it was on.
#[derive(Default)]
#[repr(C)]
pub struct Local {
    /// A child for the next I/O.
    pub(crate) child: Spare<Child>,
    /// A split for the next I/O in several pieces.
    pub(crate) split: Spare<Split>,
    /// What this CPU has counted for statistics.
    pub(crate) tallies: Tallies,
}

/// The part of a device that the I/O path uses.
///
/// Fields are marked by what protects them: (a) atomic; (l) a lock of its own, in the field; (n) `node`; (-) never changes.
/// Everything may be touched by a thread or a soft interrupt, but `node`, which only threads take.
pub struct Slot {
    /// (a) dev_t, with major 0, of the device that uses the slot; 0 while the slot is free. Set before the
    /// slot is published and after it is withdrawn.
    number: AtomicU32,
    /// (l) The gate, with the active table behind it and the I/O that is held in front of it.
    pub(crate) gate: DeviceGate,
    /// (l) The spare child and split, and who waits for them.
    pub(crate) reserve: SlotReserve,
    /// (l) Statistics that were added up.
    pub(crate) folded: SpinMutex<Folded>,
    /// (l) The first failure of splits in flight: see [`Split::bad`].
    pub(crate) failures: SpinMutex<()>,
    /// (l) The device's disk(9).
    node: Mutex<NodeState>,
    /// (n) [`NodeState::users`] has become 0.
    unused: Condvar,
    /// (a) DIOCWLABEL: `true` while the label sectors of components may be written.
    pub(crate) label_writable: AtomicBool,
    /// (a) I/Os that are left to searches for the device's label. Two searches at a time share the count,
    /// so that one may end early, and none goes on without an end.
    pub(crate) label_search: AtomicU32,
    /// (a) Writes that had been counted when the components' caches were last flushed at a close.
    flushed: AtomicUsize,
    /// (a) Completions of lanes' and forwarded jobs' buffers that have not returned yet. A table's memory
    /// stays while this is not 0.
    pub(crate) completing: AtomicUsize,
    /// (a) The minor of the device, this one or one below, that has turned an I/O of a search for the label
    /// away because it is suspended; 0 for none.
    pub(crate) label_turned_away: AtomicU32,
    /// (-) Filled in before config_attach_pseudo(9).
    cfdata: CfData,
}

/// A device's gate.
pub(crate) type DeviceGate = IoGate<Current, Local, IoQueue, CELLS>;

/// A device's cfdata, of which autoconf(9) keeps the address.
struct CfData(UnsafeCell<sys::cfdata>);

// SAFETY: its pointers are to constants of the shim's.
unsafe impl Send for CfData {}
// SAFETY: it is written only by whoever attaches the slot's device, before anybody can find the
// slot, and read by autoconf(9) as long as the device is there.
unsafe impl Sync for CfData {}

/// A device's reserve for when the pools are empty. Each device has its own, since the I/O of a stacked
/// device needs one on every layer.
pub(crate) type SlotReserve = Reserve<Idle<Child>, Idle<Split>, IoQueue, Halted>;

/// A device's disk(9) and who uses it. All fields: under [`Slot::node`].
#[derive(Default)]
struct NodeState {
    /// The device's disk(9), while it is attached. [`Folded::disk`] is the other reference to it;
    /// [`Slot::take_disk`] drops both, outside the locks, which detaches it.
    disk: Option<Arc<Disk>>,
    /// `true` if opens are refused: the device is being removed, or is gone.
    closing: bool,
    /// [`DiskUse`]s: ioctls, closes, and updates of the disk's size and geometry.
    users: usize,
}

const CHUNK: usize = 256;

/// The slots of all devices, by minor.
pub struct Slots {
    /// By the minor's upper and lower half. Published with a release store, found with an acquire load; a
    /// chunk stays until [`Slots::clear`].
    chunks: [AtomicPtr<Chunk>; CHUNK],
    /// Slots that serve no device.
    free: Mutex<Vec<&'static Slot>>,
    /// Every slot, until [`Slots::clear`].
    all: Mutex<Vec<Fixed<Slot>>>,
}

type Chunk = [AtomicPtr<Slot>; CHUNK];

const _: () = assert!(CHUNK * CHUNK > Minor::MAX.get() as usize);

impl Slots {
    pub(crate) fn new() -> Slots {
        let chunks = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNK];
        Slots { chunks, free: Mutex::new(Vec::new()), all: Mutex::new(Vec::new()) }
    }

    /// The slot of a minor number, if a device has it.
    #[inline]
    pub fn get(&self, minor: u32) -> Option<&'static Slot> {
        let (chunk, at) = (minor as usize / CHUNK, minor as usize % CHUNK);
        // SAFETY: chunks and slots are published after they are made, and not freed while the
        // driver is there.
        unsafe {
            let chunk = self.chunks.get(chunk)?.load(Ordering::Acquire).as_ref()?;
            chunk.get(at)?.load(Ordering::Acquire).as_ref()
        }
    }

    /// A slot for a new device, which nobody can find yet.
    pub(crate) fn take(&self, minor: Minor) -> &'static Slot {
        let recycled = self.free.lock().pop();
        let slot = recycled.unwrap_or_else(|| self.make());
        slot.gate.reopen();
        slot.label_writable.store(false, Ordering::Relaxed);
        slot.set_minor(minor.get());
        slot
    }

    /// Makes one more slot.
    fn make(&self) -> &'static Slot {
        let slot = Fixed::new(Slot::new());
        // SAFETY: it is not freed while the driver is there, and nothing but references that are
        // shared is made to it meanwhile.
        let made = unsafe { &*slot.get() };
        self.all.lock().push(slot);
        made
    }

    /// Lets a slot be found.
    pub(crate) fn publish(&self, minor: Minor, slot: &'static Slot) {
        self.set(minor, ptr::from_ref(slot).cast_mut());
    }

    /// Lets no slot be found under a minor any more. Who has found one may go on using it.
    pub(crate) fn withdraw(&self, minor: Minor) {
        self.set(minor, ptr::null_mut());
    }

    fn set(&self, minor: Minor, slot: *mut Slot) {
        let (chunk, at) = (minor.get() as usize / CHUNK, minor.get() as usize % CHUNK);
        let Some(place) = self.chunks.get(chunk) else { return };
        // No lock is held here: two threads that make devices may race to make this chunk.
        if place.load(Ordering::Acquire).is_null() {
            let new: Box<Chunk> = Box::new([const { AtomicPtr::new(ptr::null_mut()) }; CHUNK]);
            let new = Box::into_raw(new);
            let null = ptr::null_mut();
            if place.compare_exchange(null, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
                // SAFETY: nobody has seen it.
                drop(unsafe { Box::from_raw(new) });
            }
        }
        // SAFETY: published above or before, and not freed while the driver is there.
        if let Some(chunk) = unsafe { place.load(Ordering::Acquire).as_ref() }
            && let Some(place) = chunk.get(at)
        {
            place.store(slot, Ordering::Release);
        }
    }

    /// Takes back the slot of a device that is gone, for another one.
    pub(crate) fn give_back(&self, slot: &'static Slot) {
        slot.set_minor(0);
        self.free.lock().push(slot);
    }

    /// Frees every slot. Their reserves go back to the driver's pools, which are still there.
    ///
    /// # Safety
    /// The driver ends: nobody has a slot, or looks for one, from here on.
    pub(crate) unsafe fn clear(&self) {
        for chunk in &self.chunks {
            let chunk = chunk.swap(ptr::null_mut(), Ordering::AcqRel);
            if !chunk.is_null() {
                // SAFETY: `publish` made it, and nobody looks there any more (caller).
                drop(unsafe { Box::from_raw(chunk) });
            }
        }
        let free = core::mem::take(&mut *self.free.lock());
        let all = core::mem::take(&mut *self.all.lock());
        drop((free, all));
    }

    /// Every slot that serves a device.
    pub(crate) fn each(&self, mut f: impl FnMut(&'static Slot)) {
        for chunk in &self.chunks {
            // SAFETY: as for `get`.
            let Some(chunk) = (unsafe { chunk.load(Ordering::Acquire).as_ref() }) else { continue };
            for slot in chunk {
                // SAFETY: as for `get`.
                if let Some(slot) = unsafe { slot.load(Ordering::Acquire).as_ref() } {
                    f(slot);
                }
            }
        }
    }
}

impl Slot {
    fn new() -> Slot {
        let reserve = Reserve::new(
            super::global().map(|g| Idle(g.children.get_sleeping())),
            super::global().map(|g| Idle(g.splits.get_sleeping())),
        );
        Slot {
            number: AtomicU32::new(0),
            gate: IoGate::new(Current::NOTHING, cpu::count(), c"dmgate"),
            reserve,
            folded: SpinMutex::new(Folded::default()),
            failures: SpinMutex::new(()),
            node: Mutex::new(NodeState::default()),
            unused: Condvar::new(c"dmnode"),
            label_writable: AtomicBool::new(false),
            label_search: AtomicU32::new(0),
            flushed: AtomicUsize::new(0),
            completing: AtomicUsize::new(0),
            label_turned_away: AtomicU32::new(0),
            // SAFETY: plain memory that the shim fills before autoconf(9) sees it.
            cfdata: CfData(UnsafeCell::new(unsafe { core::mem::zeroed() })),
        }
    }

    /// The minor of the device that uses the slot; 0 for none.
    pub fn minor(&self) -> u32 {
        Dev(self.number.load(Ordering::Acquire).into()).minor()
    }

    fn set_minor(&self, minor: u32) {
        let number = Dev::new(0, minor).map_or(0, |dev| dev.0 as u32);
        self.number.store(number, Ordering::Release);
    }

    /// `true` if `dev` is, whatever its major, the device that uses the slot.
    #[inline]
    pub(crate) fn serves(&self, dev: Dev) -> bool {
        dev.same_minor(Dev(self.number.load(Ordering::Acquire).into()))
    }

    /// The device's cfdata, which lives longer than the device.
    pub(crate) fn cfdata(&self) -> *mut sys::cfdata {
        self.cfdata.0.get()
    }

    /// The block device number of the device that uses the slot.
    pub(crate) fn dev(&self) -> Dev {
        // SAFETY: looks the driver's own table up.
        let major = u32::try_from(unsafe { sys::dm_shim_bmajor() }).unwrap_or(0);
        Dev::new(major, self.minor()).unwrap_or(Dev(0))
    }

    /// Leaves the gate. Context: thread or soft interrupt, on any CPU; no lock of the driver's held.
    ///
    /// # Safety
    /// The pass is of this slot's gate.
    #[inline]
    pub(crate) unsafe fn leave(&self, pass: Pass<'_, Local>) {
        // SAFETY: the pass is of this gate (caller).
        unsafe { self.gate.leave(pass) };
    }

    /// Enters the gate, and sleeps while it is held. Context: a thread that holds no lock and is inside no
    /// gate.
    ///
    /// # Errors
    /// ENXIO if the device goes, EINTR.
    pub(crate) fn enter_sleeping(&self) -> Result<Inside<'_>, Errno> {
        loop {
            if let Some(pass) = self.gate.enter(cpu::current()) {
                return Ok(Inside {
                    slot: self,
                    pass: ManuallyDrop::new(pass),
                    _frugal: cpu::Frugal::new(),
                });
            }
            if self.gate.wait()? == Door::Dead {
                return Err(Errno::ENXIO);
            }
        }
    }

    /// Looks behind the gate without waiting; `None` while it is shut. Context: thread or soft interrupt;
    /// `f` does not sleep.
    pub(crate) fn peek<R>(&self, f: impl FnOnce(&Current) -> R) -> Option<R> {
        let pass = self.gate.enter(cpu::current())?;
        // SAFETY: the pass is from the line above.
        let result = f(unsafe { self.gate.value(&pass) });
        // SAFETY: as above.
        unsafe { self.leave(pass) };
        Some(result)
    }

    /// `true` if I/O of this device, or of one of ours below it, is being held. Context: thread.
    pub(crate) fn is_held(&self) -> bool {
        let Some(table) = self.peek(|current| current.table.clone()) else { return true };
        let disks = table.iter().flat_map(|table| table.components()).filter_map(Pdev::disk);
        let below = |dev: Dev| super::global().and_then(|global| global.slots.get(dev.minor()));
        let mut own =
            disks.map(|disk| disk.device().dev()).filter(|dev| dev.major() == self.dev().major());
        own.any(|dev| below(dev).is_some_and(Slot::is_held))
    }

    /// Flushes the caches of the components if anything was written since this was last done, as wd(4) and
    /// sd(4) do with their own at the last close. A device that is read-only or suspended is left alone, and
    /// nothing waits for one below that is; what fails is not reported, as a close cannot fail. Targets are
    /// not asked: what they have acknowledged lies on the components. `false` if there is something left to
    /// flush. Context: a thread (d_close) that holds no lock; sleeps for the components' I/O.
    pub(crate) fn flush_after_close(&self) -> bool {
        let written = self.written();
        if written == self.flushed.load(Ordering::Relaxed) {
            return true;
        }
        let look = |current: &Current| current.table.clone().filter(|_| !current.read_only);
        // The table, which keeps its components open, is taken along: a thread inside must not wait.
        let Some(Some(table)) = self.peek(look) else { return false };
        let mut done = true;
        for disk in table.components().iter().filter_map(Pdev::disk) {
            let device = disk.device();
            let own = super::global().filter(|_| device.dev().major() == self.dev().major());
            match own.map(|global| global.slots.get(device.dev().minor())) {
                Some(below) => done &= below.is_some_and(Slot::flush_after_close),
                None => done &= device.flush(0).is_ok(),
            }
        }
        if done {
            self.flushed.store(written, Ordering::Relaxed);
        }
        done
    }

    /// Attaches the device's disk. Context: a thread that makes a device.
    pub(crate) fn set_disk(&self, disk: Disk) {
        let disk = Arc::new(disk);
        self.folded.lock().disk = Some(disk.clone());
        self.flushed.store(self.written(), Ordering::Relaxed);
        let mut node = self.node.lock();
        node.disk = Some(disk);
        node.closing = false;
    }

    /// Detaches the disk, when no [`DiskUse`] is left. Context: a thread that removes the device, which has
    /// no `DiskUse` itself; sleeps, deaf to signals. The device's I/O is over.
    pub(crate) fn take_disk(&self) {
        let mut node = self.node.lock();
        node.closing = true;
        while node.users > 0 {
            self.unused.wait(&mut node);
        }
        let disk = node.disk.take();
        drop(node);
        // What was counted for this device is not the next one's.
        self.fold();
        let mut folded = self.folded.lock();
        let old = core::mem::replace(&mut *folded, Folded::starting_from(self.tallies()));
        drop(folded);
        // The I/O is over, but an I/O that was turned away, or is just leaving, raises the gate's count for
        // a moment, and a fold may have taken that for I/O in flight; disk_detach(9) wants none.
        if let Some(disk) = &old.disk {
            disk.rest();
        }
        drop((old, disk));
    }

    /// References the disk(9), if one is attached. It still is after [`Slot::refuse_opens`]: closes that come
    /// of a forced detach need it. Context: thread; takes `node`.
    pub(crate) fn disk(&self) -> Option<DiskUse<'_>> {
        let mut node = self.node.lock();
        let disk = node.disk.clone()?;
        node.users = node.users.saturating_add(1);
        Some(DiskUse { slot: self, disk: ManuallyDrop::new(disk) })
    }

    /// Runs `f` on the disk unless opens are refused, with no open, close or removal in between. Context:
    /// thread (d_open); takes `node`, and `f` the disk's dk_openlock.
    ///
    /// # Errors
    /// ENXIO when they are, or what `f` says.
    pub(crate) fn open_with(
        &self,
        f: impl FnOnce(&Disk) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let node = self.node.lock();
        match &node.disk {
            Some(disk) if !node.closing => f(disk),
            _ => Err(Errno::ENXIO),
        }
    }

    /// Refuses opens from now on, unless a node is open. Context: thread; takes `node` and the disk's
    /// dk_openlock.
    ///
    /// # Errors
    /// EBUSY when one is and `force` is not set.
    pub(crate) fn refuse_opens(&self, force: bool) -> Result<(), Errno> {
        let mut node = self.node.lock();
        if !force && node.disk.as_ref().is_some_and(|disk| disk.open_count() > 0) {
            return Err(Errno::EBUSY);
        }
        node.closing = true;
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(global) = super::global() else { return };
        // SAFETY: both came from these caches, and no I/O is left that could have them.
        unsafe {
            if let Some(Idle(child)) = self.reserve.take_child() {
                global.children.put(child);
            }
            if let Some(Idle(split)) = self.reserve.take_split() {
                global.splits.put(split);
            }
        }
    }
}

/// A [`Pass`] of a thread that does not hand it on (an ioctl, a discard): it leaves when it is dropped. A
/// drain waits for it with I/O held, so that its holder does not wait for memory.
///
/// # Invariants
/// The pass is of the slot's gate. It is taken in `drop` only.
#[must_use = "dropped at once, it has left the gate again"]
pub(crate) struct Inside<'s> {
    slot: &'s Slot,
    pass: ManuallyDrop<Pass<'s, Local>>,
    _frugal: cpu::Frugal,
}

impl Inside<'_> {
    /// The value behind the gate.
    pub(crate) fn current(&self) -> &Current {
        // SAFETY: the pass is of this gate (invariant).
        unsafe { self.slot.gate.value(&self.pass) }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // SAFETY: the pass is of this slot's gate and is taken here only (invariants).
        unsafe {
            let pass = ManuallyDrop::take(&mut self.pass);
            self.slot.leave(pass);
        }
    }
}

/// A reference to a slot's disk(9), which is not detached while it lives: [`Slot::take_disk`] waits. So a
/// thread that has one must not remove the device, nor wait for one that does.
///
/// # Invariants
/// It is counted in [`NodeState::users`]. The reference is taken in `drop` only.
#[must_use = "dropped at once, the disk is not kept"]
pub(crate) struct DiskUse<'s> {
    slot: &'s Slot,
    disk: ManuallyDrop<Arc<Disk>>,
}

impl core::ops::Deref for DiskUse<'_> {
    type Target = Disk;

    fn deref(&self) -> &Disk {
        &self.disk
    }
}

impl Drop for DiskUse<'_> {
    fn drop(&mut self) {
        let mut node = self.slot.node.lock();
        // Under the lock, so that the last reference is never this one: `take_disk`, which detaches the
        // disk, has its own until the count is 0.
        // SAFETY: taken here only (invariant).
        drop(unsafe { ManuallyDrop::take(&mut self.disk) });
        assert!(node.users > 0, "dm: a disk(9) was let go too often");
        node.users = node.users.wrapping_sub(1);
        if node.users == 0 {
            self.slot.unused.broadcast();
        }
    }
}
