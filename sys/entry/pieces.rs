// SPDX-License-Identifier: BSD-2-Clause

//! Children and splits, of which I/O in flight is made, and where they come from.
//!
//! A [`Child`] is a nested buffer on its way to one component, a [`Split`] the account of an I/O in
//! several pieces. Both come from a CPU's `CpuCache`, a pool, or the device's reserve, in this
//! order. Context of everything here: thread or soft interrupt, with no lock held; nothing sleeps,
//! but in a thread a component's d_strategy, where an object that comes back lets other I/O go on.

use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use dm_core::Errno;
use dm_core::tracker::Tracker;
use dm_core::units::Sector;

#[cfg(doc)]
use super::completion::{done, track_done};
use super::io::Here;
use super::io::queue::{Ordered, Queue};
use super::journey::Journey;
use super::slot::{Local, Slot};
use super::{Global, global, in_use};
use crate::netbsd::buf::{self, Io, IoQueue};
use crate::netbsd::pool_cache::Pooled;
use crate::netbsd::sys;

/// A nested buffer with what its completion needs. Constructed once, by the pool: the buffer's own
/// lock and condition variables stay initialised from one I/O to the next.
///
/// A child is in one of four places, and belongs to:
///
/// 1. the pool: nobody; only `buf` and `lock` mean anything;
/// 2. a CPU's `CpuCache` of `slot`: that cell; `slot` is valid, `reserved` false;
/// 3. the reserve of `slot`: the reserve; `slot` is valid, `reserved` true;
/// 4. in flight: its sender until VOP_STRATEGY(9), then the component's driver, and from b_iodone
///    (`done`) the completion. `slot` and `parent` are valid. The order is: `buf` filled in by
///    [`buf::nest`], `parent` written, strategy; `parent` is read, once, before the child goes
///    back.
///
/// The owner of a child reads and writes all of it; no lock is needed.
#[repr(C)]
pub struct Child {
    /// The buffer: the first field, so that its address is the child's.
    pub(super) buf: sys::buf,
    /// The buffer's b_objlock: adaptive (IPL_NONE), taken by biodone(9). The kernel's own would be
    /// one lock for all buffers.
    pub(super) lock: sys::kmutex_t,
    /// The device that the child works for: written when it comes from the pool or the reserve. A
    /// cached child keeps its device: a [`CpuCache`] belongs to one.
    pub(super) slot: *const Slot,
    /// The I/O that the child carries out, while it is in flight.
    pub(super) parent: MaybeUninit<Parent>,
    /// The tracker that has counted it, in flight to [`track_done`]. It is of the table that the
    /// I/O's pass keeps.
    pub(super) tracker: MaybeUninit<NonNull<Tracker>>,
    /// `true` if the child goes back to the reserve of `slot`.
    pub(super) reserved: bool,
}

/// The I/O that a child carries out: a whole one, or one piece of a split.
pub(super) enum Parent {
    /// All of an I/O.
    Whole(Io, Journey),
    /// A piece of one that is split, and where in it the piece begins, in bytes.
    Piece(NonNull<Split>, u32),
}

/// The I/O that is split, and its journey.
///
/// # Safety
/// The split is in flight, and stays so while the returned references are used.
pub(super) unsafe fn whole_of<'a>(split: NonNull<Split>) -> Option<(&'a Io, &'a Journey)> {
    // SAFETY: the caller's promise; `whole` does not change meanwhile. By a pointer: the sender and
    // other pieces' completions write to the split.
    let whole = unsafe { &(*split.as_ptr()).whole };
    whole.as_ref().map(|(io, journey)| (io, journey))
}

/// An object of a pool that is not in use.
pub(crate) struct Idle<T>(pub(super) NonNull<T>);

// SAFETY: the owner of an object that is not in use has it alone; it is raw memory that any thread
// may use.
unsafe impl<T> Send for Idle<T> {}

/// A cache of one object for each CPU in front of a pool: the one used last, ready for the next
/// I/O.
pub(crate) struct CpuCache<T>(AtomicPtr<T>);

impl<T> Default for CpuCache<T> {
    fn default() -> Self {
        CpuCache(AtomicPtr::new(ptr::null_mut()))
    }
}

impl<T> CpuCache<T> {
    /// Takes the object, if there is one.
    #[inline]
    pub(super) fn take(&self) -> Option<NonNull<T>> {
        NonNull::new(self.0.swap(ptr::null_mut(), Ordering::Acquire))
    }

    /// Keeps an object. `false` if there is one already: the caller still has the object then.
    #[inline]
    pub(super) fn keep(&self, object: NonNull<T>) -> bool {
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
            init_nested(&raw mut (*child).buf, &raw mut (*child).lock);
        }
    }

    unsafe fn fini(child: *mut Child) {
        // SAFETY: `init` made them (caller).
        unsafe { fini_nested(&raw mut (*child).buf, &raw mut (*child).lock) }
    }
}

/// Initialises a nested buffer and its b_objlock.
///
/// # Safety
/// Both are zeroed memory that does not move.
pub(super) unsafe fn init_nested(buf: *mut sys::buf, lock: *mut sys::kmutex_t) {
    // SAFETY: the caller's promise.
    unsafe {
        sys::buf_init(buf);
        sys::dm_shim_mutex_init(lock);
        (*buf).b_objlock = lock;
        // With a vnode the buffer would be counted there, under the vnode's lock.
        (*buf).b_vp = ptr::null_mut();
        (*buf).b_cflags = buf::BC_BUSY;
    }
}

/// Destroys what [`init_nested`] initialised.
///
/// # Safety
/// Neither is in use.
pub(super) unsafe fn fini_nested(buf: *mut sys::buf, lock: *mut sys::kmutex_t) {
    // SAFETY: the caller's promise.
    unsafe {
        sys::mutex_destroy(lock);
        sys::buf_destroy(buf);
    }
}

/// The account of an I/O in several pieces.
///
/// Its *sender* is the context that runs `Slot::advance`; there is one at a time. While the split
/// waits for a child or a job's number, it belongs to the queue it waits in, and the context that
/// takes it from there is the sender next. The context that drops the last count of `pending` has
/// all of it, completes the I/O and gives the split back.
///
/// Fields are marked by what protects them: (a) atomic; (s) the sender only; (f) `Slot::failures`;
/// (-) does not change between `Slot::split` and the last count. Pieces in flight read `whole`,
/// `start`, `pending`, `failed`, `given_back` and `bad`, and no more: no reference may be made to
/// all of a split that is in flight.
pub struct Split {
    /// (-) The I/O. `None` in a split that is not in use.
    pub(super) whole: Option<(Io, Journey)>,
    /// (-) The I/O's first sector on the device.
    pub(super) start: Sector,
    /// (-) The I/O's length in bytes.
    pub(super) bytes: u32,
    /// (s) Bytes for which pieces were sent.
    pub(super) sent: u32,
    /// (a) Pieces in flight, and one for the sender.
    pub(super) pending: AtomicUsize,
    /// (a) `true` if a piece has failed; `bad` means something then.
    pub(super) failed: AtomicBool,
    /// (f) The first byte that was not moved, and why.
    pub(super) bad: (u32, Errno),
    /// (a) `true` if a piece was given back ([`Job::give_back`](dm_core::job::Job::give_back)): the
    /// next table maps the whole I/O when its other pieces are done, unless one of them has failed.
    pub(super) given_back: AtomicBool,
    /// (-) `true` if the split goes back to the device's reserve.
    pub(super) reserved: bool,
    /// (s) The next split in a queue that this one waits in.
    pub(super) next: Option<NonNull<Split>>,
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
                given_back: AtomicBool::new(false),
                reserved: false,
                next: None,
            });
        }
    }

    unsafe fn fini(_: *mut Split) {}
}

/// Splits that wait for the reserve's child, linked through themselves. The last to come is the
/// next: all of them go on before any whole I/O does.
#[derive(Default)]
pub struct Halted {
    first: Option<NonNull<Split>>,
}

// SAFETY: it owns its splits.
unsafe impl Send for Halted {}

impl Queue for IoQueue {
    type Item = Io;

    fn push(&mut self, io: Io) {
        self.push(io);
    }

    fn pop(&mut self) -> Option<Io> {
        self.pop()
    }
}

impl Ordered for IoQueue {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl Queue for Halted {
    type Item = NonNull<Split>;

    fn push(&mut self, split: NonNull<Split>) {
        // SAFETY: a split that waits is not touched by anyone else.
        unsafe { (*split.as_ptr()).next = self.first };
        self.first = Some(split);
    }

    fn pop(&mut self) -> Option<NonNull<Split>> {
        let split = self.first?;
        // SAFETY: a split that waits is not touched by anyone else.
        self.first = unsafe { (*split.as_ptr()).next };
        Some(split)
    }
}

impl Slot {
    /// A child, from the cache of the CPU this runs on, the pool or the reserve.
    #[inline]
    pub(super) fn child_of(&self, here: Here<'_, Local>) -> Option<NonNull<Child>> {
        here.local().child.take().or_else(|| self.child())
    }

    /// A child, from the pool or the reserve.
    #[inline(never)]
    pub(super) fn child(&self) -> Option<NonNull<Child>> {
        let child = global().and_then(|global| global.children.get());
        let reserved = child.is_none();
        let child = child.or_else(|| Some(self.reserve.take_child()?.0))?;
        self.adopt(child, reserved);
        Some(child)
    }

    /// A child for a split's next piece; without one the split waits for it.
    pub(super) fn child_or_wait(&self, split: NonNull<Split>) -> Option<NonNull<Child>> {
        let child = global().and_then(|global| global.children.get());
        let reserved = child.is_none();
        let child = child.or_else(|| Some(self.reserve.take_child_or_halt(split)?.0))?;
        self.adopt(child, reserved);
        Some(child)
    }

    /// Sets the device of a child that comes from the pool or the reserve.
    fn adopt(&self, child: NonNull<Child>, reserved: bool) {
        // SAFETY: the child is the caller's alone.
        unsafe {
            (*child.as_ptr()).slot = self;
            (*child.as_ptr()).reserved = reserved;
        }
    }

    /// Takes a child back whose part is done. I/O that waited for the reserve's child goes on.
    pub(super) fn put_child(&'static self, child: NonNull<Child>, here: Here<'_, Local>) {
        // SAFETY: the child is done, so ours, and comes from the reserve or the pool.
        unsafe {
            if (*child.as_ptr()).reserved {
                self.reserve.put_child(Idle(child));
                self.serve();
            } else if !here.local().child.keep(child) {
                in_use().children.put(child);
            }
        }
    }

    /// Takes a split back whose I/O is over. I/O that waited for the reserve's split goes on.
    pub(super) fn put_split(&'static self, split: NonNull<Split>, here: Here<'_, Local>) {
        // SAFETY: the split is done, so ours, and comes from the reserve or the pool.
        unsafe {
            if (*split.as_ptr()).reserved {
                self.reserve.put_split(Idle(split));
                self.serve();
            } else if !here.local().split.keep(split) {
                in_use().splits.put(split);
            }
        }
    }

    /// Returns the cached objects of a device that is idle, or gone, to the pools.
    pub(crate) fn empty_caches(&self, global: &Global) {
        for local in self.gate.locals() {
            // SAFETY: they come from these pools, and taking a cached object is one atomic
            // exchange, so that its taker has it alone.
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
}
