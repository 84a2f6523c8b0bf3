// SPDX-License-Identifier: BSD-2-Clause

//! Suspending a device with a mounted file system: the components then have all that the file system has written, and
//! no two threads wait for each other.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use common::data::{SECTOR, on_disk, strategy_write};
use common::wait::until;
use common::{Bench, Mapped, flags, lines, send};
use dm_host::netbsd::{MNT_ASYNC, MNT_RDONLY};
use dm_host::{Disk, Errno, Io, Mount, Request};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

/// A device `d` on a disk, with a file system that has one sector to write, and writes it when it is synchronised.
struct Busy {
    bench: Bench,
    disk: Disk,
    device: Mapped,
    file: Option<dm_host::File>,
    mount: Mount,
    dirty: Arc<AtomicU8>,
}

impl Busy {
    fn new() -> Busy {
        Busy::on(|bench| bench.device("d", "0 1000 linear /dev/wd0 0"))
    }

    fn on(make: impl FnOnce(&Bench) -> Mapped) -> Busy {
        let bench = Bench::new();
        let disk = bench.disk("wd0", 2000);
        let device = make(&bench);
        let file = Some(bench.block(device));
        let dirty = Arc::new(AtomicU8::new(0));
        let (dev, content) = (device.dev(), dirty.clone());
        let sync = move || {
            let written = strategy_write(dev, 7, &[content.load(Ordering::SeqCst); SECTOR]);
            written.error.map_or(Ok(()), Err)
        };
        let mount = bench.machine.mount(dev, sync).unwrap();
        Busy { bench, disk, device, file, mount, dirty }
    }

    /// Sets the content that the next synchronisation writes.
    fn dirty(&self, content: u8) {
        self.dirty.store(content, Ordering::SeqCst);
    }

    fn below(&self) -> u8 {
        on_disk(&self.disk, 7, 1)[0]
    }

    fn with(&self, command: &str, flag: u32) {
        self.bench.send(&common::Request::on(command, "d").flags(flag)).unwrap();
    }

    fn end(mut self) {
        assert!(!self.mount.is_suspended());
        drop((self.mount, self.file.take()));
        self.bench.end();
    }
}

#[test]
fn what_lies_below_a_suspended_device_is_what_was_synchronised() {
    let busy = Busy::new();
    busy.dirty(1);
    busy.with("suspend", 0);
    assert_eq!((busy.below(), busy.mount.suspensions()), (1, 1));
    assert!(!busy.mount.is_suspended(), "it goes on when I/O is held");
    // Writes of the file system wait from now on, so that it is not synchronised once more.
    busy.dirty(2);
    busy.with("suspend", 0);
    let mut io = Io::new(SECTOR);
    io.start(busy.device.dev(), Request::write(7));
    assert_eq!((busy.below(), busy.mount.suspensions()), (1, 1));
    busy.with("resume", 0);
    assert!(io.wait().is_complete(SECTOR));
    assert_eq!(busy.mount.suspensions(), 1, "no I/O was about to be held");
    busy.end();
}

/// As the kernel's own callers do: bwrite(9) would delay an asynchronous mount's writes, and one that
/// is read-only has none.
#[test]
fn mounts_are_synchronised_by_their_flags() {
    for (flags, below) in [(0, 1), (MNT_ASYNC, 1), (MNT_RDONLY, 0)] {
        let busy = Busy::new();
        busy.mount.set_flags(flags);
        busy.dirty(1);
        busy.with("suspend", 0);
        assert_eq!((busy.below(), busy.mount.suspensions()), (below, 1), "{flags:#x}");
        assert_eq!(busy.mount.flags(), flags);
        busy.with("resume", 0);
        busy.end();
    }
}

#[test]
fn a_resume_that_changes_the_table_synchronises_first() {
    let busy = Busy::new();
    busy.bench.reload("d", "0 1000 linear /dev/wd0 1000").unwrap();
    busy.dirty(3);
    busy.with("resume", 0);
    assert_eq!((busy.below(), busy.mount.suspensions()), (3, 1), "by the old table");
    busy.end();
}

#[test]
fn whoever_says_so_leaves_it_alone() {
    let busy = Busy::new();
    busy.dirty(4);
    for flag in [flags::SKIP_LOCKFS, flags::NOFLUSH] {
        busy.with("suspend", flag);
        busy.with("resume", 0);
        busy.bench.reload("d", "0 1000 linear /dev/wd0 0").unwrap();
        busy.with("resume", flag);
    }
    assert_eq!((busy.below(), busy.mount.suspensions()), (0, 0));
    busy.end();
}

#[test]
fn one_that_cannot_be_suspended_or_written_keeps_nobody_from_suspending_the_device() {
    let busy = Busy::new();
    busy.dirty(5);
    let said = |why: &str| {
        let said = busy.bench.machine.console();
        busy.bench.machine.clear_console();
        assert!(said.iter().any(|line| line.contains(why)), "{said:?}");
    };
    busy.mount.refuse(Some(Errno::EOPNOTSUPP));
    busy.with("suspend", 0);
    said("the file system on minor 1 is not synchronised: Operation not supported");
    busy.with("resume", 0);
    busy.mount.refuse(None);
    busy.disk.fail(Errno::EIO);
    busy.with("suspend", 0);
    said("the file system on minor 1 is not synchronised: Input/output error");
    assert!(!busy.mount.is_suspended());
    busy.disk.heal();
    busy.with("resume", 0);
    busy.end();
}

#[test]
fn one_on_a_suspended_device_below_is_not_waited_for() {
    let busy = Busy::on(|bench| {
        let lower = bench.device("lower", "0 1000 linear /dev/wd0 0");
        bench.device("d", &format!("0 1000 linear 169:{} 0", lower.minor))
    });
    busy.dirty(6);
    busy.bench.on("suspend", "lower").unwrap();
    busy.with("suspend", 0);
    assert_eq!((busy.below(), busy.mount.suspensions()), (0, 0));
    busy.bench.on("resume", "lower").unwrap();
    busy.with("resume", 0);
    busy.end();
}

/// I/O that the file system waits for is not held back until the device is suspended, and I/O that comes later is
/// delayed again.
#[test]
fn a_target_that_holds_back_io_lets_go_what_the_file_system_waits_for() {
    const HOUR: &str = "0 1000 delay /dev/wd0 0 3600000";
    let busy = Busy::on(|bench| bench.device("d", HOUR));
    let waits = |expected: &str| {
        let expected = format!("0 1000 delay {expected}");
        let status = || lines(&busy.bench.on("status", "d").unwrap()).remove(0);
        until(&expected, || status() == expected);
    };
    let mut first = Io::new(SECTOR);
    first.start(busy.device.dev(), Request::read(3));
    waits("1 0 0");
    busy.dirty(8);
    busy.with("suspend", 0);
    assert_eq!((busy.below(), busy.mount.suspensions()), (8, 1));
    assert!(first.wait().is_complete(SECTOR));
    busy.with("resume", 0);
    busy.bench.reload("d", HOUR).unwrap();
    busy.dirty(9);
    busy.with("resume", 0);
    assert_eq!((busy.below(), busy.mount.suspensions()), (9, 2));
    // A file system that is not suspended leaves the device going.
    let mut second = Io::new(SECTOR);
    second.start(busy.device.dev(), Request::read(3));
    waits("1 0 0");
    let suspend = busy.mount.suspended(|| {
        let control = busy.bench.control.clone();
        let suspend = busy
            .bench
            .machine
            .spawn(move || send(&control, &common::Request::on("suspend", "d")).map(drop));
        let lwp = suspend.lwp();
        assert!(
            second.wait().is_complete(SECTOR),
            "the thread that waits for the file system lets it go"
        );
        // That thread does not keep a table that another one replaces: it may wait for long.
        let closes = busy.disk.counters().closes;
        let control = busy.bench.control.clone();
        let replace = busy.bench.machine.spawn(move || {
            let resume = common::Request::on("resume", "d").flags(flags::SKIP_LOCKFS);
            send(&control, &common::reload("d", "0 1000 zero"))?;
            send(&control, &resume).map(drop)
        });
        assert_eq!(replace.join(), Ok(()));
        assert_eq!(busy.disk.counters().closes, closes + 1, "closed with its table");
        until("the signal ends the suspend", || {
            !busy.bench.machine.interrupt(lwp) || suspend.is_finished()
        });
        suspend.join()
    });
    assert_eq!(suspend, Err(Errno::EINTR));
    busy.bench.reload("d", HOUR).unwrap();
    busy.with("resume", flags::SKIP_LOCKFS);
    let mut third = Io::new(SECTOR);
    third.start(busy.device.dev(), Request::read(3));
    waits("1 0 0");
    busy.with("suspend", flags::SKIP_LOCKFS);
    assert!(third.wait().is_complete(SECTOR));
    busy.with("resume", 0);
    busy.end();
}

/// One file system of a machine is suspended at a time, by one thread.
#[test]
fn a_signal_ends_the_wait_for_a_file_system() {
    let busy = Busy::new();
    let other = busy.bench.device("other", "0 100 linear /dev/wd0 1000");
    let file = busy.bench.block(other);
    let mount = busy.bench.machine.mount(other.dev(), || Ok(())).unwrap();
    for suspended in [&mount, &busy.mount] {
        let before = busy.mount.suspensions();
        suspended.suspended(|| {
            let control = busy.bench.control.clone();
            let suspend = move || send(&control, &common::Request::on("suspend", "d")).map(drop);
            let suspend = busy.bench.machine.spawn(suspend);
            let lwp = suspend.lwp();
            until("the signal ends the suspend", || {
                !busy.bench.machine.interrupt(lwp) || suspend.is_finished()
            });
            assert_eq!(suspend.join(), Err(Errno::EINTR));
        });
        let own = usize::from(std::ptr::eq(suspended, &busy.mount));
        assert_eq!(busy.mount.suspensions(), before + own, "by the test only");
        assert_eq!(busy.bench.info("d", "flags") & u64::from(flags::SUSPEND), 0);
    }
    drop((mount, file));
    busy.end();
}

/// The thread that has the device may wait for the file system, which goes on until that thread is done.
#[test]
fn it_goes_on_while_another_thread_changes_the_device() {
    let busy = Busy::new();
    busy.disk.hold();
    let mut io = Io::new(SECTOR);
    io.start(busy.device.dev(), Request::read(3));
    let suspend = |flag: u32| {
        let control = busy.bench.control.clone();
        let request = common::Request::on("suspend", "d").flags(flag);
        busy.bench.machine.spawn(move || send(&control, &request).map(drop))
    };
    // The first one waits for the I/O; the second must not keep the file system while it waits for the first.
    let first = suspend(flags::SKIP_LOCKFS);
    let mut waits = None;
    until("I/O is held", || {
        let mut probe = Io::new(SECTOR);
        probe.start(busy.device.dev(), Request::read(4));
        if busy.disk.release_one(1) {
            assert!(probe.wait().is_complete(SECTOR));
            return false;
        }
        waits = Some(probe);
        true
    });
    let second = suspend(0);
    assert!(!second.is_finished() && !busy.mount.is_suspended());
    busy.disk.release();
    assert_eq!((first.join(), second.join()), (Ok(()), Ok(())));
    busy.with("resume", 0);
    assert!(io.wait().is_complete(SECTOR) && waits.unwrap().wait().is_complete(SECTOR));
    busy.end();
}
