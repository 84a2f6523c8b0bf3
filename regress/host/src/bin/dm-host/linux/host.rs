// SPDX-License-Identifier: BSD-2-Clause

//! The driver, the disks and the block devices, as the translation needs them.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};
use std::{fs, io};

use dm_host::linux::{Change, Fault, Host, NETBSD_MAJOR};
use dm_host::{Backend, Disk, DiskSpec, Errno, Flags, Machine};
use zeroize::Zeroizing;

use super::blocks::{self, Blocks};
use super::events::Events;
use super::tree::{Entry, Tree};
use super::{space, users};
use crate::disk::{self, From};
use crate::image::{self, Opened};
use crate::xml::{self, Answer, Dict};

/// A disk of the machine's.
struct Known {
    disk: Disk,
    /// Linux's number of it, where Linux has it too.
    dev: Option<u64>,
    /// `true` if the disk was attached because a table named it; it goes when none does.
    passing: bool,
    /// Threads whose request names the disk: a table with it may be about to come.
    wanted: Vec<ThreadId>,
    /// The loop device, open as long as it shall have its file, and the file, which is locked.
    _held: Vec<fs::File>,
}

/// A disk of the command line, looked at while the machine's own /dev was there.
pub enum Prepared {
    /// A block device with this number.
    Device(u64),
    /// A file, or an NBD export.
    Image(Opened),
}

impl Prepared {
    /// Examines a disk, and opens it if it is no block device.
    ///
    /// # Errors
    /// In words.
    pub fn new(disk: &disk::Disk) -> Result<Prepared, String> {
        if let From::File(file) = &disk.from
            && let Ok(found) = fs::metadata(file)
            && found.file_type().is_block_device()
        {
            return Ok(Prepared::Device(found.rdev()));
        }
        let opened = image::open(disk)?;
        opened.warnings.iter().for_each(|warning| eprintln!("dm-host: warning: {warning}"));
        Ok(Prepared::Image(opened))
    }
}

/// The record of a device, for the uses of one by another.
#[derive(Clone, Default)]
struct Device {
    name: String,
    uuid: String,
    suspended: bool,
    read_only: bool,
    has_table: bool,
    /// `true` if the device is removed at its last close.
    leaving: bool,
    sectors: u64,
    /// The minors that its tables name, once for each table.
    below: Vec<u32>,
}

/// A machine with what Linux programs need around it.
pub struct Keeper {
    /// The machine.
    pub machine: Machine,
    /// The major number that programs see.
    pub major: u32,
    /// The block devices, if there are any.
    pub blocks: Option<Blocks>,
    /// The programs that wait for events.
    pub events: Events,
    folder: PathBuf,
    tree: Tree,
    disks: Mutex<Vec<Known>>,
    devices: Mutex<BTreeMap<u32, Device>>,
    order: Mutex<()>,
}

/// The order in which devices are looked at. Held from the question to the driver until the answer is
/// noted or the device forgotten, so that no older answer is noted after a newer one, and what has a
/// device's number after it is not forgotten in its place. Taken before the other locks.
struct Order<'a> {
    _held: MutexGuard<'a, ()>,
}

/// The time for which the end of a session tries to remove devices in vain.
const PATIENCE: Duration = Duration::from_secs(20);

fn words(what: &str, errno: Errno) -> String {
    format!("{what}: {} ({})", errno.text(), errno.name().unwrap_or("?"))
}

impl Keeper {
    /// A machine, and its surroundings in `folder`.
    ///
    /// # Errors
    /// In words.
    pub fn new(
        machine: Machine,
        major: u32,
        blocks: Option<Blocks>,
        folder: &Path,
    ) -> Result<Keeper, String> {
        let tree = Tree::new(folder.join("sys"), major).map_err(|error| error.to_string())?;
        Ok(Keeper {
            machine,
            major,
            blocks,
            events: Events::default(),
            folder: folder.into(),
            tree,
            disks: Mutex::default(),
            devices: Mutex::default(),
            order: Mutex::default(),
        })
    }

    fn disks(&self) -> MutexGuard<'_, Vec<Known>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn devices(&self) -> MutexGuard<'_, BTreeMap<u32, Device>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self) -> Order<'_> {
        Order { _held: self.order.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Attaches a disk of the command line; where there are block devices, also as /dev/NAME.
    ///
    /// # Errors
    /// In words.
    pub fn attach(&self, disk: &disk::Disk, prepared: Prepared) -> Result<(), String> {
        let failed = |error: io::Error| format!("disk {}: {error}", disk.name);
        let errno = |errno| words(&format!("disk {}", disk.name), errno);
        let node = Path::new("/dev").join(&disk.name);
        let mut held = Vec::new();
        let (spec, dev) = match (&self.blocks, prepared) {
            (Some(_), Prepared::Device(dev)) => {
                space::block_node(&node, dev).map_err(failed)?;
                let spec = DiskSpec::file(&disk.name, &node, disk.read_only).map_err(errno)?;
                (spec.sector_size(disk.sector_size), Some(dev))
            }
            (None, Prepared::Device(dev)) => {
                let From::File(path) = &disk.from else { return Err("no file".into()) };
                let spec = DiskSpec::file(&disk.name, path, disk.read_only).map_err(errno)?;
                (spec.sector_size(disk.sector_size), Some(dev))
            }
            (Some(blocks), Prepared::Image(opened)) => {
                let Backend::File(file) = opened.backend else {
                    return Err(format!(
                        "disk {}: with block devices it must be a file or a block device",
                        disk.name
                    ));
                };
                let attached =
                    blocks.attach(&file, opened.read_only, opened.sector_size, &disk.name);
                let (device, dev) = attached.map_err(failed)?;
                held = vec![device, file];
                space::block_node(&node, dev).map_err(failed)?;
                // What the machine writes, and what programs read, goes the same way.
                let spec = DiskSpec::file(&disk.name, &node, opened.read_only).map_err(errno)?;
                (spec.sector_size(opened.sector_size), Some(dev))
            }
            (None, Prepared::Image(opened)) => {
                let spec = DiskSpec::on(&disk.name, opened.backend, opened.read_only);
                (spec.sector_size(opened.sector_size), None)
            }
        };
        let attached = self.machine.attach_disk(spec).map_err(errno)?;
        self.disks().push(Known {
            disk: attached,
            dev,
            passing: false,
            wanted: Vec::new(),
            _held: held,
        });
        Ok(())
    }

    /// The disk that is a block device of Linux's; one that is not known is attached.
    fn by_number(&self, dev: u64, path: Option<&Path>) -> Result<String, Fault> {
        let mut disks = self.disks();
        let own = thread::current().id();
        if let Some(known) = disks.iter_mut().find(|known| known.dev == Some(dev)) {
            known.wanted.push(own);
            return Ok(known.disk.major_minor());
        }
        let (major, minor) = (libc::major(dev), libc::minor(dev));
        let node = match (&self.blocks, path) {
            (Some(_), _) => {
                let node = Path::new(space::NODES).join(format!("{major}:{minor}"));
                space::block_node(&node, dev).map_err(|_| Fault(libc::ENXIO))?;
                node
            }
            (None, Some(path)) => path.into(),
            (None, None) => PathBuf::from(format!("/dev/block/{major}:{minor}")),
        };
        let free = (0..=255).map(|unit| format!("ld{unit}"));
        let mut free = free.filter(|name| disks.iter().all(|known| known.disk.name() != name));
        let name = free.next().ok_or(Fault(libc::ENOMEM))?;
        let spec = match DiskSpec::file(&name, &node, false) {
            Err(Errno::EROFS | Errno::EACCES | Errno::EPERM) => DiskSpec::file(&name, &node, true),
            spec => spec,
        };
        let sector = sector_size(&node);
        let attached = spec.and_then(|spec| self.machine.attach_disk(spec.sector_size(sector)));
        // A loop device without a file is one.
        let disk = attached.map_err(|_| Fault(libc::ENXIO))?;
        let word = disk.major_minor();
        let wanted = vec![own];
        disks.push(Known { disk, dev: Some(dev), passing: true, wanted, _held: Vec::new() });
        Ok(word)
    }

    /// Detaches the disks that were attached for a table, where no table uses them any more, or is
    /// about to.
    fn drop_passing(&self) {
        let stays = |known: &Known| !known.passing || !known.wanted.is_empty();
        self.disks().retain(|known| stays(known) || known.disk.detach(false).is_err());
    }

    /// Ends the request of the calling thread: disks that only it named, and no table, are detached.
    pub fn done(&self) {
        let own = thread::current().id();
        let mut named = false;
        for known in self.disks().iter_mut().filter(|known| known.wanted.contains(&own)) {
            known.wanted.retain(|thread| *thread != own);
            named |= known.passing;
        }
        if named {
            self.drop_passing();
        }
    }

    /// The minor of the device whose node this is, in a session without block devices.
    fn placeholder(&self, path: &Path) -> Option<u32> {
        let inside = path.strip_prefix(self.folder.join("dev/mapper")).ok();
        let inside = inside.or_else(|| path.strip_prefix("/dev/mapper").ok())?;
        let name = inside.to_str()?;
        let devices = self.devices();
        devices.iter().find(|(_, device)| device.name == name).map(|(minor, _)| *minor)
    }

    fn holders(devices: &BTreeMap<u32, Device>, minor: u32) -> Vec<u32> {
        let uses = |device: &Device| device.below.contains(&minor);
        devices.iter().filter(|(_, device)| uses(device)).map(|(holder, _)| *holder).collect()
    }

    /// Asks the driver how a device is, and writes it down; forgets it if there is none. `true` if
    /// there is one.
    fn look(&self, minor: u32) -> bool {
        self.look_in(&self.order(), minor)
    }

    fn look_in(&self, order: &Order<'_>, minor: u32) -> bool {
        let Some(device) = self.device(minor) else {
            self.forget(order, minor);
            return false;
        };
        let mut devices = self.devices();
        let before = devices.insert(minor, device).unwrap_or_default();
        let now = devices.get(&minor).cloned().unwrap_or_default();
        let mut changed = before.below;
        changed.extend(&now.below);
        changed.push(minor);
        changed.sort_unstable();
        changed.dedup();
        for minor in changed {
            self.write_down(&devices, minor);
        }
        true
    }

    fn write_down(&self, devices: &BTreeMap<u32, Device>, minor: u32) {
        let Some(device) = devices.get(&minor) else { return };
        let mut slaves = device.below.clone();
        slaves.sort_unstable();
        slaves.dedup();
        let dev = self.blocks.as_ref().and_then(|blocks| blocks.dev(minor));
        let below = dev.map(|dev| {
            PathBuf::from(format!("/sys/dev/block/{}:{}", libc::major(dev), libc::minor(dev)))
        });
        let entry = Entry {
            minor,
            name: &device.name,
            uuid: &device.uuid,
            suspended: device.suspended,
            read_only: device.read_only,
            sectors: device.sectors,
            holders: &Self::holders(devices, minor),
            slaves: &slaves,
            below,
        };
        if let Err(error) = self.tree.put(&entry) {
            eprintln!("dm-host: {}: {error}", self.folder.display());
        }
    }

    fn question(&self, command: &str, minor: u32) -> Option<Answer> {
        self.question_with(command, minor, "flags", 0)
    }

    fn question_with(
        &self,
        command: &str,
        minor: u32,
        key: &'static str,
        value: u32,
    ) -> Option<Answer> {
        let request = Dict::from([
            ("command", command.into()),
            ("minor", u64::from(minor).into()),
            (key, u64::from(value).into()),
        ]);
        let reply = self.ask(&xml::write(&request)).ok()?;
        Answer::parse(reply.as_bytes()).ok()
    }

    /// A device's event number: now (`info`), or when it is another than `seen` (`waitevent`).
    pub fn event_nr(&self, command: &str, minor: u32, seen: u32) -> Option<u32> {
        let answer = self.question_with(command, minor, "event_nr", seen)?;
        u32::try_from(answer.number("event_nr")?).ok()
    }

    fn device(&self, minor: u32) -> Option<Device> {
        use dm_core::commands::flags;
        let info = self.question("info", minor)?;
        let bits = info.number("flags").and_then(|bits| u32::try_from(bits).ok()).unwrap_or(0);
        if bits & flags::EXISTS == 0 {
            return None;
        }
        let has_table = bits & flags::ACTIVE_PRESENT != 0;
        let mut below = Vec::new();
        for slot in [0, flags::QUERY_INACTIVE_TABLE] {
            let deps = self.question_with("deps", minor, "flags", slot)?.numbers("cmd_data");
            let devices = deps.into_iter().filter(|dev| dm_host::major(*dev) == NETBSD_MAJOR);
            below.extend(devices.map(dm_host::minor));
        }
        let mut sectors = 0u64;
        if has_table
            && let Some(table) = self.question_with("table", minor, "flags", flags::STATUS_TABLE)
        {
            for line in table.dictionaries("cmd_data") {
                sectors = sectors.saturating_add(line.number("length").unwrap_or(0));
            }
        }
        Some(Device {
            name: info.text("name").to_owned(),
            uuid: info.text("uuid").to_owned(),
            suspended: bits & flags::SUSPEND != 0,
            read_only: bits & flags::READONLY != 0,
            has_table,
            leaving: bits & flags::DEFERRED_REMOVE != 0,
            sectors,
            below,
        })
    }

    /// Forgets a device that is gone.
    fn forget(&self, _: &Order<'_>, minor: u32) {
        if let Some(blocks) = &self.blocks {
            blocks.remove(minor);
        }
        let mut devices = self.devices();
        let below = devices.remove(&minor).map(|device| device.below).unwrap_or_default();
        self.tree.remove(minor);
        for minor in below {
            self.write_down(&devices, minor);
        }
    }

    /// A loop device's file was closed for the last time: a removal that waited for it comes about.
    pub fn closed(&self, minor: u32, id: u64) {
        let Some(blocks) = &self.blocks else { return };
        if blocks.closed(minor, id) && !self.look(minor) {
            self.events.happened();
        }
    }

    /// Forgets the devices whose deferred removal has come about.
    fn see_off(&self) {
        loop {
            let leaving: Vec<u32> = {
                let devices = self.devices();
                devices
                    .iter()
                    .filter(|(_, device)| device.leaving)
                    .map(|(minor, _)| *minor)
                    .collect()
            };
            let gone = leaving.into_iter().filter(|minor| !self.look(*minor));
            if gone.count() == 0 {
                return;
            }
        }
    }

    /// The minors of all devices.
    pub fn minors(&self) -> Vec<u32> {
        self.devices().keys().copied().collect()
    }

    /// Resumes suspended devices, so that I/O that is held can end.
    pub fn release_held(&self) {
        for (minor, device) in self.devices().clone() {
            if device.suspended {
                // It may go meanwhile; there is nothing to release then.
                let _ = self.question("clear", minor);
                let _ = self.question("resume", minor);
            }
        }
    }

    /// Removes all devices; says what could not be. A program that ends may have one open for a while, on a
    /// busy machine: it is tried until none could be removed for [`PATIENCE`].
    pub fn remove_all(&self) -> Vec<u32> {
        let (mut before, mut since) = (usize::MAX, Instant::now());
        loop {
            let minors = self.minors();
            if minors.len() < before {
                (before, since) = (minors.len(), Instant::now());
            } else if since.elapsed() > PATIENCE {
                return minors;
            } else {
                thread::sleep(Duration::from_millis(20));
            }
            if minors.is_empty() {
                return minors;
            }
            for minor in minors {
                if let Some(blocks) = &self.blocks
                    && !blocks.let_go(minor, false)
                {
                    continue;
                }
                // What could not be removed is told of at the end.
                let _ = self.question("remove", minor);
                self.look(minor);
            }
        }
    }

    /// Closes the disks' files.
    pub fn detach_disks(&self) {
        self.disks().drain(..).for_each(|known| {
            // The machine's end detaches what is left.
            let _ = known.disk.detach(false);
        });
    }
}

/// Bytes in a block device's sectors.
fn sector_size(path: &Path) -> u32 {
    fs::File::open(path).ok().and_then(|file| image::sector_size(&file)).unwrap_or(512)
}

impl Host for Keeper {
    fn ask(&self, request: &str) -> Result<Zeroizing<String>, Errno> {
        let control = self.machine.open("/dev/mapper/control", Flags::READ_WRITE)?;
        control.plist_ioctl(request).map(Zeroizing::new)
    }

    fn major(&self) -> u32 {
        self.major
    }

    fn disk(&self, word: &str) -> Result<String, Fault> {
        if let Some((major, minor)) = word.split_once(':').filter(|_| !word.starts_with('/')) {
            let number = |text: &str| text.parse::<u32>().map_err(|_| Fault(libc::EINVAL));
            return self.by_number(libc::makedev(number(major)?, number(minor)?), None);
        }
        let path = Path::new(word);
        if self.blocks.is_none() {
            if let Some(minor) = self.placeholder(path) {
                return Ok(blocks::netbsd_name(minor));
            }
            let disks = self.disks();
            if let Some(known) = disks.iter().find(|known| known.disk.path() == word) {
                return Ok(known.disk.major_minor());
            }
        }
        let found = fs::metadata(path).map_err(|error| Fault(error.raw_os_error().unwrap_or(5)))?;
        if !found.file_type().is_block_device() {
            return Err(Fault(libc::ENOTBLK));
        }
        let minor = self.blocks.as_ref().and_then(|blocks| blocks.minor(found.rdev()));
        match minor {
            Some(minor) => Ok(blocks::netbsd_name(minor)),
            None => self.by_number(found.rdev(), Some(path)),
        }
    }

    fn number(&self, major: u32, minor: u32) -> Option<(u32, u32)> {
        let word = format!("{major}:{minor}");
        let disks = self.disks();
        let dev = disks.iter().find(|known| known.disk.major_minor() == word)?.dev?;
        Some((libc::major(dev), libc::minor(dev)))
    }

    fn open_count(&self, minor: u32, told: u32) -> u32 {
        let below = |device: &Device| device.below.iter().filter(|other| **other == minor).count();
        let holders: usize = self.devices().values().map(below).sum();
        let holders = u32::try_from(holders).unwrap_or(u32::MAX);
        match self.blocks.as_ref().and_then(|blocks| blocks.dev(minor)) {
            Some(dev) => holders.saturating_add(users::count(dev)),
            None => holders.max(told),
        }
    }

    fn let_go(&self, minor: u32, deferred: bool) -> Result<(), Fault> {
        let held = !Self::holders(&self.devices(), minor).is_empty();
        match &self.blocks {
            _ if held && !deferred => Err(Fault(libc::EBUSY)),
            Some(blocks) if !blocks.let_go(minor, deferred) && !deferred => Err(Fault(libc::EBUSY)),
            _ => Ok(()),
        }
    }

    fn changed(&self, change: Change) {
        match change {
            Change::Created(minor) => {
                let order = self.order();
                if let Some(blocks) = &self.blocks
                    && let Err(error) = blocks.add(minor)
                {
                    eprintln!("dm-host: dm-{minor} has no block device: {error}");
                }
                self.look_in(&order, minor);
            }
            // Another thread may have removed it, or have made one with the number of one that is gone.
            Change::Altered(minor) | Change::Removed(minor) => {
                if let Some(blocks) = &self.blocks {
                    blocks.stays(minor);
                }
                let order = self.order();
                self.look_in(&order, minor);
                let device = self.devices().get(&minor).cloned();
                if let (Some(blocks), Some(device)) = (&self.blocks, device)
                    && device.has_table
                    && !device.leaving
                    && let Err(error) = blocks.update(&self.machine, minor, device.read_only)
                {
                    eprintln!("dm-host: {error}");
                }
                drop(order);
                self.drop_passing();
            }
        }
        self.see_off();
        self.events.happened();
    }
}
