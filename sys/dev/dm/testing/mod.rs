// SPDX-License-Identifier: BSD-2-Clause

//! What tests and fuzz targets need to run the device mapper without a kernel.
//!
//! [`kernel::Fake`] is a kernel with disks that exist in name only, [`plist`] has property lists
//! with proplib's own XML, [`request`] makes requests as the tools do, [`picture`] shows all there
//! is to see of a driver, to compare before and after, [`model`] is a slow, obvious model of all
//! its control state, and [`replay`] plays recorded traffic.
//!
//! Nothing here goes into a kernel: the module is there under test, or with the feature
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

/// A range of sectors, by numbers.
pub fn range(start: u64, length: u64) -> SectorRange {
    SectorRange { start: Sector(start), length: Sector(length) }
}

/// The commands that do not wait for anything: all but `waitevent`.
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
