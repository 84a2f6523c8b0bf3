// SPDX-License-Identifier: BSD-2-Clause

//! Why something did not work.

use std::{fmt, io};

/// Why a disk could not be read, unlocked or mapped. Shown, it is one line for people, in which what comes
/// from the disk is quoted with its control characters escaped.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The disk could not be read.
    Io(io::Error),
    /// The disk has no LUKS header.
    NotLuks,
    /// The header is damaged, or makes no sense.
    Damaged(String),
    /// The header asks for something that is not supported here.
    Unsupported(String),
    /// The header asks for more memory or work than the limits allow.
    Costly(String),
    /// The system lacks the memory that a keyslot asks for.
    NoMemory {
        /// KiB that were asked for.
        kib: u32,
    },
    /// The header has no such keyslot, or it holds no key.
    NoSlot(u32),
    /// The passphrase opens none of the keyslots that were tried.
    WrongKey {
        /// The number of keyslots that were tried to the end.
        tried: usize,
        /// Keyslots that could not be tried, and why.
        skipped: Vec<(u32, String)>,
    },
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => write!(f, "reading it: {error}"),
            Error::NotLuks => f.write_str("there is no LUKS header"),
            Error::Damaged(why) => write!(f, "the LUKS header is damaged: {why}"),
            Error::Unsupported(what) => write!(f, "not supported: {what}"),
            Error::Costly(why) => write!(f, "refused: {why}"),
            Error::NoMemory { kib } => write!(f, "there are no {kib} KiB of memory for argon2"),
            Error::NoSlot(number) => write!(f, "keyslot {number} holds no key"),
            Error::WrongKey { tried, skipped } => {
                match tried {
                    0 => f.write_str("no keyslot could be tried")?,
                    1 => f.write_str("the passphrase opens no keyslot; 1 was tried")?,
                    _ => write!(f, "the passphrase opens no keyslot; {tried} were tried")?,
                }
                skipped.iter().try_for_each(|(number, why)| write!(f, "; keyslot {number}: {why}"))
            }
        }
    }
}

/// An [`Error::Damaged`].
pub(crate) fn damaged<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Damaged(why.into()))
}
