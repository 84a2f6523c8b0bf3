// SPDX-License-Identifier: BSD-2-Clause

//! Loop devices: loop(4)'s ioctls.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

/// The major number of loop devices.
pub const MAJOR: u32 = 7;

/// Loop devices that a session may have. The first session's begin at this number.
pub const PER_SESSION: u32 = 1 << 14;

const SET_CAPACITY: libc::c_ulong = 0x4c07;
const CONFIGURE: libc::c_ulong = 0x4c0a;
const GET_STATUS: libc::c_ulong = 0x4c05;
const ADD: libc::c_ulong = 0x4c80;
const REMOVE: libc::c_ulong = 0x4c81;
const BLKROSET: libc::c_ulong = 0x125d;
const READ_ONLY: u32 = 1;
/// The device forgets its file at its last close.
const AUTOCLEAR: u32 = 4;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Configuration {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

fn info() -> Info {
    Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        sizelimit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    }
}

/// ioctl(2) with a number or an address.
///
/// # Safety
/// `argument` is what the request takes.
unsafe fn ioctl(fd: RawFd, request: libc::c_ulong, argument: usize) -> io::Result<i32> {
    // SAFETY: the caller's promise.
    match unsafe { libc::ioctl(fd, request, argument) } {
        result if result < 0 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

fn control(request: libc::c_ulong, argument: u32) -> io::Result<()> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    // SAFETY: these take a number.
    unsafe { ioctl(control.as_raw_fd(), request, argument as usize) }.map(drop)
}

/// Bits by which a loop device's number is shifted to give its minor number.
pub fn shift() -> u32 {
    let text = fs::read_to_string("/sys/module/loop/parameters/max_part").unwrap_or_default();
    let partitions: u32 = text.trim().parse().unwrap_or(0);
    u32::BITS - partitions.leading_zeros()
}

/// Makes the loop device with a number; one that is there already is fine.
///
/// # Errors
/// The system's.
pub fn add(number: u32) -> io::Result<()> {
    match control(ADD, number) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Removes a loop device that is not used.
///
/// # Errors
/// The system's: EBUSY while it is used.
pub fn remove(number: u32) -> io::Result<()> {
    match control(REMOVE, number) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result,
    }
}

/// Gives a loop device its file, and lets it go at its last close: `device` and `file` are open
/// for writing unless `read_only` is set.
///
/// # Errors
/// The system's: EBUSY when it has a file.
pub fn configure(
    device: &File,
    file: &File,
    block_size: u32,
    read_only: bool,
    name: &str,
) -> io::Result<()> {
    let mut info = info();
    info.flags = AUTOCLEAR | if read_only { READ_ONLY } else { 0 };
    info.file_name.iter_mut().zip(name.bytes().take(63)).for_each(|(to, from)| *to = from);
    let fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
    let configuration = Configuration { fd, block_size, info, reserved: [0; 8] };
    // SAFETY: LOOP_CONFIGURE takes a loop_config, which outlives the call.
    unsafe { ioctl(device.as_raw_fd(), CONFIGURE, &raw const configuration as usize) }.map(drop)
}

/// `true` if the loop device has a file.
pub fn has_file(device: &File) -> bool {
    let mut info = info();
    // SAFETY: LOOP_GET_STATUS64 fills in a loop_info64.
    unsafe { ioctl(device.as_raw_fd(), GET_STATUS, &raw mut info as usize) }.is_ok()
}

/// Looks at the file's size again.
///
/// # Errors
/// The system's.
pub fn update_size(device: &File) -> io::Result<()> {
    // SAFETY: it takes nothing.
    unsafe { ioctl(device.as_raw_fd(), SET_CAPACITY, 0) }.map(drop)
}

/// Lets a block device take writes, or not.
///
/// # Errors
/// The system's.
pub fn set_read_only(device: &File, read_only: bool) -> io::Result<()> {
    let value = libc::c_int::from(read_only);
    // SAFETY: BLKROSET reads an int.
    unsafe { ioctl(device.as_raw_fd(), BLKROSET, &raw const value as usize) }.map(drop)
}

/// The numbers of the loop devices that are there.
pub fn numbers() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("loop")?.parse().ok())
}

/// Takes away a killed session's loop devices: true if none is left.
pub fn remove_all(base: u32) -> bool {
    let ours = base..base.saturating_add(PER_SESSION);
    let mut all = true;
    for number in numbers().filter(|number| ours.contains(number)) {
        // One that has a file still lets it go when its last user goes.
        all &= remove(number).is_ok();
    }
    all
}

/// Checks that this process can use loop devices on this machine.
///
/// # Errors
/// Why not, in words.
pub fn usable() -> Result<(), String> {
    let open = |path: &str| {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        opened.map(drop).map_err(|error| format!("{path}: {error}"))
    };
    if !nix::unistd::geteuid().is_root() {
        return Err("you are not root".into());
    }
    open("/dev/loop-control")?;
    open("/dev/fuse")?;
    match Path::new("/sys/block").is_dir() {
        true => Ok(()),
        false => Err("/sys is not mounted".into()),
    }
}
