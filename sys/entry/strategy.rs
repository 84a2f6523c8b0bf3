//! The I/O path: find the device, enter its gate, look up the table line, split, send.
//!
//! An I/O holds the gate, and with it the table and its opened components, until it is complete
//! (`completion.rs`). On the way to one component it costs a nested buffer from a pool; one that crosses a
//! border in the table costs a [`Split`] more, which counts its pieces (`pieces.rs`).

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dm_core::Errno;
use dm_core::job::Op;
use dm_core::kernel::LiveTable;
use dm_core::pdev::Pdev;
use dm_core::table::{Piece, Taken};
use dm_core::units::{DEV_BSIZE, Sector};

use super::completion::done;
use super::netbsd::NetBsd;
use super::pieces::{Journey, Parent, Split, impatient_origin};
use super::slot::{Current, Slot};
use super::{dm_label_guard, global, stats};
use crate::kern::buf::{self, Io};
use crate::kern::gate::Door;
use crate::kern::reserve::Line;
use crate::kern::vnode::Vnode;
use crate::kern::{cpu, sys};

/// Where some sectors of an I/O go. A device stays as long as the I/O's pass.
pub(super) enum Place {
    Send(Vnode, Sector),
    Zero,
    Fail(Errno),
    Take(Taken),
}

impl Place {
    /// Where a piece of a table goes, and how many sectors.
    fn of(piece: Piece<'_, Pdev<NetBsd>>) -> (Place, Sector) {
        match piece {
            Piece::Send(component, sector, found) => match component.disk() {
                Some(disk) => (Place::Send(disk.device().vnode(), sector), found),
                None => (Place::Fail(Errno::EIO), found),
            },
            Piece::Zero(found) => (Place::Zero, found),
            Piece::Fail(found, errno) => (Place::Fail(errno), found),
            Piece::Take(found, taken) => (Place::Take(taken), found),
        }
    }
}

/// What an I/O is about: the table, the first sector, and how many.
type Wanted<'c> = (&'c LiveTable<NetBsd>, Sector, Sector);

/// d_strategy(9).
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
        Some(pass) => slot.send(io, Journey::new(pass)),
        None => slot.submit_shut(io),
    }
}

impl Slot {
    pub(super) fn submit(&'static self, io: Io) {
        match self.gate.enter(cpu::current()) {
            Some(pass) => self.dispatch(io, Journey::new(pass)),
            None => self.submit_shut(io),
        }
    }

    /// Submits an I/O that has found the gate shut.
    #[cold]
    fn submit_shut(&'static self, mut io: Io) {
        if let Some(origin) = impatient_origin(&io) {
            return self.turn_away(io, origin);
        }
        while let Some(again) = self.queue(io) {
            if let Some(pass) = self.gate.enter(cpu::current()) {
                return self.dispatch(again, Journey::new(pass));
            }
            io = again;
        }
    }

    /// Puts an I/O where it waits for the gate, unless it is open again.
    fn queue(&self, io: Io) -> Option<Io> {
        let mut held = self.held.lock();
        // Entering and turning back may have hidden that the gate is empty.
        self.gate_moved.broadcast();
        match self.gate.door() {
            Door::Open => return Some(io),
            Door::Held => {
                stats::count_held(self);
                held.push(io);
            }
            Door::Dead => {
                drop(held);
                io.fail(0, Errno::ENXIO);
            }
        }
        None
    }

    /// Sends an I/O that has entered the gate on its way.
    pub(crate) fn dispatch(&'static self, io: Io, journey: Journey) {
        self.send(io, journey);
    }

    /// [`Slot::dispatch`], as a part of [`dmstrategy`].
    #[inline(always)]
    fn send(&'static self, io: Io, journey: Journey) {
        // SAFETY: the journey began at this slot (invariant).
        let current = unsafe { self.gate.value(&journey.pass) };
        let (table, start, length) = match self.check(current, &io) {
            Ok(Some(range)) => range,
            Ok(None) => return self.finish_empty(io, journey),
            Err(errno) => return self.fail(io, journey, 0, errno),
        };
        let (bytes, write) = (io.bytes(), io.is_write());
        match table.map(start, length, Op::rw(write)) {
            Some(Piece::Send(component, sector, found)) if found == length => {
                let Some(disk) = component.disk() else {
                    return self.fail(io, journey, 0, Errno::EIO);
                };
                let vnode = disk.device().vnode();
                let spare = journey.pass.local().child.take();
                let Some(child) = spare.or_else(|| self.child()) else {
                    return self.starve(io, journey);
                };
                // SAFETY: the child is ours. The I/O, and with its pass the table and the device,
                // stay until `done` completes it.
                unsafe {
                    let child = child.as_ptr();
                    let buf = &raw mut (*child).buf;
                    buf::nest(buf, &io, 0, bytes, sector, done);
                    (*child).parent = MaybeUninit::new(Parent::Whole(io, journey));
                    vnode.strategy(buf);
                }
            }
            Some(Piece::Zero(found)) if found == length => {
                if !write {
                    io.zero(0, bytes);
                }
                self.finish(io, journey);
            }
            Some(piece) => {
                let (first, found) = Place::of(piece);
                self.split(io, journey, start, first, found);
            }
            None => self.fail(io, journey, 0, Errno::EINVAL),
        }
    }

    /// Sends a read that has failed, as targets say that have something else to try.
    #[cold]
    pub(super) fn send_again(&'static self, io: Io, journey: Journey) {
        let (start, length) = (io.sector(), Sector(u64::from(io.bytes() / DEV_BSIZE)));
        // SAFETY: the journey began at this slot (invariant).
        let table = unsafe { self.gate.value(&journey.pass) }.table.as_deref();
        let piece = table.and_then(|table| map_again(table, start, length));
        let (first, found) = piece.map_or((Place::Fail(Errno::EIO), length), Place::of);
        self.split(io, journey, start, first, found);
    }

    /// What an I/O is about: the table and the range, cut at the device's end. `None` when there
    /// is nothing to do.
    #[inline]
    fn check<'c>(&self, current: &'c Current, io: &Io) -> Result<Option<Wanted<'c>>, Errno> {
        // The slot may serve another device by now.
        if !self.serves(io.dev()) {
            return Err(Errno::ENXIO);
        }
        let table = current.table.as_deref().ok_or(Errno::ENXIO)?;
        if !table.holds(io.sector(), io.bytes()) && !cut(table, io)? {
            return Ok(None);
        }
        let (start, length) = (io.sector(), Sector(u64::from(io.bytes() / DEV_BSIZE)));
        if io.is_write() {
            if current.read_only {
                return Err(Errno::EROFS);
            }
            if table.hits_label(start, length) && self.label_is_guarded() {
                return Err(Errno::EROFS);
            }
        }
        Ok(Some((table, start, length)))
    }

    pub(crate) fn label_is_guarded(&self) -> bool {
        dm_label_guard.load(Ordering::Relaxed) != 0 && !self.label_writable.load(Ordering::Relaxed)
    }

    /// Cuts an I/O at the borders of the table and sends the pieces, of which the first has been
    /// looked up.
    #[inline(never)]
    fn split(&'static self, io: Io, journey: Journey, start: Sector, first: Place, found: Sector) {
        let local = journey.pass.local();
        let split = local.split.take().or_else(|| global()?.splits.get());
        let reserved = split.is_none();
        let Some(split) = split.or_else(|| Some(self.reserve.take_split()?.0)) else {
            return self.starve(io, journey);
        };
        local.tallies.count_split();
        let bytes = io.bytes();
        let new = Split {
            whole: Some((io, journey)),
            start,
            bytes,
            sent: 0,
            pending: AtomicUsize::new(1),
            failed: AtomicBool::new(false),
            bad: (bytes, Errno::EIO),
            again: AtomicBool::new(false),
            reserved,
            next: None,
        };
        // SAFETY: the split is ours, and what it was before has nothing to drop: its I/O was taken.
        unsafe { split.as_ptr().write(new) };
        self.advance(split, Some((first, found)));
    }

    /// Sends the pieces that are left of a split, which is the caller's to send. The next one may
    /// have been looked up.
    #[inline]
    pub(super) fn advance(&'static self, split: NonNull<Split>, mut next: Option<(Place, Sector)>) {
        // SAFETY: the sender's own count keeps the split, and with it the I/O and its pass, until
        // `release`; nobody else touches `sent`. Pieces under way touch `pending`, `failed` and
        // `bad` only.
        unsafe {
            let raw = split.as_ptr();
            let Some((io, journey)) = &(*raw).whole else { return };
            let current = self.gate.value(&journey.pass);
            let Some(table) = &current.table else { return };
            let (write, local) = (io.is_write(), journey.pass.local());
            while let left @ 1.. = (*raw).bytes.saturating_sub((*raw).sent) {
                let offset = (*raw).sent;
                let (place, found) = next.take().unwrap_or_else(|| {
                    let start = (*raw).start.0.wrapping_add(u64::from(offset / DEV_BSIZE));
                    let length = Sector(u64::from(left / DEV_BSIZE));
                    let piece = match journey.again {
                        true => map_again(table, Sector(start), length),
                        false => table.map(Sector(start), length, Op::rw(write)),
                    };
                    piece.map_or((Place::Fail(Errno::EIO), length), Place::of)
                });
                // A target that found nothing, which is a mistake, must not stop the loop.
                let bytes = left.min((found.0 as u32).wrapping_mul(DEV_BSIZE)).max(1);
                let sent = offset.wrapping_add(bytes);
                match place {
                    Place::Send(vnode, sector) => {
                        let child = local.child.take().or_else(|| self.child_or_wait(split));
                        let Some(child) = child else { return };
                        (*raw).sent = sent;
                        (*raw).pending.fetch_add(1, Ordering::Relaxed);
                        let child = child.as_ptr();
                        let buf = &raw mut (*child).buf;
                        buf::nest(buf, io, offset, bytes, sector, done);
                        (*child).parent = MaybeUninit::new(Parent::Piece(split, offset));
                        vnode.strategy(buf);
                        continue;
                    }
                    Place::Zero if write => {}
                    Place::Zero => io.zero(offset, bytes),
                    Place::Fail(errno) => self.note(split, offset, errno),
                    Place::Take(taken) => {
                        let job = current.host.as_ref().zip(table.engine());
                        let job = job.and_then(|(host, engine)| {
                            Some((host, engine, engine.serving(taken.line)?))
                        });
                        match job {
                            // Only a target that serves I/O may take any.
                            None => self.note(split, offset, Errno::EIO),
                            Some((host, engine, line)) => {
                                (*raw).pending.fetch_add(1, Ordering::Relaxed);
                                if !host.take(engine, line, split, (offset, bytes), taken) {
                                    (*raw).pending.fetch_sub(1, Ordering::Relaxed);
                                    return host.wait_for_job(engine, line, split);
                                }
                            }
                        }
                    }
                }
                (*raw).sent = sent;
            }
        }
        self.release(split);
    }
}

/// Maps a read that has failed.
#[cold]
fn map_again(
    table: &LiveTable<NetBsd>,
    start: Sector,
    length: Sector,
) -> Option<Piece<'_, Pdev<NetBsd>>> {
    table.map_failed(start, length, Op::Read).or_else(|| table.map(start, length, Op::Read))
}

/// Looks closer at an I/O that is not some whole sectors on the device. Cuts it at the device's
/// end, as disks do; `false` when nothing is left to do.
///
/// # Errors
/// EINVAL when it cannot be done.
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
