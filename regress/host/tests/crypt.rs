// SPDX-License-Identifier: BSD-2-Clause

//! Encrypted devices in the hosted kernel: the content of the disk, the threads that compute, a page-out's memory,
//! keys taken away under load.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::data::{Random, SECTOR, fill, on_disk, pattern, same, strategy_read, strategy_write};
use common::{Bench, Mapped};
use dm_ciphers::{BLOCK, Way, ecb, xts};
use dm_core::testing::Request as Command;
use dm_host::aes::bytes_of_thread;
use dm_host::lwp::{Context, with_context};
use dm_host::netbsd::{B_MEDIA_FUA, DIOCCACHESYNC};
use dm_host::{Completion, Config, Disk, DiskSpec, Errno, Io, Request};

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\
                   202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f";

/// Sectors of a device, and where it begins on its disk.
const LENGTH: u64 = 3000;
const OFFSET: u64 = 100;

fn line(key: &str) -> String {
    format!("0 {LENGTH} crypt aes-xts-plain64 {key} 7 /dev/wd0 {OFFSET}")
}

fn start() -> (Bench, Disk, Mapped) {
    start_with(Completion::Inline)
}

fn start_with(completion: Completion) -> (Bench, Disk, Mapped) {
    let bench = Bench::with(Config::default());
    let disk = bench.attach(DiskSpec::memory("wd0", 4000).completion(completion));
    fill(&disk, 1);
    let device = bench.device("d", &line(KEY));
    (bench, disk, device)
}

/// Encrypts sectors from `first` on as the device should: two keys, the number in the tweak.
fn encrypted(first: u64, data: &[u8]) -> Vec<u8> {
    let key: Vec<u8> = (0..64).collect();
    let sector = |(at, data): (u64, &[u8])| {
        let mut tweak = [0; BLOCK];
        tweak[..8].copy_from_slice(&(first + at + 7).to_le_bytes());
        ecb(Way::Encrypt, &key[32..], &mut tweak);
        let mut data = data.to_vec();
        xts(Way::Encrypt, &key[..32], &mut data, &mut tweak);
        data
    };
    (0..).zip(data.chunks(SECTOR)).flat_map(sector).collect()
}

/// Data come back where the sender's thread decrypts, and where a lane does.
#[test]
fn what_is_written_is_on_the_disk_encrypted_and_comes_back() {
    comes_back(Completion::Inline);
    comes_back(Completion::Interrupt);
}

fn comes_back(completion: Completion) {
    let (bench, disk, device) = start_with(completion);
    for (sector, sectors) in [(0, 1), (7, 9), (LENGTH - 8, 8), (1000, 128)] {
        let plain = pattern(2, sector, sectors);
        let mut io = Io::with_data(plain.clone());
        assert_eq!(io.run(device.dev(), Request::write(sector as i64)).error, None);
        same(io.data(), &plain, "the sender's data stays");
        same(&on_disk(&disk, OFFSET + sector, sectors), &encrypted(sector, &plain), "on the disk");
        let (result, data) = strategy_read(device.dev(), sector, sectors);
        assert_eq!(result.error, None);
        same(&data, &plain, "what was read");
    }
    // Sectors that were not written decrypt to the disk's old content.
    let (_, found) = strategy_read(device.dev(), 500, 4);
    same(&encrypted(500, &found), &pattern(1, OFFSET + 500, 4), "what nobody wrote");
    // Across the device's end it is cut, as on any disk.
    let (result, _) = strategy_read(device.dev(), LENGTH - 4, 8);
    assert_eq!((result.error, result.count - result.resid), (None, 4 * SECTOR));
    same(&on_disk(&disk, 0, OFFSET), &pattern(1, 0, OFFSET), "what is before");
    bench.end();
}

#[test]
fn failures_flushes_and_discards_are_the_components() {
    let (bench, disk, device) = start();
    disk.fail_range(OFFSET + 50..OFFSET + 51, Errno::EIO);
    assert_eq!(strategy_read(device.dev(), 48, 8).0.error, Some(Errno::EIO));
    assert_eq!(strategy_write(device.dev(), 48, &pattern(3, 0, 8)).error, Some(Errno::EIO));
    assert_eq!(strategy_read(device.dev(), 60, 8).0.error, None);
    let file = bench.raw(device);
    let before = disk.counters().flushes;
    file.ioctl(DIOCCACHESYNC as u64, &mut 0i32).unwrap();
    assert_eq!(disk.counters().flushes, before + 1);
    let fua = Request::write(8).flags(B_MEDIA_FUA as u32);
    let mut io = Io::with_data(pattern(4, 0, 8));
    assert_eq!(io.run(device.dev(), fua).error, None);
    drop(file);
    bench.end();
}

#[test]
fn page_outs_go_on_without_memory() {
    let (bench, disk, device) = start();
    bench.machine.faults().exhaust_memory(true);
    let mut ios: Vec<Io> = (0..200).map(|n| Io::with_data(pattern(9, n * 8, 8))).collect();
    for (n, io) in ios.iter_mut().enumerate() {
        io.start(device.dev(), Request::write(n as i64 * 8));
    }
    for io in &mut ios {
        assert_eq!(io.wait().error, None);
    }
    let mut ins: Vec<Io> = (0..200).map(|_| Io::new(8 * SECTOR)).collect();
    for (n, io) in ins.iter_mut().enumerate() {
        io.start(device.dev(), Request::read(n as i64 * 8));
    }
    for (n, io) in (0..).zip(&mut ins) {
        assert_eq!(io.wait().error, None);
        same(io.data(), &pattern(9, n * 8, 8), "a page that comes back");
    }
    bench.machine.faults().reset();
    same(&on_disk(&disk, OFFSET, 1600), &encrypted(0, &pattern(9, 0, 1600)), "200 page-outs");
    bench.end();
}

/// Bytes that the calling thread has ciphers work on while it sends an I/O.
fn computed(io: &mut Io, device: Mapped, request: Request) -> u64 {
    let before = bytes_of_thread();
    io.start(device.dev(), request);
    bytes_of_thread() - before
}

/// Bytes of a sector's tweak and of the sector.
const COMPUTED: u64 = (BLOCK + SECTOR) as u64;

#[test]
fn who_sends_a_write_encrypts_it_where_it_may() {
    let (bench, disk, device) = start();
    let mut io = Io::with_data(pattern(6, 0, 128));
    assert_eq!(computed(&mut io, device, Request::write(0)), 128 * COMPUTED);
    assert!(io.wait().is_complete(128 * SECTOR));
    // Not in an interrupt, nor where a flush may have to follow.
    let soft = Context::SoftInterrupt;
    let there = with_context(soft, || computed(&mut io, device, Request::write(200)));
    assert_eq!(there, 0, "in a soft interrupt");
    assert!(io.wait().is_complete(128 * SECTOR));
    let fua = Request::write(400).flags(B_MEDIA_FUA as u32);
    assert_eq!(computed(&mut io, device, fua), 0, "with FUA");
    assert!(io.wait().is_complete(128 * SECTOR));
    // The thread that resumes the device does not compute for I/O that has waited: it would as long as more comes.
    let mut other = Io::new(64 * SECTOR);
    let mut resume = |io: &mut Io, name: &str, device: Mapped| {
        bench.on("suspend", name).unwrap();
        io.start(device.dev(), Request::write(400));
        other.start(device.dev(), Request::read(0));
        let before = bytes_of_thread();
        bench.on("resume", name).unwrap();
        assert_eq!(bytes_of_thread(), before, "by the thread that resumes {name}");
        assert!(io.wait().is_complete(128 * SECTOR) && other.wait().is_complete(64 * SECTOR));
    };
    resume(&mut io, "d", device);
    // The same for a device above that is resumed: the sender of what it lets go on is another thread.
    let above = bench.device("above", &format!("0 800 linear 169:{} 0", device.minor));
    assert_eq!(
        computed(&mut io, above, Request::write(400)),
        128 * COMPUTED,
        "through two devices"
    );
    assert!(io.wait().is_complete(128 * SECTOR));
    resume(&mut io, "above", above);
    bench.on("remove", "above").unwrap();
    // One that fails has its buffer back, too.
    disk.fail_range(OFFSET + 600..OFFSET + 601, Errno::EIO);
    for _ in 0..10 {
        assert_eq!(computed(&mut io, device, Request::write(600)), 128 * COMPUTED);
        assert_eq!(io.wait().error, Some(Errno::EIO));
    }
    // Pieces of one, too.
    let line = |start, iv| {
        format!("{start} 64 crypt aes-xts-plain64 {KEY} {iv} /dev/wd0 {}\n", 3200 + start)
    };
    let pieces = bench.device("p", &(line(0, 7) + &line(64, 71)));
    assert_eq!(computed(&mut io, pieces, Request::write(0)), 128 * COMPUTED, "in pieces");
    assert!(io.wait().is_complete(128 * SECTOR));
    same(&on_disk(&disk, 3200, 128), &encrypted(0, &pattern(6, 0, 128)), "pieces");
    for at in [0, 200, 400] {
        let plain = pattern(6, 0, 128);
        same(&on_disk(&disk, OFFSET + at, 128), &encrypted(at, &plain), "on the disk");
    }
    bench.end();
}

/// The disk keeps I/O back: a write has its memory until it is done. Writes that find no memory free go by way of a
/// lane, as far as there are lanes; then they wait.
#[test]
fn writes_that_find_no_memory_free_go_on_without() {
    const WRITES: u64 = 40;
    let (bench, disk, device) = start_with(Completion::Interrupt);
    for round in 0..3 {
        disk.hold();
        bench.machine.faults().exhaust_memory(true);
        let data = |n: u64| pattern(20 + round, n * 64, 64);
        let mut ios: Vec<Io> = (0..WRITES).map(|n| Io::with_data(data(n))).collect();
        let counts: Vec<u64> = (0..)
            .zip(&mut ios)
            .map(|(n, io)| computed(io, device, Request::write(n as i64 * 64)))
            .collect();
        // One for each CPU, and all of them again in each round.
        let all = 64 * COMPUTED;
        assert_eq!(counts[..2], [all, all], "round {round}");
        assert!(counts[2..].iter().all(|bytes| *bytes == 0), "round {round}: {counts:?}");
        disk.release();
        for io in &mut ios {
            assert!(io.wait().is_complete(64 * SECTOR));
        }
        bench.machine.faults().reset();
        for n in 0..WRITES {
            let expected = encrypted(n * 64, &data(n));
            same(&on_disk(&disk, OFFSET + n * 64, 64), &expected, "on the disk");
        }
    }
    bench.end();
}

fn message(bench: &Bench, text: &str) -> Result<(), Errno> {
    bench.send(&Command::on("message", "d").with("message", text)).map(drop)
}

/// Threads that write and read, each in a region of its own, until told to stop.
fn load(bench: &Bench, device: Mapped, stop: &Arc<AtomicBool>) -> Vec<dm_host::Kthread<u64>> {
    let thread = |region: u64| {
        let stop = stop.clone();
        bench.machine.spawn(move || {
            let (mut random, mut rounds) = (Random(region), 0);
            let start = region * 200;
            // One of them with requests as large as a lane's buffer.
            let most = if region == 0 { 128 } else { 16 };
            // Once at least, however late it comes to run.
            loop {
                rounds += 1;
                let (at, sectors) = (random.below(200 - most), 1 + random.below(most));
                let data = pattern(rounds, start + at, sectors);
                assert_eq!(strategy_write(device.dev(), start + at, &data).error, None);
                let (result, found) = strategy_read(device.dev(), start + at, sectors);
                assert_eq!(result.error, None);
                same(&found, &data, "this thread's own");
                if stop.load(Ordering::Relaxed) {
                    return rounds;
                }
            }
        })
    };
    (0..4).map(thread).collect()
}

#[test]
fn keys_go_and_come_under_load() {
    let (bench, _disk, device) = start();
    let stop = Arc::new(AtomicBool::new(false));
    let threads = load(&bench, device, &stop);
    for round in 0..12 {
        assert_eq!(message(&bench, "key wipe"), Err(Errno::EINVAL), "while it runs");
        bench.on("suspend", "d").unwrap();
        message(&bench, "key wipe").unwrap();
        assert_eq!(bench.on("resume", "d").err(), Some(Errno::EAGAIN));
        message(&bench, &format!("key set {KEY}")).unwrap();
        if round % 3 == 0 {
            bench.reload("d", &line(KEY)).unwrap();
        }
        bench.on("resume", "d").unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    assert!(threads.into_iter().map(|thread| thread.join()).sum::<u64>() > 0);
    bench.end();
}

#[test]
fn a_kernel_without_aes_says_so_and_has_everything_else() {
    let bench = Bench::with(Config { aes: false, ..Config::test() });
    let _disk = bench.disk("wd0", 4000);
    let targets = format!("{:?}", bench.send(&Command::new("targets")).unwrap());
    assert!(!targets.contains("crypt") && targets.contains("mirror"));
    bench.create("d");
    assert_eq!(bench.reload("d", &line(KEY)).err(), Some(Errno::ENOENT));
    bench.load("d", "0 100 linear /dev/wd0 0").unwrap();
    bench.end();
}

#[test]
fn stacks_of_encrypted_devices_work() {
    let (bench, disk, lower) = start();
    let below = format!("169:{}", lower.minor);
    let table = format!("0 2000 crypt aes-cbc-essiv:sha256 {} 0 {below} 8", &KEY[..64]);
    let upper = bench.device("u", &table);
    let plain = pattern(5, 0, 256);
    for part in [0, 128] {
        let data = &plain[part * SECTOR..(part + 128) * SECTOR];
        assert_eq!(strategy_write(upper.dev(), part as u64, data).error, None);
    }
    let (_, once) = strategy_read(lower.dev(), 8, 128);
    assert!(once != plain[..128 * SECTOR], "one layer is not enough");
    same(&on_disk(&disk, OFFSET + 8, 128), &encrypted(8, &once), "two layers");
    let (_, found) = strategy_read(upper.dev(), 128, 128);
    same(&found, &plain[128 * SECTOR..], "through both");
    bench.end();
}

/// A mirror in one table with crypt has a thread that no cipher holds up: the table has one more than crypt alone, and a mirror
/// alone has one, each beside the one for errands.
#[test]
fn a_line_that_does_not_compute_has_a_thread_of_its_own() {
    let bench = Bench::with(Config { ncpu: 2, ..Config::default() });
    let _disks = ["wd0", "wd1"].map(|name| bench.disk(name, 4000));
    bench.create("d");
    let crypt = format!("0 1000 crypt aes-xts-plain64 {KEY} 0 /dev/wd0 0");
    let mirror = "1000 1000 mirror core 2 8 nosync 2 /dev/wd0 2000 /dev/wd1 2000";
    let tables = [
        (mirror.replacen("1000", "0", 1), 2),
        (crypt.clone(), 3),
        (format!("{crypt}\n{mirror}"), 4),
    ];
    for (table, threads) in tables {
        for (call, fails) in [(threads, true), (threads + 1, false)] {
            bench.machine.faults().fail(dm_host::fault::Site::Kthread, call);
            assert_eq!(bench.reload("d", &table).is_err(), fails, "{threads} threads: {table}");
            bench.machine.faults().reset();
        }
    }
    bench.end();
}
