// SPDX-License-Identifier: BSD-2-Clause

//! The protocol between `dm-host ctl` and a served machine: frames on a Unix stream socket.
//!
//! A frame is a header of 16 bytes and a body. All numbers are big-endian.
//!
//! | bytes | request | reply |
//! |---|---|---|
//! | 0–3 | `dmhQ` | `dmhR` |
//! | 4–5 | version, 1 | version, 1 |
//! | 6–7 | kind, [`Kind`] | 0, or [`EVENT`] |
//! | 8–11 | 0 | errno, NetBSD's; 0 when it was done |
//! | 12–15 | bytes of the body | bytes of the body |
//!
//! The body of a request is a property list ([`Kind::Ioctl`]) or text; that of a reply is the
//! answer, or the reason of the failure. After a frame that is malformed the server
//! answers EINVAL and closes the connection, since it cannot know where the next one begins.

use std::fmt;
use std::io::{self, Read, Write};

/// The version of the frames.
pub const VERSION: u16 = 1;

/// Bytes of a request's body. The kernel refuses property lists of 64 KiB; this is more, so that
/// the refusal is the kernel's.
pub const MAX_REQUEST: usize = 1 << 20;

/// Bytes of a reply's body: a device's largest table fits.
pub const MAX_REPLY: usize = 64 << 20;

const HEADER: usize = 16;
const REQUEST: [u8; 4] = *b"dmhQ";
const REPLY: [u8; 4] = *b"dmhR";

/// The kind of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Kind {
    /// `NETBSD_DM_IOCTL` on the control node; the body is a property list in XML.
    Ioctl = 1,
    /// A sysctl variable; the body is `name` or `name=value`, the answer its value.
    Sysctl = 2,
    /// The attached disks: no body; the answer has a line for each, its words separated by tabs:
    /// name, major:minor, sectors of 512 bytes, bytes in a sector, `rw` or `ro`, path.
    Disks = 3,
    /// Shut down: no body; the answer comes before the machine goes.
    Shutdown = 4,
    /// Tell the devices' statistics: no body. The answer has a line for each device, its words separated by tabs:
    /// minor, reads, bytes read, writes, bytes written, I/Os that are not complete, microseconds in which there were
    /// some, and microseconds since the device's creation.
    Statistics = 5,
    /// Send a request when this connection ends: the body is a property list as for [`Kind::Ioctl`]. It replaces the
    /// one before, and an empty body undoes nothing. Unless the request before succeeded, the answer is ECANCELED,
    /// and the property list stays as it was: so the two requests may be sent together.
    AtEnd = 6,
    /// An ioctl of Linux's: the body is its number, four bytes big-endian, and `struct dm_ioctl`
    /// with all its data; the answer is the structure and its data again. The errno of the reply
    /// is Linux's. `dm-host linux` answers it.
    Linux = 16,
    /// Send a frame of [`EVENT`] through the connection, from now on, when an event has followed a DM_DEV_ARM_POLL on
    /// it; no body, and no answer but those frames.
    LinuxEvents = 17,
}

/// Bytes of the body of a [`Kind::Linux`] request: the most that the kernel takes for a table, and more.
pub const MAX_LINUX: usize = 32 << 20;

/// The kind in the header of a reply without a request: see [`Kind::LinuxEvents`].
pub const EVENT: u16 = 1;

impl Kind {
    fn parse(number: u16) -> Option<Kind> {
        use Kind::*;
        [Ioctl, Sysctl, Disks, Shutdown, Statistics, AtEnd, Linux, LinuxEvents]
            .into_iter()
            .find(|kind| *kind as u16 == number)
    }

    fn max(self) -> usize {
        if self == Kind::Linux { MAX_LINUX } else { MAX_REQUEST }
    }
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The kind of the request.
    pub kind: Kind,
    /// The rest, by kind.
    pub body: Vec<u8>,
}

/// A reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// 0, or NetBSD's number of an error.
    pub errno: i32,
    /// The answer, or words about the error.
    pub body: Vec<u8>,
}

/// Why a frame could not be read.
#[derive(Debug)]
pub enum WireError {
    /// The other end closed the connection between two frames.
    Closed,
    /// The connection failed, or ended within a frame.
    Io(io::Error),
    /// The frame is not one of this protocol's.
    Malformed(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Closed => f.write_str("the connection was closed"),
            WireError::Io(error) => write!(f, "the connection failed: {error}"),
            WireError::Malformed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for WireError {}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> WireError {
        WireError::Io(error)
    }
}

/// A header, taken apart but for its meaning.
struct Header {
    kind: u16,
    word: u32,
    length: usize,
}

impl Request {
    /// Sends the request.
    ///
    /// # Errors
    /// [`WireError::Malformed`] for a body that is too large, or those of the connection.
    pub fn write(&self, to: &mut impl Write) -> Result<(), WireError> {
        if self.body.len() > self.kind.max() {
            return Err(WireError::Malformed("the request is too large"));
        }
        write(to, REQUEST, self.kind as u16, 0, &self.body)
    }

    /// Receives a request.
    ///
    /// # Errors
    /// [`WireError`]; nothing larger than [`MAX_REQUEST`] is ever kept.
    pub fn read(from: &mut impl Read) -> Result<Request, WireError> {
        let header = header(from, REQUEST)?;
        let kind = Kind::parse(header.kind)
            .ok_or(WireError::Malformed("a kind of request that is not known"))?;
        if header.word != 0 {
            return Err(WireError::Malformed("a reserved field is not 0"));
        }
        if header.length > kind.max() {
            return Err(WireError::Malformed("the request is too large"));
        }
        Ok(Request { kind, body: body(from, header.length)? })
    }
}

impl Reply {
    /// Sends the reply. A body that is too large becomes E2BIG.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn write(&self, to: &mut impl Write) -> Result<(), WireError> {
        if self.body.len() > MAX_REPLY {
            return write(to, REPLY, 0, 7, b"the reply is too large");
        }
        write(to, REPLY, 0, self.errno as u32, &self.body)
    }

    /// Sends word that something has happened: a reply without a request.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn write_event(to: &mut impl Write) -> Result<(), WireError> {
        write(to, REPLY, EVENT, 0, b"")
    }

    /// Receives a reply.
    ///
    /// # Errors
    /// [`WireError`]; nothing larger than [`MAX_REPLY`] is ever kept.
    pub fn read(from: &mut impl Read) -> Result<Reply, WireError> {
        let header = header(from, REPLY)?;
        if header.length > MAX_REPLY {
            return Err(WireError::Malformed("the reply is too large"));
        }
        Ok(Reply { errno: header.word as i32, body: body(from, header.length)? })
    }
}

fn write(
    to: &mut impl Write,
    magic: [u8; 4],
    kind: u16,
    word: u32,
    body: &[u8],
) -> Result<(), WireError> {
    let length = u32::try_from(body.len()).map_err(|_| WireError::Malformed("too large"))?;
    let mut frame = Vec::with_capacity(HEADER.saturating_add(body.len()));
    frame.extend(magic);
    frame.extend(VERSION.to_be_bytes());
    frame.extend(kind.to_be_bytes());
    frame.extend(word.to_be_bytes());
    frame.extend(length.to_be_bytes());
    frame.extend(body);
    to.write_all(&frame)?;
    Ok(to.flush()?)
}

fn header(from: &mut impl Read, magic: [u8; 4]) -> Result<Header, WireError> {
    let mut first = [0; 1];
    // The end of the stream is the end of the talk only here.
    loop {
        match from.read(&mut first) {
            Ok(0) => return Err(WireError::Closed),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut rest = [0; HEADER - 1];
    from.read_exact(&mut rest)?;
    let [m1, m2, m3, v0, v1, k0, k1, w0, w1, w2, w3, l0, l1, l2, l3] = rest;
    if [first[0], m1, m2, m3] != magic {
        return Err(WireError::Malformed("not a frame of dm-host's"));
    }
    if u16::from_be_bytes([v0, v1]) != VERSION {
        return Err(WireError::Malformed("another version of the frames"));
    }
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    Ok(Header {
        kind: u16::from_be_bytes([k0, k1]),
        word: u32::from_be_bytes([w0, w1, w2, w3]),
        length: usize::try_from(length).map_err(|_| WireError::Malformed("too large"))?,
    })
}

/// Reads a body whose length has been checked, without believing in it before the bytes are there.
fn body(from: &mut impl Read, length: usize) -> Result<Vec<u8>, WireError> {
    let mut body = Vec::new();
    from.take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(WireError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(body)
}
