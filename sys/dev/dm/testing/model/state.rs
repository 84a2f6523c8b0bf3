// SPDX-License-Identifier: BSD-2-Clause

//! The model's state, and the commands on it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{BLOCK_MAJOR, Line, Op, Shape, Who, component, disks, params};
use crate::commands::flags;
use crate::testing::picture::{self, Picture};
use crate::testing::plist::{Dict, Object};
use crate::{Dev, Errno, Sector, limits};

/// A table, as the model keeps it.
#[derive(Clone)]
struct Table {
    lines: Vec<picture::Line>,
    devs: Vec<Dev>,
    /// The openings of the table's components.
    openings: BTreeSet<Opening>,
    size: u64,
    sector_size: u32,
    read_only: bool,
}

/// An opening of a device: its number, and how often it had been revoked before.
type Opening = (Dev, u32);

struct Device {
    name: u8,
    uuid: Option<u8>,
    active: Option<Table>,
    inactive: Option<Table>,
    parts: Vec<Line>,
    created_read_only: bool,
    suspended: bool,
    held: bool,
    slot: bool,
    event_nr: u32,
    user_opens: u32,
    deferred: bool,
}

/// The model: all devices and disks.
#[derive(Default)]
pub struct Model {
    devices: BTreeMap<u32, Device>,
    last_minor: u32,
    /// All openings, revoked ones too.
    open: BTreeSet<Opening>,
    /// Disks that are not any more as [`disks`] has them.
    changed: BTreeMap<Dev, Shape>,
    /// The number of times that each disk was revoked.
    revoked: BTreeMap<Dev, u32>,
    fail_open: BTreeMap<Dev, Errno>,
    /// The errno that attaching a device fails with.
    pub fail_attach: Option<Errno>,
    /// The errno that waiting for I/O fails with.
    pub fail_quiesce: Option<Errno>,
}

/// Keys of a reply, with the values that they must have; `None` for none.
type Keys = Vec<(&'static str, Option<Object>)>;

impl Model {
    fn find(&self, who: &Who) -> Option<u32> {
        let mut found = self.devices.iter().filter(|(minor, device)| match who {
            Who::Name(name) => device.name == *name,
            Who::Uuid(uuid) => device.uuid == Some(*uuid),
            Who::Minor(wanted) => *minor == wanted,
        });
        found.next().map(|(minor, _)| *minor)
    }

    fn opens(&self, minor: u32) -> u32 {
        let below = Dev::new(BLOCK_MAJOR, minor).is_some_and(|dev| self.open.contains(&(dev, 0)));
        self.devices.get(&minor).map_or(0, |device| device.user_opens) + u32::from(below)
    }

    /// Opens a device as a user. `true` if that works.
    pub fn open(&mut self, minor: u32) -> bool {
        let device = self.devices.get_mut(&minor);
        device.map(|device| device.user_opens += 1).is_some()
    }

    /// Closes a device as a user. `true` if it was open by one.
    pub fn close(&mut self, minor: u32) -> bool {
        let Some(device) = self.devices.get_mut(&minor).filter(|d| d.user_opens > 0) else {
            return false;
        };
        device.user_opens -= 1;
        self.settle(BTreeSet::from([minor]));
        true
    }

    /// Has a disk fail to open with `errno`, or with `None` succeed again.
    pub fn fail_open(&mut self, dev: Dev, errno: Option<Errno>) {
        self.fail_open.remove(&dev);
        self.fail_open.extend(errno.map(|errno| (dev, errno)));
    }

    /// Closes devices that no table needs any more, and removes those that waited for their last
    /// close. `closed` are the minors that a user has closed.
    fn settle(&mut self, mut closed: BTreeSet<u32>) {
        loop {
            let tables = self.devices.values().flat_map(|d| d.active.iter().chain(&d.inactive));
            let needed: BTreeSet<Opening> =
                tables.flat_map(|t| t.openings.iter().copied()).collect();
            self.open.retain(|opening| {
                let (keep, dev) = (needed.contains(opening), opening.0);
                if !keep && dev.major() == BLOCK_MAJOR {
                    closed.insert(dev.minor());
                }
                keep
            });
            let Some(minor) = closed.pop_first() else { return };
            if self.opens(minor) == 0 && self.devices.get(&minor).is_some_and(|d| d.deferred) {
                self.devices.remove(&minor);
            }
        }
    }

    /// Carries out a command.
    ///
    /// # Errors
    /// The errno that the driver must answer. Nothing has changed then, but that lines kept for a
    /// table that is refused are dropped.
    pub fn apply(&mut self, op: &Op) -> Result<Keys, Errno> {
        match op {
            Op::Create { name, uuid, minor, read_only } => {
                let minor = self.create(*name, *uuid, *minor, *read_only)?;
                return Ok(self.told(minor, op));
            }
            Op::RemoveAll(deferred) => {
                self.remove_all(*deferred);
                return Ok(Vec::new());
            }
            Op::Names => return Ok(self.names()),
            _ => {}
        }
        let question = matches!(op, Op::Info(_) | Op::Table(..) | Op::Deps(..));
        let Some(minor) = op.who().and_then(|who| self.find(who)) else {
            let sent = op.command().1 & !(flags::EXISTS);
            let told = [("flags", Some(u64::from(sent).into())), ("event_nr", None)];
            return if question { Ok(told.into()) } else { Err(Errno::ENXIO) };
        };
        let fail_quiesce = self.fail_quiesce;
        let others = |model: &Model, same: &dyn Fn(&Device) -> bool| {
            model.devices.iter().any(|(other, device)| *other != minor && same(device))
        };
        match op {
            Op::Rename(_, name) if others(self, &|d| d.name == *name) => {
                return Err(Errno::EEXIST);
            }
            Op::SetUuid(_, uuid) if others(self, &|d| d.uuid == Some(*uuid)) => {
                return Err(Errno::EEXIST);
            }
            Op::Reload { lines, read_only, more, .. } => {
                self.reload(minor, lines, *read_only, *more)?;
            }
            Op::Remove(_, deferred) => return self.remove(minor, *deferred),
            _ => {}
        }
        let device = self.devices.get_mut(&minor).ok_or(Errno::ENXIO)?;
        match op {
            Op::Resume(_) => {
                let failed = fail_quiesce.filter(|_| device.inactive.is_some() && !device.held);
                failed.map_or(Ok(()), Err)?;
                if let Some(table) = device.inactive.take() {
                    device.active = Some(table);
                    device.slot = !device.slot;
                }
                (device.suspended, device.held) = (false, false);
            }
            Op::Suspend(_) => {
                let hold = device.active.is_some() && !device.held;
                fail_quiesce.filter(|_| hold).map_or(Ok(()), Err)?;
                device.suspended = true;
                device.held |= hold;
            }
            Op::Clear(_) => (device.inactive, device.parts) = (None, Vec::new()),
            Op::Rename(_, name) => {
                let event = device.active.is_some() && device.name != *name;
                device.event_nr += u32::from(event);
                device.name = *name;
            }
            Op::SetUuid(_, uuid) if device.uuid.is_some_and(|old| old != *uuid) => {
                return Err(Errno::EINVAL);
            }
            Op::SetUuid(_, uuid) => {
                let event = device.active.is_some() && device.uuid.is_none();
                device.event_nr += u32::from(event);
                device.uuid = Some(*uuid);
            }
            Op::Cancel(_) => device.deferred = false,
            _ => {}
        }
        self.settle(BTreeSet::new());
        Ok(self.told(minor, op))
    }

    fn create(
        &mut self,
        name: u8,
        uuid: Option<u8>,
        minor: Option<u32>,
        created_read_only: bool,
    ) -> Result<u32, Errno> {
        let same = |d: &Device| d.name == name || uuid.is_some() && d.uuid == uuid;
        if self.devices.values().any(same) {
            return Err(Errno::EEXIST);
        }
        let minor = match minor.filter(|minor| *minor != 0) {
            Some(minor) if self.devices.contains_key(&minor) => return Err(Errno::EBUSY),
            Some(minor) => minor,
            None => {
                // A game is too short to use up all minors. A minor that could not be attached is
                // passed over, too.
                self.last_minor += 1;
                while self.devices.contains_key(&self.last_minor) {
                    self.last_minor += 1;
                }
                self.last_minor
            }
        };
        self.fail_attach.map_or(Ok(()), Err)?;
        let device = Device {
            name,
            uuid,
            active: None,
            inactive: None,
            parts: Vec::new(),
            created_read_only,
            suspended: true,
            held: false,
            slot: false,
            event_nr: 0,
            user_opens: 0,
            deferred: false,
        };
        self.devices.insert(minor, device);
        Ok(minor)
    }

    fn remove(&mut self, minor: u32, deferred: bool) -> Result<Keys, Errno> {
        if self.opens(minor) > 0 {
            let device = self.devices.get_mut(&minor).filter(|_| deferred);
            device.ok_or(Errno::EBUSY)?.deferred = true;
            return Ok(self.told(minor, &Op::Remove(Who::Minor(minor), true)));
        }
        let device = self.devices.remove(&minor).ok_or(Errno::ENXIO)?;
        self.settle(BTreeSet::new());
        let told: [(_, Object); 4] = [
            ("flags", 0.into()),
            ("name", super::name(device.name).as_str().into()),
            ("minor", u64::from(minor).into()),
            ("event_nr", u64::from(device.event_nr).into()),
        ];
        Ok(told.into_iter().map(|(key, value)| (key, Some(value))).collect())
    }

    fn remove_all(&mut self, deferred: bool) {
        while let Some(minor) = self.devices.keys().copied().find(|m| self.opens(*m) == 0) {
            self.devices.remove(&minor);
            self.settle(BTreeSet::new());
        }
        self.devices.values_mut().for_each(|device| device.deferred |= deferred);
    }

    fn reload(
        &mut self,
        minor: u32,
        lines: &[Line],
        read_only: bool,
        more: bool,
    ) -> Result<(), Errno> {
        let device = self.devices.get_mut(&minor).ok_or(Errno::ENXIO)?;
        let mut all = core::mem::take(&mut device.parts);
        all.extend(lines.iter().cloned());
        let read_only = read_only || device.created_read_only;
        if more {
            device.parts = all;
            return Ok(());
        }
        let mut open = self.open.clone();
        let table = self.table(minor, &all, read_only, &mut open)?;
        if let Some(device) = self.devices.get_mut(&minor) {
            device.inactive = Some(table);
        }
        self.open = open;
        Ok(())
    }

    /// Gives a disk another size. The next table finds it so, whoever has the disk open.
    pub fn change(&mut self, disk: &crate::testing::Disk) {
        self.changed.insert(disk.dev, (disk.size, disk.sector_size, disk.writable));
    }

    /// Revokes a disk's openings.
    pub fn revoke(&mut self, dev: Dev) {
        let opening = self.opening(dev);
        if self.open.contains(&opening) {
            *self.revoked.entry(dev).or_default() += 1;
        }
    }

    /// The opening that a table gets if it is loaded now.
    fn opening(&self, dev: Dev) -> Opening {
        (dev, self.revoked.get(&dev).copied().unwrap_or(0))
    }

    /// The [`Shape`] of a component, which is opened if nobody has it open.
    fn shape(&self, dev: Dev, open: &mut BTreeSet<Opening>) -> Result<Shape, Errno> {
        if open.insert(self.opening(dev))
            && let Some(errno) = self.fail_open.get(&dev)
        {
            return Err(*errno);
        }
        if let Some(shape) = self.changed.get(&dev) {
            return Ok(*shape);
        }
        Ok(match disks().iter().find(|(_, disk)| disk.dev == dev) {
            Some((_, disk)) => (disk.size, disk.sector_size, disk.writable),
            None => {
                let device = self.devices.get(&dev.minor()).ok_or(Errno::ENXIO)?;
                // Without an active table, by the one that is to be the first.
                let table = device.active.as_ref().or(device.inactive.as_ref());
                let table = table.ok_or(Errno::EINVAL)?;
                // A device that takes no writes may have an inactive table that will.
                let writable = |table: &Table| !table.read_only;
                let writes = writable(table) || device.inactive.as_ref().is_some_and(writable);
                (Sector(table.size), table.sector_size, writes)
            }
        })
    }

    fn table(
        &self,
        minor: u32,
        lines: &[Line],
        read_only: bool,
        open: &mut BTreeSet<Opening>,
    ) -> Result<Table, Errno> {
        let (mut devs, mut sector_size) = (Vec::new(), 512);
        for line in lines {
            let each = match (line.length, line.chunk) {
                (0, _) => return Err(Errno::EINVAL),
                (length, None) => length,
                (length, Some(chunk)) => {
                    let stripes = line.stripes.len() as u64;
                    if chunk == 0 || length % (stripes * chunk) != 0 {
                        return Err(Errno::EINVAL);
                    }
                    length / stripes
                }
            };
            for (number, offset) in &line.stripes {
                let dev = component(*number).1?;
                if dev.major() == BLOCK_MAJOR && dev.minor() == minor {
                    return Err(Errno::ELOOP);
                }
                let (size, sector, writable) = self.shape(dev, open)?;
                let sectors = u64::from(sector / 512);
                let chunk = line.chunk.unwrap_or(each);
                if !read_only && !writable {
                    return Err(Errno::EROFS);
                }
                let whole = |n: &u64| n.is_multiple_of(sectors);
                if offset + each > size.0 || ![*offset, each, chunk].iter().all(whole) {
                    return Err(Errno::EINVAL);
                }
                if !devs.contains(&dev) {
                    devs.push(dev);
                }
                sector_size = sector_size.max(sector);
            }
        }
        let mut sorted: Vec<&Line> = lines.iter().collect();
        sorted.sort_by_key(|line| line.start);
        let mut size = 0;
        for line in &sorted {
            let sectors = u64::from(sector_size / 512);
            let cuts = [line.start, line.start + line.length].iter().any(|n| n % sectors != 0);
            if line.start != size || cuts {
                return Err(Errno::EINVAL);
            }
            size += line.length;
        }
        if lines.is_empty() {
            return Err(Errno::EINVAL);
        }
        self.check_stack(minor, &devs)?;
        let show = |number| component(number).1.map_or(String::new(), |dev| format!("{dev}"));
        let printed = sorted.iter().map(|line| {
            let flat = line.stripes.is_empty();
            let text = if flat { String::new() } else { params(line, &show) };
            (line.start, line.length, line.kind().into(), text)
        });
        let lines = printed.collect();
        let openings = devs.iter().map(|dev| self.opening(*dev)).collect();
        Ok(Table { lines, devs, openings, size, sector_size, read_only })
    }

    /// The minors of our devices that a device's tables map to directly.
    fn below(&self, minor: u32) -> BTreeSet<u32> {
        let device = self.devices.get(&minor);
        let tables = device.into_iter().flat_map(|d| d.active.iter().chain(&d.inactive));
        own(tables.flat_map(|table| &table.devs))
    }

    /// Checks that no device would stand on itself, and that no stack with the new table would be
    /// too deep.
    fn check_stack(&self, minor: u32, devs: &[Dev]) -> Result<(), Errno> {
        let new = own(devs.iter());
        if new.is_empty() {
            return Ok(());
        }
        let mut reached = new.clone();
        let mut below = 1;
        let mut layer = new;
        loop {
            let next: BTreeSet<u32> = layer.iter().flat_map(|minor| self.below(*minor)).collect();
            if reached.contains(&minor) || next.contains(&minor) {
                return Err(Errno::ELOOP);
            }
            if next.is_empty() {
                break;
            }
            below += 1;
            reached.extend(&next);
            layer = next;
        }
        let mut above = 0;
        let mut layer = BTreeSet::from([minor]);
        loop {
            let on = |m: &u32| self.below(*m).intersection(&layer).next().is_some();
            let next: BTreeSet<u32> = self.devices.keys().copied().filter(on).collect();
            if next.is_empty() {
                break;
            }
            above += 1;
            layer = next;
        }
        if below + above > limits::DEPTH { Err(Errno::ELOOP) } else { Ok(()) }
    }

    fn names(&self) -> Keys {
        let list = self.devices.iter().map(|(minor, device)| {
            let mut entry = Dict::default();
            entry.put("name", super::name(device.name).as_str());
            entry.put("dev", u64::from(*minor));
            Object::Dict(entry)
        });
        [("cmd_data", Some(list.collect::<Vec<_>>().into()))].into()
    }

    /// The keys of a reply that tell about a device.
    fn told(&self, minor: u32, op: &Op) -> Keys {
        let Some(device) = self.devices.get(&minor) else { return Vec::new() };
        let sent = op.command().1;
        let inactive = sent & flags::QUERY_INACTIVE_TABLE != 0;
        let chosen = if inactive { &device.inactive } else { &device.active };
        let read_only = match inactive {
            true => device.inactive.as_ref().is_some_and(|t| t.read_only),
            false => device.active.as_ref().map_or(device.created_read_only, |t| t.read_only),
        };
        let bits = [
            (true, flags::EXISTS),
            (device.suspended, flags::SUSPEND),
            (read_only, flags::READONLY),
            (device.active.is_some(), flags::ACTIVE_PRESENT),
            (device.inactive.is_some(), flags::INACTIVE_PRESENT),
            (device.deferred, flags::DEFERRED_REMOVE),
        ];
        let mask = bits.iter().fold(0, |all, (_, bit)| all | bit);
        let told = bits.iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit);
        let mut keys: Keys = [
            ("name", super::name(device.name).as_str().into()),
            ("uuid", device.uuid.map(super::uuid).unwrap_or_default().as_str().into()),
            ("minor", u64::from(minor).into()),
            ("open_count", u64::from(self.opens(minor)).into()),
            ("target_count", (chosen.as_ref().map_or(0, |table| table.lines.len()) as u64).into()),
            ("event_nr", u64::from(device.event_nr).into()),
        ]
        .map(|(key, value): (_, Object)| (key, Some(value)))
        .into();
        keys.push(("flags", Some(u64::from(sent & !mask | told).into())));
        let lines = chosen.as_ref().map_or(&[][..], |table| &table.lines);
        match op {
            Op::Table(..) => {
                let list = lines.iter().map(|(start, length, kind, params)| {
                    let mut line = crate::testing::request::line(*start, *length, kind, params);
                    line.put("status", Object::Signed(i64::from(device.slot)));
                    Object::Dict(line)
                });
                keys.push(("cmd_data", Some(list.collect::<Vec<_>>().into())));
            }
            Op::Deps(..) => {
                let devs = chosen.as_ref().map_or(&[][..], |table| &table.devs).iter();
                let devs = devs.map(|dev| Object::Signed(dev.0.cast_signed()));
                keys.push(("cmd_data", Some(devs.collect::<Vec<_>>().into())));
            }
            _ => {}
        }
        keys
    }

    /// Bytes in a sector of a device with a table.
    pub fn sector_size(&self, minor: u32) -> Option<u32> {
        Some(self.devices.get(&minor)?.active.as_ref()?.sector_size)
    }

    /// The picture that the driver must show.
    pub fn picture(&self) -> Picture {
        let devices = self.devices.iter().map(|(minor, device)| picture::Device {
            minor: *minor,
            name: super::name(device.name),
            uuid: device.uuid.map(super::uuid),
            active: device.active.as_ref().map(|table| table.lines.clone()),
            inactive: device.inactive.as_ref().map(|table| table.lines.clone()),
            read_only: device.active.as_ref().map_or(device.created_read_only, |t| t.read_only),
            suspended: device.suspended,
            slot: device.slot,
            event_nr: device.event_nr,
            open_count: self.opens(*minor),
            remove_at_close: device.deferred,
        });
        let units = self.devices.iter().map(|(minor, device)| {
            (*minor, device.held, device.active.as_ref().map(|table| table.size))
        });
        Picture {
            count: self.devices.len(),
            devices: devices.collect(),
            open: self
                .open
                .iter()
                .map(|(dev, _)| *dev)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            units: units.collect(),
        }
    }
}

/// The minors of our own devices among `devs`.
fn own<'d>(devs: impl Iterator<Item = &'d Dev>) -> BTreeSet<u32> {
    devs.filter(|dev| dev.major() == BLOCK_MAJOR).map(|dev| dev.minor()).collect()
}
