// SPDX-License-Identifier: BSD-2-Clause

//! buf(9): I/O that has a sender, and the queue that holds such I/O.

use core::ptr::{self, NonNull};

use dm_core::units::{DEV_BSIZE, Dev, Sector};
use dm_core::{Errno, errno};

use super::c_const;
use super::sys::{self, buf};

c_const! {
    /// The I/O reads.
    pub B_READ: u32;
    B_PHYS: u32;
    B_RAW: u32;
    B_MEDIA_FLAGS: u32;
    B_MEDIA_FUA: u32;
    /// The buffer has an owner.
    pub BC_BUSY: u32;
}

/// Reads a field of an [`Io`]'s buffer that is the driver's. By itself: others of its fields are
/// written meanwhile, such as BC_WANTED in b_cflags by a thread that waits for the buffer, so that
/// no reference to all of it may be made.
macro_rules! field {
    ($io:ident.$field:ident) => {
        // SAFETY: the buffer is the driver's until biodone(9) (invariant), and so is the field.
        unsafe { (*$io.0.as_ptr()).$field }
    };
}

/// An I/O that came to the driver: it must be completed, once. Completing takes it; dropping it
/// would leave its sender waiting for ever, so that is a panic.
///
/// Context of all methods: thread or soft interrupt; none sleeps. Those that complete the I/O call
/// biodone(9), which takes b_objlock and calls the sender's b_iodone: the caller holds no lock.
///
/// # Invariants
/// The buffer is the driver's from d_strategy until biodone(9).
#[must_use = "an I/O must be completed"]
pub struct Io(NonNull<buf>);

// SAFETY: a buffer belongs to its holder, in whatever thread.
unsafe impl Send for Io {}

impl Io {
    /// Takes over a buffer.
    ///
    /// # Safety
    /// It was handed to this driver's d_strategy, or taken apart by [`Io::into_raw`], and nobody
    /// else uses it.
    #[inline]
    pub unsafe fn from_raw(raw: NonNull<buf>) -> Io {
        Io(raw)
    }

    /// The buffer; its new owner must see to its completion.
    #[inline]
    pub fn into_raw(self) -> NonNull<buf> {
        let raw = self.0;
        core::mem::forget(self);
        raw
    }

    /// The buffer, which stays this I/O's.
    #[inline]
    pub fn as_ptr(&self) -> *mut buf {
        self.0.as_ptr()
    }

    /// The device that the I/O is for.
    #[inline]
    pub fn dev(&self) -> Dev {
        Dev(field!(self.b_dev))
    }

    /// `true` for a write.
    #[inline]
    pub fn is_write(&self) -> bool {
        field!(self.b_flags) & B_READ == 0
    }

    /// The number of bytes, b_bcount. A negative one reads as more than `i32::MAX`, which no table
    /// holds.
    #[inline]
    pub fn bytes(&self) -> u32 {
        field!(self.b_bcount) as u32
    }

    /// The first sector; a negative one is beyond any disk.
    #[inline]
    pub fn sector(&self) -> Sector {
        Sector(field!(self.b_blkno) as u64)
    }

    /// `true` if the data fits into the buffer's memory.
    pub fn fits_its_buffer(&self) -> bool {
        (0..=field!(self.b_bufsize)).contains(&field!(self.b_bcount))
    }

    /// Cuts the I/O to the device's size, as disks do. `false` when nothing is left to do: the I/O
    /// has been given its error, or lies at the end.
    pub fn bound(&self, size: Sector) -> bool {
        // SAFETY: the buffer is ours, and the function looks at no more than it.
        unsafe { sys::bounds_check_with_mediasize(self.0.as_ptr(), DEV_BSIZE as i32, size.0) > 0 }
    }

    /// `true` if a write must be on stable storage before it is complete.
    #[inline]
    pub fn is_fua(&self) -> bool {
        field!(self.b_flags) & B_MEDIA_FUA != 0
    }

    /// `bytes` bytes of the data, from `offset` on; mapped until completion. Null if they are not
    /// all there.
    pub fn data(&self, offset: u32, bytes: u32) -> *mut u8 {
        if offset.checked_add(bytes).is_none_or(|end| end > self.bytes()) {
            return ptr::null_mut();
        }
        let data = field!(self.b_data);
        // SAFETY: b_data has b_bcount bytes, and the range is in them.
        unsafe { data.cast::<u8>().add(offset as usize) }
    }

    /// Fills `bytes` bytes of the data, from `offset` on, with zeroes.
    #[inline]
    pub fn zero(&self, offset: u32, bytes: u32) {
        debug_assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.bytes()));
        let data = field!(self.b_data);
        // SAFETY: b_data has b_bcount bytes, mapped until completion, and the range is in them.
        unsafe { ptr::write_bytes(data.cast::<u8>().add(offset as usize), 0, bytes as usize) }
    }

    /// Completes the I/O as successful.
    #[inline]
    pub fn complete(self) {
        let raw = self.into_raw().as_ptr();
        // SAFETY: the buffer was ours until here; biodone(9) gives it back.
        unsafe {
            (*raw).b_resid = 0;
            sys::biodone(raw);
        }
    }

    /// Completes the I/O with an error, before which `done` bytes were moved.
    pub fn fail(self, done: u32, errno: Errno) {
        let raw = self.into_raw().as_ptr();
        // SAFETY: the buffer was ours until here; biodone(9) gives it back.
        unsafe {
            (*raw).b_error = errno.raw();
            // Both lie within b_bcount, which is an i32.
            (*raw).b_resid = (*raw).b_bcount.saturating_sub(done as i32).max(0);
            sys::biodone(raw);
        }
    }

    /// Completes the I/O with nothing done, with the error it may already have.
    pub fn complete_empty(self) {
        let raw = self.into_raw().as_ptr();
        // SAFETY: the buffer was ours until here; biodone(9) gives it back.
        unsafe {
            (*raw).b_resid = (*raw).b_bcount;
            sys::biodone(raw);
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        panic!("dm: an I/O was lost");
    }
}

/// The type of b_iodone.
pub type Done = unsafe extern "C" fn(*mut buf);

/// I/O in the order it came, linked through the buffers themselves: nothing is allocated.
pub struct IoQueue {
    head: *mut buf,
    tail: *mut buf,
}

// SAFETY: it owns its buffers.
unsafe impl Send for IoQueue {}

impl IoQueue {
    /// An empty queue.
    pub const fn new() -> IoQueue {
        IoQueue { head: ptr::null_mut(), tail: ptr::null_mut() }
    }

    /// `true` if none waits.
    pub fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Puts an I/O behind those that wait.
    pub fn push(&mut self, io: Io) {
        let raw = io.into_raw().as_ptr();
        // SAFETY: the buffer is ours, and b_actq is for the driver that has it; `tail` is in this
        // queue, so ours too.
        unsafe {
            (*raw).b_u.u_actq.tqe_next = ptr::null_mut();
            match self.tail.is_null() {
                true => self.head = raw,
                false => (*self.tail).b_u.u_actq.tqe_next = raw,
            }
        }
        self.tail = raw;
    }

    /// Takes the I/O that has waited longest.
    pub fn pop(&mut self) -> Option<Io> {
        let raw = NonNull::new(self.head)?;
        // SAFETY: it is in this queue, so ours; it leaves it here.
        self.head = unsafe { (*raw.as_ptr()).b_u.u_actq.tqe_next };
        if self.head.is_null() {
            self.tail = ptr::null_mut();
        }
        // SAFETY: `push` took it apart.
        Some(unsafe { Io::from_raw(raw) })
    }
}

impl Default for IoQueue {
    fn default() -> Self {
        IoQueue::new()
    }
}

/// Sets up a nested buffer for `bytes` bytes of `parent` from `offset` on, for `sector` of a
/// component. Its completion calls `done`.
///
/// # Safety
/// `child` is initialised and busy, its own completion lock in b_objlock, and not in use. `parent`
/// is in flight and stays so until the child is done; the range lies in it.
#[inline]
pub unsafe fn nest(
    child: *mut buf,
    parent: &Io,
    offset: u32,
    bytes: u32,
    sector: Sector,
    done: Done,
) {
    let parent = parent.as_ptr();
    // SAFETY: the caller's promise; the parent is the driver's while it is in flight.
    unsafe {
        (*child).b_flags = (*parent).b_flags & (B_READ | B_PHYS | B_RAW | B_MEDIA_FLAGS);
        (*child).b_oflags = 0;
        (*child).b_error = 0;
        (*child).b_prio = (*parent).b_prio;
        (*child).b_proc = (*parent).b_proc;
        (*child).b_data = (*parent).b_data.cast::<u8>().add(offset as usize).cast();
        // A range of a buffer is no longer than the buffer, whose length is an i32.
        (*child).b_bcount = bytes as i32;
        (*child).b_bufsize = bytes as i32;
        (*child).b_resid = bytes as i32;
        (*child).b_blkno = sector.0 as i64;
        (*child).b_iodone = Some(done);
    }
}

/// Fills in a nested buffer for `bytes` bytes of the driver's own memory, which go to or come from
/// `sector` of a component. `done` is called when they are there.
///
/// # Safety
/// `child` as for [`nest`]. The memory stays until the child is done, nobody else touches it, and
/// `bytes` is at most `i32::MAX`.
pub unsafe fn fill(
    child: *mut buf,
    data: *mut u8,
    bytes: usize,
    sector: Sector,
    (write, fua): (bool, bool),
    done: unsafe extern "C" fn(*mut buf),
) {
    let flags = if write { 0 } else { B_READ } | if fua { B_MEDIA_FUA } else { 0 };
    // SAFETY: the caller's promise.
    unsafe {
        (*child).b_flags = flags as _;
        (*child).b_oflags = 0;
        (*child).b_error = 0;
        (*child).b_prio = sys::BPRIO_TIMELIMITED as _;
        (*child).b_proc = ptr::null_mut();
        (*child).b_data = data.cast();
        (*child).b_bcount = bytes as i32;
        (*child).b_bufsize = bytes as i32;
        (*child).b_resid = bytes as i32;
        (*child).b_blkno = sector.0 as i64;
        (*child).b_iodone = Some(done);
    }
}

/// `true` if all of a nested buffer was done, so that its [`nested_result`] is `Ok`. A fast check.
///
/// # Safety
/// As for [`nested_result`].
#[inline]
pub unsafe fn is_complete(child: *const buf) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let left =
            (*child).b_bufsize.wrapping_sub((*child).b_bcount).wrapping_add((*child).b_resid);
        (*child).b_error | left == 0
    }
}

/// All was done, or so many bytes before an error.
pub type NestedResult = Result<(), (u32, Errno)>;

/// The result of a nested buffer: the bytes that were moved, and the error if not all were. A
/// buffer that a component cut short without an error is an error: the table said that it is all
/// there.
///
/// # Safety
/// `child` was filled in by [`nest`] or [`fill`], and is done.
#[inline]
pub unsafe fn nested_result(child: *const buf) -> NestedResult {
    // SAFETY: the caller's promise.
    unsafe { if is_complete(child) { Ok(()) } else { partial(child) } }
}

/// Waits until an I/O of the calling thread's is done (biowait(9)). Returns what it has read;
/// nothing if it failed, or is a write. Context: a thread; sleeps.
///
/// # Safety
/// The buffer is a synchronous I/O that was sent, and is the thread's when it is done. The data is
/// not used after that.
pub unsafe fn wait<'b>(buf: *mut buf) -> &'b mut [u8] {
    // SAFETY: the caller's promise; a read that was done has filled its data up to b_resid.
    unsafe {
        if sys::biowait(buf) != 0 || (*buf).b_flags & sys::B_READ as u32 == 0 {
            return &mut [];
        }
        let read = (*buf).b_bcount.saturating_sub((*buf).b_resid).clamp(0, (*buf).b_bcount);
        core::slice::from_raw_parts_mut((*buf).b_data.cast(), read as usize)
    }
}

/// [`nested_result`] of a buffer of which not all was done, or that the component has changed.
///
/// # Safety
/// As for [`nested_result`].
#[cold]
unsafe fn partial(child: *const buf) -> NestedResult {
    // SAFETY: the caller's promise.
    let (error, wanted, resid, bcount) =
        unsafe { ((*child).b_error, (*child).b_bufsize, (*child).b_resid, (*child).b_bcount) };
    let done = bcount.saturating_sub(resid).clamp(0, wanted);
    match errno::Errno::from_raw(error) {
        None if done == wanted => Ok(()),
        // The driver has left b_resid at 0, as ahcisata(4) does: nothing is known to be done.
        Some(error) if done == wanted => Err((0, error)),
        error => Err((done as u32, error.unwrap_or(Errno::EIO))),
    }
}
