// SPDX-License-Identifier: BSD-2-Clause

//! The way of a job: its number, its line's queue, the lane that takes it. Context of everything
//! here: a thread or a soft interrupt, with no lock held; nothing sleeps, but for a component's
//! d_strategy in a thread: where [`Worker::at_once`](crate::worker::Worker::at_once) sends, and
//! where I/O goes on that has waited for a number.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{Executor, STOPPED, ServingLine};
use crate::Errno;
#[cfg(doc)]
use crate::host::Host;
use crate::job::{Job, JobInfo};
use crate::lane::{Aside, Outcome};

impl Executor {
    /// Takes the number of a job that is not in use. `None`: the caller must wait for
    /// [`Host::freed`]. From anywhere.
    #[inline]
    pub fn claim(&self, line: usize) -> Option<usize> {
        self.lines.get(line)?.free.take()
    }

    /// Frees a number that was claimed, and lets I/O go on that waits for one. From anywhere.
    #[inline]
    pub fn unclaim(&self, line: usize, number: usize) {
        if let Some(of) = self.lines.get(line)
            && of.free.put(number)
        {
            self.let_go_on(line);
        }
    }

    /// Counts a sender in that waits for a number of a line's jobs, until
    /// [`Executor::remove_waiter`]. The caller must try to claim one once more afterwards. From
    /// anywhere.
    pub fn add_waiter(&self, line: usize) {
        if let Some(line) = self.lines.get(line) {
            line.free.add_waiter();
        }
    }

    /// Counts a sender out that has waited for a number. From anywhere.
    pub fn remove_waiter(&self, line: usize) {
        if let Some(line) = self.lines.get(line) {
            line.free.remove_waiter();
        }
    }

    /// Puts a job in its queue, and wakes a lane for it. Its number was claimed, and the host knows
    /// the I/O. While the engine is stopped, which is so when a start has failed, the job fails
    /// with EIO: no target sees I/O that it has not been started for. From anywhere; calls
    /// [`Worker::at_once`](crate::worker::Worker::at_once).
    #[inline]
    pub fn submit(self: &Arc<Self>, info: JobInfo) {
        let job = Job { info, executor: Some(self.clone()) };
        if self.state.load(Ordering::Acquire) == STOPPED {
            return job.fail(Errno::EIO);
        }
        let Some(line) = self.lines.get(info.line()) else { return job.fail(Errno::EIO) };
        if let Some(job) = line.target.at_once(job) {
            self.queue(line, job);
        }
    }

    /// Tells the target that all places of a job that was forwarded to each of them have answered.
    /// From anywhere: the host calls it in the last one's completion.
    #[inline]
    pub fn answered(self: &Arc<Self>, info: JobInfo, outcome: Outcome) {
        let job = Job { info, executor: Some(self.clone()) };
        let Some(line) = self.lines.get(info.line()) else { return job.fail(Errno::EIO) };
        if let Some(job) = line.target.answered(job, outcome) {
            self.queue(line, job);
        }
    }

    /// Puts a job at the end of its queue, and wakes a lane for it.
    fn queue(&self, line: &ServingLine, job: Job) {
        self.put(line, job, VecDeque::push_back);
    }

    /// Puts a job that was set aside at the front of its queue again, and wakes a lane for it.
    pub(crate) fn resubmit(&self, job: Job) {
        let Some(line) = self.lines.get(job.info.line()) else { return job.fail(Errno::EIO) };
        self.put(line, job, VecDeque::push_front);
    }

    /// Puts a job at one end of its queue, and wakes a lane for the first one there.
    #[inline]
    fn put(&self, line: &ServingLine, mut job: Job, push: impl FnOnce(&mut VecDeque<Job>, Job)) {
        job.info.at_sender = false;
        let Some(queue) = line.queues.get(usize::from(job.info.queue)) else {
            // A target that names a queue it does not have is a bug; the I/O fails.
            debug_assert!(false, "no such queue");
            return job.fail(Errno::EIO);
        };
        let mut queue = queue.lock();
        debug_assert!(queue.jobs.len() < queue.jobs.capacity());
        push(&mut queue.jobs, job);
        let idle = queue.idle;
        queue.idle &= idle.wrapping_sub(1);
        drop(queue);
        if idle != 0 {
            self.wake(line.first_lane.wrapping_add(idle.trailing_zeros() as usize));
        }
    }

    /// Puts all jobs that were set aside in one place at the front of their queues again, in their
    /// order.
    pub(crate) fn resubmit_all(&self, jobs: &Aside) {
        while let Some(job) = jobs.pop_last() {
            self.resubmit(job);
        }
    }

    /// Takes the first job of a queue, or notes that the lane waits for one.
    pub(crate) fn take_job(&self, line: usize, queue: usize, lane: u32) -> Option<Job> {
        let mut queue = self.lines.get(line)?.queues.get(queue)?.lock();
        let job = queue.jobs.pop_front();
        match job {
            Some(_) => queue.idle &= !lane,
            None => queue.idle |= lane,
        }
        job
    }

    /// Frees the number of a job that is ended, and lets I/O go on that waits for one. From
    /// anywhere. Of a job that was forwarded to one place the host calls it, after it has answered
    /// the I/O.
    #[inline]
    pub fn free(&self, info: &JobInfo) {
        self.unclaim(info.line(), info.number());
    }

    /// Lets I/O go on that waits for numbers of a line's jobs, as far as numbers are free. The I/O
    /// need not take the number that it waited for: the target may map it elsewhere by now.
    /// Context: any. A soft interrupt leaves it to the thread of the line's control lane, since a
    /// component's d_strategy may sleep, and since there may be much of it. I/O that goes on may
    /// end before that returns, and let more go on: one context at a time does it.
    #[cold]
    fn let_go_on(&self, at: usize) {
        let Some(line) = self.lines.get(at) else { return };
        if !self.host.in_thread() {
            line.left_to_lane.store(true, Ordering::SeqCst);
            return self.wake_control(at);
        }
        line.going_on.ask(|| {
            while line.free.any() && self.host.freed(at) {
                line.free.remove_waiter();
            }
        });
    }

    /// Lets I/O go on where a soft interrupt has left that to the line's control lane, which calls
    /// this whenever it is polled and has no order in progress: while it has one, no I/O waits, as
    /// the device has none.
    pub(super) fn let_go_on_if_left(&self, at: usize) {
        if self.lines.get(at).is_some_and(|line| line.left_to_lane.swap(false, Ordering::SeqCst)) {
            self.let_go_on(at);
        }
    }
}
