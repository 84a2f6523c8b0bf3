// SPDX-License-Identifier: BSD-2-Clause

//! Targets that serve I/O themselves: the trait that they implement, and the engine's view of them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;

use crate::Errno;
use crate::job::Job;
use crate::lane::{Lane, Outcome};
use crate::target::Target;

/// The resources that a line of such a target needs while its table is loaded. All of them are
/// taken then, so that serving I/O never waits for memory, unless the target [grows](Needs::grows).
#[derive(Clone, Debug)]
pub struct Needs {
    /// The number of lanes that serve each queue; [`Mapping::Take`](crate::target::Mapping::Take)
    /// names the queue. One lane serves one job at a time.
    pub queues: Vec<usize>,
    /// The number of lanes that run [`Worker::background`].
    pub background: usize,
    /// The number of lanes that run [`Worker::resident`].
    pub residents: usize,
    /// The number of jobs at one time; I/O beyond that waits outside.
    pub jobs: usize,
    /// The most places that a job is forwarded to.
    pub fan: usize,
    /// The most places that a lane sends one request to.
    pub width: usize,
    /// Bytes of each serving lane's buffer.
    pub buffer: usize,
    /// The number of queues, from the first, whose lanes have buffers. The lanes of others have
    /// none.
    pub buffered: usize,
    /// Bytes of each background lane's buffer.
    pub background_buffer: usize,
    /// Bytes of each resident lane's buffer.
    pub resident_buffer: usize,
    /// `true` if the target asks for memory while it is there: see
    /// [`Lane::make`](crate::lane::Lane::make). I/O of such a line may wait for memory, and so may
    /// [`Worker::start`], while I/O is held.
    pub grows: bool,
    /// Bytes of the control lane's buffer, which [`Worker::start`] and [`Worker::stop`] use.
    pub control_buffer: usize,
    /// The number of threads that the line asks for: 1, but for targets that compute. The lines of
    /// a table that ask for 1 have one together, which no line that computes holds up; those that
    /// ask for more have others, as many as the line that asks for most. A line's lanes are dealt
    /// out over as many of them as it asks for.
    pub threads: usize,
}

impl Default for Needs {
    /// Eight lanes on one queue, 32 jobs, one place a request, no buffers, no background.
    fn default() -> Needs {
        Needs {
            queues: alloc::vec![8],
            background: 0,
            residents: 0,
            jobs: 32,
            fan: 1,
            width: 1,
            buffer: 0,
            buffered: usize::MAX,
            background_buffer: 0,
            resident_buffer: 0,
            grows: false,
            control_buffer: 0,
            threads: 1,
        }
    }
}

/// The most lanes that a line may have: each is a bit in a [`Signal`](crate::lane::Signal).
pub const LANES: usize = 32;

impl Needs {
    /// The number of the line's lanes: serving, background, resident, and the one for control.
    pub(crate) fn lanes(&self) -> usize {
        let serving = self.queues.iter().fold(0usize, |sum, n| sum.saturating_add(*n));
        let others = self.background.saturating_add(self.residents).saturating_add(1);
        serving.saturating_add(others)
    }

    /// Bytes that the line takes beside what its target keeps itself; `nested` is the size of a
    /// host's nested buffer.
    pub fn bytes(&self, nested: usize) -> usize {
        const LANE: usize = 1024;
        const JOB: usize = 2 * size_of::<Job>();
        let lane = nested.saturating_mul(self.width).saturating_add(LANE);
        let lanes = lane.saturating_mul(self.lanes());
        let buffered = self.queues.iter().take(self.buffered);
        let buffers = buffered
            .fold(0usize, |sum, n| sum.saturating_add(*n))
            .saturating_mul(self.buffer)
            .saturating_add(self.background.saturating_mul(self.background_buffer))
            .saturating_add(self.residents.saturating_mul(self.resident_buffer))
            .saturating_add(self.control_buffer);
        let job = nested.saturating_mul(self.fan.max(1)).saturating_add(JOB);
        let jobs = job.saturating_mul(self.jobs);
        lanes.saturating_add(buffers).saturating_add(jobs)
    }
}

/// The manner in which a device is being quiesced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quiesce {
    /// Suspended: I/O in flight is to complete.
    Flush,
    /// Suspended with noflush: what cannot complete may be given back, for the next table.
    NoFlush,
    /// The device is going: what cannot complete is to fail.
    Remove,
}

/// A target that serves I/O itself, in lanes.
///
/// The life of such a target: `new` when the table is loaded, which must not read its components,
/// for another table may be using them; [`Worker::start`] when a resume makes the table active,
/// after the table before it has stopped; then jobs and [`Worker::background`];
/// [`Worker::suspending`], and when no job is left and the background has returned,
/// [`Worker::stop`]. A stopped one may start again. It is dropped with its table.
///
/// Futures are made once, when the table is loaded; none is made for a job. They may hold no
/// [`Spin`](dm_sync::Spin) guard across an `await`.
pub trait Worker: Target + Sized + 'static {
    /// The resources that the line needs.
    fn needs(&self) -> Needs;

    /// Looks at each job that comes, in its sender's thread or soft interrupt. The target may end
    /// it or forward it, which is quicker than a lane. A job that is returned waits in its queue
    /// for a lane. Must not sleep, but for what forwarding does.
    fn at_once(&self, job: Job) -> Option<Job> {
        Some(job)
    }

    /// Takes a job back of which all places of [`Job::forward_each`] have answered; some may have
    /// failed. The target ends the job, or returns it to wait in its queue for a lane. From
    /// anywhere, also from a soft interrupt, with no lock held: must not sleep, nor forward.
    fn answered(&self, job: Job, outcome: Outcome) -> Option<Job> {
        job.end(outcome.ok());
        None
    }

    /// Serves one job, and ends it. Context: the thread that polls lanes. Sleeps by `await`, and in
    /// a component's d_strategy where it sends; [`Lane::raise_event`] takes an adaptive lock.
    fn serve(&self, job: Job, lane: &mut Lane) -> impl Future<Output = ()> + Send;

    /// Does the work that no I/O asks for. Called once in each run from start to stop, by each of
    /// [`Needs::background`] lanes with its number from 0, and again when a suspend was called off
    /// that it has returned for. Must return soon after
    /// [`Lane::stopping`] has become true; [`Lane::until_stopping`] and [`Lane::sleep`] end then.
    fn background(&self, _number: usize, _lane: &mut Lane) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Does work that goes on while the device is suspended: what lines of other tables wait for.
    /// Called once by each of [`Needs::residents`] lanes with its number from 0, when
    /// [`Worker::start`] of the line has first succeeded. It may do I/O whether the device is
    /// suspended or not, and must return when [`Lane::ending`] has become true, as soon as no line
    /// of another table waits for it: the table goes then.
    fn resident(&self, _number: usize, _lane: &mut Lane) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Makes the target ready for I/O: reads its components, takes over from the table before it.
    /// No I/O comes before this is over: the device holds it. Where a target asks for memory here
    /// ([`Needs::grows`]), page-outs to the device are held, too, which would free it: such a
    /// device is not to be swapped to while it is started.
    ///
    /// # Errors
    /// Why the table cannot be used; the one before it goes on. Should that not start again either,
    /// its jobs fail with EIO; what [`Target::map`] does not take is its own affair.
    fn start(&self, _lane: &mut Lane) -> impl Future<Output = Result<(), Errno>> + Send {
        async { Ok(()) }
    }

    /// Brings to stable storage all that must be there. No job is left, and none comes until the
    /// next [`Worker::start`].
    fn stop(&self, _lane: &mut Lane) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Lets go of jobs that the target holds back: the device, or a file system on it, is going to
    /// wait for the jobs there are. New I/O is about to be held; until then jobs may still come,
    /// many if a file system is written out, and the suspend may be called off, without a call:
    /// [`Lane::suspending`] says how things stand. It may be called twice for one suspend. Every
    /// lane of the line is polled after this, so that whatever it waits for is looked at again.
    /// Context: a thread with no lock held; must not sleep.
    fn suspending(&self, _how: Quiesce) {}
}

/// A lane's future: made when a table is loaded, polled until the table is dropped.
pub(crate) type LaneFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A lane's part in its line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Serves a queue.
    Serve(usize),
    /// Runs [`Worker::background`] with this number.
    Background(usize),
    /// Runs [`Worker::resident`] with this number.
    Resident(usize),
    /// Runs [`Worker::start`] and [`Worker::stop`].
    Control,
}

/// A [`Worker`] without its type.
pub trait Lanes: Send + Sync {
    /// See [`Worker::needs`].
    fn needs(&self) -> Needs;
    /// See [`Worker::at_once`].
    fn at_once(&self, job: Job) -> Option<Job>;
    /// See [`Worker::answered`].
    fn answered(&self, job: Job, outcome: Outcome) -> Option<Job>;
    /// See [`Worker::suspending`].
    fn suspending(&self, how: Quiesce);
    /// A lane's future.
    #[doc(hidden)]
    fn future(self: Arc<Self>, lane: Lane) -> LaneFuture;
}

impl<T: Worker> Lanes for T {
    fn needs(&self) -> Needs {
        Worker::needs(self)
    }

    fn at_once(&self, job: Job) -> Option<Job> {
        Worker::at_once(self, job)
    }

    fn answered(&self, job: Job, outcome: Outcome) -> Option<Job> {
        Worker::answered(self, job, outcome)
    }

    fn suspending(&self, how: Quiesce) {
        Worker::suspending(self, how);
    }

    fn future(self: Arc<Self>, mut lane: Lane) -> LaneFuture {
        match lane.role() {
            Role::Serve(queue) => Box::pin(async move {
                loop {
                    while let Some(job) = lane.take_job(queue) {
                        self.serve(job, &mut lane).await;
                    }
                    lane.wait().await;
                }
            }),
            Role::Background(number) => Box::pin(async move {
                loop {
                    let run = lane.run_begins().await;
                    self.background(number, &mut lane).await;
                    lane.run_ends(run).await;
                }
            }),
            Role::Resident(number) => Box::pin(async move {
                lane.residence_begins().await;
                self.resident(number, &mut lane).await;
                lane.residence_is_over();
                core::future::pending().await
            }),
            Role::Control => Box::pin(async move {
                loop {
                    let (started, result) = match lane.next_order().await {
                        Order::Start => (true, self.start(&mut lane).await),
                        Order::Stop => {
                            self.stop(&mut lane).await;
                            (false, Ok(()))
                        }
                    };
                    lane.report(started, result);
                }
            }),
        }
    }
}

/// A control lane's next task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// [`Worker::start`].
    Start,
    /// [`Worker::stop`].
    Stop,
}
