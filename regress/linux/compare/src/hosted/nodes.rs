// SPDX-License-Identifier: BSD-2-Clause

//! Open disks and devices of a hosted machine.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use dm_host::{Errno, File, Io, Request as IoRequest};
use dm_script::data::SECTOR;
use dm_script::side::{Error, Node};

use super::{Attached, name_of, named};

/// The file of a disk, past the driver.
pub(super) struct Plain {
    file: std::fs::File,
    size: u64,
}

impl Plain {
    /// Opens the file.
    ///
    /// # Errors
    /// The file's, by name.
    pub(super) fn open(disk: &Attached, write: bool) -> Result<Plain, Error> {
        let file = std::fs::OpenOptions::new().read(true).write(write).open(&disk.image);
        let file = file.map_err(|error| name_of(Errno::from_io(&error)))?;
        Ok(Plain { file, size: disk.disk.sectors() * u64::from(disk.disk.sector_size()) })
    }

    /// The bytes of a range that lie on the disk.
    fn inside(&self, sector: u64, len: usize) -> usize {
        let left = self.size.saturating_sub(sector.saturating_mul(SECTOR as u64));
        usize::try_from(left).map_or(len, |left| left.min(len))
    }
}

impl Node for Plain {
    fn read(&self, sector: u64, data: &mut [u8]) -> Result<usize, Error> {
        let len = self.inside(sector, data.len());
        let part = data.get_mut(..len).unwrap_or_default();
        let done = self.file.read_exact_at(part, sector.saturating_mul(SECTOR as u64));
        done.map(|()| len).map_err(|error| name_of(Errno::from_io(&error)))
    }

    fn write(&self, sector: u64, data: &[u8]) -> Result<usize, Error> {
        let len = self.inside(sector, data.len());
        if len == 0 {
            return Err("ENOSPC".into());
        }
        let part = data.get(..len).unwrap_or_default();
        let done = self.file.write_all_at(part, sector.saturating_mul(SECTOR as u64));
        done.map(|()| len).map_err(|error| name_of(Errno::from_io(&error)))
    }

    fn discard(&self, _: u64, _: u64) -> Result<(), Error> {
        Err("no discards past the driver".into())
    }

    fn flush(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(|error| name_of(Errno::from_io(&error)))
    }

    fn sectors(&self) -> Result<u64, Error> {
        Ok(self.size / SECTOR as u64)
    }
}

/// A device's character node.
pub(super) struct Raw(pub(super) File);

impl Node for Raw {
    fn read(&self, sector: u64, data: &mut [u8]) -> Result<usize, Error> {
        named(self.0.pread(data, sector.saturating_mul(SECTOR as u64)))
    }

    fn write(&self, sector: u64, data: &[u8]) -> Result<usize, Error> {
        named(self.0.pwrite(data, sector.saturating_mul(SECTOR as u64)))
    }

    fn discard(&self, sector: u64, sectors: u64) -> Result<(), Error> {
        discard(&self.0, sector, sectors)
    }

    fn flush(&self) -> Result<(), Error> {
        flush(&self.0)
    }

    fn sectors(&self) -> Result<u64, Error> {
        Ok(self.0.size() / SECTOR as u64)
    }
}

fn discard(file: &File, sector: u64, sectors: u64) -> Result<(), Error> {
    let bytes = |sectors: u64| sectors.saturating_mul(SECTOR as u64);
    named(file.fdiscard(bytes(sector), bytes(sectors)))
}

fn flush(file: &File) -> Result<(), Error> {
    let mut force = 1i32;
    named(file.ioctl(dm_host::netbsd::DIOCCACHESYNC as u64, &mut force))
}

/// A device's block node.
pub(super) struct Open {
    pub(super) file: Arc<File>,
    pub(super) sectors: u64,
}

impl Open {
    fn transfer(&self, io: &mut Io, request: IoRequest) -> Result<usize, Error> {
        named(self.file.strategy(io, request).transferred())
    }
}

fn block(sector: u64) -> Result<i64, Error> {
    i64::try_from(sector).map_err(|_| "EINVAL".to_owned())
}

impl Node for Open {
    fn read(&self, sector: u64, data: &mut [u8]) -> Result<usize, Error> {
        let mut io = Io::new(data.len());
        let got = self.transfer(&mut io, IoRequest::read(block(sector)?))?;
        data.copy_from_slice(io.data());
        Ok(got)
    }

    fn write(&self, sector: u64, data: &[u8]) -> Result<usize, Error> {
        let mut io = Io::with_data(data.to_vec());
        self.transfer(&mut io, IoRequest::write(block(sector)?))
    }

    fn discard(&self, sector: u64, sectors: u64) -> Result<(), Error> {
        discard(&self.file, sector, sectors)
    }

    fn flush(&self) -> Result<(), Error> {
        flush(&self.file)
    }

    fn sectors(&self) -> Result<u64, Error> {
        Ok(self.sectors)
    }
}
