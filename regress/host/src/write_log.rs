// SPDX-License-Identifier: BSD-2-Clause

//! Logs of writes, as the target log-writes, Linux's of the same name and QEMU's driver `blklogwrites`
//! write them, read from a file or a block device. `sys/dev/dm/targets/log_writes/format.rs` has the form.
//!
//! A log may hold anything: every number in it is checked before it is relied on, and no memory is taken
//! by its word.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

/// The magic number at the start of a log.
const MAGIC: u64 = 0x006a_7366_7773_6872;

/// The one version there is.
const VERSION: u64 = 1;

/// Bytes of the superblock that have a meaning.
const SUPER: usize = 28;

/// Bytes of an entry before a mark's text.
const HEADER: usize = 32;

/// Bytes in a sector of a log: QEMU's are the largest.
const SECTORS: std::ops::RangeInclusive<u64> = 512..=8 << 20;

/// The longest text of a mark that is read: as much as fits into a sector of 64 KiB, the largest that a
/// kernel has.
const LONGEST_MARK: u64 = 65_536 - HEADER as u64;

/// Bytes that are copied at once.
const CHUNK: u64 = 256 << 10;

/// The flags of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u64);

impl Flags {
    /// A flush: earlier entries are durable.
    pub const FLUSH: Flags = Flags(1);
    /// A write that survives by itself.
    pub const FUA: Flags = Flags(2);
    /// A discard: a length, and no data.
    pub const DISCARD: Flags = Flags(4);
    /// A place in the log with a name.
    pub const MARK: Flags = Flags(8);
    /// A write of a file system's metadata. Only Linux tells.
    pub const METADATA: Flags = Flags(16);

    /// All known flags, with their words.
    pub const ALL: [(Flags, &str); 5] = [
        (Flags::FLUSH, "flush"),
        (Flags::FUA, "fua"),
        (Flags::DISCARD, "discard"),
        (Flags::MARK, "mark"),
        (Flags::METADATA, "metadata"),
    ];

    /// `true` if all flags of `other` are set.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    fn unknown(self) -> u64 {
        Flags::ALL.iter().fold(self.0, |left, (flag, _)| left & !flag.0)
    }
}

/// An entry of a log. Places are in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The number of the entry, from 1.
    pub number: u64,
    /// The first byte of the device that was written.
    pub start: u64,
    /// The number of bytes that were written or discarded.
    pub length: u64,
    /// The kind of the entry.
    pub flags: Flags,
    /// A mark's text; empty for all others.
    pub text: Vec<u8>,
    /// The byte of the log where the entry's data begin.
    data: u64,
}

impl Entry {
    /// `true` if the entry is a write: data follow it in the log.
    pub fn is_write(&self) -> bool {
        self.length > 0 && !self.flags.has(Flags::DISCARD)
    }

    /// `true` if it is the mark of this name.
    pub fn is_mark(&self, name: &[u8]) -> bool {
        self.flags.has(Flags::MARK) && self.text == name
    }

    /// The byte behind the last that it changes; 0 if it changes none.
    pub fn end(&self) -> u64 {
        // The sum was checked when it was read.
        if self.length == 0 { 0 } else { self.start.saturating_add(self.length) }
    }
}

/// Why a log cannot be read, or copied from.
#[derive(Debug)]
pub enum Wrong {
    /// The file cannot be read, or the receiver of the data failed.
    Io(io::Error),
    /// The log is malformed.
    Form(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Io(error) => error.fmt(f),
            Wrong::Form(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Wrong {}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Wrong {
        Wrong::Io(error)
    }
}

/// A log that is being read, entry by entry.
pub struct Log<F> {
    file: F,
    /// Bytes of the file.
    bytes: u64,
    /// Bytes in a sector of the log.
    sector: u64,
    entries: u64,
    /// The number of entries that have been read.
    read: u64,
    /// The byte where the next entry begins.
    at: u64,
}

/// The number at a place, of up to 8 bytes. The place lies in the bytes that the caller has read.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    let found = bytes.get(at..).unwrap_or_default();
    number.iter_mut().zip(found.iter().take(N)).for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(number)
}

impl<F: Read + Seek> Log<F> {
    /// Reads the superblock.
    ///
    /// # Errors
    /// Those of reading; a file that is no log, or one of another version.
    pub fn open(mut file: F) -> Result<Log<F>, Wrong> {
        let bytes = file.seek(SeekFrom::End(0))?;
        let mut head = [0; SUPER];
        if bytes >= SUPER as u64 {
            file.seek(SeekFrom::Start(0))?;
            file.read_exact(&mut head)?;
        }
        if number::<8>(&head, 0) != MAGIC {
            return Err(Wrong::Form("it is no log of writes: it does not begin as one".into()));
        }
        let (version, entries) = (number::<8>(&head, 8), number::<8>(&head, 16));
        let sector = number::<4>(&head, 24);
        if version != VERSION {
            return Err(Wrong::Form(format!("the log has version {version}, not {VERSION}")));
        }
        if !sector.is_power_of_two() || !SECTORS.contains(&sector) {
            return Err(Wrong::Form(format!("the log's sectors have {sector} bytes")));
        }
        let most = (bytes / sector).saturating_sub(1);
        if entries > most {
            return Err(Wrong::Form(format!(
                "the log counts {entries} entries, and has room for {most}"
            )));
        }
        Ok(Log { file, bytes, sector, entries, read: 0, at: sector })
    }

    /// The number of entries that the log counts.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes in a sector of the log: those of the device that was logged.
    pub fn sector_size(&self) -> u64 {
        self.sector
    }

    /// Begins anew with the first entry.
    pub fn rewind(&mut self) {
        (self.read, self.at) = (0, self.sector);
    }

    /// The next entry; `None` after the last.
    ///
    /// # Errors
    /// Those of reading; an entry that is none, or reaches beyond the log's end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Wrong> {
        if self.read >= self.entries {
            return Ok(None);
        }
        let entry = self.entry(self.read + 1)?;
        let data = if entry.is_write() { entry.length } else { 0 };
        // Both sums were checked against the log's end.
        (self.read, self.at) = (entry.number, entry.data + data);
        Ok(Some(entry))
    }

    fn entry(&mut self, number_of_it: u64) -> Result<Entry, Wrong> {
        let wrong = |why: &str| Wrong::Form(format!("entry {number_of_it} {why}"));
        let data = self.at.checked_add(self.sector).filter(|data| *data <= self.bytes);
        let data = data.ok_or_else(|| wrong("lies beyond the end of the log"))?;
        let mut head = [0; HEADER];
        self.file.seek(SeekFrom::Start(self.at))?;
        self.file.read_exact(&mut head)?;
        let [start, sectors, flags, text] = [0, 8, 16, 24].map(|at| number::<8>(&head, at));
        let flags = Flags(flags);
        if flags.unknown() != 0 {
            return Err(wrong(&format!("has flags that are not known: {:#x}", flags.unknown())));
        }
        if flags == Flags(0) && sectors == 0 {
            return Err(wrong("is empty: nothing was written there"));
        }
        let bytes = |sectors: u64| sectors.checked_mul(self.sector);
        let (Some(start), Some(length)) = (bytes(start), bytes(sectors)) else {
            return Err(wrong("reaches beyond what a disk can have"));
        };
        if start.checked_add(length).is_none_or(|end| end > i64::MAX as u64) {
            return Err(wrong("reaches beyond what a disk can have"));
        }
        let mut entry =
            Entry { number: number_of_it, start, length, flags, text: Vec::new(), data };
        if entry.is_write() && data.checked_add(length).is_none_or(|end| end > self.bytes) {
            return Err(wrong("has data beyond the end of the log"));
        }
        if flags.has(Flags::MARK) {
            if text > LONGEST_MARK.min(self.sector - HEADER as u64) {
                return Err(wrong("is a mark whose text is longer than there is room"));
            }
            entry.text.resize(text as usize, 0);
            self.file.read_exact(&mut entry.text)?;
        }
        Ok(entry)
    }

    /// Gives a write's data away, chunk by chunk, each with its first byte on the device.
    ///
    /// # Errors
    /// Those of reading, and those of `take`.
    pub fn data(
        &mut self,
        entry: &Entry,
        mut take: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), Wrong> {
        let length = if entry.is_write() { entry.length } else { 0 };
        let mut chunk = vec![0; length.min(CHUNK) as usize];
        self.file.seek(SeekFrom::Start(entry.data))?;
        let mut done = 0;
        while done < length {
            let some = (length - done).min(CHUNK) as usize;
            let chunk = chunk.get_mut(..some).unwrap_or_default();
            self.file.read_exact(chunk)?;
            take(entry.start + done, chunk)?;
            done += some as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
