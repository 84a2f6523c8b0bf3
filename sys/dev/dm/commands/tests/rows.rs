// SPDX-License-Identifier: BSD-2-Clause

//! Faults of the C driver: every control request that was seen to panic it, to be answered wrong or
//! to lose something, one test each.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use std::sync::Barrier;

use super::{LINEAR, one, params};
use crate::Errno;
use crate::commands::flags;
use crate::testing::kernel::Disk;
use crate::testing::plist::Object;
use crate::testing::request::line;
use crate::testing::{Bench, Request, picture, send};

fn refused(lines: &[(u64, u64, &str, &str)], errno: Errno) {
    one().refused(&Request::reload("d", lines), errno);
}

#[test]
fn a_command_that_fails_returns_its_errno() {
    let bench = one();
    bench.refused(&Request::on("create", "d"), Errno::EEXIST);
    bench.refused(&Request::on("remove", "nosuch"), Errno::ENXIO);
    bench.refused(&Request::reload("d", &[(0, 8, "nosuch", "")]), Errno::ENOENT);
}

#[test]
fn without_a_minor_the_name_counts() {
    let bench = one();
    bench.device("e", &[(0, 8, "zero", "")]);
    bench.on("remove", "e");
    assert_eq!(bench.on("info", "d").number("minor"), Some(1));
}

#[test]
fn reload_without_cmd_data_is_einval() {
    one().refused(&Request::on("reload", "d"), Errno::EINVAL);
    one().refused(&Request::reload("d", &[]), Errno::EINVAL);
}

#[test]
fn a_line_without_one_of_its_keys_is_einval() {
    for key in ["start", "length", "type", "params"] {
        let mut cut = line(0, 8, "zero", "");
        cut.0.remove(key);
        one()
            .refused(&Request::on("reload", "d").with("cmd_data", vec![cut.into()]), Errno::EINVAL);
        for wrong in [Object::Bool(true), Object::Signed(-1), Object::Array(Default::default())] {
            let mut bad = line(0, 8, "zero", "");
            bad.put(key, wrong);
            let request = Request::on("reload", "d").with("cmd_data", vec![bad.into()]);
            one().refused(&request, Errno::EINVAL);
        }
    }
}

#[test]
fn linear_without_parameters_or_without_offset_is_einval() {
    for params in ["", " ", "/dev/a", "/dev/a ", " /dev/a\t"] {
        refused(&[(0, 8, "linear", params)], Errno::EINVAL);
    }
}

#[test]
fn striped_with_wrong_counts_is_einval() {
    for params in [
        "2 0 /dev/a 0 /dev/b 0",
        "0 8",
        "0 8 /dev/a 0",
        "2",
        "2 8",
        "2 8 /dev/a",
        "2 8 /dev/a 0",
        "2 8 /dev/a 0 /dev/b",
        "2 8 /dev/a 0 /dev/b 0 /dev/c 0",
        "2 8 /dev/a 0 /dev/b 0 x",
        "2 3 /dev/a 0 /dev/b 0",
        "2 16 /dev/a 0 /dev/b 0",
        "3 1 /dev/a 0 /dev/b 0 /dev/c 0",
        "-2 8 /dev/a 0 /dev/b 0",
        "2 -8 /dev/a 0 /dev/b 0",
        "256 1",
    ] {
        refused(&[(0, 16, "striped", params)], Errno::EINVAL);
    }
}

#[test]
fn striped_with_5_and_with_256_stripes_works() {
    for count in [5, 256] {
        let mut text = format!("{count} 8");
        (0..count).for_each(|n| text += &format!(" /dev/a {}", n * 8));
        one().done(&Request::reload("d", &[(0, count * 8, "striped", &text)]));
    }
}

#[test]
fn striped_on_a_missing_device_is_enoent() {
    refused(&[(0, 16, "striped", "2 8 /dev/a 0 /dev/nosuch 0")], Errno::ENOENT);
    refused(&[(0, 16, "striped", "2 8 /dev/nosuch 0 /dev/a 0")], Errno::ENOENT);
}

#[test]
fn zero_and_error_work() {
    let bench = Bench::new();
    bench.device("d", &[(0, 1024, "zero", ""), (1024, 8, "error", "")]);
    assert_eq!(bench.on("info", "d").number("target_count"), Some(2));
    bench.refused(&Request::reload("d", &[(0, 8, "zero", "x")]), Errno::EINVAL);
    // A tool that changes a line's target to `error` may leave the parameters.
    bench.done(&Request::reload("d", &[(0, 8, "error", "/dev/nosuch 0")]));
}

#[test]
fn an_offset_that_is_no_number_is_einval() {
    for offset in ["abc", "-5", "+5", "0x10", "5k", "18446744073709551621", "1e3", "5,", "٣"] {
        refused(&[(0, 8, "linear", &format!("/dev/a {offset}"))], Errno::EINVAL);
        let striped = format!("2 8 /dev/a 0 /dev/b {offset}");
        refused(&[(0, 16, "striped", &striped)], Errno::EINVAL);
    }
}

#[test]
fn an_overlap_is_einval() {
    refused(&[(0, 8, "zero", ""), (7, 8, "zero", "")], Errno::EINVAL);
    refused(&[(0, 8, "zero", ""), (0, 8, "zero", "")], Errno::EINVAL);
    refused(&[(0, 100, "zero", ""), (10, 8, "error", ""), (100, 1, "zero", "")], Errno::EINVAL);
}

#[test]
fn a_gap_is_einval() {
    refused(&[(0, 8, "zero", ""), (9, 8, "zero", "")], Errno::EINVAL);
    refused(&[(1, 8, "zero", "")], Errno::EINVAL);
}

#[test]
fn a_length_of_0_is_einval() {
    refused(&[(0, 0, "zero", "")], Errno::EINVAL);
    refused(&[(0, 8, "zero", ""), (8, 0, "zero", "")], Errno::EINVAL);
}

#[test]
fn sums_that_wrap_are_einval() {
    refused(&[(0, u64::MAX, "zero", "")], Errno::EINVAL);
    refused(&[(0, 8, "zero", ""), (8, u64::MAX - 7, "zero", "")], Errno::EINVAL);
    refused(&[(1 << 55, 1 << 55, "zero", "")], Errno::EINVAL);
    // A disk's size in bytes must fit an off_t.
    refused(&[(0, 1 << 54, "zero", "")], Errno::EINVAL);
    one().done(&Request::reload("d", &[(0, (1 << 54) - 1, "zero", "")]));
    refused(&[(0, 8, "linear", &format!("/dev/a {}", u64::MAX))], Errno::EINVAL);
    refused(&[(0, 8, "linear", &format!("/dev/a {}", u64::MAX - 7))], Errno::EINVAL);
    let striped = format!("2 8 /dev/a 0 /dev/b {}", u64::MAX - 7);
    refused(&[(0, 16, "striped", &striped)], Errno::EINVAL);
}

#[test]
fn a_range_beyond_its_component_is_einval() {
    one().done(&Request::reload("d", &[(0, 8, "linear", "/dev/a 999992")]));
    refused(&[(0, 8, "linear", "/dev/a 999993")], Errno::EINVAL);
    refused(&[(0, 1_000_001, "linear", "/dev/a 0")], Errno::EINVAL);
    one().done(&Request::reload("d", &[(0, 16, "striped", "2 8 /dev/a 0 /dev/b 999992")]));
    refused(&[(0, 16, "striped", "2 8 /dev/a 0 /dev/b 999993")], Errno::EINVAL);
}

#[test]
fn a_range_that_cuts_a_sector_of_its_component_is_einval() {
    for (path, sectors) in [("/dev/cd", 4), ("/dev/af", 8)] {
        for (offset, length) in [(1, sectors), (0, sectors - 1), (sectors / 2, sectors)] {
            let params = format!("{path} {offset}");
            refused(&[(0, length, "linear", &params)], Errno::EINVAL);
        }
        let chunk = format!("2 1 /dev/a 0 {path} 0");
        refused(&[(0, 2 * sectors, "striped", &chunk)], Errno::EINVAL);
        let good = format!("{path} {sectors}");
        one().done(&Request::reload("d", &[(0, sectors, "linear", &good)]));
        let line = [(0, 1, "zero", ""), (1, sectors, "linear", good.as_str())];
        refused(&line, Errno::EINVAL);
    }
}

#[test]
fn a_table_on_itself_is_eloop() {
    let bench = one();
    bench.kernel.path("/dev/mapper/d", Ok(crate::Dev::new(169, 1).unwrap()));
    for path in ["/dev/mapper/d", "169:1"] {
        let lines = [(0, 8, "linear", &*format!("{path} 0"))];
        bench.refused(&Request::reload("d", &lines), Errno::ELOOP);
        let striped = format!("2 8 /dev/a 0 {path} 0");
        bench.refused(&Request::reload("d", &[(0, 16, "striped", &striped)]), Errno::ELOOP);
    }
}

#[test]
fn a_table_on_itself_through_others_is_eloop() {
    let bench = Bench::new();
    bench.device("a", &[(0, 100, "linear", "/dev/a 0")]);
    bench.device("b", &[(0, 100, "linear", "/dev/mapper/a 0")]);
    bench.device("c", &[(0, 100, "linear", "/dev/mapper/b 0")]);
    for on in ["b", "c"] {
        let path = format!("/dev/mapper/{on} 0");
        bench.refused(&Request::reload("a", &[(0, 8, "linear", &path)]), Errno::ELOOP);
    }
}

#[test]
fn two_tables_that_are_not_active_yet_cannot_close_a_loop() {
    let bench = Bench::new();
    bench.device("a", &[(0, 100, "linear", "/dev/a 0")]);
    bench.device("b", &[(0, 100, "linear", "/dev/b 0")]);
    bench.done(&Request::reload("a", &[(0, 8, "linear", "/dev/mapper/b 0")]));
    bench.refused(&Request::reload("b", &[(0, 8, "linear", "/dev/mapper/a 0")]), Errno::ELOOP);
    bench.on("clear", "a");
    bench.done(&Request::reload("b", &[(0, 8, "linear", "/dev/mapper/a 0")]));
}

#[test]
fn a_component_path_over_31_bytes_works_twice() {
    let bench = Bench::new();
    let long = format!("/dev/{}", "long".repeat(20));
    let like = format!("{long}2");
    bench.kernel.disk(&long, Disk::new(20, 0, 100)).disk(&like, Disk::new(20, 1, 100));
    bench.device("d", &[(0, 8, "linear", &format!("{long} 0"))]);
    bench.device("e", &[(0, 8, "linear", &format!("{like} 0"))]);
    let deps = bench.on("deps", "e");
    assert_eq!(deps.array("cmd_data").unwrap()[0].number(), Some(20 << 8 | 1));
}

#[test]
fn a_component_open_elsewhere_is_ebusy() {
    let bench = one();
    bench.kernel.open_elsewhere(crate::Dev::new(19, 19).unwrap(), true);
    let table = Request::reload("d", &[(0, 8, "linear", "/dev/a 0"), (8, 8, "linear", "/dev/b 0")]);
    bench.refused(&table, Errno::EBUSY);
    bench.kernel.open_elsewhere(crate::Dev::new(19, 19).unwrap(), false);
    bench.done(&table);
}

#[test]
fn what_is_no_block_device_is_enotblk_and_what_fails_to_open_says_how() {
    let bench = one();
    bench.refused(&Request::reload("d", &[(0, 8, "linear", "/dev/char 0")]), Errno::ENOTBLK);
    bench.refused(&Request::reload("d", &[(0, 8, "linear", "169:0 0")]), Errno::ENOTBLK);
    bench.refused(&Request::reload("d", &[(0, 8, "linear", "19:4 0")]), Errno::ENXIO);
    bench.refused(&Request::reload("d", &[(0, 8, "linear", "4096:0 0")]), Errno::ENXIO);
    bench.refused(&Request::reload("d", &[(0, 8, "linear", "19:1048576 0")]), Errno::ENXIO);
    bench.refused(&Request::reload("d", &[(0, 8, "linear", "99999999999:3 0")]), Errno::ENXIO);
    bench.refused(&Request::reload("d", &[(0, 8, "linear", "19:x 0")]), Errno::ENOENT);
    for errno in [Errno::EIO, Errno::ENODEV, Errno::ENOMEM, Errno::EACCES] {
        bench.kernel.fail_open(crate::Dev::new(19, 19).unwrap(), Some(errno));
        bench.refused(&Request::reload("d", &[(0, 8, "linear", "/dev/b 0")]), errno);
    }
}

#[test]
fn a_failed_reload_leaves_the_slot_as_it_was() {
    let bench = one();
    bench.done(&Request::reload("d", &[(0, 8, "linear", "/dev/b 0")]));
    let bad = [(0, 8, "linear", "/dev/c 0"), (8, 8, "linear", "/dev/nosuch 0")];
    bench.refused(&Request::reload("d", &bad), Errno::ENOENT);
    bench.done(&Request::reload("d", &[(0, 8, "zero", "")]));
    let query = flags::STATUS_TABLE | flags::QUERY_INACTIVE_TABLE;
    assert_eq!(params(&bench.done(&Request::on("table", "d").flags(query))), [""]);
}

#[test]
fn resume_without_an_inactive_table_keeps_the_active_one() {
    let bench = one();
    bench.on("suspend", "d");
    bench.on("resume", "d");
    assert_eq!(bench.flags("d"), flags::EXISTS | flags::ACTIVE_PRESENT);
    assert_eq!(bench.on("info", "d").number("target_count"), Some(1));
}

#[test]
fn a_name_over_127_bytes_is_einval() {
    one().refused(&Request::on("create", &"n".repeat(128)), Errno::EINVAL);
}

#[test]
fn create_without_a_name_is_einval() {
    let bench = one();
    bench.refused(&Request::new("create"), Errno::EINVAL);
    bench.refused(&Request::on("create", ""), Errno::EINVAL);
}

#[test]
fn rename_to_an_existing_name_is_eexist() {
    let bench = one();
    bench.on("create", "e");
    bench.refused(&Request::on("rename", "d").with("cmd_data", vec!["e".into()]), Errno::EEXIST);
}

#[test]
fn rename_to_its_own_name_has_no_effect() {
    let bench = one();
    let before = bench.picture();
    bench.unit("d").calls();
    bench.done(&Request::on("rename", "d").with("cmd_data", vec!["d".into()]));
    assert_eq!((before, bench.unit("d").calls()), (bench.picture(), Vec::new()));
}

#[test]
fn remove_while_open_is_ebusy() {
    let bench = one();
    bench.unit("d").open_node().unwrap();
    bench.refused(&Request::on("remove", "d"), Errno::EBUSY);
}

#[test]
fn remove_of_a_device_that_another_uses_is_ebusy() {
    let bench = one();
    bench.device("e", &[(0, 8, "linear", "169:1 0")]);
    bench.refused(&Request::on("remove", "d"), Errno::EBUSY);
}

#[test]
fn a_device_that_is_only_in_an_inactive_table_is_in_use_too() {
    let bench = one();
    bench.on("create", "e");
    bench.done(&Request::reload("e", &[(0, 8, "linear", "169:1 0")]));
    bench.refused(&Request::on("remove", "d"), Errno::EBUSY);
    bench.on("clear", "e");
    bench.on("remove", "d");
}

#[test]
fn readonly_is_enforced_by_the_unit_that_is_told_of_it() {
    let bench = one();
    bench.done(&Request::reload("d", LINEAR).flags(flags::READONLY));
    bench.on("resume", "d");
    assert!(bench.unit("d").read_only());
}

#[test]
fn deps_of_a_missing_device_is_answered_without_leaving_anything() {
    let bench = one();
    let before = bench.picture();
    for _ in 0..10 {
        assert_eq!(bench.on("deps", "nosuch").number("flags"), Some(0));
    }
    assert_eq!(before, bench.picture());
}

#[test]
fn table_output_loads_again() {
    let bench = one();
    let reply = bench.done(&Request::on("table", "d").flags(flags::STATUS_TABLE));
    let again = reply.at("cmd_data").unwrap().clone();
    bench.done(&Request::on("reload", "d").with("cmd_data", again));
    assert_eq!(bench.kernel.open_now(), [crate::Dev::new(19, 3).unwrap()]);
}

/// Runs threads that give commands at the same time. Each command may fail, and none may break
/// anything.
fn together(bench: &Bench, threads: usize, commands: impl Fn(usize, usize) -> Request + Sync) {
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (barrier, commands, driver) = (&barrier, &commands, &bench.driver);
            scope.spawn(move || {
                barrier.wait();
                for n in 0..100 {
                    let _ = send(driver, &commands(thread, n));
                }
            });
        }
    });
    picture::check(&bench.driver);
}

#[test]
fn two_threads_may_reload_and_resume_one_device() {
    let bench = one();
    together(&bench, 4, |thread, n| match n % 3 {
        0 => Request::reload("d", &[(0, 8, "linear", ["/dev/a 0", "/dev/b 0"][thread % 2])]),
        1 => Request::on("resume", "d"),
        _ => Request::on("suspend", "d"),
    });
    bench.on("resume", "d");
    assert!(!bench.unit("d").held());
}

#[test]
fn several_threads_may_create_reload_resume_and_remove() {
    let bench = Bench::new();
    together(&bench, 4, |thread, n| {
        let name = String::from(["x", "y"][(thread + n / 5) % 2]);
        match n % 5 {
            0 => Request::on("create", &name),
            1 => Request::reload(
                &name,
                &[(0, 8, "linear", "/dev/a 0"), (8, 8, "linear", "/dev/b 0")],
            ),
            2 => Request::on("resume", &name),
            3 => Request::on("suspend", &name),
            _ => Request::on("remove", &name),
        }
    });
    bench.done(&Request::new("remove_all"));
    assert_eq!((bench.driver.count(), bench.kernel.open_now()), (0, Vec::new()));
}
