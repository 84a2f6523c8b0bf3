// SPDX-License-Identifier: BSD-2-Clause

//! Stores of snapshots and logs of mirrors as a hostile disk may have them, and the tables that find them there when
//! they start. In the simulation, where each event follows from the bytes.
//!
//! A store is read a second time here, slowly, and the content that a device shows at first is compared with that.
//! After that the device is used, merged, suspended, exchanged for another and cut off from its power: it may fail, but
//! not hang or panic.

use std::collections::BTreeSet;

use arbitrary::{Result, Unstructured};
use dm_core::job::Op;
use dm_core::targets::TARGETS;
use dm_core::testing::sim::{Disk, Rng, SECTOR, World};
use dm_core::worker::Quiesce;

/// The most steps in one game, so that it ends soon.
const STEPS: usize = 60;

/// The milliseconds and events after which all work in the background is over.
const END: (u32, u64) = (100, 400);

/// Bytes of an exception.
const ENTRY: usize = 16;

/// Runs a game.
///
/// # Panics
/// When a promise is broken.
pub fn run(data: &[u8]) {
    let mut u = Unstructured::new(data);
    // A game ends when its bytes are used up.
    let _ = play(&mut u);
}

fn play(u: &mut Unstructured<'_>) -> Result<()> {
    let mirror = u.ratio(1, 5)?;
    let (setting, disks) = if mirror { log(u)? } else { store(u)? };
    let story = std::env::var_os("DM_STORY").is_some();
    let mut game = Game {
        world: World::new(u.arbitrary()?, TARGETS, disks, 1, story),
        setting,
        merges: !mirror && u.ratio(1, 2)?,
        on: false,
    };
    if story {
        eprintln!("{:?}", game.setting);
    }
    game.start();
    let mut steps = 0;
    while game.on && steps < STEPS && !u.is_empty() && game.step(u).is_ok() {
        steps += 1;
        if story {
            game.world.story().iter().for_each(|line| eprintln!("{line}"));
        }
    }
    game.end();
    Ok(())
}

/// The disks of a table, and its parameters.
#[derive(Debug)]
struct Setting {
    /// Sectors in a sector of the disks.
    unit: u64,
    /// Sectors of the device.
    sectors: u64,
    /// The line without its target, but for a mirror's.
    words: String,
    mirror: bool,
    /// Sectors in a chunk where the store is new.
    chunk: u64,
}

/// A number that is likely to be at the edge of something.
fn edge(u: &mut Unstructured<'_>, near: u64) -> Result<u64> {
    let edges = [0, 1, near, near.wrapping_sub(1), near + 1, (1 << 48) - 1, 1 << 48, 1 << 63, !0];
    if u.ratio(1, 4)? { u.arbitrary() } else { u.choose(&edges).copied() }
}

/// An origin and a store.
fn store(u: &mut Unstructured<'_>) -> Result<(Setting, Vec<Disk>)> {
    let unit = *u.choose(&[1u64, 1, 1, 8])?;
    let chunk = unit << u.int_in_range(0..=4)?;
    let sectors = unit * u.int_in_range(1..=40)?;
    let chunks = sectors.div_ceil(chunk);
    let size = chunk * u.int_in_range(2..=100)? + unit * u.int_in_range(0..=7)?;
    let mut rng = Rng::new(u.arbitrary()?);
    let mut store = vec![0; size as usize * SECTOR];
    let junk = Disk::junk(size, &mut rng);
    let entries = chunk * 32;
    let bytes = chunk as usize * SECTOR;
    let is_meta = |n: usize| n == 0 || n as u64 % (entries + 1) == 1;
    for n in (0..store.len() / bytes).filter(|n| !is_meta(*n)) {
        store[n * bytes..][..bytes].copy_from_slice(junk.content(n as u64 * chunk, chunk));
    }
    let kind = u.int_in_range(0..=11)?;
    let words = match kind {
        0 => [0, 0, 0, 0],
        1 => u.arbitrary()?,
        2 => [0x7041_6e53, 0, 1, chunk as u32],
        3 => [0x7041_6e53, u.arbitrary()?, u.int_in_range(0..=2)?, edge(u, chunk)? as u32],
        4 => [0x7041_6e53, 1, 1, *u.choose(&[1, chunk / 2, chunk * 2, 1 << 21])? as u32],
        _ => [0x7041_6e53, 1, 1, chunk as u32],
    };
    put(&mut store, 0, &words.map(u32::to_le_bytes).concat());
    let (mut old, mut new) = (u.int_in_range(0..=chunks)?, 2);
    for at in 0..u.int_in_range(0..=90u64)? {
        (old, new) = match u.int_in_range(0..=9)? {
            0..=4 => (old.wrapping_add(1), new + 1),
            5 | 6 => (u.int_in_range(0..=chunks)?, new + 1),
            7 => (u.int_in_range(0..=chunks)?, u.int_in_range(0..=size / chunk)?),
            8 => (edge(u, chunks)?, new + 1),
            _ => (old, edge(u, size / chunk)?),
        };
        let area = 1 + at / entries * (entries + 1);
        let entry = area as usize * bytes + (at % entries) as usize * ENTRY;
        put(&mut store, entry, &[old, new].map(u64::to_le_bytes).concat());
        new = new.min(size);
        new += u64::from(new % (entries + 1) == 0);
    }
    for _ in 0..u.int_in_range(0..=3)? {
        let at = usize::from(u.arbitrary::<u16>()?) % store.len();
        store[at] = u.arbitrary()?;
    }
    let named = if u.ratio(7, 8)? { chunk } else { edge(u, chunk)? };
    let word = u.choose(&["P", "P", "PO"])?;
    let words = format!("d0 d1 {word} {named}");
    let origin = Disk::junk(sectors, &mut rng);
    let mut disks = vec![origin, Disk::with(store)];
    disks.iter_mut().for_each(|disk| disk.sector_size = (unit as usize * SECTOR) as u32);
    Ok((Setting { unit, sectors, words, mirror: false, chunk: named }, disks))
}

/// Two legs and a log.
fn log(u: &mut Unstructured<'_>) -> Result<(Setting, Vec<Disk>)> {
    let unit = *u.choose(&[1u64, 1, 1, 8])?;
    let region = 8u64 << u.int_in_range(0..=3)?;
    let sectors = 8u64 * u.int_in_range(1..=40)?;
    let size = unit * u.int_in_range(3..=8)?;
    let mut rng = Rng::new(u.arbitrary()?);
    let mut log = vec![0; size as usize * SECTOR];
    let regions = edge(u, sectors / region)?;
    let version = u.int_in_range(0u32..=3)?;
    put(&mut log, 0, &[0x4d69_5272u32, version].map(u32::to_le_bytes).concat());
    put(&mut log, 8, &regions.to_le_bytes());
    for at in 0..u.int_in_range(0..=16usize)? {
        put(&mut log, 1024 + at, &[u.arbitrary()?]);
    }
    for _ in 0..u.int_in_range(0..=3)? {
        let at = usize::from(u.arbitrary::<u16>()?) % log.len();
        log[at] = u.arbitrary()?;
    }
    let features = u.choose(&["", " 1 handle_errors", " 2 handle_errors keep_log"])?;
    let words = format!("disk 2 d2 {region} 2 d0 0 d1 0{features}");
    let mut leg = || Disk::junk(sectors, &mut rng);
    let mut disks = vec![leg(), leg(), Disk::with(log)];
    disks.iter_mut().for_each(|disk| disk.sector_size = (unit as usize * SECTOR) as u32);
    Ok((Setting { unit, sectors, words, mirror: true, chunk: 0 }, disks))
}

/// Puts some bytes where there is room for them.
fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = to.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

/// The meaning of a store, as it lies on its disk.
enum Meaning {
    /// No table accepts the store.
    Refused,
    /// A snapshot that is lost.
    Lost,
    /// The chunks' size, and for each chunk of the origin the chunk of the store.
    Chunks(u64, Vec<(u64, u64)>),
}

/// Reads a store.
fn read(store: &[u8], setting: &Setting) -> Meaning {
    let word = |at: usize| u32::from_le_bytes(store[at..at + 4].try_into().expect("a word"));
    let long = |at: usize| u64::from_le_bytes(store[at..at + 8].try_into().expect("a number"));
    let size = (store.len() / SECTOR) as u64;
    if word(0) == 0 {
        return match setting.chunk {
            // As the driver chooses.
            0 => Meaning::Chunks(32.max(setting.unit), Vec::new()),
            chunk => Meaning::Chunks(chunk, Vec::new()),
        };
    }
    let chunk = u64::from(word(12));
    let fits = chunk.is_power_of_two() && chunk < 1 << 22 && chunk >= setting.unit;
    if word(0) != 0x7041_6e53 || word(8) != 1 || !fits {
        return Meaning::Refused;
    }
    if word(4) == 0 {
        return Meaning::Lost;
    }
    let (entries, mut exceptions) = (chunk * 32, Vec::<(u64, u64)>::new());
    let mut seen = BTreeSet::new();
    for at in 0.. {
        let area = 1 + at / entries * (entries + 1);
        if (area + 1) * chunk > size {
            break;
        }
        let place = (area * chunk) as usize * SECTOR + (at % entries) as usize * ENTRY;
        let (old, new) = (long(place), long(place + 8));
        if new == 0 {
            break;
        }
        if seen.insert(old) {
            exceptions.push((old, new));
        } else {
            // The first counts, and nobody knows what merging makes of it.
            exceptions.push((u64::MAX, u64::MAX));
        }
    }
    Meaning::Chunks(chunk, exceptions)
}

struct Game {
    world: World,
    setting: Setting,
    merges: bool,
    /// A table was started.
    on: bool,
}

impl Game {
    /// Loads a table and starts it, which must work unless the store is refused.
    fn start(&mut self) {
        let Setting { sectors, words, mirror, .. } = &self.setting;
        let kind = match (mirror, self.merges) {
            (true, _) => "mirror",
            (false, true) => "snapshot-merge",
            (false, false) => "snapshot",
        };
        let first = !self.on;
        let text = format!("0 {sectors} {kind} {words}");
        let Ok(loaded) = self.world.try_load(0, &text) else { return };
        let meaning = self.meaning();
        let started = self.world.try_swap(0, loaded).is_ok();
        if self.world.is_off() {
            return;
        }
        if *mirror {
            assert!(started, "a mirror whatever its log says");
            self.world.promise_nothing(0);
        } else if first {
            let refused = matches!(meaning, Some(Meaning::Refused));
            // A new store needs room, too.
            let new = self.world.disk(1, |disk| disk.content(0, 1)[..4] == [0; 4]);
            assert!(started != refused || new, "started: {started}, to be refused: {refused}");
        }
        self.on = started;
        if started && first && !mirror {
            self.compare();
        }
        self.world.may_fail(0, true);
    }

    fn meaning(&self) -> Option<Meaning> {
        let all = |disk: &mut Disk| disk.content(0, disk.sectors()).to_vec();
        let store = (!self.setting.mirror).then(|| self.world.disk(1, all))?;
        Some(read(&store, &self.setting))
    }

    /// Compares the device's content with the one that its store describes.
    fn compare(&self) {
        let all = |disk: &mut Disk| disk.content(0, disk.sectors()).to_vec();
        let (mut shown, store) = (self.world.disk(0, all), self.world.disk(1, all));
        let (mut failing, mut sane) = (Vec::new(), true);
        match self.meaning() {
            Some(Meaning::Chunks(chunk, exceptions)) => {
                let bytes = chunk as usize * SECTOR;
                let mut seen = BTreeSet::new();
                for (old, new) in exceptions {
                    let on_origin = old < self.setting.sectors.div_ceil(chunk);
                    sane &= on_origin && seen.insert(new) && new > 1 && new % (chunk * 32 + 1) != 1;
                    let end = new.checked_add(1).and_then(|end| end.checked_mul(bytes as u64));
                    let there = end.is_some_and(|end| end <= store.len() as u64);
                    sane &= there;
                    if !on_origin {
                        continue;
                    }
                    let from = old as usize * bytes;
                    let length = bytes.min(shown.len() - from);
                    if there {
                        let data = &store[new as usize * bytes..][..length];
                        shown[from..from + length].copy_from_slice(data);
                    } else {
                        let first = old * chunk;
                        failing.push(first..(first + chunk).min(self.setting.sectors));
                    }
                }
            }
            Some(Meaning::Lost) if self.merges => {}
            _ => failing.push(0..self.setting.sectors),
        }
        if self.merges && !sane {
            // Merging changes what two chunks share, or stops at it.
            return self.world.promise_nothing(0);
        }
        self.world.model(0, |model| model.holds(&shown));
        failing.into_iter().for_each(|sectors| self.world.must_fail(0, sectors));
        let unit = self.setting.unit;
        for sector in (0..self.setting.sectors).step_by(unit as usize) {
            self.world.submit(0, Op::Read, sector, unit, false);
            self.settle();
        }
        if !sane {
            self.world.promise_nothing(0);
        }
    }

    fn settle(&self) {
        assert!(self.world.settles(0), "I/O that does not end");
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let (world, unit) = (&self.world, self.setting.unit);
        match u.int_in_range(0..=15)? {
            op @ 0..=7 => {
                let units = self.setting.sectors / unit;
                let start = u.int_in_range(0..=units - 1)?;
                let length = u.int_in_range(1..=(units - start).min(6))?;
                let length = length.min((world.max_io() / SECTOR) as u64 / unit).max(1);
                let op = if op < 3 { Op::Read } else { Op::Write };
                world.submit(0, op, start * unit, length * unit, u.ratio(1, 8)?);
            }
            8 => world.submit(0, Op::Flush, 0, 0, false),
            9 => world.submit(0, Op::Discard, 0, unit, false),
            10 => {
                let status = world.status(0, 0);
                assert!(!status.contains(char::is_control), "{status}");
            }
            11 => {
                let _ = world.message(0, 0, u.choose(&["", "a", "resume", "0 1 2"])?);
            }
            12 => world.pass(u.int_in_range(0..=600)?),
            13 => self.settle(),
            14 => {
                world.suspend(0, *u.choose(&[Quiesce::Flush, Quiesce::NoFlush])?);
                if !self.setting.mirror {
                    // A snapshot that is lost shows the origin when it is merged.
                    if ["Invalid", "Overflow"].contains(&world.status(0, 0).as_str()) {
                        world.promise_nothing(0);
                    }
                    self.merges ^= u.ratio(1, 2)?;
                }
                self.start();
            }
            _ => {
                world.cut_after(u.int_in_range(0..=60)?);
                world.run(100);
                world.cut_never();
                if world.is_off() {
                    world.take_down(Quiesce::Remove);
                    world.power_up();
                    world.promise_nothing(0);
                    self.start();
                }
            }
        }
        self.world.run(u.int_in_range(0..=20)?);
        Ok(())
    }

    /// Waits for the device's work in the background, reads the device, and removes it.
    fn end(&mut self) {
        if self.on {
            for _ in 0..20 {
                self.world.pass(END.0);
                self.world.run(END.1);
            }
            self.world.read_all(0);
            self.settle();
        }
        self.world.take_down(Quiesce::Remove);
        assert!(self.world.is_idle());
    }
}
