// SPDX-License-Identifier: BSD-2-Clause

//! kthread(9): threads that the driver starts.
//!
//! Simpler than NetBSD: a thread ends when its function returns (the shim does not call
//! kthread_exit(9) here), and every thread must be joined. One that was not is a leak.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crate::console::kassert;
use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::lwp;
use crate::netbsd as nb;

/// The number of priorities in each of the scheduler's queues; PRI_BIO is made of it.
#[allow(non_upper_case_globals, reason = "the kernel's name")]
#[unsafe(no_mangle)]
static schedppq: c_int = 1;

/// Threads that were not joined yet. An lwp is named by its place here, plus one.
static THREADS: Mutex<Vec<Option<JoinHandle<()>>>> = Mutex::new(Vec::new());

/// A function's argument on its way to another thread.
struct Argument(*mut c_void);

// SAFETY: kthread_create hands it to the new thread, and to nobody else.
unsafe impl Send for Argument {}

fn threads() -> std::sync::MutexGuard<'static, Vec<Option<JoinHandle<()>>>> {
    THREADS.lock().unwrap_or_else(|e| e.into_inner())
}

/// Threads that were never joined, for the leak report.
pub(crate) fn leaks() -> Vec<String> {
    let mut threads = threads();
    let left = threads.drain(..).flatten().map(|t| t.thread().name().unwrap_or("?").to_owned());
    left.map(|name| format!("thread {name} was not joined")).collect()
}

/// kthread_create(9), with the name that the shim's variable arguments make. May be told to fail.
///
/// # Safety
///
/// `func` may be called with `arg` in another thread; `lwp` points to a pointer.
pub(crate) unsafe fn create(
    func: unsafe extern "C" fn(*mut c_void),
    arg: *mut c_void,
    lwp: *mut *mut nb::lwp,
    name: String,
) -> c_int {
    lwp::current().assert_sleepable("kthread_create");
    if let Err(error) = fault::check(Site::Kthread, Errno::EAGAIN) {
        return error.0;
    }
    let argument = Argument(arg);
    let body = move || {
        lwp::begin();
        let Argument(arg) = { argument };
        // SAFETY: the caller's promise.
        unsafe { func(arg) };
        let lwp = lwp::current();
        kassert!(lwp.held.get() == 0, "a thread ended with {} mutexes held", lwp.held.get());
    };
    match std::thread::Builder::new().name(name).spawn(body) {
        Ok(thread) => {
            let mut threads = threads();
            threads.push(Some(thread));
            // SAFETY: the caller's promise. Never null, never looked into.
            unsafe { *lwp = threads.len() as *mut nb::lwp };
            0
        }
        Err(_) => Errno::EAGAIN.0,
    }
}

/// kpause(9), which here lets other threads run and takes no time of the clock's: under a manual clock no thread
/// would end the pause.
///
/// # Safety
///
/// `wmesg` is a string; `mtx` is null.
#[unsafe(no_mangle)]
unsafe extern "C" fn kpause(
    _wmesg: *const c_char,
    intr: bool,
    _timo: c_int,
    mtx: *mut nb::kmutex_t,
) -> c_int {
    let lwp = lwp::current();
    lwp.assert_sleepable("kpause");
    kassert!(mtx.is_null(), "kpause with a mutex is not done here");
    std::thread::yield_now();
    match lwp.signal.load(Ordering::SeqCst) {
        0 => Errno::EAGAIN.0,
        signal if intr => signal,
        _ => Errno::EAGAIN.0,
    }
}

/// kthread_join(9)
#[unsafe(no_mangle)]
extern "C" fn kthread_join(lwp: *mut nb::lwp) -> c_int {
    lwp::current().assert_sleepable("kthread_join");
    let thread = (lwp as usize).checked_sub(1).and_then(|at| threads().get_mut(at)?.take());
    kassert!(thread.is_some(), "kthread_join: no such thread, or it was joined before");
    match thread.map(JoinHandle::join) {
        Some(Ok(())) => 0,
        _ => Errno::EINVAL.0,
    }
}

/// # Safety
///
/// As [`create`]; `name` is a string.
#[unsafe(no_mangle)]
unsafe extern "C" fn dm_host_kthread_create(
    func: unsafe extern "C" fn(*mut c_void),
    arg: *mut c_void,
    lwp: *mut *mut nb::lwp,
    name: *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let name = std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned();
        create(func, arg, lwp, name)
    }
}
