// SPDX-License-Identifier: BSD-2-Clause

//! Refusals: the reasons why commands fail, for programs and for people.

use alloc::string::String;
use core::fmt::{self, Write as _};

use crate::Errno;
use crate::mistake::TableError;

#[cfg(test)]
mod tests;

/// Why a command failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The error, for programs.
    pub errno: Errno,
    /// The table's line at fault, counted from 0 in the order that the lines came.
    pub line: Option<usize>,
    /// The reason, for people; empty where the error says enough.
    pub reason: String,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        Refusal { errno, line: None, reason: String::new() }
    }
}

impl From<TableError> for Refusal {
    fn from(error: TableError) -> Refusal {
        let reason = alloc::format!("{}", error.mistake);
        Refusal { errno: error.mistake.errno, line: error.line, reason }
    }
}

impl Errno {
    /// The refusal with this error and this reason.
    pub fn because(self, reason: fmt::Arguments<'_>) -> Refusal {
        Refusal { errno: self, line: None, reason: alloc::format!("{reason}") }
    }
}

/// The reason, with the line if there is one; the error's own words where there is no reason.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {}: ", line.saturating_add(1))?;
        }
        match self.reason.as_str() {
            "" => self.errno.fmt(f),
            reason => f.write_str(reason),
        }
    }
}

/// Text of userland's as messages show it: a control character is written as `\xNN`, so that no
/// name can move a cursor or forge a line.
pub struct Shown<'a>(pub &'a str);

impl<'a> Shown<'a> {
    /// Bytes of a word that are shown.
    const WORD: usize = 64;

    /// The beginning of a word that may be of any length.
    pub fn word(word: &'a str) -> Shown<'a> {
        let end = word.floor_char_boundary(Self::WORD);
        Shown(word.get(..end).unwrap_or(word))
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let control = |c: char| u32::from(c) < 0x100 && c.is_control();
        self.0.chars().try_for_each(|c| match control(c) {
            true => write!(f, "\\x{:02x}", u32::from(c)),
            false => f.write_char(c),
        })
    }
}
