// SPDX-License-Identifier: BSD-2-Clause

//! Reload, resume, suspend, rename, remove and create from several threads, under I/O that checks its own data, with
//! completions from other threads and out of order. All tables of a device map its sectors to the same places, cut in
//! different ways, so that the written data must be read back at any time.
//!
//! The number of operations is bounded. The seed is printed, and `DM_SEED` sets it.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::data::{Random, SECTOR, pattern, same};
use common::{Bench, Mapped, Request, flags, send};
use dm_core::testing::plist::Object;
use dm_host::{Completion, Config, Disk, DiskSpec, Errno, File, Io, Machine, Node, netbsd as nb};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

/// Sectors of the device under stress.
const SIZE: u64 = 240;
const WRITERS: u64 = 3;

fn seed() -> u64 {
    let given = std::env::var("DM_SEED").ok().map(|seed| seed.parse().expect("DM_SEED"));
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    println!("DM_SEED={seed}");
    seed
}

/// The disks, each with another way of completion.
fn disks(bench: &Bench, seed: u64) -> Vec<Disk> {
    let ways = [Completion::Shuffled(seed), Completion::Thread, Completion::Shuffled(seed ^ 7)];
    let specs = ways
        .into_iter()
        .enumerate()
        .map(|(n, way)| DiskSpec::memory(&format!("wd{n}"), 4 * SIZE).completion(way));
    specs.map(|spec| bench.attach(spec)).collect()
}

/// A table at random, of the many that put each third of the device on a disk of its own.
fn table(random: &mut Random) -> String {
    let mut lines = String::new();
    let mut at = 0;
    while at < SIZE {
        let (third, within) = (at / (SIZE / 3), at % (SIZE / 3));
        let length = (1 + random.below(70)).min(SIZE / 3 - within);
        // A stripe of one disk is a linear line that is cut in chunks.
        match random.below(3) {
            0 => {
                let chunk = [1, 2, 3][random.below(3) as usize];
                let length = length.next_multiple_of(chunk).min(SIZE / 3 - within);
                let length = length / chunk * chunk;
                if length == 0 {
                    continue;
                }
                lines += &format!("{at} {length} striped 1 {chunk} /dev/wd{third} {within}\n");
                at += length;
            }
            _ => {
                lines += &format!("{at} {length} linear /dev/wd{third} {within}\n");
                at += length;
            }
        }
    }
    lines
}

/// Writes, reads back and compares in a range of its own, until told to stop. I/O may fail with one of `expected`;
/// the content is then unknown.
fn write_and_check(
    device: Mapped,
    range: std::ops::Range<u64>,
    seed: u64,
    stop: &AtomicBool,
    expected: &[Errno],
) -> u64 {
    let mut random = Random(seed);
    let mut known: Vec<Option<u64>> = vec![None; (range.end - range.start) as usize];
    let mut done = 0;
    while done == 0 || !stop.load(Ordering::Relaxed) {
        let start = range.start + random.below(range.end - range.start);
        let sectors = 1 + random.below((range.end - start).min(50));
        let at = (start - range.start) as usize..(start - range.start + sectors) as usize;
        if random.below(2) == 0 {
            let version = random.next();
            let mut io = Io::with_data(pattern(version, start, sectors));
            let result = io.run(device.dev(), dm_host::Request::write(start as i64));
            match result.error {
                None => {
                    assert!(result.is_complete(io.data().len()), "{result:?}");
                    known[at].fill(Some(version));
                }
                Some(errno) => {
                    assert!(expected.contains(&errno), "{errno:?}");
                    known[at].fill(None);
                }
            }
        } else {
            let mut io = Io::new(sectors as usize * SECTOR);
            let result = io.run(device.dev(), dm_host::Request::read(start as i64));
            if let Some(errno) = result.error {
                assert!(expected.contains(&errno), "{errno:?}");
                continue;
            }
            assert!(result.is_complete(io.data().len()), "{result:?}");
            for (n, sector) in at.zip(io.data().chunks(SECTOR)) {
                if let Some(version) = known[n] {
                    let right = pattern(version, range.start + n as u64, 1);
                    same(sector, &right, &format!("sector {n} of {range:?}"));
                }
            }
        }
        done += 1;
    }
    done
}

/// Tells the other threads to stop, also when this one fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn control(file: &File, request: &Request, expected: &[Errno]) -> bool {
    match send(file, request) {
        Ok(_) => true,
        Err(errno) => {
            assert!(expected.contains(&errno), "{errno:?} from {request:?}");
            false
        }
    }
}

#[test]
fn tables_change_under_io_that_checks_its_data() {
    let seed = seed();
    let bench = Bench::with(Config { ncpu: 4, ..Config::test() });
    let _disks = disks(&bench, seed);
    let mut random = Random(seed);
    let device = bench.device("d0", &table(&mut random));
    let stop = AtomicBool::new(false);
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                let share = SIZE / WRITERS;
                let (stop, total) = (&stop, &total);
                scope.spawn(move || {
                    let range = n * share..(n + 1) * share;
                    let done = write_and_check(device, range, seed + n, stop, &[]);
                    total.fetch_add(done, Ordering::Relaxed);
                })
            })
            .collect();
        let controls: Vec<_> = (0..3u64)
            .map(|n| {
                let control_node = bench.control.clone();
                scope.spawn(move || {
                    let mut random = Random(seed ^ (n << 32));
                    for _ in 0..150 {
                        // By minor: the name changes all the time.
                        let by_minor = |command: &str| {
                            Request::new(command).with("minor", u64::from(device.minor))
                        };
                        let request = match random.below(8) {
                            0..=2 => {
                                let table = common::reload("-", &table(&mut random));
                                table.without("name").with("minor", u64::from(device.minor))
                            }
                            3 => by_minor("suspend"),
                            4 => by_minor("clear"),
                            5 => {
                                let name = format!("d{}", random.below(3));
                                by_minor("rename").with("cmd_data", vec![Object::from(&*name)])
                            }
                            6 => by_minor("status"),
                            _ => by_minor("resume"),
                        };
                        control(&control_node, &request, &[]);
                        // Never leave it suspended for long: others wait for their I/O.
                        control(&control_node, &by_minor("resume"), &[]);
                    }
                })
            })
            .collect();
        let stop = Stop(&stop);
        controls.into_iter().for_each(|thread| thread.join().unwrap());
        drop(stop);
        writers.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let total = total.into_inner();
    println!("{total} I/Os");
    assert!(total > 0);
    bench.end();
}

#[test]
fn devices_come_and_go_under_io() {
    let seed = seed();
    let bench = Bench::with(Config { ncpu: 4, ..Config::test() });
    let disks = disks(&bench, seed);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Whichever device has one of these minors: its data are not known to anyone.
        let readers: Vec<_> = (1..=3u32)
            .map(|minor| {
                let stop = &stop;
                let machine = &bench.machine;
                scope.spawn(move || {
                    let device = Mapped { minor };
                    let mut random = Random(seed + u64::from(minor));
                    let gone = [Errno::ENXIO];
                    while !stop.load(Ordering::Relaxed) {
                        let mut io = Io::new((1 + random.below(8) as usize) * SECTOR);
                        let sector = random.below(SIZE) as i64;
                        let result = io.run(device.dev(), dm_host::Request::read(sector));
                        if let Some(errno) = result.error {
                            assert!(gone.contains(&errno), "{errno:?}");
                        }
                        let node = Node::Character(device.rdev());
                        let flags = [dm_host::Flags::READ, dm_host::Flags::READ_WRITE];
                        let file = machine.open(node, flags[random.below(2) as usize]);
                        // EBADF is a node's that was revoked, also while it is opened.
                        let usual = [Errno::ENXIO, Errno::EBADF];
                        assert!(file.is_ok_or(&usual), "{:?}", file.err());
                        if let Ok(file) = file {
                            ask_disk(machine, &file, random.below(10));
                        }
                    }
                })
            })
            .collect();
        let makers: Vec<_> = (0..3u64)
            .map(|n| {
                let control_node = bench.control.clone();
                let machine = &bench.machine;
                scope.spawn(move || {
                    let mut random = Random(seed ^ (n << 32));
                    for _ in 0..150 {
                        let minor = 1 + random.below(3);
                        let name = format!("d{minor}");
                        let on = |command: &str| Request::on(command, &name);
                        let missing = [Errno::ENXIO];
                        match random.below(9) {
                            0 | 1 => {
                                let create = on("create").with("minor", minor);
                                let create = create.flags(flags::PERSISTENT_DEV);
                                let taken = [Errno::EEXIST, Errno::EBUSY];
                                control(&control_node, &create, &taken);
                            }
                            2 | 3 => {
                                let table = common::reload(&name, &table(&mut random));
                                control(&control_node, &table, &missing);
                            }
                            4 => _ = control(&control_node, &on("suspend"), &missing),
                            5 => {
                                let busy = [Errno::ENXIO, Errno::EBUSY];
                                let request = match random.below(2) {
                                    0 => on("remove"),
                                    _ => on("remove").flags(flags::DEFERRED_REMOVE),
                                };
                                control(&control_node, &request, &busy);
                            }
                            6 => {
                                let force = dm_host::netbsd::DETACH_FORCE * random.below(2) as i32;
                                let result = machine.detach_device(&format!("dm{minor}"), force);
                                let usual = [Errno::ENXIO, Errno::EBUSY, Errno::ENOENT];
                                assert!(result.is_ok_or(&usual), "{result:?}");
                            }
                            7 => ask_driver(machine, &control_node, random.below(6), minor),
                            _ => {}
                        }
                        control(&control_node, &on("resume"), &missing);
                    }
                })
            })
            .collect();
        let stop = Stop(&stop);
        makers.into_iter().for_each(|thread| thread.join().unwrap());
        drop(stop);
        // One that was suspended last holds its readers' I/O.
        for minor in 1..=3 {
            control(&bench.control, &Request::on("resume", &format!("d{minor}")), &[Errno::ENXIO]);
        }
        readers.into_iter().for_each(|thread| thread.join().unwrap());
    });
    bench.send(&Request::new("remove_all")).unwrap();
    assert_eq!(bench.machine.sysctl_int("hw.dm.devices"), Ok(0));
    for disk in &disks {
        assert_eq!(bench.machine.block_opens(disk.dev()), 0);
        assert_eq!(disk.in_flight(), 0);
    }
    bench.end();
}

/// Sends one of a disk's ioctls to a device that may come or go meanwhile. A signal is pending, so that the ioctl
/// does not wait for a suspended device.
fn ask_disk(machine: &Machine, file: &File, which: u64) {
    fn ask<T: Copy>(file: &File, command: i64) -> Result<T, Errno> {
        // SAFETY: plain numbers and characters.
        let mut answer: T = unsafe { std::mem::zeroed() };
        file.ioctl(command as u64, &mut answer).map(|()| answer)
    }
    assert!(machine.interrupt(dm_host::current_lwp()));
    let result = match which {
        0 => ask::<i64>(file, nb::DIOCGMEDIASIZE as i64).map(drop),
        1 => ask::<nb::disklabel>(file, nb::DIOCGDINFO as i64).map(drop),
        2 => ask::<nb::partinfo>(file, nb::DIOCGPARTINFO).map(drop),
        3 => ask::<nb::dkwedge_info>(file, nb::DIOCGWEDGEINFO as i64).map(drop),
        4 => ask::<nb::disk_strategy>(file, nb::DIOCGSTRATEGY as i64).map(drop),
        5 => ask::<nb::disk_sectoralign>(file, nb::DIOCGSECTORALIGN as i64).map(drop),
        6 => ask::<i32>(file, nb::DIOCCACHESYNC).map(drop),
        7 => file.plist_query(nb::DIOCGDISKINFO as u64).map(drop),
        8 => file.fdiscard(0, 8 * SECTOR as u64),
        _ => ask::<nb::disklabel>(file, nb::DIOCGDINFO as i64).and_then(|mut label| {
            let command = [nb::DIOCSDINFO, nb::DIOCWDINFO][usize::from(label.d_secperunit != 0)];
            file.ioctl(command as u64, &mut label)
        }),
    };
    // Without a table there is nothing to ask, or less than the request is about.
    let without = [Errno::ENXIO, Errno::EINTR, Errno::EINVAL, Errno::ENOTSUP, Errno::ENODEV];
    // A revoked node takes nothing, and has no discard.
    let revoked = [Errno::EBADF, Errno::EOPNOTSUPP];
    // A label that was written is a component's own from then on, and kept.
    let usual = [&without[..], &revoked, &[Errno::EROFS]].concat();
    assert!(result.is_ok_or(&usual), "{which}: {result:?}");
}

/// Asks the driver one of the questions for which no privilege is needed.
fn ask_driver(machine: &Machine, control: &File, which: u64, minor: u64) {
    let question = |command: &str| Request::new(command).with("minor", minor);
    let ask = |request: &Request, usual: &[Errno]| {
        assert!(machine.interrupt(dm_host::current_lwp()));
        let result = machine.as_user(1000, || send(control, request));
        assert!(result.is_ok_or(usual), "{:?} from {request:?}", result.err());
    };
    match which {
        0 => ask(&Request::new("names"), &[]),
        1 => ask(&question("table").flags(flags::STATUS_TABLE), &[]),
        2 => ask(&question("deps").flags(flags::QUERY_INACTIVE_TABLE), &[]),
        3 => ask(&question("waitevent").with("event_nr", 1 << 20), &[Errno::EINTR, Errno::ENXIO]),
        4 => ask(&question("remove"), &[Errno::EPERM]),
        _ => drop(machine.sysctl_text("hw.dm.counters").unwrap()),
    }
}

trait Usual {
    fn is_ok_or(&self, errors: &[Errno]) -> bool;
}

impl<T> Usual for Result<T, Errno> {
    fn is_ok_or(&self, errors: &[Errno]) -> bool {
        self.as_ref().err().is_none_or(|errno| errors.contains(errno))
    }
}

#[test]
fn without_memory_and_with_failing_disks() {
    let seed = seed();
    let bench = Bench::with(Config { ncpu: 4, ..Config::test() });
    // A label sector that cannot be read when a table is loaded may hold a label.
    bench.machine.sysctl_set("hw.dm.label_guard", &dm_host::Value::Int(0)).unwrap();
    let disks = disks(&bench, seed);
    let mut random = Random(seed);
    let lower = bench.device("d0", &table(&mut random));
    let device = bench.device("upper", &format!("0 {SIZE} linear 169:{} 0", lower.minor));
    let stop = AtomicBool::new(false);
    // Every pool is empty: all I/O goes through the reserves of both devices.
    bench.machine.faults().fail_always(dm_host::Site::Pool);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                let share = SIZE / WRITERS;
                let stop = &stop;
                scope.spawn(move || {
                    let range = n * share..(n + 1) * share;
                    write_and_check(device, range, seed + n, stop, &[Errno::EIO])
                })
            })
            .collect();
        let stop = Stop(&stop);
        for round in 0..80 {
            let disk = &disks[random.below(3) as usize];
            disk.fail_nth(1 + random.below(4), Errno::EIO);
            bench.load("d0", &table(&mut random)).unwrap();
            if round % 5 == 0 {
                bench.on("suspend", "upper").unwrap();
                bench.on("suspend", "d0").unwrap();
                bench.on("resume", "d0").unwrap();
                bench.on("resume", "upper").unwrap();
            }
        }
        drop(stop);
        let done: u64 = writers.into_iter().map(|thread| thread.join().unwrap()).sum();
        println!("{done} I/Os");
    });
    bench.machine.faults().reset();
    bench.end();
}
