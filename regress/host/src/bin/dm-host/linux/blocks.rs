// SPDX-License-Identifier: BSD-2-Clause

//! A block device for each device: a loop device on a file of `fuse.rs`.
//!
//! The loop device has the number BASE + minor, so that the preloaded library can tell one from
//! the other. It is there as long as the device is, and has a file as long as the device has a
//! table. This process keeps it open, and it lets go of its file at its last close: that is how a
//! device is found to be in use (`let_go`), how a deferred removal comes about, and why nothing is
//! left when this process is killed.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};
use std::{fs, io};

use dm_host::linux::NETBSD_MAJOR;
use dm_host::{Errno, File, Flags, Machine, Node as DeviceNode, makedev, netbsd};
use fuser::{BackgroundSession, Config, MountOption, Session};

use super::fuse::{Devices, Node, Nodes};
use super::users::{self, Users};
use super::{loops, space};

/// The driver's major number for character devices in NetBSD.
const CHARACTER_MAJOR: u32 = 194;

/// A session's loop devices that are devices'; the others are the disks'.
const DEVICES: u32 = 1 << 13;

/// The block devices of a session.
pub struct Blocks {
    base: u32,
    shift: u32,
    mount: PathBuf,
    nodes: Arc<Nodes>,
    session: Mutex<Option<BackgroundSession>>,
    /// Disks that have been attached.
    disks: AtomicU32,
    bound: Mutex<Bound>,
}

/// The loop devices of the devices.
#[derive(Default)]
struct Bound {
    /// Those with a file, open.
    open: BTreeMap<u32, fs::File>,
    /// Devices that are about to be removed, and the thread that is about it: nobody else gives one a
    /// file meanwhile, with which it would be in use.
    going: BTreeMap<u32, ThreadId>,
}

/// The time that a program of the session's has to close a device that shall be removed.
const MOMENT: Duration = Duration::from_millis(250);
/// The time that others have, such as a daemon of the machine's that looks at each new block device.
const OTHERS: Duration = Duration::from_secs(10);

impl Blocks {
    /// Mounts the file system at a folder that it makes. `closed` is told of files that were
    /// closed for the last time.
    ///
    /// # Errors
    /// In words.
    pub fn start(
        mount: PathBuf,
        base: u32,
        shift: u32,
        closed: Sender<(u32, u64)>,
    ) -> Result<Blocks, String> {
        let words = |error: io::Error| format!("FUSE at {}: {error}", mount.display());
        fs::create_dir_all(&mount).map_err(words)?;
        let nodes = Arc::new(Nodes::default());
        let mut config = Config::default();
        config.mount_options =
            vec![MountOption::FSName("dm-host".into()), MountOption::NoDev, MountOption::NoSuid];
        let devices = Devices { nodes: nodes.clone(), closed };
        let session = Session::new(devices, &mount, &config).map_err(words)?;
        let session = Mutex::new(Some(session.spawn().map_err(words)?));
        let bound = Mutex::default();
        Ok(Blocks { base, shift, mount, nodes, session, disks: AtomicU32::new(0), bound })
    }

    fn bound(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device number that the kernel has for a device; `None` for minors that are too large.
    pub fn dev(&self, minor: u32) -> Option<u64> {
        let number = self.base.saturating_add(minor) << self.shift;
        (minor < DEVICES).then(|| libc::makedev(loops::MAJOR, number))
    }

    /// The minor number of a device that the kernel knows by this number.
    pub fn minor(&self, dev: u64) -> Option<u32> {
        let minor = (libc::minor(dev) >> self.shift).checked_sub(self.base)?;
        (libc::major(dev) == loops::MAJOR && minor < DEVICES).then_some(minor)
    }

    fn path(minor: u32) -> PathBuf {
        PathBuf::from(format!("/dev/dm-{minor}"))
    }

    fn open(minor: u32) -> io::Result<fs::File> {
        OpenOptions::new().read(true).write(true).open(Self::path(minor))
    }

    /// Makes the loop device of a new device, and its node `/dev/dm-N`.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&self, minor: u32) -> io::Result<()> {
        let Some(dev) = self.dev(minor) else { return Ok(()) };
        // Whoever removed another device of this number is done with it.
        self.bound().going.remove(&minor);
        loops::add(self.base + minor)?;
        space::block_node(&Self::path(minor), dev)
    }

    /// Gives the loop device its file, if it has none, and the device's size and mode.
    ///
    /// # Errors
    /// In words.
    pub fn update(&self, machine: &Machine, minor: u32, read_only: bool) -> Result<(), String> {
        if self.dev(minor).is_none() {
            return Ok(());
        }
        let words = |error: io::Error| format!("dm-{minor}: {error}");
        let errno = |errno: Errno| format!("dm-{minor}: {}", errno.text());
        let mut bound = self.bound();
        if bound.going.contains_key(&minor) {
            return Ok(());
        }
        // A removal at the last close was called off, and that has not come.
        if !bound.open.contains_key(&minor)
            && self.nodes.get(minor).is_some()
            && let Ok(device) = Self::open(minor)
            && loops::has_file(&device)
        {
            bound.open.insert(minor, device);
        }
        if let Some(device) = bound.open.get(&minor) {
            let Some(node) = self.nodes.get(minor) else { return Ok(()) };
            let size = self.size_of(machine, minor).map_err(errno)?;
            if node.size.swap(size, Ordering::AcqRel) != size {
                // The kernel learns of a file's size by asking for it.
                fs::metadata(self.mount.join(minor.to_string())).map_err(words)?;
                loops::update_size(device).map_err(words)?;
            }
            return loops::set_read_only(device, read_only).map_err(words);
        }
        let raw = DeviceNode::Character(makedev(CHARACTER_MAJOR, minor));
        let file = match machine.open(raw, Flags::READ_WRITE) {
            Err(Errno::EROFS) => machine.open(raw, Flags::READ),
            // Somebody has removed it meanwhile.
            Err(Errno::ENXIO) => return Ok(()),
            result => result,
        };
        let file = file.map_err(errno)?;
        let (size, sector) =
            (media_size(&file).map_err(errno)?, sector_size(&file).map_err(errno)?);
        if size == 0 {
            return Ok(());
        }
        self.nodes.put(minor, Node::new(file, size).map_err(words)?);
        let bind = || -> io::Result<fs::File> {
            let path = self.mount.join(minor.to_string());
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            let device = Self::open(minor)?;
            loops::configure(&device, &file, sector, false, &format!("dm-{minor}"))?;
            loops::set_read_only(&device, read_only)?;
            Ok(device)
        };
        let device = bind().map_err(words).inspect_err(|_| self.nodes.take(minor))?;
        bound.open.insert(minor, device);
        Ok(())
    }

    fn size_of(&self, machine: &Machine, minor: u32) -> Result<u64, Errno> {
        let raw = DeviceNode::Character(makedev(CHARACTER_MAJOR, minor));
        media_size(&machine.open(raw, Flags::READ)?)
    }

    /// Has the loop device let go of its file, unless somebody has it open; with `deferred` it
    /// does so at its last close. `true` if it has none now. Where the removal may go on, nobody else
    /// gives it a file before the caller says [`Blocks::stays`], or it is gone.
    pub fn let_go(&self, minor: u32, deferred: bool) -> bool {
        let begun = Instant::now();
        loop {
            // Whoever only looked at the device for a moment is given one.
            let users = match deferred {
                true => Users::default(),
                false => users::of(self.dev(minor).unwrap_or(0)),
            };
            if users.inside == 0 && users.outside == 0 {
                let mut bound = self.bound();
                bound.going.insert(minor, thread::current().id());
                if self.has_let_go(&mut bound, minor, deferred) {
                    return true;
                }
                if deferred {
                    return false;
                }
                // Somebody whom we do not see.
                bound.going.remove(&minor);
            }
            let limit = if users.inside > 0 { MOMENT } else { OTHERS };
            if begun.elapsed() > limit {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn has_let_go(&self, bound: &mut Bound, minor: u32, deferred: bool) -> bool {
        let Some(device) = bound.open.remove(&minor) else {
            return self.nodes.get(minor).is_none();
        };
        drop(device);
        match Self::open(minor) {
            Ok(device) if loops::has_file(&device) => {
                if !deferred {
                    bound.open.insert(minor, device);
                }
                false
            }
            _ => {
                self.nodes.take(minor);
                true
            }
        }
    }

    /// Says that the removal that the calling thread was about is over, or has failed.
    pub fn stays(&self, minor: u32) {
        let mut bound = self.bound();
        if bound.going.get(&minor) == Some(&thread::current().id()) {
            bound.going.remove(&minor);
        }
    }

    /// Closes the node that a loop device has closed for the last time; `false` if the device has
    /// another node by now, or none.
    pub fn closed(&self, minor: u32, id: u64) -> bool {
        self.nodes.take_this(minor, id)
    }

    /// Takes away the loop device of a device that is gone.
    pub fn remove(&self, minor: u32) {
        if self.dev(minor).is_none() {
            return;
        }
        let removed = {
            let mut bound = self.bound();
            bound.going.remove(&minor);
            bound.open.remove(&minor)
        };
        drop(removed);
        self.nodes.take(minor);
        // It may have been removed by the program already.
        let _ = fs::remove_file(Self::path(minor));
        for _ in 0..100 {
            if loops::remove(self.base + minor).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // What still has it open has a device without a file; it goes with the session.
    }

    /// A loop device on a disk's file, for programs to find it as a block device. Its number is one
    /// of the session's: sessions do not see one another's disks.
    ///
    /// # Errors
    /// The system's.
    pub fn attach(
        &self,
        backing: &fs::File,
        read_only: bool,
        sector: u32,
        name: &str,
    ) -> io::Result<(fs::File, u64)> {
        let number = self.base + DEVICES + self.disks.fetch_add(1, Ordering::Relaxed);
        if number >= self.base + loops::PER_SESSION {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        loops::add(number)?;
        let dev = libc::makedev(loops::MAJOR, number << self.shift);
        let path = Path::new(space::NODES).join(format!("loop{number}"));
        space::block_node(&path, dev)?;
        let device = OpenOptions::new().read(true).write(!read_only).open(&path)?;
        loops::configure(&device, backing, sector, read_only, name)?;
        Ok((device, dev))
    }

    /// Unmounts the file system.
    pub fn end(&self) {
        self.bound().open.clear();
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(session) = session {
            // A loop device that somebody still has open keeps it busy.
            let flags = nix::mount::MntFlags::MNT_DETACH;
            if let Err(error) = nix::mount::umount2(&self.mount, flags) {
                eprintln!("dm-host: {}: {error}", self.mount.display());
            }
            drop(session);
        }
    }
}

fn media_size(file: &File) -> Result<u64, Errno> {
    let mut bytes = 0i64;
    file.ioctl(netbsd::DIOCGMEDIASIZE as u32 as u64, &mut bytes)?;
    u64::try_from(bytes).map_err(|_| Errno::EIO)
}

fn sector_size(file: &File) -> Result<u32, Errno> {
    let mut bytes = 0u32;
    file.ioctl(netbsd::DIOCGSECTORSIZE as u32 as u64, &mut bytes)?;
    Ok(bytes.clamp(512, 4096))
}

/// `NETBSD_MAJOR` and a minor: a device as a component's name.
pub fn netbsd_name(minor: u32) -> String {
    format!("{NETBSD_MAJOR}:{minor}")
}
