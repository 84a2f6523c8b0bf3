//! The label on a device itself: set, read, written, or made up; and its old form.
//!
//! As other disks do, a device keeps a label that was set until its last close. Without one the
//! label is read anew whenever it is asked for, since a change of the table may bring another.

use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use dm_core::Errno;
use dm_core::units::{Dev, Sector};

use super::global;
use super::pieces::Journey;
use super::slot::Slot;
use crate::kern::buf::Io;
use crate::kern::disk::{Disk, default_label};
use crate::kern::gate::Door;
use crate::kern::{cpu, sys};

/// How often an I/O of a label has found its device suspended.
static TURNED_AWAY: AtomicU32 = AtomicU32::new(0);

/// How many I/Os the search for a label may take. readdisklabel(9) goes wherever a disk's boot
/// records send it, which may be in a circle.
const SEARCH: u32 = 1000;

/// [`impatient`], for readdisklabel(9) and writedisklabel(9). They believe what a disk says: an I/O
/// that is larger than its buffer, or one too many, fails.
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
    // SAFETY: as above: the buffer is the driver's until it is completed.
    unsafe { impatient(io.into_raw().as_ptr()) }
}

/// d_strategy(9) for a look at a label below: an I/O that finds its device suspended fails with
/// EAGAIN. With [`dmstrategy`](super::strategy::dmstrategy) the thread would wait deaf
/// to signals, perhaps for one that it would send itself.
///
/// # Safety
/// `bp` is an I/O for this driver, as the kernel hands it to d_strategy.
pub(crate) unsafe extern "C" fn impatient(bp: *mut sys::buf) {
    // SAFETY: the caller's promise.
    let io = unsafe { Io::from_raw(NonNull::new_unchecked(bp)) };
    let Some(global) = global() else { return io.fail(0, Errno::ENXIO) };
    let Some(slot) = global.slots.get(io.dev().minor()) else { return io.fail(0, Errno::ENXIO) };
    if let Some(pass) = slot.gate.enter(cpu::current()) {
        return slot.dispatch(io, Journey::new(pass));
    }
    let held = slot.held.lock();
    // Entering and turning back may have hidden that the gate is empty.
    slot.gate_moved.broadcast();
    let errno = if slot.gate.door() == Door::Dead { Errno::ENXIO } else { Errno::EAGAIN };
    drop(held);
    TURNED_AWAY.fetch_add(1, Ordering::SeqCst);
    io.fail(0, errno);
}

/// DIOCGDINFO: the label that was set, else the one on the device, else one made up from the table.
/// A suspended device is not waited for: it has the label that was last read.
pub(crate) fn get(
    slot: &Slot,
    disk: &Disk,
    dev: Dev,
    size: Sector,
    sector_size: u32,
) -> sys::disklabel {
    let mut label = default(size, sector_size);
    // A device that is suspended and resumed all the time is not looked at for ever.
    for _ in 0..8 {
        if let Some(label) = disk.label(false) {
            return label;
        }
        let before = TURNED_AWAY.load(Ordering::SeqCst);
        slot.label_search.store(SEARCH, Ordering::Relaxed);
        let read = size > Sector::ZERO && disk.read_label(dev, searching, &mut label);
        if !read {
            if TURNED_AWAY.load(Ordering::SeqCst) != before {
                if slot.gate.door() == Door::Open {
                    label = default(size, sector_size);
                    continue;
                }
                if let Some(label) = disk.label(true) {
                    return label;
                }
            }
            label = default(size, sector_size);
        }
        disk.remember_label(&label, read);
        break;
    }
    label
}

/// The label that a device without one is given.
pub(crate) fn default(size: Sector, sector_size: u32) -> sys::disklabel {
    // SAFETY: plain numbers and characters.
    let mut label = unsafe { core::mem::zeroed() };
    default_label(&mut label, size, sector_size);
    label
}

/// DIOCWDINFO: sets the label and writes it to the device, once it is not suspended.
///
/// # Errors
/// EINVAL for what is no label of this device, EINTR, ENXIO if the device goes, or what the port's
/// code or the I/O says; the label stays set in core then, as on other disks.
pub(crate) fn write(
    slot: &Slot,
    disk: &Disk,
    label: &sys::disklabel,
    sector_size: u32,
) -> Result<(), Errno> {
    let label = disk.set_label(label, sector_size)?;
    loop {
        drop(slot.enter_sleeping()?);
        let before = TURNED_AWAY.load(Ordering::SeqCst);
        slot.label_search.store(SEARCH, Ordering::Relaxed);
        let result = disk.write_label(slot.dev(), searching, &label);
        let turned_away = TURNED_AWAY.load(Ordering::SeqCst) != before;
        if result != Err(Errno::EAGAIN) || !turned_away {
            return result;
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
    // SAFETY: as in `to_old`; any bytes are a label, true or not.
    unsafe { *core::ptr::from_mut(&mut label).cast::<Old>() = *old };
    label
}

/// The number of an old command: `_IOR('d', …)` or `_IOW('d', …)` with an old label. The headers of
/// ports that never had 8 partitions do not define them.
pub(crate) const fn old_command(write: bool, number: u32) -> core::ffi::c_ulong {
    let direction: u32 = if write { 0x8000_0000 } else { 0x4000_0000 };
    (direction | (OLD as u32) << 16 | (b'd' as u32) << 8 | number) as core::ffi::c_ulong
}
