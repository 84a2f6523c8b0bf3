// SPDX-License-Identifier: BSD-2-Clause

//! `log-writes DEV LOGDEV`: all of one component, and on another a log of all that is written to
//! it, in the order in which it would survive a power cut. `format.rs` has the log's form, which is
//! Linux's.
//!
//! A write is not safe before the next flush, so it is kept as *unflushed*: sent to its place, and
//! a copy of its data put at the end of the log device, out of the log's way. A flush takes along
//! the writes that were unflushed before it came: first the component is flushed, then the
//! unflushed writes go to the log in the order in which they were acknowledged, then the flush
//! itself. A FUA write and a mark go to the log at once, before unflushed writes; but those that a
//! FUA write overwrites go before it. The superblock, which counts the entries, is written last.
//!
//! When there is no room to hold more, the target flushes on its own. When the log has no room,
//! nothing more is logged, and I/O goes on.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec;
use core::fmt;

use dm_sync::Spin;

use crate::job::{Job, Op, Place};
use crate::lane::{Lane, Signal};
use crate::mistake::Mistake;
use crate::target::{
    ComponentIndex, Devs, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType, Words,
};
use crate::units::DEV_BSIZE;
use crate::worker::{Needs, Quiesce, Worker};
use crate::{Errno, Sector, limits};

pub mod format;
mod log;

use format::{Entry, Kind};

/// The target type `log-writes`.
pub static TYPE: TargetType = TargetType { name: "log-writes", version: [1, 1, 0], new };

/// The mark that a log ends with when its device goes.
const END: &str = "dm-log-writes-end";

/// Bytes of a lane's buffer: the data that are copied to the log at once.
const BUFFER: usize = 4096;

/// A `log-writes` line.
///
/// Fields are marked by what protects them: (-) never changes; (a) atomic; (l) a lock of its own.
pub(crate) struct LogWrites {
    /// (-) The component whose writes are logged.
    device: ComponentIndex,
    /// (-) The component that has the log.
    log: ComponentIndex,
    /// (-) Sectors of 512 bytes in a sector of the log's, which is the device's.
    unit: u64,
    /// (l) Everything that changes.
    state: Spin<State>,
    /// (a) Raised when the log is free, or room has come.
    free: Signal,
}

/// The changing state of a log. All fields: under [`LogWrites::state`].
///
/// # Invariants
/// The log lies below `tail`, and while `copied` is not 0 each copy at `copies` or above it, and
/// `tail` not above `copies`. `copied` is the number of `unflushed` with a copy, and of copies that
/// are being made: those for which [`LogWrites::room`] has found a place. `wanted` is the sum of
/// what each of `unflushed` will take ([`LogWrites::taken`]). `unflushed` has room for a write of
/// every job besides: a place is found only then, so that it never allocates.
struct State {
    /// `true` while a lane writes to the log. That lane alone moves `tail` and `entries`, and takes
    /// writes from `unflushed`.
    busy: bool,
    /// `true` until the log is full, or could not be written.
    logging: bool,
    /// The log's end, in sectors of 512 bytes.
    tail: u64,
    /// The number of entries in the log.
    entries: u64,
    /// Writes that no flush has made safe yet, in the order of acknowledgement.
    unflushed: VecDeque<Unflushed>,
    /// Sectors that all of `unflushed` will take of the log.
    wanted: u64,
    /// The number of the first of `unflushed`.
    first: u64,
    /// The first sector that a copy may have: copies grow downwards from the log device's end, and
    /// begin there again when there is none.
    copies: u64,
    /// The number of copies, those that are being made among them.
    copied: usize,
    /// Marks that wait for the log.
    marks: VecDeque<Box<[u8]>>,
    /// The manner of the last suspend: a device that goes ends its log.
    how: Quiesce,
}

/// A write or discard that no flush has made safe yet.
#[derive(Clone, Copy)]
struct Unflushed {
    start: u64,
    length: u64,
    /// The first sector of its data on the log device; a discard has none.
    copy: Option<u64>,
}

impl Unflushed {
    /// Sectors of data in the log.
    fn data(&self) -> u64 {
        if self.copy.is_some() { self.length } else { 0 }
    }
}

impl State {
    /// Adds an unflushed write, with its entry's sector to `wanted`.
    fn add(&mut self, write: Unflushed, unit: u64) {
        self.wanted = self.wanted.saturating_add(write.data()).saturating_add(unit);
        self.unflushed.push_back(write);
    }
}

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    Ok(Made::serves(LogWrites::of(line)?))
}

impl LogWrites {
    /// Reads a line.
    pub(crate) fn of(line: &mut LineSpec<'_>) -> Result<LogWrites, Mistake> {
        let path = line.params.path()?;
        let device = line.component(path, Sector::ZERO, line.length)?;
        let path = line.params.path()?;
        // The superblock at least. What is left over is ignored, as Linux does.
        let unit = u64::from(line.sector_size(device) / DEV_BSIZE);
        let log = line.component(path, Sector::ZERO, Sector(unit))?;
        if log == device {
            return Err(Mistake::new(Errno::EINVAL, "a device cannot be its own log"));
        }
        let bytes = limits::UNFLUSHED_WRITES.saturating_mul(size_of::<Unflushed>());
        line.reserve(bytes)?;
        let state = State {
            busy: false,
            logging: true,
            tail: unit,
            entries: 0,
            unflushed: VecDeque::with_capacity(limits::UNFLUSHED_WRITES),
            wanted: 0,
            first: 0,
            copies: u64::MAX,
            copied: 0,
            marks: VecDeque::with_capacity(limits::MARKS),
            how: Quiesce::Flush,
        };
        let (state, free) = (Spin::new(state), Signal::new());
        Ok(LogWrites { device, log, unit, state, free })
    }
}

/// The room for a write that will be unflushed.
enum Room {
    /// The write's data go there.
    Copy(u64),
    /// The write is not logged.
    NotLogged,
}

/// The result of [`LogWrites::find_room`].
enum RoomSearch {
    Room(Room),
    /// There is no room: so many writes are unflushed, or being copied.
    Full {
        copied: usize,
    },
}

impl LogWrites {
    fn on_device(&self, start: Sector) -> Place {
        Place { component: self.device, sector: start }
    }

    fn on_log(&self, sector: u64) -> Place {
        Place { component: self.log, sector: Sector(sector) }
    }

    /// Sectors of the log that an entry of so many sectors of data takes.
    fn taken(&self, data: u64) -> u64 {
        data.saturating_add(self.unit)
    }

    /// Finds a place for the copy of a write of `length` sectors, flushing for it if it must.
    async fn room(&self, length: u64, lane: &mut Lane) -> Room {
        loop {
            let copied = match self.find_room(length, lane.size(self.log).0) {
                RoomSearch::Room(room) => return room,
                RoomSearch::Full { copied } => copied,
            };
            let before = self.next_unflushed();
            if copied == 0 || lane.flush(&[self.device]).await.ok().is_err() {
                self.give_up(lane);
                continue;
            }
            self.commit(before, Some(FLUSH), lane).await;
            // The lane that makes a copy gives its room back, or keeps it for the next flush.
            let given_back = || {
                let state = self.state.lock();
                let less = state.copied < copied || state.copied == 0;
                (less || !state.unflushed.is_empty() || !state.logging).then_some(())
            };
            lane.until(&self.free, given_back).await;
        }
    }

    /// Looks for a place for the copy of a write of `length` sectors, on a log device with `end`
    /// sectors.
    fn find_room(&self, length: u64, end: u64) -> RoomSearch {
        let mut state = self.state.lock();
        if !state.logging {
            return RoomSearch::Room(Room::NotLogged);
        }
        if state.copied == 0 {
            state.copies = end.saturating_sub(end.checked_rem(self.unit).unwrap_or(0));
        }
        // The unflushed writes need room in the log, too.
        let log = state.tail.saturating_add(state.wanted).saturating_add(self.taken(length));
        let copy = state.copies.checked_sub(length).filter(|copy| *copy >= log);
        let full = state.unflushed.len().saturating_add(JOBS) > limits::UNFLUSHED_WRITES;
        match copy.filter(|_| !full) {
            Some(copy) => {
                state.copies = copy;
                state.copied = state.copied.saturating_add(1);
                RoomSearch::Room(Room::Copy(copy))
            }
            None => RoomSearch::Full { copied: state.copied.max(state.unflushed.len()) },
        }
    }

    /// The number that the next unflushed write will have.
    pub(crate) fn next_unflushed(&self) -> u64 {
        let state = self.state.lock();
        state.first.saturating_add(state.unflushed.len() as u64)
    }

    /// Sends a write, and holds it. A FUA write goes to the log.
    async fn write(&self, job: &Job, lane: &mut Lane) -> Result<(), Errno> {
        let place = self.on_device(job.start());
        if job.fua() {
            lane.send(job, &[place]).await.ok()?;
            self.lock(lane).await;
            let logged = self.log_fua(job, lane).await;
            self.unlock(lane);
            if logged.is_err() {
                self.give_up(lane);
            }
            return Ok(());
        }
        let room = self.room(job.length().0, lane).await;
        let sent = lane.send(job, &[place]).await.ok();
        let Room::Copy(copy) = room else { return sent };
        let copied = match sent {
            Ok(()) => lane.send(job, &[self.on_log(copy)]).await.ok(),
            Err(_) => Ok(()),
        };
        let mut state = self.state.lock();
        if sent.is_ok() && copied.is_ok() && state.logging {
            let (start, length) = (job.start().0, job.length().0);
            state.add(Unflushed { start, length, copy: Some(copy) }, self.unit);
        } else {
            state.copied = state.copied.saturating_sub(1);
        }
        drop(state);
        lane.raise(&self.free);
        if copied.is_err() {
            self.give_up(lane);
        }
        sent
    }

    async fn discard(&self, job: &Job, lane: &mut Lane) -> Result<(), Errno> {
        match lane.discard(self.on_device(job.start()), job.length()).await {
            // A device without discards keeps its content, which is logged all the same.
            Ok(()) | Err(Errno::ENODEV | Errno::EOPNOTSUPP | Errno::ENOTTY) => {}
            Err(errno) => return Err(errno),
        }
        if matches!(self.room(0, lane).await, Room::Copy(_)) {
            let mut state = self.state.lock();
            state.copied = state.copied.saturating_sub(1);
            let (start, length) = (job.start().0, job.length().0);
            state.add(Unflushed { start, length, copy: None }, self.unit);
            drop(state);
            lane.raise(&self.free);
        }
        Ok(())
    }
}

/// The jobs of the line: each may be about to be unflushed.
const JOBS: usize = 32;

pub(crate) const FLUSH: Entry = Entry::new(Kind::Flush, 0, 0);

fn bytes(sectors: u64) -> usize {
    Sector(sectors).to_bytes().unwrap_or(0) as usize
}

impl Target for LogWrites {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        if io.is_write() {
            return Mapping::Take { length: io.length, queue: 0 };
        }
        Mapping::Send { component: self.device, start: io.start, length: io.length }
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        write!(out, "{} {}", devs.get(self.device), devs.get(self.log))
    }

    fn status(&self, out: &mut dyn fmt::Write, _devs: &Devs<'_>) -> fmt::Result {
        let state = self.state.lock();
        let (entries, tail, logging) = (state.entries, state.tail, state.logging);
        drop(state);
        write!(out, "{entries} {}", tail.saturating_sub(1))?;
        if logging { Ok(()) } else { out.write_str(" logging_disabled") }
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        self.shown(length, each);
        each(Extent { component: self.log, start: Sector::ZERO, length: Sector(self.unit) });
    }

    fn shown(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        each(Extent { component: self.device, start: Sector::ZERO, length });
    }

    fn message(&self, text: &str, _reply: &mut String) -> Result<(), Errno> {
        let mut words = Words::new(text);
        let mut word = || words.word("").map_err(|mistake| mistake.errno);
        let (verb, mark) = (word()?, word()?);
        words.end().map_err(|mistake| mistake.errno)?;
        if !verb.eq_ignore_ascii_case("mark") {
            return Err(Errno::EINVAL);
        }
        let most = format::text_bytes(self.unit);
        let mark: Box<[u8]> = mark.as_bytes().get(..most).unwrap_or(mark.as_bytes()).into();
        let mut state = self.state.lock();
        if state.marks.len() >= limits::MARKS {
            return Err(Errno::EAGAIN);
        }
        state.marks.push_back(mark);
        drop(state);
        // The device wakes the lanes after a message.
        Ok(())
    }
}

impl Worker for LogWrites {
    fn needs(&self) -> Needs {
        let buffer = bytes(self.unit).max(BUFFER);
        Needs {
            queues: vec![6],
            background: 1,
            jobs: JOBS,
            buffer,
            background_buffer: bytes(self.unit),
            control_buffer: buffer,
            ..Needs::default()
        }
    }

    async fn serve(&self, job: Job, lane: &mut Lane) {
        let result = match job.op() {
            Op::Write => self.write(&job, lane).await,
            Op::Discard => self.discard(&job, lane).await,
            Op::Flush => {
                let before = self.next_unflushed();
                let flushed = lane.flush(&[self.device]).await.ok();
                if flushed.is_ok() {
                    self.commit(before, Some(FLUSH), lane).await;
                }
                flushed
            }
            // `map` sends reads.
            Op::Read => lane.send(&job, &[self.on_device(job.start())]).await.ok(),
        };
        job.end(result);
    }

    /// Puts marks into the log as they come.
    async fn background(&self, _number: usize, lane: &mut Lane) {
        loop {
            let come = || {
                let mut state = self.state.lock();
                let wanted = !state.marks.is_empty() && !state.busy;
                state.busy |= wanted;
                wanted.then_some(())
            };
            if lane.until_stopping(&self.free, come).await.is_none() {
                return;
            }
            let written = match self.append_marks(lane).await {
                Ok(()) => self.write_super(lane).await,
                failed => failed,
            };
            self.unlock(lane);
            if written.is_err() {
                self.give_up(lane);
            }
        }
    }

    async fn start(&self, lane: &mut Lane) -> Result<(), Errno> {
        // A log that cannot be written is found here.
        self.write_super(lane).await
    }

    /// Completes the log, as if the device went: the unflushed writes, and a last mark. If the
    /// device goes on after all, so does the log, from where it was.
    async fn stop(&self, lane: &mut Lane) {
        self.lock(lane).await;
        let ended = self.complete(lane).await;
        self.unlock(lane);
        if ended.is_err() {
            self.give_up(lane);
        }
    }

    fn suspending(&self, how: Quiesce) {
        self.state.lock().how = how;
    }
}
