// SPDX-License-Identifier: BSD-2-Clause

//! Devices on devices, and components that change: each table is checked against its components as they are when it
//! is loaded, and no thread that cannot be interrupted waits for a suspended device below.

mod common;

use common::data::{fill, on_disk, same, strategy_read, strategy_write};
use common::wait::until;
use common::{Bench, Mapped, Request, flags, reload, send};
use dm_host::netbsd::{DIOCCACHESYNC, DIOCGDINFO, DIOCWDINFO, disklabel};
use dm_host::{DiskSpec, Errno, Io, Value};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

/// The table that is all of another device, so many sectors of it.
fn on(lower: Mapped, sectors: u64) -> String {
    format!("0 {sectors} linear 169:{} 0", lower.minor)
}

fn load(bench: &Bench, name: &str, table: &str) -> Result<(), Errno> {
    bench.load(name, table).map(drop)
}

/// Loads a table into a device that takes no writes.
fn load_read_only(bench: &Bench, name: &str, table: &str) -> Result<(), Errno> {
    bench.send(&reload(name, table).flags(flags::READONLY))?;
    bench.on("resume", name).map(drop)
}

#[test]
fn what_stands_on_a_device_that_has_grown_may_grow() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 9000);
    fill(&disk, 1);
    let lower = bench.device("lower", "0 1000 linear /dev/wd0 0");
    let upper = bench.device("upper", &on(lower, 1000));
    let top = bench.device("top", &on(upper, 1000));
    load(&bench, "upper", &on(lower, 1001)).unwrap_err();
    load(&bench, "lower", "0 2000 linear /dev/wd0 0").unwrap();
    assert_eq!(load(&bench, "upper", &on(lower, 2001)), Err(Errno::EINVAL));
    load(&bench, "upper", &on(lower, 2000)).unwrap();
    load(&bench, "top", &on(upper, 2000)).unwrap();
    same(&strategy_read(top.dev(), 1990, 10).1, &on_disk(&disk, 1990, 10), "through all layers");
    bench.end();
}

/// lvm(8) does it so for pvmove: all tables are loaded before the first device is resumed.
#[test]
fn a_table_may_stand_on_a_device_whose_first_table_is_not_active_yet() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 9000);
    fill(&disk, 1);
    let lower = Mapped { minor: bench.create("lower") };
    let upper = Mapped { minor: bench.create("upper") };
    let only_load = |name: &str, table: &str| bench.reload(name, table).map(drop);
    assert_eq!(only_load("upper", &on(lower, 1)), Err(Errno::EINVAL), "there is no table at all");
    only_load("lower", "0 1000 linear /dev/wd0 100").unwrap();
    assert_eq!(only_load("upper", &on(lower, 1001)), Err(Errno::EINVAL), "it will have 1000");
    only_load("upper", &on(lower, 1000)).unwrap();
    assert_eq!(only_load("lower", &on(upper, 1000)), Err(Errno::ELOOP));
    // The upper one first: until the lower one has its table there is nothing to read.
    bench.on("resume", "upper").unwrap();
    assert_eq!(strategy_read(upper.dev(), 0, 10).0.error, Some(Errno::ENXIO));
    bench.on("resume", "lower").unwrap();
    same(&strategy_read(upper.dev(), 0, 1000).1, &on_disk(&disk, 100, 1000), "through both");
    bench.end();
}

#[test]
fn a_device_whose_first_table_is_read_only_takes_no_table_that_writes() {
    let bench = Bench::new();
    bench.disk("wd0", 9000);
    let lower = Mapped { minor: bench.create("lower") };
    bench.send(&reload("lower", "0 1000 linear /dev/wd0 0").flags(flags::READONLY)).unwrap();
    bench.create("upper");
    assert_eq!(bench.send(&reload("upper", &on(lower, 8))).map(drop), Err(Errno::EROFS));
    bench.send(&reload("upper", &on(lower, 8)).flags(flags::READONLY)).unwrap();
    bench.end();
}

#[test]
fn what_stands_on_a_device_that_has_shrunk_must_fit() {
    let bench = Bench::new();
    bench.disk("wd0", 9000);
    let lower = bench.device("lower", "0 1000 linear /dev/wd0 0");
    bench.device("upper", &on(lower, 1000));
    load(&bench, "lower", "0 100 linear /dev/wd0 0").unwrap();
    assert_eq!(load(&bench, "upper", &on(lower, 1000)), Err(Errno::EINVAL));
    assert_eq!(bench.table("upper"), [on(lower, 1000)], "the table that is there stays");
    load(&bench, "upper", &on(lower, 100)).unwrap();
    bench.end();
}

/// Components are asked for each table anew.
#[test]
fn sectors_are_as_large_as_they_are_now() {
    let bench = Bench::new();
    bench.disk("wd0", 800);
    bench.attach(DiskSpec::memory("sd0", 800).sector_size(2048));
    let lower = bench.device("lower", "0 80 linear /dev/wd0 0");
    bench.device("upper", &format!("0 81 zero\n81 7 linear 169:{} 1", lower.minor));
    load(&bench, "lower", "0 80 linear /dev/sd0 0").unwrap();
    assert_eq!(
        load(&bench, "upper", &format!("0 81 zero\n81 7 linear 169:{} 1", lower.minor)),
        Err(Errno::EINVAL)
    );
    load(&bench, "upper", &format!("0 80 zero\n80 8 linear 169:{} 4", lower.minor)).unwrap();
    bench.end();
}

#[test]
fn a_device_that_takes_writes_again_is_written_by_what_stands_on_it() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 4000);
    let lower = Mapped { minor: bench.create("lower") };
    load_read_only(&bench, "lower", "0 1000 linear /dev/wd0 0").unwrap();
    let upper = Mapped { minor: bench.create("upper") };
    assert_eq!(load(&bench, "upper", &on(lower, 1000)), Err(Errno::EROFS));
    load_read_only(&bench, "upper", &on(lower, 1000)).unwrap();
    assert_eq!(load(&bench, "upper", &on(lower, 1000)), Err(Errno::EROFS));
    load(&bench, "lower", "0 1000 linear /dev/wd0 0").unwrap();
    load(&bench, "upper", &on(lower, 1000)).unwrap();
    let mut io = Io::with_data(vec![7; 512]);
    assert!(io.run(upper.dev(), dm_host::Request::write(3)).is_complete(512));
    same(&on_disk(&disk, 3, 1), &[7; 512], "written");
    // And the other way round.
    load_read_only(&bench, "lower", "0 1000 linear /dev/wd0 0").unwrap();
    assert_eq!(load(&bench, "upper", &on(lower, 1000)), Err(Errno::EROFS));
    load_read_only(&bench, "upper", &on(lower, 1000)).unwrap();
    bench.end();
}

/// A disk that was unplugged and plugged in again: devices that have it must be loaded anew, and can.
/// lvm(8) does it so for `lvchange -prw` of a volume with a snapshot: all tables are loaded before a device is resumed.
#[test]
fn a_device_and_what_stands_on_it_take_writes_again_together() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 9000);
    fill(&disk, 1);
    let lower = Mapped { minor: bench.create("lower") };
    let upper = Mapped { minor: bench.create("upper") };
    load_read_only(&bench, "lower", "0 1000 linear /dev/wd0 0").unwrap();
    load_read_only(&bench, "upper", &on(lower, 1000)).unwrap();
    let only_load = |name: &str, table: &str| bench.reload(name, table).map(drop);
    assert_eq!(only_load("upper", &on(lower, 1000)), Err(Errno::EROFS));
    only_load("lower", "0 1000 linear /dev/wd0 0").unwrap();
    only_load("upper", &on(lower, 1000)).unwrap();
    // The upper one first: what it is given meanwhile fails below.
    bench.on("resume", "upper").unwrap();
    assert_eq!(strategy_write(upper.dev(), 5, &[7; 512]).error, Some(Errno::EROFS));
    bench.on("resume", "lower").unwrap();
    assert_eq!(strategy_write(upper.dev(), 5, &[7; 512]).error, None);
    same(&on_disk(&disk, 5, 1), &[7; 512], "what was written");
    bench.end();
}

#[test]
fn a_component_that_went_and_came_back_is_opened_anew() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 4000);
    let table = "0 1000 linear /dev/wd0 0";
    let old = bench.device("old", table);
    let other = bench.device("other", table);
    disk.detach(true).unwrap();
    drop(disk);
    bench.create("new");
    assert_eq!(bench.reload("new", table).err(), Some(Errno::ENOENT), "it is away");
    let disk = bench.disk("wd0", 2000);
    fill(&disk, 5);
    let there = on_disk(&disk, 0, 3);
    // A new device works, while the old ones have the dead one.
    load(&bench, "new", table).unwrap();
    same(&strategy_read(Mapped { minor: 3 }.dev(), 0, 3).1, &there, "the new device");
    let gone = Io::new(512).run(old.dev(), dm_host::Request::read(0)).error;
    assert!(gone.is_some(), "the table that is there has the disk that went");
    // The old ones do when they are loaded again.
    for (name, device) in [("old", old), ("other", other)] {
        load(&bench, name, table).unwrap();
        same(&strategy_read(device.dev(), 0, 3).1, &there, name);
    }
    assert_eq!(bench.machine.block_opens(disk.dev()), 1, "all share the new opening");
    // The disk has its new size.
    assert_eq!(load(&bench, "old", "0 3000 linear /dev/wd0 0"), Err(Errno::EINVAL));
    for name in ["old", "other", "new"] {
        bench.on("remove", name).unwrap();
    }
    assert_eq!(bench.machine.block_opens(disk.dev()), 0);
    drop(disk);
    bench.end();
}

/// Two layers, the lower one suspended.
fn on_a_suspended_device() -> (Bench, Mapped, Mapped) {
    let bench = Bench::new();
    bench.disk("wd0", 4000);
    let lower = bench.device("lower", "0 3000 linear /dev/wd0 0");
    // Two lines: an I/O across them is split.
    let upper = format!("0 1 linear 169:{0} 0\n1 1999 linear 169:{0} 1", lower.minor);
    let upper = bench.device("upper", &upper);
    bench.on("suspend", "lower").unwrap();
    (bench, lower, upper)
}

#[test]
fn a_table_over_a_suspended_stack_is_loaded_without_waiting() {
    let (bench, _, upper) = on_a_suspended_device();
    bench.create("top");
    bench.reload("top", &on(upper, 1000)).unwrap();
    bench.on("resume", "top").unwrap();
    bench.on("resume", "lower").unwrap();
    bench.end();
}

#[test]
fn the_label_of_a_device_on_a_suspended_one_is_told_without_waiting() {
    let (bench, _, upper) = on_a_suspended_device();
    let raw = bench.raw(upper);
    // SAFETY: plain numbers and characters.
    let mut label: disklabel = unsafe { std::mem::zeroed() };
    raw.ioctl(DIOCGDINFO as u64, &mut label).unwrap();
    assert_eq!(label.d_secperunit, 2000);
    bench.on("resume", "lower").unwrap();
    drop(raw);
    bench.end();
}

/// The search for a label goes by way of a job there, whole or in pieces.
#[test]
fn so_it_is_where_a_target_between_them_serves_io() {
    let (bench, lower, _) = on_a_suspended_device();
    let line = |start, length| {
        let key = "00".repeat(32);
        format!(
            "{start} {length} crypt aes-xts-plain64 {key} {start} 169:{} {start}\n",
            lower.minor
        )
    };
    let whole = bench.device("whole", &line(0, 2000));
    let pieces = bench.device("pieces", &(line(0, 1) + &line(1, 1999)));
    let above = bench.device("above", &on(pieces, 2000));
    for device in [whole, pieces, above] {
        let raw = bench.raw(device);
        // SAFETY: plain numbers and characters.
        let mut label: disklabel = unsafe { std::mem::zeroed() };
        raw.ioctl(DIOCGDINFO as u64, &mut label).unwrap();
        assert_eq!(label.d_secperunit, 2000);
    }
    bench.on("resume", "lower").unwrap();
    bench.end();
}

#[test]
fn a_label_for_a_device_on_a_suspended_one_waits_and_can_be_interrupted() {
    let (bench, _, upper) = on_a_suspended_device();
    let write = || {
        let raw = bench.raw(upper);
        bench.machine.spawn(move || {
            // SAFETY: plain numbers and characters.
            let mut label: disklabel = unsafe { std::mem::zeroed() };
            raw.ioctl(DIOCGDINFO as u64, &mut label)?;
            raw.ioctl(DIOCWDINFO as u64, &mut label)
        })
    };
    let thread = write();
    // A signal that comes before it sleeps is taken by the ioctl before.
    until("it is interrupted", || {
        bench.machine.interrupt(thread.lwp());
        thread.is_finished()
    });
    assert_eq!(thread.join(), Err(Errno::EINTR));
    // Not interrupted, it is done when the device is resumed.
    let thread = write();
    bench.on("resume", "lower").unwrap();
    assert_eq!(thread.join(), Ok(()));
    bench.end();
}

/// A discard waits at the lower device with its vnode's lock: who loads the upper one, perhaps to
/// resume both, does not wait for that.
#[test]
fn a_table_is_loaded_while_a_discard_waits_below() {
    let (bench, lower, upper) = on_a_suspended_device();
    let raw = bench.raw(upper);
    let discard = bench.machine.spawn(move || raw.fdiscard(0, 512));
    until("it waits", || discard.sleeps());
    bench.reload("upper", &on(lower, 2000)).unwrap();
    bench.reload("upper", &on(lower, 1000)).unwrap();
    bench.on("clear", "upper").unwrap();
    assert!(!discard.is_finished());
    bench.on("resume", "lower").unwrap();
    assert_eq!(discard.join(), Ok(()));
    bench.end();
}

/// A discard of many pieces leaves its device after each: a suspend does not wait for the last.
#[test]
fn a_suspend_comes_between_the_pieces_of_a_discard() {
    let bench = Bench::new();
    let disk = bench.disk("wd0", 4000);
    let lower = bench.device("lower", "0 1000 linear /dev/wd0 0");
    let upper =
        bench.device("upper", &format!("0 80 striped 2 8 169:{} 0 /dev/wd0 1000", lower.minor));
    bench.on("suspend", "lower").unwrap();
    let raw = bench.raw(upper);
    let discard = bench.machine.spawn(move || raw.fdiscard(0, 80 * 512));
    until("its first piece waits", || discard.sleeps());
    let control = bench.control.clone();
    let suspend = bench.machine.spawn(move || send(&control, &Request::on("suspend", "upper")));
    until("it waits for the piece", || suspend.sleeps());
    bench.on("resume", "lower").unwrap();
    suspend.join().unwrap();
    until("the next piece waits", || discard.sleeps());
    assert_eq!(disk.counters().discards, 1);
    bench.on("resume", "upper").unwrap();
    assert_eq!(discard.join(), Ok(()));
    assert_eq!(disk.counters().discards, 10);
    bench.end();
}

/// A file system's journal is in order only if its flushes are done, whatever signals come.
#[test]
fn a_flush_waits_for_a_resume_deaf_to_signals() {
    for suspended in ["lower", "upper"] {
        let bench = Bench::new();
        let disk = bench.disk("wd0", 4000);
        let lower = bench.device("lower", "0 2000 linear /dev/wd0 0");
        let upper = bench.device("upper", &on(lower, 2000));
        bench.on("suspend", suspended).unwrap();
        let raw = bench.raw(upper);
        let flush = bench.machine.spawn(move || raw.ioctl(DIOCCACHESYNC as u64, &mut 0i32));
        until("it waits", || flush.sleeps());
        assert!(bench.machine.interrupt(flush.lwp()));
        assert!(flush.sleeps(), "{suspended}");
        assert_eq!(disk.counters().flushes, 0);
        bench.on("resume", suspended).unwrap();
        assert_eq!(flush.join(), Ok(()));
        assert_eq!(disk.counters().flushes, 1, "{suspended}");
        bench.end();
    }
}

/// Without the guard no component is read for its label.
#[test]
fn without_the_guard_components_are_not_read() {
    for (guard, reads) in [(0, false), (1, true), (2, true)] {
        let bench = Bench::new();
        let disk = bench.attach(DiskSpec::memory("wd0", 4000).label(dm_host::Label::new()));
        bench.machine.sysctl_set("hw.dm.label_guard", &Value::Int(guard)).unwrap();
        let lower = bench.device("lower", "0 1000 linear /dev/wd0d 100");
        assert_eq!(disk.counters().reads > 0, reads, "guard {guard}");
        // Nor are devices of our own, ever.
        let before = disk.counters().reads;
        bench.device("upper", &on(lower, 1000));
        assert_eq!(disk.counters().reads, before, "guard {guard}");
        bench.end();
    }
}

/// A target that does I/O of its own asks its components more when it is loaded, and reads a log when it is resumed.
#[test]
fn a_mirror_over_suspended_devices_is_loaded_and_started_without_waiting() {
    let bench = Bench::new();
    let (_, log) = (bench.disk("wd0", 9000), bench.disk("wd1", 64));
    let legs = [0, 1000].map(|start| {
        let leg = bench.device(&format!("leg{start}"), &format!("0 1000 linear /dev/wd0 {start}"));
        bench.on("suspend", &format!("leg{start}")).unwrap();
        leg
    });
    let [first, second] = legs.map(|leg| format!("169:{} 0", leg.minor));
    let table = format!("0 1000 mirror disk 3 /dev/wd1 16 nosync 2 {first} {second}");
    bench.device("m", &table);
    assert_eq!(on_disk(&log, 0, 1)[..4], *b"rRiM");
    for leg in ["leg0", "leg1000"] {
        bench.on("resume", leg).unwrap();
    }
    bench.end();
}

/// A bit of DIOCGCACHE's answer.
const DKCACHE_FUA: i32 = 0x02_0000;

/// A device of ours may get a table that does not do what B_MEDIA_FUA asks for.
#[test]
fn a_log_on_a_device_of_ours_is_flushed_after_each_write() {
    let bench = Bench::new();
    bench.disk("wd0", 9000);
    let log = bench.attach(DiskSpec::memory("wd1", 64).cache(DKCACHE_FUA));
    let lower = bench.device("lower", "0 64 linear /dev/wd1 0");
    let table =
        |log: &str| format!("0 1000 mirror disk 3 {log} 16 nosync 2 /dev/wd0 0 /dev/wd0 1000");
    let flushes = |log_name: &str, sector: u64| {
        let upper = bench.device("m", &table(log_name));
        let before = log.counters().flushes;
        assert_eq!(strategy_write(upper.dev(), sector, &[1; 512]).error, None);
        let flushes = log.counters().flushes - before;
        bench.on("remove", "m").unwrap();
        flushes
    };
    assert_eq!(flushes(&format!("169:{}", lower.minor), 100), 1);
    bench.on("remove", "lower").unwrap();
    assert_eq!(flushes("/dev/wd1", 200), 0, "the disk itself does what it is asked");
    bench.end();
}
