// SPDX-License-Identifier: BSD-2-Clause

//! Open device nodes: what open(2), ioctl(2), pread(2) and their kin do in a NetBSD process.

use std::ffi::{c_int, c_void};

use crate::dev::Dev;
use crate::errno::Errno;
use crate::kauth::kauth_cred_get;
use crate::lwp::{self, syscall};
use crate::mutex;
use crate::netbsd as nb;
use crate::proplib::{Reply, request};
use crate::specfs;
use crate::strategy::{Io, IoResult, Memory, Request, transfer};

/// The flags that a node is opened with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags(pub c_int);

impl Flags {
    /// O_RDONLY
    pub const READ: Flags = Flags(nb::FREAD);
    /// O_WRONLY
    pub const WRITE: Flags = Flags(nb::FWRITE);
    /// O_RDWR
    pub const READ_WRITE: Flags = Flags(nb::FREAD | nb::FWRITE);
}

/// A device node, by name or by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node<'a> {
    /// A path in the machine's name space.
    Path(&'a str),
    /// A block device.
    Block(Dev),
    /// A character device.
    Character(Dev),
}

impl<'a> From<&'a str> for Node<'a> {
    fn from(path: &'a str) -> Self {
        Node::Path(path)
    }
}

impl<'a> From<&'a String> for Node<'a> {
    fn from(path: &'a String) -> Self {
        Node::Path(path)
    }
}

/// An open device node. Dropping it closes it.
pub struct File {
    vp: *mut nb::vnode,
    flags: c_int,
    block: bool,
}

// SAFETY: a vnode may be used from any thread; its operations lock what they need to.
unsafe impl Send for File {}
// SAFETY: as above.
unsafe impl Sync for File {}

impl File {
    /// Opens a node: ENOENT, ENXIO, EBUSY, and the driver's errors.
    pub(crate) fn open(node: Node<'_>, flags: Flags) -> Result<File, Errno> {
        syscall(|| {
            let vp = match node {
                Node::Path(path) => specfs::namei(path)?,
                Node::Block(dev) => specfs::vnode_of(true, dev)?,
                Node::Character(dev) => specfs::vnode_of(false, dev)?,
            };
            // SAFETY: a referenced vnode; the operations' rules about its lock are kept.
            unsafe {
                let Some(block) = specfs::is_block(vp) else {
                    specfs::vrele(vp);
                    return Err(Errno::ENXIO);
                };
                specfs::vn_lock(vp, nb::LK_EXCLUSIVE | nb::LK_RETRY);
                let error = specfs::VOP_OPEN(vp, flags.0, kauth_cred_get());
                if error != 0 {
                    specfs::vput(vp);
                    return Err(Errno(error));
                }
                if flags.0 & nb::FWRITE != 0 {
                    let lwp = lwp::current();
                    mutex::enter((*vp).v_interlock, lwp);
                    (*vp).v_writecount += 1;
                    mutex::exit((*vp).v_interlock, lwp);
                }
                specfs::VOP_UNLOCK(vp);
                Ok(File { vp, flags: flags.0, block })
            }
        })
    }

    /// The node's device number.
    pub fn dev(&self) -> Dev {
        specfs::rdev(self.vp)
    }

    /// The size that the node had when it was opened, in bytes.
    pub fn size(&self) -> u64 {
        // SAFETY: an open vnode.
        unsafe { (*self.vp).v_size as u64 }
    }

    /// ioctl(2): `data` is copied in, and copied out if the command succeeds.
    pub fn ioctl<T: Copy>(&self, cmd: u64, data: &mut T) -> Result<(), Errno> {
        let mut kernel = *data;
        // SAFETY: the command takes a T, says the caller; the length is checked.
        unsafe {
            let len = cmd >> 16 & 0x1fff;
            assert!(
                len as usize == size_of::<T>() || len == 0,
                "the command takes {len} bytes, not {}",
                size_of::<T>()
            );
            self.ioctl_raw(cmd, (&raw mut kernel).cast())?;
        }
        *data = kernel;
        Ok(())
    }

    /// ioctl(2) with kernel memory that the caller provides.
    ///
    /// # Safety
    ///
    /// `data` points to what the command takes.
    pub unsafe fn ioctl_raw(&self, cmd: u64, data: *mut c_void) -> Result<(), Errno> {
        syscall(|| {
            // SAFETY: the caller's promise.
            let error =
                unsafe { specfs::VOP_IOCTL(self.vp, cmd, data, self.flags, kauth_cred_get()) };
            // No layer handles the command.
            Errno::check(if error == Errno::EPASSTHROUGH.0 { Errno::ENOTTY.0 } else { error })
        })
    }

    /// NETBSD_DM_IOCTL: sends a property list and returns the answer.
    pub fn plist_ioctl(&self, xml: &str) -> Result<String, Errno> {
        self.plist_ioctl_bytes(xml.as_bytes())
    }

    /// Sends bytes as [`File::plist_ioctl`] does, which may be no property list at all.
    pub fn plist_ioctl_bytes(&self, bytes: &[u8]) -> Result<String, Errno> {
        let mut reference = request(bytes);
        let before = reference.pref_plist;
        self.ioctl(nb::NETBSD_DM_IOCTL as u64, &mut reference)?;
        if reference.pref_plist == before {
            return Ok(String::new());
        }
        // SAFETY: the driver replaced it by a copyout.
        Ok(unsafe { Reply::take(&reference) }.text())
    }

    /// DIOCGDISKINFO and its like: an answer without a question.
    pub fn plist_query(&self, cmd: u64) -> Result<String, Errno> {
        let mut reference = nb::plistref { pref_plist: std::ptr::null_mut(), pref_len: 0 };
        self.ioctl(cmd, &mut reference)?;
        // SAFETY: as above.
        Ok(unsafe { Reply::take(&reference) }.text())
    }

    /// pread(2): bytes read, fewer at the device's end. The block node takes whole sectors only.
    pub fn pread(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        if self.flags & nb::FREAD == 0 {
            return Err(Errno::EBADF);
        }
        if self.block {
            return self.through_block(offset, buf.len(), true, |io, range| {
                buf[range].copy_from_slice(io);
            });
        }
        // SAFETY: `buf` is that much memory.
        unsafe { self.transfer(buf.as_mut_ptr().cast(), buf.len(), offset, true) }
    }

    /// pwrite(2): bytes written.
    pub fn pwrite(&self, buf: &[u8], offset: u64) -> Result<usize, Errno> {
        if self.flags & nb::FWRITE == 0 {
            return Err(Errno::EBADF);
        }
        if self.block {
            return self.write_block(buf, offset);
        }
        // SAFETY: `buf` is that much memory; a write only reads it.
        unsafe { self.transfer(buf.as_ptr().cast_mut().cast(), buf.len(), offset, false) }
    }

    /// Character I/O with an address of the caller's choice, which may be a bad one.
    ///
    /// # Safety
    ///
    /// Memory at the address, if there is any, is the caller's to read or write.
    pub unsafe fn transfer(
        &self,
        at: *mut c_void,
        len: usize,
        offset: u64,
        read: bool,
    ) -> Result<usize, Errno> {
        syscall(|| {
            let mut iov = nb::iovec { iov_base: at, iov_len: len };
            // SAFETY: a uio is integers and pointers, for which zeros are valid.
            let mut uio: nb::uio = unsafe { std::mem::zeroed() };
            uio.uio_iov = &mut iov;
            uio.uio_iovcnt = 1;
            uio.uio_offset = offset as nb::__off_t;
            uio.uio_resid = len;
            uio.uio_rw = if read { nb::uio_rw_UIO_READ } else { nb::uio_rw_UIO_WRITE };
            // SAFETY: an open vnode and a transfer of ours.
            let error = unsafe {
                if read {
                    specfs::VOP_READ(self.vp, &mut uio, 0, kauth_cred_get())
                } else {
                    specfs::VOP_WRITE(self.vp, &mut uio, 0, kauth_cred_get())
                }
            };
            let done = len - uio.uio_resid;
            let interrupted = error == Errno::EINTR.0 || error == Errno::ERESTART.0;
            if error != 0 && !(interrupted && done > 0) {
                return Err(Errno(error));
            }
            Ok(done)
        })
    }

    /// Does one I/O through VOP_STRATEGY, as a file system on the block node would.
    pub fn strategy(&self, io: &mut Io, request: Request) -> IoResult {
        assert!(self.block, "VOP_STRATEGY is for block nodes");
        // SAFETY: an open block vnode.
        unsafe { io.run_vnode(self.vp, request) }
    }

    /// Sends an I/O through VOP_STRATEGY; [`Io::wait`] waits for it.
    pub fn start(&self, io: &mut Io, request: Request) {
        assert!(self.block, "VOP_STRATEGY is for block nodes");
        // SAFETY: an open block vnode, which the caller keeps open until the I/O has ended.
        unsafe { io.start_vnode(self.vp, request) };
    }

    /// Reads whole blocks of 512 bytes through VOP_STRATEGY, from `blkno` on, directly into the caller's memory: in
    /// I/Os of MAXPHYS bytes, all in flight at once.
    ///
    /// # Errors
    ///
    /// The driver's; EIO for what lies beyond the device's end.
    pub fn read_blocks(&self, to: &mut [u8], blkno: i64) -> Result<(), Errno> {
        self.transfer_blocks(Memory::Into(to), Request::read(blkno))
    }

    /// Writes as [`File::read_blocks`] reads; `flags` as [`Request::flags`].
    ///
    /// # Errors
    ///
    /// The driver's.
    pub fn write_blocks(&self, from: &[u8], blkno: i64, flags: u32) -> Result<(), Errno> {
        self.transfer_blocks(Memory::From(from), Request::write(blkno).flags(flags))
    }

    fn transfer_blocks(&self, memory: Memory<'_>, request: Request) -> Result<(), Errno> {
        assert!(self.block, "VOP_STRATEGY is for block nodes");
        transfer(memory, specfs::rdev(self.vp), request, |bp| {
            // SAFETY: an open block vnode, and a buffer that was prepared.
            unsafe { specfs::VOP_STRATEGY(self.vp, bp) };
        })
    }

    fn through_block(
        &self,
        offset: u64,
        len: usize,
        read: bool,
        mut take: impl FnMut(&[u8], std::ops::Range<usize>),
    ) -> Result<usize, Errno> {
        if !offset.is_multiple_of(512) || !len.is_multiple_of(512) {
            return Err(Errno::EINVAL);
        }
        debug_assert!(read);
        syscall(|| {
            let mut done = 0;
            while done < len {
                let count = (len - done).min(nb::MAXPHYS as usize);
                let mut io = Io::new(count);
                let blkno = ((offset + done as u64) / 512) as i64;
                // SAFETY: an open block vnode.
                let result = unsafe { io.run_vnode(self.vp, Request::read(blkno)) };
                let got = match result.transferred() {
                    Ok(got) => got,
                    Err(error) if done == 0 => return Err(error),
                    Err(_) => break,
                };
                take(&io.data()[..got], done..done + got);
                done += got;
                if got < count {
                    break;
                }
            }
            Ok(done)
        })
    }

    fn write_block(&self, buf: &[u8], offset: u64) -> Result<usize, Errno> {
        if !offset.is_multiple_of(512) || !buf.len().is_multiple_of(512) {
            return Err(Errno::EINVAL);
        }
        syscall(|| {
            let mut done = 0;
            for chunk in buf.chunks(nb::MAXPHYS as usize) {
                let mut io = Io::with_data(chunk.to_vec());
                let blkno = ((offset + done as u64) / 512) as i64;
                // SAFETY: an open block vnode.
                let result = unsafe { io.run_vnode(self.vp, Request::write(blkno)) };
                match result.transferred() {
                    Ok(put) => {
                        done += put;
                        if put < chunk.len() {
                            break;
                        }
                    }
                    Err(error) if done == 0 => return Err(error),
                    Err(_) => break,
                }
            }
            Ok(done)
        })
    }

    /// fdiscard(2): bytes from `offset` on need not be kept.
    pub fn fdiscard(&self, offset: u64, len: u64) -> Result<(), Errno> {
        if self.flags & nb::FWRITE == 0 {
            return Err(Errno::EBADF);
        }
        syscall(|| {
            // SAFETY: an open vnode, locked for the operation.
            let error = unsafe {
                specfs::vn_lock(self.vp, nb::LK_EXCLUSIVE | nb::LK_RETRY);
                let error = specfs::VOP_FDISCARD(self.vp, offset as i64, len as i64);
                specfs::VOP_UNLOCK(self.vp);
                error
            };
            Errno::check(error)
        })
    }

    /// close(2), with the driver's error.
    pub fn close(mut self) -> Result<(), Errno> {
        self.close_once()
    }

    fn close_once(&mut self) -> Result<(), Errno> {
        let vp = std::mem::replace(&mut self.vp, std::ptr::null_mut());
        if vp.is_null() {
            return Ok(());
        }
        syscall(|| {
            // SAFETY: opened by us, and not used any more.
            Errno::check(unsafe { specfs::vn_close(vp, self.flags, kauth_cred_get()) })
        })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = self.close_once();
    }
}

impl Io {
    /// Sends the I/O through VOP_STRATEGY.
    ///
    /// # Safety
    ///
    /// `vp` is an open block vnode that stays open until the I/O has ended.
    #[inline]
    unsafe fn start_vnode(&mut self, vp: *mut nb::vnode, request: Request) {
        let bp = self.prepared(specfs::rdev(vp), request);
        // SAFETY: the caller's promise; prepared.
        unsafe { specfs::VOP_STRATEGY(vp, bp) };
    }

    unsafe fn run_vnode(&mut self, vp: *mut nb::vnode, request: Request) -> IoResult {
        // SAFETY: the caller's promise, and the I/O ends before we return.
        unsafe { self.start_vnode(vp, request) };
        self.wait()
    }
}
