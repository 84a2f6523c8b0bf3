// SPDX-License-Identifier: BSD-2-Clause

//! Holes: the bytes of a device's components that are behind its bytes.

use dm_host::{Dev, makedev};

use crate::xml::Answer;

/// The allocation found at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Bytes that the rest is about.
    pub length: u64,
    /// `true` if nothing is allocated for these bytes.
    pub hole: bool,
    /// `true` if these bytes are known to read as zeroes.
    pub zero: bool,
    /// `true` if these bytes read as zeroes once they have been discarded.
    pub zeroes: bool,
}

/// A device's table, as far as it can be followed.
#[derive(Debug, Default)]
pub struct Map {
    /// The lines, in the order of their places, without gaps.
    lines: Vec<Line>,
}

/// A line; all numbers are bytes.
#[derive(Debug)]
struct Line {
    start: u64,
    length: u64,
    target: Target,
}

#[derive(Debug, PartialEq)]
enum Target {
    /// A component, from this byte on.
    Linear(Dev, u64),
    /// Chunks of so many bytes, in turn on these components, from these bytes on.
    Striped(u64, Vec<(Dev, u64)>),
    /// The line reads as zeroes, whatever is written.
    Zero,
    /// Nothing is known of the line.
    Other,
}

/// A function that tells the allocation of a component at a byte, for at most so many bytes.
type Ask<'a> = &'a dyn Fn(Dev, u64, u64) -> Found;

impl Map {
    /// The table in a reply to the command `table`.
    pub fn parse(reply: &Answer) -> Map {
        let lines = reply.dictionaries("cmd_data").filter_map(|line| {
            let bytes = |key| line.number(key)?.checked_mul(512);
            let target = target(line.text("type"), line.text("params"));
            Some(Line {
                start: bytes("start")?,
                length: bytes("length")?,
                target: target.unwrap_or(Target::Other),
            })
        });
        Map { lines: lines.collect() }
    }

    /// The device's size in bytes.
    pub fn bytes(&self) -> u64 {
        self.lines.last().map_or(0, |line| line.start.saturating_add(line.length))
    }

    /// The components of the table.
    pub fn devs(&self) -> impl Iterator<Item = Dev> + '_ {
        self.lines.iter().flat_map(|line| match &line.target {
            Target::Linear(dev, _) => vec![*dev],
            Target::Striped(_, stripes) => stripes.iter().map(|(dev, _)| *dev).collect(),
            Target::Zero | Target::Other => Vec::new(),
        })
    }

    fn line(&self, offset: u64) -> Option<&Line> {
        let after = self.lines.partition_point(|line| line.start <= offset);
        let line = self.lines.get(after.checked_sub(1)?)?;
        (offset < line.start.checked_add(line.length)?).then_some(line)
    }

    /// The allocation at a byte, for at most `length` bytes.
    pub fn first(&self, offset: u64, length: u64, ask: Ask<'_>) -> Found {
        let unknown = Found { length, ..Found::default() };
        let Some(line) = self.line(offset) else { return unknown };
        let within = offset.saturating_sub(line.start);
        let length = length.min(line.length.saturating_sub(within));
        let found = match &line.target {
            Target::Zero => Found { length, hole: true, zero: true, zeroes: true },
            Target::Other => Found { length, ..Found::default() },
            Target::Linear(dev, start) => match start.checked_add(within) {
                Some(at) => ask(*dev, at, length),
                None => unknown,
            },
            Target::Striped(chunk, stripes) => match place(*chunk, stripes, within) {
                Some((dev, at, left)) => ask(dev, at, length.min(left)),
                None => unknown,
            },
        };
        Found { length: found.length.clamp(1, length.max(1)), ..found }
    }

    /// The components behind a range: of each at least one place.
    pub fn components(&self, offset: u64, length: u64) -> impl Iterator<Item = (Dev, u64)> + '_ {
        let end = offset.saturating_add(length);
        let from =
            self.lines.partition_point(|line| line.start.saturating_add(line.length) <= offset);
        let lines = self.lines.get(from..).unwrap_or_default().iter();
        lines.take_while(move |line| line.start < end).flat_map(|line| match &line.target {
            Target::Linear(dev, start) => vec![(*dev, *start)],
            Target::Striped(_, stripes) => stripes.clone(),
            Target::Zero => Vec::new(),
            // No device has this number: nothing is known of it.
            Target::Other => vec![(dm_host::NODEV, 0)],
        })
    }
}

/// The place of a byte of a striped line: component, byte there, bytes left in its chunk.
fn place(chunk: u64, stripes: &[(Dev, u64)], within: u64) -> Option<(Dev, u64, u64)> {
    let count = u64::try_from(stripes.len()).ok()?;
    let (number, rest) = (within.checked_div(chunk)?, within.checked_rem(chunk)?);
    let stripe = usize::try_from(number.checked_rem(count)?).ok()?;
    let (dev, start) = stripes.get(stripe)?;
    let row = number.checked_div(count)?.checked_mul(chunk)?;
    Some((*dev, start.checked_add(row)?.checked_add(rest)?, chunk.saturating_sub(rest)))
}

fn target(kind: &str, params: &str) -> Option<Target> {
    let mut words = params.split_whitespace();
    let bytes = |word: &str| word.parse::<u64>().ok()?.checked_mul(512);
    let dev = |word: &str| {
        let (major, minor) = word.split_once(':')?;
        Some(makedev(major.parse().ok()?, minor.parse().ok()?))
    };
    match kind {
        "zero" => Some(Target::Zero),
        "linear" => Some(Target::Linear(dev(words.next()?)?, bytes(words.next()?)?)),
        "striped" => {
            let count: usize = words.next()?.parse().ok()?;
            let chunk = bytes(words.next()?)?;
            let words: Vec<_> = words.collect();
            let stripes: Option<Vec<_>> = words
                .chunks_exact(2)
                .map(|pair| Some((dev(pair.first()?)?, bytes(pair.last()?)?)))
                .collect();
            stripes.filter(|all| all.len() == count && chunk > 0).map(|s| Target::Striped(chunk, s))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(u64, u64, &str, &str)]) -> Map {
        let lines = lines.iter().map(|(start, length, kind, params)| Line {
            start: start * 512,
            length: length * 512,
            target: target(kind, params).unwrap_or(Target::Other),
        });
        Map { lines: lines.collect() }
    }

    #[test]
    fn places_are_those_of_the_driver() {
        let map = map(&[
            (0, 8, "linear", "3:3 100"),
            (8, 16, "striped", "2 4 3:3 0 3:4 1000"),
            (24, 8, "zero", ""),
            (32, 8, "new-one", "3:3 0"),
        ]);
        assert_eq!(map.bytes(), 40 * 512);
        let asked = |sector: u64| {
            let seen = std::cell::Cell::new(None);
            let found = map.first(sector * 512, 100 * 512, &|dev, offset, length| {
                seen.set(Some((dm_host::minor(dev), offset / 512, length / 512)));
                Found { length, ..Found::default() }
            });
            (seen.get(), found.length / 512)
        };
        assert_eq!(asked(3), (Some((3, 103, 5)), 5));
        assert_eq!(asked(9), (Some((3, 1, 3)), 3));
        assert_eq!(asked(12), (Some((4, 1000, 4)), 4));
        assert_eq!(asked(17), (Some((3, 5, 3)), 3));
        assert_eq!(asked(23), (Some((4, 1007, 1)), 1));
        assert_eq!(asked(24), (None, 8));
        assert_eq!(asked(33), (None, 7));
        let unasked = |_, _, _| unreachable!("zero and new-one have no components");
        assert!(map.first(24 * 512, 512, &unasked).hole);
        assert!(!map.first(33 * 512, 512, &unasked).hole);
        let behind = |from: u64, length: u64| map.components(from * 512, length * 512).count();
        assert_eq!((behind(0, 8), behind(7, 2), behind(24, 8), behind(31, 2)), (1, 3, 0, 1));
    }

    #[test]
    fn what_cannot_be_followed_is_not() {
        for (kind, params) in
            [("linear", "wd0 0"), ("linear", "3:3"), ("striped", "2 4 3:3 0"), ("striped", "0 0")]
        {
            assert_eq!(target(kind, params), None, "{kind} {params}");
        }
        let map = map(&[]);
        assert!(!map.first(0, 10, &|_, _, _| unreachable!()).hole);
    }
}
