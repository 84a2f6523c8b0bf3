// SPDX-License-Identifier: BSD-2-Clause

//! The payload as lines of a device-mapper table.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use crate::error::damaged;
use crate::header::{Header, Segment};
use crate::{Error, SECTOR, VolumeKey, cipher};

/// A line of the table: a range of the device, and where its data are. Sectors have 512 bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The first sector of the device.
    pub start: u64,
    /// Sectors.
    pub length: u64,
    /// The cipher, as the target crypt spells it.
    pub cipher: String,
    /// The number that the IV of its first sector has.
    pub iv_offset: u64,
    /// The first sector on the disk.
    pub offset: u64,
    /// Bytes in a sector that is encrypted as one.
    pub sector_bytes: u32,
}

impl Line {
    /// The line with its key, as `dmsetup` takes it; `device` is what the table shall call the disk, and
    /// `options` are the target's own, such as `allow_discards`.
    pub fn text(&self, key: &VolumeKey, device: &str, options: &[&str]) -> Zeroizing<String> {
        let (start, length) = (self.start, self.length);
        // Whole from the start: a text that grows leaves parts of it behind.
        let room = 256 + self.cipher.len() + device.len() + key.expose().len() * 2;
        let room = room + options.iter().map(|option| option.len() + 1).sum::<usize>();
        let mut text = Zeroizing::new(String::with_capacity(room));
        let _ = write!(text, "{start} {length} crypt {} ", self.cipher);
        key.expose().iter().for_each(|byte| {
            let _ = write!(text, "{byte:02x}");
        });
        let _ = write!(text, " {} {device} {}", self.iv_offset, self.offset);
        let large = self.sector_bytes > 512;
        let count = options.len() + usize::from(large);
        if count > 0 {
            let _ = write!(text, " {count}");
        }
        options.iter().for_each(|option| {
            let _ = write!(text, " {option}");
        });
        if large {
            let _ = write!(text, " sector_size:{}", self.sector_bytes);
        }
        text
    }
}

impl Header {
    /// The lines that map a disk of `disk_bytes`. What is left at its end beyond whole sectors is not
    /// mapped.
    ///
    /// # Errors
    /// [`Error::Unsupported`]: data that are authenticated, about to be encrypted anew, or not encrypted;
    /// [`Error::Damaged`]: segments that make no sense on a disk of that size.
    pub fn payload(&self, disk_bytes: u64) -> Result<Vec<Line>, Error> {
        if !self.requirements.is_empty() {
            let what = self.requirements.iter().map(|name| format!("{name:?}"));
            let what = what.collect::<Vec<_>>().join(", ");
            return Err(Error::Unsupported(format!("a disk that requires {what}")));
        }
        let segments: Vec<&Segment> =
            self.segments.iter().filter(|segment| !is_backup(segment)).collect();
        if segments.is_empty() {
            return damaged("it has no segment");
        }
        let mut lines = Vec::new();
        let mut start: u64 = 0;
        let count = segments.len();
        for (at, segment) in segments.into_iter().enumerate() {
            if segment.bytes.is_none() && at + 1 < count {
                return damaged(format!("segment {} goes to the end, and is not the last", at));
            }
            let line = line(segment, start, disk_bytes)?;
            start = match start.checked_add(line.length) {
                Some(start) => start,
                None => return damaged("it has more sectors than there can be"),
            };
            lines.push(line);
        }
        Ok(lines)
    }
}

/// `true` for a segment that a reencryption in progress keeps as a backup, and that is not mapped.
fn is_backup(segment: &Segment) -> bool {
    segment.flags.iter().any(|flag| flag.starts_with("backup-"))
}

fn line(segment: &Segment, start: u64, disk_bytes: u64) -> Result<Line, Error> {
    let number = segment.number;
    let unsupported = |what: String| Err(Error::Unsupported(format!("segment {number}: {what}")));
    if segment.kind != "crypt" {
        return unsupported(format!("its type is {:?}", segment.kind));
    }
    if let Some(kind) = &segment.integrity {
        return unsupported(format!("its data are authenticated, by {kind:?}"));
    }
    if segment.flags.iter().any(|flag| flag == "in-reencryption") {
        return unsupported("it is being encrypted anew".into());
    }
    if cipher::is_null(&segment.cipher) {
        // Its owner thinks it is encrypted; whoever made the header may have others in mind.
        return unsupported("it is not encrypted".into());
    }
    if segment.cipher.is_empty() || !segment.cipher.bytes().all(|b| b.is_ascii_graphic()) {
        return unsupported(format!("the cipher {:?}", segment.cipher));
    }
    let sector = u64::from(segment.sector_bytes);
    if !sector.is_power_of_two() || !(512..=4096).contains(&sector) {
        return damaged(format!("segment {number}: sectors of {sector} bytes"));
    }
    if !segment.offset.is_multiple_of(SECTOR) || !segment.iv_offset.is_multiple_of(sector / SECTOR)
    {
        return damaged(format!("segment {number} does not begin with a sector"));
    }
    let Some(room) = disk_bytes.checked_sub(segment.offset) else {
        return damaged(format!("segment {number} begins beyond the end of the disk"));
    };
    let bytes = match segment.bytes {
        None => room - room % sector,
        Some(bytes) if bytes > room => {
            return damaged(format!("segment {number} goes on beyond the end of the disk"));
        }
        Some(bytes) if !bytes.is_multiple_of(sector) => {
            return damaged(format!("segment {number} does not end with a sector"));
        }
        Some(bytes) => bytes,
    };
    if bytes == 0 {
        return damaged(format!("segment {number} has no sector on this disk"));
    }
    Ok(Line {
        start,
        length: bytes / SECTOR,
        cipher: segment.cipher.clone(),
        iv_offset: segment.iv_offset,
        offset: segment.offset / SECTOR,
        sector_bytes: segment.sector_bytes,
    })
}
