// SPDX-License-Identifier: BSD-2-Clause

//! The end of an I/O: the results of its pieces, biodone(9), leaving the gate.
//!
//! Context of everything here: b_iodone, with no lock held, in a thread or in a soft interrupt:
//! that of the bio queue, or, since biodone(9) defers in hard interrupts only, one of the
//! component's driver, of any level. Nothing here asks the general heap for memory, or takes an
//! adaptive mutex of the driver's; biodone(9) takes the buffer's b_objlock, and VOP_STRATEGY(9) the
//! vnode's interlock and specfs's device_lock, which are adaptive. Spin mutexes at IPL_BIO are held
//! for a few instructions, none across either. In a soft interrupt nothing here sleeps; in a thread
//! a component's d_strategy may.
//!
//! A completion also lets other I/O go on: I/O that waited for the child or the split that comes
//! back here, all pieces of a read that is retried, and I/O that a target gave back, if the
//! gate is open by then. So it calls VOP_STRATEGY(9) of any component of the device, from a soft
//! interrupt too, as cgd(4) does, whose b_iodone starts what its queue holds. For I/O that waits
//! for a job's number a soft interrupt wakes a lane: `Executor::let_go_on`.

use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering;

use dm_core::Errno;
use dm_core::job::Op;
use dm_core::units::{DEV_BSIZE, Sector, SectorRange};

use super::io::Here;
use super::io::iogate::NotQueued;
use super::io::reserve::Next;
use super::journey::{Journey, impatient_origin};
use super::pieces::{Child, Parent, Split};
use super::slot::{Local, Slot};
use super::split::sector_at;
use crate::netbsd::buf::{self, Io};
use crate::netbsd::sys;

impl Slot {
    /// Completes an I/O that succeeded, and leaves the gate. `here` is of this slot.
    #[inline]
    pub(super) fn finish(&self, io: Io, journey: Journey, here: Here<'_, Local>) {
        let Journey { pass, came, .. } = journey;
        self.count(&here.local().tallies, io.is_write(), io.bytes(), came);
        io.complete();
        // SAFETY: the journey began at this slot (invariant), which `here` is of (callers).
        unsafe { self.gate.leave(pass, here) };
    }

    /// Completes an I/O that failed after `done` bytes, and leaves the gate.
    #[cold]
    pub(super) fn fail(&self, io: Io, journey: Journey, done: u32, errno: Errno) {
        let Journey { pass, came, .. } = journey;
        let tallies = &self.here().local().tallies;
        tallies.count_failed();
        self.count(tallies, io.is_write(), done, came);
        io.fail(done, errno);
        // SAFETY: the journey began at this slot (invariant).
        unsafe { self.leave(pass) };
    }

    /// Completes an I/O of which nothing was to be done, and leaves the gate.
    #[cold]
    pub(super) fn finish_empty(&self, io: Io, journey: Journey) {
        io.complete_empty();
        // SAFETY: the journey began at this slot (invariant).
        unsafe { self.leave(journey.pass) };
    }

    /// Records that a piece failed at byte `at` of its I/O. The I/O's error is that of the lowest
    /// byte that was not moved, which its sender can make use of.
    #[cold]
    pub(super) fn note(&self, split: NonNull<Split>, at: u32, errno: Errno) {
        let _lock = self.failures.lock();
        // SAFETY: the split lives while its piece does, and `bad` is read and written under this
        // lock until the last count is dropped.
        unsafe {
            let split = split.as_ptr();
            if !(*split).failed.swap(true, Ordering::Relaxed) || at < (*split).bad.0 {
                (*split).bad = (at, errno);
            }
        }
    }

    /// Completes a child whose part failed or that goes back to the reserve or the pool, and goes
    /// on with its I/O: the slow path of [`done`].
    ///
    /// # Safety
    /// The child was sent with this parent, and is done.
    #[inline(never)]
    unsafe fn done(&'static self, child: NonNull<Child>, parent: Parent) {
        // SAFETY: the caller's promise.
        unsafe {
            let outcome = buf::nested_result(&raw const (*child.as_ptr()).buf);
            self.done_with(child, parent, outcome);
        }
    }

    /// [`Slot::done`], with an outcome that may be another than the buffer's.
    ///
    /// # Safety
    /// As for [`Slot::done`].
    unsafe fn done_with(
        &'static self,
        child: NonNull<Child>,
        parent: Parent,
        outcome: buf::NestedResult,
    ) {
        let here = self.here();
        match parent {
            Parent::Whole(io, journey) => {
                self.put_child(child, here);
                match outcome {
                    Ok(()) => self.finish(io, journey, here),
                    Err((moved, errno)) => self.failed(io, journey, moved, errno),
                }
            }
            Parent::Piece(split, offset) => {
                if let Err((moved, errno)) = outcome {
                    self.note(split, offset.saturating_add(moved), errno);
                }
                self.put_child(child, here);
                self.release(split, here);
            }
        }
    }

    /// Asks the target after its read of `bytes` bytes from `start` on, which it has tracked.
    /// Returns the read's outcome.
    ///
    /// # Errors
    /// Those of `outcome`, or the target's.
    pub(super) fn untrack(
        &self,
        journey: &Journey,
        start: Sector,
        bytes: u32,
        outcome: buf::NestedResult,
    ) -> buf::NestedResult {
        // SAFETY: the journey began at this slot (invariant).
        let current = unsafe { self.gate.value(&journey.pass) };
        let Some(table) = &current.table else { return outcome };
        let moved = outcome.err().map_or(0, |(moved, _)| moved);
        let result = outcome.map_err(|(_, errno)| errno);
        let range = SectorRange { start, length: Sector(u64::from(bytes / DEV_BSIZE)) };
        table.untrack(range, result).map_err(|errno| (moved, errno))
    }

    /// Fails an I/O, after `done` bytes, whose one component failed, unless its target has
    /// something else to try.
    #[cold]
    pub(super) fn failed(&'static self, io: Io, mut journey: Journey, done: u32, errno: Errno) {
        if journey.retried || !self.may_retry(&io, &journey, io.sector()) {
            return self.fail(io, journey, done, errno);
        }
        journey.retried = true;
        self.retry(io, journey);
    }

    /// `true` if the target at a sector has something else to try for a read that has failed.
    fn may_retry(&self, io: &Io, journey: &Journey, sector: Sector) -> bool {
        // SAFETY: the journey began at this slot (invariant).
        let table = unsafe { self.gate.value(&journey.pass) }.table.as_deref();
        let asked = table.filter(|table| !io.is_write() && !table.serving().is_empty());
        asked.is_some_and(|table| {
            table.map_failed(SectorRange { start: sector, length: Sector(1) }, Op::Read).is_some()
        })
    }

    /// Retries a split of which a piece has failed at byte `at`, with all its pieces, if the target
    /// there has something else to try. `true` if so.
    ///
    /// # Safety
    /// The caller has dropped the last count of the split.
    #[cold]
    unsafe fn split_failed(&'static self, split: NonNull<Split>, at: u32) -> bool {
        // SAFETY: the split is the caller's alone.
        let retried = unsafe {
            let raw = split.as_ptr();
            let sector = sector_at((*raw).start, at);
            match &mut (*raw).whole {
                Some((io, journey)) if !journey.retried => {
                    journey.retried = self.may_retry(io, journey, sector);
                    journey.retried
                }
                _ => false,
            }
        };
        if retried {
            // SAFETY: the split is the caller's alone; `advance` sends its pieces as it did at
            // first.
            unsafe {
                let raw = split.as_ptr();
                (*raw).sent = 0;
                (*raw).failed.store(false, Ordering::Relaxed);
                (*raw).pending.store(1, Ordering::Relaxed);
            }
            self.go_on(split);
        }
        retried
    }

    /// Drops one count of a split: a piece's, or the sender's. The last completes the I/O.
    pub(super) fn release(&'static self, split: NonNull<Split>, here: Here<'_, Local>) {
        // SAFETY: the caller's count keeps the split; after the last one it is ours alone.
        let (whole, given_back, result) = unsafe {
            let raw = split.as_ptr();
            if (*raw).pending.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            let failed = (*raw).failed.load(Ordering::Relaxed);
            let given_back = (*raw).given_back.load(Ordering::Relaxed);
            if failed && !given_back && self.split_failed(split, (*raw).bad.0) {
                return;
            }
            let result = if failed { Err((*raw).bad) } else { Ok(()) };
            ((*raw).whole.take(), given_back, result)
        };
        let Some((io, journey)) = whole else { panic!("dm: a split without its I/O") };
        self.put_split(split, here);
        match result {
            Ok(()) if given_back => self.hold_given_back(io, journey),
            Ok(()) => self.finish(io, journey, here),
            Err((done, errno)) => self.fail(io, journey, done, errno),
        }
    }

    /// Holds an I/O that a target gave back, or of which it gave a piece back: behind those that
    /// came back before it, in front of those that have not been inside. The next table maps all of
    /// it, also the pieces that were done, which does no harm since its sender has not been
    /// answered.
    #[cold]
    pub(super) fn hold_given_back(&'static self, io: Io, journey: Journey) {
        let own = journey.is_impatient().then(|| self.minor());
        if let Some(origin) = own.or_else(|| impatient_origin(&io)) {
            // SAFETY: the journey began at this slot (invariant).
            unsafe { self.leave(journey.pass) };
            return self.turn_away(io, origin);
        }
        match self.gate.hold(io, true) {
            // SAFETY: the journey began at this slot (invariant).
            Ok(()) => unsafe { self.leave(journey.pass) },
            Err(NotQueued::Open(io)) => {
                // SAFETY: the journey began at this slot (invariant).
                unsafe { self.leave(journey.pass) };
                self.submit(io);
            }
            Err(NotQueued::Dead(io)) => self.fail(io, journey, 0, Errno::ENXIO),
        }
    }

    /// Queues an I/O until the reserve has come back: outside the gate, and from the start.
    #[cold]
    pub(super) fn starve(&'static self, io: Io, journey: Journey) {
        if journey.is_impatient() {
            // It says as little about the label as one that was turned away.
            self.label_search_failed(self.minor());
            return self.fail(io, journey, 0, Errno::ENOMEM);
        }
        self.reserve.starve(io);
        // SAFETY: the journey began at this slot (invariant).
        unsafe { self.leave(journey.pass) };
        // The child or split that it waits for may have come back before it was in the queue.
        self.serve();
    }

    /// Lets I/O that waits for the reserve go on.
    #[cold]
    pub(super) fn serve(&'static self) {
        self.reserve.serve(|next| match next {
            Next::Starved(io) => self.submit(io),
            Next::Halted(split) => self.go_on(split),
        });
    }
}

/// b_iodone of a child. Context: see this file's head.
///
/// # Safety
/// biodone(9) calls it, once, with the buffer of a child that was sent.
pub(super) unsafe extern "C" fn done(buf: *mut sys::buf) {
    // SAFETY: the buffer is the child's first field, and `parent` was written when it was sent.
    // The I/O it is for is in flight, which keeps the slot and, in a split, the split.
    unsafe {
        let child = NonNull::new_unchecked(buf.cast::<Child>());
        let raw = child.as_ptr();
        let (slot, reserved): (&'static Slot, bool) = (&*(*raw).slot, (*raw).reserved);
        if !buf::is_complete(buf) || reserved {
            return slot.done(child, (*raw).parent.assume_init_read());
        }
        let here = slot.here();
        let cache = &here.local().child;
        // Copied out before the child can be used by another I/O; field by field, since a read of
        // the whole enum makes the compiler spill it.
        match (*raw).parent.assume_init_ref() {
            Parent::Whole(io, journey) => {
                let (io, journey) = (ptr::read(io), ptr::read(journey));
                match cache.keep(child) {
                    true => slot.finish(io, journey, here),
                    false => slot.done(child, Parent::Whole(io, journey)),
                }
            }
            &Parent::Piece(split, offset) => match cache.keep(child) {
                true => slot.release(split, here),
                false => slot.done(child, Parent::Piece(split, offset)),
            },
        }
    }
}

/// b_iodone of a child whose read a tracker has counted. Context: see this file's head.
///
/// # Safety
/// As for [`done`].
pub(super) unsafe extern "C" fn track_done(buf: *mut sys::buf) {
    // SAFETY: the buffer is the first field of a child that was sent (caller). `tracker` was
    // written then, and the table that has it stays while the I/O is in flight.
    unsafe {
        let child = NonNull::new_unchecked(buf.cast::<Child>());
        match (*child.as_ptr()).tracker.assume_init().as_ref().end() {
            true => asks_done(child),
            false => done(buf),
        }
    }
}

/// The end of a child whose tracker says that its target is to be asked.
///
/// # Safety
/// As for [`done`].
#[cold]
unsafe fn asks_done(child: NonNull<Child>) {
    // SAFETY: the child is done (caller), and its I/O, in flight, keeps the slot and, in a split,
    // the split, whose start does not change.
    unsafe {
        let raw = child.as_ptr();
        let slot: &'static Slot = &*(*raw).slot;
        let buf = &raw const (*raw).buf;
        let (outcome, bytes) = (buf::nested_result(buf), (*buf).b_bufsize as u32);
        let parent = (*raw).parent.assume_init_read();
        let outcome = match &parent {
            Parent::Whole(io, journey) => slot.untrack(journey, io.sector(), bytes, outcome),
            Parent::Piece(split, offset) => {
                let split = split.as_ptr();
                let Some((_, journey)) = &(*split).whole else {
                    panic!("dm: a piece without its I/O");
                };
                slot.untrack(journey, sector_at((*split).start, *offset), bytes, outcome)
            }
        };
        slot.done_with(child, parent, outcome);
    }
}
