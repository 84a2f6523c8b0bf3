// SPDX-License-Identifier: BSD-2-Clause

//! The driver under Miri (`cargo xtask sanitize miri`), which checks each access to memory against the rules that the
//! compiler relies on: aliasing, lifetimes, data races. `c.rs` has stand-ins for the C parts.
//!
//! Miri follows one order of the threads at a time; with other seeds (`-Zmiri-many-seeds`) it
//! follows others.

mod c;

use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dm_core::device::{FileSystem, LineRequest, Load};
use dm_core::name::Name;
use dm_core::units::Dev;
use dm_core::worker::Quiesce;

use super::autoconf::{dm_module_fini, dm_module_init};
use super::strategy::dmstrategy;
use crate::netbsd::sys;
use c::TestIo;

/// Reads or writes sectors of device 1, and waits. The answer is the errno.
fn io(write: bool, sector: i64, data: &mut [u8]) -> i32 {
    let mut lock = unsafe { core::mem::zeroed::<sys::kmutex_t>() };
    let mut io = TestIo { buf: unsafe { core::mem::zeroed() }, done: AtomicBool::new(false) };
    let io = &raw mut io;
    unsafe {
        let buf = &raw mut (*io).buf;
        (*buf).b_flags = if write { 0 } else { sys::B_READ as u32 };
        (*buf).b_objlock = &raw mut lock;
        (*buf).b_dev = Dev::new(169, 1).unwrap().0;
        (*buf).b_blkno = sector;
        (*buf).b_bcount = data.len() as i32;
        (*buf).b_bufsize = data.len() as i32;
        (*buf).b_resid = data.len() as i32;
        (*buf).b_data = data.as_mut_ptr().cast::<c_void>();
        dmstrategy(buf);
        while !(*io).done.load(Ordering::Acquire) {
            // A thread that waits for a buffer marks it so while the driver has it.
            (&*(&raw const (*buf).b_cflags).cast::<core::sync::atomic::AtomicU32>())
                .fetch_or(1, Ordering::Relaxed);
            thread::yield_now();
        }
        (*buf).b_error
    }
}

fn line(start: u64, length: u64, kind: &str, params: &str) -> LineRequest {
    LineRequest { start, length, kind: kind.into(), params: params.into() }
}

/// The driver from load to unload, with one device; `f` is given what loads a table and resumes.
fn driver(f: impl FnOnce(&(dyn Fn(Vec<LineRequest>) + Sync))) {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock();
    c::with_disks(|| {
        assert_eq!(unsafe { dm_module_init() }, 0);
        {
            let driver = &super::global().unwrap().driver;
            let name = Name::new("a").unwrap();
            let device = driver.create(name, None, None, false).unwrap().device;
            let load = |lines| {
                driver.reload(&device, lines, Load::default()).unwrap();
                driver.resume(&device, Quiesce::Flush, FileSystem::Leave).unwrap();
            };
            f(&load);
            driver.suspend(&device, Quiesce::Flush, FileSystem::Leave).unwrap();
            driver.resume(&device, Quiesce::Flush, FileSystem::Leave).unwrap();
            driver.remove(&device, false).unwrap();
        }
        assert_eq!(unsafe { dm_module_fini() }, 0);
    });
}

/// I/O that checks its data, from one thread per stretch of the device.
fn check(threads: usize, rounds: u8, meanwhile: impl FnOnce()) {
    thread::scope(|scope| {
        for at in 0..threads {
            scope.spawn(move || {
                let sector = 8 * at as i64 + 2;
                for round in 0..rounds {
                    let mut data = [round + 1; 6 * 512];
                    assert_eq!(io(true, sector, &mut data), 0);
                    data.fill(0);
                    assert_eq!(io(false, sector, &mut data), 0);
                    assert!(data.iter().all(|byte| *byte == round + 1));
                }
            });
        }
        meanwhile();
    });
}

#[test]
fn linear_under_io_while_its_table_changes() {
    driver(|load| {
        load(vec![line(0, 32, "linear", "/dev/a 8")]);
        check(2, 3, || {
            load(vec![line(0, 16, "linear", "/dev/a 8"), line(16, 16, "linear", "/dev/a 24")]);
        });
    });
}

#[test]
fn striped_and_split_and_failing() {
    driver(|load| {
        load(vec![line(0, 32, "striped", "2 4 /dev/a 0 /dev/b 0"), line(32, 8, "error", "")]);
        check(2, 2, || {});
        let mut data = [0; 8 * 512];
        assert_eq!(io(false, 28, &mut data), sys::EIO as i32);
    });
}

#[test]
fn on_the_reserve() {
    driver(|load| {
        load(vec![line(0, 32, "striped", "2 4 /dev/a 0 /dev/b 0")]);
        c::NO_MEMORY.store(true, Ordering::Relaxed);
        check(3, 2, || {});
        c::NO_MEMORY.store(false, Ordering::Relaxed);
    });
}

#[test]
fn components_that_complete_at_once() {
    driver(|load| {
        c::AT_ONCE.store(true, Ordering::Relaxed);
        load(vec![line(0, 32, "striped", "2 4 /dev/a 0 /dev/b 0")]);
        check(2, 2, || {});
        c::AT_ONCE.store(false, Ordering::Relaxed);
    });
}

#[test]
fn jobs_while_their_table_changes() {
    driver(|load| {
        let delay = || vec![line(0, 32, "delay", "/dev/a 0 1")];
        load(delay());
        check(2, 2, || load(delay()));
    });
}
