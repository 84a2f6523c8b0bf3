// SPDX-License-Identifier: BSD-2-Clause

//! vnode(9) and vnodeops(9), as far as block devices go.
//!
//! Context of everything here that asks a device: a thread that holds no lock of the driver's. It
//! sleeps for the vnode's lock (vn_lock(9)), in the device's driver, and for its I/O.
//! [`Vnode::strategy`] alone is for soft interrupts too.

use alloc::ffi::CString;
use core::ffi::{c_int, c_void};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use dm_core::Errno;
use dm_core::limits;
use dm_core::units::{DEV_BSIZE, Dev, Sector, SectorRange};

use super::sys;

/// An open block device.
///
/// # Invariants
/// The vnode is referenced and open with `flags`, by us alone: NetBSD opens a block device once.
///
/// Fields are marked by what protects them: (-) never changes; (a) atomic.
pub struct BlockDevice {
    /// (-) The device's vnode.
    vnode: Vnode,
    /// (-) The device's number.
    dev: Dev,
    /// (a) FREAD, and FWRITE once the device is open for writing. FWRITE is never cleared.
    flags: AtomicI32,
    /// (a) `true` until the device is first asked: `flags` are what its driver allowed just now.
    fresh: AtomicBool,
}

/// The vnode of an open block device, to start I/O with. A copy holds no reference: its holder sees
/// to it that the device stays open.
#[derive(Clone, Copy)]
pub struct Vnode(NonNull<sys::vnode>);

// SAFETY: vnodes have locks of their own; what is called here takes them.
unsafe impl Send for Vnode {}
// SAFETY: as above.
unsafe impl Sync for Vnode {}

impl Vnode {
    fn raw(self) -> *mut sys::vnode {
        self.0.as_ptr()
    }

    /// Starts an I/O. Context: thread or soft interrupt; the device's driver may sleep in a thread.
    ///
    /// # Safety
    /// The device is open until the I/O is done; when that is, perhaps before this returns, it may
    /// be closed. `buf` is filled in for this device, b_vp null so that the vnode does not count
    /// it, and it and its data live until it is done.
    #[inline]
    pub unsafe fn strategy(self, buf: *mut sys::buf) {
        // SAFETY: the caller's promise. An error has completed the buffer with it.
        unsafe { sys::VOP_STRATEGY(self.raw(), buf) };
    }
}

/// Finds the block device at `path`, following symbolic links. It is not opened. Sleeps for the
/// file systems on the way, also while one of them is suspended.
///
/// # Errors
/// ENOENT, ENOTBLK, or those of the file system.
pub fn find(path: &str) -> Result<Dev, Errno> {
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    let mut vnode = ptr::null_mut();
    // SAFETY: a string with its NUL, and room for the answer.
    Errno::check(unsafe { sys::dm_shim_namei(path.as_ptr(), &raw mut vnode) })?;
    // SAFETY: the look-up gave a reference to `vnode`, which is let go here.
    unsafe {
        let dev = sys::dm_shim_isblock(vnode).then(|| Dev(sys::dm_shim_rdev(vnode)));
        sys::vrele(vnode);
        dev.ok_or(Errno::ENOTBLK)
    }
}

impl BlockDevice {
    /// Opens a device, for reading and writing if it can be, else for reading.
    ///
    /// # Errors
    /// ENXIO, EBUSY when it is open elsewhere or mounted, or those of its driver.
    pub fn open(dev: Dev) -> Result<BlockDevice, Errno> {
        let (vnode, flags) = match open(dev, BOTH) {
            Err(errno) if takes_no_writes(errno) => (open(dev, sys::FREAD)?, sys::FREAD),
            vnode => (vnode?, BOTH),
        };
        let (flags, fresh) = (AtomicI32::new(flags), AtomicBool::new(true));
        Ok(BlockDevice { vnode, dev, flags, fresh })
    }

    /// `true` if the device was revoked: the vnode is dead, and the device was closed. Sleeps while
    /// it is being revoked, so that the caller holds no lock of the driver's. The vnode's lock is
    /// not taken: another thread has that while it waits in the device's driver to discard, for a
    /// resume perhaps that is this thread's to do.
    pub fn is_dead(&self) -> bool {
        let vnode = self.vnode.raw();
        // SAFETY: the vnode is referenced (invariant), and its interlock held as vdead_check asks.
        unsafe {
            sys::mutex_enter((*vnode).v_interlock);
            let dead = sys::vdead_check(vnode, 0) != 0;
            sys::mutex_exit((*vnode).v_interlock);
            dead
        }
    }

    /// The device's size now, and bytes in its sectors.
    ///
    /// # Errors
    /// Its driver's, EINVAL for sizes that are not to be worked with.
    pub fn size(&self) -> Result<(Sector, u32), Errno> {
        let (mut sectors, mut bytes) = (0u64, 0u32);
        // SAFETY: the vnode is open (invariant), and there is room for the answers.
        Errno::check(unsafe {
            sys::getdisksize(self.vnode.raw(), &raw mut sectors, &raw mut bytes)
        })?;
        if !(DEV_BSIZE..=limits::SECTOR).contains(&bytes) || !bytes.is_power_of_two() {
            return Err(Errno::EINVAL);
        }
        let size = sectors.checked_mul(u64::from(bytes / DEV_BSIZE)).map(Sector);
        let size = size.filter(|size| *size <= Sector::MAX).ok_or(Errno::EINVAL)?;
        Ok((size, bytes))
    }

    /// [`BlockDevice::size`] of a device of this driver's, from one answer of it. getdisksize(9)
    /// takes the number of sectors from one place and their size from another, which a resume
    /// changes in turn. 0 for a device without a table.
    ///
    /// # Errors
    /// The driver's.
    pub fn own_size(&self) -> Result<(Sector, u32), Errno> {
        // SAFETY: plain numbers.
        let mut whole: sys::partinfo = unsafe { core::mem::zeroed() };
        // SAFETY: DIOCGPARTINFO gives a struct partinfo.
        unsafe { self.ioctl(sys::DIOCGPARTINFO as u32, &mut whole)? };
        let sectors = whole.pi_size.checked_mul(u64::from(whole.pi_secsize / DEV_BSIZE));
        Ok((sectors.map(Sector).ok_or(Errno::EINVAL)?, whole.pi_secsize))
    }

    /// Asks the device's driver whether it takes writes now, as an open(2) for writing does. A
    /// driver's d_open is called for every open and its d_close after the last, so this needs no
    /// close of its own; a device that was opened for reading is open for writing after it.
    ///
    /// # Errors
    /// Its driver's, other than that it takes none; ENXIO if it is dead.
    pub fn ask_writable(&self) -> Result<bool, Errno> {
        if self.fresh.swap(false, Ordering::Relaxed) {
            return Ok(self.is_open_for_writing());
        }
        if self.is_dead() {
            return Err(Errno::ENXIO);
        }
        // SAFETY: the vnode is referenced (invariant); one that is revoked meanwhile is, to
        // kauth(9), no disk's. The device's number is that of an open device.
        let asked = unsafe {
            Errno::check(sys::dm_shim_may_write(self.vnode.raw())).and_then(|()| {
                let lwp = sys::dm_shim_curlwp();
                Errno::check(sys::bdev_open(self.dev.0, BOTH, sys::S_IFBLK, lwp))
            })
        };
        match asked {
            Ok(()) => {}
            Err(errno) if takes_no_writes(errno) => return Ok(false),
            Err(errno) => return Err(errno),
        }
        // Revoked in between, its number is another unit's: the thread that opens that one closes
        // it.
        if self.is_dead() {
            return Err(Errno::ENXIO);
        }
        if self.flags.fetch_or(sys::FWRITE, Ordering::Relaxed) & sys::FWRITE == 0 {
            count_writer(self.vnode);
        }
        Ok(true)
    }

    /// The device's number.
    #[inline]
    pub fn dev(&self) -> Dev {
        self.dev
    }

    /// The vnode, to start I/O with.
    #[inline]
    pub fn vnode(&self) -> Vnode {
        self.vnode
    }

    /// `true` if the device is open for writing.
    pub fn is_open_for_writing(&self) -> bool {
        self.flags() & sys::FWRITE != 0
    }

    fn flags(&self) -> c_int {
        self.flags.load(Ordering::Relaxed)
    }

    /// Sends the device an ioctl.
    ///
    /// # Errors
    /// Its driver's.
    ///
    /// # Safety
    /// `T` is what `command` reads and writes.
    pub unsafe fn ioctl<T>(&self, command: u32, data: &mut T) -> Result<(), Errno> {
        let data: *mut T = data;
        // SAFETY: the vnode is open (invariant), and the data fits (caller's promise). No lock is
        // needed for a device's ioctl.
        Errno::check(unsafe {
            let cred = sys::kauth_cred_get();
            sys::VOP_IOCTL(self.vnode.raw(), command as _, data.cast(), self.flags(), cred)
        })
    }

    /// Flushes the device's cache (DIOCCACHESYNC). `force` is that
    /// ioctl's argument.
    ///
    /// # Errors
    /// Its driver's. A disk without a cache, or one that cannot be written, has nothing to do.
    /// Drivers without one say so in several ways: ENOTTY and ENODEV, EINVAL (md(4)'s raw
    /// partition), EOPNOTSUPP (xbd(4)).
    pub fn flush(&self, force: c_int) -> Result<(), Errno> {
        if !self.is_open_for_writing() {
            return Ok(());
        }
        let mut force = force;
        // SAFETY: DIOCCACHESYNC takes an int.
        match unsafe { self.ioctl(sys::DIOCCACHESYNC as u32, &mut force) } {
            Err(Errno::ENOTTY | Errno::ENODEV | Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(()),
            result => result,
        }
    }

    /// `true` if the device's driver puts a write with B_MEDIA_FUA on stable storage before it
    /// answers (DIOCGCACHE). A driver that reports no write cache is not believed: ld(4) at
    /// virtio(4) reads that from a register that the host need not have, and a cache may be turned
    /// on later.
    pub fn keeps_fua(&self) -> bool {
        let mut bits: c_int = 0;
        // SAFETY: DIOCGCACHE gives an int.
        let known = unsafe { self.ioctl(sys::DIOCGCACHE as u32, &mut bits) };
        known.is_ok() && bits & sys::DKCACHE_FUA as c_int != 0
    }

    /// Discards a range of the device (TRIM).
    ///
    /// # Errors
    /// Its driver's; ENODEV if it cannot.
    pub fn discard(&self, range: SectorRange) -> Result<(), Errno> {
        let bytes =
            |s: Sector| s.to_bytes().and_then(|b| i64::try_from(b).ok()).ok_or(Errno::EINVAL);
        let (start, length) = (bytes(range.start)?, bytes(range.length)?);
        // SAFETY: the vnode is referenced and open (invariant), and locked for the operation as
        // VOP_FDISCARD(9) asks.
        Errno::check(unsafe {
            sys::vn_lock(self.vnode.raw(), sys::LK_EXCLUSIVE | sys::LK_RETRY);
            let error = sys::VOP_FDISCARD(self.vnode.raw(), start, length);
            sys::VOP_UNLOCK(self.vnode.raw());
            error
        })
    }

    /// Reads one of the device's sectors, `bytes.len()` long, and waits for it.
    ///
    /// # Errors
    /// Its driver's.
    pub fn read(&self, sector: Sector, bytes: &mut [u8]) -> Result<(), Errno> {
        let length = c_int::try_from(bytes.len()).map_err(|_| Errno::EINVAL)?;
        let blkno = i64::try_from(sector.0).map_err(|_| Errno::EINVAL)?;
        // SAFETY: getiobuf(9), told that it may wait, gives an initialised buffer; its data lives
        // until biowait(9) has seen it done.
        unsafe {
            let buf = sys::getiobuf(ptr::null_mut(), true);
            (*buf).b_flags = sys::B_READ as _;
            (*buf).b_cflags |= sys::BC_BUSY as u32;
            (*buf).b_dev = self.dev.0;
            (*buf).b_data = bytes.as_mut_ptr().cast::<c_void>();
            (*buf).b_bcount = length;
            (*buf).b_bufsize = length;
            (*buf).b_resid = length;
            (*buf).b_blkno = blkno;
            self.vnode.strategy(buf);
            let error = sys::biowait(buf);
            let short = (*buf).b_resid != 0;
            sys::putiobuf(buf);
            Errno::check(error)?;
            if short { Err(Errno::EIO) } else { Ok(()) }
        }
    }
}

const BOTH: c_int = sys::FREAD | sys::FWRITE;

/// `true` for an error with which a driver, or secmodel_securelevel(9), says that a device may be
/// read only.
fn takes_no_writes(errno: Errno) -> bool {
    matches!(errno, Errno::EROFS | Errno::EACCES | Errno::EPERM | Errno::ENODEV)
}

/// Opens a device with these flags.
///
/// # Errors
/// Those of [`BlockDevice::open`].
fn open(dev: Dev, flags: c_int) -> Result<Vnode, Errno> {
    let mut vnode = ptr::null_mut();
    // SAFETY: bdevvp(9) gives a referenced vnode, which is locked for VOP_OPEN(9), and let go if
    // that fails.
    let vnode = unsafe {
        Errno::check(sys::bdevvp(dev.0, &raw mut vnode))?;
        let vnode = NonNull::new(vnode).ok_or(Errno::ENXIO)?;
        let raw = vnode.as_ptr();
        sys::vn_lock(raw, sys::LK_EXCLUSIVE | sys::LK_RETRY);
        let error = sys::VOP_OPEN(raw, flags, sys::kauth_cred_get());
        if let Err(errno) = Errno::check(error) {
            sys::vput(raw);
            return Err(errno);
        }
        sys::VOP_UNLOCK(raw);
        Vnode(vnode)
    };
    if flags & sys::FWRITE != 0 {
        count_writer(vnode);
    }
    Ok(vnode)
}

/// Counts a writer, as vn_open(9) does and vn_close(9) undoes.
fn count_writer(vnode: Vnode) {
    let raw = vnode.raw();
    // SAFETY: the vnode is referenced, and its interlock guards the count.
    unsafe {
        sys::mutex_enter((*raw).v_interlock);
        (*raw).v_writecount = (*raw).v_writecount.wrapping_add(1);
        sys::mutex_exit((*raw).v_interlock);
    }
}

impl Drop for BlockDevice {
    /// Closes the device. Sleeps in its driver.
    fn drop(&mut self) {
        // SAFETY: opened once (invariant), closed once. An error would leave nothing to be done.
        unsafe { sys::vn_close(self.vnode.raw(), self.flags(), sys::kauth_cred_get()) };
    }
}
