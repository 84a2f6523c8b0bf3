// SPDX-License-Identifier: BSD-2-Clause

//! Requests from userland, and contents of disks, that the kernel's own functions would not survive.

mod common;

use std::mem::zeroed;

use common::{Bench, Request};
use dm_core::limits;
use dm_host::disklabel::{bytes, checksum};
use dm_host::netbsd::{DIOCGDINFO, DIOCSDINFO, DIOCWDINFO, MAXPARTITIONS, disklabel};
use dm_host::{Disk, DiskSpec, Errno, File};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

/// A request with that many containers in one another, the dictionary counted, under a key that the
/// driver does not know: alternately arrays and dictionaries.
fn nested(command: &str, depth: usize) -> String {
    let (mut before, mut after) = (String::new(), String::new());
    for level in 1..depth {
        let (open, close) = match level % 2 {
            1 => ("<array>", "</array>"),
            _ => ("<dict><key>k</key>", "</dict>"),
        };
        before += open;
        after.insert_str(0, close);
    }
    format!(
        "<plist version=\"1.0\"><dict><key>command</key><string>{command}</string>\
         <key>name</key><string>d</string><key>deep</key>{before}<true/>{after}</dict></plist>"
    )
}

#[test]
fn requests_nest_as_deep_as_the_limit_and_no_deeper() {
    for legacy in [0, 1] {
        let bench = Bench::new();
        let value = dm_host::sysctl::Value::Int(legacy);
        bench.machine.sysctl_set("hw.dm.legacy_errors", &value).unwrap();
        let send = |command, depth| bench.control.plist_ioctl(&nested(command, depth));
        let reply = send("version", limits::NESTING).unwrap();
        assert!(reply.contains("<key>deep</key>"), "what is unknown comes back: {reply}");
        for depth in [limits::NESTING + 1, limits::NESTING + 2, 1000] {
            for command in ["version", "names", "create", "info", "nonsense"] {
                assert_eq!(send(command, depth), Err(Errno::EINVAL), "{command}, {depth}");
            }
        }
        // As deep as anyone's request can be, and one of those who may change devices.
        let question = bench.machine.as_user(1000, || send("version", 3000));
        assert_eq!(question, Err(Errno::EINVAL));
        assert_eq!(send("create", 100_000), Err(Errno::EINVAL));
        assert_eq!(bench.machine.sysctl_int("hw.dm.devices"), Ok(0));
        bench.end();
    }
}

/// Such a request has no reply.
#[test]
fn what_is_not_read_is_told_to_the_console() {
    let bench = Bench::new();
    let told = |bytes: usize| {
        bench.machine.clear_console();
        let long = "x".repeat(bytes);
        let request = format!(
            "<plist version=\"1.0\"><dict><key>command</key><string>names</string>\
             <key>k</key><string>{long}</string></dict></plist>"
        );
        let result = bench.machine.as_user(1000, || bench.control.plist_ioctl(&request)).map(drop);
        (result, bench.machine.console())
    };
    assert_eq!(told(60_000), (Ok(()), vec![]));
    let (result, lines) = told(70_000);
    assert_eq!((result, lines.len()), (Err(Errno::E2BIG), 1));
    assert!(lines[0].starts_with("dm: request refused: 701"), "{lines:?}");
    assert!(lines[0].ends_with(" bytes are more than the kernel reads"), "{lines:?}");
    bench.machine.clear_console();
    assert!(bench.control.plist_ioctl(&nested("names", limits::NESTING + 1)).is_err());
    assert_eq!(bench.machine.console(), ["dm: request refused: it nests more than 16 deep"]);
}

#[test]
fn wide_requests_are_not_deep() {
    let bench = Bench::new();
    let wide = "<array/><dict><key>k</key><array><dict/></array></dict>".repeat(500);
    let request = format!(
        "<plist version=\"1.0\"><dict><key>command</key><string>version</string>\
         <key>wide</key><array>{wide}</array></dict></plist>"
    );
    let reply = bench.control.plist_ioctl(&request).unwrap();
    assert_eq!(reply.matches("<array/>").count(), 500);
    bench.send(&Request::new("names")).unwrap();
    bench.end();
}

fn get(file: &File) -> disklabel {
    // SAFETY: a label is plain numbers and characters.
    let mut label: disklabel = unsafe { zeroed() };
    file.ioctl(DIOCGDINFO as u64, &mut label).unwrap();
    label
}

fn sealed(mut label: disklabel, change: impl FnOnce(&mut disklabel)) -> disklabel {
    change(&mut label);
    label.d_checksum = 0;
    label.d_checksum = checksum(&label);
    label
}

#[test]
fn a_label_that_is_not_the_devices_is_einval() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 500);
    let device = bench.device("d", "0 400 linear /dev/wd0 64");
    let raw = bench.raw(device);
    let good = get(&raw);
    disk.reset_counters();
    let bad = [
        // As a product with 3 it is 512, in 32 bits: a small buffer for large sectors.
        sealed(good, |label| label.d_secsize = 0x5555_5600),
        sealed(good, |label| label.d_secsize = 1 << 20),
        sealed(good, |label| label.d_secsize = 1024),
        sealed(good, |label| label.d_secsize = 0),
        sealed(good, |label| label.d_secpercyl = 0),
        sealed(good, |label| label.d_ntracks = 0),
        sealed(good, |label| label.d_npartitions = MAXPARTITIONS as u16 + 1),
        sealed(good, |label| label.d_npartitions = u16::MAX),
        sealed(good, |label| (label.d_magic, label.d_npartitions) = (u32::MAX, u16::MAX)),
        sealed(good, |label| (label.d_magic, label.d_secsize) = (u32::MAX, 1 << 20)),
    ];
    for mut label in bad {
        for command in [DIOCSDINFO, DIOCWDINFO] {
            let result = raw.ioctl(command as u64, &mut label);
            assert_eq!(result, Err(Errno::EINVAL), "{:x} {}", label.d_secsize, label.d_npartitions);
        }
    }
    assert_eq!((disk.counters().reads, disk.counters().writes), (0, 0));
    assert_eq!(bytes(&get(&raw)), bytes(&good));
    assert_eq!(raw.ioctl(DIOCWDINFO as u64, &mut { good }), Ok(()));
    drop(raw);
    bench.end();
}

/// A boot record whose one partition is of a type.
fn record(disk: &Disk, sector: u64, kind: u8, start: u32, length: u32) {
    let mut record = [0; 512];
    record[450] = kind;
    record[454..458].copy_from_slice(&start.to_le_bytes());
    record[458..462].copy_from_slice(&length.to_le_bytes());
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    disk.write_at(sector * 512, &record);
}

/// A disk whose content sends a search for a label from place to place without an end.
fn lost(what: &str, write: impl FnOnce(&Disk)) {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 8000);
    write(&disk);
    let device = bench.device("d", "0 8000 linear /dev/wd0 0");
    let raw = bench.raw(device);
    disk.reset_counters();
    let mut label = get(&raw);
    assert_eq!(label.d_secperunit, 8000, "{what}: one that is made up");
    let reads = disk.counters().reads;
    assert!((900..=1100).contains(&reads), "{what}: {reads} reads");
    // Each look has as many to spend.
    get(&raw);
    assert!(disk.counters().reads >= 2 * reads - 10, "{what}: {} reads", disk.counters().reads);
    assert_eq!(raw.ioctl(DIOCWDINFO as u64, &mut label), Err(Errno::EIO), "{what}");
    drop(raw);
    bench.end();
}

#[test]
fn boot_records_that_go_in_a_circle() {
    const DISK_MANAGER: u8 = 0x54;
    lost("a circle", |disk| {
        record(disk, 0, DISK_MANAGER, 1, 1);
        // A track of the made-up geometry.
        record(disk, 32, DISK_MANAGER, 1, 1);
    });
}

#[test]
fn boot_records_that_go_on_and_on() {
    const EXTENDED: u8 = 5;
    lost("a chain", |disk| {
        record(disk, 0, EXTENDED, 1, 1);
        (1..3000).for_each(|n| record(disk, n, EXTENDED, n as u32, 1));
    });
}

#[test]
fn a_compact_discs_descriptors_that_go_on_and_on() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 8000);
    (0..8000).for_each(|n| disk.write_at(n * 512, b"\x01CD001"));
    let device = bench.device("d", "0 8000 linear /dev/wd0 0");
    let raw = bench.raw(device);
    disk.reset_counters();
    assert_eq!(get(&raw).d_secperunit, 8000);
    assert!(disk.counters().reads <= 1100, "{} reads", disk.counters().reads);
    drop(raw);
    bench.end();
}

#[test]
fn a_label_on_a_large_disk_that_tells_larger_sectors() {
    // Beyond 2^32 sectors the last one that a label can tell lies on the device, whatever the size
    // of a sector: 64 KiB would be read into a buffer for three sectors.
    for size in [1024, 4096, 1 << 16] {
        let bench = Bench::new();
        let disk = bench.disk("wd0", 64);
        let device = bench.device("d", "0 64 linear /dev/wd0 0\n64 1099511627776 zero");
        let raw = bench.raw(device);
        let hostile = sealed(get(&raw), |label| label.d_secsize = size);
        disk.write_at(512, bytes(&hostile));
        let label = get(&raw);
        // One that has a raw partition is a label all the same; what it says is what is there.
        assert!([512, size].contains(&label.d_secsize));
        assert_eq!(raw.ioctl(DIOCWDINFO as u64, &mut { hostile }), Err(Errno::EINVAL));
        drop(raw);
        bench.end();
    }
}

/// The port's code would divide by that, to find the table of bad sectors.
#[test]
fn a_label_of_sectors_of_0_bytes_and_bad_sectors() {
    const D_BADSECT: u32 = 4;
    for boot_record in [false, true] {
        let bench = Bench::new();
        let disk = bench.disk("wd0", 8000);
        let device = bench.device("d", "0 8000 linear /dev/wd0 0");
        let raw = bench.raw(device);
        let (at, own) = if boot_record { (101, 169) } else { (1, 0) };
        record(&disk, 0, own, 100, 1000);
        let [bad, good] = [0, 512].map(|size| {
            sealed(get(&raw), |label| {
                (label.d_secsize, label.d_flags, label.d_rpm) = (size, D_BADSECT, 77);
            })
        });
        disk.write_at(at * 512, bytes(&bad));
        assert_eq!((get(&raw).d_secsize, get(&raw).d_rpm), (512, 3600), "one that is made up");
        // With a size it is a label, whose table is looked for.
        disk.write_at(at * 512, bytes(&good));
        disk.write_at((8000 - u64::from(good.d_nsectors)) * 512, &[0, 0, 0, 0, 0, 0, 0x21, 0x43]);
        assert_eq!(get(&raw).d_rpm, 77);
        // Another one may take its place.
        disk.write_at(at * 512, bytes(&bad));
        let mut new = sealed(get(&raw), |label| label.d_rpm = 78);
        assert_eq!(raw.ioctl(DIOCWDINFO as u64, &mut new), Ok(()));
        drop(raw);
        bench.end();
    }
}

#[test]
fn disks_with_sectors_of_any_size() {
    for bytes in [16 * 1024, 32 * 1024, 1 << 20, 1 << 30, 1 << 31] {
        let bench = Bench::new();
        bench.attach(DiskSpec::null("dk0", 16).sector_size(bytes));
        bench.create("d");
        let result = bench.load("d", &format!("0 {} linear /dev/dk0 0", bytes / 512)).map(drop);
        if bytes > limits::SECTOR {
            assert_eq!(result, Err(Errno::EINVAL), "{bytes}");
            assert_eq!(bench.machine.block_opens(bench.machine.stat("/dev/dk0").unwrap().0), 0);
        } else {
            assert_eq!(result, Ok(()), "{bytes}");
            let raw = bench.raw(common::Mapped { minor: 1 });
            assert_eq!(get(&raw).d_secsize, bytes);
        }
        bench.end();
    }
}
