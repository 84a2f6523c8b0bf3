// SPDX-License-Identifier: BSD-2-Clause

//! Behaviour that a single command does not show: minors that run out, labels, components that are
//! shared, concurrent commands.

use alloc::format;
use alloc::vec::Vec;
use std::sync::Barrier;

use super::{Driver, Selector};
use crate::guard::GuardedSectors;
use crate::kernel::LabelGuard;
use crate::name::Name;
use crate::testing::picture::check;
use crate::testing::thread::{spawn, with_interference};
use crate::testing::unit::Call;
use crate::testing::{Bench, Disk, Fake, Request, send};
use crate::{Dev, Errno, Minor, Sector, SectorRange, limits};

fn dev(minor: u32) -> Dev {
    Dev::new(19, minor).unwrap()
}

/// A bench with `/dev/labelled`, whose label is in sectors 63 and 64.
fn labelled() -> Bench {
    let bench = Bench::new();
    let label = SectorRange { start: Sector(63), length: Sector(2) };
    let guard = Some(GuardedSectors { label, first_safe: Sector(65) });
    bench.kernel.disk("/dev/labelled", Disk { guard, ..Disk::new(19, 99, 1000) });
    bench.on("create", "d");
    bench
}

#[test]
fn the_label_guard_refuses_tables_when_told_to() {
    let bench = labelled();
    bench.kernel.set_label_guard(LabelGuard::Tables);
    for offset in [0, 63, 64] {
        let params = format!("/dev/labelled {offset}");
        bench.refused(&Request::reload("d", &[(0, 8, "linear", &params)]), Errno::EINVAL);
    }
    bench.done(&Request::reload("d", &[(0, 8, "linear", "/dev/labelled 65")]));
    bench.done(&Request::reload("d", &[(0, 8, "linear", "/dev/a 0")]));
}

#[test]
fn the_label_guard_says_what_a_table_uses_and_where_it_is_safe() {
    let bench = labelled();
    bench.kernel.set_label_guard(LabelGuard::Writes);
    bench.done(&Request::reload("d", &[(0, 8, "linear", "/dev/labelled 60")]));
    let said = "dm1: the table uses sector 60 of 19:99, which is kept for its label and boot code; \
                the first safe sector is 65";
    assert_eq!(bench.kernel.said(), [said]);
    bench.done(&Request::reload("d", &[(0, 8, "linear", "/dev/labelled 65")]));
    assert_eq!(bench.kernel.said().len(), 1);
}

#[test]
fn without_the_label_guard_nothing_is_said() {
    let bench = labelled();
    bench.kernel.set_label_guard(LabelGuard::Off);
    bench.done(&Request::reload("d", &[(0, 8, "linear", "/dev/labelled 0")]));
    assert_eq!(bench.kernel.said().len(), 0);
}

#[test]
fn a_refused_table_is_explained_on_the_console() {
    let bench = Bench::new();
    bench.on("create", "d");
    bench.refused(&Request::reload("d", &[(0, 8, "zero", ""), (9, 8, "zero", "")]), Errno::EINVAL);
    let said = "dm1: table refused: line 2: there is a gap before the line: sector 8";
    assert_eq!(bench.kernel.said(), [said]);
}

#[test]
fn refused_tables_do_not_flood_the_console() {
    let bench = Bench::new();
    bench.on("create", "d");
    let refuse = || bench.refused(&Request::reload("d", &[(1, 8, "zero", "")]), Errno::EINVAL);
    let most = limits::MESSAGES as usize;
    (0..most + 7).for_each(|_| refuse());
    assert_eq!(bench.kernel.said().len(), most);
    bench.kernel.pass_second();
    (0..3).for_each(|_| refuse());
    let said = bench.kernel.said();
    assert_eq!(said.len(), most + 4);
    assert_eq!(said[most], "dm: 7 messages were left out");
    bench.kernel.pass_second();
    refuse();
    assert_eq!(bench.kernel.said().len(), most + 5, "nothing was left out in between");
}

#[test]
fn minors_start_again_at_1_after_the_last() {
    let driver = Driver::new(Fake::new());
    let create = |name: &str, minor: Option<u64>| {
        let minor = minor.map(|minor| Minor::new(minor).unwrap());
        driver
            .create(Name::new(name).unwrap(), None, minor, false)
            .map(|found| found.device.minor().get())
    };
    assert_eq!(create("last", Some(65_535)), Ok(65_535));
    // Uses up all the others, one at a time.
    for n in 1..65_535 {
        let minor = create("d", None).unwrap();
        assert_eq!(minor, n);
        let found = driver.find(&Selector::Minor(Minor::new(u64::from(minor)).unwrap())).unwrap();
        driver.remove(&found.device, false).unwrap();
    }
    assert_eq!(create("again", None), Ok(1));
}

#[test]
fn a_component_is_opened_once_however_many_load_it_at_once() {
    let bench = Bench::new();
    let names: Vec<_> = (0..8).map(|n| format!("d{n}")).collect();
    names.iter().for_each(|name| drop(bench.on("create", name)));
    let barrier = Barrier::new(names.len());
    std::thread::scope(|scope| {
        for name in &names {
            let (barrier, driver) = (&barrier, &bench.driver);
            scope.spawn(move || {
                let table = [(0, 8, "linear", "/dev/a 0"), (8, 8, "linear", "/dev/b 0")];
                barrier.wait();
                for _ in 0..50 {
                    // The fake kernel answers EBUSY to a second open.
                    send(driver, &Request::reload(name, &table)).unwrap();
                    send(driver, &Request::on("clear", name)).unwrap();
                }
            });
        }
    });
    check(&bench.driver);
    assert_eq!(bench.kernel.open_now(), []);
}

#[test]
fn a_failed_open_does_not_keep_the_next_from_trying() {
    let bench = Bench::new();
    bench.on("create", "d");
    let table = Request::reload("d", &[(0, 8, "linear", "/dev/a 0")]);
    bench.kernel.fail_open(dev(3), Some(Errno::EIO));
    bench.refused(&table, Errno::EIO);
    bench.kernel.fail_open(dev(3), None);
    bench.done(&table);
    assert_eq!(bench.kernel.opens(), 2);
}

#[test]
fn a_device_that_is_being_made_is_not_found_but_its_name_is_taken() {
    // A fake kernel attaches at once, so that this looks from within attach's failure: the name and
    // the minor were taken and are free now.
    let bench = Bench::new();
    bench.kernel.fail_attach(Some(Errno::ENOMEM));
    bench.refused(&Request::on("create", "d"), Errno::ENOMEM);
    assert_eq!(bench.driver.count(), 0);
    bench.kernel.fail_attach(None);
    bench.on("create", "d");
}

#[test]
fn a_remove_waits_for_io_that_is_in_flight() {
    let bench = Bench::new();
    bench.device("d", &[(0, 8, "linear", "/dev/a 0")]);
    let unit = bench.unit("d");
    assert!(unit.begin_io());
    let driver = bench.driver.clone();
    let thread = spawn(move || send(&driver, &Request::on("remove", "d")).map(|_| ()));
    while unit.begin_io() {
        // I/O is refused once the device is being detached.
        unit.end_io();
        std::thread::yield_now();
    }
    assert_eq!(bench.kernel.open_now(), [dev(3)], "the component stays open under the I/O");
    unit.end_io();
    assert_eq!(thread.join(), Ok(()));
    assert_eq!(bench.kernel.open_now(), []);
}

#[test]
fn a_table_swap_waits_for_io_that_is_in_flight() {
    let bench = Bench::new();
    bench.device("d", &[(0, 8, "linear", "/dev/a 0")]);
    bench.done(&Request::reload("d", &[(0, 8, "linear", "/dev/b 0")]));
    let unit = bench.unit("d");
    assert!(unit.begin_io());
    let driver = bench.driver.clone();
    let thread = spawn(move || send(&driver, &Request::on("resume", "d")).map(|_| ()));
    while unit.begin_io() {
        unit.end_io();
        std::thread::yield_now();
    }
    assert_eq!(bench.kernel.open_now(), [dev(3), dev(19)]);
    unit.end_io();
    assert_eq!(thread.join(), Ok(()));
    assert_eq!(bench.kernel.open_now(), [dev(19)]);
}

#[test]
fn is_read_only_answers_for_devices_and_for_none() {
    let bench = Bench::new();
    bench.done(&Request::on("create", "d").flags(1));
    bench.on("create", "e");
    let answer = |n| bench.driver.is_read_only(Minor::new(n).unwrap());
    assert_eq!([1, 2, 3].map(answer), [true, false, false]);
}

/// A bench with two devices that have tables; a resume of `a` onto `b` that waits for I/O.
#[test]
fn a_table_that_waits_to_become_active_is_seen_by_the_search_for_loops() {
    let bench = Bench::new();
    bench.device("a", &[(0, 8, "linear", "/dev/a 0")]);
    bench.device("b", &[(0, 8, "linear", "/dev/b 0")]);
    bench.done(&Request::reload("a", &[(0, 8, "linear", "/dev/mapper/b 0")]));
    let unit = bench.unit("a");
    assert!(unit.begin_io());
    let driver = bench.driver.clone();
    let thread = spawn(move || send(&driver, &Request::on("resume", "a")).map(|_| ()));
    while !unit.held() {
        std::thread::yield_now();
    }
    bench.refused(&Request::reload("b", &[(0, 8, "linear", "/dev/mapper/a 0")]), Errno::ELOOP);
    unit.end_io();
    assert_eq!(thread.join(), Ok(()));
    bench.refused(&Request::reload("b", &[(0, 8, "linear", "/dev/mapper/a 0")]), Errno::ELOOP);
}

#[test]
fn a_table_that_comes_while_another_waits_to_become_active_takes_its_place() {
    let bench = Bench::new();
    bench.device("d", &[(0, 8, "linear", "/dev/a 0")]);
    for replaced in [true, false] {
        bench.done(&Request::reload("d", &[(0, 8, "linear", "/dev/b 0")]));
        let unit = bench.unit("d");
        assert!(unit.begin_io());
        let driver = bench.driver.clone();
        let thread = spawn(move || send(&driver, &Request::on("resume", "d")).map(|_| ()));
        while !unit.held() {
            std::thread::yield_now();
        }
        match replaced {
            true => bench.done(&Request::reload("d", &[(0, 16, "linear", "/dev/c 0")])),
            false => bench.on("clear", "d"),
        };
        unit.end_io();
        assert_eq!(thread.join(), Ok(()));
        check(&bench.driver);
        assert!(!unit.held());
        assert_eq!(unit.size(), Some(Sector(16)));
    }
}

/// A reload, or a clear, at each moment of a resume in which no lock is held: the table that is
/// active afterwards serves I/O, and none that serves is dropped.
#[test]
fn a_table_that_comes_while_another_starts_waits_for_the_next_resume() {
    const MIRROR: &str = "core 2 1024 nosync 2 /dev/a 0 /dev/b 0";
    let reload = |length| Request::reload("d", &[(0, length, "mirror", MIRROR)]);
    for (suspended, loaded, command) in [
        (false, true, reload(2048)),
        (false, true, Request::on("clear", "d")),
        (true, true, reload(2048)),
        (true, true, Request::on("clear", "d")),
        (true, false, reload(2048)),
    ] {
        let mut nth = 0;
        let mut goes_on = true;
        while goes_on {
            nth += 1;
            let bench = Bench::new();
            bench.device("d", &[(0, 1024, "mirror", MIRROR)]);
            if suspended {
                bench.on("suspend", "d");
            }
            if loaded {
                bench.done(&reload(1024));
            }
            let (driver, command) = (bench.driver.clone(), command.clone());
            let interfere = move || assert!(send(&driver, &command).is_ok());
            let resume = || bench.on("resume", "d");
            (goes_on, _) = with_interference(nth, interfere, resume);
            let name = Selector::Name(Name::new("d").unwrap());
            let active = bench.driver.find(&name).unwrap().device.snapshot().active.unwrap();
            assert!(active.engine().unwrap().is_running(), "interference {nth}");
        }
        assert!(nth > 10, "{nth} moments");
    }
}

/// A clear, or a reload, at each moment of a resume whose table does not start: what was cleared is
/// gone, and what was loaded is there.
#[test]
fn a_table_that_does_not_start_is_inactive_again_unless_it_was_cleared() {
    let reload = |length| Request::reload("d", &[(0, length, "snapshot", "/dev/a /dev/b P 8")]);
    for (command, after) in [(Request::on("clear", "d"), None), (reload(16), Some(Sector(16)))] {
        let mut nth = 0;
        let mut reached = true;
        while reached {
            nth += 1;
            let bench = Bench::new();
            bench.device("d", &[(0, 8, "linear", "/dev/c 0")]);
            bench.done(&reload(8));
            bench.kernel.fail_requests();
            let (driver, command) = (bench.driver.clone(), command.clone());
            let interfere = move || assert!(send(&driver, &command).is_ok());
            let resume = || bench.send(&Request::on("resume", "d"));
            let result;
            (reached, result) = with_interference(nth, interfere, resume);
            let name = Selector::Name(Name::new("d").unwrap());
            let now = bench.driver.find(&name).unwrap().device.snapshot();
            let inactive = now.inactive.as_ref().map(|table| table.size());
            let expected = if reached { after } else { Some(Sector(8)) };
            // A clear that came first leaves nothing to start.
            assert!(result.is_err() || inactive.is_none(), "interference {nth}");
            assert_eq!(inactive, expected, "interference {nth}");
            assert_eq!(now.active.map(|table| table.size()), Some(Sector(8)));
        }
        assert!(nth > 8, "{nth} moments");
    }
}

/// The fake kernel looks at the engine when I/O is released.
#[test]
fn a_signal_during_a_suspend_lets_the_engine_go_on_before_io() {
    let bench = Bench::new();
    bench.device("d", &[(0, 1024, "mirror", "core 2 1024 nosync 2 /dev/a 0 /dev/b 0")]);
    bench.kernel.fail_quiesce(Some(Errno::EINTR));
    bench.unit("d").calls();
    bench.refused(&Request::on("suspend", "d"), Errno::EINTR);
    assert_eq!(bench.unit("d").calls(), [Call::Quiesce, Call::Release]);
}
