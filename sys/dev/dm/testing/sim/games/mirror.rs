// SPDX-License-Identifier: BSD-2-Clause

//! Games of `mirror`: legs that differ at first, and a log on a disk of its own or none.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use crate::testing::sim::{Disk, Game, Rng, SECTOR, World};
use crate::worker::Quiesce;

/// The offset of the bitmap in the log, in bytes.
const BITMAP: usize = 1024;

/// A game of one mirror line.
pub struct Mirror {
    legs: u64,
    sectors: u64,
    /// Sectors in a region.
    region: u64,
    /// The first sector of each leg.
    offset: u64,
    disk_log: bool,
    /// `true` if all legs are the same at first, and the table says so.
    nosync: bool,
    /// `true` if writes that a leg does not take wait for the next table.
    holds: bool,
    features: &'static str,
    discards: bool,
    /// The disks that acknowledge flushes without doing them.
    lie: Lie,
}

/// The disks of a game that acknowledge flushes without doing them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    Legs,
    Log,
}

impl Mirror {
    /// A game with a log on a disk, or without.
    pub fn new(disk_log: bool) -> Mirror {
        Mirror {
            legs: 0,
            sectors: 0,
            region: 0,
            offset: 0,
            disk_log,
            nosync: false,
            holds: false,
            features: "",
            discards: false,
            lie: Lie::None,
        }
    }

    /// This game on legs that acknowledge flushes without doing them.
    pub fn lying_legs(self) -> Mirror {
        Mirror { lie: Lie::Legs, ..self }
    }

    /// This game with a log on a disk that acknowledges flushes without doing them.
    pub fn lying_log(self) -> Mirror {
        Mirror { lie: Lie::Log, ..self }
    }

    fn regions(&self) -> Range<u64> {
        0..self.sectors.div_ceil(self.region)
    }

    /// `true` if all legs have the same content in a region.
    fn agrees(&self, world: &World, region: u64) -> bool {
        let start = region * self.region;
        let length = self.region.min(self.sectors - start);
        let leg =
            |n: u64| world.disk(n as usize, |d| d.content(self.offset + start, length).to_vec());
        (1..self.legs).all(|n| leg(n) == leg(0))
    }

    /// Checks that all legs have the same content in the regions that the log calls clean.
    fn check_log(&self, world: &World) {
        // Discarded sectors may differ.
        if !self.disk_log || self.discards {
            return;
        }
        let log = world.disk(self.legs as usize, |d| d.content(0, d.sectors()).to_vec());
        if !log.starts_with(b"rRiM") {
            return;
        }
        for region in self.regions() {
            let byte = log[BITMAP + region as usize / 8];
            let clean = byte >> (region % 8) & 1 != 0;
            assert!(!clean || self.agrees(world, region), "region {region} is clean and differs");
        }
    }
}

impl Game for Mirror {
    fn disks(&mut self, rng: &mut Rng) -> Vec<Disk> {
        let unit = *rng.pick(&[1, 1, 8]);
        self.legs = *rng.pick(&[2, 2, 3]);
        self.region = *rng.pick(&[8, 16, 16, 64]);
        self.sectors = self.region * rng.between(1, 12) + unit * rng.below(self.region / unit);
        self.offset = unit * rng.below(5);
        self.nosync = rng.chance(1, 4);
        self.discards = rng.chance(1, 4);
        let features =
            [("", false), (" 1 handle_errors", true), (" 2 handle_errors keep_log", false)];
        (self.features, self.holds) = *rng.pick(&features);
        let sectors = self.offset + self.sectors;
        let first = Disk::junk(sectors, rng);
        let mut disks: Vec<Disk> = (1..self.legs)
            .map(|_| if self.nosync { first.clone() } else { Disk::junk(sectors, rng) })
            .collect();
        disks.insert(0, first);
        disks.push(match rng.chance(1, 2) {
            true => Disk::new(8),
            // As lvm leaves it: every bit counts, and none is set.
            false => {
                let mut log = alloc::vec![0; 8 * SECTOR];
                log[..16].copy_from_slice(b"rRiM\x02\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
                Disk::with(log)
            }
        });
        for (at, disk) in (0..).zip(&mut disks) {
            disk.sector_size = (unit * SECTOR as u64) as u32;
            // What the first leg loses the next table would copy to the others.
            disk.faults.drops = (1..self.legs).contains(&at);
            disk.faults.lies = match self.lie {
                Lie::None => false,
                Lie::Legs => at < self.legs,
                Lie::Log => at == self.legs,
            };
        }
        disks
    }

    fn table(&mut self, _device: usize, _rng: &mut Rng) -> String {
        let Mirror { legs, sectors, region, offset, features, .. } = *self;
        // At first only: later the log on the disk counts.
        let word = if core::mem::take(&mut self.nosync) { " nosync" } else { "" };
        let count = 1 + u64::from(!word.is_empty()) + u64::from(self.disk_log);
        let log = match self.disk_log {
            true => format!("disk {count} d{legs} {region}{word}"),
            false => format!("core {count} {region}{word}"),
        };
        let mut text = format!("0 {sectors} mirror {log} {legs}");
        (0..legs).for_each(|leg| text += &format!(" d{leg} {offset}"));
        text + features
    }

    /// Has a disk fail by chance, unless the table holds writes that fail. Only legs behind the
    /// first fail writes and flushes, since the next table takes the first for right; every leg
    /// fails reads.
    fn act(&mut self, world: &World) {
        if self.holds {
            return;
        }
        let leg = world.choose(|rng| rng.below(self.legs)) as usize;
        let (kind, of_1000) = world.choose(|rng| (rng.below(4), *rng.pick(&[0, 30, 1000])));
        world.tell(|| format!("disk {leg} fails now and then: {kind}, {of_1000}"));
        world.disk(leg, |disk| match kind {
            0 if leg > 0 => disk.faults.write = of_1000,
            1 if leg > 0 => disk.faults.flush = of_1000,
            2 => drop(disk.faults.bad.insert(of_1000 % disk.sectors())),
            _ => disk.faults.read = of_1000,
        });
    }

    fn heals_by_reload(&self) -> bool {
        self.holds
    }

    fn disks_may_fail(&self) -> bool {
        self.holds
    }

    fn discards(&self) -> bool {
        self.discards
    }

    fn powered(&mut self, world: &World) {
        self.check_log(world);
    }

    fn stopped(&mut self, world: &World, _device: usize) {
        self.check_log(world);
    }

    fn end(&mut self, world: &World) {
        // A region that could not be recovered is tried once more.
        world.suspend(0, Quiesce::Flush);
        let resumed = world.resume(0);
        assert!(resumed.is_ok(), "{resumed:?}");
        let all = format!(" {0}/{0} 1 ", self.regions().end);
        for _ in 0..100 {
            if world.status(0, 0).contains(&all) {
                break;
            }
            world.run(500);
            world.pass(100);
        }
        let status = world.status(0, 0);
        assert!(status.contains(&all), "recovery does not end: {status}");
        assert!(!self.disk_log || status.ends_with('A'), "the log does not work: {status}");
        if !self.discards {
            world.suspend(0, Quiesce::Flush);
            let differs = self.regions().find(|region| !self.agrees(world, *region));
            assert_eq!(differs, None, "all is in sync, and a region differs");
            let resumed = world.resume(0);
            assert!(resumed.is_ok(), "{resumed:?}");
        }
    }
}
