// SPDX-License-Identifier: BSD-2-Clause

//! The devices in the course of a run: those that the C driver had, and those that our driver must
//! have by the contract.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::disks::RunDisk;
use super::{BLOCK_MAJOR, Exchange};
use crate::commands::flags;
use crate::name::{Name, Uuid};
use crate::testing::plist::Dict;
use crate::{Dev, Errno};

/// A line of a table as it was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The first sector.
    pub start: u64,
    /// The number of sectors.
    pub length: u64,
    /// The target.
    pub kind: String,
    /// The target's parameters.
    pub params: String,
}

/// A table as it was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// The table's lines.
    pub lines: Vec<Line>,
    /// `true` if the table was sent with READONLY.
    pub read_only: bool,
    /// `true` if the C driver still had lines of a table that it had refused, and took them in.
    pub leftovers: bool,
}

/// A device's state in one of the two drivers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Side {
    /// `true` if the driver has the device.
    pub exists: bool,
    /// The active table.
    pub active: Option<Table>,
    /// The inactive table.
    pub inactive: Option<Table>,
    /// The slot that is active, of the two.
    pub slot: bool,
    /// `true` if the device is suspended.
    pub suspended: bool,
    leftovers: bool,
}

/// A device of the run.
#[derive(Clone, Debug)]
pub struct Device {
    /// The device's name.
    pub name: String,
    /// The device's uuid.
    pub uuid: String,
    /// The recorded minor.
    pub minor: u64,
    /// The number of events, by the contract.
    pub event_nr: u32,
    /// `true` if the device was created with READONLY.
    pub read_only: bool,
    /// The state that our driver must have.
    pub ours: Side,
    /// The state that the C driver had.
    pub theirs: Side,
}

/// The state of a run: its devices and disks.
#[derive(Clone)]
pub struct Course {
    devices: Vec<Device>,
    disks: Vec<RunDisk>,
}

impl Course {
    /// A run without devices yet.
    pub fn new(disks: Vec<RunDisk>) -> Course {
        Course { devices: Vec::new(), disks }
    }

    /// The devices that our driver has.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.ours.exists)
    }

    /// The device that a request is about, if either driver has one: found by minor, by name, or by
    /// uuid.
    pub fn find(&self, request: &Dict) -> Option<&Device> {
        let at = self.position(request)?;
        self.devices.get(at)
    }

    /// The device of this name that the C driver has.
    pub fn theirs(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.theirs.exists && device.name == name)
    }

    fn position(&self, request: &Dict) -> Option<usize> {
        let number = request.number("minor").filter(|minor| *minor != 0);
        let text = |key| request.string(key).filter(|text| !text.is_empty());
        let (name, uuid) = (text("name"), text("uuid"));
        let same = |device: &Device| match (number, name, uuid) {
            (Some(minor), ..) => device.minor == minor,
            (_, Some(name), _) => device.name == name,
            (_, _, Some(uuid)) => device.uuid == uuid,
            _ => false,
        };
        let both = self.devices.iter().position(|d| same(d) && d.ours.exists);
        both.or_else(|| self.devices.iter().position(same))
    }

    /// The nodes that the tools have made by now, and the recorded minors behind them.
    pub fn paths(&self) -> BTreeMap<String, u64> {
        self.devices().map(|d| (format!("/dev/mapper/{}", d.name), d.minor)).collect()
    }

    /// The device number behind a component's path, in the recording.
    pub fn dev(&self, path: &str) -> Option<Dev> {
        if let Some((major, minor)) = path.split_once(':') {
            return Dev::new(major.parse().ok()?, minor.parse().ok()?);
        }
        if let Some(disk) = self.disks.iter().find(|disk| disk.path == path) {
            return Some(disk.dev);
        }
        let name = path.strip_prefix("/dev/mapper/")?;
        let device = self.devices().find(|device| device.name == name)?;
        Dev::new(BLOCK_MAJOR, u32::try_from(device.minor).ok()?)
    }

    /// The result that the contract demands of a request that changes something, as far as a run
    /// can tell: of the components it knows only whether they are there.
    pub fn verdict(&self, exchange: &Exchange) -> Result<(), Errno> {
        let request = &exchange.request;
        let device = self.find(request).filter(|device| device.ours.exists);
        let others = |device: Option<&Device>, name: &str| {
            let minor = device.map(|device| device.minor);
            self.devices().any(|d| Some(d.minor) != minor && d.name == name)
        };
        let name = request.string("name").unwrap_or("");
        let uuid = request.string("uuid").unwrap_or("");
        let too_long = name.len() > Name::MAX || uuid.len() > Uuid::MAX;
        match exchange.command.as_str() {
            "version" | "names" | "targets" | "remove_all" => Ok(()),
            _ if too_long => Err(Errno::EINVAL),
            "info" | "mknodes" | "status" | "table" | "deps" => Ok(()),
            "create" => {
                Name::new(name)?;
                let same_uuid = |d: &Device| !uuid.is_empty() && d.uuid == uuid;
                if others(None, name) || self.devices().any(same_uuid) {
                    return Err(Errno::EEXIST);
                }
                Ok(())
            }
            _ if device.is_none() => Err(Errno::ENXIO),
            "rename" => {
                let name = request.array("cmd_data").and_then(|data| data.first()?.string());
                let name = Name::new(name.ok_or(Errno::EINVAL)?)?;
                if others(device, name.as_str()) { Err(Errno::EEXIST) } else { Ok(()) }
            }
            "reload" => self.check(&sent(request)),
            // No target of a recorded run takes messages.
            "message" => Err(Errno::EINVAL),
            _ => Ok(()),
        }
    }

    fn check(&self, table: &Table) -> Result<(), Errno> {
        for line in &table.lines {
            if line.length == 0 {
                return Err(Errno::EINVAL);
            }
            if crate::targets::lookup(&line.kind).is_none() {
                return Err(Errno::ENOENT);
            }
            for component in components(line) {
                self.dev(component).ok_or(Errno::ENOENT)?;
            }
        }
        let mut lines: Vec<_> = table.lines.iter().map(|l| (l.start, l.length)).collect();
        lines.sort_unstable();
        let covered = lines.iter().try_fold(0u64, |end, (start, length)| {
            if *start == end { end.checked_add(*length) } else { None }
        });
        covered.filter(|end| *end > 0).map(|_| ()).ok_or(Errno::EINVAL)
    }

    /// Applies an exchange to both sides.
    pub fn step(&mut self, exchange: &Exchange) {
        let request = &exchange.request;
        let ours = self.verdict(exchange).is_ok();
        let theirs = exchange.driver_return == 0;
        let sent_flags = request.number("flags").unwrap_or(0);
        let has = |flag: u32| sent_flags & u64::from(flag) != 0;
        match exchange.command.as_str() {
            "create" if ours || theirs => {
                let text = |key| String::from(request.string(key).unwrap_or(""));
                self.devices.push(Device {
                    name: text("name"),
                    uuid: text("uuid"),
                    minor: exchange.reply.number("minor").unwrap_or(0),
                    event_nr: 0,
                    read_only: has(flags::READONLY),
                    ours: Side { exists: ours, suspended: true, ..Side::default() },
                    theirs: Side { exists: theirs, ..Side::default() },
                });
            }
            "remove_all" => {
                self.devices.iter_mut().for_each(|device| device.ours.exists = false);
            }
            command => {
                let Some(at) = self.position(request) else { return };
                if let Some(device) = self.devices.get_mut(at) {
                    device.step(command, request, ours, theirs);
                }
            }
        }
        self.devices.retain(|device| device.ours.exists || device.theirs.exists);
    }
}

impl Device {
    fn step(&mut self, command: &str, request: &Dict, ours: bool, theirs: bool) {
        let Device { ours: our, theirs: their, .. } = self;
        match command {
            "reload" => {
                let table = sent(request);
                if ours {
                    our.inactive = Some(table.clone());
                }
                if theirs {
                    their.inactive = Some(Table { leftovers: their.leftovers, ..table });
                } else {
                    their.leftovers = true;
                }
            }
            "resume" => {
                if ours && let Some(table) = our.inactive.take() {
                    our.active = Some(table);
                    our.slot = !our.slot;
                }
                if theirs {
                    // Without an inactive table, the active one is lost in the C driver.
                    their.active = their.inactive.take();
                    their.slot = !their.slot;
                    their.leftovers = false;
                }
                our.suspended &= !ours;
                their.suspended &= !theirs;
            }
            "suspend" => {
                our.suspended |= ours;
                their.suspended |= theirs;
            }
            "clear" => {
                our.inactive = our.inactive.take().filter(|_| !ours);
                their.inactive = their.inactive.take().filter(|_| !theirs);
            }
            "remove" => {
                our.exists &= !ours;
                their.exists &= !theirs;
            }
            "rename" if ours || theirs => {
                let name = request.array("cmd_data").and_then(|data| data.first()?.string());
                let name = name.unwrap_or("");
                if ours && our.active.is_some() && self.name != name {
                    self.event_nr += 1;
                }
                self.name = name.into();
            }
            _ => {}
        }
    }
}

/// The lines in a request.
fn sent(request: &Dict) -> Table {
    let lines = request.array("cmd_data").unwrap_or(&[]).iter().filter_map(|line| {
        let line = line.dict()?;
        Some(Line {
            start: line.number("start")?,
            length: line.number("length")?,
            kind: line.string("type")?.into(),
            params: line.string("params")?.into(),
        })
    });
    let read_only = request.number("flags").unwrap_or(0) & u64::from(flags::READONLY) != 0;
    Table { lines: lines.collect(), read_only, leftovers: false }
}

/// The words of a line that name components.
pub fn components(line: &Line) -> Vec<&str> {
    let words = line.params.split_ascii_whitespace();
    match line.kind.as_str() {
        "linear" => words.take(1).collect(),
        "striped" => words.skip(2).step_by(2).collect(),
        _ => Vec::new(),
    }
}
