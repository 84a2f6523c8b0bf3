// SPDX-License-Identifier: BSD-2-Clause

//! physio(9): I/O between a device and a process's memory.
//!
//! As in NetBSD a request is cut into pieces of at most MAXPHYS, several of which are in flight at
//! once; the first error by position counts, and what lies behind it is not transferred.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::{Condvar, Mutex};

use crate::buf::{B_READ, getiobuf, putiobuf};
use crate::console::kassert;
use crate::dev::Dev;
use crate::devsw;
use crate::errno::Errno;
use crate::lock;
use crate::lwp;
use crate::netbsd as nb;

/// physio_concurrency
const CONCURRENCY: usize = 16;
/// BPRIO_TIMECRITICAL
const TIMECRITICAL: c_int = 2;
const PAGE: usize = 4096;

#[derive(Default)]
struct State {
    running: usize,
    failed: bool,
    error: c_int,
    /// The offset of the failure with the lowest position.
    end: i64,
    /// Bytes not transferred, for devices that are no disks.
    resid: usize,
}

struct Physio {
    state: Mutex<State>,
    done: Condvar,
}

impl Physio {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn wait(&self, most: usize) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.state();
        while state.running > most {
            state = self.done.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        state
    }
}

unsafe extern "C" fn physio_done(bp: *mut nb::buf) {
    // SAFETY: the buffer is done, and b_private is our caller's Physio, who waits for us.
    unsafe {
        let physio = &*(*bp).b_private.cast::<Physio>();
        let todo = (*bp).b_bufsize;
        let done = (*bp).b_bcount - (*bp).b_resid;
        kassert!((*bp).b_bcount <= todo, "physio: b_bcount grew from {todo} to {}", (*bp).b_bcount);
        kassert!(done <= todo && done >= 0, "physio: {done} bytes of {todo} are done");
        let (error, blkno) = ((*bp).b_error, (*bp).b_blkno);
        if done == todo {
            kassert!(error == 0, "physio: error {error} of a complete transfer");
        }
        putiobuf(bp);
        let mut state = physio.state();
        if done != todo {
            let end = blkno * 512 + i64::from(done);
            if !state.failed || end < state.end {
                state.end = end;
                state.error = error;
            }
            state.failed = true;
            state.resid += (todo - done) as usize;
        }
        state.running -= 1;
        physio.done.notify_one();
    }
}

/// physio(9). A buffer of the driver's own (`obp`) is not supported.
///
/// # Safety
///
/// `strategy` and `min_phys` are a driver's; `uio` is a transfer from or to user memory.
#[unsafe(no_mangle)]
unsafe extern "C" fn physio(
    strategy: Option<unsafe extern "C" fn(*mut nb::buf)>,
    obp: *mut nb::buf,
    dev: Dev,
    flags: c_int,
    min_phys: Option<unsafe extern "C" fn(*mut nb::buf)>,
    uio: *mut nb::uio,
) -> c_int {
    let lwp = lwp::current();
    lwp.assert_sleepable("physio");
    kassert!(obp.is_null(), "physio: a buffer of the caller's is not supported");
    let (Some(strategy), Some(min_phys)) = (strategy, min_phys) else { return Errno::EINVAL.0 };
    let physio = Physio { state: Mutex::default(), done: Condvar::new() };
    let is_disk = devsw::cdev_type(dev) == nb::D_DISK;
    let concurrency = if is_disk { CONCURRENCY - 1 } else { 0 };
    let big = lock::release_all(lwp);
    let mut error = 0;
    // SAFETY: the caller's promise.
    unsafe {
        let uio = &mut *uio;
        'all: for i in 0..uio.uio_iovcnt as usize {
            let iov = &mut *uio.uio_iov.add(i);
            let mut sync = true;
            while iov.iov_len > 0 {
                if physio.state().failed {
                    break 'all;
                }
                drop(physio.wait(if sync { 0 } else { concurrency }));
                if is_disk && uio.uio_offset & 511 != 0 {
                    error = Errno::EINVAL.0;
                    break 'all;
                }
                let bp = getiobuf(ptr::null_mut(), true);
                (*bp).b_dev = dev;
                (*bp).b_proc = ptr::null_mut();
                (*bp).b_private = ptr::from_ref(&physio).cast_mut().cast();
                (*bp).b_oflags = 0;
                (*bp).b_cflags = nb::BC_BUSY as u32;
                (*bp).b_flags = (flags as u32 & B_READ) | (nb::B_PHYS | nb::B_RAW) as u32;
                (*bp).b_iodone = Some(physio_done);
                (*bp).b_error = 0;
                (*bp).b_blkno = uio.uio_offset >> 9;
                (*bp).b_bcount = iov.iov_len.min(nb::MAXPHYS as usize) as c_int;
                (*bp).b_data = iov.iov_base;
                min_phys(bp);
                let todo = (*bp).b_bcount;
                kassert!(todo > 0 && todo <= nb::MAXPHYS, "physio: {todo} bytes after minphys");
                (*bp).b_bufsize = todo;
                (*bp).b_resid = todo;
                sync = !((*bp).b_data as usize + todo as usize).is_multiple_of(PAGE);
                if !accessible((*bp).b_data, todo as usize, flags as u32 & B_READ != 0) {
                    putiobuf(bp);
                    error = Errno::EFAULT.0;
                    break 'all;
                }
                (*bp).b_prio = TIMECRITICAL;
                physio.state().running += 1;
                strategy(bp);
                iov.iov_len -= todo as usize;
                iov.iov_base = iov.iov_base.cast::<u8>().add(todo as usize).cast();
                uio.uio_offset += i64::from(todo);
                uio.uio_resid -= todo as usize;
            }
        }
        let state = physio.wait(0);
        if is_disk {
            if state.failed {
                uio.uio_resid += (uio.uio_offset - state.end) as usize;
            }
        } else {
            uio.uio_resid += state.resid;
        }
        if error == 0 {
            error = state.error;
        }
    }
    lock::reacquire(big, lwp);
    error
}

/// `true` if the process's memory is there, as uvm_vslock finds out: each page is touched by a system call.
fn accessible(at: *mut c_void, len: usize, write: bool) -> bool {
    let mut byte = 0u8;
    let mut address = at as usize;
    let end = address + len;
    while address < end {
        // SAFETY: the addresses of the process are checked by the copy; what is written is what
        // was read. A racing write to that one byte could be lost, so it is not written back.
        let error = unsafe { crate::copy::probe(address as *const c_void, (&raw mut byte).cast()) };
        if error != 0 {
            return false;
        }
        address = (address / PAGE + 1) * PAGE;
    }
    let _ = write;
    true
}

/// minphys(9)
///
/// # Safety
///
/// `bp` is a buffer.
#[unsafe(no_mangle)]
unsafe extern "C" fn minphys(bp: *mut nb::buf) {
    // SAFETY: the caller's promise.
    unsafe { (*bp).b_bcount = (*bp).b_bcount.min(nb::MAXPHYS) };
}
