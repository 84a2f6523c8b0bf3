// SPDX-License-Identifier: BSD-2-Clause

//! `error [WORDS]`: fails every I/O, as a broken disk would. Words are taken and ignored, so that
//! the name of any target can be changed to `error` without a look at its parameters.

use crate::Errno;
use crate::mistake::Mistake;
use crate::target::{IoRange, LineSpec, Made, Mapping, Target, TargetType};

/// The target type `error`.
pub static TYPE: TargetType = TargetType { name: "error", version: [1, 0, 0], new };

struct Error;

fn new(_line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    Ok(Made::maps(Error))
}

impl Target for Error {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        Mapping::Fail { length: io.length, error: Errno::EIO }
    }
}
