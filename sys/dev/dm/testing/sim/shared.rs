// SPDX-License-Identifier: BSD-2-Clause

//! The scheduler: one thread, and a seed that decides what happens next.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::disk::{Command, Disk, Transfer};
use super::host::{Host, HostState};
use super::io::{Device, Io, Owner, Stretch};
use super::model::Moment;
use super::rng::Rng;
use super::world::World;
use crate::job::Op;
use crate::{Errno, Sector, SectorRange};

/// Stretches of I/O that wait for a resume or for a job's number.
pub(super) type Waiting = VecDeque<Stretch>;

/// A command in flight to a disk.
pub(super) struct Flight {
    pub disk: usize,
    pub transfer: Transfer,
    pub owner: Owner,
}

/// The scheduler's preferences in one game.
#[derive(Clone, Copy, Debug)]
pub(super) struct Temper {
    /// The weight of a lane that is ready, against 2 for a disk that answers.
    pub lanes: u64,
    /// Of 4 answers, the number that are the newest command's.
    pub newest: u64,
    /// Of 4 answers, the number that are the oldest command's, unless the newest's.
    pub oldest: u64,
    /// Of 64 events, the number that are a millisecond passing.
    pub time: u64,
    /// Of 64 events, the number that are a lane polled without a reason.
    pub spurious: u64,
    /// Of 8 commands, the number that are over before the call that began them returns.
    pub at_once: u64,
}

impl Temper {
    pub fn random(rng: &mut Rng) -> Temper {
        Temper {
            lanes: *rng.pick(&[1, 2, 2, 4, 16]),
            newest: *rng.pick(&[0, 0, 1, 3]),
            oldest: *rng.pick(&[0, 0, 1, 3]),
            time: *rng.pick(&[0, 1, 1, 8]),
            spurious: *rng.pick(&[0, 1, 1, 8]),
            at_once: *rng.pick(&[0, 1, 1, 6]),
        }
    }
}

/// The state of a game, without the game's own.
pub(super) struct State {
    pub rng: Rng,
    pub temper: Temper,
    /// The clock, in milliseconds.
    pub now: u32,
    pub moment: Moment,
    pub disks: Vec<Disk>,
    pub flights: Vec<Flight>,
    pub devices: Vec<Device>,
    pub hosts: Vec<Option<HostState>>,
    pub ios: BTreeMap<usize, Io>,
    /// The number of the next I/O.
    pub next_io: usize,
    /// The tasks of the kernel's side.
    pub todo: Vec<Todo>,
    /// A disk that does not answer, as long as another event is possible, and the number of events
    /// for which that is so.
    pub stalled: Option<(usize, u64)>,
    /// The number of events until the power is cut.
    pub cut: Option<u64>,
    /// The disks' contents after a power cut, until the disks come up.
    pub media: Option<Vec<Vec<u8>>>,
    /// The number of commands that had failed when the disks came up.
    pub failed_before: u64,
    pub events: u64,
    pub crashes: u64,
    /// Bytes in the largest command.
    pub max_io: usize,
    pub story: Option<Vec<String>>,
}

impl State {
    /// Advances to the next moment.
    pub fn tick(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    /// `true` from when the power was cut until the disks come up.
    pub fn off(&self) -> bool {
        self.media.is_some()
    }

    /// Records an event in the story, if there is one.
    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:>6}  {}", self.moment, what()));
        }
    }

    /// The number of commands that failed since the disks came up.
    pub fn failed(&self) -> u64 {
        self.disks.iter().map(|disk| disk.counts.failed).sum::<u64>() - self.failed_before
    }

    /// The moment at which the oldest read in flight on a device began, or now.
    pub fn oldest_read(&self, device: usize) -> Moment {
        let reads = self.ios.values().filter(|io| io.device == device && io.is_read());
        reads.map(|io| io.from).min().unwrap_or(self.moment)
    }

    /// Sends a command to a disk. The answer is its index in the flights.
    pub fn send(
        &mut self,
        disk: usize,
        command: Command,
        range: (u64, u64),
        data: Vec<u8>,
        owner: Owner,
    ) {
        self.tell(|| format!("    d{disk} {command:?} {}+{} begins for {owner}", range.0, range.1));
        let transfer = self.disks[disk].begin(command, range, data, &mut self.rng);
        self.flights.push(Flight { disk, transfer, owner });
    }

    /// Cuts the power now.
    fn power_cut(&mut self) {
        self.cut = None;
        self.crashes += 1;
        let now = self.tick();
        self.tell(|| String::from("the power is cut"));
        let mut media = Vec::new();
        for (at, disk) in self.disks.iter_mut().enumerate() {
            let mine = self.flights.iter().filter(|flight| flight.disk == at);
            let under_way = mine.map(|flight| &flight.transfer);
            media.push(disk.after_power_cut(under_way, &mut self.rng));
            disk.off = true;
        }
        self.media = Some(media);
        for device in &mut self.devices {
            device.model.crash(now);
        }
    }

    /// The number of flights that may be over next. Those of a stalled disk are not among them,
    /// unless no other event is possible.
    fn answers(&mut self, ready: u64) -> u64 {
        if let Some((stalled, left)) = self.stalled {
            let others = self.flights.iter().filter(|flight| flight.disk != stalled).count() as u64;
            self.stalled = left.checked_sub(1).map(|left| (stalled, left));
            if others + ready + self.todo.len() as u64 > 0 {
                return others;
            }
            self.stalled = None;
        }
        self.flights.len() as u64
    }

    /// Chooses the flight that is over next.
    fn choose_flight(&mut self, answers: u64) -> usize {
        if answers < self.flights.len() as u64 {
            let choice = self.rng.index(answers as usize);
            let stalled = self.stalled.map_or(usize::MAX, |(disk, _)| disk);
            let mut others = self.flights.iter().enumerate();
            let other = others.by_ref().filter(|(_, flight)| flight.disk != stalled).nth(choice);
            return other.map_or(0, |(at, _)| at);
        }
        let last = self.flights.len() - 1;
        if self.rng.chance(self.temper.newest, 4) {
            last
        } else if self.rng.chance(self.temper.oldest, 4) {
            0
        } else {
            self.rng.index(last + 1)
        }
    }
}

/// A task of the kernel's side of a device.
pub(super) enum Todo {
    /// The number of a job of a line was freed while I/O waited for one.
    Freed(usize, usize),
    /// A stretch is to be mapped: it is retried, or was given back before the device held I/O.
    Map(usize, Stretch),
    /// Another thread does something.
    Other(Box<dyn FnOnce(&World) + Send>),
}

/// The next event.
enum Event {
    Lane(Arc<Host>, usize, usize),
    Answer(usize),
    Todo(usize),
    Time,
    Nothing,
}

/// A game's state, shared by its hosts.
pub(super) struct Shared(Mutex<State>);

impl Shared {
    pub fn new(state: State) -> Arc<Shared> {
        Arc::new(Shared(Mutex::new(state)))
    }

    /// Locks the state. The lock must not be held while the driver's code runs.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the next event happen. `false` if none is possible.
    pub fn step(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        state.events += 1;
        if let Some(left) = state.cut {
            match left.checked_sub(1) {
                Some(left) => state.cut = Some(left),
                None => state.power_cut(),
            }
        }
        match Self::choose(&mut state) {
            Event::Lane(host, runner, choice) => {
                drop(state);
                host.poll(runner, choice);
            }
            Event::Answer(at) => {
                let flight = state.flights.remove(at);
                drop(state);
                self.finish(flight);
            }
            Event::Todo(at) => {
                let todo = state.todo.swap_remove(at);
                drop(state);
                self.do_it(todo);
            }
            Event::Time => {
                drop(state);
                self.pass(1);
            }
            Event::Nothing => {
                drop(state);
                return match self.next_sleeper() {
                    Some(left) => {
                        self.pass(left);
                        true
                    }
                    None => false,
                };
            }
        }
        true
    }

    /// Has all happen that can, in a fixed order, but the answers of commands that `held` names;
    /// no time passes.
    #[cfg(test)]
    pub fn run_all_but(self: &Arc<Self>, held: impl Fn(usize, &Transfer) -> bool) {
        loop {
            let mut state = self.lock();
            let goes = |flight: &Flight| !held(flight.disk, &flight.transfer);
            if let Some(at) = state.flights.iter().position(goes) {
                let flight = state.flights.remove(at);
                drop(state);
                self.finish(flight);
                continue;
            }
            let mut hosts = state.hosts.iter_mut().flatten();
            if let Some(host) = hosts.find_map(|host| (host.ready_runners() > 0).then_some(host)) {
                let (host, runner) = (host.host.clone(), host.ready_runner(0));
                drop(state);
                host.poll(runner, 0);
                continue;
            }
            let Some(todo) = state.todo.pop() else { return };
            drop(state);
            self.do_it(todo);
        }
    }

    fn do_it(self: &Arc<Self>, todo: Todo) {
        match todo {
            Todo::Freed(device, line) => self.route_waiting(device, line),
            Todo::Map(device, stretch) => self.route(device, stretch),
            Todo::Other(what) => what(&World::for_other(self)),
        }
    }

    fn choose(state: &mut State) -> Event {
        let State { hosts, temper, .. } = state;
        let lanes = temper.lanes;
        let ready: u64 = hosts.iter_mut().flatten().map(HostState::ready_runners).sum();
        let (answers, todo) = (state.answers(ready), state.todo.len() as u64);
        let all = ready * lanes + answers * 2 + todo * 2;
        if all == 0 {
            return Event::Nothing;
        }
        if state.rng.chance(state.temper.time, 64) {
            return Event::Time;
        }
        if state.rng.chance(state.temper.spurious, 64) {
            let State { hosts, rng, .. } = state;
            let hosts: Vec<&mut HostState> = hosts.iter_mut().flatten().collect();
            let which = rng.index(hosts.len().max(1));
            if let Some(host) = hosts.into_iter().nth(which) {
                host.poll_for_nothing(rng);
            }
        }
        let choice = state.rng.below(all);
        if choice < ready * lanes {
            let lane = state.rng.index(64);
            let mut left = choice / lanes;
            for host in state.hosts.iter_mut().flatten() {
                let mine = host.ready_runners();
                if left < mine {
                    let runner = host.ready_runner(left as usize);
                    return Event::Lane(host.host.clone(), runner, lane);
                }
                left -= mine;
            }
        }
        if choice < ready * lanes + answers * 2 {
            return Event::Answer(state.choose_flight(answers));
        }
        Event::Todo(state.rng.index(todo as usize))
    }

    /// Lets so many milliseconds pass.
    pub fn pass(&self, milliseconds: u32) {
        let hosts: Vec<Arc<Host>> = {
            let mut state = self.lock();
            state.now = state.now.wrapping_add(milliseconds);
            state.tell(|| format!("{milliseconds} ms pass"));
            state.hosts.iter().flatten().map(|host| host.host.clone()).collect()
        };
        for host in hosts {
            host.wake_sleepers();
        }
    }

    /// The number of milliseconds until the next sleeping lane wakes.
    fn next_sleeper(&self) -> Option<u32> {
        let hosts: Vec<Arc<Host>> =
            self.lock().hosts.iter().flatten().map(|host| host.host.clone()).collect();
        hosts.iter().filter_map(|host| host.wake_sleepers()).min()
    }

    /// Has a disk answer.
    pub fn finish(&self, mut flight: Flight) {
        let mut state = self.lock();
        let State { disks, rng, .. } = &mut *state;
        let result = disks[flight.disk].finish(&mut flight.transfer, rng);
        let Flight { disk, transfer, owner } = flight;
        state.tell(|| {
            let (sector, length) = (transfer.sector, transfer.length);
            let command = transfer.command;
            let result = Answered(result);
            format!("    d{disk} {command:?} {sector}+{length} for {owner}: {result}")
        });
        match owner {
            Owner::Stretch(stretch) if stretch.tracked => {
                if result.is_ok() {
                    state.take_data(&stretch, &transfer);
                }
                let (table, range) = state.range_of(&stretch);
                drop(state);
                // The target's code: no lock is held.
                let range = SectorRange::between(Sector(range.start), Sector(range.end));
                let asks = table.as_ref().and_then(|table| Some(table.tracker(range.start)?.end()));
                let table = table.filter(|_| asks == Some(true));
                let result = table.map_or(result, |table| table.untrack(range, result));
                self.lock().stretch_over(&stretch, result);
            }
            Owner::Stretch(stretch) => {
                let retry = state.may_retry(&stretch).filter(|_| result.is_err());
                drop(state);
                // The target's code: no lock is held.
                let retry = retry.is_some_and(|(table, range)| {
                    let range = SectorRange::between(Sector(range.start), Sector(range.end));
                    table.map_failed(range, Op::Read).is_some()
                });
                let mut state = self.lock();
                match retry {
                    true => state.retry(stretch),
                    false => state.stretch_answered(&stretch, &transfer, result),
                }
            }
            Owner::Lane { host, lane, place, job } => {
                if let Some(stretch) = job.filter(|_| result.is_ok()) {
                    state.take_data(&stretch, &transfer);
                }
                if let Some(host) = state.hosts.get_mut(host).and_then(Option::as_mut) {
                    host.answered(lane, place, &transfer, result);
                }
            }
            Owner::Each { host, engine, info, place, stretch } => {
                if result.is_ok() {
                    state.take_data(&stretch, &transfer);
                }
                let host = state.hosts.get_mut(host).and_then(Option::as_mut);
                let over =
                    host.and_then(|h| h.job_answered(info.number(), place, &transfer, result));
                drop(state);
                if let Some(outcome) = over {
                    engine.answered(info, outcome);
                }
            }
            Owner::Forward { host, engine, info, .. } => {
                let stretch = state.take_job(host, info.number());
                drop(state);
                self.lock().stretch_answered(&stretch, &transfer, result);
                engine.free(&info);
            }
        }
    }
}

/// A result, in words.
pub(super) struct Answered(pub Result<(), Errno>);

impl core::fmt::Display for Answered {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Ok(()) => f.write_str("done"),
            Err(errno) => write!(f, "{errno:?}"),
        }
    }
}
