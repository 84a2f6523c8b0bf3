// SPDX-License-Identifier: BSD-2-Clause

//! A lane's requests to its components: reads and writes of its buffer and of a job's data,
//! flushes, discards.

use alloc::boxed::Box;
use core::ops::Range;

use super::{Lane, Outcome, until_some};
use crate::Errno;
use crate::host::{Answer, Request};
use crate::job::{Job, Place};
use crate::target::ComponentIndex;
use crate::units::{DEV_BSIZE, Sector, SectorRange};

/// Bytes of a lane's buffer, or how many they are, in sectors.
fn bytes_of(length: Sector) -> usize {
    usize::try_from(length.to_bytes().unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
}

impl Lane {
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
    /// where they begin. Sectors beyond the job's end are left out; where none is left it is over
    /// at once. Like [`Lane::send`], begins when it is called, and must be awaited.
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
        until_some(move || match part.is_empty() {
            true => Some(Outcome::OK),
            false => lane.executor.host().outcome(lane.number),
        })
    }

    /// Flushes each component: all that was written to it is on stable storage then.
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
        let answer = until_some(|| self.executor.host().answer(self.number)).await;
        let Answer { failed, errno, data, .. } = answer;
        if let Some(data) = data {
            self.buffer = data;
        }
        Outcome { failed, errno }
    }
}
