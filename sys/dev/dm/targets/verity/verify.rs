// SPDX-License-Identifier: BSD-2-Clause

//! The verification of a verity device's reads: data blocks are compared with their digests, and
//! the hash blocks that have those are read and verified from the root down.

use core::ffi::CStr;
use core::sync::atomic::Ordering;

use super::Verity;
use super::cache::{self, Lookup};
use super::params::Mode;
use super::tree::Spot;
use crate::hash::Digest;
use crate::host::End;
use crate::job::{Job, Place};
use crate::lane::Lane;
use crate::{Errno, Sector};

/// The most wrong blocks that are reported on the console.
const MESSAGES: u32 = 100;

/// The message with which a system is ended.
const WHY: &CStr =
    c"dm: verity: a device is corrupted, and its table says that this ends the system";

/// The kinds of block.
#[derive(Clone, Copy)]
enum Kind {
    Data,
    Hash,
}

/// A part of a buffer; empty if the buffer does not have it.
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
    /// Serves a read by way of the lane's buffer. `false` if a block is wrong, but where `last` is
    /// `true` that is reported.
    ///
    /// # Errors
    /// A component's, or EIO for a wrong block that is reported, unless corruption is to be
    /// ignored.
    pub(super) async fn read(
        &self,
        job: &mut Job,
        last: bool,
        lane: &mut Lane,
    ) -> Result<bool, Errno> {
        let unit = self.params.data_sectors();
        let most = u64::from(self.batch() / self.params.data_bytes.max(1)).max(1);
        let (start, end) = (job.start().0, job.start().0.saturating_add(job.length().0));
        let (mut block, behind) = (start / unit, end.div_ceil(unit));
        while block < behind {
            let count = behind.wrapping_sub(block).min(most);
            // Neither product wraps: the line has these blocks.
            let (from, length) = (block.wrapping_mul(unit), count.wrapping_mul(unit));
            let place = Place { component: self.params.data, sector: Sector(from) };
            // Looked up before the read: its data may be older than a block that another read finds
            // right meanwhile.
            let seen = self.seen_before(block, count);
            lane.read(place, Sector(length)).await?;
            for n in (0..count).filter(|n| !bit(seen, *n)) {
                if !self.check(block.wrapping_add(n), n, last, lane).await? {
                    return Ok(false);
                }
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
        Ok(true)
    }

    /// Compares a data block, the `n`th in the lane's buffer, with its digest. `false` if it is
    /// wrong, but where `last` is `true` that is reported.
    ///
    /// # Errors
    /// A component's, or EIO for a wrong block that is reported, unless corruption is to be
    /// ignored.
    async fn check(&self, block: u64, n: u64, last: bool, lane: &mut Lane) -> Result<bool, Errno> {
        let want = self.expected(block, lane).await?;
        let right = self.is_right(lane.buffer(), n, want);
        if !right && last {
            return self.wrong(Kind::Data, block, lane).map(|()| true);
        }
        // Nobody else writes the buffer. A block of zeroes was not looked at.
        let looked = right && self.zeroes != Some(want);
        if let Some(seen) = self.seen.as_ref().filter(|_| looked) {
            seen.put(block, true);
        }
        Ok(right)
    }

    /// `true` if the `n`th block of a buffer has this digest.
    fn is_right(&self, buffer: &mut [u8], n: u64, want: Digest) -> bool {
        let size = self.params.data_bytes as usize;
        let data = part(buffer, (n as usize).saturating_mul(size), size);
        if self.zeroes == Some(want) {
            data.fill(0);
            return true;
        }
        self.params.digest(data) == want
    }

    /// The data blocks of a job that has whole ones: the first, and how many.
    fn blocks(&self, job: &Job) -> (u64, u64) {
        let unit = self.params.data_sectors();
        (job.start().0 / unit, job.length().0 / unit)
    }

    /// `true` if all of a job's data are right, by digests that are in the cache; else a lane is to
    /// verify them. Context: the thread of the job's sender.
    pub(super) fn verify_at_once(&self, job: &mut Job) -> bool {
        let (first, count) = self.blocks(job);
        (0..count).all(|n| {
            let block = first.wrapping_add(n);
            let spot = self.tree.spot(block, 0);
            let found = spot.and_then(|spot| self.cache.lock().get(spot));
            found.is_some_and(|want| {
                job.with_data(|data| self.is_right(data, n, want)).unwrap_or(false)
            })
        })
    }

    /// `true` if all of a job's data, which have been read, have their digests.
    ///
    /// # Errors
    /// A component's; EIO for a wrong hash block, unless corruption is to be ignored.
    pub(super) async fn verify(&self, job: &mut Job, lane: &mut Lane) -> Result<bool, Errno> {
        let (first, count) = self.blocks(job);
        for n in 0..count {
            let want = self.expected(first.wrapping_add(n), lane).await?;
            if job.with_data(|data| self.is_right(data, n, want)) != Some(true) {
                return Ok(false);
            }
        }
        Ok(true)
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

    /// Notes that the blocks from a level on, above a data block, are in use, so that they give up
    /// their slots last: blocks below them are about to be loaded, and more may be.
    fn keep_above(&self, block: u64, level: usize) {
        for at in level..self.tree.levels() {
            if let Some(spot) = self.tree.spot(block, at) {
                self.cache.lock().touch(spot.block);
            }
        }
    }

    /// The digest at a spot, whose block is read unless it is there, and is to have the digest
    /// `want`.
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

    /// Reports a block that differs from the one that was hashed, and does as the table's options
    /// say. A lane alone may call this: it may end the system.
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
}
