// SPDX-License-Identifier: BSD-2-Clause

//! `dm-host map`: the ranges that a table maps to, and its mistakes. The driver itself tells: the table is loaded
//! into a machine of its own, with disks that have only a name and a size.

mod machine;
mod svg;
mod text;

use std::io::{self, IsTerminal};
use std::{env, fs};

use dm_core::guard::GuardedSectors;
use dm_core::hash::Hash;
use dm_core::table::{Builder, Component, Opener, Piece, Table};
use dm_core::units::{Dev, Sector, SectorRange};
use dm_core::{Errno, target};
use serde_json::{Value, json};

use crate::cli::{Draw, Map};
use crate::disk::Disk;
use crate::failure::Failure;
use crate::say::say;
use crate::table::{self, BadLine};
use crate::{ctl, show};
use machine::Refused;

/// Checks a table and prints, or draws, where it goes.
///
/// # Errors
/// [`Failure`], with all mistakes of the table.
pub fn run(map: &Map) -> Result<String, Failure> {
    let disks = Disk::parse_all(&map.disks).map_err(Failure::Usage)?;
    let (lines, mut bad) = table::parse(&ctl::read(&map.table)?);
    let checked = match machine::check(&lines, &disks, map.readonly) {
        Ok(mapped) => Ok(mapped),
        Err(Refused::Disk(why)) => return Err(Failure::Usage(why)),
        Err(Refused::Table(more)) => Err(more),
    };
    let mapped = match checked {
        Ok(mapped) if bad.is_empty() => mapped,
        result => {
            // A line that is none leaves a gap: that is told only once.
            let whole = bad.is_empty();
            let more = result.err().unwrap_or_default().into_iter();
            bad.extend(more.filter(|more| whole || !more.is_of_the_whole()));
            bad.sort_by_key(|line| line.number);
            if map.json {
                let one = |bad: &BadLine| match bad.number {
                    0 => json!({ "line": null, "why": bad.why }),
                    line => json!({ "line": line, "why": bad.why }),
                };
                let all: Vec<_> = bad.iter().map(one).collect();
                print!("{}", show::json::text(&json!({ "mistakes": all })));
            }
            return Err(Failure::Table { bad, kept: false });
        }
    };
    mapped.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    if let Some(path) = &map.svg {
        let failed = |error| Failure::Usage(format!("{}: {error}", path.display()));
        fs::write(path, mapped.svg()).map_err(failed)?;
        return Ok(String::new());
    }
    if map.json {
        return Ok(show::json::text(&mapped.json()));
    }
    let terminal = match map.draw {
        Draw::Auto => io::stdout().is_terminal(),
        Draw::Always => true,
        Draw::Never => false,
    };
    Ok(mapped.show(terminal.then(width)))
}

/// Cells for a bar: the terminal's width, as far as the environment tells it.
fn width() -> usize {
    let columns = env::var("COLUMNS").ok().and_then(|c| c.parse::<usize>().ok());
    columns.unwrap_or(80).clamp(24, 200).saturating_sub(6)
}

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

    fn guard(&self) -> Option<GuardedSectors> {
        None
    }
}

/// The components of a table that the driver has taken, by their numbers.
struct Papers(Vec<Paper>);

impl Opener for Papers {
    type Component = Paper;

    fn open(&self, path: &str) -> Result<Paper, Errno> {
        let found = self.0.iter().find(|paper| paper.dev.to_string() == path);
        found.cloned().ok_or(Errno::ENOENT)
    }

    fn hash(&self, name: &str) -> Option<&'static dyn Hash> {
        rustdm::netbsd::hash::find(name)
    }

    fn read_only(&self) -> bool {
        true
    }
}

/// The result of loading a table.
pub struct Mapped {
    table: Table<Paper>,
    /// The numbers of the table's lines in the text, in the table's order.
    numbers: Vec<usize>,
    /// The driver's warnings about a table that is loaded all the same.
    warnings: Vec<String>,
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
    /// The ranges that each line reaches.
    fn reaches(&self) -> Vec<Vec<Reach>> {
        let of = |(range, target): (SectorRange, &dyn target::Target)| {
            let mut all = Vec::new();
            target.extents(range.length, &mut |e| {
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

    /// The listing as JSON.
    pub fn json(&self) -> Value {
        let reaches = self.reaches();
        let mut lines = Vec::new();
        for (((range, target), reaches), number) in
            self.table.lines().zip(&reaches).zip(&self.numbers)
        {
            let to = |reach: &Reach| {
                let (name, last) = (self.component(reach.component), reach.last());
                json!({ "component": name, "first": reach.start, "last": last })
            };
            lines.push(json!({
                "line": number,
                "first": range.start.0,
                "last": range.last().0,
                "target": target.kind().name,
                "goes_to": reaches.iter().map(to).collect::<Vec<_>>(),
            }));
        }
        let component = |component: &Paper| {
            json!({
                "name": component.name,
                "sectors": component.size.0,
                "sector_bytes": component.sector_size,
                "read_only": !component.writable,
            })
        };
        json!({
            "sectors": self.table.size().0,
            "sector_bytes": self.table.sector_size(),
            "lines": lines,
            "components": self.table.components().iter().map(component).collect::<Vec<_>>(),
            "warnings": self.warnings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Line;

    fn disks() -> Vec<Disk> {
        Disk::parse_all(&["wd0:4096", "wd1:4096,ro"].map(String::from)).unwrap()
    }

    fn check(lines: &[Line], disks: &[Disk]) -> Result<Mapped, Vec<BadLine>> {
        machine::check(lines, disks, true).map_err(|refused| match refused {
            Refused::Table(bad) => bad,
            Refused::Disk(why) => panic!("{why}"),
        })
    }

    #[test]
    fn a_disk_that_takes_no_writes_wants_a_table_that_takes_none() {
        let disks = Disk::parse_all(&["wd0:4096,ro".into()]).unwrap();
        let (lines, _) = table::parse("0 8 linear /dev/wd0 0");
        assert!(machine::check(&lines, &disks, false).is_err());
        assert!(machine::check(&lines, &disks, true).is_ok());
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
                "line 3: a component does not exist: `/dev/wd9`; name it with --disk NAME=FILE \
                 or --disk NAME:SECTORS",
                "line 3: the line overlaps line 2, which ends before sector 16",
                &format!(
                    "line 4: no such target type: `nothing`; there are {}",
                    dm_core::targets::Names
                ),
                "line 4: there is a gap before the line: sectors 20 to 29",
                "line 5: the offset is not a number of sectors: `abc`",
                "line 6: the length is 0",
                "line 7: the range ends beyond its component: sectors 4090 to 4097 of `/dev/wd0`, \
                 which has 4096",
            ]
        );
    }

    #[test]
    fn ranges_of_every_target() {
        let text = "0 1024 linear /dev/wd0 1024\n1024 2048 striped 2 64 0:3 2048 /dev/wd1 0\n\
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
        let (lines, _) = table::parse("0 2048 linear /dev/wd0 0\n2048 2048 linear /dev/wd0 2048");
        let text = check(&lines, &disks()).ok().unwrap().show(Some(16));
        let bar = text.lines().find(|line| line.contains('▕')).unwrap();
        assert_eq!(bar.matches('█').count(), 16, "{bar}");
        assert!(text.contains("line 1") && text.contains("line 2"), "{text}");
    }

    #[test]
    fn shared_sectors_are_told() {
        let (lines, _) = table::parse("0 8 linear /dev/wd0 0\n8 8 linear /dev/wd0 4");
        let text = check(&lines, &disks()).ok().unwrap().show(None);
        assert!(text.contains("note: lines 1 and 2 share sectors 4 to 7 of wd0"), "{text}");
    }
}
