// SPDX-License-Identifier: BSD-2-Clause

//! Sequences of commands and I/O on several devices, against a slow, obvious model of the whole
//! driver: names, uuids, minors, slots, flags, and the data.
//!
//! The driver runs in the hosted kernel. What commands do is modelled by
//! [`dm_core::testing::model`], what becomes of data by [`data`]. Nothing here runs in parallel, so
//! each I/O has either ended when its strategy routine returns, or waits for a device that is
//! suspended; which of both, and with what, is compared too.

mod data;
mod ops;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use dm_core::Dev;
use dm_core::commands::flags;
use dm_core::testing::kernel::BLOCK_MAJOR;
use dm_core::testing::model::{Model, Op, Who, disks, request};
use dm_core::testing::picture::{self, Picture};
use dm_core::testing::{Dict, Object, Request};
use dm_host::{Config, Disk, DiskSpec, Errno, File, Flags, IoResult, Machine, Node, Site, makedev};

use data::{Data, SECTOR};
use ops::{Step, Steps};

/// The most steps in one game, so that it ends soon.
const STEPS: usize = 80;

/// The byte that stands in a buffer before a read.
const UNTOUCHED: u8 = 0xa5;

/// The driver, its model, and the steps that were made on both.
struct Game {
    control: File,
    files: BTreeMap<u32, (File, bool)>,
    ios: Vec<Option<dm_host::Io>>,
    disks: Vec<Disk>,
    machine: Machine,
    model: Model,
    data: Data,
    /// All memory for I/O is always used up, so that all of it is done with the reserves.
    without_pools: bool,
    written: u32,
    story: Vec<String>,
}

/// Plays one game.
///
/// # Panics
/// When the driver does not do what the model does.
pub fn run(bytes: &[u8]) {
    let _turn = crate::hosted::turn();
    let Some((mode, bytes)) = bytes.split_first() else { return };
    let mut game = Game::new(mode & 1 != 0);
    if mode & 2 != 0 {
        ops::two_layers().into_iter().for_each(|step| game.step(step));
    }
    let steps = Steps(bytes).take(STEPS);
    steps.for_each(|step| game.step(step));
    game.end();
}

impl Game {
    fn new(without_pools: bool) -> Game {
        let machine = Machine::boot(Config::test()).expect("boots");
        let no_discard = BTreeSet::from([1]);
        let attach = |(n, (path, disk)): (usize, &(&str, dm_core::testing::Disk))| {
            let name = path.trim_start_matches("/dev/");
            let sectors = disk.size.0 * 512 / u64::from(disk.sector_size);
            let spec = DiskSpec::memory(name, sectors).sector_size(disk.sector_size);
            let spec = spec.plain().dev(disk.dev.0).discard(!no_discard.contains(&n));
            let spec = if disk.writable { spec } else { spec.read_only() };
            machine.attach_disk(spec).expect("attaches")
        };
        let disks = disks().iter().enumerate().map(attach).collect();
        machine.mknod("/dev/char", makedev(99, 0), false).expect("makes a node");
        let control = machine.open("/dev/mapper/control", Flags::READ_WRITE).expect("opens");
        if without_pools {
            machine.faults().fail_always(Site::Pool);
        }
        Game {
            control,
            files: BTreeMap::new(),
            ios: Vec::new(),
            disks,
            machine,
            model: Model::default(),
            data: Data::new(no_discard),
            without_pools,
            written: 0,
            story: Vec::new(),
        }
    }

    fn same<T: PartialEq + Debug>(&self, driver: T, model: T, what: &str) {
        assert!(
            driver == model,
            "{what}: the driver says\n{driver:?}\nand the model\n{model:?}\nafter {:#?}",
            self.story
        );
    }

    /// Compares data as [`Game::same`] does, and does not print them.
    fn same_data(&self, driver: &[u8], model: &[u8], what: &str) {
        let differ = |(a, b): (&[u8], &[u8])| a != b;
        let at = driver.chunks(SECTOR).zip(model.chunks(SECTOR)).position(differ);
        self.same((driver.len(), at), (model.len(), None), &format!("{what}: sectors that differ"));
    }

    fn step(&mut self, step: Step) {
        // For a game that does not end.
        if std::env::var_os("DM_STORY").is_some() {
            eprintln!("{step:?}");
        }
        self.story.push(format!("{step:?}"));
        match step {
            Step::Control(Op::Open(minor)) => self.open(minor, false),
            Step::Control(Op::Close(minor)) => {
                self.let_go();
                self.close(minor);
            }
            // The fake kernel's; here faults are injected into disks and pools.
            Step::Control(
                Op::FailOpen(..)
                | Op::FailAttach(_)
                | Op::FailQuiesce(_)
                | Op::Change { .. }
                | Op::Revoke(_),
            ) => {}
            Step::Control(op) => {
                if !self.never_waits(&op) {
                    self.let_go();
                }
                self.control(&op);
            }
            Step::Open(minor) => self.open(minor, true),
            Step::Strategy { minor, block, bytes, write } => {
                let data = if write { self.pattern(bytes) } else { vec![UNTOUCHED; bytes] };
                let mut io = dm_host::Io::with_data(data.clone());
                let ask = if write { dm_host::Request::write } else { dm_host::Request::read };
                io.start(makedev(BLOCK_MAJOR, minor), ask(block));
                self.ios.push(Some(io));
                self.data.send(minor, block, write, data);
                self.compare_io();
            }
            Step::Raw { minor, sector, bytes, write } => self.raw(minor, sector, bytes, write),
            Step::Discard { minor, sector, sectors } => {
                let Some((file, writable)) = self.files.get(&minor) else { return };
                if self.data.may_wait(minor) {
                    return;
                }
                let length = sectors * SECTOR as u64;
                let driver = file.fdiscard(sector * SECTOR as u64, length);
                let model = match writable {
                    true => self.data.discard(minor, sector, sectors),
                    false => Err(Errno::EBADF),
                };
                self.same(driver, model, "discard");
            }
            Step::Dump { minor, sector, sectors } => {
                let data = self.pattern(sectors * SECTOR);
                let driver = self.machine.dump(makedev(BLOCK_MAJOR, minor), sector as i64, &data);
                let model = self.data.dump(minor, sector, &data);
                self.same(driver, model, "dump");
            }
            Step::Break(disk) => {
                self.disks[disk].fail(Errno::EIO);
                self.data.failing.insert(disk);
            }
            Step::Heal => {
                self.disks.iter().for_each(Disk::heal);
                self.data.failing.clear();
            }
            Step::Look => self.look(),
        }
        if self.without_pools {
            // I/O that comes through a device without memory waits for the one before it, in an
            // order that is nobody's business: keep the devices below going.
            for (minor, held, _) in self.model.picture().units {
                if held && self.machine.block_opens(makedev(BLOCK_MAJOR, minor)) > 0 {
                    self.control(&Op::Resume(Who::Minor(minor)));
                }
            }
        }
    }

    /// Data that are like no other.
    fn pattern(&mut self, bytes: usize) -> Vec<u8> {
        self.written += 1;
        let word = |n: usize| (u64::from(self.written) << 32 | (n / 64) as u64).to_le_bytes();
        let data = (0..bytes.div_ceil(8)).flat_map(word);
        data.take(bytes).collect()
    }

    /// `true` if a command does not wait for I/O. No other thread could let that I/O go on.
    fn never_waits(&self, op: &Op) -> bool {
        let picture = self.model.picture();
        if picture.devices.iter().any(|device| device.remove_at_close) {
            return false;
        }
        match op {
            Op::Suspend(_) | Op::Remove(..) | Op::RemoveAll(_) => false,
            Op::Resume(who) => {
                let same = |device: &&picture::Device| match who {
                    Who::Minor(minor) => device.minor == *minor,
                    Who::Name(n) => device.name == format!("n{n}"),
                    Who::Uuid(n) => device.uuid == Some(format!("uuid-{n}")),
                };
                let device = picture.devices.iter().find(same);
                device.is_none_or(|device| self.data.is_held(device.minor))
            }
            _ => true,
        }
    }

    /// Lets all I/O go on that waits below the device it came to.
    fn let_go(&mut self) {
        while let Some(minor) = self.data.in_between() {
            self.control(&Op::Resume(Who::Minor(minor)));
        }
    }

    fn control(&mut self, op: &Op) {
        let request = request(op);
        let reply = self.send(&request);
        let model = self.model.apply(op);
        match (&reply, &model) {
            (Ok(reply), Ok(keys)) => {
                for (key, value) in keys {
                    self.same(reply.at(key), value.as_ref(), key);
                }
            }
            (driver, model) => self.same(driver.as_ref().err(), model.as_ref().err(), "errno"),
        }
        self.follow();
    }

    /// Applies a command's effects to the model of the data.
    fn follow(&mut self) {
        self.data.follow(&self.model);
        self.compare_io();
    }

    fn send(&self, request: &Request) -> Result<Dict, dm_core::Errno> {
        let reply = self.control.plist_ioctl(&request.dict().print());
        let reply = reply.map_err(|errno| dm_core::Errno::from_raw(errno.0).expect("an errno"))?;
        Ok(Dict::parse(&reply).expect("a reply"))
    }

    fn open(&mut self, minor: u32, write: bool) {
        if self.files.contains_key(&minor) {
            return;
        }
        let flags = if write { Flags::READ_WRITE } else { Flags::READ };
        let file = self.machine.open(Node::Character(makedev(194, minor)), flags);
        let picture = self.model.picture();
        let device = picture.devices.iter().find(|device| device.minor == minor);
        let model = match device {
            None => Err(Errno::ENXIO),
            Some(device) if write && device.read_only => Err(Errno::EROFS),
            Some(_) => Ok(()),
        };
        self.same(file.as_ref().map(drop).map_err(|errno| *errno), model, "open");
        if let Ok(file) = file {
            self.model.open(minor);
            self.files.insert(minor, (file, write));
        }
    }

    fn close(&mut self, minor: u32) {
        if let Some((file, _)) = self.files.remove(&minor) {
            self.same(file.close(), Ok(()), "close");
            self.model.close(minor);
            self.follow();
        }
    }

    /// read(2) or write(2) on the character node.
    fn raw(&mut self, minor: u32, sector: u64, bytes: usize, write: bool) {
        let mut data = if write { self.pattern(bytes) } else { vec![UNTOUCHED; bytes] };
        let Some((file, writable)) = self.files.get(&minor) else { return };
        if self.data.may_wait(minor) || bytes == 0 {
            return;
        }
        let offset = sector * SECTOR as u64;
        if write && !writable {
            return self.same(file.pwrite(&data, offset), Err(Errno::EBADF), "write");
        }
        let transfer = self.data.send(minor, sector as i64, write, data.clone());
        self.ios.push(None);
        let driver = match write {
            true => file.pwrite(&data, offset),
            false => file.pread(&mut data, offset),
        };
        let transfer = &self.data.transfers[transfer];
        let model = transfer.result().expect("nothing is suspended");
        self.same(driver, model.transferred(), "read or write");
        self.same_data(&data, &transfer.data, "what was read or written");
    }

    /// Compares all I/O that was in flight until now at most.
    fn compare_io(&mut self) {
        for n in 0..self.ios.len() {
            let Some(io) = &mut self.ios[n] else { continue };
            let transfer = &self.data.transfers[n];
            let model = transfer.result();
            let driver: Option<IoResult> = if io.is_busy() { None } else { Some(io.wait()) };
            self.same(driver, model, &format!("the end of I/O {n}"));
            if driver.is_some() {
                let io = self.ios[n].take().expect("it is there");
                self.same_data(io.data(), &transfer.data, &format!("the data of I/O {n}"));
            }
        }
    }

    /// Compares all that userland can see.
    fn look(&self) {
        let ask = |request: Request| self.send(&request).expect("a question has an answer");
        let names = ask(Request::new("names"));
        let mut devices = Vec::new();
        let mut units = Vec::new();
        let model = self.model.picture();
        for entry in names.array("cmd_data").expect("names").iter().filter_map(Object::dict) {
            let number = entry.number("dev").expect("a minor");
            let minor = number as u32;
            let about =
                |command, flags| ask(Request::new(command).flags(flags).with("minor", number));
            let info = about("info", 0);
            let told = |key| info.number(key).expect("a number");
            let is = |flag: u32| told("flags") & u64::from(flag) != 0;
            let table = |present: u32, which: u32| {
                is(present).then(|| about("table", flags::STATUS_TABLE | which))
            };
            let active = table(flags::ACTIVE_PRESENT, 0);
            let inactive = table(flags::INACTIVE_PRESENT, flags::QUERY_INACTIVE_TABLE);
            let slot = active.as_ref().and_then(|reply| {
                reply.array("cmd_data")?.first()?.dict()?.number("status").map(|slot| slot != 0)
            });
            // A device without a table does not tell its slot.
            let same = model.devices.iter().find(|device| device.minor == minor);
            let slot = slot.or(same.map(|device| device.slot)).unwrap_or_default();
            let text = |key| info.string(key).expect("a string").to_owned();
            devices.push(picture::Device {
                minor,
                name: text("name"),
                uuid: Some(text("uuid")).filter(|uuid| !uuid.is_empty()),
                active: active.as_ref().map(lines),
                inactive: inactive.as_ref().map(lines),
                read_only: is(flags::READONLY),
                suspended: is(flags::SUSPEND),
                slot,
                event_nr: told("event_nr") as u32,
                open_count: told("open_count") as u32,
                remove_at_close: is(flags::DEFERRED_REMOVE),
            });
            let size = self.machine.psize(makedev(BLOCK_MAJOR, minor));
            // While it is suspended nobody is told.
            let held = self.data.is_held(minor);
            let last = model.units.iter().find(|unit| unit.0 == minor).and_then(|unit| unit.2);
            self.same(size.is_some() && held, false, "a size while I/O is held");
            let size = if held { last } else { size.map(|size| size as u64) };
            units.push((minor, held, size));
        }
        let ours = (1..64).map(|minor| makedev(BLOCK_MAJOR, minor));
        let all = self.disks.iter().map(Disk::dev).chain(ours);
        let mut open: Vec<_> =
            all.filter(|dev| self.machine.block_opens(*dev) > 0).map(Dev).collect();
        open.sort();
        let count = self.machine.sysctl_int("hw.dm.devices").expect("hw.dm.devices") as usize;
        self.same(Picture { count, devices, open, units }, model, "all there is");
    }

    /// Ends the game: all I/O ends, the disks hold what the model's do, and no object is left over.
    fn end(mut self) {
        self.let_go();
        for minor in self.files.keys().copied().collect::<Vec<_>>() {
            self.close(minor);
        }
        for (minor, held, _) in self.model.picture().units {
            if held {
                self.control(&Op::Resume(Who::Minor(minor)));
            }
        }
        assert!(self.ios.iter().all(Option::is_none), "I/O has not ended: {:#?}", self.story);
        self.look();
        for (n, disk) in self.disks.iter().enumerate() {
            let mut found = vec![0; self.data.disks[n].len()];
            disk.read_at(0, &mut found);
            self.same_data(&found, &self.data.disks[n], disk.name());
        }
        self.control(&Op::RemoveAll(false));
        self.same(self.model.picture().count, 0, "devices");
        self.look();
        self.machine.faults().reset();
        let Game { control, files, machine, story, .. } = self;
        drop((control, files));
        let left = machine.shutdown();
        assert!(left.is_empty(), "left over: {left:#?} after {story:#?}");
    }
}

/// The lines in a reply.
fn lines(reply: &Dict) -> Vec<picture::Line> {
    let lines = reply.array("cmd_data").expect("lines").iter().filter_map(Object::dict);
    let line = |line: &Dict| {
        let number = |key| line.number(key).expect("a number");
        let text = |key| line.string(key).expect("a string").to_owned();
        (number("start"), number("length"), text("type"), text("params"))
    };
    lines.map(line).collect()
}
