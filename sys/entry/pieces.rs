//! What I/O is made of on its way: children, splits, and where they come from.
//!
//! A [`Child`] is a nested buffer on its way to one component, and a [`Split`] an I/O in several pieces. Both come
//! from a CPU's [`Spare`], a pool, or the device's reserve, in this order.

use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use dm_core::Errno;
use dm_core::units::Sector;

use super::completion::done;
use super::slot::{Local, Slot};
use super::{Global, global};
use crate::kern::buf::{self, Io};
use crate::kern::gate::Pass;
use crate::kern::pool_cache::Pooled;
use crate::kern::reserve::Line;
use crate::kern::{cpu, sys};

/// A nested buffer with what its completion needs. Built once: the buffer's own lock and condition
/// variables stay initialised from one I/O to the next.
#[repr(C)]
pub struct Child {
    /// First, so that the buffer's address is the child's.
    pub(super) buf: sys::buf,
    /// The buffer's completion lock. The kernel's own would be one for all buffers.
    pub(super) lock: sys::kmutex_t,
    /// Set when it comes from the pool or the reserve; a slot's spare children are its own.
    pub(super) slot: *const Slot,
    /// Whose piece it is, while it is under way.
    pub(super) parent: MaybeUninit<Parent>,
    /// Whether it belongs to the slot's reserve.
    pub(super) reserved: bool,
}

/// Whose piece a child is.
pub(super) enum Parent {
    /// All of an I/O.
    Whole(Io, Journey),
    /// A piece of one that is split, and where in it the piece begins, in bytes.
    Piece(NonNull<Split>, u32),
}

/// What an I/O that is under way carries along.
///
/// # Invariants
/// The pass is of the gate of the slot that the I/O was sent to. No function of a [`Slot`] is given
/// another slot's journey: a child or a split that carries one knows, or is known by, its own slot.
pub(crate) struct Journey {
    /// Its right to be inside the gate.
    pub(super) pass: Pass<'static, Local>,
    /// When it came, in ticks.
    pub(super) came: i32,
    /// `true` for an I/O that is not to wait at a gate, here or below, but fails with EAGAIN there.
    pub(super) impatient: bool,
    /// `true` once it has failed, and was mapped again as targets say that have something else to try.
    pub(super) again: bool,
}

impl Journey {
    /// What an I/O carries along that is sent to the slot whose gate gave this pass.
    #[inline]
    pub(crate) fn new(pass: Pass<'static, Local>) -> Journey {
        Journey { pass, came: cpu::ticks(), impatient: false, again: false }
    }

    /// The same for an I/O that does not wait.
    pub(crate) fn impatient(pass: Pass<'static, Local>) -> Journey {
        Journey { impatient: true, ..Journey::new(pass) }
    }
}

/// The minor of the device that an impatient I/O came to, when `io` is a part of it, perhaps through
/// several of our devices; `None` for a part of any other. Another driver's device in between hides
/// it.
#[cold]
pub(super) fn impatient_origin(io: &Io) -> Option<u32> {
    let mut buf: *const sys::buf = io.as_ptr();
    // SAFETY: an I/O that is under way is not completed before its parts are, so that all that is
    // followed here stays, and nobody writes to it: b_iodone and `parent` were set before the child was
    // sent, and a split's `whole` is taken by the last of its pieces.
    unsafe {
        while (*buf).b_iodone.is_some_and(|iodone| ptr::fn_addr_eq(iodone, done as buf::Done)) {
            let child = buf.cast::<Child>();
            let (io, journey) = match (*child).parent.assume_init_ref() {
                Parent::Whole(io, journey) => (io, journey),
                Parent::Piece(split, _) => {
                    let whole = &raw const (*split.as_ptr()).whole;
                    let (io, journey) = (*whole).as_ref()?;
                    (io, journey)
                }
            };
            if journey.impatient {
                return Some(io.dev().minor());
            }
            buf = io.as_ptr();
        }
    }
    None
}

/// An object of a pool that nobody uses now.
pub(crate) struct Idle<T>(pub(super) NonNull<T>);

// SAFETY: whoever has an object that is not in use has it alone; it is raw memory that any thread
// may use.
unsafe impl<T> Send for Idle<T> {}

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
    pub(super) fn take(&self) -> Option<NonNull<T>> {
        NonNull::new(self.0.swap(ptr::null_mut(), Ordering::Acquire))
    }

    /// Keeps an object, if there is none yet.
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

/// Initialises a nested buffer and the lock of its completion.
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

/// Takes down what [`init_nested`] made.
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

/// An I/O in several pieces.
pub struct Split {
    /// The I/O, until it is complete.
    pub(super) whole: Option<(Io, Journey)>,
    /// Where on the device it begins.
    pub(super) start: Sector,
    /// Bytes, and of these the ones that have been sent.
    pub(super) bytes: u32,
    pub(super) sent: u32,
    /// Pieces under way, and one for whoever is sending.
    pub(super) pending: AtomicUsize,
    /// Whether a piece has failed; then the slot's lock guards `bad`.
    pub(super) failed: AtomicBool,
    /// The first byte that was not moved, and why.
    pub(super) bad: (u32, Errno),
    /// `true` if a piece was given back: the whole I/O is to be mapped again, when its other pieces
    /// are done.
    pub(super) again: AtomicBool,
    pub(super) reserved: bool,
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
                again: AtomicBool::new(false),
                reserved: false,
                next: None,
            });
        }
    }

    unsafe fn fini(_: *mut Split) {}
}

impl Split {
    /// Keeps a child that is done for the next I/O of its CPU, if there is none yet. By a pointer to the
    /// split: whoever sends its pieces may be writing `sent` at this moment, so that nobody may have a
    /// reference to all of it.
    ///
    /// # Safety
    /// The child's piece, which has not been released, keeps the split.
    #[inline]
    pub(super) unsafe fn keeps(split: NonNull<Split>, child: NonNull<Child>) -> bool {
        // SAFETY: the caller's promise; `whole` is taken by the last to release the split.
        let whole = unsafe { &(*split.as_ptr()).whole };
        whole.as_ref().is_some_and(|(_, journey)| journey.pass.local().child.keep(child))
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

impl Slot {
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

    /// Tells a child that does not come from a spare what it belongs to.
    fn adopt(&self, child: NonNull<Child>, reserved: bool) {
        // SAFETY: the child is the caller's alone.
        unsafe {
            (*child.as_ptr()).slot = self;
            (*child.as_ptr()).reserved = reserved;
        }
    }

    /// Takes back a child that is done.
    pub(super) fn put_child(&'static self, local: &Local, child: NonNull<Child>) {
        // SAFETY: the child is done, so ours, and comes from the reserve or the pool.
        unsafe {
            if (*child.as_ptr()).reserved {
                self.reserve.put_child(Idle(child));
                self.serve();
            } else if !local.child.keep(child)
                && let Some(global) = global()
            {
                global.children.put(child);
            }
        }
    }

    /// Takes back a split that is done.
    pub(super) fn put_split(&'static self, local: &Local, split: NonNull<Split>) {
        // SAFETY: the split is done, so ours, and comes from the reserve or the pool.
        unsafe {
            if (*split.as_ptr()).reserved {
                self.reserve.put_split(Idle(split));
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
}
