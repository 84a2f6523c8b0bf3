// SPDX-License-Identifier: BSD-2-Clause

//! `verity TYPE DEV HASHDEV DATABLOCK HASHBLOCK #BLOCKS START HASH ROOT SALT [#OPTIONS OPTION…]`:
//! the content of one component, read-only, of which no block is given that is not the one that was
//! hashed. A tree of digests on another component, or behind the data, leads from the root's
//! digest, which the table has, to each block; its shape is in `tree.rs`. The superblock that
//! programs put before a tree is for them: the table has all that it has.
//!
//! A read is a job. One of whole data blocks goes to the component from its sender's thread, into
//! the sender's memory, and is verified there: by that thread if the component has answered at once
//! and all hash blocks are in the cache, else by a lane. Of a read with part of a block, and of
//! every read with `check_at_most_once`, a lane reads whole ones into its own buffer, and copies
//! what was asked for. It does so, once more or for the first time, if a block is wrong: the
//! sender's memory may be written by others. If it is wrong there, too, it is reported, and all of
//! the read's memory is cleared. For each block the lane looks for the lowest hash block above that
//! was verified and is in the cache (`cache.rs`), reads and verifies those below it, top down,
//! and compares. One lane at a time loads a hash block; lanes that want it meanwhile wait for that
//! one. So each is read once for as long as there is room to keep it.
//!
//! | a hash block | is in | left by |
//! |---|---|---|
//! | not known | no slot | a lane claims a slot for it |
//! | being loaded | a slot, its memory with the lane | verified: valid; else: not known |
//! | valid | a slot | the slot is claimed for another block |

use alloc::vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dm_sync::Spin;

use crate::hash::Digest;
use crate::job::{Job, Op, Place};
use crate::lane::{Lane, Outcome, Signal};
use crate::mistake::Mistake;
use crate::target::{Devs, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType};
use crate::targets::bits::{SharedBits, words};
use crate::worker::{Needs, Worker};
use crate::{Errno, Sector, limits};

mod cache;
mod params;
mod tree;
mod verify;

#[cfg(test)]
mod tests;

use cache::Cache;
use params::Params;
use tree::Tree;

/// The target type `verity`.
pub static TYPE: TargetType = TargetType { name: "verity", version: [1, 7, 0], new };

/// Lanes of a line.
const LANES: usize = 8;

/// Bytes of data that a lane reads at once, at least a block.
const BATCH: u32 = 64 * 1024;

/// A `verity` line.
///
/// Fields are marked by what protects them: (-) never changes; (a) atomic; (l) a lock of its own.
struct Verity {
    /// (-) The line's parameters.
    params: Params,
    /// (-) The shape of the tree of digests.
    tree: Tree,
    /// (-) The digest of a block of zeroes, where such blocks are not compared.
    zeroes: Option<Digest>,
    /// (a) A bit for each data block that was right, with `check_at_most_once`. Bits are set, and
    /// never cleared.
    seen: Option<SharedBits>,
    /// (l) Hash blocks that were verified.
    cache: Spin<Cache>,
    /// (a) Raised when a hash block is not being loaded any more.
    loaded: Signal,
    /// (a) `true` once a block was not the one that was hashed.
    corrupted: AtomicBool,
    /// (a) The number of wrong blocks that were reported on the console.
    told: AtomicU32,
    /// (-) The number of threads that the line asks for: one for each CPU, as far as there are
    /// lanes.
    threads: usize,
}

/// The bit in a job's tag that says that the job's data were read, and are only to be verified.
const READ: u64 = 1;

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    let (params, tree) = Params::new(line)?;
    let (bytes, blocks) = (params.hash_bytes as usize, tree.end().saturating_sub(params.start));
    line.reserve(cache::bytes(blocks, bytes, limits::VERITY_CACHE))?;
    line.reserve(params.salt.len())?;
    let seen = match params.once {
        true => {
            line.reserve(words(params.blocks).saturating_mul(4))?;
            Some(SharedBits::new(params.blocks))
        }
        false => None,
    };
    let zeroes = params.ignore_zeroes.then(|| {
        let block = vec![0; params.data_bytes as usize];
        params.digest(&block)
    });
    let cache = Cache::new(blocks, bytes, limits::VERITY_CACHE, params.hash.size());
    Ok(Made::serves(Verity {
        params,
        tree,
        zeroes,
        seen,
        cache: Spin::new(cache),
        loaded: Signal::new(),
        corrupted: AtomicBool::new(false),
        told: AtomicU32::new(0),
        threads: line.cpus().clamp(1, LANES),
    }))
}

impl Verity {
    /// Bytes of a lane's buffer that are for data blocks; a hash block stands behind them.
    fn batch(&self) -> u32 {
        BATCH.max(self.params.data_bytes)
    }

    /// `true` if all blocks of a range were right before, and need not be looked at again.
    fn is_seen(&self, io: &IoRange) -> bool {
        let Some(seen) = &self.seen else { return false };
        let unit = self.params.data_sectors();
        let last = io.start.0.saturating_add(io.length.0).div_ceil(unit);
        (io.start.0 / unit..last).all(|block| seen.get(block))
    }
}

impl Target for Verity {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        if io.is_write() {
            return Mapping::Fail { length: io.length, error: Errno::EIO };
        }
        match self.is_seen(io) {
            true => {
                Mapping::Send { component: self.params.data, start: io.start, length: io.length }
            }
            false => Mapping::Take { length: io.length, queue: 0 },
        }
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        self.params.print(out, devs)
    }

    fn status(&self, out: &mut dyn fmt::Write, _devs: &Devs<'_>) -> fmt::Result {
        out.write_str(if self.corrupted.load(Ordering::Relaxed) { "C" } else { "V" })
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        self.shown(length, each);
        let unit = self.params.hash_sectors();
        // Neither product wraps: the tree lies on its component.
        let start = Sector(self.params.start.wrapping_mul(unit));
        let blocks = self.tree.end().wrapping_sub(self.params.start);
        if blocks > 0 {
            let length = Sector(blocks.wrapping_mul(unit));
            each(Extent { component: self.params.tree, start, length });
        }
    }

    fn shown(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        each(Extent { component: self.params.data, start: Sector::ZERO, length });
    }
}

impl Worker for Verity {
    fn needs(&self) -> Needs {
        Needs {
            queues: vec![LANES],
            buffer: (self.batch() as usize).saturating_add(self.params.hash_bytes as usize),
            threads: self.threads,
            ..Needs::default()
        }
    }

    /// Nothing is ever written, so that there is nothing to flush.
    fn at_once(&self, job: Job) -> Option<Job> {
        let unit = self.params.data_bytes;
        let whole = job.start().is_aligned(unit) && job.length().is_aligned(unit);
        match job.op() {
            // What is found right once and for all must lie where nobody else writes.
            Op::Read if whole && self.seen.is_none() => {
                let place = Place { component: self.params.data, sector: job.start() };
                job.forward_each(&[place]);
                None
            }
            Op::Read => Some(job),
            Op::Flush => {
                job.done();
                None
            }
            Op::Write | Op::Discard => {
                job.fail(Errno::EIO);
                None
            }
        }
    }

    fn answered(&self, mut job: Job, outcome: Outcome) -> Option<Job> {
        if let Err(errno) = outcome.ok() {
            // The component may have moved some of it, which nobody has verified.
            job.with_data(|data| data.fill(0));
            job.fail(errno);
            return None;
        }
        job.set_tag(READ);
        if job.may_compute() && self.verify_at_once(&mut job) {
            job.done();
            return None;
        }
        Some(job)
    }

    async fn serve(&self, mut job: Job, lane: &mut Lane) {
        let was_read = job.tag() == READ;
        let mut right = if was_read { self.verify(&mut job, lane).await } else { Ok(false) };
        // A second time, and last, into the lane's buffer.
        let mut last = was_read;
        while right == Ok(false) {
            right = self.read(&mut job, last, lane).await;
            last = true;
        }
        if right.is_err() {
            job.with_data(|data| data.fill(0));
        }
        job.end(right.map(drop));
    }
}
