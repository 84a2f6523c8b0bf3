// SPDX-License-Identifier: BSD-2-Clause

//! A device's life while there is no memory: I/O that is held must not wait for memory.

mod common;

use common::life::two_disks;
use common::wait::until;
use common::{flags, reload};
use dm_host::netbsd::{DIOCCACHESYNC, DIOCGSECTORALIGN, DIOCGSTRATEGY};
use dm_host::netbsd::{disk_sectoralign, disk_strategy};
use dm_host::{Disk, Io, Request};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

/// Writes until one is held by the device: it does not come to the component, which completes none.
fn write_until_held(device: common::Mapped, disk: &Disk, ios: &mut Vec<Io>) {
    until("a write is held", || {
        let before = disk.held();
        let mut io = Io::new(512);
        io.start(device.dev(), Request::write(0));
        ios.push(io);
        disk.held() == before
    });
}

/// I/O that a resume has held is done while there is no memory: it may be the page-out that frees some.
#[test]
fn io_that_a_resume_has_held_goes_while_there_is_no_memory() {
    let (bench, disks, device) = two_disks();
    bench.reload("d", "0 50 linear /dev/wd1 0\n50 50 zero").unwrap();
    disks[0].hold();
    let mut ios = Vec::new();
    std::thread::scope(|scope| {
        let mut io = Io::new(512);
        io.start(device.dev(), Request::write(0));
        ios.push(io);
        let resume = scope.spawn(|| bench.on("resume", "d").map(drop));
        write_until_held(device, &disks[0], &mut ios);
        bench.machine.faults().exhaust_memory(true);
        disks[0].release();
        for io in &mut ios {
            assert!(io.wait().is_complete(512));
        }
        bench.machine.faults().exhaust_memory(false);
        assert_eq!(resume.join().unwrap(), Ok(()));
    });
    assert_eq!(bench.table("d").len(), 2);
    drop(ios);
    bench.end();
}

/// The machine stops when a command waits for memory with I/O held, or with a lock that is taken
/// then. All that takes or waits for memory here is done on one device, at once.
#[test]
fn commands_that_take_memory_run_beside_a_switch_of_tables() {
    let (bench, disks, device) = two_disks();
    let parts = |more: bool| {
        let part = reload("d", "0 100 linear /dev/wd0 0");
        if more { part.flags(1 << 30) } else { part }
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut io = Io::new(512);
            for _ in 0..200 {
                assert!(io.run(device.dev(), Request::write(0)).is_complete(512));
            }
        });
        let asker = scope.spawn(|| {
            let raw = bench.raw(device);
            for _ in 0..50 {
                raw.ioctl(DIOCCACHESYNC as u64, &mut 0i32).unwrap();
                // SAFETY: plain numbers and characters.
                let mut strategy: disk_strategy = unsafe { std::mem::zeroed() };
                raw.ioctl(DIOCGSTRATEGY as u64, &mut strategy).unwrap();
                // SAFETY: as above.
                let mut align: disk_sectoralign = unsafe { std::mem::zeroed() };
                raw.ioctl(DIOCGSECTORALIGN as u64, &mut align).unwrap();
                bench
                    .send(&dm_core::testing::Request::on("table", "d").flags(flags::STATUS_TABLE))
                    .unwrap();
            }
        });
        for round in 0..50 {
            let disk = &disks[round % 2];
            bench.send(&parts(true)).unwrap();
            bench.on("clear", "d").unwrap();
            bench.reload("d", &format!("0 100 linear {} 0", disk.path())).unwrap();
            if round % 3 == 0 {
                bench.on("suspend", "d").unwrap();
            }
            bench.on("resume", "d").unwrap();
        }
        writer.join().unwrap();
        asker.join().unwrap();
    });
    bench.end();
}
