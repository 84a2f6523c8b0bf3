// SPDX-License-Identifier: BSD-2-Clause

//! Jobs that wait without a lane.

use alloc::collections::VecDeque;

use dm_sync::Spin;

use super::Lane;
use crate::job::Job;

/// Jobs that a target has set aside until something happens: they hold no lane meanwhile. There is
/// room for every job of a line, so that setting one aside never allocates. Context of its methods:
/// thread or soft interrupt.
pub struct Aside {
    jobs: Spin<VecDeque<Job>>,
}

impl Aside {
    /// An empty list, for a line that has so many jobs
    /// ([`Needs::jobs`](crate::worker::Needs::jobs)).
    pub fn new(jobs: usize) -> Aside {
        Aside { jobs: Spin::new(VecDeque::with_capacity(jobs)) }
    }

    /// Sets a job aside, behind those that are there.
    pub fn push(&self, job: Job) {
        let mut jobs = self.jobs.lock();
        debug_assert!(jobs.len() < jobs.capacity());
        jobs.push_back(job);
    }

    /// Takes the first job.
    pub fn pop(&self) -> Option<Job> {
        self.jobs.lock().pop_front()
    }

    /// Takes the last job.
    pub fn pop_last(&self) -> Option<Job> {
        self.jobs.lock().pop_back()
    }

    /// `true` if no job is set aside.
    pub fn is_empty(&self) -> bool {
        self.jobs.lock().is_empty()
    }

    /// The number of jobs set aside.
    pub fn len(&self) -> usize {
        self.jobs.lock().len()
    }
}

impl Lane {
    /// Puts jobs that were set aside at the front of their queue again, in their order.
    pub fn resubmit(&self, jobs: &Aside) {
        self.executor.resubmit_all(jobs);
    }
}
