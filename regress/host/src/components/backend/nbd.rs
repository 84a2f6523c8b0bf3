// SPDX-License-Identifier: BSD-2-Clause

//! A disk on another machine, or in another program: an export of an NBD server.

use dm_nbd::proto::{can, command, state};
use dm_nbd::{Client, Error, Operation, Outcome};

use super::{Allocation, Transfer};
use crate::errno::Errno;

/// An export of an NBD server, connected.
pub struct Export(Client);

/// The error as the kernel has it.
fn errno(error: Error) -> Errno {
    match error {
        Error::Perm => Errno::EROFS,
        Error::NoMem => Errno::ENOMEM,
        Error::NoSpc => Errno::ENOSPC,
        Error::NotSup => Errno::EOPNOTSUPP,
        Error::Inval | Error::Io | Error::Overflow | Error::Shutdown => Errno::EIO,
    }
}

/// A transfer in flight.
struct Started<F> {
    transfer: Transfer,
    done: F,
}

// SAFETY: the transfer's memory is the starter's promise, and used by one thread at a time.
unsafe impl<F: Send> Send for Started<F> {}

impl<F: FnOnce(Result<(), Errno>) + Send> Outcome for Started<F> {
    fn data(&mut self, at: usize, bytes: &[u8]) {
        let inside = at.checked_add(bytes.len()).is_some_and(|end| end <= self.transfer.len);
        if self.transfer.read && inside {
            // SAFETY: the transfer's memory has `len` bytes until `done`, which comes later.
            unsafe {
                let to = self.transfer.data.add(at);
                to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
        }
    }

    fn done(self: Box<Self>, result: Result<(), Error>) {
        (self.done)(result.map_err(errno));
    }
}

impl Export {
    pub(super) fn new(client: Client) -> Export {
        Export(client)
    }

    /// Begins a transfer; `done` is called at its end, here or in another thread.
    ///
    /// # Safety
    ///
    /// The transfer's memory is there until `done` is called.
    pub(super) unsafe fn start<F>(&self, transfer: Transfer, done: F)
    where
        F: FnOnce(Result<(), Errno>) + Send + 'static,
    {
        let Transfer { read, offset, data, len, fua } = transfer;
        if !read && fua && !self.0.export().can(can::FUA) {
            // SAFETY: the caller's promise.
            let payload = unsafe { std::slice::from_raw_parts(data, len) }.to_vec();
            return done(self.write(offset, payload, true));
        }
        let operation = if read {
            Operation::read(offset, len as u32)
        } else {
            // SAFETY: the caller's promise. Copied: it may be sent twice, and the second time
            // while the first connection's end is told.
            let payload = unsafe { std::slice::from_raw_parts(data, len) }.to_vec();
            Operation::write(offset, payload, fua)
        };
        self.0.submit(operation, Box::new(Started { transfer, done }));
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        self.0.read(offset, len as u32).map_err(errno)
    }

    pub(super) fn write(&self, offset: u64, data: Vec<u8>, fua: bool) -> Result<(), Errno> {
        let native = fua && self.0.export().can(can::FUA);
        self.0.call(Operation::write(offset, data, native)).map_err(errno)?;
        if fua && !native { self.flush() } else { Ok(()) }
    }

    pub(super) fn flush(&self) -> Result<(), Errno> {
        if !self.0.export().can(can::FLUSH) {
            return Ok(());
        }
        self.0.call(Operation::plain(command::FLUSH, 0, 0, 0)).map_err(errno)
    }

    /// `true` if the server can make zeroes without being sent any: ranges are then discarded so.
    pub(super) fn discards_to_zeros(&self) -> bool {
        self.0.export().can(can::WRITE_ZEROES)
    }

    pub(super) fn discard(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let kind = match self.0.export() {
            export if export.can(can::WRITE_ZEROES) => command::WRITE_ZEROES,
            export if export.can(can::TRIM) => command::TRIM,
            _ => return Err(Errno::EOPNOTSUPP),
        };
        for (offset, len) in pieces(offset, len) {
            self.0.call(Operation::plain(kind, 0, offset, len)).map_err(errno)?;
        }
        Ok(())
    }

    pub(super) fn allocation(&self, offset: u64, len: u64) -> Allocation {
        if self.0.export().holes.is_none() {
            return Allocation::data(len);
        }
        let asked = u32::try_from(len.min(PIECE)).unwrap_or(u32::MAX);
        let first = self.0.extents(offset, asked).ok().and_then(|all| all.first().copied());
        match first {
            Some((length, flags)) if length > 0 => Allocation {
                length: len.min(length.into()),
                hole: flags & state::HOLE != 0,
                zero: flags & state::ZERO != 0,
            },
            _ => Allocation::data(len),
        }
    }
}

/// The most bytes that one request without data may be about: 1 GiB, a multiple of any sector.
const PIECE: u64 = 1 << 30;

fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, u32)> {
    (0..len).step_by(PIECE as usize).map(move |at| (offset + at, PIECE.min(len - at) as u32))
}
