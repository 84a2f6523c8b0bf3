// SPDX-License-Identifier: BSD-2-Clause

//! The label of a device itself: the time that a label which was set stays, the answers of a suspended device, and
//! old ioctls.

mod common;

use std::mem::{offset_of, zeroed};

use common::data::on_disk;
use common::wait::until;
use common::{Bench, Mapped};
use dm_host::netbsd::{
    DIOCGDEFLABEL, DIOCGDINFO, DIOCKLABEL, DIOCSDINFO, DIOCWDINFO, disklabel, partition,
};
use dm_host::{Disk, Errno, File, Flags, Io, Node, Request, Site};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

fn get(file: &File) -> disklabel {
    // SAFETY: a label is plain numbers and characters.
    let mut label: disklabel = unsafe { zeroed() };
    file.ioctl(DIOCGDINFO as u64, &mut label).unwrap();
    label
}

/// A device, and a label for it with a partition `a` of a size.
fn labelled(size: u32) -> (Bench, Disk, Mapped, disklabel) {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 5000);
    let device = bench.device("d", "0 4000 linear /dev/wd0 64");
    let mut label = get(&bench.raw(device));
    label.d_partitions[0].p_offset = 100;
    label.d_partitions[0].p_size = size;
    label.d_partitions[0].p_fstype = 7;
    label.d_checksum = 0;
    label.d_checksum = dm_host::disklabel::checksum(&label);
    (bench, disk, device, label)
}

fn size_of_a(file: &File) -> u32 {
    get(file).d_partitions[0].p_size
}

#[test]
fn a_label_that_was_set_stays_until_the_last_close() {
    let (bench, disk, device, mut label) = labelled(3000);
    let (raw, block) = (bench.raw(device), bench.block(device));
    assert_eq!(raw.ioctl(DIOCSDINFO as u64, &mut label), Ok(()));
    assert_eq!([size_of_a(&raw), size_of_a(&block)], [3000, 3000], "set, and told again");
    assert_eq!(on_disk(&disk, 65, 1), vec![0; 512], "and nowhere on the disk");
    drop(raw);
    assert_eq!(size_of_a(&block), 3000, "not the last close");
    drop(block);
    let raw = bench.raw(device);
    assert_eq!(size_of_a(&raw), 0, "read anew");
    // Another table may have another label.
    assert_eq!(raw.ioctl(DIOCSDINFO as u64, &mut label), Ok(()));
    bench.load("d", "0 4500 linear /dev/wd0 64").unwrap();
    assert_eq!(get(&raw).d_secperunit, 4500);
    assert_eq!(size_of_a(&raw), 0);
    // One that could not be written stays set in core, as on other disks.
    disk.fail_range(0..5000, Errno::EIO);
    assert_eq!(raw.ioctl(DIOCWDINFO as u64, &mut label), Err(Errno::EIO));
    assert_eq!(size_of_a(&raw), 3000);
    disk.heal();
    drop(raw);
    let reader = bench.machine.open(Node::Character(device.rdev()), Flags::READ).unwrap();
    assert_eq!(reader.ioctl(DIOCKLABEL as u64, &mut 1i32), Err(Errno::EBADF));
    assert_eq!(size_of_a(&reader), 0);
    drop(reader);
    bench.end();
}

#[test]
fn a_suspended_device_has_the_label_it_had() {
    let (bench, disk, device, mut label) = labelled(2000);
    let raw = bench.raw(device);
    bench.on("suspend", "d").unwrap();
    let made_up = get(&raw);
    assert_eq!((made_up.d_secperunit, made_up.d_partitions[0].p_size), (4000, 0), "never read");
    bench.on("resume", "d").unwrap();
    assert_eq!(raw.ioctl(DIOCWDINFO as u64, &mut label), Ok(()));
    drop(raw);
    let raw = bench.raw(device);
    assert_eq!(size_of_a(&raw), 2000, "read from the disk");
    disk.reset_counters();
    bench.on("suspend", "d").unwrap();
    assert_eq!(size_of_a(&raw), 2000, "as it was read");
    assert_eq!(disk.counters().reads, 0);
    bench.on("resume", "d").unwrap();
    assert_eq!(size_of_a(&raw), 2000);
    drop(raw);
    bench.end();
}

#[test]
fn a_device_without_memory_has_the_label_it_had() {
    let (bench, disk, device, mut label) = labelled(2000);
    let raw = bench.raw(device);
    assert_eq!(raw.ioctl(DIOCWDINFO as u64, &mut label), Ok(()));
    drop(raw);
    let raw = bench.raw(device);
    assert_eq!(size_of_a(&raw), 2000, "read from the disk");
    // All that the pools, the CPUs and the reserve have is in use.
    disk.hold();
    bench.machine.faults().fail_always(Site::Pool);
    let mut ios = Vec::new();
    until("an I/O waits for the reserve", || {
        let before = disk.held();
        let mut io = Io::new(512);
        io.start(device.dev(), Request::read(0));
        ios.push(io);
        disk.held() == before
    });
    let without_memory = size_of_a(&raw);
    bench.machine.faults().reset();
    disk.release();
    for io in &mut ios {
        assert!(io.wait().is_complete(512));
    }
    assert_eq!(without_memory, 2000, "as it was read");
    drop(raw);
    bench.end();
}

#[test]
fn writing_a_label_to_a_suspended_device_can_be_interrupted() {
    let (bench, disk, device, label) = labelled(2000);
    bench.on("suspend", "d").unwrap();
    for interrupted in [true, false] {
        let raw = bench.raw(device);
        let mut bytes = [0u8; size_of::<disklabel>()];
        bytes.copy_from_slice(dm_host::disklabel::bytes(&label));
        let write = bench.machine.spawn(move || (raw.ioctl(DIOCWDINFO as u64, &mut bytes), raw));
        let lwp = write.lwp();
        if interrupted {
            until("the signal ends the wait", || {
                !bench.machine.interrupt(lwp) || write.is_finished()
            });
        } else {
            bench.on("resume", "d").unwrap();
        }
        let (result, raw) = write.join();
        assert_eq!(result, if interrupted { Err(Errno::EINTR) } else { Ok(()) });
        assert_eq!(size_of_a(&raw), 2000, "set in core at once");
        assert_eq!(on_disk(&disk, 65, 1) == vec![0; 512], interrupted);
    }
    bench.end();
}

#[test]
fn a_table_on_a_suspended_device_does_not_wait_for_it() {
    let (bench, _, lower, _) = labelled(2000);
    bench.on("suspend", "d").unwrap();
    bench.create("e");
    bench.load("e", &format!("0 1000 linear 169:{} 0", lower.minor)).unwrap();
    assert_eq!(bench.info("e", "open_count"), 0);
    bench.on("resume", "d").unwrap();
    assert_eq!(get(&bench.raw(Mapped { minor: 2 })).d_secperunit, 1000);
    bench.end();
}

const OLD: usize = offset_of!(disklabel, d_partitions) + 8 * size_of::<partition>();

/// `_IOR('d', …)` or `_IOW('d', …)` with a label of 8 partitions.
fn old_command(write: bool, number: u64) -> u64 {
    (if write { 0x8000_0000 } else { 0x4000_0000 }) | (OLD as u64) << 16 | 0x64 << 8 | number
}

#[test]
fn labels_in_their_old_form() {
    let [get_old, get_default, set, write] =
        [(false, 101), (false, 114), (true, 102), (true, 103)].map(|(w, n)| old_command(w, n));
    assert_eq!(OLD, 276);
    let (bench, disk, device, mut label) = labelled(1500);
    let raw = bench.raw(device);
    let mut old = [0u8; OLD];
    old.copy_from_slice(&dm_host::disklabel::bytes(&label)[..OLD]);
    let reader = bench.machine.open(Node::Character(device.rdev()), Flags::READ).unwrap();
    for command in [set, write] {
        assert_eq!(reader.ioctl(command, &mut old), Err(Errno::EBADF));
    }
    assert_eq!(raw.ioctl(set, &mut old), Ok(()));
    assert_eq!(size_of_a(&raw), 1500);
    assert_eq!(on_disk(&disk, 65, 1), vec![0; 512]);
    assert_eq!(raw.ioctl(write, &mut old), Ok(()));
    assert_eq!(on_disk(&disk, 65, 1)[..4], 0x8256_4557u32.to_ne_bytes());
    let mut told = [0u8; OLD];
    assert_eq!(reader.ioctl(get_old, &mut told), Ok(()));
    assert_eq!(told, old);
    assert_eq!(reader.ioctl(get_default, &mut told), Ok(()));
    // SAFETY: a label is plain numbers and characters.
    let mut default: disklabel = unsafe { zeroed() };
    reader.ioctl(DIOCGDEFLABEL as u64, &mut default).unwrap();
    assert_eq!(told, dm_host::disklabel::bytes(&default)[..OLD]);
    let mut bad = old;
    bad[0] ^= 1;
    assert_eq!(raw.ioctl(set, &mut bad), Err(Errno::EINVAL));
    // More partitions than it has room for are not told by halves.
    label.d_npartitions = 9;
    label.d_checksum = 0;
    label.d_checksum = dm_host::disklabel::checksum(&label);
    assert_eq!(raw.ioctl(DIOCSDINFO as u64, &mut label), Ok(()));
    assert_eq!(reader.ioctl(get_old, &mut told), Err(Errno::ENOTTY));
    drop((raw, reader));
    bench.end();
}
