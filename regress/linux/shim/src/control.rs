// SPDX-License-Identifier: BSD-2-Clause

//! The control node: a connection to the server, and requests on it.
//!
//! The frames are those of `dm_host::wire`: a header of 16 bytes and a body, numbers big-endian.
//! Each ioctl has a connection of its own, so that one that waits for an event is in nobody's way
//! and ends when the program is interrupted. What open(2) returns is a connection as well: a frame
//! comes through it when something has happened after DM_DEV_ARM_POLL, so that poll(2) works.

use std::ffi::{c_int, c_void};
use std::mem;

use crate::real::fail;
use crate::settings::Settings;

/// `Kind::Linux` and `Kind::LinuxEvents` of the frames.
const IOCTL: u16 = 16;
const EVENTS: u16 = 17;

const HEADER: usize = 16;
/// Bytes of `struct dm_ioctl` that there must be.
const MINIMUM: usize = 305;
/// `_IOC_NR` of the commands that are special here.
const WAIT: u32 = 8;
const ARM_POLL: u32 = 16;

/// `true` for an ioctl of the device mapper's.
pub fn is_ours(request: u32) -> bool {
    request >> 8 & 0xff == 0xfd && request >> 30 == 3
}

fn connect(settings: &Settings) -> c_int {
    // SAFETY: a sockaddr is integers, for which zeros are valid; the calls get memory of our own.
    unsafe {
        let mut address: libc::sockaddr_un = mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let path = settings.socket.to_bytes();
        if path.len() >= address.sun_path.len() {
            return fail(libc::ENAMETOOLONG);
        }
        for (to, from) in address.sun_path.iter_mut().zip(path) {
            *to = *from as libc::c_char;
        }
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return -1;
        }
        let length = mem::size_of::<libc::sockaddr_un>() as libc::socklen_t;
        while libc::connect(socket, (&raw const address).cast(), length) != 0 {
            if *libc::__errno_location() != libc::EINTR {
                libc::close(socket);
                // open(2) fails so in a kernel without device mapper.
                return fail(libc::ENODEV);
            }
        }
        socket
    }
}

fn header(kind: u16, length: usize) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    let parts: [&[u8]; 5] = [
        b"dmhQ",
        &1u16.to_be_bytes(),
        &kind.to_be_bytes(),
        &[0; 4],
        &u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes(),
    ];
    bytes.iter_mut().zip(parts.concat()).for_each(|(to, from)| *to = from);
    bytes
}

/// Sends all of it: true if it went.
///
/// # Safety
/// `at` is `length` bytes of memory.
unsafe fn send(socket: c_int, at: *const u8, length: usize) -> bool {
    let mut done = 0;
    while done < length {
        // SAFETY: the caller's promise.
        let put =
            unsafe { libc::send(socket, at.add(done).cast(), length - done, libc::MSG_NOSIGNAL) };
        match usize::try_from(put) {
            Ok(put) => done += put,
            // SAFETY: errno is the calling thread's own.
            Err(_) if unsafe { *libc::__errno_location() } == libc::EINTR => {}
            Err(_) => return false,
        }
    }
    true
}

/// Receives all of it, or an error; with `once`, a signal is one.
///
/// # Safety
/// `at` is `length` bytes of memory.
unsafe fn receive(socket: c_int, at: *mut u8, length: usize, once: bool) -> Result<(), i32> {
    let mut done = 0;
    while done < length {
        // SAFETY: the caller's promise.
        let got = unsafe { libc::recv(socket, at.add(done).cast(), length - done, 0) };
        match usize::try_from(got) {
            Ok(0) => return Err(libc::ENXIO),
            Ok(got) => done += got,
            Err(_) => {
                // SAFETY: errno is the calling thread's own.
                let errno = unsafe { *libc::__errno_location() };
                if errno != libc::EINTR || once {
                    return Err(errno);
                }
            }
        }
    }
    Ok(())
}

/// open(2) of the control node.
pub fn open(settings: &Settings, flags: c_int) -> c_int {
    let socket = connect(settings);
    if socket < 0 {
        return -1;
    }
    let frame = header(EVENTS, 0);
    // SAFETY: a header is that long; the descriptor is ours.
    unsafe {
        if !send(socket, frame.as_ptr(), HEADER) {
            libc::close(socket);
            return fail(libc::ENODEV);
        }
        if flags & libc::O_CLOEXEC == 0 {
            libc::fcntl(socket, libc::F_SETFD, 0);
        }
    }
    socket
}

/// ioctl(2) with one of the device mapper's commands.
///
/// # Safety
/// `argument` is NULL or a `struct dm_ioctl` with `data_size` bytes in all, as for the kernel.
pub unsafe fn ioctl(settings: &Settings, fd: c_int, request: u32, argument: *mut c_void) -> c_int {
    if argument.is_null() {
        return fail(libc::EFAULT);
    }
    let at = argument.cast::<u8>();
    // SAFETY: a struct dm_ioctl has its length at byte 12.
    let told = unsafe { at.add(12).cast::<u32>().read_unaligned() } as usize;
    let length = told.max(MINIMUM);
    // The program's descriptor is the connection for events, which DM_DEV_ARM_POLL arms.
    let arm = request & 0xff == ARM_POLL && drain(fd);
    let socket = if arm { fd } else { connect(settings) };
    if socket < 0 {
        return fail(libc::ENXIO);
    }
    let once = request & 0xff == WAIT;
    // SAFETY: `length` bytes are there, says the caller.
    let result = unsafe { exchange(socket, request, at, length, once) };
    if !arm {
        // SAFETY: our own descriptor.
        unsafe { libc::close(socket) };
    }
    match result {
        Ok(()) => 0,
        Err(errno) => fail(errno),
    }
}

/// Takes what events have come through a descriptor; false if it is none of ours.
fn drain(fd: c_int) -> bool {
    let mut frames = [0u8; 16 * HEADER];
    loop {
        // SAFETY: memory of our own.
        let got =
            unsafe { libc::recv(fd, frames.as_mut_ptr().cast(), frames.len(), libc::MSG_DONTWAIT) };
        if got <= 0 {
            // SAFETY: errno is the calling thread's own.
            return got < 0 && unsafe { *libc::__errno_location() } == libc::EAGAIN;
        }
    }
}

/// # Safety
/// `at` is `length` bytes of memory.
unsafe fn exchange(
    socket: c_int,
    request: u32,
    at: *mut u8,
    length: usize,
    once: bool,
) -> Result<(), i32> {
    let first = header(IOCTL, length + 4);
    let number = request.to_be_bytes();
    // SAFETY: the caller's promise, and memory of our own.
    unsafe {
        let sent = send(socket, first.as_ptr(), HEADER)
            && send(socket, number.as_ptr(), number.len())
            && send(socket, at, length);
        // One that is refused may have been answered before all was sent.
        let mut reply = [0u8; HEADER];
        loop {
            receive(socket, reply.as_mut_ptr(), HEADER, once)?;
            // An event that came between.
            if reply.get(..8) != Some(b"dmhR\0\x01\0\x01") {
                break;
            }
        }
        let word = |place: usize| {
            let four = reply.get(place..).and_then(|rest| rest.first_chunk::<4>());
            four.map_or(0, |four| u32::from_be_bytes(*four))
        };
        let (errno, body) = (word(8) as i32, word(12) as usize);
        if reply.get(..4) != Some(b"dmhR") || body > length {
            return Err(libc::EIO);
        }
        receive(socket, at, body, false)?;
        match (errno, sent) {
            (0, true) => Ok(()),
            (0, false) => Err(libc::EIO),
            (errno, _) => Err(errno),
        }
    }
}
