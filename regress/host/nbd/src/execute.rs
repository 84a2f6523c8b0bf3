// SPDX-License-Identifier: BSD-2-Clause

//! Execution of requests that `proto` has parsed.

use std::io;

use crate::connection::Connection;
use crate::export::{Device, Extent};
use crate::handoff::about_to_block;
use crate::proto::{
    self, BASE_ALLOCATION_ID, Command, Error, MAX_REQUEST, RawRequest, chunk, state,
};
use crate::reader::Reader;

/// Bytes that are moved at a time: what stays in a cache of the processor between the disk and the
/// socket, and all the memory that most requests need.
pub const PIECE: usize = 256 << 10;

/// Extents in a reply.
const EXTENTS: usize = 1024;

/// A worker's memory, kept from request to request.
#[derive(Default)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// A buffer of `count` bytes of any content.
    fn bytes(&mut self, count: usize) -> &mut [u8] {
        if self.0.len() < count {
            self.0.resize(count, 0);
        }
        self.0.get_mut(..count).unwrap_or_default()
    }

    /// Frees memory that only few requests need.
    fn shrink(&mut self) {
        if self.0.len() > PIECE {
            self.0 = Vec::new();
        }
    }
}

/// A request that has been received.
pub(crate) struct Job {
    cookie: u64,
    offset: u64,
    length: u32,
    what: What,
    /// `true` if another request has arrived already: short replies are then sent together.
    more: bool,
}

enum What {
    /// The result, without data.
    Told(Result<(), Error>),
    /// A write, of which so many bytes at the end are in the buffer.
    Rest(usize, bool),
    Other(Command),
}

/// Checks a request, as its reader, and receives its payload. The answer is the place as the reader and the request
/// that is to be executed; neither, when the connection ends.
pub(crate) fn execute<D: Device>(
    connection: &Connection<D>,
    mut reader: Box<Reader>,
    request: &RawRequest,
    buffer: &mut Buffer,
) -> (Option<Box<Reader>>, Option<Job>) {
    let job = |what, more| Job {
        cookie: request.cookie,
        offset: request.offset,
        length: request.length,
        what,
        more,
    };
    let what = match connection.terms.check(request) {
        Ok(Command::Disconnect) => {
            connection.end();
            return (None, None);
        }
        Ok(Command::Write { fua }) => receive(connection, &mut reader, request, fua, buffer),
        Ok(command) => Ok(What::Other(command)),
        // A payload that is far too long is not skipped.
        Err(_) if request.payload() > 2 * MAX_REQUEST => Err(io::ErrorKind::InvalidData.into()),
        Err(error) => reader.skip(request.payload().into()).map(|()| What::Told(Err(error))),
    };
    match what {
        Ok(what) => {
            let more = reader.has_request();
            (Some(reader), Some(job(what, more)))
        }
        Err(_) => {
            connection.give_up();
            (None, None)
        }
    }
}

/// Receives a write's payload, and writes all but the last piece of it.
fn receive<D: Device>(
    connection: &Connection<D>,
    reader: &mut Reader,
    request: &RawRequest,
    fua: bool,
    buffer: &mut Buffer,
) -> io::Result<What> {
    let mut left = request.length as usize;
    let mut offset = request.offset;
    while left > PIECE {
        let bytes = buffer.bytes(PIECE);
        reader.payload(bytes)?;
        if let Err(error) = connection.device.write(bytes, offset, fua) {
            reader.skip(left.saturating_sub(PIECE) as u64)?;
            return Ok(What::Told(Err(error)));
        }
        left = left.saturating_sub(PIECE);
        offset = offset.saturating_add(PIECE as u64);
    }
    reader.payload(buffer.bytes(left))?;
    Ok(What::Rest(left, fua))
}

impl Job {
    /// Executes the request and answers it. The place as the reader may be handed on meanwhile.
    pub(crate) fn run<D: Device>(&mut self, connection: &Connection<D>, buffer: &mut Buffer) {
        let sent = match &self.what {
            What::Told(result) => self.tell(connection, *result),
            What::Rest(count, fua) => {
                let skipped = u64::from(self.length).saturating_sub(*count as u64);
                let offset = self.offset.saturating_add(skipped);
                let result = connection.device.write(buffer.bytes(*count), offset, *fua);
                self.tell(connection, result)
            }
            What::Other(Command::Read { df }) => self.read(connection, *df, buffer),
            What::Other(Command::BlockStatus { one }) => self.status(connection, *one),
            What::Other(command) => {
                let result = self.command(connection, *command, buffer);
                self.tell(connection, result)
            }
        };
        if sent.is_err() {
            connection.give_up();
        }
    }

    fn command<D: Device>(
        &self,
        connection: &Connection<D>,
        command: Command,
        buffer: &mut Buffer,
    ) -> Result<(), Error> {
        let device = &connection.device;
        let (offset, length) = (self.offset, u64::from(self.length));
        let flush = |fua: bool| if fua { device.flush() } else { Ok(()) };
        match command {
            Command::Flush => device.flush(),
            Command::Trim { fua } => {
                about_to_block();
                device.trim(offset, length)?;
                flush(fua)
            }
            Command::Cache => self
                .pieces()
                .try_for_each(|(offset, count)| device.read(buffer.bytes(count), offset)),
            Command::WriteZeroes { fua, no_hole, fast } => {
                about_to_block();
                let punched =
                    if no_hole { Err(Error::NotSup) } else { device.punch(offset, length) };
                match punched {
                    Err(Error::NotSup) if !fast => {
                        for (offset, count) in self.pieces() {
                            let zeroes = buffer.bytes(count);
                            zeroes.fill(0);
                            device.write(zeroes, offset, fua)?;
                        }
                        Ok(())
                    }
                    result => result.and_then(|()| flush(fua)),
                }
            }
            Command::Read { .. }
            | Command::Write { .. }
            | Command::BlockStatus { .. }
            | Command::Disconnect => Err(Error::Inval),
        }
    }

    /// The pieces of the range: where each begins, and its bytes.
    fn pieces(&self) -> impl Iterator<Item = (u64, usize)> + use<> {
        let (offset, length) = (self.offset, self.length as usize);
        (0..length)
            .step_by(PIECE)
            .map(move |at| (offset.saturating_add(at as u64), PIECE.min(length.saturating_sub(at))))
    }

    fn read<D: Device>(
        &self,
        connection: &Connection<D>,
        df: bool,
        buffer: &mut Buffer,
    ) -> io::Result<()> {
        let length = self.length as usize;
        if connection.terms.structured && !df {
            return self.read_in_pieces(connection, buffer);
        }
        // In one piece. Large ones one after the other: a client shall not have many of them.
        let _large = (length > PIECE).then(|| {
            about_to_block();
            connection.large.lock().unwrap_or_else(|e| e.into_inner())
        });
        let result = connection.device.read(buffer.bytes(length), self.offset);
        let sent = match result {
            Ok(()) if connection.terms.structured => {
                self.send_data(connection, self.offset, buffer.bytes(length), chunk::DONE)
            }
            Ok(()) => connection.send(&proto::simple(self.cookie, None), buffer.bytes(length)),
            Err(error) => self.tell(connection, Err(error)),
        };
        buffer.shrink();
        sent
    }

    fn read_in_pieces<D: Device>(
        &self,
        connection: &Connection<D>,
        buffer: &mut Buffer,
    ) -> io::Result<()> {
        let end = self.offset.saturating_add(self.length.into());
        for (offset, count) in self.pieces() {
            let bytes = buffer.bytes(count);
            if let Err(error) = connection.device.read(bytes, offset) {
                return self.tell(connection, Err(error));
            }
            let last = offset.saturating_add(count as u64) >= end;
            self.send_data(connection, offset, bytes, if last { chunk::DONE } else { 0 })?;
        }
        Ok(())
    }

    fn send_data<D: Device>(
        &self,
        connection: &Connection<D>,
        offset: u64,
        bytes: &[u8],
        flags: u16,
    ) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).saturating_add(8);
        let mut head = [0; proto::CHUNK + 8];
        let (header, place) = head.split_at_mut(proto::CHUNK);
        header.copy_from_slice(&proto::chunk_header(
            self.cookie,
            chunk::OFFSET_DATA,
            flags,
            length,
        ));
        place.copy_from_slice(&offset.to_be_bytes());
        connection.send(&head, bytes)
    }

    /// Answers a block status request.
    fn status<D: Device>(&self, connection: &Connection<D>, one: bool) -> io::Result<()> {
        about_to_block();
        let count = if one { 1 } else { EXTENTS };
        let length = u64::from(self.length);
        let extents = match connection.device.extents(self.offset, length, count) {
            Ok(extents) => describe(&extents, length, count),
            Err(error) => return self.tell(connection, Err(error)),
        };
        if extents.is_empty() {
            return self.tell(connection, Err(Error::Io));
        }
        let data = proto::encode_extents(BASE_ALLOCATION_ID, &extents);
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let header = proto::chunk_header(self.cookie, chunk::BLOCK_STATUS, chunk::DONE, length);
        connection.send(&header, &data)
    }

    /// Replies with the result of a request that has no data.
    fn tell<D: Device>(
        &self,
        connection: &Connection<D>,
        result: Result<(), Error>,
    ) -> io::Result<()> {
        match result.err() {
            // As all servers do: a simple reply is shorter, and allowed but for a read.
            None if self.more => connection.keep(&proto::simple(self.cookie, None)),
            None => connection.send(&proto::simple(self.cookie, None), &[]),
            Some(error) if !connection.terms.structured => {
                connection.send(&proto::simple(self.cookie, Some(error)), &[])
            }
            Some(error) => {
                let mut data = (error as u32).to_be_bytes().to_vec();
                data.extend(0u16.to_be_bytes());
                let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                let header = proto::chunk_header(self.cookie, chunk::ERROR, chunk::DONE, length);
                connection.send(&header, &data)
            }
        }
    }
}

/// Extents for a reply: neighbours of one state joined, none beyond the range.
fn describe(extents: &[Extent], length: u64, count: usize) -> Vec<(u32, u32)> {
    let mut told: Vec<(u32, u32)> = Vec::new();
    let mut left = u32::try_from(length).unwrap_or(u32::MAX);
    for extent in extents {
        let bytes = u32::try_from(extent.length).unwrap_or(u32::MAX).min(left);
        if bytes == 0 {
            continue;
        }
        let hole = if extent.hole { state::HOLE } else { 0 };
        let flags = hole | if extent.zero { state::ZERO } else { 0 };
        let full = told.len() == count;
        match told.last_mut() {
            Some((joined, other)) if *other == flags => *joined = joined.saturating_add(bytes),
            _ if full => break,
            _ => told.push((bytes, flags)),
        }
        left = left.saturating_sub(bytes);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_joined_and_cut() {
        let extent = |length, hole| Extent { length, hole, zero: hole };
        let all = [extent(10, true), extent(0, false), extent(5, true), extent(1 << 40, false)];
        assert_eq!(describe(&all, 100, 9), [(15, 3), (85, 0)]);
        assert_eq!(describe(&all, 100, 1), [(15, 3)]);
        assert_eq!(describe(&all, 12, 9), [(12, 3)]);
    }
}
