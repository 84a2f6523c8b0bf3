// SPDX-License-Identifier: BSD-2-Clause

//! Data through every target, by the character node and by d_strategy, and what I/O at the edges
//! answers.

mod common;

use common::data::{
    Random, SECTOR, fill, on_disk, pattern, read, same, strategy_read, strategy_write,
};
use common::model::{Model, Place};
use common::{Bench, Mapped};
use dm_host::netbsd::{B_MEDIA_DPO, B_MEDIA_FUA, MAXPHYS};
use dm_host::{Config, Disk, DiskSpec, Errno, Flags, Io, Label, Node, Request};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

/// Does random reads and writes on a device, by both nodes, and compares with the model. In the end the disks must
/// hold the written data and nothing else.
fn check_mapping(table: &str, sizes: &[u64], seed: u64) {
    let bench = Bench::new();
    let disks: Vec<Disk> =
        sizes.iter().enumerate().map(|(n, size)| bench.disk(&format!("wd{n}"), *size)).collect();
    for (disk, seed) in disks.iter().zip(100..) {
        fill(disk, seed);
    }
    let model = Model::new(table, &disks);
    let device = bench.device("d", table);
    let raw = bench.raw(device);
    let _block = bench.block(device);
    let mut expected: Vec<Vec<u8>> = disks.iter().map(|d| on_disk(d, 0, d.sectors())).collect();
    let mut random = Random(seed);
    for round in 0..150u64 {
        let start = random.below(model.sectors());
        let most = (model.sectors() - start).min(if round % 16 == 0 { 400 } else { 40 });
        let sectors = 1 + random.below(most);
        if let Some(bad) = model.first_error(start, sectors) {
            let (result, _) = strategy_read(device.dev(), start, sectors.min(100));
            if bad < start + sectors.min(100) {
                assert_eq!(result.error, Some(Errno::EIO));
                let moved = (bad - start) * SECTOR as u64;
                assert_eq!((result.count - result.resid) as u64, moved, "up to the first error");
            }
            continue;
        }
        let offset = start * SECTOR as u64;
        match random.below(4) {
            0 => same(&read(&raw, start, sectors), &model.read(&disks, start, sectors), "raw"),
            1 => {
                let sectors = sectors.min(MAXPHYS as u64 / SECTOR as u64);
                let (result, data) = strategy_read(device.dev(), start, sectors);
                assert!(result.is_complete(data.len()));
                same(&data, &model.read(&disks, start, sectors), "strategy");
            }
            way => {
                let sectors = if way == 3 { sectors.min(128) } else { sectors };
                let data = pattern(round, start, sectors);
                if way == 3 {
                    assert!(strategy_write(device.dev(), start, &data).is_complete(data.len()));
                } else {
                    assert_eq!(raw.pwrite(&data, offset), Ok(data.len()));
                }
                for (n, sector) in (start..start + sectors).zip(data.chunks(SECTOR)) {
                    if let Place::Disk(disk, at) = model.0[n as usize] {
                        let at = at as usize * SECTOR;
                        expected[disk][at..at + SECTOR].copy_from_slice(sector);
                    }
                }
            }
        }
    }
    for (disk, expected) in disks.iter().zip(&expected) {
        same(&on_disk(disk, 0, disk.sectors()), expected, disk.name());
    }
    drop((raw, _block));
    bench.end();
}

#[test]
fn linear() {
    check_mapping("0 1000 linear /dev/wd0 24", &[1024], 1);
}

#[test]
fn linear_of_several_lines_in_any_place() {
    check_mapping(
        "0 100 linear /dev/wd1 50\n100 7 linear /dev/wd0 3\n107 300 linear /dev/wd0 100\n\
         407 1 linear /dev/wd1 0\n408 92 linear /dev/wd1 400",
        &[500, 500],
        2,
    );
}

#[test]
fn striped() {
    check_mapping("0 960 striped 3 16 /dev/wd0 5 /dev/wd1 0 /dev/wd2 64", &[400, 400, 400], 3);
}

#[test]
fn striped_with_a_chunk_that_is_no_power_of_two_and_one_disk_twice() {
    check_mapping(
        "0 600 striped 5 3 /dev/wd0 0 /dev/wd1 7 /dev/wd0 200 /dev/wd2 1 /dev/wd2 300",
        &[400, 400, 600],
        4,
    );
}

#[test]
fn striped_over_127_stripes() {
    let stripes: String = (0..127).map(|n| format!(" /dev/wd{} {}", n % 4, n / 4 * 8)).collect();
    check_mapping(&format!("0 1016 striped 127 2{stripes}"), &[300; 4], 5);
}

#[test]
fn zero_and_error_between_lines() {
    check_mapping(
        "0 64 linear /dev/wd0 0\n64 64 zero\n128 200 striped 2 4 /dev/wd0 64 /dev/wd1 0\n\
         328 30 error\n358 100 linear /dev/wd1 200",
        &[300, 300],
        6,
    );
}

#[test]
fn every_line_and_chunk_of_one_large_io_reaches_its_place() {
    // 64 KiB cut in 128 pieces, and the 1 MiB of one read(2) in many more.
    let lines: String =
        (0..2048).map(|n| format!("{n} 1 linear /dev/wd{} {}\n", n % 2, 4095 - n)).collect();
    let bench = Bench::new();
    let disks = [bench.disk("wd0", 4096), bench.disk("wd1", 4096)];
    disks.iter().zip(7..).for_each(|(disk, seed)| fill(disk, seed));
    let model = Model::new(&lines, &disks);
    let device = bench.device("d", &lines);
    let raw = bench.raw(device);
    same(&read(&raw, 0, 2048), &model.read(&disks, 0, 2048), "all of it");
    let data = pattern(9, 0, 2048);
    assert_eq!(raw.pwrite(&data, 0), Ok(data.len()));
    same(&model.read(&disks, 0, 2048), &data, "all written");
}

/// A device of 100 sectors.
fn small() -> (Bench, Disk, Mapped) {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 200);
    fill(&disk, 1);
    let device = bench.device("d", "0 50 linear /dev/wd0 100\n50 50 linear /dev/wd0 0");
    (bench, disk, device)
}

#[test]
fn io_across_the_end_is_short_once() {
    let (bench, disk, device) = small();
    let raw = bench.raw(device);
    let mut data = vec![0; 20 * SECTOR];
    assert_eq!(raw.pread(&mut data, 90 * SECTOR as u64), Ok(10 * SECTOR));
    same(&data[..10 * SECTOR], &on_disk(&disk, 40, 10), "the last sectors");
    let new = pattern(2, 0, 20);
    assert_eq!(raw.pwrite(&new, 90 * SECTOR as u64), Ok(10 * SECTOR));
    same(&on_disk(&disk, 40, 10), &new[..10 * SECTOR], "what fits is written");
    same(&on_disk(&disk, 50, 10), &pattern(1, 50, 10), "and nothing behind it");
    // d_strategy cuts b_bcount, as bounds_check_with_mediasize does for every disk.
    let (result, _) = strategy_read(device.dev(), 90, 20);
    assert_eq!((result.error, result.count, result.resid), (None, 10 * SECTOR, 0));
    let result = strategy_write(device.dev(), 99, &new[..2 * SECTOR]);
    assert_eq!((result.error, result.count, result.resid), (None, SECTOR, 0));
}

#[test]
fn io_at_the_end_moves_nothing_and_beyond_is_einval() {
    let (bench, _, device) = small();
    let raw = bench.raw(device);
    let mut data = vec![0xa5; 4 * SECTOR];
    assert_eq!(raw.pread(&mut data, 100 * SECTOR as u64), Ok(0));
    assert_eq!(raw.pwrite(&data, 100 * SECTOR as u64), Ok(0));
    assert!(data.iter().all(|byte| *byte == 0xa5));
    let far = [101 * SECTOR as u64, 1 << 40, (i64::MAX as u64 - 8192) & !511];
    for offset in far {
        assert_eq!(raw.pread(&mut data, offset), Err(Errno::EINVAL), "at {offset}");
        assert_eq!(raw.pwrite(&data, offset), Err(Errno::EINVAL), "at {offset}");
    }
    let (result, _) = strategy_read(device.dev(), 100, 4);
    assert_eq!((result.error, result.resid), (None, 4 * SECTOR));
    let result = strategy_write(device.dev(), 100, &data);
    assert_eq!((result.error, result.resid), (None, 4 * SECTOR));
    for blkno in [101, 1 << 40, i64::MAX, -1, i64::MIN] {
        for request in [Request::read(blkno), Request::write(blkno)] {
            let result = Io::new(4 * SECTOR).run(device.dev(), request);
            assert_eq!((result.error, result.resid), (Some(Errno::EINVAL), 4 * SECTOR), "{blkno}");
        }
    }
}

#[test]
fn io_of_no_bytes_and_of_half_sectors() {
    let (bench, disk, device) = small();
    let raw = bench.raw(device);
    assert_eq!(raw.pread(&mut [], 0), Ok(0));
    assert_eq!(raw.pwrite(&[], 0), Ok(0));
    disk.reset_counters();
    let result = Io::new(0).run(device.dev(), Request::read(0));
    assert_eq!((result.error, result.resid), (None, 0));
    let mut data = [0; 700];
    assert_eq!(raw.pread(&mut data, 0), Err(Errno::EINVAL));
    assert_eq!(raw.pwrite(&data, 0), Err(Errno::EINVAL));
    assert_eq!(raw.pread(&mut data[..SECTOR], 100), Err(Errno::EINVAL));
    let result = Io::new(SECTOR + 1).run(device.dev(), Request::write(0));
    assert_eq!((result.error, result.resid), (Some(Errno::EINVAL), SECTOR + 1));
    // At the end, where it must not be cut to whole sectors.
    let result = Io::new(SECTOR + 1).run(device.dev(), Request::read(99));
    assert_eq!((result.error, result.resid), (Some(Errno::EINVAL), SECTOR + 1));
    assert_eq!(disk.counters().reads + disk.counters().writes, 0, "none of it reached the disk");
}

#[test]
fn sectors_of_2048_and_4096_bytes() {
    for (bytes, per) in [(2048u32, 4u64), (4096, 8)] {
        let bench = Bench::new();
        let disk = bench.attach(DiskSpec::memory("wd0", 64).sector_size(bytes));
        fill(&disk, 3);
        let table = format!("0 {} linear /dev/wd0 {}", 32 * per, 8 * per);
        let device = bench.device("d", &table);
        let raw = bench.raw(device);
        same(&read(&raw, 4 * per, 3 * per), &on_disk(&disk, 12 * per, 3 * per), "whole sectors");
        let data = pattern(4, 0, 2 * per);
        assert_eq!(raw.pwrite(&data, 6 * u64::from(bytes)), Ok(data.len()));
        same(&on_disk(&disk, 14 * per, 2 * per), &data, "written");
        disk.reset_counters();
        let mut part = vec![0; SECTOR];
        assert_eq!(raw.pread(&mut part, 0), Err(Errno::EINVAL));
        assert_eq!(raw.pread(&mut part, 512), Err(Errno::EINVAL));
        for (sector, sectors) in [(1, per), (0, per - 1), (per - 1, 1)] {
            let (result, data) = strategy_read(device.dev(), sector, sectors);
            assert_eq!((result.error, result.resid), (Some(Errno::EINVAL), data.len()));
            let result = strategy_write(device.dev(), sector, &data);
            assert_eq!((result.error, result.resid), (Some(Errno::EINVAL), data.len()));
        }
        assert_eq!(disk.counters().reads + disk.counters().writes, 0);
        drop(raw);
        bench.end();
    }
}

#[test]
fn disks_with_sectors_of_several_sizes_under_one_device() {
    let bench = Bench::new();
    let small = bench.disk("wd0", 512);
    let large = bench.attach(DiskSpec::memory("wd1", 64).sector_size(4096));
    fill(&small, 1);
    fill(&large, 2);
    let device = bench.device("d", "0 64 linear /dev/wd0 3\n64 64 linear /dev/wd1 8");
    let raw = bench.raw(device);
    let expected = [on_disk(&small, 59, 8), on_disk(&large, 8, 8)].concat();
    same(&read(&raw, 56, 16), &expected, "across both");
    // The device's sectors are the larger ones, everywhere.
    assert_eq!(raw.pread(&mut [0; SECTOR], 0), Err(Errno::EINVAL));
    // A line that would begin or end within a large sector is refused.
    bench.create("e");
    for table in [
        "0 4 linear /dev/wd0 0\n4 64 linear /dev/wd1 0",
        "0 64 linear /dev/wd1 4",
        "0 60 linear /dev/wd1 0",
        "0 32 striped 2 4 /dev/wd1 0 /dev/wd1 64",
    ] {
        assert_eq!(bench.reload("e", table), Err(Errno::EINVAL), "{table}");
    }
}

#[test]
fn a_write_to_zero_leaves_the_writers_buffer_alone() {
    let bench = Bench::new();
    bench.disk("wd0", 100);
    let device = bench.device("d", "0 8 zero\n8 8 linear /dev/wd0 0\n16 8 zero");
    let raw = bench.raw(device);
    let data = pattern(5, 0, 24);
    let mut io = Io::with_data(data.clone());
    assert!(io.run(device.dev(), Request::write(0)).is_complete(data.len()));
    same(io.data(), &data, "the writer's buffer");
    let mut io = Io::with_data(data[..4096].to_vec());
    assert!(io.run(device.dev(), Request::write(0)).is_complete(4096));
    same(io.data(), &data[..4096], "the writer's buffer, one line");
    assert_eq!(raw.pwrite(&data, 0), Ok(data.len()));
    let back = read(&raw, 0, 24);
    assert!(back[..4096].iter().chain(&back[8192..]).all(|byte| *byte == 0));
    same(&back[4096..8192], &data[4096..8192], "between the zeroes");
}

#[test]
fn error_fails_with_eio_and_tells_what_was_moved() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 100);
    fill(&disk, 1);
    let table = "0 10 linear /dev/wd0 0\n10 5 error\n15 10 linear /dev/wd0 50";
    let device = bench.device("d", table);
    let raw = bench.raw(device);
    let mut data = vec![0; 4 * SECTOR];
    assert_eq!(raw.pread(&mut data, 10 * SECTOR as u64), Err(Errno::EIO));
    assert_eq!(raw.pwrite(&data, 12 * SECTOR as u64), Err(Errno::EIO));
    let (result, _) = strategy_read(device.dev(), 11, 3);
    assert_eq!((result.error, result.resid), (Some(Errno::EIO), 3 * SECTOR));
    // The pieces behind the bad one may have been moved; the count stops before it.
    let (result, data) = strategy_read(device.dev(), 4, 20);
    assert_eq!((result.error, result.resid), (Some(Errno::EIO), 14 * SECTOR));
    same(&data[..6 * SECTOR], &on_disk(&disk, 4, 6), "before the error");
}

#[test]
fn of_several_errors_the_first_by_place_counts() {
    let bench = Bench::new();
    let disks: Vec<_> = (0..3).map(|n| bench.disk(&format!("wd{n}"), 100)).collect();
    let table = "0 8 linear /dev/wd0 0\n8 8 linear /dev/wd1 0\n16 8 linear /dev/wd2 0";
    let device = bench.device("d", table);
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        disks.iter().for_each(Disk::hold);
        disks[1].fail(Errno::ENXIO);
        disks[2].fail(Errno::EIO);
        let mut io = Io::new(24 * SECTOR);
        io.start(device.dev(), Request::read(0));
        for disk in order {
            assert!(io.is_busy());
            disks[disk].release();
        }
        let result = io.wait();
        assert_eq!((result.error, result.resid), (Some(Errno::ENXIO), 16 * SECTOR), "{order:?}");
        disks.iter().for_each(Disk::heal);
    }
    // Within a piece: the component's own count of what it moved.
    disks[1].short_nth(1, 3 * SECTOR);
    let (result, _) = strategy_read(device.dev(), 0, 24);
    assert_eq!((result.error, result.resid), (Some(Errno::EIO), 13 * SECTOR));
}

#[test]
fn a_component_that_answers_short_is_an_error_with_its_count() {
    let (bench, disk, device) = small();
    disk.short_nth(1, 2 * SECTOR);
    let (result, data) = strategy_read(device.dev(), 0, 8);
    assert_eq!((result.error, result.resid), (Some(Errno::EIO), 6 * SECTOR));
    same(&data[..2 * SECTOR], &on_disk(&disk, 100, 2), "what it moved");
    drop(bench);
}

#[test]
fn flags_and_priority_reach_the_component() {
    let (_bench, disk, device) = small();
    let dev = device.dev();
    let both = (B_MEDIA_FUA | B_MEDIA_DPO) as u32;
    for (flags, prio) in [(0, 1), (B_MEDIA_FUA as u32, 2), (B_MEDIA_DPO as u32, 0), (both, 2)] {
        // In one piece, and across the border of two lines.
        for (sector, sectors) in [(0, 4), (48, 4)] {
            disk.reset_counters();
            let pieces = if sector == 48 { 2 } else { 1 };
            let request = Request::write(sector).flags(flags).prio(prio);
            let result = Io::new(sectors * SECTOR).run(dev, request);
            assert!(result.is_complete(sectors * SECTOR));
            let seen = disk.counters();
            assert_eq!(seen.writes, pieces);
            assert_eq!(seen.fua, if flags & B_MEDIA_FUA as u32 != 0 { pieces } else { 0 });
            assert_eq!(seen.dpo, if flags & B_MEDIA_DPO as u32 != 0 { pieces } else { 0 });
            assert_eq!(seen.time_critical, if prio == 2 { pieces } else { 0 });
            assert_eq!(seen.low_priority, if prio == 0 { pieces } else { 0 });
        }
    }
}

#[test]
fn devices_on_devices() {
    let bench = Bench::new();
    let disks = [bench.disk("wd0", 512), bench.disk("wd1", 512)];
    disks.iter().zip(1..).for_each(|(disk, seed)| fill(disk, seed));
    let a = bench.device("a", "0 400 striped 2 4 /dev/wd0 0 /dev/wd1 0");
    let b = bench.device("b", &format!("0 300 linear 169:{} 50", a.minor));
    bench.machine.mknod("/dev/mapper/b", b.dev(), true).unwrap();
    let c = bench.device("c", "0 100 linear /dev/mapper/b 200\n100 100 linear /dev/mapper/b 0");
    let model = Model::new("0 400 striped 2 4 /dev/wd0 0 /dev/wd1 0", &disks);
    let raw = bench.raw(c);
    same(&read(&raw, 0, 100), &model.read(&disks, 250, 100), "first line");
    same(&read(&raw, 100, 100), &model.read(&disks, 50, 100), "second line");
    let data = pattern(8, 0, 120);
    assert_eq!(raw.pwrite(&data, 40 * SECTOR as u64), Ok(data.len()));
    same(&model.read(&disks, 290, 60), &data[..60 * SECTOR], "written below, first line");
    same(&model.read(&disks, 50, 60), &data[60 * SECTOR..], "written below, second line");
    assert_eq!(bench.on("remove", "a"), Err(Errno::EBUSY), "another device uses it");
    assert_eq!(bench.info("b", "open_count"), 1);
    drop(raw);
    for name in ["c", "b", "a"] {
        bench.on("remove", name).unwrap();
    }
    bench.end();
}

#[test]
fn partitions_count_from_their_own_start() {
    let bench = Bench::new();
    let label = Label::new().slice(63).partition('a', 128, 300).partition('e', 500, 300);
    let disk = bench.attach(DiskSpec::memory("wd0", 1000).label(label));
    disk.write_at(128 * SECTOR as u64, &pattern(1, 128, 872));
    let device = bench.device("d", "0 100 linear /dev/wd0a 10\n100 100 linear /dev/wd0e 200");
    let raw = bench.raw(device);
    same(&read(&raw, 0, 100), &pattern(1, 138, 100), "partition a");
    same(&read(&raw, 100, 100), &pattern(1, 700, 100), "partition e");
    bench.create("e");
    assert_eq!(bench.reload("e", "0 100 linear /dev/wd0e 201"), Err(Errno::EINVAL));
}

#[test]
fn components_by_number() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 200);
    fill(&disk, 1);
    let device = bench.device("d", &format!("0 100 linear {} 7", disk.major_minor()));
    same(&read(&bench.raw(device), 0, 100), &pattern(1, 7, 100), "by number");
    // The output of `table` loads.
    let table = bench.table("d").join("\n");
    assert_eq!(table, format!("0 100 linear {} 7", disk.major_minor()));
    bench.load("d", &table).unwrap();
    same(&read(&bench.raw(device), 0, 100), &pattern(1, 7, 100), "loaded again");
}

#[test]
fn without_a_table_there_is_no_device_to_read() {
    let bench = Bench::new();
    let minor = bench.create("d");
    let device = Mapped { minor };
    let raw = bench.raw(device);
    let mut data = [0xa5; SECTOR];
    assert_eq!(raw.pread(&mut data, 0), Err(Errno::ENXIO));
    assert_eq!(raw.pwrite(&data, 0), Err(Errno::ENXIO));
    assert_eq!(data, [0xa5; SECTOR]);
    let (result, _) = strategy_read(device.dev(), 0, 1);
    assert_eq!((result.error, result.resid), (Some(Errno::ENXIO), SECTOR));
    assert_eq!(bench.machine.psize(device.dev()), None);
}

#[test]
fn a_minor_that_does_not_exist_cannot_be_opened() {
    let bench = Bench::new();
    for minor in [1, 7, 255, 256, 65_535, 1 << 19] {
        let device = Mapped { minor };
        for node in [Node::Block(device.dev()), Node::Character(device.rdev())] {
            assert_eq!(bench.machine.open(node, Flags::READ).err(), Some(Errno::ENXIO));
        }
        let (result, _) = strategy_read(device.dev(), 0, 1);
        assert_eq!(result.error, Some(Errno::ENXIO));
        assert_eq!(bench.machine.psize(device.dev()), None);
    }
}

#[test]
fn a_bad_address_is_the_readers_own_error() {
    let (bench, _, device) = small();
    let raw = bench.raw(device);
    // SAFETY: nothing is at this address, which the transfer has to find out.
    let result = unsafe { raw.transfer(std::ptr::dangling_mut::<u64>().cast(), 4096, 0, true) };
    assert_eq!(result, Err(Errno::EFAULT));
    assert!(strategy_read(device.dev(), 0, 4).0.is_complete(4 * SECTOR));
}

#[test]
fn data_survive_every_way_of_completing() {
    use dm_host::Completion::{Interrupt, Shuffled, Thread};
    for completion in [Thread, Interrupt, Shuffled(1), Shuffled(2)] {
        let bench = Bench::with(Config { ncpu: 4, ..Config::test() });
        let disks: Vec<_> = (0..2)
            .map(|n| {
                let spec = DiskSpec::memory(&format!("wd{n}"), 600).completion(completion);
                bench.attach(spec)
            })
            .collect();
        disks.iter().zip(1..).for_each(|(disk, seed)| fill(disk, seed));
        let table = "0 1000 striped 2 5 /dev/wd0 0 /dev/wd1 9";
        let model = Model::new(table, &disks);
        let device = bench.device("d", table);
        let raw = bench.raw(device);
        same(&read(&raw, 3, 900), &model.read(&disks, 3, 900), "read");
        let data = pattern(4, 0, 950);
        assert_eq!(raw.pwrite(&data, 7 * SECTOR as u64), Ok(data.len()));
        same(&model.read(&disks, 7, 950), &data, "written");
        drop(raw);
        bench.end();
    }
}
