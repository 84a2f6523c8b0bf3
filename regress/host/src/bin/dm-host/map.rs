//! `dm-host map`: where a table sends each range, and what is wrong with it, by the very code that
//! the driver checks tables with.

use std::fmt::Write as _;

use dm_core::job::Op;
use dm_core::label::Guard;
use dm_core::table::{Builder, Component, Opener, Piece, Table};
use dm_core::units::{Dev, Sector};
use dm_core::{Errno, target};

use crate::disk::Disk;
use crate::table::{BadLine, Line};

/// A disk that is not there: only its size and its kind.
#[derive(Clone)]
pub struct Paper {
    name: String,
    dev: Dev,
    size: Sector,
    sector_size: u32,
    writable: bool,
}

impl Component for Paper {
    fn dev(&self) -> Dev {
        self.dev
    }

    fn size(&self) -> Sector {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn writable(&self) -> bool {
        self.writable
    }

    fn guard(&self) -> Option<Guard> {
        None
    }
}

/// The disks that a table may name.
pub struct Disks {
    disks: Vec<Paper>,
    /// The table takes no writes, so that its components need not.
    read_only: bool,
}

impl Disks {
    /// Those of the command line.
    ///
    /// # Errors
    /// A file that cannot be looked at.
    pub fn new(disks: &[Disk], read_only: bool) -> Result<Disks, String> {
        let paper = |(disk, number): (&Disk, u32)| {
            let dev = number_of(&disk.name).or_else(|| Dev::new(0xfff, number));
            Ok(Paper {
                name: disk.name.clone(),
                dev: dev.ok_or("too many disks")?,
                size: Sector(disk.sectors()?),
                sector_size: disk.sector_size,
                writable: !disk.read_only,
            })
        };
        let disks = disks.iter().zip(0..).map(paper).collect::<Result<_, String>>()?;
        Ok(Disks { disks, read_only })
    }
}

/// The number that a served disk of this name has, so that what `ctl table` prints can be mapped:
/// the block majors of NetBSD's disk drivers, and the partition that is the whole disk.
fn number_of(name: &str) -> Option<Dev> {
    let driver = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let unit: u32 = name.strip_prefix(driver)?.parse().ok()?;
    let (major, minor) = match driver {
        "wd" => (0, unit * 16 + 3),
        "sd" => (4, unit * 16 + 3),
        "ld" => (19, unit * 16 + 3),
        "dk" => (168, unit),
        _ => return None,
    };
    Dev::new(major, minor)
}

impl Opener for Disks {
    type Component = Paper;

    fn open(&self, path: &str) -> Result<Paper, Errno> {
        let name = path.strip_prefix("/dev/").unwrap_or(path);
        let meant = |disk: &&Paper| disk.name == name || disk.dev.to_string() == path;
        let disk = self.disks.iter().find(meant).ok_or(Errno::ENOENT)?;
        if !disk.writable && !self.read_only {
            return Err(Errno::EROFS);
        }
        Ok(disk.clone())
    }
}

/// What became of a table.
pub struct Mapped {
    table: Table<Paper>,
    /// The numbers of the table's lines in the text, in the table's order.
    numbers: Vec<usize>,
}

/// Checks a table; all mistakes come back, in the order of the text.
///
/// # Errors
/// The mistakes.
pub fn check(lines: &[Line], disks: &Disks) -> Result<Mapped, Vec<BadLine>> {
    let mut builder = Builder::new(disks);
    let mut bad = Vec::new();
    for line in lines {
        if let Err(error) = builder.line(line.start, line.length, &line.kind, &line.params) {
            let why = explain(error.mistake.why, line);
            bad.push(BadLine { number: line.number, why });
        }
    }
    bad.extend(borders(lines));
    if bad.is_empty() {
        match builder.build() {
            Ok(table) => {
                let mut order: Vec<_> = lines.iter().collect();
                order.sort_by_key(|line| line.start);
                let numbers = order.iter().map(|line| line.number).collect();
                return Ok(Mapped { table, numbers });
            }
            Err(error) => {
                let line = error.line.and_then(|at| lines.get(at));
                let number = line.map_or(0, |line| line.number);
                bad.push(BadLine { number, why: error.mistake.why.into() });
            }
        }
    }
    bad.sort_by_key(|line| line.number);
    Err(bad)
}

/// The driver's reason, and what could help.
fn explain(why: &str, line: &Line) -> String {
    match why {
        "no such target type" => {
            let names: Vec<_> = dm_core::targets::TARGETS.iter().map(|t| t.name).collect();
            format!("{why}: `{}`; there are {}", line.kind, names.join(", "))
        }
        "a component does not exist" => {
            format!(
                "{why}: `{}`; name it with --disk NAME=FILE or --disk NAME:SECTORS",
                line.params
            )
        }
        "a component is read-only, and the table is not" => {
            format!("{why}: `{}`; --readonly makes the table so", line.params)
        }
        _ => why.into(),
    }
}

/// Every gap and every overlap, where the driver stops at the first. Lines that are wrong by
/// themselves still take their place.
fn borders(lines: &[Line]) -> Vec<BadLine> {
    let mut order: Vec<_> = lines.iter().filter(|line| line.length > 0).collect();
    order.sort_by_key(|line| (line.start, line.number));
    let mut bad = Vec::new();
    // How far the lines have come, and which came furthest.
    let mut end = 0u64;
    let mut furthest = 0usize;
    for line in order {
        let why = if line.start > end && furthest == 0 {
            Some("the table does not begin at sector 0".into())
        } else if line.start > end {
            Some(format!("there is a gap before the line: sectors {end} to {}", line.start - 1))
        } else if line.start < end {
            Some(format!("the line overlaps line {furthest}, which ends before sector {end}"))
        } else {
            None
        };
        bad.extend(why.map(|why| BadLine { number: line.number, why }));
        let own = line.start.saturating_add(line.length);
        if own > end {
            (end, furthest) = (own, line.number);
        }
    }
    bad
}

/// A size in words.
fn size(sectors: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut number = sectors as f64 / 2.0;
    let mut unit = 0;
    while number >= 1024.0 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    format!("{number:.1} {}", UNITS.get(unit).copied().unwrap_or_default())
}

/// A stretch of a component that a line of the table reaches.
struct Reach {
    component: usize,
    start: u64,
    length: u64,
}

impl Reach {
    fn last(&self) -> u64 {
        self.start.saturating_add(self.length).saturating_sub(1)
    }
}

impl Mapped {
    /// What the lines reach, by line.
    fn reaches(&self) -> Vec<Vec<Reach>> {
        let of = |(_, length, target): (Sector, Sector, &dyn target::Target)| {
            let mut all = Vec::new();
            target.extents(length, &mut |e| {
                all.push(Reach {
                    component: e.component.0 as usize,
                    start: e.start.0,
                    length: e.length.0,
                });
            });
            all
        };
        self.table.lines().map(of).collect()
    }

    /// What stands in the listing for a line that reaches no component.
    fn nowhere(&self, start: Sector, length: Sector) -> String {
        match self.table.map(start, length, Op::Read) {
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
        for (((start, length, target), reaches), number) in
            self.table.lines().zip(&reaches).zip(&self.numbers)
        {
            let last = start.0.saturating_add(length.0).saturating_sub(1);
            let kind = target.kind().name;
            let mut head = format!("{number:>6} {:>12} {last:>12}  {kind:<8}", start.0);
            if reaches.is_empty() {
                let _ = writeln!(out, "{head} {}", self.nowhere(start, length));
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
                component.name,
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

    fn component(&self, at: usize) -> &str {
        self.table.components().get(at).map_or("?", |component| &component.name)
    }

    /// A component's ranges, in its order: first, last, the line.
    fn on(&self, at: usize, reaches: &[Vec<Reach>]) -> Vec<(u64, u64, usize)> {
        let mut ranges = Vec::new();
        for (reaches, number) in reaches.iter().zip(&self.numbers) {
            let here = reaches.iter().filter(|reach| reach.component == at);
            ranges.extend(here.map(|reach| (reach.start, reach.last(), *number)));
        }
        ranges.sort_unstable();
        ranges
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    fn disks() -> Disks {
        let disks = ["wd0:4096", "wd1:4096,ro"].map(String::from);
        Disks::new(&Disk::parse_all(&disks).unwrap(), true).unwrap()
    }

    #[test]
    fn a_disk_that_takes_no_writes_wants_a_table_that_takes_none() {
        let disks = Disk::parse_all(&["wd0:4096,ro".into()]).unwrap();
        let (lines, _) = table::parse("0 8 linear /dev/wd0 0");
        assert!(check(&lines, &Disks::new(&disks, false).unwrap()).is_err());
        assert!(check(&lines, &Disks::new(&disks, true).unwrap()).is_ok());
    }

    fn mistakes(text: &str) -> Vec<String> {
        let (lines, bad) = table::parse(text);
        assert_eq!(bad, []);
        check(&lines, &disks()).err().unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_mistakes_with_their_lines() {
        let text = "# a table\n8 8 linear /dev/wd0 0\n12 8 linear /dev/wd9 0\n30 8 nothing\n\
                    38 8 linear /dev/wd0 abc\n46 0 zero\n46 8 linear /dev/wd0 4090\n";
        assert_eq!(
            mistakes(text),
            [
                "line 2: the table does not begin at sector 0",
                "line 3: a component does not exist: `/dev/wd9 0`; name it with --disk NAME=FILE \
                 or --disk NAME:SECTORS",
                "line 3: the line overlaps line 2, which ends before sector 16",
                "line 4: no such target type: `nothing`; there are linear, striped, zero, error",
                "line 4: there is a gap before the line: sectors 20 to 29",
                "line 5: the offset is not a number of sectors",
                "line 6: the length is 0",
                "line 7: the range ends beyond its component",
            ]
        );
    }

    #[test]
    fn ranges_of_every_target() {
        let text = "0 1024 linear /dev/wd0 1024\n1024 2048 striped 2 64 0:3 2048 wd1 0\n\
                    3072 8 zero\n3080 8 error\n";
        let (lines, _) = table::parse(text);
        let mapped = check(&lines, &disks()).ok().unwrap();
        let text = mapped.show(None);
        for line in [
            "4 lines, 3088 sectors (1.5 MiB), sectors of 512 bytes",
            "     1            0         1023  linear   wd0 1024..2047",
            "     2         1024         3071  striped  wd0 2048..3071",
            "                                           wd1 0..1023",
            "     3         3072         3079  zero     reads as zeroes; writes are dropped",
            "     4         3080         3087  error    fails with EIO",
            "wd1: 4096 sectors (2.0 MiB), takes no writes",
            "             0         1023  not used",
            "          1024         2047  line 1",
            "          3072         4095  not used",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
        }
    }

    #[test]
    fn bars_have_the_width_asked_for() {
        let (lines, _) = table::parse("0 2048 linear wd0 0\n2048 2048 linear wd0 2048");
        let text = check(&lines, &disks()).ok().unwrap().show(Some(16));
        let bar = text.lines().find(|line| line.contains('▕')).unwrap();
        assert_eq!(bar.matches('█').count(), 16, "{bar}");
        assert!(text.contains("line 1") && text.contains("line 2"), "{text}");
    }

    #[test]
    fn shared_sectors_are_told() {
        let (lines, _) = table::parse("0 8 linear wd0 0\n8 8 linear wd0 4");
        let text = check(&lines, &disks()).ok().unwrap().show(None);
        assert!(text.contains("note: lines 1 and 2 share sectors 4 to 7 of wd0"), "{text}");
    }
}
