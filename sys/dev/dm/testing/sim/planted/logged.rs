// SPDX-License-Identifier: BSD-2-Clause

//! `log-writes` with planted bugs: variants of the driver's own target that treat a flush wrong.

use alloc::string::String;
use core::fmt;

use crate::job::{Job, Op};
use crate::lane::Lane;
use crate::mistake::Mistake;
use crate::target::{
    ComponentIndex, Devs, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType,
};
use crate::targets::log_writes::{FLUSH, LogWrites};
use crate::worker::{Needs, Quiesce, Worker};
use crate::{Errno, Sector};

/// The bug of a variant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    /// The device is not flushed.
    Unflushed,
    /// A flush is acknowledged before it is in the log.
    Early,
    /// The log has the writes before a flush, but not those that the flush itself made durable.
    Behind,
}

const fn kind(
    name: &'static str,
    new: fn(&mut LineSpec<'_>) -> Result<Made, Mistake>,
) -> TargetType {
    TargetType { name, version: [1, 0, 0], new }
}

static UNFLUSHED: TargetType = kind("log-unflushed", |line| new(line, Bug::Unflushed));
static EARLY: TargetType = kind("log-early", |line| new(line, Bug::Early));
static BEHIND: TargetType = kind("log-behind", |line| new(line, Bug::Behind));
/// The types of all variants.
pub static TYPES: &[&TargetType] = &[&UNFLUSHED, &EARLY, &BEHIND];

struct Logged {
    log: LogWrites,
    bug: Bug,
}

fn new(line: &mut LineSpec<'_>, bug: Bug) -> Result<Made, Mistake> {
    Ok(Made::serves(Logged { log: LogWrites::of(line)?, bug }))
}

impl Target for Logged {
    fn kind(&self) -> &'static TargetType {
        match self.bug {
            Bug::Unflushed => &UNFLUSHED,
            Bug::Early => &EARLY,
            Bug::Behind => &BEHIND,
        }
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        self.log.map(io)
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        self.log.table(out, devs)
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        self.log.extents(length, each);
    }

    fn locate(
        &self,
        component: ComponentIndex,
        sector: Sector,
        length: Sector,
        each: &mut dyn FnMut(Sector),
    ) {
        self.log.locate(component, sector, length, each);
    }

    fn message(&self, text: &str, reply: &mut String) -> Result<(), Errno> {
        self.log.message(text, reply)
    }
}

impl Worker for Logged {
    fn needs(&self) -> Needs {
        self.log.needs()
    }

    async fn serve(&self, job: Job, lane: &mut Lane) {
        if job.op() != Op::Flush {
            return self.log.serve(job, lane).await;
        }
        let before = self.log.next_unflushed();
        match self.bug {
            Bug::Unflushed => {
                self.log.commit(before, Some(FLUSH), lane).await;
                job.end(Ok(()));
            }
            Bug::Early => {
                let flushed = lane.flush(&[ComponentIndex(0)]).await.ok();
                let logs = flushed.is_ok();
                job.end(flushed);
                if logs {
                    self.log.commit(before, Some(FLUSH), lane).await;
                }
            }
            Bug::Behind => {
                let flushed = lane.flush(&[ComponentIndex(0)]).await.ok();
                if flushed.is_ok() {
                    self.log.commit(before.saturating_sub(1), Some(FLUSH), lane).await;
                }
                job.end(flushed);
            }
        }
    }

    async fn background(&self, number: usize, lane: &mut Lane) {
        self.log.background(number, lane).await;
    }

    async fn start(&self, lane: &mut Lane) -> Result<(), Errno> {
        self.log.start(lane).await
    }

    async fn stop(&self, lane: &mut Lane) {
        self.log.stop(lane).await;
    }

    fn suspending(&self, how: Quiesce) {
        self.log.suspending(how);
    }
}
