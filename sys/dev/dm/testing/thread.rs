// SPDX-License-Identifier: BSD-2-Clause

//! Threads that can be watched and signalled while they sleep, so that a test about waiting needs
//! no clock.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::{Cell, RefCell};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The state of a thread, for those who watch it.
#[derive(Default)]
struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The condition variable that the thread sleeps on.
    asleep: Option<Arc<Condvar>>,
    signalled: bool,
    over: bool,
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

std::thread_local! {
    static CURRENT: RefCell<Option<Arc<Watch>>> = const { RefCell::new(None) };
}

/// A thread that was started with [`spawn`].
pub struct Thread<T> {
    watch: Arc<Watch>,
    handle: std::thread::JoinHandle<T>,
}

/// Starts a thread that can be watched.
pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Thread<T> {
    let watch = Arc::new(Watch::default());
    let theirs = watch.clone();
    let body: Box<dyn FnOnce() -> T + Send> = Box::new(body);
    let handle = std::thread::spawn(move || {
        /// Marks the thread as over when it is dropped, also by a panic.
        struct Over(Arc<Watch>);
        impl Drop for Over {
            fn drop(&mut self) {
                self.0.lock().over = true;
                self.0.changed.notify_all();
            }
        }
        let _over = Over(theirs.clone());
        CURRENT.set(Some(theirs));
        body()
    });
    Thread { watch, handle }
}

impl<T> Thread<T> {
    /// Waits until the thread sleeps on one of the driver's condition variables. `false` if the
    /// thread has ended instead.
    pub fn asleep(&self) -> bool {
        let mut state = self.watch.lock();
        while state.asleep.is_none() && !state.over {
            state = self.watch.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.over
    }

    /// Sends a signal to a thread that is asleep, which ends a sleep that signals can end.
    pub fn signal(&self) {
        self.watch.lock().signalled = true;
        loop {
            let state = self.watch.lock();
            if !state.signalled || state.over {
                return;
            }
            // The thread may have said that it sleeps, and not sleep yet, so that one call is not
            // enough. It lets go of its lock when it really sleeps.
            if let Some(condvar) = &state.asleep {
                condvar.notify_all();
            }
            drop(state);
            std::thread::yield_now();
        }
    }

    /// Waits for the thread's end, and returns its result.
    ///
    /// # Panics
    /// When the thread did.
    pub fn join(self) -> T {
        match self.handle.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Records that the calling thread goes to sleep on `condvar`.
pub(super) fn falls_asleep(condvar: &Arc<Condvar>) {
    CURRENT.with_borrow(|current| {
        if let Some(watch) = current {
            watch.lock().asleep = Some(condvar.clone());
            watch.changed.notify_all();
        }
    });
}

/// Records that the calling thread is awake again.
pub(super) fn wakes() {
    CURRENT.with_borrow(|current| {
        if let Some(watch) = current {
            watch.lock().asleep = None;
        }
    });
}

/// `true` if a signal has come for the calling thread. The signal is taken.
pub(super) fn take_signal() -> bool {
    CURRENT.with_borrow(|current| {
        current.as_ref().is_some_and(|watch| core::mem::take(&mut watch.lock().signalled))
    })
}

std::thread_local! {
    /// The number of fake mutexes that the thread holds.
    static HELD: Cell<usize> = const { Cell::new(0) };
    /// The interference that [`with_interference`] has asked for, until it happens.
    static AT_UNLOCK: RefCell<Option<Interference>> = const { RefCell::new(None) };
}

/// The number of times that the thread still lets go of its last mutex, and what it does then.
type Interference = (usize, Box<dyn FnOnce()>);

/// Runs `f`, and calls `interfere` in the middle of it, as if another thread were quicker: when
/// this thread has let go of the last fake mutex that it holds for the `nth` time. Returns whether
/// it came to that, and the result of `f`.
pub fn with_interference<R>(
    nth: usize,
    interfere: impl FnOnce() + 'static,
    f: impl FnOnce() -> R,
) -> (bool, R) {
    AT_UNLOCK.set(Some((nth, Box::new(interfere))));
    let result = f();
    (AT_UNLOCK.take().is_none(), result)
}

/// The thread has taken a fake mutex.
pub(super) fn locks() {
    HELD.set(HELD.get() + 1);
}

/// The thread has let go of a fake mutex.
pub(super) fn unlocks() {
    HELD.set(HELD.get() - 1);
    if HELD.get() > 0 || std::thread::panicking() {
        return;
    }
    let now = AT_UNLOCK.with_borrow_mut(|at| {
        let (left, _) = at.as_mut()?;
        *left -= 1;
        if *left == 0 { at.take() } else { None }
    });
    if let Some((_, interfere)) = now {
        interfere();
    }
}
