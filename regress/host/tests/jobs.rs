// SPDX-License-Identifier: BSD-2-Clause

//! Targets that serve I/O themselves, in the hosted kernel: their jobs under load, in stacks,
//! through suspend, table changes, removal, and without memory.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::data::{Random, SECTOR, fill, on_disk, pattern, same, strategy_read, strategy_write};
use common::{Bench, flags};
use dm_host::netbsd::DIOCCACHESYNC;
use dm_host::{Config, Errno, Flags, Io, Node, Request};

/// A delay of nothing to speak of: everything goes through the target's lanes.
const LANES: &str = "delay /dev/wd0 100 1 /dev/wd0 100 1 /dev/wd0 100 1";

fn bench() -> Bench {
    Bench::with(Config::default())
}

fn table(length: u64) -> String {
    format!("0 {length} {LANES}")
}

#[test]
fn data_pass_through_lanes() {
    let bench = bench();
    let disk = bench.disk("wd0", 4000);
    fill(&disk, 1);
    let device = bench.device("d", &table(3000));
    for (sector, sectors) in [(0, 1), (7, 9), (2992, 8), (1000, 128)] {
        let (result, data) = strategy_read(device.dev(), sector, sectors);
        assert_eq!(result.error, None);
        same(&data, &pattern(1, 100 + sector, sectors), "what was read");
        let new = pattern(2, 100 + sector, sectors);
        assert_eq!(strategy_write(device.dev(), sector, &new).error, None);
        same(&on_disk(&disk, 100 + sector, sectors), &new, "what was written");
    }
    // Across the device's end it is cut, as on any disk.
    let (result, _) = strategy_read(device.dev(), 2996, 8);
    assert_eq!((result.error, result.count - result.resid), (None, 4 * SECTOR));
    bench.end();
}

/// I/O that waits for a job's number, of which there are some dozens, goes on when another job ends. The component
/// answers at once by then, so that the first I/O ends before the call that let it go on returns; the stack must not
/// grow with each.
#[test]
fn much_io_that_waits_goes_on_one_after_the_other() {
    const IOS: i64 = 4000;
    let key = "5a".repeat(32);
    for table in [
        format!("0 1024 crypt aes-xts-plain64 {key} 0 169:1 0"),
        "0 1024 mirror core 2 1024 nosync 2 169:1 0 169:1 1024".into(),
    ] {
        let bench = bench();
        let _disk = bench.disk("wd0", 4000);
        assert_eq!(bench.device("below", "0 2048 linear /dev/wd0 0").minor, 1);
        let device = bench.device("d", &table);
        // All of a mirror's only region is marked.
        assert_eq!(strategy_write(device.dev(), 0, &[7; SECTOR]).error, None);
        for write in [true, false] {
            bench.on("suspend", "below").unwrap();
            let mut ios: Vec<Io> = (0..IOS).map(|_| Io::with_data(vec![7; SECTOR])).collect();
            for (n, io) in (0..).zip(&mut ios) {
                let at = n % 1024;
                io.start(device.dev(), if write { Request::write(at) } else { Request::read(at) });
            }
            bench.on("resume", "below").unwrap();
            for io in &mut ios {
                assert!(io.wait().is_complete(SECTOR));
                same(io.data(), &[7; SECTOR], "what is written and read");
            }
        }
        bench.end();
    }
}

#[test]
fn a_line_among_others_is_split_at_its_borders() {
    let bench = bench();
    let disk = bench.disk("wd0", 4000);
    fill(&disk, 3);
    let table = format!("0 10 linear /dev/wd0 0\n10 20 {LANES}\n30 10 zero\n40 20 {LANES}");
    let device = bench.device("d", &table);
    let (result, data) = strategy_read(device.dev(), 0, 60);
    assert_eq!(result.error, None);
    let parts = [pattern(3, 0, 10), pattern(3, 100, 20), vec![0; 10 * SECTOR], pattern(3, 100, 20)];
    same(&data, &parts.concat(), "four lines");
    bench.end();
}

#[test]
fn a_component_that_fails_fails_the_job_from_where_it_failed() {
    let bench = bench();
    let disk = bench.disk("wd0", 4000);
    let device = bench.device("d", &format!("0 8 zero\n8 3000 {LANES}"));
    disk.fail_range(100..110, Errno::EIO);
    let (result, _) = strategy_read(device.dev(), 0, 16);
    assert_eq!((result.error, result.count - result.resid), (Some(Errno::EIO), 8 * SECTOR));
    bench.end();
}

/// Writes and reads from several threads, each in a region of its own, until told to stop.
fn load(bench: &Bench, dev: dm_host::Dev, stop: &Arc<AtomicBool>) -> Vec<dm_host::Kthread<u64>> {
    let thread = |region: u64| {
        let stop = stop.clone();
        bench.machine.spawn(move || {
            let (mut random, mut rounds) = (Random(region), 0);
            let mut held: Vec<u64> = vec![0; 64];
            // Once at least, however late it comes to run.
            loop {
                rounds += 1;
                let (at, sectors) = (random.below(56), 1 + random.below(8));
                let sector = region * 64 + at;
                let data: Vec<u8> = (at..at + sectors)
                    .flat_map(|n| {
                        held[n as usize] = rounds;
                        pattern(rounds, region * 64 + n, 1)
                    })
                    .collect();
                assert_eq!(strategy_write(dev, sector, &data).error, None);
                let (at, sectors) = (random.below(56), 1 + random.below(8));
                let (result, data) = strategy_read(dev, region * 64 + at, sectors);
                assert_eq!(result.error, None);
                for n in 0..sectors {
                    let wrote = held[(at + n) as usize];
                    let found = &data[n as usize * SECTOR..(n + 1) as usize * SECTOR];
                    let expected = match wrote {
                        0 => vec![0; SECTOR],
                        seed => pattern(seed, region * 64 + at + n, 1),
                    };
                    same(found, &expected, "a sector of this thread's");
                }
                if stop.load(Ordering::Relaxed) {
                    return rounds;
                }
            }
        })
    };
    (0..4).map(thread).collect()
}

#[test]
fn tables_change_under_load() {
    let bench = bench();
    let _disk = bench.disk("wd0", 4000);
    let device = bench.device("d", &table(2000));
    let stop = Arc::new(AtomicBool::new(false));
    let threads = load(&bench, device.dev(), &stop);
    let linear = "0 2000 linear /dev/wd0 100".to_owned();
    for round in 0..60 {
        let next = if round % 3 == 0 { &linear } else { &table(2000) };
        bench.reload("d", next).unwrap();
        if round % 2 == 0 {
            let flags = if round % 4 == 0 { flags::NOFLUSH } else { 0 };
            bench.send(&dm_core::testing::Request::on("suspend", "d").flags(flags)).unwrap();
        }
        bench.on("resume", "d").unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    assert!(threads.into_iter().map(|t| t.join()).sum::<u64>() > 0);
    bench.end();
}

#[test]
fn stacks_go_on_without_memory() {
    let bench = bench();
    let disk = bench.disk("wd0", 4000);
    let one = bench.device("one", &table(3000));
    let on = |below: common::Mapped, length: u64| {
        let below = format!("169:{} 0 1", below.minor);
        format!("0 {length} delay {below} {below} {below}")
    };
    let two = bench.device("two", &on(one, 2500));
    let three = bench.device("three", &on(two, 2000));
    // From here on neither pools nor kmem give anything to who does not wait.
    bench.machine.faults().exhaust_memory(true);
    let mut ios: Vec<Io> = (0..200).map(|n| Io::with_data(pattern(9, n * 8, 8))).collect();
    for (n, io) in ios.iter_mut().enumerate() {
        io.start(three.dev(), Request::write(n as i64 * 8));
    }
    for io in &mut ios {
        assert_eq!(io.wait().error, None);
    }
    bench.machine.faults().reset();
    same(&on_disk(&disk, 100, 1600), &pattern(9, 0, 1600), "200 page-outs");
    bench.end();
}

#[test]
fn a_flush_and_a_discard_come_as_jobs() {
    let bench = bench();
    let disk = bench.disk("wd0", 4000);
    fill(&disk, 4);
    let device = bench.device("d", &table(3000));
    let before = disk.counters().flushes;
    let file = bench.raw(device);
    file.ioctl(DIOCCACHESYNC as u64, &mut 0i32).unwrap();
    assert_eq!(disk.counters().flushes, before + 1);
    disk.fail_ioctl(DIOCCACHESYNC as u64, Some(Errno::EIO));
    assert_eq!(file.ioctl(DIOCCACHESYNC as u64, &mut 0i32), Err(Errno::EIO));
    drop(file);
    bench.end();
}

/// A device, and reads of it that wait in its lanes.
fn waiting(bench: &Bench) -> (common::Mapped, Vec<Io>) {
    // So long that nothing would go by itself before the test gives up.
    let long = "/dev/wd0 0 100000000";
    let device = bench.device("d", &format!("0 3000 delay {long} {long} {long}"));
    let mut ios: Vec<Io> = (0..50).map(|_| Io::new(512)).collect();
    for io in &mut ios {
        io.start(device.dev(), Request::read(0));
    }
    (device, ios)
}

#[test]
fn removal_by_force_ends_what_waits() {
    let bench = bench();
    let _disk = bench.disk("wd0", 4000);
    let (device, mut ios) = waiting(&bench);
    bench.machine.detach_device(&format!("dm{}", device.minor), 1).unwrap();
    for io in &mut ios {
        // The delay is cut short; what had no number of a job yet finds the device gone.
        assert!(matches!(io.wait().error, None | Some(Errno::ENXIO)));
    }
    bench.end();
}

#[test]
fn a_suspend_lets_all_go_that_wait() {
    let bench = bench();
    let _disk = bench.disk("wd0", 4000);
    let (_, mut ios) = waiting(&bench);
    bench.on("suspend", "d").unwrap();
    for io in &mut ios {
        assert_eq!(io.wait().error, None);
    }
    bench.on("resume", "d").unwrap();
    bench.end();
}

#[test]
fn threads_that_do_not_start_are_an_error_and_nothing_else() {
    let bench = bench();
    let _disk = bench.disk("wd0", 4000);
    bench.create("d");
    for call in 1..=2 {
        bench.machine.faults().fail(dm_host::fault::Site::Kthread, call);
        assert_eq!(bench.reload("d", &table(3000)).unwrap_err(), Errno::EAGAIN);
        bench.machine.faults().reset();
    }
    assert_eq!(bench.info("d", "flags") & u64::from(flags::INACTIVE_PRESENT), 0);
    bench.load("d", &table(3000)).unwrap();
    bench.end();
}

#[test]
fn several_cpus_share_a_line() {
    let bench = Bench::with(Config { ncpu: 4, ..Config::default() });
    let _disk = bench.disk("wd0", 4000);
    let device = bench.device("d", &table(2000));
    let node = bench.machine.open(Node::Block(device.dev()), Flags::READ_WRITE).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let threads = load(&bench, device.dev(), &stop);
    while dm_host::callout::ticks() < 20 {
        std::thread::yield_now();
    }
    stop.store(true, Ordering::Relaxed);
    assert!(threads.into_iter().map(|t| t.join()).sum::<u64>() > 0);
    drop(node);
    bench.end();
}

/// A component's d_strategy may sleep: vnd(4)'s does for some files.
#[test]
fn what_waits_for_a_number_is_sent_by_a_thread() {
    let bench = bench();
    let disks = ["wd0", "wd1"].map(|name| bench.disk(name, 8000));
    let table = "0 8000 mirror core 2 8 nosync 2 /dev/wd0 0 /dev/wd1 0";
    let device = bench.device("d", table);
    disks[1].sleep_in_strategy();
    disks[0].hold();
    // The first have all numbers. The end of each, in a soft interrupt, lets another go on.
    let mut ios: Vec<Io> = (0..300).map(|_| Io::new(SECTOR)).collect();
    for (n, io) in ios.iter_mut().enumerate() {
        io.start(device.dev(), Request::write(n as i64 * 8));
    }
    disks[0].release();
    ios.iter_mut().for_each(|io| assert_eq!(io.wait().error, None));
    drop(ios);
    bench.end();
}

#[test]
fn what_waits_for_a_number_goes_on_one_after_the_other() {
    const WRITES: usize = 20_000;
    let bench = bench();
    let disks = ["wd0", "wd1", "wd2"].map(|name| bench.disk(name, 8000));
    // The first leg's first sectors lie on a disk that answers late, all others on disks that answer at once.
    let leg = bench.device("leg", "0 512 linear /dev/wd0 0\n512 7488 linear /dev/wd1 0");
    let table = format!("0 8000 mirror core 2 8 nosync 2 169:{} 0 /dev/wd2 0", leg.minor);
    let device = bench.device("d", &table);
    disks[0].hold();
    // The first writes have all the numbers. When one of them is over, each of the others is over as soon as it is
    // sent: were it sent from where the one before it ends, so many would not fit on a stack.
    let mut ios: Vec<Io> = (0..WRITES).map(|_| Io::new(SECTOR)).collect();
    for (n, io) in ios.iter_mut().enumerate() {
        let block = if n < 64 { n } else { 64 + n % 900 };
        io.start(device.dev(), Request::write(block as i64 * 8));
    }
    disks[0].release();
    ios.iter_mut().for_each(|io| assert_eq!(io.wait().error, None));
    drop(ios);
    bench.end();
}
