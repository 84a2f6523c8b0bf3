//! vnode(9) and vnodeops(9), as far as block devices go.

use alloc::ffi::CString;
use core::ffi::{c_int, c_void};
use core::ptr::{self, NonNull};

use dm_core::Errno;
use dm_core::limits;
use dm_core::units::{DEV_BSIZE, Dev, Sector};

use super::disk::Strategy;
use super::sys;

/// A block device, open.
///
/// # Invariants
/// The vnode is referenced and open with `flags`, by us alone: NetBSD opens a block device once.
pub struct BlockDevice {
    vnode: NonNull<sys::vnode>,
    dev: Dev,
    flags: c_int,
    size: Sector,
    sector_size: u32,
}

// SAFETY: vnodes have locks of their own; what is called here takes them.
unsafe impl Send for BlockDevice {}
// SAFETY: as above.
unsafe impl Sync for BlockDevice {}

/// Finds the block device at `path`, following symbolic links. It is not opened.
///
/// # Errors
/// ENOENT, ENOTBLK, or what the file system says.
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
    /// ENXIO, EBUSY when it is open elsewhere or mounted, or what its driver says.
    pub fn open(dev: Dev) -> Result<BlockDevice, Errno> {
        let both = sys::FREAD | sys::FWRITE;
        let (vnode, flags) = match open(dev, both) {
            Err(Errno::EROFS | Errno::EACCES | Errno::EPERM | Errno::ENODEV) => {
                (open(dev, sys::FREAD)?, sys::FREAD)
            }
            vnode => (vnode?, both),
        };
        let mut device =
            BlockDevice { vnode, dev, flags, size: Sector::ZERO, sector_size: DEV_BSIZE };
        // From here on, dropping it closes it.
        let (mut sectors, mut bytes) = (0u64, 0u32);
        // SAFETY: the vnode is open (invariant), and there is room for the answers.
        Errno::check(unsafe {
            sys::getdisksize(vnode.as_ptr(), &raw mut sectors, &raw mut bytes)
        })?;
        if !(DEV_BSIZE..=limits::SECTOR).contains(&bytes) || !bytes.is_power_of_two() {
            return Err(Errno::EINVAL);
        }
        let size = sectors.checked_mul(u64::from(bytes / DEV_BSIZE)).map(Sector);
        device.size = size.filter(|size| *size <= Sector::MAX).ok_or(Errno::EINVAL)?;
        device.sector_size = bytes;
        Ok(device)
    }

    /// Its number.
    #[inline]
    pub fn dev(&self) -> Dev {
        self.dev
    }

    /// Its size.
    pub fn size(&self) -> Sector {
        self.size
    }

    /// Bytes in its sectors.
    pub fn sector_size(&self) -> u32 {
        self.sector_size
    }

    /// Whether it was opened for writing.
    pub fn writable(&self) -> bool {
        self.flags & sys::FWRITE != 0
    }

    /// ioctl(2) on it.
    ///
    /// # Errors
    /// What its driver says.
    ///
    /// # Safety
    /// `T` is what `command` reads and writes.
    pub unsafe fn ioctl<T>(&self, command: u32, data: &mut T) -> Result<(), Errno> {
        let data: *mut T = data;
        // SAFETY: the vnode is open (invariant), and the data fits (caller's promise). No lock is
        // needed for a device's ioctl.
        Errno::check(unsafe {
            let cred = sys::kauth_cred_get();
            sys::VOP_IOCTL(self.vnode.as_ptr(), command as _, data.cast(), self.flags, cred)
        })
    }

    /// Has its driver put what was written on stable storage (DIOCCACHESYNC). `force` is that
    /// ioctl's argument.
    ///
    /// # Errors
    /// What its driver says. A disk without a cache, or one that cannot be written, has nothing to
    /// do.
    pub fn flush(&self, force: c_int) -> Result<(), Errno> {
        if !self.writable() {
            return Ok(());
        }
        let mut force = force;
        // SAFETY: DIOCCACHESYNC takes an int.
        match unsafe { self.ioctl(sys::DIOCCACHESYNC as u32, &mut force) } {
            Err(Errno::ENOTTY | Errno::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// Frees a range of it (TRIM).
    ///
    /// # Errors
    /// What its driver says; ENODEV if it cannot.
    pub fn discard(&self, start: Sector, length: Sector) -> Result<(), Errno> {
        let bytes =
            |s: Sector| s.to_bytes().and_then(|b| i64::try_from(b).ok()).ok_or(Errno::EINVAL);
        let (start, length) = (bytes(start)?, bytes(length)?);
        // SAFETY: the vnode is referenced and open (invariant), and locked for the operation as
        // VOP_FDISCARD(9) asks.
        Errno::check(unsafe {
            sys::vn_lock(self.vnode.as_ptr(), sys::LK_EXCLUSIVE | sys::LK_RETRY);
            let error = sys::VOP_FDISCARD(self.vnode.as_ptr(), start, length);
            sys::VOP_UNLOCK(self.vnode.as_ptr());
            error
        })
    }

    /// Starts an I/O.
    ///
    /// # Safety
    /// `buf` is filled in for this device, b_vp null so that the vnode does not count it, and it
    /// and its data live until it is done; so does `self`.
    #[inline]
    pub unsafe fn strategy(&self, buf: *mut sys::buf) {
        // SAFETY: the vnode is open (invariant), the buffer is the caller's promise. An error has
        // completed the buffer with it.
        unsafe { sys::VOP_STRATEGY(self.vnode.as_ptr(), buf) };
    }

    /// Reads one of its sectors, `bytes.len()` long, and waits for it. The I/O goes to `strategy`
    /// where there is one, which is another of its driver's, else by way of the vnode.
    ///
    /// # Errors
    /// What its driver says.
    pub fn read(
        &self,
        sector: Sector,
        bytes: &mut [u8],
        strategy: Option<Strategy>,
    ) -> Result<(), Errno> {
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
            match strategy {
                Some(strategy) => strategy(buf),
                None => self.strategy(buf),
            }
            let error = sys::biowait(buf);
            let short = (*buf).b_resid != 0;
            sys::putiobuf(buf);
            Errno::check(error)?;
            if short { Err(Errno::EIO) } else { Ok(()) }
        }
    }
}

fn open(dev: Dev, flags: c_int) -> Result<NonNull<sys::vnode>, Errno> {
    let mut vnode = ptr::null_mut();
    // SAFETY: bdevvp(9) gives a referenced vnode, which is locked for VOP_OPEN(9), and let go if
    // that fails. The count of writers is guarded by the vnode's interlock.
    unsafe {
        Errno::check(sys::bdevvp(dev.0, &raw mut vnode))?;
        let vnode = NonNull::new(vnode).ok_or(Errno::ENXIO)?;
        let raw = vnode.as_ptr();
        sys::vn_lock(raw, sys::LK_EXCLUSIVE | sys::LK_RETRY);
        let error = sys::VOP_OPEN(raw, flags, sys::kauth_cred_get());
        if let Err(errno) = Errno::check(error) {
            sys::vput(raw);
            return Err(errno);
        }
        if flags & sys::FWRITE != 0 {
            sys::mutex_enter((*raw).v_interlock);
            (*raw).v_writecount = (*raw).v_writecount.wrapping_add(1);
            sys::mutex_exit((*raw).v_interlock);
        }
        sys::VOP_UNLOCK(raw);
        Ok(vnode)
    }
}

impl Drop for BlockDevice {
    fn drop(&mut self) {
        // SAFETY: opened once (invariant), closed once. An error would leave nothing to be done.
        unsafe { sys::vn_close(self.vnode.as_ptr(), self.flags, sys::kauth_cred_get()) };
    }
}
