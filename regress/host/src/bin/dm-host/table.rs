// SPDX-License-Identifier: BSD-2-Clause

//! The text of a table, as dmsetup(8) reads it.

use std::fmt;

use dm_core::refusal::Shown;

/// A line of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The line's number in the text, from 1.
    pub number: usize,
    /// The first sector.
    pub start: u64,
    /// The number of sectors.
    pub length: u64,
    /// The target's name.
    pub kind: String,
    /// The parameters.
    pub params: String,
}

/// A line that is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadLine {
    /// The line's number in the text, from 1; 0 for a mistake of the whole table.
    pub number: usize,
    /// The mistake.
    pub why: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => Shown(&self.why).fmt(f),
            number => write!(f, "line {number}: {}", Shown(&self.why)),
        }
    }
}

/// Reads all lines; empty ones and comments are skipped.
pub fn parse(text: &str) -> (Vec<Line>, Vec<BadLine>) {
    let (mut lines, mut bad) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match one(number, line) {
            Ok(line) => lines.push(line),
            Err(why) => bad.push(BadLine { number, why }),
        }
    }
    (lines, bad)
}

fn one(number: usize, line: &str) -> Result<Line, String> {
    let (start, rest) = word(line);
    let (length, rest) = word(rest);
    let (kind, rest) = word(rest);
    if kind.is_empty() {
        return Err("a line is START LENGTH TARGET PARAMETERS; something is missing".into());
    }
    let params = rest.split('#').next().unwrap_or_default().trim_end();
    Ok(Line {
        number,
        start: sectors("start", start)?,
        length: sectors("length", length)?,
        kind: kind.into(),
        params: params.into(),
    })
}

fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn sectors(what: &str, word: &str) -> Result<u64, String> {
    let digits = word.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| word.parse().ok())
        .flatten()
        .ok_or_else(|| format!("the {what} `{word}` is not a number of sectors below 2^64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_comments_and_numbers() {
        let (lines, bad) = parse("# mine\n\n 0 8 linear  /dev/wd0 0 # here\n8 8 zero\r\n");
        assert_eq!(bad, []);
        let line = |number, start, kind: &str, params: &str| Line {
            number,
            start,
            length: 8,
            kind: kind.into(),
            params: params.into(),
        };
        assert_eq!(lines, [line(3, 0, "linear", "/dev/wd0 0"), line(4, 8, "zero", "")]);
    }

    #[test]
    fn every_bad_line_is_told() {
        let (lines, bad) =
            parse("x 8 zero\n0 8 zero\n8 -8 zero\n16 8\n0 18446744073709551616 zero");
        assert_eq!(lines.len(), 1);
        let told: Vec<_> = bad.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "line 1: the start `x` is not a number of sectors below 2^64",
                "line 3: the length `-8` is not a number of sectors below 2^64",
                "line 4: a line is START LENGTH TARGET PARAMETERS; something is missing",
                "line 5: the length `18446744073709551616` is not a number of sectors below 2^64",
            ]
        );
    }
}
