// SPDX-License-Identifier: BSD-2-Clause

//! Reading: disks, and numbers and texts in their headers.

use std::fs::File;
use std::io::{self, ErrorKind};

/// Bytes in a sector, as everything here counts them.
pub const SECTOR: u64 = 512;

/// Something that can be read at any place: a file, memory, a connection to a server.
pub trait ReadAt {
    /// Bytes that it has.
    ///
    /// # Errors
    /// Its own.
    fn size(&self) -> io::Result<u64>;

    /// Fills all of `into` with what stands at byte `at`.
    ///
    /// # Errors
    /// Its own; [`ErrorKind::UnexpectedEof`] beyond its end.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        use std::io::{Seek, SeekFrom};
        let mut file = self;
        file.seek(SeekFrom::End(0))
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, into, at)
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let found = usize::try_from(at).ok().and_then(|at| {
            let end = at.checked_add(into.len())?;
            self.get(at..end)
        });
        into.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> io::Result<u64> {
        self.as_slice().size()
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(at, into)
    }
}

/// The fields of a binary header, one after the other; beyond its end there are zeros.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (some, rest) = self.0.split_at_checked(n).unwrap_or((&[], &[]));
        self.0 = rest;
        some
    }

    fn number(&mut self, n: usize) -> u64 {
        self.bytes(n).iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    pub fn u16(&mut self) -> u16 {
        self.number(2) as u16
    }

    pub fn u32(&mut self) -> u32 {
        self.number(4) as u32
    }

    pub fn u64(&mut self) -> u64 {
        self.number(8)
    }

    /// A text in `n` bytes, up to its first zero.
    pub fn text(&mut self, n: usize) -> String {
        let bytes = self.bytes(n);
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
    }
}
