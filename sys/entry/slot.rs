// SPDX-License-Identifier: BSD-2-Clause

//! Slots: the part of a device that the I/O path uses. `minors.rs` finds a device's slot,
//! `slot/disk_use.rs` has the device's disk(9).
//!
//! A slot is freed when the driver is unloaded and not before (`&'static Slot` means as long as
//! that): an I/O that has just left a removed device's gate may still look at it. A removed
//! device's slot serves another device later; an I/O for the old one that enters it then finds
//! another minor in it.

use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use dm_core::Errno;
use dm_core::host::Completions;
use dm_core::kernel::LiveTable;
use dm_core::table::Component;
use dm_core::units::{Dev, Sector};

use super::io::iogate::IoGate;
use super::io::reserve::Reserve;
use super::io::{Door, Here, Pass};
use super::job::TableIo;
use super::kernel::NetBsd;
use super::pieces::{Child, CpuCache, Halted, Idle, Split};
use super::stats::{Folded, Tallies};
use crate::netbsd::buf::IoQueue;
use crate::netbsd::condvar::Condvar;
use crate::netbsd::mutex::{Mutex, SpinMutex};
use crate::netbsd::{cpu, sys};

mod disk_use;

pub(crate) use disk_use::DiskUse;
use disk_use::NodeState;

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

    /// The size of the table; `None` without one.
    pub(crate) fn size(&self) -> Option<Sector> {
        self.table.as_ref().map(|table| table.size())
    }
}

/// The part of a slot that each CPU has apart, beside its counts in the gate. A sender uses that of
/// the CPU that it sends on, a completion that of the CPU that it runs on. All of it is atomic: a
/// thread may go on using that of the CPU that it was on.
#[derive(Default)]
#[repr(C)]
pub struct Local {
    /// The CPU's cached child.
    pub(crate) child: CpuCache<Child>,
    /// The CPU's cached split.
    pub(crate) split: CpuCache<Split>,
    /// The CPU's counts for statistics.
    pub(crate) tallies: Tallies,
}

/// The part of a device that the I/O path uses.
///
/// Fields are marked by what protects them: (a) atomic; (l) a lock of its own, in the field; (n)
/// `node`; (-) never changes. Everything may be touched by a thread or a soft interrupt, but
/// `node`, which only threads take.
pub struct Slot {
    /// (a) dev_t, with major 0, of the device that uses the slot; 0 while the slot is free. Set
    /// before the slot is published and after it is withdrawn.
    number: AtomicU32,
    /// (l) The gate, with the active table behind it and the I/O that is held in front of it.
    pub(crate) gate: DeviceGate,
    /// (l) The device's child and split in reserve, and the I/O that waits for them.
    pub(crate) reserve: SlotReserve,
    /// (l) Statistics that were added up.
    pub(crate) folded: SpinMutex<Folded>,
    /// (a) `true` if the counts have changed since the callout has last looked, or will have:
    /// `stats.rs`.
    pub(super) is_due: AtomicBool,
    /// (l) Owns nothing: held to write [`Split::bad`], the failure at the lowest byte.
    pub(crate) failures: SpinMutex<()>,
    /// (l) The device's disk(9).
    node: Mutex<NodeState>,
    /// (n) [`NodeState::users`] has become 0.
    unused: Condvar,
    /// (a) DIOCWLABEL: `true` while the label sectors of components may be written.
    pub(crate) label_writable: AtomicBool,
    /// (a) I/Os that are left to searches for the device's label. Two searches at a time share the
    /// count, so that one may end early, and none goes on without an end.
    pub(crate) label_search: AtomicU32,
    /// (a) Writes that had been counted when the components' caches were last flushed at a close:
    /// of this device, or of one above, so that two threads may store at a time. Each stores the
    /// count from before its flush, so that a store that is lost costs a flush and saves none.
    flushed: AtomicUsize,
    /// (a) Contexts that are in a function of a table of the device whose last I/O may be over: the
    /// completion of a lane's or a forwarded job's buffer, a sender that has queued its split,
    /// whoever resubmits a job that was set aside. A table's memory stays until those have left
    /// that were counted in when it was to go.
    pub(crate) completing: Completions,
    /// (a) The minor of the device, this one or one below, that has last failed an I/O of a search
    /// for the label instead of letting it wait: it was suspended, or its reserve was in use.
    pub(crate) label_turned_away: AtomicU32,
    /// (a) The number of such I/Os; wraps. It is not cleared: two searches may go on at a time.
    pub(crate) label_turns: AtomicU32,
    /// (-) Filled in before config_attach_pseudo(9).
    cfdata: CfData,
}

/// A device's gate.
pub(crate) type DeviceGate = IoGate<Current, Local, IoQueue>;

/// A device's cfdata, of which autoconf(9) keeps the address.
struct CfData(UnsafeCell<sys::cfdata>);

// SAFETY: its pointers are to constants of the shim's.
unsafe impl Send for CfData {}
// SAFETY: it is written only by the thread that attaches the slot's device, before the slot is
// published, and read by autoconf(9) as long as the device is there. After ca_detach autoconf(9)
// reads one number of it, for an assertion, where the device is detached a second time: safety.md.
unsafe impl Sync for CfData {}

/// A device's reserve for when the pools are empty. Each device has its own, since the I/O of a
/// stacked device needs one on every layer.
pub(crate) type SlotReserve = Reserve<Idle<Child>, Idle<Split>, IoQueue, Halted>;

impl Slot {
    /// A slot that serves no device. Waits for memory.
    pub(super) fn new() -> Slot {
        let reserve = Reserve::new(
            super::global().map(|g| Idle(g.children.get_sleeping())),
            super::global().map(|g| Idle(g.splits.get_sleeping())),
        );
        Slot {
            number: AtomicU32::new(0),
            gate: IoGate::new(Current::NOTHING, cpu::count(), c"dmgate"),
            reserve,
            folded: SpinMutex::new(Folded::default()),
            is_due: AtomicBool::new(false),
            failures: SpinMutex::new(()),
            node: Mutex::new(NodeState::default()),
            unused: Condvar::new(c"dmnode"),
            label_writable: AtomicBool::new(false),
            label_search: AtomicU32::new(0),
            flushed: AtomicUsize::new(0),
            completing: Completions::default(),
            label_turned_away: AtomicU32::new(0),
            label_turns: AtomicU32::new(0),
            // SAFETY: plain memory that the shim fills before autoconf(9) sees it.
            cfdata: CfData(UnsafeCell::new(unsafe { core::mem::zeroed() })),
        }
    }

    /// The minor of the device that uses the slot; 0 for none.
    pub fn minor(&self) -> u32 {
        Dev(self.number.load(Ordering::Acquire).into()).minor()
    }

    /// Sets the minor of the device that the slot serves; 0 for none. Context: a thread that makes
    /// or removes the device.
    pub(super) fn set_minor(&self, minor: u32) {
        let number = Dev::new(0, minor).map_or(0, |dev| dev.0 as u32);
        self.number.store(number, Ordering::Release);
    }

    /// `true` if `dev` is, whatever its major, the device that uses the slot.
    #[inline]
    pub(crate) fn serves(&self, dev: Dev) -> bool {
        dev.same_minor(Dev(self.number.load(Ordering::Acquire).into()))
    }

    /// The device's cfdata, of which autoconf(9) keeps the address; the slot outlives the device.
    pub(crate) fn cfdata(&self) -> *mut sys::cfdata {
        self.cfdata.0.get()
    }

    /// The block device number of the device that uses the slot.
    pub(crate) fn dev(&self) -> Dev {
        // SAFETY: looks the driver's own table up.
        let major = u32::try_from(unsafe { sys::dm_shim_bmajor() }).unwrap_or(0);
        Dev::new(major, self.minor()).unwrap_or(Dev(0))
    }

    /// Leaves the gate. Context: thread or soft interrupt, on any CPU; no lock of the driver's
    /// held.
    ///
    /// # Safety
    /// The pass is of this slot's gate.
    pub(crate) unsafe fn leave(&self, pass: Pass<'_>) {
        // SAFETY: the pass is of this gate (caller).
        unsafe { self.gate.leave(pass, self.here()) };
    }

    /// The part of the slot's gate that belongs to the CPU this runs on, or ran on until now.
    #[inline]
    pub(super) fn here(&self) -> Here<'_, Local> {
        self.gate.here(cpu::current())
    }

    /// Enters the gate, and sleeps while the device is suspended, until a signal comes. Context: a
    /// thread that holds no lock and is inside no gate.
    ///
    /// # Errors
    /// ENXIO if the device goes, EINTR.
    pub(crate) fn enter_sleeping(&self) -> Result<Inside<'_>, Errno> {
        self.enter_waiting(false)
    }

    /// [`Slot::enter_sleeping`], if `deaf` without an ear for signals.
    ///
    /// # Errors
    /// ENXIO if the device goes; EINTR if not `deaf`.
    pub(crate) fn enter_waiting(&self, deaf: bool) -> Result<Inside<'_>, Errno> {
        loop {
            if let Some((pass, _)) = self.gate.enter(cpu::current()) {
                return Ok(Inside {
                    slot: self,
                    pass: ManuallyDrop::new(pass),
                    _frugal: cpu::Frugal::new(),
                });
            }
            if self.gate.wait(deaf)? == Door::Dead {
                return Err(Errno::ENXIO);
            }
        }
    }

    /// Looks behind the gate without waiting; `None` while it is shut. Context: thread or soft
    /// interrupt, or, since it takes no lock unless the gate is being shut by another CPU, a system
    /// that goes down; `f` does not sleep. A table that `f` returns a reference to may be gone from
    /// the device when that is dropped, which sleeps then: see [`Table`](dm_core::table::Table).
    pub(crate) fn peek<R>(&self, f: impl FnOnce(&Current) -> R) -> Option<R> {
        // `enter` takes a lock where the gate is shut.
        if self.gate.door() != Door::Open {
            return None;
        }
        let (pass, here) = self.gate.enter(cpu::current())?;
        // SAFETY: the pass is from the line above.
        let result = f(unsafe { self.gate.value(&pass) });
        // SAFETY: both are of this gate: it was entered above.
        unsafe { self.gate.leave(pass, here) };
        Some(result)
    }

    /// `true` if this device is suspended, or one of ours below it. Context: a thread with no lock
    /// held; sleeps where it drops the last reference to a table that it has looked at.
    pub(crate) fn is_suspended(&self) -> bool {
        let Some(table) = self.peek(|current| current.table.clone()) else { return true };
        let mut components = table.iter().flat_map(|table| table.components());
        components.any(|component| self.below(component.dev()).is_some_and(Slot::is_suspended))
    }

    /// `true` if a component is a device of ours.
    fn is_own(&self, component: Dev) -> bool {
        component.major() == self.dev().major()
    }

    /// The slot of a component that is a device of ours; `None` for another driver's, and for one
    /// of ours that is gone.
    pub(crate) fn below(&self, component: Dev) -> Option<&'static Slot> {
        super::global().filter(|_| self.is_own(component))?.slots.get(component.minor())
    }

    /// Flushes the caches of the components if anything was written since the last time, as wd(4)
    /// and sd(4) do with their own at the last close. A device that is read-only or suspended is
    /// left alone, and a suspended one below is not waited for; errors are not reported, as a close
    /// cannot fail. Targets are not asked: writes that they have acknowledged lie on the
    /// components. `false` if there is something left to flush. Context: a thread (d_close) that
    /// holds no lock; sleeps for the components' I/O, and where it drops the last reference to the
    /// table.
    pub(crate) fn flush_after_close(&self) -> bool {
        let written = self.written();
        if written == self.flushed.load(Ordering::Relaxed) {
            return true;
        }
        let look = |current: &Current| current.table.clone().filter(|_| !current.read_only);
        // The table, which keeps its components open, is taken along: a thread inside must not
        // wait.
        let Some(Some(table)) = self.peek(look) else { return false };
        let mut done = true;
        for component in table.components() {
            let device = component.disk().device();
            done &= match self.is_own(device.dev()) {
                true => self.below(device.dev()).is_some_and(Slot::flush_after_close),
                false => device.flush(0).is_ok(),
            };
        }
        if done {
            self.flushed.store(written, Ordering::Relaxed);
        }
        done
    }
}

impl Drop for Slot {
    /// Gives the reserve back to the pools, which are there until the last slot is gone. Context: a
    /// thread.
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

/// A [`Pass`] of a thread that does not hand it on (an ioctl, a discard): it leaves when it is
/// dropped. A drain waits for it with I/O held, so that its holder does not wait for memory.
///
/// # Invariants
/// The pass is of the slot's gate. It is taken in `drop` only.
#[must_use = "dropped at once, it has left the gate again"]
pub(crate) struct Inside<'s> {
    slot: &'s Slot,
    pass: ManuallyDrop<Pass<'s>>,
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
