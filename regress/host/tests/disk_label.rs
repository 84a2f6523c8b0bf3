// SPDX-License-Identifier: BSD-2-Clause

//! The sectors that a component keeps for its disk's label: 65 of them where the NetBSD slice is the
//! classic one.

mod common;

use common::data::{SECTOR, on_disk, pattern, read, same, strategy_read, strategy_write};
use common::{Bench, Mapped, flags};
use dm_host::netbsd::{DIOCGDINFO, DIOCWLABEL};
use dm_host::{Disk, DiskSpec, Errno, Flags, Label};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

/// The component's label and what dm(4) promises about it.
struct Guarded {
    bench: Bench,
    disk: Disk,
    device: Mapped,
}

/// A device over all of a disk, or over a partition of it.
fn guarded(label: Option<Label>, component: &str) -> Guarded {
    let bench = Bench::new();
    let mut spec = DiskSpec::memory("wd0", 4000);
    if let Some(label) = label {
        spec = spec.label(label);
    }
    let disk = bench.attach(spec);
    bench.create("d");
    bench
        .load("d", &format!("0 1500 linear {component} 0\n1500 1000 linear {component} 1900"))
        .unwrap();
    Guarded { bench, disk, device: Mapped { minor: 1 } }
}

impl Guarded {
    /// The sectors of a range of the device that refuse a write of their own.
    fn refused(&self, range: std::ops::Range<u64>) -> Vec<u64> {
        let refused = |sector: &u64| {
            let old = strategy_read(self.device.dev(), *sector, 1).1;
            let result = strategy_write(self.device.dev(), *sector, &old);
            assert!(matches!(result.error, None | Some(Errno::EROFS)), "{result:?}");
            result.error.is_some()
        };
        range.filter(refused).collect()
    }

    fn said(&self) -> Vec<String> {
        let console = self.bench.machine.console();
        console.into_iter().filter(|line| line.contains("first safe sector")).collect()
    }
}

#[test]
fn the_label_of_a_slice_at_63_is_kept() {
    let guarded = guarded(Some(Label::new().slice(63)), "/dev/wd0");
    assert_eq!(guarded.refused(0..140), [63, 64]);
    let said = guarded.said();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("sector 0 of") && said[0].contains("safe sector is 65"), "{said:?}");
    // A large write that covers them fails whole, and touches nothing.
    let before = on_disk(&guarded.disk, 0, 200);
    guarded.disk.reset_counters();
    let raw = guarded.bench.raw(guarded.device);
    let device = guarded.device;
    for (start, sectors) in [(0, 128), (64, 1), (60, 4), (64, 60), (0, 64)] {
        let result = strategy_write(device.dev(), start, &pattern(1, 0, sectors));
        assert_eq!(result.error, Some(Errno::EROFS), "{start} {sectors}");
        assert_eq!(result.resid, sectors as usize * SECTOR);
    }
    assert_eq!(raw.pwrite(&pattern(1, 0, 4), 62 * 512), Err(Errno::EROFS));
    assert_eq!(raw.fdiscard(0, 128 * 512), Err(Errno::EROFS));
    let dumped = guarded.bench.machine.dump(device.dev(), 60, &pattern(1, 0, 8));
    assert_eq!(dumped, Err(Errno::EROFS));
    let seen = guarded.disk.counters();
    assert_eq!(seen.writes + seen.discards + seen.dumps, 0);
    same(&on_disk(&guarded.disk, 0, 200), &before, "nothing was touched");
    // DIOCWLABEL lifts it, for this device and until it is closed.
    let reader = dm_host::Node::Character(device.rdev());
    let reader = guarded.bench.machine.open(reader, Flags::READ).unwrap();
    assert_eq!(reader.ioctl(DIOCWLABEL as u64, &mut 1i32), Err(Errno::EBADF));
    drop(reader);
    raw.ioctl(DIOCWLABEL as u64, &mut 1i32).unwrap();
    assert_eq!(guarded.refused(60..70), Vec::<u64>::new());
    raw.ioctl(DIOCWLABEL as u64, &mut 0i32).unwrap();
    assert_eq!(guarded.refused(60..70), [63, 64]);
    raw.ioctl(DIOCWLABEL as u64, &mut 1i32).unwrap();
    drop(raw);
    assert_eq!(guarded.refused(60..70), [63, 64]);
}

#[test]
fn the_label_of_a_slice_at_2048_is_kept() {
    let guarded = guarded(Some(Label::new().slice(2048)), "/dev/wd0");
    // Disk sector 2048 is sector 1500 + 148 of the device.
    assert_eq!(guarded.refused(0..80), Vec::<u64>::new());
    assert_eq!(guarded.refused(1600..1700), [1648, 1649]);
    assert!(guarded.said()[0].contains("safe sector is 2050"));
}

#[test]
fn a_partition_counts_from_the_disks_start() {
    let label = Label::new().slice(63).partition('a', 63, 3000).partition('e', 65, 3000);
    let first = guarded(Some(label.clone()), "/dev/wd0a");
    assert_eq!(first.refused(0..20), [0, 1]);
    assert!(first.said()[0].contains("safe sector is 2"));
    drop(first);
    let behind = guarded(Some(label), "/dev/wd0e");
    assert_eq!(behind.refused(0..80), Vec::<u64>::new());
    assert_eq!(behind.said(), Vec::<String>::new());
}

#[test]
fn disks_without_a_label_and_wedges_have_no_guard() {
    for label in [None, Some(Label::new().slice(63).in_core())] {
        let guarded = guarded(label, "/dev/wd0");
        assert_eq!(guarded.refused(0..80), Vec::<u64>::new());
        assert_eq!(guarded.said(), Vec::<String>::new());
    }
    let bench = Bench::new();
    bench.disk("dk0", 4000);
    let device = bench.device("d", "0 1000 linear /dev/dk0 0");
    let raw = bench.raw(device);
    assert_eq!(raw.pwrite(&pattern(1, 0, 200), 0), Ok(200 * SECTOR));
}

#[test]
fn label_guard_off_on_and_strict() {
    use dm_host::sysctl::Value::Int;
    let guarded = guarded(Some(Label::new().slice(63)), "/dev/wd0");
    let machine = &guarded.bench.machine;
    machine.sysctl_set("hw.dm.label_guard", &Int(0)).unwrap();
    assert_eq!(guarded.refused(60..70), Vec::<u64>::new());
    machine.sysctl_set("hw.dm.label_guard", &Int(2)).unwrap();
    let table = "0 100 linear /dev/wd0 64";
    let before = guarded.bench.table("d");
    assert_eq!(guarded.bench.load("d", table), Err(Errno::EINVAL));
    assert_eq!(guarded.bench.table("d"), before);
    guarded.bench.load("d", "0 100 linear /dev/wd0 65").unwrap();
    assert_eq!(guarded.refused(0..10), Vec::<u64>::new());
    machine.sysctl_set("hw.dm.label_guard", &Int(1)).unwrap();
    guarded.bench.load("d", table).unwrap();
    assert_eq!(guarded.refused(0..10), [0]);
}

#[test]
fn lvms_own_layout_is_never_hindered() {
    // pvcreate writes its label to sector 1 and its metadata behind it, through the partition
    // itself; logical volumes begin at 1 MiB or, of old, at sector 384.
    let bench = Bench::new();
    let label = Label::new().slice(63).partition('a', 63, 30_000).partition('e', 2048, 20_000);
    let disk = bench.attach(DiskSpec::memory("wd0", 40_000).label(label));
    for (component, start) in [("/dev/wd0a", 384), ("/dev/wd0a", 2048), ("/dev/wd0e", 2048)] {
        let name = format!("lv{start}{}", component.chars().last().unwrap());
        let device = bench.device(&name, &format!("0 4096 linear {component} {start}"));
        let raw = bench.raw(device);
        let data = pattern(1, 0, 4096);
        assert_eq!(raw.pwrite(&data, 0), Ok(data.len()));
        same(&read(&raw, 0, 4096), &data, &name);
        drop(raw);
        bench.on("remove", &name).unwrap();
    }
    let said = bench.machine.console();
    assert!(!said.iter().any(|line| line.contains("first safe sector")), "{said:?}");
    assert!(dm_host::disklabel::valid(&disk.label().unwrap()));
}

#[test]
fn erofs_of_the_component_passes_through() {
    // The component's own driver guards its label on a partition that is not the raw one.
    let bench = Bench::new();
    let disk = bench.disk("wd0", 1000);
    let device = bench.device("d", "0 500 linear /dev/wd0 0\n500 100 linear /dev/wd0 700");
    disk.fail_range(100..101, Errno::EROFS);
    let result = strategy_write(device.dev(), 100, &pattern(1, 0, 1));
    assert_eq!((result.error, result.resid), (Some(Errno::EROFS), SECTOR));
    // Across the border: what lies before it was moved.
    disk.heal();
    disk.fail_range(700..800, Errno::EROFS);
    let result = strategy_write(device.dev(), 490, &pattern(1, 0, 20));
    assert_eq!((result.error, result.resid), (Some(Errno::EROFS), 10 * SECTOR));
    assert_eq!(bench.raw(device).pwrite(&pattern(1, 0, 4), 510 * 512), Err(Errno::EROFS));
    let told = bench.info("d", "flags") as u32;
    assert_eq!(told & flags::READONLY, 0);
}

#[test]
fn a_label_that_cannot_be_read_is_kept() {
    for read in [false, true] {
        let bench = Bench::new();
        let label = Label::new().slice(63).in_core();
        let disk = bench.attach(DiskSpec::memory("wd0", 4000).label(label));
        if !read {
            disk.fail_range(64..65, Errno::EIO);
        }
        bench.create("d");
        bench.load("d", "0 1000 linear /dev/wd0 0").unwrap();
        disk.heal();
        let guarded = Guarded { bench, disk, device: Mapped { minor: 1 } };
        let expected: &[u64] = if read { &[] } else { &[63, 64] };
        assert_eq!(guarded.refused(60..70), expected, "nobody knows what is there");
        assert_eq!(guarded.said().len(), usize::from(!read));
    }
}

#[test]
fn a_disk_that_cannot_tell_its_label_is_not_mapped() {
    let bench = Bench::new();
    let disk = bench.attach(DiskSpec::memory("wd0", 4000).label(Label::new().slice(63)));
    bench.create("d");
    let fail = |errno| disk.fail_ioctl(DIOCGDINFO as u64, errno);
    fail(Some(Errno::EIO));
    assert_eq!(bench.reload("d", "0 100 linear /dev/wd0 0").map(drop), Err(Errno::EIO));
    assert_eq!(bench.machine.block_opens(disk.dev()), 0);
    // One that has no labels to tell, says so.
    fail(Some(Errno::ENOTTY));
    bench.load("d", "0 100 linear /dev/wd0 0").unwrap();
    bench.end();
}
