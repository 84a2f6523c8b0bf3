// SPDX-License-Identifier: BSD-2-Clause

//! Games of `log-writes`: the content lies on the first disk, the logs on the others by turns.
//!
//! A log is checked by replaying it to the content that the device had when the log began. While
//! the device is suspended the replay must give what the device may show; after a power cut, what
//! it may show then.

use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec;
use alloc::vec::Vec;

use crate::Sector;
use crate::table::Table;
use crate::target::TargetType;
use crate::targets::TARGETS;
use crate::testing::sim::{Attached, Disk, Game, Rng, SECTOR, World};

/// Sectors of the device.
const SECTORS: u64 = 96;

/// Sectors of a log's disk: more than most tables fill.
const LOG: u64 = 1 << 10;

/// The disks for logs: enough that a power cut while the devices come up does not overwrite the log
/// to be checked.
const LOGS: core::ops::RangeInclusive<usize> = 1..=4;

/// The magic number at the start of a log.
const MAGIC: u64 = 0x006a_7366_7773_6872;

/// A game of one line of a target that logs writes, with a mark now and then. Each table begins a
/// new log.
pub struct LogWrites {
    target: &'static str,
    types: &'static [&'static TargetType],
    /// `true` if the logs' disks acknowledge flushes without doing them.
    lie: bool,
    /// The table that was seen last. The reference keeps its address from being used by another.
    seen: Weak<Table<Attached>>,
    /// The disk with that table's log.
    log: usize,
    /// The disks of logs that other tables were given, which may be in use by now.
    given: Vec<usize>,
    /// The device's content when that log began, and the number of events then.
    base: (Vec<u8>, u64),
    /// The device's content when it was suspended last, and the number of events, as in `base`.
    last: (Vec<u8>, u64),
}

impl LogWrites {
    /// A game of the driver's own target.
    pub fn own() -> LogWrites {
        LogWrites::of("log-writes", TARGETS)
    }

    /// A game of another target.
    pub fn of(target: &'static str, types: &'static [&'static TargetType]) -> LogWrites {
        let (seen, nothing) = (Weak::new(), (Vec::new(), 0));
        let (base, last) = (nothing.clone(), nothing);
        LogWrites { target, types, lie: false, seen, log: 0, given: Vec::new(), base, last }
    }

    /// This game with logs on disks that acknowledge flushes without doing them.
    pub fn lying_log(mut self) -> LogWrites {
        self.lie = true;
        self
    }

    fn now(world: &World) -> (Vec<u8>, u64) {
        (world.disk(0, |disk| disk.content(0, SECTORS).to_vec()), world.raised(0))
    }

    /// The disk with the log of the table that is in use.
    fn in_use(world: &World) -> Option<usize> {
        let table = world.table(0)?;
        let params = table.describe(table.target(Sector::ZERO)?, true);
        params.rsplit_once(':')?.1.parse().ok()
    }

    /// Records that the table in use has begun its log, with this content on the device.
    fn begins(&mut self, world: &World, base: (Vec<u8>, u64)) {
        self.log = Self::in_use(world).unwrap_or(0);
        self.seen = world.table(0).map_or_else(Weak::new, |table| Arc::downgrade(&table));
        self.base = base;
    }

    /// Records the table in use and its log. A log that is not in use is emptied, so that from now
    /// on it begins as a log only if a table has begun it.
    fn looked(&mut self, world: &World) {
        self.last = Self::now(world);
        // The last log may be about to come into use.
        let given = self.given.last().copied().filter(|log| *log != self.log);
        self.given = given.into_iter().collect();
        for log in LOGS.filter(|log| *log != self.log) {
            world.disk(log, |disk| disk.set(0, &[0; SECTOR]));
        }
    }

    /// Replays a log, and checks the result against what the device may show.
    fn check(world: &World, log: usize, base: &[u8]) -> Result<(), String> {
        let (image, known) = world.disk(log, |disk| replay(disk, base))?;
        world.model(0, |model| {
            let mut model = model.clone();
            for ((at, sector), known) in (0..).zip(image.chunks_exact(SECTOR)).zip(known) {
                if known {
                    let said = model.read(at, u64::MAX - 1, sector);
                    said.map_err(|why| format!("the log on d{log}, replayed: {why}"))?;
                }
            }
            Ok(())
        })
    }
}

fn number(sector: &[u8], at: usize) -> u64 {
    sector[at..at + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The device's sectors after the whole log was replayed, and for each `true` if its content is
/// known.
fn replay(log: &Disk, base: &[u8]) -> Result<(Vec<u8>, Vec<bool>), String> {
    let (mut image, mut known) = (base.to_vec(), vec![true; SECTORS as usize]);
    let entries = match number(log.content(0, 1), 0) {
        MAGIC => number(log.content(0, 1), 16),
        _ => return Err(String::from("there is no log")),
    };
    let mut at = 1;
    for entry in 0..entries {
        let wrong = |what: &str| format!("entry {entry} of {entries} of the log {what}");
        let sector = (at < LOG).then(|| log.content(at, 1)).ok_or_else(|| wrong("is not there"))?;
        let [start, length, flags] = [0, 8, 16].map(|at| number(sector, at));
        let end = start.checked_add(length).filter(|end| *end <= SECTORS);
        let end = end.ok_or_else(|| wrong("is none"))?;
        let range = start as usize..end as usize;
        at += 1;
        match flags {
            0 if length == 0 => return Err(wrong("is empty")),
            0 | 2 if at + length <= LOG => {
                let bytes = range.start * SECTOR..range.end * SECTOR;
                image[bytes].copy_from_slice(log.content(at, length));
                known[range].fill(true);
                at += length;
            }
            4 => known[range].fill(false),
            1 | 8 if length == 0 => {}
            _ => return Err(wrong("makes no sense")),
        }
    }
    Ok((image, known))
}

impl Game for LogWrites {
    fn types(&self) -> &'static [&'static TargetType] {
        self.types
    }

    fn disks(&mut self, rng: &mut Rng) -> Vec<Disk> {
        let mut disks = vec![Disk::junk(SECTORS, rng)];
        disks.extend(LOGS.map(|_| Disk::new(LOG)));
        for log in LOGS {
            disks[log].faults.lies = self.lie;
        }
        disks
    }

    fn table(&mut self, _device: usize, _rng: &mut Rng) -> String {
        let free = |log: &usize| *log != self.log && !self.given.contains(log);
        let log = LOGS.clone().find(free).unwrap_or(*LOGS.end());
        self.given.push(log);
        format!("0 {SECTORS} {} d0 d{log}\n", self.target)
    }

    fn act(&mut self, world: &World) {
        let number = world.choose(|rng| rng.below(1000));
        // A mark is possible where there is no room for another.
        let _ = world.message(0, 0, &format!("mark m{number}"));
    }

    fn booted(&mut self, world: &World) {
        // The logs are as the power cut left them. If a table was begun after the last one that was
        // seen, and came into use, its log is the one to check.
        let known = !self.base.0.is_empty() && world.raised(0) == self.base.1;
        let now = Self::in_use(world);
        let newer = self.given.iter().filter(|log| Some(**log) != now);
        let logs = newer.map(|log| (*log, &self.last.0)).chain([(self.log, &self.base.0)]);
        let said: Vec<_> = logs.map(|(log, base)| Self::check(world, log, base)).collect();
        if known && said.iter().all(Result::is_err) {
            panic!("after a crash: {said:?}");
        }
        self.begins(world, Self::now(world));
        self.looked(world);
    }

    fn stopped(&mut self, world: &World, _device: usize) {
        let table = world.table(0);
        if table.is_some_and(|table| Arc::as_ptr(&table) != self.seen.as_ptr()) {
            let base = core::mem::take(&mut self.last);
            self.begins(world, base);
        }
        if world.raised(0) == self.base.1
            && let Err(why) = Self::check(world, self.log, &self.base.0)
        {
            panic!("{why}");
        }
        self.looked(world);
    }
}
