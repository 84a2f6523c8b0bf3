// SPDX-License-Identifier: BSD-2-Clause

//! Open block devices, for I/O past the page cache.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use dm_script::data::SECTOR;
use dm_script::side::{Error, Node};

use crate::errno;
use crate::raw::{self, Pages};

const BLKDISCARD: u64 = 0x1277;

/// An open block device.
pub struct Block(File);

fn named<T>(result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|error| errno::name(&error))
}

fn bytes(sector: u64) -> u64 {
    sector.saturating_mul(SECTOR as u64)
}

impl Block {
    /// Opens a node.
    ///
    /// # Errors
    /// The open's, by name.
    pub fn open(path: &str, write: bool) -> Result<Block, Error> {
        let mut options = OpenOptions::new();
        options.read(true).write(write).custom_flags(libc::O_DIRECT);
        named(options.open(path)).map(Block)
    }
}

impl Node for Block {
    fn read(&self, sector: u64, data: &mut [u8]) -> Result<usize, Error> {
        let mut pages = Pages::new(data.len());
        let got = named(self.0.read_at(&mut pages, bytes(sector)))?;
        data.copy_from_slice(&pages);
        Ok(got)
    }

    fn write(&self, sector: u64, data: &[u8]) -> Result<usize, Error> {
        let mut pages = Pages::new(data.len());
        pages.copy_from_slice(data);
        named(self.0.write_at(&pages, bytes(sector)))
    }

    fn discard(&self, sector: u64, sectors: u64) -> Result<(), Error> {
        let mut range = [0; 16];
        let (start, length) = range.split_at_mut(8);
        start.copy_from_slice(&bytes(sector).to_le_bytes());
        length.copy_from_slice(&bytes(sectors).to_le_bytes());
        named(raw::ioctl_bytes(&self.0, BLKDISCARD, &mut range))
    }

    fn flush(&self) -> Result<(), Error> {
        named(self.0.sync_all())
    }

    fn sectors(&self) -> Result<u64, Error> {
        named((&self.0).seek(SeekFrom::End(0))).map(|bytes| bytes / SECTOR as u64)
    }
}
