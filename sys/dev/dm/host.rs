// SPDX-License-Identifier: BSD-2-Clause

//! The kernel's part of a table whose targets serve I/O themselves: threads that poll lanes, nested
//! buffers of its own, a clock.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::ffi::CStr;
use core::fmt;

use crate::Errno;
pub use crate::completing::{Completing, Completions};
#[cfg(doc)]
use crate::executor::Executor;
use crate::executor::Runner;
use crate::job::{JobInfo, Place};
use crate::lane::Outcome;
pub use crate::ready::Ready;
use crate::target::ComponentIndex;
use crate::units::{Sector, SectorRange};

#[cfg(test)]
mod tests;

/// The resources that the host of a table takes when the table is loaded, and gives back when it is
/// dropped.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// For each lane, the most places that it sends one request to.
    pub lanes: Vec<usize>,
    /// For each job that there may be at one time, over all lines, the most places that it is
    /// forwarded to.
    pub jobs: Vec<usize>,
    /// For each lane, `true` if it is a resident one: the simulation checks what such a one may do.
    #[cfg(any(test, feature = "testing"))]
    pub residents: Vec<bool>,
    /// `true` if some lane makes [`Request::Make`].
    pub grows: bool,
    /// The number of lines.
    pub lines: usize,
    /// For each lane, the number of the runner that polls it.
    pub runners: Vec<usize>,
    /// The number of runners, each of which has a thread.
    pub threads: usize,
}

impl Plan {
    /// The number of threads that do what may sleep, beside those of runners: one for flushes and
    /// discards, and where lanes ask for memory one for that.
    pub fn errand_threads(&self) -> usize {
        1usize.saturating_add(self.grows.into())
    }
}

/// The ways to end the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Restart the machine, without writing out cached data.
    Restart,
    /// Panic, with panic(9).
    Panic,
}

/// A lane's request to the host. Data moves in with the request and comes back with the answer,
/// so that the lane does not touch it while a component may.
pub enum Request {
    /// Read into bytes `at..at + bytes` of `data`, from one place.
    Read {
        /// The lane's buffer.
        data: Box<[u8]>,
        /// The first byte.
        at: usize,
        /// The number of bytes: whole sectors, at most [`Host::max_io`].
        bytes: usize,
    },
    /// Write these bytes to each place.
    Write {
        /// The lane's buffer.
        data: Box<[u8]>,
        /// The first byte.
        at: usize,
        /// The number of bytes: whole sectors, at most [`Host::max_io`].
        bytes: usize,
        /// `true` if they must be on stable storage when it is over.
        fua: bool,
    },
    /// Flush each component: all that was written to it is on stable storage then. The sectors mean
    /// nothing.
    Flush,
    /// Discard `length` sectors of each component, which are not needed any more.
    Discard {
        /// The number of sectors.
        length: Sector,
    },
    /// Call this, which may sleep for memory, where neither lanes nor flushes wait for it; to no
    /// place.
    Make(fn() -> Box<dyn Any + Send>),
}

/// The answer to a [`Request`].
pub struct Answer {
    /// A bit for each place that failed, in their order.
    pub failed: u32,
    /// Why the first of them failed.
    pub errno: Errno,
    /// The lane's buffer, where the request had it.
    pub data: Option<Box<[u8]>>,
    /// The result of a [`Request::Make`].
    pub made: Option<Box<dyn Any + Send>>,
}

/// A kernel's part of one table whose targets serve I/O themselves.
///
/// Jobs and lanes go by number. The host never allocates for an I/O: what a [`Plan`] names was
/// taken before.
///
/// Context of methods that do not name another: thread or soft interrupt; they do not sleep.
pub trait Host: Any + Send + Sync {
    /// Starts the threads that poll lanes, one for each runner. The host refers to the runners'
    /// engine from here until [`Host::end_threads`]. Context: the thread that loads the table;
    /// sleeps for memory.
    ///
    /// # Errors
    /// Those of kthread(9); nothing runs then.
    fn run(self: Arc<Self>, runners: Vec<Runner>) -> Result<(), Errno>;

    /// Ends the threads, and waits until they have dropped their runners. Nothing is in flight.
    /// Context: the thread that drops the table; sleeps.
    fn end_threads(&self);

    /// Wakes the thread of a runner. Context: thread or soft interrupt; does not sleep.
    fn kick(&self, runner: usize);

    /// Begins a request of a lane, which has none in flight. When the request ends the host wakes
    /// the lane, and [`Host::answer`] gives the result; if it ends before this returns the lane
    /// need not be woken, and must ask. Context: a thread that polls lanes, which may sleep in
    /// VOP_STRATEGY; flushes and discards sleep elsewhere.
    fn begin(&self, lane: usize, request: Request, places: &[Place]);

    /// Begins to move a job's own data: reads the sectors `part`, counted from the job's first,
    /// from the first place, or writes them to each, as the job is. Otherwise as [`Host::begin`];
    /// [`Host::outcome`] gives the result.
    fn send(&self, lane: usize, job: &JobInfo, part: SectorRange, places: &[Place]);

    /// Takes the answer to a lane's request, once it is there. Context: the thread that polls the
    /// lane.
    fn answer(&self, lane: usize) -> Option<Answer>;

    /// [`Host::answer`], to a request that brings nothing back. Context: the thread that polls the
    /// lane.
    fn outcome(&self, lane: usize) -> Option<Outcome> {
        self.answer(lane).map(|Answer { failed, errno, .. }| Outcome { failed, errno })
    }

    /// Hands the data of a job, which the caller owns, to `use_it`.
    fn data(&self, job: usize, use_it: &mut dyn FnMut(&mut [u8]));

    /// Answers the I/O of a job. Context: thread or soft interrupt, with no lock held: it calls the
    /// b_iodone of the I/O's sender. Sleeps in a thread, where a read is retried and a component's
    /// d_strategy sleeps.
    fn end(&self, job: usize, result: Result<(), Errno>);

    /// Returns a job to the device, which is being suspended, to be mapped by the next table.
    /// Context: as for [`Host::end`].
    fn give_back(&self, job: usize);

    /// Sends a job to a component, whose answer is the job's. On completion the host takes the
    /// job's record, completes the I/O, and calls [`Executor::free`], in this order: that may let
    /// other I/O go on. Something other than the I/O keeps the table until then. Context:
    /// thread or soft interrupt, with no lock held; sleeps in a thread, where the component's
    /// d_strategy does.
    fn forward(&self, job: &JobInfo, to: Place);

    /// Sends a job to several places, as [`Host::begin`] does a lane's request; the data are the
    /// job's own. When all have answered the host calls [`Executor::answered`], in any context;
    /// before this returns, with [`JobInfo::at_sender`] set, if they have by then. Context: as for
    /// [`Host::forward`].
    fn forward_each(&self, job: &JobInfo, to: &[Place]);

    /// Sends a write to one place, with `data` in the place of the job's own, and FUA if the job
    /// has it. Until the place has answered they are not touched; then the host calls
    /// [`Executor::answered`], as for [`Host::forward_each`]. Context: as for [`Host::forward`].
    fn forward_changed(&self, job: &JobInfo, data: Box<[u8]>, to: Place);

    /// Takes the data that a job was sent with by [`Host::forward_changed`], which is over.
    fn take_changed(&self, job: usize) -> Option<Box<[u8]>>;

    /// The count of contexts that use the engine while nothing else of theirs keeps its table:
    /// [`Host::end_threads`] waits for those that are counted in when it is called.
    fn completing(&self) -> &'static Completions;

    /// Lets the first I/O go on that waits for the number of a line's job and was counted in with
    /// [`Executor::add_waiter`]; `false` if there is none. Wakes threads that wait for one.
    /// Called where a sender was counted in, by one caller at a time. Context: a thread with no
    /// lock held; sleeps where a component's d_strategy does.
    fn freed(&self, line: usize) -> bool;

    /// `true` if a component puts a write with FUA on stable storage before it answers; what
    /// another component was sent is there after a flush only.
    fn keeps_fua(&self, component: ComponentIndex) -> bool;

    /// `true` in a thread: not in an interrupt, hard or soft.
    fn in_thread(&self) -> bool;

    /// `true` in a thread that may compute for some time, and use the FPU, for a job that is at its
    /// sender ([`JobInfo::at_sender`]): not in an interrupt, hard or soft, nor where the job is a
    /// part of I/O of another device that is not at its sender.
    fn may_compute(&self, job: usize) -> bool;

    /// The share of time, in percent, that work in the background may take of a table's components.
    fn background_share(&self) -> u32;

    /// Tells the console, on a line of its own that names the device. Asks for no memory.
    fn say(&self, what: fmt::Arguments<'_>);

    /// Restarts the system or panics, as `end` says, because a table asks for it. In a kernel it
    /// does not return. Context: a thread that polls lanes, and no other: kern_reboot(9) is not for
    /// a soft interrupt.
    fn end_system(&self, end: End, why: &CStr);

    /// Milliseconds since some moment; they wrap around.
    fn now(&self) -> u32;

    /// Bytes in the largest request to a component (MAXPHYS).
    fn max_io(&self) -> usize;

    /// The size of a component in sectors of 512 bytes: that of a device of ours as it is now, that
    /// of another driver's as it was when the table was loaded. Does not sleep.
    fn size(&self, component: ComponentIndex) -> Sector;

    /// Puts the calling thread to sleep, deaf to signals, until `done` is true; it is asked again
    /// after each [`Host::announce`]. Context: a thread that polls no lanes, with no lock held.
    fn wait(&self, done: &mut dyn FnMut() -> bool);

    /// Wakes threads in [`Host::wait`]. Context: thread or soft interrupt; does not sleep.
    fn announce(&self);
}
