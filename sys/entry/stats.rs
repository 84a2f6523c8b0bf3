//! Statistics. The I/O path adds to its CPU's counts at the gate; a few times a second, while
//! there is I/O, they are added up into disk(9)'s, for iostat(8) to see.
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
use crate::kern::callout::Tick;
use crate::kern::cpu;
use crate::kern::disk::{Disk, Transfers};

/// How many tallies there are.
const TALLIES: usize = 7;

// What they count; those that change with each I/O first.
const READS: usize = 0;
const WRITES: usize = 1;
/// Sectors read.
const READ: usize = 2;
/// Sectors written.
const WRITTEN: usize = 3;
/// Ticks from entry to completion.
const BUSY: usize = 4;
const SPLITS: usize = 5;
const FAILED: usize = 6;

/// What has been added up of a slot, under its lock.
#[derive(Default)]
pub struct Folded {
    pub(crate) disk: Option<Arc<Disk>>,
    seen: [usize; TALLIES],
    totals: [u64; TALLIES],
    held: u64,
    ticks: i32,
    /// Whether there was I/O at the last time: then disk(9) is told that it is over.
    busy: bool,
}

impl Folded {
    /// Takes no notice of what was counted before.
    pub(crate) fn starting_from(seen: [usize; TALLIES]) -> Folded {
        Folded { seen, ..Folded::default() }
    }
}

/// Folds the counts of all devices while there is I/O.
pub struct Folder {
    /// Whether the callout is, or is about to be, under way.
    running: AtomicBool,
}

pub(crate) static FOLDER: Folder = Folder { running: AtomicBool::new(false) };

/// Times a second.
const RATE: i32 = 8;

/// A CPU's counts; each wraps.
#[derive(Default)]
pub struct Tallies([AtomicUsize; TALLIES]);

impl Tallies {
    #[inline]
    fn add(&self, which: usize, n: usize) {
        if let Some(tally) = self.0.get(which) {
            tally.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Counts an I/O that is complete, and came at `came` ticks.
    #[inline]
    pub(crate) fn count(&self, write: bool, bytes: u32, came: i32) {
        let (number, amount) = if write { (WRITES, WRITTEN) } else { (READS, READ) };
        self.add(number, 1);
        self.add(amount, (bytes / DEV_BSIZE) as usize);
        let busy = cpu::ticks().wrapping_sub(came);
        if busy > 0 {
            self.add(BUSY, busy as usize);
        }
        if !FOLDER.running.load(Ordering::Relaxed) {
            start();
        }
    }

    /// Counts an I/O that has failed, beside [`Tallies::count`].
    pub(crate) fn count_failed(&self) {
        self.add(FAILED, 1);
    }

    /// Counts an I/O that is cut.
    pub(crate) fn count_split(&self) {
        self.add(SPLITS, 1);
    }
}

/// Counts an I/O that is held.
pub(crate) fn count_held(slot: &Slot) {
    let mut folded = slot.folded.lock();
    folded.held = folded.held.wrapping_add(1);
}

#[cold]
fn start() {
    if let Some(global) = global()
        && !FOLDER.running.swap(true, Ordering::Relaxed)
    {
        global.folder.schedule((cpu::hz() / RATE).max(1));
    }
}

impl Folder {
    /// Has it start anew, when no callout is under way.
    pub(crate) fn reset(&self) {
        self.running.store(false, Ordering::Relaxed);
    }
}

impl Tick for Folder {
    fn tick(&'static self) {
        let Some(global) = global() else { return };
        // First, so that I/O that comes from here on starts it again.
        self.running.store(false, Ordering::Relaxed);
        let mut active = false;
        global.slots.each(|slot| active |= slot.fold());
        if active {
            start();
        }
    }
}

impl Slot {
    /// The sums of the CPUs' counts; each wraps.
    pub(crate) fn tallies(&self) -> [usize; TALLIES] {
        let mut sums = [0usize; TALLIES];
        for local in self.gate.locals() {
            for (sum, tally) in sums.iter_mut().zip(&local.tallies.0) {
                *sum = sum.wrapping_add(tally.load(Ordering::Relaxed));
            }
        }
        sums
    }

    /// How many writes are complete; wraps.
    pub(crate) fn written(&self) -> usize {
        let writes = |local: &super::slot::Local| local.tallies.0[WRITES].load(Ordering::Relaxed);
        self.gate.locals().map(writes).fold(0, usize::wrapping_add)
    }

    /// Adds up the counts; `true` if there was or is I/O. A device without keeps nothing to spare.
    pub(crate) fn fold(&self) -> bool {
        let mut folded = self.folded.lock();
        let now = self.tallies();
        let mut new = [0u64; TALLIES];
        for (new, (now, seen)) in new.iter_mut().zip(now.iter().zip(&folded.seen)) {
            *new = now.wrapping_sub(*seen) as u64;
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
                reads: new[READS],
                writes: new[WRITES],
                read: Sector(new[READ]),
                written: Sector(new[WRITTEN]),
                busy_ticks: new[BUSY],
                elapsed_ticks: u64::try_from(elapsed).unwrap_or(0),
                in_flight,
            });
        }
        folded.busy = active;
        drop(folded);
        if !active && let Some(global) = global() {
            self.put_spares(global);
        }
        active
    }
}

/// sysctl hw.dm.counters: a line for each device, `dmN reads writes splits held failed`. Writes
/// what fits into `size` bytes at `text`, and its NUL; the answer is how many bytes all of it
/// takes.
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
        let fits = all.len().min(size - 1);
        // SAFETY: `fits` and the NUL are within `size` (caller).
        unsafe {
            core::ptr::copy_nonoverlapping(all.as_ptr().cast(), text, fits);
            *text.add(fits) = 0;
        }
    }
    // Devices may come before the second call.
    all.len() + 256
}
