// SPDX-License-Identifier: BSD-2-Clause

//! Linux's ioctl on the driver, structures in and out: every command, every refusal, answers that do not fit.

use std::cell::RefCell;

use dm_host::linux::abi::{self, Command, at, encode, flag};
use dm_host::linux::{Change, Fault, Host, ioctl};
use dm_host::{Config, DiskSpec, Errno, Flags, Machine};
use zeroize::Zeroizing;

const MAJOR: u32 = 253;

/// A machine with /dev/wd0, of 4096 sectors, which Linux knows as 7:0.
struct Bench {
    machine: Machine,
    disk: String,
    changes: RefCell<Vec<Change>>,
    /// The answer of `let_go`.
    in_use: RefCell<Option<Fault>>,
    /// A replacement for the driver's answer, with things that the driver does not say yet.
    answer: RefCell<Option<String>>,
}

impl Host for Bench {
    fn ask(&self, request: &str) -> Result<Zeroizing<String>, Errno> {
        if let Some(answer) = self.answer.borrow_mut().take() {
            return Ok(Zeroizing::new(answer));
        }
        let control = self.machine.open("/dev/mapper/control", Flags::READ_WRITE)?;
        control.plist_ioctl(request).map(Zeroizing::new)
    }

    fn major(&self) -> u32 {
        MAJOR
    }

    fn disk(&self, word: &str) -> Result<String, Fault> {
        match word {
            "7:0" | "/dev/wd0" => Ok(self.disk.clone()),
            "/dev/null" => Err(Fault(libc::ENOTBLK)),
            _ => Err(Fault(libc::ENOENT)),
        }
    }

    fn number(&self, major: u32, minor: u32) -> Option<(u32, u32)> {
        (format!("{major}:{minor}") == self.disk).then_some((7, 0))
    }

    fn open_count(&self, _minor: u32, told: u32) -> u32 {
        told + 10
    }

    fn let_go(&self, _minor: u32, _deferred: bool) -> Result<(), Fault> {
        self.in_use.borrow().map_or(Ok(()), Err)
    }

    fn changed(&self, change: Change) {
        self.changes.borrow_mut().push(change);
    }
}

/// A request, and after it the answer.
struct Dm(Vec<u8>);

impl Dm {
    fn new() -> Dm {
        let mut bytes = vec![0; 16 * 1024];
        for (place, part) in [4u32, 0, 0].into_iter().enumerate() {
            abi::put(&mut bytes, at::VERSION + 4 * place, &part.to_le_bytes());
        }
        Dm(bytes).word(at::DATA_SIZE, 16 * 1024).word(at::DATA_START, abi::SIZE as u32)
    }

    fn on(name: &str) -> Dm {
        Dm::new().text(at::NAME, name)
    }

    fn word(mut self, place: usize, value: u32) -> Dm {
        abi::put(&mut self.0, place, &value.to_le_bytes());
        self
    }

    fn flags(self, flags: u32) -> Dm {
        self.word(at::FLAGS, flags)
    }

    fn text(mut self, place: usize, text: &str) -> Dm {
        abi::put(&mut self.0, place, text.as_bytes());
        self
    }

    fn data(mut self, bytes: &[u8]) -> Dm {
        abi::put(&mut self.0, abi::SIZE, bytes);
        self
    }

    fn dev(mut self, major: u32, minor: u32) -> Dm {
        abi::put(&mut self.0, at::DEV, &encode(major, minor).to_le_bytes());
        self
    }

    /// A table, a line each: start, length, target, parameters.
    fn table(self, lines: &[(u64, u64, &str, &str)]) -> Dm {
        let mut data = Vec::new();
        for (start, length, kind, params) in lines {
            let begin = data.len();
            data.extend(start.to_le_bytes());
            data.extend(length.to_le_bytes());
            data.extend([0; 8]);
            let mut name = kind.as_bytes().to_vec();
            name.resize(abi::TARGET, 0);
            data.extend(name);
            data.extend(params.bytes());
            data.push(0);
            data.resize(data.len().next_multiple_of(8), 0);
            let next = ((data.len() - begin) as u32).to_le_bytes();
            abi::put(&mut data, begin + 20, &next);
        }
        self.word(at::TARGET_COUNT, lines.len() as u32).data(&data)
    }

    fn room(self, bytes: u32) -> Dm {
        self.word(at::DATA_SIZE, bytes)
    }

    fn send(mut self, bench: &Bench, command: Command) -> Result<Dm, i32> {
        match ioctl(bench, command.ioctl(), &mut self.0) {
            Ok(()) => Ok(self),
            Err(fault) => Err(fault.0),
        }
    }

    fn get(&self, place: usize) -> u32 {
        abi::u32_at(&self.0, place)
    }

    fn has(&self, flag: u32) -> bool {
        self.get(at::FLAGS) & flag != 0
    }

    fn string(&self, place: usize) -> &str {
        abi::text(&self.0, place, 4096).unwrap()
    }

    fn minor(&self) -> u32 {
        let (major, minor) = abi::decode(abi::u64_at(&self.0, at::DEV));
        assert_eq!(major, MAJOR);
        minor
    }

    /// The answer's data.
    fn answer(&self) -> &[u8] {
        &self.0[self.get(at::DATA_START) as usize..self.get(at::DATA_SIZE) as usize]
    }

    /// The lines of a table as dmsetup(8) prints them.
    fn lines(&self) -> Vec<String> {
        let start = self.get(at::DATA_START) as usize;
        let mut place = start;
        let mut lines = Vec::new();
        for _ in 0..self.get(at::TARGET_COUNT) {
            let (first, length) = (abi::u64_at(&self.0, place), abi::u64_at(&self.0, place + 8));
            let (kind, params) = (self.string(place + 24), self.string(place + 40));
            lines.push(format!("{first} {length} {kind} {params}"));
            place = start + self.get(place + 20) as usize;
            assert!(place.is_multiple_of(8));
        }
        lines
    }
}

impl Bench {
    fn new() -> Bench {
        let machine = Machine::boot(Config::test()).unwrap();
        let disk = machine.attach_disk(DiskSpec::memory("wd0", 4096)).unwrap().major_minor();
        let (changes, in_use, answer) = Default::default();
        Bench { machine, disk, changes, in_use, answer }
    }

    fn create(&self, name: &str) -> u32 {
        Dm::on(name).send(self, Command::DevCreate).unwrap().minor()
    }

    fn load(&self, name: &str, lines: &[(u64, u64, &str, &str)]) -> Result<Dm, i32> {
        Dm::on(name).table(lines).send(self, Command::TableLoad)
    }

    fn info(&self, name: &str) -> Result<Dm, i32> {
        Dm::on(name).send(self, Command::DevStatus)
    }

    /// A device with a table.
    fn device(&self, name: &str, lines: &[(u64, u64, &str, &str)]) -> u32 {
        let minor = self.create(name);
        self.load(name, lines).unwrap();
        Dm::on(name).send(self, Command::DevSuspend).unwrap();
        minor
    }

    fn table(&self, name: &str) -> Vec<String> {
        let ask = Dm::on(name).flags(flag::STATUS_TABLE);
        ask.send(self, Command::TableStatus).unwrap().lines()
    }

    fn remove(&self, name: &str) {
        Dm::on(name).send(self, Command::DevRemove).unwrap();
    }

    fn end(self) {
        Dm::new().send(&self, Command::RemoveAll).unwrap();
        assert_eq!(self.machine.shutdown(), [""; 0], "left over");
    }
}

#[test]
fn numbers_are_linuxs() {
    // As <linux/dm-ioctl.h> makes them, on 64 bits.
    assert_eq!(Command::Version.ioctl(), 0xc138_fd00);
    assert_eq!(Command::GetTargetVersion.ioctl(), 0xc138_fd11);
    assert_eq!(Command::parse(0xc138_fd09), Some(Command::TableLoad));
    // Another size is the same command: a program of 32 bits has it.
    assert_eq!(Command::parse(0xc134_fd00), Some(Command::Version));
    assert_eq!(Command::parse(0xc138_fd20), None);
    assert_eq!(Command::parse(0xc138_0300), None);
    assert_eq!(encode(253, 5), 0xfd05);
    assert_eq!(encode(7, 0x1_2345), 0x1230_0745);
    assert_eq!(abi::decode(0x1230_0745), (7, 0x1_2345));
    for (netbsd, linux) in [
        (Errno::EAGAIN, libc::EAGAIN),
        (Errno::EDEADLK, libc::EDEADLK),
        (Errno::ELOOP, libc::ELOOP),
        (Errno::ENAMETOOLONG, libc::ENAMETOOLONG),
        (Errno::EOPNOTSUPP, libc::EOPNOTSUPP),
        (Errno::ENOTSUP, libc::EOPNOTSUPP),
        (Errno::EOVERFLOW, libc::EOVERFLOW),
        (Errno::ETIMEDOUT, libc::ETIMEDOUT),
        (Errno::ERESTART, libc::EINTR),
        (Errno::EBUSY, libc::EBUSY),
        (Errno::ERANGE, libc::ERANGE),
        (Errno(95), libc::EIO),
    ] {
        assert_eq!(abi::errno(netbsd), linux, "{netbsd:?}");
    }
}

#[test]
fn a_request_must_be_whole_and_of_our_version() {
    let bench = Bench::new();
    let version = Dm::new().send(&bench, Command::Version).unwrap();
    assert_eq!([0, 4, 8].map(|place| version.get(place)), abi::VERSION);
    let mut newer = Dm::new().word(4, abi::VERSION[1] + 1);
    assert_eq!(ioctl(&bench, Command::Version.ioctl(), &mut newer.0), Err(Fault(libc::EINVAL)));
    // The version is told all the same.
    assert_eq!(newer.get(4), abi::VERSION[1]);
    assert_eq!(Dm::new().word(0, 3).send(&bench, Command::Version).err(), Some(libc::EINVAL));
    assert_eq!(Dm::new().room(304).send(&bench, Command::Version).err(), Some(libc::EINVAL));
    assert_eq!(Dm::new().room(16 * 1024 + 1).send(&bench, Command::Version).err(), Some(22));
    assert_eq!(ioctl(&bench, 0xc138_fd20, &mut Dm::new().0), Err(Fault(libc::ENOTTY)));
    assert_eq!(ioctl(&bench, Command::Version.ioctl(), &mut [0; 311]), Err(Fault(libc::EINVAL)));
    bench.end();
}

#[test]
fn a_device_from_its_creation_to_its_removal() {
    let bench = Bench::new();
    let made = Dm::on("one").text(at::UUID, "LVM-1").flags(flag::EXISTS);
    let made = made.send(&bench, Command::DevCreate).unwrap();
    let minor = made.minor();
    // Without a table it is not suspended, whatever NetBSD says.
    assert!(made.has(flag::EXISTS) && !made.has(flag::SUSPEND | flag::ACTIVE_PRESENT));
    assert_eq!((made.string(at::NAME), made.string(at::UUID)), ("one", "LVM-1"));
    assert_eq!(made.get(at::OPEN_COUNT), 10);

    let lines = [(0, 1024, "linear", "/dev/wd0 8"), (1024, 64, "error", "")];
    let loaded = bench.load("one", &lines).unwrap();
    assert!(loaded.has(flag::INACTIVE_PRESENT) && !loaded.has(flag::ACTIVE_PRESENT));
    assert!(!loaded.has(flag::SUSPEND));
    let inactive = Dm::on("one").flags(flag::STATUS_TABLE | flag::QUERY_INACTIVE_TABLE);
    let inactive = inactive.send(&bench, Command::TableStatus).unwrap();
    assert_eq!(inactive.lines(), ["0 1024 linear 7:0 8", "1024 64 error "]);
    assert!(bench.table("one").is_empty());

    let resumed = Dm::on("one").send(&bench, Command::DevSuspend).unwrap();
    assert!(resumed.has(flag::ACTIVE_PRESENT) && !resumed.has(flag::SUSPEND));
    assert_eq!((resumed.get(at::TARGET_COUNT), resumed.get(at::EVENT_NR)), (2, 0));
    assert_eq!(bench.table("one"), ["0 1024 linear 7:0 8", "1024 64 error "]);
    let status = Dm::on("one").send(&bench, Command::TableStatus).unwrap();
    assert_eq!(status.lines(), ["0 1024 linear ", "1024 64 error "]);

    let suspend = flag::SUSPEND | flag::NOFLUSH | flag::SKIP_LOCKFS;
    let suspended = Dm::on("one").flags(suspend).send(&bench, Command::DevSuspend).unwrap();
    assert!(suspended.has(flag::SUSPEND));
    assert!(bench.info("one").unwrap().has(flag::SUSPEND));
    assert!(!Dm::on("one").send(&bench, Command::DevSuspend).unwrap().has(flag::SUSPEND));

    bench.load("one", &[(0, 8, "zero", "")]).unwrap();
    let cleared = Dm::on("one").send(&bench, Command::TableClear).unwrap();
    assert!(!cleared.has(flag::INACTIVE_PRESENT) && cleared.has(flag::ACTIVE_PRESENT));

    // By device, and by uuid.
    assert_eq!(
        Dm::new().dev(MAJOR, minor).send(&bench, Command::DevStatus).unwrap().minor(),
        minor
    );
    let found = Dm::new().text(at::UUID, "LVM-1").send(&bench, Command::DevStatus).unwrap();
    assert_eq!(found.string(at::NAME), "one");

    bench.changes.borrow_mut().clear();
    bench.remove("one");
    assert_eq!(*bench.changes.borrow(), [Change::Removed(minor)]);
    assert_eq!(bench.info("one").err(), Some(libc::ENXIO));
    bench.end();
}

/// LVM suspends a device that it has loaded and not resumed yet, and counts the devices that it then finds suspended.
#[test]
fn a_device_without_an_active_table_is_suspended_when_it_was_told_to_be() {
    let bench = Bench::new();
    let suspended = || bench.info("one").unwrap().has(flag::SUSPEND);
    let suspend = || Dm::on("one").flags(flag::SUSPEND).send(&bench, Command::DevSuspend).unwrap();
    bench.create("one");
    assert!(!suspended());
    assert!(suspend().has(flag::SUSPEND) && suspended());
    bench.load("one", &[(0, 8, "zero", "")]).unwrap();
    assert!(suspended());
    Dm::on("one").send(&bench, Command::TableClear).unwrap();
    assert!(suspended());
    bench.remove("one");

    bench.create("one");
    bench.load("one", &[(0, 8, "zero", "")]).unwrap();
    assert!(!suspended());
    suspend();
    assert!(suspended());
    let resumed = Dm::on("one").send(&bench, Command::DevSuspend).unwrap();
    assert!(resumed.has(flag::ACTIVE_PRESENT) && !resumed.has(flag::SUSPEND));
    assert_eq!(resumed.get(at::EVENT_NR), 0);
    bench.remove("one");
    bench.end();
}

#[test]
fn one_selector_and_no_other() {
    let bench = Bench::new();
    let minor = bench.create("one");
    let both = Dm::on("one").text(at::UUID, "u");
    assert_eq!(both.send(&bench, Command::DevStatus).err(), Some(libc::EINVAL));
    let both = Dm::on("one").dev(MAJOR, minor);
    assert_eq!(both.send(&bench, Command::DevStatus).err(), Some(libc::ENXIO));
    for (major, minor) in [(7, minor), (MAJOR, 0), (MAJOR, 77)] {
        let other = Dm::new().dev(major, minor);
        assert_eq!(other.send(&bench, Command::DevStatus).err(), Some(libc::ENXIO));
    }
    assert_eq!(Dm::new().send(&bench, Command::DevStatus).err(), Some(libc::ENXIO));
    // A name without an end.
    let endless = Dm::new().text(at::NAME, &"x".repeat(abi::NAME));
    assert_eq!(endless.send(&bench, Command::DevCreate).err(), Some(libc::EINVAL));
    bench.end();
}

#[test]
fn what_is_refused_and_how() {
    let bench = Bench::new();
    bench.create("one");
    let uuid = Dm::on("two").text(at::UUID, "u").send(&bench, Command::DevCreate).unwrap();
    assert_ne!(uuid.minor(), 0);
    // Taken names and uuids are EBUSY in Linux.
    assert_eq!(Dm::on("one").send(&bench, Command::DevCreate).err(), Some(libc::EBUSY));
    let taken = Dm::on("three").text(at::UUID, "u");
    assert_eq!(taken.send(&bench, Command::DevCreate).err(), Some(libc::EBUSY));
    let taken = Dm::on("one").data(b"two\0");
    assert_eq!(taken.send(&bench, Command::DevRename).err(), Some(libc::EBUSY));
    assert_eq!(Dm::new().send(&bench, Command::DevCreate).err(), Some(libc::EINVAL));
    for lines in [
        &[(0, 8, "nothing", "")][..],
        &[(8, 8, "zero", "")],
        &[(0, 8, "linear", "/dev/wd0")],
        &[(0, 8192, "linear", "/dev/wd0 0")],
        &[],
    ] {
        assert_eq!(bench.load("one", lines).err(), Some(libc::EINVAL), "{lines:?}");
    }
    for (device, errno) in [("/dev/none", libc::ENOENT), ("/dev/null", libc::ENOTBLK)] {
        let line = [(0, 8, "linear", &*format!("{device} 0"))];
        assert_eq!(bench.load("one", &line).err(), Some(errno), "{device}");
    }
    assert!(!bench.info("one").unwrap().has(flag::INACTIVE_PRESENT));
    assert_eq!(bench.load("none", &[(0, 8, "zero", "")]).err(), Some(libc::ENXIO));
    // Lines that lie, or end, beyond what came.
    let table = || Dm::on("one").table(&[(0, 8, "zero", ""), (8, 8, "zero", "")]);
    let next = abi::SIZE + 20;
    for wrong in [
        table().word(next, 0),
        table().word(next, 39),
        table().word(next, u32::MAX),
        table().word(next, 16 * 1024),
        table().word(at::TARGET_COUNT, u32::MAX),
        table().word(at::DATA_START, 0),
        table().word(at::DATA_START, u32::MAX),
        table().room(abi::SIZE as u32 + 40),
    ] {
        assert_eq!(wrong.send(&bench, Command::TableLoad).err(), Some(libc::EINVAL));
    }
    *bench.in_use.borrow_mut() = Some(Fault(libc::EBUSY));
    assert_eq!(Dm::on("one").send(&bench, Command::DevRemove).err(), Some(libc::EBUSY));
    Dm::new().send(&bench, Command::RemoveAll).unwrap();
    assert!(bench.info("one").is_ok());
    *bench.in_use.borrow_mut() = None;
    bench.end();
}

#[test]
fn a_device_below_another_is_linuxs_number_and_in_use() {
    let bench = Bench::new();
    let below = bench.device("below", &[(0, 64, "linear", "7:0 0")]);
    let line = format!("{MAJOR}:{below} 8");
    bench.device("above", &[(0, 8, "linear", &line), (8, 8, "linear", "/dev/wd0 1")]);
    assert_eq!(bench.table("above"), [format!("0 8 linear {line}"), "8 8 linear 7:0 1".into()]);
    let deps = Dm::on("above").send(&bench, Command::TableDeps).unwrap();
    let data = deps.answer();
    assert_eq!((abi::u32_at(data, 0), data.len()), (2, 24));
    let mut devs = [abi::u64_at(data, 8), abi::u64_at(data, 16)].map(abi::decode);
    devs.sort_unstable();
    assert_eq!(devs, [(7, 0), (MAJOR, below)]);
    // The driver itself refuses, should the host not.
    assert_eq!(Dm::on("below").send(&bench, Command::DevRemove).err(), Some(libc::EBUSY));
    let deferred = Dm::on("below").flags(flag::DEFERRED_REMOVE);
    assert!(deferred.send(&bench, Command::DevRemove).unwrap().has(flag::DEFERRED_REMOVE));
    assert!(bench.info("below").unwrap().has(flag::DEFERRED_REMOVE));
    bench.remove("above");
    assert_eq!(bench.info("below").err(), Some(libc::ENXIO));
    // The device is not open: it is removed at once, and the flag says so.
    bench.create("idle");
    let deferred = Dm::on("idle").flags(flag::DEFERRED_REMOVE);
    assert!(!deferred.send(&bench, Command::DevRemove).unwrap().has(flag::DEFERRED_REMOVE));
    bench.end();
}

#[test]
fn remove_all_takes_stacks_apart() {
    let bench = Bench::new();
    let below = bench.device("a", &[(0, 64, "linear", "7:0 0")]);
    let middle = bench.device("b", &[(0, 8, "linear", &format!("{MAJOR}:{below} 0"))]);
    bench.device("c", &[(0, 8, "linear", &format!("{MAJOR}:{middle} 0"))]);
    Dm::new().send(&bench, Command::RemoveAll).unwrap();
    let names = Dm::new().send(&bench, Command::ListDevices).unwrap();
    assert_eq!(abi::u64_at(names.answer(), 0), 0);
    bench.end();
}

#[test]
fn names_are_aligned_and_tell_events() {
    let bench = Bench::new();
    let none = Dm::new().send(&bench, Command::ListDevices).unwrap();
    assert!(none.answer().len() >= 12 && none.answer().iter().all(|byte| *byte == 0));
    let second = bench.device("seven7", &[(0, 8, "zero", "")]);
    let name = Dm::on("seven7").data(b"seven77\0");
    name.send(&bench, Command::DevRename).unwrap();
    let first = Dm::on("eight888").text(at::UUID, "U").send(&bench, Command::DevCreate).unwrap();
    let list = Dm::new().send(&bench, Command::ListDevices).unwrap();
    let data = list.answer();
    // In the order of their names; 12 bytes, the name, its zero, up to a multiple of 8, then two
    // numbers.
    assert_eq!(abi::decode(abi::u64_at(data, 0)), (MAJOR, first.minor()));
    assert_eq!((abi::u32_at(data, 8), abi::text(data, 12, 128)), (32, Some("eight888")));
    assert_eq!((abi::u32_at(data, 24), abi::u32_at(data, 28)), (0, 0));
    assert_eq!(abi::decode(abi::u64_at(data, 32)), (MAJOR, second));
    assert_eq!((abi::u32_at(data, 40), abi::text(data, 44, 128)), (0, Some("seven77")));
    assert_eq!(abi::u32_at(data, 56), 1, "another name");
    assert_eq!(data.len(), 64);
    // With uuids.
    let list = Dm::new().flags(flag::UUID).send(&bench, Command::ListDevices).unwrap();
    let data = list.answer();
    assert_eq!((abi::u32_at(data, 28), abi::text(data, 32, 129)), (abi::HAS_UUID, Some("U")));
    assert_eq!(abi::u32_at(data, 8), 40);
    assert_eq!(abi::u32_at(data, 40 + 28), abi::HAS_NO_UUID);
    bench.end();
}

#[test]
fn answers_that_do_not_fit_say_so() {
    let bench = Bench::new();
    bench.device("one", &[(0, 8, "linear", "7:0 0"), (8, 8, "zero", "")]);
    for command in
        [Command::ListDevices, Command::ListVersions, Command::TableDeps, Command::TableStatus]
    {
        let ask = || match command {
            Command::ListDevices | Command::ListVersions => Dm::new(),
            _ => Dm::on("one").flags(flag::STATUS_TABLE),
        };
        let whole = ask().send(&bench, command).unwrap();
        assert!(!whole.has(flag::BUFFER_FULL));
        let needed = whole.get(at::DATA_SIZE);
        let fits = ask().room(needed).send(&bench, command).unwrap();
        assert!(!fits.has(flag::BUFFER_FULL), "{command:?}");
        assert_eq!(fits.answer(), whole.answer());
        for room in [needed - 1, abi::SIZE as u32, abi::MINIMUM as u32] {
            let mut asked = ask().room(room);
            let beyond = asked.0.split_off(room as usize);
            asked.0.extend(std::iter::repeat_n(0xe7, beyond.len()));
            let short = asked.send(&bench, command).unwrap();
            assert!(short.has(flag::BUFFER_FULL), "{command:?} {room}");
            assert!(short.0[room as usize..].iter().all(|byte| *byte == 0xe7), "{command:?}");
        }
    }
    // A flag that an earlier answer left is not taken for this one's.
    let stale = Dm::on("one").flags(flag::BUFFER_FULL | flag::DATA_OUT | flag::UEVENT_GENERATED);
    let stale = stale.send(&bench, Command::DevStatus).unwrap();
    assert!(!stale.has(flag::BUFFER_FULL | flag::DATA_OUT | flag::UEVENT_GENERATED));
    bench.end();
}

#[test]
fn target_versions() {
    let bench = Bench::new();
    let list = Dm::new().send(&bench, Command::ListVersions).unwrap();
    let data = list.answer();
    let (mut place, mut names) = (0, Vec::new());
    loop {
        let next = abi::u32_at(data, place) as usize;
        names.push(abi::text(data, place + 16, 128).unwrap().to_owned());
        if names.last().unwrap() == "linear" {
            assert_eq!([4, 8].map(|part| abi::u32_at(data, place + part)), [1, 0]);
        }
        if next == 0 {
            break;
        }
        assert!(next.is_multiple_of(8));
        place += next;
    }
    assert!(
        ["linear", "striped", "zero", "error"].iter().all(|name| names.iter().any(|n| n == name))
    );
    let one = Dm::on("striped").send(&bench, Command::GetTargetVersion).unwrap();
    assert_eq!((one.get(abi::SIZE), one.string(abi::SIZE + 16)), (0, "striped"));
    let none = Dm::on("none").send(&bench, Command::GetTargetVersion);
    assert_eq!(none.err(), Some(libc::EINVAL));
    bench.end();
}

#[test]
fn names_uuids_and_minors_that_are_asked_for() {
    let bench = Bench::new();
    let wanted = Dm::on("one").flags(flag::PERSISTENT_DEV).dev(MAJOR, 300);
    assert_eq!(wanted.send(&bench, Command::DevCreate).unwrap().minor(), 300);
    let again = Dm::on("two").flags(flag::PERSISTENT_DEV).dev(MAJOR, 300);
    assert_eq!(again.send(&bench, Command::DevCreate).err(), Some(libc::EBUSY));
    // NetBSD's control node.
    let zero = Dm::on("two").flags(flag::PERSISTENT_DEV).dev(MAJOR, 0);
    assert_eq!(zero.send(&bench, Command::DevCreate).err(), Some(libc::EINVAL));
    let renamed = Dm::on("one").data(b"new name\0").send(&bench, Command::DevRename).unwrap();
    assert_eq!(renamed.string(at::NAME), "new name");
    assert_eq!(bench.info("one").err(), Some(libc::ENXIO));
    let uuid = Dm::on("new name").flags(flag::UUID).data(b"U\0");
    assert_eq!(uuid.send(&bench, Command::DevRename).unwrap().string(at::UUID), "U");
    let uuid = Dm::on("new name").flags(flag::UUID).data(b"V\0");
    assert_eq!(uuid.send(&bench, Command::DevRename).err(), Some(libc::EINVAL));
    for wrong in [&b"\0"[..], b"a/b\0", &[b'x'; 200]] {
        let rename = Dm::on("new name").data(wrong);
        assert_eq!(rename.send(&bench, Command::DevRename).err(), Some(libc::EINVAL));
    }
    let unknown = Dm::on("none").data(b"x\0").send(&bench, Command::DevRename);
    assert_eq!(unknown.err(), Some(libc::ENXIO));
    bench.end();
}

#[test]
fn read_only_is_the_tables() {
    let bench = Bench::new();
    bench.create("one");
    let load = Dm::on("one").flags(flag::READONLY).table(&[(0, 8, "linear", "7:0 0")]);
    load.send(&bench, Command::TableLoad).unwrap();
    assert!(Dm::on("one").send(&bench, Command::DevSuspend).unwrap().has(flag::READONLY));
    bench.load("one", &[(0, 8, "linear", "7:0 0")]).unwrap();
    assert!(!Dm::on("one").send(&bench, Command::DevSuspend).unwrap().has(flag::READONLY));
    // The flag of a creation says nothing.
    let made = Dm::on("two").flags(flag::READONLY).send(&bench, Command::DevCreate).unwrap();
    assert!(!made.has(flag::READONLY));
    bench.end();
}

#[test]
fn a_wait_ends_when_something_has_happened() {
    let bench = Bench::new();
    bench.device("one", &[(0, 8, "linear", "7:0 0")]);
    // Something has happened since event 0: it does not wait.
    Dm::on("one").data(b"two\0").send(&bench, Command::DevRename).unwrap();
    Dm::on("two").data(b"one\0").send(&bench, Command::DevRename).unwrap();
    let over = Dm::on("one").word(at::EVENT_NR, 0).flags(flag::STATUS_TABLE);
    let over = over.send(&bench, Command::DevWait).unwrap();
    assert_eq!((over.get(at::EVENT_NR), over.lines()), (2, vec!["0 8 linear 7:0 0".into()]));
    assert!(Dm::new().send(&bench, Command::DevArmPoll).is_ok());
    assert_eq!(Dm::on("none").send(&bench, Command::DevWait).err(), Some(libc::ENXIO));
    bench.end();
}

#[test]
fn messages_and_geometry() {
    let bench = Bench::new();
    bench.device("one", &[(0, 8, "linear", "7:0 0")]);
    let message = || Dm::on("one").data(&[&0u64.to_le_bytes()[..], b"hello you\0"].concat());
    // None of the targets takes any.
    assert_eq!(message().send(&bench, Command::TargetMsg).err(), Some(libc::EINVAL));
    let endless = Dm::on("one").data(&[b'x'; 16 * 1024 - abi::SIZE]);
    assert_eq!(endless.send(&bench, Command::TargetMsg).err(), Some(libc::EINVAL));
    let none = message().room(abi::SIZE as u32 + 8).send(&bench, Command::TargetMsg);
    assert_eq!(none.err(), Some(libc::EINVAL));
    // The answer of a target to a message.
    bench.device("dusty", &[(0, 8, "dust", "7:0 0 512")]);
    let count = Dm::on("dusty").data(&[&0u64.to_le_bytes()[..], b"countbadblocks\0"].concat());
    let said = count.send(&bench, Command::TargetMsg).unwrap();
    assert!(said.has(flag::DATA_OUT));
    assert_eq!(said.answer(), b"countbadblocks: 0 badblock(s) found\0");
    // It comes back as text, if there is room.
    let reply = format!(
        "<plist version=\"1.0\"><dict><key>flags</key><integer>0x24</integer><key>minor</key>\
         <integer>0x1</integer><key>{}</key><string>12 bad blocks</string></dict></plist>",
        dm_host::linux::REPLY
    );
    *bench.answer.borrow_mut() = Some(reply.clone());
    let said = message().send(&bench, Command::TargetMsg).unwrap();
    assert!(said.has(flag::DATA_OUT) && !said.has(flag::BUFFER_FULL));
    assert_eq!(said.answer(), b"12 bad blocks\0");
    *bench.answer.borrow_mut() = Some(reply);
    let short = message().room(abi::SIZE as u32 + 20).word(at::DATA_START, abi::SIZE as u32);
    let short = short.data(&[&0u64.to_le_bytes()[..], b"@q\0"].concat());
    let short = short.room(abi::SIZE as u32 + 12).send(&bench, Command::TargetMsg).unwrap();
    assert!(short.has(flag::DATA_OUT) && short.has(flag::BUFFER_FULL));

    let geometry = Dm::on("one").data(b"10 4 8 0\0");
    geometry.send(&bench, Command::DevSetGeometry).unwrap();
    let wrong = Dm::on("one").data(b"10 4 8\0").send(&bench, Command::DevSetGeometry);
    assert_eq!(wrong.err(), Some(libc::EINVAL));
    bench.end();
}

#[test]
fn large_tables_go_in_one_request() {
    let bench = Bench::new();
    bench.create("one");
    let count = 3000u64;
    let lines: Vec<_> = (0..count).map(|n| (n, 1, "linear", "7:0 5")).collect();
    let mut ask = Dm::on("one");
    ask.0.resize(1 << 20, 0);
    ask.room(1 << 20).table(&lines).send(&bench, Command::TableLoad).unwrap();
    Dm::on("one").send(&bench, Command::DevSuspend).unwrap();
    let mut ask = Dm::on("one").flags(flag::STATUS_TABLE);
    ask.0.resize(1 << 20, 0);
    let table = ask.room(1 << 20).send(&bench, Command::TableStatus).unwrap();
    assert_eq!(table.lines().len() as u64, count);
    bench.end();
}
