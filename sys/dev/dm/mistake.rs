// SPDX-License-Identifier: BSD-2-Clause

//! Mistakes in a table: the error, and in words the line, the names and the numbers.

use alloc::string::String;
use core::fmt;

use crate::Errno;

/// A mistake in a line of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// The error that userland gets.
    pub errno: Errno,
    /// The kind of mistake, in words.
    pub why: &'static str,
    /// The names and numbers that it is about, in words; empty if there are none.
    pub about: String,
}

impl Mistake {
    /// A mistake without names or numbers.
    pub const fn new(errno: Errno, why: &'static str) -> Mistake {
        Mistake { errno, why, about: String::new() }
    }

    /// Adds the names and numbers that the mistake is about.
    pub fn about(mut self, what: fmt::Arguments<'_>) -> Mistake {
        self.about = alloc::format!("{what}");
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.about.as_str() {
            "" => f.write_str(self.why),
            about => write!(f, "{}: {about}", self.why),
        }
    }
}

/// A mistake in a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableError {
    /// The line, counted from 0 in the order that they came, if it is one line's fault.
    pub line: Option<usize>,
    /// The mistake.
    pub mistake: Mistake,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {}: {}", line.saturating_add(1), self.mistake),
            None => self.mistake.fmt(f),
        }
    }
}
