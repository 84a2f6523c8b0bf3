// SPDX-License-Identifier: BSD-2-Clause

//! The protocol's messages: their numbers, and functions that parse and encode them. Nothing here waits, allocates
//! more than a message's own size, or believes what a peer says.

#[cfg(test)]
mod tests;

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

/// An option's header: its number, and the bytes that follow. `None` if it is none.
pub fn parse_option_header(header: &[u8; OPTION]) -> Option<(u32, u32)> {
    let mut fields = Fields(header);
    (fields.u64()? == OPTION_MAGIC).then_some(())?;
    Some((fields.u32()?, fields.u32()?))
}

/// A client's option, sent before it uses an export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientOption {
    /// NBD_OPT_EXPORT_NAME: use this export, without negotiation.
    ExportName(String),
    /// NBD_OPT_ABORT
    Abort,
    /// NBD_OPT_LIST
    List,
    /// NBD_OPT_INFO: the export, and the information that is asked for.
    Info(String, Vec<u16>),
    /// NBD_OPT_GO: as `Info`, and then to use it.
    Go(String, Vec<u16>),
    /// NBD_OPT_STRUCTURED_REPLY
    StructuredReply,
    /// NBD_OPT_LIST_META_CONTEXT: the export and the queries.
    ListMeta(String, Vec<String>),
    /// NBD_OPT_SET_META_CONTEXT
    SetMeta(String, Vec<String>),
    /// An option that this server does not have.
    Unknown,
    /// A known option, with malformed data.
    Malformed,
}

impl ClientOption {
    /// Takes an option's data apart.
    pub fn parse(number: u32, data: &[u8]) -> ClientOption {
        let empty = |this| if data.is_empty() { this } else { ClientOption::Malformed };
        let parsed = match number {
            option::EXPORT_NAME => name(data).map(ClientOption::ExportName),
            option::ABORT => Some(ClientOption::Abort),
            option::LIST => Some(empty(ClientOption::List)),
            option::STRUCTURED_REPLY => Some(empty(ClientOption::StructuredReply)),
            option::INFO => parse_info(data).map(|(name, what)| ClientOption::Info(name, what)),
            option::GO => parse_info(data).map(|(name, what)| ClientOption::Go(name, what)),
            option::LIST_META_CONTEXT => {
                parse_meta(data).map(|(name, queries)| ClientOption::ListMeta(name, queries))
            }
            option::SET_META_CONTEXT => {
                parse_meta(data).map(|(name, queries)| ClientOption::SetMeta(name, queries))
            }
            _ => Some(ClientOption::Unknown),
        };
        parsed.unwrap_or(ClientOption::Malformed)
    }

    /// The option's number and its data, as a client sends them. [`ClientOption::Unknown`] and
    /// [`ClientOption::Malformed`] give those of an abort.
    pub fn encode(&self) -> (u32, Vec<u8>) {
        let named = |name: &str| {
            let mut data = (name.len() as u32).to_be_bytes().to_vec();
            data.extend(name.as_bytes());
            data
        };
        let info = |name: &str, what: &[u16]| {
            let mut data = named(name);
            data.extend((what.len() as u16).to_be_bytes());
            what.iter().for_each(|kind| data.extend(kind.to_be_bytes()));
            data
        };
        let meta = |name: &str, queries: &[String]| {
            let mut data = named(name);
            data.extend((queries.len() as u32).to_be_bytes());
            queries.iter().for_each(|query| data.extend(named(query)));
            data
        };
        match self {
            ClientOption::ExportName(name) => (option::EXPORT_NAME, name.clone().into_bytes()),
            ClientOption::List => (option::LIST, Vec::new()),
            ClientOption::Info(name, what) => (option::INFO, info(name, what)),
            ClientOption::Go(name, what) => (option::GO, info(name, what)),
            ClientOption::StructuredReply => (option::STRUCTURED_REPLY, Vec::new()),
            ClientOption::ListMeta(name, q) => (option::LIST_META_CONTEXT, meta(name, q)),
            ClientOption::SetMeta(name, q) => (option::SET_META_CONTEXT, meta(name, q)),
            ClientOption::Abort | ClientOption::Unknown | ClientOption::Malformed => {
                (option::ABORT, Vec::new())
            }
        }
    }
}

fn parse_info(data: &[u8]) -> Option<(String, Vec<u16>)> {
    let mut fields = Fields(data);
    let name = fields.name()?;
    let count = usize::from(fields.u16()?);
    (fields.0.len() == count.checked_mul(2)?).then_some(())?;
    let what = std::iter::from_fn(|| fields.u16()).collect();
    Some((name, what))
}

fn parse_meta(data: &[u8]) -> Option<(String, Vec<String>)> {
    let mut fields = Fields(data);
    let name = fields.name()?;
    let mut queries = Vec::new();
    for _ in 0..fields.u32()? {
        queries.push(fields.name()?);
    }
    fields.0.is_empty().then_some((name, queries))
}

/// A request, as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RawRequest {
    /// The command's flags, of `proto::command`.
    pub flags: u16,
    /// The command's number, `command::*`.
    pub kind: u16,
    /// The client's name for the request.
    pub cookie: u64,
    /// The first byte.
    pub offset: u64,
    /// The length in bytes.
    pub length: u32,
}

impl RawRequest {
    /// Takes a request apart; `None` if it is none.
    pub fn parse(bytes: &[u8; REQUEST]) -> Option<RawRequest> {
        let mut fields = Fields(bytes);
        (fields.u32()? == REQUEST_MAGIC).then_some(())?;
        Some(RawRequest {
            flags: fields.u16()?,
            kind: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: fields.u32()?,
        })
    }

    /// The request as a client sends it.
    pub fn encode(&self) -> [u8; REQUEST] {
        let mut bytes = [0; REQUEST];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.kind.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Bytes that follow the request.
    pub fn payload(&self) -> u32 {
        if self.kind == command::WRITE { self.length } else { 0 }
    }
}

/// The terms of a connection, which decide what a request may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Terms {
    /// Bytes of the device.
    pub size: u64,
    /// `true` if writes are accepted.
    pub writable: bool,
    /// `true` if replies are structured.
    pub structured: bool,
    /// `true` if block status may be asked for.
    pub block_status: bool,
}

/// A checked request: its range lies in the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the flags are the protocol's own")]
pub enum Command {
    /// Read; with `df` in one piece.
    Read { df: bool },
    /// Write the payload.
    Write { fua: bool },
    /// Disconnect: the client goes.
    Disconnect,
    /// Bring all that was written to the medium.
    Flush,
    /// Discard the range, which need not be kept.
    Trim { fua: bool },
    /// Prepare for reads of the range.
    Cache,
    /// Write zeroes; unless `no_hole`, by punching a hole where that gives zeroes. With `fast` only if that is faster
    /// than writing them.
    WriteZeroes { fua: bool, no_hole: bool, fast: bool },
    /// Tell what is allocated; with `one` of one extent only.
    BlockStatus { one: bool },
}

impl Terms {
    /// Checks a request.
    ///
    /// # Errors
    /// The error for the reply.
    pub fn check(&self, request: &RawRequest) -> Result<Command, Error> {
        let has = |flag: u16| request.flags & flag != 0;
        let fua = has(command::FUA);
        let (parsed, allowed) = match request.kind {
            command::READ => (Command::Read { df: has(command::DF) }, command::DF | command::FUA),
            command::WRITE => (Command::Write { fua }, command::FUA),
            command::DISCONNECT => return Ok(Command::Disconnect),
            command::FLUSH => (Command::Flush, command::FUA),
            command::TRIM => (Command::Trim { fua }, command::FUA),
            command::CACHE => (Command::Cache, command::FUA),
            command::WRITE_ZEROES => {
                let (no_hole, fast) = (has(command::NO_HOLE), has(command::FAST_ZERO));
                let allowed = command::FUA | command::NO_HOLE | command::FAST_ZERO;
                (Command::WriteZeroes { fua, no_hole, fast }, allowed)
            }
            command::BLOCK_STATUS if self.block_status => (
                Command::BlockStatus { one: has(command::REQ_ONE) },
                command::REQ_ONE | command::FUA,
            ),
            _ => return Err(Error::Inval),
        };
        if request.flags & !allowed != 0 || (has(command::DF) && !self.structured) {
            return Err(Error::Inval);
        }
        let writes = matches!(
            parsed,
            Command::Write { .. } | Command::Trim { .. } | Command::WriteZeroes { .. }
        );
        if writes && !self.writable {
            return Err(Error::Perm);
        }
        if parsed == Command::Flush {
            let nothing = request.offset == 0 && request.length == 0;
            return if nothing { Ok(parsed) } else { Err(Error::Inval) };
        }
        if request.length == 0 {
            return Err(Error::Inval);
        }
        let end = request.offset.checked_add(request.length.into());
        if end.is_none_or(|end| end > self.size) {
            return Err(if writes { Error::NoSpc } else { Error::Inval });
        }
        let carried = matches!(parsed, Command::Read { .. } | Command::Write { .. });
        if carried && request.length > MAX_REQUEST {
            return Err(Error::Inval);
        }
        Ok(parsed)
    }
}

/// A simple reply without its payload; `None` is success.
pub fn simple(cookie: u64, error: Option<Error>) -> [u8; SIMPLE] {
    let mut bytes = [0; SIMPLE];
    bytes[..4].copy_from_slice(&SIMPLE_MAGIC.to_be_bytes());
    bytes[4..8].copy_from_slice(&error.map_or(0, |error| error as u32).to_be_bytes());
    bytes[8..].copy_from_slice(&cookie.to_be_bytes());
    bytes
}

/// A chunk's header.
pub fn chunk_header(cookie: u64, kind: u16, flags: u16, length: u32) -> [u8; CHUNK] {
    let mut bytes = [0; CHUNK];
    bytes[..4].copy_from_slice(&CHUNK_MAGIC.to_be_bytes());
    bytes[4..6].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&kind.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// A chunk's header, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkHeader {
    /// `chunk::DONE` for the last of a reply.
    pub flags: u16,
    /// The chunk's type, one of `chunk`.
    pub kind: u16,
    /// The request's name.
    pub cookie: u64,
    /// Bytes that follow.
    pub length: u32,
}

/// A reply's header, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyHeader {
    /// A simple reply: the request's name, and 0 or the error's number.
    Simple(u64, u32),
    /// The beginning of a chunk of a structured one; 4 bytes more are its length.
    Chunk(ChunkHeader),
}

/// Takes a simple reply apart.
pub fn parse_simple(bytes: &[u8; SIMPLE]) -> Option<(u64, u32)> {
    let mut fields = Fields(bytes);
    (fields.u32()? == SIMPLE_MAGIC).then_some(())?;
    let error = fields.u32()?;
    Some((fields.u64()?, error))
}

/// Takes a chunk's header apart.
pub fn parse_chunk(bytes: &[u8; CHUNK]) -> Option<ChunkHeader> {
    let mut fields = Fields(bytes);
    (fields.u32()? == CHUNK_MAGIC).then_some(())?;
    let (flags, kind) = (fields.u16()?, fields.u16()?);
    Some(ChunkHeader { flags, kind, cookie: fields.u64()?, length: fields.u32()? })
}

/// A reply to an option: its header and its data.
pub fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// Takes the header of a reply to an option apart: the option, the kind, the bytes that follow.
pub fn parse_option_reply(bytes: &[u8; OPTION_REPLY]) -> Option<(u32, u32, u32)> {
    let mut fields = Fields(bytes);
    (fields.u64()? == OPTION_REPLY_MAGIC).then_some(())?;
    Some((fields.u32()?, fields.u32()?, fields.u32()?))
}

/// The content of an option's reply of kind [`option_reply::INFO`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Info {
    /// Size in bytes and transmission flags, `can::*`.
    Export(u64, u16),
    /// Least, best and largest size of a request in bytes.
    BlockSize(u32, u32, u32),
    /// Information of another kind.
    Other,
}

impl Info {
    /// Parses the information. `None` if it is malformed.
    pub fn parse(data: &[u8]) -> Option<Info> {
        let mut fields = Fields(data);
        Some(match fields.u16()? {
            info::EXPORT => Info::Export(fields.u64()?, fields.u16()?),
            info::BLOCK_SIZE => Info::BlockSize(fields.u32()?, fields.u32()?, fields.u32()?),
            _ => Info::Other,
        })
    }

    /// The information as a server sends it. That of [`Info::Other`] is empty.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = Vec::new();
        match self {
            Info::Export(size, flags) => {
                data.extend(info::EXPORT.to_be_bytes());
                data.extend(size.to_be_bytes());
                data.extend(flags.to_be_bytes());
            }
            Info::BlockSize(least, best, largest) => {
                data.extend(info::BLOCK_SIZE.to_be_bytes());
                [least, best, largest].iter().for_each(|n| data.extend(n.to_be_bytes()));
            }
            Info::Other => {}
        }
        data
    }
}

/// The data of a chunk of kind [`chunk::BLOCK_STATUS`]: the context's number, then length and
/// [`state`] of each extent.
pub fn encode_extents(context: u32, extents: &[(u32, u32)]) -> Vec<u8> {
    let mut data = context.to_be_bytes().to_vec();
    for (length, state) in extents {
        data.extend(length.to_be_bytes());
        data.extend(state.to_be_bytes());
    }
    data
}

/// Takes such data apart.
pub fn parse_extents(data: &[u8]) -> Option<(u32, Vec<(u32, u32)>)> {
    let mut fields = Fields(data);
    let context = fields.u32()?;
    let mut extents = Vec::new();
    while !fields.0.is_empty() {
        extents.push((fields.u32()?, fields.u32()?));
    }
    Some((context, extents))
}
