// SPDX-License-Identifier: BSD-2-Clause

//! Locks on images, the same as qemu's: of two users, the second is told.
//!
//! qemu locks single bytes of an image with open file description locks, always shared ones: byte
//! 100 + N says that somebody uses permission N, byte 200 + N that somebody does not want others
//! to use it. A lock for writing that would collide, asked for with F_OFD_GETLK and never taken,
//! tells that somebody has one.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The byte of the first permission that is used.
const USED: i64 = 100;
/// The byte of the first permission that is not shared.
const UNSHARED: i64 = 200;

/// Reading what others may not change meanwhile.
const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// Bytes in a logical sector of a block device, by BLKSSZGET.
pub fn logical_sector(file: &File) -> Option<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request stores an int; a descriptor of ours.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKSSZGET as _, &raw mut bytes) };
    (result == 0).then_some(bytes).and_then(|bytes| u32::try_from(bytes).ok())
}

fn whole(kind: libc::c_int, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

/// Takes a shared lock on a byte; the error is the system's.
fn take(file: &File, byte: i64) -> io::Result<()> {
    let lock = whole(libc::F_RDLCK, byte);
    // SAFETY: the command reads a flock; a descriptor of ours.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `true` if another process has a lock on a byte.
fn is_taken(file: &File, byte: i64) -> bool {
    let mut lock = whole(libc::F_WRLCK, byte);
    // SAFETY: the command reads and stores a flock; a descriptor of ours.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    result == 0 && i32::from(lock.l_type) != libc::F_UNLCK
}

/// The holder of a lock that conflicts. Shown, it names the conflict, without advice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InTheWay {
    /// A process that has a lock that is not shared.
    Locker,
    /// A process that writes.
    Writer,
    /// A process that relies on the image not changing.
    Reader,
}

impl fmt::Display for InTheWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InTheWay::Locker => "somebody else has locked it",
            InTheWay::Writer => "somebody else writes it (another server, or qemu)",
            InTheWay::Reader => {
                "somebody else uses it (another server, or qemu), and relies on its not changing"
            }
        })
    }
}

/// Locks an image as long as the file is open: no other process may write the image, and, unless it is opened
/// read-only, none may rely on its not changing. A file system without locks grants everything.
///
/// # Errors
/// The holder of the lock that conflicts.
pub fn lock(file: &File, read_only: bool) -> Result<(), InTheWay> {
    let used: &[i64] = if read_only { &[CONSISTENT_READ] } else { &[CONSISTENT_READ, WRITE] };
    let unshared = [WRITE, RESIZE];
    // First taken, then asked: of two that come at once, none or one gets it, never both.
    for byte in used.iter().map(|n| USED + n).chain(unshared.iter().map(|n| UNSHARED + n)) {
        match take(file, byte).map_err(|error| error.raw_os_error()) {
            Ok(()) => {}
            Err(Some(libc::EAGAIN | libc::EACCES)) => return Err(InTheWay::Locker),
            // There are no such locks here.
            Err(_) => return Ok(()),
        }
    }
    if unshared.iter().any(|n| is_taken(file, USED + n)) {
        return Err(InTheWay::Writer);
    }
    if used.iter().any(|n| is_taken(file, UNSHARED + n)) {
        return Err(InTheWay::Reader);
    }
    Ok(())
}
