// SPDX-License-Identifier: BSD-2-Clause

//! disk(9): struct disk, its open masks, statistics and in-core label. C headers: sys/disk.h,
//! sys/disklabel.h.

use core::ffi::{c_int, c_ulong, c_void};
use core::sync::atomic::{AtomicU8, Ordering};

use dm_core::kernel::Geometry;
use dm_core::units::{DEV_BSIZE, Dev, Sector};
use dm_core::{Errno, errno};

use super::fixed::Fixed;
use super::sys;

/// The kinds of node that a disk is open through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node {
    /// The block device.
    Block,
    /// The character device.
    Character,
}

/// A d_strategy routine, as disk_read_sectors calls it.
pub type Strategy = unsafe extern "C" fn(*mut sys::buf);

/// An attached disk.
///
/// # Invariants
/// The structure is initialised and attached as long as this value lives. The kernel reads and
/// writes fields of it under locks of its own, at any time: no reference to all of it is made.
pub struct Disk {
    raw: Fixed<sys::disk>,
    /// An [`InCore`]; written under dk_openlock.
    in_core: AtomicU8,
}

/// The origin of the in-core label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum InCore {
    /// Made up from the table, or nothing.
    MadeUp,
    /// Read from the device.
    Read,
    /// Set by userland: until the last close, or until the table changes, it is not read again.
    Set,
}

// SAFETY: the fields are read and written under dk_openlock, or by functions that lock.
unsafe impl Send for Disk {}
// SAFETY: as above.
unsafe impl Sync for Disk {}

/// The geometry of a table without one of its own: 32 sectors a track, 64 tracks a cylinder.
const NSECTORS: u32 = 32;
const NTRACKS: u32 = 64;

/// Statistics for iostat(8), which are added to those of the disk(9).
#[derive(Default, Debug)]
pub struct Transfers {
    /// Reads completed.
    pub reads: u64,
    /// Writes completed.
    pub writes: u64,
    /// Sectors read.
    pub read: Sector,
    /// Sectors written.
    pub written: Sector,
    /// Ticks that I/O took, each by itself.
    pub busy_ticks: u64,
    /// Ticks since the last time.
    pub elapsed_ticks: u64,
    /// I/O in flight now.
    pub in_flight: usize,
}

impl Disk {
    /// Attaches a disk for a device.
    ///
    /// # Safety
    /// `device` outlives the disk, whose name is its own.
    pub unsafe fn attach(device: sys::device_t) -> Disk {
        // SAFETY: struct disk is plain memory that disk_init(9) fills.
        let raw: Fixed<sys::disk> = Fixed::new(unsafe { core::mem::zeroed() });
        // SAFETY: `raw` is fresh and stays where it is; the name lives long enough (caller).
        unsafe {
            sys::dm_shim_disk_init(raw.get(), sys::device_xname(device));
            sys::disk_attach(raw.get());
        }
        Disk { raw, in_core: AtomicU8::new(InCore::MadeUp as u8) }
    }

    /// Runs `f` with dk_openlock taken, which guards the open masks, the geometry and the label.
    /// Context: a thread: the lock is adaptive.
    fn locked<R>(&self, f: impl FnOnce(*mut sys::disk) -> R) -> R {
        let raw = self.raw.get();
        // SAFETY: the disk lives (invariant), and with it its lock.
        unsafe {
            let lock = &raw mut (*raw).dk_openlock;
            sys::mutex_enter(lock);
            let result = f(raw);
            sys::mutex_exit(lock);
            result
        }
    }

    /// Changes the masks of open nodes, and returns the new mask of all of them.
    fn masks(&self, node: Node, change: impl FnOnce(c_int) -> c_int) -> c_int {
        // SAFETY: the disk lives (invariant), and dk_openlock guards the masks.
        self.locked(|disk| unsafe {
            let (block, character) = (&raw mut (*disk).dk_bopenmask, &raw mut (*disk).dk_copenmask);
            let mask = match node {
                Node::Block => block,
                Node::Character => character,
            };
            *mask = change(*mask);
            (*disk).dk_openmask = *block | *character;
            if (*disk).dk_openmask == 0 {
                self.set_in_core(InCore::MadeUp);
            }
            (*disk).dk_openmask
        })
    }

    /// Records that a node was opened. Context: a thread; takes dk_openlock.
    pub fn open(&self, node: Node) {
        self.masks(node, |mask| mask | 1);
    }

    /// Records that a node was closed; `true` if none is open any more. Context: a thread; takes
    /// dk_openlock.
    pub fn close(&self, node: Node) -> bool {
        self.masks(node, |mask| mask & !1) == 0
    }

    /// The number of nodes that are open. Context: a thread; takes dk_openlock.
    pub fn open_count(&self) -> u32 {
        // SAFETY: the disk lives (invariant), and dk_openlock guards the masks.
        self.locked(|disk| unsafe {
            (*disk).dk_bopenmask.count_ones() + (*disk).dk_copenmask.count_ones()
        })
    }

    /// Sets the disk's size, sectors and geometry (disk_set_info(9)). Waits for memory.
    pub fn set_info(&self, size: Sector, sector_size: u32, geometry: Option<Geometry>) {
        let sectors = size.0 / u64::from(sector_size / DEV_BSIZE).max(1);
        self.locked(|disk| {
            // The label was another table's.
            self.set_in_core(InCore::MadeUp);
            // SAFETY: plain numbers.
            let mut geom: sys::disk_geom = unsafe { core::mem::zeroed() };
            geom.dg_secperunit = sectors as i64;
            geom.dg_secsize = sector_size;
            let (heads, per_track) = geometry.map_or((NTRACKS, NSECTORS), |g| (g.heads, g.sectors));
            geom.dg_ntracks = heads.max(1);
            geom.dg_nsectors = per_track.max(1);
            geom.dg_ncylinders = geometry.map_or(0, |g| g.cylinders);
            // SAFETY: the disk lives, and is locked as its geometry and disk_set_info ask. The type
            // is a string that lives for ever.
            unsafe {
                (*disk).dk_geom = geom;
                sys::disk_set_info(core::ptr::null_mut(), disk, c"dm".as_ptr());
            }
        });
    }

    /// The ioctls that any disk answers. EPASSTHROUGH for those it does not.
    ///
    /// # Errors
    /// disk_ioctl(9)'s.
    ///
    /// # Safety
    /// `data` is what `command` reads and writes.
    pub unsafe fn ioctl(
        &self,
        dev: Dev,
        command: c_ulong,
        data: *mut c_void,
        flags: c_int,
    ) -> Result<(), Errno> {
        // The device has no partitions: whatever its minor is, this is the whole of it.
        let raw_part = Dev::new(dev.major(), sys::RAW_PART as u32).unwrap_or(dev);
        // SAFETY: the disk lives (invariant), and the data fits (caller).
        errno::Errno::check(unsafe {
            sys::disk_ioctl(self.raw.get(), raw_part.0, command, data, flags, sys::dm_shim_curlwp())
        })
    }

    fn in_core(&self) -> InCore {
        match self.in_core.load(Ordering::Relaxed) {
            0 => InCore::MadeUp,
            1 => InCore::Read,
            _ => InCore::Set,
        }
    }

    fn set_in_core(&self, what: InCore) {
        self.in_core.store(what as u8, Ordering::Relaxed);
    }

    /// The in-core label, when it is one that was set, or (`old`) one that was read before.
    pub fn label(&self, old: bool) -> Option<sys::disklabel> {
        self.locked(|disk| match self.in_core() {
            InCore::MadeUp => None,
            InCore::Read if !old => None,
            // SAFETY: disk_attach allocated the label; dk_openlock guards it.
            InCore::Read | InCore::Set => Some(unsafe { *(*disk).dk_label }),
        })
    }

    /// Makes a label the in-core one, unless one was set meanwhile.
    pub fn remember_label(&self, label: &sys::disklabel, read: bool) {
        self.locked(|disk| {
            if self.in_core() != InCore::Set {
                // SAFETY: disk_attach allocated the label; dk_openlock guards it.
                unsafe { *(*disk).dk_label = *label };
                self.set_in_core(if read { InCore::Read } else { InCore::MadeUp });
            }
        });
    }

    /// Reads the label from the disk itself, over one that tells the disk's size; `false` if it
    /// has none.
    pub fn read_label(&self, dev: Dev, strategy: Strategy, label: &mut sys::disklabel) -> bool {
        let raw = self.raw.get();
        // SAFETY: the function reads through our own strategy routine, and writes the label and
        // the MBR's partitions, which disk_attach allocated.
        let message =
            unsafe { sys::readdisklabel(dev.0, Some(strategy), label, (*raw).dk_cpulabel) };
        message.is_null()
    }

    /// Checks a label and makes it the in-core one; `sector_size` is the disk's. The label comes
    /// back as it is to be written.
    ///
    /// # Errors
    /// EINVAL for one that is none, or not this disk's.
    pub fn set_label(
        &self,
        new: &sys::disklabel,
        sector_size: u32,
    ) -> Result<sys::disklabel, Errno> {
        let mut new = *new;
        // The kernel believes the rest: writedisklabel reads sectors of this size into a buffer
        // for three of them, and divides by the tracks.
        if new.d_secsize != sector_size
            || new.d_ntracks == 0
            || u32::from(new.d_npartitions) > sys::MAXPARTITIONS as u32
        {
            return Err(Errno::EINVAL);
        }
        self.locked(|disk| {
            // SAFETY: all three live; dk_openlock guards the in-core label.
            Errno::check(unsafe {
                sys::setdisklabel((*disk).dk_label, &raw mut new, 0, (*disk).dk_cpulabel)
            })?;
            self.set_in_core(InCore::Set);
            Ok(new)
        })
    }

    /// Writes a label that [`Disk::set_label`] has found good to the disk. Not the in-core one: a
    /// change of the table may have put there what some disk says.
    ///
    /// # Errors
    /// Those of the port's code or of the I/O.
    pub fn write_label(
        &self,
        dev: Dev,
        strategy: Strategy,
        label: &sys::disklabel,
    ) -> Result<(), Errno> {
        let (raw, mut label) = (self.raw.get(), *label);
        // SAFETY: the function reads and writes through our own strategy routine, and uses the
        // label and the MBR's partitions, which disk_attach allocated.
        Errno::check(unsafe {
            sys::writedisklabel(dev.0, Some(strategy), &raw mut label, (*raw).dk_cpulabel)
        })
    }

    /// Sets the statistics to no I/O in flight, which disk_detach(9) wants to see. Context: a
    /// thread that removes the device, beside which nothing else changes them.
    pub fn rest(&self) {
        // SAFETY: disk_attach(9) made dk_stats, and only this driver changes this disk's.
        unsafe { (*(*self.raw.get()).dk_stats).io_busy = 0 };
    }

    /// Adds to the statistics. Context: thread or soft interrupt; does not sleep. The caller
    /// serialises.
    pub fn account(&self, n: &Transfers) {
        let usec = |ticks: u64| {
            let hz = u64::try_from(super::cpu::hz()).unwrap_or(100).max(1);
            ticks.saturating_mul(1_000_000) / hz
        };
        // SAFETY: disk_attach(9) made dk_stats, and only this driver changes this disk's.
        unsafe {
            let stats = (*self.raw.get()).dk_stats;
            (*stats).io_rxfer = (*stats).io_rxfer.wrapping_add(n.reads);
            (*stats).io_wxfer = (*stats).io_wxfer.wrapping_add(n.writes);
            (*stats).io_rbytes = (*stats).io_rbytes.wrapping_add(n.read.to_bytes().unwrap_or(0));
            (*stats).io_wbytes = (*stats).io_wbytes.wrapping_add(n.written.to_bytes().unwrap_or(0));
            (*stats).io_busy = i32::try_from(n.in_flight).unwrap_or(i32::MAX);
            // Overlapping I/O is busy once: never longer than the time that has passed.
            let busy = n.busy_ticks.min(n.elapsed_ticks);
            add_usec(&raw mut (*stats).io_busysum, usec(n.busy_ticks));
            add_usec(&raw mut (*stats).io_busytime, usec(busy));
            sys::getmicrouptime(&raw mut (*stats).io_timestamp);
        }
    }
}

/// Adds microseconds to a time.
///
/// # Safety
/// `time` is valid.
unsafe fn add_usec(time: *mut sys::timeval, usec: u64) {
    // SAFETY: the caller's promise. iostat(8)'s sysctl may read it meanwhile.
    unsafe {
        let usec = usec.saturating_add(u64::try_from((*time).tv_usec).unwrap_or(0));
        (*time).tv_sec = (*time).tv_sec.wrapping_add((usec / 1_000_000) as _);
        (*time).tv_usec = (usec % 1_000_000) as _;
    }
}

impl Drop for Disk {
    /// Detaches the disk. Context: a thread that holds no lock.
    fn drop(&mut self) {
        // SAFETY: attached (invariant), once; no reference to it is left.
        unsafe {
            sys::disk_detach(self.raw.get());
            sys::disk_destroy(self.raw.get());
        }
    }
}

/// Makes up the label of a disk that carries none: one partition, all of it.
pub fn default_label(label: &mut sys::disklabel, size: Sector, sector_size: u32) {
    // SAFETY: plain numbers and characters.
    *label = unsafe { core::mem::zeroed() };
    let sectors = size.0 / u64::from(sector_size / DEV_BSIZE).max(1);
    // A label's numbers have 32 bits: a larger disk is given the largest size.
    let sectors = u32::try_from(sectors).unwrap_or(u32::MAX);
    label.d_magic = sys::DISKMAGIC as _;
    label.d_magic2 = sys::DISKMAGIC as _;
    label.d_type = sys::DKTYPE_LD as _;
    for (to, from) in label.d_typename.iter_mut().zip(b"dm") {
        *to = *from as _;
    }
    // SAFETY: any bytes are a name.
    let packname = unsafe { &mut label.d_un.un_d_packname };
    for (to, from) in packname.iter_mut().zip(b"fictitious") {
        *to = *from as _;
    }
    label.d_secsize = sector_size;
    label.d_nsectors = NSECTORS;
    label.d_ntracks = NTRACKS;
    label.d_secpercyl = NSECTORS * NTRACKS;
    label.d_ncylinders = sectors / (NSECTORS * NTRACKS);
    label.d_secperunit = sectors;
    label.d_rpm = 3600;
    label.d_interleave = 1;
    label.d_npartitions = sys::RAW_PART as u16 + 1;
    if let Some(raw) = label.d_partitions.get_mut(sys::RAW_PART as usize) {
        raw.p_size = sectors;
    }
    label.d_checksum = checksum(label);
}

/// A label's checksum: all its 16-bit words, up to its last partition, exclusive-ored give 0.
fn checksum(label: &sys::disklabel) -> u16 {
    let partition = size_of::<sys::partition>();
    let head = core::mem::offset_of!(sys::disklabel, d_partitions);
    let words = (head + partition * usize::from(label.d_npartitions)).min(size_of_val(label)) / 2;
    let start: *const sys::disklabel = label;
    // SAFETY: a label is plain memory of at least `words` 16-bit words, and aligned for them.
    let words = unsafe { core::slice::from_raw_parts(start.cast::<u16>(), words) };
    words.iter().fold(0, |sum, word| sum ^ word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_label_checks_and_is_true() {
        // SAFETY: plain numbers.
        let mut label = unsafe { core::mem::zeroed() };
        default_label(&mut label, Sector(1 << 20), 4096);
        assert_eq!(checksum(&label), 0);
        assert_eq!((label.d_secsize, label.d_secperunit), (4096, 1 << 17));
        default_label(&mut label, Sector(1 << 40), 512);
        assert_eq!(label.d_secperunit, u32::MAX);
    }
}
