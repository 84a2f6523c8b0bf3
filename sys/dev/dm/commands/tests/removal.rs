// SPDX-License-Identifier: BSD-2-Clause

//! remove and remove_all.

use super::one;
use crate::commands::flags;
use crate::kernel::Unit;
use crate::testing::unit::Call;
use crate::testing::{Bench, Request};
use crate::{Errno, Minor};

/// A bench with the devices `top` on `mid` on `low`, and `other` beside them.
fn stack() -> Bench {
    let bench = Bench::new();
    bench.device("low", &[(0, 100, "linear", "/dev/a 0")]);
    bench.device("mid", &[(0, 100, "linear", "/dev/mapper/low 0")]);
    bench.device("top", &[(0, 100, "linear", "169:2 0")]);
    bench.device("other", &[(0, 100, "zero", "")]);
    bench
}

#[test]
fn remove_takes_the_device_away() {
    let bench = one();
    let unit = bench.unit("d");
    unit.calls();
    let reply = bench.on("remove", "d");
    assert_eq!(reply.number("flags"), Some(0), "it is no longer there");
    assert_eq!((reply.string("name"), reply.number("minor")), (Some("d"), Some(1)));
    assert_eq!(unit.calls(), [Call::BeginDetach, Call::Kill, Call::Detach]);
    assert_eq!((bench.driver.count(), bench.kernel.open_now()), (0, [].into()));
}

#[test]
fn remove_drops_both_tables_and_gathered_lines() {
    let bench = one();
    bench.done(&Request::reload("d", &[(0, 8, "linear", "/dev/b 0")]));
    bench.done(&Request::reload("d", &[(0, 8, "zero", "")]).flags(flags::RELOAD_MORE));
    bench.on("remove", "d");
    assert_eq!(bench.kernel.open_now(), []);
}

#[test]
fn remove_of_a_suspended_device_works() {
    let bench = one();
    bench.on("suspend", "d");
    bench.on("remove", "d");
}

#[test]
fn remove_while_open_is_ebusy() {
    let bench = one();
    let unit = bench.unit("d");
    unit.open_node().unwrap();
    bench.refused(&Request::on("remove", "d"), Errno::EBUSY);
    assert!(unit.begin_io(), "and I/O goes on");
    unit.end_io();
    unit.close_node();
    bench.on("remove", "d");
}

#[test]
fn remove_of_a_device_below_another_is_ebusy() {
    let bench = stack();
    bench.refused(&Request::on("remove", "low"), Errno::EBUSY);
    bench.refused(&Request::on("remove", "mid"), Errno::EBUSY);
    bench.on("remove", "top");
    bench.on("remove", "mid");
    bench.on("remove", "low");
}

#[test]
fn a_deferred_remove_happens_at_the_last_close() {
    let bench = one();
    let unit = bench.unit("d");
    unit.open_node().unwrap();
    unit.open_node().unwrap();
    let reply = bench.done(&Request::on("remove", "d").flags(flags::DEFERRED_REMOVE));
    let told = flags::EXISTS | flags::ACTIVE_PRESENT | flags::DEFERRED_REMOVE;
    assert_eq!(reply.number("flags"), Some(u64::from(told)));
    assert_eq!(bench.flags("d"), told);
    unit.close_node();
    assert_eq!(bench.driver.count(), 1);
    unit.close_node();
    assert_eq!((bench.driver.count(), bench.kernel.open_now()), (0, [].into()));
}

#[test]
fn a_deferred_remove_of_a_device_not_open_happens_at_once() {
    let bench = one();
    let reply = bench.done(&Request::on("remove", "d").flags(flags::DEFERRED_REMOVE));
    assert_eq!((reply.number("flags"), bench.driver.count()), (Some(0), 0));
}

#[test]
fn a_deferred_remove_can_be_taken_back() {
    let bench = one();
    let unit = bench.unit("d");
    unit.open_node().unwrap();
    bench.done(&Request::on("remove", "d").flags(flags::DEFERRED_REMOVE));
    bench.done(&Request::on("message", "d").with("message", "@cancel_deferred_remove"));
    assert_eq!(bench.flags("d") & flags::DEFERRED_REMOVE, 0);
    unit.close_node();
    assert_eq!(bench.driver.count(), 1);
}

#[test]
fn a_close_without_a_deferred_remove_changes_nothing() {
    let bench = one();
    let before = bench.picture();
    bench.unit("d").open_node().unwrap();
    bench.unit("d").close_node();
    assert_eq!(before, bench.picture());
}

#[test]
fn a_deferred_remove_below_another_device_happens_when_that_goes() {
    let bench = stack();
    bench.done(&Request::on("remove", "low").flags(flags::DEFERRED_REMOVE));
    bench.done(&Request::on("remove", "mid").flags(flags::DEFERRED_REMOVE));
    bench.on("remove", "top");
    assert_eq!(bench.driver.names().len(), 1);
    assert_eq!(bench.kernel.open_now(), []);
}

#[test]
fn remove_all_takes_stacked_devices_in_order() {
    let bench = stack();
    bench.done(&Request::new("remove_all"));
    assert_eq!((bench.driver.count(), bench.kernel.open_now()), (0, [].into()));
}

#[test]
fn remove_all_leaves_devices_in_use_and_what_they_stand_on() {
    let bench = stack();
    bench.unit("mid").open_node().unwrap();
    bench.done(&Request::new("remove_all"));
    let left: alloc::vec::Vec<_> = bench.driver.names();
    let left: alloc::vec::Vec<_> = left.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(left, ["low", "mid"]);
    assert_eq!(bench.flags("mid") & flags::DEFERRED_REMOVE, 0);
}

#[test]
fn remove_all_deferred_takes_the_rest_at_their_last_close() {
    let bench = stack();
    let unit = bench.unit("mid");
    unit.open_node().unwrap();
    bench.done(&Request::new("remove_all").flags(flags::DEFERRED_REMOVE));
    assert_eq!(bench.driver.names().len(), 2);
    unit.close_node();
    assert_eq!((bench.driver.count(), bench.kernel.open_now()), (0, [].into()));
}

#[test]
fn remove_all_without_devices_is_no_error() {
    Bench::new().done(&Request::new("remove_all"));
}

#[test]
fn a_name_is_free_again_after_remove() {
    let bench = Bench::new();
    for _ in 0..3 {
        bench.done(&Request::on("create", "d").with("uuid", "u"));
        bench.on("remove", "d");
    }
}

#[test]
fn autoconf_may_take_a_device_away_unless_it_is_open() {
    let bench = one();
    let (unit, minor) = (bench.unit("d"), Minor::new(1).unwrap());
    unit.open_node().unwrap();
    assert_eq!(bench.driver.detach(minor, false), Err(Errno::EBUSY));
    bench.on("info", "d");
    assert_eq!(bench.driver.detach(minor, true), Ok(()));
    assert_eq!((bench.driver.count(), bench.kernel.open_now()), (0, [].into()));
    assert!(!unit.begin_io());
    unit.detach().unwrap();
    // A device that is gone, or never was.
    assert_eq!(bench.driver.detach(minor, false), Ok(()));
}

#[test]
fn a_component_that_is_the_last_to_go_closes_once() {
    let bench = Bench::new();
    bench.device("d", &[(0, 8, "linear", "/dev/a 0")]);
    bench.device("e", &[(0, 8, "linear", "/dev/a 8")]);
    bench.on("remove", "d");
    assert_eq!(bench.kernel.open_now().len(), 1);
    bench.on("remove", "e");
    assert_eq!((bench.kernel.open_now().len(), bench.kernel.opens()), (0, 1));
}
