// SPDX-License-Identifier: BSD-2-Clause

//! Games of `verity`: a read gives no sector but the one that was hashed, whatever the disks hold.
//!
//! The game damages the data and the tree as it goes on, and mends them. Reads may fail while there
//! is damage, and may not when there is none. No other data may be given than what was hashed, not
//! even by a read that fails.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::testing::sim::{Disk, Game, Rng, SECTOR, World};
use crate::testing::verity::{Built, Format};

/// A sector that was damaged.
struct Damage {
    disk: usize,
    sector: u64,
    /// The sector's content before.
    content: Vec<u8>,
}

/// A game of one verity line, over a tree of any shape.
#[derive(Default)]
pub struct Verity {
    /// The line's parameters.
    params: String,
    /// Sectors in the line.
    length: u64,
    /// The content that the device shows.
    content: Vec<u8>,
    damage: Vec<Damage>,
    /// `true` with `check_at_most_once`: a block that was damaged after its first read may be
    /// given.
    once: bool,
    /// `true` if there was damage since the table's start.
    damaged: bool,
}

fn junk(bytes: usize, rng: &mut Rng) -> Vec<u8> {
    (0..bytes).map(|_| rng.bits() as u8).collect()
}

impl Verity {
    /// Flips a bit of the data or the tree.
    fn hurt(&mut self, world: &World) {
        let disks = world.disks();
        let disk = world.choose(|rng| rng.index(disks));
        let sectors = world.disk(disk, |disk| disk.sectors());
        let (sector, byte, bit) =
            world.choose(|rng| (rng.below(sectors), rng.below(SECTOR as u64), rng.below(8)));
        world.tell(|| format!("bit {bit} of byte {byte} of sector {sector} of d{disk} flips"));
        let content = world.disk(disk, |disk| {
            let content = disk.content(sector, 1).to_vec();
            let mut other = content.clone();
            other[byte as usize] ^= 1 << bit;
            disk.set(sector, &other);
            content
        });
        self.damage.push(Damage { disk, sector, content });
        self.damaged = true;
        world.may_fail(0, true);
    }

    /// Puts back the damaged sectors' content, the last first.
    fn mend(&mut self, world: &World) {
        for Damage { disk, sector, content } in self.damage.drain(..).rev() {
            world.disk(disk, |disk| disk.set(sector, &content));
        }
    }

    /// Records that no I/O is in flight: a read that begins from now on may fail only if there is
    /// damage.
    fn still(&self, world: &World) {
        world.may_fail(0, !self.damage.is_empty());
    }
}

impl Game for Verity {
    fn disks(&mut self, rng: &mut Rng) -> Vec<Disk> {
        let size = |rng: &mut Rng| *rng.pick(&[512, 512, 1024, 4096]);
        let salt = *rng.pick(&[0, 1, 32, 70]);
        let format = Format {
            kind: rng.below(2) as u32,
            data_bytes: size(rng),
            hash_bytes: size(rng),
            hash: rng.pick::<&str>(&["md5", "sha1", "sha256", "sha384", "sha512"][..]),
            salt: junk(salt, rng),
        };
        let most = 160 * SECTOR as u64 / format.data_bytes as u64;
        let blocks = 1 + rng.below(*rng.clone().pick(&[1, most, most])) as usize;
        let zeroes = rng.chance(1, 3);
        self.once = rng.chance(1, 4);
        let mut data = junk(blocks * format.data_bytes, rng);
        if zeroes {
            for block in data.chunks_exact_mut(format.data_bytes) {
                if rng.chance(1, 3) {
                    block.fill(0);
                }
            }
        }
        let built: Built = format.build(&data);
        self.content = data.clone();
        self.length = (data.len() / SECTOR) as u64;
        if zeroes {
            // A block of zeroes need not be read, so that its damage need not show.
            for block in data.chunks_exact_mut(format.data_bytes) {
                if block.iter().all(|byte| *byte == 0) && rng.chance(1, 2) {
                    block.copy_from_slice(&junk(block.len(), rng));
                }
            }
        }
        let (disks, tree, start) = if rng.chance(1, 2) {
            // The tree lies behind the data.
            let start = data.len().div_ceil(format.hash_bytes) + rng.below(3) as usize;
            data.resize(start * format.hash_bytes, 0);
            data.extend(&built.tree);
            (vec![Disk::with(data)], 0, start)
        } else {
            let start = rng.below(4) as usize;
            let mut tree = junk(start * format.hash_bytes, rng);
            tree.extend(&built.tree);
            tree.extend(junk(SECTOR, rng));
            (vec![Disk::with(data), Disk::with(tree)], 1, start)
        };
        let words = format.words(blocks, start as u64, &built);
        let options = [(zeroes, "ignore_zero_blocks"), (self.once, "check_at_most_once")];
        let options: Vec<&str> = options.iter().filter(|o| o.0).map(|o| o.1).collect();
        self.params = format!("{} d0 d{tree} {words}", format.kind);
        if !options.is_empty() {
            self.params += &format!(" {} {}", options.len(), options.join(" "));
        }
        disks
    }

    fn table(&mut self, _device: usize, _rng: &mut Rng) -> String {
        format!("0 {} verity {}", self.length, self.params)
    }

    fn begin(&mut self, world: &World) {
        world.read_only(0);
        world.model(0, |model| model.holds(&self.content));
    }

    fn act(&mut self, world: &World) {
        if self.once || world.is_off() {
            return;
        }
        // Blocks of data are read again, once: no I/O may be in flight that has met another such
        // read. Hash blocks, which come into memory of the driver's, are not.
        if world.disks() > 1 && world.is_idle() && world.choose(|rng| rng.chance(1, 2)) {
            world.tell(|| String::from("the next read of d0 is wrong"));
            return world.disk(0, |disk| disk.faults.wrong_once = true);
        }
        self.hurt(world);
    }

    fn heal(&mut self, world: &World) {
        self.mend(world);
    }

    fn powered(&mut self, world: &World) {
        self.damaged = !self.damage.is_empty();
        // The table that is about to begin has checked no block yet.
        if world.choose(|rng| rng.chance(1, 2)) {
            self.hurt(world);
        }
    }

    fn booted(&mut self, world: &World) {
        self.still(world);
    }

    fn stopped(&mut self, world: &World, _device: usize) {
        self.still(world);
        let status = world.status(0, 0);
        let right = status == "V" || status == "C" && self.damaged;
        assert!(right, "the status is {status}, and the disks are right");
    }

    fn end(&mut self, world: &World) {
        // All was read, and all I/O was answered.
        self.still(world);
        world.read_all(0);
    }
}
