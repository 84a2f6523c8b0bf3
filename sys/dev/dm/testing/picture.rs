// SPDX-License-Identifier: BSD-2-Clause

//! The visible state of a driver, as one value: it must be the same before and after a command that
//! failed.

use alloc::string::String;
use alloc::vec::Vec;

use super::Fake;
use crate::Dev;
use crate::device::{Driver, Selector, lines};
use crate::kernel::{LiveTable, Unit};

/// The visible state of a driver and its kernel at one moment.
#[derive(PartialEq, Eq, Debug)]
pub struct Picture {
    /// The number of devices, with those that are being created or removed.
    pub count: usize,
    /// The devices, by minor.
    pub devices: Vec<Device>,
    /// The devices that the driver has open.
    pub open: Vec<Dev>,
    /// The minors that are attached, `true` if I/O to them is held, and their size.
    pub units: Vec<(u32, bool, Option<u64>)>,
}

/// A table line: start, length, target, parameters.
pub type Line = (u64, u64, String, String);

/// The visible state of a device at one moment.
#[derive(PartialEq, Eq, Debug)]
pub struct Device {
    /// The device's minor.
    pub minor: u32,
    /// The device's name.
    pub name: String,
    /// The device's uuid.
    pub uuid: Option<String>,
    /// The active table.
    pub active: Option<Vec<Line>>,
    /// The inactive table.
    pub inactive: Option<Vec<Line>>,
    /// `true` if the device takes no writes.
    pub read_only: bool,
    /// `true` if the device is suspended.
    pub suspended: bool,
    /// The slot that is active, of the two.
    pub slot: bool,
    /// The number of events so far.
    pub event_nr: u32,
    /// The number of open nodes.
    pub open_count: u32,
    /// `true` if the device is removed at its last close.
    pub remove_at_close: bool,
}

fn table(table: &LiveTable<Fake>) -> Vec<Line> {
    lines(table)
        .into_iter()
        .map(|l| (l.start, l.length, l.kind.clone(), l.params.clone()))
        .collect()
}

/// Takes a picture of a driver and its kernel.
pub fn picture(driver: &Driver<Fake>) -> Picture {
    let found = driver.names().into_iter().filter_map(|(_, m)| driver.find(&Selector::Minor(m)));
    let devices = found.map(|found| {
        let now = found.device.snapshot();
        Device {
            minor: found.device.minor().get(),
            name: found.name.as_str().into(),
            uuid: found.uuid.map(|uuid| uuid.as_str().into()),
            active: now.active.as_deref().map(table),
            inactive: now.inactive.as_deref().map(table),
            read_only: now.read_only,
            suspended: now.suspended,
            slot: now.slot,
            event_nr: now.event_nr,
            open_count: now.open_count,
            remove_at_close: now.remove_at_close,
        }
    });
    let devices = devices.collect();
    let units = driver.kernel().units().into_iter();
    let units = units.map(|u| (u.minor().get(), u.held(), u.size().map(|s| s.0))).collect();
    Picture { count: driver.count(), devices, open: driver.kernel().open_now(), units }
}

/// Checks that the driver and its kernel agree: a unit per device, and a component open exactly
/// when a table needs it.
///
/// # Panics
/// When they do not.
pub fn check(driver: &Driver<Fake>) {
    let now = picture(driver);
    assert_eq!(now.count, now.devices.len());
    let minors: Vec<u32> = now.devices.iter().map(|d| d.minor).collect();
    let attached: Vec<u32> = now.units.iter().map(|u| u.0).collect();
    assert_eq!(minors, attached, "devices and attached units differ");
    let mut needed = Vec::new();
    for (_, minor) in driver.names() {
        let Some(found) = driver.find(&Selector::Minor(minor)) else { continue };
        let snapshot = found.device.snapshot();
        for table in [snapshot.active.as_deref(), snapshot.inactive.as_deref()] {
            needed.extend(table.iter().flat_map(|table| table.devs().iter().copied()));
        }
        let size = snapshot.active.as_deref().map(|table| table.size());
        assert_eq!(found.device.unit().size(), size, "the unit has another table");
        assert_eq!(found.device.unit().open_count(), snapshot.open_count);
    }
    needed.sort_unstable();
    needed.dedup();
    assert_eq!(now.open, needed, "a component is open without need, or closed in spite of it");
}
