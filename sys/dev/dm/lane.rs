// SPDX-License-Identifier: BSD-2-Clause

//! Lanes: what a target's code may do while it serves a job, in the order in which it reads.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec;
use core::any::Any;
use core::ffi::CStr;
use core::fmt;
use core::future::poll_fn;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};
use core::task::Poll;

use dm_sync::Spin;

use crate::Errno;
use crate::executor::Executor;
use crate::host::{Answer, End, Request};
use crate::job::{Job, Place};
use crate::target::ComponentIndex;
use crate::units::{DEV_BSIZE, Sector, SectorRange};
use crate::worker::{Order, Role};

/// A lane, to its target's code: the way to the components, a buffer of the lane's own, and what it can wait for.
/// Owned by the lane's one future. Every method runs in the thread that polls the lane.
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

/// Bytes of a lane's buffer, or how many they are, in sectors.
fn bytes_of(length: Sector) -> usize {
    usize::try_from(length.to_bytes().unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
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

    /// The size of a component now, in sectors. It may have changed since the table was loaded.
    pub fn size(&self, component: ComponentIndex) -> Sector {
        self.executor.host().size(component)
    }

    /// Reads `length` sectors from a place into the start of the buffer.
    ///
    /// # Errors
    /// The component's, or EINVAL if they do not fit into the buffer.
    pub async fn read(&mut self, from: Place, length: Sector) -> Result<(), Errno> {
        self.read_at(from, length, Sector::ZERO).await
    }

    /// Reads `length` sectors from a place into the buffer, `skip` sectors from its start.
    ///
    /// # Errors
    /// As [`Lane::read`].
    pub async fn read_at(
        &mut self,
        from: Place,
        length: Sector,
        skip: Sector,
    ) -> Result<(), Errno> {
        let request = |data, at, bytes| Request::Read { data, at, bytes };
        self.transfer(&[from], length, skip, request).await.ok()
    }

    /// Writes the first `length` sectors of the buffer to each place. With `fua` they are on
    /// stable storage when it is over.
    pub async fn write(&mut self, to: &[Place], length: Sector, fua: bool) -> Outcome {
        self.write_at(to, length, Sector::ZERO, fua).await
    }

    /// Writes `length` sectors of the buffer, `skip` sectors from its start, to each place.
    pub async fn write_at(
        &mut self,
        to: &[Place],
        length: Sector,
        skip: Sector,
        fua: bool,
    ) -> Outcome {
        let request = |data, at, bytes| Request::Write { data, at, bytes, fua };
        let mut outcome = self.transfer(to, length, skip, request).await;
        for (at, place) in to.iter().enumerate().filter(|_| fua) {
            if !outcome.has_failed(at) && !self.executor.host().keeps_fua(place.component) {
                let flushed = self.flush(&[place.component]).await;
                let failed = flushed.failed.checked_shl(at as u32).unwrap_or(0);
                outcome.merge(Outcome { failed, ..flushed });
            }
        }
        outcome
    }

    /// Moves sectors of the buffer in requests that the components take.
    async fn transfer(
        &mut self,
        places: &[Place],
        length: Sector,
        skip: Sector,
        request: impl Fn(Box<[u8]>, usize, usize) -> Request,
    ) -> Outcome {
        let (all, start) = (bytes_of(length), bytes_of(skip));
        if start.checked_add(all).is_none_or(|end| end > self.buffer.len()) {
            return Outcome { failed: u32::MAX, errno: Errno::EINVAL };
        }
        let (most, mut done, mut outcome) = (self.executor.host().max_io(), 0usize, Outcome::OK);
        while let left @ 1.. = all.saturating_sub(done) {
            let bytes = left.min(most.max(DEV_BSIZE as usize));
            let on = Sector((done / DEV_BSIZE as usize) as u64);
            let data = core::mem::take(&mut self.buffer);
            let request = request(data, start.wrapping_add(done), bytes);
            outcome.merge(self.ask(request, places, on).await);
            done = done.saturating_add(bytes);
        }
        outcome
    }

    /// Moves a job's own data: reads it from one place, or writes it to each. A FUA write is FUA
    /// there. The job is still to be ended.
    pub fn send(&mut self, job: &Job, to: &[Place]) -> impl Future<Output = Outcome> {
        let all = SectorRange { start: Sector::ZERO, length: job.length() };
        self.begin_send(job, all, to)
    }

    /// Moves some of a job's sectors, counted from its first, between its data and each place,
    /// where they begin. Sectors beyond the job's end are left out; where none is left it is over at once. Like
    /// [`Lane::send`], begins when it is called, and must be awaited.
    pub fn send_part(
        &mut self,
        job: &Job,
        part: Range<Sector>,
        to: &[Place],
    ) -> impl Future<Output = Outcome> {
        self.begin_send(job, SectorRange::between(part.start, part.end.min(job.length())), to)
    }

    /// Begins to move some of a job's sectors, unless there are none.
    #[inline]
    fn begin_send(
        &mut self,
        job: &Job,
        part: SectorRange,
        to: &[Place],
    ) -> impl Future<Output = Outcome> {
        if !part.is_empty() {
            self.executor.host().send(self.number, &job.info, part, to);
        }
        let lane = &*self;
        poll_fn(move |_| match part.is_empty() {
            true => Poll::Ready(Outcome::OK),
            false => lane.outcome(),
        })
    }

    /// The outcome of the lane's request, which has no data of the lane's, once it is over.
    fn outcome(&self) -> Poll<Outcome> {
        match self.executor.host().outcome(self.number) {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }

    /// Has each component put what was written to it on stable storage.
    pub async fn flush(&mut self, components: &[ComponentIndex]) -> Outcome {
        self.each(components, Sector::ZERO, || Request::Flush).await
    }

    /// Tells a component that sectors are not needed any more (TRIM).
    ///
    /// # Errors
    /// The component's; ENODEV or EOPNOTSUPP where it takes none.
    pub async fn discard(&mut self, at: Place, length: Sector) -> Result<(), Errno> {
        self.ask(Request::Discard { length }, &[at], Sector::ZERO).await.ok()
    }

    /// A request without data to each component.
    async fn each(
        &mut self,
        components: &[ComponentIndex],
        sector: Sector,
        request: impl Fn() -> Request,
    ) -> Outcome {
        let mut outcome = Outcome::OK;
        for (at, component) in components.iter().enumerate() {
            let place = Place { component: *component, sector };
            let one = self.ask(request(), &[place], Sector::ZERO).await;
            if one.failed != 0 {
                let failed = 1u32.checked_shl(at as u32).unwrap_or(0);
                outcome.merge(Outcome { failed, ..one });
            }
        }
        outcome
    }

    /// Begins a request at these places, each moved on by `on` sectors, and waits for the answer.
    async fn ask(&mut self, request: Request, places: &[Place], on: Sector) -> Outcome {
        if on == Sector::ZERO {
            self.executor.host().begin(self.number, request, places);
        } else {
            let mut moved = [Place { component: ComponentIndex(0), sector: on }; 32];
            let count = places.len().min(moved.len());
            for (to, from) in moved.iter_mut().zip(places) {
                let sector = Sector(from.sector.0.saturating_add(on.0));
                *to = Place { component: from.component, sector };
            }
            let moved = moved.get(..count).unwrap_or(&[]);
            self.executor.host().begin(self.number, request, moved);
        }
        let answer = poll_fn(|_| match self.executor.host().answer(self.number) {
            Some(answer) => Poll::Ready(answer),
            None => Poll::Pending,
        });
        let Answer { failed, errno, data, .. } = answer.await;
        if let Some(data) = data {
            self.buffer = data;
        }
        Outcome { failed, errno }
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

    /// Sleeps until a moment of [`Lane::now`]'s clock, at most 2^31 milliseconds ahead, or until the
    /// device is being suspended: `false` then. While [`Lane::stopping`] is true, and in a lane that serves jobs while
    /// [`Lane::suspending`] is, it is `false` at once, so that a loop around it must end then.
    pub async fn sleep_until(&mut self, moment: u32) -> bool {
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

    /// Sleeps this long, or until the device is being suspended: `false` then.
    pub async fn sleep(&mut self, milliseconds: u32) -> bool {
        self.sleep_until(self.now().wrapping_add(milliseconds)).await
    }

    /// `true` while the engine is not running: the device is being suspended, or is suspended.
    pub fn stopping(&self) -> bool {
        !self.executor.is_running()
    }

    /// `true` while the jobs there are must end: new I/O is held, or a file system on the device is being suspended
    /// and waits for them.
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
    /// takes; others of the lane's thread go on. For targets whose
    /// [`Needs::grows`](crate::worker::Needs::grows) is `true`. `None` if the host cannot.
    pub async fn make<T: Default + Any + Send>(&mut self) -> Option<T> {
        fn boxed<T: Default + Any + Send>() -> Box<dyn Any + Send> {
            Box::new(Some(T::default()))
        }
        self.executor.host().begin(self.number, Request::Make(boxed::<T>), &[]);
        let answer = poll_fn(|_| match self.executor.host().answer(self.number) {
            Some(answer) => Poll::Ready(answer),
            None => Poll::Pending,
        });
        let made = answer.await.made?;
        made.downcast::<Option<T>>().ok().and_then(|made| *made)
    }

    /// Raises an event of the device: who waits for one (`dmsetup wait`) looks at its status.
    pub fn raise_event(&self) {
        self.executor.raise_event();
    }

    /// Tells the console, on a line of its own that names the device. What is longer than a line or two is cut.
    pub fn say(&self, what: fmt::Arguments<'_>) {
        self.executor.host().say(what);
    }

    /// Ends the system, because the table says so. In a kernel it does not return.
    pub fn end_system(&self, end: End, why: &CStr) {
        self.executor.host().end_system(end, why);
    }

    /// Waits until the lane is polled again.
    pub(crate) async fn wait(&self) {
        let mut polled = false;
        poll_fn(|_| match core::mem::replace(&mut polled, true) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Lets other lanes that are ready run first.
    pub async fn yield_now(&mut self) {
        self.executor.wake(self.number);
        self.wait().await;
    }

    /// Waits until `condition` gives something. It is asked at once and whenever `signal` is
    /// raised; it must not sleep.
    pub async fn until<T>(
        &mut self,
        signal: &Signal,
        mut condition: impl FnMut() -> Option<T>,
    ) -> T {
        poll_fn(|_| match self.look(signal, &mut condition) {
            Some(found) => Poll::Ready(found),
            None => Poll::Pending,
        })
        .await
    }

    /// Waits as [`Lane::until`] does; `None` when the device is being suspended first.
    pub async fn until_stopping<T>(
        &mut self,
        signal: &Signal,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        poll_fn(|_| match self.look(signal, &mut condition) {
            Some(found) => Poll::Ready(Some(found)),
            None if self.stopping() => Poll::Ready(None),
            None => Poll::Pending,
        })
        .await
    }

    /// Waits as [`Lane::until`] does; `None` when a moment of [`Lane::now`]'s clock comes, or the device is being
    /// suspended, first.
    pub async fn until_moment<T>(
        &mut self,
        signal: &Signal,
        moment: u32,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let state = self.executor.lane_state(self.number)?;
        let found = poll_fn(|_| {
            if let Some(found) = self.look(signal, &mut condition) {
                return Poll::Ready(Some(found));
            }
            let left = moment.wrapping_sub(self.executor.host().now());
            if left == 0 || left > u32::MAX / 2 || self.stopping() {
                return Poll::Ready(None);
            }
            state.sleep(Some(moment));
            Poll::Pending
        })
        .await;
        state.sleep(None);
        found
    }

    fn look<T>(&self, signal: &Signal, condition: &mut impl FnMut() -> Option<T>) -> Option<T> {
        // First the bit, then the look: whoever changes the condition does so before it raises.
        signal.waiting.fetch_or(self.bit, Ordering::SeqCst);
        let found = condition();
        if found.is_some() {
            signal.waiting.fetch_and(!self.bit, Ordering::SeqCst);
        }
        found
    }

    /// Has the lanes that wait for a signal look again.
    pub fn raise(&self, signal: &Signal) {
        self.executor.wake_all(self.line, signal.take());
    }

    /// Puts jobs that were set aside at the front of their queue again, in their order.
    pub fn resubmit(&self, jobs: &Aside) {
        self.executor.resubmit_all(jobs);
    }

    /// Puts those of the jobs that `which` names at the front of their queue again.
    pub fn resubmit_if(&self, jobs: &Aside, mut which: impl FnMut(&Job) -> bool) {
        // From the last, so that they come to stand in their order.
        let mut at = jobs.jobs.lock().len();
        while let Some(before) = at.checked_sub(1) {
            at = before;
            let mut list = jobs.jobs.lock();
            let job = match list.get(at) {
                Some(job) if which(job) => list.remove(at),
                _ => None,
            };
            drop(list);
            if let Some(job) = job {
                self.executor.resubmit(core::iter::once(job));
            }
        }
    }

    /// Takes the first job of a queue. Without one the lane is polled when one comes.
    pub(crate) fn take_job(&self, queue: usize) -> Option<Job> {
        self.executor.take_job(self.line, queue, self.bit)
    }

    /// Waits until the engine runs. The answer is for [`Lane::run_ends`].
    pub(crate) async fn run_begins(&self) -> u32 {
        poll_fn(|_| match self.executor.run_begins(self.line) {
            Some(run) => Poll::Ready(run),
            None => Poll::Pending,
        })
        .await
    }

    /// Waits, when [`Worker::background`](crate::worker::Worker::background) has returned, until the run that it
    /// was called for is over.
    pub(crate) async fn run_ends(&self, run: u32) {
        self.executor.run_over(self.line);
        poll_fn(|_| match self.executor.run_is_over(run) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Waits for an order: the control lane does.
    pub(crate) async fn next_order(&self) -> Order {
        poll_fn(|_| match self.executor.take_order(self.line) {
            Some(order) => Poll::Ready(order),
            None => Poll::Pending,
        })
        .await
    }

    /// Reports the result of an order.
    pub(crate) fn report(&self, started: bool, result: Result<(), Errno>) {
        self.executor.report(self.line, started, result);
    }

    /// Waits until a resident lane may begin.
    pub(crate) async fn residence_begins(&self) {
        poll_fn(|_| match self.executor.residence_begins(self.line) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Counts this resident lane out, which has returned.
    pub(crate) fn residence_is_over(&self) {
        self.executor.residence_is_over(self.line);
    }
}

/// A reference to a line's engine with which its lanes are woken from outside: by another table's lanes, in a
/// sender's thread. It keeps the engine, so that it must be dropped before the table can go.
pub struct LineWaker {
    executor: Arc<Executor>,
    line: usize,
}

impl LineWaker {
    /// Has the lanes that wait for a signal look again. Context: thread or soft interrupt; does not sleep.
    pub fn raise(&self, signal: &Signal) {
        self.executor.wake_all(self.line, signal.take());
    }

    /// `true` once the engine's table goes.
    pub fn ending(&self) -> bool {
        self.executor.is_ending()
    }
}

/// A condition variable for the lanes of one line: [`Lane::until`], [`Lane::raise`]. The condition itself is kept
/// elsewhere, under the target's own lock or in atomics.
#[derive(Default)]
pub struct Signal {
    /// The lanes that wait, a bit each.
    waiting: AtomicU32,
}

impl Signal {
    /// A signal that nobody waits for.
    pub const fn new() -> Signal {
        Signal { waiting: AtomicU32::new(0) }
    }

    /// The lanes that waited, a bit each; they wait no more.
    pub(crate) fn take(&self) -> u32 {
        self.waiting.swap(0, Ordering::SeqCst)
    }
}

/// Jobs that a target has set aside until something happens: they hold no lane meanwhile. There is
/// room for every job of a line, so that setting one aside never allocates. Context of its methods: thread or soft
/// interrupt.
pub struct Aside {
    jobs: Spin<VecDeque<Job>>,
}

impl Aside {
    /// An empty list, for a line that has so many jobs ([`Needs::jobs`](crate::worker::Needs::jobs)).
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
