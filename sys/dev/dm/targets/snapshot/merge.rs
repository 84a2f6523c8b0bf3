// SPDX-License-Identifier: BSD-2-Clause

//! `snapshot-merge ORIGIN STORE P|PO CHUNK [#FEATURES FEATURE…]`: a snapshot that becomes its
//! origin's content, while it shows that already.
//!
//! The line takes the place of the origin's and the snapshot's: it shows what the snapshot did, and
//! is written in the origin's stead, so that the origin's other snapshots get their copies. A chunk
//! that has an exception is read and written in the store, one that has none on the origin; no
//! exception is made any more. The chunks in the store are brought back in the background
//! (`merging.rs`), and writes of a chunk wait during its turn (`cow/merging.rs`).
//!
//! A snapshot that is lost cannot be merged: the line shows the origin then.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use super::cow::{Kind, Put};
use super::{COUNTED, Snapshot, in_store, invalid, keep, merging, parse};
use crate::job::{Job, Op, Place};
use crate::lane::{Lane, Outcome};
use crate::mistake::Mistake;
use crate::target::{Devs, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType};
use crate::worker::{Needs, Worker};
use crate::{Errno, Sector};

/// The target type `snapshot-merge`.
pub static TYPE: TargetType = TargetType { name: "snapshot-merge", version: [1, 5, 0], new };

/// The number of resident lanes, which end the work that was begun before merging.
const RESIDENTS: usize = keep::COPIES + 1;

/// A `snapshot-merge` line.
///
/// Fields are marked by what protects them: (-) never changes; (a) atomic.
struct Merge {
    /// (-) The snapshot that is merged.
    of: Snapshot,
    /// (a) `true` if there was I/O since copying looked last.
    used: AtomicBool,
}

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    let mut of = parse(line, true)?;
    // The kind that this line names, or that of the table which has the store already.
    if of.kind == Kind::Transient || of.cow.state.lock().kind == Kind::Transient {
        return Err(invalid("a store that is kept in memory cannot be merged"));
    }
    if !of.shared.begin_merge(&of.cow) {
        return Err(invalid("another snapshot of the origin is being merged"));
    }
    of.merges = true;
    Ok(Made::serves(Merge { of, used: AtomicBool::new(false) }))
}

impl Merge {
    fn on_origin(&self, sector: Sector) -> Place {
        Place { component: self.of.origin, sector }
    }

    /// Sends a job to where its chunk is, or queues it until something has changed. Context: thread
    /// or soft interrupt, with no lock held; sleeps in a thread, where a component's d_strategy
    /// does.
    fn send(&self, mut job: Job) {
        let of = &self.of;
        loop {
            let wakes = of.shared.wakes();
            let (start, write) = (job.start(), job.is_write());
            let (put, geometry, size) = of.cow.put(start, write);
            match put {
                Put::Store(found) => {
                    let to = in_store(geometry, size, found, start);
                    if !write {
                        return of.forward(job, to);
                    }
                    job.set_tag(COUNTED);
                    return match to {
                        Some(to) => job.forward_each(&[of.place(to)]),
                        None => self.written(job, Err(Errno::EIO)),
                    };
                }
                Put::Fail => return job.fail(Errno::EIO),
                Put::Origin if !write || of.shared.ask(start, job.length()) => {
                    return job.forward(self.on_origin(start));
                }
                Put::Origin | Put::Wait => {}
            }
            job = match of.shared.wait(job, wakes) {
                Some(job) => job,
                None => return,
            };
        }
    }

    /// Ends a write of the store that was counted as in flight. Context: thread or soft interrupt,
    /// with no lock held.
    fn written(&self, job: Job, result: Result<(), Errno>) {
        self.of.end_tracked(self.of.tracker_of(job.start()));
        job.end(result);
    }
}

impl Target for Merge {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        self.used.store(true, Ordering::Relaxed);
        let (start, mut length, queue) = (io.start, io.length, 0);
        if io.op == Op::Discard {
            return Mapping::Take { length, queue };
        }
        let of = &self.of;
        {
            let state = of.cow.state.lock();
            if !state.is_kept_by(of.table) {
                // The table has not started.
                return Mapping::Take { length, queue };
            }
            if !state.is_merged() {
                length = state.geometry.within(start, length);
                match state.put(state.geometry.chunk_of(start), io.is_write()) {
                    Put::Store(found) if !io.is_write() => {
                        return match in_store(state.geometry, state.cow_size, found, start) {
                            Some(start) => Mapping::Send { component: of.store, start, length },
                            None => Mapping::Fail { length, error: Errno::EIO },
                        };
                    }
                    Put::Fail => return Mapping::Fail { length, error: Errno::EIO },
                    Put::Store(_) | Put::Wait => return Mapping::Take { length, queue },
                    Put::Origin => {}
                }
            }
        }
        // Nothing makes an exception of the chunk any more.
        let clear = if io.is_write() { of.shared.clear(start, length) } else { Ok(length) };
        match clear {
            Ok(length) => Mapping::Send { component: of.origin, start, length },
            Err(length) => Mapping::Take { length, queue },
        }
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        self.of.table(out, devs)
    }

    fn status(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        self.of.status(out, devs)
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        self.of.extents(length, each);
    }

    /// Names the origin only, since what is on the origin shows in the line, or will. Of the store
    /// only chunks that were given to it are written.
    fn shown(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        each(Extent { component: self.of.origin, start: Sector::ZERO, length });
    }
}

impl Worker for Merge {
    fn needs(&self) -> Needs {
        Needs {
            background: 1,
            background_buffer: merging::buffer(super::bytes(self.of.unit)),
            buffer: 0,
            residents: RESIDENTS,
            ..Worker::needs(&self.of)
        }
    }

    fn at_once(&self, job: Job) -> Option<Job> {
        match job.op() {
            Op::Read | Op::Write => self.send(job),
            Op::Flush | Op::Discard => return Some(job),
        }
        None
    }

    fn answered(&self, job: Job, outcome: Outcome) -> Option<Job> {
        self.written(job, outcome.ok());
        None
    }

    async fn serve(&self, job: Job, lane: &mut Lane) {
        match job.op() {
            Op::Read | Op::Write => self.send(job),
            Op::Flush => {
                // A chunk's content is in one place or the other.
                let both = [self.of.origin, self.of.store];
                let merged = self.of.cow.state.lock().is_merged();
                let places = both.get(..if merged { 1 } else { 2 }).unwrap_or(&both);
                job.end(lane.flush(places).await.ok());
            }
            // As in Linux: what is not needed stays what it is.
            Op::Discard if self.of.features.zeroes => job.done(),
            Op::Discard => job.fail(Errno::EOPNOTSUPP),
        }
    }

    async fn background(&self, _number: usize, lane: &mut Lane) {
        self.of.merge(&self.used, lane).await;
    }

    async fn resident(&self, number: usize, lane: &mut Lane) {
        self.of.resident(number, lane).await;
    }

    async fn start(&self, lane: &mut Lane) -> Result<(), Errno> {
        self.of.begin(lane).await
    }

    async fn stop(&self, lane: &mut Lane) {
        self.of.stop(lane).await;
    }
}
