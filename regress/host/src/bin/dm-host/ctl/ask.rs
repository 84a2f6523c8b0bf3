// SPDX-License-Identifier: BSD-2-Clause

//! A request to the driver, in the words of one of the tools, and what to do about an error.

use std::collections::BTreeMap;

use dm_core::commands::flags;
use dm_host::Errno;

use crate::cli::{By, Device, Style};
use crate::xml::{Dict, Plist};

/// A request to the driver.
pub struct Ask<'a> {
    pub command: &'static str,
    pub name: Option<&'a str>,
    pub by: Option<&'a By>,
    pub flags: u32,
    pub data: Option<Vec<Plist>>,
    pub more: Vec<(&'static str, Plist)>,
}

impl<'a> Ask<'a> {
    pub fn new(command: &'static str) -> Ask<'a> {
        Ask { command, name: None, by: None, flags: 0, data: None, more: Vec::new() }
    }

    pub fn name(command: &'static str, name: &'a str) -> Ask<'a> {
        Ask { name: Some(name), ..Ask::new(command) }
    }

    pub fn device(command: &'static str, device: &'a Device) -> Ask<'a> {
        Ask { name: device.name.as_deref(), by: Some(&device.by), ..Ask::new(command) }
    }

    pub fn flag(mut self, flag: u32, set: bool) -> Self {
        if set {
            self.flags |= flag;
        }
        self
    }

    pub fn with(mut self, key: &'static str, value: impl Into<Plist>) -> Self {
        self.more.push((key, value.into()));
        self
    }

    pub fn data(mut self, data: Vec<Plist>) -> Self {
        self.data = Some(data);
        self
    }

    /// The name that errors use for the device or the request.
    pub fn what(&self) -> String {
        let by = |by: &By| match (&by.uuid, by.minor) {
            (Some(uuid), _) => Some(uuid.clone()),
            (None, minor) => minor.map(|minor| format!("minor {minor}")),
        };
        let device = self.name.map(String::from).or_else(|| self.by.and_then(by));
        match device {
            Some(device) => format!("{} {device}", self.command),
            None => self.command.into(),
        }
    }

    pub fn dict(&self, style: Style) -> Dict {
        let mut dict: Dict = BTreeMap::from([("command", self.command.into())]);
        let mut flags = self.flags;
        let version = Plist::Array([4, 0, 0].map(Plist::Signed).to_vec());
        if let Some(name) = self.name {
            dict.insert("name", name.into());
        }
        if let Some(by) = self.by {
            if let Some(uuid) = &by.uuid {
                dict.insert("uuid", uuid.as_str().into());
            }
            if let Some(minor) = by.minor {
                dict.insert("minor", u64::from(minor).into());
                flags |= flags::PERSISTENT_DEV;
            }
        }
        match style {
            // libdevmapper sends cmd_data and a flag with everything, and no version with what
            // it does not know NetBSD to have.
            Style::Dmsetup => {
                flags |= flags::EXISTS;
                dict.insert("cmd_data", Plist::Array(self.data.clone().unwrap_or_default()));
                let old = ["remove_all", "waitevent", "message", "setgeometry"];
                if !old.contains(&self.command) {
                    dict.insert("version", version);
                }
            }
            Style::Dmctl => {
                dict.insert("version", version);
                if let Some(data) = &self.data {
                    dict.insert("cmd_data", Plist::Array(data.clone()));
                }
            }
        }
        if flags != 0 {
            dict.insert("flags", u64::from(flags).into());
        }
        // Neither tool does so; a driver that does not know it leaves it alone.
        dict.insert("reasons", 1.into());
        dict.extend(self.more.iter().cloned());
        dict
    }
}

/// Advice about an error, in words; empty if there is none.
pub fn hint(command: &str, errno: Errno, reason: &str) -> &'static str {
    match (command, errno) {
        ("create" | "rename", Errno::EEXIST) => "`dm-host ctl info -c` shows all names and uuids",
        ("create", Errno::EBUSY) => "`dm-host ctl ls` shows all minor numbers",
        ("remove", Errno::EBUSY) => {
            "close it (an NBD client holds it open), or use --deferred or --retry"
        }
        ("reload", _) if reason.contains("no such target type") => "",
        ("reload", Errno::ENOENT | Errno::ENXIO | Errno::ENOTBLK | Errno::ENODEV)
            if reason.contains("component") =>
        {
            "`dm-host ctl disks` lists the disks that tables may name"
        }
        ("reload", Errno::EROFS) => "load it with --readonly",
        (_, Errno::ENXIO) if reason.contains("no such device") => {
            "`dm-host ctl ls` lists the devices"
        }
        (_, Errno::EPERM) if reason.contains("super-user") => {
            "the server was started with --as-user"
        }
        _ => "",
    }
}
