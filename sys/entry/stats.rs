// SPDX-License-Identifier: BSD-2-Clause

//! Statistics. The I/O path adds to its CPU's counts at the gate; a few times a second, while
//! there is I/O, they are added up into disk(9)'s, for iostat(8) to see: those of the devices that
//! have I/O, whatever the number of others.
//!
//! disk_busy(9) itself wants a lock around each call, which would be the only lock of the I/O
//! path. Its clock counts ticks, and so does this one.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::ffi::c_char;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dm_core::units::{DEV_BSIZE, Sector};

use super::global;
use super::slot::Slot;
use crate::netbsd::callout::Tick;
use crate::netbsd::cpu;
use crate::netbsd::disk::{Disk, Transfers};

/// The number of tallies.
const TALLIES: usize = 7;

// The tallies by number; those that change with each I/O first.
const N_READS: usize = 0;
const N_WRITES: usize = 1;
const SECTORS_READ: usize = 2;
const SECTORS_WRITTEN: usize = 3;
/// Ticks from entry to completion, of each I/O by itself.
const BUSY_TICKS: usize = 4;
const N_SPLITS: usize = 5;
const N_FAILED: usize = 6;

/// The bit of the tallies `N_READS` and `N_WRITES` from which they count I/Os, in a word that
/// counts sectors below it: one locked operation counts both. `None` where words are too small for
/// that. Between two folds, a fraction of a second (`RATE`), a device completes fewer than 2^32
/// I/Os, and less than 2 TiB.
const PACKED: Option<u32> = if usize::BITS == 64 { Some(32) } else { None };

/// The statistics of a device, added up. All fields: under `Slot::folded`.
#[derive(Default)]
pub struct Folded {
    /// The device's disk(9), while it is attached.
    pub(crate) disk: Option<Arc<Disk>>,
    /// The CPUs' sums at the last fold; they wrap.
    seen: [usize; TALLIES],
    /// The sums since the device was made.
    totals: [u64; TALLIES],
    /// I/O that was held at the gate, since the device was made.
    held: u64,
    /// The tick of the last fold, or at which I/O came after it.
    ticks: i32,
    /// `true` if the last fold saw I/O: then one more update tells disk(9) that it is over.
    busy: bool,
}

impl Folded {
    /// Counts of which nothing has been added up yet, and of which those in `seen` are not to be.
    pub(crate) fn starting_from(seen: [usize; TALLIES]) -> Folded {
        Folded { seen, ..Folded::default() }
    }
}

/// The callout that folds the counts of devices while they have I/O: of those whose
/// [`Slot::is_due`] is set.
pub struct Folder {
    /// `true` while the callout is scheduled or about to be.
    running: AtomicBool,
}

pub(crate) static FOLDER: Folder = Folder { running: AtomicBool::new(false) };

/// Folds a second.
const RATE: i32 = 8;

/// A CPU's counts; each wraps.
#[derive(Default)]
pub struct Tallies([AtomicUsize; TALLIES]);

impl Tallies {
    /// Adds to one count.
    #[inline]
    fn add(&self, which: usize, n: usize) {
        if let Some(tally) = self.0.get(which) {
            tally.fetch_add(n, Ordering::SeqCst);
        }
    }

    /// Counts a complete I/O.
    #[inline]
    fn count(&self, write: bool, bytes: u32, came: i32) {
        let (number, amount) = match write {
            true => (N_WRITES, SECTORS_WRITTEN),
            false => (N_READS, SECTORS_READ),
        };
        let sectors = (bytes / DEV_BSIZE) as usize;
        match PACKED {
            Some(bits) => self.add(number, (1 << bits) | sectors),
            None => {
                self.add(number, 1);
                self.add(amount, sectors);
            }
        }
        let busy = cpu::ticks().wrapping_sub(came);
        if busy > 0 {
            self.add(BUSY_TICKS, busy as usize);
        }
    }

    /// Counts an I/O that has failed, beside [`Tallies::count`]. Context: thread or soft interrupt.
    pub(crate) fn count_failed(&self) {
        self.add(N_FAILED, 1);
    }

    /// Counts an I/O in several pieces. Context: thread or soft interrupt.
    pub(crate) fn count_split(&self) {
        self.add(N_SPLITS, 1);
    }
}

/// Counts an I/O that is held. Context: thread or soft interrupt.
pub(crate) fn count_held(slot: &Slot) {
    let mut folded = slot.folded.lock();
    folded.held = folded.held.wrapping_add(1);
}

/// Has the callout fold a device's counts, which have changed; schedules it, unless it is
/// scheduled. Context: thread or soft interrupt, the callout's own among them; does not sleep.
#[cold]
fn start(slot: &Slot) {
    slot.is_due.store(true, Ordering::SeqCst);
    // If `running` is set the callout has yet to clear it, and looks at the slot after that.
    if let Some(global) = global()
        && !FOLDER.running.swap(true, Ordering::SeqCst)
    {
        global.folder.schedule((cpu::hz() / RATE).max(1));
    }
}

impl Folder {
    /// Clears `running`, for the next load of the driver. Only after
    /// [`Callout::halt`](crate::netbsd::callout::Callout::halt).
    pub(crate) fn reset(&self) {
        self.running.store(false, Ordering::Relaxed);
    }
}

impl Tick for Folder {
    /// Context: the callout's soft interrupt (softclock); does not sleep.
    fn tick(&'static self) {
        let Some(global) = global() else { return };
        // First, and a slot's mark before its fold: an I/O that the folds below do not see sees
        // this, and schedules the callout. So both sides are SeqCst, here and in `Tallies`.
        self.running.store(false, Ordering::SeqCst);
        global.slots.each(|slot| {
            if !slot.is_due.load(Ordering::SeqCst) {
                return;
            }
            slot.is_due.store(false, Ordering::SeqCst);
            match slot.fold() {
                true => start(slot),
                // An idle device keeps no nested buffers.
                false => slot.empty_caches(global),
            }
        });
    }
}

impl Slot {
    /// Counts an I/O that is complete, and came at `came` ticks. Context: thread or soft interrupt.
    #[inline]
    pub(super) fn count(&self, tallies: &Tallies, write: bool, bytes: u32, came: i32) {
        tallies.count(write, bytes, came);
        if !self.is_due.load(Ordering::SeqCst) {
            self.begin_to_count(came);
        }
    }

    /// Has the callout fold the counts of a device that was idle until `came`. Context: as for
    /// [`Slot::count`].
    #[cold]
    fn begin_to_count(&self, came: i32) {
        self.folded.lock().ticks = came;
        start(self);
    }

    /// The sums of the CPUs' counts; each wraps. Context: thread or soft interrupt.
    pub(crate) fn tallies(&self) -> [usize; TALLIES] {
        let mut sums = [0usize; TALLIES];
        for local in self.gate.locals() {
            for (sum, tally) in sums.iter_mut().zip(&local.tallies.0) {
                *sum = sum.wrapping_add(tally.load(Ordering::SeqCst));
            }
        }
        sums
    }

    /// A number that changes with each write that is complete. Context: thread or soft interrupt.
    pub(crate) fn written(&self) -> usize {
        let writes = |local: &super::slot::Local| local.tallies.0[N_WRITES].load(Ordering::Relaxed);
        self.gate.locals().map(writes).fold(0, usize::wrapping_add)
    }

    /// Adds the CPUs' counts up, and updates disk(9). `true` if there was I/O since the last fold,
    /// or is. Context: thread or soft interrupt; does not sleep.
    pub(crate) fn fold(&self) -> bool {
        let mut folded = self.folded.lock();
        let now = self.tallies();
        let mut new = [0u64; TALLIES];
        for (new, (now, seen)) in new.iter_mut().zip(now.iter().zip(&folded.seen)) {
            *new = now.wrapping_sub(*seen) as u64;
        }
        if let Some(bits) = PACKED {
            for (number, amount) in [(N_READS, SECTORS_READ), (N_WRITES, SECTORS_WRITTEN)] {
                new[amount] = new[number] & ((1 << bits) - 1);
                new[number] >>= bits;
            }
        }
        folded.seen = now;
        for (total, new) in folded.totals.iter_mut().zip(&new) {
            *total = total.wrapping_add(*new);
        }
        let ticks = cpu::ticks();
        let elapsed = ticks.wrapping_sub(folded.ticks);
        folded.ticks = ticks;
        let in_flight = self.gate.inside();
        let active = in_flight > 0 || new.iter().any(|n| *n != 0);
        if let Some(disk) = folded.disk.as_ref().filter(|_| active || folded.busy) {
            disk.account(&Transfers {
                reads: new[N_READS],
                writes: new[N_WRITES],
                read: Sector(new[SECTORS_READ]),
                written: Sector(new[SECTORS_WRITTEN]),
                busy_ticks: new[BUSY_TICKS],
                elapsed_ticks: u64::try_from(elapsed).unwrap_or(0),
                in_flight,
            });
        }
        folded.busy = active;
        active
    }
}

/// sysctl hw.dm.counters: a line for each device, `dmN reads writes splits held failed`. Writes as
/// many lines as fit into `size` bytes at `text`, with a NUL. Returns the number of bytes that all
/// of them take, and 256 more, for devices that come before the next call. Context: a thread; waits
/// for memory.
///
/// # Safety
/// `text` is null or has `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dm_counters(text: *mut c_char, size: usize) -> usize {
    let mut all = String::new();
    if let Some(global) = global() {
        global.slots.each(|slot| {
            slot.fold();
            let folded = slot.folded.lock();
            let (totals, held) = (folded.totals, folded.held);
            drop(folded);
            let [reads, writes, _, _, _, splits, failed] = totals;
            all.push_str(&format!(
                "dm{} {reads} {writes} {splits} {held} {failed}\n",
                slot.minor()
            ));
        });
    }
    if !text.is_null() && size > 0 {
        let room = all.as_bytes().get(..size - 1).unwrap_or(all.as_bytes());
        let fits = room.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        // SAFETY: `fits` and the NUL are within `size` (caller).
        unsafe {
            core::ptr::copy_nonoverlapping(all.as_ptr().cast(), text, fits);
            *text.add(fits) = 0;
        }
    }
    // Some lines more: devices may come before the second call.
    all.len() + 256
}
