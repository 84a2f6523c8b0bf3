// SPDX-License-Identifier: BSD-2-Clause

//! Games of `snapshot-origin` and `snapshot`: an origin, and one or two snapshots of it.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::testing::sim::{Disk, Game, Rng, SECTOR, World};

/// A game of snapshots: an origin on disk 0, as device 0, and snapshots with their stores on the
/// disks behind it.
pub struct Snapshots {
    sectors: u64,
    snapshots: Vec<One>,
    two: bool,
    /// `true` if devices are discarded from, which they refuse.
    discards: bool,
    /// `true` if stores may be too small.
    full: bool,
    /// `true` if disks may fail.
    faults: bool,
    /// The disk that acknowledges flushes without doing them.
    lies: Option<usize>,
    /// `true` once the content of snapshots is unknown: a store could not be marked invalid.
    lost: bool,
}

/// One snapshot.
struct One {
    kind: &'static str,
    chunk: u64,
    length: u64,
}

impl Snapshots {
    /// A game with stores that are large enough, on disks that do not fail.
    pub fn roomy() -> Snapshots {
        let (snapshots, sectors) = (Vec::new(), 0);
        let (two, discards) = (false, false);
        Snapshots {
            sectors,
            snapshots,
            two,
            discards,
            full: false,
            faults: false,
            lies: None,
            lost: false,
        }
    }

    /// This game with two snapshots.
    pub fn two(self) -> Snapshots {
        Snapshots { two: true, ..self }
    }

    /// This game with stores that may be too small.
    pub fn full(self) -> Snapshots {
        Snapshots { full: true, ..self }
    }

    /// This game on disks that fail.
    pub fn faults(self) -> Snapshots {
        Snapshots { full: true, faults: true, ..self }
    }

    /// This game with a disk that acknowledges flushes without doing them: 0 is the origin's, the
    /// others are stores'.
    pub fn lying(self, disk: usize) -> Snapshots {
        Snapshots { lies: Some(disk), ..self }
    }

    fn content(world: &World, disk: usize) -> Vec<u8> {
        world.disk(disk, |disk| disk.content(0, disk.sectors()).to_vec())
    }

    /// If a disk has failed, takes the content of snapshots for unknown from now on.
    fn look_for_failures(&mut self, world: &World) {
        let failed = |disk| world.disk(disk, |disk| disk.counts.failed > 0);
        if self.lost || !(0..world.disks()).any(failed) {
            return;
        }
        self.lost = true;
        world.tell(|| String::from("snapshots may be lost"));
    }

    fn forget(&self, world: &World) {
        if self.lost {
            for device in 1..=self.snapshots.len() {
                world.model(device, |model| model.lost = true);
            }
        }
    }
}

impl One {
    fn check(&self, world: &World, disk: usize) {
        if self.kind != "N" {
            check(world, disk, self.chunk, self.length, true);
        }
    }
}

/// Reads a store according to its format, and checks it; with `ordered` also that its chunks are in
/// order.
pub(super) fn check(world: &World, disk: usize, chunk: u64, length: u64, ordered: bool) {
    let data = Snapshots::content(world, disk);
    let word = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap());
    if word(0) == 0 {
        return;
    }
    assert_eq!(&data[..4], b"SnAp", "the magic number");
    assert_eq!(word(8), 1 | chunk << 32, "version and chunk");
    let (bytes, entries) = (chunk as usize * SECTOR, chunk * 32);
    let (mut olds, mut news, mut last) = (BTreeSet::new(), BTreeSet::new(), 1);
    for area in 0.. {
        let at = (1 + area * (entries as usize + 1)) * bytes;
        if at + bytes > data.len() {
            return;
        }
        for entry in 0..entries as usize {
            let (old, new) = (word(at + entry * 16), word(at + entry * 16 + 8));
            if new == 0 {
                return;
            }
            assert!(!ordered || new > last, "d{disk}: chunk {new} stands behind {last}");
            assert!(new % (entries + 1) != 1, "d{disk}: chunk {new} is an area");
            assert!((new as usize + 1) * bytes <= data.len(), "d{disk} has no chunk {new}");
            assert!(olds.insert(old), "d{disk}: chunk {old} twice");
            assert!(news.insert(new), "d{disk}: chunk {new} of the store twice");
            assert!(old * chunk < length, "d{disk}: the snapshot has no chunk {old}");
            last = new;
        }
    }
}

impl Game for Snapshots {
    fn disks(&mut self, rng: &mut Rng) -> Vec<Disk> {
        let unit = *rng.pick(&[1, 1, 8]);
        self.sectors = unit * rng.between(1, 160);
        self.discards = rng.chance(1, 4);
        let mut disks = Vec::from([Disk::junk(self.sectors, rng)]);
        for _ in 0..if self.two { 2 } else { *rng.pick(&[1, 2]) } {
            let chunk = unit * *rng.pick(&[1, 1, 2, 8, 16]);
            let whole = rng.chance(3, 4);
            let length =
                if whole { self.sectors } else { unit * rng.between(1, self.sectors / unit) };
            let chunks = self.sectors.div_ceil(chunk);
            let all = chunks + chunks.div_ceil(chunk * 32) + 2;
            let room = if self.full { rng.between(2, all + 1) } else { all };
            let odd = rng.below(chunk) / unit * unit;
            let disk = match rng.chance(3, 4) {
                true => Disk::junk(room * chunk + odd, rng),
                false => Disk::new(room * chunk + odd),
            };
            // As lvm leaves it, which wipes the first sectors.
            let mut content = disk.content(0, disk.sectors()).to_vec();
            content[..SECTOR].fill(0);
            disks.push(Disk::with(content));
            let kind = *rng.pick(&["P", "P", "P", "PO", "N"]);
            self.snapshots.push(One { kind, chunk, length });
        }
        for (at, disk) in disks.iter_mut().enumerate() {
            disk.sector_size = (unit * SECTOR as u64) as u32;
            disk.keeps_fua = rng.chance(1, 2);
            disk.faults.lies = self.lies == Some(at);
        }
        disks
    }

    fn devices(&self) -> usize {
        1 + self.snapshots.len()
    }

    fn table(&mut self, device: usize, _rng: &mut Rng) -> String {
        let Some(one) = device.checked_sub(1).and_then(|at| self.snapshots.get(at)) else {
            return format!("0 {} snapshot-origin d0", self.sectors);
        };
        format!("0 {} snapshot d0 d{device} {} {}", one.length, one.kind, one.chunk)
    }

    fn begin(&mut self, world: &World) {
        let content = Self::content(world, 0);
        for device in 1..=self.snapshots.len() {
            world.model(device, |model| model.holds(&content));
            world.may_fail(device, self.full || self.faults);
        }
        self.look_for_failures(world);
        self.forget(world);
    }

    fn act(&mut self, world: &World) {
        self.look_for_failures(world);
        self.forget(world);
    }

    fn heal(&mut self, world: &World) {
        self.look_for_failures(world);
        self.forget(world);
    }

    fn powered(&mut self, world: &World) {
        self.look_for_failures(world);
        for (disk, one) in (1..).zip(&self.snapshots) {
            one.check(world, disk);
        }
    }

    fn booted(&mut self, world: &World) {
        self.look_for_failures(world);
        // A store in memory begins anew.
        let content = Self::content(world, 0);
        for (device, _) in (1..).zip(&self.snapshots).filter(|(_, one)| one.kind == "N") {
            world.model(device, |model| model.holds(&content));
        }
        self.forget(world);
    }

    fn stopped(&mut self, world: &World, _device: usize) {
        self.look_for_failures(world);
        self.forget(world);
    }

    fn end(&mut self, world: &World) {
        for (device, one) in (1..).zip(&self.snapshots) {
            if !self.full && !self.faults {
                let status = world.status(device, 0);
                assert!(status.contains('/'), "snapshot {device}: {status}");
                one.check(world, device);
            }
        }
    }

    fn disks_may_fail(&self) -> bool {
        self.faults
    }

    fn discards(&self) -> bool {
        self.discards
    }
}
