// SPDX-License-Identifier: BSD-2-Clause

//! The disks that a run needs: the paths in the tables that were accepted, and the numbers that
//! `deps` told of them.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::course::{Line, components};
use super::{Course, Run};
use crate::{Dev, Sector};

/// A disk of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunDisk {
    /// The path of the disk's block node.
    pub path: String,
    /// The disk's device number.
    pub dev: Dev,
    /// The disk's size, at least.
    pub size: Sector,
}

/// The major number of disks whose number no answer tells.
const UNTOLD: u32 = 19;

pub(super) fn disks(run: &Run) -> Vec<RunDisk> {
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    let mut devs: BTreeMap<String, Dev> = BTreeMap::new();
    let mut course = Course::new(Vec::new());
    for exchange in &run.exchanges {
        course.step(exchange);
        if exchange.driver_return != 0 {
            continue;
        }
        let Some(device) = course.find(&exchange.request) else { continue };
        match exchange.command.as_str() {
            "reload" => {
                let table = device.theirs.inactive.iter();
                for (path, end) in table.flat_map(|table| &table.lines).flat_map(ends) {
                    if path.starts_with('/') && !path.starts_with("/dev/mapper/") {
                        let size = sizes.entry(path.into()).or_default();
                        *size = end.max(*size);
                    }
                }
            }
            "deps" => {
                let table = device.theirs.active.iter();
                let paths = table.flat_map(|table| &table.lines).flat_map(components);
                let told = exchange.reply.array("cmd_data").unwrap_or(&[]);
                let paths: Vec<_> = paths.collect();
                // `deps` tells a number for each component, or each number once. Where there are as
                // many as components, they are in the same order.
                if paths.len() == told.len() {
                    for (path, dev) in paths.iter().zip(told) {
                        let dev = dev.number().map(Dev);
                        dev.and_then(|dev| devs.insert((*path).into(), dev));
                    }
                }
            }
            _ => {}
        }
    }
    let mut untold = (0..).map(|n| n * 16 + 15).filter_map(|minor| Dev::new(UNTOLD, minor));
    let disks = sizes.into_iter().filter_map(|(path, size)| {
        let dev = devs.get(&path).copied().or_else(|| untold.next())?;
        Some(RunDisk { path, dev, size: Sector(size) })
    });
    disks.collect()
}

/// The components of a line, and the sector on each where the line ends.
fn ends(line: &Line) -> Vec<(&str, u64)> {
    let words: Vec<_> = line.params.split_ascii_whitespace().collect();
    let (skip, stripes) = match line.kind.as_str() {
        "linear" => (0, 1),
        "striped" => (2, words.first().and_then(|n| n.parse().ok()).unwrap_or(1)),
        _ => return Vec::new(),
    };
    let each = line.length.checked_div(stripes).unwrap_or(0);
    let pairs = words.get(skip..).unwrap_or(&[]).chunks_exact(2);
    let end = |offset: &str| offset.parse::<u64>().ok()?.checked_add(each);
    pairs.filter_map(|pair| Some((pair[0], end(pair[1])?))).collect()
}
