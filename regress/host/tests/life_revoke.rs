// SPDX-License-Identifier: BSD-2-Clause

//! Open nodes of a device that is taken away: they are revoked, as other disks' are.

mod common;

use common::data::{SECTOR, on_disk, pattern, same, strategy_read};
use common::life::{request, two_disks};
use common::wait::until;
use common::{flags, send};
use dm_host::netbsd::{DETACH_FORCE, DETACH_SHUTDOWN, DIOCCACHESYNC, DIOCGMEDIASIZE};
use dm_host::{Errno, File, Flags, Io, Node, Pmf, Request};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

/// Checks that a node is dead: it answers as deadfs does.
#[track_caller]
fn dead(file: &File) {
    let mut size = 0i64;
    assert_eq!(file.ioctl(DIOCGMEDIASIZE as u64, &mut size), Err(Errno::EBADF));
    assert_eq!(file.pread(&mut [0; SECTOR], 0), Err(Errno::EIO));
    assert_eq!(file.pwrite(&[0; SECTOR], 0), Err(Errno::EIO));
    assert_eq!(file.fdiscard(0, 512), Err(Errno::EOPNOTSUPP));
}

#[test]
fn a_forced_detach_revokes_every_open_node() {
    let (bench, disks, device) = two_disks();
    let nodes = [bench.block(device), bench.raw(device), bench.raw(device)];
    let other = bench.device("other", "0 100 linear /dev/wd1 0");
    let apart = bench.raw(other);
    assert_eq!(bench.machine.detach_device("dm1", DETACH_FORCE), Ok(()));
    nodes.iter().for_each(dead);
    assert_eq!(bench.machine.block_opens(device.dev()), 0);
    assert_eq!(bench.machine.character_opens(device.rdev()), 0);
    assert_eq!(bench.machine.block_opens(disks[0].dev()), 0);
    for node in [Node::Block(device.dev()), Node::Character(device.rdev())] {
        assert_eq!(bench.machine.open(node, Flags::READ).err(), Some(Errno::ENXIO));
    }
    assert_eq!(apart.pread(&mut [0; SECTOR], 0), Ok(SECTOR), "another device's is as it was");
    for node in nodes {
        assert_eq!(node.close(), Ok(()));
    }
    drop(apart);
    bench.end();
}

#[test]
fn an_old_node_does_not_see_the_next_device_of_its_number() {
    let (bench, disks, device) = two_disks();
    let old = bench.raw(device);
    assert_eq!(bench.machine.detach_device("dm1", DETACH_FORCE), Ok(()));
    let create = request("create").flags(flags::PERSISTENT_DEV).with("minor", 1u64);
    let again = bench.send(&create);
    assert_eq!(again.map(|reply| common::minor_of(&reply)), Ok(device.minor));
    bench.load("d", "0 100 linear /dev/wd1 0").unwrap();
    dead(&old);
    let new = bench.raw(device);
    assert_eq!(bench.info("d", "open_count"), 1);
    assert_eq!(old.close(), Ok(()));
    assert_eq!(bench.info("d", "open_count"), 1, "closing the old one closes nothing");
    let mut data = vec![0; SECTOR];
    assert_eq!(new.pread(&mut data, 0), Ok(SECTOR));
    same(&data, &on_disk(&disks[1], 0, 1), "the new device");
    drop(new);
    bench.end();
}

#[test]
fn those_who_wait_in_the_device_are_sent_away_first() {
    let (bench, _, device) = two_disks();
    let (raw, block) = (bench.raw(device), bench.block(device));
    bench.on("suspend", "d").unwrap();
    let mut io = Io::new(SECTOR);
    block.start(&mut io, Request::write(5));
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| raw.ioctl(DIOCCACHESYNC as u64, &mut 0i32));
        let read = scope.spawn(|| raw.pread(&mut [0; SECTOR], 0));
        let counters = || bench.machine.sysctl_text("hw.dm.counters").unwrap();
        until("the read is held too", || counters().starts_with("dm1 0 0 0 2 "));
        assert_eq!(bench.machine.detach_device("dm1", DETACH_FORCE), Ok(()));
        // They were in the driver, or came too late and met a dead node.
        let sync = sync.join().unwrap();
        assert!(matches!(sync, Err(Errno::ENXIO | Errno::EBADF)), "{sync:?}");
        let read = read.join().unwrap();
        assert_eq!(read, Err(Errno::ENXIO));
    });
    assert_eq!(io.wait().error, Some(Errno::ENXIO));
    dead(&raw);
    drop((raw, block));
    bench.end();
}

#[test]
fn a_device_below_another_is_taken_away() {
    let (bench, _, lower) = two_disks();
    let upper = bench.device("e", &format!("0 50 linear 169:{} 10", lower.minor));
    let raw = bench.raw(upper);
    assert_eq!(bench.machine.detach_device("dm1", 0), Err(Errno::EBUSY), "open by the upper one");
    assert_eq!(bench.machine.detach_device("dm1", DETACH_FORCE), Ok(()));
    assert_eq!(raw.pread(&mut [0; SECTOR], 0), Err(Errno::EIO));
    assert_eq!(raw.pwrite(&[0; SECTOR], 0), Err(Errno::EIO));
    assert!(raw.ioctl(DIOCCACHESYNC as u64, &mut 0i32).is_err());
    assert_eq!(bench.table("e").len(), 1, "it can still be asked");
    bench.load("e", "0 50 linear /dev/wd1 0").unwrap();
    assert_eq!(raw.pread(&mut [0; SECTOR], 0), Ok(SECTOR), "and moved away");
    drop(raw);
    bench.end();
}

#[test]
fn a_removal_at_the_last_close_meets_a_forced_detach() {
    for together in [false, true] {
        let (bench, _, device) = two_disks();
        let (block, raw) = (bench.block(device), bench.raw(device));
        bench.send(&request("remove").flags(flags::DEFERRED_REMOVE)).unwrap();
        drop(block);
        let raw = std::sync::Mutex::new(Some(raw));
        let close = || drop(raw.lock().unwrap().take());
        std::thread::scope(|scope| {
            // Either the close takes the device, or the detach does and the close finds it gone.
            let close = together.then(|| scope.spawn(close));
            let detached = bench.machine.detach_device("dm1", DETACH_FORCE);
            assert!(matches!(detached, Ok(()) | Err(Errno::ENXIO)), "{detached:?}");
            assert!(together || detached.is_ok());
            if let Some(close) = close {
                close.join().unwrap();
            }
        });
        drop(raw);
        assert_eq!(bench.machine.devices(), Vec::<String>::new());
        assert!(!bench.machine.disk_names().contains(&"dm1".to_string()));
        bench.end();
    }
}

#[test]
fn opens_closes_and_a_forced_detach_at_once() {
    for _ in 0..30 {
        let (bench, _, device) = two_disks();
        let go = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for node in [Node::Block(device.dev()), Node::Character(device.rdev())] {
                let (bench, go) = (&bench, &go);
                scope.spawn(move || {
                    go.wait();
                    for _ in 0..20 {
                        let Ok(file) = bench.machine.open(node, Flags::READ) else { continue };
                        let read = file.pread(&mut [0; SECTOR], 0);
                        assert!(
                            matches!(read, Ok(SECTOR) | Err(Errno::ENXIO | Errno::EIO)),
                            "{read:?}"
                        );
                        drop(file);
                    }
                });
            }
            scope.spawn(|| {
                go.wait();
                let removed = bench.on("remove", "d");
                let errors = [Errno::EBUSY, Errno::ENXIO];
                assert!(removed.as_ref().err().is_none_or(|e| errors.contains(e)), "{removed:?}");
            });
            go.wait();
            let detached = bench.machine.detach_device("dm1", DETACH_FORCE);
            // The remove may have been quicker, or be quicker by half.
            let gone = [Errno::ENXIO, Errno::ENOENT];
            assert!(detached.is_ok() || gone.contains(&detached.unwrap_err()), "{detached:?}");
        });
        assert_eq!(bench.machine.devices(), Vec::<String>::new());
        assert_eq!(bench.machine.sysctl_int("hw.dm.devices"), Ok(0));
        bench.end();
    }
}

#[test]
fn a_detach_waits_for_a_removal_that_is_at_work() {
    let (bench, disks, device) = two_disks();
    disks[0].hold();
    let mut io = Io::new(SECTOR);
    io.start(device.dev(), Request::read(5));
    let control = bench.control.clone();
    let remove = bench.machine.spawn(move || send(&control, &request("remove")).map(drop));
    let exists =
        || bench.on("status", "d").unwrap().number("flags").unwrap() as u32 & flags::EXISTS;
    until("the device cannot be found", || exists() == 0);
    std::thread::scope(|scope| {
        let detach = scope.spawn(|| {
            let result = bench.machine.detach_device("dm1", 0);
            // The disk(9), whose name belongs to autoconf(9)'s device, is gone by now.
            (result, bench.machine.disk_names())
        });
        assert_eq!(bench.machine.disk_names(), ["wd0", "wd1", "dm1"]);
        disks[0].release();
        let (result, names) = detach.join().unwrap();
        assert!(matches!(result, Ok(()) | Err(Errno::ENXIO)), "{result:?}");
        assert_eq!(names, ["wd0", "wd1"]);
    });
    assert_eq!(remove.join(), Ok(()));
    assert!(io.wait().is_complete(SECTOR));
    bench.end();
}

#[test]
fn shutdown_with_a_mounted_device() {
    let (bench, disks, device) = two_disks();
    let block = bench.block(device);
    bench.machine.set_mounted(device.dev(), true).unwrap();
    bench.machine.pmf(Pmf::Shutdown).unwrap();
    assert_eq!(bench.machine.detach_all_devices(DETACH_SHUTDOWN), ["dm1"]);
    let mut io = Io::with_data(pattern(7, 0, 1));
    assert!(block.strategy(&mut io, Request::write(3)).is_complete(SECTOR), "it is still there");
    same(&on_disk(&disks[0], 3, 1), &pattern(7, 0, 1), "written");
    let left = bench.machine.detach_all_devices(DETACH_SHUTDOWN | DETACH_FORCE);
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(block.strategy(&mut io, Request::write(3)).error, Some(Errno::EIO));
    // Unmounted at last.
    bench.machine.set_mounted(device.dev(), false).unwrap();
    assert_eq!(block.close(), Ok(()));
    bench.end();
}

#[test]
fn the_machine_sleeps_with_io_under_way_and_held() {
    let (bench, disks, device) = two_disks();
    let suspended = bench.device("s", "0 100 linear /dev/wd1 0");
    bench.on("suspend", "s").unwrap();
    disks[0].hold();
    let (mut under_way, mut held) = (Io::new(SECTOR), Io::new(SECTOR));
    under_way.start(device.dev(), Request::read(1));
    held.start(suspended.dev(), Request::read(2));
    // A device has nothing of its own to put to sleep: its components hold their I/O.
    assert_eq!(bench.machine.pmf(Pmf::Suspend), Ok(()));
    assert_eq!(bench.machine.pmf(Pmf::Resume), Ok(()));
    disks[0].release();
    assert!(under_way.wait().is_complete(SECTOR));
    assert!(held.is_busy(), "the machine's resume is not the device's");
    bench.on("resume", "s").unwrap();
    assert!(held.wait().is_complete(SECTOR));
    assert!(strategy_read(device.dev(), 0, 4).0.is_complete(4 * SECTOR));
}
