// SPDX-License-Identifier: BSD-2-Clause

//! Requests near valid ones, several to one driver: wrong types, huge and negative numbers, deep
//! nesting, keys missing, strings of any kind.

use arbitrary::{Arbitrary, Result, Unstructured};
use dm_core::commands;
use dm_core::testing::kernel::driver;
use dm_core::testing::picture::{check, picture};
use dm_core::testing::{COMMANDS, Dict, Disk, Fake, Object};

const WORDS: &[&str] = &[
    "a",
    "b",
    "c",
    "",
    "/",
    "control",
    "%n%s",
    "u1",
    "u2",
    "@cancel_deferred_remove",
    "1 2 3 4",
    "linear",
    "striped",
    "zero",
    "error",
    "/dev/wd0a 0",
    "/dev/wd0a 64",
    "9:9 1",
    "0:0 8",
    "2 8 /dev/wd0a 0 /dev/wd1a 0",
    "169:1 0",
    "169:2 0",
    "18446744073709551616",
];

const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    3,
    4,
    8,
    16,
    64,
    100,
    1 << 14,
    1 << 17,
    1 << 30,
    1 << 31,
    u32::MAX as u64,
    1 << 55,
    u64::MAX,
];

pub(crate) fn object(u: &mut Unstructured<'_>, depth: usize) -> Result<Object> {
    Ok(match u.int_in_range(0..=9)? {
        0..=2 => Object::Unsigned(*u.choose(NUMBERS)?),
        3 => Object::Signed(i64::arbitrary(u)?),
        4..=6 => Object::String(string(u)?),
        7 => Object::Bool(bool::arbitrary(u)?),
        8 if depth > 0 => array(u, depth)?,
        _ if depth > 0 => {
            let mut dict = Dict::default();
            for _ in 0..u.int_in_range(0..=4)? {
                dict.put(u.choose(KEYS)?, object(u, depth - 1)?);
            }
            Object::Dict(dict)
        }
        _ => Object::Unsigned(0),
    })
}

fn array(u: &mut Unstructured<'_>, depth: usize) -> Result<Object> {
    let mut items = Vec::new();
    for _ in 0..u.int_in_range(0..=4)? {
        items.push(object(u, depth - 1)?);
    }
    Ok(items.into())
}

fn string(u: &mut Unstructured<'_>) -> Result<String> {
    Ok(match u.int_in_range(0..=3)? {
        0 => String::arbitrary(u)?.replace('\0', "%00"),
        1 => "x".repeat(u.int_in_range(120..=140)?),
        _ => (*u.choose(WORDS)?).to_owned(),
    })
}

pub(crate) const KEYS: &[&str] = &[
    "command", "version", "name", "uuid", "minor", "flags", "cmd_data", "event_nr", "sector",
    "message", "geometry", "start", "length", "type", "params", "unknown",
];

/// A table that may well be valid.
fn lines(u: &mut Unstructured<'_>) -> Result<Object> {
    let mut items = Vec::new();
    let mut start = 0u64;
    for _ in 0..u.int_in_range(0..=5)? {
        let length = *u.choose(NUMBERS)?;
        let mut line = Dict::default();
        line.put("start", start);
        line.put("length", length);
        line.put("type", *u.choose(&["linear", "striped", "zero", "error"])?);
        line.put("params", Object::String(string(u)?));
        if u.ratio(1, 8)? {
            line.put(u.choose(KEYS)?, object(u, 2)?);
        }
        start = start.wrapping_add(length);
        items.push(Object::Dict(line));
    }
    Ok(items.into())
}

pub(crate) fn request(u: &mut Unstructured<'_>) -> Result<Dict> {
    let mut dict = Dict::default();
    dict.put("command", command(u)?);
    if u.ratio(7, 8)? {
        dict.put("version", vec![Object::Signed(4), Object::Signed(0), Object::Signed(0)]);
    }
    if u.ratio(7, 8)? {
        dict.put("name", *u.choose(&["a", "b", "c"])?);
    }
    if u.ratio(1, 4)? {
        dict.put("uuid", *u.choose(&["u1", "u2"])?);
    }
    if u.ratio(1, 4)? {
        dict.put("minor", u.int_in_range(0..=4u64)?);
    }
    if u.ratio(1, 2)? {
        dict.put("flags", u64::from(u32::arbitrary(u)?));
    }
    if u.ratio(3, 4)? {
        dict.put("cmd_data", lines(u)?);
    }
    for _ in 0..u.int_in_range(0..=2)? {
        dict.put(u.choose(KEYS)?, object(u, 3)?);
    }
    Ok(dict)
}

/// A command, or a word that is none.
fn command(u: &mut Unstructured<'_>) -> arbitrary::Result<&'static str> {
    let more = ["waitevent", "nonsense"];
    let at = u.choose_index(COMMANDS.len() + more.len())?;
    Ok(COMMANDS.into_iter().chain(more).nth(at).expect("the index is one of theirs"))
}

/// Sends a number of requests to a driver on the fake kernel. After each, the driver and the
/// kernel agree; one that failed has changed nothing.
pub fn run(data: &[u8]) {
    let kernel = Fake::new();
    kernel.disk("/dev/wd0a", Disk::new(0, 0, 1 << 16)).disk("/dev/wd1a", Disk::new(0, 16, 1 << 16));
    let driver = driver(kernel);
    let mut u = Unstructured::new(data);
    while !u.is_empty() {
        let Ok(mut dict) = request(&mut u) else { break };
        let command = dict.string("command").map(str::to_owned);
        // It would wait for another process, and there is none.
        if command.as_deref() == Some("waitevent") && dict.number("event_nr").unwrap_or(0) < 100 {
            dict.put("event_nr", 1_000_000u64);
        }
        let before = picture(&driver);
        let sent = dict.clone();
        let result = commands::execute(&driver, &mut dict, true);
        check(&driver);
        // Lines kept from a request before, which are not to be seen, are the one thing that a
        // failed request may lose. What is taken away one by one may stop in the middle.
        if result.is_err() && command.as_deref() != Some("remove_all") {
            assert_eq!(before, picture(&driver), "{result:?} for {sent:?}");
        }
        if result.is_ok() {
            assert!(dict.array("version").is_some() && dict.number("flags").is_some());
        }
    }
    let mut all = Dict::default();
    all.put("command", "remove_all");
    assert_eq!(commands::execute(&driver, &mut all, true), Ok(()));
    assert_eq!(picture(&driver).open, []);
}
