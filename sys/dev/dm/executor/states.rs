// SPDX-License-Identifier: BSD-2-Clause

//! The states of an engine: how it is started, suspended, stopped and ended, and what its control,
//! background and resident lanes are told of that.

use core::sync::atomic::Ordering;

use super::{Executor, Orders, RUNNING, STOPPED, SUSPENDING, ServingLine};
use crate::Errno;
use crate::worker::{Order, Quiesce};

impl Executor {
    /// `true` from [`Executor::start`] until [`Executor::suspending`].
    pub fn is_running(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNNING
    }

    /// `true` from [`Executor::suspending`] until [`Executor::stop`] or [`Executor::go_on`], and
    /// while jobs are hastened.
    pub(crate) fn is_suspending(&self) -> bool {
        self.state.load(Ordering::Acquire) == SUSPENDING || self.is_hastened()
    }

    /// `true` from [`Executor::hasten`] until [`Executor::hastened_is_over`].
    fn is_hastened(&self) -> bool {
        self.hastened.load(Ordering::SeqCst) != 0
    }

    /// Starts every line, in order. Does nothing unless the engine is stopped. Context: the thread
    /// that has the control flag; sleeps for I/O, deaf to signals.
    ///
    /// # Errors
    /// That of the first line that does not start; those before it are stopped again.
    pub fn start(&self) -> Result<(), Errno> {
        if self.state.load(Ordering::Acquire) != STOPPED {
            return Ok(());
        }
        for at in 0..self.lines.len() {
            if let Err(errno) = self.order(at, Order::Start) {
                for started in (0..at).rev() {
                    // Stopping has no result.
                    let _ = self.order(started, Order::Stop);
                }
                return Err(errno);
            }
        }
        self.keeps_failed.store(false, Ordering::Release);
        self.state.store(RUNNING, Ordering::Release);
        self.look_again();
        Ok(())
    }

    /// Tells every line that new I/O is held and that jobs must end. Context: the thread that has
    /// the control flag; does not sleep.
    pub fn suspending(&self, how: Quiesce) {
        // First what becomes of jobs, then that they must end: a lane that sees the second acts on
        // the first.
        self.keeps_failed.store(how == Quiesce::NoFlush, Ordering::SeqCst);
        // SeqCst, as a background lane counts itself in and then looks at the state.
        let begun =
            self.state.compare_exchange(RUNNING, SUSPENDING, Ordering::SeqCst, Ordering::Acquire);
        if begun.is_ok() {
            self.suspends.fetch_add(1, Ordering::SeqCst);
        }
        self.tell_suspending(how);
    }

    /// Lets jobs wait for nothing but their components until [`Executor::hastened_is_over`], while
    /// new I/O still comes and the background goes on: jobs that would be let go when the device is
    /// suspended are let go now. From a thread, which need not have the control flag; does not
    /// sleep.
    pub fn hasten(&self, how: Quiesce) {
        // First that jobs must go, then that they are looked at again.
        self.hastened.fetch_add(1, Ordering::SeqCst);
        self.tell_suspending(how);
    }

    /// The opposite of [`Executor::hasten`], once for each call. From a thread; does not sleep.
    pub fn hastened_is_over(&self) {
        self.hastened.fetch_sub(1, Ordering::SeqCst);
    }

    /// Tells every line's target that its jobs must end, and wakes all of its lanes.
    fn tell_suspending(&self, how: Quiesce) {
        for (at, line) in self.lines.iter().enumerate() {
            line.target.suspending(how);
            // Lanes that sleep, and the background lanes.
            self.wake_line(at);
        }
    }

    /// Goes on after all: waiting for the I/O in flight was interrupted. Context: as for
    /// [`Executor::suspending`].
    pub fn go_on(&self) {
        let back =
            self.state.compare_exchange(SUSPENDING, RUNNING, Ordering::AcqRel, Ordering::Acquire);
        self.keeps_failed.store(false, Ordering::Release);
        if back.is_ok() {
            self.look_again();
        }
    }

    /// Stops every line, when no job is left. Does nothing when the engine is stopped. Context: as
    /// for [`Executor::start`].
    pub fn stop(&self) {
        if self.state.load(Ordering::Acquire) == STOPPED {
            return;
        }
        self.suspend_if_running();
        self.host.wait(&mut || self.lines.iter().all(|l| l.busy.load(Ordering::SeqCst) == 0));
        for at in (0..self.lines.len()).rev() {
            // Stopping has no result.
            let _ = self.order(at, Order::Stop);
        }
        self.state.store(STOPPED, Ordering::Release);
    }

    fn suspend_if_running(&self) {
        if self.is_running() {
            self.suspending(Quiesce::Flush);
        }
    }

    /// Ends the threads, when resident lanes have returned; nothing else is in flight, and the
    /// engine is stopped. The lanes' futures are dropped. Context: the thread that drops the table,
    /// with no lock held and I/O not held; sleeps, deaf to signals.
    pub fn end(&self) {
        let stopped = self.state.load(Ordering::Acquire) == STOPPED;
        assert!(stopped, "dm: a table that serves I/O is dropped");
        self.ending.store(true, Ordering::SeqCst);
        if self.lines.iter().any(|line| line.residents.load(Ordering::SeqCst) != 0) {
            self.look_again();
            let gone = |line: &ServingLine| line.residents.load(Ordering::SeqCst) == 0;
            self.host.wait(&mut || self.lines.iter().all(gone));
        }
        self.host.end_threads();
    }

    /// `true` once the table goes.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// `true` once a line's resident lanes may begin; they are counted from then on.
    pub(crate) fn residence_begins(&self, line: usize) -> bool {
        self.lines.get(line).is_some_and(|line| line.begun.load(Ordering::SeqCst))
    }

    /// Counts a resident lane out.
    pub(crate) fn residence_is_over(&self, line: usize) {
        if let Some(line) = self.lines.get(line) {
            line.residents.fetch_sub(1, Ordering::SeqCst);
        }
        self.host.announce();
    }

    /// Gives a line's control lane an order, and waits until it has obeyed. Context: as for
    /// [`Executor::start`].
    fn order(&self, at: usize, order: Order) -> Result<(), Errno> {
        let Some(line) = self.lines.get(at) else { return Err(Errno::EIO) };
        *line.orders.lock() = Orders::Given(order);
        self.wake_control(at);
        let mut result = Err(Errno::EIO);
        self.host.wait(&mut || {
            let mut orders = line.orders.lock();
            match core::mem::take(&mut *orders) {
                Orders::Obeyed(obeyed) => {
                    result = obeyed;
                    true
                }
                other => {
                    *orders = other;
                    false
                }
            }
        });
        result
    }

    /// Wakes a line's control lane, which is its last. From anywhere.
    pub(super) fn wake_control(&self, at: usize) {
        if let Some(line) = self.lines.get(at) {
            self.wake(line.first_lane.saturating_add(self.lanes_of(at)).saturating_sub(1));
        }
    }

    /// Takes the order that a line's control lane has been given, if any. Lets I/O go on first, if
    /// that was left to the lane.
    pub(crate) fn take_order(&self, line: usize) -> Option<Order> {
        self.let_go_on_if_left(line);
        let mut orders = self.lines.get(line)?.orders.lock();
        match *orders {
            Orders::Given(order) => {
                *orders = Orders::Taken;
                Some(order)
            }
            _ => None,
        }
    }

    /// Reports that a line's control lane has obeyed an order.
    pub(crate) fn report(&self, at: usize, started: bool, result: Result<(), Errno>) {
        if let Some(line) = self.lines.get(at) {
            if started && result.is_ok() && !line.begun.load(Ordering::SeqCst) {
                let residents = u32::try_from(line.target.needs().residents).unwrap_or(0);
                line.residents.store(residents, Ordering::SeqCst);
                line.begun.store(true, Ordering::SeqCst);
                self.wake_line(at);
            }
            *line.orders.lock() = Orders::Obeyed(result);
        }
        self.host.announce();
    }

    /// Counts a background lane in, if the engine runs. Returns a number that tells this run from
    /// later ones.
    pub(crate) fn run_begins(&self, line: usize) -> Option<u32> {
        let line = self.lines.get(line)?;
        // Before the look: a suspend that comes in between is another's run.
        let run = self.suspends.load(Ordering::SeqCst);
        // Counted before the look, as a stop looks at the count after it has changed the state.
        line.busy.fetch_add(1, Ordering::SeqCst);
        if self.state.load(Ordering::SeqCst) == RUNNING {
            return Some(run);
        }
        line.busy.fetch_sub(1, Ordering::SeqCst);
        self.host.announce();
        None
    }

    /// `true` once a run of a background lane is over: the engine was suspended since, even if that
    /// was called off before the lane had returned.
    pub(crate) fn run_is_over(&self, run: u32) -> bool {
        !self.is_running() || self.suspends.load(Ordering::SeqCst) != run
    }

    /// Counts a background lane out.
    pub(crate) fn run_over(&self, line: usize) {
        if let Some(line) = self.lines.get(line) {
            line.busy.fetch_sub(1, Ordering::SeqCst);
        }
        self.host.announce();
    }
}
