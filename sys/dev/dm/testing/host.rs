// SPDX-License-Identifier: BSD-2-Clause

//! The fake kernel's [`Host`]: the thread that waits for a lane runs the lanes, and requests are
//! done at once. No data moves.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::kernel::Fake;
use crate::Errno;
use crate::executor::{Executor, Runner};
use crate::host::{Answer, Completions, End, Host, Plan, Ready, Request};
use crate::job::{JobInfo, Place};
use crate::lane::Outcome;
use crate::pdev::Pdev;
use crate::table::Component;
use crate::target::ComponentIndex;
use crate::units::{Sector, SectorRange};

/// The fake kernel's [`Host`] of one table.
pub struct FakeHost {
    kernel: Fake,
    ready: Arc<Ready>,
    sizes: Vec<Sector>,
    answers: Vec<Mutex<Option<Answer>>>,
    runners: Mutex<Vec<Runner>>,
    engine: Mutex<Weak<Executor>>,
    /// Milliseconds, one more each time that the clock is read, so that no lane sleeps for ever.
    now: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeHost {
    /// The host of a table with these components.
    pub fn new(
        kernel: Fake,
        plan: &Plan,
        ready: Arc<Ready>,
        components: &[Pdev<Fake>],
    ) -> Arc<FakeHost> {
        Arc::new(FakeHost {
            kernel,
            ready,
            sizes: components.iter().map(Component::size).collect(),
            answers: plan.lanes.iter().map(|_| Mutex::new(None)).collect(),
            runners: Mutex::new(Vec::new()),
            engine: Mutex::new(Weak::new()),
            now: AtomicU32::new(0),
        })
    }
}

impl FakeHost {
    fn engine(&self) -> Arc<Executor> {
        lock(&self.engine).upgrade().expect("an engine whose jobs are forwarded")
    }
}

impl Host for FakeHost {
    fn run(self: Arc<Self>, runners: Vec<Runner>) -> Result<(), Errno> {
        *lock(&self.engine) =
            runners.first().map(|r| Arc::downgrade(r.executor())).unwrap_or_default();
        *lock(&self.runners) = runners;
        Ok(())
    }

    fn end_threads(&self) {
        let runners = core::mem::take(&mut *lock(&self.runners));
        drop(runners);
    }

    fn kick(&self, _: usize) {}

    fn begin(&self, lane: usize, request: Request, _: &[Place]) {
        let (data, made) = match request {
            Request::Read { data, .. } | Request::Write { data, .. } => (Some(data), None),
            Request::Flush | Request::Discard { .. } => (None, None),
            Request::Make(make) => (None, Some(make())),
        };
        *lock(&self.answers[lane]) = Some(Answer {
            failed: u32::from(self.kernel.fails_requests()),
            errno: Errno::EIO,
            data,
            made,
        });
        let _ = self.ready.set(lane);
    }

    fn send(&self, lane: usize, _: &JobInfo, _: SectorRange, places: &[Place]) {
        self.begin(lane, Request::Flush, places);
    }

    fn answer(&self, lane: usize) -> Option<Answer> {
        lock(&self.answers[lane]).take()
    }

    fn data(&self, _: usize, use_it: &mut dyn FnMut(&mut [u8])) {
        use_it(&mut []);
    }

    fn end(&self, _: usize, _: Result<(), Errno>) {}

    fn give_back(&self, _: usize) {}

    fn forward(&self, job: &JobInfo, _: Place) {
        self.engine().free(job);
    }

    fn forward_each(&self, job: &JobInfo, _: &[Place]) {
        self.engine().answered(*job, Outcome::OK);
    }

    fn forward_changed(&self, job: &JobInfo, _: Box<[u8]>, _: Place) {
        self.engine().answered(*job, Outcome::OK);
    }

    fn take_changed(&self, _: usize) -> Option<Box<[u8]>> {
        None
    }

    fn in_thread(&self) -> bool {
        true
    }

    fn may_compute(&self, _: usize) -> bool {
        true
    }

    fn background_share(&self) -> u32 {
        25
    }

    fn say(&self, _: fmt::Arguments<'_>) {}

    fn end_system(&self, end: End, why: &CStr) {
        panic!("{end:?}: {why:?}");
    }

    fn keeps_fua(&self, _: ComponentIndex) -> bool {
        false
    }

    fn completing(&self) -> &'static Completions {
        static COMPLETING: LazyLock<Completions> = LazyLock::new(Completions::default);
        &COMPLETING
    }

    fn freed(&self, _: usize) -> bool {
        false
    }

    fn now(&self) -> u32 {
        self.now.fetch_add(1, Ordering::Relaxed)
    }

    fn max_io(&self) -> usize {
        64 * 1024
    }

    fn size(&self, component: ComponentIndex) -> Sector {
        self.sizes.get(component.0 as usize).copied().unwrap_or(Sector::ZERO)
    }

    fn wait(&self, done: &mut dyn FnMut() -> bool) {
        while !done() {
            // The thread that waits runs the lanes, under a lock: one at a time.
            for runner in lock(&self.runners).iter_mut() {
                runner.run();
            }
        }
    }

    fn announce(&self) {}
}
