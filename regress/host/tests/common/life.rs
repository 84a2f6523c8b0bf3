// SPDX-License-Identifier: BSD-2-Clause

//! The setting of the tests of a device's life.

use dm_host::Disk;

use super::data::fill;
use super::{Bench, Mapped, Request};

/// A device of 100 sectors on wd0, and another disk.
pub fn two_disks() -> (Bench, [Disk; 2], Mapped) {
    let bench = Bench::new();
    let disks = [bench.disk("wd0", 200), bench.disk("wd1", 200)];
    disks.iter().zip(1..).for_each(|(disk, seed)| fill(disk, seed));
    let device = bench.device("d", "0 100 linear /dev/wd0 0");
    (bench, disks, device)
}

/// A command about that device.
pub fn request(command: &str) -> Request {
    Request::on(command, "d")
}
