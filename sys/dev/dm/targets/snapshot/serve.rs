// SPDX-License-Identifier: BSD-2-Clause

//! A snapshot's I/O that is not only mapped, as jobs: reads that wait for the origin's writes,
//! writes whose exception is to be made, discards.

use super::cow::{Health, Write};
use super::{COUNTED, OWN, Snapshot, in_store};
use crate::job::{Job, Place};
use crate::lane::Lane;
use crate::{Errno, Sector};

/// Chunks that a discard looks at before it lets other lanes run.
const LOOKED_AT: u32 = 1024;

impl Snapshot {
    /// Sends a job to a sector of the store, or fails it where the store has none.
    pub(super) fn forward(&self, job: Job, sector: Option<Sector>) {
        match sector {
            Some(sector) => job.forward(self.place(sector)),
            None => job.fail(Errno::EIO),
        }
    }

    /// Sends a read to its chunk's exception, or to the origin, counted in by the chunk's tracker;
    /// or queues it until something has changed. Context: thread or soft interrupt, with no lock
    /// held; sleeps in a thread, where a component's d_strategy does.
    pub(super) fn read(&self, mut job: Job) {
        loop {
            let wakes = self.shared.wakes();
            let state = self.cow.state.lock();
            if state.health != Health::Good {
                drop(state);
                return job.fail(Errno::EIO);
            }
            let (geometry, size) = (state.geometry, state.cow_size);
            let chunk = geometry.chunk_of(job.start());
            if let Some(found) = state.runs.find(chunk) {
                drop(state);
                let to = in_store(geometry, size, found, job.start());
                return self.forward(job, to);
            }
            let counted = self.cow.tracker(chunk).begin();
            drop(state);
            if counted {
                job.set_tag(COUNTED);
                let from = Place { component: self.origin, sector: job.start() };
                return job.forward_each(&[from]);
            }
            job = match self.shared.wait(job, wakes) {
                Some(job) => job,
                None => return,
            };
        }
    }

    /// The result of a read of the origin for which the target is asked. Once the snapshot is lost
    /// the origin's writes do not wait for reads, so that the read fails. Until then they have
    /// waited for this one, whose data are those of the snapshot.
    pub(super) fn unless_lost(&self, result: Result<(), Errno>) -> Result<(), Errno> {
        if self.cow.state.lock().health != Health::Good { Err(Errno::EIO) } else { result }
    }

    /// Sends a write to its chunk's exception; where there is none, the write makes it, or is
    /// queued until it is made. Context: as for [`Snapshot::read`].
    pub(super) fn write(&self, mut job: Job) {
        loop {
            let wakes = self.shared.wakes();
            if job.tag() & OWN != 0 {
                let (good, over) = {
                    let state = self.cow.state.lock();
                    (state.health == Health::Good, state.is_over(job.tag() & !OWN))
                };
                match (good, over) {
                    (false, _) => return job.fail(Errno::EIO),
                    (true, true) => return job.done(),
                    (true, false) => {}
                }
            } else {
                let (geometry, origin) = {
                    let state = self.cow.state.lock();
                    (state.geometry, state.origin_size)
                };
                let (start, length) = (job.start(), job.length());
                // The last chunk ends with the origin.
                let left = origin.0.saturating_sub(start.0).min(geometry.chunk().0);
                let whole = geometry.within(start, geometry.chunk()) == geometry.chunk()
                    && length.0 >= left;
                match self.cow.write(geometry.chunk_of(start), whole) {
                    Write::Fail => return job.fail(Errno::EIO),
                    Write::There(found, size) => {
                        let to = in_store(geometry, size, found, start);
                        return self.forward(job, to);
                    }
                    Write::Own(number, new) => {
                        let Some(to) = geometry.sector(new) else { return job.fail(Errno::EIO) };
                        job.set_tag(OWN | number & !COUNTED);
                        return job.forward_each(&[self.place(to)]);
                    }
                    Write::Wait => {}
                }
            }
            job = match self.shared.wait(job, wakes) {
                Some(job) => job,
                None => return,
            };
        }
    }

    /// Serves a discard. Where it covers a chunk that has an exception, the exception reads as
    /// zeroes from then on.
    pub(super) async fn discard(&self, job: Job, lane: &mut Lane) {
        if !self.features.zeroes {
            return job.fail(Errno::EOPNOTSUPP);
        }
        let (start, end) = (job.start().0, job.start().0.saturating_add(job.length().0));
        let mut result = Ok(());
        let (mut at, mut looked_at) = (start, 0u32);
        while at < end && result.is_ok() {
            // Many chunks may have no exception; the runner has other lanes.
            looked_at = looked_at.wrapping_add(1);
            if looked_at.is_multiple_of(LOOKED_AT) {
                lane.yield_now().await;
            }
            let (geometry, size, good, found) = {
                let state = self.cow.state.lock();
                let chunk = state.geometry.chunk_of(Sector(at));
                (
                    state.geometry,
                    state.cow_size,
                    state.health == Health::Good,
                    state.runs.find(chunk),
                )
            };
            let some = geometry.within(Sector(at), Sector(end.wrapping_sub(at)));
            if !good {
                result = Err(Errno::EIO);
            } else if let Some(found) = found
                && some == geometry.chunk()
                && let Some(to) = in_store(geometry, size, found, Sector(at))
            {
                result = self.zero(to, some, lane).await;
            }
            at = at.saturating_add(some.0.max(1));
        }
        if self.features.passes && result.is_ok() {
            let from = Place { component: self.origin, sector: job.start() };
            result = lane.discard(from, job.length()).await;
        }
        job.end(result);
    }
}
