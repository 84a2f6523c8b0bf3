// SPDX-License-Identifier: BSD-2-Clause

//! The failure of a command: what is printed, and the exit code.

use std::path::PathBuf;
use std::{fmt, io};

use dm_core::refusal::Shown;
use dm_host::Errno;

use crate::table::BadLine;

/// Exit codes, as the help of `dm-host` states them.
pub mod exit {
    /// The driver said no, or no keyslot took the passphrase.
    pub const REFUSED: u8 = 1;
    /// The command line, a table's text, a log, or a LUKS header, makes no sense.
    pub const USAGE: u8 = 2;
    /// No server answers.
    pub const UNREACHABLE: u8 = 3;
}

/// The failure of a command.
#[derive(Debug)]
pub enum Failure {
    /// The driver has refused the request.
    Refused {
        /// The request, in words.
        what: String,
        /// The error.
        errno: Errno,
        /// The table's line at fault, from 1: as it was sent, and later as the user counts.
        line: Option<usize>,
        /// The error's reason, and notes about it.
        said: String,
        /// Advice; empty if there is none.
        hint: &'static str,
    },
    /// A question about a device that is not there.
    NoDevice(String),
    /// The command line makes no sense, or a file on it cannot be read.
    Usage(String),
    /// A table's text makes no sense.
    Table {
        /// The mistakes in the table.
        bad: Vec<BadLine>,
        /// `true` if a device was to be changed, and was not.
        kept: bool,
    },
    /// No keyslot took the passphrase.
    Locked(String),
    /// A disk is not open.
    Closed(String),
    /// No server listens at this socket.
    Unreachable(PathBuf, io::Error),
    /// The server breaks the protocol.
    Broken(String),
}

impl Failure {
    /// The exit code of the program.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Refused { .. } | Failure::NoDevice(_) | Failure::Locked(_) => exit::REFUSED,
            Failure::Usage(_) | Failure::Table { .. } => exit::USAGE,
            Failure::Closed(_) | Failure::Unreachable(..) | Failure::Broken(_) => exit::UNREACHABLE,
        }
    }
}

/// An error with its text and its name.
pub fn errno_text(errno: Errno) -> String {
    match errno.name() {
        Some(name) => format!("{} ({name})", errno.text()),
        None => format!("error {}", errno.0),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused { what, errno, line, said, hint } => {
                write!(f, "{}: {}", Shown(what), errno_text(*errno))?;
                let mut first = line.map(|line| format!("line {line}: ")).unwrap_or_default();
                for said in said.lines() {
                    write!(f, "\n  {first}{}", Shown(said))?;
                    first.clear();
                }
                if !hint.is_empty() {
                    write!(f, "\n  {hint}")?;
                }
                Ok(())
            }
            Failure::NoDevice(what) => {
                write!(f, "{}: no such device\n  `dm-host ctl ls` lists the devices", Shown(what))
            }
            Failure::Usage(why) | Failure::Locked(why) | Failure::Closed(why) => f.write_str(why),
            Failure::Table { bad, kept } => {
                f.write_str("the table makes no sense")?;
                f.write_str(if *kept { "; nothing was changed" } else { "" })?;
                bad.iter().try_for_each(|line| write!(f, "\n  {line}"))
            }
            Failure::Unreachable(path, error) => write!(
                f,
                "no server at {}: {error}\n  start one with `dm-host serve --disk NAME=FILE`, or \
                 name its socket with --socket",
                path.display()
            ),
            Failure::Broken(why) => write!(f, "talking to the server: {why}"),
        }
    }
}
