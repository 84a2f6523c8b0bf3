// SPDX-License-Identifier: BSD-2-Clause

//! `striped N CHUNK (DEV OFFSET)…`: chunks dealt out over N components in turn.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU64;

use crate::mistake::Mistake;
use crate::target::{
    ComponentIndex, Devs, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType,
};
use crate::{Errno, Sector, limits};

/// The target type `striped`.
pub static TYPE: TargetType = TargetType { name: "striped", version: [1, 0, 3], new };

struct Striped {
    /// Sectors that lie together on one component.
    chunk: NonZeroU64,
    /// The number of stripes, in the width that the arithmetic wants.
    count: NonZeroU64,
    stripes: Box<[Stripe]>,
}

struct Stripe {
    component: ComponentIndex,
    offset: Sector,
}

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    let count = NonZeroU64::new(line.params.number("the number of stripes is no number")?)
        .ok_or(Mistake::new(Errno::EINVAL, "there must be a stripe"))?;
    if count.get() > limits::STRIPES as u64 {
        return Err(Mistake::new(Errno::E2BIG, "too many stripes")
            .about(format_args!("{count}, of {} at most", limits::STRIPES)));
    }
    let chunk = NonZeroU64::new(line.params.number("the chunk is not a number of sectors")?)
        .ok_or(Mistake::new(Errno::EINVAL, "a chunk must have a sector"))?;
    let each = Sector(line.length.0 / count);
    if !line.length.0.is_multiple_of(count.get()) || !each.0.is_multiple_of(chunk.get()) {
        return Err(Mistake::new(Errno::EINVAL, "the length is not whole chunks on every stripe")
            .about(format_args!(
                "{} sectors on {count} stripes, in chunks of {chunk}",
                line.length
            )));
    }
    let mut stripes = Vec::new();
    for _ in 0..count.get() {
        let path = line.params.path()?;
        let offset = Sector(line.params.number("an offset is not a number of sectors")?);
        let component = line.component(path, offset, each)?;
        line.aligned(component, Sector(chunk.get()))?;
        stripes.push(Stripe { component, offset });
    }
    line.params.end()?;
    Ok(Made::maps(Striped { chunk, count, stripes: stripes.into() }))
}

impl Target for Striped {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        let (number, within) = (io.start.0 / self.chunk, io.start.0 % self.chunk);
        let (row, stripe) = (number / self.count, number % self.count);
        let left = self.chunk.get().wrapping_sub(within);
        let length = Sector(io.length.0.min(left));
        // A remainder of `count` is always in range; an I/O error is what is left to say if not.
        let Some(stripe) = self.stripes.get(stripe as usize) else {
            return Mapping::Fail { length, error: Errno::EIO };
        };
        // No sum can wrap: each stripe was checked against its component's end.
        let start = row.wrapping_mul(self.chunk.get()).wrapping_add(within);
        let start = Sector(stripe.offset.0.wrapping_add(start));
        Mapping::Send { component: stripe.component, start, length }
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        write!(out, "{} {}", self.count, self.chunk)?;
        self.stripes.iter().try_for_each(|s| write!(out, " {} {}", devs.get(s.component), s.offset))
    }

    fn status(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        write!(out, "{}", self.count)?;
        self.stripes.iter().try_for_each(|s| write!(out, " {}", devs.get(s.component)))?;
        out.write_str(" 1 ")?;
        self.stripes.iter().try_for_each(|_| out.write_char('A'))
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        let length = Sector(length.0 / self.count);
        for s in &self.stripes {
            each(Extent { component: s.component, start: s.offset, length });
        }
    }

    fn locate(
        &self,
        component: ComponentIndex,
        sector: Sector,
        length: Sector,
        each: &mut dyn FnMut(Sector),
    ) {
        // One component may carry several stripes, and they may overlap there.
        for (s, index) in self.stripes.iter().zip(0u64..) {
            let on_stripe = sector.checked_sub(s.offset).filter(|_| s.component == component);
            let at = on_stripe.and_then(|Sector(on_stripe)| {
                let (row, within) = (on_stripe / self.chunk, on_stripe % self.chunk);
                let number = row.checked_mul(self.count.get())?.checked_add(index)?;
                Some(Sector(number.checked_mul(self.chunk.get())?.checked_add(within)?))
            });
            if let Some(at) = at.filter(|at| *at < length) {
                each(at);
            }
        }
    }
}
