// SPDX-License-Identifier: BSD-2-Clause

//! Output as JSON, in the form that dm-host(8) documents, and that stays.

use dm_core::commands::flags;
use dm_core::units::Dev;
use serde_json::{Value, json};

use super::{BLOCK_MAJOR, has, number};
use crate::xml::Answer;

/// A document, indented, with a newline behind it.
pub fn text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The minor number in an entry of `names`.
pub fn minor(entry: &Answer) -> u64 {
    number(entry, "dev")
}

fn uuid(answer: &Answer) -> Value {
    match answer.text("uuid") {
        "" => Value::Null,
        uuid => uuid.into(),
    }
}

/// A device of `info`.
pub fn info(answer: &Answer) -> Value {
    json!({
        "name": answer.text("name"),
        "uuid": uuid(answer),
        "major": BLOCK_MAJOR,
        "minor": number(answer, "minor"),
        "suspended": has(answer, flags::SUSPEND),
        "read_only": has(answer, flags::READONLY),
        "deferred_remove": has(answer, flags::DEFERRED_REMOVE),
        "active_table": has(answer, flags::ACTIVE_PRESENT),
        "inactive_table": has(answer, flags::INACTIVE_PRESENT),
        "open_count": number(answer, "open_count"),
        "event_nr": number(answer, "event_nr"),
        "lines": number(answer, "target_count"),
    })
}

/// A device of `table` and `status`.
pub fn table(answer: &Answer, target: Option<&str>) -> Value {
    let wanted = |line: &Answer| target.is_none_or(|target| target == line.text("type"));
    let line = |line: Answer| {
        json!({
            "start": number(&line, "start"),
            "length": number(&line, "length"),
            "target": line.text("type"),
            "params": line.text("params"),
        })
    };
    let lines: Vec<_> = answer.dictionaries("cmd_data").filter(wanted).map(line).collect();
    json!({ "name": answer.text("name"), "minor": number(answer, "minor"), "lines": lines })
}

/// A device number.
pub fn dev(dev: Dev) -> Value {
    json!({ "major": dev.major(), "minor": dev.minor() })
}

/// A device of `deps`.
pub fn deps(answer: &Answer) -> Value {
    let devs: Vec<_> = answer.numbers("cmd_data").into_iter().map(|n| dev(Dev(n))).collect();
    json!({
        "name": answer.text("name"),
        "minor": number(answer, "minor"),
        "dependencies": devs,
    })
}

/// The answer to `ls`.
pub fn names(entries: &[Answer]) -> Value {
    let entry = |entry: &Answer| json!({ "name": entry.text("name"), "major": BLOCK_MAJOR, "minor": minor(entry) });
    json!({ "devices": entries.iter().map(entry).collect::<Vec<_>>() })
}

fn version_of(answer: &Answer, key: &str) -> String {
    answer.numbers(key).iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

/// The answer to `targets`.
pub fn targets(entries: &[Answer]) -> Value {
    let entry =
        |entry: &Answer| json!({ "name": entry.text("name"), "version": version_of(entry, "ver") });
    json!({ "targets": entries.iter().map(entry).collect::<Vec<_>>() })
}

/// The answer to `version`.
pub fn version(answer: &Answer) -> Value {
    json!({
        "program": env!("CARGO_PKG_VERSION"),
        "driver": version_of(answer, "version"),
    })
}

/// `disks`, from the server's text.
pub fn disks(text: &str) -> Value {
    let disk = |line: &str| {
        let mut words = line.split('\t');
        let mut word = || words.next().unwrap_or_default().to_string();
        let (name, dev, sectors, bytes, mode, file) =
            (word(), word(), word(), word(), word(), word());
        let (major, minor) = dev.split_once(':').unwrap_or_default();
        let number = |text: &str| text.parse::<u64>().map_or(Value::Null, Value::from);
        json!({
            "name": name,
            "major": number(major),
            "minor": number(minor),
            "sectors": number(&sectors),
            "sector_bytes": number(&bytes),
            "read_only": mode == "ro",
            "file": file,
        })
    };
    json!({ "disks": text.lines().map(disk).collect::<Vec<_>>() })
}
