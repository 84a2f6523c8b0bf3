// SPDX-License-Identifier: BSD-2-Clause

//! The pieces of an I/O that crosses a border of its table, or that waits for the number of a job:
//! where each goes, and how it is sent. `pieces.rs` has the account of them, [`Split`]. Context of
//! everything here: as in `strategy.rs`.

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dm_core::Errno;
use dm_core::job::Op;
use dm_core::pdev::Pdev;
use dm_core::table::{Piece, Taken};
use dm_core::tracker::Tracker;
use dm_core::units::{DEV_BSIZE, Sector, SectorRange};

use super::completion::{done, track_done};
use super::global;
use super::io::Here;
use super::job::{self, JobParent};
use super::journey::Journey;
use super::kernel::NetBsd;
use super::pieces::{Child, Parent, Split, whole_of};
use super::slot::{Local, Slot};
use super::strategy::{map_retry, serving};
use crate::netbsd::buf::{self, Io};
use crate::netbsd::vnode::Vnode;

/// The destination of a piece of an I/O.
pub(super) enum Destination {
    /// Send the piece to this sector of a component, whose vnode stays as long as the I/O is inside
    /// the gate.
    Send(Vnode, Sector),
    /// Send the piece to this sector of a component; it is a read that a tracker of the table's
    /// counts.
    Track(Vnode, Sector, NonNull<Tracker>),
    /// Zero the piece: it reads as zeroes, and a write of it is dropped.
    Zero,
    /// Fail the piece.
    Fail(Errno),
    /// Give the piece to the target's lanes, as a job.
    Take(Taken),
}

impl Destination {
    /// The destination and the length of a table's piece.
    pub(super) fn of(piece: Piece<'_, Pdev<NetBsd>>) -> (Destination, Sector) {
        match piece {
            Piece::Send(component, at) => {
                (Destination::Send(component.handle(), at.start), at.length)
            }
            Piece::Track(component, at, tracker) => {
                (Destination::Track(component.handle(), at.start, tracker.into()), at.length)
            }
            Piece::Zero(found) => (Destination::Zero, found),
            Piece::Fail(found, errno) => (Destination::Fail(errno), found),
            Piece::Take(found, taken) => (Destination::Take(taken), found),
        }
    }
}

impl Slot {
    /// Cuts an I/O at the borders of the table and sends the pieces. The first has been looked up:
    /// `found` sectors to `first`.
    #[inline(never)]
    pub(super) fn split(
        &'static self,
        io: Io,
        journey: Journey,
        start: Sector,
        first: (Destination, Sector),
    ) {
        let here = self.here();
        let local = here.local();
        let split = local.split.take().or_else(|| global()?.splits.get());
        let reserved = split.is_none();
        let Some(split) = split.or_else(|| Some(self.reserve.take_split()?.0)) else {
            if let (Destination::Track(.., tracker), found) = first {
                self.unsent(&journey, start, (found.0 as u32).wrapping_mul(DEV_BSIZE), tracker);
            }
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
            given_back: AtomicBool::new(false),
            reserved,
            next: None,
        };
        // SAFETY: the split is ours, and what it was before has nothing to drop: its I/O was taken.
        unsafe { split.as_ptr().write(new) };
        self.advance(split, Some(first), here);
    }

    /// Sends the pieces that are left of a split that has waited, in another context than its
    /// sender's: see [`Slot::advance`].
    pub(super) fn go_on(&'static self, split: NonNull<Split>) {
        // SAFETY: the caller is the split's sender, whose count keeps it.
        if let Some((_, journey)) = unsafe { whole_of(split) } {
            journey.leaves_sender();
        }
        self.advance(split, None, self.here());
    }

    /// Sends the pieces of a split that are left, until none is or it has to wait for a child or
    /// for the number of a job. The next one may have been looked up. The caller is the split's
    /// sender: see [`Split`].
    #[inline]
    fn advance(
        &'static self,
        split: NonNull<Split>,
        mut next: Option<(Destination, Sector)>,
        here: Here<'_, Local>,
    ) {
        // SAFETY: the sender's own count keeps the split, and with it the I/O and its pass, until
        // `release`; no other context touches `sent`. Pieces in flight write `pending`, `failed`,
        // `given_back` and `bad` only.
        unsafe {
            let raw = split.as_ptr();
            let Some((io, journey)) = &(*raw).whole else { panic!("dm: a split without its I/O") };
            let current = self.gate.value(&journey.pass);
            let Some(table) = &current.table else { panic!("dm: a split without its table") };
            let (write, local) = (io.is_write(), here.local());
            while let left @ 1.. = (*raw).bytes.saturating_sub((*raw).sent) {
                let offset = (*raw).sent;
                let (destination, found) = next.take().unwrap_or_else(|| {
                    let start = sector_at((*raw).start, offset);
                    let range = SectorRange { start, length: Sector(u64::from(left / DEV_BSIZE)) };
                    let piece = match journey.retried {
                        true => map_retry(table, range),
                        false => table.map(range, Op::rw(write)),
                    };
                    piece.map_or((Destination::Fail(Errno::EIO), range.length), Destination::of)
                });
                let bytes = left.min((found.0 as u32).wrapping_mul(DEV_BSIZE));
                if bytes == 0 {
                    // The I/O would never end.
                    panic!("dm: a target maps no sector");
                }
                let sent = offset.wrapping_add(bytes);
                match destination {
                    Destination::Send(vnode, sector) => {
                        let child = local.child.take().or_else(|| self.child_or_wait(split));
                        let Some(child) = child else { return };
                        (*raw).sent = sent;
                        send_piece(split, child, (offset, bytes), (vnode, sector), done);
                        continue;
                    }
                    Destination::Track(vnode, sector, tracker) => {
                        let Some(child) = local.child.take().or_else(|| self.child()) else {
                            // The piece is mapped once more when there is a child.
                            self.unsent(journey, sector_at((*raw).start, offset), bytes, tracker);
                            let Some(child) = self.child_or_wait(split) else { return };
                            self.put_child(child, here);
                            continue;
                        };
                        (*raw).sent = sent;
                        (*child.as_ptr()).tracker = MaybeUninit::new(tracker);
                        send_piece(split, child, (offset, bytes), (vnode, sector), track_done);
                        continue;
                    }
                    Destination::Zero if write => {}
                    Destination::Zero => io.zero(offset, bytes),
                    Destination::Fail(errno) => self.note(split, offset, errno),
                    Destination::Take(taken) => {
                        match serving(current, taken) {
                            // As in `hand_over`.
                            None => self.note(split, offset, Errno::EIO),
                            Some((host, engine, line)) => {
                                let Some(number) = engine.claim(line) else {
                                    return host.queue_for_number(engine, line, split);
                                };
                                (*raw).pending.fetch_add(1, Ordering::Relaxed);
                                let piece = JobParent::Piece(split, offset, bytes);
                                let info = job::describe(io, journey, bytes, (line, number), taken);
                                host.submit(engine, piece, info);
                            }
                        }
                    }
                }
                (*raw).sent = sent;
            }
        }
        self.release(split, here);
    }
}

/// Sends a piece of a split, `bytes` bytes from byte `offset` of its I/O on, to a component.
///
/// # Safety
/// The caller is the split's sender, and has the child. The piece lies in the I/O; the I/O's pass
/// keeps the component.
#[inline(always)]
unsafe fn send_piece(
    split: NonNull<Split>,
    child: NonNull<Child>,
    (offset, bytes): (u32, u32),
    (vnode, sector): (Vnode, Sector),
    done: buf::Done,
) {
    // SAFETY: the caller's promise; the piece is counted before it is sent.
    unsafe {
        let (split_raw, child) = (split.as_ptr(), child.as_ptr());
        let Some((io, _)) = &(*split_raw).whole else { panic!("dm: a split without its I/O") };
        (*split_raw).pending.fetch_add(1, Ordering::Relaxed);
        let buf = &raw mut (*child).buf;
        buf::nest(buf, io, offset, bytes, sector, done);
        (*child).parent = MaybeUninit::new(Parent::Piece(split, offset));
        vnode.strategy(buf);
    }
}

/// The sector of a device at byte `offset` of an I/O that begins at `start`.
pub(super) fn sector_at(start: Sector, offset: u32) -> Sector {
    // The I/O lies on the device.
    Sector(start.0.wrapping_add(u64::from(offset / DEV_BSIZE)))
}
