// SPDX-License-Identifier: BSD-2-Clause

//! The log's form on disk, which is Linux's and QEMU's (`blklogwrites`). All numbers are
//! little-endian.
//!
//! The first sector is the superblock: magic, version (1) and number of entries, 64 bits each, and
//! the bytes in a sector of the log, 32 bits. Each entry is a sector with four numbers of 64 bits
//! (the first sector that was written, how many, flags, bytes of a mark's text) and the text,
//! followed by the data. Places and lengths count in sectors of the log's size.

/// The magic that the superblock begins with.
const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;

/// Bytes of an entry before a mark's text.
const HEADER: usize = 32;

/// The kinds of entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A write.
    Write,
    /// A flush: earlier entries are durable.
    Flush,
    /// A write that survives by itself.
    Fua,
    /// A discard: a length, and no data.
    Discard,
    /// A place in the log with a name.
    Mark,
}

impl Kind {
    const fn flags(self) -> u64 {
        match self {
            Kind::Write => 0,
            Kind::Flush => 1,
            Kind::Fua => 2,
            Kind::Discard => 4,
            Kind::Mark => 8,
        }
    }
}

/// An entry, in sectors of 512 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    kind: Kind,
    /// The first sector that was written.
    pub start: u64,
    /// The number of sectors.
    pub length: u64,
}

/// Bytes that a mark's text may have in a log of sectors of so many times 512 bytes; one more is 0.
pub fn text_bytes(unit: u64) -> usize {
    (unit as usize).saturating_mul(512).saturating_sub(HEADER).saturating_sub(1)
}

/// Puts a number at a place in a sector.
fn put(sector: &mut [u8], at: usize, bytes: &[u8]) {
    let end = at.saturating_add(bytes.len());
    if let Some(place) = sector.get_mut(at..end) {
        place.copy_from_slice(bytes);
    }
}

impl Entry {
    /// An entry.
    pub const fn new(kind: Kind, start: u64, length: u64) -> Entry {
        Entry { kind, start, length }
    }

    /// `true` if data follow it.
    pub fn has_data(&self) -> bool {
        matches!(self.kind, Kind::Write | Kind::Fua)
    }

    /// Writes its sector, of `unit` times 512 bytes.
    pub fn write(&self, sector: &mut [u8], text: &[u8], unit: u64) {
        sector.fill(0);
        let in_units = |n: u64| n.checked_div(unit).unwrap_or(0).to_le_bytes();
        put(sector, 0, &in_units(self.start));
        put(sector, 8, &in_units(self.length));
        put(sector, 16, &self.kind.flags().to_le_bytes());
        put(sector, 24, &(text.len() as u64).to_le_bytes());
        put(sector, HEADER, text);
    }
}

/// The superblock.
#[derive(Clone, Copy, Debug)]
pub struct Super {
    /// The number of entries.
    pub entries: u64,
    /// Bytes in a sector of the log.
    pub sector_size: u32,
}

impl Super {
    /// Writes its sector.
    pub fn write(&self, sector: &mut [u8]) {
        sector.fill(0);
        put(sector, 0, &MAGIC.to_le_bytes());
        put(sector, 8, &VERSION.to_le_bytes());
        put(sector, 16, &self.entries.to_le_bytes());
        put(sector, 24, &self.sector_size.to_le_bytes());
    }
}
