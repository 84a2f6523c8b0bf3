// SPDX-License-Identifier: BSD-2-Clause

//! Linux's encrypted disks, LUKS1 and LUKS2: what their headers say, the key that a passphrase gives,
//! and the payload as lines of a device-mapper table.
//!
//! ```no_run
//! # fn main() -> Result<(), dm_luks::Error> {
//! let disk = std::fs::File::open("disk.img")?;
//! let header = dm_luks::Header::read(&disk)?;
//! let key = header.unlock(&disk, b"the passphrase", None, &dm_luks::Limits::default())?;
//! for line in header.payload(dm_luks::ReadAt::size(&disk)?)? {
//!     let table = line.text(&key, "/dev/wd0", &[]);
//!     println!("{} sectors of {}, {} bytes of table", line.length, line.cipher, table.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is ever written. Headers are hostile input: whatever they hold, nothing here panics, and
//! what they ask for in memory and work is compared with [`Limits`] before any of it is spent. Keys
//! and what they are made from are in memory that is wiped when it is freed.
//!
//! The formats are those of "LUKS On-Disk Format Specification" 1.2.3 and "LUKS2 On-Disk Format
//! Specification" 1.1.3, both by the authors of cryptsetup.

#![forbid(unsafe_code)]

mod af;
mod bytes;
mod cipher;
mod error;
mod hash;
mod header;
mod kdf;
mod limits;
mod luks1;
mod luks2;
mod payload;
mod read;
mod unlock;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use bytes::{ReadAt, SECTOR};
pub use error::Error;
pub use header::{
    Af, Area, Copy, Digest, Header, Keyslot, Priority, Segment, Slot, Token, Version,
};
pub use kdf::{Argon2Kind, Kdf};
pub use limits::Limits;
pub use payload::Line;
pub use unlock::VolumeKey;
