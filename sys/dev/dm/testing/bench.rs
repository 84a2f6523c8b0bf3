// SPDX-License-Identifier: BSD-2-Clause

//! A driver on a fake kernel with a few disks.

use alloc::sync::Arc;

use super::kernel::{BLOCK_MAJOR, Disk, Fake, driver};
use super::picture::{Picture, check, picture};
use super::plist::Dict;
use super::request::Request;
use super::unit::FakeUnit;
use crate::device::Driver;
use crate::{Dev, Errno};

/// A driver on a fake kernel with these disks: `/dev/a`, `/dev/b` and `/dev/c` of 1,000,000 sectors
/// (19:3, 19:19 and 19:35); `/dev/cd` of 1,000 with sectors of 2,048 bytes (19:51), `/dev/af` of
/// 8,000 with sectors of 4,096 bytes (19:67); `/dev/ro`, which takes no writes (19:83). `/dev/char`
/// is no block device.
pub struct Bench {
    /// The kernel.
    pub kernel: Fake,
    /// The driver.
    pub driver: Arc<Driver<Fake>>,
}

impl Default for Bench {
    fn default() -> Self {
        Bench::new()
    }
}

impl Bench {
    /// Makes the kernel, its disks and the driver.
    pub fn new() -> Bench {
        let kernel = Fake::new();
        for (path, minor) in [("/dev/a", 3), ("/dev/b", 19), ("/dev/c", 35)] {
            kernel.disk(path, Disk::new(19, minor, 1_000_000));
        }
        kernel.disk("/dev/cd", Disk { sector_size: 2048, ..Disk::new(19, 51, 1000) });
        kernel.disk("/dev/af", Disk { sector_size: 4096, ..Disk::new(19, 67, 8000) });
        kernel.disk("/dev/ro", Disk { writable: false, ..Disk::new(19, 83, 1000) });
        kernel.path("/dev/char", Err(Errno::ENOTBLK));
        Bench { driver: driver(kernel.clone()), kernel }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The command's.
    pub fn send(&self, request: &Request) -> Result<Dict, Errno> {
        super::send(&self.driver, request)
    }

    /// Sends a request that must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn done(&self, request: &Request) -> Dict {
        let reply = self.send(request);
        check(&self.driver);
        reply.unwrap_or_else(|errno| panic!("{errno:?} from {:?}", request.dict()))
    }

    /// Sends a request that must fail with `errno` and change nothing.
    ///
    /// # Panics
    /// When it does not fail so, or changes something.
    pub fn refused(&self, request: &Request, errno: Errno) {
        let before = self.picture();
        let reply = self.send(request);
        assert_eq!(reply.err(), Some(errno), "from {:?}", request.dict());
        assert_eq!(before, self.picture(), "changed by {:?}", request.dict());
        check(&self.driver);
    }

    /// Gives a command about the device called `name`.
    ///
    /// # Panics
    /// When it fails.
    pub fn on(&self, command: &str, name: &str) -> Dict {
        self.done(&Request::on(command, name))
    }

    /// Creates a device with a table, resumes it, and returns its minor.
    ///
    /// # Panics
    /// When it fails.
    pub fn device(&self, name: &str, lines: &[(u64, u64, &str, &str)]) -> u32 {
        let minor = self.on("create", name).number("minor").expect("a minor");
        self.done(&Request::reload(name, lines));
        self.on("resume", name);
        let minor = u32::try_from(minor).expect("a minor");
        let dev = Dev::new(BLOCK_MAJOR, minor).expect("a device number");
        self.kernel.path(&alloc::format!("/dev/mapper/{name}"), Ok(dev));
        minor
    }

    /// The flags that `info` tells of a device.
    pub fn flags(&self, name: &str) -> u32 {
        let flags = self.on("info", name).number("flags");
        flags.and_then(|flags| u32::try_from(flags).ok()).expect("flags")
    }

    /// A device's unit.
    ///
    /// # Panics
    /// When there is no such device.
    pub fn unit(&self, name: &str) -> FakeUnit {
        let minor = self.on("info", name).number("minor").and_then(|m| u32::try_from(m).ok());
        minor.and_then(|minor| self.kernel.unit(minor)).expect("a device")
    }

    /// A picture of the driver and its kernel, which are checked first.
    pub fn picture(&self) -> Picture {
        picture(&self.driver)
    }
}
