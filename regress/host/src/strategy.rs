// SPDX-License-Identifier: BSD-2-Clause

//! Low-level I/O with the caller's own buffer, as a file system does it.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::ptr;

use crate::buf::{self, B_READ};
use crate::dev::Dev;
use crate::devsw;
use crate::errno::Errno;
use crate::lwp;
use crate::mutex;
use crate::netbsd as nb;

/// The result of an I/O: `b_error` and `b_resid`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoResult {
    /// The error, if there was one.
    pub error: Option<Errno>,
    /// Bytes not transferred.
    pub resid: usize,
    /// `b_bcount` at the end: drivers shorten a transfer across a disk's end.
    pub count: usize,
}

impl IoResult {
    /// `true` if all `len` bytes were transferred, without error.
    pub fn is_complete(&self, len: usize) -> bool {
        self.error.is_none() && self.resid == 0 && self.count == len
    }

    /// Bytes transferred, or the error.
    pub fn transferred(&self) -> Result<usize, Errno> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.count - self.resid),
        }
    }
}

/// A transfer that is asked for: the place, direction and flags of an I/O.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// First block, in units of DEV_BSIZE (512 bytes).
    pub blkno: i64,
    /// `true` for a read (B_READ).
    pub read: bool,
    /// Further flags of `b_flags`, such as `netbsd::B_MEDIA_FUA`.
    pub flags: u32,
    /// `b_prio`: 0, 1 (normal) or 2 (time-critical).
    pub prio: i32,
}

impl Request {
    /// A read from a block.
    pub fn read(blkno: i64) -> Request {
        Request { blkno, read: true, flags: 0, prio: 1 }
    }

    /// A write to a block.
    pub fn write(blkno: i64) -> Request {
        Request { blkno, read: false, flags: 0, prio: 1 }
    }

    /// The request with further flags.
    pub fn flags(self, flags: u32) -> Request {
        Request { flags, ..self }
    }

    /// The request with a priority.
    pub fn prio(self, prio: i32) -> Request {
        Request { prio, ..self }
    }
}

/// Bytes that one buffer may transfer: MAXPHYS.
const MAXPHYS: usize = nb::MAXPHYS as usize;

/// Memory that a transfer reads into, or writes from.
pub(crate) enum Memory<'a> {
    /// The memory that a read fills.
    Into(&'a mut [u8]),
    /// The data of a write.
    From(&'a [u8]),
}

/// Transfers the caller's memory in buffers of MAXPHYS bytes at most, all in flight at once, and waits for them. The
/// error is that of the first buffer that has one, or EIO for a buffer that was transferred in part.
///
/// `send` sends a buffer to its driver.
pub(crate) fn transfer(
    memory: Memory<'_>,
    dev: Dev,
    request: Request,
    send: impl Fn(*mut nb::buf),
) -> Result<(), Errno> {
    let (data, len) = match memory {
        Memory::Into(to) => (to.as_mut_ptr(), to.len()),
        // A write only reads the caller's memory.
        Memory::From(from) => (from.as_ptr().cast_mut(), from.len()),
    };
    let mut ios: Vec<Inner> = (0..len).step_by(MAXPHYS).map(|_| Inner::new()).collect();
    // From here on the buffers stay where they are.
    for (io, at) in ios.iter_mut().zip((0..len).step_by(MAXPHYS)) {
        let count = MAXPHYS.min(len - at);
        // SAFETY: the buffer is idle and ours, and waited for below, before the memory's borrow
        // and the buffer itself end; a panic in between ends the process, since panics abort.
        unsafe {
            io.init();
            let blkno = request.blkno + (at / 512) as i64;
            io.prepare(dev, Request { blkno, ..request }, data.add(at), count);
        }
        send(io.buf.get());
    }
    let mut result = Ok(());
    for (io, at) in ios.iter_mut().zip((0..len).step_by(MAXPHYS)) {
        // SAFETY: sent, and not waited for yet; idle and ours afterwards.
        let done = unsafe {
            let done = io.wait();
            buf::buf_destroy(io.buf.get());
            done
        };
        if !done.is_complete(MAXPHYS.min(len - at)) {
            result = result.and(Err(done.error.unwrap_or(Errno::EIO)));
        }
    }
    result
}

/// A buffer for many I/Os in turn, straight to a strategy routine.
///
/// It owns its data. Dropping it waits for an I/O in flight.
pub struct Io {
    inner: Box<Inner>,
    data: Box<[u8]>,
    busy: bool,
}

struct Inner {
    buf: UnsafeCell<nb::buf>,
    lock: UnsafeCell<nb::kmutex_t>,
}

impl Inner {
    fn new() -> Inner {
        Inner {
            // SAFETY: a buf is integers and pointers, for which zeros are valid.
            buf: UnsafeCell::new(unsafe { std::mem::zeroed() }),
            lock: UnsafeCell::new(mutex::static_adaptive()),
        }
    }

    /// Initialises the buffer.
    ///
    /// # Safety
    ///
    /// From now on it stays where it is, until buf_destroy.
    #[inline]
    unsafe fn init(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            buf::buf_init(self.buf.get());
            // A lock of its own: several threads do not meet at buffer_lock.
            (*self.buf.get()).b_objlock = self.lock.get();
        }
    }

    /// Readies the buffer for an I/O.
    ///
    /// # Safety
    ///
    /// The buffer is idle; `data` is `len` bytes of memory until the I/O has ended.
    #[inline]
    unsafe fn prepare(&self, dev: Dev, request: Request, data: *mut u8, len: usize) {
        let bp = self.buf.get();
        // SAFETY: the caller's promise.
        unsafe {
            (*bp).b_dev = dev;
            (*bp).b_blkno = request.blkno;
            (*bp).b_rawblkno = request.blkno;
            (*bp).b_flags = request.flags | if request.read { B_READ } else { 0 };
            (*bp).b_cflags = nb::BC_BUSY as u32;
            (*bp).b_oflags = 0;
            (*bp).b_error = 0;
            (*bp).b_prio = request.prio;
            (*bp).b_bcount = len as c_int;
            (*bp).b_bufsize = len as c_int;
            (*bp).b_resid = len as c_int;
            (*bp).b_data = data.cast();
            (*bp).b_iodone = None;
            (*bp).b_vp = ptr::null_mut();
            (*bp).b_private = ptr::null_mut();
            (*bp).b_proc = ptr::null_mut();
        }
    }

    /// Waits for an I/O to end: biowait(9).
    ///
    /// # Safety
    ///
    /// It was sent, and has not been waited for.
    #[inline]
    unsafe fn wait(&self) -> IoResult {
        let bp = self.buf.get();
        // SAFETY: the caller's promise.
        unsafe {
            let error = buf::biowait(bp);
            IoResult {
                error: (error != 0).then_some(Errno(error)),
                resid: (*bp).b_resid as usize,
                count: (*bp).b_bcount as usize,
            }
        }
    }
}

// SAFETY: what the driver writes is read only after biowait, which synchronises.
unsafe impl Send for Io {}

impl Io {
    /// A buffer of `len` zero bytes.
    pub fn new(len: usize) -> Io {
        Io::with_data(vec![0; len])
    }

    /// A buffer with these data.
    pub fn with_data(data: Vec<u8>) -> Io {
        let inner = Box::new(Inner::new());
        // SAFETY: the buffer is ours, and stays where it is.
        unsafe { inner.init() };
        Io { inner, data: data.into_boxed_slice(), busy: false }
    }

    /// The data that were read, or that are written.
    pub fn data(&self) -> &[u8] {
        assert!(!self.busy, "the I/O is under way");
        &self.data
    }

    /// The data, to be changed before a write.
    pub fn data_mut(&mut self) -> &mut [u8] {
        assert!(!self.busy, "the I/O is under way");
        &mut self.data
    }

    /// Sends the I/O to a block device and returns; the device must be open.
    #[inline]
    pub fn start(&mut self, dev: Dev, request: Request) {
        self.prepare(dev, request);
        // SAFETY: prepared, and ours until biowait.
        unsafe { devsw::bdev_strategy(self.inner.buf.get()) };
    }

    /// Readies the buffer for an I/O and gives it to the caller to send.
    pub(crate) fn prepared(&mut self, dev: Dev, request: Request) -> *mut nb::buf {
        self.prepare(dev, request);
        self.inner.buf.get()
    }

    #[inline]
    fn prepare(&mut self, dev: Dev, request: Request) {
        assert!(!self.busy, "the I/O is under way");
        self.busy = true;
        let (data, len) = (self.data.as_mut_ptr(), self.data.len());
        // SAFETY: the buffer is idle and ours, and so are the data.
        unsafe { self.inner.prepare(dev, request, data, len) };
    }

    /// `true` while the I/O is in flight.
    pub fn is_busy(&self) -> bool {
        let bp = self.inner.buf.get();
        if !self.busy {
            return false;
        }
        let lwp = lwp::current();
        // SAFETY: b_oflags belongs to b_objlock.
        unsafe {
            mutex::enter((*bp).b_objlock, lwp);
            let done = (*bp).b_oflags & buf::BO_DONE != 0;
            mutex::exit((*bp).b_objlock, lwp);
            !done
        }
    }

    /// Waits for the I/O to end: biowait(9).
    #[inline]
    pub fn wait(&mut self) -> IoResult {
        assert!(self.busy, "no I/O is under way");
        // SAFETY: started, and not waited for yet.
        let done = unsafe { self.inner.wait() };
        self.busy = false;
        done
    }

    /// Sends the I/O and waits for it.
    #[inline]
    pub fn run(&mut self, dev: Dev, request: Request) -> IoResult {
        self.start(dev, request);
        self.wait()
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if self.busy {
            self.wait();
        }
        // SAFETY: idle and ours.
        unsafe { buf::buf_destroy(self.inner.buf.get()) };
    }
}

/// Several I/Os at once: starts them all, then waits for each.
pub fn run_all(dev: Dev, ios: &mut [(Request, Io)]) -> Vec<IoResult> {
    for (request, io) in ios.iter_mut() {
        io.start(dev, *request);
    }
    ios.iter_mut().map(|(_, io)| io.wait()).collect()
}

/// The size of a block device for swapping, in blocks of 512 bytes; None if there is none.
pub(crate) fn psize(dev: Dev) -> Option<i64> {
    let size = devsw::bdev_size(dev);
    (size >= 0).then_some(size.into())
}

/// Writes a piece of a crash dump: no sleeping, no allocation.
pub(crate) fn dump(dev: Dev, blkno: i64, data: &[u8]) -> Result<(), Errno> {
    let lwp = lwp::current();
    let error = lwp
        .in_softint(|| devsw::bdev_dump(dev, blkno, data.as_ptr().cast_mut().cast(), data.len()));
    Errno::check(error)
}
