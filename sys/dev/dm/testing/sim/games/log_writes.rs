//! Tables of `log-writes`: the content lies on the first disk as it is, the log on the second.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::testing::sim::{Disk, Game, Rng, World};

/// Sectors of the device.
const SECTORS: u64 = 96;

/// Sectors of the log: more than a game fills.
const LOG: u64 = 1 << 13;

/// One line of `log-writes`, with a mark now and then. Each start begins a new log.
pub struct LogWrites;

impl Game for LogWrites {
    fn disks(&mut self, rng: &mut Rng) -> Vec<Disk> {
        vec![Disk::junk(SECTORS, rng), Disk::new(LOG)]
    }

    fn table(&mut self, _device: usize, _rng: &mut Rng) -> String {
        format!("0 {SECTORS} log-writes d0 d1\n")
    }

    fn act(&mut self, world: &World) {
        let number = world.choose(|rng| rng.below(1000));
        // A mark may come when there is room for no more of them.
        let _ = world.message(0, 0, &format!("mark m{number}"));
    }
}
