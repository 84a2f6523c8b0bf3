// SPDX-License-Identifier: BSD-2-Clause

//! One failure at a time under every shape of I/O, and components that break. Afterwards the error is the right one,
//! the bytes moved are told, and nothing is stuck.

mod common;

use common::data::{SECTOR, fill, on_disk, same, strategy_read};
use common::state::errors;
use common::{Bench, Mapped, Request};
use dm_core::testing::plist::Object;
use dm_host::netbsd::{
    DIOCCACHESYNC, DIOCGCACHE, DIOCGDINFO, DIOCGDISKINFO, DIOCGSECTORALIGN, DIOCGSTRATEGY,
    DIOCGWEDGEINFO, DIOCWDINFO, disk_sectoralign, disk_strategy, disklabel, dkwedge_info,
};
use dm_host::{Disk, Errno, Io, Site};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

/// A device of every shape, and the I/O that is tried on it.
struct Shape {
    bench: Bench,
    disks: Vec<Disk>,
    device: Mapped,
    expected: Vec<u8>,
}

const SHAPES: &[(&str, &str)] = &[
    ("one piece", "0 100 linear /dev/wd0 5"),
    ("two lines", "0 7 linear /dev/wd0 5\n7 93 linear /dev/wd1 0"),
    ("many chunks", "0 102 striped 3 2 /dev/wd0 0 /dev/wd1 1 /dev/wd0 60"),
    ("with zeroes", "0 10 linear /dev/wd0 5\n10 5 zero\n15 90 linear /dev/wd1 0"),
];

/// Sectors of an I/O that meets all of it.
const TRIED: u64 = 40;

impl Shape {
    fn new(table: &str, layers: usize) -> Shape {
        let bench = Bench::new();
        let disks = vec![bench.disk("wd0", 200), bench.disk("wd1", 200)];
        disks.iter().zip(1..).for_each(|(disk, seed)| fill(disk, seed));
        let mut device = bench.device("d0", table);
        let model = common::model::Model::new(table, &disks);
        let expected = model.read(&disks, 0, TRIED);
        for layer in 1..layers {
            let table = format!("0 {TRIED} linear 169:{} 0", device.minor);
            device = bench.device(&format!("d{layer}"), &table);
        }
        Shape { bench, disks, device, expected }
    }

    /// Has the driver put back the buffers that it caches, as it does when it adds up its counts and finds that there
    /// was no I/O since the last time.
    fn rest(&self) {
        for _ in 0..2 {
            self.bench.machine.sysctl_text("hw.dm.counters").unwrap();
        }
    }

    fn check(&self) {
        let (result, data) = strategy_read(self.device.dev(), 0, TRIED);
        assert!(result.is_complete(data.len()), "{result:?}");
        same(&data, &self.expected, "all of it");
    }
}

#[test]
fn each_failure_under_each_shape_of_io() {
    for (name, table) in SHAPES {
        for layers in [1, 3] {
            let shape = Shape::new(table, layers);
            let faults = shape.bench.machine.faults();
            for write in [false, true] {
                for nth in 1.. {
                    let mut io = Io::new(TRIED as usize * SECTOR);
                    if write {
                        io.data_mut().copy_from_slice(&shape.expected);
                    }
                    let request =
                        if write { dm_host::Request::write(0) } else { dm_host::Request::read(0) };
                    shape.rest();
                    let (result, site) =
                        faults.failing(nth, || io.run(shape.device.dev(), request));
                    let what = format!("{name}, {layers} layers, call {nth} ({site:?})");
                    if site == Some(Site::Strategy) {
                        assert_eq!(result.error, Some(Errno::EIO), "{what}");
                        let moved = result.count - result.resid;
                        assert!(moved < io.data().len(), "{what}");
                        if !write {
                            same(&io.data()[..moved], &shape.expected[..moved], &what);
                        }
                    } else {
                        // Memory that is not to be had is no reason for an I/O to fail.
                        assert!(result.is_complete(io.data().len()), "{what}: {result:?}");
                    }
                    shape.check();
                    if site.is_none() {
                        break;
                    }
                }
            }
            let Shape { bench, .. } = shape;
            bench.end();
        }
    }
}

#[test]
fn other_requests_with_each_call_failing() {
    let shape = Shape::new(SHAPES[1].1, 2);
    let faults = shape.bench.machine.faults();
    let raw = shape.bench.raw(shape.device);
    type Try<'t> = (&'t str, &'t dyn Fn() -> Result<(), Errno>);
    let tries: [Try<'_>; 10] = [
        ("sync", &|| raw.ioctl(DIOCCACHESYNC as u64, &mut 0i32)),
        ("cache", &|| raw.ioctl(DIOCGCACHE as u64, &mut 0i32)),
        ("info", &|| raw.plist_query(DIOCGDISKINFO as u64).map(drop)),
        ("label", &|| {
            // SAFETY: plain numbers and characters.
            let mut label: disklabel = unsafe { std::mem::zeroed() };
            raw.ioctl(DIOCGDINFO as u64, &mut label)
        }),
        ("set label", &|| {
            // SAFETY: plain numbers and characters.
            let mut label: disklabel = unsafe { std::mem::zeroed() };
            raw.ioctl(DIOCGDINFO as u64, &mut label)?;
            raw.ioctl(DIOCWDINFO as u64, &mut label)
        }),
        ("strategy", &|| {
            // SAFETY: as above.
            let mut queue: disk_strategy = unsafe { std::mem::zeroed() };
            raw.ioctl(DIOCGSTRATEGY as u64, &mut queue)
        }),
        ("alignment", &|| {
            // SAFETY: as above.
            let mut alignment: disk_sectoralign = unsafe { std::mem::zeroed() };
            raw.ioctl(DIOCGSECTORALIGN as u64, &mut alignment)
        }),
        ("wedge", &|| {
            // SAFETY: as above.
            let mut wedge: dkwedge_info = unsafe { std::mem::zeroed() };
            raw.ioctl(DIOCGWEDGEINFO as u64, &mut wedge)
        }),
        ("discard", &|| raw.fdiscard(0, TRIED * 512)),
        ("dump", &|| shape.bench.machine.dump(shape.device.dev(), 0, &shape.expected)),
    ];
    for (name, attempt) in tries {
        for nth in 1.. {
            let (result, site) = faults.failing(nth, attempt);
            match site {
                None => {
                    assert_eq!(result, Ok(()), "{name}");
                    break;
                }
                Some(site) => {
                    if let Err(errno) = result {
                        assert!(errors(site).contains(&errno), "{name}, {site:?}: {errno:?}");
                    }
                    assert_eq!(attempt(), Ok(()), "{name}, after {site:?}");
                }
            }
        }
    }
    drop(raw);
    shape.bench.end();
}

#[test]
fn without_memory_io_goes_on_from_the_reserve() {
    for (name, table) in SHAPES {
        for layers in [1, 4] {
            let shape = Shape::new(table, layers);
            shape.rest();
            shape.bench.machine.faults().fail_always(Site::Pool);
            shape.check();
            let failures = shape.bench.machine.faults().failures(Site::Pool);
            assert!(failures > 0, "{name}: nothing was asked of a pool");
            // Many at once, at disks that take their time.
            shape.disks.iter().for_each(Disk::hold);
            let mut ios: Vec<_> = (0..9).map(|_| Io::new(TRIED as usize * SECTOR)).collect();
            for io in &mut ios {
                io.start(shape.device.dev(), dm_host::Request::read(0));
            }
            let mut steps = 0;
            while shape.disks.iter().any(|disk| disk.release_one(0)) {
                steps += 1;
                let at_disks: usize = shape.disks.iter().map(Disk::held).sum();
                assert!(at_disks <= 1, "{name}: one child in reserve, and {at_disks} I/Os");
            }
            assert!(steps >= 9, "{name}: {steps} steps");
            for io in &mut ios {
                assert!(!io.is_busy(), "{name}, {layers} layers: stuck");
                let result = io.wait();
                assert!(result.is_complete(io.data().len()), "{name}: {result:?}");
                same(io.data(), &shape.expected, name);
            }
            shape.disks.iter().for_each(Disk::release);
            shape.bench.machine.faults().reset();
            shape.check();
            shape.bench.end();
        }
    }
}

/// A driver may leave b_resid at 0 beside an error: no byte of such an I/O is said to be good.
#[test]
fn a_component_that_fails_and_has_nothing_left() {
    let bench = Bench::new();
    let disks = [bench.disk("wd0", 200), bench.disk("wd1", 200)];
    for (table, good) in
        [("0 64 linear /dev/wd1 0", 0), ("0 64 striped 2 4 /dev/wd0 0 /dev/wd1 0", 4)]
    {
        let device = bench.device("d", table);
        disks[1].fail_range_all_done(0..200, Errno::EIO);
        let result = strategy_read(device.dev(), 0, 16).0;
        assert_eq!((result.error, result.count - result.resid), (Some(Errno::EIO), good * SECTOR));
        disks[1].heal();
        bench.on("remove", "d").unwrap();
    }
    bench.end();
}

#[test]
fn io_that_waits_for_the_reserve_is_held_or_failed_like_any() {
    for remove in [false, true] {
        let shape = Shape::new(SHAPES[1].1, 1);
        shape.bench.machine.faults().fail_always(Site::Pool);
        shape.disks.iter().for_each(Disk::hold);
        let mut ios: Vec<_> = (0..5).map(|_| Io::new(TRIED as usize * SECTOR)).collect();
        for io in &mut ios {
            io.start(shape.device.dev(), dm_host::Request::read(0));
        }
        std::thread::scope(|scope| {
            let name = if remove { "remove" } else { "suspend" };
            let control = scope.spawn(|| shape.bench.on(name, "d0").map(drop));
            // The one that has the reserve must be finished first.
            common::wait::until("the device is quiet", || {
                shape.disks.iter().for_each(|disk| _ = disk.release_one(0));
                control.is_finished()
            });
            assert_eq!(control.join().unwrap(), Ok(()));
        });
        shape.bench.machine.faults().reset();
        shape.disks.iter().for_each(Disk::release);
        if remove {
            let ends: Vec<_> = ios.iter_mut().map(|io| io.wait().error).collect();
            assert_eq!(ends[0], None, "it was under way");
            assert!(ends.iter().all(|end| matches!(end, None | Some(Errno::ENXIO))), "{ends:?}");
        } else {
            shape.bench.on("resume", "d0").unwrap();
            for io in &mut ios {
                assert!(io.wait().is_complete(TRIED as usize * SECTOR));
                same(io.data(), &shape.expected, "after all");
            }
        }
        shape.bench.end();
    }
}

#[test]
fn a_component_that_vanishes() {
    for (name, table) in SHAPES {
        for layers in [1, 3] {
            for gone in [0, 1] {
                let shape = Shape::new(table, layers);
                let Shape { bench, disks, device, expected } = &shape;
                disks[gone].vanish();
                for write in [false, true] {
                    let mut io = Io::with_data(expected.clone());
                    let ask = if write { dm_host::Request::write } else { dm_host::Request::read };
                    let result = io.run(device.dev(), ask(0));
                    let moved = result.count - result.resid;
                    let what = format!("{name}, {layers} layers, without wd{gone}");
                    // A table that does not use the disk does not notice.
                    let used = table.contains(&format!("/dev/wd{gone}"));
                    assert_eq!(result.error, used.then_some(Errno::ENXIO), "{what}");
                    assert_eq!(moved < expected.len(), used, "{what}");
                    same(&io.data()[..moved], &expected[..moved], &what);
                    // Without memory the reserve comes back all the same.
                    bench.machine.faults().fail_always(Site::Pool);
                    shape.rest();
                    assert_eq!(io.run(device.dev(), ask(0)).error, result.error, "{what}");
                    bench.machine.faults().reset();
                }
                let raw = bench.raw(*device);
                let lost = table.contains(&format!("/dev/wd{gone}"));
                for command in [DIOCCACHESYNC, DIOCGCACHE as i64] {
                    let answer = raw.ioctl(command as u64, &mut 0i32);
                    assert_eq!(answer, if lost { Err(Errno::ENXIO) } else { Ok(()) }, "{name}");
                }
                drop(raw);
                // Its devices can be asked, changed and removed.
                for command in ["info", "table", "status", "deps", "suspend", "resume"] {
                    bench.on(command, "d0").unwrap();
                }
                let again = bench.reload("d0", table).map(drop);
                assert_eq!(again, if lost { Err(Errno::ENXIO) } else { Ok(()) }, "{name}");
                bench.on("clear", "d0").unwrap();
                bench.create("new");
                // That a table has it open does not mean that it is there.
                let new = format!("0 9 linear /dev/wd{gone} 0");
                assert_eq!(bench.reload("new", &new).err(), Some(Errno::ENXIO), "{name}");
                bench.on("remove", "new").unwrap();
                let rest = 1 - gone;
                bench.load("d0", &format!("0 40 linear /dev/wd{rest} 0")).unwrap();
                let moved_away = strategy_read(device.dev(), 0, 9).1;
                same(&moved_away, &on_disk(&disks[rest], 0, 9), "moved away");
                for layer in (0..layers).rev() {
                    bench.on("remove", &format!("d{layer}")).unwrap();
                }
                let Shape { bench, .. } = shape;
                bench.end();
            }
        }
    }
}

#[test]
fn a_component_that_is_taken_away_with_io_under_way() {
    let shape = Shape::new(SHAPES[1].1, 1);
    shape.disks[1].hold();
    let mut io = Io::new(TRIED as usize * SECTOR);
    io.start(shape.device.dev(), dm_host::Request::read(0));
    shape.disks[1].detach(true).unwrap();
    let result = io.wait();
    assert_eq!((result.error, result.count - result.resid), (Some(Errno::ENXIO), 7 * SECTOR));
    // The component's node was revoked.
    let result = strategy_read(shape.device.dev(), 0, TRIED).0;
    assert_eq!((result.error, result.count - result.resid), (Some(Errno::EIO), 7 * SECTOR));
    let raw = shape.bench.raw(shape.device);
    assert_eq!(raw.ioctl(DIOCCACHESYNC as u64, &mut 0i32), Err(Errno::EBADF));
    assert_eq!(raw.fdiscard(7 * 512, 512), Err(Errno::EOPNOTSUPP));
    drop(raw);
    shape.bench.on("remove", "d0").unwrap();
    shape.bench.end();
}

#[test]
fn a_component_that_does_not_answer_until_told() {
    let shape = Shape::new(SHAPES[0].1, 1);
    shape.disks[0].hold();
    let mut io = Io::new(SECTOR);
    io.start(shape.device.dev(), dm_host::Request::read(0));
    // Questions and changes that need not wait for I/O do not.
    assert_eq!(shape.bench.table("d0").len(), 1);
    shape.bench.reload("d0", "0 100 linear /dev/wd1 0").unwrap();
    shape.bench.on("status", "d0").unwrap();
    shape.bench.on("clear", "d0").unwrap();
    let rename = Request::on("rename", "d0").with("cmd_data", vec![Object::from("e")]);
    shape.bench.send(&rename).unwrap();
    // A command that must wait can be interrupted, and has then changed nothing.
    shape.bench.reload("e", "0 100 linear /dev/wd1 0").unwrap();
    let before = common::state::state(&shape.bench, &shape.disks);
    for command in ["suspend", "resume"] {
        let control = shape.bench.control.clone();
        let request = Request::on(command, "e");
        let thread = shape.bench.machine.spawn(move || common::send(&control, &request).map(drop));
        let lwp = thread.lwp();
        common::wait::until("it is interrupted", || {
            !shape.bench.machine.interrupt(lwp) || thread.is_finished()
        });
        assert_eq!(thread.join(), Err(Errno::EINTR));
        assert_eq!(common::state::state(&shape.bench, &shape.disks), before, "{command}");
    }
    // A device that is going waits for its I/O, and nobody finds it meanwhile.
    let control = shape.bench.control.clone();
    let request = Request::on("remove", "e");
    let thread = shape.bench.machine.spawn(move || common::send(&control, &request).map(drop));
    let names = || shape.bench.send(&Request::new("names")).unwrap();
    common::wait::until("it is gone from the list", || {
        names().array("cmd_data").unwrap().is_empty()
    });
    assert!(!thread.is_finished(), "an I/O is under way");
    let late = strategy_read(shape.device.dev(), 0, 1).0;
    assert_eq!(late.error, Some(Errno::ENXIO));
    assert!(io.is_busy());
    shape.disks[0].release();
    assert!(io.wait().is_complete(SECTOR));
    assert_eq!(thread.join(), Ok(()));
    shape.bench.end();
}

#[test]
fn components_that_answer_short() {
    for (name, table) in SHAPES {
        for layers in [1, 3] {
            let shape = Shape::new(table, layers);
            for nth in 1..4 {
                for bytes in [0, SECTOR, 3 * SECTOR] {
                    shape.disks[0].short_nth(nth, bytes);
                    let (result, data) = strategy_read(shape.device.dev(), 0, TRIED);
                    let moved = result.count - result.resid;
                    if result.error.is_some() {
                        assert_eq!(result.error, Some(Errno::EIO), "{name}");
                        assert!(moved < data.len());
                    } else {
                        assert_eq!(moved, data.len(), "{name}: short without a word");
                    }
                    same(&data[..moved], &shape.expected[..moved], name);
                    shape.disks[0].heal();
                    shape.check();
                }
            }
            shape.bench.end();
        }
    }
}

#[test]
fn a_label_that_cannot_be_read_is_made_up() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 200);
    let device = bench.device("d", "0 100 linear /dev/wd0 0");
    let raw = bench.raw(device);
    disk.fail(Errno::EIO);
    // SAFETY: plain numbers and characters.
    let mut label: disklabel = unsafe { std::mem::zeroed() };
    raw.ioctl(DIOCGDINFO as u64, &mut label).unwrap();
    assert_eq!(label.d_secperunit, 100);
    assert_eq!(raw.ioctl(DIOCWDINFO as u64, &mut label), Err(Errno::EIO));
    disk.heal();
    drop(raw);
    bench.end();
}
