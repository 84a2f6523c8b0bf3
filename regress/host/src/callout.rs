// SPDX-License-Identifier: BSD-2-Clause

//! callout(9), and the clock: hz, getticks, getmicrouptime.
//!
//! With a manual clock time stands still until a test advances it; callouts and timed sleeps then
//! end in the calling thread. Otherwise a thread ticks `hz` times a second. Callouts run as soft
//! interrupts, one at a time.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::condvar;
use crate::console::{kassert, kpanic};
use crate::lock;
use crate::lwp::{self, Context};
use crate::mutex;
use crate::netbsd as nb;

/// hz: ticks a second.
#[allow(non_upper_case_globals, reason = "the kernel's name")]
#[unsafe(no_mangle)]
pub(crate) static hz: c_int = 100;

const MAGIC: usize = 0xca11_ca11;

static TICKS: AtomicU64 = AtomicU64::new(0);
static RUN: AtomicBool = AtomicBool::new(false);
static WHEEL: Mutex<Wheel> = Mutex::new(Wheel { callouts: Vec::new(), invoking: None });
static DONE: Condvar = Condvar::new();

struct Wheel {
    /// All initialised callouts.
    callouts: Vec<Callout>,
    /// The callout whose function runs, and the lwp that runs it.
    invoking: Option<(usize, u64)>,
}

struct Callout {
    at: usize,
    func: Option<unsafe extern "C" fn(*mut c_void)>,
    arg: usize,
    /// The tick at which the callout goes off, if it is pending.
    due: Option<u64>,
    fired: bool,
    invoking: bool,
}

/// Ticks since boot.
pub fn ticks() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// Starts the clock; a manual one has no thread.
pub(crate) fn start(manual: bool) -> Option<JoinHandle<()>> {
    TICKS.store(0, Ordering::Relaxed);
    RUN.store(true, Ordering::Relaxed);
    if manual {
        return None;
    }
    let tick = Duration::from_secs(1) / hz as u32;
    let clock = std::thread::Builder::new().name("clock".into()).spawn(move || {
        crate::lwp::begin();
        let begin = Instant::now();
        while RUN.load(Ordering::Relaxed) {
            std::thread::sleep(tick);
            let now = (begin.elapsed().as_nanos() / tick.as_nanos()) as u64;
            TICKS.store(now, Ordering::Relaxed);
            go_off(now);
        }
    });
    match clock {
        Ok(thread) => Some(thread),
        Err(e) => kpanic!("no thread for the clock: {e}"),
    }
}

/// Stops the clock. The answer is the callouts that were never destroyed.
pub(crate) fn stop(clock: Option<JoinHandle<()>>) -> Vec<String> {
    RUN.store(false, Ordering::Relaxed);
    if let Some(clock) = clock {
        let _ = clock.join();
    }
    let mut wheel = wheel();
    let left = std::mem::take(&mut wheel.callouts);
    left.into_iter().map(|c| format!("callout at {:#x} was not destroyed", c.at)).collect()
}

/// Moves a manual clock on, tick by tick.
pub(crate) fn advance(count: u64) {
    for _ in 0..count {
        let now = TICKS.fetch_add(1, Ordering::Relaxed) + 1;
        go_off(now);
    }
}

fn wheel() -> std::sync::MutexGuard<'static, Wheel> {
    WHEEL.lock().unwrap_or_else(|e| e.into_inner())
}

fn go_off(now: u64) {
    condvar::expire(now);
    loop {
        let mut w = wheel();
        while w.invoking.is_some() {
            w = DONE.wait(w).unwrap_or_else(|e| e.into_inner());
        }
        let next = w
            .callouts
            .iter_mut()
            .filter(|c| c.due.is_some_and(|due| due <= now))
            .min_by_key(|c| c.due);
        let Some(callout) = next else { return };
        callout.due = None;
        callout.fired = true;
        callout.invoking = true;
        let (at, func, arg) = (callout.at, callout.func, callout.arg);
        w.invoking = Some((at, lwp::current().addr()));
        drop(w);
        if let Some(func) = func {
            // SAFETY: the function and argument that callout_setfunc was given.
            lwp::with_context(Context::SoftInterrupt, || unsafe { func(arg as *mut c_void) });
        }
        wheel().invoking = None;
        DONE.notify_all();
    }
}

fn with<R>(c: *const nb::callout_t, what: &str, f: impl FnOnce(&mut Callout) -> R) -> R {
    let mut w = wheel();
    match w.callouts.iter_mut().find(|callout| callout.at == c as usize) {
        Some(callout) => f(callout),
        None => {
            drop(w);
            kpanic!("{what}: {c:p} is not an initialised callout")
        }
    }
}

/// getticks
#[unsafe(no_mangle)]
extern "C" fn getticks() -> c_int {
    ticks() as c_int
}

/// getmicrouptime(9): precise to a tick, as in NetBSD.
///
/// # Safety
///
/// `tv` points to a timeval.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getmicrouptime(tv: *mut nb::timeval) {
    let now = ticks();
    let per_second = hz as u64;
    // SAFETY: the caller's promise.
    unsafe {
        // Uptime begins at one second: a zero time means "never" to many.
        (*tv).tv_sec = (1 + now / per_second) as nb::time_t;
        (*tv).tv_usec = (now % per_second * (1_000_000 / per_second)) as nb::suseconds_t;
    }
}

/// callout_init(9)
///
/// # Safety
///
/// `c` points to a callout_t, as below.
#[unsafe(no_mangle)]
unsafe extern "C" fn callout_init(c: *mut nb::callout_t, _flags: c_uint) {
    let mut w = wheel();
    kassert!(
        w.callouts.iter().all(|callout| callout.at != c as usize),
        "callout_init: {c:p} is initialised already"
    );
    // SAFETY: the caller's promise.
    unsafe { (*c)._c_store[9] = MAGIC as *mut c_void };
    w.callouts.push(Callout {
        at: c as usize,
        func: None,
        arg: 0,
        due: None,
        fired: false,
        invoking: false,
    });
}

/// callout_destroy(9)
///
/// # Safety
///
/// As callout_init.
#[unsafe(no_mangle)]
unsafe extern "C" fn callout_destroy(c: *mut nb::callout_t) {
    let mut w = wheel();
    let Some(at) = w.callouts.iter().position(|callout| callout.at == c as usize) else {
        kpanic!("callout_destroy: {c:p} is not an initialised callout");
    };
    kassert!(w.callouts[at].due.is_none(), "callout_destroy: {c:p} is pending");
    let me = lwp::current().addr();
    kassert!(
        !matches!(w.invoking, Some((at, by)) if at == c as usize && by != me),
        "callout_destroy: {c:p} is running"
    );
    w.callouts.swap_remove(at);
}

/// callout_setfunc(9)
///
/// # Safety
///
/// As callout_init.
#[unsafe(no_mangle)]
unsafe extern "C" fn callout_setfunc(
    c: *mut nb::callout_t,
    func: Option<unsafe extern "C" fn(*mut c_void)>,
    arg: *mut c_void,
) {
    with(c, "callout_setfunc", |callout| {
        callout.func = func;
        callout.arg = arg as usize;
    });
}

/// callout_schedule(9)
///
/// # Safety
///
/// As callout_init.
#[unsafe(no_mangle)]
unsafe extern "C" fn callout_schedule(c: *mut nb::callout_t, ticks_from_now: c_int) {
    let due = ticks() + ticks_from_now.max(1) as u64;
    with(c, "callout_schedule", |callout| {
        kassert!(callout.func.is_some(), "callout_schedule: {c:p} has no function");
        callout.due = Some(due);
        callout.fired = false;
    });
}

/// callout_reset(9)
///
/// # Safety
///
/// As callout_init.
#[unsafe(no_mangle)]
unsafe extern "C" fn callout_reset(
    c: *mut nb::callout_t,
    ticks_from_now: c_int,
    func: Option<unsafe extern "C" fn(*mut c_void)>,
    arg: *mut c_void,
) {
    // SAFETY: the caller's promise.
    unsafe {
        callout_setfunc(c, func, arg);
        callout_schedule(c, ticks_from_now);
    }
}

/// callout_stop(9): true if it had gone off already.
///
/// # Safety
///
/// As callout_init.
#[unsafe(no_mangle)]
unsafe extern "C" fn callout_stop(c: *mut nb::callout_t) -> bool {
    with(c, "callout_stop", |callout| {
        callout.due = None;
        std::mem::take(&mut callout.fired)
    })
}

/// callout_halt(9): as callout_stop, and waits for its function, giving up `interlock` meanwhile.
///
/// # Safety
///
/// As callout_init; `interlock` is null or a mutex that the caller holds.
#[unsafe(no_mangle)]
unsafe extern "C" fn callout_halt(c: *mut nb::callout_t, interlock: *mut c_void) -> bool {
    // SAFETY: the caller's promise.
    let fired = unsafe { callout_stop(c) };
    let lwp = lwp::current();
    let me = lwp.addr();
    let running = |w: &Wheel| matches!(w.invoking, Some((at, by)) if at == c as usize && by != me);
    if running(&wheel()) {
        let interlock = interlock.cast::<nb::kmutex_t>();
        if !interlock.is_null() {
            mutex::exit(interlock, lwp);
        }
        lwp.assert_sleepable("callout_halt");
        let big = lock::release_all(lwp);
        let mut w = wheel();
        while running(&w) {
            w = DONE.wait(w).unwrap_or_else(|e| e.into_inner());
        }
        drop(w);
        lock::reacquire(big, lwp);
        if !interlock.is_null() {
            mutex::enter(interlock, lwp);
        }
        // The function may have scheduled itself again.
        with(c, "callout_halt", |callout| callout.due = None);
    }
    fired
}

/// callout_pending(9)
///
/// # Safety
///
/// As callout_init.
#[unsafe(no_mangle)]
unsafe extern "C" fn callout_pending(c: *mut nb::callout_t) -> bool {
    with(c, "callout_pending", |callout| callout.due.is_some())
}

/// callout_expired(9)
///
/// # Safety
///
/// As callout_init.
#[unsafe(no_mangle)]
unsafe extern "C" fn callout_expired(c: *mut nb::callout_t) -> bool {
    with(c, "callout_expired", |callout| callout.fired)
}

/// callout_active(9)
///
/// # Safety
///
/// As callout_init.
#[unsafe(no_mangle)]
unsafe extern "C" fn callout_active(c: *mut nb::callout_t) -> bool {
    with(c, "callout_active", |callout| callout.due.is_some() || callout.fired)
}

/// callout_invoking(9)
///
/// # Safety
///
/// As callout_init.
#[unsafe(no_mangle)]
unsafe extern "C" fn callout_invoking(c: *mut nb::callout_t) -> bool {
    with(c, "callout_invoking", |callout| callout.invoking)
}

/// callout_ack(9)
///
/// # Safety
///
/// As callout_init.
#[unsafe(no_mangle)]
unsafe extern "C" fn callout_ack(c: *mut nb::callout_t) {
    with(c, "callout_ack", |callout| callout.invoking = false);
}
