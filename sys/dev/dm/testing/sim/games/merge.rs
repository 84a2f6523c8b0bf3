// SPDX-License-Identifier: BSD-2-Clause

//! Games of `snapshot-merge`, and of `snapshot` on the same store: the device shows the same with
//! either.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::snapshot::check;
use crate::testing::sim::{Disk, Game, Rng, SECTOR, World};

/// A game of merging: an origin on disk 0 and a store on disk 1, which the last device merges;
/// perhaps another snapshot, as device 0, with its store on disk 2.
pub struct Merge {
    sectors: u64,
    /// Sectors in a physical sector of the disks.
    unit: u64,
    chunk: u64,
    /// The other snapshot's chunk.
    other: u64,
    /// `true` if the store has its chunks in order, without gaps.
    dense: bool,
    /// The number of times that the table may be a snapshot's.
    fills: u64,
    /// The content of the origin at first, and of the device that merges.
    held: Vec<u8>,
    shown: Vec<u8>,
    two: bool,
    faults: bool,
    lies: Option<usize>,
}

impl Merge {
    /// A game with one snapshot, on disks that do not fail.
    pub fn alone() -> Merge {
        Merge {
            sectors: 0,
            unit: 1,
            chunk: 1,
            other: 1,
            dense: true,
            fills: 0,
            held: Vec::new(),
            shown: Vec::new(),
            two: false,
            faults: false,
            lies: None,
        }
    }

    /// This game with another snapshot of the origin.
    pub fn two(self) -> Merge {
        Merge { two: true, ..self }
    }

    /// This game on disks that fail: only merging, since a snapshot would be lost.
    pub fn faults(self) -> Merge {
        Merge { faults: true, ..self }
    }

    /// This game with a disk that acknowledges flushes without doing them.
    pub fn lying(self, disk: usize) -> Merge {
        Merge { lies: Some(disk), ..self }
    }

    /// The device that merges.
    fn device(&self) -> usize {
        usize::from(self.two)
    }

    /// The sectors of a store with room for `chunks` chunks.
    fn room(chunk: u64, chunks: u64) -> u64 {
        chunks + chunks.div_ceil(chunk * 32) + 2
    }

    /// Exceptions, as a snapshot would have made them: the chunks of the origin and of the store.
    fn exceptions(&self, rng: &mut Rng) -> Vec<(u64, u64)> {
        let chunks = self.sectors.div_ceil(self.chunk);
        let (mut old, mut olds) = (rng.below(chunks), Vec::new());
        for _ in 0..rng.below(2 * chunks + 1) {
            old = if rng.chance(1, 3) { rng.below(chunks) } else { (old + 1) % chunks };
            if !olds.contains(&old) {
                olds.push(old);
            }
        }
        let mut place = 0;
        let with_place = |old| {
            let new = place + 2 + place / (self.chunk * 32);
            place += if self.dense { 1 } else { rng.below(2) + 1 };
            (old, new)
        };
        let mut exceptions: Vec<(u64, u64)> = olds.into_iter().map(with_place).collect();
        if !self.dense {
            // As an old Linux committed them: each when it was ready.
            for at in 1..exceptions.len() {
                if rng.chance(1, 3) {
                    exceptions.swap(at - 1, at);
                }
            }
        }
        exceptions
    }

    /// `true` if merging is over.
    fn is_merged(&self, world: &World) -> bool {
        let status = world.status(self.device(), 0);
        let Some((used, meta)) = status.split_once(' ') else { panic!("{status}") };
        used.split('/').next() == Some(meta)
    }

    fn look_for_failures(&self, world: &World) {
        let failed = |disk| world.disk(disk, |disk| disk.counts.failed > 0);
        if self.two && (0..world.disks()).any(failed) {
            // The other snapshot may be lost without saying so.
            world.model(0, |model| model.lost = true);
        }
    }
}

impl Game for Merge {
    fn disks(&mut self, rng: &mut Rng) -> Vec<Disk> {
        self.unit = *rng.pick(&[1, 1, 8]);
        self.sectors = self.unit * rng.between(1, 160);
        self.chunk = self.unit * *rng.pick(&[1, 1, 2, 8, 16]);
        self.other = self.unit * *rng.pick(&[1, 2, 8]);
        self.dense = rng.chance(2, 3);
        self.fills = match (self.faults, self.dense) {
            (true, _) => 0,
            (false, true) => u64::MAX,
            (false, false) => 1,
        };
        let origin = Disk::junk(self.sectors, rng);
        self.held = origin.content(0, self.sectors).to_vec();
        self.shown = self.held.clone();
        // With gaps, and another filling behind all that.
        let chunks = self.sectors.div_ceil(self.chunk);
        let room = Merge::room(self.chunk, if self.dense { chunks } else { 4 * chunks + 8 });
        let sectors = room * self.chunk;
        let mut store = Disk::junk(sectors, rng).content(0, sectors).to_vec();
        let bytes = self.chunk as usize * SECTOR;
        for chunk in (0..room as usize).filter(|n| n % (self.chunk as usize * 32 + 1) <= 1) {
            // Chunk 0, and all areas; some of these chunks are data, which does no harm.
            store[chunk * bytes..][..bytes].fill(0);
        }
        if rng.chance(3, 4) {
            let words = [0x7041_6e53u32, 1, 1, self.chunk as u32];
            let header: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            store[..16].copy_from_slice(&header);
            for (at, (old, new)) in (0..).zip(self.exceptions(rng)) {
                let entries = self.chunk * 32;
                let area = 1 + at / entries * (entries + 1);
                let entry = area as usize * bytes + (at % entries) as usize * 16;
                store[entry..][..8].copy_from_slice(&old.to_le_bytes());
                store[entry + 8..][..8].copy_from_slice(&new.to_le_bytes());
                let from = old as usize * bytes;
                let end = self.shown.len().min(from + bytes);
                let data = &store[new as usize * bytes..][..end - from];
                self.shown[from..end].copy_from_slice(data);
            }
        }
        let mut disks = Vec::from([origin, Disk::with(store)]);
        if self.two {
            let chunks = self.sectors.div_ceil(self.other);
            disks.push(Disk::new(Merge::room(self.other, chunks) * self.other));
        }
        for (at, disk) in disks.iter_mut().enumerate() {
            disk.sector_size = (self.unit * SECTOR as u64) as u32;
            disk.keeps_fua = rng.chance(1, 2);
            disk.faults.lies = self.lies == Some(at);
        }
        disks
    }

    fn devices(&self) -> usize {
        1 + self.device()
    }

    fn table(&mut self, device: usize, rng: &mut Rng) -> String {
        let sectors = self.sectors;
        if device < self.device() {
            return format!("0 {sectors} snapshot d0 d2 P {}", self.other);
        }
        let fill = self.fills > 0 && rng.chance(1, 2);
        self.fills -= u64::from(fill && self.fills != u64::MAX);
        let kind = if fill { "snapshot" } else { "snapshot-merge" };
        format!("0 {sectors} {kind} d0 d1 P {}", self.chunk)
    }

    fn begin(&mut self, world: &World) {
        world.model(self.device(), |model| model.holds(&self.shown));
        if self.two {
            world.model(0, |model| model.holds(&self.held));
            world.may_fail(0, self.faults);
        }
        world.may_fail(self.device(), self.faults);
        self.look_for_failures(world);
    }

    fn act(&mut self, world: &World) {
        self.look_for_failures(world);
    }

    fn heal(&mut self, world: &World) {
        self.look_for_failures(world);
    }

    fn powered(&mut self, world: &World) {
        self.look_for_failures(world);
        check(world, 1, self.chunk, self.sectors, self.dense);
        if self.two {
            check(world, 2, self.other, self.sectors, true);
        }
    }

    fn booted(&mut self, world: &World) {
        self.look_for_failures(world);
    }

    fn stopped(&mut self, world: &World, _device: usize) {
        self.look_for_failures(world);
    }

    fn end(&mut self, world: &World) {
        // A table that merges gets to the end.
        let device = self.device();
        let kind = world.table(device).map(|table| table.lines().next().unwrap().1.kind().name);
        for _ in 0..2000 {
            if kind != Some("snapshot-merge") || world.status(device, 0) == "Merge failed" {
                return;
            }
            if self.is_merged(world) {
                world.read_all(device);
                let all = world.disk(1, |disk| disk.content(self.chunk, self.chunk).to_vec());
                assert!(
                    self.faults || all.iter().all(|byte| *byte == 0),
                    "the first area is empty"
                );
                return;
            }
            world.run(100);
            world.pass(100);
        }
        panic!("merging does not end: {}", world.status(device, 0));
    }

    fn disks_may_fail(&self) -> bool {
        self.faults
    }

    fn discards(&self) -> bool {
        false
    }
}
