// SPDX-License-Identifier: BSD-2-Clause

//! A slow, obvious model of what becomes of data: disks are bytes, tables are text, and an I/O is
//! followed a piece at a time through all the devices below it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dm_core::Dev;
use dm_core::testing::model::{Model, disks};
use dm_core::testing::picture::Line;
use dm_host::{Errno, IoResult};

/// Bytes in a sector, where nothing else is said.
pub const SECTOR: usize = 512;

/// The place of consecutive sectors.
enum Place {
    Disk(usize, u64),
    Device(u32, u64),
    Zero,
    Error,
}

/// A device as far as its data go.
struct Device {
    held: bool,
    read_only: bool,
    lines: Option<Vec<Line>>,
    /// Sectors of 512 bytes in one of the device's sectors.
    sector_size: u64,
}

/// An I/O, or a part of one, on its way to a device.
#[derive(Clone, Copy)]
struct Part {
    transfer: usize,
    /// The offset in the whole I/O, in sectors.
    at: usize,
    block: i64,
    bytes: usize,
    /// `true` for a whole I/O that comes from outside, not a piece of one.
    whole: bool,
}

/// An I/O in flight, or a piece of one.
pub struct Transfer {
    write: bool,
    /// The data to be written, or the data read until now.
    pub data: Vec<u8>,
    /// `b_bcount`: the bytes that are left when the device has cut the I/O at its end.
    count: usize,
    /// The result of each sector, once there is one.
    fates: Vec<Option<Result<(), Errno>>>,
    /// The answer, where it is not made of fates.
    refused: Option<IoResult>,
}

impl Transfer {
    /// The answer, when it is due.
    pub fn result(&self) -> Option<IoResult> {
        let (count, refused) = (self.count, self.refused);
        // One of less than a sector ends by being refused, too.
        if refused.is_some() || count < SECTOR {
            return refused;
        }
        let fates: Option<Vec<_>> = self.fates[..count / SECTOR].iter().copied().collect();
        let bad = fates?.into_iter().enumerate().find_map(|(n, fate)| Some((n, fate.err()?)));
        Some(match bad {
            None => IoResult { error: None, resid: 0, count },
            Some((n, error)) => IoResult { error: Some(error), resid: count - n * SECTOR, count },
        })
    }
}

/// All data, and all I/O.
pub struct Data {
    /// The content of the disks.
    pub disks: Vec<Vec<u8>>,
    /// Disks on which I/O fails.
    pub failing: BTreeSet<usize>,
    /// Disks that cannot discard.
    pub no_discard: BTreeSet<usize>,
    /// All I/O there was.
    pub transfers: Vec<Transfer>,
    devices: BTreeMap<u32, Device>,
    waiting: BTreeMap<u32, VecDeque<Part>>,
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().ok().expect("the model writes numbers")
}

/// The place of a sector by a table's lines, and the number of sectors that lie there in a row.
fn place(lines: &[Line], sector: u64) -> (Place, u64) {
    let line = lines.iter().find(|(start, length, ..)| (*start..start + length).contains(&sector));
    let (start, length, kind, params) = line.expect("a table has no gaps");
    let (within, left) = (sector - start, start + length - sector);
    let words: Vec<&str> = params.split(' ').collect();
    let component = |word: usize, on: u64| {
        let (major, minor) = words[word].split_once(':').expect("a component");
        let dev = Dev::new(number(major), number(minor));
        let at = number::<u64>(words[word + 1]) + on;
        match disks().iter().position(|(_, disk)| Some(disk.dev) == dev) {
            Some(disk) => Place::Disk(disk, at),
            None => Place::Device(number(minor), at),
        }
    };
    match kind.as_str() {
        "zero" => (Place::Zero, left),
        "error" => (Place::Error, left),
        "linear" => (component(0, within), left),
        _ => {
            let (stripes, chunk) = (number::<u64>(words[0]), number::<u64>(words[1]));
            let stripe = within / chunk % stripes;
            let on = within / chunk / stripes * chunk + within % chunk;
            (component(2 + 2 * stripe as usize, on), left.min(chunk - within % chunk))
        }
    }
}

impl Data {
    /// Empty disks, and no device.
    pub fn new(no_discard: BTreeSet<usize>) -> Data {
        let disks = disks().into_iter().map(|(_, disk)| vec![0; disk.size.0 as usize * SECTOR]);
        Data {
            disks: disks.collect(),
            failing: BTreeSet::new(),
            no_discard,
            transfers: Vec::new(),
            devices: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// Applies a command's effects: I/O to devices that are gone fails, I/O to devices that are not held any more
    /// goes on.
    pub fn follow(&mut self, model: &Model) {
        let picture = model.picture();
        let held = |minor| picture.units.iter().any(|unit| unit.0 == minor && unit.1);
        let devices = picture.devices.iter().map(|device| {
            let sector_size = u64::from(model.sector_size(device.minor).unwrap_or(512)) / 512;
            let (held, lines) = (held(device.minor), device.active.clone());
            let device_now = Device { held, read_only: device.read_only, lines, sector_size };
            (device.minor, device_now)
        });
        self.devices = devices.collect();
        for minor in self.waiting.keys().copied().collect::<Vec<_>>() {
            if !self.is_held(minor) {
                for part in self.waiting.remove(&minor).into_iter().flatten() {
                    self.arrive(minor, part);
                }
            }
        }
    }

    /// `true` if I/O to this device is held.
    pub fn is_held(&self, minor: u32) -> bool {
        self.devices.get(&minor).is_some_and(|device| device.held)
    }

    /// The devices where I/O waits that has come through another.
    pub fn in_between(&self) -> Option<u32> {
        let mut waiting = self.waiting.iter();
        waiting.find(|(_, parts)| parts.iter().any(|part| !part.whole)).map(|(minor, _)| *minor)
    }

    /// `true` if I/O to this device could wait, there or below.
    pub fn may_wait(&self, minor: u32) -> bool {
        self.is_held(minor) || self.below(minor).into_iter().any(|minor| self.may_wait(minor))
    }

    fn below(&self, minor: u32) -> BTreeSet<u32> {
        let lines = self.devices.get(&minor).and_then(|device| device.lines.as_ref());
        let params = lines.into_iter().flatten().flat_map(|line| line.3.split(' '));
        let devs = params.filter_map(|word| word.strip_prefix("169:"));
        devs.map(number).collect()
    }

    /// Sends an I/O to a device. `data` are the data to be written, or the buffer's content before a read.
    pub fn send(&mut self, minor: u32, block: i64, write: bool, data: Vec<u8>) -> usize {
        let (bytes, transfer) = (data.len(), self.transfers.len());
        let fates = vec![None; bytes / SECTOR];
        self.transfers.push(Transfer { write, data, count: bytes, fates, refused: None });
        self.arrive(minor, Part { transfer, at: 0, block, bytes, whole: true });
        transfer
    }

    /// Ends a part of which nothing was done.
    fn refuse(&mut self, part: Part, error: Option<Errno>) {
        let transfer = &mut self.transfers[part.transfer];
        if part.whole {
            let count = transfer.count;
            transfer.refused = Some(IoResult { error, resid: count, count });
        } else {
            // A component that does nothing and says nothing has failed all the same.
            self.mark(
                part.transfer,
                part.at,
                part.bytes / SECTOR,
                Err(error.unwrap_or(Errno::EIO)),
            );
        }
    }

    fn mark(&mut self, transfer: usize, at: usize, sectors: usize, fate: Result<(), Errno>) {
        self.transfers[transfer].fates[at..at + sectors].fill(Some(fate));
    }

    fn arrive(&mut self, minor: u32, mut part: Part) {
        let Some(device) = self.devices.get(&minor) else {
            return self.refuse(part, Some(Errno::ENXIO));
        };
        if device.held {
            return self.waiting.entry(minor).or_default().push_back(part);
        }
        let Some(lines) = device.lines.clone() else {
            return self.refuse(part, Some(Errno::ENXIO));
        };
        let size = lines.iter().map(|line| line.1).sum::<u64>();
        let read_only = device.read_only;
        let sector_size = device.sector_size;
        if part.bytes == 0 {
            return self.refuse(part, None);
        }
        let whole_sectors = part.bytes.is_multiple_of(SECTOR * sector_size as usize);
        let Some(start) = u64::try_from(part.block).ok().filter(|_| whole_sectors) else {
            return self.refuse(part, Some(Errno::EINVAL));
        };
        if start + part.bytes.div_ceil(SECTOR) as u64 > size {
            if start >= size {
                let error = (start > size).then_some(Errno::EINVAL);
                return self.refuse(part, error);
            }
            let fits = (size - start) as usize;
            if part.whole {
                self.transfers[part.transfer].count = fits * SECTOR;
            } else {
                let beyond = part.bytes / SECTOR - fits;
                self.mark(part.transfer, part.at + fits, beyond, Err(Errno::EIO));
            }
            part.bytes = fits * SECTOR;
        }
        if !start.is_multiple_of(sector_size) {
            return self.refuse(part, Some(Errno::EINVAL));
        }
        let write = self.transfers[part.transfer].write;
        if write && read_only {
            return self.refuse(part, Some(Errno::EROFS));
        }
        let (mut start, mut at, end) = (start, part.at, part.at + part.bytes / SECTOR);
        while at < end {
            let (place, row) = place(&lines, start);
            let sectors = (end - at).min(row as usize);
            let (bytes, block) = (sectors * SECTOR, 0);
            let below = Part { transfer: part.transfer, at, block, bytes, whole: false };
            match place {
                Place::Disk(disk, sector) => {
                    self.disk(disk, Part { block: sector as i64, ..below })
                }
                Place::Device(minor, sector) => {
                    self.arrive(minor, Part { block: sector as i64, ..below });
                }
                Place::Zero => {
                    if !write {
                        let range = at * SECTOR..at * SECTOR + bytes;
                        self.transfers[part.transfer].data[range].fill(0);
                    }
                    self.mark(part.transfer, at, sectors, Ok(()));
                }
                Place::Error => self.mark(part.transfer, at, sectors, Err(Errno::EIO)),
            }
            (start, at) = (start + sectors as u64, at + sectors);
        }
    }

    fn disk(&mut self, number: usize, part: Part) {
        let transfer = &mut self.transfers[part.transfer];
        if transfer.write && !disks()[number].1.writable {
            return self.refuse(part, Some(Errno::EROFS));
        }
        if self.failing.contains(&number) {
            return self.refuse(part, Some(Errno::EIO));
        }
        let on_disk = part.block as usize * SECTOR..part.block as usize * SECTOR + part.bytes;
        let in_data = part.at * SECTOR..part.at * SECTOR + part.bytes;
        let (disk, data) = (&mut self.disks[number][on_disk], &mut transfer.data[in_data]);
        if transfer.write {
            disk.copy_from_slice(data)
        } else {
            data.copy_from_slice(disk)
        }
        self.mark(part.transfer, part.at, part.bytes / SECTOR, Ok(()));
    }

    /// Discards `sectors` from `start` on.
    pub fn discard(&mut self, minor: u32, start: u64, sectors: u64) -> Result<(), Errno> {
        let device = self.devices.get(&minor).ok_or(Errno::ENXIO)?;
        let lines = device.lines.clone().ok_or(Errno::ENXIO)?;
        let aligned = |n: u64| n.is_multiple_of(device.sector_size);
        let size = lines.iter().map(|line| line.1).sum::<u64>();
        if start + sectors > size || !aligned(start) || !aligned(sectors) {
            return Err(Errno::EINVAL);
        }
        if device.read_only {
            return Err(Errno::EROFS);
        }
        let (mut at, mut able) = (start, sectors == 0);
        while at < start + sectors {
            let (place, row) = place(&lines, at);
            let row = row.min(start + sectors - at);
            let result = match place {
                Place::Disk(disk, _) if self.no_discard.contains(&disk) => Err(Errno::ENODEV),
                Place::Disk(disk, _) if !disks()[disk].1.writable => Err(Errno::EROFS),
                Place::Disk(disk, sector) => {
                    let range = sector as usize * SECTOR..(sector + row) as usize * SECTOR;
                    self.disks[disk][range].fill(0);
                    Ok(())
                }
                Place::Device(minor, sector) => self.discard(minor, sector, row),
                Place::Zero => Ok(()),
                Place::Error => Err(Errno::EIO),
            };
            match result {
                Ok(()) => able = true,
                Err(Errno::ENODEV) => {}
                Err(errno) => return Err(errno),
            }
            at += row;
        }
        if able { Ok(()) } else { Err(Errno::ENODEV) }
    }

    /// Dumps the system's memory to a device. The device must not be suspended, since a dump does not wait.
    pub fn dump(&mut self, minor: u32, start: u64, data: &[u8]) -> Result<(), Errno> {
        let device = self.devices.get(&minor).filter(|device| !device.held).ok_or(Errno::ENXIO)?;
        let lines = device.lines.clone().ok_or(Errno::ENXIO)?;
        if start + (data.len() / SECTOR) as u64 > lines.iter().map(|line| line.1).sum::<u64>() {
            return Err(Errno::EINVAL);
        }
        if device.read_only {
            return Err(Errno::EROFS);
        }
        let (mut at, mut left) = (start, data);
        while !left.is_empty() {
            let (place, row) = place(&lines, at);
            let (now, later) = left.split_at(left.len().min(row as usize * SECTOR));
            match place {
                Place::Disk(disk, _) if !disks()[disk].1.writable => return Err(Errno::EROFS),
                Place::Disk(disk, sector) => {
                    let bytes = disks()[disk].1.sector_size as usize;
                    let offset = sector as usize * SECTOR;
                    if !offset.is_multiple_of(bytes) || !now.len().is_multiple_of(bytes) {
                        return Err(Errno::EFAULT);
                    }
                    self.disks[disk][offset..offset + now.len()].copy_from_slice(now);
                }
                Place::Device(minor, sector) => self.dump(minor, sector, now)?,
                Place::Zero => {}
                Place::Error => return Err(Errno::EIO),
            }
            (at, left) = (at + (now.len() / SECTOR) as u64, later);
        }
        Ok(())
    }
}
