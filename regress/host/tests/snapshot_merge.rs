// SPDX-License-Identifier: BSD-2-Clause

//! Snapshots that are merged in the hosted kernel: content and disks, writes meanwhile, other snapshots, tables
//! exchanged, disks that fail, malicious stores.

mod common;

use common::data::{
    Random as Rng, SECTOR, fill, on_disk, pattern, same, strategy_read, strategy_write,
};
use common::wait::until;
use common::{Bench, Mapped, lines};
use dm_core::testing::Request as Command;
use dm_host::{Disk, Errno, Io, Request};

/// Sectors of the origin, and of a store with room for all of it.
const LENGTH: u64 = 3200;
const ROOM: u64 = 4000;

struct Merge {
    bench: Bench,
    origin: Disk,
    store: Disk,
    /// The device that stands for the origin.
    device: Mapped,
    /// The content that the device is to show.
    shown: Vec<u8>,
}

impl Merge {
    /// An origin `o`, and a snapshot `s` of it with a store of chunks of 4 KiB, after many writes of both.
    fn new(seed: u64) -> Merge {
        let bench = Bench::new();
        let (origin, store) = (bench.disk("wd0", LENGTH), bench.disk("wd1", ROOM));
        fill(&origin, 1);
        let device = bench.device("o", &format!("0 {LENGTH} snapshot-origin /dev/wd0"));
        let snapshot = bench.device("s", &format!("0 {LENGTH} snapshot /dev/wd0 /dev/wd1 P 8"));
        let mut shown = pattern(1, 0, LENGTH);
        let mut rng = Rng(seed);
        for round in 0..60 {
            let (sector, sectors) = (rng.below(LENGTH - 70), 1 + rng.below(64));
            let data = pattern(100 + round, sector, sectors);
            let to = if round % 3 == 0 { snapshot } else { device };
            assert_eq!(strategy_write(to.dev(), sector, &data).error, None);
            if round % 3 == 0 {
                shown[sector as usize * SECTOR..][..data.len()].copy_from_slice(&data);
            }
        }
        Merge { bench, origin, store, device, shown }
    }

    fn table(words: &str) -> String {
        format!("0 {LENGTH} snapshot-merge /dev/wd0 /dev/wd1 {words}")
    }

    /// Begins to merge, in the order of Linux's lvm(8).
    fn begin(&self) {
        self.begin_when(|| ());
    }

    /// Begins to merge, and calls `ready` when the tables are loaded.
    fn begin_when(&self, ready: impl FnOnce()) {
        self.bench.reload("o", &Merge::table("P 8")).unwrap();
        self.bench.reload("s", &format!("0 {LENGTH} error")).unwrap();
        self.bench.on("suspend", "o").unwrap();
        self.bench.on("suspend", "s").unwrap();
        ready();
        self.bench.on("resume", "o").unwrap();
        self.bench.on("resume", "s").unwrap();
    }

    fn status(&self) -> String {
        lines(&self.bench.send(&Command::on("table", "o")).unwrap()).concat()
    }

    fn ends(&self) {
        until("all is merged", || self.status().ends_with(&format!(" 16/{ROOM} 16")));
        assert!(on_disk(&self.store, 8, 8).iter().all(|byte| *byte == 0), "its entries are gone");
        same(&on_disk(&self.origin, 0, LENGTH), &self.shown, "the origin's disk");
        self.shows();
    }

    fn shows(&self) {
        for sector in (0..LENGTH).step_by(64) {
            let (result, data) = strategy_read(self.device.dev(), sector, 64);
            assert_eq!(result.error, None, "{sector}");
            let at = sector as usize * SECTOR;
            same(&data, &self.shown[at..at + data.len()], "the device");
        }
    }

    fn write(&mut self, sector: u64, data: &[u8]) {
        assert_eq!(strategy_write(self.device.dev(), sector, data).error, None, "{sector}");
        self.shown[sector as usize * SECTOR..][..data.len()].copy_from_slice(data);
    }
}

#[test]
fn a_snapshot_becomes_its_origins_content() {
    for seed in 0..4 {
        let mut it = Merge::new(seed);
        let event = it.bench.info("o", "event_nr");
        // Nothing is merged before somebody has looked and written.
        it.begin_when(|| it.origin.hold());
        it.origin.release();
        let mut rng = Rng(seed + 50);
        for round in 0..60 {
            let (sector, sectors) = (rng.below(LENGTH - 70), 1 + rng.below(64));
            it.write(sector, &pattern(200 + round, sector, sectors));
        }
        it.shows();
        it.ends();
        until("it is told", || it.bench.info("o", "event_nr") == event + 1);
        it.write(77, &pattern(300, 77, 20));
        it.ends();
        assert_eq!(it.bench.raw(it.device).fdiscard(0, 64 * 512), Err(Errno::EOPNOTSUPP));
        it.bench.end();
    }
}

#[test]
fn a_write_waits_while_its_chunk_is_merged() {
    let mut it = Merge::new(9);
    // One chunk, the last of the store.
    it.bench.on("remove", "s").unwrap();
    it.store.write_at(0, &vec![0; 16 * SECTOR]);
    let snapshot = it.bench.device("s", &format!("0 {LENGTH} snapshot /dev/wd0 /dev/wd1 P 8"));
    assert_eq!(strategy_write(snapshot.dev(), 80, &pattern(5, 80, 8)).error, None);
    it.shown = on_disk(&it.origin, 0, LENGTH);
    it.shown[80 * SECTOR..88 * SECTOR].copy_from_slice(&pattern(5, 80, 8));
    let writes = it.origin.counters().writes;
    it.begin_when(|| it.origin.hold());
    // Held on its way to the origin; what is read comes from the store.
    let (result, data) = strategy_read(it.device.dev(), 80, 8);
    assert_eq!(result.error, None);
    same(&data, &pattern(5, 80, 8), "a chunk that is being merged");
    let mut io = Io::with_data(pattern(6, 82, 2));
    io.start(it.device.dev(), Request::write(82));
    it.origin.release();
    assert_eq!(io.wait().error, None);
    it.shown[82 * SECTOR..84 * SECTOR].copy_from_slice(&pattern(6, 82, 2));
    it.ends();
    assert!(it.origin.counters().writes > writes);
    drop(io);
    it.bench.end();
}

#[test]
fn other_snapshots_keep_their_moment() {
    for seed in 0..3 {
        let mut it = Merge::new(20 + seed);
        let moment = on_disk(&it.origin, 0, LENGTH);
        let _store = it.bench.disk("wd2", 2 * ROOM);
        let chunk = [1, 8, 64][seed as usize];
        let other =
            it.bench.device("t", &format!("0 {LENGTH} snapshot /dev/wd0 /dev/wd2 P {chunk}"));
        it.begin();
        let mut rng = Rng(seed);
        for round in 0..40 {
            let (sector, sectors) = (rng.below(LENGTH - 70), 1 + rng.below(64));
            it.write(sector, &pattern(400 + round, sector, sectors));
        }
        it.ends();
        for sector in (0..LENGTH).step_by(64) {
            let (result, data) = strategy_read(other.dev(), sector, 64);
            assert_eq!(result.error, None);
            let at = sector as usize * SECTOR;
            same(&data, &moment[at..at + data.len()], "the other snapshot");
        }
        it.bench.end();
    }
}

/// A full store of another snapshot loses that one, and holds nothing up.
#[test]
fn another_snapshot_that_becomes_full_is_lost() {
    let it = Merge::new(30);
    let _store = it.bench.disk("wd2", 40);
    it.bench.device("t", &format!("0 {LENGTH} snapshot /dev/wd0 /dev/wd2 P 8"));
    it.begin();
    it.ends();
    let status = lines(&it.bench.send(&Command::on("table", "t")).unwrap()).concat();
    assert!(status.ends_with("Invalid"), "{status}");
    it.bench.end();
}

#[test]
fn merging_goes_on_with_another_table_and_a_new_machine() {
    for seed in 0..6 {
        let mut it = Merge::new(40 + seed);
        it.begin();
        let mut rng = Rng(seed);
        for round in 0..12 {
            let words = ["P 8", "PO 16", "P 0"][round % 3];
            let kind = ["merge", "merge", ""][rng.below(3) as usize];
            let kind = if kind.is_empty() { "snapshot" } else { "snapshot-merge" };
            it.bench.reload("o", &format!("0 {LENGTH} {kind} /dev/wd0 /dev/wd1 {words}")).unwrap();
            if rng.below(2) == 0 {
                it.bench.on("suspend", "o").unwrap();
            }
            it.bench.on("resume", "o").unwrap();
            let sector = rng.below(LENGTH - 8);
            it.write(sector, &pattern(500 + round as u64, sector, 8));
            it.shows();
        }
        // The disks have everything: a new device shows the same.
        it.bench.on("remove", "o").unwrap();
        it.device = it.bench.device("o", &Merge::table("P 8"));
        it.shows();
        it.ends();
        it.bench.end();
    }
}

#[test]
fn disks_that_fail_stop_merging_and_lose_nothing() {
    for disk in 0..2 {
        let mut it = Merge::new(60 + disk);
        let event = it.bench.info("o", "event_nr");
        // A chunk in the middle of the store; or one of the origin that is merged.
        let disks = [it.store.clone(), it.origin.clone()];
        let bad = if disk == 0 { 160..161 } else { 0..LENGTH };
        disks[disk as usize].fail_range(bad, Errno::EIO);
        it.begin();
        until("it is told", || it.bench.info("o", "event_nr") > event);
        assert!(it.status().ends_with(" Merge failed"), "{}", it.status());
        it.bench.on("suspend", "o").unwrap();
        it.bench.on("resume", "o").unwrap();
        until("it is told again", || it.bench.info("o", "event_nr") > event + 1);
        disks[disk as usize].heal();
        it.shows();
        it.write(100, &pattern(700, 100, 30));
        it.bench.on("suspend", "o").unwrap();
        it.bench.on("resume", "o").unwrap();
        it.ends();
        it.bench.end();
    }
}

#[test]
fn two_snapshots_of_an_origin_are_not_merged_at_once() {
    let it = Merge::new(70);
    let _store = it.bench.disk("wd2", ROOM);
    it.begin();
    it.bench.create("p");
    let other = format!("0 {LENGTH} snapshot-merge /dev/wd0 /dev/wd2 P 8");
    assert_eq!(it.bench.reload("p", &other).err(), Some(Errno::EINVAL));
    it.ends();
    it.bench.on("remove", "o").unwrap();
    it.bench.reload("p", &other).unwrap();
    it.bench.end();
}

/// Malicious stores are merged as far as they make sense, and nothing panics or hangs.
#[test]
fn hostile_stores_do_no_harm() {
    for seed in 0..80 {
        let bench = Bench::new();
        let (origin, store) = (bench.disk("wd0", LENGTH), bench.disk("wd1", 1000));
        fill(&origin, 1);
        let mut rng = Rng(seed);
        let chunk = 1u32 << rng.below(9);
        let mut bytes: Vec<u8> = (0..1000 * SECTOR).map(|_| rng.below(256) as u8).collect();
        for (at, entry) in bytes.chunks_exact_mut(8).enumerate() {
            let value = match (seed % 5, at % 2) {
                (0, _) => continue,
                (1, _) => rng.below(400),
                (2, 0) => u64::MAX - rng.below(3),
                // Twice the same, and the same twice.
                (3, _) => [2, 3, 5, 5, at as u64 / 2][rng.below(5) as usize],
                _ => [rng.below(2000), u64::MAX, 1 << 48, 1, 3][rng.below(5) as usize],
            };
            entry.copy_from_slice(&value.to_le_bytes());
        }
        let header: Vec<u8> =
            [0x7041_6e53, 1, 1, chunk].into_iter().flat_map(u32::to_le_bytes).collect();
        bytes[..SECTOR].fill(0);
        bytes[..16].copy_from_slice(&header);
        store.write_at(0, &bytes);
        let device = bench.device("o", &Merge::table("P 8"));
        for _ in 0..30 {
            let sector = rng.below(LENGTH - 64);
            let _ = strategy_read(device.dev(), sector, 64);
            let _ = strategy_write(device.dev(), sector, &pattern(5, sector, 3));
        }
        bench.on("suspend", "o").unwrap();
        bench.on("resume", "o").unwrap();
        let status = lines(&bench.send(&Command::on("table", "o")).unwrap()).concat();
        assert!(status.contains('/') || status.ends_with("Merge failed"), "{status}");
        bench.end();
    }
}

#[test]
fn a_store_in_memory_is_not_merged() {
    let bench = Bench::new();
    let (_origin, _store) = (bench.disk("wd0", LENGTH), bench.disk("wd1", ROOM));
    bench.device("s", &format!("0 {LENGTH} snapshot /dev/wd0 /dev/wd1 N 8"));
    bench.create("o");
    for words in ["P 8", "N 8"] {
        assert_eq!(bench.reload("o", &Merge::table(words)).err(), Some(Errno::EINVAL), "{words}");
    }
    bench.end();
}
