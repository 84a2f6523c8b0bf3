//! Where a disk's data are.

use std::cell::UnsafeCell;
use std::fs::File;
use std::os::fd::AsRawFd;

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

/// Memory that several I/Os may touch at once: as on a real disk, what overlapping I/Os leave
/// behind is anybody's guess.
pub(super) struct Memory(Box<[UnsafeCell<u8>]>);

// SAFETY: bytes are copied in and out with no references in between.
unsafe impl Sync for Memory {}

impl Store {
    /// Opens the store; its size in bytes is `bytes`, or comes back where that is 0.
    pub(super) fn open(backend: Backend, bytes: u64) -> Result<(Store, u64), Errno> {
        match backend {
            Backend::Memory => {
                let size = usize::try_from(bytes).map_err(|_| Errno::ENOMEM)?;
                let zeros = vec![0u8; size].into_boxed_slice();
                // SAFETY: an UnsafeCell<u8> is laid out as a u8.
                let cells = unsafe { Box::from_raw(Box::into_raw(zeros) as *mut [UnsafeCell<u8>]) };
                Ok((Store::Memory(Memory(cells)), bytes))
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
                let at = memory.0[offset as usize..offset as usize + len].as_ptr();
                // SAFETY: in range by the slice above; the caller's promise.
                unsafe { libc::memmove(to.cast(), at.cast(), len) };
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
                let at = memory.0[offset as usize..offset as usize + len].as_ptr();
                // SAFETY: in range by the slice above; the caller's promise.
                unsafe { libc::memmove(UnsafeCell::raw_get(at).cast(), from.cast(), len) };
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
                for cell in &memory.0[offset as usize..(offset + len) as usize] {
                    // SAFETY: as for I/O, nobody holds a reference.
                    unsafe { *cell.get() = 0 };
                }
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
