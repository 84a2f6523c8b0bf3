// SPDX-License-Identifier: BSD-2-Clause

//! `verity TYPE DEV HASHDEV DATABLOCK HASHBLOCK #BLOCKS START HASH ROOT SALT [#OPTIONS OPTION…]`: the content of one
//! component, read-only, of which no block is given that is not the one that was hashed. A tree of digests on another
//! component, or behind the data, leads from the root's digest, which the table has, to each block; its shape is in
//! `tree.rs`. The superblock that programs put before a tree is theirs: the table says all that it says.
//!
//! A read is a job. One of whole data blocks goes to the component from its sender's thread, into the sender's memory, and
//! is verified there: by that thread if the component has answered at once and all hash blocks are in the cache, else by
//! a lane. If a block is wrong all of the read's memory is cleared. Of a read with part of a block a lane reads whole ones
//! into its own buffer, and copies what was asked for. For each block the lane looks for the lowest hash block above that was
//! verified and is in the cache (`cache.rs`), reads and verifies those below it, top down, and compares. One lane at a time
//! loads a hash block; others that want it wait for that lane. So each is read once for as long as there is room to keep it.
//!
//! | a hash block | is in | left by |
//! |---|---|---|
//! | not known | no slot | a lane claims a slot for it |
//! | being loaded | a slot, its memory with the lane | verified: valid; wrong or not read: not known |
//! | valid | a slot | the slot is claimed for another block |

use alloc::vec;
use core::ffi::CStr;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dm_sync::Spin;

use crate::hash::Digest;
use crate::host::End;
use crate::job::{Job, Op, Place};
use crate::lane::{Lane, Outcome, Signal};
use crate::table::{LineSpec, Mistake};
use crate::target::{ComponentIndex, Devs, Extent, IoRange, Made, Mapping, Target, TargetType};
use crate::targets::mirror::bits::{SharedBits, words};
use crate::worker::{Needs, Worker};
use crate::{Errno, Sector, limits};

mod cache;
mod params;
mod tree;

#[cfg(test)]
mod tests;

use cache::{Cache, Lookup};
use params::{Mode, Params};
use tree::{Spot, Tree};

/// The target type `verity`.
pub static TYPE: TargetType = TargetType { name: "verity", version: [1, 7, 0], new };

/// Lanes of a line.
const LANES: usize = 8;

/// Bytes of data that a lane reads at once, at least a block.
const BATCH: u32 = 64 * 1024;

/// The number of wrong blocks that the console is told of.
const MESSAGES: u32 = 100;

struct Verity {
    params: Params,
    tree: Tree,
    /// The digest of a block of zeroes, where such blocks are not compared.
    zeroes: Option<Digest>,
    /// A bit for each data block that was right, with `check_at_most_once`.
    seen: Option<SharedBits>,
    cache: Spin<Cache>,
    /// Raised when a hash block is not being loaded any more.
    loaded: Signal,
    /// `true` once a block was not the one that was hashed.
    corrupted: AtomicBool,
    /// The number of wrong blocks that the console was told of.
    told: AtomicU32,
    /// Threads that serve: one for each CPU, as far as there are lanes.
    threads: usize,
}

/// In a job's tag: its data are read, and only to be verified.
const READ: u64 = 1;

/// The last words of a system that is ended.
const WHY: &CStr =
    c"dm: verity: a device is corrupted, and its table says that this ends the system";

/// The kinds of block.
#[derive(Clone, Copy)]
enum Kind {
    Data,
    Hash,
}

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

/// Some bytes of a buffer; none if they are not there.
fn part(buffer: &mut [u8], from: usize, length: usize) -> &mut [u8] {
    buffer.get_mut(from..).and_then(|rest| rest.get_mut(..length)).unwrap_or(&mut [])
}

/// `true` if a bit is set. A lane reads no more blocks at once than there are bits.
fn bit(bits: u128, n: u64) -> bool {
    bits.checked_shr(n as u32).unwrap_or(0) & 1 != 0
}

/// Bytes in some sectors of a buffer.
fn bytes(sectors: u64) -> usize {
    Sector(sectors).to_bytes().unwrap_or(0) as usize
}

impl Verity {
    /// Bytes of a lane's buffer that are for data blocks; a hash block stands behind them.
    fn batch(&self) -> u32 {
        BATCH.max(self.params.data_bytes)
    }

    /// Answers a read: all of it is right, or nothing is given but what came before a block that is not.
    async fn read(&self, job: &mut Job, lane: &mut Lane) -> Result<(), Errno> {
        let unit = self.params.data_sectors();
        let most = u64::from(self.batch() / self.params.data_bytes.max(1)).max(1);
        let (start, end) = (job.start().0, job.start().0.saturating_add(job.length().0));
        let (mut block, last) = (start / unit, end.div_ceil(unit));
        while block < last {
            let count = last.wrapping_sub(block).min(most);
            // Neither product wraps: the line has these blocks.
            let (from, length) = (block.wrapping_mul(unit), count.wrapping_mul(unit));
            let place = Place { component: self.params.data, sector: Sector(from) };
            // What is read now may be older than what is found right meanwhile.
            let seen = self.seen_before(block, count);
            lane.read(place, Sector(length)).await?;
            for n in (0..count).filter(|n| !bit(seen, *n)) {
                self.check(block.wrapping_add(n), n, lane).await?;
            }
            // The part of these blocks that was asked for.
            let (first, behind) = (from.max(start), from.saturating_add(length).min(end));
            let wanted = bytes(behind.saturating_sub(first));
            let found = part(lane.buffer(), bytes(first.saturating_sub(from)), wanted);
            let given = job.with_data(|data| {
                let to = part(data, bytes(first.saturating_sub(start)), wanted);
                let fits = to.len() == found.len() && to.len() == wanted;
                if fits {
                    to.copy_from_slice(found);
                }
                fits
            });
            if given != Some(true) {
                return Err(Errno::EIO);
            }
            block = block.wrapping_add(count);
        }
        Ok(())
    }

    /// Compares a data block, which is the lane's `n`th, with its digest.
    async fn check(&self, block: u64, n: u64, lane: &mut Lane) -> Result<(), Errno> {
        let want = self.expected(block, lane).await?;
        match self.is_right(lane.buffer(), n, block, want) {
            true => Ok(()),
            false => self.wrong(Kind::Data, block, lane),
        }
    }

    /// `true` if the `n`th block of a buffer, which is this data block, has its digest.
    fn is_right(&self, buffer: &mut [u8], n: u64, block: u64, want: Digest) -> bool {
        let size = self.params.data_bytes as usize;
        let data = part(buffer, (n as usize).saturating_mul(size), size);
        if self.zeroes == Some(want) {
            data.fill(0);
            return true;
        }
        let right = self.params.digest(data) == want;
        if let Some(seen) = self.seen.as_ref().filter(|_| right) {
            seen.put(block, true);
        }
        right
    }

    /// The data blocks of a job that has whole ones: the first, and how many.
    fn blocks(&self, job: &Job) -> (u64, u64) {
        let unit = self.params.data_sectors();
        (job.start().0 / unit, job.length().0 / unit)
    }

    /// `true` if all of a job's data are right as far as the cache has the digests. What is not is a lane's to say.
    fn verify_at_once(&self, job: &mut Job) -> bool {
        let (first, count) = self.blocks(job);
        (0..count).all(|n| {
            let block = first.wrapping_add(n);
            let spot = self.tree.spot(block, 0);
            let found = spot.and_then(|spot| self.cache.lock().get(spot));
            found.is_some_and(|want| {
                job.with_data(|data| self.is_right(data, n, block, want)).unwrap_or(false)
            })
        })
    }

    /// Compares a job's data, which are read. If they are wrong they are cleared.
    async fn verify(&self, job: &mut Job, lane: &mut Lane) -> Result<(), Errno> {
        let (first, count) = self.blocks(job);
        let mut result = Ok(());
        for n in 0..count {
            let block = first.wrapping_add(n);
            result = match self.expected(block, lane).await {
                Ok(want) => match job.with_data(|data| self.is_right(data, n, block, want)) {
                    Some(true) => Ok(()),
                    Some(false) => self.wrong(Kind::Data, block, lane),
                    None => Err(Errno::EIO),
                },
                Err(errno) => Err(errno),
            };
            if result.is_err() {
                job.with_data(|data| data.fill(0));
                break;
            }
        }
        result
    }

    /// The digest that a data block is to have.
    async fn expected(&self, block: u64, lane: &mut Lane) -> Result<Digest, Errno> {
        let levels = self.tree.levels();
        // The lowest level whose block is there.
        let (mut level, mut digest) = (levels, self.params.root);
        for at in 0..levels {
            let spot = self.tree.spot(block, at).ok_or(Errno::EIO)?;
            if let Some(found) = self.cache.lock().get(spot) {
                (level, digest) = (at, found);
                break;
            }
        }
        if level > 0 {
            self.keep_above(block, level);
        }
        while let Some(below) = level.checked_sub(1) {
            level = below;
            let spot = self.tree.spot(block, level).ok_or(Errno::EIO)?;
            digest = self.load(spot, digest, lane).await?;
        }
        Ok(digest)
    }

    /// Has the blocks from a level on, above a data block, be the last to give up their slots: blocks below them are
    /// about to be loaded, and more may be.
    fn keep_above(&self, block: u64, level: usize) {
        for at in level..self.tree.levels() {
            if let Some(spot) = self.tree.spot(block, at) {
                self.cache.lock().touch(spot.block);
            }
        }
    }

    /// The digest at a spot, whose block is read unless it is there, and is to have the digest `want`.
    async fn load(&self, spot: Spot, want: Digest, lane: &mut Lane) -> Result<Digest, Errno> {
        let look = || match self.cache.lock().claim(spot) {
            Lookup::Loading => None,
            Lookup::Digest(digest) => Some(Ok(digest)),
            Lookup::Claimed(claim) => Some(Err(claim)),
        };
        let mut claim = match lane.until(&self.loaded, look).await {
            Ok(digest) => return Ok(digest),
            Err(claim) => claim,
        };
        let (unit, batch) = (self.params.hash_sectors(), u64::from(self.batch()));
        // The product does not wrap: the tree lies on its component.
        let place =
            Place { component: self.params.tree, sector: Sector(spot.block.wrapping_mul(unit)) };
        let behind = Sector::from_bytes(batch).ok_or(Errno::EIO)?;
        let read = lane.read_at(place, Sector(unit), behind).await;
        let size = self.params.hash_bytes as usize;
        let found = part(lane.buffer(), batch as usize, size);
        let right = read.is_ok() && self.params.digest(found) == want;
        let digest = cache::copy(found, spot.offset, self.params.hash.size());
        if let Some(mut claim) = claim.take() {
            let slot = claim.data();
            let fits = slot.len() == found.len();
            if right && fits {
                slot.copy_from_slice(found);
            }
            self.cache.lock().put(claim, right && fits);
            lane.raise(&self.loaded);
        }
        read?;
        if !right {
            self.wrong(Kind::Hash, spot.block, lane)?;
        }
        digest.ok_or(Errno::EIO)
    }

    /// A block is not the one that was hashed.
    ///
    /// # Errors
    /// EIO, unless corruption is to be ignored.
    #[cold]
    fn wrong(&self, kind: Kind, block: u64, lane: &Lane) -> Result<(), Errno> {
        let what = match kind {
            Kind::Data => "data",
            Kind::Hash => "hash",
        };
        if self
            .told
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1))
            .is_ok_and(|n| n < MESSAGES)
        {
            lane.say(format_args!("verity: {what} block {block} is corrupted"));
        }
        if !self.corrupted.swap(true, Ordering::Relaxed) {
            lane.raise_event();
        }
        match self.params.mode {
            Mode::Fail => Err(Errno::EIO),
            Mode::Ignore => Ok(()),
            Mode::Restart => {
                lane.end_system(End::Restart, WHY);
                Err(Errno::EIO)
            }
            Mode::Panic => {
                lane.end_system(End::Panic, WHY);
                Err(Errno::EIO)
            }
        }
    }

    /// A bit for each of `count` blocks that was right before.
    fn seen_before(&self, block: u64, count: u64) -> u128 {
        let Some(seen) = &self.seen else { return 0 };
        let right = (0..count).filter(|n| seen.get(block.wrapping_add(*n)));
        right.fold(0, |all, n| all | 1u128.checked_shl(n as u32).unwrap_or(0))
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
        each(Extent { component: self.params.data, start: Sector::ZERO, length });
        let unit = self.params.hash_sectors();
        // Neither product wraps: the tree lies on its component.
        let start = Sector(self.params.start.wrapping_mul(unit));
        let blocks = self.tree.end().wrapping_sub(self.params.start);
        if blocks > 0 {
            let length = Sector(blocks.wrapping_mul(unit));
            each(Extent { component: self.params.tree, start, length });
        }
    }

    fn locate(
        &self,
        component: ComponentIndex,
        sector: Sector,
        length: Sector,
        each: &mut dyn FnMut(Sector),
    ) {
        if component == self.params.data && sector < length {
            each(sector);
        }
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
        match job.op() {
            Op::Read if job.start().is_aligned(unit) && job.length().is_aligned(unit) => {
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
        let result = match job.tag() {
            READ => self.verify(&mut job, lane).await,
            _ => self.read(&mut job, lane).await,
        };
        job.end(result);
    }
}
