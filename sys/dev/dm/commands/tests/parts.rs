// SPDX-License-Identifier: BSD-2-Clause

//! Tables in several requests: the lines that are kept belong to their sender.

use super::one;
use crate::Errno;
use crate::commands::flags;
use crate::testing::{Bench, Request};

fn more(bench: &Bench, from: u64) {
    bench.done(&Request::reload("d", &[(from, 8, "zero", "")]).flags(flags::RELOAD_MORE));
}

fn last(from: u64) -> Request {
    Request::reload("d", &[(from, 8, "zero", "")])
}

fn lines(bench: &Bench) -> usize {
    let request = Request::on("table", "d").flags(flags::QUERY_INACTIVE_TABLE);
    bench.done(&request).array("cmd_data").expect("lines").len()
}

#[test]
fn another_process_neither_adds_to_them_nor_loads_them() {
    let bench = one();
    more(&bench, 0);
    bench.kernel.become_process(1);
    bench.done(&last(0));
    assert_eq!(lines(&bench), 1);
    // The first sender's lines are gone: the later sender wins.
    bench.kernel.become_process(0);
    bench.refused(&last(8), Errno::EINVAL);
}

#[test]
fn a_refusal_drops_no_lines_of_another_process() {
    let bench = one();
    more(&bench, 0);
    bench.kernel.become_process(1);
    bench.refused(&Request::on("reload", "d").with("cmd_data", "no array"), Errno::EINVAL);
    bench.kernel.become_process(0);
    bench.done(&last(8));
    assert_eq!(lines(&bench), 2);
}

#[test]
fn before_says_where_the_lines_belong() {
    let bench = one();
    more(&bench, 0);
    // Begun anew: what was sent before is dropped.
    bench.done(&last(0).with("before", 0u64));
    assert_eq!(lines(&bench), 1);
    more(&bench, 0);
    bench.done(&last(8).with("before", 1u64));
    assert_eq!(lines(&bench), 2);
    more(&bench, 0);
    bench.refused(&last(16).with("before", 2u64), Errno::EAGAIN);
    bench.refused(&last(16).with("before", u64::MAX), Errno::EAGAIN);
    bench.refused(&last(16).with("before", "1"), Errno::EINVAL);
}

#[test]
fn when_nobody_has_the_control_node_open_they_go() {
    let bench = one();
    more(&bench, 0);
    bench.driver.forget_all_lines();
    bench.done(&last(0));
    assert_eq!(lines(&bench), 1);
}

/// Lines that were dropped are not charged to the next table.
#[test]
fn given_up_lines_make_room_for_the_next() {
    let bench = one();
    let large = "x".repeat(crate::limits::PARAMS);
    let room = crate::limits::ALL_TABLES / (8 * large.len());
    for process in 1..room as u64 {
        bench.kernel.become_process(process);
        let table = Request::reload("d", &[(0, 8, "zero", &large)]);
        bench.done(&table.flags(flags::RELOAD_MORE).with("before", 0u64));
        bench.done(&last(8).with("before", 1u64).flags(flags::RELOAD_MORE));
    }
}
