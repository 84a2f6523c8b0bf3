// SPDX-License-Identifier: BSD-2-Clause

//! A device's life under I/O: table switches, suspend and resume, remove, detach, shutdown.

mod common;

use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::data::{SECTOR, on_disk, pattern, read, same, strategy_read, strategy_write};
use common::life::{request, two_disks};
use common::wait::until;
use common::{Bench, Mapped, flags, send};
use dm_host::sysctl::Value;
use dm_host::{Completion, DiskSpec, Errno, Flags, Io, Node, Request};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

unsafe extern "C" {
    /// The driver's function behind `hw.dm.counters`.
    fn dm_counters(text: *mut c_char, size: usize) -> usize;
}

#[test]
fn two_slots() {
    let (bench, disks, device) = two_disks();
    let raw = bench.raw(device);
    bench.reload("d", "0 50 linear /dev/wd1 0\n50 50 zero").unwrap();
    let told = bench.on("info", "d").unwrap().number("flags").unwrap() as u32;
    let both = flags::ACTIVE_PRESENT | flags::INACTIVE_PRESENT;
    assert_eq!(told & (both | flags::SUSPEND), both);
    same(&read(&raw, 0, 100), &on_disk(&disks[0], 0, 100), "the active table answers");
    bench.on("resume", "d").unwrap();
    same(&read(&raw, 0, 50), &on_disk(&disks[1], 0, 50), "now the new one does");
    assert!(read(&raw, 50, 50).iter().all(|byte| *byte == 0));
    // The old table is gone, with its component.
    assert_eq!(bench.machine.block_opens(disks[0].dev()), 0);
    bench.on("resume", "d").unwrap();
    same(&read(&raw, 0, 50), &on_disk(&disks[1], 0, 50), "a resume without a table loses none");
    bench.reload("d", "0 8 error").unwrap();
    bench.on("clear", "d").unwrap();
    bench.on("resume", "d").unwrap();
    assert_eq!(bench.table("d").len(), 2, "a cleared table is not resumed");
    drop(raw);
    bench.end();
}

#[test]
fn a_live_switch_loses_nothing_that_was_written() {
    let bench = Bench::new();
    let spec = |name, seed| DiskSpec::memory(name, 200).completion(Completion::Shuffled(seed));
    let disks = [bench.attach(spec("wd0", 1)), bench.attach(spec("wd1", 2))];
    let device = bench.device("d", "0 100 linear /dev/wd0 0");
    let stop = AtomicBool::new(false);
    let counts = [const { AtomicU64::new(0) }; 2];
    std::thread::scope(|scope| {
        // Each writer has its own half, and reads back what it has written before.
        for (start, count) in [0, 50].into_iter().zip(&counts) {
            let stop = &stop;
            scope.spawn(move || {
                let mut written = vec![0; 50 * SECTOR];
                for round in 1.. {
                    let result = strategy_write(device.dev(), start, &pattern(round, start, 50));
                    assert!(result.is_complete(50 * SECTOR), "{result:?}");
                    written.copy_from_slice(&pattern(round, start, 50));
                    let (result, data) = strategy_read(device.dev(), start, 50);
                    assert!(result.is_complete(50 * SECTOR), "{result:?}");
                    same(&data, &written, "read back");
                    count.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        for round in 0..12 {
            let before: Vec<_> = counts.iter().map(|c| c.load(Ordering::Relaxed)).collect();
            until("both writers got on", || {
                counts.iter().zip(&before).all(|(now, then)| now.load(Ordering::Relaxed) > *then)
            });
            // As a tool moves a device: hold I/O, copy, switch, let go.
            let (from, to) = (&disks[round % 2], &disks[(round + 1) % 2]);
            bench.reload("d", &format!("0 100 linear {} 0", to.path())).unwrap();
            bench.on("suspend", "d").unwrap();
            assert_eq!(from.in_flight(), 0);
            to.write_at(0, &on_disk(from, 0, 100));
            bench.on("resume", "d").unwrap();
            assert_eq!(bench.machine.block_opens(from.dev()), 0, "closed after the switch");
        }
        stop.store(true, Ordering::Relaxed);
    });
    bench.end();
}

#[test]
fn suspend_waits_for_io_and_holds_what_comes_in_order() {
    let (bench, disks, device) = two_disks();
    disks[0].hold();
    let mut under_way = Io::new(SECTOR);
    under_way.start(device.dev(), Request::read(0));
    let control = bench.control.clone();
    let suspend = bench.machine.spawn(move || send(&control, &request("suspend")).map(drop));
    // It cannot be done before the I/O is.
    let mut late: Vec<_> = (0..5).map(|_| Io::new(SECTOR)).collect();
    until("suspend holds I/O", || {
        late[0].start(device.dev(), Request::read(10));
        // Either it was quicker than suspend, and is at the disk, or it is held.
        let at_disk = disks[0].held() == 2;
        if at_disk {
            assert!(disks[0].release_one(1));
            late[0].wait();
        }
        !at_disk
    });
    assert!(!suspend.is_finished());
    for (io, blkno) in late.iter_mut().skip(1).zip(11..) {
        io.start(device.dev(), Request::read(blkno));
    }
    assert!(disks[0].release_one(0));
    assert_eq!(suspend.join(), Ok(()));
    assert!(under_way.wait().is_complete(SECTOR));
    assert_eq!(disks[0].in_flight(), 0);
    assert!(late.iter().all(Io::is_busy));
    assert_ne!(bench.info("d", "flags") as u32 & flags::SUSPEND, 0);
    bench.on("suspend", "d").unwrap();
    bench.on("resume", "d").unwrap();
    assert_eq!(disks[0].held(), 5);
    // They were sent in the order they came in: each is done when its turn is.
    for done in 0..5 {
        assert!(disks[0].release_one(0));
        assert!(late.iter().take(done + 1).all(|io| !io.is_busy()));
        assert!(late.iter().skip(done + 1).all(Io::is_busy));
    }
    for (io, sector) in late.iter_mut().zip(10..) {
        assert!(io.wait().is_complete(SECTOR));
        same(io.data(), &on_disk(&disks[0], sector, 1), "held and then read");
    }
    disks[0].release();
    bench.end();
}

#[test]
fn suspend_interrupted_by_a_signal_changes_nothing() {
    let (bench, disks, device) = two_disks();
    let before = common::state::state(&bench, &disks);
    for restart in [false, true] {
        disks[0].hold();
        let mut io = Io::new(SECTOR);
        io.start(device.dev(), Request::read(3));
        let control = bench.control.clone();
        let suspend = bench.machine.spawn(move || send(&control, &request("suspend")).map(drop));
        let lwp = suspend.lwp();
        until("the signal ends the suspend", || {
            let post = if restart {
                bench.machine.interrupt_restart(lwp)
            } else {
                bench.machine.interrupt(lwp)
            };
            !post || suspend.is_finished()
        });
        let error = if restart { Errno::ERESTART } else { Errno::EINTR };
        assert_eq!(suspend.join(), Err(error));
        assert!(io.is_busy());
        // I/O goes on.
        let mut next = Io::new(SECTOR);
        next.start(device.dev(), Request::read(4));
        assert_eq!(disks[0].held(), 2);
        disks[0].release();
        assert!(io.wait().is_complete(SECTOR) && next.wait().is_complete(SECTOR));
        assert_eq!(common::state::state(&bench, &disks), before);
    }
    bench.end();
}

#[test]
fn resume_interrupted_while_io_drains_keeps_both_tables() {
    let (bench, disks, device) = two_disks();
    bench.reload("d", "0 100 linear /dev/wd1 0").unwrap();
    let before = common::state::state(&bench, &disks);
    disks[0].hold();
    let mut io = Io::new(SECTOR);
    io.start(device.dev(), Request::read(3));
    let control = bench.control.clone();
    let resume = bench.machine.spawn(move || send(&control, &request("resume")).map(drop));
    let lwp = resume.lwp();
    until("the signal ends the resume", || !bench.machine.interrupt(lwp) || resume.is_finished());
    assert_eq!(resume.join(), Err(Errno::EINTR));
    disks[0].release();
    assert!(io.wait().is_complete(SECTOR));
    assert_eq!(common::state::state(&bench, &disks), before);
    bench.on("resume", "d").unwrap();
    same(&strategy_read(device.dev(), 0, 8).1, &on_disk(&disks[1], 0, 8), "switched after all");
}

#[test]
fn held_io_goes_to_the_new_table() {
    let (bench, disks, device) = two_disks();
    bench.on("suspend", "d").unwrap();
    let mut io = Io::new(4 * SECTOR);
    io.start(device.dev(), Request::read(20));
    disks[0].reset_counters();
    bench.load("d", "0 60 linear /dev/wd1 40\n60 40 zero").unwrap();
    assert!(io.wait().is_complete(4 * SECTOR));
    same(io.data(), &on_disk(&disks[1], 60, 4), "from the new table");
    assert_eq!(disks[0].counters().reads, 0);
}

#[test]
fn a_component_is_closed_only_after_its_last_io() {
    let (bench, disks, device) = two_disks();
    bench.reload("d", "0 100 linear /dev/wd1 0").unwrap();
    disks[0].hold();
    let mut io = Io::new(8 * SECTOR);
    io.start(device.dev(), Request::read(8));
    let control = bench.control.clone();
    let resume = bench.machine.spawn(move || send(&control, &request("resume")).map(drop));
    // Once an I/O does not reach wd0 any more, the switch is in progress.
    let mut probe = Io::new(SECTOR);
    until("the switch is under way", || {
        probe.start(device.dev(), Request::read(0));
        let at_disk = disks[0].held() == 2;
        if at_disk {
            assert!(disks[0].release_one(1));
            probe.wait();
        }
        !at_disk
    });
    assert!(!resume.is_finished());
    assert_eq!(bench.machine.block_opens(disks[0].dev()), 1, "still open under the I/O");
    assert!(io.is_busy());
    assert!(disks[0].release_one(0));
    assert_eq!(resume.join(), Ok(()));
    assert!(io.wait().is_complete(8 * SECTOR));
    same(io.data(), &on_disk(&disks[0], 8, 8), "read by the old table");
    assert!(probe.wait().is_complete(SECTOR));
    same(probe.data(), &on_disk(&disks[1], 0, 1), "read by the new table");
    assert_eq!(bench.machine.block_opens(disks[0].dev()), 0);
    disks[0].release();
    bench.end();
}

#[test]
fn statistics_are_what_iostat_shows() {
    let (bench, disks, device) = two_disks();
    let stats = || dm_host::iostat::disk_stats("dm1").unwrap();
    for _ in 0..3 {
        assert!(strategy_read(device.dev(), 0, 8).0.is_complete(8 * SECTOR));
    }
    assert!(strategy_write(device.dev(), 8, &pattern(1, 0, 16)).is_complete(16 * SECTOR));
    bench.machine.advance_ticks(100);
    let (reads, writes, read, written, busy, _) = stats();
    assert_eq!((reads, writes), (3, 1));
    assert_eq!((read as usize, written as usize), (24 * SECTOR, 16 * SECTOR));
    assert_eq!(busy, 0);
    // Busy from entry to completion: as long as the component takes.
    disks[0].hold();
    let mut io = Io::new(SECTOR);
    io.start(device.dev(), Request::read(0));
    bench.machine.advance_ticks(200);
    disks[0].release();
    assert!(io.wait().is_complete(SECTOR));
    bench.machine.advance_ticks(100);
    let (reads, .., busy, time) = stats();
    assert_eq!((reads, busy), (4, 0));
    assert_eq!(time, 2_000_000, "200 ticks are two seconds");
    // A device that goes while its counts are to be added up, and the next one in its place.
    assert!(strategy_read(device.dev(), 0, 8).0.is_complete(8 * SECTOR));
    bench.on("remove", "d").unwrap();
    bench.machine.advance_ticks(100);
    let next = bench.device("next", "0 100 linear /dev/wd0 0");
    assert!(strategy_read(next.dev(), 0, 8).0.is_complete(8 * SECTOR));
    bench.machine.advance_ticks(100);
    assert_eq!(dm_host::iostat::disk_stats(&format!("dm{}", next.minor)).unwrap().0, 1);
    bench.end();
}

#[test]
fn sysctl_nodes() {
    let (bench, disks, device) = two_disks();
    let machine = &bench.machine;
    assert_eq!(machine.sysctl_text("hw.dm.version"), Ok("4.16.0".into()));
    assert_eq!(machine.sysctl_int("hw.dm.devices"), Ok(1));
    for name in ["version", "devices", "counters"] {
        let set = machine.sysctl_set(&format!("hw.dm.{name}"), &Value::Int(7));
        assert_eq!(set, Err(Errno::EPERM), "{name} is not for writing");
    }
    for (value, wanted) in [(0, Ok(())), (2, Ok(())), (3, Err(Errno::EINVAL)), (1, Ok(()))] {
        assert_eq!(machine.sysctl_set("hw.dm.label_guard", &Value::Int(value)), wanted);
    }
    assert_eq!(machine.sysctl_int("hw.dm.label_guard"), Ok(1));
    let wanted = Err(Errno::EINVAL);
    for (value, wanted) in [(0, wanted), (1, Ok(())), (100, Ok(())), (101, wanted), (-1, wanted)] {
        assert_eq!(machine.sysctl_set("hw.dm.background_share", &Value::Int(value)), wanted);
    }
    let set = machine.as_user(1000, || machine.sysctl_set("hw.dm.label_guard", &Value::Int(0)));
    assert_eq!(set, Err(Errno::EPERM));
    // Reads, writes, splits, held, failed.
    let counters = || machine.sysctl_text("hw.dm.counters").unwrap();
    assert_eq!(counters(), "dm1 0 0 0 0 0\n");
    strategy_read(device.dev(), 0, 8);
    strategy_write(device.dev(), 0, &pattern(1, 0, 1));
    bench.load("d", "0 50 linear /dev/wd0 0\n50 50 linear /dev/wd0 100").unwrap();
    strategy_read(device.dev(), 48, 4);
    disks[0].fail_nth(1, Errno::EIO);
    strategy_read(device.dev(), 0, 1);
    bench.on("suspend", "d").unwrap();
    let mut io = Io::new(SECTOR);
    io.start(device.dev(), Request::read(0));
    bench.on("resume", "d").unwrap();
    io.wait();
    assert_eq!(counters(), "dm1 4 1 1 1 1\n");
    bench.create("e");
    assert_eq!(counters(), "dm1 4 1 1 1 1\ndm2 0 0 0 0 0\n");
    // Of what grew since its size was asked for, there are whole lines.
    for (size, lines) in [(1, ""), (14, ""), (15, "dm1 4 1 1 1 1\n"), (20, "dm1 4 1 1 1 1\n")] {
        let mut text = [b'x'; 20];
        // SAFETY: the text has `size` bytes.
        unsafe { dm_counters(text.as_mut_ptr().cast(), size) };
        assert_eq!(CStr::from_bytes_until_nul(&text).unwrap().to_str(), Ok(lines));
    }
    bench.on("remove", "d").unwrap();
    assert_eq!(counters(), "dm2 0 0 0 0 0\n");
    assert_eq!(bench.create("f"), 3);
    assert_eq!(counters(), "dm2 0 0 0 0 0\ndm3 0 0 0 0 0\n", "a new device begins at nothing");
}

#[test]
fn waitevent_sleeps_until_something_happens() {
    let (bench, _, device) = two_disks();
    let event = bench.info("d", "event_nr");
    let control = bench.control.clone();
    // By its number: the thread may come to ask while the device has the other name.
    let by_minor = dm_core::testing::Request::new("waitevent")
        .with("minor", u64::from(device.minor))
        .with("event_nr", event);
    let wait = bench.machine.spawn(move || send(&control, &by_minor));
    bench.load("d", "0 100 linear /dev/wd1 0").unwrap();
    for (from, to) in [("d", "e"), ("e", "d")] {
        let rename =
            dm_core::testing::Request::on("rename", from).with("cmd_data", vec![to.into()]);
        bench.send(&rename).unwrap();
    }
    let reply = wait.join().unwrap();
    assert!(reply.number("event_nr") > Some(event));
    assert_eq!(reply.array("cmd_data").unwrap().len(), 1, "then as status");
    // One that has happened is not waited for.
    let request_past = request("waitevent").with("event_nr", event);
    assert_eq!(bench.send(&request_past).unwrap().number("event_nr"), Some(event + 2));
    // A signal ends it, and so does the device's end.
    let next = request("waitevent").with("event_nr", event + 2);
    for how in ["signal", "remove"] {
        let (control, next) = (bench.control.clone(), next.clone());
        let wait = bench.machine.spawn(move || send(&control, &next).map(drop));
        if how == "signal" {
            let lwp = wait.lwp();
            until("the signal ends it", || !bench.machine.interrupt(lwp) || wait.is_finished());
            assert_eq!(wait.join(), Err(Errno::EINTR));
        } else {
            bench.on("remove", "d").unwrap();
            assert_eq!(wait.join(), Err(Errno::ENXIO));
        }
    }
    bench.end();
}

#[test]
fn read_only_devices_and_components() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 200);
    let locked = bench.attach(DiskSpec::memory("wd1", 200).read_only());
    bench.create("d");
    let read_only = |table: &str| common::reload("d", table).flags(flags::READONLY);
    assert_eq!(bench.reload("d", "0 100 linear /dev/wd1 0"), Err(Errno::EROFS));
    bench.send(&read_only("0 100 linear /dev/wd1 0")).unwrap();
    bench.on("resume", "d").unwrap();
    let device = Mapped { minor: 1 };
    assert_ne!(bench.info("d", "flags") as u32 & flags::READONLY, 0);
    for node in [Node::Block(device.dev()), Node::Character(device.rdev())] {
        assert_eq!(bench.machine.open(node, Flags::READ_WRITE).err(), Some(Errno::EROFS));
        assert_eq!(bench.machine.open(node, Flags::WRITE).err(), Some(Errno::EROFS));
        assert!(bench.machine.open(node, Flags::READ).is_ok());
    }
    // On a disk that could be written, too; a writer who was there before meets it as well.
    bench.load("d", "0 100 linear /dev/wd0 0").unwrap();
    let raw = bench.raw(device);
    assert_eq!(raw.pwrite(&[1; SECTOR], 0), Ok(SECTOR));
    bench.send(&read_only("0 100 linear /dev/wd0 0")).unwrap();
    bench.on("resume", "d").unwrap();
    disk.reset_counters();
    assert_eq!(raw.pwrite(&[2; SECTOR], 0), Err(Errno::EROFS));
    let result = strategy_write(device.dev(), 0, &[2; SECTOR]);
    assert_eq!((result.error, result.resid), (Some(Errno::EROFS), SECTOR));
    assert_eq!(raw.fdiscard(0, 8 * SECTOR as u64), Err(Errno::EROFS));
    assert_eq!(bench.machine.dump(device.dev(), 0, &[2; SECTOR]), Err(Errno::EROFS));
    assert_eq!(disk.counters().writes + disk.counters().discards + disk.counters().dumps, 0);
    assert_eq!(read(&raw, 0, 1), [1; SECTOR]);
    assert_eq!(locked.counters().writes, 0);
    drop(raw);
    bench.end();
}

#[test]
fn a_component_that_is_no_block_device_is_enotblk() {
    let bench = Bench::new();
    bench.create("d");
    bench.machine.mkfile("/tmp/file").unwrap();
    for path in ["/tmp/file", "/dev/mapper/control"] {
        let result = bench.reload("d", &format!("0 100 linear {path} 0"));
        assert_eq!(result, Err(Errno::ENOTBLK), "{path}");
    }
    bench.end();
}

#[test]
fn a_component_in_use_by_someone_else_is_busy() {
    let bench = Bench::new();
    let disks = [bench.disk("wd0", 200), bench.disk("wd1", 200)];
    bench.create("d");
    let other = bench.machine.open("/dev/wd0", Flags::READ).unwrap();
    assert_eq!(bench.reload("d", "0 100 linear /dev/wd0 0"), Err(Errno::EBUSY));
    drop(other);
    bench.load("d", "0 100 linear /dev/wd0 0").unwrap();
    assert_eq!(bench.machine.open("/dev/wd0", Flags::READ).err(), Some(Errno::EBUSY));
    // Two devices share a component, which is open once.
    bench.device("e", "0 100 linear /dev/wd0 100");
    assert_eq!(bench.machine.block_opens(disks[0].dev()), 1);
    bench.on("remove", "d").unwrap();
    assert_eq!(bench.machine.block_opens(disks[0].dev()), 1);
    bench.on("remove", "e").unwrap();
    assert_eq!(bench.machine.block_opens(disks[0].dev()), 0);
    // Once by who had it before, and once by all devices together.
    assert_eq!(disks[0].counters().closes, 2);
    bench.end();
}

#[test]
fn sysctl_variables_are_each_machines_own() {
    for _ in 0..2 {
        let bench = Bench::new();
        for (name, default, other) in [
            ("hw.dm.legacy_errors", 0, 1),
            ("hw.dm.label_guard", 1, 2),
            ("hw.dm.background_share", 25, 50),
        ] {
            assert_eq!(bench.machine.sysctl_int(name), Ok(default), "{name}");
            bench.machine.sysctl_set(name, &dm_host::Value::Int(other)).unwrap();
        }
        bench.end();
    }
}
