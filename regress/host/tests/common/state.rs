// SPDX-License-Identifier: BSD-2-Clause

//! All that userland can see of the driver, as one value: what must be the same before and after
//! a command that failed.

use std::collections::BTreeMap;

use dm_core::testing::plist::Object;
use dm_host::{Disk, Errno, Site};

use super::{Bench, Request, flags, lines};

/// A device as its replies tell it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub minor: u64,
    pub uuid: String,
    pub flags: u64,
    pub open_count: u64,
    pub event_nr: u64,
    pub active: Vec<String>,
    pub inactive: Vec<String>,
    pub deps: Vec<u64>,
}

/// The driver, and how often each disk is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    pub devices: BTreeMap<String, Seen>,
    pub attached: Vec<String>,
    pub disk_names: Vec<String>,
    pub opens: Vec<u32>,
}

impl State {
    /// The state without minors, for devices that were made once more.
    pub fn without_minors(&self) -> State {
        let name = |text: &str| {
            let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            for (name, device) in &self.devices {
                let number = format!("{}:{}", super::BLOCK, device.minor);
                words
                    .iter_mut()
                    .filter(|word| **word == number)
                    .for_each(|word| *word = name.clone());
            }
            words.join(" ")
        };
        let mut state = self.clone();
        for device in state.devices.values_mut() {
            (device.minor, device.deps) = (0, Vec::new());
            for line in device.active.iter_mut().chain(&mut device.inactive) {
                *line = name(line);
            }
        }
        let count = |names: &mut Vec<String>| names.iter_mut().for_each(String::clear);
        count(&mut state.attached);
        count(&mut state.disk_names);
        state
    }
}

/// Takes it all down, as root and with nothing failing.
pub fn state(bench: &Bench, disks: &[Disk]) -> State {
    let names = bench.send(&Request::new("names")).unwrap();
    let names = names.array("cmd_data").unwrap().iter().map(|entry| {
        let entry = entry.dict().unwrap();
        (entry.string("name").unwrap().to_owned(), entry.number("dev").unwrap())
    });
    let devices = names.map(|(name, minor)| {
        let ask = |command: &str, flags: u32| {
            bench.send(&Request::on(command, &name).flags(flags)).unwrap()
        };
        let info = ask("info", 0);
        assert_eq!(info.number("minor"), Some(minor));
        let deps = ask("deps", 0);
        let deps = deps.array("cmd_data").unwrap_or(&[]).iter().filter_map(Object::number);
        let seen = Seen {
            minor,
            uuid: info.string("uuid").unwrap().to_owned(),
            flags: info.number("flags").unwrap(),
            open_count: info.number("open_count").unwrap(),
            event_nr: info.number("event_nr").unwrap(),
            active: lines(&ask("table", flags::STATUS_TABLE)),
            inactive: lines(&ask("table", flags::STATUS_TABLE | flags::QUERY_INACTIVE_TABLE)),
            deps: deps.collect(),
        };
        (name, seen)
    });
    let devices: BTreeMap<_, _> = devices.collect();
    let count = bench.machine.sysctl_int("hw.dm.devices").unwrap();
    assert_eq!(count, devices.len() as i64, "hw.dm.devices is wrong");
    State {
        devices,
        attached: bench.machine.devices(),
        disk_names: bench.machine.disk_names(),
        opens: disks.iter().map(|disk| bench.machine.block_opens(disk.dev())).collect(),
    }
}

/// The errors that a command may have after a failure at this site.
pub fn errors(site: Site) -> &'static [Errno] {
    match site {
        Site::Kmem | Site::Prop | Site::Bdevvp => &[Errno::ENOMEM],
        Site::ConfigAttach => &[Errno::EBUSY],
        Site::Namei => &[Errno::ENOENT],
        Site::Open | Site::Ioctl | Site::Strategy => &[Errno::EIO],
        Site::Copyin | Site::Copyout => &[Errno::EFAULT],
        Site::Kthread => &[Errno::EAGAIN],
        // Not being told of sleep and wake-up is no reason not to be there.
        Site::Pool | Site::Pmf | Site::ConfigTables | Site::Devsw | Site::Sysctl => &[],
    }
}
