// SPDX-License-Identifier: BSD-2-Clause

//! The machine that a table is checked by: the hosted kernel with the driver, and the disks of the
//! command line, which nothing is written to.

use std::fs::File;

use dm_core::commands::flags;
use dm_host::{Backend, Config, DiskSpec, File as Node, Flags, Machine, Node as Path, netbsd};

use super::{Builder, Dev, Mapped, Paper, Papers, Sector};
use crate::ctl;
use crate::disk::{Disk, From};
use crate::show::BLOCK_MAJOR;
use crate::table::{BadLine, Line};
use crate::xml::{self, Answer, Dict, Plist};

/// Why there is nothing to show.
pub enum Refused {
    /// A disk of the command line.
    Disk(String),
    /// The table's mistakes.
    Table(Vec<BadLine>),
}

/// Mistakes that are told at most.
const MISTAKES: usize = 1000;

/// The device that the table is for. No other can be called so on the command line.
const DEVICE: &str = "dm-host map";

impl BadLine {
    /// `true` for a mistake between lines, which may follow from another.
    pub fn is_of_the_whole(&self) -> bool {
        self.number == 0 || self.why.starts_with("there is a gap")
    }
}

/// Checks a table; all mistakes come back, in the order of the text.
pub fn check(lines: &[Line], disks: &[Disk], read_only: bool) -> Result<Mapped, Refused> {
    let machine = Booted::boot(disks).map_err(Refused::Disk)?;
    let broken =
        |why: String| Refused::Disk(format!("the driver does not answer as it should: {why}"));
    // The last of the minors, so that it is not the one that a table means by a number.
    let last = [("minor", u64::from(dm_core::Minor::MAX.get()).into())];
    machine
        .ask("create", DEVICE, flags::PERSISTENT_DEV, &[], &last)
        .map_err(|refusal| broken(refusal.why))?;
    let refused = match machine.load(DEVICE, lines, read_only) {
        Ok(warnings) => {
            return machine.mapped(lines, warnings).map_err(broken);
        }
        Err(refusal) => refusal,
    };
    let mut bad = Vec::new();
    for line in lines {
        // By itself it need not begin at sector 0.
        if let Err(refusal) = machine.load(DEVICE, std::slice::from_ref(line), read_only)
            && !refusal.why.starts_with("the table does not begin")
        {
            bad.push(BadLine { number: line.number, why: explain(&refusal.why) });
        }
        if bad.len() >= MISTAKES {
            break;
        }
    }
    bad.extend(borders(lines));
    if bad.is_empty() {
        let line = refused.line.and_then(|at| lines.get(at.checked_sub(1)?));
        bad.push(BadLine { number: line.map_or(0, |line| line.number), why: refused.why });
    }
    bad.sort_by_key(|line| line.number);
    Err(Refused::Table(bad))
}

/// The driver's reason, and what could help.
fn explain(why: &str) -> String {
    let help = if why.starts_with("a component does not exist") {
        "; name it with --disk NAME=FILE or --disk NAME:SECTORS"
    } else if why.starts_with("a component is read-only") {
        "; --readonly makes the table so"
    } else {
        ""
    };
    format!("{why}{help}")
}

/// All gaps and overlaps; the driver stops at the first. Lines that are wrong by themselves still take their place.
fn borders(lines: &[Line]) -> Vec<BadLine> {
    let mut order: Vec<_> = lines.iter().filter(|line| line.length > 0).collect();
    order.sort_by_key(|line| (line.start, line.number));
    let mut bad = Vec::new();
    // The end of the lines so far, and the line that reaches it.
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

/// A refusal of the driver's.
struct Refusal {
    line: Option<usize>,
    why: String,
}

impl std::convert::From<String> for Refusal {
    fn from(why: String) -> Refusal {
        Refusal { line: None, why }
    }
}

/// A machine that runs, and its control node.
struct Booted {
    // Closed before the machine goes.
    control: Option<Node>,
    machine: Option<Machine>,
    /// Disks' names and numbers.
    names: Vec<(Dev, String)>,
}

impl Drop for Booted {
    fn drop(&mut self) {
        let _ = self.ask("remove_all", "", 0, &[], &[]);
        self.control = None;
        // Leaks are for the machine's own tests to find.
        let _ = self.machine.take().map(Machine::shutdown);
    }
}

impl Booted {
    fn boot(disks: &[Disk]) -> Result<Booted, String> {
        let failed = |errno: dm_host::Errno| format!("the hosted kernel: {}", errno.text());
        // Nothing is left uninitialised in it that matters here.
        let machine = Machine::boot(Config { pattern: 0, ..Config::default() }).map_err(failed)?;
        let mut booted = Booted { control: None, machine: Some(machine), names: Vec::new() };
        let control = booted.machine()?.open("/dev/mapper/control", Flags::READ_WRITE);
        booted.control = Some(control.map_err(failed)?);
        for disk in disks {
            booted.attach(disk)?;
        }
        Ok(booted)
    }

    fn machine(&self) -> Result<&Machine, String> {
        self.machine.as_ref().ok_or_else(|| "the hosted kernel has ended".into())
    }

    fn attach(&mut self, disk: &Disk) -> Result<(), String> {
        let sectors = disk.sectors()?;
        if let Some(name) = disk.name.strip_prefix("mapper/") {
            return self.make(name, disk, sectors);
        }
        let failed = |errno: dm_host::Errno| format!("disk {}: {}", disk.name, errno.text());
        let own = sectors / u64::from(disk.sector_size / 512).max(1);
        let spec = match &disk.from {
            From::File(path) => {
                let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
                DiskSpec::on(&disk.name, Backend::File(file), disk.read_only)
            }
            From::Sectors(_) | From::Nbd(_) if disk.read_only => {
                DiskSpec::null(&disk.name, own).read_only()
            }
            From::Sectors(_) | From::Nbd(_) => DiskSpec::null(&disk.name, own),
        };
        let attached = self.machine()?.attach_disk(spec.sector_size(disk.sector_size));
        let dev = attached.map_err(failed)?.dev();
        self.names.extend(dev_of(dev).map(|dev| (dev, disk.name.clone())));
        Ok(())
    }

    /// Makes a device of the mapper's, for the table to name.
    fn make(&mut self, name: &str, disk: &Disk, sectors: u64) -> Result<(), String> {
        let told = |refusal: Refusal| format!("disk {}: {}", disk.name, refusal.why);
        let answer = self.ask("create", name, 0, &[], &[]).map_err(told)?;
        let kind = "zero".into();
        let line = Line { number: 1, start: 0, length: sectors, kind, params: String::new() };
        self.load(name, &[line], disk.read_only).map_err(told)?;
        self.ask("resume", name, 0, &[], &[]).map_err(told)?;
        let minor = answer.number("minor").and_then(|minor| u32::try_from(minor).ok());
        let minor = minor.ok_or("a device has no minor number")?;
        let node = dm_host::makedev(BLOCK_MAJOR, minor);
        let made = self.machine()?.mknod(&format!("/dev/mapper/{name}"), node, true);
        made.map_err(|errno| format!("disk {}: {}", disk.name, errno.text()))?;
        self.names.extend(Dev::new(BLOCK_MAJOR, minor).map(|dev| (dev, disk.name.clone())));
        Ok(())
    }

    fn ask(
        &self,
        command: &str,
        name: &str,
        flags: u32,
        lines: &[Plist],
        more: &[(&'static str, Plist)],
    ) -> Result<Answer, Refusal> {
        let mut dict = Dict::from([
            ("command", command.into()),
            ("name", name.into()),
            ("flags", u64::from(flags).into()),
            ("cmd_data", Plist::Array(lines.to_vec())),
            ("reasons", 1.into()),
        ]);
        dict.extend(more.iter().cloned());
        let control = self.control.as_ref().ok_or_else(|| String::from("no control node"))?;
        let text = xml::write(&dict);
        let reply = control.plist_ioctl(&text).map_err(|errno| match errno {
            dm_host::Errno::E2BIG => format!("the line makes a request of {} bytes", text.len()),
            errno => errno.text().into(),
        })?;
        let answer = Answer::parse(reply.as_bytes())?;
        if answer.number("errno") == Some(0) {
            return Ok(answer);
        }
        let line = answer.number("line").and_then(|line| usize::try_from(line).ok());
        Err(Refusal { line, why: answer.text("reason").into() })
    }

    /// Loads a table, and returns the driver's warnings about it.
    fn load(&self, name: &str, lines: &[Line], read_only: bool) -> Result<Vec<String>, Refusal> {
        let read_only = if read_only { flags::READONLY } else { 0 };
        let parts = ctl::parts(lines);
        let (count, mut before) = (parts.len(), 0u64);
        let mut warnings = Vec::new();
        for (at, part) in parts.into_iter().enumerate() {
            let last = at.saturating_add(1) == count;
            let more = if last { 0 } else { flags::RELOAD_MORE };
            let sent = [("before", before.into())];
            let answer = self.ask("reload", name, read_only | more, &part, &sent)?;
            before = before.saturating_add(part.len() as u64);
            warnings.extend(Some(answer.text("warning").to_string()).filter(|w| !w.is_empty()));
        }
        Ok(warnings)
    }

    /// The table that has been loaded.
    fn mapped(&self, lines: &[Line], warnings: Vec<String>) -> Result<Mapped, String> {
        let flags = flags::STATUS_TABLE | flags::QUERY_INACTIVE_TABLE;
        let told = |refusal: Refusal| refusal.why;
        let table = self.ask("table", DEVICE, flags, &[], &[]).map_err(told)?;
        let deps = self.ask("deps", DEVICE, flags, &[], &[]).map_err(told)?;
        // A block device can be open only once.
        self.ask("clear", DEVICE, 0, &[], &[]).map_err(told)?;
        let papers = deps.numbers("cmd_data").into_iter().map(|dev| self.paper(Dev(dev)));
        let papers = Papers(papers.collect::<Result<_, String>>()?);
        let mut builder = Builder::new(&papers);
        for line in table.dictionaries("cmd_data") {
            let number = |key| line.number(key).unwrap_or(0);
            builder
                .line(number("start"), number("length"), line.text("type"), line.text("params"))
                .map_err(|error| error.to_string())?;
        }
        let table = builder.build().map_err(|error| error.to_string())?;
        let mut order: Vec<_> = lines.iter().collect();
        order.sort_by_key(|line| line.start);
        let numbers = order.iter().map(|line| line.number).collect();
        Ok(Mapped { table, numbers, warnings })
    }

    /// A component's size and kind, as its node tells them.
    fn paper(&self, dev: Dev) -> Result<Paper, String> {
        let failed = |errno: dm_host::Errno| format!("{dev}: {}", errno.text());
        let node = dm_host::makedev(dev.major(), dev.minor());
        let open = |flags| self.machine().map(|machine| machine.open(Path::Block(node), flags));
        let (file, writable) = match open(Flags::READ_WRITE)? {
            Ok(file) => (file, true),
            Err(_) => (open(Flags::READ)?.map_err(failed)?, false),
        };
        let mut sector_size = 0u32;
        file.ioctl(netbsd::DIOCGSECTORSIZE as u32 as u64, &mut sector_size).map_err(failed)?;
        let size = Sector(file.size() / 512);
        Ok(Paper { name: self.name(dev)?, dev, size, sector_size, writable })
    }

    /// A component's name: as on the command line, or that of its node.
    fn name(&self, dev: Dev) -> Result<String, String> {
        if let Some((_, name)) = self.names.iter().find(|(other, _)| *other == dev) {
            return Ok(name.clone());
        }
        let machine = self.machine()?;
        let node = dm_host::makedev(dev.major(), dev.minor());
        let names = machine.names("/dev").into_iter();
        let mut named = names.filter(|name| machine.stat(name) == Some((node, true)));
        let name = named.next().unwrap_or_else(|| dev.to_string());
        Ok(name.strip_prefix("/dev/").unwrap_or(&name).into())
    }
}

/// A device number of the hosted kernel's as dm-core has it.
fn dev_of(dev: dm_host::Dev) -> Option<Dev> {
    Dev::new(dm_host::major(dev), dm_host::minor(dev))
}
