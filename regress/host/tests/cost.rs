// SPDX-License-Identifier: BSD-2-Clause

//! The driver's use of memory and locks. `benches/io.rs` measures its time.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::Bench;
use dm_core::testing::{Disk as FakeDisk, Fake, kernel};
use dm_host::{Io, Request};

/// The driver's heap here is the process's: counts what each thread takes and gives back.
struct Counting;

thread_local! {
    static BYTES: Cell<i64> = const { Cell::new(0) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.set(BYTES.get() + layout.size() as i64);
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get() - layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes that `more` takes from the heap and keeps.
fn taken(more: impl FnOnce()) -> i64 {
    let before = BYTES.get();
    more();
    BYTES.get() - before
}

/// Bytes that a device with so many linear lines keeps, of which dm-core has all.
fn table(count: u64) -> i64 {
    let fake = Fake::new();
    fake.disk("/dev/wd0a", FakeDisk::new(0, 0, 8 * count));
    let driver = kernel::driver(fake);
    let name = dm_core::name::Name::new("a").unwrap();
    let device = driver.create(name, None, None, false).unwrap().device;
    taken(|| {
        let line = |i| dm_core::device::LineRequest {
            start: i * 8,
            length: 8,
            kind: "linear".into(),
            params: format!("/dev/wd0a {}", i * 8),
        };
        driver.reload(&device, (0..count).map(line).collect(), Default::default()).unwrap();
        driver
            .resume(&device, dm_core::worker::Quiesce::Flush, dm_core::device::FileSystem::Leave)
            .unwrap();
    })
}

#[test]
fn a_linear_line_takes_at_most_48_bytes() {
    let each = (table(5_000) - table(1_000)) as f64 / 4_000.0;
    println!("a linear line: {each} bytes");
    assert!((16.0..=48.0).contains(&each), "{each} bytes");
}

#[test]
fn an_idle_device_takes_at_most_8_kib() {
    const DEVICES: u32 = 200;
    let bench = Bench::new();
    bench.disk("wd0", 100);
    let table = "0 100 linear /dev/wd0 0";
    // With it comes what all devices share.
    bench.device("first", table);
    let names: Vec<_> = (0..DEVICES).map(|n| format!("vg0-lv{n}")).collect();
    let each = |device: &dyn Fn(&str)| {
        let bytes = taken(|| names.iter().for_each(|name| device(name)));
        bytes as f64 / f64::from(DEVICES)
    };
    let created = each(&|name| assert_ne!(bench.create(name), 0));
    let loaded = each(&|name| drop(bench.load(name, table).unwrap()));
    // The driver's own, what disk(9), autoconf(9) and the like keep for it, and the hosted kernel's books on that.
    println!(
        "an idle device, two CPUs: {created:.0} bytes without a table, {loaded:.0} more with a linear line"
    );
    assert!((1024.0..=6144.0).contains(&created), "{created} bytes without a table");
    assert!((256.0..=2048.0).contains(&loaded), "{loaded} bytes of a table");
    bench.end();
}

#[test]
fn io_takes_no_memory_and_no_mutex() {
    let bench = Bench::new();
    bench.disk("wd0", 100);
    let device = bench.device("d", "0 100 linear /dev/wd0 0");
    let _open = bench.raw(device);
    let mut io = Io::new(4096);
    assert!(io.run(device.dev(), Request::read(0)).is_complete(4096));
    let before = (CALLS.get(), dm_host::lwp::mutex_entries());
    for block in 0..50 {
        assert!(io.run(device.dev(), Request::read(block)).is_complete(4096));
    }
    // Not counted: what biodone(9) itself enters, the b_objlock of each buffer.
    assert_eq!((CALLS.get(), dm_host::lwp::mutex_entries()), before);
    drop((io, _open));
    bench.end();
}
