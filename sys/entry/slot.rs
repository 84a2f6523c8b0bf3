//! Slots: what the I/O path needs of a device, found by its minor number without a lock.
//!
//! A slot is never freed while the driver is there: an I/O that has just left a device's gate may
//! still look at it. A removed device's slot serves another device later; whoever enters it then
//! finds another minor in it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use dm_core::Errno;
use dm_core::kernel::LiveTable;
use dm_core::pdev::Pdev;
use dm_core::units::{Dev, Minor};

use super::job::TableIo;
use super::netbsd::NetBsd;
use super::pieces::{Child, Halted, Idle, Spare, Split};
use super::stats::{Folded, Tallies};
use crate::kern::buf::IoQueue;
use crate::kern::condvar::Condvar;
use crate::kern::disk::Disk;
use crate::kern::fixed::Fixed;
use crate::kern::gate::{Door, Gate, Pass};
use crate::kern::mutex::{Mutex, SpinMutex};
use crate::kern::reserve::Reserve;
use crate::kern::{cpu, sys};

/// Counts per gate: one for each CPU, up to this many.
pub const CELLS: usize = 8;

/// What I/O meets behind the gate.
pub struct Current {
    /// The active table; without one, I/O fails.
    pub table: Option<Arc<LiveTable<NetBsd>>>,
    /// Whether writes fail.
    pub read_only: bool,
    /// The table's jobs and lanes, if targets of it serve I/O themselves.
    pub(crate) host: Option<Arc<TableIo>>,
}

/// What a slot keeps for each CPU.
#[derive(Default)]
#[repr(C)]
pub struct Local {
    pub(crate) child: Spare<Child>,
    pub(crate) split: Spare<Split>,
    pub(crate) tallies: Tallies,
}

/// What of a device lives in a slot.
pub struct Slot {
    /// The low half of the number of the device it serves now, with no major; 0 for none.
    number: AtomicU32,
    pub(crate) gate: Gate<Current, Local, CELLS>,
    /// I/O that waits at the closed gate. Its lock is also that of the gate's door.
    pub(crate) held: SpinMutex<IoQueue>,
    /// The gate may be empty, or is open again, or dead.
    pub(crate) gate_moved: Condvar,
    pub(crate) reserve: SlotReserve,
    pub(crate) folded: SpinMutex<Folded>,
    node: Mutex<NodeState>,
    /// [`NodeState::users`] has become 0.
    unused: Condvar,
    /// DIOCWLABEL: whether the label sectors of components may be written.
    pub(crate) label_writable: AtomicBool,
    /// How many more I/Os a search for the device's label may take.
    pub(crate) label_search: AtomicU32,
    /// Writes that had been counted when the components' caches were last flushed at a close.
    flushed: AtomicUsize,
    /// Completions of lanes' requests that have not returned yet. A table's memory stays while it
    /// is not 0.
    pub(crate) completing: AtomicUsize,
    /// The minor of the device, this one or one below, that has turned an I/O of such a search away
    /// because it is suspended; 0 for none.
    pub(crate) label_turned_away: AtomicU32,
    cfdata: CfData,
}

/// What autoconf(9) is told of a device, in memory that autoconf(9) keeps the address of.
struct CfData(UnsafeCell<sys::cfdata>);

// SAFETY: its pointers are to constants of the shim's.
unsafe impl Send for CfData {}
// SAFETY: it is written only by whoever attaches the slot's device, before anybody can find the
// slot, and read by autoconf(9) as long as the device is there.
unsafe impl Sync for CfData {}

/// What a device keeps for when the pools are empty. Each has its own: the I/O of a stacked device
/// needs one on every layer.
pub(crate) type SlotReserve = Reserve<Idle<Child>, Idle<Split>, IoQueue, Halted>;

#[derive(Default)]
struct NodeState {
    /// The device's disk(9), while it is attached.
    disk: Option<Arc<Disk>>,
    /// Whether opens are refused.
    closing: bool,
    /// Those who use the disk now, in an ioctl.
    users: usize,
}

const CHUNK: usize = 256;

/// Minor → slot.
pub struct Slots {
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
        slot.gate.open();
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
    pub(crate) fn publish(&self, minor: Minor, slot: Option<&'static Slot>) {
        let (chunk, at) = (minor.get() as usize / CHUNK, minor.get() as usize % CHUNK);
        let Some(place) = self.chunks.get(chunk) else { return };
        // The devices' set is locked by nobody here: two may want the same new chunk.
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
            let slot = slot.map_or(ptr::null_mut(), |slot| ptr::from_ref(slot).cast_mut());
            place.store(slot, Ordering::Release);
        }
    }

    /// Takes back the slot of a device that is gone.
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
            gate: Gate::new(Current { table: None, read_only: false, host: None }, cpu::count()),
            held: SpinMutex::new(IoQueue::new()),
            gate_moved: Condvar::new(c"dmgate"),
            reserve,
            folded: SpinMutex::new(Folded::default()),
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

    /// The minor of the device it serves; 0 for none.
    pub fn minor(&self) -> u32 {
        Dev(self.number.load(Ordering::Acquire).into()).minor()
    }

    fn set_minor(&self, minor: u32) {
        let number = Dev::new(0, minor).map_or(0, |dev| dev.0 as u32);
        self.number.store(number, Ordering::Release);
    }

    /// Whether `dev` is, whatever its major, the device it serves.
    #[inline]
    pub(crate) fn serves(&self, dev: Dev) -> bool {
        dev.same_minor(Dev(self.number.load(Ordering::Acquire).into()))
    }

    /// What autoconf(9) is told of the device. It lives as long as the device, and longer.
    pub(crate) fn cfdata(&self) -> *mut sys::cfdata {
        self.cfdata.0.get()
    }

    /// The driver's block device for it.
    pub(crate) fn dev(&self) -> Dev {
        // SAFETY: looks the driver's own table up.
        let major = u32::try_from(unsafe { sys::dm_shim_bmajor() }).unwrap_or(0);
        Dev::new(major, self.minor()).unwrap_or(Dev(0))
    }

    /// Leaves the gate, and wakes whoever waits for it to be empty.
    ///
    /// # Safety
    /// The pass is of this slot's gate.
    #[inline]
    pub(crate) unsafe fn leave(&self, pass: Pass<'_, Local>) {
        // SAFETY: the caller's promise.
        if unsafe { self.gate.leave(pass) } {
            let _held = self.held.lock();
            self.gate_moved.broadcast();
        }
    }

    /// Enters the gate, and sleeps while it is held.
    ///
    /// # Errors
    /// ENXIO if the device goes, EINTR.
    pub(crate) fn enter_sleeping(&self) -> Result<Inside<'_>, Errno> {
        loop {
            if let Some(pass) = self.gate.enter(cpu::current()) {
                return Ok(Inside { slot: self, pass: Some(pass), _frugal: cpu::Frugal::new() });
            }
            let mut held = self.held.lock();
            // Entering and turning back may have hidden that the gate is empty.
            self.gate_moved.broadcast();
            while self.gate.door() == Door::Held {
                self.gate_moved.wait_sig(&mut held)?;
            }
            if self.gate.door() == Door::Dead {
                return Err(Errno::ENXIO);
            }
        }
    }

    /// Looks behind the gate without waiting; `None` while it is shut.
    pub(crate) fn peek<R>(&self, f: impl FnOnce(&Current) -> R) -> Option<R> {
        let Some(pass) = self.gate.enter(cpu::current()) else {
            let _held = self.held.lock();
            self.gate_moved.broadcast();
            return None;
        };
        // SAFETY: the pass is from above.
        let result = f(unsafe { self.gate.value(&pass) });
        // SAFETY: as above.
        unsafe { self.leave(pass) };
        Some(result)
    }

    /// `true` if I/O of this device, or of one of ours below it, is being held.
    pub(crate) fn is_held(&self) -> bool {
        let Some(table) = self.peek(|current| current.table.clone()) else { return true };
        let disks = table.iter().flat_map(|table| table.components()).filter_map(Pdev::disk);
        let below = |dev: Dev| super::global().and_then(|global| global.slots.get(dev.minor()));
        let mut own =
            disks.map(|disk| disk.device().dev()).filter(|dev| dev.major() == self.dev().major());
        own.any(|dev| below(dev).is_some_and(Slot::is_held))
    }

    /// Flushes the caches of the components, after the last close and if anything was written since
    /// this was last done, as wd(4) and sd(4) do with their own. A device that is read-only, or
    /// suspended, is left alone, and nothing waits for one below that is; what fails is not told, as a
    /// close cannot fail. Targets are not asked: what they have acknowledged lies on the components.
    /// `false` if there is something left to flush.
    pub(crate) fn flush_after_close(&self) -> bool {
        let written = self.written();
        if written == self.flushed.load(Ordering::Relaxed) {
            return true;
        }
        let look = |current: &Current| current.table.clone().filter(|_| !current.read_only);
        // Whoever is inside does not wait; the table keeps its components open.
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

    /// Attaches the device's disk.
    pub(crate) fn set_disk(&self, disk: Disk) {
        let disk = Arc::new(disk);
        self.folded.lock().disk = Some(disk.clone());
        self.flushed.store(self.written(), Ordering::Relaxed);
        let mut node = self.node.lock();
        node.disk = Some(disk);
        node.closing = false;
    }

    /// Detaches the disk, when nobody uses it any more.
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
        // Nobody else counts for it any more, but those who were turned away, or are just leaving,
        // may have been seen as I/O in flight.
        if let Some(disk) = &old.disk {
            disk.rest();
        }
        drop((old, disk));
    }

    /// Uses the disk, if there is one: a device that is going has one until nobody uses it.
    pub(crate) fn disk(&self) -> Option<DiskUse<'_>> {
        let mut node = self.node.lock();
        let disk = node.disk.clone()?;
        node.users = node.users.saturating_add(1);
        Some(DiskUse { slot: self, disk: Some(disk) })
    }

    /// Runs `f` on the disk unless opens are refused, with no open or close in between.
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

    /// Refuses opens from now on, unless a node is open.
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

/// Someone inside a gate, in one place of the code. Who shuts the gate waits for them, with I/O
/// held, so they do not wait for memory.
///
/// # Invariants
/// The pass is of the slot's gate.
pub(crate) struct Inside<'s> {
    slot: &'s Slot,
    pass: Option<Pass<'s, Local>>,
    _frugal: cpu::Frugal,
}

impl Inside<'_> {
    /// What is behind the gate.
    pub(crate) fn current(&self) -> Option<&Current> {
        // SAFETY: the pass is of this gate (invariant).
        self.pass.as_ref().map(|pass| unsafe { self.slot.gate.value(pass) })
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            // SAFETY: the pass is of this slot's gate (invariant).
            unsafe { self.slot.leave(pass) };
        }
    }
}

/// The use of a slot's disk.
pub(crate) struct DiskUse<'s> {
    slot: &'s Slot,
    disk: Option<Arc<Disk>>,
}

impl core::ops::Deref for DiskUse<'_> {
    type Target = Disk;

    fn deref(&self) -> &Disk {
        match &self.disk {
            Some(disk) => disk,
            // Empty only in `drop`.
            None => unreachable!(),
        }
    }
}

impl Drop for DiskUse<'_> {
    fn drop(&mut self) {
        let mut node = self.slot.node.lock();
        self.disk = None;
        node.users = node.users.saturating_sub(1);
        if node.users == 0 {
            self.slot.unused.broadcast();
        }
    }
}
