// SPDX-License-Identifier: BSD-2-Clause

//! mutex(9).
//!
//! A mutex is one word: its kind, its owner's lwp and whether somebody waits. Adaptive and spin
//! mutexes both sleep in the host when taken (there are fewer real processors than threads); the
//! difference is what the holder may do. Stops the machine on: a mutex that is not initialised or
//! already destroyed, entered by its owner, left or destroyed by somebody else; an adaptive mutex
//! entered in a hard interrupt or with a spin mutex held.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::console::{kassert, kpanic};
use crate::frugal;
use crate::lwp::{self, Lwp};
use crate::netbsd as nb;
use crate::registry::Registry;

const ADAPTIVE: u64 = 0xa5 << 56;
const SPIN: u64 = 0x5a << 56;
const DEAD: u64 = 0xde << 56;
const KIND: u64 = 0xff << 56;
const WAITERS: u64 = 1;
const OWNER: u64 = !(KIND | WAITERS);

/// Mutexes that mutex_init made and mutex_destroy has not seen.
static LIVE: Registry<()> = Registry::new();

#[inline(always)]
fn word<'a>(m: *const nb::kmutex_t) -> &'a AtomicU64 {
    // SAFETY: callers pass a kmutex_t, which is one aligned 64-bit word, and keep it alive.
    unsafe { &*m.cast::<AtomicU64>() }
}

/// The half of the word that holds the waiters' bit.
fn futex(w: &AtomicU64) -> *const AtomicU32 {
    (w as *const AtomicU64).cast()
}

/// Initialises a mutex that is not counted as a leak: the hosted kernel's own.
pub(crate) fn init_unlisted(m: *mut nb::kmutex_t, ipl: i32) {
    let adaptive = ipl <= nb::IPL_SOFTSERIAL;
    word(m).store(if adaptive { ADAPTIVE } else { SPIN }, Ordering::Release);
}

/// The opposite of [`init_unlisted`].
pub(crate) fn destroy_unlisted(m: *mut nb::kmutex_t) {
    let old = word(m).swap(DEAD, Ordering::AcqRel);
    kassert!(matches!(old & KIND, ADAPTIVE | SPIN), "mutex_destroy: {m:p} is not a mutex");
    kassert!(old & OWNER == 0, "mutex_destroy: {m:p} is held");
}

/// A mutex for the hosted kernel's own static data.
pub(crate) const fn static_adaptive() -> nb::kmutex_t {
    // SAFETY: a kmutex_t is one word, and every word is a valid one.
    unsafe { std::mem::transmute::<u64, nb::kmutex_t>(ADAPTIVE) }
}

#[inline(always)]
pub(crate) fn enter(m: *mut nb::kmutex_t, lwp: &Lwp) {
    if !(lwp.nosleep.get() == 0 && take(m, ADAPTIVE, lwp) || take(m, SPIN, lwp)) {
        enter_slowly(m, lwp);
    }
}

#[inline(always)]
pub(crate) fn exit(m: *mut nb::kmutex_t, lwp: &Lwp) {
    if !(leave(m, ADAPTIVE, lwp) || leave(m, SPIN, lwp)) {
        exit_slowly(m, lwp);
    }
}

/// Takes a mutex of this kind that is free.
#[inline(always)]
fn take(m: *mut nb::kmutex_t, kind: u64, lwp: &Lwp) -> bool {
    let (done, failed) = (Ordering::Acquire, Ordering::Relaxed);
    let taken = word(m).compare_exchange(kind, kind | lwp.addr(), done, failed).is_ok();
    if taken {
        count(kind, lwp, 1);
    }
    taken
}

/// Leaves a mutex of this kind that the lwp holds, unless another lwp waits for it. `true` if it was left.
#[inline(always)]
fn leave(m: *mut nb::kmutex_t, kind: u64, lwp: &Lwp) -> bool {
    let (done, failed) = (Ordering::Release, Ordering::Relaxed);
    let left = word(m).compare_exchange(kind | lwp.addr(), kind, done, failed).is_ok();
    if left {
        count(kind, lwp, -1);
    }
    left
}

#[inline(never)]
fn enter_slowly(m: *mut nb::kmutex_t, lwp: &Lwp) {
    let w = word(m);
    let mut waited = 0;
    let mut spins = 0;
    let kind = check_enter(m, w.load(Ordering::Relaxed), lwp);
    loop {
        let now = w.load(Ordering::Relaxed);
        kassert!(now & KIND == kind, "mutex_enter: {m:p} was destroyed while waited for");
        if now & OWNER == 0 {
            let owned = kind | lwp.addr() | (now & WAITERS) | waited;
            if w.compare_exchange(now, owned, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                break;
            }
            continue;
        }
        kassert!(now & OWNER != lwp.addr(), "mutex_enter: {m:p} is already held by this lwp");
        if spins < 40 {
            spins += 1;
            std::hint::spin_loop();
            continue;
        }
        if lwp.biglock.get() != 0 {
            // Blocking gives up the big lock, and waking up takes it again.
            let big = crate::lock::release_all(lwp);
            enter_slowly(m, lwp);
            exit(m, lwp);
            crate::lock::reacquire(big, lwp);
            continue;
        }
        let wanted = now | WAITERS;
        if now == wanted
            || w.compare_exchange(now, wanted, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            lwp::futex_wait(futex(w), wanted as u32);
            waited = WAITERS;
        }
    }
    count(kind, lwp, 1);
    // Only what mutex_init(9) made: a buffer of a test's own has a lock that is never destroyed, and
    // what is in its memory next may look like a mutex that is held.
    if kind == ADAPTIVE && lwp.is_frugal() && frugal::within(|| LIVE.contains(m as usize)) {
        frugal::took(m);
    }
}

/// Counts a mutex that the lwp has taken or left.
#[inline(always)]
fn count(kind: u64, lwp: &Lwp, step: i32) {
    let count = if kind == SPIN { &lwp.nosleep } else { &lwp.held };
    count.set(count.get().wrapping_add_signed(step));
}

/// Checks that the lwp may enter a mutex with this word. The answer is its kind.
fn check_enter(m: *const nb::kmutex_t, now: u64, lwp: &Lwp) -> u64 {
    match now & KIND {
        ADAPTIVE => {
            if lwp.nosleep.get() & lwp::HARD != 0 {
                kpanic!("mutex_enter: adaptive mutex {m:p} in a hard interrupt");
            }
            if lwp.spins() != 0 {
                kpanic!("mutex_enter: adaptive mutex {m:p} while holding a spin mutex");
            }
            ADAPTIVE
        }
        SPIN => SPIN,
        DEAD => kpanic!("mutex_enter: {m:p} was destroyed"),
        _ => kpanic!("mutex_enter: {m:p} was never initialised"),
    }
}

#[inline(never)]
fn exit_slowly(m: *mut nb::kmutex_t, lwp: &Lwp) {
    let w = word(m);
    let now = w.load(Ordering::Relaxed);
    let kind = now & KIND;
    kassert!(matches!(kind, ADAPTIVE | SPIN), "mutex_exit: {m:p} is not a mutex");
    kassert!(now & OWNER != 0, "mutex_exit: {m:p} is not held");
    kassert!(now & OWNER == lwp.addr(), "mutex_exit: {m:p} is held by another lwp");
    count(kind, lwp, -1);
    // From here on the next owner may free the memory that holds the mutex.
    if w.swap(kind, Ordering::Release) & WAITERS != 0 {
        lwp::futex_wake(futex(w), 1);
    }
}

/// `true` if the calling lwp holds the mutex.
pub(crate) fn owned(m: *const nb::kmutex_t) -> bool {
    word(m).load(Ordering::Relaxed) & OWNER == lwp::current().addr()
}

/// `true` for a spin mutex.
pub(crate) fn is_spin(m: *const nb::kmutex_t) -> bool {
    word(m).load(Ordering::Relaxed) & KIND == SPIN
}

/// Mutexes that were never destroyed, for the leak report.
pub(crate) fn leaks() -> Vec<String> {
    LIVE.drain().into_iter().map(|(at, ())| format!("mutex at {at:#x} was not destroyed")).collect()
}

/// mutex_init(9). IPL_NONE and the soft interrupt levels give an adaptive mutex, others a spin one.
///
/// # Safety
///
/// `m` points to a kmutex_t.
#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_init(m: *mut nb::kmutex_t, _type: nb::kmutex_type_t, ipl: c_int) {
    kassert!(
        LIVE.insert(m as usize, ()).is_none(),
        "mutex_init: {m:p} is initialised already and was not destroyed"
    );
    init_unlisted(m, ipl);
}

/// mutex_destroy(9)
///
/// # Safety
///
/// `m` is a mutex that nobody uses any more.
#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_destroy(m: *mut nb::kmutex_t) {
    let old = word(m).load(Ordering::Relaxed);
    kassert!(old & KIND != DEAD, "mutex_destroy: {m:p} was destroyed already");
    kassert!(LIVE.remove(m as usize).is_some(), "mutex_destroy: {m:p} is not a mutex");
    frugal::destroyed(m);
    destroy_unlisted(m);
}

/// mutex_enter(9)
///
/// # Safety
///
/// `m` is an initialised mutex, as for every function below.
#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_enter(m: *mut nb::kmutex_t) {
    let lwp = lwp::current();
    lwp.mutex_entries.set(lwp.mutex_entries.get() + 1);
    enter(m, lwp);
}

/// mutex_exit(9)
///
/// # Safety
///
/// As mutex_enter.
#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_exit(m: *mut nb::kmutex_t) {
    exit(m, lwp::current());
}

/// mutex_spin_enter(9): mutex_enter for mutexes known to spin.
///
/// # Safety
///
/// As mutex_enter.
#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_spin_enter(m: *mut nb::kmutex_t) {
    let lwp = lwp::current();
    lwp.mutex_entries.set(lwp.mutex_entries.get() + 1);
    if !take(m, SPIN, lwp) {
        kassert!(is_spin(m), "mutex_spin_enter: {m:p} is not a spin mutex");
        enter_slowly(m, lwp);
    }
}

/// mutex_spin_exit(9)
///
/// # Safety
///
/// As mutex_enter.
#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_spin_exit(m: *mut nb::kmutex_t) {
    let lwp = lwp::current();
    if !leave(m, SPIN, lwp) {
        kassert!(is_spin(m), "mutex_spin_exit: {m:p} is not a spin mutex");
        exit_slowly(m, lwp);
    }
}

/// mutex_tryenter(9)
///
/// # Safety
///
/// As mutex_enter.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mutex_tryenter(m: *mut nb::kmutex_t) -> c_int {
    let lwp = lwp::current();
    lwp.mutex_entries.set(lwp.mutex_entries.get() + 1);
    let w = word(m);
    let now = w.load(Ordering::Relaxed);
    let kind = check_enter(m, now, lwp);
    let taken = now & OWNER == 0
        && w.compare_exchange(now, now | lwp.addr(), Ordering::Acquire, Ordering::Relaxed).is_ok();
    if taken {
        count(kind, lwp, 1);
    }
    taken.into()
}

/// mutex_owned(9)
///
/// # Safety
///
/// As mutex_enter.
#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_owned(m: *const nb::kmutex_t) -> c_int {
    owned(m).into()
}

/// mutex_ownable(9): stops the machine if the lwp holds the mutex already.
///
/// # Safety
///
/// As mutex_enter.
#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_ownable(m: *const nb::kmutex_t) -> c_int {
    kassert!(!owned(m), "mutex_ownable: {m:p} is held by this lwp");
    1
}

/// A mutex of mutex_obj(9): reference counted.
#[repr(C)]
struct Object {
    mutex: nb::kmutex_t,
    references: AtomicU32,
}

/// mutex_obj_alloc(9)
#[unsafe(no_mangle)]
extern "C" fn mutex_obj_alloc(kind: nb::kmutex_type_t, ipl: c_int) -> *mut nb::kmutex_t {
    let object = Box::into_raw(Box::new(Object { mutex: static_adaptive(), references: 1.into() }));
    // SAFETY: fresh and ours.
    unsafe { mutex_init(&raw mut (*object).mutex, kind, ipl) };
    object.cast()
}

/// mutex_obj_hold(9)
///
/// # Safety
///
/// `m` comes from mutex_obj_alloc.
#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_obj_hold(m: *mut nb::kmutex_t) {
    // SAFETY: the caller's promise.
    unsafe { (*m.cast::<Object>()).references.fetch_add(1, Ordering::Relaxed) };
}

/// mutex_obj_free(9): true if this was the last reference.
///
/// # Safety
///
/// As mutex_obj_hold.
#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_obj_free(m: *mut nb::kmutex_t) -> bool {
    let object = m.cast::<Object>();
    // SAFETY: the caller's promise; with the last reference gone nobody else uses it.
    unsafe {
        if (*object).references.fetch_sub(1, Ordering::AcqRel) != 1 {
            return false;
        }
        mutex_destroy(m);
        drop(Box::from_raw(object));
    }
    true
}
