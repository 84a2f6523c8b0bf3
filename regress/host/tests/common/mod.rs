// SPDX-License-Identifier: BSD-2-Clause

//! Support for the tests: a machine with the driver in it, and short functions for requests.

#![allow(dead_code, reason = "each test program uses its own part")]

pub mod data;
pub mod life;
pub mod model;
pub mod state;
pub mod wait;

use std::sync::Arc;

use dm_core::testing::plist::{Dict, Object};
use dm_core::testing::request;
pub use dm_core::testing::request::Request;
use dm_host::{Config, Dev, Disk, DiskSpec, Errno, File, Flags, Machine, Node, makedev};

/// The driver's majors.
pub const BLOCK: u32 = 169;
pub const CHARACTER: u32 = 194;

/// Bits of `flags` in requests and replies.
pub use dm_core::commands::flags;

/// A machine, its disks, and the control node.
pub struct Bench {
    /// Dropped before the machine, which would find it open.
    pub control: Arc<File>,
    pub machine: Machine,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(Config::test())
    }

    pub fn with(config: Config) -> Bench {
        let machine = Machine::boot(config).unwrap();
        let control = machine.open("/dev/mapper/control", Flags::READ_WRITE).unwrap();
        Bench { control: Arc::new(control), machine }
    }

    /// A disk in memory, of sectors of 512 bytes.
    pub fn disk(&self, name: &str, sectors: u64) -> Disk {
        self.attach(DiskSpec::memory(name, sectors))
    }

    pub fn attach(&self, spec: DiskSpec) -> Disk {
        self.machine.attach_disk(spec).unwrap()
    }

    /// A request to the control node.
    pub fn send(&self, request: &Request) -> Result<Dict, Errno> {
        send(&self.control, request)
    }

    /// A command about one device.
    pub fn on(&self, command: &str, name: &str) -> Result<Dict, Errno> {
        self.send(&Request::on(command, name))
    }

    /// Sends `create`, and returns the new device's minor.
    pub fn create(&self, name: &str) -> u32 {
        minor_of(&self.on("create", name).unwrap())
    }

    /// `reload` with a table as dmsetup(8) takes it.
    pub fn reload(&self, name: &str, table: &str) -> Result<Dict, Errno> {
        self.send(&reload(name, table))
    }

    /// `reload`, then `resume`.
    pub fn load(&self, name: &str, table: &str) -> Result<Dict, Errno> {
        self.reload(name, table)?;
        self.on("resume", name)
    }

    /// A new device with a table, ready for I/O.
    pub fn device(&self, name: &str, table: &str) -> Mapped {
        let minor = self.create(name);
        self.load(name, table).unwrap();
        Mapped { minor }
    }

    /// The block node of a device, open for both.
    pub fn block(&self, device: Mapped) -> File {
        self.machine.open(Node::Block(device.dev()), Flags::READ_WRITE).unwrap()
    }

    /// The character node of a device, open for both.
    pub fn raw(&self, device: Mapped) -> File {
        self.machine.open(Node::Character(device.rdev()), Flags::READ_WRITE).unwrap()
    }

    /// A number that `info` tells.
    pub fn info(&self, name: &str, key: &str) -> u64 {
        self.on("info", name).unwrap().number(key).unwrap()
    }

    /// The table as `table` shows it, a line a line.
    pub fn table(&self, name: &str) -> Vec<String> {
        let request = Request::on("table", name).flags(flags::STATUS_TABLE);
        lines(&self.send(&request).unwrap())
    }

    /// Ends the machine: nothing may be left over.
    pub fn end(self) {
        let Bench { control, machine } = self;
        drop(control);
        let left = machine.shutdown();
        assert!(left.is_empty(), "left over at shutdown: {left:#?}");
    }
}

/// A device-mapper device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapped {
    pub minor: u32,
}

impl Mapped {
    pub fn dev(self) -> Dev {
        makedev(BLOCK, self.minor)
    }

    pub fn rdev(self) -> Dev {
        makedev(CHARACTER, self.minor)
    }
}

/// A request to a control node.
pub fn send(control: &File, request: &Request) -> Result<Dict, Errno> {
    let reply = control.plist_ioctl(&request.dict().print())?;
    Ok(Dict::parse(&reply).unwrap_or_else(|why| panic!("{why} in {reply}")))
}

/// `reload` with a table as dmsetup(8) takes it: a line each, start, length, target, parameters.
pub fn reload(name: &str, table: &str) -> Request {
    let lines = table.lines().map(|line| {
        let mut words = line.trim().splitn(4, ' ');
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        let (start, length) = (number(), number());
        let kind = words.next().unwrap();
        Object::from(request::line(start, length, kind, words.next().unwrap_or("")))
    });
    Request::on("reload", name).with("cmd_data", lines.collect::<Vec<_>>())
}

/// The lines in a reply, as dmsetup(8) would print them.
pub fn lines(reply: &Dict) -> Vec<String> {
    let line = |line: &Object| {
        let line = line.dict().unwrap();
        let number = |key| line.number(key).unwrap();
        let text = |key| line.string(key).unwrap();
        let line =
            format!("{} {} {} {}", number("start"), number("length"), text("type"), text("params"));
        line.trim_end().to_owned()
    };
    reply.array("cmd_data").unwrap_or(&[]).iter().map(line).collect()
}

pub fn minor_of(reply: &Dict) -> u32 {
    u32::try_from(reply.number("minor").unwrap()).unwrap()
}

/// Runs the test `case` of this program in another process, with the name of a case in a variable. The process must
/// fail; the answer is its output.
pub fn dies(variable: &str, case: &str) -> String {
    let exe = std::env::current_exe().expect("the test's own path");
    let out = std::process::Command::new(exe)
        .args(["--exact", "case", "--nocapture"])
        .env(variable, case)
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("runs");
    assert!(!out.status.success(), "{case}: the machine went on");
    String::from_utf8_lossy(&out.stderr).into_owned()
}
