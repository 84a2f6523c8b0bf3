// SPDX-License-Identifier: BSD-2-Clause

//! A device answers as NetBSD's other disks do.

mod common;

use std::mem::zeroed;

use common::data::{SECTOR, fill, on_disk, pattern, same, strategy_read};
use common::{Bench, Mapped, flags};
use dm_host::netbsd::{
    DIOCAWEDGE, DIOCCACHESYNC, DIOCDWEDGE, DIOCGCACHE, DIOCGDEFLABEL, DIOCGDINFO, DIOCGDISKINFO,
    DIOCGMEDIASIZE, DIOCGPARTINFO, DIOCGSECTORALIGN, DIOCGSECTORSIZE, DIOCGSTRATEGY,
    DIOCGWEDGEINFO, DIOCKLABEL, DIOCLWEDGES, DIOCMWEDGES, DIOCRMWEDGES, DIOCSDINFO, DIOCWDINFO,
    disk_sectoralign, disk_strategy, disklabel, dkwedge_info, dkwedge_list, partinfo,
};
use dm_host::{Disk, DiskSpec, Errno, File, Flags};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

const RAW: usize = dm_host::netbsd::RAW_PART as usize;

/// Asks for a structure of numbers and characters.
fn ask<T: Copy>(file: &File, command: i64) -> Result<T, Errno> {
    // SAFETY: the commands here give plain numbers and characters.
    let mut answer: T = unsafe { zeroed() };
    file.ioctl(command as u64, &mut answer)?;
    Ok(answer)
}

fn text<T: Copy + Into<i64>>(characters: &[T]) -> String {
    let bytes = characters.iter().map(|c| (*c).into() as u8);
    bytes.take_while(|c| *c != 0).map(char::from).collect()
}

fn one(size: u64) -> (Bench, Disk, Mapped) {
    let bench = Bench::new();
    let disk = bench.disk("wd0", size + 64);
    let device = bench.device("d", &format!("0 {size} linear /dev/wd0 64"));
    (bench, disk, device)
}

#[test]
fn sizes() {
    let (bench, _, device) = one(5000);
    for file in [bench.raw(device), bench.block(device)] {
        assert_eq!(ask::<i64>(&file, DIOCGMEDIASIZE as i64), Ok(5000 * 512));
        assert_eq!(ask::<u32>(&file, DIOCGSECTORSIZE as i64), Ok(512));
        let part: partinfo = ask(&file, DIOCGPARTINFO).unwrap();
        assert_eq!((part.pi_offset, part.pi_size, part.pi_secsize), (0, 5000, 512));
        assert_eq!(part.pi_bsize, 2048);
        assert_eq!(file.size(), 5000 * 512);
    }
    assert_eq!(bench.machine.psize(device.dev()), Some(5000));
    // A new table is a new size, at once and while it is suspended.
    let raw = bench.raw(device);
    bench.load("d", "0 6000 zero").unwrap();
    assert_eq!(ask::<i64>(&raw, DIOCGMEDIASIZE as i64), Ok(6000 * 512));
    bench.on("suspend", "d").unwrap();
    assert_eq!(ask::<i64>(&raw, DIOCGMEDIASIZE as i64), Ok(6000 * 512));
    assert_eq!(ask::<dkwedge_info>(&raw, DIOCGWEDGEINFO as i64).unwrap().dkw_size, 6000);
    bench.on("resume", "d").unwrap();
}

#[test]
fn devices_of_zero_or_error_only_have_a_size() {
    let bench = Bench::new();
    for (n, kind) in ["zero", "error"].into_iter().enumerate() {
        let device = bench.device(kind, &format!("0 {} {kind}", 100 + n));
        let raw = bench.raw(device);
        assert_eq!(ask::<i64>(&raw, DIOCGMEDIASIZE as i64), Ok((100 + n as i64) * 512));
        assert_eq!(bench.machine.psize(device.dev()), Some(100 + n as i64));
    }
}

#[test]
fn more_than_two_terabytes() {
    let bench = Bench::new();
    let sectors = 5_000_000_000_000u64;
    bench.attach(DiskSpec::null("wd0", sectors));
    let device = bench.device("d", &format!("0 {sectors} linear /dev/wd0 0"));
    let raw = bench.raw(device);
    assert_eq!(ask::<i64>(&raw, DIOCGMEDIASIZE as i64), Ok(sectors as i64 * 512));
    assert_eq!(ask::<dkwedge_info>(&raw, DIOCGWEDGEINFO as i64).unwrap().dkw_size, sectors);
    assert_eq!(ask::<partinfo>(&raw, DIOCGPARTINFO).unwrap().pi_size, sectors);
    let label: disklabel = ask(&raw, DIOCGDINFO as i64).unwrap();
    assert_eq!(label.d_secperunit, u32::MAX, "as much as a label can tell");
    assert_eq!(bench.machine.psize(device.dev()), Some(i64::from(i32::MAX)));
    let last = strategy_read(device.dev(), sectors - 8, 8).0;
    assert!(last.is_complete(8 * SECTOR));
    assert_eq!(strategy_read(device.dev(), sectors - 8, 16).0.count, 8 * SECTOR);
}

#[test]
fn the_default_label() {
    let (bench, _, device) = one(5000);
    let raw = bench.raw(device);
    for command in [DIOCGDINFO as i64, DIOCGDEFLABEL as i64] {
        let label: disklabel = ask(&raw, command).unwrap();
        assert!(dm_host::disklabel::valid(&label));
        assert_eq!((label.d_secsize, label.d_secperunit), (512, 5000));
        assert_eq!(text(&label.d_typename), "dm");
        let whole = label.d_partitions[RAW];
        assert_eq!((whole.p_offset, whole.p_size), (0, 5000));
        assert!(usize::from(label.d_npartitions) > RAW);
    }
    let label: disklabel = ask(&raw, DIOCGDEFLABEL as i64).unwrap();
    assert_eq!(text(unsafe_packname(&label)), "fictitious");
}

fn unsafe_packname(label: &disklabel) -> &[i8] {
    // SAFETY: any bytes are a name.
    unsafe { &label.d_un.un_d_packname }
}

#[test]
fn a_label_is_written_and_read_back() {
    let (bench, disk, device) = one(5000);
    let other = bench.device("other", "0 100 zero");
    let raw = bench.raw(device);
    let mut label: disklabel = ask(&raw, DIOCGDINFO as i64).unwrap();
    label.d_partitions[0].p_offset = 100;
    label.d_partitions[0].p_size = 3000;
    label.d_partitions[0].p_fstype = 7;
    label.d_checksum = 0;
    label.d_checksum = dm_host::disklabel::checksum(&label);
    let reader = bench.machine.open(dm_host::Node::Character(device.rdev()), Flags::READ).unwrap();
    for command in [DIOCWDINFO, DIOCSDINFO] {
        assert_eq!(reader.ioctl(command as u64, &mut label), Err(Errno::EBADF));
    }
    let mut bad = label;
    bad.d_magic = 7;
    assert_eq!(raw.ioctl(DIOCWDINFO as u64, &mut bad), Err(Errno::EINVAL));
    assert_eq!(raw.ioctl(DIOCWDINFO as u64, &mut label), Ok(()));
    // The label is on the disk, in the second sector of the device, where disklabel(8) looks.
    let sector = on_disk(&disk, 65, 1);
    assert_eq!(sector[..4], 0x8256_4557u32.to_ne_bytes());
    let back: disklabel = ask(&raw, DIOCGDINFO as i64).unwrap();
    assert_eq!(back.d_partitions[0].p_size, 3000);
    assert_eq!(raw.ioctl(DIOCKLABEL as u64, &mut 1i32), Ok(()));
    drop((raw, reader));
    // It outlives the device: the label is read from the disk.
    bench.on("remove", "d").unwrap();
    let device = bench.device("d", "0 5000 linear /dev/wd0 64");
    let back: disklabel = ask(&bench.raw(device), DIOCGDINFO as i64).unwrap();
    assert_eq!((back.d_partitions[0].p_offset, back.d_partitions[0].p_size), (100, 3000));
    let untouched: disklabel = ask(&bench.raw(other), DIOCGDINFO as i64).unwrap();
    assert_eq!(untouched.d_secperunit, 100, "another device has its own");
}

#[test]
fn the_device_as_a_wedge() {
    let (bench, _, device) = one(5000);
    let info: dkwedge_info = ask(&bench.raw(device), DIOCGWEDGEINFO as i64).unwrap();
    assert_eq!((info.dkw_offset, info.dkw_size), (0, 5000));
    assert_eq!(text(&info.dkw_devname), "dm1");
    assert_eq!(text(&info.dkw_parent), "dm1");
    assert_eq!(text(&info.dkw_wname), "d");
    assert_eq!(text(&info.dkw_ptype), "ffs");
    bench.send(&common::Request::on("rename", "d").with("cmd_data", vec!["e".into()])).unwrap();
    let info: dkwedge_info = ask(&bench.raw(device), DIOCGWEDGEINFO as i64).unwrap();
    assert_eq!(text(&info.dkw_wname), "e");
}

#[test]
fn wedges_on_a_device_are_refused_and_none_are_listed() {
    // dk(4) would open the wedge's parent by a minor number that is another device's.
    let (bench, _, device) = one(5000);
    let raw = bench.raw(device);
    // SAFETY: plain numbers and characters.
    let mut info: dkwedge_info = unsafe { zeroed() };
    info.dkw_size = 100;
    assert_eq!(raw.ioctl(DIOCAWEDGE as u64, &mut info), Err(Errno::EOPNOTSUPP));
    assert_eq!(raw.ioctl(DIOCDWEDGE as u64, &mut info), Err(Errno::ESRCH));
    assert_eq!(raw.ioctl(DIOCRMWEDGES as u64, &mut 0i32), Ok(()));
    assert_eq!(raw.ioctl(DIOCMWEDGES as u64, &mut 0i32), Err(Errno::EOPNOTSUPP));
    // SAFETY: as above; a null buffer of no bytes.
    let mut list: dkwedge_list = unsafe { zeroed() };
    assert_eq!(raw.ioctl(DIOCLWEDGES as u64, &mut list), Ok(()));
    assert_eq!((list.dkwl_nwedges, list.dkwl_ncopied), (0, 0));
    let reader = bench.machine.open(dm_host::Node::Character(device.rdev()), Flags::READ).unwrap();
    assert_eq!(reader.ioctl(DIOCAWEDGE as u64, &mut info), Err(Errno::EBADF));
}

#[test]
fn disk_info_is_told_anew_after_each_table() {
    let (bench, _, device) = one(5000);
    let raw = bench.raw(device);
    let info = raw.plist_query(DIOCGDISKINFO as u64).unwrap();
    let number = |n: u64| format!("<integer>{n:#x}</integer>");
    assert!(info.contains(&number(5000)) && info.contains("<string>dm</string>"), "{info}");
    bench.load("d", "0 7000 zero").unwrap();
    assert!(raw.plist_query(DIOCGDISKINFO as u64).unwrap().contains(&number(7000)));
    // setgeometry's figures are told as well, also while I/O is held.
    bench.on("suspend", "d").unwrap();
    let geometry = common::Request::on("setgeometry", "d").with("geometry", "70 20 5 0");
    bench.send(&geometry).unwrap();
    bench.on("resume", "d").unwrap();
    let info = raw.plist_query(DIOCGDISKINFO as u64).unwrap();
    for figure in [70, 20, 5] {
        assert!(info.contains(&number(figure)), "{figure} in {info}");
    }
}

#[test]
fn a_device_without_a_table_has_no_size() {
    let bench = Bench::new();
    let device = Mapped { minor: bench.create("d") };
    let raw = bench.raw(device);
    assert_eq!(ask::<i64>(&raw, DIOCGMEDIASIZE as i64), Ok(0));
    assert_eq!(ask::<dkwedge_info>(&raw, DIOCGWEDGEINFO as i64).unwrap().dkw_size, 0);
    assert_eq!(ask::<i32>(&raw, DIOCGCACHE as i64), Err(Errno::ENXIO));
    assert_eq!(raw.ioctl(DIOCCACHESYNC as u64, &mut 0i32), Err(Errno::ENXIO));
    assert_eq!(raw.fdiscard(0, 512), Err(Errno::ENXIO));
    assert_eq!(bench.machine.dump(device.dev(), 0, &[0; SECTOR]), Err(Errno::ENXIO));
    bench.create("e");
    let table = format!("0 1 linear 169:{} 0", device.minor);
    assert_eq!(bench.reload("e", &table), Err(Errno::EINVAL), "nothing to map to");
    drop(raw);
    bench.end();
}

#[test]
fn the_sector_size_is_the_largest() {
    let bench = Bench::new();
    bench.disk("wd0", 800);
    bench.attach(DiskSpec::memory("wd1", 100).sector_size(4096));
    let device = bench.device("d", "0 80 linear /dev/wd0 0\n80 160 linear /dev/wd1 0");
    let raw = bench.raw(device);
    assert_eq!(ask::<u32>(&raw, DIOCGSECTORSIZE as i64), Ok(4096));
    assert_eq!(ask::<i64>(&raw, DIOCGMEDIASIZE as i64), Ok(240 * 512));
    let part: partinfo = ask(&raw, DIOCGPARTINFO).unwrap();
    assert_eq!((part.pi_size, part.pi_secsize), (30, 4096), "in sectors of the device");
    assert_eq!(ask::<dkwedge_info>(&raw, DIOCGWEDGEINFO as i64).unwrap().dkw_size, 30);
    let label: disklabel = ask(&raw, DIOCGDINFO as i64).unwrap();
    assert_eq!((label.d_secsize, label.d_secperunit), (4096, 30));
    assert_eq!(bench.machine.psize(device.dev()), Some(240), "in DEV_BSIZE");
    // A device on it inherits the size.
    drop(raw);
    bench.create("e");
    assert_eq!(bench.reload("e", "0 100 linear 169:1 0"), Err(Errno::EINVAL));
    bench.load("e", "0 96 linear 169:1 8").unwrap();
    assert_eq!(ask::<u32>(&bench.raw(Mapped { minor: 2 }), DIOCGSECTORSIZE as i64), Ok(4096));
}

#[test]
fn the_cache_is_what_all_components_have() {
    // DKCACHE_READ 1, WRITE 2, RCHANGE 0x100, WCHANGE 0x200, SAVE 0x10000, FUA 0x20000, DPO.
    for (bits, expected) in [
        ([3, 3], 3),
        ([1, 3], 3),
        ([0x2_0003, 3], 3),
        // The next table's components may not have it.
        ([0x6_0001, 0x2_0001], 1),
        ([0, 0], 0),
    ] {
        let bench = Bench::new();
        for (n, bits) in bits.into_iter().enumerate() {
            bench.attach(DiskSpec::memory(&format!("wd{n}"), 100).cache(bits));
        }
        let device = bench.device("d", "0 100 striped 2 1 /dev/wd0 0 /dev/wd1 0");
        assert_eq!(ask::<i32>(&bench.raw(device), DIOCGCACHE as i64), Ok(expected), "{bits:x?}");
    }
}

/// The last close flushes if something was written, as with wd(4) and sd(4).
#[test]
fn the_last_close_flushes_the_components() {
    let bench = Bench::new();
    let disks: Vec<_> = (0..2).map(|n| bench.disk(&format!("wd{n}"), 100)).collect();
    let device = bench.device("d", "0 10 linear /dev/wd0 0\n10 10 linear /dev/wd1 0");
    let minor = bench.info("d", "minor");
    let upper = bench.device("upper", &format!("0 20 linear 169:{minor} 0"));
    let flushes = || disks.iter().map(|d| d.counters().flushes).collect::<Vec<_>>();
    let write = |file: &File| assert_eq!(file.pwrite(&[1; SECTOR], 0), Ok(SECTOR));
    let (first, second) = (bench.raw(upper), bench.block(upper));
    write(&first);
    drop(first);
    assert_eq!(flushes(), [0, 0], "a node is open still");
    drop(second);
    assert_eq!(flushes(), [1, 1]);
    assert_eq!(bench.raw(upper).pread(&mut [0; SECTOR], 0), Ok(SECTOR));
    assert_eq!(flushes(), [1, 1], "nothing was written");
    // A flush that fails is not reported, and is done at the next close.
    disks[0].fail_ioctl(DIOCCACHESYNC as u64, Some(Errno::EIO));
    write(&bench.raw(upper));
    assert_eq!(flushes(), [1, 2]);
    disks[0].heal();
    drop(bench.raw(upper));
    assert_eq!(flushes(), [2, 3]);
    // A device that is suspended, this one or one below, is not waited for.
    for name in ["upper", "d"] {
        let raw = bench.raw(upper);
        write(&raw);
        let before = flushes();
        bench.on("suspend", name).unwrap();
        drop(raw);
        assert_eq!(flushes(), before);
        bench.on("resume", name).unwrap();
        drop(bench.raw(upper));
        assert_eq!(flushes(), [before[0] + 1, before[1] + 1], "{name}");
    }
    // Nor is one that has become read-only: it may be so for a reason.
    let raw = bench.raw(upper);
    write(&raw);
    let before = flushes();
    let table = format!("0 20 linear 169:{minor} 0");
    bench.send(&common::reload("upper", &table).flags(flags::READONLY)).unwrap();
    bench.on("resume", "upper").unwrap();
    drop(raw);
    assert_eq!(flushes(), before);
    let _ = device;
}

#[test]
fn cache_sync_goes_to_each_component_once() {
    let bench = Bench::new();
    let disks: Vec<_> = (0..3).map(|n| bench.disk(&format!("wd{n}"), 100)).collect();
    let device = bench.device(
        "d",
        "0 10 linear /dev/wd0 0\n10 10 linear /dev/wd1 0\n20 10 linear /dev/wd0 50\n\
         30 10 linear /dev/wd2 0",
    );
    let raw = bench.raw(device);
    let sync = || raw.ioctl(DIOCCACHESYNC as u64, &mut 0i32);
    let flushes = || disks.iter().map(|d| d.counters().flushes).collect::<Vec<_>>();
    assert_eq!(sync(), Ok(()));
    assert_eq!(flushes(), [1, 1, 1]);
    // The first error is told when all have been asked.
    disks[1].fail_ioctl(DIOCCACHESYNC as u64, Some(Errno::EIO));
    disks[2].fail_ioctl(DIOCCACHESYNC as u64, Some(Errno::ENXIO));
    assert_eq!(sync(), Err(Errno::EIO));
    assert_eq!(flushes(), [2, 1, 1]);
    disks.iter().for_each(Disk::heal);
    // A disk that has no cache to sync is no error.
    disks[1].fail_ioctl(DIOCCACHESYNC as u64, Some(Errno::ENOTTY));
    disks[2].fail_ioctl(DIOCCACHESYNC as u64, Some(Errno::ENODEV));
    assert_eq!(sync(), Ok(()));
    // As the raw partition of md(4) and a disk of xbd(4) without the feature say it.
    disks[1].fail_ioctl(DIOCCACHESYNC as u64, Some(Errno::EINVAL));
    disks[2].fail_ioctl(DIOCCACHESYNC as u64, Some(Errno::EOPNOTSUPP));
    assert_eq!(sync(), Ok(()));
    let reader = bench.machine.open(dm_host::Node::Character(device.rdev()), Flags::READ).unwrap();
    assert_eq!(reader.ioctl(DIOCCACHESYNC as u64, &mut 0i32), Err(Errno::EBADF));
    // Nor is one that takes no writes, to a writer who was there before.
    let locked = bench.attach(DiskSpec::memory("wd3", 100).read_only());
    bench.send(&common::reload("d", "0 10 linear /dev/wd3 0").flags(flags::READONLY)).unwrap();
    bench.on("resume", "d").unwrap();
    assert_eq!(sync(), Ok(()));
    assert_eq!(locked.counters().flushes, 0);
}

#[test]
fn strategy_and_alignment() {
    let bench = Bench::new();
    bench.attach(DiskSpec::memory("wd0", 1000).align(1, 8));
    bench.attach(DiskSpec::memory("wd1", 1000).align(0, 8));
    let name =
        |file: &File| text(&ask::<disk_strategy>(file, DIOCGSTRATEGY as i64).unwrap().dks_name);
    let alignment = |file: &File| {
        let one: disk_sectoralign = ask(file, DIOCGSECTORALIGN as i64).unwrap();
        (one.dsa_firstaligned, one.dsa_alignment)
    };
    let device = bench.device("d", "0 100 linear /dev/wd0 0");
    let raw = bench.raw(device);
    assert_eq!(name(&raw), "fcfs", "the only component's");
    assert_eq!(alignment(&raw), (1, 8));
    bench.load("d", "0 100 linear /dev/wd0 3").unwrap();
    assert_eq!(alignment(&raw), (6, 8), "sector 9 of the disk is the first on a border");
    bench.load("d", "0 103 linear /dev/wd0 2\n103 100 linear /dev/wd1 0").unwrap();
    assert_eq!(alignment(&raw), (7, 8), "both agree");
    bench.load("d", "0 100 linear /dev/wd0 0\n100 100 linear /dev/wd1 0").unwrap();
    assert_eq!(name(&raw), "none");
    assert_eq!(alignment(&raw), (0, 1), "they differ");
}

#[test]
fn discard() {
    let bench = Bench::new();
    let disks = [bench.disk("wd0", 200), bench.attach(DiskSpec::memory("wd1", 200).discard(false))];
    disks.iter().zip(1..).for_each(|(disk, seed)| fill(disk, seed));
    let device = bench.device("d", "0 64 striped 2 8 /dev/wd0 0 /dev/wd1 0\n64 16 zero");
    let raw = bench.raw(device);
    raw.fdiscard(0, 16 * 512).unwrap();
    assert!(on_disk(&disks[0], 0, 8).iter().all(|byte| *byte == 0), "the one that can");
    same(&on_disk(&disks[1], 0, 8), &pattern(2, 0, 8), "the one that cannot");
    same(&on_disk(&disks[0], 8, 8), &pattern(1, 8, 8), "and no further");
    assert_eq!(raw.fdiscard(8 * 512, 8 * 512), Err(Errno::ENODEV), "none of them can");
    raw.fdiscard(60 * 512, 20 * 512).unwrap();
    assert_eq!(raw.fdiscard(0, 0), Ok(()));
    for (start, length) in [(0, 81 * 512), (80 * 512, 512), (0, 100), (100, 512), (u64::MAX, 512)] {
        assert_eq!(raw.fdiscard(start, length), Err(Errno::EINVAL), "{start} {length}");
    }
    bench.load("d", "0 64 linear /dev/wd0 0\n64 8 error").unwrap();
    assert_eq!(raw.fdiscard(60 * 512, 8 * 512), Err(Errno::EIO));
    assert_eq!(raw.fdiscard(0, 512), Ok(()));
    let reader = bench.machine.open(dm_host::Node::Character(device.rdev()), Flags::READ).unwrap();
    assert_eq!(reader.fdiscard(0, 512), Err(Errno::EBADF));
}

#[test]
fn dump() {
    let bench = Bench::new();
    let disks = [bench.disk("wd0", 200), bench.disk("wd1", 200)];
    let table = "0 64 striped 2 8 /dev/wd0 0 /dev/wd1 0\n64 16 linear /dev/wd1 100\n80 8 error";
    let device = bench.device("d", table);
    let data = pattern(3, 0, 20);
    // The hosted kernel stops if it sleeps or allocates on the way.
    assert_eq!(bench.machine.dump(device.dev(), 4, &data), Ok(()));
    let _block = bench.block(device);
    same(&strategy_read(device.dev(), 4, 20).1, &data, "dumped over three chunks");
    assert_eq!(bench.machine.dump(device.dev(), 60, &data), Ok(()));
    same(&on_disk(&disks[1], 100, 16), &data[4 * SECTOR..], "dumped over a border");
    assert_eq!(bench.machine.dump(device.dev(), 76, &data[..6 * SECTOR]), Err(Errno::EIO));
    assert_eq!(bench.machine.dump(device.dev(), 80, &data), Err(Errno::EINVAL), "past the end");
    assert_eq!(bench.machine.dump(device.dev(), -1, &data), Err(Errno::EINVAL));
    assert_eq!(bench.machine.dump(device.dev(), 0, &data[..100]), Err(Errno::EINVAL));
    let missing = Mapped { minor: 9 };
    assert_eq!(bench.machine.dump(missing.dev(), 0, &data), Err(Errno::ENXIO));
    bench.attach(DiskSpec::memory("wd2", 100).dump(false));
    bench.load("d", "0 100 linear /dev/wd2 0").unwrap();
    assert_eq!(bench.machine.dump(device.dev(), 0, &data), Err(Errno::ENODEV));
    // Through a stack of devices, with no memory to be had.
    bench.load("d", "0 100 linear /dev/wd0 50").unwrap();
    drop(_block);
    let upper = bench.device("e", &format!("0 80 linear 169:{} 10", device.minor));
    bench.machine.faults().exhaust_memory(true);
    assert_eq!(bench.machine.dump(upper.dev(), 5, &data), Ok(()));
    bench.machine.faults().exhaust_memory(false);
    same(&on_disk(&disks[0], 65, 20), &data, "dumped through two");
}

#[test]
fn ioctls_that_no_disk_knows_are_enotty() {
    let (bench, _, device) = one(100);
    let raw = bench.raw(device);
    let unknown = 0x2000_0000 | (u64::from(b'd') << 8) | 250;
    assert_eq!(raw.ioctl(unknown, &mut 0i32), Err(Errno::ENOTTY));
    // The driver's own command belongs to the control node, a disk's commands do not.
    let xml = common::Request::new("version").dict().print();
    assert_eq!(raw.plist_ioctl(&xml), Err(Errno::ENOTTY));
    assert_eq!(ask::<i64>(&bench.control, DIOCGMEDIASIZE as i64), Err(Errno::ENOTTY));
    assert_eq!(bench.control.pread(&mut [0; SECTOR], 0), Err(Errno::ENXIO));
}
