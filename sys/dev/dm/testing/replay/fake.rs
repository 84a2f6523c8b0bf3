// SPDX-License-Identifier: BSD-2-Clause

//! A player on the fake kernel.

use alloc::sync::Arc;

use super::{Player, RunDisk};
use crate::device::Driver;
use crate::kernel::Unit;
use crate::testing::kernel::{Disk, Fake, driver};
use crate::testing::plist::Dict;
use crate::{Dev, Errno};

/// The driver on a fake kernel.
pub struct FakePlayer {
    /// The kernel.
    pub kernel: Fake,
    /// The driver.
    pub driver: Arc<Driver<Fake>>,
}

impl Default for FakePlayer {
    fn default() -> Self {
        let kernel = Fake::new();
        FakePlayer { driver: driver(kernel.clone()), kernel }
    }
}

impl Player for FakePlayer {
    fn disk(&mut self, disk: &RunDisk) {
        let RunDisk { path, dev, size } = disk;
        let (dev, size) = (*dev, *size);
        let disk = Disk { dev, size, sector_size: 512, writable: true, guard: None };
        self.kernel.disk(path, disk);
    }

    fn node(&mut self, path: &str, dev: Option<Dev>) {
        match dev {
            Some(dev) => {
                self.kernel.path(path, Ok(dev));
            }
            None => self.kernel.unlink(path),
        }
    }

    fn open(&mut self, minor: u32, count: u32) {
        let Some(unit) = self.kernel.unit(minor) else { return };
        while unit.open_count() < count && unit.open_node().is_ok() {}
        while unit.open_count() > count {
            unit.close_node();
        }
    }

    fn ioctl(&mut self, request: &Dict) -> Result<Dict, Errno> {
        // As text and back, as it would go.
        let mut dict = Dict::parse(&request.print()).map_err(|_| Errno::EINVAL)?;
        crate::commands::execute(&self.driver, &mut dict, true)?;
        Dict::parse(&dict.print()).map_err(|_| Errno::EINVAL)
    }
}
