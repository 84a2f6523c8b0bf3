// SPDX-License-Identifier: BSD-2-Clause

//! A slow, obvious model of the contents that a device may show.
//!
//! For each sector the model keeps *versions*: contents that were written, with the moments at
//! which the write was begun and answered. A version is *superseded* by one whose write was begun
//! after its own was answered, and succeeded. The checks follow from that:
//!
//! - a read gives a version that was not superseded, before the read began, by a write that was
//!   answered by then;
//! - a power cut leaves a version that is not superseded by a *durable* one: one whose write was
//!   answered before a flush began that succeeded, or that was written with FUA.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::disk::SECTOR;

/// A sector's content. A sector that the game writes holds one number, repeated, which tells the
/// write and the sector; of other content this is a hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Value(u64);

impl Value {
    /// Unknown content.
    pub const ANY: Value = Value(u64::MAX);
    /// Zeroes.
    pub const ZERO: Value = Value(0);

    /// The content that write number `write` puts in a sector.
    pub const fn of(write: u64, sector: u64) -> Value {
        Value((write + 1) << 24 | sector)
    }

    /// The content of these 512 bytes.
    pub fn read(sector: &[u8]) -> Value {
        let words = sector.as_chunks::<8>().0;
        let first = words.first().map_or(0, |word| u64::from_le_bytes(*word));
        if words.iter().all(|word| u64::from_le_bytes(*word) == first) {
            return Value(first);
        }
        let mix = |hash: u64, word: &[u8; 8]| {
            (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        };
        Value(words.iter().fold(first, mix) | 1 << 63)
    }

    /// Fills 512 bytes with the content.
    pub fn fill(self, sector: &mut [u8]) {
        sector.as_chunks_mut::<8>().0.fill(self.0.to_le_bytes());
    }
}

impl core::fmt::Display for Value {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Value::ANY => f.write_str("anything"),
            Value::ZERO => f.write_str("zeroes"),
            Value(word) if word >> 63 == 0 && word >> 24 != 0 => {
                write!(f, "write {} of sector {}", (word >> 24) - 1, word & 0xff_ffff)
            }
            Value(word) => write!(f, "junk {word:016x}"),
        }
    }
}

/// A moment of a game: the count of events.
pub type Moment = u64;

/// The moment of what has not happened yet.
const NEVER: Moment = Moment::MAX;

/// One write to one sector.
#[derive(Clone, Debug)]
struct Version {
    value: Value,
    /// The moment at which the write was begun.
    from: Moment,
    /// The moment at which the write was answered.
    end: Moment,
    /// `true` if the write succeeded. A failed one may be there, until another supersedes it.
    ok: bool,
    durable: bool,
    /// `true` for one of the contents that a power cut may have left, or that were there at first.
    /// Once a read has given it, the sector holds it.
    left: bool,
}

/// The contents that one device may show.
#[derive(Clone, Debug)]
pub struct Model {
    cells: Vec<Vec<Version>>,
    /// Sectors that read as zeroes, whatever is written.
    zeroes: Vec<Range<u64>>,
    /// `true` if a sector whose content was uncertain after a power cut keeps the content that the
    /// first read gave.
    pub settles: bool,
    /// `true` if the device's content is unknown for good.
    pub lost: bool,
}

impl Model {
    /// A device of `sectors` sectors of unknown content.
    pub fn new(sectors: u64) -> Model {
        let cells = vec![vec![Version::left(Value::ANY, 0)]; sectors as usize];
        Model { cells, zeroes: Vec::new(), settles: true, lost: false }
    }

    /// Has these sectors read as zeroes, whatever is written.
    pub fn zeroes(&mut self, range: Range<u64>) {
        for (_, cell) in self.cells(range.start, range.end - range.start) {
            *cell = vec![Version::left(Value::ZERO, 0)];
        }
        self.zeroes.push(range);
    }

    /// Sets the device's content, from its first sector on.
    pub fn holds(&mut self, content: &[u8]) {
        let cells = self.cells.iter_mut();
        for (cell, sector) in cells.zip(content.chunks_exact(SECTOR)) {
            *cell = vec![Version::left(Value::read(sector), 0)];
        }
    }

    /// The number of the device's sectors.
    pub fn sectors(&self) -> u64 {
        self.cells.len() as u64
    }

    /// Gives the device another size. New sectors have unknown content.
    pub fn resize(&mut self, sectors: u64, now: Moment) {
        self.cells.resize(sectors as usize, vec![Version::left(Value::ANY, now)]);
    }

    /// Takes the content of these sectors for unknown.
    pub fn forget(&mut self, start: u64, length: u64, now: Moment) {
        for (_, cell) in self.cells(start, length) {
            *cell = vec![Version::left(Value::ANY, now)];
        }
    }

    fn cells(&mut self, start: u64, length: u64) -> impl Iterator<Item = (u64, &mut Vec<Version>)> {
        // The device may have shrunk meanwhile.
        let end = self.sectors().min(start + length);
        let start = start.min(end);
        (start..).zip(&mut self.cells[start as usize..end as usize])
    }

    /// Begins a write: `value` gives the content of each sector.
    pub fn begin(&mut self, start: u64, length: u64, now: Moment, value: impl Fn(u64) -> Value) {
        let zeroes = core::mem::take(&mut self.zeroes);
        for (sector, cell) in self.cells(start, length) {
            if zeroes.iter().any(|range| range.contains(&sector)) {
                continue;
            }
            let value = value(sector);
            let version = Version { from: now, end: NEVER, ok: false, ..Version::left(value, now) };
            cell.push(Version { durable: false, left: false, ..version });
        }
        self.zeroes = zeroes;
    }

    /// Ends the write that was begun at `from`. No read in flight began before `oldest`.
    pub fn end(
        &mut self,
        (start, length): (u64, u64),
        from: Moment,
        now: Moment,
        (ok, durable): (bool, bool),
        oldest: Moment,
    ) {
        for (_, cell) in self.cells(start, length) {
            for version in cell.iter_mut().filter(|v| v.from == from && v.end == NEVER) {
                version.end = now;
                // A discard that succeeded leaves anything, the old content included.
                version.ok = ok && version.value != Value::ANY;
                version.durable = durable;
            }
            prune(cell, oldest);
        }
    }

    /// Records a flush that was begun at `from` and succeeded. No read in flight began before
    /// `oldest`.
    pub fn flushed(&mut self, from: Moment, oldest: Moment) {
        for cell in &mut self.cells {
            for version in cell.iter_mut() {
                version.durable |= version.ok && version.end <= from;
            }
            prune(cell, oldest);
        }
    }

    /// Checks the data of a read that was begun at `from`.
    ///
    /// # Errors
    /// The first wrong sector, in words.
    pub fn read(&mut self, start: u64, from: Moment, data: &[u8]) -> Result<(), String> {
        if self.lost {
            return Ok(());
        }
        let settles = self.settles;
        let length = (data.len() / SECTOR) as u64;
        for ((sector, cell), data) in self.cells(start, length).zip(data.chunks_exact(SECTOR)) {
            let found = Value::read(data);
            let may = |v: &Version| !cell.iter().any(|y| y.end <= from && y.supersedes(v));
            let allowed: Vec<&Version> = cell.iter().filter(|v| may(v)).collect();
            if !allowed.iter().any(|v| v.value == found || v.value == Value::ANY) {
                let allowed: Vec<String> =
                    allowed.iter().map(|v| format!("{} ({})", v.value, v.life())).collect();
                return Err(format!(
                    "sector {sector} reads as {found}, not as {}",
                    allowed.join(" or ")
                ));
            }
            if settles && allowed.iter().all(|v| v.left) {
                *cell = vec![Version { value: found, ..allowed[0].clone() }];
            }
        }
        Ok(())
    }

    /// Cuts the power.
    pub fn crash(&mut self, now: Moment) {
        for cell in &mut self.cells {
            let stays = |v: &&Version| !cell.iter().any(|y| y.durable && y.supersedes(v));
            let mut left: Vec<Version> = Vec::new();
            for version in cell.iter().filter(stays) {
                // A discarded sector need not read the same twice.
                let settles = version.left || version.value != Value::ANY;
                match left.iter_mut().find(|v| v.value == version.value) {
                    Some(same) => same.left &= settles,
                    None => {
                        left.push(Version { left: settles, ..Version::left(version.value, now) });
                    }
                }
            }
            *cell = left;
        }
    }
}

impl Version {
    fn left(value: Value, now: Moment) -> Version {
        Version { value, from: now, end: now, ok: true, durable: true, left: true }
    }

    fn supersedes(&self, other: &Version) -> bool {
        self.ok && self.from > other.end
    }

    fn life(&self) -> String {
        let end = match (self.end, self.ok) {
            (NEVER, _) => "in flight".into(),
            (end, true) => format!("answered at {end}"),
            (end, false) => format!("failed at {end}"),
        };
        let durable = if self.durable { ", durable" } else { "" };
        format!("begun at {}, {end}{durable}", self.from)
    }
}

/// Forgets versions that neither a read nor a crash can show any more.
fn prune(cell: &mut Vec<Version>, oldest: Moment) {
    if cell.len() > 1 {
        let newest = cell.iter().filter(|y| y.ok && y.durable && y.end <= oldest).map(|y| y.from);
        if let Some(newest) = newest.max() {
            cell.retain(|v| v.end >= newest);
        }
    }
}

#[cfg(test)]
mod tests;
