// SPDX-License-Identifier: BSD-2-Clause

//! Replies: the keys that describe a device, all devices, and the driver.

use super::request::Request;
use super::{STATUS_FLAGS, flags};
use crate::device::{FoundDevice, Snapshot};
use crate::kernel::{Kernel, LiveTable};
use crate::name::Uuid;
use crate::proplib::{Array, Dictionary};
use crate::targets::{self, TARGETS};
use crate::{Errno, limits};
use dm_sync::wipe_text;

impl<K: Kernel, D: Dictionary> Request<'_, K, D> {
    /// Sets all keys that describe a device.
    pub(super) fn reply(&mut self, found: &FoundDevice<K>) -> Result<(), Errno> {
        let now = found.device.snapshot();
        let (about, read_only) = match self.has(flags::QUERY_INACTIVE_TABLE) {
            true => (&now.inactive, now.inactive_read_only),
            false => (&now.active, now.read_only),
        };
        let lines = about.as_ref().map_or(0, |table| table.len());
        let truth = [
            (true, flags::EXISTS),
            (now.suspended, flags::SUSPEND),
            (read_only, flags::READONLY),
            (now.active.is_some(), flags::ACTIVE_PRESENT),
            (now.inactive.is_some(), flags::INACTIVE_PRESENT),
            (now.remove_at_close, flags::DEFERRED_REMOVE),
        ];
        let truth = truth.iter().filter(|(set, _)| *set).fold(0, |all, (_, flag)| all | flag);
        self.set_flags(self.flags & !STATUS_FLAGS | truth)?;
        self.identify(found)?;
        self.set(c"open_count", now.open_count)?;
        self.dict.set_unsigned(c"target_count", lines as u64)?;
        self.set(c"event_nr", now.event_nr)
    }

    pub(super) fn identify(&mut self, found: &FoundDevice<K>) -> Result<(), Errno> {
        self.dict.set_string(c"name", found.name.as_str())?;
        self.dict.set_string(c"uuid", found.uuid.as_ref().map_or("", Uuid::as_str))?;
        self.set(c"minor", found.device.minor().get())
    }

    /// Tells the driver's version. Old tools do not look at `features`; new ones find there the
    /// features beyond the C driver's.
    pub(super) fn version(&mut self) -> Result<(), Errno> {
        let mut features = D::new()?;
        features.set_unsigned(c"reload_more", u64::from(flags::RELOAD_MORE))?;
        features.set_unsigned(c"lines", limits::LINES as u64)?;
        features.set_unsigned(c"stripes", limits::STRIPES as u64)?;
        features.set_unsigned(c"reasons", 1)?;
        let mut list = D::Array::new()?;
        list.push_dictionary(features)?;
        self.dict.set_array(c"features", list)?;
        self.set_flags(self.flags)
    }

    pub(super) fn targets(&mut self) -> Result<(), Errno> {
        let mut list = D::Array::new()?;
        let has_aes = self.driver.kernel().aes().is_some();
        for kind in TARGETS.iter().filter(|kind| has_aes || !targets::needs_aes(kind)) {
            let (mut entry, mut version) = (D::new()?, D::Array::new()?);
            entry.set_string(c"name", kind.name)?;
            kind.version.iter().try_for_each(|n| version.push_signed(i64::from(*n)))?;
            entry.set_array(c"ver", version)?;
            list.push_dictionary(entry)?;
        }
        self.dict.set_array(c"cmd_data", list)?;
        self.set_flags(self.flags)
    }

    pub(super) fn names(&mut self) -> Result<(), Errno> {
        let mut list = D::Array::new()?;
        for (name, minor) in self.driver.names() {
            let mut entry = D::new()?;
            entry.set_string(c"name", name.as_str())?;
            entry.set_unsigned(c"dev", u64::from(minor.get()))?;
            list.push_dictionary(entry)?;
        }
        self.dict.set_array(c"cmd_data", list)?;
        self.set_flags(self.flags)
    }

    pub(super) fn status(&mut self, now: &Snapshot<K>) -> Result<(), Errno> {
        let mut list = D::Array::new()?;
        // Keys are shown to a process that could have loaded them.
        let secrets = self.has(flags::STATUS_TABLE)
            && self.writable
            && self.driver.kernel().authorize().is_ok();
        if let Some(table) = self.chosen(now) {
            for (range, target) in table.lines() {
                let mut line = D::new()?;
                line.set_unsigned(c"start", range.start.0)?;
                line.set_unsigned(c"length", range.length.0)?;
                line.set_string(c"type", target.kind().name)?;
                line.set_signed(c"status", i64::from(now.slot))?;
                let mut params = match secrets {
                    true => table.secrets(target),
                    false => table.describe(target, self.has(flags::STATUS_TABLE)),
                };
                let set = line.set_string(c"params", &params);
                wipe_text(&mut params);
                set?;
                list.push_dictionary(line)?;
            }
        }
        self.dict.set_array(c"cmd_data", list)
    }

    pub(super) fn chosen<'s>(&self, now: &'s Snapshot<K>) -> Option<&'s LiveTable<K>> {
        match self.has(flags::QUERY_INACTIVE_TABLE) {
            true => now.inactive.as_deref(),
            false => now.active.as_deref(),
        }
    }

    pub(super) fn deps(&mut self, now: &Snapshot<K>) -> Result<(), Errno> {
        let mut list = D::Array::new()?;
        let devs = self.chosen(now).map_or(&[][..], |table| table.devs());
        // makedev(3) uses the low 32 bits of a dev_t: none is negative.
        devs.iter().try_for_each(|dev| list.push_signed(dev.0.cast_signed()))?;
        self.dict.set_array(c"cmd_data", list)
    }
}
