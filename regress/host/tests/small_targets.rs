// SPDX-License-Identifier: BSD-2-Clause

//! delay and flakey in the hosted kernel, whose clock moves when a test says so.

mod common;

use common::data::{fill, on_disk, pattern, same, strategy_read, strategy_write};
use common::wait::until;
use common::{Bench, Mapped, lines};
use dm_host::netbsd::{B_MEDIA_FUA, DIOCCACHESYNC};
use dm_host::{Errno, Io, Request};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

fn status(bench: &Bench, name: &str) -> String {
    lines(&bench.on("status", name).unwrap()).remove(0)
}

fn start_read(device: Mapped, sector: u64) -> Io {
    let mut io = Io::new(4096);
    io.start(device.dev(), Request::read(sector as i64));
    io
}

#[test]
fn delay_sends_each_class_on_in_its_order_when_its_time_has_come() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 2000);
    fill(&disk, 1);
    let table = "0 1000 delay /dev/wd0 0 500 /dev/wd0 0 300 /dev/wd0 0 100";
    let device = bench.device("d", table);
    let block = bench.block(device);
    let state = |wanted: &str| {
        let wanted = format!("0 1000 delay {wanted}");
        until(&wanted, || status(&bench, "d") == wanted);
    };
    state("0 0 0");
    let mut reads = [start_read(device, 0), start_read(device, 8)];
    let mut write = Io::with_data(pattern(2, 0, 8));
    write.start(device.dev(), Request::write(16));
    state("2 1 0");
    bench.machine.advance_ticks(20);
    assert!(reads.iter().all(Io::is_busy) && write.is_busy());
    // The write's time comes first.
    bench.machine.advance_ticks(15);
    assert_eq!(write.wait().error, None);
    state("2 0 0");
    assert!(reads.iter().all(Io::is_busy));
    same(&on_disk(&disk, 16, 8), &pattern(2, 0, 8), "the write");
    bench.machine.advance_ticks(20);
    for (io, sector) in reads.iter_mut().zip([0, 8]) {
        assert_eq!(io.wait().error, None);
        same(io.data(), &pattern(1, sector, 8), "a read");
    }
    state("0 0 0");
    // A flush waits, too, and reaches the disk.
    std::thread::scope(|scope| {
        let raw = bench.raw(device);
        let flush = scope.spawn(move || raw.ioctl(DIOCCACHESYNC as u64, &mut 0i32));
        state("0 0 1");
        assert_eq!(disk.counters().flushes, 0);
        bench.machine.advance_ticks(11);
        assert_eq!(flush.join().unwrap(), Ok(()));
        assert_eq!(disk.counters().flushes, 1);
    });
    drop(block);
    bench.on("remove", "d").unwrap();
    bench.end();
}

#[test]
fn a_suspend_lets_all_go_at_once() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 2000);
    fill(&disk, 1);
    let device = bench.device("d", "0 1000 delay /dev/wd0 0 3600000");
    let block = bench.block(device);
    // More than there are jobs, so that some wait outside.
    let mut reads: Vec<Io> = (0..100).map(|n| start_read(device, n * 8)).collect();
    until("jobs wait", || status(&bench, "d") == "0 1000 delay 64 0 0");
    bench.on("suspend", "d").unwrap();
    for (io, n) in reads.iter_mut().zip(0..) {
        assert_eq!(io.wait().error, None);
        same(io.data(), &pattern(1, n * 8, 8), "a read");
    }
    // A read that comes now is held, and meets the next table.
    let mut held = start_read(device, 0);
    bench.reload("d", "0 1000 linear /dev/wd0 8").unwrap();
    bench.on("resume", "d").unwrap();
    assert_eq!(held.wait().error, None);
    same(held.data(), &pattern(1, 8, 8), "read by the next table");
    drop(block);
    bench.on("remove", "d").unwrap();
    bench.end();
}

#[test]
fn a_delay_of_nothing_has_no_threads() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 2000);
    fill(&disk, 1);
    let device = bench.device("d", "0 1000 delay /dev/wd0 5 0");
    let block = bench.block(device);
    let (result, data) = strategy_read(device.dev(), 10, 8);
    assert_eq!(result.error, None);
    same(&data, &pattern(1, 15, 8), "a read");
    drop(block);
    bench.on("remove", "d").unwrap();
    bench.end();
}

/// The results of a read and a write of sectors 8 to 15, and the content of the disk afterwards.
fn tries(bench: &Bench, device: Mapped) -> (Option<Errno>, Option<Errno>, Result<(), Errno>) {
    let read = strategy_read(device.dev(), 8, 8).0.error;
    let write = strategy_write(device.dev(), 8, &pattern(7, 8, 8)).error;
    (read, write, bench.raw(device).ioctl(DIOCCACHESYNC as u64, &mut 0i32))
}

#[test]
fn flakey_is_good_and_bad_in_turn() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 2000);
    fill(&disk, 1);
    for (features, bad) in [
        ("", (Some(Errno::EIO), Some(Errno::EIO), Err(Errno::EIO))),
        ("1 error_reads", (Some(Errno::EIO), None, Ok(()))),
        ("1 error_writes", (None, Some(Errno::EIO), Err(Errno::EIO))),
        ("1 drop_writes", (None, None, Ok(()))),
    ] {
        let device = bench.device("d", &format!("0 1000 flakey /dev/wd0 0 3 2 {features}"));
        let block = bench.block(device);
        for _ in 0..3 {
            assert_eq!(tries(&bench, device), (None, None, Ok(())), "{features}");
            same(&on_disk(&disk, 8, 8), &pattern(7, 8, 8), "a good write");
            bench.machine.advance_ticks(299);
            assert_eq!(tries(&bench, device), (None, None, Ok(())), "{features}");
            bench.machine.advance_ticks(1);
            disk.write_at(8 * 512, &pattern(1, 8, 8));
            assert_eq!(tries(&bench, device), bad, "{features}");
            let kept = if features == "1 error_reads" { 7 } else { 1 };
            same(&on_disk(&disk, 8, 8), &pattern(kept, 8, 8), features);
            bench.machine.advance_ticks(200);
        }
        drop(block);
        bench.on("remove", "d").unwrap();
    }
    bench.end();
}

#[test]
fn flakey_changes_data_and_never_the_senders() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 2000);
    let block_of = |features: &str| {
        fill(&disk, 1);
        let device = bench.device("d", &format!("0 1000 flakey /dev/wd0 100 0 1 {features}"));
        let block = bench.block(device);
        (device, block)
    };
    // Byte 600 of an I/O, counted from 1, is 0x5a.
    let corrupted = |mut data: Vec<u8>| {
        data[599] = 0x5a;
        data
    };
    let (device, block) = block_of("5 corrupt_bio_byte 600 r 90 0");
    let (result, data) = strategy_read(device.dev(), 0, 16);
    assert_eq!(result.error, None);
    same(&data, &corrupted(pattern(1, 100, 16)), "a read");
    // One that is shorter is as it was, and so are writes.
    same(&strategy_read(device.dev(), 0, 1).1, &pattern(1, 100, 1), "a short read");
    assert_eq!(strategy_write(device.dev(), 0, &pattern(2, 0, 16)).error, None);
    same(&on_disk(&disk, 100, 16), &pattern(2, 0, 16), "a write");
    drop(block);
    bench.on("remove", "d").unwrap();
    let (device, block) = block_of("5 corrupt_bio_byte 600 w 90 1");
    let mut io = Io::with_data(pattern(3, 0, 16));
    assert_eq!(io.run(device.dev(), Request::write(8)).error, None);
    same(io.data(), &pattern(3, 0, 16), "the sender's data");
    same(&on_disk(&disk, 108, 16), &corrupted(pattern(3, 0, 16)), "a write");
    same(&on_disk(&disk, 100, 8), &pattern(1, 100, 8), "before it");
    same(&on_disk(&disk, 124, 8), &pattern(1, 124, 8), "behind it");
    drop(block);
    bench.on("remove", "d").unwrap();
    // Only writes that must be on stable storage.
    let (device, block) = block_of("5 corrupt_bio_byte 600 w 90 131072");
    assert_eq!(strategy_write(device.dev(), 0, &pattern(4, 0, 16)).error, None);
    same(&on_disk(&disk, 100, 16), &pattern(4, 0, 16), "a write");
    let mut io = Io::with_data(pattern(4, 0, 16));
    let fua = Request::write(0).flags(B_MEDIA_FUA as u32);
    assert_eq!(io.run(device.dev(), fua).error, None);
    same(&on_disk(&disk, 100, 16), &corrupted(pattern(4, 0, 16)), "a write with B_MEDIA_FUA");
    drop(block);
    bench.on("remove", "d").unwrap();
    // By chance, which is a certainty here: one byte in every I/O, and not always the same.
    let (device, block) =
        block_of("4 random_read_corrupt 1000000000 random_write_corrupt 1000000000");
    let differing =
        |a: &[u8], b: &[u8]| (0..a.len()).filter(|at| a[*at] != b[*at]).collect::<Vec<_>>();
    let mut places = Vec::new();
    for _ in 0..20 {
        let (result, data) = strategy_read(device.dev(), 0, 16);
        assert_eq!(result.error, None);
        places.push(differing(&data, &pattern(1, 100, 16)));
        assert_eq!(strategy_write(device.dev(), 200, &pattern(5, 0, 16)).error, None);
        places.push(differing(&on_disk(&disk, 300, 16), &pattern(5, 0, 16)));
    }
    // A byte may be changed to what it was.
    assert!(places.iter().all(|places| places.len() <= 1));
    places.retain(|places| !places.is_empty());
    assert!(places.len() > 30, "{places:?}");
    places.dedup();
    assert!(places.len() > 20, "{places:?}");
    drop(block);
    bench.on("remove", "d").unwrap();
    bench.end();
}
