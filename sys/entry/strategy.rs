//! The I/O path: find the device, enter its gate, look up the table line, split, send.
//!
//! An I/O holds the gate, and with it the table and its opened components, until it is complete.
//! On the way to one component it costs a nested buffer from a pool; one that crosses a border in
//! the table costs a [`Split`] more, which counts its pieces.

use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use dm_core::Errno;
use dm_core::kernel::LiveTable;
use dm_core::pdev::Pdev;
use dm_core::table::Piece;
use dm_core::units::{DEV_BSIZE, Sector};

use super::netbsd::NetBsd;
use super::slot::{Current, Local, Slot};
use super::{Global, dm_label_guard, global, stats};
use crate::kern::buf::{self, Io};
use crate::kern::gate::{Door, Pass};
use crate::kern::pool_cache::Pooled;
use crate::kern::reserve::{Line, Next};
use crate::kern::vnode::BlockDevice;
use crate::kern::{cpu, sys};

/// A nested buffer with what its completion needs. Built once: the buffer's own lock and condition
/// variables stay initialised from one I/O to the next.
#[repr(C)]
pub struct Child {
    /// First, so that the buffer's address is the child's.
    buf: sys::buf,
    /// The buffer's completion lock. The kernel's own would be one for all buffers.
    lock: sys::kmutex_t,
    /// Set when it comes from the pool or the reserve; a slot's spare children are its own.
    slot: *const Slot,
    /// Whose piece it is, while it is under way.
    parent: MaybeUninit<Parent>,
    /// Whether it belongs to the slot's reserve.
    reserved: bool,
}

/// Whose piece a child is.
enum Parent {
    /// All of an I/O.
    Whole(Io, Journey),
    /// A piece of one that is split, and where in it the piece begins, in bytes.
    Piece(NonNull<Split>, u32),
}

/// What an I/O that is under way carries along.
pub(crate) struct Journey {
    /// Its right to be inside the gate.
    pass: Pass<'static, Local>,
    /// When it came, in ticks.
    came: i32,
}

impl Journey {
    #[inline]
    pub(crate) fn new(pass: Pass<'static, Local>) -> Journey {
        Journey { pass, came: cpu::ticks() }
    }
}

/// An object of a CPU's that has just been used, ready for the next I/O without going to the pool.
pub(crate) struct Spare<T>(AtomicPtr<T>);

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Spare(AtomicPtr::new(ptr::null_mut()))
    }
}

impl<T> Spare<T> {
    /// Takes it.
    #[inline]
    fn take(&self) -> Option<NonNull<T>> {
        NonNull::new(self.0.swap(ptr::null_mut(), Ordering::Acquire))
    }

    /// Keeps an object, if there is none yet.
    #[inline]
    fn keep(&self, object: NonNull<T>) -> bool {
        let (none, object) = (ptr::null_mut(), object.as_ptr());
        self.0.compare_exchange(none, object, Ordering::Release, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: `init` makes all that a child's use relies on: an initialised buffer and its lock.
unsafe impl Pooled for Child {
    unsafe fn init(child: *mut Child) {
        // SAFETY: memory for a child (caller); every field is written or plain numbers.
        unsafe {
            ptr::write_bytes(child, 0, 1);
            sys::buf_init(&raw mut (*child).buf);
            sys::dm_shim_mutex_init(&raw mut (*child).lock);
            (*child).buf.b_objlock = &raw mut (*child).lock;
            // With a vnode the buffer would be counted there, under the vnode's lock.
            (*child).buf.b_vp = ptr::null_mut();
            (*child).buf.b_cflags = buf::BC_BUSY;
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
    /// The I/O, until it is complete.
    whole: Option<(Io, Journey)>,
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
        // SAFETY: memory for a split (caller).
        unsafe {
            split.write(Split {
                whole: None,
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

impl Split {
    /// Keeps a child that is done for the next I/O of its CPU, if there is none yet.
    #[inline]
    fn keeps(&self, child: NonNull<Child>) -> bool {
        self.whole.as_ref().is_some_and(|(_, journey)| journey.pass.local().child.keep(child))
    }
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

/// Where some sectors of an I/O go. A device stays as long as the I/O's pass.
enum Place {
    Send(NonNull<BlockDevice>, Sector),
    Zero,
    Fail(Errno),
}

impl Place {
    /// Where a piece of a table goes, and how many sectors.
    fn of(piece: Piece<'_, Pdev<NetBsd>>) -> (Place, Sector) {
        match piece {
            Piece::Send(component, sector, found) => match component.disk() {
                Some(disk) => (Place::Send(disk.device().into(), sector), found),
                None => (Place::Fail(Errno::EIO), found),
            },
            Piece::Zero(found) => (Place::Zero, found),
            Piece::Fail(found, errno) => (Place::Fail(errno), found),
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
    fn submit(&'static self, io: Io) {
        match self.gate.enter(cpu::current()) {
            Some(pass) => self.dispatch(io, Journey::new(pass)),
            None => self.submit_shut(io),
        }
    }

    /// Submits an I/O that has found the gate shut.
    #[cold]
    fn submit_shut(&'static self, mut io: Io) {
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
        let current = self.gate.value(&journey.pass);
        let (table, start, length) = match self.check(current, &io) {
            Ok(Some(range)) => range,
            Ok(None) => return self.finish_empty(io, journey),
            Err(errno) => return self.fail(io, journey, 0, errno),
        };
        let (bytes, write) = (io.bytes(), io.is_write());
        match table.map(start, length, write) {
            Some(piece) if piece.length() < length => {
                let (first, found) = Place::of(piece);
                self.split(io, journey, start, first, found);
            }
            Some(Piece::Send(component, sector, _)) => {
                let Some(disk) = component.disk() else {
                    return self.fail(io, journey, 0, Errno::EIO);
                };
                let device: *const BlockDevice = disk.device();
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
                    (*device).strategy(buf);
                }
            }
            Some(Piece::Zero(_)) => {
                if !write {
                    io.zero(0, bytes);
                }
                self.finish(io, journey);
            }
            Some(Piece::Fail(_, errno)) => self.fail(io, journey, 0, errno),
            None => self.fail(io, journey, 0, Errno::EINVAL),
        }
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

    /// Completes an I/O that was done, and leaves the gate.
    #[inline]
    fn finish(&self, io: Io, journey: Journey) {
        let Journey { pass, came } = journey;
        pass.local().tallies.count(io.is_write(), io.bytes(), came);
        io.complete();
        self.leave(pass);
    }

    /// Completes an I/O that failed after `done` bytes, and leaves the gate.
    #[cold]
    fn fail(&self, io: Io, journey: Journey, done: u32, errno: Errno) {
        let Journey { pass, came } = journey;
        pass.local().tallies.count(io.is_write(), done, came);
        pass.local().tallies.count_failed();
        io.fail(done, errno);
        self.leave(pass);
    }

    #[cold]
    fn finish_empty(&self, io: Io, journey: Journey) {
        io.complete_empty();
        self.leave(journey.pass);
    }

    /// A child, from the pool or the reserve.
    #[inline(never)]
    fn child(&self) -> Option<NonNull<Child>> {
        let child = global().and_then(|global| global.children.get());
        let reserved = child.is_none();
        let child = child.or_else(|| self.reserve.take_child())?;
        self.adopt(child, reserved);
        Some(child)
    }

    /// Tells a child that does not come from a spare what it belongs to.
    fn adopt(&self, child: NonNull<Child>, reserved: bool) {
        // SAFETY: the child is the caller's alone.
        unsafe {
            (*child.as_ptr()).slot = self;
            (*child.as_ptr()).reserved = reserved;
        }
    }

    /// Takes back a child that is done.
    fn put_child(&'static self, local: &Local, child: NonNull<Child>) {
        // SAFETY: the child is done, so ours, and comes from the reserve or the pool.
        unsafe {
            if (*child.as_ptr()).reserved {
                self.reserve.put_child(child);
                self.serve();
            } else if !local.child.keep(child)
                && let Some(global) = global()
            {
                global.children.put(child);
            }
        }
    }

    /// Takes back a split that is done.
    fn put_split(&'static self, local: &Local, split: NonNull<Split>) {
        // SAFETY: the split is done, so ours, and comes from the reserve or the pool.
        unsafe {
            if (*split.as_ptr()).reserved {
                self.reserve.put_split(split);
                self.serve();
            } else if !local.split.keep(split)
                && let Some(global) = global()
            {
                global.splits.put(split);
            }
        }
    }

    /// Gives what a device that does nothing has to spare back to the pools.
    pub(crate) fn put_spares(&self, global: &Global) {
        for local in self.gate.locals() {
            // SAFETY: they come from these pools, and whoever takes a spare object has it alone.
            unsafe {
                if let Some(child) = local.child.take() {
                    global.children.put(child);
                }
                if let Some(split) = local.split.take() {
                    global.splits.put(split);
                }
            }
        }
    }

    /// Has an I/O wait, outside the gate, for the reserve.
    #[cold]
    fn starve(&'static self, io: Io, journey: Journey) {
        self.reserve.starve(io);
        self.leave(journey.pass);
        // What it waits for may have come back before it was in the queue.
        self.serve();
    }

    /// Lets those who wait for the reserve go on.
    #[cold]
    fn serve(&'static self) {
        self.reserve.serve(|next| match next {
            Next::Starved(io) => self.submit(io),
            Next::Halted(split) => self.advance(split, None),
        });
    }

    /// Cuts an I/O at the borders of the table and sends the pieces, of which the first has been
    /// looked up.
    #[inline(never)]
    fn split(&'static self, io: Io, journey: Journey, start: Sector, first: Place, found: Sector) {
        let local = journey.pass.local();
        let split = local.split.take().or_else(|| global()?.splits.get());
        let reserved = split.is_none();
        let Some(split) = split.or_else(|| self.reserve.take_split()) else {
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
    fn advance(&'static self, split: NonNull<Split>, mut next: Option<(Place, Sector)>) {
        // SAFETY: the sender's own count keeps the split, and with it the I/O and its pass, until
        // `release`; nobody else touches `sent`. Pieces under way touch `pending`, `failed` and
        // `bad` only.
        unsafe {
            let raw = split.as_ptr();
            let Some((io, journey)) = &(*raw).whole else { return };
            let Some(table) = &self.gate.value(&journey.pass).table else { return };
            let (write, local) = (io.is_write(), journey.pass.local());
            while let left @ 1.. = (*raw).bytes.saturating_sub((*raw).sent) {
                let offset = (*raw).sent;
                let (place, found) = next.take().unwrap_or_else(|| {
                    let start = (*raw).start.0.wrapping_add(u64::from(offset / DEV_BSIZE));
                    let length = Sector(u64::from(left / DEV_BSIZE));
                    let piece = table.map(Sector(start), length, write);
                    piece.map_or((Place::Fail(Errno::EIO), length), Place::of)
                });
                // A target that found nothing, which is a mistake, must not stop the loop.
                let bytes = left.min((found.0 as u32).wrapping_mul(DEV_BSIZE)).max(1);
                let sent = offset.wrapping_add(bytes);
                match place {
                    Place::Send(device, sector) => {
                        let child = local.child.take().or_else(|| self.child_or_wait(split));
                        let Some(child) = child else { return };
                        (*raw).sent = sent;
                        (*raw).pending.fetch_add(1, Ordering::Relaxed);
                        let child = child.as_ptr();
                        let buf = &raw mut (*child).buf;
                        buf::nest(buf, io, offset, bytes, sector, done);
                        (*child).parent = MaybeUninit::new(Parent::Piece(split, offset));
                        device.as_ref().strategy(buf);
                        continue;
                    }
                    Place::Zero if write => {}
                    Place::Zero => io.zero(offset, bytes),
                    Place::Fail(errno) => self.note(split, offset, errno),
                }
                (*raw).sent = sent;
            }
        }
        self.release(split);
    }

    /// A child for a split's next piece; without one the split waits for it.
    fn child_or_wait(&self, split: NonNull<Split>) -> Option<NonNull<Child>> {
        let child = global().and_then(|global| global.children.get());
        let reserved = child.is_none();
        let child = child.or_else(|| self.reserve.take_child_or_halt(split))?;
        self.adopt(child, reserved);
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

    /// Takes back a child that is done, and goes on with what it was for.
    ///
    /// # Safety
    /// The child was sent with this parent, and is done.
    #[inline(never)]
    unsafe fn done(&'static self, child: NonNull<Child>, parent: Parent) {
        // SAFETY: the caller's promise.
        let outcome = unsafe { buf::outcome(&raw const (*child.as_ptr()).buf) };
        match parent {
            Parent::Whole(io, journey) => {
                self.put_child(journey.pass.local(), child);
                match outcome {
                    Ok(()) => self.finish(io, journey),
                    Err((moved, errno)) => self.fail(io, journey, moved, errno),
                }
            }
            Parent::Piece(split, offset) => {
                if let Err((moved, errno)) = outcome {
                    self.note(split, offset.saturating_add(moved), errno);
                }
                // SAFETY: the split, and the I/O in it, stay while its piece has not been released.
                if let Some((_, journey)) = unsafe { &(*split.as_ptr()).whole } {
                    self.put_child(journey.pass.local(), child);
                }
                self.release(split);
            }
        }
    }

    /// Drops one count of a split; the last completes the I/O.
    fn release(&'static self, split: NonNull<Split>) {
        // SAFETY: the caller's count keeps the split; after the last one it is ours alone.
        let (whole, result) = unsafe {
            let raw = split.as_ptr();
            if (*raw).pending.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            let failed = (*raw).failed.load(Ordering::Relaxed);
            let result = if failed { Err((*raw).bad) } else { Ok(()) };
            ((*raw).whole.take(), result)
        };
        let Some((io, journey)) = whole else { return };
        self.put_split(journey.pass.local(), split);
        match result {
            Ok(()) => self.finish(io, journey),
            Err((done, errno)) => self.fail(io, journey, done, errno),
        }
    }
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

/// b_iodone of a child.
///
/// # Safety
/// biodone(9) calls it, once, with the buffer of a child that was sent.
unsafe extern "C" fn done(buf: *mut sys::buf) {
    // SAFETY: the buffer is the child's first field, and `parent` was written when it was sent.
    // The I/O it is for is under way, which keeps the slot and, in a split, the split.
    unsafe {
        let child = NonNull::new_unchecked(buf.cast::<Child>());
        let Child { slot, parent, reserved, .. } = child.as_ref();
        let (slot, reserved): (&'static Slot, bool) = (&**slot, *reserved);
        if !buf::is_complete(buf) || reserved {
            return slot.done(child, parent.assume_init_read());
        }
        // Taken out before the child may be another's, and one by one: they stay in registers.
        match parent.assume_init_ref() {
            Parent::Whole(io, journey) => {
                let (io, journey) = (ptr::read(io), ptr::read(journey));
                match journey.pass.local().child.keep(child) {
                    true => slot.finish(io, journey),
                    false => slot.done(child, Parent::Whole(io, journey)),
                }
            }
            &Parent::Piece(split, offset) => match split.as_ref().keeps(child) {
                true => slot.release(split),
                false => slot.done(child, Parent::Piece(split, offset)),
            },
        }
    }
}
