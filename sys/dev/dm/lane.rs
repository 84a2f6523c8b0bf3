// SPDX-License-Identifier: BSD-2-Clause

//! Lanes: the operations that a target's code has while it serves a job. This file has a lane's
//! link to its engine, and its sleep; `lane/io.rs` its I/O, `lane/signal.rs` the signals that it
//! waits for, `lane/aside.rs` jobs that wait without a lane.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use core::any::Any;
use core::ffi::CStr;
use core::fmt;
use core::future::poll_fn;
use core::task::Poll;

use crate::Errno;
use crate::executor::Executor;
use crate::host::{End, Request};
use crate::job::Job;
use crate::target::ComponentIndex;
use crate::units::{DEV_BSIZE, Sector};
use crate::worker::{Order, Role};

mod aside;
mod io;
mod signal;

pub use aside::Aside;
pub use signal::{LineWaker, Signal};

/// A lane, as the target's code sees it: the way to the components, a buffer of the lane's own, and
/// waits. Owned by the lane's one future. Every method runs in the thread that polls the lane.
pub struct Lane {
    executor: Arc<Executor>,
    /// The lane's number among its table's.
    number: usize,
    /// The lane's line, by its number among serving lines.
    line: usize,
    /// The lane's bit among its line's.
    bit: u32,
    role: Role,
    /// The lane's buffer; empty while a request has it.
    buffer: Box<[u8]>,
}

/// The result of one request: the places that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// A bit for each place that failed, in their order.
    pub failed: u32,
    /// Why the first of them failed.
    pub errno: Errno,
}

impl Outcome {
    /// An outcome without failures.
    pub const OK: Outcome = Outcome { failed: 0, errno: Errno::EIO };

    /// # Errors
    /// The first failure.
    pub fn ok(self) -> Result<(), Errno> {
        if self.failed == 0 { Ok(()) } else { Err(self.errno) }
    }

    /// `true` if the place with this number failed.
    pub fn has_failed(self, place: usize) -> bool {
        self.failed.checked_shr(place as u32).unwrap_or(0) & 1 != 0
    }

    fn merge(&mut self, other: Outcome) {
        if self.failed == 0 {
            self.errno = other.errno;
        }
        self.failed |= other.failed;
    }
}

/// Waits until `look`, which is called whenever the lane is polled, returns something.
fn until_some<T>(mut look: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
    poll_fn(move |_| look().map_or(Poll::Pending, Poll::Ready))
}

impl Lane {
    pub(crate) fn new(
        executor: Arc<Executor>,
        number: usize,
        line: usize,
        role: Role,
        buffer: usize,
    ) -> Lane {
        let bit = executor.bit(line, number);
        Lane { executor, number, line, bit, role, buffer: vec![0; buffer].into() }
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// The lane's buffer, as large as its target's needs say. Its content stays from one job to the
    /// next.
    pub fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// The size of the buffer, in sectors.
    pub fn buffer_sectors(&self) -> Sector {
        Sector((self.buffer.len() / DEV_BSIZE as usize) as u64)
    }

    /// The size of a component in sectors: that of a device of ours as it is now, that of another
    /// driver's as it was when the table was loaded.
    pub fn size(&self, component: ComponentIndex) -> Sector {
        self.executor.host().size(component)
    }

    /// Milliseconds since some moment; they wrap around.
    pub fn now(&self) -> u32 {
        self.executor.host().now()
    }

    /// The share of time, in percent from 1 to 100, that work in the background may take of its
    /// components while there is other I/O.
    pub fn background_share(&self) -> u32 {
        self.executor.host().background_share().clamp(1, 100)
    }

    /// Sleeps this long, at most 2^31 milliseconds, or until the device is being suspended: `false`
    /// then. While [`Lane::stopping`] is true, and in a lane that serves jobs while
    /// [`Lane::suspending`] is, it is `false` at once, so that a loop around it must end then.
    pub async fn sleep(&mut self, milliseconds: u32) -> bool {
        let moment = self.now().wrapping_add(milliseconds);
        let Some(state) = self.executor.lane_state(self.number) else { return false };
        let result = poll_fn(|_| {
            let left = moment.wrapping_sub(self.executor.host().now());
            if left == 0 || left > u32::MAX / 2 {
                return Poll::Ready(true);
            }
            let serves = matches!(self.role, Role::Serve(_));
            if self.stopping() || serves && self.suspending() {
                return Poll::Ready(false);
            }
            state.sleep(Some(moment));
            Poll::Pending
        })
        .await;
        state.sleep(None);
        result
    }

    /// `true` while the engine is not running: the device is being suspended, or is suspended.
    pub fn stopping(&self) -> bool {
        !self.executor.is_running()
    }

    /// `true` while the jobs there are must end: new I/O is held, or a file system on the device is
    /// being suspended and waits for them.
    pub fn suspending(&self) -> bool {
        self.executor.is_suspending()
    }

    /// `true` if jobs that cannot complete are to be given back: the device is being suspended with
    /// noflush.
    pub fn keeps_failed(&self) -> bool {
        self.executor.keeps_failed()
    }

    /// `true` once the table goes: resident lanes are to return.
    pub fn ending(&self) -> bool {
        self.executor.is_ending()
    }

    /// The way to wake lanes of this line from anywhere.
    pub fn waker(&self) -> LineWaker {
        LineWaker { executor: self.executor.clone(), line: self.line }
    }

    /// Makes a value for which memory is allocated, in a thread that may sleep for it as long as it
    /// takes; other lanes of the runner go on. For targets whose
    /// [`Needs::grows`](crate::worker::Needs::grows) is `true`. `None` if the host cannot.
    pub async fn make<T: Default + Any + Send>(&mut self) -> Option<T> {
        fn boxed<T: Default + Any + Send>() -> Box<dyn Any + Send> {
            Box::new(Some(T::default()))
        }
        self.executor.host().begin(self.number, Request::Make(boxed::<T>), &[]);
        let made = until_some(|| self.executor.host().answer(self.number)).await.made?;
        made.downcast::<Option<T>>().ok().and_then(|made| *made)
    }

    /// Raises an event of the device, for a program that waits for one (`dmsetup wait`) to look at
    /// its status.
    pub fn raise_event(&self) {
        self.executor.raise_event();
    }

    /// Prints a line on the console that names the device. A text longer than a line or two is cut.
    pub fn say(&self, what: fmt::Arguments<'_>) {
        self.executor.host().say(what);
    }

    /// Ends the system, because the table says so. In a kernel it does not return. A lane's thread
    /// alone may do this.
    pub fn end_system(&self, end: End, why: &CStr) {
        self.executor.host().end_system(end, why);
    }

    /// Waits until the lane is polled again.
    pub(crate) async fn wait(&self) {
        let mut polled = false;
        until_some(|| core::mem::replace(&mut polled, true).then_some(())).await;
    }

    /// Lets other lanes that are ready run first.
    pub async fn yield_now(&mut self) {
        self.executor.wake(self.number);
        self.wait().await;
    }

    /// Takes the first job of a queue. Without one the lane is polled when one comes.
    pub(crate) fn take_job(&self, queue: usize) -> Option<Job> {
        self.executor.take_job(self.line, queue, self.bit)
    }

    /// Waits until the engine runs. Returns the number of the run, for [`Lane::run_ends`].
    pub(crate) async fn run_begins(&self) -> u32 {
        until_some(|| self.executor.run_begins(self.line)).await
    }

    /// Waits, when [`Worker::background`](crate::worker::Worker::background) has returned, until
    /// the run that it was called for is over.
    pub(crate) async fn run_ends(&self, run: u32) {
        self.executor.run_over(self.line);
        until_some(|| self.executor.run_is_over(run).then_some(())).await;
    }

    /// Waits for an order: the control lane does.
    pub(crate) async fn next_order(&self) -> Order {
        until_some(|| self.executor.take_order(self.line)).await
    }

    /// Reports the result of an order.
    pub(crate) fn report(&self, started: bool, result: Result<(), Errno>) {
        self.executor.report(self.line, started, result);
    }

    /// Waits until a resident lane may begin.
    pub(crate) async fn residence_begins(&self) {
        until_some(|| self.executor.residence_begins(self.line).then_some(())).await;
    }

    /// Counts this resident lane out, which has returned.
    pub(crate) fn residence_is_over(&self) {
        self.executor.residence_is_over(self.line);
    }
}
