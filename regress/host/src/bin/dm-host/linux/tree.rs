// SPDX-License-Identifier: BSD-2-Clause

//! The files that sysfs(5) would have for the devices: `block/dm-N` and `dev/block/MAJOR:N`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A folder that looks like a piece of /sys.
pub struct Tree {
    folder: PathBuf,
    major: u32,
}

/// The properties of a device that the files tell.
pub struct Entry<'a> {
    /// The device's minor number.
    pub minor: u32,
    /// The device's name.
    pub name: &'a str,
    /// The device's uuid, or nothing.
    pub uuid: &'a str,
    /// `true` if the device is suspended.
    pub suspended: bool,
    /// `true` if the device takes no writes.
    pub read_only: bool,
    /// The size in sectors of 512 bytes.
    pub sectors: u64,
    /// The minors of the devices whose tables name this one.
    pub holders: &'a [u32],
    /// The minors of the devices that its tables name.
    pub slaves: &'a [u32],
    /// The folder of the kernel's block device below, for `queue` and `bdi`.
    pub below: Option<PathBuf>,
}

impl Tree {
    /// An empty one.
    ///
    /// # Errors
    /// The system's.
    pub fn new(folder: PathBuf, major: u32) -> io::Result<Tree> {
        fs::create_dir_all(folder.join("block"))?;
        fs::create_dir_all(folder.join("dev/block"))?;
        Ok(Tree { folder, major })
    }

    fn device(&self, minor: u32) -> PathBuf {
        self.folder.join(format!("block/dm-{minor}"))
    }

    fn link(&self, minor: u32) -> PathBuf {
        self.folder.join(format!("dev/block/{}:{minor}", self.major))
    }

    /// Writes a device down, as it is now.
    ///
    /// # Errors
    /// The system's.
    pub fn put(&self, entry: &Entry<'_>) -> io::Result<()> {
        let device = self.device(entry.minor);
        let first = !device.exists();
        for folder in ["dm", "holders", "slaves"] {
            fs::create_dir_all(device.join(folder))?;
        }
        let files = [
            ("dm/name", format!("{}\n", entry.name)),
            ("dm/uuid", format!("{}\n", entry.uuid)),
            ("dm/suspended", format!("{}\n", u8::from(entry.suspended))),
            ("dev", format!("{}:{}\n", self.major, entry.minor)),
            ("ro", format!("{}\n", u8::from(entry.read_only))),
            ("size", format!("{}\n", entry.sectors)),
            ("removable", "0\n".into()),
        ];
        for (name, text) in files {
            fs::write(device.join(name), text)?;
        }
        Self::set_links(&device.join("holders"), entry.holders)?;
        Self::set_links(&device.join("slaves"), entry.slaves)?;
        if first {
            symlink(format!("../../block/dm-{}", entry.minor), self.link(entry.minor))?;
        }
        match &entry.below {
            Some(below) => {
                for name in ["queue", "bdi"] {
                    if fs::symlink_metadata(device.join(name)).is_err() {
                        symlink(below.join(name), device.join(name))?;
                    }
                }
                Ok(())
            }
            None => {
                // What Linux has by default.
                fs::create_dir_all(device.join("bdi"))?;
                fs::write(device.join("bdi/read_ahead_kb"), "128\n")
            }
        }
    }

    /// Makes a folder have a link for each of these devices, and no others.
    fn set_links(folder: &Path, minors: &[u32]) -> io::Result<()> {
        for entry in fs::read_dir(folder)?.flatten() {
            let name = entry.file_name();
            let minor = name.to_str().and_then(|name| name.strip_prefix("dm-")?.parse().ok());
            if minor.is_none_or(|minor| !minors.contains(&minor)) {
                fs::remove_file(entry.path())?;
            }
        }
        for minor in minors {
            let link = folder.join(format!("dm-{minor}"));
            if fs::symlink_metadata(&link).is_err() {
                symlink(format!("../../dm-{minor}"), link)?;
            }
        }
        Ok(())
    }

    /// Forgets a device.
    pub fn remove(&self, minor: u32) {
        // One that was never there is gone, too.
        let _ = fs::remove_file(self.link(minor));
        let _ = fs::remove_dir_all(self.device(minor));
    }
}
