// SPDX-License-Identifier: BSD-2-Clause

//! The limits that dm.4 states.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::one;
use crate::commands::flags;
use crate::testing::kernel::Disk;
use crate::testing::plist::fail_after;
use crate::testing::{Bench, Request};
use crate::{Errno, limits};

fn zeroes(from: u64, count: usize) -> Vec<(u64, u64, &'static str, &'static str)> {
    (from..).take(count).map(|start| (start, 1, "zero", "")).collect()
}

#[test]
fn as_many_lines_as_the_limit_and_no_more() {
    const { assert!(limits::LINES >= 10_000) };
    let bench = one();
    bench.refused(&Request::reload("d", &zeroes(0, limits::LINES + 1)), Errno::E2BIG);
    // Pictures of so many lines would take long.
    bench.send(&Request::reload("d", &zeroes(0, limits::LINES))).unwrap();
    let reply = bench.send(&Request::on("resume", "d")).unwrap();
    assert_eq!(reply.number("target_count"), Some(limits::LINES as u64));
    let size = bench.kernel.unit(1).and_then(|unit| unit.size());
    assert_eq!(size.map(|size| size.0), Some(limits::LINES as u64));
}

#[test]
fn reload_more_counts_towards_the_limit() {
    let bench = one();
    let half = limits::LINES as u64 / 2;
    let more = |from, count| Request::reload("d", &zeroes(from, count)).flags(flags::RELOAD_MORE);
    bench.done(&more(0, limits::LINES / 2));
    bench.done(&more(half, limits::LINES / 2));
    bench.refused(&more(2 * half, 1), Errno::E2BIG);
    // The refusal dropped the lines that had been gathered.
    bench.done(&Request::reload("d", &zeroes(0, 1)));
}

#[test]
fn reload_more_counts_bytes_too() {
    let bench = one();
    let long = "x".repeat(limits::PARAMS);
    let lines: Vec<_> = (0..128).map(|n| (n, 1, "zero", long.as_str())).collect();
    let more = Request::reload("d", &lines).flags(flags::RELOAD_MORE);
    bench.done(&more);
    bench.refused(&more, Errno::E2BIG);
}

#[test]
fn all_tables_together_have_a_limit() {
    let bench = Bench::new();
    // Here the parameters are long: each table takes a part of the whole.
    let blanks = " ".repeat(limits::PARAMS);
    let lines: Vec<_> = (0..200).map(|at| (at, 1, "zero", &blanks[..])).collect();
    let one = lines.len() * (64 + 8 * (limits::PARAMS + "zero".len()));
    let fit = limits::ALL_TABLES / one;
    assert!((2..20).contains(&fit), "{fit} tables fit");
    let load = |name: &str| {
        bench.on("create", name);
        Request::reload(name, &lines)
    };
    for n in 0..fit {
        bench.done(&load(&format!("d{n}")));
    }
    bench.refused(&load("more"), Errno::ENOMEM);
    // Lines that wait for the rest of their table count, wherever they wait.
    let kept = load("kept").flags(flags::RELOAD_MORE);
    bench.refused(&kept, Errno::ENOMEM);
    // A table that is replaced, cleared or removed makes room, whichever slot it was in.
    bench.on("resume", "d0");
    bench.refused(&Request::reload("d0", &lines), Errno::ENOMEM);
    bench.done(&Request::reload("d1", &[(0, 8, "zero", "")]));
    bench.done(&Request::reload("d0", &lines));
    bench.refused(&Request::reload("more", &lines), Errno::ENOMEM);
    bench.on("resume", "d0");
    bench.done(&kept);
    bench.refused(&Request::reload("more", &lines), Errno::ENOMEM);
    bench.on("clear", "kept");
    bench.done(&Request::reload("more", &lines));
    bench.on("remove", "more");
    bench.done(&kept);
    bench.on("remove", "kept");
    // A table that is refused leaves nothing.
    for _ in 0..3 {
        bench.on("create", "bad");
        let mut bad = lines.clone();
        bad.push((500, 1, "zero", ""));
        bench.refused(&Request::reload("bad", &bad), Errno::EINVAL);
        bench.on("remove", "bad");
    }
    bench.done(&load("last"));
}

/// A table that is replaced or removed makes room for the threads of others, too.
#[test]
fn the_threads_of_a_table_count() {
    let bench = one();
    // The thread that polls lanes, and the one that flushes.
    bench.kernel.set_thread_bytes(limits::ALL_TABLES / 5);
    let delay = |name: &str| {
        bench.on("create", name);
        Request::reload(name, &[(0, 8, "delay", "19:3 0 10")])
    };
    bench.done(&delay("a"));
    bench.done(&delay("b"));
    bench.refused(&delay("c"), Errno::ENOMEM);
    bench.on("remove", "a");
    bench.done(&Request::reload("c", &[(0, 8, "delay", "19:3 0 10")]));
}

fn striped(count: usize) -> (u64, String) {
    let mut text = format!("{count} 8");
    (0..count).for_each(|n| text += &format!(" 19:3 {}", n * 8));
    (count as u64 * 8, text)
}

#[test]
fn as_many_stripes_as_the_limit_and_no_more() {
    const { assert!(limits::STRIPES >= 127) };
    let bench = one();
    for good in [1, 4, 5, 127, 255, 256, limits::STRIPES] {
        let (length, text) = striped(good);
        bench.done(&Request::reload("d", &[(0, length, "striped", &text)]));
    }
    let (length, text) = striped(limits::STRIPES + 1);
    bench.refused(&Request::reload("d", &[(0, length, "striped", &text)]), Errno::E2BIG);
    let text = format!("{} 8 19:3 0", u64::MAX);
    bench.refused(&Request::reload("d", &[(0, 8, "striped", &text)]), Errno::E2BIG);
}

#[test]
fn a_component_path_may_be_as_long_as_path_max_and_no_longer() {
    let bench = one();
    let path = |length: usize| format!("/dev/{}", "p".repeat(length - 5));
    bench.kernel.disk(&path(1023), Disk::new(19, 99, 100));
    let table = |path: String| Request::reload("d", &[(0, 8, "linear", &format!("{path} 0"))]);
    bench.done(&table(path(1023)));
    bench.refused(&table(path(1022)), Errno::ENOENT);
    bench.refused(&table(path(1024)), Errno::ENAMETOOLONG);
}

#[test]
fn parameters_that_are_too_long_are_enametoolong() {
    let bench = one();
    let table = |bytes: usize| Request::reload("d", &[(0, 8, "zero", &" ".repeat(bytes))]);
    bench.done(&table(limits::PARAMS));
    bench.refused(&table(limits::PARAMS + 1), Errno::ENAMETOOLONG);
}

#[test]
fn a_message_that_is_too_long_is_enametoolong() {
    let bench = one();
    let say =
        |bytes: usize| Request::on("message", "d").with("message", "m".repeat(bytes).as_str());
    bench.refused(&say(limits::MESSAGE), Errno::EINVAL);
    bench.refused(&say(limits::MESSAGE + 1), Errno::ENAMETOOLONG);
}

#[test]
fn as_many_devices_as_the_limit_and_no_more() {
    let bench = Bench::new();
    for n in 0..limits::DEVICES {
        bench.send(&Request::on("create", &format!("d{n}"))).unwrap();
    }
    // Pictures of so many devices would take long.
    let one_more = bench.send(&Request::on("create", "one more"));
    assert_eq!((one_more, bench.driver.count()), (Err(Errno::ENOSPC), limits::DEVICES));
    assert_eq!(bench.kernel.units().len(), limits::DEVICES);
    bench.send(&Request::on("remove", "d0")).unwrap();
    bench.send(&Request::on("create", "one more")).unwrap();
}

/// Creates `depth` devices, each on the one before.
fn tower(bench: &Bench, depth: usize) {
    bench.device("d0", &[(0, 8, "linear", "/dev/a 0")]);
    for n in 1..depth {
        let below = format!("/dev/mapper/d{} 0", n - 1);
        bench.device(&format!("d{n}"), &[(0, 8, "linear", &below)]);
    }
}

#[test]
fn devices_stack_as_deep_as_the_limit_and_no_deeper() {
    let bench = Bench::new();
    // The limit counts the devices below one.
    tower(&bench, limits::DEPTH + 1);
    bench.on("create", "top");
    let below = format!("/dev/mapper/d{} 0", limits::DEPTH);
    bench.refused(&Request::reload("top", &[(0, 8, "linear", &below)]), Errno::ELOOP);
}

#[test]
fn a_stack_does_not_grow_too_deep_from_below_either() {
    let bench = Bench::new();
    tower(&bench, limits::DEPTH + 1);
    bench.device("base", &[(0, 8, "linear", "/dev/b 0")]);
    let onto = [(0, 8, "linear", "/dev/mapper/base 0")];
    bench.refused(&Request::reload("d0", &onto), Errno::ELOOP);
    let top = format!("d{}", limits::DEPTH);
    bench.on("remove", &top);
    bench.done(&Request::reload("d0", &onto));
}

#[test]
fn the_paths_through_a_stack_are_not_counted() {
    // Each device of a layer lies on all of the one below: 40^4 paths, of which each would be a
    // step.
    const WIDTH: u64 = 40;
    let bench = Bench::new();
    for layer in 0..=limits::DEPTH {
        for n in 0..WIDTH {
            let below = |at: u64| match layer {
                0 => "/dev/a 0".into(),
                _ => format!("/dev/mapper/l{}-{at} 0", layer - 1),
            };
            let params: Vec<String> = (0..WIDTH).map(below).collect();
            let lines =
                params.iter().zip(0u64..).map(|(params, at)| (at, 1, "linear", &params[..]));
            bench.device(&format!("l{layer}-{n}"), &lines.collect::<Vec<_>>());
        }
    }
    bench.on("create", "top");
    let below = format!("/dev/mapper/l{}-0 0", limits::DEPTH);
    bench.refused(&Request::reload("top", &[(0, 1, "linear", &below)]), Errno::ELOOP);
    // From below, too.
    bench
        .refused(&Request::reload("l0-0", &[(0, 1, "linear", "/dev/mapper/l1-1 0")]), Errno::ELOOP);
}

#[test]
fn without_memory_a_command_is_enomem_and_done_or_not_but_never_half() {
    let table = Request::reload("d", &[(0, 8, "linear", "/dev/b 0")]);
    let rename = Request::on("rename", "d").with("cmd_data", alloc::vec!["e".into()]);
    let named = ["info", "table", "deps", "resume", "suspend", "clear", "remove"];
    let mut requests: Vec<_> = named.iter().map(|command| Request::on(command, "d")).collect();
    requests.extend(["version", "targets", "names", "remove_all"].map(Request::new));
    requests.extend([table, rename, Request::on("create", "new")]);
    for request in &requests {
        let (before, after) = (one().picture(), one());
        after.done(request);
        for n in 0.. {
            assert!(n < 200, "{:?} never has enough", request.dict());
            let bench = one();
            fail_after(Some(n));
            let result = bench.send(request);
            fail_after(None);
            let Err(errno) = result else { break };
            assert_eq!(errno, Errno::ENOMEM);
            let now = bench.picture();
            let is_create = request.dict().string("command") == Some("create");
            assert!(now == before || !is_create && now == after.picture(), "{now:?}");
        }
    }
}
