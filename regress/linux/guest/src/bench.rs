// SPDX-License-Identifier: BSD-2-Clause

//! The cost of a read on Linux's device mapper, in instructions: the rows of `cargo xtask bench`.
//!
//! For a guest whose time stamp counter counts instructions (QEMU's `-icount shift=0`), with
//! brd's disks, which complete at once.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use dm_script::side::{Call, Line, Request};

use crate::dm::{self, Control};
use crate::raw::{self, Pages};

const BLOCK: usize = 4096;
/// The disk that all stand on.
const DISK: &str = "/dev/ram0";
/// Sectors of it that are used.
const SECTORS: u64 = 16_384;
/// Measured reads, and those before them that are not.
const ROUNDS: usize = 2001;
const WARM: usize = 200;

/// The cases: a title, and the sector that is read.
const CASES: &[(&str, u64)] = &[
    ("component", 0),
    ("linear", 0),
    ("10,000 lines", 5_000 * 64),
    ("last of 1,000", 0),
    ("striped", 0),
    ("striped, across", 12),
    ("zero", 0),
    ("stacked", 0),
];

struct Bed {
    control: Control,
    disk: String,
}

impl Bed {
    fn on(&self, call: Call, name: &str, lines: &[Line]) -> Result<u32, String> {
        let (name, lines) = (Some(name.to_owned()), lines.to_vec());
        let request = Request { name, lines, ..Request::new(call) };
        let reply = self.control.command(&request).map_err(|e| format!("{call:?}: {e}"))?;
        Ok(reply.minor)
    }

    /// A device with these lines.
    fn device(&self, name: &str, lines: &[Line]) -> Result<u32, String> {
        self.on(Call::Create, name, &[])?;
        self.on(Call::Load, name, lines)?;
        self.on(Call::Resume, name, &[])
    }

    /// A device of so many linear lines of 64 sectors.
    fn linear(&self, name: &str, count: u64) -> Result<u32, String> {
        let line =
            |i: u64| line(i * 64, 64, "linear", &format!("{} {}", self.disk, i * 64 % SECTORS));
        self.device(name, &(0..count).map(line).collect::<Vec<_>>())
    }

    /// Makes the device of a case, and returns the node to read from.
    fn case(&self, title: &str) -> Result<String, String> {
        let striped = format!("2 16 {0} 0 {0} 8192", self.disk);
        let minor = match title {
            "component" => return Ok(DISK.to_owned()),
            "linear" => self.linear("a", 1)?,
            "10,000 lines" => self.linear("a", 10_000)?,
            "last of 1,000" => {
                (1..1000).try_for_each(|n| self.linear(&format!("d{n}"), 1).map(drop))?;
                self.linear("last", 1)?
            }
            "zero" => self.device("a", &[line(0, 65_536, "zero", "")])?,
            "stacked" => {
                let below = self.linear("a", 1)?;
                let params = format!("{}:{below} 0", self.control.major());
                self.device("b", &[line(0, 64, "linear", &params)])?
            }
            _ => self.device("a", &[line(0, 8192, "striped", &striped)])?,
        };
        let path = format!("/run/bench.{minor}");
        let _ = std::fs::remove_file(&path);
        raw::mknod(&path, self.control.major(), minor).map_err(|error| error.to_string())?;
        Ok(path)
    }

    fn clear(&self) -> Result<(), String> {
        // Those that stand on others first, which are refused at first.
        (0..2).try_for_each(|_| self.on(Call::RemoveAll, "", &[]).map(drop))
    }
}

fn line(start: u64, length: u64, kind: &str, params: &str) -> Line {
    Line { start, length, kind: kind.to_owned(), params: params.to_owned() }
}

fn open(path: &str) -> Result<File, String> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT);
    options.open(path).map_err(|error| format!("{path}: {error}"))
}

/// Instructions of an I/O of 4 KiB: the median, which leaves out those that an interrupt met.
fn measure(path: &str, sector: u64, write: bool) -> Result<u64, String> {
    let (file, mut data, at) = (open(path)?, Pages::new(BLOCK), sector * 512);
    let mut counts = Vec::with_capacity(ROUNDS);
    for round in 0..WARM + ROUNDS {
        let before = counter();
        let done = if write { file.write_at(&data, at) } else { file.read_at(&mut data, at) };
        let count = counter() - before;
        match done {
            Ok(BLOCK) if round >= WARM => counts.push(count),
            Ok(BLOCK) => {}
            other => return Err(format!("{path}: {other:?}")),
        }
    }
    counts.sort_unstable();
    Ok(counts[counts.len() / 2])
}

#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    // SAFETY: each processor of this architecture has the counter.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    0
}

/// Measures, and prints a line for each case.
///
/// # Errors
/// Words.
pub fn main() -> Result<(), String> {
    let control = Control::open().map_err(|error| format!("device mapper: {error}"))?;
    let (major, minor) = dm::block_number(DISK).map_err(|error| error.to_string())?;
    let bed = Bed { control, disk: format!("{major}:{minor}") };
    // brd has no memory for what was never written: a read of that would be another read.
    let (disk, data) = (open(DISK)?, Pages::new(BLOCK));
    for at in (0..SECTORS * 512).step_by(BLOCK) {
        disk.write_at(&data, at).map_err(|error| format!("{DISK}: {error}"))?;
    }
    drop(disk);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("a 4 KiB read, Linux {:18} instructions  added to the component's", release.trim());
    let mut base = 0;
    for (title, sector) in CASES {
        let path = bed.case(title)?;
        let count = measure(&path, *sector, false)?;
        bed.clear()?;
        if *title == "component" {
            base = count;
        }
        println!("{title:38} {count:12}  {:12}", count.saturating_sub(base));
    }
    let below = measure(DISK, 0, true)?;
    let above = measure(&bed.case("linear")?, 0, true)?;
    bed.clear()?;
    println!("{:38} {above:12}  {:12}", "linear, written", above.saturating_sub(below));
    Ok(())
}
