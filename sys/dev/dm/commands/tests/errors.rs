// SPDX-License-Identifier: BSD-2-Clause

//! Privileges, questions about devices that do not exist, and sysctl hw.dm.legacy_errors.

use alloc::vec;

use super::{LINEAR, one};
use crate::Errno;
use crate::commands::{execute, flags};
use crate::testing::{Bench, Request};

const ROOTS: [&str; 11] = [
    "create",
    "reload",
    "resume",
    "suspend",
    "clear",
    "remove",
    "remove_all",
    "rename",
    "message",
    "setgeometry",
    "reload",
];
const QUESTIONS: [&str; 5] = ["info", "mknodes", "status", "table", "deps"];

fn request(command: &str, name: &str) -> Request {
    let request = Request::on(command, name).lines(LINEAR);
    let request = request.with("message", "@cancel_deferred_remove").with("geometry", "1 1 1 0");
    match command {
        "rename" => request.with("cmd_data", vec!["other".into()]),
        _ => request,
    }
}

#[test]
fn without_the_right_commands_that_change_are_eperm() {
    let bench = one();
    bench.kernel.privileged(false);
    for command in ROOTS {
        bench.refused(&request(command, "d"), Errno::EPERM);
        bench.refused(&request(command, "nosuch"), Errno::EPERM);
    }
    bench.kernel.privileged(true);
    bench.on("suspend", "d");
}

#[test]
fn without_the_right_questions_are_answered() {
    let bench = one();
    bench.kernel.privileged(false);
    for command in QUESTIONS {
        assert_eq!(bench.on(command, "d").string("name"), Some("d"), "{command}");
    }
    for command in ["version", "targets", "names"] {
        bench.done(&Request::new(command));
    }
    bench.done(&Request::on("waitevent", "d").with("event_nr", 7));
}

#[test]
fn through_a_descriptor_not_open_for_writing_changes_are_ebadf() {
    let bench = one();
    for command in ROOTS {
        let before = bench.picture();
        let mut dict = request(command, "d").dict().clone();
        assert_eq!(execute(&bench.driver, &mut dict, false), Err(Errno::EBADF), "{command}");
        assert_eq!(before, bench.picture());
    }
    for command in QUESTIONS.iter().chain(&["version", "targets", "names"]) {
        let mut dict = request(command, "d").dict().clone();
        assert_eq!(execute(&bench.driver, &mut dict, false), Ok(()), "{command}");
    }
}

#[test]
fn who_may_not_learns_that_first() {
    let bench = one();
    bench.kernel.privileged(false);
    let mut dict = request("remove", "d").dict().clone();
    assert_eq!(execute(&bench.driver, &mut dict, false), Err(Errno::EPERM));
}

#[test]
fn a_question_about_a_missing_device_is_answered_with_exists_clear() {
    let bench = one();
    for command in QUESTIONS {
        for selected in [
            Request::on(command, "nosuch"),
            Request::new(command).with("uuid", "nosuch"),
            Request::new(command).with("minor", 77),
            Request::new(command),
            Request::on(command, ""),
            Request::on(command, "a/b"),
        ] {
            let before = bench.picture();
            let reply = bench.done(&selected.clone().flags(0xffff_ffff));
            let told = flags::READONLY
                | flags::SUSPEND
                | flags::EXISTS
                | flags::ACTIVE_PRESENT
                | flags::INACTIVE_PRESENT
                | flags::DEFERRED_REMOVE;
            assert_eq!(reply.number("flags"), Some(u64::from(!told)), "{command}");
            for key in ["name", "uuid", "minor"] {
                assert_eq!(reply.at(key), selected.dict().at(key), "{command}: {key}");
            }
            for key in ["open_count", "target_count", "event_nr", "cmd_data"] {
                assert_eq!(reply.at(key), None, "{command}: {key}");
            }
            assert_eq!(before, bench.picture());
        }
    }
}

#[test]
fn a_command_about_a_missing_device_is_enxio() {
    let bench = one();
    for command in ROOTS.iter().filter(|c| !matches!(**c, "create" | "remove_all")) {
        bench.refused(&request(command, "nosuch"), Errno::ENXIO);
        bench.refused(&request(command, "d").with("minor", 77), Errno::ENXIO);
        bench.refused(&request(command, "x").without("name"), Errno::ENXIO);
    }
    bench.refused(&Request::on("waitevent", "nosuch"), Errno::ENXIO);
}

#[test]
fn legacy_errors_returns_0_for_every_failure_and_changes_nothing() {
    let bench = one();
    bench.kernel.set_legacy_errors(true);
    let before = bench.picture();
    for (request, errno) in [
        (Request::on("create", "d"), Errno::EEXIST),
        (Request::on("nosuch", "d"), Errno::EINVAL),
        (request("remove", "nosuch"), Errno::ENXIO),
        (Request::reload("d", &[(0, 8, "nosuch", "")]), Errno::ENOENT),
        (Request::reload("d", &[(8, 8, "zero", "")]), Errno::EINVAL),
    ] {
        bench.kernel.set_legacy_errors(false);
        bench.refused(&request, errno);
        bench.kernel.set_legacy_errors(true);
        bench.done(&request);
        assert_eq!(before, bench.picture());
    }
}

#[test]
fn legacy_errors_clears_exists_for_a_missing_device() {
    let bench = Bench::new();
    bench.kernel.set_legacy_errors(true);
    let reply = bench.done(&Request::on("resume", "nosuch").flags(flags::EXISTS | 1 << 3));
    assert_eq!(reply.number("flags"), Some(1 << 3));
}

#[test]
fn legacy_errors_leaves_what_works_alone() {
    let bench = one();
    let strict = bench.on("info", "d");
    bench.kernel.set_legacy_errors(true);
    assert_eq!(bench.on("info", "d"), strict);
}
