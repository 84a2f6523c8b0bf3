// SPDX-License-Identifier: BSD-2-Clause

//! Disks of the hosted kernel: partitions and labels, completion, faults.

use std::io::Write;

use dm_host::{
    Completion, Config, DiskSpec, Errno, Flags, Io, Label, Machine, Node, Request, netbsd,
};

fn machine() -> Machine {
    Machine::boot(Config { modules: false, ..Config::test() }).expect("boots")
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 512) as u8).collect()
}

#[test]
fn sectors_are_powers_of_two_from_512() {
    let m = machine();
    for bytes in [0, 256, 511, 1536] {
        let attached = m.attach_disk(DiskSpec::memory("wd0", 16).sector_size(bytes));
        assert_eq!(attached.err(), Some(Errno::EINVAL), "{bytes}");
    }
    assert!(m.attach_disk(DiskSpec::memory("wd0", 16).sector_size(1024)).is_ok());
    assert_eq!(m.shutdown(), Vec::<String>::new());
}

#[test]
fn partitions_and_label_guard() {
    let m = machine();
    let label = Label::new().slice(63).partition('a', 63, 100).partition('e', 163, 50);
    let disk = m.attach_disk(DiskSpec::memory("wd1", 4096).label(label)).expect("attaches");
    let e = m.open(&disk.part_path('e'), Flags::READ_WRITE).expect("opens");
    assert_eq!(e.size(), 50 * 512);
    assert_eq!(e.pwrite(&pattern(1024), 512), Ok(1024));
    let mut back = vec![0; 1024];
    disk.read_at(164 * 512, &mut back);
    assert_eq!(back, pattern(1024));
    // Sector 64 holds the label: one behind the slice.
    let a = m.open(&disk.part_path('a'), Flags::READ_WRITE).expect("opens");
    assert_eq!(a.pwrite(&pattern(1024), 0), Err(Errno::EROFS));
    assert_eq!(a.pwrite(&pattern(512), 1024), Ok(512));
    let mut on = 1i32;
    a.ioctl(netbsd::DIOCWLABEL as u64, &mut on).expect("DIOCWLABEL");
    assert_eq!(a.pwrite(&pattern(1024), 0), Ok(1024));
    assert_eq!(m.open("/dev/wd1b", Flags::READ).err(), Some(Errno::ENXIO));
    assert_eq!(m.open("/dev/wd9a", Flags::READ).err(), Some(Errno::ENOENT));
    // Block devices are open once.
    let other = m.open(&disk.part_path('e'), Flags::READ);
    assert_eq!(other.err(), Some(Errno::EBUSY));
    assert_eq!(disk.detach(false), Err(Errno::EBUSY));
    drop((a, e));
    assert_eq!(disk.detach(false), Ok(()));
    assert_eq!(m.shutdown(), Vec::<String>::new());
}

#[test]
fn character_node_and_end_of_disk() {
    let m = machine();
    let disk = m.attach_disk(DiskSpec::memory("dk0", 100).sector_size(4096)).expect("attaches");
    let raw = m.open(&disk.rpath(), Flags::READ_WRITE).expect("opens");
    let data = pattern(200 * 1024);
    assert_eq!(raw.pwrite(&data, 4096), Ok(data.len()));
    let mut back = vec![0; data.len()];
    assert_eq!(raw.pread(&mut back, 4096), Ok(data.len()));
    assert_eq!(back, data);
    assert_eq!(raw.pread(&mut back[..512], 0), Err(Errno::EINVAL));
    assert_eq!(raw.pread(&mut back[..8192], 99 * 4096), Ok(4096));
    assert_eq!(raw.pread(&mut back[..4096], 100 * 4096), Ok(0));
    assert_eq!(raw.pread(&mut back[..4096], 101 * 4096), Err(Errno::EINVAL));
    // SAFETY: nothing is mapped there, and the kernel says so.
    let bad = unsafe { raw.transfer(64 as *mut _, 4096, 0, true) };
    assert_eq!(bad, Err(Errno::EFAULT));
    let mut size = 0u32;
    raw.ioctl(netbsd::DIOCGSECTORSIZE as u64, &mut size).expect("DIOCGSECTORSIZE");
    assert_eq!(size, 4096);
    let info = raw.plist_query(netbsd::DIOCGDISKINFO as u64).expect("DIOCGDISKINFO");
    assert!(info.contains("<key>sector-size</key>\n\t\t<integer>0x1000</integer>"), "{info}");
    drop(raw);
    assert_eq!(m.shutdown(), Vec::<String>::new());
}

#[test]
fn completes_wherever_it_is_told_to() {
    let modes =
        [Completion::Inline, Completion::Thread, Completion::Interrupt, Completion::Shuffled(42)];
    for mode in modes {
        let m = machine();
        let spec = DiskSpec::memory("ld0", 4096).completion(mode);
        let disk = m.attach_disk(spec).expect("attaches");
        let file = m.open(&disk.path(), Flags::READ_WRITE).expect("opens");
        let mut ios: Vec<Io> = (0..64).map(|i| Io::with_data(vec![i as u8; 1024])).collect();
        for (i, io) in ios.iter_mut().enumerate() {
            file.start(io, Request::write(i as i64 * 2).flags(netbsd::B_MEDIA_FUA as u32));
        }
        for io in &mut ios {
            assert!(io.wait().is_complete(1024));
        }
        for i in 0..64u64 {
            let mut back = [0; 1024];
            disk.read_at(i * 1024, &mut back);
            assert!(back.iter().all(|b| *b == i as u8), "{mode:?} {i}");
        }
        let counters = disk.counters();
        assert_eq!((counters.writes, counters.fua, counters.reads), (64, 64, 0));
        assert_eq!(disk.in_flight(), 0);
        drop((ios, file));
        assert_eq!(m.shutdown(), Vec::<String>::new());
    }
}

#[test]
fn holds_and_fails() {
    let m = machine();
    let disk = m.attach_disk(DiskSpec::memory("ld0", 4096)).expect("attaches");
    let file = m.open(Node::Block(disk.dev()), Flags::READ_WRITE).expect("opens");
    disk.hold();
    let (mut a, mut b) = (Io::new(512), Io::new(512));
    file.start(&mut a, Request::read(0));
    file.start(&mut b, Request::read(1));
    assert_eq!((disk.held(), disk.in_flight()), (2, 2));
    assert!(disk.release_one(1));
    assert!(a.is_busy() && !b.is_busy());
    disk.release();
    assert!(a.wait().is_complete(512) && b.wait().is_complete(512));

    disk.fail_nth(2, Errno::EIO);
    assert_eq!(file.strategy(&mut a, Request::read(0)).error, None);
    let failed = file.strategy(&mut a, Request::read(0));
    assert_eq!((failed.error, failed.resid), (Some(Errno::EIO), 512));
    disk.fail_range(10..11, Errno::EIO);
    assert_eq!(file.strategy(&mut a, Request::read(9)).error, None);
    assert_eq!(file.strategy(&mut a, Request::read(10)).error, Some(Errno::EIO));
    disk.heal();
    disk.short_nth(1, 100);
    let short = file.strategy(&mut a, Request::read(0));
    assert_eq!((short.error, short.resid), (None, 412));
    disk.vanish();
    assert_eq!(file.strategy(&mut a, Request::read(0)).error, Some(Errno::ENXIO));
    disk.heal();
    m.faults().fail(dm_host::Site::Strategy, 1);
    assert_eq!(file.strategy(&mut a, Request::read(0)).error, Some(Errno::EIO));
    assert_eq!(file.strategy(&mut a, Request::read(0)).error, None);
    drop((a, b, file));
    assert_eq!(m.shutdown(), Vec::<String>::new());
}

#[test]
fn files_and_read_only() {
    let mut file = tempfile::NamedTempFile::new().expect("makes a file");
    file.write_all(&pattern(64 * 1024)).expect("writes it");
    let m = machine();
    let spec = DiskSpec::file("wd0", file.path(), true).expect("opens the file");
    let disk = m.attach_disk(spec).expect("attaches");
    assert_eq!(disk.sectors(), 128);
    assert_eq!(m.open(&disk.rpath(), Flags::READ_WRITE).err(), Some(Errno::EROFS));
    let raw = m.open(&disk.rpath(), Flags::READ).expect("opens");
    let mut back = vec![0; 64 * 1024];
    assert_eq!(raw.pread(&mut back, 0), Ok(back.len()));
    assert_eq!(back, pattern(64 * 1024));
    assert_eq!(raw.pwrite(&back, 0), Err(Errno::EBADF));
    drop(raw);
    assert_eq!(m.shutdown(), Vec::<String>::new());
}
