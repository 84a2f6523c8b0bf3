// SPDX-License-Identifier: BSD-2-Clause

//! The driver itself, on the hosted kernel: bytes as userland could send them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use arbitrary::{Arbitrary, Result, Unstructured};
use dm_core::commands::flags;
use dm_core::testing::{Dict, Object, Request};
use dm_host::proplib::xml;
use dm_host::{Config, DiskSpec, File, Flags, Machine};

use crate::dictionaries;

/// The lock under which one machine runs at a time: a machine that shuts down takes any object of the process for a
/// leak.
static TURN: Mutex<()> = Mutex::new(());

/// Waits for it.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives bytes to proplib, which refuses them, or makes a dictionary whose text it reads back to the same text.
pub fn proplib(data: &[u8]) {
    let _turn = turn();
    let Ok(text) = core::str::from_utf8(data) else { return };
    let Some(once) = xml::round_trip(text) else { return };
    let twice = xml::round_trip(&once).expect("proplib reads what it writes");
    assert_eq!(once, twice);
}

/// Makes a system call with a signal pending, since no other thread would end a sleep.
fn interrupted<R>(machine: &Machine, call: impl FnOnce() -> R) -> R {
    assert!(machine.interrupt(dm_host::current_lwp()));
    call()
}

/// Sends the bytes to `/dev/mapper/control` as they are, then as a dictionary after requests that leave a device for
/// it to meet. Afterwards everything must be removable, and the machine must shut down without a leak.
pub fn ioctl(data: &[u8]) {
    let _turn = turn();
    let machine = Machine::boot(Config::test()).expect("boots");
    let disk = machine.attach_disk(DiskSpec::memory("wd0", 1 << 16)).expect("attaches");
    let control = machine.open("/dev/mapper/control", Flags::READ_WRITE).expect("opens");
    let send = |dict: &Dict| control.plist_ioctl(&dict.print());
    let request = |command: &str, name: &str| {
        let mut dict = Dict::default();
        dict.put("command", command);
        dict.put("name", name);
        dict
    };
    send(&request("create", "a")).expect("creates");
    let mut line = Dict::default();
    line.put("start", 0u64);
    line.put("length", 64u64);
    line.put("type", "linear");
    line.put("params", Object::String(format!("{} 100", disk.path())));
    let mut reload = request("reload", "a");
    reload.put("cmd_data", vec![Object::Dict(line)]);
    send(&reload).expect("reloads");
    send(&request("resume", "a")).expect("resumes");
    let _ = interrupted(&machine, || control.plist_ioctl_bytes(data));
    end(machine, control);
}

/// Takes everything away; nothing may be left over.
fn end(machine: Machine, control: File) {
    control.plist_ioctl(&Request::new("remove_all").dict().print()).expect("takes all away");
    drop(control);
    assert_eq!(machine.shutdown(), Vec::<String>::new());
}

/// Makes of a request's text what proplib(3) would not: keys that come twice, a NUL, other numbers,
/// something deep, a part of it.
fn twist(u: &mut Unstructured<'_>, text: &mut Vec<u8>) -> Result<()> {
    let end = text.windows(7).rposition(|w| w == b"</dict>").unwrap_or(0);
    let mut put = |at: usize, what: &[u8]| drop(text.splice(at..at, what.iter().copied()));
    match u.int_in_range(0..=5)? {
        0 => {
            let mut again = Dict::default();
            again.put("", dictionaries::object(u, 2)?);
            let printed = again.print();
            let value = printed.split_once("</key>").and_then(|(_, v)| v.split_once("</dict>"));
            let value = value.map_or("<true/>", |(value, _)| value);
            put(end, format!("<key>{}</key>{value}", u.choose(dictionaries::KEYS)?).as_bytes());
        }
        1 => {
            let depth = u.int_in_range(0..=3000)?;
            let deep = "<array>".repeat(depth) + &"</array>".repeat(depth);
            put(end, format!("<key>deep</key>{deep}").as_bytes());
        }
        2 => put(u.choose_index(end + 1)?, u.choose(&[&b"\0"[..], b"&#0;", b"%n", b"\xff", b"<"])?),
        3 => {
            let numbers = text.iter().enumerate().filter(|(_, b)| b.is_ascii_digit());
            let places: Vec<usize> = numbers.map(|(at, _)| at).collect();
            let odd = ["-", "-9223372036854775808", "18446744073709551615", "99999999999999999999"];
            let (at, odd) = (*u.choose(&places)?, *u.choose(&odd)?);
            text.splice(at..at, odd.bytes());
        }
        4 => text.truncate(u.choose_index(text.len().max(1))?),
        _ => {
            let at = u.choose_index(text.len().max(1))?;
            if let Some(byte) = text.get_mut(at) {
                *byte = u8::arbitrary(u)?;
            }
        }
    }
    Ok(())
}

/// All that questions tell, as text.
fn look(control: &File) -> Vec<String> {
    let ask = |request: &Request| {
        control.plist_ioctl(&request.dict().print()).expect("a question has an answer")
    };
    let names = ask(&Request::new("names"));
    let reply = Dict::parse(&names).expect("a reply");
    let entries = reply.array("cmd_data").expect("names").iter().filter_map(Object::dict);
    let minors = entries.map(|entry| entry.number("dev").expect("a minor"));
    let about = |minor| {
        let inactive = flags::STATUS_TABLE | flags::QUERY_INACTIVE_TABLE;
        let table = Request::new("table").with("minor", minor);
        [flags::STATUS_TABLE, inactive].map(|flags| ask(&table.clone().flags(flags)))
    };
    minors.flat_map(about).chain([names.clone()]).collect()
}

/// Sends requests near valid ones to `/dev/mapper/control`. One that fails has changed nothing, and
/// in the end all can be taken away and nothing is left.
pub fn requests(data: &[u8]) {
    let _turn = turn();
    let machine = Machine::boot(Config::test()).expect("boots");
    for name in ["wd0", "wd1"] {
        machine.attach_disk(DiskSpec::memory(name, 1 << 16)).expect("attaches");
    }
    let control = machine.open("/dev/mapper/control", Flags::READ_WRITE).expect("opens");
    let mut u = Unstructured::new(data);
    let mut next = || -> Result<(Vec<u8>, bool, bool)> {
        let dict = dictionaries::request(&mut u)?;
        let all = dict.string("command") == Some("remove_all");
        let mut text = dict.print().into_bytes();
        for _ in 0..u.int_in_range(0..=2)? {
            twist(&mut u, &mut text)?;
        }
        Ok((text, all, u.is_empty()))
    };
    let mut last = false;
    while !last {
        let before = look(&control);
        let Ok((text, all, empty)) = next() else { break };
        last = empty;
        let result = interrupted(&machine, || control.plist_ioctl_bytes(&text));
        // remove_all removes device by device, and may stop in the middle.
        if let Err(errno) = result
            && !all
        {
            let sent = String::from_utf8_lossy(&text);
            assert_eq!(before, look(&control), "{errno:?} for {sent}");
        }
    }
    end(machine, control);
}
