// SPDX-License-Identifier: BSD-2-Clause

//! The I/O path down: find the device, enter its gate, look up the table line, split, send.
//!
//! Context of everything here: a thread, or a soft interrupt (the I/O of a device above, or of one
//! that waited, is sent on from a completion). Nothing here sleeps, allocates, or holds a lock of
//! the driver's across VOP_STRATEGY(9); a component's d_strategy may sleep where it is called by a
//! thread.
//!
//! An I/O holds the gate, and with it the table and its opened components, until it is complete
//! (`completion.rs`). On the way to one component it costs a nested buffer from a pool; one that
//! crosses a border in the table costs a split more, which counts its pieces (`split.rs`,
//! `pieces.rs`).

use alloc::sync::Arc;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use dm_core::Errno;
use dm_core::executor::Executor;
use dm_core::job::Op;
use dm_core::kernel::LiveTable;
use dm_core::pdev::Pdev;
use dm_core::table::{Piece, Taken};
use dm_core::tracker::Tracker;
use dm_core::units::{DEV_BSIZE, Sector, SectorRange};

use super::completion::{done, track_done};
use super::io::Here;
use super::io::iogate::NotQueued;
use super::job::{self, JobParent, TableIo};
use super::journey::{Journey, impatient_origin};
use super::kernel::NetBsd;
use super::pieces::Parent;
use super::slot::{Current, Local, Slot};
use super::split::Destination;
use super::{dm_label_guard, global, stats};
use crate::netbsd::buf::{self, Io};
use crate::netbsd::vnode::Vnode;
use crate::netbsd::{cpu, sys};

/// The range of a table that an I/O asks for.
type Wanted<'c> = (&'c LiveTable<NetBsd>, SectorRange);

/// d_strategy(9). Context: thread or soft interrupt; does not sleep, but for the component's
/// d_strategy.
///
/// # Safety
/// `bp` is an I/O for this driver, as the kernel hands it to d_strategy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmstrategy(bp: *mut sys::buf) {
    // SAFETY: the caller's promise.
    let io = unsafe { Io::from_raw(NonNull::new_unchecked(bp)) };
    let slot = global().and_then(|global| global.slots.get(io.dev().minor()));
    let Some(slot) = slot else { return io.fail(0, Errno::ENXIO) };
    match slot.gate.enter(cpu::current()) {
        Some((pass, here)) => slot.send(io, Journey::new(pass), here),
        None => slot.submit_shut(io),
    }
}

impl Slot {
    /// Submits an I/O, from the start: the gate has not been entered for it.
    pub(super) fn submit(&'static self, io: Io) {
        match self.gate.enter(cpu::current()) {
            Some((pass, _)) => self.dispatch(io, Journey::new(pass)),
            None => self.submit_shut(io),
        }
    }

    /// Submits an I/O that has found the gate shut.
    #[cold]
    fn submit_shut(&'static self, mut io: Io) {
        if let Some(origin) = impatient_origin(&io) {
            return self.turn_away(io, origin);
        }
        loop {
            io = match self.gate.hold(io, false) {
                Ok(()) => return stats::count_held(self),
                Err(NotQueued::Dead(io)) => return io.fail(0, Errno::ENXIO),
                Err(NotQueued::Open(io)) => io,
            };
            if let Some((pass, _)) = self.gate.enter(cpu::current()) {
                return self.dispatch(io, Journey::new(pass));
            }
        }
    }

    /// Sends an I/O on that has entered the gate, in another context than its sender's.
    pub(crate) fn dispatch(&'static self, io: Io, journey: Journey) {
        journey.leaves_sender();
        self.send(io, journey, self.here());
    }

    /// Sends an I/O that has entered the gate.
    #[inline(always)]
    fn send(&'static self, io: Io, journey: Journey, here: Here<'_, Local>) {
        // SAFETY: the journey began at this slot (invariant).
        let current = unsafe { self.gate.value(&journey.pass) };
        let (table, range) = match self.check(current, &io) {
            Ok(Some(range)) => range,
            Ok(None) => return self.finish_empty(io, journey),
            Err(errno) => return self.fail(io, journey, 0, errno),
        };
        let (bytes, write) = (io.bytes(), io.is_write());
        match table.map(range, Op::rw(write)) {
            Some(Piece::Send(component, at)) if at.length == range.length => {
                let vnode = component.handle();
                let Some(child) = self.child_of(here) else {
                    return self.starve(io, journey);
                };
                // SAFETY: the child is ours. The I/O, and with its pass the table and the device,
                // stay until `done` completes it.
                unsafe {
                    let child = child.as_ptr();
                    let buf = &raw mut (*child).buf;
                    buf::nest(buf, &io, 0, bytes, at.start, done);
                    (*child).parent = MaybeUninit::new(Parent::Whole(io, journey));
                    vnode.strategy(buf);
                }
            }
            Some(Piece::Zero(found)) if found == range.length => {
                if !write {
                    io.zero(0, bytes);
                }
                self.finish(io, journey, here);
            }
            Some(Piece::Track(component, at, tracker)) if at.length == range.length => {
                let (vnode, tracker) = (component.handle(), NonNull::from(tracker));
                self.track(io, journey, vnode, at.start, tracker, here);
            }
            Some(Piece::Take(found, taken)) if found == range.length => {
                self.hand_over(io, journey, taken);
            }
            Some(piece) => {
                let (first, found) = Destination::of(piece);
                self.split(io, journey, range.start, (first, found));
            }
            None => self.fail(io, journey, 0, Errno::EINVAL),
        }
    }

    /// Sends all of a read that a tracker of its table has counted.
    #[inline(never)]
    fn track(
        &'static self,
        io: Io,
        journey: Journey,
        vnode: Vnode,
        sector: Sector,
        tracker: NonNull<Tracker>,
        here: Here<'_, Local>,
    ) {
        let Some(child) = self.child_of(here) else {
            self.unsent(&journey, io.sector(), io.bytes(), tracker);
            return self.starve(io, journey);
        };
        // SAFETY: the child is ours. The I/O, and with its pass the table, its tracker and the
        // device, stay until `track_done` completes it.
        unsafe {
            let child = child.as_ptr();
            let buf = &raw mut (*child).buf;
            buf::nest(buf, &io, 0, io.bytes(), sector, track_done);
            (*child).parent = MaybeUninit::new(Parent::Whole(io, journey));
            (*child).tracker = MaybeUninit::new(tracker);
            vnode.strategy(buf);
        }
    }

    /// Counts out `bytes` bytes from `start` on that their target tracks, since they were not sent
    /// for lack of memory. Their sender maps them once more.
    #[cold]
    pub(super) fn unsent(
        &self,
        journey: &Journey,
        start: Sector,
        bytes: u32,
        tracker: NonNull<Tracker>,
    ) {
        // SAFETY: the tracker is of the table that the journey's pass keeps.
        if unsafe { tracker.as_ref() }.end() {
            let _ = self.untrack(journey, start, bytes, Err((0, Errno::ENOMEM)));
        }
    }

    /// Hands all of an I/O to the target that takes it, as one job.
    #[inline(never)]
    fn hand_over(&'static self, io: Io, journey: Journey, taken: Taken) {
        // The job may end before this returns, and its pass with it.
        // SAFETY: the journey began at this slot (invariant).
        let kept = unsafe { self.gate.enter_also(&journey.pass, cpu::current()) };
        // SAFETY: the pass is this slot's, as the journey's is (invariant).
        let current = unsafe { self.gate.value(&kept) };
        match serving(current, taken) {
            Some((host, engine, line)) => match engine.claim(line) {
                // SAFETY: the I/O is ours, inside the gate behind which the table stands, and
                // `kept` stays until after this.
                Some(number) => unsafe {
                    let info = job::describe(&io, &journey, io.bytes(), (line, number), taken);
                    host.submit(engine, JobParent::Whole(io, journey), info);
                },
                // The I/O waits for the number of a job, as a split.
                None => {
                    let range = sectors_of(&io);
                    self.split(io, journey, range.start, (Destination::Take(taken), range.length));
                }
            },
            // Only a target that serves I/O may take any.
            None => self.fail(io, journey, 0, Errno::EIO),
        }
        // SAFETY: the pass is this slot's: its gate gave it above.
        unsafe { self.leave(kept) };
    }

    /// Retries a read that has failed: sends it as its target says, which has something else to
    /// try.
    #[cold]
    pub(super) fn retry(&'static self, io: Io, journey: Journey) {
        let range = sectors_of(&io);
        // SAFETY: the journey began at this slot (invariant).
        let table = unsafe { self.gate.value(&journey.pass) }.table.as_deref();
        let piece = table.and_then(|table| map_retry(table, range));
        let (first, found) =
            piece.map_or((Destination::Fail(Errno::EIO), range.length), Destination::of);
        journey.leaves_sender();
        self.split(io, journey, range.start, (first, found));
    }

    /// Checks an I/O against the table: that it may be done, and its range, cut at the device's
    /// end. `None` when there is nothing to do.
    ///
    /// # Errors
    /// ENXIO without a table or for another device's I/O, EINVAL for part of a sector, EROFS.
    #[inline]
    fn check<'c>(&self, current: &'c Current, io: &Io) -> Result<Option<Wanted<'c>>, Errno> {
        // The slot may be used by another device by now.
        if !self.serves(io.dev()) {
            return Err(Errno::ENXIO);
        }
        let table = current.table.as_deref().ok_or(Errno::ENXIO)?;
        if !table.holds(io.sector(), io.bytes()) && !cut(table, io)? {
            return Ok(None);
        }
        let range = sectors_of(io);
        if io.is_write() {
            if current.read_only {
                return Err(Errno::EROFS);
            }
            if table.hits_label(range) && self.label_is_guarded() {
                return Err(Errno::EROFS);
            }
        }
        Ok(Some((table, range)))
    }

    /// `true` if writes to the label sectors of components are refused.
    pub(crate) fn label_is_guarded(&self) -> bool {
        dm_label_guard.load(Ordering::Relaxed) != 0 && !self.label_writable.load(Ordering::Relaxed)
    }
}

/// The sectors of a device that an I/O of whole sectors asks for.
#[inline(always)]
fn sectors_of(io: &Io) -> SectorRange {
    SectorRange { start: io.sector(), length: Sector(u64::from(io.bytes() / DEV_BSIZE)) }
}

/// The means of the line that takes a stretch of I/O, and the line's number among those that serve
/// I/O.
#[inline]
pub(super) fn serving(
    current: &Current,
    taken: Taken,
) -> Option<(&Arc<TableIo>, &Arc<Executor>, usize)> {
    let engine = current.table.as_deref()?.engine()?;
    Some((current.host.as_ref()?, engine, engine.serving(taken.line)?))
}

/// Maps a read that is retried: as its target says, or as before where that has nothing else to
/// try.
#[cold]
pub(super) fn map_retry(
    table: &LiveTable<NetBsd>,
    range: SectorRange,
) -> Option<Piece<'_, Pdev<NetBsd>>> {
    table.map_failed(range, Op::Read).or_else(|| table.map(range, Op::Read))
}

/// The slow path of [`Slot::check`], for an I/O that is empty, unaligned or reaches beyond the
/// device's end. Cuts it at the end, as disks do. `false` when nothing is left to do; b_error may
/// be set then.
///
/// # Errors
/// EINVAL for part of a sector.
#[cold]
fn cut(table: &LiveTable<NetBsd>, io: &Io) -> Result<bool, Errno> {
    if !(1..=i32::MAX as u32).contains(&io.bytes()) {
        return Ok(false);
    }
    // First, as other disks do: bounding would make part of a sector at the end a whole one.
    if !io.bytes().is_multiple_of(table.sector_size()) {
        return Err(Errno::EINVAL);
    }
    if !io.bound(table.size()) {
        return Ok(false);
    }
    if table.holds(io.sector(), io.bytes()) { Ok(true) } else { Err(Errno::EINVAL) }
}
