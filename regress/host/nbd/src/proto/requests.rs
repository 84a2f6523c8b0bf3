// SPDX-License-Identifier: BSD-2-Clause

//! Transmission: requests, and simple and structured replies.

use super::{
    CHUNK, CHUNK_MAGIC, Error, Fields, MAX_REQUEST, REQUEST, REQUEST_MAGIC, SIMPLE, SIMPLE_MAGIC,
    command,
};

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

/// The data of a chunk of kind [`BLOCK_STATUS`](super::chunk::BLOCK_STATUS): the context's number, then length and
/// [`state`](super::state) of each extent.
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
