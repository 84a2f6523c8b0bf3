// SPDX-License-Identifier: BSD-2-Clause

//! buffercache(9), as far as a disk driver sees it: biodone, biowait, I/O buffers, nested buffers,
//! and the checks of a transfer's bounds.
//!
//! There is no cache: brelse of a buffer does not exist. As in NetBSD a completion in a hard
//! interrupt is left to a soft interrupt. Stricter than NetBSD: b_iodone runs as if in a soft
//! interrupt wherever the completion came from, because it may.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread::JoinHandle;

use crate::condvar;
use crate::console::{kassert, kpanic};
use crate::errno::Errno;
use crate::lwp::{self, Context};
use crate::mutex;
use crate::netbsd as nb;
use crate::pool_cache;

/// DEV_BSIZE: bytes in a block of `b_blkno`.
pub const DEV_BSIZE: i64 = 512;

pub(crate) const B_READ: u32 = nb::B_READ as u32;
pub(crate) const BO_DONE: u32 = nb::BO_DONE as u32;
const B_ASYNC: u32 = nb::B_ASYNC as u32;
const B_COWDONE: u32 = nb::B_COWDONE as u32;
const BC_BUSY: u32 = nb::BC_BUSY as u32;
/// BPRIO_TIMENONCRITICAL, which is BPRIO_DEFAULT.
const BPRIO_DEFAULT: i32 = 1;

/// b_objlock of a buffer that is not to be used any more.
const POISON: usize = 1;

/// Guards buffers that belong to no vnode.
struct BufferLock(UnsafeCell<nb::kmutex_t>);

// SAFETY: a mutex is used through atomics only.
unsafe impl Sync for BufferLock {}

static BUFFER_LOCK: BufferLock = BufferLock(UnsafeCell::new(mutex::static_adaptive()));
static POOL: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

fn buffer_lock() -> *mut nb::kmutex_t {
    BUFFER_LOCK.0.get()
}

/// The queue of buffers that completed in a hard interrupt, and the thread that finishes them.
struct SoftInterrupt {
    queue: Mutex<Option<Vec<Completed>>>,
    scheduled: Condvar,
}

struct Completed(*mut nb::buf);

// SAFETY: a buffer in the queue belongs to the queue.
unsafe impl Send for Completed {}

static SOFTBIO: SoftInterrupt =
    SoftInterrupt { queue: Mutex::new(None), scheduled: Condvar::new() };

/// Starts the soft interrupt's thread and the pool of I/O buffers.
pub(crate) fn start() -> JoinHandle<()> {
    POOL.store(pool_cache::internal(c"bufiopl", size_of::<nb::buf>()).cast(), Ordering::Release);
    *SOFTBIO.queue.lock().unwrap_or_else(|e| e.into_inner()) = Some(Vec::new());
    let thread = std::thread::Builder::new().name("softbio/0".into()).spawn(|| {
        lwp::begin();
        let mut work = Vec::new();
        loop {
            {
                let mut queue = SOFTBIO.queue.lock().unwrap_or_else(|e| e.into_inner());
                loop {
                    match queue.as_mut() {
                        None => return,
                        Some(q) if !q.is_empty() => {
                            std::mem::swap(q, &mut work);
                            break;
                        }
                        Some(_) => {
                            queue =
                                SOFTBIO.scheduled.wait(queue).unwrap_or_else(|e| e.into_inner());
                        }
                    }
                }
            }
            // Only here is the thread in an interrupt: xcall(9) waits for threads that are.
            lwp::with_context(Context::SoftInterrupt, || {
                for buf in work.drain(..) {
                    biodone2(buf.0);
                }
            });
        }
    });
    match thread {
        Ok(thread) => thread,
        Err(e) => kpanic!("no thread for the soft interrupt: {e}"),
    }
}

/// Ends the soft interrupt's thread. The answer is a list of leaks.
pub(crate) fn stop(thread: JoinHandle<()>) -> Vec<String> {
    *SOFTBIO.queue.lock().unwrap_or_else(|e| e.into_inner()) = None;
    SOFTBIO.scheduled.notify_all();
    let _ = thread.join();
    let pool = POOL.swap(ptr::null_mut(), Ordering::AcqRel);
    pool_cache::internal_destroy(pool.cast())
        .into_iter()
        .map(|count| format!("{count} I/O buffers were not put back (putiobuf)"))
        .collect()
}

#[inline(always)]
fn check(bp: *const nb::buf, what: &str) {
    // SAFETY: the caller passes a buffer.
    let lock = unsafe { (*bp).b_objlock };
    if lock as usize <= POISON {
        kassert!(lock.is_null(), "{what}: the buffer {bp:p} is no longer in use");
        kpanic!("{what}: the buffer {bp:p} was never initialised");
    }
}

/// biodone(9)
///
/// # Safety
///
/// `bp` is a buffer that a strategy routine was given and that is not done.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn biodone(bp: *mut nb::buf) {
    check(bp, "biodone");
    // SAFETY: the caller's promise.
    unsafe {
        kassert!(
            (*bp).b_resid as u32 <= (*bp).b_bcount as u32,
            "biodone: b_resid {} of b_bcount {}",
            (*bp).b_resid,
            (*bp).b_bcount
        );
    }
    if lwp::current().context() == Context::HardInterrupt {
        let mut queue = SOFTBIO.queue.lock().unwrap_or_else(|e| e.into_inner());
        match queue.as_mut() {
            Some(queue) => queue.push(Completed(bp)),
            None => kpanic!("biodone: the machine is down"),
        }
        SOFTBIO.scheduled.notify_one();
    } else {
        biodone2(bp);
    }
}

#[inline(always)]
fn biodone2(bp: *mut nb::buf) {
    let lwp = lwp::current();
    // SAFETY: the buffer is the caller's to complete; fields are used under b_objlock as in
    // NetBSD, and not after the last exit of it or b_iodone.
    unsafe {
        let lock = (*bp).b_objlock;
        mutex::enter(lock, lwp);
        kassert!((*bp).b_oflags & BO_DONE == 0, "biodone: the buffer {bp:p} is done already");
        (*bp).b_flags &= !B_COWDONE;
        (*bp).b_oflags |= BO_DONE;
        (*bp).b_prio = BPRIO_DEFAULT;
        if (*bp).b_flags & B_READ == 0 && !(*bp).b_vp.is_null() {
            vwakeup(bp);
        }
        if let Some(iodone) = (*bp).b_iodone {
            kassert!(
                !condvar::has_waiters(&raw const (*bp).b_done),
                "biodone: waited for, b_iodone set"
            );
            (*bp).b_iodone = None;
            mutex::exit(lock, lwp);
            let held = (lwp.held.get(), lwp.spins());
            lwp.in_softint(|| iodone(bp));
            kassert!(
                held == (lwp.held.get(), lwp.spins()),
                "b_iodone returned with a mutex held, or left one that was"
            );
        } else {
            kassert!((*bp).b_flags & B_ASYNC == 0, "biodone: B_ASYNC without b_iodone (brelse)");
            condvar::broadcast(&raw mut (*bp).b_done);
            mutex::exit(lock, lwp);
        }
    }
}

/// Records that a write of the buffer's vnode is done. The caller holds b_objlock.
unsafe fn vwakeup(bp: *mut nb::buf) {
    // SAFETY: b_vp is a vnode whose interlock guards the count.
    unsafe {
        let vp = (*bp).b_vp;
        kassert!(
            (*bp).b_objlock == (*vp).v_interlock,
            "biodone: b_objlock is not the lock of b_vp"
        );
        (*vp).v_numoutput -= 1;
        kassert!((*vp).v_numoutput >= 0, "biodone: v_numoutput of {vp:p} below 0");
        if (*vp).v_numoutput == 0 {
            condvar::broadcast(&raw mut (*vp).v_cv);
        }
    }
}

/// biowait(9)
///
/// # Safety
///
/// `bp` is a buffer with BC_BUSY, handed to a strategy routine.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn biowait(bp: *mut nb::buf) -> c_int {
    check(bp, "biowait");
    let lwp = lwp::current();
    lwp.assert_sleepable("biowait");
    // SAFETY: the caller's promise.
    unsafe {
        kassert!((*bp).b_cflags & BC_BUSY != 0, "biowait: the buffer {bp:p} is not busy");
        mutex::enter((*bp).b_objlock, lwp);
        while (*bp).b_oflags & (BO_DONE | nb::BO_DELWRI as u32) == 0 {
            condvar::cv_wait(&raw mut (*bp).b_done, (*bp).b_objlock);
        }
        mutex::exit((*bp).b_objlock, lwp);
        (*bp).b_error
    }
}

/// buf_init(9)
///
/// # Safety
///
/// `bp` points to a struct buf that is not in use.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn buf_init(bp: *mut nb::buf) {
    // SAFETY: the caller's promise.
    unsafe {
        condvar::init_unlisted(&raw mut (*bp).b_busy, c"biolock".as_ptr());
        condvar::init_unlisted(&raw mut (*bp).b_done, c"biowait".as_ptr());
        (*bp).b_dev = crate::dev::NODEV;
        (*bp).b_error = 0;
        (*bp).b_flags = 0;
        (*bp).b_cflags = 0;
        (*bp).b_oflags = 0;
        (*bp).b_objlock = buffer_lock();
        (*bp).b_iodone = None;
        (*bp).b_vnbufs.le_next = usize::MAX as *mut nb::buf;
        (*bp).b_prio = BPRIO_DEFAULT;
    }
}

/// buf_destroy(9)
///
/// # Safety
///
/// `bp` is a buffer that nobody uses any more.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn buf_destroy(bp: *mut nb::buf) {
    check(bp, "buf_destroy");
    // SAFETY: the caller's promise.
    unsafe {
        condvar::destroy_unlisted(&raw mut (*bp).b_done);
        condvar::destroy_unlisted(&raw mut (*bp).b_busy);
        (*bp).b_objlock = POISON as *mut nb::kmutex_t;
        (*bp).b_iodone = Some(iodone_of_freed);
    }
}

unsafe extern "C" fn iodone_of_freed(bp: *mut nb::buf) {
    kpanic!("b_iodone of the buffer {bp:p}, which is no longer in use");
}

/// getiobuf(9)
///
/// # Safety
///
/// `vp` is null or a vnode.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getiobuf(vp: *mut nb::vnode, waitok: bool) -> *mut nb::buf {
    let flags = if waitok { nb::PR_WAITOK } else { nb::PR_NOWAIT };
    let bp = pool_cache::internal_get(POOL.load(Ordering::Acquire).cast(), flags).cast::<nb::buf>();
    if bp.is_null() {
        return bp;
    }
    // SAFETY: the pool's items are buffers, and this one is ours.
    unsafe {
        buf_init(bp);
        (*bp).b_vp = vp;
        if !vp.is_null() {
            (*bp).b_objlock = (*vp).v_interlock;
        }
    }
    bp
}

/// putiobuf(9)
///
/// # Safety
///
/// `bp` comes from getiobuf.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn putiobuf(bp: *mut nb::buf) {
    // SAFETY: the caller's promise.
    unsafe { buf_destroy(bp) };
    pool_cache::internal_put(POOL.load(Ordering::Acquire).cast(), bp.cast());
}

/// nestiobuf_iodone(9)
///
/// # Safety
///
/// `bp` was set up by nestiobuf_setup.
#[unsafe(no_mangle)]
unsafe extern "C" fn nestiobuf_iodone(bp: *mut nb::buf) {
    // SAFETY: the caller's promise.
    unsafe {
        let master = (*bp).b_private.cast::<nb::buf>();
        kassert!(master != bp, "nestiobuf_iodone: {bp:p} is its own master");
        let mut error = (*bp).b_error;
        if error == 0 && ((*bp).b_bcount < (*bp).b_bufsize || (*bp).b_resid > 0) {
            // A master learns in no other way that a piece was short.
            error = Errno::EIO.0;
        }
        let done = (*bp).b_bufsize;
        putiobuf(bp);
        nestiobuf_done(master, done, error);
    }
}

/// nestiobuf_setup(9)
///
/// # Safety
///
/// `master` and `bp` are buffers; the range lies in the master's.
#[unsafe(no_mangle)]
unsafe extern "C" fn nestiobuf_setup(
    master: *mut nb::buf,
    bp: *mut nb::buf,
    offset: c_int,
    size: usize,
) {
    check(master, "nestiobuf_setup");
    // SAFETY: the caller's promise.
    unsafe {
        let passed = (nb::B_READ | nb::B_PHYS | nb::B_RAW | nb::B_MEDIA_FLAGS) as u32;
        let vp = (*master).b_vp;
        kassert!(
            (*master).b_bcount as i64 >= i64::from(offset) + size as i64,
            "nestiobuf_setup: {offset} and {size} bytes of {}",
            (*master).b_bcount
        );
        (*bp).b_vp = vp;
        (*bp).b_dev = (*master).b_dev;
        (*bp).b_objlock = (*master).b_objlock;
        (*bp).b_cflags = BC_BUSY;
        (*bp).b_flags = B_ASYNC | ((*master).b_flags & passed);
        (*bp).b_iodone = Some(nestiobuf_iodone);
        (*bp).b_data = (*master).b_data.cast::<u8>().add(offset as usize).cast();
        (*bp).b_bcount = size as c_int;
        (*bp).b_resid = size as c_int;
        (*bp).b_bufsize = size as c_int;
        (*bp).b_private = master.cast();
        (*bp).b_prio = (*master).b_prio;
        if (*bp).b_flags & B_READ == 0 && !vp.is_null() {
            let lwp = lwp::current();
            mutex::enter((*vp).v_interlock, lwp);
            (*vp).v_numoutput += 1;
            mutex::exit((*vp).v_interlock, lwp);
        }
    }
}

/// nestiobuf_done(9)
///
/// # Safety
///
/// `master` is a buffer whose b_resid counts what nested buffers have still to do.
#[unsafe(no_mangle)]
unsafe extern "C" fn nestiobuf_done(master: *mut nb::buf, done: c_int, error: c_int) {
    if done == 0 {
        return;
    }
    check(master, "nestiobuf_done");
    let lwp = lwp::current();
    // SAFETY: the caller's promise; the master is not touched after biodone.
    unsafe {
        let lock = (*master).b_objlock;
        mutex::enter(lock, lwp);
        kassert!((*master).b_resid >= done, "nestiobuf_done: {done} of {}", (*master).b_resid);
        (*master).b_resid -= done;
        if error != 0 {
            (*master).b_error = error;
        }
        let last = (*master).b_resid == 0;
        if last && (*master).b_error != 0 {
            (*master).b_resid = (*master).b_bcount;
        }
        mutex::exit(lock, lwp);
        if last {
            biodone(master);
        }
    }
}

/// bounds_check_with_mediasize(9): 0 if the buffer is to be completed as it is, 1 to go on.
///
/// # Safety
///
/// `bp` is a buffer that the caller's strategy routine was given.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn bounds_check_with_mediasize(
    bp: *mut nb::buf,
    secsize: c_int,
    mediasize: u64,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        if (*bp).b_blkno < 0 {
            (*bp).b_error = Errno::EINVAL.0;
            return 0;
        }
        let secsize = i64::from(secsize);
        let size = (i64::from((*bp).b_bcount) + secsize - 1) / secsize;
        if (*bp).b_blkno.wrapping_add(size) as u64 > mediasize {
            let left = mediasize as i64 - (*bp).b_blkno;
            if left == 0 {
                // Exactly at the end: nothing to transfer.
                (*bp).b_resid = (*bp).b_bcount;
                return 0;
            }
            if left < 0 {
                (*bp).b_error = Errno::EINVAL.0;
                return 0;
            }
            (*bp).b_bcount = (left * secsize) as c_int;
        }
        1
    }
}

/// bounds_check_with_label(9): -1 for an error, 0 if there is nothing to do, 1 to go on.
///
/// # Safety
///
/// As bounds_check_with_mediasize; `dk` is an attached disk.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn bounds_check_with_label(
    dk: *mut nb::disk,
    bp: *mut nb::buf,
    wlabel: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let label = &*(*dk).dk_label;
        let part = crate::dev::minor((*bp).b_dev) as usize % nb::MAXPARTITIONS as usize;
        if (*bp).b_blkno < 0 || i64::from(label.d_secsize) < DEV_BSIZE || label.d_secpercyl == 0 {
            (*bp).b_error = Errno::EINVAL.0;
            return -1;
        }
        let shift = (*dk).dk_blkshift;
        let size = (u64::from(label.d_partitions[part].p_size) << shift) as i64;
        let offset = (u64::from(label.d_partitions[part].p_offset) << shift) as i64;
        // On amd64 and i386 the label counts from partition c, NetBSD's part of the disk.
        let label_at = (i64::from(label.d_partitions[2].p_offset) + (*dk).dk_labelsector) << shift;
        let mut count = (i64::from((*bp).b_bcount) + DEV_BSIZE - 1) / DEV_BSIZE;
        if (*bp).b_blkno + count > size {
            count = size - (*bp).b_blkno;
            if count == 0 {
                (*bp).b_resid = (*bp).b_bcount;
                return 0;
            }
            if count < 0 {
                (*bp).b_error = Errno::EINVAL.0;
                return -1;
            }
            (*bp).b_bcount = (count * DEV_BSIZE) as c_int;
        }
        let first = (*bp).b_blkno + offset;
        let write = (*bp).b_flags & B_READ == 0;
        if write && wlabel == 0 && first <= label_at && first + count > label_at {
            (*bp).b_error = Errno::EROFS.0;
            return -1;
        }
        1
    }
}
