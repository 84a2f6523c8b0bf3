// SPDX-License-Identifier: BSD-2-Clause

//! Reading a header: which version it is of.

use crate::bytes::ReadAt;
use crate::{Error, Header, luks1, luks2};

impl Header {
    /// Reads the header of a disk. Of the two copies of a LUKS2 header the newer good one is used; nothing is
    /// repaired.
    ///
    /// # Errors
    /// [`Error::NotLuks`], [`Error::Damaged`], [`Error::Io`], [`Error::Unsupported`] for another version.
    pub fn read<D: ReadAt + ?Sized>(disk: &D) -> Result<Header, Error> {
        let size = disk.size()?;
        let mut first = [0; luks1::BYTES];
        let here = usize::try_from(size).unwrap_or(usize::MAX).min(first.len());
        if let Some(first) = first.get_mut(..here) {
            disk.read_at(0, first)?;
        }
        if !first.starts_with(luks1::MAGIC) {
            // The second copy may be all that is left.
            return luks2::read(disk, size);
        }
        match first.get(6..8) {
            Some([0, 1]) => luks1::parse(&first),
            Some([0, 2]) => luks2::read(disk, size),
            Some(&[high, low]) => match luks2::read(disk, size) {
                // A flipped bit in the number of the version.
                Ok(header) => Ok(header),
                Err(_) => Err(Error::Unsupported(format!(
                    "LUKS of version {}",
                    u16::from_be_bytes([high, low])
                ))),
            },
            _ => Err(Error::NotLuks),
        }
    }
}
