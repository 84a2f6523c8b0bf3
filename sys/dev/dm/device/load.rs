//! How a table is loaded: lines from userland, the components they name, the inactive slot.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::share::Share;
use super::{Device, Driver, Loaded};
use crate::kernel::{Kernel, LabelGuard, LiveTable, Mutex};
use crate::pdev::Pdev;
use crate::table::{Builder, Component, Mistake, Opener, Table, TableError};
use crate::units::{Dev, Minor, Sector};
use crate::{Errno, limits};

/// Lines, and what is paid for them.
#[derive(Default)]
pub(super) struct Parts {
    lines: Vec<Line>,
    share: Option<Share>,
}

/// A line as userland sends it.
#[derive(Clone, Debug)]
pub struct Line {
    /// The first sector.
    pub start: u64,
    /// How many sectors.
    pub length: u64,
    /// The target's name.
    pub kind: String,
    /// Its parameters.
    pub params: String,
}

impl Line {
    /// Bytes of its target's name and parameters.
    fn text(&self) -> usize {
        self.kind.len().saturating_add(self.params.len())
    }

    /// What it takes of [`limits::TABLES`], in bytes: at least what its target does in a table,
    /// where four characters may be a stripe.
    fn cost(&self) -> usize {
        self.text().saturating_mul(8).saturating_add(64)
    }
}

impl<K: Kernel> Driver<K> {
    /// Builds a table and puts it into the inactive slot, in place of what was there. With `more`
    /// the lines are kept until the request that brings the last of them.
    ///
    /// # Errors
    /// What is wrong with the table; both slots are as they were then, and lines that were kept
    /// are dropped.
    pub fn reload(
        &self,
        device: &Device<K>,
        lines: Vec<Line>,
        read_only: bool,
        more: bool,
    ) -> Result<(), Errno> {
        let refuse = |why: &dyn fmt::Display| {
            device.forget_lines();
            self.say(format_args!("dm{}: table refused: {why}", device.minor));
        };
        let cost = lines.iter().map(Line::cost).fold(0usize, usize::saturating_add);
        let share =
            self.budget.take(cost).inspect_err(|_| refuse(&"all tables together are too large"))?;
        let Parts { lines, share } = {
            let mut parts = device.parts.lock();
            parts.lines.extend(lines);
            match &mut parts.share {
                Some(all) => all.join(share),
                none => *none = Some(share),
            }
            let bytes = parts.lines.iter().map(Line::text).fold(0usize, usize::saturating_add);
            if parts.lines.len() > limits::LINES || bytes > limits::TABLE_BYTES {
                drop(parts);
                refuse(&"too many lines");
                return Err(Errno::E2BIG);
            }
            if more {
                return Ok(());
            }
            core::mem::take(&mut *parts)
        };
        let read_only = read_only || device.state.lock().created_read_only;
        let table = self.build(device.minor, &lines, read_only).map_err(|error| {
            refuse(&error);
            error.mistake.errno
        })?;
        let loaded = Loaded { table: Arc::new(table), read_only, share: share.map(Arc::new) };
        self.install(device, loaded).inspect_err(|errno| {
            if *errno == Errno::ELOOP {
                refuse(&"the table would map a device to itself, or stack too many");
            }
        })
    }

    fn build(
        &self,
        minor: Minor,
        lines: &[Line],
        read_only: bool,
    ) -> Result<LiveTable<K>, TableError> {
        let opener = TableOpener { driver: self, minor, read_only };
        let mut builder = Builder::new(&opener);
        for line in lines {
            builder.line(line.start, line.length, &line.kind, &line.params)?;
        }
        let table = builder.build()?;
        let guard = self.kernel.label_guard();
        let mut first = None;
        if guard != LabelGuard::Off {
            table.reserved(&mut |dev, at, safe| first = first.or(Some((dev, at, safe))));
        }
        if let Some((dev, at, safe)) = first {
            self.say(format_args!(
                "dm{minor}: the table uses sector {at} of {dev}, which is kept for its label and \
                 boot code; the first safe sector is {safe}"
            ));
            if guard == LabelGuard::Tables {
                let why = "the table uses sectors kept for a component's label";
                let mistake = Mistake::new(Errno::EINVAL, why);
                return Err(TableError { line: None, mistake });
            }
        }
        Ok(table)
    }

    /// Puts a built table into the inactive slot. Loops are looked for here, under the lock that
    /// all tables are installed under, so that two tables cannot close one together.
    fn install(&self, device: &Device<K>, loaded: Loaded<K>) -> Result<(), Errno> {
        let devices = self.devices.lock();
        let below =
            devices.depth_below(self.kernel.block_major(), loaded.table.devs(), device.minor)?;
        if below > 0 {
            devices.depth_above(self.kernel.block_major(), device.minor, below)?;
        }
        let mut state = device.state.lock();
        if state.gone {
            return Err(Errno::ENXIO);
        }
        let old = state.inactive.replace(loaded);
        // Dropping a table closes components: not under these locks.
        drop(state);
        drop(devices);
        drop(old);
        Ok(())
    }

    /// Drops the inactive table.
    pub fn clear(&self, device: &Device<K>) {
        let old = device.state.lock().inactive.take();
        drop(old);
        device.forget_lines();
    }
}

impl<K: Kernel> Device<K> {
    /// Drops the lines that were kept for a table in several requests.
    pub fn forget_lines(&self) {
        let parts = core::mem::take(&mut *self.parts.lock());
        drop(parts);
    }
}

/// Opens the components of a table that is meant for one device.
struct TableOpener<'d, K: Kernel> {
    driver: &'d Driver<K>,
    minor: Minor,
    read_only: bool,
}

impl<K: Kernel> Opener for TableOpener<'_, K> {
    type Component = Pdev<K>;

    fn open(&self, path: &str) -> Result<Pdev<K>, Errno> {
        let kernel = &self.driver.kernel;
        let dev = match device_number(path) {
            Some(dev) => dev?,
            None => kernel.find(path)?,
        };
        if dev.major() == kernel.block_major() {
            if dev.minor() == self.minor.get() {
                return Err(Errno::ELOOP);
            }
            if dev.minor() == 0 {
                return Err(Errno::ENOTBLK);
            }
        }
        let pdev = self.driver.pdevs.open(kernel, dev)?;
        if !self.read_only && !pdev.writable() {
            return Err(Errno::EROFS);
        }
        Ok(pdev)
    }
}

/// Reads `major:minor`; `None` if it is not written like that.
///
/// # Errors
/// ENXIO if no device can have these numbers.
fn device_number(path: &str) -> Option<Result<Dev, Errno>> {
    let (major, minor) = path.split_once(':')?;
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(major) || !digits(minor) {
        return None;
    }
    let dev = major.parse().ok().zip(minor.parse().ok());
    Some(dev.and_then(|(major, minor)| Dev::new(major, minor)).ok_or(Errno::ENXIO))
}

/// Turns a table back into the lines that would load it.
pub fn lines<C>(table: &Table<C>) -> Vec<Line> {
    let line = |(start, length, target): (Sector, Sector, &dyn crate::target::Target)| Line {
        start: start.0,
        length: length.0,
        kind: target.kind().name.into(),
        params: table.describe(target, true),
    };
    table.lines().map(line).collect()
}
