// SPDX-License-Identifier: BSD-2-Clause

//! `ls --tree`: the devices below each, or with `inverted` above, as dmsetup draws them.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::sync::Arc;

use dm_core::commands::flags;
use dm_core::refusal::Shown;
use dm_core::units::Dev;
use serde_json::{Value, json};

use super::report::Names;
use super::{BLOCK_MAJOR, has, number};
use crate::xml::Answer;

/// The way in which `ls` names devices and draws trees.
#[derive(Default)]
pub struct How {
    utf: bool,
    pub inverted: bool,
    device: bool,
    /// Names of block devices, beside or in place of numbers.
    pub blkdevname: bool,
    uuid: bool,
    open: bool,
    rw: bool,
    active: bool,
}

impl How {
    /// Reads the words behind `-o`.
    ///
    /// # Errors
    /// A word that there is none.
    pub fn parse(words: &str) -> Result<How, String> {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|v| env::var(v).ok());
        let utf = locale.is_some_and(|l| l.to_ascii_lowercase().replace('-', "").contains("utf8"));
        let mut how = How { utf, device: true, ..How::default() };
        for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "ascii" => how.utf = false,
                "utf" => how.utf = true,
                "vt100" | "compact" | "notrunc" | "devno" => {}
                "inverted" => how.inverted = true,
                "device" => how.device = true,
                "nodevice" => how.device = false,
                "blkdevname" | "devname" => how.blkdevname = true,
                "uuid" => how.uuid = true,
                "open" => how.open = true,
                "rw" => how.rw = true,
                "active" => how.active = true,
                _ => return Err(format!("-o {}: there is no such option", Shown(word))),
            }
        }
        Ok(how)
    }

    /// `true` if the tree shows more of a device than its `deps`.
    pub fn needs_infos(&self) -> bool {
        self.uuid || self.open || self.rw || self.active
    }
}

/// All devices, with the devices and disks below each.
pub struct Tree {
    /// The devices below each device, by minor.
    below: BTreeMap<u64, Vec<Dev>>,
    /// Devices and disks by number.
    names: Names,
}

impl Tree {
    /// The tree of the answers to `deps`, with the names in the server's description of disks.
    pub fn new(answers: &[Answer], disks: &str) -> Tree {
        let mut names = BTreeMap::new();
        let mut below = BTreeMap::new();
        for answer in answers {
            let minor = number(answer, "minor");
            let devs = answer.numbers("cmd_data").into_iter().map(Dev).collect();
            below.insert(minor, devs);
            names.extend(own(minor).map(|dev| (dev.0, answer.text("name").to_string())));
        }
        for line in disks.lines() {
            let mut words = line.split('\t');
            let (Some(name), Some(dev)) = (words.next(), words.next()) else { continue };
            let numbers = dev
                .split_once(':')
                .and_then(|(major, minor)| Dev::new(major.parse().ok()?, minor.parse().ok()?));
            let name = name.strip_prefix("/dev/").unwrap_or(name);
            names.extend(numbers.map(|dev| (dev.0, name.to_string())));
        }
        Tree { below, names: Arc::new(names) }
    }

    /// The names of devices and disks, by number.
    pub fn names(&self) -> Names {
        self.names.clone()
    }

    /// The name of a device number, if it is known.
    pub fn name(&self, dev: Dev) -> Option<&str> {
        self.names.get(&dev.0).map(String::as_str)
    }

    /// The devices and disks directly below a device.
    pub fn below(&self, minor: u64) -> &[Dev] {
        self.below.get(&minor).map_or(&[], Vec::as_slice)
    }

    /// The devices directly above a device.
    pub fn above(&self, minor: u64) -> Vec<Dev> {
        own(minor).map(|dev| self.using(dev)).unwrap_or_default()
    }

    fn using(&self, dev: Dev) -> Vec<Dev> {
        let uses = self.below.iter().filter(|(_, devs)| devs.contains(&dev));
        uses.filter_map(|(minor, _)| own(*minor)).collect()
    }

    fn next(&self, dev: Dev, inverted: bool) -> Vec<Dev> {
        match (inverted, dev.major() == BLOCK_MAJOR) {
            (true, _) => self.using(dev),
            (false, true) => self.below(u64::from(dev.minor())).to_vec(),
            (false, false) => Vec::new(),
        }
    }

    /// The roots of a drawing: devices that no other uses, or with `inverted` the lowest ones; of these only the ones
    /// that `minors` are connected to.
    fn roots(&self, minors: &[u64], inverted: bool) -> Vec<Dev> {
        let devices = minors.iter().filter_map(|minor| own(*minor));
        if !inverted {
            return devices
                .filter(|dev| {
                    // One whose users are not to be shown begins a drawing of its own.
                    !self.using(*dev).iter().any(|user| minors.contains(&u64::from(user.minor())))
                })
                .collect();
        }
        let mut lowest: Vec<Dev> = Vec::new();
        for device in devices {
            let below = self.below(u64::from(device.minor()));
            let ends = below.iter().copied().filter(|dev| dev.major() != BLOCK_MAJOR);
            let ends: Vec<_> = if below.is_empty() { vec![device] } else { ends.collect() };
            for end in ends {
                if !lowest.contains(&end) {
                    lowest.push(end);
                }
            }
        }
        lowest
    }

    /// A drawing of the tree.
    pub fn show(&self, minors: &[u64], how: &How, infos: &[Answer]) -> String {
        if minors.is_empty() {
            return super::NONE.into();
        }
        let mut out = String::new();
        for root in self.roots(minors, how.inverted) {
            self.node(&mut out, root, "", how, infos);
        }
        out
    }

    fn node(&self, out: &mut String, dev: Dev, before: &str, how: &How, infos: &[Answer]) {
        let _ = writeln!(out, "{}", self.label(dev, how, infos));
        let next = self.next(dev, how.inverted);
        let (last, more, line) = match how.utf {
            true => ("└─", "├─", "│ "),
            false => ("`-", "|-", "| "),
        };
        for (at, dev) in next.iter().enumerate() {
            let end = at.saturating_add(1) == next.len();
            let _ = write!(out, "{before} {}", if end { last } else { more });
            let deeper = format!("{before} {}", if end { "  " } else { line });
            self.node(out, *dev, &deeper, how, infos);
        }
    }

    fn label(&self, dev: Dev, how: &How, infos: &[Answer]) -> String {
        let mapped = dev.major() == BLOCK_MAJOR;
        let mut text = match self.name(dev).filter(|_| mapped) {
            Some(name) => Shown(name).to_string(),
            None => String::new(),
        };
        if how.blkdevname {
            let name = if mapped { None } else { self.name(dev) };
            let name = name.map_or_else(|| format!("dm{}", dev.minor()), String::from);
            let _ = write!(text, " <{}>", Shown(&name));
        }
        if how.device {
            let _ = write!(text, " ({}:{})", dev.major(), dev.minor());
        }
        let minor = u64::from(dev.minor());
        let info = infos.iter().find(|info| mapped && number(info, "minor") == minor);
        if let Some(info) = info {
            if how.active {
                text.push_str(if has(info, flags::SUSPEND) { " [SUSPENDED]" } else { " [ACTIVE]" });
            }
            if how.open {
                let _ = write!(text, " [{}]", number(info, "open_count"));
            }
            if how.rw {
                text.push_str(if has(info, flags::READONLY) { " [RO]" } else { " [RW]" });
            }
            if how.uuid {
                let _ = write!(text, " [{}]", Shown(info.text("uuid")));
            }
        }
        text
    }

    /// The drawing as nested objects.
    pub fn json(&self, minors: &[u64], inverted: bool) -> Value {
        let roots = self.roots(minors, inverted);
        let all: Vec<_> = roots.into_iter().map(|root| self.object(root, inverted)).collect();
        json!({ "devices": all })
    }

    fn object(&self, dev: Dev, inverted: bool) -> Value {
        let next: Vec<_> =
            self.next(dev, inverted).into_iter().map(|dev| self.object(dev, inverted)).collect();
        let key = if inverted { "above" } else { "below" };
        let (major, minor) = (dev.major(), dev.minor());
        json!({ "name": self.name(dev), "major": major, "minor": minor, key: next })
    }
}

/// The number of a device of the driver's.
fn own(minor: u64) -> Option<Dev> {
    Dev::new(BLOCK_MAJOR, u32::try_from(minor).ok()?)
}
