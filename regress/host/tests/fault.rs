// SPDX-License-Identifier: BSD-2-Clause

//! One failure at a time: every fallible call of the kernel under every command. Afterwards the error is the right
//! one, the state is as before, and nothing leaks.

mod common;

use common::data::{fill, pattern, same, strategy_read};
use common::state::{State, errors, state};
use common::{Bench, Request, flags};
use dm_core::testing::plist::Object;
use dm_host::{Config, Disk, DiskSpec, Errno, Label, Machine, Site};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

const STRIPED: &str = "0 120 striped 2 6 /dev/wd2a 100 /dev/wd3 100\n120 8 zero";

/// Four disks, two of them with a label, and three devices: `d` with both tables, `bare` without
/// any, `upper` on `d`.
struct Stage {
    bench: Bench,
    disks: [Disk; 4],
}

impl Stage {
    fn new() -> Stage {
        let bench = Bench::new();
        let label = Label::new().slice(63).partition('a', 70, 900);
        let disks = [
            bench.attach(DiskSpec::memory("wd0", 1000).label(label.clone())),
            bench.disk("wd1", 1000),
            bench.attach(DiskSpec::memory("wd2", 1000).label(label)),
            bench.disk("wd3", 1000),
        ];
        Stage { bench, disks }
    }

    /// Makes the devices, new at each call.
    fn set(&self) -> State {
        self.bench.send(&Request::new("remove_all")).unwrap();
        let minor = self.bench.create("d");
        self.bench.load("d", "0 100 linear /dev/wd0a 0").unwrap();
        self.bench.create("upper");
        self.bench.load("upper", &format!("0 50 linear 169:{minor} 7")).unwrap();
        self.bench.reload("d", "0 64 linear /dev/wd1 3\n64 8 error").unwrap();
        self.bench.create("bare");
        self.state()
    }

    fn state(&self) -> State {
        state(&self.bench, &self.disks)
    }
}

/// Gives a command again and again, each time with the next fallible call failing.
fn each_failure_of(name: &str, request: impl Fn(&Stage) -> Request) {
    let stage = Stage::new();
    let faults = stage.bench.machine.faults();
    // The results of commands whose answer could not be made or told.
    let mut untold = Vec::new();
    let mut met = 0;
    for nth in 1.. {
        let before = stage.set();
        let request = request(&stage);
        let (result, site) = faults.failing(nth, || stage.bench.send(&request));
        let after = stage.state();
        let Some(site) = site else {
            assert!(result.is_ok(), "{name}: {result:?} with nothing failing");
            // Then the command is done or not, but never half.
            let (before, done) = (before.without_minors(), after.without_minors());
            for (what, after) in untold {
                assert!(after == before || after == done, "{what}: {after:#?}");
            }
            break;
        };
        met += 1;
        let Err(errno) = &result else { continue };
        let what = format!("{name}, call {nth} ({site:?})");
        assert!(errors(site).contains(errno), "{what}: {errno:?}");
        if [Site::Copyout, Site::Prop].contains(&site) {
            untold.push((what, after.without_minors()));
        } else {
            assert_eq!(after, before, "{what}");
            // A command that failed once works the next time, from the same state.
            let again = stage.bench.send(&request);
            assert!(again.is_ok(), "after {what}: {again:?}");
        }
    }
    println!("{name}: {met} failures");
    // At least the copying in and out of the request, and the answer.
    assert!(met >= 3, "{name}: {met} failures only");
    stage.bench.end();
}

#[test]
fn create() {
    each_failure_of("create", |_| Request::on("create", "new").with("uuid", "u-1"));
    each_failure_of("create with a minor", |_| {
        Request::on("create", "new").with("minor", 60_000u64).flags(flags::PERSISTENT_DEV)
    });
}

/// config_attach_pseudo(9) gives a null pointer for a number that autoconf(9) has not let go yet.
#[test]
fn a_minor_that_is_still_collected_is_busy_and_another_is_taken_if_any_may_be() {
    let bench = Bench::new();
    let faults = bench.machine.faults();
    faults.fail(Site::ConfigAttach, 1);
    let ninth = || Request::on("create", "nine").with("minor", 9u64).flags(flags::PERSISTENT_DEV);
    assert_eq!(bench.send(&ninth()).err(), Some(Errno::EBUSY));
    faults.reset();
    assert_eq!(common::minor_of(&bench.send(&ninth()).unwrap()), 9);
    faults.fail(Site::ConfigAttach, 1);
    assert_eq!(bench.create("any"), 2, "1 was passed over");
    faults.reset();
    assert_eq!(bench.info("any", "minor"), 2);
    bench.end();
}

#[test]
fn reload() {
    each_failure_of("reload", |_| common::reload("bare", STRIPED));
    each_failure_of("reload over an inactive table", |_| common::reload("d", STRIPED));
    each_failure_of("reload of a stack", |stage| {
        let minor = stage.bench.info("upper", "minor");
        common::reload("bare", &format!("0 9 linear 169:{minor} 1\n9 9 linear /dev/wd1 5"))
    });
}

#[test]
fn every_other_command() {
    for command in ["resume", "suspend", "clear", "info", "mknodes", "status", "table", "deps"] {
        each_failure_of(command, |_| Request::on(command, "d"));
    }
    for command in ["version", "targets", "names"] {
        each_failure_of(command, |_| Request::new(command));
    }
    each_failure_of("remove", |_| Request::on("remove", "upper"));
    each_failure_of("remove_all", |_| Request::new("remove_all"));
    each_failure_of("rename", |_| {
        Request::on("rename", "d").with("cmd_data", vec![Object::from("other")])
    });
    each_failure_of("set a uuid", |_| {
        Request::on("rename", "d").with("cmd_data", vec![Object::from("u")]).flags(flags::UUID)
    });
    each_failure_of("waitevent", |_| Request::on("waitevent", "d").with("event_nr", 1000u64));
    each_failure_of("setgeometry", |_| {
        Request::on("setgeometry", "d").with("geometry", "10 4 5 0")
    });
    each_failure_of("message", |_| {
        Request::on("message", "d").with("message", "@cancel_deferred_remove")
    });
}

#[test]
fn reload_with_a_component_that_breaks_at_each_step() {
    let stage = Stage::new();
    for error in [Errno::EIO, Errno::ENXIO, Errno::EBUSY, Errno::ENOMEM, Errno::EACCES] {
        for nth in 1..=3 {
            let before = stage.set();
            let faults = stage.bench.machine.faults();
            faults.fail_with(Site::Open, nth, error);
            let result = stage.bench.reload("bare", STRIPED);
            let failed = faults.failures(Site::Open);
            faults.reset();
            if failed == 1 && error != Errno::EACCES {
                assert_eq!(result.err(), Some(error));
                assert_eq!(stage.state(), before);
            } else if failed == 1 {
                // Refused for writing, it is opened for reading, which this table cannot use.
                assert_eq!(result.err(), Some(Errno::EROFS));
                assert_eq!(stage.state(), before);
            }
        }
    }
    let before = stage.set();
    stage.disks[3].vanish();
    assert_eq!(stage.bench.reload("bare", STRIPED).err(), Some(Errno::ENXIO));
    assert_eq!(stage.state(), before);
    stage.disks[3].heal();
    stage.bench.end();
}

#[test]
fn a_module_that_fails_to_load_leaves_nothing() {
    let mut failures = 0;
    for nth in 1.. {
        let machine = Machine::boot(Config { modules: false, ..Config::test() }).unwrap();
        let (result, site) = machine.faults().failing(nth, || machine.modload());
        if result.is_err() {
            failures += 1;
            assert!(!machine.drivers().iter().any(|driver| driver.name == "dm"), "{site:?}");
            assert!(!machine.sysctl_names().iter().any(|n| n.starts_with("hw.dm")), "{site:?}");
            let expected = match site {
                Some(Site::ConfigTables | Site::Devsw) => Errno::EEXIST,
                _ => Errno::ENOMEM,
            };
            assert_eq!(result, Err(expected), "{site:?}");
            // The next attempt may succeed.
            assert_eq!(machine.modload(), Ok(()), "after {site:?}");
        }
        assert!(machine.drivers().iter().any(|driver| driver.name == "dm"), "{site:?}");
        let nodes = machine.sysctl_names().into_iter().filter(|name| name.starts_with("hw.dm."));
        assert_eq!(nodes.count(), 6, "{site:?}: all of them or none");
        assert_eq!(machine.shutdown(), Vec::<String>::new(), "{site:?}");
        if site.is_none() {
            break;
        }
    }
    assert!(failures >= 9, "{failures} failures: three tables and six sysctl nodes");
}

#[test]
fn a_module_that_fails_to_unload_is_all_there() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 100);
    fill(&disk, 1);
    let device = bench.device("d", "0 50 linear /dev/wd0 0");
    let Bench { control, machine } = bench;
    drop(control);
    assert_eq!(machine.modunload(), Err(Errno::EBUSY));
    same(&strategy_read(device.dev(), 0, 8).1, &pattern(1, 0, 8), "it works");
    assert_eq!(machine.sysctl_int("hw.dm.devices"), Ok(1));
    assert_eq!(machine.shutdown(), Vec::<String>::new());
}
