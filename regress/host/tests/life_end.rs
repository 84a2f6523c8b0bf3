// SPDX-License-Identifier: BSD-2-Clause

//! The end of a device, and of the driver: remove, detach, shutdown, modunload.

mod common;

use std::sync::Arc;

use common::data::{SECTOR, on_disk, read, same, strategy_read};
use common::life::{request, two_disks};
use common::wait::until;
use common::{Bench, flags, send};
use dm_host::netbsd::{DETACH_FORCE, DETACH_SHUTDOWN, DIOCCACHESYNC};
use dm_host::{Errno, Flags, Io, Node, Pmf, Request};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

#[test]
fn remove_while_open_is_refused_by_either_node() {
    let (bench, disks, device) = two_disks();
    for node in [Node::Block(device.dev()), Node::Character(device.rdev())] {
        let file = bench.machine.open(node, Flags::READ).unwrap();
        assert_eq!(bench.info("d", "open_count"), 1);
        assert_eq!(bench.on("remove", "d"), Err(Errno::EBUSY));
        assert_eq!(bench.send(&common::Request::new("remove_all")).map(drop), Ok(()));
        let (result, data) = strategy_read(device.dev(), 0, 4);
        assert!(result.is_complete(4 * SECTOR));
        same(&data, &on_disk(&disks[0], 0, 4), "it still works");
        drop(file);
    }
    let (block, raw) = (bench.block(device), bench.raw(device));
    let again = bench.raw(device);
    assert_eq!(bench.info("d", "open_count"), 2, "each node once, however often it is open");
    assert_eq!(
        bench.machine.open(Node::Block(device.dev()), Flags::READ).err(),
        Some(Errno::EBUSY)
    );
    drop((block, raw));
    assert_eq!(bench.info("d", "open_count"), 1);
    drop(again);
    assert_eq!(bench.info("d", "open_count"), 0);
    let reply = bench.on("remove", "d").unwrap();
    assert_eq!(reply.number("flags").unwrap() as u32 & flags::EXISTS, 0);
    assert_eq!(bench.machine.devices(), Vec::<String>::new());
    assert_eq!(
        bench.machine.open(Node::Block(device.dev()), Flags::READ).err(),
        Some(Errno::ENXIO)
    );
    bench.end();
}

#[test]
fn deferred_remove_goes_at_the_last_close() {
    let (bench, disks, device) = two_disks();
    let (block, raw) = (bench.block(device), bench.raw(device));
    let reply = bench.send(&request("remove").flags(flags::DEFERRED_REMOVE)).unwrap();
    let told = reply.number("flags").unwrap() as u32;
    assert_ne!(told & flags::EXISTS, 0);
    assert_ne!(told & flags::DEFERRED_REMOVE, 0);
    drop(block);
    same(&read(&raw, 0, 8), &on_disk(&disks[0], 0, 8), "it works until then");
    drop(raw);
    assert_eq!(bench.machine.devices(), Vec::<String>::new());
    assert_eq!(bench.machine.block_opens(disks[0].dev()), 0);
    assert_eq!(bench.on("resume", "d"), Err(Errno::ENXIO));
    // Taken back in time, it stays.
    let device = bench.device("d", "0 100 linear /dev/wd0 0");
    let raw = bench.raw(device);
    bench.send(&request("remove").flags(flags::DEFERRED_REMOVE)).unwrap();
    bench.send(&request("message").with("message", "@cancel_deferred_remove")).unwrap();
    drop(raw);
    assert_eq!(bench.machine.devices(), ["dm2"]);
    bench.end();
}

#[test]
fn remove_of_a_suspended_device_fails_the_held_io() {
    let (bench, _, device) = two_disks();
    bench.on("suspend", "d").unwrap();
    let mut ios: Vec<_> = (0..4).map(|_| Io::new(SECTOR)).collect();
    for (io, blkno) in ios.iter_mut().zip(0..) {
        io.start(device.dev(), Request::read(blkno));
    }
    bench.on("remove", "d").unwrap();
    for io in &mut ios {
        let result = io.wait();
        assert_eq!((result.error, result.resid), (Some(Errno::ENXIO), SECTOR));
    }
    bench.end();
}

#[test]
fn detach_by_autoconf() {
    let (bench, disks, device) = two_disks();
    let raw = bench.raw(device);
    assert_eq!(bench.machine.detach_device("dm1", 0), Err(Errno::EBUSY));
    same(&read(&raw, 0, 8), &on_disk(&disks[0], 0, 8), "it still works");
    drop(raw);
    assert_eq!(bench.machine.detach_device("dm1", 0), Ok(()));
    assert_eq!(bench.machine.sysctl_int("hw.dm.devices"), Ok(0));
    assert_eq!(bench.on("suspend", "d"), Err(Errno::ENXIO));
    assert_eq!(bench.machine.block_opens(disks[0].dev()), 0);
    bench.device("d", "0 100 linear /dev/wd0 0");
    bench.end();
}

#[test]
fn a_forced_detach_ends_open_nodes_and_held_io() {
    let (bench, disks, device) = two_disks();
    let (block, raw) = (bench.block(device), bench.raw(device));
    bench.on("suspend", "d").unwrap();
    let mut io = Io::new(SECTOR);
    block.start(&mut io, Request::write(5));
    assert_eq!(bench.machine.detach_device("dm1", DETACH_FORCE), Ok(()));
    let result = io.wait();
    assert_eq!((result.error, result.resid), (Some(Errno::ENXIO), SECTOR));
    // The nodes were revoked (`life_revoke.rs`): they can be closed, and nothing else.
    assert_eq!(raw.pread(&mut [0; SECTOR], 0), Err(Errno::EIO));
    assert_eq!(block.strategy(&mut io, Request::read(0)).error, Some(Errno::EIO));
    assert_eq!(bench.machine.block_opens(disks[0].dev()), 0);
    assert_eq!(block.close(), Ok(()));
    assert_eq!(raw.close(), Ok(()));
    bench.end();
}

#[test]
fn a_forced_detach_waits_for_io_at_the_component() {
    let (bench, disks, device) = two_disks();
    let raw = bench.raw(device);
    disks[0].hold();
    let mut io = Io::new(SECTOR);
    io.start(device.dev(), Request::read(5));
    std::thread::scope(|scope| {
        let detach = scope.spawn(|| bench.machine.detach_device("dm1", DETACH_FORCE));
        let mut probe = Io::new(SECTOR);
        until("new I/O is refused", || {
            probe.start(device.dev(), Request::read(0));
            let at_disk = disks[0].held() == 2;
            if at_disk {
                disks[0].release_one(1);
            }
            probe.wait().error == Some(Errno::ENXIO)
        });
        assert!(!detach.is_finished());
        assert_eq!(bench.machine.block_opens(disks[0].dev()), 1);
        disks[0].release();
        assert_eq!(detach.join().unwrap(), Ok(()));
    });
    assert!(io.wait().is_complete(SECTOR), "what was under way is finished");
    drop(raw);
    bench.end();
}

#[test]
fn shutdown_with_open_devices() {
    let (bench, _, device) = two_disks();
    let block = bench.block(device);
    bench.machine.pmf(Pmf::Shutdown).unwrap();
    // First the polite way, as the kernel does while file systems are still mounted.
    assert_eq!(bench.machine.detach_all_devices(DETACH_SHUTDOWN), ["dm1"]);
    assert!(strategy_read(device.dev(), 0, 4).0.is_complete(4 * SECTOR), "still there");
    let left = bench.machine.detach_all_devices(DETACH_SHUTDOWN | DETACH_FORCE);
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(strategy_read(device.dev(), 0, 4).0.error, Some(Errno::ENXIO));
    drop(block);
    bench.end();
}

#[test]
fn the_machine_sleeps_and_wakes_up() {
    let (bench, disks, device) = two_disks();
    assert_eq!(bench.machine.pmf(Pmf::Suspend), Ok(()));
    assert_eq!(bench.machine.pmf(Pmf::Resume), Ok(()));
    same(&strategy_read(device.dev(), 0, 4).1, &on_disk(&disks[0], 0, 4), "awake");
}

#[test]
fn a_stack_of_devices_shuts_down() {
    let (bench, _, device) = two_disks();
    let upper = bench.device("e", &format!("0 100 linear 169:{} 0", device.minor));
    bench.device("f", &format!("0 50 linear 169:{} 50", upper.minor));
    // The lower ones are open by the upper ones; shutting down takes them in turn.
    bench.end();
}

/// A device's last close flushes its components, while the device is removed: the driver stays until
/// the close is over.
#[test]
fn modunload_during_a_close() {
    let (bench, disks, device) = two_disks();
    let raw = bench.raw(device);
    assert_eq!(raw.pwrite(&[1; SECTOR], 0), Ok(SECTOR));
    disks[0].stall_ioctl(DIOCCACHESYNC as u64);
    let Bench { control, machine } = bench;
    std::thread::scope(|scope| {
        let closes = scope.spawn(move || raw.close());
        until("the close flushes", || disks[0].stalled() == 1);
        send(&control, &request("remove")).unwrap();
        drop(control);
        let unloaded = machine.modunload();
        disks[0].heal();
        assert_eq!(unloaded, Err(Errno::EBUSY), "a close is in progress");
        assert_eq!(closes.join().unwrap(), Ok(()));
    });
    assert_eq!(machine.modunload(), Ok(()));
    assert_eq!(machine.shutdown(), Vec::<String>::new());
}

#[test]
fn modunload() {
    let bench = Bench::new();
    let machine = &bench.machine;
    assert_eq!(machine.modunload(), Err(Errno::EBUSY), "the control node is open");
    let minor = bench.create("d");
    let Bench { control, machine } = bench;
    drop(control);
    assert_eq!(machine.modunload(), Err(Errno::EBUSY), "there is a device");
    let control = machine.open("/dev/mapper/control", Flags::READ_WRITE).unwrap();
    let control = Arc::new(control);
    let bench = Bench { control, machine };
    assert_eq!(bench.info("d", "minor"), u64::from(minor), "refused and all there");
    bench.on("remove", "d").unwrap();
    let Bench { control, machine } = bench;
    drop(control);
    assert_eq!(machine.modunload(), Ok(()));
    let control = machine.open("/dev/mapper/control", Flags::READ_WRITE);
    assert_eq!(control.err(), Some(Errno::ENXIO));
    assert!(!machine.drivers().iter().any(|driver| driver.name == "dm"));
    assert!(!machine.sysctl_names().iter().any(|name| name.starts_with("hw.dm")));
    assert_eq!(machine.modload(), Ok(()));
    assert!(machine.open("/dev/mapper/control", Flags::READ).is_ok());
    assert_eq!(machine.shutdown(), Vec::<String>::new());
}
