// SPDX-License-Identifier: BSD-2-Clause

//! No stale memory reaches a reply or a read: all memory that is allocated in this process is filled with a pattern
//! first, and once more when it is freed, and all data that the kernel gives out are searched for the pattern.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::mem::zeroed;

use common::data::SECTOR;
use common::{Bench, Mapped, Request, flags};
use dm_core::testing::plist::Object;
use dm_host::frugal::Watched;
use dm_host::netbsd::{
    DIOCGCACHE, DIOCGDEFLABEL, DIOCGDINFO, DIOCGDISKINFO, DIOCGMEDIASIZE, DIOCGPARTINFO,
    DIOCGSECTORALIGN, DIOCGSECTORSIZE, DIOCGSTRATEGY, DIOCGWEDGEINFO, disk_sectoralign,
    disk_strategy, disklabel, dkwedge_info, partinfo,
};
use dm_host::{Config, Errno, File, Io};

/// A byte that no reply has a reason to hold: it is no character of XML.
const SECRET: u8 = 0xe7;
/// The pattern in memory of the kernel's own allocators.
const PATTERN: u32 = u32::from_ne_bytes([SECRET; 4]);

struct Filling;

// SAFETY: the system's allocator, with memory that is the caller's alone written to.
unsafe impl GlobalAlloc for Filling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Watched::look();
        // SAFETY: the caller's promise; the block has that size.
        unsafe {
            let at = System.alloc(layout);
            if !at.is_null() {
                at.write_bytes(SECRET, layout.size());
            }
            at
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the block is the caller's until it is freed.
        unsafe {
            at.write_bytes(SECRET, layout.size());
            System.dealloc(at, layout);
        }
    }
}

#[global_allocator]
static ALLOCATOR: Filling = Filling;

#[track_caller]
fn clean(bytes: &[u8], what: &str) {
    let found = bytes.iter().position(|byte| *byte == SECRET);
    assert_eq!(found, None, "{what}: the pattern shows");
}

/// The bytes of a structure, padding and all.
fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: the value was zeroed, padding too, before the kernel's answer was copied over it
    // byte by byte.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

fn ask<T: Copy>(file: &File, command: i64, what: &str) {
    // SAFETY: plain numbers and characters.
    let mut answer: T = unsafe { zeroed() };
    if file.ioctl(command as u64, &mut answer).is_ok() {
        clean(bytes_of(&answer), what);
    }
}

fn bench() -> Bench {
    Bench::with(Config { pattern: PATTERN, ..Config::test() })
}

#[test]
fn the_pattern_is_there_to_be_found() {
    let block: Vec<u8> = Vec::with_capacity(64);
    // SAFETY: the allocator above has written all of it.
    let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), 64) };
    assert!(bytes.iter().all(|byte| *byte == SECRET));
}

#[test]
fn replies_to_commands() {
    let bench = bench();
    bench.disk("wd0", 500);
    bench.disk("wd1", 500);
    let send = |request: Request| {
        let xml = request.dict().print();
        if let Ok(reply) = bench.control.plist_ioctl(&xml) {
            clean(reply.as_bytes(), &xml);
        }
    };
    let table =
        "0 8 linear /dev/wd0 3\n8 8 zero\n16 8 error\n24 8 striped 2 2 /dev/wd0 9 /dev/wd1 0";
    let steps = [
        Request::on("create", "d").with("uuid", "u"),
        Request::on("info", "d"),
        common::reload("d", table),
        Request::on("table", "d").flags(flags::STATUS_TABLE | flags::QUERY_INACTIVE_TABLE),
        Request::on("resume", "d"),
        Request::on("table", "d").flags(flags::STATUS_TABLE),
        Request::on("status", "d"),
        Request::on("deps", "d"),
        Request::on("info", "nobody"),
        Request::on("deps", "nobody"),
        Request::on("rename", "d").with("cmd_data", vec![Object::from("e")]),
        Request::on("suspend", "e"),
        Request::on("waitevent", "e").with("event_nr", 77u64),
        Request::new("names"),
        Request::new("targets"),
        Request::new("version"),
        // A line without numbers was uninitialised memory, which `table` showed.
        Request::on("reload", "e").with("cmd_data", vec![Object::from("line")]),
        Request::on("remove", "e"),
        Request::new("names"),
    ];
    for legacy in [0, 1] {
        let value = dm_host::sysctl::Value::Int(legacy);
        bench.machine.sysctl_set("hw.dm.legacy_errors", &value).unwrap();
        steps.iter().cloned().for_each(send);
    }
    bench.create("f");
    clean(bench.machine.sysctl_text("hw.dm.counters").unwrap().as_bytes(), "counters");
    for line in bench.machine.console() {
        clean(line.as_bytes(), "the console");
    }
    bench.end();
}

#[test]
fn answers_of_a_disk() {
    let bench = bench();
    bench.disk("wd0", 500);
    bench.disk("wd1", 500);
    let ask_all = |device: Mapped, what: &str| {
        let raw = bench.raw(device);
        ask::<disklabel>(&raw, DIOCGDINFO as i64, what);
        ask::<disklabel>(&raw, DIOCGDEFLABEL as i64, what);
        ask::<partinfo>(&raw, DIOCGPARTINFO, what);
        ask::<dkwedge_info>(&raw, DIOCGWEDGEINFO as i64, what);
        ask::<disk_strategy>(&raw, DIOCGSTRATEGY as i64, what);
        ask::<disk_sectoralign>(&raw, DIOCGSECTORALIGN as i64, what);
        ask::<i32>(&raw, DIOCGCACHE as i64, what);
        ask::<u32>(&raw, DIOCGSECTORSIZE as i64, what);
        ask::<i64>(&raw, DIOCGMEDIASIZE as i64, what);
        if let Ok(info) = raw.plist_query(DIOCGDISKINFO as u64) {
            clean(info.as_bytes(), what);
        }
    };
    let bare = Mapped { minor: bench.create("bare") };
    ask_all(bare, "without a table");
    for (n, table) in ["0 100 zero", "0 100 linear /dev/wd0 0", "0 8 error"].iter().enumerate() {
        ask_all(bench.device(&format!("d{n}"), table), table);
    }
    let both = "0 100 linear /dev/wd0 100\n100 100 linear /dev/wd1 100";
    ask_all(bench.device("both", both), both);
    bench.end();
}

#[test]
fn reads() {
    let bench = bench();
    let disk = bench.disk("wd0", 100);
    disk.write_at(0, &[0x11; 100 * SECTOR]);
    let table = "0 10 linear /dev/wd0 0\n10 10 zero\n20 4 error\n24 10 linear /dev/wd0 90";
    let device = bench.device("d", table);
    let raw = bench.raw(device);
    let allowed = |data: &[u8], what: &str| {
        // Bytes that were not read are as they were.
        let strange = data.iter().find(|byte| ![0x11, 0, 0x22].contains(*byte));
        assert_eq!(strange, None, "{what}");
    };
    for start in 0..34 {
        for sectors in [1, 3, 12, 40] {
            let mut data = vec![0x22; sectors * SECTOR];
            let result = raw.pread(&mut data, start * SECTOR as u64);
            assert!(matches!(result, Ok(_) | Err(Errno::EIO)), "{result:?}");
            allowed(&data, "read(2)");
            let mut io = Io::with_data(vec![0x22; sectors * SECTOR]);
            io.run(device.dev(), dm_host::Request::read(start as i64));
            allowed(io.data(), "d_strategy");
        }
    }
    disk.short_nth(1, 100);
    let mut data = vec![0x22; 8 * SECTOR];
    assert_eq!(raw.pread(&mut data, 0), Err(Errno::EIO));
    allowed(&data, "a short answer");
    drop(raw);
    bench.end();
}
