// SPDX-License-Identifier: BSD-2-Clause

//! Games: the trait of a game, and a player that plays one from its seed.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::disk::{Disk, SECTOR};
use super::rng::Rng;
use super::world::{Totals, World};
use crate::job::Op;
use crate::target::TargetType;
use crate::targets::TARGETS;
use crate::worker::Quiesce;

/// A kind of game: its disks and tables, and the promises of its target beyond keeping what was
/// written. A game is made anew for each seed. Functions of a game panic where a promise is broken.
pub trait Game {
    /// The targets that the game's tables may name.
    fn types(&self) -> &'static [&'static TargetType] {
        TARGETS
    }

    /// The disks at the start.
    fn disks(&mut self, rng: &mut Rng) -> Vec<Disk>;

    /// Bytes of the largest sectors of the game's devices, if larger than those of the disks.
    fn largest_sector(&self) -> usize {
        SECTOR
    }

    /// The number of devices.
    fn devices(&self) -> usize {
        1
    }

    /// A table for a device: lines of `START LENGTH TARGET PARAMETERS`. Called at each boot and
    /// each reload. The answer may differ each time as long as the device's content is the same.
    fn table(&mut self, device: usize, rng: &mut Rng) -> String;

    /// Says what a model of the devices should know ([`World::model`], [`World::must_fail`], …).
    /// Called once, after the first tables were loaded.
    fn begin(&mut self, _world: &World) {}

    /// Does something particular to the game, from time to time: sends a message, damages a disk.
    fn act(&mut self, _world: &World) {}

    /// Called when the disks are made to work: everything that the game has damaged must work from
    /// now on, too. The devices may be suspended.
    fn heal(&mut self, _world: &World) {}

    /// `true` if I/O that a failed disk has spoilt may wait until the disks work and the device's
    /// table was reloaded.
    fn heals_by_reload(&self) -> bool {
        false
    }

    /// Called after a power cut when the disks are up again, and before tables are loaded.
    fn powered(&mut self, _world: &World) {}

    /// Called after each boot, when the devices are running and before there is I/O on them.
    fn booted(&mut self, _world: &World) {}

    /// Called when a device is suspended: no I/O is in flight, and its disks can be examined.
    fn stopped(&mut self, _world: &World, _device: usize) {}

    /// Called at the end of a game, when each device was read and all I/O was answered.
    fn end(&mut self, _world: &World) {}

    /// `true` if in some games the disks may fail commands by chance.
    fn disks_may_fail(&self) -> bool {
        true
    }

    /// `true` if in some games disks may refuse discards.
    fn discards(&self) -> bool {
        true
    }
}

/// A function that makes a game.
pub type Make = fn() -> Box<dyn Game>;

/// A game that was lost: a promise was broken.
#[derive(Clone, Debug)]
pub struct Lost {
    /// The game's seed.
    pub seed: u64,
    /// The number of steps that the game was to have.
    pub steps: u64,
    /// The promise that was broken, in words.
    pub why: String,
    /// The story: the events before that.
    pub story: Vec<String>,
}

impl core::fmt::Display for Lost {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for line in &self.story {
            writeln!(f, "{line}")?;
        }
        write!(f, "seed {}: {}", self.seed, self.why)
    }
}

/// Plays one game of so many steps.
///
/// # Errors
/// The game is lost: a promise was broken. The game was then played a second time, for its story.
pub fn play(make: Make, seed: u64, steps: u64) -> Result<Totals, Box<Lost>> {
    match play_once(make, seed, steps, false) {
        Ok((totals, _)) => Ok(totals),
        Err((why, _)) => {
            let (again, story) = match play_once(make, seed, steps, true) {
                Ok(_) => ("nothing: the game is not the same twice".to_string(), Vec::new()),
                Err(lost) => lost,
            };
            let why = if again == why { why } else { format!("{why}; the second time: {again}") };
            Err(Box::new(Lost { seed, steps, why, story }))
        }
    }
}

/// The shortest of the games with this seed that is lost. A game of fewer steps ends earlier.
pub fn shorten(make: Make, lost: Lost, steps: u64) -> Lost {
    // A longer game need not be lost where a shorter one is, so that halving would miss some.
    (0..steps).find_map(|steps| play(make, lost.seed, steps).err()).map_or(lost, |lost| *lost)
}

/// The story of a game: its events, whether it is won or lost.
pub fn story(make: Make, seed: u64, steps: u64) -> Vec<String> {
    match play_once(make, seed, steps, true) {
        Ok((_, story)) | Err((_, story)) => story,
    }
}

fn play_once(
    make: Make,
    seed: u64,
    steps: u64,
    story: bool,
) -> Result<(Totals, Vec<String>), (String, Vec<String>)> {
    let mut game = make();
    let mut rng = Rng::new(seed);
    let disks = game.disks(&mut rng);
    let world = World::new(rng.bits(), game.types(), disks, game.devices(), story);
    world.take_io_of(3 * game.largest_sector());
    let mut player = Player::new(game.as_mut(), &world, rng);
    let played = catch_unwind(AssertUnwindSafe(|| player.play(steps)));
    match played {
        Ok(()) => Ok((world.totals(), world.story())),
        Err(panic) => {
            let why = panic.downcast_ref::<String>().cloned();
            let why = why.or(panic.downcast_ref::<&str>().map(ToString::to_string));
            let story = world.story();
            // The world's futures hold jobs that nobody will end.
            core::mem::forget(world);
            Err((why.unwrap_or("a panic without words".to_string()), story))
        }
    }
}

/// A step of a game.
#[derive(Clone, Copy)]
enum Step {
    Io,
    Burst,
    Settle,
    Pass,
    Suspend,
    Interrupt,
    Reload,
    Fault,
    Stall,
    Crash,
    Act,
}

const STEPS: &[(u64, Step)] = &[
    (60, Step::Io),
    (8, Step::Burst),
    (8, Step::Settle),
    (6, Step::Pass),
    (4, Step::Suspend),
    (2, Step::Interrupt),
    (4, Step::Reload),
    (2, Step::Fault),
    (2, Step::Stall),
    (2, Step::Crash),
    (4, Step::Act),
];

struct Player<'g> {
    game: &'g mut dyn Game,
    world: &'g World,
    rng: Rng,
    /// The part of each device that most of the I/O goes to, so that I/O meets.
    hot: Option<(u64, u64)>,
    /// The most events after a step.
    pace: u64,
    faulty: bool,
}

impl<'g> Player<'g> {
    fn new(game: &'g mut dyn Game, world: &'g World, mut rng: Rng) -> Player<'g> {
        let faulty = game.disks_may_fail() && rng.chance(1, 4);
        let pace = *rng.pick(&[0, 2, 8, 8, 40]);
        if game.discards() {
            for disk in 0..world.disks() {
                world.disk(disk, |disk| disk.faults.no_discard = rng.chance(1, 4));
            }
        }
        Player { game, world, rng, hot: None, pace, faulty }
    }

    fn play(&mut self, steps: u64) {
        self.boot(true);
        for _ in 0..steps {
            if self.world.is_off() {
                self.reboot(false);
            }
            self.step();
            let events = self.rng.below(self.pace + 1);
            self.world.run(events);
        }
        self.end();
        // A last power cut, with no I/O in flight.
        self.world.cut_after(0);
        self.world.run(1);
        self.end();
        self.world.take_down(Quiesce::Remove);
    }

    /// Brings the devices up after a power cut, or at first.
    fn boot(&mut self, first: bool) {
        let world = self.world;
        let devices = world.devices();
        let texts: Vec<String> =
            (0..devices).map(|device| self.game.table(device, &mut self.rng)).collect();
        let loaded: Vec<_> =
            texts.iter().enumerate().map(|(device, text)| world.load(device, text)).collect();
        for (device, loaded) in loaded.into_iter().enumerate() {
            let _ = world.swap(device, loaded);
            while world.table(device).is_none() && !world.is_off() {
                // A disk failed while its table was started. It fails by chance, and not for ever.
                self.heal();
                let loaded = world.load(device, &texts[device]);
                let _ = world.swap(device, loaded);
            }
        }
        if world.is_off() {
            return;
        }
        if first {
            self.game.begin(world);
        }
        self.game.booted(world);
        // A second time, since two copies may differ.
        for device in (0..devices).chain(0..devices) {
            if self.rng.chance(1, 2) {
                world.read_all(device);
            }
        }
    }

    /// Brings the disks and devices up after a power cut.
    fn reboot(&mut self, last: bool) {
        while self.world.is_off() {
            self.world.take_down(Quiesce::Remove);
            self.world.power_up();
            self.game.powered(self.world);
            // The power may be cut once more while they come up.
            let again = self.rng.chance(1, 4).then(|| self.rng.below(100));
            if let Some(events) = again.filter(|_| !last) {
                self.world.cut_after(events);
            }
            self.boot(false);
        }
    }

    fn heal(&mut self) {
        for disk in 0..self.world.disks() {
            self.world.disk(disk, |disk| {
                disk.faults.read = 0;
                disk.faults.write = 0;
                disk.faults.flush = 0;
                disk.faults.bad.clear();
            });
        }
        self.world.tell(|| String::from("the disks work"));
        if !self.world.is_off() {
            self.game.heal(self.world);
        }
    }

    /// Reads all devices, when all disks work.
    fn end(&mut self) {
        self.world.cut_never();
        self.reboot(true);
        self.heal();
        for device in 0..self.world.devices() {
            if !self.world.is_suspended(device) && !self.world.is_started(device) {
                self.world.suspend(device, Quiesce::Flush);
            }
            if self.world.is_suspended(device) {
                let resumed = self.world.resume(device);
                assert!(resumed.is_ok(), "device {device} does not resume: {resumed:?}");
                self.game.heal(self.world);
            }
            self.settle(device);
            self.world.read_all(device);
            self.world.read_all(device);
        }
        self.game.end(self.world);
    }

    fn step(&mut self) {
        let all: u64 = STEPS.iter().map(|(weight, _)| weight).sum();
        let mut choice = self.rng.below(all);
        let step = STEPS.iter().find(|(weight, _)| {
            let found = choice < *weight;
            choice = choice.wrapping_sub(*weight);
            found
        });
        let device = self.rng.index(self.world.devices());
        let suspended = self.world.is_suspended(device);
        match step.map_or(Step::Io, |(_, step)| *step) {
            Step::Io => self.io(device),
            Step::Burst => (0..self.rng.between(2, 40)).for_each(|_| self.io(device)),
            Step::Settle => self.settle(device),
            Step::Pass => self.world.pass(*self.rng.clone().pick(&[1, 7, 50, 1000])),
            Step::Suspend | Step::Interrupt | Step::Reload if suspended => {
                // A device whose table does not start stays suspended.
                let _ = self.world.resume(device);
            }
            Step::Suspend => {
                let how = self.quiesce();
                self.suspend(device, how);
                if self.rng.chance(1, 2) {
                    let _ = self.world.resume(device);
                }
            }
            Step::Interrupt => {
                let (how, events) = (self.quiesce(), self.rng.below(20));
                self.world.suspend_interrupted(device, how, events);
            }
            Step::Reload => self.reload(device),
            Step::Fault if self.faulty => self.fault(),
            Step::Fault => {}
            Step::Stall => {
                let (disk, events) = (self.rng.index(self.world.disks()), self.rng.below(200));
                self.world.stall(disk, events);
            }
            Step::Crash => {
                let after = *self.rng.clone().pick(&[0, 10, 100]);
                self.world.cut_after(self.rng.below(after + 1));
            }
            Step::Act => self.game.act(self.world),
        }
        // So that the next table differs.
        self.rng.bits();
    }

    fn quiesce(&mut self) -> Quiesce {
        *self.rng.pick(&[Quiesce::Flush, Quiesce::NoFlush])
    }

    fn suspend(&mut self, device: usize, how: Quiesce) {
        self.world.suspend(device, how);
        if !self.world.is_off() {
            self.game.stopped(self.world, device);
        }
    }

    /// Waits until all I/O on a device was answered.
    fn settle(&mut self, device: usize) {
        if !self.game.heals_by_reload() {
            return self.world.settle(device);
        }
        while !self.world.settles(device) {
            self.heal();
            let text = self.game.table(device, &mut self.rng);
            let loaded = self.world.load(device, &text);
            self.suspend(device, Quiesce::NoFlush);
            let _ = self.world.swap(device, loaded);
        }
    }

    fn reload(&mut self, device: usize) {
        let text = self.game.table(device, &mut self.rng);
        let loaded = self.world.load(device, &text);
        // The old table goes on meanwhile.
        self.io(device);
        let events = self.rng.below(self.pace + 1);
        self.world.run(events);
        let how = self.quiesce();
        self.suspend(device, how);
        if self.rng.chance(1, 2) {
            self.io(device);
        }
        let _ = self.world.swap(device, loaded);
    }

    fn fault(&mut self) {
        if self.rng.chance(1, 2) {
            return self.heal();
        }
        let disk = self.rng.index(self.world.disks());
        let rng = &mut self.rng;
        let (kind, of_1000) = (rng.below(4), *rng.pick(&[30, 300, 1000]));
        self.world.tell(|| format!("disk {disk} fails now and then: {kind}, {of_1000}"));
        self.world.disk(disk, |disk| match kind {
            0 => disk.faults.read = of_1000,
            1 => disk.faults.write = of_1000,
            2 => disk.faults.flush = of_1000,
            _ => {
                let sector = rng.below(disk.sectors());
                disk.faults.bad.insert(sector);
            }
        });
    }

    /// Begins an I/O.
    fn io(&mut self, device: usize) {
        let Some(table) = self.world.table(device) else { return };
        let (size, unit) = (table.size().0, u64::from(table.sector_size()) / SECTOR as u64);
        let most = (self.world.max_io() / SECTOR) as u64;
        let rng = &mut self.rng;
        let hot = *self.hot.get_or_insert_with(|| {
            let length = *rng.pick(&[16, 64, 1 << 20]);
            (rng.below(size), length)
        });
        let (from, length) = match rng.chance(7, 8) {
            true => (hot.0.min(size - 1), hot.1.min(size)),
            false => (0, size),
        };
        let start = (from + rng.below(length)) % size / unit * unit;
        let length = *rng.pick(&[1, 1, 2, 3, 8, rng.clone().between(1, 32), most]);
        let length = length.min(most).next_multiple_of(unit).min(size - start);
        let fua = rng.chance(1, 6);
        match rng.below(100) {
            0..40 => self.world.submit(device, Op::Read, start, length, false),
            40..85 => self.world.submit(device, Op::Write, start, length, fua),
            85..95 => self.world.submit(device, Op::Flush, 0, 0, false),
            _ if self.game.discards() => {
                self.world.submit(device, Op::Discard, start, length, false);
            }
            _ => {}
        }
    }
}
