// SPDX-License-Identifier: BSD-2-Clause

//! Threads that can be watched and signalled while they sleep, so that a test about waiting needs
//! no clock.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::RefCell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What a thread is at.
#[derive(Default)]
struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What it sleeps on.
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
        /// Says that the thread is over even when it panics.
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
    /// Waits until the thread sleeps on one of the driver's condition variables; `false` if it
    /// ended instead.
    pub fn asleep(&self) -> bool {
        let mut state = self.watch.lock();
        while state.asleep.is_none() && !state.over {
            state = self.watch.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.over
    }

    /// Sends a signal, which ends a sleep that signals can end. To a thread that is asleep.
    pub fn signal(&self) {
        self.watch.lock().signalled = true;
        loop {
            let state = self.watch.lock();
            if !state.signalled || state.over {
                return;
            }
            // It may be between saying that it sleeps and sleeping, so that one call is not
            // enough; it lets go of its lock when it really sleeps.
            if let Some(condvar) = &state.asleep {
                condvar.notify_all();
            }
            drop(state);
            std::thread::yield_now();
        }
    }

    /// Waits for its end.
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

/// Says that the calling thread goes to sleep on `condvar`.
pub(super) fn falls_asleep(condvar: &Arc<Condvar>) {
    CURRENT.with_borrow(|current| {
        if let Some(watch) = current {
            watch.lock().asleep = Some(condvar.clone());
            watch.changed.notify_all();
        }
    });
}

/// Says that it is awake again.
pub(super) fn wakes() {
    CURRENT.with_borrow(|current| {
        if let Some(watch) = current {
            watch.lock().asleep = None;
        }
    });
}

/// Whether a signal has come for the calling thread; it is taken then.
pub(super) fn take_signal() -> bool {
    CURRENT.with_borrow(|current| {
        current.as_ref().is_some_and(|watch| core::mem::take(&mut watch.lock().signalled))
    })
}
