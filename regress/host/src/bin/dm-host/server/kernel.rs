// SPDX-License-Identifier: BSD-2-Clause

//! The kernel as the servers use it: control and NBD.

mod node;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use dm_core::commands::flags;
use dm_host::sysctl::Value;
use dm_host::{Dev, Errno, File, Flags, LwpId, Machine, Node as Path, makedev, netbsd, reasons};

pub use node::Node;
use node::Shared;

use super::extents::{Found, Map};
use crate::say::say;
use crate::wiping;
use crate::xml::{self, Answer, Dict};

/// The driver's major number for block devices: sys/conf/majors.
pub const BLOCK_MAJOR: u32 = 169;

/// The major number of the driver's character devices.
const CHARACTER_MAJOR: u32 = 194;

/// Devices below devices that are looked through for holes.
const DEPTH: u32 = 8;

/// The user id of requests with `--as-user`.
const SOMEBODY: u32 = 1000;

/// A booted machine.
pub struct Kernel {
    /// The machine. `None` only at the very end.
    machine: Option<Machine>,
    disks: String,
    user: bool,
    /// The block nodes that connections have open. A block device can be open only once in
    /// NetBSD, so connections share.
    nodes: Mutex<HashMap<Dev, Weak<Shared>>>,
    /// Counts requests that may have changed a table: knowledge of a table is good as long as this stays. Only
    /// requests through [`Kernel::ioctl`] change tables.
    changes: AtomicU64,
    /// The tables of devices by minor, and `changes` when they were read.
    maps: Mutex<HashMap<u32, (u64, Arc<Map>)>>,
}

type Said<T> = Result<T, (Errno, String)>;

/// `true` for a request that may have a key of the target crypt's in it, or ask for one.
fn may_have_key(xml: &str) -> bool {
    xml.contains("crypt") || xml.contains("key set")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kernel {
    /// A kernel for a machine and its disks; `disks` describes them as the wire has it. With `user`, requests come
    /// from a user who is not root.
    pub fn new(machine: Machine, disks: String, user: bool) -> Kernel {
        Kernel {
            machine: Some(machine),
            disks,
            user,
            nodes: Mutex::default(),
            changes: AtomicU64::new(0),
            maps: Mutex::default(),
        }
    }

    /// Shuts the machine down. The answer is a list of leaks.
    pub fn shutdown(mut self) -> Vec<String> {
        self.machine.take().map(Machine::shutdown).unwrap_or_default()
    }

    fn machine(&self) -> Result<&Machine, Errno> {
        self.machine.as_ref().ok_or(Errno::ENXIO)
    }

    /// The calling thread, as the kernel knows it.
    pub fn current(&self) -> LwpId {
        dm_host::current_lwp()
    }

    /// Ends a thread's sleep in the kernel.
    pub fn interrupt(&self, lwp: LwpId) {
        if let Ok(machine) = self.machine() {
            machine.interrupt(lwp);
        }
    }

    fn as_caller<R>(&self, machine: &Machine, f: impl FnOnce() -> R) -> R {
        if self.user { machine.as_user(SOMEBODY, f) } else { f() }
    }

    /// The control node, for a client to keep open.
    ///
    /// # Errors
    /// ENXIO at the very end.
    pub fn control(&self) -> Result<File, Errno> {
        self.machine()?.open("/dev/mapper/control", Flags::READ_WRITE)
    }

    /// Sends a property list to the control node.
    ///
    /// # Errors
    /// The driver's, with its reason, unless the request asks for reasons itself.
    pub fn ioctl(&self, control: &File, xml: &str) -> Said<String> {
        let machine = self.machine().map_err(|errno| (errno, String::new()))?;
        if may_have_key(xml) {
            // Before what has come is freed.
            wiping::begin();
        }
        // Before and after: what is learnt of a table meanwhile may be of either one.
        self.changes.fetch_add(1, Ordering::SeqCst);
        let result = self.as_caller(machine, || reasons::ask(xml, |xml| control.plist_ioctl(xml)));
        self.changes.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// The statistics of the devices, as the wire has them.
    ///
    /// # Errors
    /// The driver's.
    pub fn statistics(&self) -> Result<String, Errno> {
        let mut text = String::new();
        for (_, minor) in self.devices()? {
            // A device may go meanwhile.
            if let Some((reads, writes, read, written, now, busy)) =
                dm_host::iostat::disk_stats(&format!("dm{minor}"))
            {
                let age = dm_host::iostat::disk_age(&format!("dm{minor}")).unwrap_or(0);
                let line = format!(
                    "{minor}\t{reads}\t{read}\t{writes}\t{written}\t{now}\t{busy}\t{age}\n"
                );
                text.push_str(&line);
            }
        }
        Ok(text)
    }

    /// Has `/dev/mapper/NAME` name the block device NAME, and `/dev/mapper/rNAME` its character
    /// device: in NetBSD the tools make these nodes.
    ///
    /// # Errors
    /// ENXIO at the very end.
    pub fn name_devices(self: &Arc<Self>) -> Result<(), Errno> {
        let own = Arc::downgrade(self);
        let minor = move |name: &str| own.upgrade()?.find(name).ok();
        let resolver = move |path: &str| {
            let name = path.strip_prefix("/dev/mapper/")?;
            match (minor(name), name.strip_prefix('r')) {
                (Some((minor, _)), _) => Some((makedev(BLOCK_MAJOR, minor), true)),
                (None, Some(name)) => Some((makedev(CHARACTER_MAJOR, minor(name)?.0), false)),
                (None, None) => None,
            }
        };
        self.machine()?.set_resolver(Arc::new(resolver));
        Ok(())
    }

    /// Reads `name`, or sets `name=value`, and returns the value.
    ///
    /// # Errors
    /// ENOENT and what else sysctl(3) says.
    pub fn sysctl(&self, text: &str) -> Said<String> {
        let machine = self.machine().map_err(|errno| (errno, String::new()))?;
        let (name, new) = match text.split_once('=') {
            Some((name, new)) => (name.trim(), Some(new.trim())),
            None => (text.trim(), None),
        };
        let failed = |errno| (errno, String::new());
        let value = machine
            .sysctl_get(name)
            .map_err(|errno| (errno, format!("there are {}", machine.sysctl_names().join(", "))))?;
        if let Some(new) = new {
            let number = |what: &str| (Errno::EINVAL, format!("`{new}` is no {what}"));
            let new = match value {
                Value::Int(_) => Value::Int(new.parse().map_err(|_| number("number"))?),
                Value::Quad(_) => Value::Quad(new.parse().map_err(|_| number("number"))?),
                Value::String(_) => Value::String(new.into()),
            };
            self.as_caller(machine, || machine.sysctl_set(name, &new)).map_err(|errno| {
                let why = match (errno, self.user) {
                    (Errno::EPERM, true) => "only the super-user may set it",
                    (Errno::EPERM, false) => "the variable is read-only",
                    _ => "",
                };
                (errno, why.into())
            })?;
        }
        Ok(match machine.sysctl_get(name).map_err(failed)? {
            Value::Int(number) => number.to_string(),
            Value::Quad(number) => number.to_string(),
            Value::String(text) => text,
        })
    }

    /// The disks, as the wire has them.
    pub fn disks(&self) -> String {
        self.disks.clone()
    }

    /// Asks whether a client may end the server: one who reaches the socket may, unless requests come from a user who
    /// is not root.
    ///
    /// # Errors
    /// EPERM.
    pub fn may_end(&self) -> Said<String> {
        if self.user { Err((Errno::EPERM, String::new())) } else { Ok(String::new()) }
    }

    /// A request of the server's own, as root.
    fn own(&self, command: &str, name: &str) -> Result<Answer, Errno> {
        self.own_with(command, name, 0)
    }

    fn own_with(&self, command: &str, name: &str, flags: u32) -> Result<Answer, Errno> {
        let request = Dict::from([
            ("command", command.into()),
            ("name", name.into()),
            ("flags", u64::from(flags).into()),
        ]);
        // A table's keys are zeros for who could not change the device.
        let how = if command == "table" { Flags::READ } else { Flags::READ_WRITE };
        let control = self.machine()?.open("/dev/mapper/control", how)?;
        let reply = control.plist_ioctl(&xml::write(&request))?;
        Answer::parse(reply.as_bytes()).map_err(|_| Errno::EIO)
    }

    /// The devices' names and minors.
    fn devices(&self) -> Result<Vec<(String, u32)>, Errno> {
        let reply = self.own("names", "")?;
        let device = |entry: Answer| {
            let minor = u32::try_from(entry.number("dev")?).ok()?;
            Some((entry.text("name").to_string(), minor))
        };
        Ok(reply.dictionaries("cmd_data").filter_map(device).collect())
    }

    /// The devices' names.
    ///
    /// # Errors
    /// The driver's.
    pub fn names(&self) -> Result<Vec<String>, Errno> {
        Ok(self.devices()?.into_iter().map(|(name, _)| name).collect())
    }

    /// The device of a name: its minor, and whether it takes no writes.
    ///
    /// # Errors
    /// ENXIO when there is none, and those of the driver.
    fn find(&self, name: &str) -> Result<(u32, bool), Errno> {
        let info = self.own("info", name)?;
        let minor = info.number("minor").and_then(|minor| u32::try_from(minor).ok());
        let read_only = info.number("flags").unwrap_or(0) & u64::from(flags::READONLY) != 0;
        Ok((minor.ok_or(Errno::EIO)?, read_only))
    }

    /// A device's size in bytes, its sector size, and whether it takes writes, from its table:
    /// without opening it, which may be impossible now.
    ///
    /// # Errors
    /// ENXIO when there is none, and those of the driver.
    pub fn describe(&self, name: &str) -> Result<(u64, u32, bool), Errno> {
        let (minor, read_only) = self.find(name)?;
        let map = self.map(minor, name)?;
        Ok((map.bytes(), self.sector_below(&map, DEPTH)?, !read_only))
    }

    /// The largest sector of the disks below a table.
    fn sector_below(&self, map: &Map, depth: u32) -> Result<u32, Errno> {
        let mut largest = 512;
        for dev in map.devs() {
            let sector = if dm_host::major(dev) != BLOCK_MAJOR {
                self.machine()?.sector_size(dev).unwrap_or(512)
            } else if let Some(below) = self.below(dev, depth) {
                self.sector_below(&below, depth.saturating_sub(1))?
            } else {
                512
            };
            largest = largest.max(sector);
        }
        Ok(largest)
    }

    /// The table of a dm device that lies below another; not when it lies too deep.
    fn below(&self, dev: Dev, depth: u32) -> Option<Arc<Map>> {
        let minor = dm_host::minor(dev);
        let devices = if depth == 0 { Vec::new() } else { self.devices().unwrap_or_default() };
        let (name, _) = devices.into_iter().find(|(_, other)| *other == minor)?;
        self.map(minor, &name).ok()
    }

    /// Opens a device's block node, or shares it.
    ///
    /// # Errors
    /// ENXIO for a device that does not exist, and those of its driver.
    pub fn open(self: &Arc<Self>, name: &str) -> Result<Node, Errno> {
        let (minor, _) = self.find(name)?;
        let dev = makedev(BLOCK_MAJOR, minor);
        let mut nodes = lock(&self.nodes);
        if let Some(shared) = nodes.get(&dev).and_then(Weak::upgrade) {
            return Ok(Node::new(self.clone(), shared, name));
        }
        nodes.retain(|_, node| node.strong_count() > 0);
        let machine = self.machine()?;
        let (file, writable) = match machine.open(Path::Block(dev), Flags::READ_WRITE) {
            Err(Errno::EROFS) => (machine.open(Path::Block(dev), Flags::READ)?, false),
            result => (result?, true),
        };
        let shared = Arc::new(Shared::new(file, minor, writable));
        nodes.insert(dev, Arc::downgrade(&shared));
        Ok(Node::new(self.clone(), shared, name))
    }

    /// A device's table as it is now.
    fn map(&self, minor: u32, name: &str) -> Result<Arc<Map>, Errno> {
        let changes = self.changes.load(Ordering::SeqCst);
        if let Some((seen, map)) = lock(&self.maps).get(&minor)
            && *seen == changes
        {
            return Ok(map.clone());
        }
        let map = Arc::new(Map::parse(&self.own_with("table", name, flags::STATUS_TABLE)?));
        let mut maps = lock(&self.maps);
        // Devices come and go: what is old is not kept.
        maps.retain(|_, (seen, _)| *seen == changes);
        maps.insert(minor, (changes, map.clone()));
        Ok(map)
    }

    /// The allocation of a component at a byte, for at most `length` bytes. Devices below devices are followed,
    /// `depth` of them; a deeper one is taken for data.
    fn found(&self, dev: Dev, offset: u64, length: u64, depth: u32) -> Found {
        let unknown = Found { length, ..Found::default() };
        if dm_host::major(dev) != BLOCK_MAJOR {
            let found = self.machine().ok().and_then(|m| m.allocation(dev, offset, length));
            return found.map_or(unknown, |(allocation, zeroes)| Found {
                length: allocation.length,
                hole: allocation.hole,
                zero: allocation.zero,
                zeroes,
            });
        }
        match self.below(dev, depth) {
            Some(map) => map.first(offset, length, &|dev, offset, length| {
                self.found(dev, offset, length, depth.saturating_sub(1))
            }),
            None => unknown,
        }
    }

    /// Resumes suspended devices without changing their tables, so that held I/O can end.
    pub fn release_held(&self) {
        for name in self.names().unwrap_or_default() {
            let Ok(info) = self.own("info", &name) else { continue };
            if info.number("flags").is_some_and(|flags| flags & u64::from(flags::SUSPEND) != 0) {
                // The device may go meanwhile; there is nothing to release then.
                let _ = self.own("clear", &name).and_then(|_| self.own("resume", &name));
            }
        }
    }

    /// Removes all devices, and those below others after them.
    pub fn remove_all(&self) {
        self.release_held();
        self.flush_disks();
        let mut before = usize::MAX;
        while let Ok(devices) = self.devices()
            && !devices.is_empty()
            && devices.len() < before
        {
            before = devices.len();
            if let Err(errno) = self.own("remove_all", "") {
                say(&format!("removing the devices: {}", errno.text()));
            }
        }
    }

    /// Flushes the disks' caches to their files.
    fn flush_disks(&self) {
        for path in self.disks.lines().filter_map(|line| line.split('\t').next()) {
            let raw = path.replacen("/dev/", "/dev/r", 1);
            let flushed = self.machine().and_then(|machine| {
                let mut force = 1i32;
                let node = match machine.open(raw.as_str(), Flags::READ_WRITE) {
                    // A disk that takes no writes has nothing to flush.
                    Err(Errno::EROFS) => return Ok(()),
                    node => node?,
                };
                node.ioctl(netbsd::DIOCCACHESYNC as u32 as u64, &mut force)
            });
            if let Err(errno) = flushed {
                say(&format!("flushing {path}: {}", errno.text()));
            }
        }
    }
}
