// SPDX-License-Identifier: BSD-2-Clause

//! Names and uuids of devices.

use alloc::boxed::Box;
use core::fmt;

use crate::Errno;

/// A device's name: 1 to 127 bytes that can stand in `/dev/mapper`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name(Box<str>);

impl Name {
    /// Bytes, without the NUL that a C program sees: DM_NAME_LEN - 1.
    pub const MAX: usize = 127;

    /// # Errors
    /// EINVAL for a name that is empty, too long, holds a `/`, or already means something else in
    /// `/dev/mapper`: `.`, `..` and `control`.
    pub fn new(name: &str) -> Result<Name, Errno> {
        let taken = matches!(name, "" | "." | ".." | "control");
        if taken || name.len() > Self::MAX || name.contains('/') {
            return Err(Errno::EINVAL);
        }
        Ok(Name(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A device's uuid: 1 to 128 bytes, LVM's or another's; to the driver it has no meaning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uuid(Box<str>);

impl Uuid {
    /// Bytes, without the NUL that a C program sees: DM_UUID_LEN - 1.
    pub const MAX: usize = 128;

    /// # Errors
    /// EINVAL for a uuid that is empty or too long.
    pub fn new(uuid: &str) -> Result<Uuid, Errno> {
        if uuid.is_empty() || uuid.len() > Self::MAX {
            return Err(Errno::EINVAL);
        }
        Ok(Uuid(uuid.into()))
    }

    /// The uuid.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
