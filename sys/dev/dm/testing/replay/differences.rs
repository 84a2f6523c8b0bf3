// SPDX-License-Identifier: BSD-2-Clause

//! The differences between our replies and the C driver's, with a reason each. The list is
//! complete: a reply that differs in any other way is an error.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::Exchange;
use super::course::{Course, Device, Line, Side, Table, components};
use crate::Errno;
use crate::commands::flags;
use crate::targets::TARGETS;
use crate::testing::plist::{Dict, Object};

/// A difference between our replies and the C driver's.
pub struct Difference {
    /// The name of the difference in a report.
    pub name: &'static str,
    /// The reason why our reply is right.
    pub reason: &'static str,
    /// Changes the recorded reply into the right one, if the difference applies.
    apply: fn(&mut Case<'_>),
}

/// An exchange, and the reply that is expected of us.
struct Case<'a> {
    exchange: &'a Exchange,
    request: &'a Dict,
    /// The state before the exchange.
    course: &'a Course,
    /// The device that the exchange is about, as our driver has it afterwards.
    device: Option<Device>,
    reply: Result<Dict, Errno>,
}

/// The reply to an exchange that is expected of us.
pub struct Expected {
    /// The reply that we must give.
    pub reply: Result<Dict, Errno>,
    /// The names of the differences that were met.
    pub met: Vec<&'static str>,
}

/// The differences, in the order that they are applied in.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "errors",
        reason: "the C driver throws errors away and returns 0 with a reply that means nothing",
        apply: errors,
    },
    Difference {
        name: "missing device",
        reason: "a question about a device that is not there comes back as it was sent, but for \
                 what flags tell; the C driver may have a device there that ours refused to make, \
                 or that remove_all took away",
        apply: missing,
    },
    Difference {
        name: "works",
        reason: "the C driver has no zero and error targets, and refuses waitevent, message, \
                 setgeometry and remove_all, which come without a version",
        apply: works,
    },
    Difference {
        name: "features",
        reason: "new: version tells what goes beyond the C driver",
        apply: features,
    },
    Difference {
        name: "targets",
        reason: "new: the list has more targets than linear and striped",
        apply: targets,
    },
    Difference {
        name: "names",
        reason: "in the order of minors, where the C driver moves a renamed device to the end, and \
                 without devices that ours refused to make or removed; an empty list where the C \
                 driver leaves what was sent",
        apply: names,
    },
    Difference {
        name: "device keys",
        reason: "every reply about a device tells its name, uuid, minor, open_count, target_count \
                 and event_nr: libdevmapper's getters return what was on the stack for a missing \
                 key",
        apply: device_keys,
    },
    Difference {
        name: "new name",
        reason: "rename's reply tells the name that the device has now",
        apply: new_name,
    },
    Difference {
        name: "lost table",
        reason: "the C driver loses the active table in a resume without an inactive one, keeps \
                 lines of refused tables, and refuses zero and error",
        apply: lost_table,
    },
    Difference {
        name: "components by number",
        reason: "table prints major:minor, so that its output loads again whatever a path names \
                 then",
        apply: numbers,
    },
    Difference {
        name: "status params",
        reason: "status has params in every line, as libdevmapper reads them",
        apply: status_params,
    },
    Difference {
        name: "deps once",
        reason: "deps tells each component once, where the C driver tells it once a line",
        apply: deps_once,
    },
    Difference {
        name: "flags: sent ones",
        reason: "bits that only a request has come back as sent; suspend of the C driver drops \
                 some, and replies without flags hold none",
        apply: sent_flags,
    },
    Difference {
        name: "flags: EXISTS",
        reason: "a device that is there says so, and one that is not, or no longer, does not",
        apply: exists,
    },
    Difference {
        name: "flags: SUSPEND",
        reason: "new: a device is suspended until its first resume; and every reply tells",
        apply: suspend,
    },
    Difference {
        name: "flags: tables present",
        reason: "every reply tells which tables there are; of the C driver only info's and suspend's \
                 do, and table's in part",
        apply: present,
    },
    Difference {
        name: "flags: READONLY",
        reason: "the C driver stores READONLY and never tells",
        apply: read_only,
    },
];

/// The reply that we must give to an exchange. `course` is the state before it, `request` the
/// request that was sent to our driver.
pub fn expect(exchange: &Exchange, request: &Dict, course: &Course) -> Expected {
    let mut after = course.clone();
    // A device that was renamed or created is found by its new name.
    let device = match exchange.command.as_str() {
        "version" | "names" | "targets" | "remove_all" => None,
        "create" => {
            after.step(exchange);
            let name = request.string("name").unwrap_or("");
            after.devices().find(|device| device.name == name).cloned()
        }
        _ => {
            let before = course.find(request).filter(|device| device.ours.exists);
            let minor = before.map(|device| device.minor);
            after.step(exchange);
            let there = after.devices().find(|device| Some(device.minor) == minor);
            // The last reply about a device that is gone tells its state before.
            there.or(before).cloned()
        }
    };
    let mut case = Case { exchange, request, course, device, reply: Ok(exchange.reply.clone()) };
    let mut met = Vec::new();
    for difference in DIFFERENCES {
        let before = case.reply.clone();
        (difference.apply)(&mut case);
        if case.reply != before {
            met.push(difference.name);
        }
    }
    Expected { reply: case.reply, met }
}

impl Case<'_> {
    fn command(&self) -> &str {
        &self.exchange.command
    }

    fn is_question(&self) -> bool {
        matches!(self.command(), "info" | "mknodes" | "status" | "table" | "deps")
    }

    fn sent(&self) -> u32 {
        u32::try_from(self.request.number("flags").unwrap_or(0)).unwrap_or(0)
    }

    /// The table that a question is about.
    fn chosen<'s>(&self, side: &'s Side) -> Option<&'s Table> {
        match self.sent() & flags::QUERY_INACTIVE_TABLE != 0 {
            true => side.inactive.as_ref(),
            false => side.active.as_ref(),
        }
    }

    fn put(&mut self, key: &str, value: impl Into<Object>) {
        if let Ok(reply) = &mut self.reply {
            reply.put(key, value);
        }
    }

    fn set_flags(&mut self, mask: u32, value: u32) {
        let before = self.reply.as_ref().ok().and_then(|reply| reply.number("flags"));
        let Some(before) = before else { return };
        self.put("flags", before & !u64::from(mask) | u64::from(value));
    }

    fn tables(&self) -> bool {
        matches!(self.command(), "table" | "status" | "waitevent")
    }
}

fn errors(case: &mut Case<'_>) {
    if let Err(errno) = case.course.verdict(case.exchange) {
        case.reply = Err(errno);
    }
}

/// The reply to a request about no device: the request itself.
fn echo(case: &Case<'_>) -> Dict {
    let mut reply = case.request.clone();
    let version = crate::commands::VERSION.map(|n| Object::Unsigned(u64::from(n)));
    reply.put("version", version.to_vec());
    reply.put("flags", u64::from(case.sent()));
    reply
}

fn missing(case: &mut Case<'_>) {
    if case.is_question() && case.device.is_none() && case.exchange.driver_return == 0 {
        case.reply = Ok(echo(case));
    }
}

fn works(case: &mut Case<'_>) {
    let expected = case.reply.is_ok() && !case.is_question();
    if expected && case.exchange.driver_return != 0 {
        case.reply = Ok(echo(case));
    }
}

fn features(case: &mut Case<'_>) {
    if case.command() == "version" {
        let mut features = Dict::default();
        features.put("reload_more", u64::from(flags::RELOAD_MORE));
        features.put("lines", crate::limits::LINES as u64);
        features.put("stripes", crate::limits::STRIPES as u64);
        features.put("reasons", 1u64);
        case.put("features", vec![features.into()]);
    }
}

fn targets(case: &mut Case<'_>) {
    let Ok(reply) = &case.reply else { return };
    let (true, Some(list)) = (case.exchange.command == "targets", reply.array("cmd_data")) else {
        return;
    };
    let mut list = list.to_vec();
    // The list begins with those of the C driver.
    for kind in TARGETS.iter().skip(list.len()) {
        let mut target = Dict::default();
        target.put("name", kind.name);
        target.put("ver", kind.version.map(|n| Object::Signed(n.into())).to_vec());
        list.push(target.into());
    }
    case.put("cmd_data", list);
}

fn names(case: &mut Case<'_>) {
    let Ok(reply) = &case.reply else { return };
    let (true, Some(list)) = (case.exchange.command == "names", reply.array("cmd_data")) else {
        return;
    };
    let known = |entry: &Object| {
        let entry = entry.dict();
        let (name, dev) =
            (entry.and_then(|e| e.string("name")), entry.and_then(|e| e.number("dev")));
        case.course.devices().any(|d| Some(d.name.as_str()) == name && Some(d.minor) == dev)
    };
    let mut list: Vec<_> = list.iter().filter(|entry| known(entry)).cloned().collect();
    // A minor that is used once more later would stand elsewhere; no run has that many devices.
    list.sort_by_key(|entry| entry.dict().and_then(|entry| entry.number("dev")));
    case.put("cmd_data", list);
}

fn device_keys(case: &mut Case<'_>) {
    let (Some(device), Ok(reply)) = (case.device.clone(), &mut case.reply) else { return };
    let gone = case.exchange.command == "remove";
    let lines = match case.request.number("flags").unwrap_or(0) {
        _ if gone => 0,
        f if f & u64::from(flags::QUERY_INACTIVE_TABLE) != 0 => {
            device.theirs.inactive.as_ref().map_or(0, |table| table.lines.len())
        }
        _ => device.theirs.active.as_ref().map_or(0, |table| table.lines.len()),
    };
    let keys: [(&str, Object); 6] = [
        ("name", device.name.as_str().into()),
        ("uuid", device.uuid.as_str().into()),
        ("minor", device.minor.into()),
        ("open_count", 0.into()),
        ("target_count", (lines as u64).into()),
        ("event_nr", u64::from(device.event_nr).into()),
    ];
    for (key, value) in keys {
        if reply.at(key).is_none() || key == "event_nr" {
            reply.put(key, value);
        }
    }
}

fn new_name(case: &mut Case<'_>) {
    let device = case.device.clone().filter(|_| case.command() == "rename");
    if let Some(device) = device {
        case.put("name", device.name.as_str());
    }
}

fn lost_table(case: &mut Case<'_>) {
    let Some(device) = case.device.clone() else { return };
    let gone = case.command() == "remove";
    let (ours, theirs) = (case.chosen(&device.ours), case.chosen(&device.theirs));
    if ours != theirs && !gone {
        case.put("target_count", ours.map_or(0, |table| table.lines.len()) as u64);
    }
    // A device that the C driver refused to look up tells nothing either.
    let lost = ours != theirs || case.exchange.driver_return != 0;
    if case.tables() && (lost || device.ours.slot != device.theirs.slot) {
        let list = ours.map_or(&[][..], |table| &table.lines).iter().map(|line| {
            let mut entry = Dict::default();
            entry.put("start", line.start);
            entry.put("length", line.length);
            entry.put("type", line.kind.as_str());
            entry.put("params", line.params.as_str());
            entry.put("status", Object::Signed(i64::from(device.ours.slot)));
            entry.into()
        });
        case.put("cmd_data", list.collect::<Vec<Object>>());
    } else if case.command() == "deps" && lost {
        let lines = ours.map_or(&[][..], |table| &table.lines).iter();
        let devs = lines.flat_map(components).filter_map(|path| case.course.dev(path));
        let devs = devs.map(|dev| Object::Signed(dev.0.cast_signed()));
        case.put("cmd_data", devs.collect::<Vec<Object>>());
    }
}

fn edit_lines(case: &mut Case<'_>, edit: impl Fn(&Course, &Line) -> Option<String>) {
    let Ok(reply) = &mut case.reply else { return };
    let Some(Object::Array(list)) = reply.0.get_mut("cmd_data") else { return };
    for entry in &mut list.0 {
        let Object::Dict(entry) = entry else { continue };
        let line = Line {
            start: entry.number("start").unwrap_or(0),
            length: entry.number("length").unwrap_or(0),
            kind: entry.string("type").unwrap_or("").into(),
            params: entry.string("params").unwrap_or("").into(),
        };
        if let Some(params) = edit(case.course, &line) {
            entry.put("params", params.as_str());
        }
    }
}

fn by_number(course: &Course, line: &Line) -> String {
    let paths = components(line);
    let words = line.params.split_ascii_whitespace().map(|word| {
        let dev = course.dev(word).filter(|_| paths.contains(&word));
        dev.map_or(String::from(word), |dev| format!("{dev}"))
    });
    words.collect::<Vec<_>>().join(" ")
}

fn numbers(case: &mut Case<'_>) {
    if case.tables() && case.sent() & flags::STATUS_TABLE != 0 && case.device.is_some() {
        edit_lines(case, |course, line| Some(by_number(course, line)));
    }
}

fn status_params(case: &mut Case<'_>) {
    if !case.tables() || case.sent() & flags::STATUS_TABLE != 0 {
        return;
    }
    // The recorded lines have the table's parameters, and no status.
    let Some(device) = case.device.clone() else { return };
    let table = case.chosen(&device.ours).cloned();
    edit_lines(case, |course, line| {
        let mut lines = table.iter().flat_map(|table| &table.lines);
        let loaded = lines.find(|loaded| loaded.start == line.start)?;
        Some(match loaded.kind.as_str() {
            "striped" => {
                let devs = components(loaded).into_iter().filter_map(|path| course.dev(path));
                let devs: Vec<_> = devs.map(|dev| format!("{dev}")).collect();
                format!("{} {} 1 {}", devs.len(), devs.join(" "), "A".repeat(devs.len()))
            }
            _ => String::new(),
        })
    });
}

fn deps_once(case: &mut Case<'_>) {
    let Ok(reply) = &case.reply else { return };
    let (true, Some(list)) = (case.exchange.command == "deps", reply.array("cmd_data")) else {
        return;
    };
    let mut once: Vec<Object> = Vec::new();
    for dev in list {
        if !once.contains(dev) {
            once.push(dev.clone());
        }
    }
    case.put("cmd_data", once);
}

/// The flags that tell a device's state.
const TOLD: u32 = flags::EXISTS
    | flags::SUSPEND
    | flags::READONLY
    | flags::ACTIVE_PRESENT
    | flags::INACTIVE_PRESENT
    | flags::DEFERRED_REMOVE;

fn sent_flags(case: &mut Case<'_>) {
    let sent = case.sent();
    let Ok(reply) = &case.reply else { return };
    match reply.number("flags") {
        None => case.put("flags", u64::from(sent)),
        Some(_) => case.set_flags(!TOLD, sent & !TOLD),
    }
}

/// `true` if the command is about one device.
fn about_device(case: &Case<'_>) -> bool {
    !matches!(case.command(), "version" | "names" | "targets" | "remove_all")
}

fn exists(case: &mut Case<'_>) {
    if about_device(case) {
        let there = case.device.is_some() && case.command() != "remove";
        case.set_flags(flags::EXISTS, if there { flags::EXISTS } else { 0 });
    }
}

/// `true` if the C driver's reply to the command has right values in the flags of [`TOLD`], which
/// ours must then equal.
fn tells(case: &Case<'_>) -> bool {
    case.exchange.driver_return == 0
        && matches!(case.command(), "info" | "mknodes" | "table" | "status" | "suspend")
}

fn suspend(case: &mut Case<'_>) {
    let same = |device: &Device| device.ours.suspended == device.theirs.suspended;
    if about_device(case) && !(tells(case) && case.device.as_ref().is_some_and(same)) {
        let there = case.device.as_ref().filter(|_| case.command() != "remove");
        let set = there.is_some_and(|device| device.ours.suspended);
        case.set_flags(flags::SUSPEND, if set { flags::SUSPEND } else { 0 });
    }
}

fn present(case: &mut Case<'_>) {
    let same = |device: &Device| {
        let (ours, theirs) = (&device.ours, &device.theirs);
        (&ours.active, &ours.inactive) == (&theirs.active, &theirs.inactive)
    };
    // Of a device with both tables, the C driver's `table` tells of the active one only.
    let half = |device: &Device| case.tables() && device.ours.inactive.is_some();
    let told = |device: &Device| same(device) && !half(device);
    if about_device(case) && !(tells(case) && case.device.as_ref().is_some_and(told)) {
        let there = case.device.as_ref().filter(|_| case.command() != "remove");
        let ours = there.map(|device| &device.ours);
        let active = ours.is_some_and(|side| side.active.is_some());
        let inactive = ours.is_some_and(|side| side.inactive.is_some());
        let set = if active { flags::ACTIVE_PRESENT } else { 0 }
            | if inactive { flags::INACTIVE_PRESENT } else { 0 };
        case.set_flags(flags::ACTIVE_PRESENT | flags::INACTIVE_PRESENT, set);
    }
}

fn read_only(case: &mut Case<'_>) {
    if about_device(case) {
        let there = case.device.as_ref().filter(|_| case.command() != "remove");
        let set = there.is_some_and(|device| {
            let table = device.ours.active.as_ref();
            device.read_only || table.is_some_and(|table| table.read_only)
        });
        case.set_flags(flags::READONLY, if set { flags::READONLY } else { 0 });
    }
}
