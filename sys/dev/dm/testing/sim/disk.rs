// SPDX-License-Identifier: BSD-2-Clause

//! A disk with a write cache that can lose power.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use super::rng::Rng;
use crate::Errno;

/// Bytes in a sector.
pub const SECTOR: usize = 512;

/// The kind of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Read sectors.
    Read,
    /// Write sectors.
    Write {
        /// `true` if the sectors must be on the medium before the answer (FUA).
        fua: bool,
    },
    /// Bring onto the medium all writes that were answered before.
    Flush,
    /// Discard sectors.
    Discard,
}

/// A command in flight. It takes effect at some moment between [`Disk::begin`] and
/// [`Disk::finish`].
#[derive(Debug)]
pub struct Transfer {
    /// The kind of the command.
    pub command: Command,
    /// The first sector.
    pub sector: u64,
    /// The number of sectors.
    pub length: u64,
    /// The data to be written, or that was read.
    pub data: Vec<u8>,
    /// `true` if the command has taken effect already.
    early: bool,
    /// For a flush, the number of the last write that it covers.
    covers: u64,
}

/// The faults of a disk, by chance or for good.
#[derive(Clone, Default, Debug)]
pub struct Faults {
    /// Reads of 1,000 that fail.
    pub read: u64,
    /// Writes of 1,000 that fail; some of their sectors may be written all the same.
    pub write: u64,
    /// Flushes of 1,000 that fail.
    pub flush: u64,
    /// `true` if a flush that fails loses writes that it was to bring onto the medium: each by
    /// chance. They are read as long as there is power, and no later flush brings them there.
    pub drops: bool,
    /// `true` if discards are refused (EOPNOTSUPP).
    pub no_discard: bool,
    /// Sectors whose reads fail.
    pub bad: BTreeSet<u64>,
    /// `true` if every command fails.
    pub dead: bool,
    /// `true` if the next read gives one byte that is not the disk's: it is wrong once, or another
    /// thread has changed the memory that it was read into.
    pub wrong_once: bool,
    /// `true` if flushes are acknowledged without being done: a bug that the game's checks must
    /// find.
    pub lies: bool,
}

/// The number of commands that a disk was given, by kind.
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
    /// The number of all commands.
    pub fn all(&self) -> u64 {
        self.reads + self.writes + self.flushes + self.discards
    }

    /// Adds the counts of another disk.
    pub fn add(&mut self, other: &Counts) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.fua += other.fua;
        self.flushes += other.flushes;
        self.discards += other.discards;
        self.failed += other.failed;
    }
}

/// A write that is in the disk's cache, and not known to be on the medium.
#[derive(Clone, Debug)]
struct Cached {
    number: u64,
    sector: u64,
    data: Vec<u8>,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Bytes of a physical sector, which is written wholly or not at all: 512 or 4,096.
    pub sector_size: u32,
    /// `true` if a write with FUA is on the medium when it is answered, as it must be.
    pub keeps_fua: bool,
    /// The disk's faults.
    pub faults: Faults,
    /// The commands so far.
    pub counts: Counts,
    /// `true` from a power cut to [`Disk::power_up`]: no command works.
    pub(super) off: bool,
    /// The content that reads give.
    seen: Vec<u8>,
    /// The content that is on the medium for certain.
    medium: Vec<u8>,
    /// For each sector, the number of the last write that is on the medium.
    on_medium: Vec<u64>,
    /// Writes that have taken effect and are not known to be on the medium, by number.
    cached: Vec<Cached>,
    /// The number of the last write.
    last: u64,
}

impl Disk {
    /// A disk of `sectors` sectors that hold zeroes.
    pub fn new(sectors: u64) -> Disk {
        Disk::with(vec![0; sectors as usize * SECTOR])
    }

    /// A disk that holds `content`.
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

    /// A disk of `sectors` sectors with random content that no write of the game has.
    pub fn junk(sectors: u64, rng: &mut Rng) -> Disk {
        let mut disk = Disk::new(sectors);
        for sector in disk.seen.chunks_exact_mut(SECTOR) {
            // No write of the game has this value: see `Value`.
            let word = (rng.bits() | 1 << 63).to_le_bytes();
            sector.as_chunks_mut::<8>().0.fill(word);
        }
        disk.medium.copy_from_slice(&disk.seen);
        disk
    }

    /// The number of sectors.
    pub fn sectors(&self) -> u64 {
        self.on_medium.len() as u64
    }

    /// The content that a read of these sectors gives now.
    pub fn content(&self, sector: u64, length: u64) -> &[u8] {
        &self.seen[range(sector, length)]
    }

    /// Puts content on the medium directly, for a game that plants damage.
    pub fn set(&mut self, sector: u64, content: &[u8]) {
        let length = (content.len() / SECTOR) as u64;
        self.last += 1;
        self.seen[range(sector, length)].copy_from_slice(content);
        self.medium[range(sector, length)].copy_from_slice(content);
        self.on_medium[sector as usize..(sector + length) as usize].fill(self.last);
    }

    /// `true` if the sectors are on the disk, and whole physical sectors.
    pub fn takes(&self, sector: u64, length: u64) -> bool {
        let own = u64::from(self.sector_size) / SECTOR as u64;
        let end = sector.checked_add(length);
        end.is_some_and(|end| end <= self.sectors()) && (sector | length).is_multiple_of(own)
    }

    /// Begins a command. `data` is a write's.
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
    /// EIO, or EOPNOTSUPP for a discard, as [`Faults`] say.
    pub fn finish(&mut self, transfer: &mut Transfer, rng: &mut Rng) -> Result<(), Errno> {
        if let Some(errno) = self.fails(transfer, rng) {
            self.counts.failed += u64::from(!self.off);
            if transfer.command != Command::Read && !transfer.early && self.works() {
                self.take_part_effect(transfer, rng);
            }
            if transfer.command == Command::Flush && self.faults.drops {
                let covers = transfer.covers;
                self.cached.retain(|cached| cached.number > covers || rng.chance(1, 2));
            }
            return Err(errno);
        }
        if !transfer.early {
            self.take_effect(transfer, rng);
        }
        match transfer.command {
            Command::Read if self.faults.wrong_once => {
                self.faults.wrong_once = false;
                let at = rng.index(transfer.data.len());
                transfer.data[at] ^= 1;
            }
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
                // A write with FUA covers only itself.
                transfer.covers = number;
            }
            // A discarded sector reads as zeroes or as before, or as older content.
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

    /// Writes some of the sectors of a command that fails.
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

    /// Brings the cached writes that `which` names onto the medium.
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

    /// The content of the medium after a power cut. Each write that is not known to be there, those
    /// in flight included, may have reached it, in whole or in part, in any order of sectors.
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
        // Of the 8 pieces of a write, none, all or some arrive.
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

    /// Brings the disk up again, with `medium` as its content and an empty cache.
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
