// SPDX-License-Identifier: BSD-2-Clause

//! Backends: the stores of disks' data.

mod nbd;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::errno::Errno;

/// The store of a disk's data.
pub enum Backend {
    /// Memory, of zeros at first.
    Memory,
    /// A file, or a block device.
    File(File),
    /// An export of an NBD server.
    Nbd(dm_nbd::Client),
    /// No data: reads leave the buffer as it is.
    Null,
}

pub(super) enum Store {
    Memory(Memory),
    File(File),
    Nbd(nbd::Export),
    Null,
}

/// The allocation of a store from a place on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allocation {
    /// Bytes that the rest is about; at least 1.
    pub length: u64,
    /// `true` if nothing is allocated for these bytes.
    pub hole: bool,
    /// `true` if these bytes are known to read as zeroes.
    pub zero: bool,
}

impl Allocation {
    /// Bytes that hold data, or of which nothing is known.
    pub const fn data(length: u64) -> Allocation {
        Allocation { length, hole: false, zero: false }
    }

    /// Bytes that hold nothing.
    pub const fn hole(length: u64) -> Allocation {
        Allocation { length, hole: true, zero: true }
    }
}

/// Memory, which one I/O writes at a time. Overlapping I/Os leave undefined content, as on a real disk: they may be
/// cut into pieces.
pub(super) struct Memory(RwLock<Box<[u8]>>);

impl Memory {
    fn read(&self) -> RwLockReadGuard<'_, Box<[u8]>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Box<[u8]>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Opens the store. Its size in bytes is `bytes`, or, if that is 0, all that the backend has; the size is
    /// returned.
    pub(super) fn open(backend: Backend, bytes: u64) -> Result<(Store, u64), Errno> {
        match backend {
            Backend::Memory => {
                let size = usize::try_from(bytes).map_err(|_| Errno::ENOMEM)?;
                let zeros = vec![0u8; size].into_boxed_slice();
                Ok((Store::Memory(Memory(RwLock::new(zeros))), bytes))
            }
            Backend::File(file) => {
                let size = if bytes == 0 { size(&file)? } else { bytes };
                Ok((Store::File(file), size))
            }
            Backend::Nbd(client) => {
                let size = if bytes == 0 { client.export().size } else { bytes };
                Ok((Store::Nbd(nbd::Export::new(client)), size))
            }
            Backend::Null => Ok((Store::Null, bytes)),
        }
    }

    /// Reads `len` bytes.
    ///
    /// # Safety
    ///
    /// `to` is `len` bytes of memory; the range lies in the store.
    pub(super) unsafe fn read(&self, offset: u64, to: *mut u8, len: usize) -> Result<(), Errno> {
        match self {
            Store::Null => Ok(()),
            Store::Memory(memory) => {
                let from = &memory.read()[offset as usize..offset as usize + len];
                // SAFETY: the caller's promise. The two do not overlap: the disk's memory is its own.
                unsafe { to.copy_from_nonoverlapping(from.as_ptr(), len) };
                Ok(())
            }
            Store::File(file) => {
                let mut done = 0;
                while done < len {
                    let at = offset + done as u64;
                    // SAFETY: the caller's promise.
                    let got = unsafe { pread(file, at, to.add(done), len - done) };
                    done += Self::progress(got)?;
                }
                Ok(())
            }
            Store::Nbd(export) => {
                let data = export.read(offset, len)?;
                // SAFETY: the caller's promise; `data` has `len` bytes of its own.
                unsafe { to.copy_from_nonoverlapping(data.as_ptr(), len) };
                Ok(())
            }
        }
    }

    /// Writes `len` bytes; with `fua`, to stable storage.
    ///
    /// # Safety
    ///
    /// `from` is `len` bytes of memory; the range lies in the store.
    pub(super) unsafe fn write(
        &self,
        offset: u64,
        from: *const u8,
        len: usize,
        fua: bool,
    ) -> Result<(), Errno> {
        match self {
            Store::Null => Ok(()),
            Store::Memory(memory) => {
                let to = &mut memory.write()[offset as usize..offset as usize + len];
                // SAFETY: as for `read`.
                unsafe { to.as_mut_ptr().copy_from_nonoverlapping(from, len) };
                Ok(())
            }
            Store::File(file) => {
                let mut done = 0;
                while done < len {
                    // SAFETY: the caller's promise.
                    let put = unsafe {
                        libc::pwrite(
                            file.as_raw_fd(),
                            from.add(done).cast(),
                            len - done,
                            (offset + done as u64) as libc::off_t,
                        )
                    };
                    done += Self::progress(put)?;
                }
                if fua { self.sync() } else { Ok(()) }
            }
            Store::Nbd(export) => {
                // SAFETY: the caller's promise.
                let data = unsafe { std::slice::from_raw_parts(from, len) };
                export.write(offset, data.to_vec(), fua)
            }
        }
    }

    fn progress(result: isize) -> Result<usize, Errno> {
        if result > 0 {
            return Ok(result as usize);
        }
        let error = std::io::Error::last_os_error();
        match error.kind() {
            _ if result == 0 => Err(Errno::EIO),
            std::io::ErrorKind::Interrupted => Ok(0),
            _ => Err(Errno::from_io(&error)),
        }
    }

    /// Begins a transfer that ends in another thread, where `done` is called once. A store whose transfers are done
    /// at once, by [`Store::read`] and [`Store::write`], returns `done`.
    ///
    /// # Safety
    ///
    /// `data` is `len` bytes of memory until `done` is called; the range lies in the store.
    pub(super) unsafe fn start<F>(&self, transfer: Transfer, done: F) -> Option<F>
    where
        F: FnOnce(Result<(), Errno>) + Send + 'static,
    {
        match self {
            // SAFETY: the caller's promise.
            Store::Nbd(export) => unsafe { export.start(transfer, done) },
            _ => return Some(done),
        }
        None
    }

    /// The allocation at `offset`, for at most `len` bytes; the range lies in the store.
    pub(super) fn allocation(&self, offset: u64, len: u64) -> Allocation {
        match self {
            Store::File(file) => file_allocation(file, offset, len),
            Store::Nbd(export) => export.allocation(offset, len),
            Store::Memory(_) | Store::Null => Allocation::data(len),
        }
    }

    /// `true` if discarded sectors read as zeros.
    pub(super) fn discards_to_zeros(&self) -> bool {
        match self {
            Store::File(_) | Store::Memory(_) => true,
            Store::Nbd(export) => export.discards_to_zeros(),
            Store::Null => false,
        }
    }

    /// Forgets a range, which then reads as zeros where [`Store::discards_to_zeros`].
    pub(super) fn discard(&self, offset: u64, len: u64) -> Result<(), Errno> {
        match self {
            Store::Nbd(export) => export.discard(offset, len),
            Store::Null => Ok(()),
            Store::Memory(memory) => {
                memory.write()[offset as usize..(offset + len) as usize].fill(0);
                Ok(())
            }
            Store::File(file) => {
                // SAFETY: a descriptor of ours.
                let error = unsafe {
                    libc::fallocate(
                        file.as_raw_fd(),
                        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                        offset as libc::off_t,
                        len as libc::off_t,
                    )
                };
                if error == 0 {
                    return Ok(());
                }
                let error = std::io::Error::last_os_error();
                match error.raw_os_error() {
                    // The file system has no holes.
                    Some(libc::EOPNOTSUPP | libc::ENOSYS) => Err(Errno::EOPNOTSUPP),
                    _ => Err(Errno::from_io(&error)),
                }
            }
        }
    }

    /// Writes to stable storage.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        match self {
            Store::File(file) => {
                dm_nbd::about_to_block();
                file.sync_data().map_err(|e| Errno::from_io(&e))
            }
            Store::Nbd(export) => export.flush(),
            _ => Ok(()),
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Store::Null)
    }

    /// `true` if transfers end in another thread.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Store::Nbd(_))
    }
}

/// A transfer: its place, its memory, its direction.
#[derive(Clone, Copy)]
pub(super) struct Transfer {
    pub(super) read: bool,
    pub(super) offset: u64,
    pub(super) data: *mut u8,
    pub(super) len: usize,
    pub(super) fua: bool,
}

/// The size of a file, or of a block device.
fn size(file: &File) -> Result<u64, Errno> {
    use std::io::{Seek, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::End(0)).map_err(|e| Errno::from_io(&e))
}

/// `true` once reads that do not wait were refused by the file system or the system.
static WAITS: AtomicBool = AtomicBool::new(false);

/// pread(2). A thread that reads for a client tries without waiting first, and hands its place as the reader on
/// before it waits.
///
/// # Safety
///
/// `to` is `len` bytes of memory.
unsafe fn pread(file: &File, offset: u64, to: *mut u8, len: usize) -> isize {
    let (fd, offset) = (file.as_raw_fd(), offset as libc::off_t);
    if dm_nbd::is_reader() {
        if !WAITS.load(Ordering::Relaxed) {
            let vector = libc::iovec { iov_base: to.cast(), iov_len: len };
            // SAFETY: the caller's promise.
            let got = unsafe { libc::preadv2(fd, &vector, 1, offset, libc::RWF_NOWAIT) };
            if got > 0 {
                return got;
            }
            let error = std::io::Error::last_os_error().raw_os_error();
            if got < 0 && matches!(error, Some(libc::EOPNOTSUPP | libc::ENOSYS)) {
                WAITS.store(true, Ordering::Relaxed);
            }
        }
        dm_nbd::about_to_block();
    }
    // SAFETY: the caller's promise.
    unsafe { libc::pread(fd, to.cast(), len, offset) }
}

/// The allocation of a file at a place. A file that cannot tell has data.
fn file_allocation(file: &File, offset: u64, len: u64) -> Allocation {
    let seek = |whence| {
        // SAFETY: a descriptor of ours, whose position nobody uses.
        let at = unsafe { libc::lseek(file.as_raw_fd(), offset as libc::off_t, whence) };
        u64::try_from(at).map_err(|_| std::io::Error::last_os_error().raw_os_error())
    };
    match seek(libc::SEEK_DATA) {
        Ok(data) if data > offset => Allocation::hole(len.min(data - offset)),
        Ok(_) => match seek(libc::SEEK_HOLE) {
            Ok(hole) if hole > offset => Allocation::data(len.min(hole - offset)),
            _ => Allocation::data(len),
        },
        // A hole up to the end.
        Err(Some(libc::ENXIO)) => Allocation::hole(len),
        Err(_) => Allocation::data(len),
    }
}
