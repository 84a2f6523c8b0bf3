// SPDX-License-Identifier: BSD-2-Clause

//! Mirrors in the hosted kernel: data on all legs, legs that fail, the log's writes, recovery.

mod common;

use common::data::{SECTOR, fill, on_disk, pattern, same, strategy_read, strategy_write};
use common::{Bench, Mapped, flags, lines};
use dm_host::netbsd::DIOCCACHESYNC;
use dm_host::{Disk, Errno, Io, Request};

/// Sectors of a region, and of the device.
const REGION: u64 = 16;
const LENGTH: u64 = 3200;

struct Mirror {
    bench: Bench,
    legs: [Disk; 2],
    log: Disk,
    device: Mapped,
}

impl Mirror {
    /// A mirror `m` with a log on a disk. The first leg has content, the second other content, unless the
    /// table says that they are the same.
    fn new(word: &str, features: &str) -> Mirror {
        let bench = Bench::new();
        let legs = [bench.disk("wd0", 4000), bench.disk("wd1", 4000)];
        let log = bench.disk("wd2", 64);
        fill(&legs[0], 1);
        fill(&legs[1], if word.is_empty() { 2 } else { 1 });
        let args = if word.is_empty() { 2 } else { 3 };
        let log_args = format!("disk {args} /dev/wd2 {REGION}{word}");
        let table = format!("0 {LENGTH} mirror {log_args} 2 /dev/wd0 0 /dev/wd1 0{features}");
        let device = bench.device("m", &table);
        Mirror { bench, legs, log, device }
    }

    fn same(features: &str) -> Mirror {
        Mirror::new(" nosync", features)
    }

    fn status(&self) -> String {
        let reply = self.bench.send(&dm_core::testing::Request::on("table", "m")).unwrap();
        lines(&reply).concat()
    }

    /// Waits until the status has this: time passes only here.
    fn until(&self, what: &str) {
        self.until_it(|status| status.contains(what));
    }

    fn until_it(&self, is: impl Fn(&str) -> bool) {
        for _ in 0..1_000_000 {
            if is(&self.status()) {
                return;
            }
            self.bench.machine.advance_ticks(1);
            std::thread::yield_now();
        }
        panic!("it stays {}", self.status());
    }

    /// Resumes with noflush: what waits goes by the table that was loaded.
    fn resume_noflush(&self) {
        let resume = dm_core::testing::Request::on("resume", "m").flags(flags::NOFLUSH);
        self.bench.send(&resume).unwrap();
    }

    /// Suspends with noflush and resumes: what waits goes by the table that was loaded, or this one again.
    fn swap(&self) {
        let suspend = dm_core::testing::Request::on("suspend", "m").flags(flags::NOFLUSH);
        self.bench.send(&suspend).unwrap();
        self.bench.on("resume", "m").unwrap();
    }

    fn write(&self, seed: u64, sector: u64, sectors: u64) -> Option<Errno> {
        strategy_write(self.device.dev(), sector, &pattern(seed, sector, sectors)).error
    }
}

#[test]
fn recovery_makes_the_legs_the_same() {
    let mirror = Mirror::new("", "");
    mirror.until(" 200/200 1 AA 3 disk");
    assert!(mirror.bench.info("m", "event_nr") > 0, "it is told");
    let [first, second] = &mirror.legs;
    same(&on_disk(second, 0, LENGTH), &on_disk(first, 0, LENGTH), "all of the device");
    same(&on_disk(first, 0, LENGTH), &pattern(1, 0, LENGTH), "the first leg is right");
    same(&on_disk(second, LENGTH, 10), &pattern(2, LENGTH, 10), "what is behind");
    mirror.bench.end();
}

#[test]
fn writes_reach_all_legs_and_the_log_before() {
    let mirror = Mirror::same("");
    let before = mirror.log.counters().writes;
    assert_eq!(mirror.write(7, 5, 40), None);
    // Two regions, or three: marked in one write each at most.
    let marks = mirror.log.counters().writes - before;
    assert!((1..=3).contains(&marks), "{marks} writes of the log");
    for leg in &mirror.legs {
        same(&on_disk(leg, 5, 40), &pattern(7, 5, 40), "a leg");
    }
    let bitmap = &on_disk(&mirror.log, 2, 1);
    assert_eq!(bitmap[0], 0b1111_1000, "regions 0 to 2 are marked");
    mirror.bench.on("suspend", "m").unwrap();
    assert_eq!(on_disk(&mirror.log, 2, 1)[0], 0xff, "and no more when it is suspended");
    mirror.bench.end();
}

#[test]
fn marks_are_written_together() {
    let mirror = Mirror::same("");
    let before = mirror.log.counters().writes;
    let mut ios: Vec<Io> = (0..32).map(|_| Io::with_data(vec![3; SECTOR])).collect();
    for round in 0..1000 {
        let io = &mut ios[round % 32];
        if round >= 32 {
            assert_eq!(io.wait().error, None);
        }
        // 100 regions, one after the other.
        let region = (round % 100) as i64;
        io.start(
            mirror.device.dev(),
            Request::write(region * REGION as i64 + (round / 100) as i64),
        );
    }
    ios.iter_mut().for_each(|io| assert_eq!(io.wait().error, None));
    let marks = mirror.log.counters().writes - before;
    println!("1,000 writes at depth 32 to 100 clean regions: {marks} writes of the log");
    assert!(marks <= 110, "{marks} writes of the log");
    drop(ios);
    mirror.bench.end();
}

#[test]
fn marks_far_apart_all_reach_the_log() {
    let bench = Bench::new();
    let (_legs, log) = (bench.disk("wd0", 200_000), bench.disk("wd1", 64));
    let table = "0 100000 mirror disk 3 /dev/wd1 2 nosync 2 /dev/wd0 0 /dev/wd0 100000";
    let device = bench.device("m", table);
    // The bitmap has 1,563 words, of which 1,024 are looked at with the lock held.
    let regions = [49_999u64, 0, 32_768, 32_767, 3_200];
    for (nth, region) in regions.iter().enumerate() {
        assert_eq!(strategy_write(device.dev(), region * 2, &[7; SECTOR]).error, None);
        let log = on_disk(&log, 2, 13);
        let is_marked = |region: u64| log[region as usize / 8] >> (region % 8) & 1 == 0;
        for (at, region) in regions.iter().enumerate() {
            assert_eq!(is_marked(*region), at <= nth, "region {region} after write {nth}");
        }
    }
    bench.end();
}

#[test]
fn what_a_leg_cannot_read_another_can() {
    let mirror = Mirror::same("");
    mirror.legs[0].fail_range(100..110, Errno::EIO);
    mirror.legs[1].fail_range(2070..2080, Errno::EIO);
    for (sector, sectors) in [(96, 8), (90, 30), (2064, 16), (0, 128), (2048, 128), (105, 1)] {
        let (result, data) = strategy_read(mirror.device.dev(), sector, sectors);
        assert_eq!(result.error, None, "{sector}+{sectors}");
        same(&data, &pattern(1, sector, sectors), "what was read");
    }
    assert!(mirror.status().contains(" 200/200 1 RR 3 disk"), "{}", mirror.status());
    // A sector that both legs fail.
    mirror.legs[1].fail_range(100..110, Errno::ENXIO);
    let (result, _) = strategy_read(mirror.device.dev(), 96, 8);
    assert!(result.error.is_some());
    mirror.bench.end();
}

#[test]
fn a_read_over_other_lines_is_tried_again_too() {
    let bench = Bench::new();
    let legs = [bench.disk("wd0", 4000), bench.disk("wd1", 4000)];
    legs.iter().for_each(|leg| fill(leg, 1));
    let mirror = "mirror core 2 16 nosync 2 /dev/wd0 0 /dev/wd1 0";
    let table = format!("0 8 linear /dev/wd0 0\n8 64 {mirror}\n72 8 zero");
    let device = bench.device("d", &table);
    legs[0].fail_range(30..31, Errno::EIO);
    let (result, data) = strategy_read(device.dev(), 0, 80);
    assert_eq!(result.error, None);
    let parts = [pattern(1, 0, 8), pattern(1, 0, 64), vec![0; 8 * SECTOR]];
    same(&data, &parts.concat(), "three lines");
    // A line that has nothing else to try.
    legs[0].fail_range(4..5, Errno::EIO);
    let (result, _) = strategy_read(device.dev(), 0, 80);
    assert_eq!((result.error, result.count - result.resid), (Some(Errno::EIO), 0));
    bench.end();
}

#[test]
fn writes_that_a_leg_does_not_take_wait_for_the_next_table() {
    let mirror = Mirror::same(" 1 handle_errors");
    mirror.legs[1].fail_range(0..4000, Errno::EIO);
    let event = mirror.bench.info("m", "event_nr");
    let mut held: Vec<Io> = (0..3).map(|n| Io::with_data(pattern(9, n * 100, 4))).collect();
    for (n, io) in held.iter_mut().enumerate() {
        io.start(mirror.device.dev(), Request::write(n as i64 * 100));
    }
    mirror.until(" 197/200 1 AD 3 disk");
    assert!(mirror.bench.info("m", "event_nr") > event, "it is told");
    assert!(held.iter().all(Io::is_busy), "nobody is answered");
    // Others go on, and see what was written.
    let (result, data) = strategy_read(mirror.device.dev(), 100, 4);
    assert_eq!(result.error, None);
    same(&data, &pattern(9, 100, 4), "from the leg that took it");
    mirror.bench.reload("m", &format!("0 {LENGTH} linear /dev/wd0 0")).unwrap();
    mirror.resume_noflush();
    held.iter_mut().for_each(|io| assert_eq!(io.wait().error, None));
    same(&on_disk(&mirror.legs[0], 200, 4), &pattern(9, 200, 4), "what waited");
    drop(held);
    mirror.bench.end();
}

#[test]
fn a_leg_that_comes_back_is_recovered() {
    let mirror = Mirror::same(" 1 handle_errors");
    mirror.legs[0].fail_range(0..4000, Errno::EIO);
    let mut held = Io::with_data(pattern(9, 320, 16));
    held.start(mirror.device.dev(), Request::write(320));
    mirror.until(" 199/200 1 DA 3 disk");
    mirror.legs[0].heal();
    mirror.swap();
    mirror.until(" 200/200 1 AA 3 disk");
    assert_eq!(held.wait().error, None);
    let legs = mirror.legs.each_ref().map(|leg| on_disk(leg, 0, LENGTH));
    same(&legs[0], &legs[1], "all of the device");
    same(&on_disk(&mirror.legs[0], 320, 16), &pattern(9, 320, 16), "what waited");
    drop(held);
    mirror.bench.end();
}

#[test]
fn without_features_a_write_is_done_when_the_source_took_it() {
    let mirror = Mirror::same("");
    mirror.legs[1].fail_range(0..4000, Errno::EIO);
    assert_eq!(mirror.write(3, 0, 16), None);
    assert!(mirror.status().contains(" 199/200 1 AD "), "{}", mirror.status());
    // Data that went to the first leg only must not be read from the second.
    mirror.legs[1].heal();
    for _ in 0..4 {
        same(&strategy_read(mirror.device.dev(), 0, 16).1, &pattern(3, 0, 16), "the source");
    }
    // All gone.
    mirror.legs.iter().for_each(|leg| leg.fail_range(0..4000, Errno::EIO));
    assert_eq!(mirror.write(4, 160, 16), Some(Errno::EIO));
    mirror.bench.end();
}

#[test]
fn a_log_that_fails_holds_what_has_no_mark() {
    let mirror = Mirror::same(" 1 handle_errors");
    assert_eq!(mirror.write(3, 0, 16), None);
    mirror.log.fail_range(0..64, Errno::EIO);
    // Its region has a mark.
    assert_eq!(mirror.write(4, 0, 16), None);
    let mut held = Io::with_data(pattern(5, 160, 16));
    held.start(mirror.device.dev(), Request::write(160));
    mirror.until_it(|status| status.ends_with(" D"));
    assert!(held.is_busy());
    same(&on_disk(&mirror.legs[0], 160, 16), &pattern(1, 160, 16), "it has not begun");
    let core = format!("0 {LENGTH} mirror core 2 {REGION} nosync 2 /dev/wd0 0 /dev/wd1 0");
    mirror.bench.reload("m", &core).unwrap();
    mirror.swap();
    assert_eq!(held.wait().error, None);
    drop(held);
    mirror.bench.end();
}

#[test]
fn a_flush_reaches_every_leg() {
    let mirror = Mirror::same("");
    let flushes = || mirror.legs.each_ref().map(|leg| leg.counters().flushes);
    let (file, before) = (mirror.bench.raw(mirror.device), flushes());
    file.ioctl(DIOCCACHESYNC as u64, &mut 0i32).unwrap();
    assert_eq!(flushes(), before.map(|count| count + 1));
    mirror.legs[1].fail_ioctl(DIOCCACHESYNC as u64, Some(Errno::EIO));
    assert_eq!(mirror.write(3, 0, 16), None);
    // Regions that the leg may have lost are out of sync.
    file.ioctl(DIOCCACHESYNC as u64, &mut 0i32).unwrap();
    assert!(mirror.status().contains(" 199/200 1 AF "), "{}", mirror.status());
    drop(file);
    mirror.bench.end();
}

#[test]
fn page_outs_need_no_memory() {
    let mirror = Mirror::same("");
    mirror.bench.machine.faults().exhaust_memory(true);
    let mut ios: Vec<Io> = (0..200).map(|n| Io::with_data(pattern(9, n * 8, 8))).collect();
    for (n, io) in ios.iter_mut().enumerate() {
        io.start(mirror.device.dev(), Request::write(n as i64 * 8));
    }
    ios.iter_mut().for_each(|io| assert_eq!(io.wait().error, None));
    mirror.bench.machine.faults().reset();
    for leg in &mirror.legs {
        same(&on_disk(leg, 0, 1600), &pattern(9, 0, 1600), "a leg");
    }
    drop(ios);
    mirror.bench.end();
}
