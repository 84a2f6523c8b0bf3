// SPDX-License-Identifier: BSD-2-Clause

//! Labels that a disk is attached with.

use crate::disklabel;
use crate::netbsd as nb;

/// FS_UNUSED, FS_SWAP, FS_BSDFFS of disklabel(5).
pub(super) const FS_UNUSED: u8 = 0;
pub(super) const FS_SWAP: u8 = 1;
pub(super) const FS_BSDFFS: u8 = 7;

/// A partition of a label, in sectors of the disk, counted from the disk's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partition {
    /// `'a'` to `'p'`.
    pub letter: char,
    /// The first sector.
    pub offset: u32,
    /// The number of sectors.
    pub size: u32,
    /// FS_* of disklabel(5): 1 is swap, 7 FFS.
    pub fstype: u8,
}

/// A disklabel(5) to attach a disk with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Label {
    slice: Option<u32>,
    partitions: Vec<Partition>,
    in_core: bool,
}

impl Label {
    /// A label in sector 1, without partitions but the raw one, `d`.
    pub fn new() -> Label {
        Label::default()
    }

    /// The label with NetBSD's slice, partition `c`, at a sector, in the sector after that one; a master boot record
    /// says so. The classic sector is 63.
    pub fn slice(mut self, start: u32) -> Label {
        self.slice = Some(start);
        self
    }

    /// The label with another partition: first sector and size in sectors.
    pub fn partition(mut self, letter: char, offset: u32, size: u32) -> Label {
        self.partitions.push(Partition { letter, offset, size, fstype: FS_BSDFFS });
        self
    }

    /// The label with another partition, for swapping.
    pub fn swap(mut self, letter: char, offset: u32, size: u32) -> Label {
        self.partitions.push(Partition { letter, offset, size, fstype: FS_SWAP });
        self
    }

    /// The label in the kernel only: the disk does not have it.
    pub fn in_core(mut self) -> Label {
        self.in_core = true;
        self
    }

    pub(super) fn build(&self, secsize: u32, sectors: u64) -> nb::disklabel {
        let mut label = disklabel::default_label(secsize, sectors);
        let whole = label.d_secperunit;
        let mut set = |letter: char, offset: u32, size: u32, fstype: u8| {
            let index = letter as usize - 'a' as usize;
            let p = &mut label.d_partitions[index];
            (p.p_offset, p.p_size, p.p_fstype) = (offset, size, fstype);
            label.d_npartitions = label.d_npartitions.max(index as u16 + 1);
        };
        let slice = self.slice.unwrap_or(0);
        set('c', slice, whole.saturating_sub(slice), FS_UNUSED);
        set('d', 0, whole, FS_UNUSED);
        for p in &self.partitions {
            set(p.letter, p.offset, p.size, p.fstype);
        }
        label.d_checksum = 0;
        label.d_checksum = disklabel::checksum(&label);
        label
    }

    /// The sectors that the label takes on the disk, with their contents.
    pub(super) fn sectors(&self, label: &nb::disklabel, secsize: usize) -> Vec<(u64, Vec<u8>)> {
        if self.in_core {
            return Vec::new();
        }
        let mut out = Vec::new();
        if let Some(start) = self.slice {
            let mut mbr = vec![0u8; secsize];
            mbr[446 + 4] = disklabel::MBR_NETBSD;
            mbr[446 + 8..446 + 12].copy_from_slice(&start.to_le_bytes());
            let size = label.d_secperunit.saturating_sub(start);
            mbr[446 + 12..446 + 16].copy_from_slice(&size.to_le_bytes());
            mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
            out.push((0, mbr));
        }
        let mut sector = vec![0u8; secsize];
        let bytes = disklabel::bytes(label);
        sector[..bytes.len()].copy_from_slice(bytes);
        out.push((u64::from(self.slice.unwrap_or(0)) + nb::LABELSECTOR as u64, sector));
        out
    }
}

/// The label that the kernel makes up for a disk without one: the whole disk as `a` and `d`.
pub(super) fn fabricated(secsize: u32, sectors: u64) -> nb::disklabel {
    let mut label = disklabel::default_label(secsize, sectors);
    label.d_partitions[0].p_size = label.d_secperunit;
    label.d_partitions[0].p_fstype = FS_BSDFFS;
    label.d_checksum = 0;
    label.d_checksum = disklabel::checksum(&label);
    label
}
