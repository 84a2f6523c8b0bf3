// SPDX-License-Identifier: BSD-2-Clause

//! The listing: the ranges of each line, and the ranges of each component that are used.

use std::fmt::Write as _;

use dm_core::job::Op;
use dm_core::refusal::Shown;
use dm_core::units::SectorRange;

use super::{Mapped, Paper, Piece, Reach};

/// A size in words.
pub fn size(sectors: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut number = sectors as f64 / 2.0;
    let mut unit = 0;
    while number >= 1024.0 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    format!("{number:.1} {}", UNITS.get(unit).copied().unwrap_or_default())
}

impl Mapped {
    /// The text in the listing for a line that reaches no component.
    fn nowhere(&self, range: SectorRange) -> String {
        match self.table.map(range, Op::Read) {
            Some(Piece::Zero(_)) => "reads as zeroes; writes are dropped".into(),
            Some(Piece::Fail(_, errno)) => format!("fails with {errno:?}"),
            _ => "nowhere".into(),
        }
    }

    /// The listing, and a bar for each component if `draw` is its width.
    pub fn show(&self, draw: Option<usize>) -> String {
        let reaches = self.reaches();
        let total = self.table.size().0;
        let mut out = format!(
            "{} lines, {total} sectors ({}), sectors of {} bytes\n\n{:>6} {:>12} {:>12}  {:<8} {}\n",
            self.table.len(),
            size(total),
            self.table.sector_size(),
            "LINE",
            "FIRST",
            "LAST",
            "TARGET",
            "GOES TO"
        );
        for (((range, target), reaches), number) in
            self.table.lines().zip(&reaches).zip(&self.numbers)
        {
            let kind = target.kind().name;
            let mut head =
                format!("{number:>6} {:>12} {:>12}  {kind:<8}", range.start.0, range.last().0);
            if reaches.is_empty() {
                let _ = writeln!(out, "{head} {}", self.nowhere(range));
            }
            for reach in reaches {
                let name = self.component(reach.component);
                let _ = writeln!(out, "{head} {name} {}..{}", reach.start, reach.last());
                head = " ".repeat(head.len());
            }
        }
        out.push('\n');
        for (at, component) in self.table.components().iter().enumerate() {
            let _ = writeln!(
                out,
                "{}: {} sectors ({}){}",
                Shown(&component.name),
                component.size.0,
                size(component.size.0),
                if component.writable { "" } else { ", takes no writes" }
            );
            match draw {
                Some(width) => self.bar(&mut out, at, component, &reaches, width),
                None => self.ranges(&mut out, at, component, &reaches),
            }
            self.shared(&mut out, at, &reaches);
        }
        out
    }

    /// The plain form: a line for each range, used or not.
    fn ranges(&self, out: &mut String, at: usize, component: &Paper, reaches: &[Vec<Reach>]) {
        let mut end = 0;
        let free = |out: &mut String, from: u64, to: u64| {
            if from < to {
                let _ = writeln!(out, "  {from:>12} {:>12}  not used", to - 1);
            }
        };
        for (first, last, number) in self.on(at, reaches) {
            free(out, end, first);
            let _ = writeln!(out, "  {first:>12} {last:>12}  line {number}");
            end = end.max(last.saturating_add(1));
        }
        free(out, end, component.size.0);
    }

    /// The drawn form: the lines' letters over a bar, in as many cells as there is room.
    fn bar(
        &self,
        out: &mut String,
        at: usize,
        component: &Paper,
        reaches: &[Vec<Reach>],
        width: usize,
    ) {
        let ranges = self.on(at, reaches);
        let size = component.size.0.max(1);
        let width = width.clamp(10, 200);
        let mut cells: Vec<(Option<usize>, String)> = Vec::new();
        let mut add = |line: Option<usize>, cell: &str| match cells.last_mut() {
            Some((last, run)) if *last == line => run.push_str(cell),
            _ => cells.push((line, cell.into())),
        };
        let mut legend = Vec::new();
        let mut shown = 0;
        for cell in 0..width {
            // In 128 bits, so that no size wraps.
            let edge = |n: usize| (u128::from(size) * n as u128 / width as u128) as u64;
            let (from, to) = (edge(cell), edge(cell + 1).max(edge(cell) + 1));
            let mut here = ranges.iter().filter(|(first, last, _)| *first < to && from <= *last);
            let Some((_, _, number)) = here.next() else {
                add(None, "·");
                continue;
            };
            let more = here.any(|(.., other)| other != number);
            add(Some(*number), if more { "▒" } else { "█" });
            if *number != shown {
                legend.push(paint(Some(*number), &format!("█ line {number}")));
                shown = *number;
            }
        }
        legend.dedup();
        let bar: String = cells.iter().map(|(line, run)| paint(*line, run)).collect();
        let _ = writeln!(out, "  ▕{bar}▏");
        if legend.len() <= 12 {
            let _ = writeln!(out, "   {}", legend.join("  "));
        } else {
            let _ = writeln!(out, "   {} lines", legend.len());
        }
    }

    /// Tells of sectors that two ranges of the table share: allowed, but rarely meant.
    fn shared(&self, out: &mut String, at: usize, reaches: &[Vec<Reach>]) {
        let mut furthest: Option<(u64, usize)> = None;
        for (first, last, number) in self.on(at, reaches) {
            if let Some((end, other)) = furthest.filter(|(end, _)| first <= *end) {
                let until = end.min(last);
                let _ = writeln!(
                    out,
                    "  note: lines {other} and {number} share sectors {first} to {until} of {}",
                    self.component(at)
                );
            }
            if furthest.is_none_or(|(end, _)| last > end) {
                furthest = Some((last, number));
            }
        }
    }
}

/// Colours a line's cells by its number.
fn paint(number: Option<usize>, text: &str) -> String {
    const COLOURS: [u8; 6] = [32, 34, 33, 35, 36, 31];
    let colour = number.and_then(|n| COLOURS.get(n % COLOURS.len()).copied()).unwrap_or(90);
    format!("\x1b[{colour}m{text}\x1b[0m")
}
