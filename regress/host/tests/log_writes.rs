// SPDX-License-Identifier: BSD-2-Clause

//! log-writes in the hosted kernel: the entries of the log, and their order.

mod common;

use std::io::Cursor;

use common::data::{fill, on_disk, pattern, same, strategy_read, strategy_write};
use common::wait::until;
use common::{Bench, Mapped, Request as Command, lines};
use dm_host::netbsd::{B_MEDIA_FUA, DIOCCACHESYNC};
use dm_host::write_log::Log;
use dm_host::{Disk, Errno, Io, Request};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

/// An entry as Linux's form has it: first sector, sectors, flags, text, data.
type Entry = (u64, u64, u64, String, Vec<u8>);

/// Reads a log.
fn log(disk: &Disk) -> Vec<Entry> {
    let mut log = Log::open(Cursor::new(on_disk(disk, 0, disk.sectors()))).expect("a log");
    assert_eq!(log.sector_size(), 512);
    let mut all = Vec::new();
    while let Some(entry) = log.next_entry().expect("an entry") {
        let mut content = Vec::new();
        let take = |_, data: &[u8]| {
            content.extend_from_slice(data);
            Ok(())
        };
        log.data(&entry, take).expect("its data");
        let text = String::from_utf8(entry.text).expect("text");
        all.push((entry.start / 512, entry.length / 512, entry.flags.0, text, content));
    }
    all
}

fn status(bench: &Bench) -> String {
    lines(&bench.on("status", "d").unwrap()).remove(0)
}

fn mark(bench: &Bench, text: &str) -> Result<(), Errno> {
    let request = Command::on("message", "d").with("message", text).with("sector", 0u64);
    bench.send(&request).map(|_| ())
}

fn fua(device: Mapped, sector: u64, data: Vec<u8>) {
    let request = Request::write(sector as i64).flags(B_MEDIA_FUA as u32);
    assert_eq!(Io::with_data(data).run(device.dev(), request).error, None);
}

fn write(seed: u64, sector: u64, sectors: u64) -> Entry {
    (sector, sectors, 0, String::new(), pattern(seed, sector, sectors))
}

fn other(flags: u64, text: &str) -> Entry {
    (0, 0, flags, text.into(), vec![])
}

#[test]
fn writes_come_with_the_flush_that_makes_them_safe() {
    let bench = Bench::new();
    let (disk, logged) = (bench.disk("wd0", 2000), bench.disk("wd1", 4000));
    fill(&disk, 1);
    let device = bench.device("d", "0 1000 log-writes /dev/wd0 /dev/wd1");
    let block = bench.block(device);
    let put = |seed, sector, sectors| {
        let result = strategy_write(device.dev(), sector, &pattern(seed, sector, sectors));
        assert_eq!(result.error, None);
    };
    let flush = || bench.raw(device).ioctl(DIOCCACHESYNC as u64, &mut 0i32);
    assert_eq!(status(&bench), "0 1000 log-writes 0 0");
    put(2, 5, 1);
    put(3, 16, 40);
    put(4, 5, 2);
    same(&strategy_read(device.dev(), 5, 2).1, &pattern(4, 5, 2), "read back");
    assert_eq!(log(&logged), [], "nothing is safe yet");
    mark(&bench, "mark before").unwrap();
    until("a mark", || status(&bench) == "0 1000 log-writes 1 1");
    fua(device, 100, pattern(5, 100, 8));
    assert_eq!(status(&bench), "0 1000 log-writes 2 10");
    let fua = (100, 8, 2, String::new(), pattern(5, 100, 8));
    let mut wanted = vec![other(8, "before"), fua];
    assert_eq!(log(&logged), wanted);
    assert_eq!(flush(), Ok(()));
    wanted.extend([write(2, 5, 1), write(3, 16, 40), write(4, 5, 2), other(1, "")]);
    assert_eq!(log(&logged), wanted);
    // A suspend shows the log as it would be without the device, and is no part of it.
    put(6, 900, 3);
    bench.raw(device).fdiscard(50 * 512, 50 * 512).unwrap();
    let held =
        [write(6, 900, 3), (50, 50, 4, String::new(), vec![]), other(8, "dm-log-writes-end")];
    let entries = status(&bench);
    bench.on("suspend", "d").unwrap();
    assert_eq!(log(&logged), [&wanted[..], &held[..]].concat());
    bench.on("resume", "d").unwrap();
    assert_eq!(status(&bench), entries);
    assert_eq!(flush(), Ok(()));
    wanted.extend([held[0].clone(), held[1].clone(), other(1, "")]);
    assert_eq!(log(&logged), wanted);
    for wrong in ["mark", "mark a b", "nosuch a", ""] {
        assert_eq!(mark(&bench, wrong), Err(Errno::EINVAL), "{wrong}");
    }
    put(7, 0, 8);
    drop(block);
    bench.on("remove", "d").unwrap();
    wanted.extend([write(7, 0, 8), other(8, "dm-log-writes-end")]);
    assert_eq!(log(&logged), wanted);
    bench.end();
}

#[test]
fn a_log_without_room_ends_and_the_device_goes_on() {
    let bench = Bench::new();
    let (disk, logged) = (bench.disk("wd0", 2000), bench.disk("wd1", 64));
    let device = bench.device("d", "0 1000 log-writes /dev/wd0 /dev/wd1");
    let block = bench.block(device);
    for n in 0..20 {
        let data = pattern(n, n * 8, 8);
        assert_eq!(strategy_write(device.dev(), n * 8, &data).error, None);
        same(&on_disk(&disk, n * 8, 8), &data, "a write");
    }
    assert_eq!(bench.raw(device).ioctl(DIOCCACHESYNC as u64, &mut 0i32), Ok(()));
    // The entries that are there are right: writes in order, with flushes of the target's own.
    let entries = log(&logged);
    let writes: Vec<_> = entries.iter().filter(|entry| entry.2 == 0).cloned().collect();
    assert!(writes.len() >= 3, "{} writes", writes.len());
    for (entry, n) in writes.iter().zip(0..) {
        assert_eq!(*entry, write(n, n * 8, 8));
    }
    drop(block);
    bench.on("remove", "d").unwrap();
    bench.end();
}
