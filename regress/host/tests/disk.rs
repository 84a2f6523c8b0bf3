//! A device answers as NetBSD's other disks do.

mod common;

use std::mem::zeroed;

use common::data::{SECTOR, fill, on_disk, pattern, read, same, strategy_read, strategy_write};
use common::{Bench, Mapped, flags};
use dm_host::netbsd::{
    DIOCAWEDGE, DIOCCACHESYNC, DIOCDWEDGE, DIOCGCACHE, DIOCGDEFLABEL, DIOCGDINFO, DIOCGDISKINFO,
    DIOCGMEDIASIZE, DIOCGPARTINFO, DIOCGSECTORALIGN, DIOCGSECTORSIZE, DIOCGSTRATEGY,
    DIOCGWEDGEINFO, DIOCKLABEL, DIOCLWEDGES, DIOCMWEDGES, DIOCSDINFO, DIOCWDINFO, DIOCWLABEL,
    disk_sectoralign, disk_strategy, disklabel, dkwedge_info, dkwedge_list, partinfo,
};
use dm_host::{Disk, DiskSpec, Errno, File, Flags, Label};

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
    // It is on the disk, in the second sector of the device, where disklabel(8) looks.
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
    assert_eq!(raw.ioctl(DIOCDWEDGE as u64, &mut info), Err(Errno::EOPNOTSUPP));
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
        ([0x6_0001, 0x2_0001], 0x2_0001),
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
    /// Which sectors of a range of the device refuse a write of their own.
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
