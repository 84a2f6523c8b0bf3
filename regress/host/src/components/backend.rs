//! Where a disk's data are.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::errno::Errno;

/// Where a disk's data are.
pub enum Backend {
    /// In memory, zeros at first.
    Memory,
    /// In a file.
    File(File),
    /// Nowhere: reads leave the buffer as it is.
    Null,
}

pub(super) enum Store {
    Memory(Memory),
    File(File),
    Null,
}

/// Memory, which one I/O writes at a time. What overlapping I/Os leave behind is still anybody's
/// guess, as on a real disk: they may be in pieces.
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
    /// Opens the store; its size in bytes is `bytes`, or comes back where that is 0.
    pub(super) fn open(backend: Backend, bytes: u64) -> Result<(Store, u64), Errno> {
        match backend {
            Backend::Memory => {
                let size = usize::try_from(bytes).map_err(|_| Errno::ENOMEM)?;
                let zeros = vec![0u8; size].into_boxed_slice();
                Ok((Store::Memory(Memory(RwLock::new(zeros))), bytes))
            }
            Backend::File(file) => {
                let size = if bytes == 0 {
                    file.metadata().map_err(|e| Errno::from_io(&e))?.len()
                } else {
                    bytes
                };
                Ok((Store::File(file), size))
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
                    // SAFETY: the caller's promise.
                    let got = unsafe {
                        libc::pread(
                            file.as_raw_fd(),
                            to.add(done).cast(),
                            len - done,
                            (offset + done as u64) as libc::off_t,
                        )
                    };
                    done += Self::progress(got)?;
                }
                Ok(())
            }
        }
    }

    /// Writes `len` bytes.
    ///
    /// # Safety
    ///
    /// `from` is `len` bytes of memory; the range lies in the store.
    pub(super) unsafe fn write(
        &self,
        offset: u64,
        from: *const u8,
        len: usize,
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
                Ok(())
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

    /// Forgets a range, which then reads as zeros.
    pub(super) fn discard(&self, offset: u64, len: u64) -> Result<(), Errno> {
        match self {
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
                    Ok(())
                } else {
                    Err(Errno::from_io(&std::io::Error::last_os_error()))
                }
            }
        }
    }

    /// Writes to stable storage.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        match self {
            Store::File(file) => file.sync_data().map_err(|e| Errno::from_io(&e)),
            _ => Ok(()),
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Store::Null)
    }
}
