// SPDX-License-Identifier: BSD-2-Clause

//! Linux's device-mapper requests: `struct dm_ioctl` and what follows it, as linux/dm-ioctl.h
//! describes them to programs. Everything is little-endian, as the machine is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use dm_script::side::{Call, Line, Reply, Request};

use crate::raw;

/// Bytes of `struct dm_ioctl`.
const HEADER: usize = 312;
/// The offsets of the structure's fields.
const DATA_SIZE: usize = 12;
const DATA_START: usize = 16;
const TARGET_COUNT: usize = 20;
const OPEN_COUNT: usize = 24;
const FLAGS: usize = 28;
const EVENT: usize = 32;
const DEV: usize = 40;
const NAME: usize = 48;
const UUID: usize = 176;

/// Bytes of `struct dm_target_spec`.
const SPEC: usize = 40;

mod flag {
    pub const READONLY: u32 = 1 << 0;
    pub const SUSPEND: u32 = 1 << 1;
    pub const PERSISTENT_DEV: u32 = 1 << 3;
    pub const STATUS_TABLE: u32 = 1 << 4;
    pub const ACTIVE: u32 = 1 << 5;
    pub const INACTIVE: u32 = 1 << 6;
    pub const BUFFER_FULL: u32 = 1 << 8;
    pub const SKIP_LOCKFS: u32 = 1 << 10;
    pub const NOFLUSH: u32 = 1 << 11;
    pub const QUERY_INACTIVE: u32 = 1 << 12;
    pub const UUID: u32 = 1 << 14;
    pub const DATA_OUT: u32 = 1 << 16;
    pub const DEFERRED_REMOVE: u32 = 1 << 17;
}

/// The version of the requests: that of the first Linux with all that is used here.
const VERSION: [u32; 3] = [4, 0, 0];

/// The number of LIST_VERSIONS: the targets and their versions.
const LIST_VERSIONS: u8 = 13;

fn number_of(request: &Request) -> u8 {
    match request.call {
        Call::RemoveAll => 1,
        Call::Names => 2,
        Call::Create => 3,
        Call::Remove => 4,
        Call::Rename => 5,
        Call::Resume | Call::Suspend => 6,
        Call::Info => 7,
        Call::Wait => 8,
        Call::Load => 9,
        Call::Clear => 10,
        Call::Deps => 11,
        Call::Status => 12,
        Call::Message => 14,
        Call::Geometry => 15,
    }
}

/// The control node.
pub struct Control {
    node: File,
    major: u32,
}

impl Control {
    /// Opens the control node.
    ///
    /// # Errors
    /// The open's.
    pub fn open() -> io::Result<Control> {
        let node = OpenOptions::new().read(true).write(true).open("/dev/mapper/control")?;
        let text = std::fs::read_to_string("/proc/devices")?;
        let word = text.lines().find_map(|line| line.trim().strip_suffix(" device-mapper"));
        let major = word.and_then(|word| word.trim().parse().ok());
        let major = major.ok_or_else(|| io::Error::other("no device-mapper in /proc/devices"))?;
        Ok(Control { node, major })
    }

    /// The major number of its devices.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The targets that are there.
    ///
    /// # Errors
    /// The request's.
    pub fn targets(&self) -> io::Result<Vec<String>> {
        let mut buffer = Buffer::new(16 << 10);
        self.send(LIST_VERSIONS, &mut buffer)?;
        let mut targets = Vec::new();
        let mut at = buffer.data_start();
        loop {
            targets.push(buffer.text(at + 16, 128));
            match buffer.u32(at) {
                0 => return Ok(targets),
                next => at += next as usize,
            }
        }
    }

    /// Carries out a command.
    ///
    /// # Errors
    /// The request's.
    pub fn command(&self, request: &Request) -> io::Result<Reply> {
        let payload: usize = request.lines.iter().map(|line| SPEC + line.params.len() + 9).sum();
        let mut room = payload + request.text.len() + (16 << 10);
        loop {
            let mut buffer = self.fill(request, room);
            self.send(number_of(request), &mut buffer)?;
            if buffer.u32(FLAGS) & flag::BUFFER_FULL == 0 {
                return Ok(buffer.reply(request));
            }
            room *= 4;
        }
    }

    fn send(&self, number: u8, buffer: &mut Buffer) -> io::Result<()> {
        let request = 3 << 30 | (HEADER as u64) << 16 | 0xfd << 8 | u64::from(number);
        raw::ioctl_bytes(&self.node, request, &mut buffer.0)
    }

    fn fill(&self, request: &Request, room: usize) -> Buffer {
        let mut buffer = Buffer::new(room);
        let mut flags = 0;
        let given = [
            (request.call == Call::Suspend, flag::SUSPEND),
            (request.readonly, flag::READONLY),
            (request.noflush, flag::NOFLUSH),
            (request.nolockfs, flag::SKIP_LOCKFS),
            (request.inactive, flag::QUERY_INACTIVE),
            (request.table, flag::STATUS_TABLE),
            (request.deferred, flag::DEFERRED_REMOVE),
            (request.set_uuid, flag::UUID),
        ];
        given.iter().filter(|(given, _)| *given).for_each(|(_, flag)| flags |= flag);
        if let Some(minor) = request.minor {
            flags |= flag::PERSISTENT_DEV;
            buffer.put_u64(DEV, encode(self.major, minor));
        }
        buffer.put_u32(FLAGS, flags);
        buffer.put_u32(EVENT, request.event);
        // One byte too long for the field is sent as it is, without an end: so do tools.
        buffer.put_text(NAME, request.name.as_deref().unwrap_or_default(), 128);
        buffer.put_text(UUID, request.uuid.as_deref().unwrap_or_default(), 129);
        let mut at = HEADER;
        match request.call {
            Call::Load => {
                buffer.put_u32(TARGET_COUNT, request.lines.len() as u32);
                for line in &request.lines {
                    let next = (SPEC + line.params.len() + 1).next_multiple_of(8);
                    buffer.put_u64(at, line.start);
                    buffer.put_u64(at + 8, line.length);
                    buffer.put_u32(at + 20, next as u32);
                    buffer.put_text(at + 24, &line.kind, 15);
                    buffer.put_text(at + SPEC, &line.params, line.params.len());
                    at += next;
                }
            }
            Call::Message => {
                buffer.put_u64(at, request.sector);
                buffer.put_text(at + 8, &request.text, request.text.len());
            }
            Call::Rename | Call::Geometry => {
                buffer.put_text(at, &request.text, request.text.len());
            }
            _ => {}
        }
        buffer
    }
}

/// A device number as the requests have it.
fn encode(major: u32, minor: u32) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

fn decode(dev: u64) -> (u32, u32) {
    ((dev >> 8 & 0xfff) as u32, (dev & 0xff | dev >> 12 & 0xf_ff00) as u32)
}

/// `struct dm_ioctl` and what follows it.
struct Buffer(Vec<u8>);

impl Buffer {
    fn new(room: usize) -> Buffer {
        let size = HEADER + room;
        let mut buffer = Buffer(vec![0; size]);
        (0..).step_by(4).zip(VERSION).for_each(|(at, number)| buffer.put_u32(at, number));
        buffer.put_u32(DATA_SIZE, size as u32);
        buffer.put_u32(DATA_START, HEADER as u32);
        buffer
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_u32(&mut self, at: usize, number: u32) {
        self.put(at, &number.to_le_bytes());
    }

    fn put_u64(&mut self, at: usize, number: u64) {
        self.put(at, &number.to_le_bytes());
    }

    /// Stores a text, as much of it as there is room for.
    fn put_text(&mut self, at: usize, text: &str, room: usize) {
        let bytes = text.as_bytes();
        self.put(at, &bytes[..bytes.len().min(room)]);
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }

    fn text(&self, at: usize, room: usize) -> String {
        let bytes = &self.0[at..self.0.len().min(at + room)];
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    fn data_start(&self) -> usize {
        self.u32(DATA_START) as usize
    }

    fn reply(&self, request: &Request) -> Reply {
        let flags = self.u32(FLAGS);
        let has = |flag| flags & flag != 0;
        let mut reply = Reply {
            // Linux answers ENXIO about devices that do not exist.
            exists: true,
            suspended: has(flag::SUSPEND),
            readonly: has(flag::READONLY),
            live: has(flag::ACTIVE),
            inactive: has(flag::INACTIVE),
            deferred: has(flag::DEFERRED_REMOVE),
            open: self.u32(OPEN_COUNT).into(),
            event: self.u32(EVENT).into(),
            targets: self.u32(TARGET_COUNT).into(),
            minor: decode(self.u64(DEV)).1,
            name: self.text(NAME, 128),
            uuid: self.text(UUID, 129),
            ..Reply::default()
        };
        let start = self.data_start();
        match request.call {
            Call::Status | Call::Wait => {
                let mut at = start;
                for _ in 0..reply.targets {
                    reply.lines.push(Line {
                        start: self.u64(at),
                        length: self.u64(at + 8),
                        kind: self.text(at + 24, 16),
                        params: self.text(at + SPEC, usize::MAX - at - SPEC),
                    });
                    // Counted from the first line, and from there on.
                    at = start + self.u32(at + 20) as usize;
                }
            }
            Call::Deps => {
                let count = self.u32(start) as usize;
                reply.deps = (0..count).map(|n| decode(self.u64(start + 8 + 8 * n))).collect();
            }
            Call::Names if self.u64(start) != 0 => {
                let mut at = start;
                loop {
                    let minor = decode(self.u64(at)).1;
                    reply.names.push((self.text(at + 12, 128), minor));
                    match self.u32(at + 8) {
                        0 => break,
                        next => at += next as usize,
                    }
                }
            }
            Call::Message if has(flag::DATA_OUT) => {
                reply.text = Some(self.text(start, usize::MAX - start));
            }
            _ => {}
        }
        reply
    }
}

/// The number of a device's node.
///
/// # Errors
/// The file's; EINVAL in words if it is no block device.
pub fn block_number(path: &str) -> io::Result<(u32, u32)> {
    let data = std::fs::metadata(path)?;
    if !data.file_type().is_block_device() {
        return Err(io::Error::other(format!("{path} is no block device")));
    }
    Ok(raw::device_number(data.rdev()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_there_and_back() {
        for (major, minor) in [(253, 0), (7, 255), (253, 256), (259, 1_048_575)] {
            assert_eq!(decode(encode(major, minor)), (major, minor));
        }
        assert_eq!(encode(253, 0x12345), 0x1230_fd45);
    }

    #[test]
    fn texts_are_cut_to_their_field() {
        let mut buffer = Buffer::new(0);
        buffer.put_text(NAME, &"x".repeat(200), 128);
        assert_eq!(buffer.text(NAME, 128).len(), 128);
        assert_eq!(buffer.u32(UUID), 0);
    }
}
