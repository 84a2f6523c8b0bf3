// SPDX-License-Identifier: BSD-2-Clause

//! The requests of lanes: nested buffers to components, and errands for what may sleep.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::any::Any;
use core::sync::atomic::{AtomicU8, Ordering};

use dm_core::Errno;
use dm_core::host::{Answer, Host, Request};
use dm_core::job::{JobInfo, Op, Place};
use dm_core::lane::Outcome;
use dm_core::units::{Sector, SectorRange};

use super::answers::{Answers, bit};
use super::nested::{Inner, Nested};
use super::{Handed, TableIo};
use crate::entry::io::parker::Parker;
use crate::netbsd::buf::{self, Io};
use crate::netbsd::mutex::SpinMutex;
use crate::netbsd::sys;

/// A lane's request to its components, and the nested buffers that it goes in.
///
/// IDLE → BUSY (the runner, in [`Host::begin`] or [`Host::send`]) → DONE (whoever gives the last
/// answer: a completion, a thread that does errands, or the runner before it returns) → IDLE (the
/// runner, in [`Host::answer`] or [`Host::outcome`]).
///
/// Fields are marked by what protects them: (a) atomic; (r) the runner, while the state is IDLE or
/// DONE, and while it is BUSY the request: the components that have its buffers, or the thread that
/// does errands.
pub(super) struct LaneCell {
    /// (a) IDLE, BUSY or DONE; DONE is a release store, read with an acquire load.
    state: AtomicU8,
    /// (a) The answers of the request's places.
    answers: Answers,
    /// (r) The lane's buffer, while a request has it.
    data: Handed<Option<Box<[u8]>>>,
    /// (r) The request, if it may sleep.
    errand: Handed<Option<Errand>>,
    /// (r) The value that an errand has made.
    made: Handed<Option<Box<dyn Any + Send>>>,
    /// (r) Buffers for the places of a request.
    pub(super) nested: Box<[Nested]>,
}

/// A request that may sleep.
enum Errand {
    Flush(Place),
    Discard(Place, Sector),
    Make(fn() -> Box<dyn Any + Send>),
}

/// The number of the thread that flushes and discards.
const FOR_DISKS: usize = 0;
/// The number of the thread that waits for memory.
const FOR_MEMORY: usize = 1;

/// Lanes whose errands wait for a thread, and where it sleeps.
pub(super) struct Errands {
    /// (l) The lanes, in the order in which they came. The lock is also taken under `parker`'s, by
    /// the thread's look before it sleeps; with it held no other is taken.
    lanes: SpinMutex<VecDeque<usize>>,
    /// (l) The place where the thread sleeps.
    pub(super) parker: Parker,
}

impl Errands {
    /// Errands of so many lanes.
    pub(super) fn new(lanes: usize) -> Errands {
        let lanes = SpinMutex::new(VecDeque::with_capacity(lanes));
        Errands { lanes, parker: Parker::new(c"dmflush") }
    }

    /// `true` if no errand waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.lock().is_empty()
    }
}

const IDLE: u8 = 0;
const BUSY: u8 = 1;
const DONE: u8 = 2;

impl LaneCell {
    /// The record of lane `number`, which sends a request to `width` places at most.
    pub(super) fn new(number: usize, width: usize) -> LaneCell {
        LaneCell {
            state: AtomicU8::new(IDLE),
            answers: Answers::default(),
            data: Handed::new(None),
            errand: Handed::new(None),
            made: Handed::new(None),
            nested: Nested::row(number, width),
        }
    }

    /// Marks the lane as busy with a request.
    fn begin(&self) {
        debug_assert_eq!(self.state.load(Ordering::Relaxed), IDLE);
        self.state.store(BUSY, Ordering::Relaxed);
    }
}

impl TableIo {
    /// [`Host::begin`].
    pub(super) fn begin_request(&self, lane: usize, request: Request, places: &[Place]) {
        let cell = self.lane(lane);
        cell.begin();
        match request {
            Request::Read { data, at, bytes } => {
                let one = places.get(..1).unwrap_or(&[]);
                self.transfer(cell, lane, one, (data, at, bytes), (false, false));
            }
            Request::Write { data, at, bytes, fua } => {
                self.transfer(cell, lane, places, (data, at, bytes), (true, fua));
            }
            Request::Flush => {
                self.send_off(lane, FOR_DISKS, places.first().copied().map(Errand::Flush))
            }
            Request::Discard { length } => {
                let errand = places.first().map(|place| Errand::Discard(*place, length));
                self.send_off(lane, FOR_DISKS, errand);
            }
            Request::Make(make) => self.send_off(lane, FOR_MEMORY, Some(Errand::Make(make))),
        }
    }

    /// [`Host::send`].
    #[inline]
    pub(super) fn send_job(&self, lane: usize, job: &JobInfo, part: SectorRange, places: &[Place]) {
        let cell = self.lane(lane);
        cell.begin();
        let places = match job.op {
            Op::Read => places.get(..1).unwrap_or(&[]),
            _ => places,
        };
        // SAFETY: the lane has the job.
        let part = unsafe { self.part_of(job, part) };
        self.send_to(cell, lane, places, |buf, place| {
            let (io, offset, bytes) = part.ok_or(Errno::EINVAL)?;
            // SAFETY: the I/O stays until the job is ended, which its lane does after this request;
            // the range lies in the job's part of it.
            unsafe { buf::nest(buf, io, offset, bytes, place.sector, lane_done) };
            Ok(())
        });
    }

    /// The I/O that a job is a part of, and the bytes in it that are these sectors of the job.
    /// `None` if the job has no such sectors.
    ///
    /// # Safety
    /// The job is the caller's: it keeps its record and the I/O.
    #[inline]
    unsafe fn part_of(&self, job: &JobInfo, part: SectorRange) -> Option<(&Io, u32, u32)> {
        let cell = self.job(job.number());
        // SAFETY: the caller's promise.
        let (io, offset, all) = unsafe { (*cell.parent.get()).part()? };
        if part == (SectorRange { start: Sector::ZERO, length: job.length }) {
            return Some((io, offset, all));
        }
        let (skip, bytes) = (small(part.start)?, small(part.length)?);
        let fits = skip.checked_add(bytes).is_some_and(|end| end <= all);
        Some((io, offset.checked_add(skip)?, bytes)).filter(|_| fits)
    }

    /// [`Host::answer`].
    pub(super) fn take_answer(&self, lane: usize) -> Option<Answer> {
        let Outcome { failed, errno } = self.take_outcome(lane)?;
        let cell = self.lane(lane);
        // SAFETY: the request is over, so that its memory is the lane's again.
        let (data, made) = unsafe { ((*cell.data.get()).take(), (*cell.made.get()).take()) };
        Some(Answer { failed, errno, data, made })
    }

    /// [`Host::outcome`].
    pub(super) fn take_outcome(&self, lane: usize) -> Option<Outcome> {
        let cell = self.lane(lane);
        if cell.state.load(Ordering::Acquire) != DONE {
            return None;
        }
        let outcome = cell.answers.outcome();
        cell.state.store(IDLE, Ordering::Relaxed);
        Some(outcome)
    }

    /// Sends memory of a lane's own to or from places.
    fn transfer(
        &self,
        cell: &LaneCell,
        lane: usize,
        places: &[Place],
        (data, at, bytes): (Box<[u8]>, usize, usize),
        (write, fua): (bool, bool),
    ) {
        let fits = at.checked_add(bytes).is_some_and(|end| end <= data.len());
        // SAFETY: the lane has no request in flight, so the place is ours until `complete`.
        let memory = unsafe {
            let place = &mut *cell.data.get();
            place.insert(data).as_mut_ptr()
        };
        self.send_to(cell, lane, places, |buf, place| {
            if !fits {
                return Err(Errno::EINVAL);
            }
            // SAFETY: the buffer is this lane's and not in use; the memory stays in `data` until
            // all of its buffers are done, and the range lies in it.
            unsafe {
                let data = memory.add(at);
                buf::fill(buf, data, bytes, place.sector, (write, fua), lane_done);
            }
            Ok(())
        });
    }

    /// Fills in a nested buffer for each place and sends it.
    #[inline]
    fn send_to(
        &self,
        cell: &LaneCell,
        lane: usize,
        places: &[Place],
        fill: impl Fn(*mut sys::buf, Place) -> Result<(), Errno>,
    ) {
        // One more for this sender.
        cell.answers.begin(places.len().saturating_add(1));
        for (at, place) in places.iter().enumerate() {
            let device = self.device(place.component);
            let begun = match (cell.nested.get(at), device) {
                (Some(nested), Some(device)) => {
                    fill(nested.buf(), *place).map(|()| (nested, device))
                }
                _ => Err(Errno::EIO),
            };
            match begun {
                // SAFETY: filled in above, with the lane's own callback; the table, and with it the
                // device, stays while its lanes have requests.
                Ok((nested, device)) => unsafe { device.vnode().strategy(nested.buf()) },
                Err(errno) => self.place_done(lane, bit(at), Err(errno)),
            }
        }
        if cell.answers.add(0, Ok(())) {
            // The lane looks when this returns; it need not be woken.
            cell.state.store(DONE, Ordering::Release);
        }
    }

    /// Records that one place of a lane's request is done; the last one wakes the lane. Context:
    /// thread or soft interrupt; does not sleep.
    fn place_done(&self, lane: usize, place: u32, result: Result<(), Errno>) {
        let cell = self.lane(lane);
        if cell.answers.add(place, result) {
            cell.state.store(DONE, Ordering::Release);
            if let Some(runner) = self.ready.set(lane) {
                self.kick(runner);
            }
        }
    }

    /// Does the errands that wait, one after the other. Context: the thread that does errands;
    /// sleeps in components' drivers or for memory.
    pub(super) fn do_errands(&self, errands: &Errands) {
        loop {
            let Some(lane) = errands.lanes.lock().pop_front() else { return };
            let cell = self.lane(lane);
            // SAFETY: the lane's request is in flight here and nowhere else.
            let Some(errand) = (unsafe { (*cell.errand.get()).take() }) else {
                panic!("dm: a lane without its errand")
            };
            let device = |place: Place| self.device(place.component).ok_or(Errno::EIO);
            let result = match errand {
                Errand::Flush(place) => device(place).and_then(|device| device.flush(0)),
                Errand::Discard(place, length) => device(place)
                    .and_then(|device| device.discard(SectorRange { start: place.sector, length })),
                Errand::Make(make) => {
                    let made = make();
                    // SAFETY: the lane's request is in flight here and nowhere else; the lane takes
                    // the value when it is done.
                    unsafe { *cell.made.get() = Some(made) };
                    Ok(())
                }
            };
            self.place_done(lane, 1, result);
        }
    }

    /// Gives a lane's request to a thread that does errands; without an errand the request has
    /// failed.
    fn send_off(&self, lane: usize, which: usize, errand: Option<Errand>) {
        let cell = self.lane(lane);
        cell.answers.begin(1);
        let (Some(errand), Some(errands)) = (errand, self.errands.get(which)) else {
            return self.place_done(lane, 1, Err(Errno::EINVAL));
        };
        // SAFETY: the lane has no other request in flight; the thread that does errands takes this.
        unsafe { *cell.errand.get() = Some(errand) };
        // There is room for every lane.
        errands.lanes.lock().push_back(lane);
        errands.parker.unpark();
    }
}

/// Bytes of some sectors, as a buffer counts them.
fn small(length: Sector) -> Option<u32> {
    length.to_bytes().and_then(|bytes| u32::try_from(bytes).ok())
}

/// b_iodone of a lane's nested buffer. Context: thread or soft interrupt, no lock held; does not
/// sleep.
///
/// # Safety
/// biodone(9) calls it, once, with the buffer of a lane that was sent.
unsafe extern "C" fn lane_done(buf: *mut sys::buf) {
    // SAFETY: the buffer is the first field of an `Inner`, whose table stays while its lanes have
    // requests: the threads that poll them keep it. Once the last place is done they may end, and
    // the table's end waits for the slot's count, which stays.
    unsafe {
        let inner = buf.cast::<Inner>();
        let outcome = buf::nested_result(buf).map_err(|(_, errno)| errno);
        let (table, lane, place) = ((*inner).table, (*inner).number, (*inner).place);
        let _kept = (*table).slot.completing.enter();
        (*table).place_done(lane, place, outcome);
    }
}
