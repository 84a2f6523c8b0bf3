// SPDX-License-Identifier: BSD-2-Clause

//! `iostat`: the reads and writes of devices, as iostat(8) shows those of disks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use dm_core::commands::flags;
use dm_core::refusal::Shown;
use dm_host::wire::Kind;
use serde_json::{Value, json};

use super::{Ask, Session};
use crate::failure::Failure;
use crate::show;

/// Lines of devices after which the headings come again.
const PAGE: usize = 20;

/// A device's I/O since it was made.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Done {
    reads: u64,
    bytes_read: u64,
    writes: u64,
    bytes_written: u64,
    /// I/Os that are not complete now.
    now: u64,
    /// Microseconds in which there were incomplete I/Os.
    busy: u64,
    /// Microseconds since the device's creation.
    age: u64,
}

impl Done {
    /// Reads a line of the wire's: the device's minor, and the rest.
    fn parse(line: &str) -> Option<(u64, Done)> {
        let mut words = line.split('\t').map(|word| word.parse::<u64>().ok());
        let mut next = || words.next().flatten();
        let minor = next()?;
        let (reads, bytes_read, writes, bytes_written) = (next()?, next()?, next()?, next()?);
        let (now, busy, age) = (next()?, next()?, next()?);
        Some((minor, Done { reads, bytes_read, writes, bytes_written, now, busy, age }))
    }

    /// The I/O since `before`.
    fn since(self, before: Done) -> Done {
        Done {
            reads: self.reads.saturating_sub(before.reads),
            bytes_read: self.bytes_read.saturating_sub(before.bytes_read),
            writes: self.writes.saturating_sub(before.writes),
            bytes_written: self.bytes_written.saturating_sub(before.bytes_written),
            now: self.now,
            busy: self.busy.saturating_sub(before.busy),
            age: self.age.saturating_sub(before.age),
        }
    }
}

/// A device in a report.
struct Row {
    name: String,
    minor: u64,
    suspended: bool,
    done: Done,
}

impl Row {
    /// I/Os that a suspended device holds; a device that is not suspended holds none.
    fn held(&self) -> u64 {
        if self.suspended { self.done.now } else { 0 }
    }

    fn numbers(&self) -> [f64; 7] {
        let seconds = self.done.age.max(1) as f64 / 1e6;
        let size = |bytes: u64, count: u64| bytes as f64 / 1024.0 / count.max(1) as f64;
        let Done { reads, bytes_read, writes, bytes_written, busy, .. } = self.done;
        [
            size(bytes_read, reads),
            reads as f64 / seconds,
            bytes_read as f64 / 1048576.0 / seconds,
            size(bytes_written, writes),
            writes as f64 / seconds,
            bytes_written as f64 / 1048576.0 / seconds,
            (busy as f64 / 1e4 / seconds).min(100.0),
        ]
    }

    fn line(&self, width: usize) -> String {
        let [rk, rt, rm, wk, wt, wm, busy] = self.numbers();
        format!(
            "{:<width$} {rk:>8.2} {rt:>8.1} {rm:>8.2} {wk:>8.2} {wt:>8.1} {wm:>8.2} {:>6} {:>6} \
             {busy:>5.1}\n",
            Shown(&self.name).to_string(),
            self.done.now,
            self.held(),
        )
    }

    fn json(&self) -> Value {
        let done = self.done;
        json!({
            "name": self.name,
            "minor": self.minor,
            "seconds": done.age as f64 / 1e6,
            "reads": done.reads,
            "read_bytes": done.bytes_read,
            "writes": done.writes,
            "written_bytes": done.bytes_written,
            "busy_seconds": done.busy as f64 / 1e6,
            "in_flight": done.now.saturating_sub(self.held()),
            "held": self.held(),
        })
    }
}

fn headings(width: usize) -> String {
    format!(
        "{:<width$} {:>26} {:>26}\n{:<width$} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} \
         {:>5}\n",
        "",
        "---------- reads ---------",
        "--------- writes ---------",
        "device",
        "KB/t",
        "t/s",
        "MB/s",
        "KB/t",
        "t/s",
        "MB/s",
        "I/Os",
        "held",
        "busy%"
    )
}

impl Session {
    /// Reports once, or every `wait` seconds until `count` reports have been made, the output is
    /// no more wanted, or the program is interrupted.
    pub(super) fn iostat(
        &mut self,
        names: &[String],
        wait: Option<u32>,
        count: Option<u32>,
    ) -> Result<String, Failure> {
        let reports = count.or_else(|| wait.is_none().then_some(1));
        let mut before = BTreeMap::new();
        let (mut made, mut lines) = (0u32, PAGE);
        let mut next = Instant::now();
        loop {
            let rows = self.rows(names)?;
            let width = rows.iter().map(|row| row.name.chars().count()).fold(8, usize::max);
            let mut text = String::new();
            let changed: Vec<_> = rows.iter().map(|row| since(row, &before)).collect();
            if self.json {
                let devices: Vec<_> = changed.iter().map(Row::json).collect();
                let _ = writeln!(text, "{}", json!({ "devices": devices }));
            } else if rows.is_empty() && wait.is_none() {
                text.push_str(show::NONE);
            } else {
                if lines >= PAGE {
                    text.push_str(&headings(width));
                    lines = 0;
                }
                changed.iter().for_each(|row| text.push_str(&row.line(width)));
                lines = lines.saturating_add(changed.len().max(1));
            }
            before = rows.into_iter().map(|row| (row.minor, row.done)).collect();
            made = made.saturating_add(1);
            if reports.is_some_and(|reports| made >= reports) {
                return Ok(text);
            }
            let mut out = io::stdout().lock();
            if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                return match error.kind() {
                    io::ErrorKind::BrokenPipe => Ok(String::new()),
                    _ => Err(Failure::Usage(format!("standard output: {error}"))),
                };
            }
            drop(out);
            // From when the last report was due, so that the time a report takes does not add up.
            next += Duration::from_secs(u64::from(wait.unwrap_or(1)));
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn rows(&mut self, names: &[String]) -> Result<Vec<Row>, Failure> {
        let text = self.other(Kind::Statistics, "iostat", "")?;
        let done: BTreeMap<_, _> = text.lines().filter_map(Done::parse).collect();
        let all = if names.is_empty() { self.names()? } else { names.to_vec() };
        let mut rows = Vec::new();
        for name in all {
            let answer = match self.question(&Ask::name("info", &name)) {
                Err(Failure::NoDevice(_)) if names.is_empty() => continue,
                result => result?,
            };
            let minor = answer.number("minor").unwrap_or(0);
            let suspended = show::has(&answer, flags::SUSPEND);
            if let Some(done) = done.get(&minor) {
                rows.push(Row { name, minor, suspended, done: *done });
            }
        }
        Ok(rows)
    }
}

/// The difference of a row from the report before, or from the device's creation. A device that is younger than the
/// report is another one with the same minor.
fn since(row: &Row, before: &BTreeMap<u64, Done>) -> Row {
    let last = before.get(&row.minor).copied().filter(|last| last.age <= row.done.age);
    let done = row.done.since(last.unwrap_or_default());
    Row { name: row.name.clone(), done, ..*row }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_interval() {
        let parse = |text| Done::parse(text).unwrap().1;
        let first = parse("1\t10\t40960\t0\t0\t0\t0\t1000000");
        let done = parse("1\t30\t122880\t2\t2097152\t3\t500000\t3000000");
        let row = Row { name: "vol".into(), minor: 1, suspended: true, done };
        let row = since(&row, &BTreeMap::from([(1, first)]));
        assert_eq!(row.numbers(), [4.0, 10.0, 0.0390625, 1024.0, 1.0, 1.0, 25.0]);
        assert_eq!((row.held(), row.json()["in_flight"].as_u64()), (3, Some(0)));
        // A younger device has the minor now.
        let young = Row { done: parse("1\t1\t512\t0\t0\t0\t0\t500"), ..row };
        assert_eq!(since(&young, &BTreeMap::from([(1, first)])).done.reads, 1);
        assert!(Done::parse("1\t2").is_none() && Done::parse("x").is_none());
    }
}
