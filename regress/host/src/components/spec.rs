// SPDX-License-Identifier: BSD-2-Clause

//! The specification of a disk.

use std::path::Path;

use super::{Backend, Completion, Label};
use crate::dev::Dev;
use crate::errno::Errno;

/// The specification of a disk. Begin with [`DiskSpec::memory`], [`DiskSpec::file`] or [`DiskSpec::null`], and change
/// the properties that should differ.
pub struct DiskSpec {
    pub(super) name: String,
    pub(super) backend: Backend,
    /// Sectors of `secsize` bytes; 0 stands for all that the backend has.
    pub(super) sectors: u64,
    pub(super) secsize: u32,
    pub(super) read_only: bool,
    pub(super) plain: bool,
    pub(super) dev: Option<Dev>,
    pub(super) label: Option<Label>,
    pub(super) completion: Completion,
    pub(super) dump: bool,
    pub(super) discard: bool,
    pub(super) cache: i32,
    pub(super) align: (u32, u32),
}

impl DiskSpec {
    fn new(name: &str, backend: Backend, sectors: u64) -> DiskSpec {
        DiskSpec {
            name: name.to_owned(),
            backend,
            sectors,
            secsize: 512,
            read_only: false,
            plain: name.starts_with("dk"),
            dev: None,
            label: None,
            completion: Completion::Inline,
            dump: true,
            discard: true,
            // DKCACHE_READ | DKCACHE_WRITE
            cache: 3,
            align: (0, 1),
        }
    }

    /// A disk in memory, all zeros, of `sectors` sectors. Its name is a driver's name and a unit,
    /// such as `wd0`; a `dk` disk is a [`DiskSpec::plain`] one.
    pub fn memory(name: &str, sectors: u64) -> DiskSpec {
        DiskSpec::new(name, Backend::Memory, sectors)
    }

    /// A disk in a file, as large as the file is now.
    pub fn file(name: &str, path: &Path, read_only: bool) -> Result<DiskSpec, Errno> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(!read_only).open(path);
        let file = file.map_err(|e| Errno::from_io(&e))?;
        Ok(DiskSpec::on(name, Backend::File(file), read_only))
    }

    /// A disk on a store that is open already, as large as the store is now.
    pub fn on(name: &str, backend: Backend, read_only: bool) -> DiskSpec {
        DiskSpec { read_only, ..DiskSpec::new(name, backend, 0) }
    }

    /// A disk that completes at once and transfers nothing, for benchmarks.
    pub fn null(name: &str, sectors: u64) -> DiskSpec {
        DiskSpec::new(name, Backend::Null, sectors)
    }

    /// The disk with sectors of so many bytes, a power of two from 512. The number of sectors stays as it was.
    pub fn sector_size(mut self, bytes: u32) -> DiskSpec {
        self.secsize = bytes;
        self
    }

    /// The disk, read-only: writes, and opens for writing, fail with EROFS.
    pub fn read_only(mut self) -> DiskSpec {
        self.read_only = true;
        self
    }

    /// The disk without partitions or label, like a wedge: one node, which answers DIOCGWEDGEINFO.
    pub fn plain(mut self) -> DiskSpec {
        self.plain = true;
        self
    }

    /// The disk with this block device number, that of its first minor.
    pub fn dev(mut self, dev: Dev) -> DiskSpec {
        self.dev = Some(dev);
        self
    }

    /// The disk with a label with partitions, which is written to it.
    pub fn label(mut self, label: Label) -> DiskSpec {
        self.label = Some(label);
        self
    }

    /// The disk with another way in which I/O completes.
    pub fn completion(mut self, completion: Completion) -> DiskSpec {
        self.completion = completion;
        self
    }

    /// The disk, with or without crash dumps.
    pub fn dump(mut self, can: bool) -> DiskSpec {
        self.dump = can;
        self
    }

    /// The disk, with or without discards.
    pub fn discard(mut self, can: bool) -> DiskSpec {
        self.discard = can;
        self
    }

    /// The disk with the answer to DIOCGCACHE: DKCACHE_READ (1), DKCACHE_WRITE (2), …
    pub fn cache(mut self, bits: i32) -> DiskSpec {
        self.cache = bits;
        self
    }

    /// The disk with the answer to DIOCGSECTORALIGN: first aligned sector and alignment, in sectors.
    pub fn align(mut self, first: u32, alignment: u32) -> DiskSpec {
        self.align = (first, alignment);
        self
    }
}
