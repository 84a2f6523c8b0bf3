// SPDX-License-Identifier: BSD-2-Clause

//! Snapshots in the hosted kernel: the origin's moment, what copies cost, full and broken stores, tables exchanged, memory.

mod common;

use common::data::{
    Random as Rng, SECTOR, fill, on_disk, pattern, same, strategy_read, strategy_write,
};
use common::{Bench, Mapped, lines};
use dm_core::testing::Request as Command;
use dm_host::netbsd::{DIOCGPARTINFO, DIOCGWEDGEINFO};
use dm_host::{Disk, Errno, Io, Request};

/// Sectors of the origin, and of a store with room for all of it.
const LENGTH: u64 = 3200;
const ROOM: u64 = 4000;

struct Snapshots {
    bench: Bench,
    origin: Disk,
    store: Disk,
    device: Mapped,
    snapshot: Mapped,
}

impl Snapshots {
    /// An origin `o` with content, and a snapshot `s` of it with a store of so many sectors.
    fn new(room: u64, words: &str) -> Snapshots {
        let bench = Bench::new();
        let (origin, store) = (bench.disk("wd0", LENGTH), bench.disk("wd1", room));
        fill(&origin, 1);
        let device = bench.device("o", &format!("0 {LENGTH} snapshot-origin /dev/wd0"));
        let snapshot = bench.device("s", &Self::table(words));
        Snapshots { bench, origin, store, device, snapshot }
    }

    fn table(words: &str) -> String {
        format!("0 {LENGTH} snapshot /dev/wd0 /dev/wd1 {words}")
    }

    fn status(&self) -> String {
        lines(&self.bench.send(&Command::on("table", "s")).unwrap()).concat()
    }

    fn shows_its_moment(&self) {
        for sector in (0..LENGTH).step_by(64) {
            let (result, data) = strategy_read(self.snapshot.dev(), sector, 64);
            assert_eq!(result.error, None, "{sector}");
            same(&data, &pattern(1, sector, 64), "the snapshot");
        }
    }

    /// Writes so many stretches of the origin, 32 at a time.
    fn write_all(&self, places: &[u64], sectors: u64) {
        let data = || vec![3; sectors as usize * SECTOR];
        let mut ios: Vec<Io> = (0..32).map(|_| Io::with_data(data())).collect();
        for (round, at) in places.iter().enumerate() {
            let io = &mut ios[round % 32];
            if round >= 32 {
                assert_eq!(io.wait().error, None);
            }
            io.start(self.device.dev(), Request::write(*at as i64));
        }
        ios.iter_mut().take(places.len()).for_each(|io| assert_eq!(io.wait().error, None));
    }
}

#[test]
fn a_snapshot_shows_its_moment() {
    for words in ["P 8", "P 1", "PO 128", "N 16"] {
        let it = Snapshots::new(2 * ROOM, words);
        it.shows_its_moment();
        let mut rng = Rng(7);
        for round in 0..200 {
            let (sector, sectors) = (rng.below(LENGTH - 70), 1 + rng.below(64));
            let written = strategy_write(it.device.dev(), sector, &pattern(round, sector, sectors));
            assert_eq!(written.error, None);
            same(&on_disk(&it.origin, sector, sectors), &pattern(round, sector, sectors), words);
        }
        it.shows_its_moment();
        // Its own writes are its own.
        let before = on_disk(&it.origin, 0, LENGTH);
        for (sector, sectors) in [(0, 8), (100, 64), (777, 1), (LENGTH - 3, 3)] {
            let written = strategy_write(it.snapshot.dev(), sector, &pattern(9, sector, sectors));
            assert_eq!(written.error, None);
            let (_, data) = strategy_read(it.snapshot.dev(), sector, sectors);
            same(&data, &pattern(9, sector, sectors), "what was written to it");
        }
        same(&on_disk(&it.origin, 0, LENGTH), &before, "the origin");
        it.bench.end();
    }
}

#[test]
fn copies_share_their_commits() {
    let it = Snapshots::new(ROOM, "P 8");
    let bench = &it.bench;
    let (big, store) = (bench.disk("wd2", 8000), bench.disk("wd3", 9000));
    let device = bench.device("p", "0 8000 snapshot-origin /dev/wd2");
    bench.device("q", "0 8000 snapshot /dev/wd2 /dev/wd3 P 8");
    let ios = |disk: &Disk| disk.counters().reads + disk.counters().writes;
    let (before, flushes) = (ios(&big) + ios(&store), store.counters().flushes);
    let mut all: Vec<Io> = (0..32).map(|_| Io::with_data(vec![3; 8 * SECTOR])).collect();
    for round in 0..32i64 {
        // 32 at a time, all of which are there before the first is copied.
        big.hold();
        let ios = all.iter_mut().zip(round * 32..1000).map(|(io, chunk)| {
            io.start(device.dev(), Request::write(chunk * 8));
            io
        });
        let ios: Vec<&mut Io> = ios.collect();
        big.release();
        ios.into_iter().for_each(|io| assert_eq!(io.wait().error, None));
    }
    drop(all);
    let all = ios(&big) + ios(&store) - before;
    let flushes = store.counters().flushes - flushes;
    println!("1,000 first writes of 4 KiB at depth 32: {all} component I/Os, {flushes} flushes");
    assert!(all <= 3100, "{all} component I/Os");
    it.bench.end();
}

#[test]
fn a_full_store_loses_the_snapshot_and_not_the_origin() {
    for (words, status) in [("P 8", "Invalid"), ("PO 8", "Invalid"), ("N 8", "Invalid")] {
        let it = Snapshots::new(80, words);
        let event = it.bench.info("s", "event_nr");
        it.write_all(&(0..400).map(|n| n * 8).collect::<Vec<u64>>(), 3);
        assert!(it.status().ends_with(status), "{words}: {}", it.status());
        assert!(it.bench.info("s", "event_nr") > event, "it is told");
        let (result, _) = strategy_read(it.snapshot.dev(), 0, 8);
        assert_eq!(result.error, Some(Errno::EIO));
        assert_eq!(strategy_write(it.snapshot.dev(), 0, &[0; SECTOR]).error, Some(Errno::EIO));
        if words != "N 8" {
            assert_eq!(on_disk(&it.store, 0, 1)[..8], *b"SnAp\0\0\0\0", "the store says so");
        }
        it.bench.end();
    }
}

#[test]
fn a_store_that_overflows_fails_writes_of_the_snapshot() {
    let it = Snapshots::new(8 * 6, "PO 8");
    for chunk in 0..4 {
        let written = strategy_write(it.snapshot.dev(), chunk * 8, &pattern(9, chunk * 8, 8));
        assert_eq!(written.error, None, "{chunk}");
    }
    assert_eq!(strategy_write(it.snapshot.dev(), 800, &[0; SECTOR]).error, Some(Errno::EIO));
    assert!(it.status().ends_with("Overflow"), "{}", it.status());
    let (result, data) = strategy_read(it.snapshot.dev(), 0, 40);
    assert_eq!(result.error, None);
    same(&data, &[pattern(9, 0, 32), pattern(1, 32, 8)].concat(), "reads go on");
    it.bench.end();
}

#[test]
fn discards_leave_moments_alone() {
    let it = Snapshots::new(ROOM, "P 8");
    let origin = it.bench.raw(it.device);
    let refused = Err(Errno::EOPNOTSUPP);
    assert_eq!(origin.fdiscard(0, 64 * 512), refused, "it would have to be copied out");
    assert_eq!(strategy_write(it.snapshot.dev(), 0, &pattern(1, 0, 8)).error, None);
    assert_eq!(it.bench.raw(it.snapshot).fdiscard(0, 64 * 512), refused);
    it.shows_its_moment();
    let before = on_disk(&it.origin, 0, LENGTH);
    // With the feature a chunk that was copied or written reads as zeroes, and others stay.
    it.bench.reload("s", &Snapshots::table("P 8 1 discard_zeroes_cow")).unwrap();
    it.bench.on("resume", "s").unwrap();
    assert_eq!(strategy_write(it.snapshot.dev(), 16, &pattern(1, 16, 8)).error, None);
    it.bench.raw(it.snapshot).fdiscard(4 * 512, 28 * 512).unwrap();
    let (_, data) = strategy_read(it.snapshot.dev(), 0, 64);
    let zeroes = vec![0; 8 * SECTOR];
    same(&data, &[pattern(1, 0, 16), zeroes, pattern(1, 24, 40)].concat(), "a chunk of zeroes");
    same(&on_disk(&it.origin, 0, LENGTH), &before, "the origin");
    drop(origin);
    it.bench.end();
}

#[test]
fn disks_that_fail_lose_the_snapshot() {
    for disk in 0..2 {
        let it = Snapshots::new(ROOM, "P 8");
        match disk {
            0 => it.origin.fail_range(1001..1002, Errno::EIO),
            _ => it.store.fail_range(16..ROOM, Errno::EIO),
        }
        assert_eq!(strategy_write(it.device.dev(), 1000, &[0; SECTOR]).error, None);
        assert!(it.status().ends_with("Invalid"), "{}", it.status());
        assert_eq!(on_disk(&it.store, 0, 1)[..8], *b"SnAp\0\0\0\0", "the store says so");
        it.bench.end();
    }
}

/// A store's header.
fn header(words: [u32; 4]) -> Vec<u8> {
    let mut sector = vec![0; SECTOR];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    sector[..16].copy_from_slice(&bytes);
    sector
}

const MAGIC: u32 = 0x7041_6e53;

#[test]
fn what_is_no_store_is_refused() {
    let bench = Bench::new();
    let (_origin, store) = (bench.disk("wd0", LENGTH), bench.disk("wd1", ROOM));
    let cases = [
        ([1, 1, 1, 8], Errno::ENXIO),
        ([MAGIC, 1, 2, 8], Errno::EINVAL),
        ([MAGIC, 1, 1, 0], Errno::EINVAL),
        ([MAGIC, 1, 1, 7], Errno::EINVAL),
        ([MAGIC, 1, 1, 1 << 31], Errno::EINVAL),
    ];
    for (words, errno) in cases {
        store.write_at(0, &header(words));
        bench.create("s");
        bench.reload("s", &Snapshots::table("P 8")).unwrap();
        assert_eq!(bench.on("resume", "s").err(), Some(errno), "{words:x?}");
        // Once there is a store, it resumes.
        store.write_at(0, &[0; SECTOR]);
        bench.on("resume", "s").unwrap();
        bench.on("remove", "s").unwrap();
    }
    bench.end();
}

/// Malicious stores are refused or lead to errors, and do nothing else.
#[test]
fn hostile_stores_do_no_harm() {
    for seed in 0..60 {
        let bench = Bench::new();
        let (origin, store) = (bench.disk("wd0", LENGTH), bench.disk("wd1", 1000));
        fill(&origin, 1);
        let mut rng = Rng(seed);
        let chunk = 1 << rng.below(9);
        let mut bytes: Vec<u8> = (0..1000 * SECTOR).map(|_| rng.below(256) as u8).collect();
        for (at, entry) in bytes.chunks_exact_mut(8).enumerate() {
            let value = match (seed % 4, at % 2) {
                (0, _) => continue,
                (1, _) => rng.below(400),
                (2, 0) => u64::MAX - rng.below(3),
                _ => [rng.below(2000), u64::MAX, 1 << 48, 1, 3][rng.below(5) as usize],
            };
            entry.copy_from_slice(&value.to_le_bytes());
        }
        bytes[..SECTOR].copy_from_slice(&header([MAGIC, 1, 1, chunk]));
        store.write_at(0, &bytes);
        let device = bench.device("o", &format!("0 {LENGTH} snapshot-origin /dev/wd0"));
        let snapshot = bench.device("s", &Snapshots::table("P 8"));
        for _ in 0..30 {
            let sector = rng.below(LENGTH - 64);
            let _ = strategy_read(snapshot.dev(), sector, 64);
            let _ = strategy_write(snapshot.dev(), sector, &pattern(5, sector, 3));
            assert_eq!(strategy_write(device.dev(), sector, &pattern(6, sector, 2)).error, None);
        }
        bench.end();
    }
}

#[test]
fn another_table_takes_the_exceptions_over() {
    let it = Snapshots::new(ROOM, "P 8");
    let places: Vec<u64> = (0..300).map(|n| n * 8).collect();
    it.write_all(&places, 5);
    let before = it.status();
    let reads = it.store.counters().reads;
    for _ in 0..3 {
        it.bench.reload("s", &Snapshots::table("P 8")).unwrap();
        it.bench.on("resume", "s").unwrap();
        it.shows_its_moment();
        assert_eq!(it.status(), before);
    }
    // 300 chunks of the store were read each time by us, and nothing else.
    assert!(it.store.counters().reads - reads <= 3 * 300, "the store is not read again");
    // Copies go on while the snapshot is suspended.
    it.bench.on("suspend", "s").unwrap();
    assert_eq!(strategy_write(it.device.dev(), 3000, &[7; SECTOR]).error, None);
    it.bench.on("resume", "s").unwrap();
    it.shows_its_moment();
    // A new machine would read it.
    it.bench.on("remove", "s").unwrap();
    let snapshot = it.bench.device("s", &Snapshots::table("P 0"));
    let it = Snapshots { snapshot, ..it };
    it.shows_its_moment();
    it.bench.end();
}

#[test]
fn a_store_grows_while_it_is_used() {
    let bench = Bench::new();
    let (origin, store) = (bench.disk("wd0", LENGTH), bench.disk("wd1", ROOM));
    fill(&origin, 1);
    let minor = bench.device("c", "0 80 linear /dev/wd1 0").minor;
    let device = bench.device("o", &format!("0 {LENGTH} snapshot-origin /dev/wd0"));
    let table = format!("0 {LENGTH} snapshot /dev/wd0 169:{minor} P 8");
    let snapshot = bench.device("s", &table);
    let it = Snapshots { bench, origin, store, device, snapshot };
    it.write_all(&(0..8).map(|n| n * 8).collect::<Vec<u64>>(), 8);
    assert!(it.status().contains("80/80 16"), "{}", it.status());
    it.bench.reload("c", &format!("0 {ROOM} linear /dev/wd1 0")).unwrap();
    it.bench.on("resume", "c").unwrap();
    it.write_all(&(8..100).map(|n| n * 8).collect::<Vec<u64>>(), 8);
    assert!(it.status().contains(&format!("816/{ROOM} 16")), "{}", it.status());
    it.shows_its_moment();
    it.bench.end();
}

/// A resume asks another driver's device nothing: neither its errors nor what its ioctl waits for are met then.
#[test]
fn a_store_that_does_not_tell_its_size_any_more_is_used_as_it_was() {
    let it = Snapshots::new(ROOM, "P 8");
    for ioctl in [DIOCGPARTINFO, DIOCGWEDGEINFO as _] {
        it.store.fail_ioctl(ioctl as u64, Some(Errno::EIO));
    }
    it.bench.on("suspend", "s").unwrap();
    it.bench.on("resume", "s").unwrap();
    it.write_all(&(0..100).map(|n| n * 8).collect::<Vec<u64>>(), 8);
    assert!(it.status().contains(&format!("816/{ROOM} 16")), "{}", it.status());
    it.shows_its_moment();
    it.bench.end();
}

#[test]
fn a_snapshot_that_goes_ends_what_the_origin_waits_for() {
    for round in 0..20 {
        let it = Snapshots::new(ROOM, "P 8");
        let mut ios: Vec<Io> = (0..40).map(|n| Io::with_data(pattern(5, n * 16, 16))).collect();
        for (n, io) in ios.iter_mut().enumerate() {
            io.start(it.device.dev(), Request::write(n as i64 * 16));
            if n == round {
                it.bench.on("remove", "s").unwrap();
            }
        }
        ios.iter_mut().for_each(|io| assert_eq!(io.wait().error, None));
        drop(ios);
        same(&on_disk(&it.origin, 0, 640), &pattern(5, 0, 640), "the origin");
        it.bench.end();
    }
}

#[test]
fn page_outs_need_no_memory_for_some_hundred_chunks() {
    let it = Snapshots::new(ROOM, "P 8");
    it.bench.machine.faults().exhaust_memory(true);
    it.write_all(&(0..400).map(|n| n * 8).collect::<Vec<u64>>(), 8);
    it.bench.machine.faults().reset();
    it.shows_its_moment();
    it.bench.end();
}

/// Reads that find no nested buffer were counted when they were mapped: they are not any more while they wait, or the
/// origin's writes would wait for ever.
#[test]
fn reads_that_wait_for_memory_are_not_waited_for() {
    let it = Snapshots::new(ROOM, "P 8");
    it.bench.machine.faults().exhaust_memory(true);
    it.origin.hold();
    let sectors = |n: u64| if n.is_multiple_of(2) { 8 } else { 64 };
    let mut reads: Vec<Io> = (0..40).map(|n| Io::new(sectors(n) as usize * SECTOR)).collect();
    for (n, io) in (0..).zip(&mut reads) {
        io.start(it.snapshot.dev(), Request::read(n * 64));
    }
    it.origin.release();
    for (n, io) in (0..).zip(&mut reads) {
        assert_eq!(io.wait().error, None);
        same(io.data(), &pattern(1, n * 64, sectors(n)), "the snapshot");
    }
    let places: Vec<u64> = (0..40).map(|n| n * 64).collect();
    it.write_all(&places, 8);
    it.bench.machine.faults().reset();
    it.shows_its_moment();
    it.bench.end();
}

/// Seconds that this process's threads have had a processor: other work on the machine does not count.
fn processor_time() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let text = |path| std::fs::read_to_string(path).ok();
    let times = threads.filter_map(|thread| text(thread.ok()?.path().join("schedstat")));
    times.map(|text| text.split(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>() / 1e9
}

/// The order in which chunks of the origin were copied.
#[derive(Clone, Copy, Debug)]
enum Copied {
    /// By chance, of so many bits.
    ByChance(u32),
    /// Each other chunk, in order: each is a run.
    EachOther,
    /// All in order: one run.
    InOrder,
}

impl Copied {
    fn chunk(self, at: u64) -> u64 {
        match self {
            Copied::ByChance(bits) => at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits),
            Copied::EachOther => at * 2,
            Copied::InOrder => at,
        }
    }
}

/// A store as it would be after copies, and the processor time to read it.
fn loading(exceptions: u64, copied: Copied) -> (f64, Bench) {
    let bench = Bench::new();
    let sectors = (exceptions + exceptions / 256 + 600) * 8;
    let _origin = bench.disk("wd0", 64);
    let store = bench.disk("wd1", sectors);
    store.write_at(0, &header([MAGIC, 1, 1, 8]));
    let mut left = exceptions;
    for area in 0.. {
        let mut bytes = vec![0u8; 4096];
        for entry in 0..left.min(256) {
            let at = area * 256 + entry;
            let old = copied.chunk(at);
            let new = area * 257 + 2 + entry;
            bytes[entry as usize * 16..][..8].copy_from_slice(&old.to_le_bytes());
            bytes[entry as usize * 16 + 8..][..8].copy_from_slice(&new.to_le_bytes());
        }
        store.write_at((1 + area * 257) * 4096, &bytes);
        match left.checked_sub(256) {
            Some(less) => left = less,
            None => break,
        }
    }
    bench.create("s");
    bench.reload("s", "0 64 snapshot /dev/wd0 /dev/wd1 P 8").unwrap();
    let before = processor_time();
    bench.on("resume", "s").unwrap();
    let seconds = processor_time() - before;
    let status = lines(&bench.send(&Command::on("table", "s")).unwrap()).concat();
    let areas = exceptions / 256 + 1;
    assert!(status.contains(&format!(" {}", (areas + 1) * 8)), "{status}");
    (seconds, bench)
}

#[test]
fn many_exceptions_are_loaded() {
    // A million with optimisation: see the figures in share/doc/tested.md.
    let (all, rounds) = if cfg!(debug_assertions) { (100_000, 1) } else { (1_000_000, 9) };
    for copied in [Copied::ByChance(44), Copied::ByChance(24), Copied::EachOther, Copied::InOrder] {
        let one = |exceptions| {
            let (seconds, bench) = loading(exceptions, copied);
            bench.end();
            seconds
        };
        // One beside the other, which other work on the machine slows alike.
        let times: (Vec<f64>, Vec<f64>) = (0..rounds).map(|_| (one(all / 10), one(all))).unzip();
        let [some, more] = [times.0, times.1].map(|mut times| {
            times.sort_by(f64::total_cmp);
            (times[0], times[rounds / 2])
        });
        println!(
            "{all} exceptions, {copied:?}: {:.3} s of a processor at best, {:.3} in the middle; {:.1} and {:.1} times a tenth's",
            more.0,
            more.1,
            more.0 / some.0,
            more.1 / some.1
        );
    }
}
