//! Tables of targets that only map: linear, striped, zero, error, unstriped, switch, dust.

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
                // One line for each stripe of two.
                "unstriped" => {
                    let half = LINE / 2;
                    for index in 0..2 {
                        let start = start + index * half;
                        text += &format!("{start} {half} unstriped 2 6 {index} d{disk} {offset}\n");
                    }
                }
                // Two paths to the same disk.
                "switch" => {
                    let path = format!("d{disk} {offset}");
                    text += &format!("{start} {LINE} switch 2 8 0 {path} {path}\n");
                }
                "dust" => text += &format!("{start} {LINE} dust d{disk} {offset} 512\n"),
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

    fn act(&mut self, world: &World) {
        let at = world.choose(|rng| rng.index(self.lines.len()));
        let line = self.lines[at];
        let (first, number) = (at as u64 * LINE, world.choose(|rng| rng.below(LINE)));
        let text = match line.kind {
            "switch" => format!("set_region_mappings {:x}:{}", number / 8, number % 2),
            "dust" => {
                world.may_fail(0, true);
                let number = line.offset + number;
                world.choose(|rng| match rng.below(4) {
                    0 => "enable".into(),
                    1 => format!("removebadblock {number}"),
                    _ => format!("addbadblock {number}"),
                })
            }
            _ => return,
        };
        // A block may be bad already, or not be.
        let _ = world.message(0, first, &text);
    }

    fn heal(&mut self, world: &World) {
        if !self.lines.iter().any(|line| line.kind == "dust")
            || world.is_suspended(0)
            || world.table(0).is_none()
        {
            return;
        }
        for (at, _) in (0..).zip(&self.lines).filter(|(_, line)| line.kind == "dust") {
            world.message(0, at * LINE, "disable").expect("a target that takes it");
        }
        world.settle(0);
        world.may_fail(0, false);
    }
}
