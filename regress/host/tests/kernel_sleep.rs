// SPDX-License-Identifier: BSD-2-Clause

//! Condition variables, signals, the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use dm_host::{Config, Machine, netbsd as nb};

/// A mutex and a condition variable of the kernel.
struct Pair {
    mutex: *mut nb::kmutex_t,
    cv: *mut nb::kcondvar_t,
}

// SAFETY: both are made to be shared.
unsafe impl Send for Pair {}
// SAFETY: as above.
unsafe impl Sync for Pair {}

impl Pair {
    fn new() -> Arc<Pair> {
        // SAFETY: fresh memory of the right size.
        unsafe {
            let mutex = Box::into_raw(Box::new(std::mem::zeroed()));
            let cv = Box::into_raw(Box::new(std::mem::zeroed()));
            nb::mutex_init(mutex, 0, nb::IPL_NONE);
            nb::cv_init(cv, c"pair".as_ptr());
            Arc::new(Pair { mutex, cv })
        }
    }

    /// Waits until a thread sleeps.
    fn wait_for_sleeper(&self) {
        loop {
            // SAFETY: initialised.
            let asleep = unsafe {
                nb::mutex_enter(self.mutex);
                let asleep = nb::cv_has_waiters(self.cv);
                nb::mutex_exit(self.mutex);
                asleep
            };
            if asleep {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // SAFETY: initialised, and nobody else is left.
        unsafe {
            nb::cv_destroy(self.cv);
            nb::mutex_destroy(self.mutex);
            drop(Box::from_raw(self.cv));
            drop(Box::from_raw(self.mutex));
        }
    }
}

fn machine() -> Machine {
    Machine::boot(Config { modules: false, ..Config::test() }).expect("boots")
}

#[test]
fn signals_wake_interruptible_sleeps() {
    let m = machine();
    let pair = Pair::new();
    let theirs = pair.clone();
    let sleeper = m.spawn(move || {
        // SAFETY: initialised.
        unsafe {
            nb::mutex_enter(theirs.mutex);
            let first = nb::cv_wait_sig(theirs.cv, theirs.mutex);
            // The signal stays until the system call returns.
            let second = nb::cv_wait_sig(theirs.cv, theirs.mutex);
            nb::mutex_exit(theirs.mutex);
            (first, second)
        }
    });
    pair.wait_for_sleeper();
    assert!(m.interrupt(sleeper.lwp()));
    assert_eq!(sleeper.join(), (4, 4));
    drop(pair);
    assert_eq!(m.shutdown(), Vec::<String>::new());
}

#[test]
fn timed_sleeps_end_with_the_clock() {
    let m = machine();
    let pair = Pair::new();
    let theirs = pair.clone();
    let sleeper = m.spawn(move || {
        // SAFETY: initialised.
        unsafe {
            nb::mutex_enter(theirs.mutex);
            let error = nb::cv_timedwait(theirs.cv, theirs.mutex, 5);
            nb::mutex_exit(theirs.mutex);
            error
        }
    });
    pair.wait_for_sleeper();
    m.advance_ticks(4);
    assert!(!sleeper.is_finished());
    m.advance_ticks(1);
    assert_eq!(sleeper.join(), 35);
    drop(pair);
    assert_eq!(m.shutdown(), Vec::<String>::new());
}

static FIRED: AtomicU32 = AtomicU32::new(0);
static IN_SOFTINT: AtomicBool = AtomicBool::new(false);

unsafe extern "C" fn fire(arg: *mut std::ffi::c_void) {
    FIRED.fetch_add(arg as usize as u32, Ordering::SeqCst);
    // SAFETY: no arguments.
    IN_SOFTINT.store(unsafe { nb::cpu_softintr_p() }, Ordering::SeqCst);
}

#[test]
fn callouts_go_off_in_time() {
    let m = machine();
    // SAFETY: a callout of ours.
    unsafe {
        let mut c: Box<nb::callout_t> = Box::new(std::mem::zeroed());
        nb::callout_init(&mut *c, 0);
        nb::callout_reset(&mut *c, 3, Some(fire), 7 as *mut _);
        m.advance_ticks(2);
        assert_eq!(FIRED.load(Ordering::SeqCst), 0);
        assert!(nb::callout_pending(&mut *c));
        m.advance_ticks(1);
        assert_eq!(FIRED.load(Ordering::SeqCst), 7);
        assert!(IN_SOFTINT.load(Ordering::SeqCst));
        nb::callout_schedule(&mut *c, 3);
        assert!(!nb::callout_halt(&mut *c, std::ptr::null_mut()));
        m.advance_ticks(5);
        assert_eq!(FIRED.load(Ordering::SeqCst), 7);
        nb::callout_destroy(&mut *c);
    }
    assert_eq!(m.shutdown(), Vec::<String>::new());
}

#[test]
fn many_threads_share_a_mutex() {
    let m = machine();
    for ipl in [nb::IPL_NONE, nb::IPL_BIO] {
        let pair = Pair::new();
        // SAFETY: the mutex is initialised anew, at another level.
        unsafe {
            nb::mutex_destroy(pair.mutex);
            nb::mutex_init(pair.mutex, 0, ipl);
        }
        let counter = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (pair, counter) = (pair.clone(), counter.clone());
                m.spawn(move || {
                    for _ in 0..2000 {
                        // SAFETY: initialised. The counter is guarded, so two steps make one.
                        unsafe { nb::mutex_enter(pair.mutex) };
                        let value = counter.load(Ordering::Relaxed);
                        counter.store(value + 1, Ordering::Relaxed);
                        // SAFETY: as above.
                        unsafe { nb::mutex_exit(pair.mutex) };
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join());
        assert_eq!(counter.load(Ordering::Relaxed), 8000);
    }
    assert_eq!(m.shutdown(), Vec::<String>::new());
}
