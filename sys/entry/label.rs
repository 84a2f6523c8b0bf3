// SPDX-License-Identifier: BSD-2-Clause

//! A dm device's own disk label: set, read, written, or made up; and its old form. Those of
//! components, which are guarded, are found in `component.rs`.
//!
//! As other disks do, a device keeps a label that was set until its last close. Without one the
//! label is read anew whenever it is asked for, since a change of the table may bring another.

use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use dm_core::Errno;
use dm_core::units::{Dev, Sector};

use super::global;
use super::io::Door;
use super::journey::Journey;
use super::slot::Slot;
use crate::netbsd::buf::{self, Io};
use crate::netbsd::disk::{Disk, default_label};
use crate::netbsd::{cpu, sys};

/// The most I/Os that a search for a label may take: readdisklabel(9) follows a disk's boot
/// records, which may form a circle.
const SEARCH: u32 = 1000;

/// d_strategy(9) for readdisklabel(9) and writedisklabel(9), which trust sizes and links that they
/// read from the disk: I/O that is larger than its buffer fails, and so does all after [`SEARCH`]
/// I/Os, so that a circle of boot records ends; and labels that would have them divide by 0 are
/// hidden. Otherwise [`impatient`]. Context: a thread; sleeps until the I/O is done.
///
/// # Safety
/// As for [`impatient`].
unsafe extern "C" fn searching(bp: *mut sys::buf) {
    // SAFETY: the caller's promise.
    let io = unsafe { Io::from_raw(NonNull::new_unchecked(bp)) };
    if !io.fits_its_buffer() {
        return io.fail(0, Errno::EINVAL);
    }
    let slot = global().and_then(|global| global.slots.get(io.dev().minor()));
    let spend = |left: u32| left.checked_sub(1);
    let left = slot.map(|slot| {
        slot.label_search.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    });
    if left == Some(false) {
        return io.fail(0, Errno::EIO);
    }
    let buf = io.into_raw().as_ptr();
    // SAFETY: the buffer is the driver's until it is completed. Its sender is this thread, which
    // waits for it when this returns, and has its data until then.
    unsafe {
        impatient(buf);
        hide_unusable_labels(buf::wait(buf));
    }
}

/// Clears the magic number of labels that tell sectors of 0 bytes: readdisklabel(9) divides by
/// that to find the table of bad sectors, where a label says that there is one.
fn hide_unusable_labels(data: &mut [u8]) {
    const MAGIC: u32 = sys::DISKMAGIC as u32;
    const MAGIC2: usize = offset_of!(sys::disklabel, d_magic2);
    const SIZE: usize = offset_of!(sys::disklabel, d_secsize);
    // A label is at a multiple of 4 bytes, in either order of bytes.
    for at in (0..data.len()).step_by(4) {
        let Some(label) = data.get_mut(at..) else { return };
        let word = |at: usize| label.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word));
        let magic = word(0).filter(|magic| [MAGIC, MAGIC.swap_bytes()].contains(magic));
        if magic.is_some() && word(MAGIC2) == magic && word(SIZE) == Some(0) {
            label.iter_mut().take(4).for_each(|byte| *byte = 0);
        }
    }
}

/// d_strategy(9) for a look at a device's label: an I/O that finds the device suspended, or one of
/// ours below it, fails with EAGAIN. With [`dmstrategy`](super::strategy::dmstrategy) the thread
/// would sleep, deaf to signals, for a resume, which may be what this very thread does next.
/// Context: thread.
///
/// # Safety
/// `bp` is an I/O for this driver, as the kernel hands it to d_strategy.
unsafe extern "C" fn impatient(bp: *mut sys::buf) {
    // SAFETY: the caller's promise.
    let io = unsafe { Io::from_raw(NonNull::new_unchecked(bp)) };
    let slot = global().and_then(|global| global.slots.get(io.dev().minor()));
    let Some(slot) = slot else { return io.fail(0, Errno::ENXIO) };
    match slot.gate.enter(cpu::current()) {
        Some((pass, _)) => slot.dispatch(io, Journey::impatient(pass)),
        None => slot.turn_away(io, slot.minor()),
    }
}

impl Slot {
    /// Records that the device of minor `by`, this one or one below, did not let an I/O of a search
    /// for this device's label wait.
    pub(super) fn label_search_failed(&self, by: u32) {
        self.label_turned_away.store(by, Ordering::SeqCst);
        self.label_turns.fetch_add(1, Ordering::SeqCst);
    }

    /// Fails an I/O that has found the gate shut and does not wait. `origin` is the minor of the
    /// device where it began. Context: thread or soft interrupt, with no lock held; does not sleep.
    pub(super) fn turn_away(&self, io: Io, origin: u32) {
        let dead = self.gate.door() == Door::Dead;
        if let Some(slot) = global().and_then(|global| global.slots.get(origin)) {
            slot.label_search_failed(self.minor());
        }
        io.fail(0, if dead { Errno::ENXIO } else { Errno::EAGAIN });
    }
}

/// The label that DIOCGDINFO returns: the one that was set, else the one on the device, else one
/// made up from the table. A suspended device, or one on a suspended one, is not waited for: it has
/// the label that was last read. Context: a thread in an ioctl; sleeps for I/O.
pub(crate) fn get(
    slot: &Slot,
    disk: &Disk,
    dev: Dev,
    size: Sector,
    sector_size: u32,
) -> sys::disklabel {
    // A bound, for a device that is suspended and resumed all the time, or has no memory.
    for _ in 0..8 {
        if let Some(label) = disk.label(false) {
            return label;
        }
        let begun = begin_search(slot);
        let mut label = default(size, sector_size);
        let read = size > Sector::ZERO && disk.read_label(dev, searching, &mut label);
        let by = turned_away_since(slot, begun).filter(|_| !read);
        let Some(by) = by else {
            if !read {
                label = default(size, sector_size);
            }
            disk.remember_label(&label, read);
            return label;
        };
        let other = global().and_then(|global| global.slots.get(by));
        if other.is_some_and(|other| other.gate.door() != Door::Open) {
            break;
        }
    }
    disk.label(true).unwrap_or_else(|| default(size, sector_size))
}

/// Allows the next [`SEARCH`] I/Os of readdisklabel(9) or writedisklabel(9). Returns the number of
/// I/Os of searches that have been turned away so far.
fn begin_search(slot: &Slot) -> u32 {
    slot.label_search.store(SEARCH, Ordering::Relaxed);
    slot.label_turns.load(Ordering::SeqCst)
}

/// The minor of the device that has turned an I/O of a search away since [`begin_search`] returned
/// `begun`.
fn turned_away_since(slot: &Slot, begun: u32) -> Option<u32> {
    let turns = slot.label_turns.load(Ordering::SeqCst);
    (turns != begun).then(|| slot.label_turned_away.load(Ordering::SeqCst))
}

/// A label made up from a table's size, for a device without one.
pub(crate) fn default(size: Sector, sector_size: u32) -> sys::disklabel {
    // SAFETY: plain numbers and characters.
    let mut label = unsafe { core::mem::zeroed() };
    default_label(&mut label, size, sector_size);
    label
}

/// Sets the label and writes it to the device (DIOCWDINFO), once neither the device nor one below
/// it is suspended. Context: a thread in an ioctl; sleeps while one is, until a signal comes, and
/// for I/O.
///
/// # Errors
/// EINVAL for bytes that are no label, or a label that does not fit this device; EINTR; ENXIO if
/// the device goes; or those of the port's code or of the I/O, after which the label stays set in
/// core, as on other disks.
pub(crate) fn write(
    slot: &Slot,
    disk: &Disk,
    label: &sys::disklabel,
    sector_size: u32,
) -> Result<(), Errno> {
    let label = disk.set_label(label, sector_size)?;
    drop(slot.enter_sleeping()?);
    loop {
        let begun = begin_search(slot);
        let result = disk.write_label(slot.dev(), searching, &label);
        let by = turned_away_since(slot, begun).filter(|_| result == Err(Errno::EAGAIN));
        let Some(by) = by else { return result };
        let Some(other) = global().and_then(|global| global.slots.get(by)) else { continue };
        match other.enter_sleeping() {
            // A device that is being removed is not waited for: the next try shows what that means.
            Ok(_) | Err(Errno::ENXIO) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// A label as it was when there were 8 partitions: the ODIOC commands of some ports, i386 for one.
pub(crate) type Old = [u8; OLD];

const OLD_PARTITIONS: usize = 8;
const OLD: usize =
    offset_of!(sys::disklabel, d_partitions) + OLD_PARTITIONS * size_of::<sys::partition>();

const _: () = assert!(OLD < size_of::<sys::disklabel>());

/// A label in its old form.
///
/// # Errors
/// ENOTTY if it has more partitions than that has room for.
pub(crate) fn to_old(label: &sys::disklabel) -> Result<Old, Errno> {
    if usize::from(label.d_npartitions) > OLD_PARTITIONS {
        return Err(Errno::ENOTTY);
    }
    // SAFETY: a label is plain memory without holes, and its old form its beginning.
    Ok(unsafe { *core::ptr::from_ref(label).cast::<Old>() })
}

/// A label from its old form.
pub(crate) fn from_old(old: &Old) -> sys::disklabel {
    // SAFETY: plain numbers and characters.
    let mut label: sys::disklabel = unsafe { core::mem::zeroed() };
    // SAFETY: a label is plain memory without holes, and its old form its beginning; any bytes are
    // a label, true or not.
    unsafe { *core::ptr::from_mut(&mut label).cast::<Old>() = *old };
    label
}

/// The number of an old command: `_IOR('d', …)` or `_IOW('d', …)` with an old label. The headers of
/// ports that never had 8 partitions do not define them.
pub(crate) const fn old_command(write: bool, number: u32) -> core::ffi::c_ulong {
    let direction: u32 = if write { 0x8000_0000 } else { 0x4000_0000 };
    (direction | (OLD as u32) << 16 | (b'd' as u32) << 8 | number) as core::ffi::c_ulong
}
