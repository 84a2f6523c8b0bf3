// SPDX-License-Identifier: BSD-2-Clause

//! The mount name space that a session's programs live in: a /dev of their own.
//!
//! The kernel takes the name space away with its last process, and with it all that was mounted in
//! it; nothing of it is ever seen outside. The machine's own disks are not in this /dev, so that
//! no program can take one of them for a disk of the session's.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, mknod};

use super::loops;

/// The folder of the session's own nodes.
pub const NODES: &str = "/dev/.dm-host";

/// Leaves the machine's mount name space, and covers /dev with one of our own.
///
/// # Errors
/// In words.
pub fn enter(folder: &Path) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("a mount name space: {error}"))?;
    let none = None::<&str>;
    let done = mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none);
    done.map_err(|error| format!("making / private: {error}"))?;
    let dev = folder.join("dev");
    fs::create_dir_all(&dev).map_err(|error| format!("{}: {error}", dev.display()))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let done = mount(Some("dm-host"), &dev, Some("tmpfs"), flags, Some("mode=755,size=64m"));
    done.map_err(|error| format!("a file system for /dev: {error}"))?;
    fill(&dev).map_err(|error| format!("{}: {error}", dev.display()))?;
    let done = mount(Some(&dev), "/dev", none, MsFlags::MS_BIND | MsFlags::MS_REC, none);
    done.map_err(|error| format!("covering /dev: {error}"))
}

fn fill(dev: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir("/dev")?.flatten() {
        let (from, to) = (entry.path(), dev.join(entry.file_name()));
        let Ok(found) = fs::symlink_metadata(&from) else { continue };
        let kind = found.file_type();
        if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        } else if kind.is_dir() {
            // Names of the machine's disks are not wanted here.
            let disks = ["mapper", "disk", "block", "md"];
            if disks.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            fs::create_dir(&to)?;
            let how = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(&from), &to, None::<&str>, how, None::<&str>)?;
        } else if kind.is_char_device() {
            node(&to, SFlag::S_IFCHR, found.permissions().mode(), found.rdev())?;
        }
    }
    // Those that are there and no session's. A node of one that is not would bring it about when it
    // is opened; the preloaded library makes that of one that a program asks for.
    let shift = loops::shift();
    for number in loops::numbers().filter(|number| *number < loops::PER_SESSION) {
        let dev_t = libc::makedev(loops::MAJOR, number << shift);
        node(&dev.join(format!("loop{number}")), SFlag::S_IFBLK, 0o660, dev_t)?;
    }
    fs::create_dir(dev.join("mapper"))?;
    fs::create_dir(dev.join(".dm-host"))
}

fn node(path: &Path, kind: SFlag, mode: u32, dev: u64) -> std::io::Result<()> {
    mknod(path, kind, Mode::from_bits_truncate(mode & 0o777), dev)?;
    // Whatever the mask says.
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o777))
}

/// Makes a block device's node; one that is there is made anew.
///
/// # Errors
/// The system's.
pub fn block_node(path: &Path, dev: u64) -> std::io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path)?;
    }
    node(path, SFlag::S_IFBLK, 0o660, dev)
}
