// SPDX-License-Identifier: BSD-2-Clause

//! A device's block node, which connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dm_host::{Errno, File, netbsd};

use super::{DEPTH, Kernel, lock};
use crate::server::extents::Found;

/// A block node that is open while it has users.
pub(super) struct Shared {
    file: File,
    minor: u32,
    writable: bool,
    /// Bytes in a sector, in the low half, and the low half of `changes` when that was asked.
    sector_size: AtomicU64,
}

impl Shared {
    pub(super) fn new(file: File, minor: u32, writable: bool) -> Shared {
        Shared { file, minor, writable, sector_size: AtomicU64::new(u64::MAX) }
    }
}

/// A connection's use of a block node.
pub struct Node {
    kernel: Arc<Kernel>,
    /// Empty only once it is dropped.
    shared: Option<Arc<Shared>>,
    name: String,
}

impl Drop for Node {
    /// The last one closes the node, with others kept from opening it meanwhile: a block node is open
    /// once, and a close that flushes takes its time.
    fn drop(&mut self) {
        let _nodes = lock(&self.kernel.nodes);
        drop(self.shared.take());
    }
}

impl Node {
    pub(super) fn new(kernel: Arc<Kernel>, shared: Arc<Shared>, name: &str) -> Node {
        Node { kernel, shared: Some(shared), name: name.into() }
    }

    fn shared(&self) -> &Shared {
        self.shared.as_deref().expect("it is there until the drop")
    }

    /// The device's size in bytes.
    ///
    /// # Errors
    /// The driver's.
    pub fn size(&self) -> Result<u64, Errno> {
        let mut bytes = 0i64;
        self.shared().file.ioctl(netbsd::DIOCGMEDIASIZE as u32 as u64, &mut bytes)?;
        u64::try_from(bytes).map_err(|_| Errno::EIO)
    }

    /// Bytes in a sector, of the table as it is now.
    ///
    /// # Errors
    /// The driver's.
    pub fn sector_size(&self) -> Result<u32, Errno> {
        let changes = self.kernel.changes.load(Ordering::SeqCst) as u32;
        let known = self.shared().sector_size.load(Ordering::Relaxed);
        if (known >> 32) as u32 == changes && known != u64::MAX {
            return Ok(known as u32);
        }
        let mut size = 0u32;
        self.shared().file.ioctl(netbsd::DIOCGSECTORSIZE as u32 as u64, &mut size)?;
        let size = size.clamp(512, 65536);
        let known = u64::from(changes) << 32 | u64::from(size);
        self.shared().sector_size.store(known, Ordering::Relaxed);
        Ok(size)
    }

    /// `true` if writes are taken.
    pub fn is_writable(&self) -> bool {
        self.shared().writable
    }

    /// Reads whole sectors.
    ///
    /// # Errors
    /// The driver's; EIO for what lies beyond the device's end.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Errno> {
        self.shared().file.read_blocks(buf, block(offset)?)
    }

    /// Writes whole sectors; with `fua`, to the medium itself.
    ///
    /// # Errors
    /// As [`Node::read`].
    pub fn write(&self, buf: &[u8], offset: u64, fua: bool) -> Result<(), Errno> {
        let flags = if fua { netbsd::B_MEDIA_FUA as u32 } else { 0 };
        self.shared().file.write_blocks(buf, block(offset)?, flags)
    }

    /// Flushes the device.
    ///
    /// # Errors
    /// The driver's.
    pub fn flush(&self) -> Result<(), Errno> {
        if !self.shared().writable {
            return Ok(());
        }
        let mut force = 1i32;
        self.shared().file.ioctl(netbsd::DIOCCACHESYNC as u32 as u64, &mut force)
    }

    /// Says that whole sectors need not be kept. A component that cannot discard keeps them.
    ///
    /// # Errors
    /// The driver's.
    pub fn discard(&self, offset: u64, length: u64) -> Result<(), Errno> {
        self.shared().file.fdiscard(offset, length)
    }

    /// The allocation at a byte, for at most `length` bytes.
    ///
    /// # Errors
    /// The driver's.
    pub fn found(&self, offset: u64, length: u64) -> Result<Found, Errno> {
        let map = self.kernel.map(self.shared().minor, &self.name)?;
        Ok(map.first(offset, length, &|dev, offset, length| {
            self.kernel.found(dev, offset, length, DEPTH)
        }))
    }

    /// `true` if all of a range reads as zeroes once it has been discarded.
    ///
    /// # Errors
    /// The driver's.
    pub fn discards_to_zeroes(&self, offset: u64, length: u64) -> Result<bool, Errno> {
        let map = self.kernel.map(self.shared().minor, &self.name)?;
        Ok(map.components(offset, length).all(|(dev, start)| {
            // A byte stands for its component: a disk is of one kind everywhere.
            self.kernel.found(dev, start, 512, DEPTH).zeroes
        }))
    }
}

fn block(offset: u64) -> Result<i64, Errno> {
    i64::try_from(offset / 512).map_err(|_| Errno::EINVAL)
}
