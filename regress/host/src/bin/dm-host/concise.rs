// SPDX-License-Identifier: BSD-2-Clause

//! Devices with their tables on one line, as dmsetup(8) writes and reads them with --concise:
//! `NAME,UUID,MINOR,FLAGS,LINE[,LINE…]`, and `;` between devices. A backslash makes the next character an ordinary
//! one.

use dm_core::commands::flags;

use crate::show;
use crate::table::{self, Line};
use crate::xml::Answer;

/// A device on such a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Concise {
    pub name: String,
    pub uuid: Option<String>,
    pub minor: Option<u32>,
    pub read_only: bool,
    pub lines: Vec<Line>,
}

/// Reads devices.
///
/// # Errors
/// The first mistake in the text, in words.
pub fn parse(text: &str) -> Result<Vec<Concise>, String> {
    let mut devices = vec![vec![String::new()]];
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let Some(fields) = devices.last_mut() else { break };
        match (c, fields.last_mut()) {
            ('\\', Some(field)) => field.extend(rest.next()),
            (',', _) => fields.push(String::new()),
            (';', _) => devices.push(vec![String::new()]),
            (c, Some(field)) => field.push(c),
            (_, None) => {}
        }
    }
    devices.retain(|fields| fields.iter().any(|field| !field.is_empty()));
    devices.into_iter().map(device).collect()
}

fn device(fields: Vec<String>) -> Result<Concise, String> {
    let mut fields = fields.into_iter();
    let mut next = || fields.next().map(|field| field.trim().to_string()).unwrap_or_default();
    let (name, uuid, minor, flags) = (next(), next(), next(), next());
    if name.is_empty() {
        return Err("--concise: a device has no name".into());
    }
    let wrong = |what: &str| format!("--concise: {name}: {what}");
    let minor = match minor.as_str() {
        "" => None,
        minor => Some(
            minor
                .parse()
                .ok()
                .filter(|n| (1..=65535).contains(n))
                .ok_or_else(|| wrong("a minor number is 1 to 65535"))?,
        ),
    };
    let read_only = match flags.as_str() {
        "" | "rw" => false,
        "ro" => true,
        _ => return Err(wrong("the flags are `ro` or `rw`")),
    };
    let text: Vec<_> = fields.collect();
    let (lines, bad) = table::parse(&text.join("\n"));
    if let Some(bad) = bad.first() {
        return Err(wrong(&bad.to_string()));
    }
    Ok(Concise { name, uuid: (!uuid.is_empty()).then_some(uuid), minor, read_only, lines })
}

fn quoted(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if matches!(c, ',' | ';' | '\\') {
            out.push('\\');
        }
        out.push(c);
        out
    })
}

/// A device's answer to `table`, as [`parse`] reads it.
pub fn show(answer: &Answer) -> String {
    let flags = if show::has(answer, flags::READONLY) { "ro" } else { "rw" };
    let mut fields = vec![
        quoted(answer.text("name")),
        quoted(answer.text("uuid")),
        answer.number("minor").unwrap_or(0).to_string(),
        flags.into(),
    ];
    for line in answer.dictionaries("cmd_data") {
        let number = |key| line.number(key).unwrap_or(0);
        let text = format!(
            "{} {} {} {}",
            number("start"),
            number("length"),
            line.text("type"),
            line.text("params")
        );
        fields.push(quoted(&text));
    }
    fields.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read() {
        let devices = parse("dev1,,,,0 100 linear 253:1 0,100 100 error;a\\,b,U,7,ro,0 1 error;");
        let devices = devices.unwrap();
        assert_eq!(devices.len(), 2);
        assert_eq!((devices[0].name.as_str(), devices[0].lines.len()), ("dev1", 2));
        assert_eq!(devices[0].lines[1].start, 100);
        let second = &devices[1];
        assert_eq!((second.name.as_str(), second.minor, second.read_only), ("a,b", Some(7), true));
        assert_eq!(second.uuid.as_deref(), Some("U"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for text in [",,,,0 8 zero", "a,,0", "a,,x", "a,,,maybe", "a,,,,0 8"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
