// SPDX-License-Identifier: BSD-2-Clause

//! Files as block devices: loop(4).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::raw;

const LOOP_SET_FD: u64 = 0x4c00;
const LOOP_CLR_FD: u64 = 0x4c01;
const LOOP_SET_BLOCK_SIZE: u64 = 0x4c09;

/// A loop device with a file in it; the file is taken out when it is dropped.
pub struct Loop {
    node: File,
    path: String,
    number: (u32, u32),
}

impl Loop {
    /// Puts a file into the loop device of that index.
    ///
    /// # Errors
    /// The device's.
    pub fn attach(index: usize, image: &Path, readonly: bool, block: u32) -> io::Result<Loop> {
        let path = format!("/dev/loop{index}");
        let number = crate::dm::block_number(&path)?;
        let file = OpenOptions::new().read(true).write(!readonly).open(image)?;
        let node = OpenOptions::new().read(true).write(!readonly).open(&path)?;
        raw::ioctl_number(&node, LOOP_SET_FD, file.as_raw_fd() as u64)?;
        let attached = Loop { node, path, number };
        if block != 512 {
            raw::ioctl_number(&attached.node, LOOP_SET_BLOCK_SIZE, block.into())?;
        }
        Ok(attached)
    }

    /// The path of the loop device's node.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The loop device's major and minor.
    pub fn number(&self) -> (u32, u32) {
        self.number
    }

    /// Takes the file out.
    ///
    /// # Errors
    /// The device's: EBUSY where somebody uses it.
    pub fn detach(self) -> io::Result<()> {
        raw::ioctl_number(&self.node, LOOP_CLR_FD, 0)
    }
}
