// SPDX-License-Identifier: BSD-2-Clause

//! Games of targets that map as a linear or striped line would, and of zero and error.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::testing::sim::{Disk, Game, Rng, SECTOR, World};

/// Sectors of a line.
const LINE: u64 = 48;

/// A line: its kind, and its places on the disks.
#[derive(Clone, Copy)]
struct Line {
    kind: &'static str,
    disk: u64,
    offset: u64,
}

/// A game of lines of some kinds. The content stays in place when a table is reloaded, but a linear
/// line may then be two.
pub struct Maps {
    kinds: &'static [&'static str],
    /// The lines of each device.
    devices: Vec<Vec<Line>>,
    /// Sectors in a physical sector of the disks.
    unit: u64,
}

impl Maps {
    /// A game of these kinds of lines.
    pub fn new(kinds: &'static [&'static str]) -> Maps {
        Maps { kinds, devices: Vec::new(), unit: 1 }
    }
}

impl Game for Maps {
    fn disks(&mut self, rng: &mut Rng) -> Vec<Disk> {
        self.unit = *rng.pick(&[1, 1, 8]);
        // Each line has a place of its own on two disks, so that none overlaps another.
        let mut offset = 0;
        for _ in 0..rng.between(1, 2) {
            let mut lines = Vec::new();
            for _ in 0..rng.between(1, 4) {
                let kind = rng.pick::<&str>(self.kinds);
                lines.push(Line { kind, disk: rng.below(2), offset });
                offset += LINE;
            }
            self.devices.push(lines);
        }
        let mut disk = || {
            let mut disk = Disk::junk(offset + self.unit * rng.below(9), rng);
            disk.sector_size = (self.unit * SECTOR as u64) as u32;
            disk
        };
        vec![disk(), disk()]
    }

    fn devices(&self) -> usize {
        self.devices.len()
    }

    fn table(&mut self, device: usize, rng: &mut Rng) -> String {
        let mut text = String::new();
        for (at, line) in (0..).zip(&self.devices[device]) {
            let (start, offset, disk) = (at * LINE, line.offset, line.disk);
            match line.kind {
                "linear" => {
                    let cut = self.unit * rng.between(1, LINE / self.unit);
                    text += &format!("{start} {cut} linear d{disk} {offset}\n");
                    if cut < LINE {
                        let (start, offset) = (start + cut, offset + cut);
                        text += &format!("{start} {} linear d{disk} {offset}\n", LINE - cut);
                    }
                }
                "striped" => {
                    let other = 1 - disk;
                    text +=
                        &format!("{start} {LINE} striped 2 8 d{disk} {offset} d{other} {offset}\n");
                }
                // One line for each stripe of two.
                "unstriped" => {
                    let half = LINE / 2;
                    for index in 0..2 {
                        let start = start + index * half;
                        text += &format!("{start} {half} unstriped 2 8 {index} d{disk} {offset}\n");
                    }
                }
                // Two paths to the same disk.
                "switch" => {
                    let path = format!("d{disk} {offset}");
                    text += &format!("{start} {LINE} switch 2 8 0 {path} {path}\n");
                }
                "dust" => {
                    let block = self.unit * SECTOR as u64;
                    text += &format!("{start} {LINE} dust d{disk} {offset} {block}\n");
                }
                "delay" => {
                    let place = format!("d{disk} {offset}");
                    let mut ms = || rng.below(20);
                    let params = format!("{place} {} {place} {} {place} {}", ms(), ms(), ms());
                    text += &format!("{start} {LINE} delay {params}\n");
                }
                // The line fails all the time, and serves what could be changed: no interval is so
                // long.
                "flakey" => {
                    let features = "5 corrupt_bio_byte 4000000 w 1 0";
                    let params = format!("d{disk} {offset} 0 1 {features}");
                    text += &format!("{start} {LINE} flakey {params}\n");
                }
                kind => text += &format!("{start} {LINE} {kind}\n"),
            }
        }
        text
    }

    fn begin(&mut self, world: &World) {
        for (device, lines) in self.devices.iter().enumerate() {
            for (at, line) in (0..).zip(lines) {
                let range = at * LINE..(at + 1) * LINE;
                match line.kind {
                    "zero" => world.model(device, |model| model.zeroes(range)),
                    "error" => world.must_fail(device, range),
                    _ => {}
                }
            }
        }
    }

    fn act(&mut self, world: &World) {
        let device = world.choose(|rng| rng.index(self.devices.len()));
        let lines = &self.devices[device];
        let at = world.choose(|rng| rng.index(lines.len()));
        let (line, number) = (lines[at], world.choose(|rng| rng.below(LINE)));
        let text = match line.kind {
            "switch" => format!("set_region_mappings {:x}:{}", number / 8, number % 2),
            "dust" => {
                world.may_fail(device, true);
                let number = (line.offset + number) / self.unit;
                world.choose(|rng| match rng.below(4) {
                    0 => "enable".into(),
                    1 => format!("removebadblock {number}"),
                    _ => format!("addbadblock {number}"),
                })
            }
            _ => return,
        };
        // A block may be bad already, or good.
        let _ = world.message(device, at as u64 * LINE, &text);
    }

    fn heal(&mut self, world: &World) {
        for (device, lines) in self.devices.iter().enumerate() {
            if world.is_suspended(device) || world.table(device).is_none() {
                continue;
            }
            for (at, line) in (0..).zip(lines) {
                if line.kind == "dust" {
                    let done = world.message(device, at * LINE, "disable");
                    done.expect("a target that takes it");
                }
            }
            // I/O that failed has been answered by then.
            world.settle(device);
            world.may_fail(device, false);
        }
    }
}
