// SPDX-License-Identifier: BSD-2-Clause

//! NBD's exports: dm devices, each open while a connection to it exists.

use std::sync::{Arc, PoisonError, RwLock};

use dm_host::Errno;
use dm_nbd::{Description, Device, Error, Exports, Extent, Refusal};

use super::kernel::{Kernel, Node};
use crate::failure::errno_text;
use crate::say::say;

/// The lock between writes of whole sectors, which hold it shared, and writes of a part of a sector, which hold it
/// exclusively: they read the sector first, and it may not be written meanwhile.
static PARTS: RwLock<()> = RwLock::new(());

/// Places that are looked up for one question after holes.
const LOOKUPS: usize = 4096;

/// All dm devices.
pub struct Devices(pub Arc<Kernel>);

/// A dm device, as one connection uses it.
pub struct Open(Node);

/// An error as NBD has it.
fn error(errno: Errno) -> Error {
    match errno {
        Errno::EPERM | Errno::EROFS => Error::Perm,
        Errno::ENOMEM => Error::NoMem,
        Errno::EINVAL => Error::Inval,
        Errno::ENOSPC => Error::NoSpc,
        Errno::ENXIO => Error::Shutdown,
        Errno::ENODEV | Errno::EOPNOTSUPP | Errno::ENOTTY => Error::NotSup,
        _ => Error::Io,
    }
}

fn refusal(name: &str, errno: Errno) -> Refusal {
    let unknown = matches!(errno, Errno::ENXIO | Errno::ENOENT);
    let text = match errno {
        _ if unknown => format!("{name}: there is no such device"),
        Errno::EBUSY => format!("{name}: the device is in use, by a table of another device"),
        _ => format!("{name}: {}", errno_text(errno)),
    };
    Refusal { unknown, text }
}

impl Devices {
    /// The device that a name means: an empty one the only device, if there is only one.
    fn named(&self, name: &str) -> Result<String, Refusal> {
        if !name.is_empty() {
            return Ok(name.into());
        }
        let mut names = self.names()?;
        match (names.pop(), names.is_empty()) {
            (Some(name), true) => Ok(name),
            _ => Err(Refusal {
                unknown: true,
                text: "name a device: there is not exactly one".into(),
            }),
        }
    }
}

fn description(size: u64, writable: bool, sector_size: u32) -> Description {
    Description { size, writable, least: sector_size, best: sector_size.max(4096) }
}

impl Exports for Devices {
    type Device = Open;

    fn names(&self) -> Result<Vec<String>, Refusal> {
        self.0.names().map_err(|errno| refusal("the devices", errno))
    }

    fn describe(&self, name: &str) -> Result<Description, Refusal> {
        let name = self.named(name)?;
        let described = self.0.describe(&name);
        let (size, sector_size, writable) = described.map_err(|errno| refusal(&name, errno))?;
        Ok(description(size, writable, sector_size))
    }

    fn open(&self, name: &str) -> Result<(Open, Description), Refusal> {
        let name = self.named(name)?;
        let refused = |errno| refusal(&name, errno);
        let node = self.0.open(&name).map_err(refused)?;
        let size = node.size().map_err(refused)?;
        let sector_size = node.sector_size().map_err(refused)?;
        let told = description(size, node.is_writable(), sector_size);
        Ok((Open(node), told))
    }

    fn complain(&self, text: &str) {
        say(text);
    }
}

impl Open {
    /// The sectors around a range: where they begin, and their bytes.
    fn around(&self, offset: u64, length: usize) -> Result<(u64, usize), Error> {
        let size = u64::from(self.0.sector_size().map_err(error)?);
        let start = offset - offset % size;
        let end = offset.saturating_add(length as u64).next_multiple_of(size);
        let count = usize::try_from(end.saturating_sub(start)).map_err(|_| Error::Inval)?;
        Ok((start, count))
    }

    /// The whole sectors within a range: where they begin, and where they end.
    fn within(&self, offset: u64, length: u64) -> Result<(u64, u64), Error> {
        let size = u64::from(self.0.sector_size().map_err(error)?);
        let end = offset.saturating_add(length);
        let (start, end) = (offset.next_multiple_of(size), end - end % size);
        Ok((start, end.max(start)))
    }

    fn write_sectors(&self, buf: &[u8], offset: u64, fua: bool) -> Result<(), Error> {
        let _whole = PARTS.read().unwrap_or_else(PoisonError::into_inner);
        self.0.write(buf, offset, fua).map_err(error)
    }
}

impl Device for Open {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        let (start, count) = self.around(offset, buf.len())?;
        if start == offset && count == buf.len() {
            return self.0.read(buf, offset).map_err(error);
        }
        let mut sectors = vec![0; count];
        self.0.read(&mut sectors, start).map_err(error)?;
        let skip = usize::try_from(offset - start).unwrap_or(usize::MAX);
        let part = sectors.get(skip..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(part.ok_or(Error::Inval)?);
        Ok(())
    }

    fn write(&self, buf: &[u8], offset: u64, fua: bool) -> Result<(), Error> {
        let (start, count) = self.around(offset, buf.len())?;
        if start == offset && count == buf.len() {
            return self.write_sectors(buf, offset, fua);
        }
        let _part = PARTS.write().unwrap_or_else(PoisonError::into_inner);
        let mut sectors = vec![0; count];
        self.0.read(&mut sectors, start).map_err(error)?;
        let skip = usize::try_from(offset - start).unwrap_or(usize::MAX);
        let part = sectors.get_mut(skip..).and_then(|rest| rest.get_mut(..buf.len()));
        part.ok_or(Error::Inval)?.copy_from_slice(buf);
        self.0.write(&sectors, start, fua).map_err(error)
    }

    fn flush(&self) -> Result<(), Error> {
        self.0.flush().map_err(error)
    }

    /// Discards whole sectors only: partial ones at either end keep their data, which trim allows. So do components
    /// that cannot discard.
    fn trim(&self, offset: u64, length: u64) -> Result<(), Error> {
        let (start, end) = self.within(offset, length)?;
        if start == end {
            return Ok(());
        }
        let _whole = PARTS.read().unwrap_or_else(PoisonError::into_inner);
        match self.0.discard(start, end - start).map_err(error) {
            Err(Error::NotSup) => Ok(()),
            result => result,
        }
    }

    /// Discards whole sectors where that makes zeroes of them, and writes zeroes over the rest.
    fn punch(&self, offset: u64, length: u64) -> Result<(), Error> {
        let (start, end) = self.within(offset, length)?;
        if start == end || !self.0.discards_to_zeroes(start, end - start).map_err(error)? {
            return Err(Error::NotSup);
        }
        {
            let _whole = PARTS.read().unwrap_or_else(PoisonError::into_inner);
            self.0.discard(start, end - start).map_err(error)?;
        }
        let before = usize::try_from(start - offset).map_err(|_| Error::Inval)?;
        let after = usize::try_from(offset.saturating_add(length).saturating_sub(end));
        let after = after.map_err(|_| Error::Inval)?;
        for (place, count) in [(offset, before), (end, after)] {
            if count > 0 {
                self.write(&vec![0; count], place, false)?;
            }
        }
        Ok(())
    }

    fn extents(&self, offset: u64, length: u64, count: usize) -> Result<Vec<Extent>, Error> {
        let mut extents: Vec<Extent> = Vec::new();
        let end = offset.saturating_add(length);
        let mut at = offset;
        // A reply may tell less than was asked for, and shall not take long.
        for _ in 0..LOOKUPS {
            if at >= end {
                break;
            }
            let found = self.0.found(at, end - at).map_err(error)?;
            let Extent { length, hole, zero } =
                Extent { length: found.length.max(1), hole: found.hole, zero: found.zero };
            at = at.saturating_add(length);
            let full = extents.len() == count;
            match extents.last_mut() {
                Some(last) if (last.hole, last.zero) == (hole, zero) => {
                    last.length = last.length.saturating_add(length);
                }
                _ if full => break,
                _ => extents.push(Extent { length, hole, zero }),
            }
        }
        Ok(extents)
    }
}
