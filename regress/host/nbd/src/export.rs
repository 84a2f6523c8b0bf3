// SPDX-License-Identifier: BSD-2-Clause

//! Exports and devices, as the server asks them.

use crate::proto::Error;

/// The description of an export for clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Description {
    /// The size in bytes.
    pub size: u64,
    /// `true` if the export takes writes.
    pub writable: bool,
    /// Bytes of the least request that costs no more than itself.
    pub least: u32,
    /// Bytes of the least request that is fast.
    pub best: u32,
}

/// A range of a device in one state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The length in bytes.
    pub length: u64,
    /// `true` if nothing is allocated for the range.
    pub hole: bool,
    /// `true` if the range is known to read as zeroes.
    pub zero: bool,
}

/// Why an export cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// `true` if there is no export of that name; otherwise it exists, and the text says why it is refused.
    pub unknown: bool,
    /// A text for the person at the client.
    pub text: String,
}

/// The exports of a server.
pub trait Exports: Send + Sync + 'static {
    /// An export, as one connection uses it.
    type Device: Device;

    /// The exports' names.
    ///
    /// # Errors
    /// When they cannot be told now.
    fn names(&self) -> Result<Vec<String>, Refusal>;

    /// The description of an export, as far as it can be told without opening it.
    ///
    /// # Errors
    /// [`Refusal`]
    fn describe(&self, name: &str) -> Result<Description, Refusal>;

    /// Opens an export. An empty name is the default export's.
    ///
    /// # Errors
    /// [`Refusal`]
    fn open(&self, name: &str) -> Result<(Self::Device, Description), Refusal>;

    /// Reports an error that no client can be told; `text` is a line without its end.
    fn complain(&self, text: &str);
}

/// An open export. Ranges are within the size that it was described with, and not empty.
pub trait Device: Send + Sync + 'static {
    /// Reads `buf.len()` bytes from byte `offset` on.
    ///
    /// # Errors
    /// Those of the device.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Error>;

    /// Writes `buf` from byte `offset` on; with `fua` to the medium itself.
    ///
    /// # Errors
    /// Those of the device.
    fn write(&self, buf: &[u8], offset: u64, fua: bool) -> Result<(), Error>;

    /// Brings to the medium all that was written through any connection.
    ///
    /// # Errors
    /// Those of the device.
    fn flush(&self) -> Result<(), Error>;

    /// Says that a range need not be kept.
    ///
    /// # Errors
    /// Those of the device.
    fn trim(&self, offset: u64, length: u64) -> Result<(), Error>;

    /// Makes a range read as zeroes without writing them: all of it, or none.
    ///
    /// # Errors
    /// [`Error::NotSup`] where zeroes must be written; those of the device.
    fn punch(&self, offset: u64, length: u64) -> Result<(), Error>;

    /// The allocation of a range, from its beginning on, for at least its first byte; at most `count` extents, and
    /// not beyond the range.
    ///
    /// # Errors
    /// Those of the device.
    fn extents(&self, offset: u64, length: u64, count: usize) -> Result<Vec<Extent>, Error>;
}
