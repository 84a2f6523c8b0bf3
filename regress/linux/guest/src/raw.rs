// SPDX-License-Identifier: BSD-2-Clause

//! Linux's system calls that std has no name for.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

/// A request whose argument is a number.
pub fn ioctl_number(file: &File, request: u64, argument: u64) -> io::Result<()> {
    // SAFETY: the descriptor is open, and requests that take a number touch no memory of ours.
    check(unsafe { libc::ioctl(file.as_raw_fd(), request, argument) })
}

/// A request whose argument is a structure, here as bytes, that the kernel reads and writes.
pub fn ioctl_bytes(file: &File, request: u64, argument: &mut [u8]) -> io::Result<()> {
    let size = (request >> 16 & 0x3fff) as usize;
    assert!(argument.len() >= size, "request {request:#x} takes {size} bytes");
    // SAFETY: the memory is ours and as long as the request says; device mapper's requests, which
    // take more, have the length in their structure, from `dm::Buffer`.
    check(unsafe { libc::ioctl(file.as_raw_fd(), request, argument.as_mut_ptr()) })
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a block device's node.
pub fn mknod(path: &str, major: u32, minor: u32) -> io::Result<()> {
    let path = std::ffi::CString::new(path)?;
    // SAFETY: a string that ends with a zero, and numbers.
    check(unsafe { libc::mknod(path.as_ptr(), libc::S_IFBLK | 0o600, libc::makedev(major, minor)) })
}

/// A file's device number, as major and minor, if it is a device.
pub fn device_number(rdev: u64) -> (u32, u32) {
    (libc::major(rdev), libc::minor(rdev))
}

/// Memory of whole pages, as I/O past the page cache wants it.
pub struct Pages {
    at: ptr::NonNull<u8>,
    len: usize,
}

const PAGE: usize = 4096;

impl Pages {
    /// A buffer of `len` zero bytes.
    pub fn new(len: usize) -> Pages {
        let room = len.max(1).next_multiple_of(PAGE);
        // SAFETY: a new mapping, nothing else at stake.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                room,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        assert!(at != libc::MAP_FAILED, "no memory for {len} bytes");
        let at = ptr::NonNull::new(at.cast()).unwrap_or_else(|| unreachable!("mmap gives no null"));
        Pages { at, len }
    }
}

impl std::ops::Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped, initialised by the kernel, and ours.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl std::ops::DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let room = self.len.max(1).next_multiple_of(PAGE);
        // SAFETY: what `new` mapped, and nobody borrows it.
        unsafe { libc::munmap(self.at.as_ptr().cast(), room) };
    }
}

/// Makes a terminal pass bytes as they are.
pub fn set_raw(port: &File) -> io::Result<()> {
    // SAFETY: a termios is plain numbers; the calls fill it and read it.
    unsafe {
        let mut modes: libc::termios = std::mem::zeroed();
        check(libc::tcgetattr(port.as_raw_fd(), &raw mut modes))?;
        libc::cfmakeraw(&raw mut modes);
        check(libc::tcsetattr(port.as_raw_fd(), libc::TCSANOW, &raw const modes))
    }
}
