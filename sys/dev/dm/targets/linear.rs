// SPDX-License-Identifier: BSD-2-Clause

//! `linear DEV OFFSET`: a range of one component, as it is.

use core::fmt;

use crate::Sector;
use crate::mistake::Mistake;
use crate::target::{
    ComponentIndex, Devs, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType,
};

/// The target type `linear`.
pub static TYPE: TargetType = TargetType { name: "linear", version: [1, 0, 2], new };

pub(crate) struct Linear {
    component: ComponentIndex,
    offset: Sector,
}

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    Ok(Made::maps(Linear::new(line)?))
}

impl Linear {
    pub(crate) fn new(line: &mut LineSpec<'_>) -> Result<Linear, Mistake> {
        let path = line.params.path()?;
        let offset = Sector(line.params.number("the offset is not a number of sectors")?);
        line.params.end()?;
        let component = line.component(path, offset, line.length)?;
        Ok(Linear { component, offset })
    }
}

impl Target for Linear {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    #[inline]
    fn map(&self, io: &IoRange) -> Mapping<'_> {
        // The sum cannot wrap: the line was checked against the component's end when it was made.
        let start = Sector(self.offset.0.wrapping_add(io.start.0));
        Mapping::Send { component: self.component, start, length: io.length }
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        write!(out, "{} {}", devs.get(self.component), self.offset)
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        each(Extent { component: self.component, start: self.offset, length });
    }
}
