// SPDX-License-Identifier: BSD-2-Clause

//! Support for tests and fuzz targets that run the device mapper without a kernel.
//!
//! [`kernel::Fake`] is a kernel whose disks have no data, [`plist`] has property lists with
//! proplib's own XML, [`request`] makes requests as the tools do, [`picture`] holds the visible
//! state of a driver, to compare before and after, [`model`] is a slow, obvious model of all
//! control state, and [`replay`] plays recorded traffic.
//!
//! Nothing here goes into a kernel: the module is compiled for tests, or with the feature
//! `testing`.

pub mod aes;
pub mod bench;
pub mod hash;
pub mod host;
pub mod kernel;
pub mod model;
pub mod picture;
pub mod plist;
pub mod replay;
pub mod request;
pub mod sim;
pub mod thread;
pub mod unit;
pub mod verity;

#[cfg(test)]
mod tests;

pub use bench::Bench;
pub use kernel::{Disk, Fake};
pub use plist::{Array, Dict, Object};
pub use request::Request;

use crate::device::Driver;
use crate::{Errno, Sector, SectorRange};

/// The range of `length` sectors from `start` on.
pub fn range(start: u64, length: u64) -> SectorRange {
    SectorRange { start: Sector(start), length: Sector(length) }
}

/// The commands that do not sleep: all but `waitevent`.
pub const COMMANDS: [&str; 18] = [
    "version",
    "targets",
    "names",
    "create",
    "reload",
    "resume",
    "suspend",
    "clear",
    "remove",
    "remove_all",
    "rename",
    "info",
    "mknodes",
    "status",
    "table",
    "deps",
    "message",
    "setgeometry",
];

/// Sends a request through a descriptor that is open for writing.
///
/// # Errors
/// The command's.
pub fn send(driver: &Driver<Fake>, request: &Request) -> Result<Dict, Errno> {
    let mut dict = request.dict().clone();
    crate::commands::execute(driver, &mut dict, true)?;
    Ok(dict)
}
