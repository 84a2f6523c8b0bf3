// SPDX-License-Identifier: BSD-2-Clause

//! The engine's host: lanes' requests become commands of disks, and the scheduler stands for its
//! threads.
//!
//! The host is stricter than a kernel: it panics when a lane has two requests, when I/O goes beyond
//! a disk's end or comes before the table was started, and when a write's data is changed; a runner
//! that nobody woke is not polled.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::ffi::CStr;
use core::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::disk::{Command, SECTOR, Transfer};
use super::io::{Owner, Stretch};
use super::rng::Rng;
use super::shared::{Answered, Shared, State};
use crate::executor::{Executor, Runner};
use crate::host::{self, Answer, Completions, Plan, Ready, Request};
use crate::job::{JobInfo, Op, Place};
use crate::lane::Outcome;
use crate::target::ComponentIndex;
use crate::units::SectorRange;
use crate::{Errno, Sector};

/// The host of one table.
pub(super) struct Host {
    pub shared: Arc<Shared>,
    /// The host's number in its game.
    pub number: usize,
    pub device: usize,
    /// The disks that are the table's components, in order.
    pub disks: Vec<usize>,
    pub ready: Arc<Ready>,
    /// The runners. Each is taken out while it polls a lane.
    runners: Mutex<Vec<Option<Runner>>>,
}

/// A host's changing state.
pub(super) struct HostState {
    pub host: Arc<Host>,
    pub executor: Weak<Executor>,
    /// `true` from when the engine is told to start until it has stopped.
    pub started: bool,
    lanes: Vec<LaneState>,
    /// The I/O of each job that is in use.
    jobs: Vec<Option<Stretch>>,
    /// The answers to each job that is forwarded to several places.
    forwarded: Vec<LaneState>,
    /// For each runner, `true` from when it is woken until none of its lanes is ready.
    awake: Vec<bool>,
    announced: bool,
}

/// The state of a lane's request, or of a job's places.
#[derive(Default)]
struct LaneState {
    /// The most places of a request.
    width: usize,
    /// Places that have not answered.
    left: usize,
    failed: u32,
    /// The first place that failed, and its errno.
    first: Option<(usize, Errno)>,
    data: Option<Box<[u8]>>,
    made: Option<Box<dyn Any + Send>>,
    /// `true` for a lane that does I/O while the device is suspended.
    resident: bool,
    at: usize,
    answer: Option<Answer>,
}

impl LaneState {
    fn end(&mut self) {
        let errno = self.first.take().map_or(Errno::EIO, |(_, errno)| errno);
        let failed = core::mem::take(&mut self.failed);
        let (data, made) = (self.data.take(), self.made.take());
        self.answer = Some(Answer { failed, errno, data, made });
    }
}

impl Host {
    /// The table's engine, which exists while the host is in use.
    fn engine(&self) -> Arc<Executor> {
        let engine = self.with(|state, number| state.host(number).executor.upgrade());
        engine.expect("an engine whose jobs are forwarded")
    }

    /// The host of a table of a device, with these disks as components, in order.
    pub fn new(
        shared: &Arc<Shared>,
        device: usize,
        disks: Vec<usize>,
        plan: &Plan,
        ready: &Arc<Ready>,
    ) -> Arc<Host> {
        let mut state = shared.lock();
        let number = state.hosts.len();
        let runners = Mutex::new(Vec::new());
        let (shared, ready) = (shared.clone(), ready.clone());
        let host = Arc::new(Host { shared, number, device, disks, ready, runners });
        let lane = |width: &usize| LaneState { width: *width, ..LaneState::default() };
        let mut lanes: Vec<LaneState> = plan.lanes.iter().map(lane).collect();
        for (lane, resident) in lanes.iter_mut().zip(&plan.residents) {
            lane.resident = *resident;
        }
        state.hosts.push(Some(HostState {
            host: host.clone(),
            executor: Weak::new(),
            started: false,
            lanes,
            jobs: plan.jobs.iter().map(|_| None).collect(),
            forwarded: plan.jobs.iter().map(lane).collect(),
            awake: (0..host.ready.runners()).map(|_| false).collect(),
            announced: false,
        }));
        drop(state);
        host
    }

    /// Polls one of the ready lanes of a runner.
    pub fn poll(&self, runner: usize, choice: usize) {
        /// Puts the runner back when it is dropped, even by a panic: dropping the runner would drop
        /// its jobs.
        struct Away<'a>(&'a Host, usize, Option<Runner>);
        impl Drop for Away<'_> {
            fn drop(&mut self) {
                if let Some(place) = self.0.runners().get_mut(self.1) {
                    *place = self.2.take();
                }
            }
        }
        let Some(at) = self.ready.take_one(runner, choice) else { return };
        let taken = self.runners().get_mut(runner).and_then(Option::take);
        let mut away = Away(self, runner, taken);
        if let Some(runner) = &mut away.2 {
            runner.poll(at);
        }
    }

    /// Wakes the lanes whose time has come. The answer is the number of milliseconds to the next
    /// one's.
    pub fn wake_sleepers(&self) -> Option<u32> {
        let mut next = None;
        for at in 0..self.ready.runners() {
            let runner = self.runners().get_mut(at).and_then(Option::take);
            let Some(runner) = runner else { continue };
            next = next.into_iter().chain(runner.wake_sleepers()).min();
            if let Some(place) = self.runners().get_mut(at) {
                *place = Some(runner);
            }
            if self.ready.any(at) {
                host::Host::kick(self, at);
            }
        }
        next
    }

    fn runners(&self) -> std::sync::MutexGuard<'_, Vec<Option<Runner>>> {
        self.runners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut State, usize) -> R) -> R {
        use_it(&mut self.shared.lock(), self.number)
    }
}

impl State {
    fn host(&mut self, number: usize) -> &mut HostState {
        self.hosts[number].as_mut().expect("the host of a table that is alive")
    }

    /// Takes the stretch of a job that is over.
    pub fn take_job(&mut self, host: usize, number: usize) -> Stretch {
        self.host(host).jobs[number].take().expect("a job in use")
    }
}

impl HostState {
    pub fn ready_runners(&mut self) -> u64 {
        let mut count = 0;
        for (runner, awake) in self.awake.iter_mut().enumerate() {
            if *awake {
                *awake = self.host.ready.any(runner);
                count += u64::from(*awake);
            }
        }
        count
    }

    /// The runner that is the `choice`th to be ready.
    pub fn ready_runner(&self, choice: usize) -> usize {
        let mut awake = self.awake.iter().enumerate().filter(|(_, awake)| **awake);
        awake.nth(choice).map_or(0, |(runner, _)| runner)
    }

    /// Records the stretch of a job that begins.
    pub fn put_job(&mut self, number: usize, stretch: Stretch) {
        let before = self.jobs[number].replace(stretch);
        assert!(before.is_none(), "the number of a job was given out twice");
    }

    /// Records a disk's answer to a lane's request.
    pub fn answered(
        &mut self,
        lane: usize,
        place: usize,
        transfer: &Transfer,
        result: Result<(), Errno>,
    ) {
        if self.lanes[lane].answered(place, transfer, result) {
            self.wake(lane);
        }
    }

    /// Records a disk's answer to a job that was forwarded to several places. The outcome, when all
    /// have answered.
    pub fn job_answered(
        &mut self,
        job: usize,
        place: usize,
        transfer: &Transfer,
        result: Result<(), Errno>,
    ) -> Option<Outcome> {
        let state = &mut self.forwarded[job];
        let over = state.answered(place, transfer, result);
        let answer = state.answer.take().filter(|_| over)?;
        state.data = answer.data;
        Some(Outcome { failed: answer.failed, errno: answer.errno })
    }

    /// Marks some lane as ready, which is allowed at any time.
    pub fn poll_for_nothing(&mut self, rng: &mut Rng) {
        let lane = rng.index(self.lanes.len());
        self.wake(lane);
    }

    fn wake(&mut self, lane: usize) {
        if let Some(runner) = self.host.ready.set(lane) {
            self.awake[runner] = true;
        }
    }

    /// `true` if nothing of the table's is in flight but what goes on while the device is
    /// suspended.
    pub fn idle(&self) -> bool {
        let idle = |lane: &LaneState| lane.left == 0 || lane.resident;
        self.jobs.iter().all(Option::is_none) && self.lanes.iter().all(idle)
    }
}

impl LaneState {
    /// Records a place's answer. `true` if it is the last.
    fn answered(&mut self, place: usize, transfer: &Transfer, result: Result<(), Errno>) -> bool {
        let state = self;
        match result {
            Err(errno) => {
                state.failed |= 1 << place;
                if state.first.is_none_or(|(first, _)| place < first) {
                    state.first = Some((place, errno));
                }
            }
            Ok(()) if transfer.command == Command::Read => {
                if let Some(data) = &mut state.data {
                    let range = state.at..state.at + transfer.data.len();
                    data[range].copy_from_slice(&transfer.data);
                }
            }
            Ok(()) => {}
        }
        state.left -= 1;
        if state.left == 0 {
            state.end();
        }
        state.left == 0
    }
}

impl host::Host for Host {
    fn run(self: Arc<Self>, runners: Vec<Runner>) -> Result<(), Errno> {
        let executor = runners.first().map(|runner| {
            let engine = runner.executor();
            // The simulation knows itself who waits, and looks each time.
            (0..engine.lines()).for_each(|line| engine.add_waiter(line));
            Arc::downgrade(engine)
        });
        *self.runners() = runners.into_iter().map(Some).collect();
        self.with(|state, number| {
            let host = state.host(number);
            host.executor = executor.unwrap_or_default();
            host.awake.fill(true);
        });
        Ok(())
    }

    fn end_threads(&self) {
        let state = self.with(|state, number| {
            let flying = state.flights.iter().any(|flight| flight.owner.host() == Some(number));
            assert!(!flying, "a table goes whose I/O is in flight");
            state.hosts.get_mut(number).and_then(Option::take)
        });
        let runners = core::mem::take(&mut *self.runners());
        drop((state, runners));
    }

    fn kick(&self, runner: usize) {
        self.with(|state, number| {
            if let Some(awake) = state.host(number).awake.get_mut(runner) {
                *awake = true;
            }
        });
    }

    fn begin(&self, lane: usize, request: Request, places: &[Place]) {
        self.launch(lane, places, |state, number| {
            let slot = &mut state.host(number).lanes[lane];
            let (command, length, data) = match request {
                Request::Read { data, at, bytes } => {
                    (slot.data, slot.at) = (Some(data), at);
                    assert!(places.len() == 1, "a read from one place");
                    (Command::Read, (bytes / SECTOR) as u64, Vec::new())
                }
                Request::Write { data, at, bytes, fua } => {
                    let bytes_sent = data[at..at + bytes].to_vec();
                    (slot.data, slot.at) = (Some(data), at);
                    (Command::Write { fua }, (bytes / SECTOR) as u64, bytes_sent)
                }
                Request::Flush => (Command::Flush, 0, Vec::new()),
                Request::Discard { length } => (Command::Discard, length.0, Vec::new()),
                Request::Make(make) => {
                    assert!(places.is_empty(), "memory is no component's");
                    slot.made = Some(make());
                    (Command::Flush, 0, Vec::new())
                }
            };
            (command, length, data, None)
        });
    }

    fn send(&self, lane: usize, info: &JobInfo, part: SectorRange, places: &[Place]) {
        assert!(part.end() <= info.length, "more than the job has");
        self.launch(lane, places, |state, number| {
            let stretch = state.host(number).jobs[info.number()].clone().expect("a job in use");
            let stretch = stretch.part(part.start.0, part.length.0);
            match info.op {
                Op::Read => (Command::Read, part.length.0, Vec::new(), Some(stretch)),
                Op::Write => {
                    let data = state.data_of(&stretch).to_vec();
                    (Command::Write { fua: info.fua }, part.length.0, data, None)
                }
                Op::Flush | Op::Discard => panic!("a {:?} has no data to send", info.op),
            }
        });
    }
    fn answer(&self, lane: usize) -> Option<Answer> {
        self.with(|state, number| state.host(number).lanes[lane].answer.take())
    }

    fn data(&self, job: usize, use_it: &mut dyn FnMut(&mut [u8])) {
        let (stretch, mut data, reads) = self.with(|state, number| {
            let stretch = state.host(number).jobs[job].clone().expect("a job in use");
            let data = state.data_of(&stretch).to_vec();
            let reads = state.ios.get(&stretch.io).is_some_and(|io| io.is_read());
            (stretch, data, reads)
        });
        let before = (!reads).then(|| data.clone());
        use_it(&mut data);
        match before {
            Some(before) => assert!(before == data, "a target changed what is to be written"),
            None => self.with(|state, _| state.data_of(&stretch).copy_from_slice(&data)),
        }
    }

    fn end(&self, job: usize, result: Result<(), Errno>) {
        self.with(|state, number| {
            let stretch = state.take_job(number, job);
            state.tell(|| format!("  job {job} of {stretch} ends: {}", Answered(result)));
            state.stretch_over(&stretch, result);
        });
    }

    fn give_back(&self, job: usize) {
        self.with(|state, number| {
            let stretch = state.take_job(number, job);
            state.tell(|| format!("  job {job} of {stretch} is given back"));
            state.hold(stretch);
        });
    }

    fn forward(&self, job: &JobInfo, to: Place) {
        let engine = self.engine();
        let first = self.with(|state, number| {
            let stretch = state.host(number).jobs[job.number()].clone().expect("a job in use");
            let disk = self.disks[to.component.0 as usize];
            let command = match job.op {
                Op::Read => Command::Read,
                Op::Write => Command::Write { fua: job.fua },
                Op::Flush | Op::Discard => panic!("a {:?} is forwarded", job.op),
            };
            let range = (to.sector.0, job.length.0);
            assert!(state.disks[disk].takes(range.0, range.1), "d{disk} has no {range:?}");
            let data = match job.op {
                Op::Write => state.data_of(&stretch).to_vec(),
                _ => Vec::new(),
            };
            let first = state.flights.len();
            let owner = Owner::Forward { host: number, engine, info: *job, stretch };
            state.send(disk, command, range, data, owner);
            state.at_once(first)
        });
        self.finish_from(first);
    }

    fn forward_each(&self, job: &JobInfo, to: &[Place]) {
        let engine = self.engine();
        let first = self.with(|state, number| {
            let host = state.host(number);
            let stretch = host.jobs[job.number()].clone().expect("a job in use");
            let slot = &mut host.forwarded[job.number()];
            assert!(slot.left == 0 && slot.answer.is_none(), "a job is forwarded twice");
            assert!((1..=slot.width).contains(&to.len()), "a job goes to {} places", to.len());
            slot.left = to.len();
            let command = match job.op {
                Op::Read if to.len() == 1 => Command::Read,
                Op::Write => Command::Write { fua: job.fua },
                op => panic!("a {op:?} is forwarded to {} places", to.len()),
            };
            let data = match job.op {
                Op::Write => state.data_of(&stretch).to_vec(),
                _ => Vec::new(),
            };
            let first = state.flights.len();
            for (place, to) in to.iter().enumerate() {
                let disk = self.disks[to.component.0 as usize];
                let range = (to.sector.0, job.length.0);
                assert!(state.disks[disk].takes(range.0, range.1), "d{disk} has no {range:?}");
                let (engine, stretch) = (engine.clone(), stretch.clone());
                let owner = Owner::Each { host: number, engine, info: *job, place, stretch };
                state.send(disk, command, range, data.clone(), owner);
            }
            state.at_once(first)
        });
        drop(engine);
        self.finish_from(first);
    }

    fn forward_changed(&self, job: &JobInfo, data: Box<[u8]>, to: Place) {
        let engine = self.engine();
        let first = self.with(|state, number| {
            let host = state.host(number);
            let stretch = host.jobs[job.number()].clone().expect("a job in use");
            let slot = &mut host.forwarded[job.number()];
            assert!(slot.left == 0 && slot.answer.is_none(), "a job is forwarded twice");
            assert!(job.op == Op::Write, "a {:?} is forwarded with other data", job.op);
            let sent = data[..job.length.0 as usize * SECTOR].to_vec();
            let before = slot.data.replace(data);
            assert!(before.is_none(), "a target did not take its data back");
            (slot.left, slot.at) = (1, 0);
            let (disk, range) = (self.disks[to.component.0 as usize], (to.sector.0, job.length.0));
            assert!(state.disks[disk].takes(range.0, range.1), "d{disk} has no {range:?}");
            let first = state.flights.len();
            let owner = Owner::Each { host: number, engine, info: *job, place: 0, stretch };
            state.send(disk, Command::Write { fua: job.fua }, range, sent, owner);
            state.at_once(first)
        });
        self.finish_from(first);
    }

    fn take_changed(&self, job: usize) -> Option<Box<[u8]>> {
        self.with(|state, number| {
            let slot = &mut state.host(number).forwarded[job];
            assert!(slot.left == 0, "a target takes data back that are with a disk");
            slot.data.take()
        })
    }

    fn in_thread(&self) -> bool {
        true
    }

    fn may_compute(&self, _: usize) -> bool {
        self.with(|state, _| state.rng.chance(1, 2))
    }

    fn background_share(&self) -> u32 {
        25
    }

    fn say(&self, what: fmt::Arguments<'_>) {
        self.with(|state, _| state.tell(|| format!("the console is told: {what}")));
    }

    fn end_system(&self, end: host::End, why: &CStr) {
        panic!("a target ends the system ({end:?}): {why:?}");
    }

    fn keeps_fua(&self, component: ComponentIndex) -> bool {
        let disk = self.disks[component.0 as usize];
        self.with(|state, _| state.disks[disk].keeps_fua)
    }

    fn completing(&self) -> &'static Completions {
        static COMPLETING: LazyLock<Completions> = LazyLock::new(Completions::default);
        &COMPLETING
    }

    fn freed(&self, line: usize) -> bool {
        self.with(|state, _| state.line_freed(self.device, line));
        // The thread that waits goes on when the scheduler has it go on.
        false
    }

    fn now(&self) -> u32 {
        self.with(|state, _| state.now)
    }

    fn max_io(&self) -> usize {
        self.with(|state, _| state.max_io)
    }

    fn size(&self, component: ComponentIndex) -> Sector {
        let disk = self.disks[component.0 as usize];
        self.with(|state, _| Sector(state.disks[disk].sectors()))
    }

    fn wait(&self, done: &mut dyn FnMut() -> bool) {
        loop {
            // An announcement that comes while `done` is asked counts.
            self.with(|state, number| state.host(number).announced = false);
            if done() {
                return;
            }
            self.shared.run_until("an engine that starts or stops", |state| {
                state.host(self.number).announced
            });
        }
    }

    fn announce(&self) {
        self.with(|state, number| state.host(number).announced = true);
    }
}

impl Host {
    /// Sends a lane's request to its places: `prepare` gives the command, the number of sectors,
    /// the data to be written, and, where a job's data is read into, its stretch.
    fn launch(
        &self,
        lane: usize,
        places: &[Place],
        prepare: impl FnOnce(&mut State, usize) -> (Command, u64, Vec<u8>, Option<Stretch>),
    ) {
        let first = self.with(|state, number| {
            let host = state.host(number);
            let resident = host.lanes[lane].resident;
            assert!(host.started || resident, "a table does I/O while it is not started");
            let slot = &mut host.lanes[lane];
            assert!(slot.left == 0 && slot.answer.is_none(), "a lane has two requests");
            assert!(places.len() <= slot.width, "a lane sends to more places than its target said");
            slot.left = places.len();
            let (command, length, data, job) = prepare(state, number);
            assert!(length as usize * SECTOR <= state.max_io, "a request beyond the largest");
            let first = state.flights.len();
            for (place, to) in places.iter().enumerate() {
                let disk = self.disks[to.component.0 as usize];
                let range = if command == Command::Flush { (0, 0) } else { (to.sector.0, length) };
                assert!(state.disks[disk].takes(range.0, range.1), "d{disk} has no {range:?}");
                let owner = Owner::Lane { host: number, lane, place, job: job.clone() };
                state.send(disk, command, range, data.clone(), owner);
            }
            if places.is_empty() {
                let host = state.host(number);
                host.lanes[lane].end();
                host.wake(lane);
            }
            state.at_once(first)
        });
        self.finish_from(first);
    }

    /// Ends the commands that are over before the call that began them returns: of those from
    /// `first` on.
    fn finish_from(&self, first: Option<usize>) {
        self.shared.finish_from(first);
    }
}

/// Only [`Any`] is asked of a host beside its functions.
const _: fn(&Host) -> &dyn Any = |host| host;
