// SPDX-License-Identifier: BSD-2-Clause

//! reload, resume, suspend, clear, status, table and deps.

use alloc::vec::Vec;

use super::{LINEAR, one, params};
use crate::commands::flags;
use crate::testing::plist::Object;
use crate::testing::unit::Call;
use crate::testing::{Bench, Request};
use crate::{Dev, Errno};

const OTHER: &[(u64, u64, &str, &str)] = &[(0, 8, "zero", ""), (8, 92, "linear", "/dev/b 0")];

const BOTH: u32 = flags::ACTIVE_PRESENT | flags::INACTIVE_PRESENT;

fn table(bench: &Bench, flags: u32) -> Vec<alloc::string::String> {
    params(&bench.done(&Request::on("table", "d").flags(flags::STATUS_TABLE | flags)))
}

#[test]
fn reload_loads_the_inactive_slot_and_leaves_the_active_one() {
    let bench = one();
    bench.unit("d").calls();
    let reply = bench.done(&Request::reload("d", OTHER));
    assert_eq!(reply.number("flags"), Some(u64::from(flags::EXISTS | BOTH)));
    assert_eq!(table(&bench, 0), ["19:3 2048"]);
    assert_eq!(table(&bench, flags::QUERY_INACTIVE_TABLE), ["", "19:19 0"]);
    assert_eq!(bench.unit("d").calls(), []);
}

#[test]
fn reload_replaces_what_was_in_the_inactive_slot() {
    let bench = one();
    bench.done(&Request::reload("d", OTHER));
    bench.done(&Request::reload("d", &[(0, 8, "error", "")]));
    assert_eq!(table(&bench, flags::QUERY_INACTIVE_TABLE), [""]);
    assert_eq!(bench.kernel.open_now(), [Dev::new(19, 3).unwrap()], "/dev/b was let go");
}

#[test]
fn resume_makes_the_inactive_table_active() {
    let bench = one();
    bench.done(&Request::reload("d", OTHER));
    bench.unit("d").calls();
    bench.on("resume", "d");
    assert_eq!(table(&bench, 0), ["", "19:19 0"]);
    assert_eq!(bench.flags("d"), flags::EXISTS | flags::ACTIVE_PRESENT);
    assert_eq!(bench.kernel.open_now(), [Dev::new(19, 19).unwrap()]);
    let calls = [Call::Quiesce, Call::SetTable(100, false), Call::Release];
    assert_eq!(bench.unit("d").calls(), calls);
}

#[test]
fn resume_without_an_inactive_table_loses_nothing() {
    let bench = one();
    bench.unit("d").calls();
    let before = bench.picture();
    bench.on("resume", "d");
    assert_eq!((before, bench.unit("d").calls()), (bench.picture(), Vec::new()));
}

#[test]
fn suspend_holds_io_and_resume_lets_it_go() {
    let bench = one();
    bench.unit("d").calls();
    let reply = bench.on("suspend", "d");
    assert_eq!(reply.number("flags").unwrap() & 2, 2);
    assert!(bench.unit("d").held() && !bench.unit("d").begin_io());
    bench.on("suspend", "d");
    bench.on("resume", "d");
    assert_eq!(bench.unit("d").calls(), [Call::Quiesce, Call::Release]);
    assert!(bench.unit("d").begin_io());
}

#[test]
fn suspend_returns_when_no_io_is_in_flight() {
    let bench = one();
    let unit = bench.unit("d");
    assert!(unit.begin_io());
    let driver = bench.driver.clone();
    let thread = crate::testing::thread::spawn(move || {
        crate::testing::send(&driver, &Request::on("suspend", "d")).map(|_| ())
    });
    // I/O is held before it is drained, so that the wait ends.
    while !unit.held() {
        std::thread::yield_now();
    }
    assert!(!unit.begin_io());
    assert_ne!(bench.flags("d") & flags::SUSPEND, flags::SUSPEND, "not before it is drained");
    unit.end_io();
    assert_eq!(thread.join(), Ok(()));
    assert_eq!(bench.flags("d") & flags::SUSPEND, flags::SUSPEND);
}

#[test]
fn suspend_takes_noflush_and_skip_lockfs() {
    let bench = one();
    let reply = bench.done(&Request::on("suspend", "d").flags(1 << 10 | 1 << 11));
    assert_eq!(reply.number("flags").unwrap() >> 10 & 3, 3);
}

#[test]
fn a_resume_that_changes_the_table_takes_noflush_too() {
    const LINE: &[(u64, u64, &str, &str)] =
        &[(0, 1024, "mirror", "core 2 1024 nosync 2 /dev/a 0 /dev/b 0")];
    let bench = Bench::new();
    bench.device("d", LINE);
    for (flags, gives_back) in [(flags::NOFLUSH, true), (0, false)] {
        bench.done(&Request::reload("d", LINE));
        bench.done(&Request::on("resume", "d").flags(flags));
        assert_eq!(bench.unit("d").gives_back(), gives_back);
    }
}

#[test]
fn a_file_system_is_written_before_io_is_held_and_goes_on_when_it_is() {
    use Call::{Quiesce, Release, ResumeFileSystem, SetTable, SuspendFileSystem};
    let bench = one();
    let unit = bench.unit("d");
    unit.mount();
    unit.calls();
    bench.on("suspend", "d");
    assert_eq!(unit.calls(), [SuspendFileSystem, Quiesce, ResumeFileSystem]);
    // The device's I/O would wait for the resume.
    bench.on("suspend", "d");
    bench.done(&Request::reload("d", OTHER));
    bench.on("resume", "d");
    assert_eq!(unit.calls(), [SetTable(100, false), Release]);
    // A resume that changes the table holds I/O for a moment.
    bench.done(&Request::reload("d", OTHER));
    bench.on("resume", "d");
    let held = [SuspendFileSystem, Quiesce, ResumeFileSystem];
    assert_eq!(unit.calls(), [&held[..], &[SetTable(100, false), Release]].concat());
    bench.on("resume", "d");
    assert_eq!(unit.calls(), []);
    for flag in [flags::SKIP_LOCKFS, flags::NOFLUSH] {
        bench.done(&Request::on("suspend", "d").flags(flag));
        bench.on("resume", "d");
        assert_eq!(unit.calls(), [Quiesce, Release]);
    }
    bench.done(&Request::reload("d", OTHER));
    bench.done(&Request::on("resume", "d").flags(flags::SKIP_LOCKFS));
    assert_eq!(unit.calls(), [Quiesce, SetTable(100, false), Release]);
}

#[test]
fn a_file_system_goes_on_while_another_thread_has_the_device() {
    let bench = one();
    let unit = bench.unit("d");
    unit.mount();
    unit.calls();
    assert!(unit.begin_io());
    let suspend = || {
        let driver = bench.driver.clone();
        let request = Request::on("suspend", "d");
        crate::testing::thread::spawn(move || crate::testing::send(&driver, &request).map(|_| ()))
    };
    let first = suspend();
    while !unit.held() {
        std::thread::yield_now();
    }
    // The first resume waits for the I/O, with the file system suspended.
    let second = suspend();
    unit.end_io();
    assert_eq!((first.join(), second.join()), (Ok(()), Ok(())));
    let calls = unit.calls();
    let count = |call| calls.iter().filter(|found| **found == call).count();
    assert_eq!(count(Call::Quiesce), 1);
    assert_eq!(count(Call::SuspendFileSystem), count(Call::ResumeFileSystem));
}

#[test]
fn a_suspended_device_swaps_tables_at_resume() {
    let bench = one();
    bench.on("suspend", "d");
    bench.done(&Request::reload("d", OTHER));
    bench.unit("d").calls();
    bench.on("resume", "d");
    assert_eq!(bench.unit("d").calls(), [Call::SetTable(100, false), Call::Release]);
    assert_eq!(bench.flags("d"), flags::EXISTS | flags::ACTIVE_PRESENT);
}

#[test]
fn a_signal_leaves_both_tables_as_they_were() {
    let bench = one();
    bench.done(&Request::reload("d", OTHER));
    bench.kernel.fail_quiesce(Some(Errno::EINTR));
    bench.refused(&Request::on("resume", "d"), Errno::EINTR);
    bench.refused(&Request::on("suspend", "d"), Errno::EINTR);
    bench.kernel.fail_quiesce(None);
    bench.on("resume", "d");
    assert_eq!(table(&bench, 0), ["", "19:19 0"]);
}

#[test]
fn clear_drops_the_inactive_table_only() {
    let bench = one();
    bench.done(&Request::reload("d", OTHER));
    let reply = bench.on("clear", "d");
    assert_eq!(reply.number("flags"), Some(u64::from(flags::EXISTS | flags::ACTIVE_PRESENT)));
    assert_eq!(bench.kernel.open_now(), [Dev::new(19, 3).unwrap()]);
    bench.on("clear", "d");
    assert_eq!(table(&bench, 0), ["19:3 2048"]);
}

#[test]
fn table_has_start_length_type_params_and_status_of_each_line_by_start() {
    let bench = Bench::new();
    bench.device("d", &[(8, 92, "linear", "/dev/b 0"), (0, 8, "zero", "")]);
    let reply = bench.done(&Request::on("table", "d").flags(flags::STATUS_TABLE));
    let lines = reply.array("cmd_data").unwrap();
    let keys = ["length", "params", "start", "status", "type"];
    assert!(lines.iter().all(|line| line.dict().unwrap().0.keys().eq(keys.iter())));
    let second = lines[1].dict().unwrap();
    assert_eq!(second.at("start"), Some(&Object::Unsigned(8)));
    assert_eq!(second.at("length"), Some(&Object::Unsigned(92)));
    assert_eq!(second.at("status"), Some(&Object::Signed(1)));
    assert_eq!(second.string("type"), Some("linear"));
    assert_eq!(second.string("params"), Some("19:19 0"));
    assert_eq!(lines[0].dict().unwrap().string("params"), Some(""));
    assert_eq!(reply.number("target_count"), Some(2));
}

#[test]
fn status_table_says_whether_params_are_the_tables_or_the_targets_state() {
    let bench = Bench::new();
    bench.device(
        "d",
        &[(0, 16, "striped", "2 8 /dev/a 0 /dev/b 8"), (16, 8, "linear", "/dev/a 99")],
    );
    for command in ["status", "table"] {
        let table = bench.done(&Request::on(command, "d").flags(flags::STATUS_TABLE));
        assert_eq!(params(&table), ["2 8 19:3 0 19:19 8", "19:3 99"]);
        assert_eq!(params(&bench.on(command, "d")), ["2 19:3 19:19 1 AA", ""]);
    }
}

#[test]
fn query_inactive_table_asks_about_the_other_slot() {
    let bench = one();
    bench.done(&Request::reload("d", OTHER));
    for command in ["info", "table", "status", "deps", "mknodes"] {
        let reply = bench.done(&Request::on(command, "d").flags(flags::QUERY_INACTIVE_TABLE));
        assert_eq!(reply.number("target_count"), Some(2), "{command}");
        assert_eq!(bench.on(command, "d").number("target_count"), Some(1), "{command}");
    }
    let deps = bench.done(&Request::on("deps", "d").flags(flags::QUERY_INACTIVE_TABLE));
    assert_eq!(deps.array("cmd_data"), Some(&[Object::Signed(4883)][..]));
}

#[test]
fn a_device_without_a_table_has_no_lines_and_no_components() {
    let bench = Bench::new();
    bench.on("create", "d");
    for command in ["table", "status", "deps"] {
        let reply = bench.on(command, "d");
        assert_eq!(reply.array("cmd_data"), Some(&[][..]), "{command}");
        assert_eq!(reply.number("target_count"), Some(0));
    }
}

#[test]
fn deps_has_the_dev_t_of_each_component_once() {
    let bench = Bench::new();
    let lines = [
        (0, 8, "linear", "/dev/b 0"),
        (8, 8, "linear", "/dev/a 0"),
        (16, 8, "linear", "19:19 100"),
        (24, 16, "striped", "2 8 /dev/a 8 /dev/c 0"),
        (40, 8, "zero", ""),
    ];
    bench.device("d", &lines);
    let reply = bench.on("deps", "d");
    let devs = [4883, 4867, 4899].map(Object::Signed);
    assert_eq!(reply.array("cmd_data"), Some(&devs[..]), "as the C driver has them");
}

#[test]
fn a_table_loads_again_as_the_driver_prints_it() {
    let bench = Bench::new();
    let lines = [
        (0, 16, "striped", "2 8 /dev/a 8 /dev/cd 0"),
        (16, 8, "linear", "/dev/b 16"),
        (24, 8, "zero", ""),
        (32, 8, "error", " \t"),
    ];
    bench.device("d", &lines);
    let reply = bench.done(&Request::on("table", "d").flags(flags::STATUS_TABLE));
    let printed = reply.at("cmd_data").unwrap().clone();
    bench.done(&Request::on("reload", "d").with("cmd_data", printed));
    assert_eq!(table(&bench, 0), table(&bench, flags::QUERY_INACTIVE_TABLE));
}

#[test]
fn loading_an_identical_table_is_allowed() {
    let bench = one();
    for _ in 0..3 {
        bench.done(&Request::reload("d", LINEAR));
        bench.on("resume", "d");
    }
    assert_eq!(bench.kernel.opens(), 1, "it is open already");
}

#[test]
fn reload_more_gathers_lines_until_the_request_without_it() {
    let bench = one();
    bench.done(&Request::reload("d", &[(8, 8, "zero", "")]).flags(flags::RELOAD_MORE));
    assert_eq!(bench.flags("d") & flags::INACTIVE_PRESENT, 0);
    bench.done(&Request::reload("d", &[(16, 8, "error", "")]).flags(flags::RELOAD_MORE));
    bench.done(&Request::reload("d", &[(0, 8, "linear", "/dev/b 0")]));
    assert_eq!(table(&bench, flags::QUERY_INACTIVE_TABLE), ["19:19 0", "", ""]);
}

#[test]
fn clear_and_a_refused_table_drop_gathered_lines() {
    for drop in [Request::on("clear", "d"), Request::reload("d", &[(9, 1, "zero", "")])] {
        let bench = one();
        bench.done(&Request::reload("d", &[(0, 8, "zero", "")]).flags(flags::RELOAD_MORE));
        let _ = bench.send(&drop);
        bench.refused(&Request::reload("d", &[(8, 8, "zero", "")]), Errno::EINVAL);
    }
}

#[test]
fn readonly_tables_and_devices_take_no_writes() {
    let bench = Bench::new();
    bench.on("create", "table");
    bench.done(&Request::reload("table", LINEAR).flags(flags::READONLY));
    assert_eq!(bench.flags("table") & flags::READONLY, 0, "not before it is active");
    bench.on("resume", "table");
    bench.done(&Request::on("create", "device").flags(flags::READONLY));
    assert_eq!(bench.flags("device") & flags::READONLY, flags::READONLY);
    bench.done(&Request::reload("device", LINEAR));
    bench.on("resume", "device");
    for name in ["table", "device"] {
        assert_eq!(bench.flags(name) & flags::READONLY, flags::READONLY, "{name}");
        assert!(bench.unit(name).read_only(), "{name}");
    }
    bench.done(&Request::reload("table", LINEAR));
    bench.on("resume", "table");
    assert!(!bench.unit("table").read_only());
}

#[test]
fn a_write_table_on_a_read_only_component_is_erofs_without_readonly() {
    let bench = one();
    let table = Request::reload("d", &[(0, 8, "linear", "/dev/ro 0")]);
    bench.refused(&table, Errno::EROFS);
    bench.done(&table.flags(flags::READONLY));
}

/// lvm(8) makes a volume that lies on others writable again in this order.
#[test]
fn a_component_with_a_table_to_come_that_takes_writes_will_take_them() {
    let bench = Bench::new();
    bench.device("below", LINEAR);
    bench.done(&Request::reload("below", LINEAR).flags(flags::READONLY));
    bench.on("resume", "below");
    bench.on("create", "d");
    let table = Request::reload("d", &[(0, 8, "linear", "/dev/mapper/below 0")]);
    bench.refused(&table, Errno::EROFS);
    bench.done(&Request::reload("below", LINEAR).flags(flags::READONLY));
    bench.refused(&table, Errno::EROFS);
    bench.done(&Request::reload("below", LINEAR));
    bench.done(&table);
    bench.on("clear", "below");
    bench.refused(&table, Errno::EROFS);
}

#[test]
fn a_snapshot_does_not_take_over_from_before_its_store_was_away() {
    const LINE: &[(u64, u64, &str, &str)] = &[(0, 8, "snapshot", "/dev/a /dev/b P 8")];
    let bench = Bench::new();
    bench.device("d", LINE);
    bench.done(&Request::reload("d", LINE));
    bench.on("resume", "d");
    // The origin's disk may come back.
    for (minor, refused) in [(3, false), (19, true)] {
        bench.kernel.revoke(Dev::new(19, minor).unwrap());
        match refused {
            true => bench.refused(&Request::reload("d", LINE), Errno::EINVAL),
            false => drop(bench.done(&Request::reload("d", LINE))),
        }
        bench.on("clear", "d");
    }
    bench.on("remove", "d");
    bench.device("d", LINE);
}

#[test]
fn a_snapshot_only_reads_its_origin() {
    let bench = one();
    let refused = |params: &str| {
        let table = Request::reload("d", &[(0, 8, "snapshot", params)]);
        bench.refused(&table, Errno::EROFS);
        bench.done(&table.flags(flags::READONLY));
    };
    for params in ["/dev/ro /dev/a P 8", "/dev/ro /dev/a P 8 1 discard_zeroes_cow"] {
        bench.done(&Request::reload("d", &[(0, 8, "snapshot", params)]));
    }
    // The origin is written if discards reach it, and the store always.
    refused("/dev/ro /dev/a P 8 2 discard_zeroes_cow discard_passdown_origin");
    refused("/dev/a /dev/ro P 8");
    // Merging writes the origin.
    bench.refused(
        &Request::reload("d", &[(0, 8, "snapshot-merge", "/dev/ro /dev/a P 8")]),
        Errno::EROFS,
    );
    // An origin that another line has open for reading only.
    let table = [(0, 8, "snapshot", "/dev/ro /dev/a P 8"), (8, 8, "linear", "/dev/ro 0")];
    bench.refused(&Request::reload("d", &table), Errno::EROFS);
}
