//! The I/O path: find the device, enter its gate, look up the table line, split, send.
//!
//! An I/O holds the gate, and with it the table and its opened components, until it is complete.
//! On the way to one component it costs a nested buffer from a pool; one that crosses a border in
//! the table costs a [`Split`] more, which counts its pieces.

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dm_core::Errno;
use dm_core::kernel::LiveTable;
use dm_core::table::Piece;
use dm_core::units::{DEV_BSIZE, Sector};

use super::netbsd::NetBsd;
use super::slot::{Current, Slot};
use super::{Global, dm_label_guard, global, stats};
use crate::kern::buf::{self, Io};
use crate::kern::gate::{Door, Pass};
use crate::kern::pool_cache::Pooled;
use crate::kern::reserve::{Line, Next};
use crate::kern::{cpu, sys};

/// A nested buffer with what its completion needs. Built once: the buffer's own lock and condition
/// variables stay initialised from one I/O to the next.
#[repr(C)]
pub struct Child {
    /// First, so that the buffer's address is the child's.
    buf: sys::buf,
    /// The buffer's completion lock. The kernel's own would be one for all buffers.
    lock: sys::kmutex_t,
    slot: *const Slot,
    parent: Parent,
    /// Where in the parent it begins, in bytes.
    offset: u32,
    /// Whether it belongs to the slot's reserve.
    reserved: bool,
}

/// Whose piece a child is.
#[derive(Clone, Copy)]
enum Parent {
    /// All of an I/O.
    Whole(NonNull<sys::buf>, Journey),
    /// A piece of one that is split.
    Piece(NonNull<Split>),
}

/// What an I/O that is under way carries along.
#[derive(Clone, Copy)]
struct Journey {
    /// The gate's cell that counts it.
    cell: u32,
    /// When it came, in ticks.
    came: i32,
}

// SAFETY: `init` makes all that a child's use relies on: an initialised buffer and its lock.
unsafe impl Pooled for Child {
    unsafe fn init(child: *mut Child) {
        // SAFETY: memory for a child (caller); every field is written or plain numbers.
        unsafe {
            ptr::write_bytes(child, 0, 1);
            sys::buf_init(&raw mut (*child).buf);
            sys::dm_shim_mutex_init_bio(&raw mut (*child).lock);
            (*child).buf.b_objlock = &raw mut (*child).lock;
            // With a vnode the buffer would be counted there, under the vnode's lock.
            (*child).buf.b_vp = ptr::null_mut();
        }
    }

    unsafe fn fini(child: *mut Child) {
        // SAFETY: `init` made them (caller).
        unsafe {
            sys::mutex_destroy(&raw mut (*child).lock);
            sys::buf_destroy(&raw mut (*child).buf);
        }
    }
}

/// An I/O in several pieces.
pub struct Split {
    io: Option<NonNull<sys::buf>>,
    journey: Journey,
    /// Where on the device it begins.
    start: Sector,
    /// Bytes, and of these the ones that have been sent.
    bytes: u32,
    sent: u32,
    /// Pieces under way, and one for whoever is sending.
    pending: AtomicUsize,
    /// Whether a piece has failed; then the slot's lock guards `bad`.
    failed: AtomicBool,
    /// The first byte that was not moved, and why.
    bad: (u32, Errno),
    reserved: bool,
    next: Option<NonNull<Split>>,
}

// SAFETY: `init` writes every field, and there is nothing to take down.
unsafe impl Pooled for Split {
    unsafe fn init(split: *mut Split) {
        let journey = Journey { cell: 0, came: 0 };
        // SAFETY: memory for a split (caller).
        unsafe {
            split.write(Split {
                io: None,
                journey,
                start: Sector::ZERO,
                bytes: 0,
                sent: 0,
                pending: AtomicUsize::new(0),
                failed: AtomicBool::new(false),
                bad: (0, Errno::EIO),
                reserved: false,
                next: None,
            });
        }
    }

    unsafe fn fini(_: *mut Split) {}
}

/// Splits that wait for a child, linked through themselves.
#[derive(Default)]
pub struct Halted {
    first: Option<NonNull<Split>>,
}

// SAFETY: it owns its splits.
unsafe impl Send for Halted {}

impl Line for Halted {
    type Item = NonNull<Split>;

    /// The last to come goes on first: its turn comes anyway, before any whole I/O's.
    fn push(&mut self, split: NonNull<Split>) {
        // SAFETY: a split that waits is not touched by anyone else.
        unsafe { (*split.as_ptr()).next = self.first };
        self.first = Some(split);
    }

    fn pop(&mut self) -> Option<NonNull<Split>> {
        let split = self.first?;
        // SAFETY: as above.
        self.first = unsafe { (*split.as_ptr()).next };
        Some(split)
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
    let Some(bp) = NonNull::new(bp) else { return };
    // SAFETY: the caller's promise.
    let io = unsafe { Io::from_raw(bp) };
    let Some(global) = global() else { return io.fail(Errno::ENXIO) };
    match global.slots.get(io.dev().minor()) {
        Some(slot) => slot.submit(global, io),
        None => io.fail(Errno::ENXIO),
    }
}

impl Slot {
    #[inline]
    fn submit(&'static self, global: &'static Global, mut io: Io) {
        loop {
            let pass = match self.gate.enter(cpu::current()) {
                Some(pass) => pass,
                None => match self.queue(io) {
                    None => return,
                    Some(again) => {
                        io = again;
                        continue;
                    }
                },
            };
            return self.dispatch(global, io, pass);
        }
    }

    /// Puts an I/O where it waits for the gate, unless it is open again.
    #[cold]
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
                io.fail(Errno::ENXIO);
            }
        }
        None
    }

    /// Sends an I/O that has entered the gate on its way.
    pub(crate) fn dispatch(&'static self, global: &'static Global, io: Io, pass: Pass) {
        let journey = Journey { cell: pass.cell(), came: cpu::ticks() };
        let current = self.gate.value(&pass);
        let (table, start, length) = match self.check(current, &io) {
            Ok(Some(range)) => range,
            Ok(None) => return self.finish_empty(io, pass),
            Err(errno) => return self.finish(io, pass, journey, Err((0, errno))),
        };
        let bytes = io.bytes();
        let write = io.is_write();
        match table.map(start, length, write) {
            Some(piece) if piece.length() < length => self.split(global, io, pass, journey, start),
            Some(Piece::Send(component, sector, _)) => {
                let Some(device) = component.disk() else {
                    return self.finish(io, pass, journey, Err((0, Errno::EIO)));
                };
                let Some(child) = self.child(global) else { return self.starve(global, io, pass) };
                // From here on the gate's count goes on in `journey`, and ends in `done`.
                let raw = io.into_raw();
                // SAFETY: the child is ours, and the I/O under way until `done` completes it.
                unsafe {
                    let child = child.as_ptr();
                    (*child).slot = self;
                    (*child).parent = Parent::Whole(raw, journey);
                    (*child).offset = 0;
                    let buf = &raw mut (*child).buf;
                    buf::nest(buf, raw.as_ptr(), 0, bytes, sector, done);
                    device.device().strategy(buf);
                }
            }
            Some(Piece::Zero(_)) => {
                if !write {
                    io.zero(0, bytes);
                }
                self.finish(io, pass, journey, Ok(()));
            }
            Some(Piece::Fail(_, errno)) => self.finish(io, pass, journey, Err((0, errno))),
            None => self.finish(io, pass, journey, Err((0, Errno::EINVAL))),
        }
    }

    /// What an I/O is about: the table and the range, cut at the device's end. `None` when there
    /// is nothing to do.
    #[inline]
    fn check<'c>(&self, current: &'c Current, io: &Io) -> Result<Option<Wanted<'c>>, Errno> {
        // The slot may serve another device by now.
        if io.dev().minor() != self.minor() {
            return Err(Errno::ENXIO);
        }
        let table = current.table.as_deref().ok_or(Errno::ENXIO)?;
        if io.bytes() == 0 {
            return Ok(None);
        }
        if !io.bound(table.size()) {
            return Ok(None);
        }
        let start = io.sector().ok_or(Errno::EINVAL)?;
        let sector_size = table.sector_size();
        if !io.bytes().is_multiple_of(sector_size) || !start.is_aligned(sector_size) {
            return Err(Errno::EINVAL);
        }
        let length = Sector(u64::from(io.bytes() / DEV_BSIZE));
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

    /// Completes an I/O and leaves the gate.
    #[inline]
    fn finish(&self, io: Io, pass: Pass, journey: Journey, result: Result<(), (u32, Errno)>) {
        let done = result.map_or_else(|(done, _)| done, |()| io.bytes());
        let waited = cpu::ticks().wrapping_sub(journey.came);
        stats::count(self, &pass, io.is_write(), done, waited, result.is_err());
        io.complete(result);
        self.leave(pass);
    }

    fn finish_empty(&self, io: Io, pass: Pass) {
        io.complete_empty();
        self.leave(pass);
    }

    /// A child, from the pool or the reserve.
    #[inline]
    fn child(&self, global: &Global) -> Option<NonNull<Child>> {
        global.children.get().or_else(|| {
            let child = self.reserve.take_child()?;
            // SAFETY: it is ours now.
            unsafe { (*child.as_ptr()).reserved = true };
            Some(child)
        })
    }

    /// Takes back a child that is done.
    #[inline]
    fn put_child(&'static self, global: &'static Global, child: NonNull<Child>) {
        // SAFETY: the child is done, so ours.
        unsafe {
            if !(*child.as_ptr()).reserved {
                return global.children.put(child);
            }
            (*child.as_ptr()).reserved = false;
        }
        self.reserve.put_child(child);
        self.serve(global);
    }

    /// Has an I/O wait, outside the gate, for the reserve.
    #[cold]
    fn starve(&'static self, global: &'static Global, io: Io, pass: Pass) {
        self.reserve.starve(io);
        self.leave(pass);
        // What it waits for may have come back before it was in the queue.
        self.serve(global);
    }

    /// Lets those who wait for the reserve go on.
    #[cold]
    fn serve(&'static self, global: &'static Global) {
        self.reserve.serve(|next| match next {
            Next::Starved(io) => self.submit(global, io),
            Next::Halted(split) => self.advance(global, split),
        });
    }

    /// Cuts an I/O at the borders of the table and sends the pieces.
    fn split(
        &'static self,
        global: &'static Global,
        io: Io,
        pass: Pass,
        journey: Journey,
        start: Sector,
    ) {
        let split = global.splits.get().map(|split| (split, false));
        let split = split.or_else(|| Some((self.reserve.take_split()?, true)));
        let Some((split, reserved)) = split else { return self.starve(global, io, pass) };
        stats::count_split(self, &pass);
        let bytes = io.bytes();
        // From here on the gate's count goes on in `journey`, and ends in `release`.
        let new = Split {
            io: Some(io.into_raw()),
            journey,
            start,
            bytes,
            sent: 0,
            pending: AtomicUsize::new(1),
            failed: AtomicBool::new(false),
            bad: (bytes, Errno::EIO),
            reserved,
            next: None,
        };
        // SAFETY: the split is ours.
        unsafe { split.as_ptr().write(new) };
        self.advance(global, split);
    }

    /// Sends the pieces that are left of a split, which is the caller's to send.
    fn advance(&'static self, global: &'static Global, split: NonNull<Split>) {
        // SAFETY: the sender's own count keeps the split, its gate and its I/O until `release`;
        // nobody else touches `sent`. Pieces under way touch `pending`, `failed` and `bad` only.
        unsafe {
            let raw = split.as_ptr();
            let Some(parent) = (*raw).io else { return };
            let inside = Pass::from_raw((*raw).journey.cell);
            let table = self.gate.value(&inside).table.as_deref();
            let write = parent.as_ref().b_flags & buf::B_READ == 0;
            while let left @ 1.. = (*raw).bytes.saturating_sub((*raw).sent) {
                let offset = (*raw).sent;
                let start = Sector((*raw).start.0.wrapping_add(u64::from(offset / DEV_BSIZE)));
                let length = Sector(u64::from(left / DEV_BSIZE));
                let piece = table.and_then(|table| table.map(start, length, write));
                let sectors = piece.as_ref().map_or(length, Piece::length);
                // No more than `left`: a piece is part of what was asked for.
                let bytes = left.min(sectors.0.saturating_mul(u64::from(DEV_BSIZE)) as u32).max(1);
                match piece {
                    Some(Piece::Send(component, sector, _)) if component.disk().is_some() => {
                        let Some(child) = self.child_or_wait(global, split) else {
                            return;
                        };
                        (*raw).sent = offset.saturating_add(bytes);
                        (*raw).pending.fetch_add(1, Ordering::Relaxed);
                        let child = child.as_ptr();
                        (*child).slot = self;
                        (*child).parent = Parent::Piece(split);
                        (*child).offset = offset;
                        let buf = &raw mut (*child).buf;
                        buf::nest(buf, parent.as_ptr(), offset, bytes, sector, done);
                        if let Some(device) = component.disk() {
                            device.device().strategy(buf);
                        }
                        continue;
                    }
                    Some(Piece::Zero(_)) => {
                        if !write {
                            let data = parent.as_ref().b_data.cast::<u8>().add(offset as usize);
                            ptr::write_bytes(data, 0, bytes as usize);
                        }
                    }
                    Some(Piece::Fail(_, errno)) => self.note(split, offset, errno),
                    _ => self.note(split, offset, Errno::EIO),
                }
                (*raw).sent = offset.saturating_add(bytes);
            }
        }
        self.release(global, split);
    }

    /// A child for a split's next piece; without one the split waits for it.
    fn child_or_wait(&self, global: &Global, split: NonNull<Split>) -> Option<NonNull<Child>> {
        if let Some(child) = global.children.get() {
            return Some(child);
        }
        let child = self.reserve.take_child_or_halt(split)?;
        // SAFETY: it is ours now.
        unsafe { (*child.as_ptr()).reserved = true };
        Some(child)
    }

    /// Notes that a piece failed: the I/O's error is that of the lowest byte that was not moved,
    /// which is what its sender can make use of.
    #[cold]
    fn note(&self, split: NonNull<Split>, at: u32, errno: Errno) {
        let _lock = self.held.lock();
        // SAFETY: the split lives while its piece does, and the lock guards `bad`.
        unsafe {
            let split = split.as_ptr();
            if !(*split).failed.swap(true, Ordering::Relaxed) || at < (*split).bad.0 {
                (*split).bad = (at, errno);
            }
        }
    }

    /// Drops one count of a split; the last completes the I/O.
    fn release(&'static self, global: &'static Global, split: NonNull<Split>) {
        // SAFETY: the caller's count keeps the split; after the last one it is ours alone. The
        // I/O and the pass are those that `split` took apart.
        unsafe {
            let raw = split.as_ptr();
            if (*raw).pending.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            let Some(io) = (*raw).io.take() else { return };
            let failed = (*raw).failed.load(Ordering::Relaxed);
            let result = if failed { Err((*raw).bad) } else { Ok(()) };
            let journey = (*raw).journey;
            if (*raw).reserved {
                self.reserve.put_split(split);
                self.serve(global);
            } else {
                global.splits.put(split);
            }
            self.finish(Io::from_raw(io), Pass::from_raw(journey.cell), journey, result);
        }
    }
}

/// b_iodone of a child.
///
/// # Safety
/// biodone(9) calls it, once, with the buffer of a child that was sent.
unsafe extern "C" fn done(buf: *mut sys::buf) {
    let Some(child) = NonNull::new(buf.cast::<Child>()) else { return };
    let Some(global) = global() else { return };
    // SAFETY: the buffer is the child's first field. The I/O it is for is under way, which keeps
    // the slot and, in a split, the split.
    unsafe {
        let outcome = buf::outcome(buf);
        let Child { slot, parent, offset, .. } = *child.as_ptr();
        let slot: &'static Slot = &*slot;
        match parent {
            Parent::Whole(io, journey) => {
                slot.put_child(global, child);
                slot.finish(Io::from_raw(io), Pass::from_raw(journey.cell), journey, outcome);
            }
            Parent::Piece(split) => {
                if let Err((moved, errno)) = outcome {
                    slot.note(split, offset.saturating_add(moved), errno);
                }
                slot.put_child(global, child);
                slot.release(global, split);
            }
        }
    }
}
