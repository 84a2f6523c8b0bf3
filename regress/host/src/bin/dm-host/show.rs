//! What the tools print: the formats of dmsetup(8) and of dmctl(8).

use std::fmt::Write as _;

use dm_core::ioctl::flags;
use dm_core::units::Dev;

use crate::cli::Style;
use crate::xml::Answer;

/// What dmsetup says where there is nothing to list.
pub const NONE: &str = "No devices found\n";

/// The driver's major number for block devices: sys/conf/majors.
const BLOCK_MAJOR: u32 = 169;

fn has(answer: &Answer, flag: u32) -> bool {
    answer.number("flags").unwrap_or(0) & u64::from(flag) != 0
}

fn number(answer: &Answer, key: &str) -> u64 {
    answer.number(key).unwrap_or(0)
}

/// `info`.
pub fn info(answer: &Answer) -> String {
    let state = if has(answer, flags::SUSPEND) { "SUSPENDED" } else { "ACTIVE" };
    let read_only = if has(answer, flags::READONLY) { " (READ-ONLY)" } else { "" };
    let tables = match (has(answer, flags::ACTIVE_PRESENT), has(answer, flags::INACTIVE_PRESENT)) {
        (true, true) => "LIVE & INACTIVE",
        (true, false) => "LIVE",
        (false, true) => "INACTIVE",
        (false, false) => "None",
    };
    let mut out = format!(
        "Name:              {}\n\
         State:             {state}{read_only}\n\
         Tables present:    {tables}\n\
         Open count:        {}\n\
         Event number:      {}\n\
         Major, minor:      {BLOCK_MAJOR}, {}\n\
         Number of targets: {}\n",
        answer.text("name"),
        number(answer, "open_count"),
        number(answer, "event_nr"),
        number(answer, "minor"),
        number(answer, "target_count"),
    );
    if !answer.text("uuid").is_empty() {
        let _ = writeln!(out, "UUID: {}", answer.text("uuid"));
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
        answer.text("name"),
        answer.text("uuid"),
        number(answer, "minor"),
        number(answer, "target_count"),
        number(answer, "flags"),
    )
}

/// `info -c`.
pub fn columns(answers: &[Answer], headings: bool) -> String {
    /// Heading, least width, whether numbers stand in it.
    const COLUMNS: [(&str, usize, bool); 8] = [
        ("Name", 16, false),
        ("Maj", 3, true),
        ("Min", 3, true),
        ("Stat", 4, false),
        ("Open", 4, true),
        ("Targ", 4, true),
        ("Event", 6, true),
        ("UUID", 32, false),
    ];
    let row = |answer: &Answer| {
        let flag = |flag, set, clear| if has(answer, flag) { set } else { clear };
        let stat: String = [
            flag(flags::ACTIVE_PRESENT, 'L', '-'),
            flag(flags::INACTIVE_PRESENT, 'I', '-'),
            flag(flags::SUSPEND, 's', '-'),
            flag(flags::READONLY, 'r', 'w'),
        ]
        .iter()
        .collect();
        [
            answer.text("name").to_string(),
            BLOCK_MAJOR.to_string(),
            number(answer, "minor").to_string(),
            stat,
            number(answer, "open_count").to_string(),
            number(answer, "target_count").to_string(),
            number(answer, "event_nr").to_string(),
            answer.text("uuid").to_string(),
        ]
    };
    let rows: Vec<_> = answers.iter().map(row).collect();
    let widths: Vec<usize> = COLUMNS
        .iter()
        .enumerate()
        .map(|(at, (_, least, _))| {
            rows.iter().filter_map(|row| row.get(at)).map(String::len).fold(*least, usize::max)
        })
        .collect();
    let mut out = String::new();
    let mut line = |cells: &[(&str, bool)]| {
        let cells = cells.iter().zip(&widths).map(|((text, right), width)| match right {
            true => format!("{text:>width$}"),
            false => format!("{text:<width$}"),
        });
        let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join(" "));
    };
    if headings {
        line(&COLUMNS.map(|(heading, ..)| (heading, false)));
    }
    for row in &rows {
        let cells: Vec<_> =
            row.iter().zip(COLUMNS).map(|(text, (.., right))| (text.as_str(), right)).collect();
        line(&cells);
    }
    out
}

/// `table` and `status`; `all` puts the device's name before each line.
pub fn table(answer: &Answer, all: bool, target: Option<&str>) -> String {
    let name = if all { format!("{}: ", answer.text("name")) } else { String::new() };
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
        let _ = writeln!(out, "{name}{start} {length} {kind} {}", line.text("params"));
    }
    out
}

/// `table` and `status` of dmctl.
pub fn dmctl_table(answer: &Answer) -> String {
    let mut out = format!("Getting device table for device {}\n", answer.text("name"));
    for line in answer.dictionaries("cmd_data") {
        let (start, length) = (number(&line, "start"), number(&line, "length"));
        let _ = writeln!(out, "{start:>10} {length:>10} {}", line.text("type"));
    }
    out
}

/// `deps`; `all` puts the device's name before it.
pub fn deps(style: Style, answer: &Answer, all: bool) -> String {
    let name = answer.text("name");
    let devs: Vec<_> = answer.numbers("cmd_data").into_iter().map(Dev).collect();
    let mut out = match (style, all) {
        (Style::Dmctl, _) => format!("Device {name} dependiences \n"),
        (Style::Dmsetup, true) => format!("{name}: {} dependencies\t:", devs.len()),
        (Style::Dmsetup, false) => format!("{} dependencies\t:", devs.len()),
    };
    for dev in devs {
        let _ = match style {
            Style::Dmsetup => write!(out, " ({}, {})", dev.major(), dev.minor()),
            Style::Dmctl => writeln!(out, "major: {} minor: {}", dev.major(), dev.minor()),
        };
    }
    if style == Style::Dmsetup {
        out.push('\n');
    }
    out
}

/// `ls`.
pub fn names(style: Style, answer: &Answer) -> String {
    let mut out = String::new();
    for entry in answer.dictionaries("cmd_data") {
        let (name, minor) = (entry.text("name"), number(&entry, "dev"));
        let _ = match style {
            Style::Dmsetup => writeln!(out, "{name}\t({BLOCK_MAJOR}, {minor})"),
            Style::Dmctl => writeln!(out, "Device name: {name}, device minor: {minor} "),
        };
    }
    if out.is_empty() && style == Style::Dmsetup {
        out.push_str(NONE);
    }
    out
}

/// `targets`.
pub fn targets(style: Style, answer: &Answer) -> String {
    let mut out = String::new();
    for entry in answer.dictionaries("cmd_data") {
        let version: Vec<_> = entry.numbers("ver").iter().map(u64::to_string).collect();
        let (name, version) = (entry.text("name"), version.join("."));
        let _ = match style {
            Style::Dmsetup => writeln!(out, "{name:<16} v{version}"),
            Style::Dmctl => writeln!(out, "Target name: {name}\nTarget version {version}\n"),
        };
    }
    out
}

/// `version`.
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
        assert!(!text.contains("UUID"), "{text}");
    }

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let live = flags::EXISTS | flags::ACTIVE_PRESENT | flags::INACTIVE_PRESENT;
        let text = columns(&[device("a-name-of-some-length", live, "")], true);
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
