// SPDX-License-Identifier: BSD-2-Clause

//! `dust DEV OFFSET BLOCK`: a range of one component with bad blocks, which reads of them meet and
//! writes heal. Messages say which blocks are bad, and whether that shows.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::num::NonZeroU64;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use dm_sync::Spin;

use crate::mistake::Mistake;
use crate::target::{
    ComponentIndex, Devs, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType, Words,
};
use crate::units::DEV_BSIZE;
use crate::{Errno, Sector, limits};

#[cfg(test)]
mod tests;

/// The target type `dust`.
pub static TYPE: TargetType = TargetType { name: "dust", version: [1, 0, 0], new };

/// Bytes in the largest block.
const LARGEST: u32 = 1 << 30;

/// A `dust` line.
///
/// Fields are marked by what protects them: (-) never changes; (a) atomic; (l) a lock of its own.
struct Dust {
    /// (-) The component.
    component: ComponentIndex,
    /// (-) The first sector there.
    offset: Sector,
    /// (-) Sectors in a block.
    block: NonZeroU64,
    /// (-) The largest number that a block can have.
    last: u64,
    /// (a) `true` if bad blocks show, `false` if all I/O goes through.
    enabled: AtomicBool,
    /// (a) Shown in the status; nothing is printed for a block either way.
    quiet: AtomicBool,
    /// (l) The bad blocks. While they show, [`Target::map`] takes the lock for each I/O. It is held
    /// for as long as a list of [`limits::BAD_BLOCKS`] blocks, of 16 bytes each, takes to be moved
    /// by a place or to be copied.
    bad: Spin<BadBlocks>,
}

/// Bad blocks in order, each once. Blocks count from the component's start, not from the line's.
#[derive(Default)]
struct BadBlocks {
    blocks: Vec<BadBlock>,
}

#[derive(Clone, Copy)]
struct BadBlock {
    number: u64,
    /// Writes that fail yet before one heals it.
    write_failures: u8,
}

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    let invalid = |why| Mistake::new(Errno::EINVAL, why);
    let path = line.params.path()?;
    let offset = Sector(line.params.number("the offset is not a number of sectors")?);
    let bytes = line.params.small_number("the block is not a number of bytes")?;
    line.params.end()?;
    if !(DEV_BSIZE..=LARGEST).contains(&bytes) || !bytes.is_power_of_two() {
        return Err(invalid("a block is a power of two from 512 bytes to 1 GiB")
            .about(format_args!("{bytes} bytes")));
    }
    let block = u64::from(bytes / DEV_BSIZE);
    if block > line.length.0 {
        return Err(invalid("the line is shorter than a block")
            .about(format_args!("{} sectors, and {block} in a block", line.length)));
    }
    let block = NonZeroU64::new(block).ok_or(invalid("a block must have a sector"))?;
    let component = line.component(path, offset, line.length)?;
    line.aligned(component, Sector(block.get()))?;
    line.reserve(limits::BAD_BLOCKS.saturating_mul(size_of::<BadBlock>()))?;
    let last = line.size(component).0 / block;
    Ok(Made::maps(Dust {
        component,
        offset,
        block,
        last,
        enabled: AtomicBool::new(false),
        quiet: AtomicBool::new(false),
        bad: Spin::default(),
    }))
}

impl BadBlocks {
    /// The place of a block in the list, or the place where it would be put.
    fn find(&self, number: u64) -> Result<usize, usize> {
        self.blocks.binary_search_by_key(&number, |bad| bad.number)
    }

    /// The bad blocks among these, as places in the list.
    fn among(&self, numbers: Range<u64>) -> Range<usize> {
        let place = |number| self.blocks.partition_point(|bad| bad.number < number);
        place(numbers.start)..place(numbers.end)
    }

    /// Heals blocks that are written, up to the first whose failures are not used up: its number.
    fn write(&mut self, numbers: Range<u64>) -> Option<u64> {
        let among = self.among(numbers);
        let written = self.blocks.get_mut(among.clone())?;
        let refused = written.iter().position(|bad| bad.write_failures > 0);
        let number = match written.get_mut(refused.unwrap_or(usize::MAX)) {
            Some(bad) if refused == Some(0) => {
                bad.write_failures = bad.write_failures.saturating_sub(1);
                Some(bad.number)
            }
            // The sectors before the bad block are written first; the rest is mapped by another
            // call.
            Some(bad) => Some(bad.number),
            None => None,
        };
        let healed = refused.unwrap_or(among.len());
        self.blocks.drain(among.start..among.start.wrapping_add(healed));
        number
    }
}

impl Dust {
    /// Makes a block bad.
    fn add(&self, number: u64, write_failures: u8) -> Result<(), Errno> {
        let bad_block = BadBlock { number, write_failures };
        loop {
            let mut bad = self.bad.lock();
            let place = bad.find(number).err().ok_or(Errno::EINVAL)?;
            let count = bad.blocks.len();
            if count >= limits::BAD_BLOCKS {
                return Err(Errno::ENOSPC);
            }
            if count < bad.blocks.capacity() {
                bad.blocks.insert(place, bad_block);
                return Ok(());
            }
            drop(bad);
            // A larger list, which is made and the old one dropped without the lock.
            let mut larger = Vec::with_capacity(count.saturating_mul(2).max(64));
            let mut bad = self.bad.lock();
            if bad.blocks.len() < larger.capacity() && larger.capacity() > bad.blocks.capacity() {
                larger.extend_from_slice(&bad.blocks);
                core::mem::swap(&mut bad.blocks, &mut larger);
            }
            drop(bad);
        }
    }

    fn remove(&self, number: u64) -> Result<(), Errno> {
        let mut bad = self.bad.lock();
        let place = bad.find(number).map_err(|_| Errno::EINVAL)?;
        bad.blocks.remove(place);
        Ok(())
    }

    /// Obeys a message of one word.
    fn command(&self, verb: &str, reply: &mut String) -> Result<(), Errno> {
        match verb {
            "enable" => self.enabled.store(true, Ordering::Relaxed),
            "disable" => self.enabled.store(false, Ordering::Relaxed),
            "quiet" => {
                self.quiet.fetch_xor(true, Ordering::Relaxed);
            }
            "countbadblocks" => {
                let count = self.bad.lock().blocks.len();
                say(reply, format_args!("countbadblocks: {count} badblock(s) found"));
            }
            "clearbadblocks" => {
                let before = core::mem::take(&mut *self.bad.lock());
                let found = !before.blocks.is_empty();
                let what = if found { "badblocks cleared" } else { "no badblocks found" };
                say(reply, format_args!("dust_clear_badblocks: {what}"));
            }
            "listbadblocks" => {
                for number in self.numbers() {
                    say(reply, format_args!("{number}\n"));
                }
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    /// The bad blocks' numbers, copied without an allocation under the lock.
    fn numbers(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        loop {
            let bad = self.bad.lock();
            if bad.blocks.len() <= numbers.capacity() {
                numbers.extend(bad.blocks.iter().map(|bad| bad.number));
                return numbers;
            }
            let wanted = bad.blocks.len();
            drop(bad);
            numbers.reserve(wanted);
        }
    }
}

/// A String takes all that is written to it.
fn say(reply: &mut String, what: fmt::Arguments<'_>) {
    let _ = reply.write_fmt(what);
}

impl Target for Dust {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        // Neither sum can wrap: the line was checked against the component's end.
        let start = self.offset.0.wrapping_add(io.start.0);
        let end = start.wrapping_add(io.length.0);
        let send =
            |length| Mapping::Send { component: self.component, start: Sector(start), length };
        if !self.enabled.load(Ordering::Relaxed) {
            return send(io.length);
        }
        let numbers = start / self.block..end.div_ceil(self.block.get());
        let mut bad = self.bad.lock();
        let first = match io.is_write() {
            true => bad.write(numbers),
            false => {
                let among = bad.among(numbers);
                bad.blocks.get(among).and_then(|bad| bad.first()).map(|bad| bad.number)
            }
        };
        drop(bad);
        let Some(number) = first else { return send(io.length) };
        // The block is among those of the I/O, so that this does not wrap.
        let at = number.wrapping_mul(self.block.get());
        match at.checked_sub(start).filter(|before| *before > 0) {
            Some(before) => send(Sector(before)),
            None => {
                let length = at.wrapping_add(self.block.get()).min(end).wrapping_sub(start);
                Mapping::Fail { length: Sector(length), error: Errno::EIO }
            }
        }
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        let bytes = self.block.get().wrapping_mul(u64::from(DEV_BSIZE));
        write!(out, "{} {} {bytes}", devs.get(self.component), self.offset)
    }

    fn status(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        let enabled = self.enabled.load(Ordering::Relaxed);
        let reads = if enabled { "fail_read_on_bad_block" } else { "bypass" };
        let talk = if self.quiet.load(Ordering::Relaxed) { "quiet" } else { "verbose" };
        write!(out, "{} {reads} {talk}", devs.get(self.component))
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        each(Extent { component: self.component, start: self.offset, length });
    }

    fn message(&self, text: &str, reply: &mut String) -> Result<(), Errno> {
        let errno = |mistake: Mistake| mistake.errno;
        let mut words = Words::new(text);
        let verb = words.word("").map_err(errno)?.to_ascii_lowercase();
        if words.left() == 0 {
            return self.command(&verb, reply);
        }
        let number = words.number("").map_err(errno)?;
        let write_failures = match words.left() {
            0 => None,
            _ => Some(words.number("").map_err(errno)?),
        };
        words.end().map_err(errno)?;
        if number > self.last {
            return Err(Errno::EINVAL);
        }
        match (&*verb, write_failures) {
            ("addbadblock", failures) => {
                let failures = u8::try_from(failures.unwrap_or(0)).map_err(|_| Errno::EINVAL)?;
                self.add(number, failures)
            }
            ("removebadblock", None) => self.remove(number),
            ("queryblock", None) => {
                let found = self.bad.lock().find(number).is_ok();
                let what = if found { "found" } else { "not found" };
                say(reply, format_args!("dust_query_block: block {number} {what} in badblocklist"));
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }
}
