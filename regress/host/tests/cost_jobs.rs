// SPDX-License-Identifier: BSD-2-Clause

//! The memory of targets that serve I/O. There is one test, since it counts the memory of the whole process.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use common::{Bench, flags};
use dm_host::{Io, Request};

/// The driver's heap here is the process's: counts what all threads take and give back.
struct Counting;

static BYTES: AtomicI64 = AtomicI64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size() as i64, Ordering::Relaxed);
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_table_that_serves_io_takes_at_most_64_kib_and_a_job_nothing() {
    let bench = Bench::new();
    bench.disk("wd0", 1000);
    let table = "0 1000 delay /dev/wd0 0 1";
    let device = bench.device("d", table);

    // Threads' stacks are not in it.
    let takes = |table: &str| {
        let before = BYTES.load(Ordering::Relaxed);
        drop(bench.reload("d", table).unwrap());
        let taken = BYTES.load(Ordering::Relaxed) - before;
        drop(bench.on("clear", "d").unwrap());
        taken
    };
    let taken = takes(table);
    println!("a table with a delay: {taken} bytes");
    assert!((8 << 10..=64 << 10).contains(&taken), "{taken} bytes");
    // Two buffers to copy with are the target's own: 64 KiB each.
    bench.disk("wd1", 1000);
    bench.disk("wd2", 100_000);
    let mirror = |region: u32| {
        let legs = "2 /dev/wd2 0 /dev/wd2 50000";
        takes(&format!("0 50000 mirror disk 2 /dev/wd1 {region} {legs}"))
    };
    let few = mirror(32_768);
    let each = (mirror(2) - few) as f64 / 24_998.0;
    println!("a table with a mirror of two legs: {few} bytes, and {each:.2} for each region");
    assert!((128 << 10..=320 << 10).contains(&few), "{few} bytes");
    assert!((0.1..=8.0).contains(&each), "{each} bytes for each region");

    // Verified blocks of the tree, as many as are kept, each with its place in the cache, as
    // `reserve` counts them before: 4 MiB of blocks of 512 bytes, and a place of 40 bytes for each.
    bench.disk("wd3", 300_000);
    let verity = |blocks: u64, options: &str| {
        let (root, salt) = ("0".repeat(64), "00");
        let line = format!(
            "0 {blocks} verity 1 /dev/wd3 /dev/wd3 512 512 {blocks} {} sha256 {root} {salt}{options}",
            blocks + 1
        );
        let before = BYTES.load(Ordering::Relaxed);
        drop(bench.send(&common::reload("d", &line).flags(flags::READONLY)).unwrap());
        let taken = BYTES.load(Ordering::Relaxed) - before;
        drop(bench.on("clear", "d").unwrap());
        taken
    };
    // A tree of 17 blocks has a cache of 24; one of 8,668 blocks one of 8,192.
    let (small, full) = (verity(256, ""), verity(130_000, ""));
    let once = verity(130_000, " 1 check_at_most_once") - full;
    println!("a table with verity: {small} bytes, {full} with a full cache; {once} for its bits");
    // Most of it is what its lanes read into.
    assert!((400 << 10..=640 << 10).contains(&small), "{small} bytes");
    let place = (full - small) as f64 / (8_192.0 - 24.0) - 512.0;
    assert!((8.0..=40.5).contains(&place), "{place} bytes for a place in the cache");
    assert!((16_250..=16_250 + 1024).contains(&once), "{once} bytes for 130,000 bits");

    // More than it has jobs, so that splits wait for their numbers, too.
    let mut ios: Vec<Io> = (0..200).map(|_| Io::new(512)).collect();
    let mut round = || {
        let before = CALLS.load(Ordering::Relaxed);
        ios.iter_mut().for_each(|io| io.start(device.dev(), Request::read(0)));
        // Time stands still until all have come; then lanes that take a job find it late.
        bench.machine.advance_ticks(1);
        for io in &mut ios {
            while io.is_busy() {
                bench.machine.advance_ticks(1);
                std::thread::yield_now();
            }
            assert_eq!(io.wait().error, None);
        }
        CALLS.load(Ordering::Relaxed) - before
    };
    round();
    // The hosted kernel's own queues may grow now and then; one allocation a job would be 200.
    let calls = round();
    assert!(calls < 100, "{calls} allocations in 200 jobs");
    drop(ios);
    bench.end();
}
