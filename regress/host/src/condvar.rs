// SPDX-License-Identifier: BSD-2-Clause

//! condvar(9).
//!
//! Sleepers stand in queues, one for each of a fixed set of locks, as in the kernel: cv_signal
//! wakes the one that has waited longest, and nobody wakes for no reason. The first word of a
//! condition variable says that it is one and how many sleep on it; the second is its name.
//!
//! Timed sleeps end by ticks, so that under a manual clock they end when a test says.

use std::ffi::{c_char, c_int};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::console::kassert;
use crate::lock;
use crate::lwp::{self, Lwp};
use crate::mutex;
use crate::netbsd as nb;
use crate::registry::Registry;

const MAGIC: u64 = 0xc07d_0000_0000_0000;
const DEAD: u64 = 0xdead_0000_0000_0000;
const MAGIC_MASK: u64 = 0xffff_0000_0000_0000;
const QUEUES: usize = 64;

const ASLEEP: u32 = 0;
const WOKEN: u32 = 1;
const INTERRUPTED: u32 = 2;
const TIMED_OUT: u32 = 3;

/// cv_timedwait's error at the timeout.
const EWOULDBLOCK: c_int = 35;

static SLEEPQ: [Mutex<Queue>; QUEUES] = [const { Mutex::new(Queue(ptr::null())) }; QUEUES];
static LIVE: Registry<()> = Registry::new();

/// First of a list of sleeping lwps.
struct Queue(*const Lwp);

// SAFETY: the lwps of a queue sleep until they are taken off it under its lock.
unsafe impl Send for Queue {}

fn queue(channel: usize) -> &'static Mutex<Queue> {
    &SLEEPQ[(channel >> 4).wrapping_mul(0x9e37_79b1) >> 12 & (QUEUES - 1)]
}

#[inline(always)]
fn word<'a>(cv: *const nb::kcondvar_t) -> &'a AtomicU64 {
    // SAFETY: callers pass a kcondvar_t, whose first word is ours, and keep it alive.
    unsafe { &*cv.cast::<AtomicU64>() }
}

impl Queue {
    fn append(&mut self, lwp: &Lwp) {
        // SAFETY: `next` belongs to the queue's lock, which the caller holds, as below.
        unsafe {
            *lwp.sleep.next.get() = ptr::null();
            if self.0.is_null() {
                self.0 = lwp;
                return;
            }
            let mut last = &*self.0;
            while let Some(next) = (*last.sleep.next.get()).as_ref() {
                last = next;
            }
            *last.sleep.next.get() = lwp;
        }
    }

    /// Takes the sleepers that `take` chooses off the queue and wakes them with `why`.
    fn wake(&mut self, why: u32, mut take: impl FnMut(&Lwp) -> bool) {
        let mut before: *const Lwp = ptr::null();
        let mut at = self.0;
        // SAFETY: as in append; a sleeper that is taken off may go on as soon as `woken` is set,
        // so `next` is read first and the lwp not touched afterwards.
        unsafe {
            while let Some(lwp) = at.as_ref() {
                let next = *lwp.sleep.next.get();
                if take(lwp) {
                    match before.as_ref() {
                        None => self.0 = next,
                        Some(before) => *before.sleep.next.get() = next,
                    }
                    let channel = lwp.wchan.load(Ordering::Relaxed);
                    word(channel as *const nb::kcondvar_t).fetch_sub(1, Ordering::Relaxed);
                    lwp.wchan.store(0, Ordering::SeqCst);
                    let woken: *const AtomicU32 = &lwp.sleep.woken;
                    (*woken).store(why, Ordering::Release);
                    lwp::futex_wake(woken, 1);
                } else {
                    before = at;
                }
                at = next;
            }
        }
    }
}

/// Ends the lwp's sleep if it is an interruptible one. The caller has set the signal.
pub(crate) fn unsleep(lwp: &Lwp) {
    let channel = lwp.wchan.load(Ordering::SeqCst);
    if channel == 0 {
        return;
    }
    let mut queue = queue(channel).lock().unwrap_or_else(|e| e.into_inner());
    queue.wake(INTERRUPTED, |l| ptr::eq(l, lwp) && l.sleep.interruptible.get());
}

/// Ends the sleeps whose time has come.
pub(crate) fn expire(now: u64) {
    for queue in &SLEEPQ {
        let mut queue = queue.lock().unwrap_or_else(|e| e.into_inner());
        if !queue.0.is_null() {
            queue.wake(TIMED_OUT, |l| l.sleep.deadline.get() <= now);
        }
    }
}

fn sleep(
    cv: *mut nb::kcondvar_t,
    m: *mut nb::kmutex_t,
    interruptible: bool,
    deadline: u64,
) -> c_int {
    let lwp = lwp::current();
    kassert!(
        word(cv).load(Ordering::Relaxed) & MAGIC_MASK == MAGIC,
        "cv_wait: {cv:p} is no condvar"
    );
    kassert!(mutex::owned(m), "cv_wait: the mutex {m:p} is not held");
    let spins = lwp.spins() - u32::from(mutex::is_spin(m));
    kassert!(spins == 0, "cv_wait: a spin mutex is held");
    kassert!(lwp.context() == lwp::Context::Thread, "cv_wait in {:?} context", lwp.context());
    {
        let mut queue = queue(cv as usize).lock().unwrap_or_else(|e| e.into_inner());
        lwp.sleep.woken.store(ASLEEP, Ordering::Relaxed);
        lwp.sleep.interruptible.set(interruptible);
        lwp.sleep.deadline.set(deadline);
        lwp.wchan.store(cv as usize, Ordering::SeqCst);
        word(cv).fetch_add(1, Ordering::Relaxed);
        queue.append(lwp);
        let signal = lwp.signal.load(Ordering::SeqCst);
        if interruptible && signal != 0 {
            queue.wake(INTERRUPTED, |l| ptr::eq(l, lwp));
            return signal;
        }
        if deadline <= crate::callout::ticks() {
            queue.wake(TIMED_OUT, |l| ptr::eq(l, lwp));
            return EWOULDBLOCK;
        }
    }
    mutex::exit(m, lwp);
    let big = lock::release_all(lwp);
    // A thread that serves a client lets another one read on meanwhile.
    dm_nbd::about_to_block();
    let why = loop {
        let why = lwp.sleep.woken.load(Ordering::Acquire);
        if why != ASLEEP {
            break why;
        }
        lwp::futex_wait(&lwp.sleep.woken, ASLEEP);
    };
    lock::reacquire(big, lwp);
    mutex::enter(m, lwp);
    match why {
        INTERRUPTED => lwp.signal.load(Ordering::SeqCst),
        TIMED_OUT => EWOULDBLOCK,
        _ => 0,
    }
}

fn deadline(timo: c_int) -> u64 {
    if timo <= 0 { u64::MAX } else { crate::callout::ticks() + timo as u64 }
}

#[inline]
pub(crate) fn init_unlisted(cv: *mut nb::kcondvar_t, name: *const c_char) {
    word(cv).store(MAGIC, Ordering::Relaxed);
    // SAFETY: a kcondvar_t has two words.
    unsafe { (*cv).cv_opaque[1] = name.cast_mut().cast() };
}

#[inline]
pub(crate) fn destroy_unlisted(cv: *mut nb::kcondvar_t) {
    let old = word(cv).swap(DEAD, Ordering::Relaxed);
    kassert!(old & MAGIC_MASK == MAGIC, "cv_destroy: {cv:p} is no condvar");
    kassert!(old == MAGIC, "cv_destroy: {cv:p} has {} waiters", old & !MAGIC_MASK);
}

#[inline(always)]
pub(crate) fn has_waiters(cv: *const nb::kcondvar_t) -> bool {
    word(cv).load(Ordering::Relaxed) & !MAGIC_MASK != 0
}

#[inline(always)]
pub(crate) fn broadcast(cv: *mut nb::kcondvar_t) {
    if has_waiters(cv) {
        let mut queue = queue(cv as usize).lock().unwrap_or_else(|e| e.into_inner());
        queue.wake(WOKEN, |l| l.wchan.load(Ordering::Relaxed) == cv as usize);
    }
}

/// Condition variables that were never destroyed, for the leak report.
pub(crate) fn leaks() -> Vec<String> {
    LIVE.drain()
        .into_iter()
        .map(|(at, ())| format!("condvar at {at:#x} was not destroyed"))
        .collect()
}

/// cv_init(9)
///
/// # Safety
///
/// `cv` points to a kcondvar_t; `name` is a string that outlives it.
#[unsafe(no_mangle)]
unsafe extern "C" fn cv_init(cv: *mut nb::kcondvar_t, name: *const c_char) {
    kassert!(
        LIVE.insert(cv as usize, ()).is_none(),
        "cv_init: {cv:p} is initialised already and was not destroyed"
    );
    init_unlisted(cv, name);
}

/// cv_destroy(9)
///
/// # Safety
///
/// `cv` is a condition variable that nobody uses any more.
#[unsafe(no_mangle)]
unsafe extern "C" fn cv_destroy(cv: *mut nb::kcondvar_t) {
    kassert!(LIVE.remove(cv as usize).is_some(), "cv_destroy: {cv:p} is no condvar");
    destroy_unlisted(cv);
}

/// cv_wait(9)
///
/// # Safety
///
/// `cv` and `m` are initialised, as for every function below.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cv_wait(cv: *mut nb::kcondvar_t, m: *mut nb::kmutex_t) {
    sleep(cv, m, false, u64::MAX);
}

/// cv_wait_sig(9): EINTR or ERESTART when a signal is pending.
///
/// # Safety
///
/// As cv_wait.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cv_wait_sig(
    cv: *mut nb::kcondvar_t,
    m: *mut nb::kmutex_t,
) -> c_int {
    sleep(cv, m, true, u64::MAX)
}

/// cv_timedwait(9): EWOULDBLOCK after `timo` ticks; 0 ticks wait for ever.
///
/// # Safety
///
/// As cv_wait.
#[unsafe(no_mangle)]
unsafe extern "C" fn cv_timedwait(
    cv: *mut nb::kcondvar_t,
    m: *mut nb::kmutex_t,
    timo: c_int,
) -> c_int {
    sleep(cv, m, false, deadline(timo))
}

/// cv_timedwait_sig(9)
///
/// # Safety
///
/// As cv_wait.
#[unsafe(no_mangle)]
unsafe extern "C" fn cv_timedwait_sig(
    cv: *mut nb::kcondvar_t,
    m: *mut nb::kmutex_t,
    timo: c_int,
) -> c_int {
    sleep(cv, m, true, deadline(timo))
}

/// cv_signal(9)
///
/// # Safety
///
/// As cv_wait.
#[unsafe(no_mangle)]
unsafe extern "C" fn cv_signal(cv: *mut nb::kcondvar_t) {
    kassert!(
        word(cv).load(Ordering::Relaxed) & MAGIC_MASK == MAGIC,
        "cv_signal: {cv:p} is no condvar"
    );
    if has_waiters(cv) {
        let mut first = true;
        let mut queue = queue(cv as usize).lock().unwrap_or_else(|e| e.into_inner());
        queue.wake(WOKEN, |l| {
            l.wchan.load(Ordering::Relaxed) == cv as usize && std::mem::take(&mut first)
        });
    }
}

/// cv_broadcast(9)
///
/// # Safety
///
/// As cv_wait.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cv_broadcast(cv: *mut nb::kcondvar_t) {
    kassert!(
        word(cv).load(Ordering::Relaxed) & MAGIC_MASK == MAGIC,
        "cv_broadcast: {cv:p} is no condvar"
    );
    broadcast(cv);
}

/// cv_has_waiters(9)
///
/// # Safety
///
/// As cv_wait.
#[unsafe(no_mangle)]
unsafe extern "C" fn cv_has_waiters(cv: *mut nb::kcondvar_t) -> bool {
    has_waiters(cv)
}

/// cv_is_valid(9)
///
/// # Safety
///
/// `cv` points to memory of that size.
#[unsafe(no_mangle)]
unsafe extern "C" fn cv_is_valid(cv: *mut nb::kcondvar_t) -> bool {
    word(cv).load(Ordering::Relaxed) & MAGIC_MASK == MAGIC
}
