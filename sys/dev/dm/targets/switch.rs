// SPDX-License-Identifier: BSD-2-Clause

//! `switch COUNT REGION 0 (DEV OFFSET)…`: one device by several paths. Each region of the line has
//! a path of its own, which messages change.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicU16, Ordering};

use crate::mistake::Mistake;
use crate::target::{
    ComponentIndex, Devs, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType, Words,
};
use crate::{Errno, Sector, limits};

#[cfg(test)]
mod tests;

/// The target type `switch`.
pub static TYPE: TargetType = TargetType { name: "switch", version: [1, 1, 0], new };

struct Switch {
    /// Sectors in a region; the last may be shorter.
    region: NonZeroU64,
    /// The path of each region. Messages change it under I/O; no two regions depend on each other.
    regions: Box<[AtomicU16]>,
    paths: Box<[Path]>,
}

struct Path {
    component: ComponentIndex,
    offset: Sector,
}

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    let invalid = |why| Mistake::new(Errno::EINVAL, why);
    let count = line.params.small_number("the number of paths is no number below 2^32")?;
    if count == 0 {
        return Err(invalid("there must be a path"));
    }
    let region = line.params.small_number("the region is not a number of sectors below 2^32")?;
    let region =
        NonZeroU64::new(u64::from(region)).ok_or(invalid("a region must have a sector"))?;
    if line.params.number("the number of options is no number")? != 0 {
        return Err(invalid("there are no options"));
    }
    if count as usize > limits::STRIPES {
        return Err(Mistake::new(Errno::E2BIG, "too many paths")
            .about(format_args!("{count}, of {} at most", limits::STRIPES)));
    }
    let regions = line.length.0.div_ceil(region.get());
    if regions > limits::REGIONS as u64 {
        return Err(Mistake::new(Errno::E2BIG, "too many regions")
            .about(format_args!("{regions}, of {} at most", limits::REGIONS)));
    }
    let regions = regions as usize;
    let mut paths = Vec::new();
    for _ in 0..count {
        let path = line.params.path()?;
        let offset = Sector(line.params.number("an offset is not a number of sectors")?);
        let component = line.component(path, offset, line.length)?;
        line.aligned(component, Sector(region.get()))?;
        paths.push(Path { component, offset });
    }
    line.params.end()?;
    line.reserve(regions.saturating_mul(size_of::<AtomicU16>()))?;
    // At first the regions go to the paths in turn.
    let in_turn = (0..count as u16).cycle();
    let regions = in_turn.take(regions).map(AtomicU16::new).collect();
    Ok(Made::maps(Switch { region, regions, paths: paths.into() }))
}

/// A hexadecimal number, of digits alone.
fn hexadecimal(digits: &str) -> Option<usize> {
    let all_digits = digits.bytes().all(|b| b.is_ascii_hexdigit());
    all_digits.then(|| usize::from_str_radix(digits, 16).ok()).flatten()
}

impl Switch {
    fn set(&self, region: usize, path: usize) -> Result<(), Errno> {
        let known = u16::try_from(path).ok().filter(|_| path < self.paths.len());
        let path = known.ok_or(Errno::EINVAL)?;
        self.regions.get(region).ok_or(Errno::EINVAL)?.store(path, Ordering::Relaxed);
        Ok(())
    }

    /// `set_region_mappings WORD…`, numbers in hexadecimal: `REGION:PATH`; `:PATH` for the region
    /// after the last; `RCYCLE,MORE`, which gives the next MORE regions the paths of the last CYCLE
    /// in turn. What stands before a wrong word is done.
    fn set_regions(&self, words: &mut Words<'_>) -> Result<(), Errno> {
        let mut at = 0usize;
        while words.left() > 0 {
            let word = words.word("").map_err(|mistake| mistake.errno)?;
            if let Some(repeat) = word.strip_prefix(['R', 'r']) {
                let (cycle, more) = repeat.split_once(',').ok_or(Errno::EINVAL)?;
                let cycle = hexadecimal(cycle).ok_or(Errno::EINVAL)?;
                let more = hexadecimal(more).ok_or(Errno::EINVAL)?;
                let last = at.checked_add(more).filter(|last| *last < self.regions.len());
                let last = last.ok_or(Errno::EINVAL)?;
                // The regions to repeat end with `at`.
                let first = at.checked_add(1).and_then(|end| end.checked_sub(cycle));
                let first = first.filter(|_| cycle > 0).ok_or(Errno::EINVAL)?;
                for (from, to) in (first..).zip(at.wrapping_add(1)..last.wrapping_add(1)) {
                    let path = self.regions.get(from).ok_or(Errno::EINVAL)?;
                    self.set(to, path.load(Ordering::Relaxed).into())?;
                }
                at = last;
                continue;
            }
            let (region, path) = word.split_once(':').ok_or(Errno::EINVAL)?;
            at = match region {
                "" => at.checked_add(1),
                digits => hexadecimal(digits),
            }
            .ok_or(Errno::EINVAL)?;
            self.set(at, hexadecimal(path).ok_or(Errno::EINVAL)?)?;
        }
        Ok(())
    }
}

impl Target for Switch {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        let (number, within) = (io.start.0 / self.region, io.start.0 % self.region);
        let length = Sector(io.length.0.min(self.region.get().wrapping_sub(within)));
        let path = self.regions.get(number as usize).map(|path| path.load(Ordering::Relaxed));
        // Both are in range: the table has all regions of the line, and paths only.
        let Some(path) = path.and_then(|path| self.paths.get(usize::from(path))) else {
            return Mapping::Fail { length, error: Errno::EIO };
        };
        // The sum cannot wrap: each path was checked against its component's end.
        let start = Sector(path.offset.0.wrapping_add(io.start.0));
        Mapping::Send { component: path.component, start, length }
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        write!(out, "{} {} 0", self.paths.len(), self.region)?;
        self.paths.iter().try_for_each(|p| write!(out, " {} {}", devs.get(p.component), p.offset))
    }

    /// Every path may come to show a sector, so that the default [`Target::locate`] is right.
    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        for p in &self.paths {
            each(Extent { component: p.component, start: p.offset, length });
        }
    }

    fn message(&self, text: &str, _reply: &mut String) -> Result<(), Errno> {
        let mut words = Words::new(text);
        let verb = words.word("").map_err(|mistake| mistake.errno)?;
        match verb.eq_ignore_ascii_case("set_region_mappings") {
            true => self.set_regions(&mut words),
            false => Err(Errno::EINVAL),
        }
    }
}
