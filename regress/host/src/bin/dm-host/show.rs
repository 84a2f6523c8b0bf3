// SPDX-License-Identifier: BSD-2-Clause

//! The output of the tools: the formats of dmsetup(8) and of dmctl(8).

use std::fmt::Write as _;

use dm_core::commands::flags;
use dm_core::refusal::Shown;
use dm_core::units::Dev;

use crate::cli::Style;
use crate::xml::Answer;
use tree::{How, Tree};

pub mod json;
pub mod report;
pub mod tree;

/// The line that dmsetup prints where there is nothing to list.
pub const NONE: &str = "No devices found\n";

/// The driver's major number for block devices: sys/conf/majors.
pub const BLOCK_MAJOR: u32 = 169;

/// `true` if an answer has a flag.
pub fn has(answer: &Answer, flag: u32) -> bool {
    answer.number("flags").unwrap_or(0) & u64::from(flag) != 0
}

/// A number of an answer; 0 if it has none.
pub fn number(answer: &Answer, key: &str) -> u64 {
    answer.number(key).unwrap_or(0)
}

/// The output of `info`.
pub fn info(answer: &Answer) -> String {
    let state = if has(answer, flags::SUSPEND) { "SUSPENDED" } else { "ACTIVE" };
    let read_only = if has(answer, flags::READONLY) { " (READ-ONLY)" } else { "" };
    let deferred = if has(answer, flags::DEFERRED_REMOVE) { " (DEFERRED REMOVE)" } else { "" };
    let tables = match (has(answer, flags::ACTIVE_PRESENT), has(answer, flags::INACTIVE_PRESENT)) {
        (true, true) => "LIVE & INACTIVE",
        (true, false) => "LIVE",
        (false, true) => "INACTIVE",
        (false, false) => "None",
    };
    let mut out = format!(
        "Name:              {}\n\
         State:             {state}{read_only}{deferred}\n\
         Tables present:    {tables}\n\
         Open count:        {}\n\
         Event number:      {}\n\
         Major, minor:      {BLOCK_MAJOR}, {}\n\
         Number of targets: {}\n",
        Shown(answer.text("name")),
        number(answer, "open_count"),
        number(answer, "event_nr"),
        number(answer, "minor"),
        number(answer, "target_count"),
    );
    if !answer.text("uuid").is_empty() {
        let _ = writeln!(out, "UUID: {}", Shown(answer.text("uuid")));
    }
    out.push('\n');
    out
}

/// `info` of dmctl.
pub fn dmctl_info(answer: &Answer) -> String {
    format!(
        "Printing Device info for:\n\
         Device name: \t\t{}\n\
         Device uuid: \t\t{}\n\
         Device minor: \t\t{}\n\
         Device target number: \t{}\n\
         Device flags: \t\t{}\n",
        Shown(answer.text("name")),
        Shown(answer.text("uuid")),
        number(answer, "minor"),
        number(answer, "target_count"),
        number(answer, "flags"),
    )
}

/// `table` and `status`; `all` puts the device's name before each line.
pub fn table(answer: &Answer, all: bool, target: Option<&str>) -> String {
    let name = if all { format!("{}: ", Shown(answer.text("name"))) } else { String::new() };
    let mut out = String::new();
    let lines: Vec<_> = answer.dictionaries("cmd_data").collect();
    if lines.is_empty() && target.is_none() {
        let _ = writeln!(out, "{name}");
    }
    for line in lines {
        let kind = line.text("type");
        if target.is_some_and(|target| target != kind) {
            continue;
        }
        let (start, length) = (number(&line, "start"), number(&line, "length"));
        let (kind, params) = (Shown(kind), Shown(line.text("params")));
        let _ = writeln!(out, "{name}{start} {length} {kind} {params}");
    }
    out
}

/// `table` and `status` of dmctl.
pub fn dmctl_table(answer: &Answer) -> String {
    let mut out = format!("Getting device table for device {}\n", Shown(answer.text("name")));
    for line in answer.dictionaries("cmd_data") {
        let (start, length) = (number(&line, "start"), number(&line, "length"));
        let _ = writeln!(out, "{start:>10} {length:>10} {}", line.text("type"));
    }
    out
}

/// The output of `deps`; `all` puts the device's name before it, and `names` has those of block devices.
pub fn deps(style: Style, answer: &Answer, all: bool, names: Option<&Tree>) -> String {
    let name = Shown(answer.text("name"));
    let devs: Vec<_> = answer.numbers("cmd_data").into_iter().map(Dev).collect();
    let mut out = match (style, all) {
        (Style::Dmctl, _) => format!("Device {name} dependiences \n"),
        (Style::Dmsetup, true) => format!("{name}: {} dependencies\t:", devs.len()),
        (Style::Dmsetup, false) => format!("{} dependencies\t:", devs.len()),
    };
    for dev in devs {
        let called = names.and_then(|names| names.name(dev));
        let _ = match (style, called) {
            (Style::Dmsetup, Some(name)) => write!(out, " ({})", Shown(name)),
            (Style::Dmsetup, None) => write!(out, " ({}, {})", dev.major(), dev.minor()),
            (Style::Dmctl, _) => writeln!(out, "major: {} minor: {}", dev.major(), dev.minor()),
        };
    }
    if style == Style::Dmsetup {
        out.push('\n');
    }
    out
}

/// The output of `ls`.
pub fn names(style: Style, entries: &[Answer], how: &How) -> String {
    let mut out = String::new();
    for entry in entries {
        let (name, minor) = (Shown(entry.text("name")), number(entry, "dev"));
        let _ = match (style, how.blkdevname) {
            (Style::Dmsetup, true) => writeln!(out, "{name}\t(dm{minor})"),
            (Style::Dmsetup, false) => writeln!(out, "{name}\t({BLOCK_MAJOR}, {minor})"),
            (Style::Dmctl, _) => writeln!(out, "Device name: {name}, device minor: {minor} "),
        };
    }
    if out.is_empty() && style == Style::Dmsetup {
        out.push_str(NONE);
    }
    out
}

/// The output of `targets`.
pub fn targets(style: Style, entries: &[Answer]) -> String {
    let mut out = String::new();
    for entry in entries {
        let version: Vec<_> = entry.numbers("ver").iter().map(u64::to_string).collect();
        let (name, version) = (entry.text("name"), version.join("."));
        let _ = match style {
            Style::Dmsetup => writeln!(out, "{name:<16} v{version}"),
            Style::Dmctl => writeln!(out, "Target name: {name}\nTarget version {version}\n"),
        };
    }
    out
}

/// The output of `version`.
pub fn version(style: Style, answer: &Answer) -> String {
    let version: Vec<_> = answer.numbers("version").iter().map(u64::to_string).collect();
    match style {
        Style::Dmsetup => format!(
            "Library version:   {} (dm-host)\nDriver version:    {}\n",
            env!("CARGO_PKG_VERSION"),
            version.join(".")
        ),
        Style::Dmctl => format!(
            "Library protocol version 4:0:0\nKernel protocol version {}\n",
            version.join(":")
        ),
    }
}

/// `disks`, in columns.
pub fn disks(text: &str) -> String {
    let mut out = format!(
        "{:<12} {:>8} {:>12} {:>6} {:<5} {}\n",
        "Disk", "Device", "Sectors", "Bytes", "Mode", "File"
    );
    for line in text.lines() {
        let mut words = line.split('\t');
        let mut word = || words.next().unwrap_or_default();
        let (name, dev, sectors, bytes, mode, file) =
            (word(), word(), word(), word(), word(), word());
        let file = Shown(file);
        let _ = writeln!(out, "{name:<12} {dev:>8} {sectors:>12} {bytes:>6} {mode:<5} {file}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::{self, Dict, Plist};

    fn device(name: &str, flags: u32, uuid: &str) -> Answer {
        let line = Dict::from([
            ("start", 0.into()),
            ("length", 2048.into()),
            ("type", "linear".into()),
            ("params", "3:16 64".into()),
        ]);
        let dict = Dict::from([
            ("name", name.into()),
            ("uuid", uuid.into()),
            ("minor", 1.into()),
            ("flags", u64::from(flags).into()),
            ("open_count", 2.into()),
            ("event_nr", 7.into()),
            ("target_count", 1.into()),
            ("cmd_data", Plist::Array(vec![Plist::Dict(line)])),
        ]);
        Answer::parse(xml::write(&dict).as_bytes()).unwrap()
    }

    #[test]
    fn info_is_dmsetups() {
        let answer = device("vol", flags::EXISTS | flags::ACTIVE_PRESENT | flags::READONLY, "U-1");
        assert_eq!(
            info(&answer),
            "Name:              vol\nState:             ACTIVE (READ-ONLY)\n\
             Tables present:    LIVE\nOpen count:        2\nEvent number:      7\n\
             Major, minor:      169, 1\nNumber of targets: 1\nUUID: U-1\n\n"
        );
        let bare = device("vol", flags::EXISTS | flags::SUSPEND, "");
        let text = info(&bare);
        assert!(text.contains("SUSPENDED\nTables present:    None\n"), "{text}");
        let going = device("a\nb", flags::EXISTS | flags::DEFERRED_REMOVE, "");
        assert!(info(&going).contains("ACTIVE (DEFERRED REMOVE)\n"), "{}", info(&going));
        assert!(info(&going).contains("Name:              a\\x0ab\n"), "{}", info(&going));
        assert!(!text.contains("UUID"), "{text}");
    }

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let live = flags::EXISTS | flags::ACTIVE_PRESENT | flags::INACTIVE_PRESENT;
        let report = crate::cli::Report::default();
        let fields = report::fields(&report, report::INFO).unwrap();
        let row = report::Row::new(device("a-name-of-some-length", live, ""));
        let text = report::show(&report, &fields, vec![row]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0].trim_end(), "Name                  Maj Min Stat Open Targ Event  UUID");
        assert_eq!(lines[1].trim_end(), "a-name-of-some-length 169   1 LI-w    2    1      7");
    }

    #[test]
    fn tables_are_dmsetups_and_dmctls() {
        let answer = device("vol", flags::EXISTS, "");
        assert_eq!(table(&answer, false, None), "0 2048 linear 3:16 64\n");
        assert_eq!(table(&answer, true, None), "vol: 0 2048 linear 3:16 64\n");
        assert_eq!(table(&answer, true, Some("zero")), "");
        assert_eq!(
            dmctl_table(&answer),
            "Getting device table for device vol\n         0       2048 linear\n"
        );
    }
}
