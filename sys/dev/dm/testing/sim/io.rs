// SPDX-License-Identifier: BSD-2-Clause

//! I/O on devices: split by a table as the kernel's strategy routine does, and completed as one.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::disk::{Command, SECTOR, Transfer};
use super::model::{Model, Moment, Value};
use super::shared::{Answered, Shared, State, Todo, Waiting};
use crate::executor::Executor;
use crate::job::{JobInfo, Op};
use crate::table::{Component, Piece, Table};
use crate::units::Dev;
use crate::{Errno, Sector, SectorRange, guard};

/// A disk that a table has open.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The disk's number in the game.
    pub disk: usize,
    pub(super) size: u64,
    pub(super) sector_size: u32,
}

impl Component for Attached {
    fn dev(&self) -> Dev {
        Dev::new(19, self.disk as u32).expect("a device number")
    }

    fn size(&self) -> Sector {
        Sector(self.size)
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn writable(&self) -> bool {
        true
    }

    fn guard(&self) -> Option<guard::GuardedSectors> {
        None
    }
}

/// A byte that stands in a read's buffer before its data.
const UNREAD: u8 = 0xa5;

/// A device of the game.
pub(super) struct Device {
    /// The active table. `None` only before the first boot and while the power is off.
    pub table: Option<Arc<Table<Attached>>>,
    /// `true` while the device is suspended, or being suspended.
    pub held: bool,
    /// `true` from when the targets are told that the device is being suspended until it is
    /// resumed.
    pub quiescing: bool,
    /// Stretches that wait for a resume, in the order they came.
    pub queue: Waiting,
    /// The number of stretches in flight.
    pub active: usize,
    /// Stretches that wait for a job's number, by line.
    pub waiting: BTreeMap<usize, Waiting>,
    pub model: Model,
    /// Sectors that I/O must fail on.
    pub failing: Vec<Range<u64>>,
    /// `true` if I/O may fail though no disk has failed.
    pub may_fail: bool,
    /// `true` if writes and discards must fail, and reads, even those that fail, give no wrong
    /// data.
    pub read_only: bool,
    /// The number of events that targets raised.
    pub raised: u64,
}

impl Device {
    pub fn new() -> Device {
        Device {
            table: None,
            held: true,
            quiescing: false,
            queue: Waiting::new(),
            active: 0,
            waiting: BTreeMap::new(),
            model: Model::new(0),
            failing: Vec::new(),
            may_fail: false,
            read_only: false,
            raised: 0,
        }
    }

    /// `true` if no stretch is in flight or waits.
    pub fn is_idle(&self) -> bool {
        self.active == 0 && self.queue.is_empty()
    }
}

/// An I/O on a device.
pub(super) struct Io {
    pub device: usize,
    pub op: Op,
    pub start: u64,
    pub length: u64,
    pub fua: bool,
    pub data: Vec<u8>,
    /// The moment at which the I/O was begun.
    pub from: Moment,
    /// The I/O's stretches that are not over.
    left: usize,
    error: Option<Errno>,
}

impl Io {
    pub fn is_read(&self) -> bool {
        self.op == Op::Read
    }
}

/// A part of an I/O's sectors that is sent by itself. It ends once, by [`State::stretch_over`].
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub io: usize,
    /// The number of the I/O's sectors before the stretch.
    skip: u64,
    length: u64,
    /// For a flush that waits for a job: the line, counted among those that serve.
    line: Option<usize>,
    /// `true` once the stretch is retried: it has failed where the table had it sent.
    retried: bool,
    /// `true` for a read that its target tracks.
    pub tracked: bool,
}

impl Stretch {
    /// A part of the stretch, counted from its first sector.
    pub fn part(&self, skip: u64, length: u64) -> Stretch {
        Stretch { skip: self.skip + skip, length, ..self.clone() }
    }

    fn bytes(&self) -> Range<usize> {
        self.skip as usize * SECTOR..(self.skip + self.length) as usize * SECTOR
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}[{}+{}]", self.io, self.skip, self.length)
    }
}

/// The sender of a command to a disk.
#[derive(Clone)]
pub(super) enum Owner {
    /// The table, for a stretch that it maps.
    Stretch(Stretch),
    /// A lane; with the stretch that is read into, if there is one.
    Lane { host: usize, lane: usize, place: usize, job: Option<Stretch> },
    /// A target, for a job that it forwarded to several places.
    Each { host: usize, engine: Arc<Executor>, info: JobInfo, place: usize, stretch: Stretch },
    /// A target, for a job that it forwarded.
    Forward { host: usize, engine: Arc<Executor>, info: JobInfo, stretch: Stretch },
}

impl Owner {
    pub fn host(&self) -> Option<usize> {
        match *self {
            Owner::Stretch(_) => None,
            Owner::Lane { host, .. } | Owner::Each { host, .. } | Owner::Forward { host, .. } => {
                Some(host)
            }
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Stretch(stretch) => write!(f, "{stretch}"),
            Owner::Lane { host, lane, .. } => write!(f, "lane {lane} of table {host}"),
            Owner::Each { stretch, place, .. } => write!(f, "{stretch}, forwarded as {place}"),
            Owner::Forward { stretch, .. } => write!(f, "{stretch}, forwarded"),
        }
    }
}

impl State {
    /// The table of a stretch's device, and the stretch's sectors there.
    pub fn range_of(&self, stretch: &Stretch) -> (Option<Arc<Table<Attached>>>, Range<u64>) {
        let io = self.ios.get(&stretch.io).expect("an I/O in flight");
        let start = io.start + stretch.skip;
        (self.devices[io.device].table.clone(), start..start + stretch.length)
    }

    /// The table and the range of a stretch that may be retried: a read that was not retried yet.
    pub fn may_retry(&self, stretch: &Stretch) -> Option<(Arc<Table<Attached>>, Range<u64>)> {
        let io = self.ios.get(&stretch.io).expect("an I/O in flight");
        let may = !stretch.retried && io.op == Op::Read;
        let (table, range) = self.range_of(stretch);
        table.filter(|_| may).map(|table| (table, range))
    }

    /// Retries a stretch that has failed, as its target says.
    pub fn retry(&mut self, stretch: Stretch) {
        let device = self.ios.get(&stretch.io).expect("an I/O in flight").device;
        self.tell(|| format!("  {stretch} is tried again"));
        self.todo.push(Todo::Map(device, Stretch { retried: true, ..stretch }));
    }

    /// The bytes of a stretch's I/O; none for a flush or a discard.
    pub fn data_of(&mut self, stretch: &Stretch) -> &mut [u8] {
        let io = self.ios.get_mut(&stretch.io).expect("an I/O in flight");
        match io.op {
            Op::Read | Op::Write => &mut io.data[stretch.bytes()],
            Op::Flush | Op::Discard => &mut [],
        }
    }

    /// Copies the data that was read for a stretch to its I/O.
    pub fn take_data(&mut self, stretch: &Stretch, transfer: &Transfer) {
        if transfer.command == Command::Read {
            self.data_of(stretch).copy_from_slice(&transfer.data);
        }
    }

    /// Ends a stretch with a disk's answer.
    pub fn stretch_answered(
        &mut self,
        stretch: &Stretch,
        transfer: &Transfer,
        result: Result<(), Errno>,
    ) {
        if result.is_ok() {
            self.take_data(stretch, transfer);
        }
        self.stretch_over(stretch, result);
    }

    /// Ends a stretch that was in flight.
    pub fn stretch_over(&mut self, stretch: &Stretch, result: Result<(), Errno>) {
        let io = self.ios.get_mut(&stretch.io).expect("an I/O in flight");
        io.left -= 1;
        if let Err(errno) = result {
            io.error.get_or_insert(errno);
        }
        let (device, over) = (io.device, io.left == 0);
        self.devices[device].active -= 1;
        if over {
            self.complete(stretch.io);
        }
    }

    /// Has a stretch that was in flight wait for a resume.
    pub fn hold(&mut self, stretch: Stretch) {
        let device = self.ios.get(&stretch.io).expect("an I/O in flight").device;
        let (number, device) = (device, &mut self.devices[device]);
        // A flush begins anew: the next table has other lines.
        let stretch = Stretch { line: None, retried: false, tracked: false, ..stretch };
        if device.held {
            device.active -= 1;
            device.queue.push_back(stretch);
        } else {
            assert!(device.quiescing, "I/O is given back to a device that is not suspended");
            self.todo.push(Todo::Map(number, stretch));
        }
    }

    /// Completes an I/O, and checks its answer.
    fn complete(&mut self, number: usize) {
        let io = self.ios.remove(&number).expect("an I/O in flight");
        let now = self.tick();
        let result = io.error.map_or(Ok(()), Err);
        self.tell(|| format!("#{number} {:?} is answered: {}", io.op, Answered(result)));
        if self.off() {
            return;
        }
        let (failed, oldest) = (self.failed(), self.oldest_read(io.device));
        let device = &mut self.devices[io.device];
        let range = io.start..io.start + io.length;
        let refused = device.read_only && matches!(io.op, Op::Write | Op::Discard);
        let must_fail = refused
            || io.op != Op::Flush
                && device.failing.iter().any(|f| f.start < range.end && range.start < f.end);
        match result {
            Err(errno) if failed == 0 && !must_fail && !device.may_fail => {
                // Some disks refuse discards.
                let allowed = io.op == Op::Discard;
                assert!(allowed, "#{number} failed with {errno:?}, though no disk did");
            }
            Ok(()) => assert!(!must_fail, "#{number} succeeded, where I/O must fail"),
            Err(_) => {}
        }
        let durable = result.is_ok() && io.fua && self.disks.iter().all(|disk| disk.keeps_fua);
        match (io.op, result) {
            (Op::Write | Op::Discard, _) => {
                let range = (io.start, io.length);
                device.model.end(range, io.from, now, (result.is_ok(), durable), oldest);
            }
            (Op::Read, Ok(())) => {
                if let Err(wrong) = device.model.read(io.start, io.from, &io.data) {
                    panic!("#{number}, a read begun at {}: {wrong}", io.from);
                }
            }
            (Op::Read, Err(_)) if device.read_only => {
                for (at, sector) in (io.start..).zip(io.data.chunks_exact(SECTOR)) {
                    // The buffer is as it was before, or zeroed; else its data must be right.
                    let all = |byte| sector.iter().all(|found| *found == byte);
                    if !all(UNREAD)
                        && !all(0)
                        && let Err(wrong) = device.model.read(at, io.from, sector)
                    {
                        panic!("#{number}, a read that failed: {wrong}");
                    }
                }
            }
            (Op::Flush, Ok(())) => device.model.flushed(io.from, oldest),
            (Op::Read | Op::Flush, Err(_)) => {}
        }
    }

    /// Lets stretches go on that wait for a job's number on a line, where one was freed.
    pub fn line_freed(&mut self, device: usize, line: usize) {
        let waiting = self.devices[device].waiting.get(&line);
        if waiting.is_some_and(|waiting| !waiting.is_empty()) {
            self.todo.push(Todo::Freed(device, line));
        }
    }

    /// The first of the flights from `first` on, if they are to be over at once.
    pub fn at_once(&mut self, first: usize) -> Option<usize> {
        self.rng.chance(self.temper.at_once, 8).then_some(first)
    }
}

impl Shared {
    /// Begins an I/O, and returns its number.
    pub fn submit(
        self: &Arc<Self>,
        device: usize,
        op: Op,
        (start, length): (u64, u64),
        fua: bool,
    ) -> usize {
        let mut state = self.lock();
        let number = state.next_io;
        state.next_io += 1;
        let from = state.tick();
        let mut data = Vec::new();
        let value = |sector| match op {
            Op::Write => Value::of(number as u64, sector),
            _ => Value::ANY,
        };
        match op {
            Op::Read => data = vec![UNREAD; length as usize * SECTOR],
            Op::Write => {
                data = vec![0; length as usize * SECTOR];
                for (at, sector) in (start..).zip(data.chunks_exact_mut(SECTOR)) {
                    value(at).fill(sector);
                }
            }
            Op::Flush | Op::Discard => {}
        }
        state.tell(|| {
            let fua = if fua { " FUA" } else { "" };
            format!("#{number} {op:?}{fua} {start}+{length} on device {device}")
        });
        let off = state.off();
        let here = &mut state.devices[device];
        if matches!(op, Op::Write | Op::Discard) && !off && !here.read_only {
            here.model.begin(start, length, from, value);
        }
        let stretch =
            Stretch { io: number, skip: 0, length, line: None, retried: false, tracked: false };
        let held = here.held;
        match held {
            true => here.queue.push_back(stretch.clone()),
            false => here.active += 1,
        }
        let io = Io { device, op, start, length, fua, data, from, left: 1, error: None };
        state.ios.insert(number, io);
        drop(state);
        if !held {
            self.route(device, stretch);
        }
        number
    }

    /// Sends the stretches that waited for a resume.
    pub fn release(self: &Arc<Self>, device: usize) {
        let queue = {
            let mut state = self.lock();
            let device = &mut state.devices[device];
            (device.held, device.quiescing) = (false, false);
            device.active += device.queue.len();
            core::mem::take(&mut device.queue)
        };
        for stretch in queue {
            self.route(device, stretch);
        }
    }

    /// Sends a stretch, which counts as in flight, where the table says.
    pub fn route(self: &Arc<Self>, device: usize, stretch: Stretch) {
        if let Some(rest) = self.route_some(device, &stretch) {
            let mut state = self.lock();
            let line = rest.line.expect("the line it waits for");
            state.devices[device].waiting.entry(line).or_default().push_back(rest);
        }
    }

    /// Sends stretches that wait for a job's number on a line, as one was freed.
    pub fn route_waiting(self: &Arc<Self>, device: usize, line: usize) {
        loop {
            let mut state = self.lock();
            let waiting = state.devices[device].waiting.get_mut(&line);
            let Some(stretch) = waiting.and_then(Waiting::pop_front) else { return };
            drop(state);
            if let Some(rest) = self.route_some(device, &stretch) {
                let mut state = self.lock();
                let on = rest.line.expect("the line it waits for");
                let waiting = state.devices[device].waiting.entry(on).or_default();
                if on == line {
                    waiting.push_front(rest);
                    return;
                }
                waiting.push_back(rest);
            }
        }
    }

    /// Sends as much of a stretch as can go. The answer is the rest, which waits for a job of
    /// `line`.
    fn route_some(self: &Arc<Self>, device: usize, stretch: &Stretch) -> Option<Stretch> {
        let state = self.lock();
        let io = &state.ios[&stretch.io];
        let (op, fua, start) = (io.op, io.fua, io.start + stretch.skip);
        let table = state.devices[device].table.clone().expect("a table");
        if op == Op::Flush {
            drop(state);
            return self.route_flush(device, &table, stretch);
        }
        drop(state);
        let mut done = 0;
        while done < stretch.length {
            let (at, left) = (start + done, stretch.length - done);
            // The target's code: no lock is held.
            let range = SectorRange { start: Sector(at), length: Sector(left) };
            let failed = stretch.retried.then(|| table.map_failed(range, op)).flatten();
            let piece = failed.or_else(|| table.map(range, op));
            let length = piece.as_ref().map_or(left, |piece| piece.length().0);
            assert!((1..=left).contains(&length), "{length} of {left} sectors mapped");
            let part = stretch.part(done, length);
            match piece {
                Some(Piece::Send(component, to)) => {
                    self.send_stretch(device, op, fua, component, to.start.0, part);
                }
                Some(Piece::Track(component, to, _)) => {
                    assert_eq!(op, Op::Read, "only reads are tracked");
                    let part = Stretch { tracked: true, ..part };
                    self.send_stretch(device, op, fua, component, to.start.0, part);
                }
                Some(Piece::Zero(_)) => {
                    let mut state = self.lock();
                    if op == Op::Read {
                        state.data_of(&part).fill(0);
                    }
                }
                Some(Piece::Fail(_, errno)) => {
                    let mut state = self.lock();
                    let io = state.ios.get_mut(&stretch.io).expect("an I/O in flight");
                    io.error.get_or_insert(errno);
                }
                None => {
                    let mut state = self.lock();
                    let io = state.ios.get_mut(&stretch.io).expect("an I/O in flight");
                    io.error.get_or_insert(Errno::EINVAL);
                }
                Some(Piece::Take(_, taken)) => {
                    let engine = table.engine().expect("an engine");
                    let line = engine.serving(taken.line).expect("a line that serves");
                    let range = (taken.start, Sector(length));
                    let info = |number| JobInfo {
                        fua,
                        // The host says by turns that there may be computed, wherever the job is.
                        at_sender: true,
                        ..JobInfo::new(number, (line, taken.queue), op, range)
                    };
                    if !self.make_job(device, engine, line, &part, info) {
                        let rest = stretch.part(done, left);
                        return Some(Stretch { line: Some(line), ..rest });
                    }
                }
            }
            done += length;
        }
        self.lock().stretch_over(stretch, Ok(()));
        None
    }

    /// Makes a job of a stretch, if a number is free and no other stretch waits for one.
    fn make_job(
        &self,
        device: usize,
        engine: &Arc<Executor>,
        line: usize,
        part: &Stretch,
        info: impl FnOnce(usize) -> JobInfo,
    ) -> bool {
        let Some(number) = engine.claim(line) else { return false };
        let info = info(number);
        let mut state = self.lock();
        state.tell(|| {
            format!("  job {number} of {part}: {:?} {}+{}", info.op, info.start, info.length)
        });
        state.branch(device, part);
        let host = state.hosts.iter_mut().flatten();
        let host = host.into_iter().find(|host| host.executor.as_ptr() == Arc::as_ptr(engine));
        host.expect("the table's host").put_job(number, part.clone());
        drop(state);
        engine.submit(info);
        true
    }

    fn route_flush(
        self: &Arc<Self>,
        device: usize,
        table: &Arc<Table<Attached>>,
        stretch: &Stretch,
    ) -> Option<Stretch> {
        let lines = table.engine().map_or(0, |engine| engine.lines());
        // A stretch that has waited for a job goes on with the line it waited for.
        if stretch.line.is_none() {
            for disk in mapped_disks(table) {
                let mut state = self.lock();
                state.branch(device, stretch);
                state.send(
                    disk,
                    Command::Flush,
                    (0, 0),
                    Vec::new(),
                    Owner::Stretch(stretch.clone()),
                );
            }
        }
        for line in stretch.line.unwrap_or(0)..lines {
            let engine = table.engine().expect("an engine");
            let none = (Sector::ZERO, Sector::ZERO);
            let info = |number| JobInfo::new(number, (line, 0), Op::Flush, none);
            if !self.make_job(device, engine, line, stretch, info) {
                return Some(Stretch { line: Some(line), ..stretch.clone() });
            }
        }
        self.lock().stretch_over(stretch, Ok(()));
        None
    }

    /// Sends a stretch to the component that the table maps it to.
    fn send_stretch(
        &self,
        device: usize,
        op: Op,
        fua: bool,
        to: &Attached,
        sector: u64,
        part: Stretch,
    ) {
        let mut state = self.lock();
        state.branch(device, &part);
        let (command, data) = match op {
            Op::Read => (Command::Read, Vec::new()),
            Op::Write => (Command::Write { fua }, state.data_of(&part).to_vec()),
            Op::Flush | Op::Discard => (Command::Discard, Vec::new()),
        };
        assert!(state.disks[to.disk].takes(sector, part.length), "beyond d{}'s end", to.disk);
        let (first, length) = (state.flights.len(), part.length);
        state.send(to.disk, command, (sector, length), data, Owner::Stretch(part));
        let first = state.at_once(first);
        drop(state);
        self.finish_from(first);
    }

    /// Ends the commands that are over before the call that began them returns: of those from
    /// `first` on.
    pub fn finish_from(&self, first: Option<usize>) {
        let Some(first) = first else { return };
        loop {
            let mut state = self.lock();
            if state.flights.len() <= first {
                return;
            }
            let flight = state.flights.pop();
            drop(state);
            if let Some(flight) = flight {
                self.finish(flight);
            }
        }
    }

    /// Runs until `is` is `true`. `false` if it never is.
    pub fn runs_until(self: &Arc<Self>, mut is: impl FnMut(&mut State) -> bool) -> bool {
        // Enough for every lane to finish its work many times over.
        const EVENTS: u64 = 200_000;
        for _ in 0..EVENTS {
            if is(&mut self.lock()) {
                return true;
            }
            if !self.step() {
                break;
            }
        }
        false
    }

    /// Runs until `is` is `true`.
    ///
    /// # Panics
    /// When it never is.
    pub fn run_until(self: &Arc<Self>, what: &str, is: impl FnMut(&mut State) -> bool) {
        if self.runs_until(is) {
            return;
        }
        let state = self.lock();
        let ios: Vec<String> = state.ios.keys().map(ToString::to_string).collect();
        panic!("waiting for ever: {what}; I/O {} in flight", ios.join(", "));
    }
}

impl State {
    /// Records that a part of a stretch is sent by itself.
    fn branch(&mut self, device: usize, part: &Stretch) {
        self.ios.get_mut(&part.io).expect("an I/O in flight").left += 1;
        self.devices[device].active += 1;
    }
}

/// The disks of the lines that only map, each once.
fn mapped_disks(table: &Table<Attached>) -> Vec<usize> {
    let mut disks = Vec::new();
    for (line, (range, target)) in table.lines().enumerate() {
        if table.serving().iter().any(|(serving, _)| *serving == line) {
            continue;
        }
        target.extents(range.length, &mut |extent| {
            let component = table.components().get(extent.component.0 as usize);
            if let Some(Attached { disk, .. }) = component
                && !disks.contains(disk)
            {
                disks.push(*disk);
            }
        });
    }
    disks
}
