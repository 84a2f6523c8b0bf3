// SPDX-License-Identifier: BSD-2-Clause

//! Jobs: stretches of I/O that a target has taken, to serve them itself.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use crate::Errno;
use crate::executor::Executor;
use crate::lane::{Aside, Signal};
use crate::target::ComponentIndex;
use crate::units::Sector;

/// The kinds of job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Sectors are to be read into the job's data.
    Read,
    /// The job's data is to be written.
    Write,
    /// Everything acknowledged before is to reach stable storage (DIOCCACHESYNC). No sectors.
    Flush,
    /// The sectors' content is not needed any more (TRIM). No data.
    Discard,
}

impl Op {
    /// Reading, or writing.
    #[inline]
    pub const fn rw(write: bool) -> Op {
        if write { Op::Write } else { Op::Read }
    }
}

/// A sector of a component.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The component.
    pub component: ComponentIndex,
    /// The sector there.
    pub sector: Sector,
}

/// A stretch of I/O within one line that its target took with [`Mapping::Take`] and that has not
/// been answered yet.
///
/// A job is in one of four places, and is owned by:
///
/// 1. its line's queue: the engine;
/// 2. a lane that serves it, or [`Worker::at_once`](crate::worker::Worker::at_once) and
///    [`Worker::answered`](crate::worker::Worker::answered): the target's code, which has the
///    value;
/// 3. an [`Aside`]: the target;
/// 4. components, having been forwarded: the host, which has the [`JobInfo`].
///
/// A job must be ended once: [`Job::end`], [`Job::done`], [`Job::fail`], [`Job::forward`] or
/// [`Job::give_back`], or handed on: [`Job::forward_each`], [`Job::forward_changed`],
/// [`Job::resubmit_itself`], [`Aside::push`]. Dropping one would leave an I/O without an answer, so
/// that is a panic. While a job lives, its I/O is in flight: the device cannot be suspended, and
/// its table and components stay.
///
/// Context of all methods: thread or soft interrupt; none sleeps, but in a thread for a component's
/// d_strategy, where a job is forwarded or its end lets other I/O go on. Methods that end a job,
/// forward it or resubmit jobs are called with no lock held: they may complete I/O, and call its
/// sender's b_iodone. The others, and `Aside::push`, may be called with a target's
/// [`Spin`](dm_sync::Spin) held.
///
/// [`Mapping::Take`]: crate::target::Mapping::Take
#[must_use = "a job must be ended"]
pub struct Job {
    pub(crate) info: JobInfo,
    /// The job's engine; `None` once the job is ended.
    pub(crate) executor: Option<Arc<Executor>>,
}

/// A job's description, without the I/O itself. Small: it is handed on by value.
#[derive(Clone, Copy, Debug)]
pub struct JobInfo {
    /// The job's number among its table's; the host keeps the I/O itself under it.
    pub number: u32,
    /// The line that took it, counted among those whose targets serve I/O themselves.
    pub line: u32,
    /// The queue of the line that it waits in.
    pub queue: u8,
    /// The kind of the job.
    pub op: Op,
    /// The first sector, counted from the line's start; 0 for a flush.
    pub start: Sector,
    /// The number of sectors; 0 for a flush.
    pub length: Sector,
    /// `true` if a write must be on stable storage before it is acknowledged (B_MEDIA_FUA).
    pub fua: bool,
    /// `true` while the job is in the call with which its sender sent the I/O: when it comes, and
    /// when all places that it was forwarded to have answered before that call returns. `false`
    /// where another context lets the I/O go on.
    pub at_sender: bool,
    /// For the target's own use; 0 when the job comes.
    pub tag: u64,
}

impl JobInfo {
    /// A job on a queue of a line, with a number of the line's, for a stretch of sectors; without
    /// FUA, and with no tag.
    #[inline]
    pub fn new(
        number: usize,
        (line, queue): (usize, usize),
        op: Op,
        (start, length): (Sector, Sector),
    ) -> JobInfo {
        // A table has far fewer of both: there is memory for each. No line has the last queue.
        let (number, line) = (number as u32, line as u32);
        let queue = u8::try_from(queue).unwrap_or(u8::MAX);
        JobInfo { number, line, queue, op, start, length, fua: false, at_sender: false, tag: 0 }
    }

    /// The job's number, as an index.
    #[inline]
    pub fn number(&self) -> usize {
        self.number as usize
    }

    /// The job's line, as an index.
    #[inline]
    pub fn line(&self) -> usize {
        self.line as usize
    }
}

impl Job {
    /// The kind of the job.
    pub fn op(&self) -> Op {
        self.info.op
    }

    /// `true` for [`Op::Write`].
    pub fn is_write(&self) -> bool {
        self.info.op == Op::Write
    }

    /// The first sector, counted from the line's start.
    pub fn start(&self) -> Sector {
        self.info.start
    }

    /// The number of sectors; 0 for a flush.
    pub fn length(&self) -> Sector {
        self.info.length
    }

    /// `true` if a write must be on stable storage before it is acknowledged (B_MEDIA_FUA).
    pub fn fua(&self) -> bool {
        self.info.fua
    }

    /// Milliseconds since some moment, as [`Lane::now`](crate::lane::Lane::now) has them.
    pub fn now(&self) -> u32 {
        self.executor.as_ref().map_or(0, |executor| executor.host().now())
    }

    /// The target's own mark on the job; 0 at first.
    pub fn tag(&self) -> u64 {
        self.info.tag
    }

    /// Sets the target's own mark on the job.
    pub fn set_tag(&mut self, tag: u64) {
        self.info.tag = tag;
    }

    /// `true` in [`Worker::at_once`](crate::worker::Worker::at_once) and
    /// [`Worker::answered`](crate::worker::Worker::answered) where they are called in the thread of
    /// the job's sender, which may take its time: a target that computes need not wake a lane for
    /// it. A thread that lets I/O of other threads go on, of this device or of one above, is not
    /// their sender.
    pub fn may_compute(&self) -> bool {
        let may = |executor: &Arc<Executor>| executor.host().may_compute(self.info.number());
        self.info.at_sender && self.executor.as_ref().is_some_and(may)
    }

    /// Hands the job's data, `length` sectors of it, to `use_it`. Empty for a flush or a discard.
    /// A write's data is its sender's and must not be changed.
    pub fn with_data<R>(&mut self, use_it: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        let executor = self.executor.as_ref()?;
        let (mut use_it, mut result) = (Some(use_it), None);
        executor.host().data(self.info.number(), &mut |data| {
            if let Some(use_it) = use_it.take() {
                result = Some(use_it(data));
            }
        });
        result
    }

    /// Ends the job: all was done.
    pub fn done(self) {
        self.end(Ok(()));
    }

    /// Ends the job: nothing was done.
    pub fn fail(self, errno: Errno) {
        self.end(Err(errno));
    }

    /// Ends the job with a result.
    #[inline]
    pub fn end(self, result: Result<(), Errno>) {
        if let (info, Some(executor)) = self.take_apart() {
            executor.host().end(info.number(), result);
            executor.free(&info);
        }
    }

    /// The job's description and its engine, for the function that ends the job.
    #[inline]
    fn take_apart(mut self) -> (JobInfo, Option<Arc<Executor>>) {
        (self.info, self.executor.take())
    }

    /// Sends the job to a component as it is, and lets the component's answer be the job's: no
    /// lane waits for it. A flush and a discard go by way of a lane instead.
    pub fn forward(self, to: Place) {
        if let (info, Some(executor)) = self.take_apart() {
            // The number is free again when the component has answered: see `Executor::forwarded`.
            executor.host().forward(&info, to);
        }
    }

    /// Sends a read or a write to several places at once, a read to one. When all have answered,
    /// the target is told with [`Worker::answered`](crate::worker::Worker::answered). No lane waits
    /// for it. At most as many places as [`Needs::fan`](crate::worker::Needs::fan) says, and at
    /// least one.
    #[inline]
    pub fn forward_each(self, to: &[Place]) {
        if let (info, Some(executor)) = self.take_apart() {
            executor.host().forward_each(&info, to);
        }
    }

    /// Sends a write to one place with other data than its sender's, which are to be as long as the
    /// job at least. When the place has answered,
    /// [`Worker::answered`](crate::worker::Worker::answered) is called, as for
    /// [`Job::forward_each`], and must take the data back.
    pub fn forward_changed(self, data: Box<[u8]>, to: Place) {
        if let (info, Some(executor)) = self.take_apart() {
            executor.host().forward_changed(&info, data, to);
        }
    }

    /// Takes back the data that the job was sent with by [`Job::forward_changed`], once it is
    /// answered.
    pub fn take_changed(&mut self) -> Option<Box<[u8]>> {
        self.executor.as_ref()?.host().take_changed(self.info.number())
    }

    /// Wakes the lanes of the job's line that wait for a signal.
    pub fn raise(&self, signal: &Signal) {
        if let Some(executor) = &self.executor {
            executor.wake_all(self.info.line(), signal.take());
        }
    }

    /// Puts jobs of the same line that were set aside at the front of their queue again, in their
    /// order.
    pub fn resubmit(&self, jobs: &Aside) {
        if let Some(executor) = &self.executor {
            executor.resubmit_all(jobs);
        }
    }

    /// Puts the job at the front of its own line's queue again. From anywhere, also from what
    /// another table's I/O has called; does not sleep.
    pub fn resubmit_itself(self) {
        let Some(executor) = &self.executor else { return };
        // Once the job is in the queue it may end, and its table go. The reference below is dropped
        // before the count is, so that it is not the last one: a soft interrupt may not free
        // memory.
        let _using = executor.host().completing().enter();
        let executor = executor.clone();
        executor.resubmit(self);
    }

    /// `true` while the device is being suspended: as
    /// [`Lane::suspending`](crate::lane::Lane::suspending).
    pub fn suspending(&self) -> bool {
        self.executor.as_ref().is_some_and(|executor| executor.is_suspending())
    }

    /// Gives the job back unserved. While the device is being suspended with noflush the next table
    /// maps its I/O; else it fails with EIO.
    pub fn give_back(self) {
        if let (info, Some(executor)) = self.take_apart() {
            match executor.keeps_failed() {
                true => executor.host().give_back(info.number()),
                false => executor.host().end(info.number(), Err(Errno::EIO)),
            }
            executor.free(&info);
        }
    }
}

impl Drop for Job {
    #[inline]
    fn drop(&mut self) {
        if self.executor.is_some() {
            lost();
        }
    }
}

/// A job was dropped that had not been ended.
#[cold]
fn lost() {
    // A job that is lost because of another panic, which unwinds in tests, is no news.
    #[cfg(any(test, feature = "testing"))]
    if std::thread::panicking() {
        return;
    }
    panic!("dm: a job was lost");
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.fmt(f)
    }
}
