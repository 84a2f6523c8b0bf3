// SPDX-License-Identifier: BSD-2-Clause

//! The world of a game: its devices, with tables loaded, I/O, suspend and resume, and power cuts.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::TypeId;
use core::cell::RefCell;

use super::disk::{Counts, Disk, SECTOR};
use super::host::Host;
use super::io::{Attached, Device};
use super::model::Model;
use super::rng::Rng;
use super::shared::{Shared, State, Temper, Todo};
use crate::aes::Aes;
use crate::executor::{self, Executor};
use crate::hash::Hash;
use crate::host::Ready;
use crate::job::Op;
use crate::shared::{AnyShared, Choose, Registry};
use crate::table::{Builder, Opener, Table};
use crate::target::{Target, TargetType};
use crate::testing::{aes, hash};
use crate::units::Dev;
use crate::worker::Quiesce;
use crate::{Errno, Sector};

/// The disks and devices of a game.
///
/// Events happen in the order that the seed decides, and only in functions that wait:
/// [`World::run`], [`World::settle`], and those that suspend or resume a device.
pub struct World {
    pub(super) shared: Arc<Shared>,
    /// The objects that lines of different devices share, as the driver keeps them.
    registry: RefCell<Registry>,
    types: &'static [&'static TargetType],
}

/// A table that is loaded and not active yet.
pub struct Loaded {
    table: Arc<Table<Attached>>,
    host: Option<usize>,
}

impl Loaded {
    /// The target of the line that holds a sector.
    pub fn target(&self, sector: Sector) -> Option<&dyn Target> {
        self.table.target(sector)
    }
}

/// The totals of a game, or of several.
#[derive(Clone, Copy, Default, Debug)]
pub struct Totals {
    /// The number of games.
    pub games: u64,
    /// The number of I/Os on devices.
    pub ios: u64,
    /// The commands that disks were given.
    pub disks: Counts,
    /// The number of power cuts.
    pub crashes: u64,
    /// The number of events.
    pub events: u64,
}

impl Totals {
    /// Adds the totals of another game.
    pub fn add(&mut self, other: &Totals) {
        self.games += other.games;
        self.ios += other.ios;
        self.disks.add(&other.disks);
        self.crashes += other.crashes;
        self.events += other.events;
    }
}

struct Disks<'w>(&'w World);

impl Opener for Disks<'_> {
    type Component = Attached;

    /// Opens a disk by its path: `d0`, `d1` and so on, or as a table prints them, `19:0`.
    fn open(&self, path: &str) -> Result<Attached, Errno> {
        let number = path.strip_prefix('d').or_else(|| path.strip_prefix("19:"));
        let disk: usize = number.and_then(|n| n.parse().ok()).ok_or(Errno::ENOENT)?;
        let state = self.0.shared.lock();
        let found = state.disks.get(disk).ok_or(Errno::ENXIO)?;
        Ok(Attached { disk, size: found.sectors(), sector_size: found.sector_size })
    }

    fn aes(&self) -> Option<&'static dyn Aes> {
        Some(&aes::RUST)
    }

    fn cpus(&self) -> usize {
        2
    }

    fn shared(&self, dev: Dev, kind: TypeId, choose: &mut Choose<'_>) -> AnyShared {
        self.0.registry.borrow_mut().get(dev, kind, choose)
    }

    fn hash(&self, name: &str) -> Option<&'static dyn Hash> {
        hash::find(name)
    }

    fn read_only(&self) -> bool {
        true
    }
}

impl World {
    /// A world of these disks, with `devices` devices without tables.
    pub fn new(
        seed: u64,
        types: &'static [&'static TargetType],
        mut disks: Vec<Disk>,
        devices: usize,
        story: bool,
    ) -> World {
        let mut rng = Rng::new(seed);
        for disk in &mut disks {
            disk.keeps_fua &= rng.chance(3, 4);
        }
        let unit = disks.iter().map(|disk| disk.sector_size as usize).fold(SECTOR, usize::max);
        let state = State {
            temper: Temper::random(&mut rng),
            // So that the clock wraps around in some games.
            now: (rng.below(400) as u32).wrapping_sub(200),
            moment: 0,
            max_io: *rng.pick(&[3 * unit, 8 * unit, 65536]),
            disks,
            flights: Vec::new(),
            devices: (0..devices).map(|_| Device::new()).collect(),
            hosts: Vec::new(),
            ios: BTreeMap::new(),
            next_io: 0,
            todo: Vec::new(),
            stalled: None,
            cut: None,
            media: None,
            failed_before: 0,
            events: 0,
            crashes: 0,
            story: story.then(Vec::new),
            rng,
        };
        World { shared: Shared::new(state), registry: RefCell::default(), types }
    }

    /// `true` if every I/O has been answered.
    pub fn is_idle(&self) -> bool {
        self.with(|state| state.ios.is_empty())
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut State) -> R) -> R {
        use_it(&mut self.shared.lock())
    }

    /// Records an event of the game in the story, if there is one.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        self.with(|state| state.tell(what));
    }

    /// The story so far, if the world was made with one.
    pub fn story(&self) -> Vec<String> {
        self.with(|state| state.story.clone().unwrap_or_default())
    }

    /// The totals so far.
    pub fn totals(&self) -> Totals {
        self.with(|state| {
            let mut disks = Counts::default();
            for disk in &state.disks {
                disks.add(&disk.counts);
            }
            let ios = state.next_io as u64;
            Totals { games: 1, ios, disks, crashes: state.crashes, events: state.events }
        })
    }

    /// Makes a choice.
    pub fn choose<R>(&self, choice: impl FnOnce(&mut Rng) -> R) -> R {
        self.with(|state| choice(&mut state.rng))
    }

    /// The number of disks.
    pub fn disks(&self) -> usize {
        self.with(|state| state.disks.len())
    }

    /// The number of devices.
    pub fn devices(&self) -> usize {
        self.with(|state| state.devices.len())
    }

    /// Examines a disk, or changes it.
    pub fn disk<R>(&self, disk: usize, use_it: impl FnOnce(&mut Disk) -> R) -> R {
        self.with(|state| use_it(&mut state.disks[disk]))
    }

    /// Examines the model of a device, or changes it.
    pub fn model<R>(&self, device: usize, use_it: impl FnOnce(&mut Model) -> R) -> R {
        self.with(|state| use_it(&mut state.devices[device].model))
    }

    /// Has I/O on these sectors expected to fail from now on.
    pub fn must_fail(&self, device: usize, sectors: core::ops::Range<u64>) {
        self.with(|state| state.devices[device].failing.push(sectors));
    }

    /// Has I/O on the device allowed to fail though no disk has failed, or not any more.
    pub fn may_fail(&self, device: usize, may: bool) {
        self.with(|state| state.devices[device].may_fail = may);
    }

    /// Expects nothing of a device's content any more, and allows all its I/O to fail.
    pub fn promise_nothing(&self, device: usize) {
        self.with(|state| {
            let device = &mut state.devices[device];
            device.model.lost = true;
            device.may_fail = true;
            device.failing.clear();
        });
    }

    /// Has writes and discards on the device expected to fail, and reads, even those that fail, to
    /// give no wrong data.
    pub fn read_only(&self, device: usize) {
        self.with(|state| state.devices[device].read_only = true);
    }

    /// `true` if a disk has failed a command since the disks came up.
    pub fn has_failed(&self) -> bool {
        self.with(|state| state.failed() > 0)
    }

    /// The number of events that the targets of a device have raised.
    pub fn raised(&self, device: usize) -> u64 {
        self.with(|state| state.devices[device].raised)
    }

    /// Raises the largest I/O to so many bytes at least.
    pub fn take_io_of(&self, bytes: usize) {
        self.with(|state| state.max_io = state.max_io.max(bytes));
    }

    /// Bytes in the largest I/O.
    pub fn max_io(&self) -> usize {
        self.with(|state| state.max_io)
    }

    /// `true` from a power cut until [`World::power_up`]. Nothing that a game does meanwhile has an
    /// effect, and nothing that it sees is promised.
    pub fn is_off(&self) -> bool {
        self.with(|state| state.off())
    }

    /// Cuts the power after so many events.
    pub fn cut_after(&self, events: u64) {
        self.with(|state| state.cut = Some(events));
    }

    /// Has a disk not answer for so many events, unless no other event is possible.
    pub fn stall(&self, disk: usize, events: u64) {
        self.tell(|| format!("d{disk} stalls"));
        self.with(|state| state.stalled = Some((disk, events)));
    }

    /// Calls off the power cut of [`World::cut_after`].
    pub fn cut_never(&self) {
        self.with(|state| state.cut = None);
    }

    /// The active table of a device.
    pub fn table(&self, device: usize) -> Option<Arc<Table<Attached>>> {
        self.with(|state| state.devices[device].table.clone())
    }

    /// Builds a table for a device: lines of `START LENGTH TARGET PARAMETERS`. [`World::swap`]
    /// makes it active.
    ///
    /// # Panics
    /// When the table is refused.
    pub fn load(&self, device: usize, text: &str) -> Loaded {
        self.try_load(device, text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// [`World::load`] of a table that may be refused.
    ///
    /// # Errors
    /// The driver's, in words.
    pub fn try_load(&self, device: usize, text: &str) -> Result<Loaded, String> {
        self.tell(|| format!("table for device {device}: {}", text.trim().replace('\n', "; ")));
        let opener = Disks(self);
        let mut builder = Builder::with_types(&opener, self.types);
        for line in text.lines() {
            let mut words = line.trim().splitn(4, ' ');
            let mut word = || words.next().unwrap_or("");
            let (start, length) = (word().parse(), word().parse());
            let (start, length) = (start.expect("a start"), length.expect("a length"));
            let (kind, params) = (word(), word());
            builder.line(start, length, kind, params).map_err(|error| error.to_string())?;
        }
        let mut table = builder.build().map_err(|error| error.to_string())?;
        if table.serving().is_empty() {
            return Ok(Loaded { table: Arc::new(table), host: None });
        }
        let plan = executor::plan(table.serving());
        let ready = Arc::new(Ready::new(&plan.runners, plan.threads));
        let disks = table.components().iter().map(|component| component.disk).collect();
        let host = Host::new(&self.shared, device, disks, &plan, &ready);
        let shared = Arc::downgrade(&self.shared);
        let raise = Box::new(move || {
            if let Some(shared) = shared.upgrade() {
                let mut state = shared.lock();
                // The events have no receiver while the power is off.
                let on = !state.off();
                state.devices[device].raised += u64::from(on);
            }
        });
        let serving = table.serving().to_vec();
        let (engine, runners) = Executor::new(host.clone(), ready, serving, raise);
        crate::host::Host::run(host.clone(), runners).expect("threads");
        table.set_engine(engine);
        Ok(Loaded { table: Arc::new(table), host: Some(host.number) })
    }

    /// Suspends a device: has it hold new I/O, waits for I/O in flight, and stops its table.
    pub fn suspend(&self, device: usize, how: Quiesce) {
        self.tell(|| format!("device {device} is suspended ({how:?})"));
        let Some(table) = self.begin_suspend(device, how) else { return };
        self.shared
            .run_until("a device that is suspended", |state| state.devices[device].active == 0);
        self.stop(&table);
    }

    /// Has a device hold new I/O, lets `events` events happen, and releases the I/O: a suspend that
    /// is interrupted.
    pub fn suspend_interrupted(&self, device: usize, how: Quiesce, events: u64) {
        self.tell(|| format!("device {device} is being suspended ({how:?})"));
        let Some(table) = self.begin_suspend(device, how) else { return };
        self.run(events);
        self.tell(|| format!("device {device} goes on"));
        if let Some(engine) = table.engine() {
            engine.go_on();
        }
        self.shared.release(device);
    }

    fn begin_suspend(&self, device: usize, how: Quiesce) -> Option<Arc<Table<Attached>>> {
        let (table, between) = self.with(|state| {
            state.devices[device].quiescing = true;
            (
                state.devices[device].table.clone(),
                state.rng.chance(1, 2).then(|| state.rng.below(8)),
            )
        });
        let table = table?;
        if let Some(engine) = table.engine() {
            engine.suspending(how);
        }
        // I/O may still come between the two.
        if let Some(events) = between {
            let unit = u64::from(table.sector_size()) / SECTOR as u64;
            self.submit(device, Op::Read, 0, unit, false);
            self.submit(device, Op::Write, 0, unit, false);
            self.run(events);
        }
        self.with(|state| state.devices[device].held = true);
        Some(table)
    }

    fn stop(&self, table: &Table<Attached>) {
        let Some(engine) = table.engine() else { return };
        engine.stop();
        self.with(|state| {
            for host in state.hosts.iter_mut().flatten() {
                if core::ptr::eq(host.executor.as_ptr(), Arc::as_ptr(engine)) {
                    assert!(host.idle(), "a stopped table has I/O in flight");
                    host.started = false;
                }
            }
        });
    }

    fn start(&self, loaded: &Loaded) -> Result<(), Errno> {
        let Some(engine) = loaded.table.engine() else { return Ok(()) };
        let started = |is| {
            self.with(|state| {
                let host = loaded.host.and_then(|host| state.hosts[host].as_mut());
                host.expect("the table's host").started = is;
            });
        };
        started(true);
        let result = engine.start();
        if result.is_err() {
            started(false);
        }
        result
    }

    /// Makes a table active in a device that is suspended, and resumes it. If the table does not
    /// start the device goes on with the one before.
    ///
    /// # Errors
    /// The errno with which the table did not start.
    ///
    /// # Panics
    /// When the table does not start though no disk has failed.
    pub fn swap(&self, device: usize, new: Loaded) -> Result<(), Errno> {
        match self.try_swap(device, new) {
            Ok(()) => Ok(()),
            Err(errno) => {
                let excused = self.is_off() || self.has_failed();
                assert!(excused, "a table does not start ({errno:?}), though no disk failed");
                if self.resume(device).is_err() && !self.is_off() && self.choose(|r| r.chance(1, 2))
                {
                    // As the driver does if the device was not suspended before.
                    self.release(device);
                }
                Err(errno)
            }
        }
    }

    /// [`World::swap`] to a table that may not start, for what is on the disks. The device stays
    /// suspended then.
    ///
    /// # Errors
    /// The errno with which the table did not start.
    pub fn try_swap(&self, device: usize, new: Loaded) -> Result<(), Errno> {
        self.tell(|| format!("device {device} is resumed with the new table"));
        if let Err(errno) = self.start(&new) {
            self.tell(|| format!("it does not start: {errno:?}"));
            return Err(errno);
        }
        let size = new.table.size().0;
        let old = self.with(|state| {
            let now = state.tick();
            let device = &mut state.devices[device];
            if device.model.sectors() != size {
                device.model.resize(size, now);
            }
            device.table.replace(new.table)
        });
        drop(old);
        self.shared.release(device);
        Ok(())
    }

    /// Has another thread do something, but load a table, at some later moment, at which the call
    /// that waits next need not be over.
    pub fn meanwhile(&self, what: impl FnOnce(&World) + Send + 'static) {
        self.with(|state| state.todo.push(Todo::Other(Box::new(what))));
    }

    /// The world as [`World::meanwhile`] gives it to another thread.
    pub(super) fn for_other(shared: &Arc<Shared>) -> World {
        World { shared: shared.clone(), registry: RefCell::default(), types: &[] }
    }

    /// Resumes a device that is suspended, with the table it has.
    ///
    /// # Errors
    /// The errno with which the table did not start; the device stays suspended.
    ///
    /// # Panics
    /// When the table does not start though no disk has failed.
    pub fn resume(&self, device: usize) -> Result<(), Errno> {
        let result = self.try_resume(device);
        if let Err(errno) = result {
            let excused = self.is_off() || self.has_failed();
            assert!(excused, "a table does not start ({errno:?}), though no disk failed");
        }
        result
    }

    /// [`World::resume`] with a table that may not start.
    ///
    /// # Errors
    /// The errno with which the table did not start; the device stays suspended.
    pub fn try_resume(&self, device: usize) -> Result<(), Errno> {
        self.tell(|| format!("device {device} is resumed"));
        let Some(table) = self.table(device) else { return Ok(()) };
        let host = self.with(|state| {
            let mut hosts = state.hosts.iter().flatten();
            let engine = table.engine().map(Arc::as_ptr);
            hosts.find(|host| Some(host.executor.as_ptr()) == engine).map(|host| host.host.number)
        });
        let result = self.start(&Loaded { table, host });
        if result.is_ok() {
            self.shared.release(device);
        }
        result
    }

    /// Releases a device's I/O with the table that it has, started or not.
    pub fn release(&self, device: usize) {
        self.tell(|| format!("I/O on device {device} goes on"));
        self.shared.release(device);
    }

    /// `true` if a device's table is started, or need not be.
    pub fn is_started(&self, device: usize) -> bool {
        let table = self.table(device);
        table.is_some_and(|table| table.engine().is_none_or(|engine| engine.is_running()))
    }

    /// `true` while a device is suspended.
    pub fn is_suspended(&self, device: usize) -> bool {
        self.with(|state| state.devices[device].held)
    }

    /// Begins an I/O of `length` sectors. Its answer is checked when it comes.
    pub fn submit(&self, device: usize, op: Op, start: u64, length: u64, fua: bool) {
        self.shared.submit(device, op, (start, length), fua);
    }

    /// Lets so many events happen.
    pub fn run(&self, events: u64) {
        for _ in 0..events {
            if !self.shared.step() {
                return;
            }
        }
    }

    /// Lets `milliseconds` milliseconds pass.
    pub fn pass(&self, milliseconds: u32) {
        self.shared.pass(milliseconds);
    }

    /// Waits until no I/O is in flight on a device. Returns at once when it is suspended.
    pub fn settle(&self, device: usize) {
        self.shared.run_until("I/O", |state| {
            state.off() || state.devices[device].held || state.devices[device].is_idle()
        });
    }

    /// Waits until no I/O is in flight on a device. `false` when no event is possible any more and
    /// some still is.
    pub fn settles(&self, device: usize) -> bool {
        self.shared.runs_until(|state| {
            state.off() || state.devices[device].held || state.devices[device].is_idle()
        })
    }

    /// Reads all of a device, and waits for it. The content is checked as always.
    pub fn read_all(&self, device: usize) {
        let Some(table) = self.table(device) else { return };
        let most = (self.max_io() / SECTOR) as u64;
        let size = table.size().0;
        for start in (0..size).step_by(most as usize) {
            self.submit(device, Op::Read, start, most.min(size - start), false);
            self.settle(device);
        }
    }

    /// Sends a message to the target that holds a sector.
    ///
    /// # Errors
    /// The target's.
    pub fn message(&self, device: usize, sector: u64, text: &str) -> Result<String, Errno> {
        self.tell(|| format!("message to sector {sector} of device {device}: {text}"));
        let table = self.table(device).ok_or(Errno::ENXIO)?;
        let mut reply = String::new();
        table.target(Sector(sector)).ok_or(Errno::EINVAL)?.message(text, &mut reply)?;
        // As the driver does: a lane may wait for something that the message changed.
        if let Some(engine) = table.engine() {
            engine.look_again();
        }
        Ok(reply)
    }

    /// The status of the line that holds a sector.
    pub fn status(&self, device: usize, sector: u64) -> String {
        let table = self.table(device).expect("a table");
        let target = table.target(Sector(sector)).expect("a line");
        table.describe(target, false)
    }

    /// Suspends a device, unless it is suspended, and takes its table down.
    pub fn remove(&self, device: usize, how: Quiesce) {
        if !self.is_suspended(device) {
            self.suspend(device, how);
        }
        // I/O that waits for a resume, which does not come, fails.
        let table = self.with(|state| {
            let queue = core::mem::take(&mut state.devices[device].queue);
            state.devices[device].active += queue.len();
            for stretch in queue {
                state.stretch_over(&stretch, Err(Errno::ENXIO));
            }
            state.devices[device].table.take()
        });
        drop(table);
    }

    /// Takes the tables of all devices down. With the power off this stands for the old kernel's
    /// memory going away, and shows that nothing hangs when disks are gone.
    pub fn take_down(&self, how: Quiesce) {
        (0..self.devices()).for_each(|device| self.remove(device, how));
        let left = self.with(|state| state.ios.len());
        assert!(left == 0, "{left} I/O without an answer");
    }

    /// Brings the disks up after a power cut.
    pub fn power_up(&self) {
        // The kernel's memory is gone, whoever still holds a part of it.
        self.registry.take();
        self.with(|state| {
            let media = state.media.take().into_iter().flatten();
            for (disk, medium) in state.disks.iter_mut().zip(media) {
                disk.power_up(medium);
            }
            state.failed_before += state.failed();
            state.hosts.clear();
            state.tell(|| String::from("the power is back"));
        });
    }
}
