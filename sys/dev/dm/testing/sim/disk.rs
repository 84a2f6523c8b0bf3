// SPDX-License-Identifier: BSD-2-Clause

//! A disk with a write cache that can lose power.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use super::rng::Rng;
use crate::Errno;

/// Bytes in a sector.
pub const SECTOR: usize = 512;

/// What a disk is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Read sectors.
    Read,
    /// Write sectors; with `fua` onto the medium itself.
    Write {
        /// `true` if what is written is to be on the medium before the answer.
        fua: bool,
    },
    /// Bring onto the medium what was written before.
    Flush,
    /// Forget what sectors hold.
    Discard,
}

/// A command under way. Its effect falls at some moment between [`Disk::begin`] and
/// [`Disk::finish`].
#[derive(Debug)]
pub struct Transfer {
    /// What is to be done.
    pub command: Command,
    /// The first sector.
    pub sector: u64,
    /// How many sectors.
    pub length: u64,
    /// What is to be written, or what was read.
    pub data: Vec<u8>,
    /// The effect has fallen already.
    early: bool,
    /// A flush covers the writes up to this one.
    covers: u64,
}

/// What goes wrong with a disk, by chance or for good.
#[derive(Clone, Default, Debug)]
pub struct Faults {
    /// Of 1,000 reads, how many fail.
    pub read: u64,
    /// Of 1,000 writes, how many fail; some of their sectors may be written then.
    pub write: u64,
    /// Of 1,000 flushes, how many fail.
    pub flush: u64,
    /// `true` if discards are not taken (EOPNOTSUPP).
    pub no_discard: bool,
    /// Sectors whose reads fail.
    pub bad: BTreeSet<u64>,
    /// `true` if nothing works any more.
    pub dead: bool,
    /// `true` if a flush is acknowledged without being done: what a check of ours must find.
    pub lies: bool,
}

/// How many commands a disk has seen.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Writes, those with FUA included.
    pub writes: u64,
    /// Writes with FUA.
    pub fua: u64,
    /// Flushes.
    pub flushes: u64,
    /// Discards.
    pub discards: u64,
    /// Commands that failed because of [`Faults`].
    pub failed: u64,
}

impl Counts {
    /// All commands.
    pub fn all(&self) -> u64 {
        self.reads + self.writes + self.flushes + self.discards
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Counts) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.fua += other.fua;
        self.flushes += other.flushes;
        self.discards += other.discards;
        self.failed += other.failed;
    }
}

/// A write that is in the cache, and not known to be on the medium.
#[derive(Clone, Debug)]
struct Cached {
    number: u64,
    sector: u64,
    data: Vec<u8>,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Bytes that are written together or not at all: 512 or 4096.
    pub sector_size: u32,
    /// `true` if a write with FUA is on the medium when it is answered.
    pub keeps_fua: bool,
    /// What goes wrong.
    pub faults: Faults,
    /// What was done.
    pub counts: Counts,
    /// `true` after the power was cut, until it comes up again: nothing works.
    pub(super) off: bool,
    /// What a read gives.
    seen: Vec<u8>,
    /// What is on the medium for certain.
    medium: Vec<u8>,
    /// For each sector, the last write that is on the medium.
    on_medium: Vec<u64>,
    /// Writes that have taken effect, by number.
    cached: Vec<Cached>,
    /// The last write's number.
    last: u64,
}

impl Disk {
    /// A disk of so many sectors, all zeroes.
    pub fn new(sectors: u64) -> Disk {
        Disk::with(vec![0; sectors as usize * SECTOR])
    }

    /// A disk that holds this.
    pub fn with(content: Vec<u8>) -> Disk {
        let sectors = content.len() / SECTOR;
        Disk {
            sector_size: SECTOR as u32,
            keeps_fua: true,
            faults: Faults::default(),
            counts: Counts::default(),
            off: false,
            seen: content.clone(),
            medium: content,
            on_medium: vec![0; sectors],
            cached: Vec::new(),
            last: 0,
        }
    }

    /// A disk that holds something that nobody wrote: each sector something else.
    pub fn junk(sectors: u64, rng: &mut Rng) -> Disk {
        let mut disk = Disk::new(sectors);
        for sector in disk.seen.chunks_exact_mut(SECTOR) {
            // Not the value of any write: see `Value`.
            let word = (rng.bits() | 1 << 63).to_le_bytes();
            sector.as_chunks_mut::<8>().0.fill(word);
        }
        disk.medium.copy_from_slice(&disk.seen);
        disk
    }

    /// How many sectors it has.
    pub fn sectors(&self) -> u64 {
        self.on_medium.len() as u64
    }

    /// What a read of these sectors gives now.
    pub fn content(&self, sector: u64, length: u64) -> &[u8] {
        &self.seen[range(sector, length)]
    }

    /// Puts content on the medium, past all commands, as a game does that plants damage.
    pub fn set(&mut self, sector: u64, content: &[u8]) {
        let length = (content.len() / SECTOR) as u64;
        self.last += 1;
        self.seen[range(sector, length)].copy_from_slice(content);
        self.medium[range(sector, length)].copy_from_slice(content);
        self.on_medium[sector as usize..(sector + length) as usize].fill(self.last);
    }

    /// `true` if the sectors are on the disk and whole ones of its own.
    pub fn takes(&self, sector: u64, length: u64) -> bool {
        let own = u64::from(self.sector_size) / SECTOR as u64;
        let end = sector.checked_add(length);
        end.is_some_and(|end| end <= self.sectors()) && (sector | length).is_multiple_of(own)
    }

    /// Begins a command. A write's data comes with it.
    pub fn begin(
        &mut self,
        command: Command,
        (sector, length): (u64, u64),
        data: Vec<u8>,
        rng: &mut Rng,
    ) -> Transfer {
        let counts = &mut self.counts;
        match command {
            Command::Read => counts.reads += 1,
            Command::Write { fua } => {
                counts.writes += 1;
                counts.fua += u64::from(fua);
            }
            Command::Flush => counts.flushes += 1,
            Command::Discard => counts.discards += 1,
        }
        let covers = self.last;
        let mut transfer = Transfer { command, sector, length, data, early: false, covers };
        let early = matches!(command, Command::Read | Command::Write { .. }) && rng.chance(1, 4);
        if early && self.works() {
            self.take_effect(&mut transfer, rng);
            transfer.early = true;
        }
        transfer
    }

    /// Ends a command.
    ///
    /// # Errors
    /// As [`Faults`] say.
    pub fn finish(&mut self, transfer: &mut Transfer, rng: &mut Rng) -> Result<(), Errno> {
        if let Some(errno) = self.fails(transfer, rng) {
            self.counts.failed += u64::from(!self.off);
            if transfer.command != Command::Read && !transfer.early && self.works() {
                self.take_part_effect(transfer, rng);
            }
            return Err(errno);
        }
        if !transfer.early {
            self.take_effect(transfer, rng);
        }
        match transfer.command {
            Command::Write { fua: true } if self.keeps_fua && !self.faults.lies => {
                let number = transfer.covers;
                self.bring(|cached| cached.number == number);
            }
            Command::Flush if !self.faults.lies => {
                let covers = transfer.covers;
                self.bring(|cached| cached.number <= covers);
            }
            _ => {}
        }
        Ok(())
    }

    fn works(&self) -> bool {
        !self.faults.dead && !self.off
    }

    fn fails(&self, transfer: &Transfer, rng: &mut Rng) -> Option<Errno> {
        let faults = &self.faults;
        if !self.works() {
            return Some(Errno::EIO);
        }
        let mut by_chance = |of_1000: u64| of_1000 > 0 && rng.chance(of_1000, 1000);
        let fails = match transfer.command {
            Command::Read => {
                let sectors = transfer.sector..transfer.sector + transfer.length;
                by_chance(faults.read) || faults.bad.range(sectors).next().is_some()
            }
            Command::Write { .. } => by_chance(faults.write),
            Command::Flush => by_chance(faults.flush),
            Command::Discard if faults.no_discard => return Some(Errno::EOPNOTSUPP),
            Command::Discard => by_chance(faults.write),
        };
        fails.then_some(Errno::EIO)
    }

    fn take_effect(&mut self, transfer: &mut Transfer, rng: &mut Rng) {
        let range = range(transfer.sector, transfer.length);
        match transfer.command {
            Command::Read => transfer.data = self.seen[range].to_vec(),
            Command::Write { .. } => {
                let number = self.write(transfer.sector, transfer.data.clone());
                // A write with FUA covers just itself.
                transfer.covers = number;
            }
            // Nothing, zeroes, or whatever was there before somebody wrote.
            Command::Discard => {
                let data = match rng.below(3) {
                    0 => return,
                    1 => vec![0; range.len()],
                    _ => self.medium[range].to_vec(),
                };
                self.write(transfer.sector, data);
            }
            Command::Flush => {}
        }
    }

    /// Some of a failed command's sectors may have changed.
    fn take_part_effect(&mut self, transfer: &Transfer, rng: &mut Rng) {
        let own = self.sector_size as usize;
        let all = rng.chance(1, 4);
        for (at, data) in transfer.data.chunks(own).enumerate() {
            if all || rng.chance(1, 2) {
                self.write(transfer.sector + (at * own / SECTOR) as u64, data.to_vec());
            }
        }
    }

    fn write(&mut self, sector: u64, data: Vec<u8>) -> u64 {
        self.last += 1;
        let length = (data.len() / SECTOR) as u64;
        self.seen[range(sector, length)].copy_from_slice(&data);
        self.cached.push(Cached { number: self.last, sector, data });
        self.last
    }

    /// Brings writes onto the medium.
    fn bring(&mut self, which: impl Fn(&Cached) -> bool) {
        for cached in &self.cached {
            if !which(cached) {
                continue;
            }
            for (sector, data) in (cached.sector..).zip(cached.data.chunks_exact(SECTOR)) {
                let on_medium = &mut self.on_medium[sector as usize];
                if *on_medium < cached.number {
                    *on_medium = cached.number;
                    self.medium[range(sector, 1)].copy_from_slice(data);
                }
            }
        }
        self.cached.retain(|cached| !which(cached));
    }

    /// Cuts the power: what the medium holds afterwards. Each write that is not known to be there,
    /// those under way included, may have reached it, in whole or in part, in any order of sectors.
    pub fn after_power_cut<'a>(
        &self,
        under_way: impl Iterator<Item = &'a Transfer>,
        rng: &mut Rng,
    ) -> Vec<u8> {
        let mut medium = self.medium.clone();
        let begun = under_way.filter(|transfer| {
            !transfer.early && self.works() && matches!(transfer.command, Command::Write { .. })
        });
        let begun = begun.map(|transfer| (u64::MAX, transfer.sector, &transfer.data));
        let cached = self.cached.iter().map(|c| (c.number, c.sector, &c.data));
        let own = self.sector_size as usize;
        // Of 8 pieces, how many get there: none at all, every one, or some.
        let kind = rng.below(4);
        for (number, sector, data) in cached.chain(begun) {
            let keeps = match kind {
                0 => 0,
                1 => 8,
                // Whole writes or nothing, or torn.
                2 => *rng.pick(&[0, 0, 8, 4]),
                _ => rng.below(9),
            };
            for (at, piece) in data.chunks(own).enumerate() {
                let first = sector + (at * own / SECTOR) as u64;
                if self.on_medium[first as usize] < number && rng.below(8) < keeps {
                    let length = (piece.len() / SECTOR) as u64;
                    medium[range(first, length)].copy_from_slice(piece);
                }
            }
        }
        medium
    }

    /// Comes up again with this on the medium and nothing in the cache.
    pub fn power_up(&mut self, medium: Vec<u8>) {
        self.seen.clone_from(&medium);
        self.medium = medium;
        self.cached.clear();
        self.last = 0;
        self.on_medium.fill(0);
        self.off = false;
    }
}

fn range(sector: u64, length: u64) -> core::ops::Range<usize> {
    sector as usize * SECTOR..(sector + length) as usize * SECTOR
}
