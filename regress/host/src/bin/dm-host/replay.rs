// SPDX-License-Identifier: BSD-2-Clause

//! `dm-host replay-log`: brings a disk to its state at some point of a log of its writes.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use dm_core::refusal::Shown;
use dm_host::write_log::{Entry, Flags, Log, Wrong};
use nix::fcntl::{FallocateFlags, fallocate};
use serde_json::{Value, json};

use crate::cli::ReplayLog;
use crate::failure::Failure;
use crate::{image, show};

/// Bytes in the sectors that people count in.
const SECTOR: u64 = 512;

/// Marks that a refusal names at most.
const NAMED: usize = 8;

/// Replays a log, or lists it.
///
/// # Errors
/// [`Failure::Usage`]: what is wrong with the log, the disk, or what was asked for. Nothing was written
/// then, unless the disk could not be written.
pub fn run(replay: &ReplayLog) -> Result<String, Failure> {
    let mut log = open(&replay.log).map_err(Failure::Usage)?;
    let Some(disk) = replay.disk.as_ref().filter(|_| !replay.list) else {
        return list(&mut log, replay).map_err(|why| wrong(&replay.log, why));
    };
    let range = find(&mut log, replay).map_err(|why| wrong(&replay.log, why))?;
    let file = open_disk(disk, &replay.log, &range).map_err(Failure::Usage)?;
    let mut target = Target { file, punches: true };
    log.rewind();
    let done = play(&mut log, &mut target, &range, !replay.no_discard);
    let done = done.map_err(|error| Failure::Usage(format!("{}: {error}", disk.display())))?;
    Ok(if replay.json { show::json::text(&done.json()) } else { done.text() })
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("{}: {why}", path.display()))
}

fn open(path: &Path) -> Result<Log<File>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let file = File::open(path).map_err(|error| failed(&error))?;
    let found = image::format_of(&file).ok().flatten();
    Log::open(file).map_err(|wrong| match found {
        Some(name) => failed(&format!("it is {name}, and no log of writes; a log is raw")),
        None => failed(&wrong),
    })
}

/// The entries that are to be replayed.
struct Range {
    /// The number of the entry before the first.
    after: u64,
    /// The last of them.
    last: u64,
    /// The number of entries in the log.
    of: u64,
    /// The byte behind the last that they change.
    end: u64,
    /// Bytes in a sector of the log's.
    sector: u64,
}

/// Reads the log up to the point of the replay, so that mistakes in it are found before anything is written.
fn find(log: &mut Log<File>, replay: &ReplayLog) -> Result<Range, String> {
    let of = log.entries();
    let last = replay.entry.unwrap_or(of);
    if last > of || replay.after > of {
        return Err(format!("there is no entry {}: the log has {of}", last.max(replay.after)));
    }
    if replay.after > last {
        return Err(format!("entry {last} does not come after entry {}", replay.after));
    }
    let mut range = Range { after: replay.after, last, of, end: 0, sector: log.sector_size() };
    let mark = replay.to.as_deref().map(OsStr::as_bytes);
    let mut marks: Vec<Vec<u8>> = Vec::new();
    let mut number = 0;
    while number < last {
        let Some(entry) = log.next_entry().map_err(|wrong| wrong.to_string())? else { break };
        number = entry.number;
        if number <= range.after {
            continue;
        }
        if !(replay.no_discard && entry.flags.has(Flags::DISCARD)) {
            range.end = range.end.max(entry.end());
        }
        if mark.is_some_and(|mark| entry.is_mark(mark)) {
            range.last = number;
            return Ok(range);
        }
        if entry.flags.has(Flags::MARK) && marks.len() <= NAMED {
            marks.push(entry.text);
        }
    }
    match mark {
        None => Ok(range),
        Some(mark) => Err(no_mark(mark, &marks, range.after)),
    }
}

/// Says that there is no such mark, and which there are.
fn no_mark(mark: &[u8], marks: &[Vec<u8>], after: u64) -> String {
    let mut text = format!("there is no mark {}", quoted(mark));
    if after > 0 {
        let _ = write!(text, " after entry {after}");
    }
    if marks.is_empty() {
        return text + ", nor any other";
    }
    let known: Vec<_> = marks.iter().take(NAMED).map(|mark| quoted(mark)).collect();
    let more = if marks.len() > NAMED { " and more" } else { "" };
    text + "; there are " + &known.join(", ") + more
}

/// A mark's text for people.
fn quoted(text: &[u8]) -> String {
    format!("`{}`", Shown(&String::from_utf8_lossy(text)))
}

fn open_disk(path: &Path, log: &Path, range: &Range) -> Result<File, String> {
    let failed = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => {
                "; it has to hold what the disk held before: `truncate -s SIZE` makes one of zeroes"
            }
            _ => "",
        };
        format!("{}: {error}{hint}", path.display())
    };
    let (disk, logged) = (fs::metadata(path).map_err(failed)?, fs::metadata(log).map_err(failed)?);
    if (disk.dev(), disk.ino()) == (logged.dev(), logged.ino()) {
        return Err(format!("{}: the log cannot be replayed to itself", path.display()));
    }
    let file = image::open_to_write(path)?;
    let size = image::size(&file).map_err(failed)?;
    if range.end > size {
        return Err(format!(
            "{}: it has {} sectors, and the log writes up to sector {}",
            path.display(),
            size / SECTOR,
            (range.end / SECTOR).saturating_sub(1)
        ));
    }
    Ok(file)
}

/// The file that is written.
struct Target {
    file: File,
    /// `true` while the file system seems to have holes.
    punches: bool,
}

impl Target {
    /// Makes a range read as zeroes.
    fn zero(&mut self, start: u64, length: u64) -> io::Result<()> {
        if self.punches {
            let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            // Both were checked to be at most what a file can have.
            match fallocate(&self.file, how, start as i64, length as i64) {
                Ok(()) => return Ok(()),
                Err(_) => self.punches = false,
            }
        }
        let zeroes = vec![0; length.min(1 << 20) as usize];
        let (mut at, end) = (start, start + length);
        while at < end {
            let some = (end - at).min(zeroes.len() as u64);
            self.file.write_all_at(zeroes.get(..some as usize).unwrap_or_default(), at)?;
            at += some;
        }
        Ok(())
    }
}

/// A number with its noun, in the plural where it is not 1.
fn count(n: u64, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

fn entries(n: u64) -> String {
    if n == 1 { String::from("1 entry") } else { format!("{n} entries") }
}

/// The totals of a replay.
struct Done {
    after: u64,
    last: u64,
    of: u64,
    writes: u64,
    written: u64,
    discards: u64,
    discarded: u64,
}

fn play(log: &mut Log<File>, disk: &mut Target, range: &Range, zero: bool) -> Result<Done, Wrong> {
    let (after, last, of) = (range.after, range.last, range.of);
    let mut done = Done { after, last, of, writes: 0, written: 0, discards: 0, discarded: 0 };
    let mut number = 0;
    while number < range.last {
        let Some(entry) = log.next_entry()? else { break };
        number = entry.number;
        if number <= range.after {
            continue;
        }
        if entry.is_write() {
            log.data(&entry, |at, data| disk.file.write_all_at(data, at))?;
            done.writes += 1;
            done.written += entry.length;
        } else if entry.flags.has(Flags::DISCARD) && zero {
            disk.zero(entry.start, entry.length)?;
            done.discards += 1;
            done.discarded += entry.length;
        }
    }
    disk.file.sync_all()?;
    Ok(done)
}

impl Done {
    fn text(&self) -> String {
        let which = match self.last - self.after {
            0 => format!("nothing of {}", entries(self.of)),
            1 => format!("entry {} of {}", self.last, self.of),
            _ => format!("entries {} to {} of {}", self.after + 1, self.last, self.of),
        };
        let sectors = |bytes: u64| count(bytes / SECTOR, "sector");
        let mut text = format!("replayed {which}: {}", count(self.writes, "write"));
        let _ = write!(text, " of {}", sectors(self.written));
        if self.discards > 0 {
            let discards = count(self.discards, "discard");
            let _ = write!(text, ", {discards} of {}", sectors(self.discarded));
        }
        text + "\n"
    }

    fn json(&self) -> Value {
        json!({
            "after": self.after,
            "entry": self.last,
            "entries": self.of,
            "writes": self.writes,
            "written_sectors": self.written / SECTOR,
            "discards": self.discards,
            "discarded_sectors": self.discarded / SECTOR,
        })
    }
}

/// An entry's kind in words: `write`, or its flags.
fn kind(entry: &Entry) -> String {
    let mut words: Vec<&str> = Flags::ALL
        .iter()
        .filter(|(flag, _)| entry.flags.has(*flag))
        .map(|(_, word)| *word)
        .collect();
    if entry.is_write() {
        words.insert(0, "write");
    }
    words.join(" ")
}

fn list(log: &mut Log<File>, replay: &ReplayLog) -> Result<String, String> {
    let range = find(log, replay)?;
    log.rewind();
    let mut rows = Vec::new();
    let mut text = format!(
        "{}, sectors of {} bytes\n\n{:>8} {:>12} {:>12}  WHAT\n",
        entries(range.of),
        range.sector,
        "ENTRY",
        "FIRST",
        "LAST"
    );
    let mut number = 0;
    while number < range.last {
        let Some(entry) = log.next_entry().map_err(|wrong| wrong.to_string())? else { break };
        number = entry.number;
        if number <= range.after {
            continue;
        }
        if replay.json {
            rows.push(row(&entry));
            continue;
        }
        let mut places = [String::new(), String::new()];
        if entry.length > 0 {
            let (first, end) = (entry.start / SECTOR, entry.end() / SECTOR);
            places = [first.to_string(), end.saturating_sub(1).to_string()];
        }
        let [first, last] = places;
        let _ = write!(text, "{number:>8} {first:>12} {last:>12}  {}", kind(&entry));
        if entry.flags.has(Flags::MARK) {
            let _ = write!(text, " {}", quoted(&entry.text));
        }
        text.push('\n');
    }
    if !replay.json {
        return Ok(text);
    }
    let all = json!({ "entries": range.of, "sector_bytes": range.sector, "log": rows });
    Ok(show::json::text(&all))
}

fn row(entry: &Entry) -> Value {
    let flags: Vec<_> = Flags::ALL.iter().filter(|(flag, _)| entry.flags.has(*flag)).collect();
    let mark = entry.flags.has(Flags::MARK).then(|| String::from_utf8_lossy(&entry.text));
    json!({
        "entry": entry.number,
        "start": entry.start / SECTOR,
        "length": entry.length / SECTOR,
        "flags": flags.iter().map(|(_, word)| *word).collect::<Vec<_>>(),
        "mark": mark,
    })
}
