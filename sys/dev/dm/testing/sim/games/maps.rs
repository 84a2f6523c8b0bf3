//! Tables of targets that only map: linear, striped, zero, error.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::testing::sim::{Disk, Game, Rng, World};

/// Sectors of a line.
const LINE: u64 = 48;

/// A line: its kind, and where on the disks it is.
#[derive(Clone, Copy)]
struct Line {
    kind: &'static str,
    disk: u64,
    offset: u64,
}

/// Tables of lines of some kinds. The content stays where it is when a table is reloaded, but a
/// linear line may then be two.
pub struct Maps {
    kinds: &'static [&'static str],
    lines: Vec<Line>,
}

impl Maps {
    /// Tables of these kinds of lines.
    pub fn new(kinds: &'static [&'static str]) -> Maps {
        Maps { kinds, lines: Vec::new() }
    }
}

impl Game for Maps {
    fn disks(&mut self, rng: &mut Rng) -> Vec<Disk> {
        let count = rng.between(1, 5);
        // Each line has a place of its own on two disks, so that none overlaps another.
        self.lines = (0..count)
            .map(|at| Line {
                kind: rng.pick::<&str>(self.kinds),
                disk: rng.below(2),
                offset: at * LINE,
            })
            .collect();
        (0..2).map(|_| Disk::junk(count * LINE + rng.below(9), rng)).collect()
    }

    fn table(&mut self, _device: usize, rng: &mut Rng) -> String {
        let mut text = String::new();
        for (at, line) in (0..).zip(&self.lines) {
            let (start, offset, disk) = (at * LINE, line.offset, line.disk);
            match line.kind {
                "linear" => {
                    let cut = rng.between(1, LINE);
                    text += &format!("{start} {cut} linear d{disk} {offset}\n");
                    if cut < LINE {
                        let (start, offset) = (start + cut, offset + cut);
                        text += &format!("{start} {} linear d{disk} {offset}\n", LINE - cut);
                    }
                }
                "striped" => {
                    let other = 1 - disk;
                    text +=
                        &format!("{start} {LINE} striped 2 6 d{disk} {offset} d{other} {offset}\n");
                }
                kind => text += &format!("{start} {LINE} {kind}\n"),
            }
        }
        text
    }

    fn begin(&mut self, world: &World) {
        for (at, line) in (0..).zip(&self.lines) {
            let range = at * LINE..(at + 1) * LINE;
            match line.kind {
                "zero" => world.model(0, |model| model.zeroes(range)),
                "error" => world.must_fail(0, range),
                _ => {}
            }
        }
    }
}
