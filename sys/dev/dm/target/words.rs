// SPDX-License-Identifier: BSD-2-Clause

//! The words of a line's parameters and of messages, checked as they are read.

use crate::mistake::Mistake;
use crate::refusal::Shown;
use crate::{Errno, limits};

/// A line's parameters, or a message, word by word.
pub struct Words<'a> {
    rest: core::str::SplitAsciiWhitespace<'a>,
}

impl<'a> Words<'a> {
    /// The words of a text.
    pub fn new(text: &'a str) -> Words<'a> {
        Words { rest: text.split_ascii_whitespace() }
    }

    /// The next word.
    ///
    /// # Errors
    /// EINVAL, with `missing` as the reason, when there is none.
    pub fn word(&mut self, missing: &'static str) -> Result<&'a str, Mistake> {
        self.rest.next().ok_or(Mistake::new(Errno::EINVAL, missing))
    }

    /// The next word as a decimal number.
    ///
    /// # Errors
    /// EINVAL, with `wrong` as the reason, when there is none, or it is no number below 2^64.
    pub fn number(&mut self, wrong: &'static str) -> Result<u64, Mistake> {
        let word = self.word(wrong)?;
        // u64's own parser would also take a sign.
        let digits = word.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| word.parse().ok()).flatten().ok_or_else(|| {
            Mistake::new(Errno::EINVAL, wrong).about(format_args!("`{}`", Shown::word(word)))
        })
    }

    /// The next word as a decimal number below 2^32.
    ///
    /// # Errors
    /// As [`Words::number`].
    pub fn small_number(&mut self, wrong: &'static str) -> Result<u32, Mistake> {
        let number = self.number(wrong)?;
        u32::try_from(number)
            .map_err(|_| Mistake::new(Errno::EINVAL, wrong).about(format_args!("{number}")))
    }

    /// The words at the end of a line that say which features it has: their number, and each;
    /// nothing where no word is left. `set` is `false` for a word that is no feature.
    ///
    /// # Errors
    /// EINVAL when there are fewer than the number says, or for one that is none.
    pub fn features(&mut self, mut set: impl FnMut(&str) -> bool) -> Result<(), Mistake> {
        if self.left() == 0 {
            return Ok(());
        }
        for _ in 0..self.number("the number of features is no number")? {
            if !set(self.word("a feature is missing")?) {
                return Err(Mistake::new(Errno::EINVAL, "no such feature"));
            }
        }
        Ok(())
    }

    /// The number of words that are left.
    pub fn left(&self) -> usize {
        self.rest.clone().count()
    }

    /// The next word as a path or `major:minor`.
    ///
    /// # Errors
    /// EINVAL when there is none, ENAMETOOLONG when it is longer than a path can be.
    pub fn path(&mut self) -> Result<&'a str, Mistake> {
        let word = self.word("a component is missing")?;
        if word.len() > limits::PATH {
            return Err(Mistake::new(Errno::ENAMETOOLONG, "a component's path is too long")
                .about(format_args!("{} bytes, of {} at most", word.len(), limits::PATH)));
        }
        Ok(word)
    }

    /// Checks that no word is left.
    ///
    /// # Errors
    /// EINVAL when there is.
    pub fn end(&mut self) -> Result<(), Mistake> {
        match self.rest.next() {
            None => Ok(()),
            Some(word) => Err(Mistake::new(Errno::EINVAL, "too many parameters")
                .about(format_args!("from `{}` on", Shown::word(word)))),
        }
    }
}
