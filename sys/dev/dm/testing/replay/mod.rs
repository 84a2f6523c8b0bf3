// SPDX-License-Identifier: BSD-2-Clause

//! Plays recorded traffic of the real tools, and compares our replies with the recorded ones.
//!
//! A *run* is a file of JSON lines, each an *exchange*: a request as a tool sent it, and the reply
//! of NetBSD's C driver. [`replay`] sends the requests in order to a [`Player`], which is a driver
//! on some kernel, and demands of each reply that it be the recorded one, key by key, type by type,
//! but for the [`differences::DIFFERENCES`], each of which says exactly what the reply must be
//! instead, and why. [`course`] keeps the devices of both drivers.
//!
//! Minors are translated: the C driver uses some up for devices that it then refuses. Minors in the
//! report are the recorded ones.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::plist::{Dict, Object};
use crate::{Dev, Errno};

pub mod course;
pub mod differences;
mod disks;
mod fake;

pub use course::Course;
pub use disks::RunDisk;
pub use fake::FakePlayer;

/// A request and the C driver's answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The number of the exchange in its run.
    pub n: u64,
    /// The command line that a person typed.
    pub cmdline: String,
    /// The command in the request.
    pub command: String,
    /// The C driver's return value, which the ioctl did not always return.
    pub driver_return: i32,
    /// The request as the tool sent it.
    pub request: Dict,
    /// The C driver's reply.
    pub reply: Dict,
}

/// A recorded run.
pub struct Run {
    /// The run's exchanges, in order.
    pub exchanges: Vec<Exchange>,
}

impl Run {
    /// Reads a run.
    ///
    /// # Errors
    /// A message with the line that is wrong.
    pub fn parse(text: &str) -> Result<Run, String> {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let exchanges = lines
            .enumerate()
            .map(|(at, line)| exchange(line).map_err(|why| format!("line {}: {why}", at + 1)));
        Ok(Run { exchanges: exchanges.collect::<Result<_, _>>()? })
    }

    /// The disks that the run needs. A disk is as large as the run's tables need.
    pub fn disks(&self) -> Vec<RunDisk> {
        disks::disks(self)
    }
}

fn exchange(line: &str) -> Result<Exchange, String> {
    let json: serde_json::Value = serde_json::from_str(line).map_err(|e| format!("{e}"))?;
    let text = |key: &str| {
        let value = json.get(key).and_then(|v| v.as_str()).map(ToOwned::to_owned);
        value.ok_or_else(|| format!("no {key}"))
    };
    // The recordings have numbers as numbers or as strings.
    let number = |key: &str| {
        let value = json.get(key).and_then(|v| match v {
            serde_json::Value::String(text) => text.parse::<i64>().ok(),
            number => number.as_i64(),
        });
        value.ok_or_else(|| format!("no {key}"))
    };
    let plist = |key: &str| Dict::parse(&text(key)?).map_err(|why| format!("{key}: {why}"));
    Ok(Exchange {
        n: number("n")?.unsigned_abs(),
        cmdline: text("cmdline")?,
        command: text("command")?,
        driver_return: i32::try_from(number("driver_return")?).map_err(|e| format!("{e}"))?,
        request: plist("in")?,
        reply: plist("out")?,
    })
}

/// A driver on some kernel.
pub trait Player {
    /// Attaches a disk under a path, before the run.
    fn disk(&mut self, disk: &RunDisk);

    /// Makes the node of a device, as the tools do after `create`; with `None` removes it.
    fn node(&mut self, path: &str, dev: Option<Dev>);

    /// Brings the number of a device's open nodes to `count`.
    fn open(&mut self, minor: u32, count: u32);

    /// Sends a request to the control node.
    ///
    /// # Errors
    /// The errno that the ioctl returned.
    fn ioctl(&mut self, request: &Dict) -> Result<Dict, Errno>;
}

/// The result of a run.
#[derive(Default, Debug)]
pub struct Report {
    /// The number of exchanges that were played.
    pub played: usize,
    /// The number of replies that were exactly the recorded ones.
    pub identical: usize,
    /// The number of times that each difference was met, by its name.
    pub met: BTreeMap<&'static str, usize>,
    /// The replies that are wrong, in words.
    pub wrong: Vec<String>,
}

/// The major number of the driver's block devices in the recordings.
const BLOCK_MAJOR: u32 = 169;

/// Plays a run on a driver that has no devices yet.
pub fn replay(run: &Run, player: &mut dyn Player) -> Report {
    let disks = run.disks();
    disks.iter().for_each(|disk| player.disk(disk));
    let mut course = Course::new(disks);
    let mut report = Report::default();
    let mut minors = Minors::default();
    for exchange in &run.exchanges {
        let mut request = exchange.request.clone();
        if exchange.command == "waitevent" {
            // An event number that has passed: with the recorded one the request would sleep for
            // ever.
            request.put("event_nr", u64::from(u32::MAX));
        }
        let sent = minors.request(&request);
        if let Some(count) = exchange.reply.number("open_count")
            && let Some(minor) = exchange.reply.number("minor").and_then(|m| minors.ours(m))
        {
            player.open(minor, u32::try_from(count).unwrap_or(0));
        }
        let reply = player.ioctl(&sent);
        let created = exchange.command == "create";
        if created && let Ok(reply) = &reply {
            minors.learn(exchange.reply.number("minor"), reply.number("minor"));
        }
        let expected = differences::expect(exchange, &request, &course);
        let before = course.paths();
        course.step(exchange);
        let after = course.paths();
        for (path, _) in before.iter().filter(|(path, _)| !after.contains_key(*path)) {
            player.node(path, None);
        }
        for (path, minor) in after.iter().filter(|(path, _)| !before.contains_key(*path)) {
            let ours = minors.ours(*minor).and_then(|minor| Dev::new(BLOCK_MAJOR, minor));
            player.node(path, ours);
        }
        let reply = reply.map(|reply| minors.reply(&reply, &sent, &request));
        report.played += 1;
        report.identical += usize::from(expected.met.is_empty());
        expected.met.iter().for_each(|name| *report.met.entry(name).or_default() += 1);
        if let Some(why) = compare(&expected.reply, &reply) {
            report.wrong.push(format!(
                "{} ({}, {}): {why}; differences applied: {:?}",
                exchange.n, exchange.command, exchange.cmdline, expected.met
            ));
        }
    }
    report
}

/// The keys in which a reply differs from the expected one, in words; `None` if it does not.
fn compare(expected: &Result<Dict, Errno>, reply: &Result<Dict, Errno>) -> Option<String> {
    let (expected, reply) = match (expected, reply) {
        (Ok(expected), Ok(reply)) => (expected, reply),
        (Err(expected), Err(errno)) if expected == errno => return None,
        (Ok(_), Err(errno)) => return Some(format!("a reply was expected, not {errno:?}")),
        (Err(expected), other) => {
            return Some(format!("{expected:?} was expected, not {:?}", other.as_ref().err()));
        }
    };
    let mut wrong = String::new();
    let keys = expected.0.keys().chain(reply.0.keys());
    for key in keys.collect::<alloc::collections::BTreeSet<_>>() {
        let (expected, reply) = (expected.at(key), reply.at(key));
        if expected != reply {
            wrong += &format!("{key} is {reply:?}, expected {expected:?}; ");
        }
    }
    (!wrong.is_empty()).then_some(wrong)
}

/// The minors of our driver by the recorded ones.
#[derive(Default)]
struct Minors(BTreeMap<u64, u64>);

/// A minor that no device has, sent for devices that only the C driver had.
const NOBODY: u64 = 65_535;

impl Minors {
    fn learn(&mut self, recorded: Option<u64>, ours: Option<u64>) {
        if let (Some(recorded), Some(ours)) = (recorded, ours) {
            self.0.insert(recorded, ours);
        }
    }

    fn ours(&self, recorded: u64) -> Option<u32> {
        self.0.get(&recorded).and_then(|minor| u32::try_from(*minor).ok())
    }

    fn recorded(&self, ours: u64) -> u64 {
        let known = self.0.iter().rev().find(|(_, minor)| **minor == ours);
        // Far from every recorded minor, so that a wrong one cannot look right.
        known.map_or(ours.saturating_add(1 << 32), |(recorded, _)| *recorded)
    }

    fn request(&self, request: &Dict) -> Dict {
        let mut request = request.clone();
        if let Some(minor) = request.number("minor").filter(|minor| *minor != 0) {
            request.put("minor", self.ours(minor).map_or(NOBODY, u64::from));
        }
        request
    }

    /// Our reply, with recorded minors in place of ours.
    fn reply(&self, reply: &Dict, sent: &Dict, request: &Dict) -> Dict {
        let mut reply = reply.clone();
        if let Some(Object::Unsigned(minor)) = reply.at("minor").cloned() {
            if sent.number("minor") == Some(minor)
                && let Some(recorded) = request.at("minor")
            {
                reply.put("minor", recorded.clone());
            } else {
                reply.put("minor", self.recorded(minor));
            }
        }
        if let Some(Object::Array(list)) = reply.0.get_mut("cmd_data") {
            for entry in &mut list.0 {
                match entry {
                    Object::Dict(entry) => {
                        if let Some(Object::Unsigned(minor)) = entry.at("dev").cloned() {
                            entry.put("dev", self.recorded(minor));
                        }
                    }
                    Object::Signed(dev) => *dev = self.recorded_dev(*dev),
                    _ => {}
                }
            }
        }
        reply
    }

    fn recorded_dev(&self, raw: i64) -> i64 {
        let dev = Dev(raw.cast_unsigned());
        if dev.major() != BLOCK_MAJOR {
            return raw;
        }
        let minor = u32::try_from(self.recorded(u64::from(dev.minor()))).ok();
        minor.and_then(|minor| Dev::new(BLOCK_MAJOR, minor)).map_or(raw, |dev| dev.0.cast_signed())
    }
}
