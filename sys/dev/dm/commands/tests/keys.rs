// SPDX-License-Identifier: BSD-2-Clause

//! Request keys and reply keys.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::{LINEAR, one};
use crate::Errno;
use crate::commands::flags;
use crate::testing::plist::{Array, Dict, Object};
use crate::testing::{Bench, COMMANDS, Request};

/// A request that succeeds on a device called `d`, for each command that does not wait.
fn good(command: &str) -> Request {
    match command {
        "create" => Request::on(command, "new"),
        "reload" => Request::reload("d", LINEAR),
        "rename" => Request::on(command, "d").with("cmd_data", vec!["e".into()]),
        "message" => Request::on(command, "d").with("message", "@cancel_deferred_remove"),
        "setgeometry" => Request::on(command, "d").with("geometry", "10 2 32 0"),
        _ => Request::on(command, "d"),
    }
}

#[test]
fn every_command_is_understood() {
    for command in COMMANDS {
        one().done(&good(command));
    }
}

#[test]
fn an_unknown_command_is_einval() {
    for command in ["", "Version", "version ", "nosuch", "removeall"] {
        one().refused(&Request::on(command, "d"), Errno::EINVAL);
    }
}

#[test]
fn a_request_without_command_is_einval() {
    one().refused(&Request::on("info", "d").without("command"), Errno::EINVAL);
}

#[test]
fn a_key_of_the_wrong_type_is_einval() {
    let (text, unsigned) = (Object::from("1"), Object::Unsigned(1));
    let others = [
        Object::Bool(true),
        Object::Data(String::from("QQ==")),
        Object::Array(Array::default()),
        Object::Dict(Dict::default()),
        Object::Signed(-1),
    ];
    for key in ["command", "name", "uuid", "minor", "flags", "event_nr", "sector", "message"] {
        let wrong = match key {
            "command" | "name" | "uuid" | "message" => &unsigned,
            _ => &text,
        };
        for value in others.iter().chain([wrong]) {
            let command = match key {
                "event_nr" => "waitevent",
                "sector" | "message" => "message",
                _ => "info",
            };
            let request = good(command).with("flags", 0).with(key, value.clone());
            one().refused(&request, Errno::EINVAL);
        }
    }
    for value in others.iter().chain([&unsigned]) {
        one().refused(&good("setgeometry").with("geometry", value.clone()), Errno::EINVAL);
    }
}

#[test]
fn cmd_data_of_the_wrong_type_is_einval() {
    for value in [Object::from("e"), Object::Unsigned(1), Object::Dict(Dict::default())] {
        one().refused(&good("reload").with("cmd_data", value.clone()), Errno::EINVAL);
        one().refused(&good("rename").with("cmd_data", value.clone()), Errno::EINVAL);
        one().refused(&good("reload").with("cmd_data", vec![value.clone()]), Errno::EINVAL);
    }
    one().refused(&good("reload").without("cmd_data"), Errno::EINVAL);
    one().refused(&good("rename").without("cmd_data"), Errno::EINVAL);
    one().refused(&good("rename").with("cmd_data", Vec::new()), Errno::EINVAL);
    one().refused(&good("rename").with("cmd_data", vec![1.into()]), Errno::EINVAL);
}

#[test]
fn flags_that_do_not_fit_are_einval() {
    one().done(&good("info").with("flags", 0xffff_ffff));
    one().refused(&good("info").with("flags", 1 << 32), Errno::EINVAL);
}

#[test]
fn a_number_may_be_signed_or_unsigned() {
    for minor in [Object::Unsigned(1), Object::Signed(1)] {
        let reply = one().done(&Request::new("info").with("minor", minor).with("flags", 0));
        assert_eq!(reply.string("name"), Some("d"));
        assert_eq!(reply.at("minor"), Some(&Object::Unsigned(1)), "the reply has its own base");
    }
}

#[test]
fn version_4_up_to_16_is_taken_and_others_are_eio() {
    let with = |version: [i64; 3]| {
        Request::on("info", "d").with("version", version.map(Object::Signed).to_vec())
    };
    for good in [[4, 0, 0], [4, 1, 0], [4, 16, 0], [4, 16, 99]] {
        one().done(&with(good));
    }
    for bad in [[3, 0, 0], [5, 0, 0], [4, 17, 0], [0, 0, 0]] {
        one().refused(&with(bad), Errno::EIO);
    }
    let unsigned = [4, 16, 0].map(Object::Unsigned).to_vec();
    one().done(&Request::on("info", "d").with("version", unsigned));
}

#[test]
fn a_missing_version_is_accepted_and_a_malformed_one_is_einval() {
    one().done(&Request::on("info", "d").without("version"));
    let number = |n| Object::Signed(n);
    for bad in [
        Object::from("4.0.0"),
        number(4),
        Vec::new().into(),
        vec![number(4), number(0)].into(),
        vec![number(4), number(0), number(0), number(0)].into(),
        vec![number(4), number(0), "0".into()].into(),
        vec![number(4), number(-1), number(0)].into(),
        vec!["4".into(), number(0), number(0)].into(),
    ] {
        one().refused(&Request::on("info", "d").with("version", bad), Errno::EINVAL);
    }
}

#[test]
fn every_reply_sets_version_and_flags() {
    for command in COMMANDS {
        let reply = one().done(&good(command));
        let version = [4, 16, 0].map(Object::Unsigned);
        assert_eq!(reply.array("version"), Some(&version[..]), "{command}");
        assert!(matches!(reply.at("flags"), Some(Object::Unsigned(_))), "{command}");
    }
}

#[test]
fn every_reply_about_a_device_sets_all_device_keys() {
    for command in COMMANDS {
        if matches!(command, "version" | "targets" | "names" | "remove_all") {
            continue;
        }
        let reply = one().done(&good(command));
        for key in ["minor", "flags", "open_count", "target_count", "event_nr"] {
            assert!(matches!(reply.at(key), Some(Object::Unsigned(_))), "{command}: {key}");
        }
        for key in ["name", "uuid"] {
            assert!(matches!(reply.at(key), Some(Object::String(_))), "{command}: {key}");
        }
    }
}

#[test]
fn device_keys_tell_the_truth() {
    let bench = one();
    bench.unit("d").open_node().unwrap();
    let reply = bench.on("info", "d");
    let numbers = ["minor", "open_count", "target_count", "event_nr"].map(|k| reply.number(k));
    assert_eq!(numbers, [Some(1), Some(1), Some(1), Some(0)]);
    assert_eq!((reply.string("name"), reply.string("uuid")), (Some("d"), Some("")));
}

#[test]
fn unknown_keys_come_back_untouched() {
    let mut inner = Dict::default();
    inner.put("deep", vec![Object::Bool(true), Object::Signed(-5)]);
    for command in COMMANDS {
        let request = good(command).with("dmctl_says", "hello").with("x", inner.clone());
        let reply = one().done(&request);
        assert_eq!(reply.string("dmctl_says"), Some("hello"), "{command}");
        assert_eq!(reply.at("x"), Some(&Object::Dict(inner.clone())), "{command}");
        assert_eq!(reply.string("command"), Some(command));
    }
}

#[test]
fn input_only_flags_come_back_as_sent() {
    let sent = 1 << 3 | 1 << 4 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 20;
    for command in COMMANDS {
        let reply = one().done(&good(command).flags(sent));
        assert_eq!(reply.number("flags").unwrap() & u64::from(sent), u64::from(sent), "{command}");
    }
}

#[test]
fn flags_that_tell_are_not_believed() {
    let told = flags::READONLY
        | flags::SUSPEND
        | flags::ACTIVE_PRESENT
        | flags::INACTIVE_PRESENT
        | flags::DEFERRED_REMOVE;
    let reply = one().done(&Request::on("info", "d").flags(told));
    assert_eq!(reply.number("flags"), Some(u64::from(flags::EXISTS | flags::ACTIVE_PRESENT)));
}

#[test]
fn minor_wins_over_name_and_name_over_uuid() {
    let bench = Bench::new();
    for (name, uuid) in [("one", "u1"), ("two", "u2"), ("three", "u3")] {
        bench.done(&Request::on("create", name).with("uuid", uuid));
    }
    let asked = |request: Request| bench.done(&request).string("name").map(String::from);
    let ask = Request::on("info", "two").with("uuid", "u3");
    assert_eq!(asked(ask.clone().with("minor", 1)).as_deref(), Some("one"));
    assert_eq!(asked(ask.clone()).as_deref(), Some("two"));
    assert_eq!(asked(ask.without("name")).as_deref(), Some("three"));
}

#[test]
fn minor_0_and_empty_names_are_not_given() {
    let bench = Bench::new();
    bench.done(&Request::on("create", "d").with("uuid", "u"));
    for request in [
        Request::on("info", "d").with("minor", 0),
        Request::on("info", "").with("uuid", "u").with("minor", 0),
        Request::on("info", "d").with("uuid", ""),
    ] {
        assert_eq!(bench.done(&request).number("minor"), Some(1));
    }
}

#[test]
fn a_minor_that_is_wrong_does_not_fall_back_to_the_name() {
    let bench = one();
    for minor in [2, 65_536, u64::MAX] {
        let reply = bench.done(&Request::on("info", "d").with("minor", minor));
        assert_eq!(reply.number("flags"), Some(0));
        bench.refused(&Request::on("suspend", "d").with("minor", minor), Errno::ENXIO);
    }
}

#[test]
fn a_name_of_127_bytes_works_and_one_of_128_is_einval() {
    let bench = Bench::new();
    let (long, longer) = ("n".repeat(127), "n".repeat(128));
    bench.on("create", &long);
    assert_eq!(bench.on("info", &long).string("name"), Some(&long[..]));
    for command in ["create", "info", "resume", "remove"] {
        bench.refused(&Request::on(command, &longer), Errno::EINVAL);
    }
    let rename = Request::on("rename", &long);
    bench.refused(&rename.with("cmd_data", vec![longer.as_str().into()]), Errno::EINVAL);
    // The limit is in bytes, not letters.
    bench.refused(&Request::on("create", &"ä".repeat(64)), Errno::EINVAL);
}

#[test]
fn a_uuid_of_128_bytes_works_and_one_of_129_is_einval() {
    let bench = Bench::new();
    let (long, longer) = ("u".repeat(128), "u".repeat(129));
    bench.done(&Request::on("create", "d").with("uuid", long.as_str()));
    assert_eq!(
        bench.done(&Request::new("info").with("uuid", long.as_str())).number("minor"),
        Some(1)
    );
    bench.refused(&Request::on("create", "e").with("uuid", longer.as_str()), Errno::EINVAL);
    bench.refused(&Request::new("info").with("uuid", longer.as_str()), Errno::EINVAL);
}
