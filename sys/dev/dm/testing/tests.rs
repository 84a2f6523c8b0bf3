// SPDX-License-Identifier: BSD-2-Clause

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use std::sync::OnceLock;

use super::plist::{Dict, Object};
use super::replay::differences::DIFFERENCES;
use super::replay::{FakePlayer, Player, Report, Run, RunDisk, replay};
use super::{picture, request};
use crate::{Dev, Errno};

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../regress/vectors");

fn text(run: &str) -> String {
    let path = format!("{VECTORS}/{run}.jsonl");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The report of a run. The run is played once, by the first test that asks.
fn play(run: &'static str) -> &'static Report {
    static REPORTS: [OnceLock<Report>; 2] = [const { OnceLock::new() }; 2];
    let report = REPORTS[usize::from(run == "sB")].get_or_init(|| {
        let run = Run::parse(&text(run)).unwrap();
        let mut player = FakePlayer::default();
        let report = replay(&run, &mut player);
        picture::check(&player.driver);
        report
    });
    assert!(report.wrong.is_empty(), "{} wrong:\n{}", report.wrong.len(), report.wrong.join("\n"));
    report
}

#[test]
fn recorded_dmctl_and_dmsetup_get_the_recorded_replies() {
    assert_eq!(play("sA").played, 242);
}

#[test]
fn a_recorded_life_of_lvm_gets_the_recorded_replies() {
    let report = play("sB");
    assert_eq!(report.played, 1311);
    // Most requests are questions, whose replies are the recorded ones.
    assert!(report.identical > 900, "only {}", report.identical);
}

#[test]
fn every_difference_is_met() {
    let met: BTreeSet<_> = ["sA", "sB"].iter().flat_map(|run| play(run).met.keys()).collect();
    let listed: BTreeSet<_> = DIFFERENCES.iter().map(|difference| &difference.name).collect();
    assert_eq!(met, listed);
    assert!(DIFFERENCES.iter().all(|difference| !difference.reason.is_empty()));
}

#[test]
fn property_lists_print_as_proplib_prints_them() {
    for line in text("sA").lines().chain(text("sB").lines()) {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in ["in", "out"] {
            let xml = json[key].as_str().unwrap();
            assert_eq!(Dict::parse(xml).unwrap().print(), xml);
        }
    }
}

#[test]
fn property_lists_that_are_not_proplibs_are_refused() {
    let good = request::Request::new("version").dict().print();
    assert!(Dict::parse(&good).is_ok());
    for (from, to) in [
        ("<integer>4<", "<integer>+4<"),
        ("<integer>4<", "<integer>0x+4<"),
        ("<integer>4<", "<integer><"),
        ("</array>", ""),
        ("<key>version</key>", "<key>command</key>"),
        ("</dict>", "</dict><dict/>"),
        ("<string>version<", "<string>&nosuch;<"),
        ("</plist>", ""),
    ] {
        assert!(Dict::parse(&good.replacen(from, to, 1)).is_err(), "{from} {to}");
    }
    let deep = format!("{}{}", "<array>".repeat(100), "</array>".repeat(100));
    let deep = good.replacen("<string>version</string>", &deep, 1);
    assert_eq!(Dict::parse(&deep), Err("too deep"));
}

#[test]
fn strings_survive_printing() {
    let mut dict = Dict::default();
    for text in ["", " ", "<&>", "&amp;", "\"'", "ä\n\t"] {
        dict.put("text", text);
        assert_eq!(Dict::parse(&dict.print()).unwrap().at("text"), Some(&Object::from(text)));
    }
}

/// A player on the fake kernel that alters one key of every reply to one command.
struct Liar {
    player: FakePlayer,
    command: &'static str,
    key: &'static str,
    value: Object,
}

impl Player for Liar {
    fn disk(&mut self, disk: &RunDisk) {
        self.player.disk(disk);
    }

    fn node(&mut self, path: &str, dev: Option<Dev>) {
        self.player.node(path, dev);
    }

    fn open(&mut self, minor: u32, count: u32) {
        self.player.open(minor, count);
    }

    fn ioctl(&mut self, request: &Dict) -> Result<Dict, Errno> {
        let mut reply = self.player.ioctl(request)?;
        if request.string("command") == Some(self.command) {
            reply.put(self.key, self.value.clone());
        }
        Ok(reply)
    }
}

#[test]
fn the_replayer_notices_what_is_wrong() {
    let run = Run::parse(&text("sA")).unwrap();
    for (command, key, value) in [
        ("version", "version", Object::from("4.16.0")),
        ("version", "surprise", Object::Bool(true)),
        ("info", "target_count", Object::Signed(1)),
        ("info", "flags", Object::Unsigned(0x24)),
        ("info", "open_count", Object::Unsigned(1)),
        ("create", "uuid", Object::from("x")),
        ("resume", "minor", Object::Unsigned(1)),
        ("names", "cmd_data", Object::from(vec![])),
        ("deps", "cmd_data", Object::from(vec![Object::Unsigned(4867)])),
        ("table", "cmd_data", Object::from(vec![])),
        ("status", "cmd_data", Object::from(vec![])),
        ("remove", "flags", Object::Unsigned(4)),
    ] {
        let mut liar = Liar { player: FakePlayer::default(), command, key, value };
        assert!(!replay(&run, &mut liar).wrong.is_empty(), "{command} {key}");
    }
}
