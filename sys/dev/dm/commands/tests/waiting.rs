// SPDX-License-Identifier: BSD-2-Clause

//! waitevent.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::{LINEAR, one, params};
use crate::commands::flags;
use crate::device::{Driver, Selector};
use crate::testing::plist::Dict;
use crate::testing::thread::{Thread, spawn};
use crate::testing::{Bench, Fake, Request, send};
use crate::{Errno, Minor, limits};

type Waiter = Thread<Result<Dict, Errno>>;

fn wait(driver: &Arc<Driver<Fake>>, event_nr: u64) -> Waiter {
    let driver = driver.clone();
    let request = Request::on("waitevent", "d").with("event_nr", event_nr);
    spawn(move || send(&driver, &request))
}

/// Renames the device of `one`, and back: two events.
fn renamed_twice() -> Bench {
    let bench = one();
    rename(&bench.driver, "d", "e");
    rename(&bench.driver, "e", "d");
    bench
}

fn rename(driver: &Driver<Fake>, from: &str, to: &str) {
    send(driver, &Request::on("rename", from).with("cmd_data", vec![to.into()])).unwrap();
}

#[test]
fn waitevent_returns_at_once_when_the_event_has_been() {
    let bench = renamed_twice();
    for event_nr in [0, 1, 3, u64::from(u32::MAX)] {
        let reply = bench.done(&Request::on("waitevent", "d").with("event_nr", event_nr));
        assert_eq!(reply.number("event_nr"), Some(2));
        assert_eq!(params(&reply), [""], "then as status");
    }
    // Without a number it is 0.
    assert_eq!(bench.on("waitevent", "d").number("event_nr"), Some(2));
}

#[test]
fn waitevent_sleeps_until_a_device_has_another_name() {
    let bench = one();
    let waiter = wait(&bench.driver, 0);
    assert!(waiter.asleep());
    rename(&bench.driver, "d", "e");
    let reply = waiter.join().unwrap();
    assert_eq!(reply.number("event_nr"), Some(1));
    assert_eq!(reply.string("name"), Some("d"), "as it was found");
}

#[test]
fn waitevent_sleeps_until_a_device_has_a_uuid() {
    let bench = one();
    let waiter = wait(&bench.driver, 0);
    assert!(waiter.asleep());
    let uuid = Request::on("rename", "d").flags(flags::UUID).with("cmd_data", vec!["u".into()]);
    bench.done(&uuid);
    assert_eq!(waiter.join().unwrap().number("event_nr"), Some(1));
    // The device has that number already.
    assert_eq!(bench.done(&uuid).number("event_nr"), Some(1));
}

#[test]
fn waitevent_sleeps_until_a_target_raises_an_event() {
    let bench = one();
    let waiter = wait(&bench.driver, 0);
    assert!(waiter.asleep());
    raise(&bench.driver);
    assert_eq!(waiter.join().unwrap().number("event_nr"), Some(1));
}

/// Raises an event of device 1, as a target does.
fn raise(driver: &Driver<Fake>) {
    driver.find(&Selector::Minor(Minor::new(1).unwrap())).unwrap().device.raise_event();
}

/// A change of the table is no event, as in Linux; a device without a table has none.
#[test]
fn what_is_no_event_wakes_nobody() {
    let bench = one();
    let waiter = wait(&bench.driver, 0);
    assert!(waiter.asleep());
    bench.on("suspend", "d");
    bench.on("resume", "d");
    bench.done(&Request::reload("d", &[(0, 16, "striped", "2 8 /dev/a 0 /dev/b 0")]));
    bench.on("resume", "d");
    bench.done(&Request::reload("d", LINEAR));
    bench.on("clear", "d");
    rename(&bench.driver, "d", "d");
    assert_eq!(bench.on("info", "d").number("event_nr"), Some(0));
    waiter.signal();
    assert_eq!(waiter.join().err(), Some(Errno::EINTR));
    bench.on("create", "new");
    rename(&bench.driver, "new", "newer");
    assert_eq!(bench.on("info", "newer").number("event_nr"), Some(0));
}

#[test]
fn a_signal_ends_the_wait() {
    let bench = one();
    let before = bench.picture();
    let waiter = wait(&bench.driver, 0);
    assert!(waiter.asleep());
    waiter.signal();
    assert_eq!(waiter.join().err(), Some(Errno::EINTR));
    assert_eq!(before, bench.picture());
}

#[test]
fn a_remove_ends_the_wait_with_enxio() {
    let bench = one();
    let waiters: Vec<_> = (0..3).map(|_| wait(&bench.driver, 0)).collect();
    assert!(waiters.iter().all(Waiter::asleep));
    bench.on("remove", "d");
    for waiter in waiters {
        assert_eq!(waiter.join().err(), Some(Errno::ENXIO));
    }
}

#[test]
fn too_many_waiters_are_eagain_and_leave_room_again() {
    let bench = one();
    let waiters: Vec<_> = (0..limits::WAITERS).map(|_| wait(&bench.driver, 0)).collect();
    assert!(waiters.iter().all(Waiter::asleep));
    bench.refused(&Request::on("waitevent", "d").with("event_nr", 0), Errno::EAGAIN);
    raise(&bench.driver);
    assert!(waiters.into_iter().all(|waiter| waiter.join().is_ok()));
    bench.on("waitevent", "d");
}

#[test]
fn who_may_not_change_devices_cannot_take_all_places() {
    let bench = one();
    bench.kernel.privileged(false);
    let strangers: Vec<_> =
        (0..limits::UNPRIVILEGED_WAITERS).map(|_| wait(&bench.driver, 0)).collect();
    assert!(strangers.iter().all(Waiter::asleep));
    bench.refused(&Request::on("waitevent", "d").with("event_nr", 0), Errno::EAGAIN);
    bench.kernel.privileged(true);
    let rest = limits::UNPRIVILEGED_WAITERS..limits::WAITERS;
    let others: Vec<_> = rest.map(|_| wait(&bench.driver, 0)).collect();
    assert!(others.iter().all(Waiter::asleep));
    bench.refused(&Request::on("waitevent", "d").with("event_nr", 0), Errno::EAGAIN);
    raise(&bench.driver);
    assert!(strangers.into_iter().chain(others).all(|waiter| waiter.join().is_ok()));
    bench.kernel.privileged(false);
    let again: Vec<_> = (0..limits::UNPRIVILEGED_WAITERS).map(|_| wait(&bench.driver, 1)).collect();
    assert!(again.iter().all(Waiter::asleep), "their places are free again");
    bench.kernel.privileged(true);
    bench.on("remove", "d");
    again.into_iter().for_each(|waiter| assert!(waiter.join().is_err()));
}

#[test]
fn an_event_number_that_does_not_fit_is_einval() {
    let bench = one();
    bench.refused(&Request::on("waitevent", "d").with("event_nr", 1 << 32), Errno::EINVAL);
}

#[test]
fn a_second_command_waits_for_the_first_and_a_signal_ends_that() {
    let bench = one();
    let unit = bench.unit("d");
    assert!(unit.begin_io());
    let driver = bench.driver.clone();
    let first = spawn(move || send(&driver, &Request::on("suspend", "d")).map(|_| ()));
    while !unit.held() {
        std::thread::yield_now();
    }
    for command in ["resume", "suspend", "remove"] {
        let driver = bench.driver.clone();
        let second = spawn(move || send(&driver, &Request::on(command, "d")).map(|_| ()));
        assert!(second.asleep());
        second.signal();
        assert_eq!(second.join(), Err(Errno::EINTR), "{command}");
    }
    unit.end_io();
    assert_eq!(first.join(), Ok(()));
    bench.on("resume", "d");
    bench.on("remove", "d");
}
