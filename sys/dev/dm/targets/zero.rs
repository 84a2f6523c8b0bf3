// SPDX-License-Identifier: BSD-2-Clause

//! `zero`: reads as zeroes, and takes every write without keeping it.

use crate::mistake::Mistake;
use crate::target::{IoRange, LineSpec, Made, Mapping, Target, TargetType};

/// The target type `zero`.
pub static TYPE: TargetType = TargetType { name: "zero", version: [1, 0, 0], new };

struct Zero;

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    line.params.end()?;
    Ok(Made::maps(Zero))
}

impl Target for Zero {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        Mapping::Zero { length: io.length }
    }
}
