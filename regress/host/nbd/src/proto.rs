// SPDX-License-Identifier: BSD-2-Clause

//! The protocol's messages: their numbers, and functions that parse and encode them. Nothing here waits, allocates
//! more than a message's own size, or believes what a peer says.

mod options;
mod requests;
#[cfg(test)]
mod tests;

pub use options::{ClientOption, Info, option_reply, parse_option_header, parse_option_reply};
pub use requests::{
    ChunkHeader, Command, RawRequest, Terms, chunk_header, encode_extents, parse_chunk,
    parse_extents, parse_simple, simple,
};

/// The first 8 bytes from a server: `NBDMAGIC`.
pub const MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
/// Before each option, and after [`MAGIC`]: `IHAVEOPT`.
pub const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
/// Before each reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Before each request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Before each simple reply.
pub const SIMPLE_MAGIC: u32 = 0x6744_6698;
/// Before each chunk of a structured reply.
pub const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// Bytes of a request without its payload.
pub const REQUEST: usize = 28;
/// Bytes of a simple reply without its payload.
pub const SIMPLE: usize = 16;
/// Bytes of a chunk's header.
pub const CHUNK: usize = 20;
/// Bytes of an option without its data.
pub const OPTION: usize = 16;
/// Bytes of a reply to an option without its data.
pub const OPTION_REPLY: usize = 20;

/// The most bytes of a name.
pub const MAX_NAME: usize = 4096;
/// The most bytes of an option's data; more are refused.
pub const MAX_OPTION: u32 = 64 << 10;
/// Bytes of a request that every server takes, and the most this one promises to take.
pub const MAX_REQUEST: u32 = 32 << 20;

/// Flags of the handshake.
pub mod handshake {
    /// Fixed newstyle, both ways.
    pub const FIXED_NEWSTYLE: u16 = 1;
    /// After NBD_OPT_EXPORT_NAME no 124 zeroes follow; agreed on by both sides.
    pub const NO_ZEROES: u16 = 2;
}

/// Numbers of options.
pub mod option {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Kinds of replies to options.
pub mod option_reply {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    const ERROR: u32 = 1 << 31;
    pub const UNSUPPORTED: u32 = ERROR | 1;
    pub const POLICY: u32 = ERROR | 2;
    pub const INVALID: u32 = ERROR | 3;
    pub const UNKNOWN: u32 = ERROR | 6;
    pub const SHUTDOWN: u32 = ERROR | 7;
    pub const TOO_BIG: u32 = ERROR | 9;

    /// `true` if a reply says that an option was refused.
    pub fn is_error(kind: u32) -> bool {
        kind & ERROR != 0
    }
}

/// The kinds of information in replies to NBD_OPT_INFO and NBD_OPT_GO.
pub mod info {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags: the commands that an export can do.
pub mod can {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const HAS_FLAGS: u16 = 1;
    pub const READ_ONLY: u16 = 2;
    pub const FLUSH: u16 = 4;
    pub const FUA: u16 = 8;
    pub const TRIM: u16 = 32;
    pub const WRITE_ZEROES: u16 = 64;
    pub const DF: u16 = 128;
    pub const MULTI_CONN: u16 = 256;
    pub const CACHE: u16 = 1024;
    pub const FAST_ZERO: u16 = 2048;
}

/// Numbers and flags of requests.
pub mod command {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISCONNECT: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;

    pub const FUA: u16 = 1;
    pub const NO_HOLE: u16 = 2;
    pub const DF: u16 = 4;
    pub const REQ_ONE: u16 = 8;
    pub const FAST_ZERO: u16 = 16;
}

/// Kinds of chunks of structured replies.
pub mod chunk {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const NONE: u16 = 0;
    pub const OFFSET_DATA: u16 = 1;
    pub const OFFSET_HOLE: u16 = 2;
    pub const BLOCK_STATUS: u16 = 5;
    pub const ERROR: u16 = 1 << 15 | 1;
    pub const ERROR_OFFSET: u16 = 1 << 15 | 2;
    /// The last chunk of its reply.
    pub const DONE: u16 = 1;

    /// `true` if a chunk says that the request failed.
    pub fn is_error(kind: u16) -> bool {
        kind & 1 << 15 != 0
    }
}

/// The state of a range, in the context [`BASE_ALLOCATION`].
pub mod state {
    /// The range is not allocated.
    pub const HOLE: u32 = 1;
    /// The range reads as zeroes.
    pub const ZERO: u32 = 2;
}

/// The name of the metadata context that tells holes.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// The number that this server has for [`BASE_ALLOCATION`].
pub const BASE_ALLOCATION_ID: u32 = 1;

/// An error, as a reply carries it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Error {
    /// The export takes no writes.
    Perm = 1,
    /// Reading or writing failed.
    Io = 5,
    /// Memory is short.
    NoMem = 12,
    /// The request makes no sense.
    Inval = 22,
    /// There is no space left, or a write begins or ends beyond the device.
    NoSpc = 28,
    /// The answer would be too large for one chunk.
    Overflow = 75,
    /// The command is not supported, or cannot be done fast.
    NotSup = 95,
    /// The server is ending.
    Shutdown = 108,
}

impl Error {
    /// The error of a number; an unknown number is [`Error::Io`].
    pub fn from_number(number: u32) -> Error {
        use Error::{Inval, Io, NoMem, NoSpc, NotSup, Overflow, Perm, Shutdown};
        let all = [Perm, Io, NoMem, Inval, NoSpc, Overflow, NotSup, Shutdown];
        all.into_iter().find(|error| *error as u32 == number).unwrap_or(Io)
    }
}

/// A reader of fields: none of its methods reads beyond the end.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A name with its length before it.
    fn name(&mut self) -> Option<String> {
        let length = usize::try_from(self.u32()?).ok()?;
        name(self.bytes(length)?)
    }
}

fn name(bytes: &[u8]) -> Option<String> {
    (bytes.len() <= MAX_NAME && !bytes.contains(&0)).then_some(())?;
    String::from_utf8(bytes.to_vec()).ok()
}
