// SPDX-License-Identifier: BSD-2-Clause

//! Our driver, in a hosted machine, as a side.

mod nodes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dm_core::commands::flags;
use dm_core::testing::plist::{Dict, Object};
use dm_core::testing::request::{self, Request as Plist};
use dm_core::units;
use dm_host::{
    Clock, Config, Disk as HostDisk, DiskSpec, Errno, File, Flags, Machine, Node as HostNode,
    makedev,
};
use dm_script::data::SECTOR;
use dm_script::side::{Call, Disk, Error, Line, Node, Place, Reply, Request, Side};

use nodes::{Open, Plain, Raw};

/// The driver's major for block devices: sys/conf/majors.
const MAJOR: u32 = 169;

/// The major number of the driver's character devices.
const CHARACTER: u32 = 194;

/// `DM_SKIP_LOCKFS_FLAG` and `DM_NOFLUSH_FLAG`, which the driver takes from tools.
const SKIP_LOCKFS: u32 = 1 << 10;
const NOFLUSH: u32 = 1 << 11;

/// Lines in a request: the kernel takes 64 KiB in one, before NetBSD 11.
const LINES: usize = 200;

/// A machine with the driver.
pub struct Hosted {
    /// None only while it is shut down. Closed before the machine.
    control: Option<File>,
    machine: Option<Machine>,
    disks: BTreeMap<String, Attached>,
    /// The block nodes that are open, by minor, and whether for writing.
    shared: Mutex<BTreeMap<u32, (Weak<File>, bool)>>,
}

/// A disk, and the file of its data.
struct Attached {
    disk: HostDisk,
    image: PathBuf,
}

fn name_of(error: Errno) -> Error {
    error.name().map_or_else(|| format!("errno {}", error.0), str::to_owned)
}

fn named<T>(result: Result<T, Errno>) -> Result<T, Error> {
    result.map_err(name_of)
}

impl Hosted {
    /// Boots a hosted kernel with the driver.
    ///
    /// # Errors
    /// Words.
    pub fn boot() -> Result<Hosted, String> {
        let config = Config { clock: Clock::Real, ..Config::default() };
        let machine = Machine::boot(config).map_err(|error| format!("no machine: {error}"))?;
        let control = machine.open("/dev/mapper/control", Flags::READ_WRITE);
        let control = control.map_err(|error| format!("no control node: {error}"))?;
        Ok(Hosted {
            control: Some(control),
            machine: Some(machine),
            disks: BTreeMap::new(),
            shared: Mutex::default(),
        })
    }

    fn machine(&self) -> Result<&Machine, Error> {
        self.machine.as_ref().ok_or_else(|| "no machine".to_owned())
    }

    fn send(&self, plist: &Plist) -> Result<Dict, Error> {
        let control = self.control.as_ref().ok_or_else(|| "no machine".to_owned())?;
        let reply = named(control.plist_ioctl(&plist.dict().print()))?;
        Dict::parse(&reply).map_err(str::to_owned)
    }

    /// Sends a table, in parts where it is long.
    fn load(&self, request: &Request, plist: Plist, flags: u32) -> Result<Dict, Error> {
        let mut parts: Vec<_> = request.lines.chunks(LINES).collect();
        let last = parts.pop().unwrap_or_default();
        let data = |part: &[Line]| {
            let line =
                |l: &Line| Object::from(request::line(l.start, l.length, &l.kind, &l.params));
            part.iter().map(line).collect::<Vec<_>>()
        };
        for part in parts {
            let more = plist.clone().flags(flags | flags::RELOAD_MORE);
            self.send(&more.with("cmd_data", data(part)))?;
        }
        self.send(&plist.flags(flags).with("cmd_data", data(last)))
    }
}

fn word(call: Call, table: bool) -> &'static str {
    match call {
        Call::Create => "create",
        Call::Load => "reload",
        Call::Resume => "resume",
        Call::Suspend => "suspend",
        Call::Clear => "clear",
        Call::Remove => "remove",
        Call::RemoveAll => "remove_all",
        Call::Rename => "rename",
        Call::Info => "info",
        Call::Status if table => "table",
        Call::Status => "status",
        Call::Deps => "deps",
        Call::Names => "names",
        Call::Wait => "waitevent",
        Call::Message => "message",
        Call::Geometry => "setgeometry",
    }
}

fn flags_of(request: &Request) -> u32 {
    let given = [
        (request.readonly, flags::READONLY),
        (request.noflush, NOFLUSH),
        (request.nolockfs, SKIP_LOCKFS),
        (request.inactive, flags::QUERY_INACTIVE_TABLE),
        (request.table, flags::STATUS_TABLE),
        (request.deferred, flags::DEFERRED_REMOVE),
        (request.set_uuid, flags::UUID),
        (request.minor.is_some(), flags::PERSISTENT_DEV),
    ];
    // As libdevmapper does with each request.
    let all = given.iter().filter(|(given, _)| *given).map(|(_, flag)| flag);
    all.fold(flags::EXISTS, |all, flag| all | flag)
}

fn reply_of(request: &Request, dict: &Dict) -> Reply {
    let number = |key: &str| dict.number(key).unwrap_or(0);
    let text = |key: &str| dict.string(key).unwrap_or_default().to_owned();
    let has = |flag: u32| number("flags") & u64::from(flag) != 0;
    let data = dict.array("cmd_data").unwrap_or(&[]);
    let mut reply = Reply {
        exists: has(flags::EXISTS),
        suspended: has(flags::SUSPEND),
        readonly: has(flags::READONLY),
        live: has(flags::ACTIVE_PRESENT),
        inactive: has(flags::INACTIVE_PRESENT),
        deferred: has(flags::DEFERRED_REMOVE),
        open: number("open_count"),
        event: number("event_nr"),
        targets: number("target_count"),
        minor: u32::try_from(number("minor")).unwrap_or(0),
        name: text("name"),
        uuid: text("uuid"),
        ..Reply::default()
    };
    match request.call {
        Call::Status | Call::Wait => {
            let lines = data.iter().filter_map(Object::dict).map(|line| Line {
                start: line.number("start").unwrap_or(0),
                length: line.number("length").unwrap_or(0),
                kind: line.string("type").unwrap_or_default().to_owned(),
                params: line.string("params").unwrap_or_default().to_owned(),
            });
            reply.lines = lines.collect();
        }
        Call::Message => reply.text = dict.string(dm_host::linux::REPLY).map(str::to_owned),
        Call::Deps => {
            let deps = data.iter().filter_map(Object::number).map(units::Dev);
            reply.deps = deps.map(|dev| (dev.major(), dev.minor())).collect();
        }
        Call::Names => {
            let names = data.iter().filter_map(Object::dict).map(|entry| {
                let minor = entry.number("dev").and_then(|minor| u32::try_from(minor).ok());
                (entry.string("name").unwrap_or_default().to_owned(), minor.unwrap_or(0))
            });
            reply.names = names.collect();
        }
        _ => {}
    }
    reply
}

impl Side for Hosted {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn attach(&mut self, disk: &Disk, image: &Path) -> Result<(), String> {
        let name = format!("wd{}", self.disks.len());
        let what = |error: Errno| format!("disk {}: {error}", disk.name);
        let mut spec = DiskSpec::file(&name, image, disk.readonly).map_err(what)?;
        spec = spec.sector_size(disk.block);
        let attached = self.machine()?.attach_disk(spec).map_err(what)?;
        let attached = Attached { disk: attached, image: image.to_path_buf() };
        self.disks.insert(disk.name.clone(), attached);
        Ok(())
    }

    fn detach(&mut self) -> Result<(), String> {
        self.control = None;
        self.disks.clear();
        let left = self.machine.take().map(Machine::shutdown).unwrap_or_default();
        if left.is_empty() { Ok(()) } else { Err(format!("left over: {}", left.join(", "))) }
    }

    fn targets(&mut self) -> Result<Vec<String>, String> {
        let dict = self.send(&Plist::new("targets"))?;
        let entries = dict.array("cmd_data").unwrap_or(&[]).iter().filter_map(Object::dict);
        Ok(entries.filter_map(|entry| entry.string("name")).map(str::to_owned).collect())
    }

    fn command(&self, request: &Request) -> Result<Reply, Error> {
        let mut plist = Plist::new(word(request.call, request.table));
        for (key, value) in [("name", &request.name), ("uuid", &request.uuid)] {
            if let Some(value) = value {
                plist = plist.with(key, value.as_str());
            }
        }
        if let Some(minor) = request.minor {
            plist = plist.with("minor", u64::from(minor));
        }
        let flags = flags_of(request);
        let dict = match request.call {
            Call::Load => self.load(request, plist, flags)?,
            Call::Rename => {
                let new = vec![Object::from(request.text.as_str())];
                self.send(&plist.flags(flags).with("cmd_data", new))?
            }
            Call::Message => {
                let plist = plist.with("sector", request.sector);
                self.send(&plist.flags(flags).with("message", request.text.as_str()))?
            }
            Call::Geometry => {
                self.send(&plist.flags(flags).with("geometry", request.text.as_str()))?
            }
            Call::Wait => {
                self.send(&plist.flags(flags).with("event_nr", u64::from(request.event)))?
            }
            _ => self.send(&plist.flags(flags).with("cmd_data", Vec::new()))?,
        };
        Ok(reply_of(request, &dict))
    }

    fn disk(&self, name: &str) -> Option<(u32, u32, String)> {
        let disk = &self.disks.get(name)?.disk;
        let dev = disk.dev();
        Some((dm_host::major(dev), dm_host::minor(dev), disk.path()))
    }

    fn major(&self) -> u32 {
        MAJOR
    }

    /// Opens a device or disk. In NetBSD a block device is open only once: a further user shares it, and where a
    /// table has a disk open the character node is opened.
    fn open(&self, place: &Place, write: bool) -> Result<Box<dyn Node>, Error> {
        let minor = match place {
            Place::Disk(name) => {
                let disk = self.disks.get(name).ok_or("ENOENT")?;
                return Ok(Box::new(Plain::open(disk, write)?));
            }
            Place::Device(minor) => *minor,
        };
        let machine = self.machine()?;
        let mode = if write { Flags::READ_WRITE } else { Flags::READ };
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((file, may_write)) =
            shared.get(&minor).and_then(|(f, w)| Some((f.upgrade()?, *w)))
            && (may_write || !write)
        {
            // The table may have changed since it was opened.
            let sectors = machine.psize(makedev(MAJOR, minor)).and_then(|n| u64::try_from(n).ok());
            let sectors = sectors.unwrap_or(file.size() / SECTOR as u64);
            return Ok(Box::new(Open { file, sectors }));
        }
        match machine.open(HostNode::Block(makedev(MAJOR, minor)), mode) {
            Ok(file) => {
                let file = Arc::new(file);
                shared.insert(minor, (Arc::downgrade(&file), write));
                let sectors = file.size() / SECTOR as u64;
                Ok(Box::new(Open { file, sectors }))
            }
            Err(Errno::EBUSY) => {
                let node = HostNode::Character(makedev(CHARACTER, minor));
                Ok(Box::new(Raw(named(machine.open(node, mode))?)))
            }
            Err(error) => Err(name_of(error)),
        }
    }

    fn shell(&self, _: &str) -> Result<String, String> {
        Ok(String::new())
    }

    fn said(&self) -> Vec<String> {
        let Some(machine) = &self.machine else { return Vec::new() };
        let said = machine.console();
        machine.clear_console();
        said
    }
}
