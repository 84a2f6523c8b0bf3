// SPDX-License-Identifier: BSD-2-Clause

//! The sectors at a component's start that belong to its disk's label and boot code.
//! `sys/entry/component.rs` finds out whether a component has any.

use alloc::vec::Vec;

use crate::{Sector, SectorRange};

/// The sectors of a component that belong to its disk's label and boot code, counted from the
/// component's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuardedSectors {
    /// The sectors that hold the label: a write that would hit them fails with EROFS.
    pub label: SectorRange,
    /// The first sector that neither the label nor the boot code uses.
    pub first_safe: Sector,
}

/// The place of labels on a port's disks: the constants of its machine/disklabel.h, which the side
/// that knows the port fills in.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// LABELSECTOR: the label's sector from the start of the slice, or of the disk, in sectors of
    /// the disk.
    pub label_sector: u32,
    /// The start that the label's sector counts from.
    pub slices: Slices,
}

/// The start that labels of a port count from: LABELUSESMBR and RAW_PART of its
/// machine/disklabel.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slices {
    /// The start of the disk: the port knows no MBR.
    None,
    /// The start of the MBR's NetBSD slice, which is partition c (RAW_PART is d): i386, amd64,
    /// where a disk's first 63 sectors belong to the boot code.
    PartitionC,
    /// The start of an MBR's NetBSD slice, which no partition is (RAW_PART is c), or of the disk:
    /// arm, aarch64.
    Unnamed,
}

/// The MBR's magic, its partitions, and the type of NetBSD's.
const MBR_MAGIC: (usize, [u8; 2]) = (510, [0x55, 0xaa]);
const MBR_PARTITIONS: core::ops::Range<usize> = 446..510;
const MBR_NETBSD: u8 = 169;

/// Sectors of boot code on a disk with an MBR: its classic first track.
const BOOT_SECTORS: u64 = 63;

/// Sectors that a label takes, with those before it, unless LABELSECTOR is larger.
const LABEL_SECTORS: u64 = 2;

impl Port {
    /// The sectors, counted from the disk's start, at which a slice with the label may start, the
    /// likeliest first. Partition c starts at `c` and the component at `offset`, in sectors of the
    /// disk; `first` is the disk's first sector, if the component has it.
    pub fn slices(&self, c: u64, offset: u64, first: Option<&[u8]>) -> Vec<u64> {
        match self.slices {
            Slices::None => alloc::vec![0],
            Slices::PartitionC => alloc::vec![c],
            Slices::Unnamed => {
                let mut starts: Vec<u64> = first.into_iter().flat_map(netbsd_slices).collect();
                // A component that is the slice, or the partition at its start.
                starts.extend([offset, 0]);
                starts
            }
        }
    }

    /// The guarded sectors of a component that starts `offset` sectors into a labelled disk whose
    /// NetBSD slice starts at `slice`, and whose sectors hold `per_sector` times DEV_BSIZE; `None`
    /// when all of it lies before the component.
    ///
    /// On i386 and amd64 the label lies LABELSECTOR behind the start of the slice: sector 64 for
    /// the classic slice at 63, so that 65 is the first safe sector, as dm(4) says, and 2050 for a
    /// slice at 2048. On aarch64 it lies there too, but no boot code is taken to stand before it.
    /// Elsewhere it counts from the start of the disk, and 2 is safe.
    pub fn guard(&self, slice: Sector, offset: Sector, per_sector: u64) -> Option<GuardedSectors> {
        let start = if self.slices == Slices::None { 0 } else { slice.0 };
        let sectors = LABEL_SECTORS.max(u64::from(self.label_sector).saturating_add(1));
        let end = start.checked_add(sectors.checked_mul(per_sector)?)?;
        let boots = self.slices == Slices::PartitionC;
        let first_safe = if boots { end.max(BOOT_SECTORS) } else { end };
        let first_safe = Sector(first_safe.checked_sub(offset.0).filter(|n| *n > 0)?);
        // A component behind the label has none of it, but may still hold boot code.
        let (start, end) = (start.saturating_sub(offset.0), end.saturating_sub(offset.0));
        let label = SectorRange::between(Sector(start), Sector(end));
        Some(GuardedSectors { label, first_safe })
    }
}

/// The starts of the NetBSD slices that a disk's first sector names, if it is an MBR; extended
/// partitions are not followed.
fn netbsd_slices(first: &[u8]) -> impl Iterator<Item = u64> {
    let (at, magic) = MBR_MAGIC;
    let partitions = first
        .get(MBR_PARTITIONS)
        .filter(|_| first.get(at..).is_some_and(|m| m.starts_with(&magic)));
    partitions.into_iter().flat_map(|partitions| partitions.chunks_exact(16)).filter_map(
        |partition| {
            let start = partition.get(8..)?.first_chunk::<4>()?;
            (partition.get(4) == Some(&MBR_NETBSD)).then(|| u32::from_le_bytes(*start).into())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86: Port = Port { label_sector: 1, slices: Slices::PartitionC };
    const ARM: Port = Port { label_sector: 1, slices: Slices::Unnamed };

    fn kept(guard: Option<GuardedSectors>) -> Option<(u64, u64, u64)> {
        guard.map(|g| (g.label.start.0, g.label.length.0, g.first_safe.0))
    }

    #[test]
    fn sixty_five_sectors_on_x86() {
        assert_eq!(kept(X86.guard(Sector(63), Sector(0), 1)), Some((63, 2, 65)));
        assert_eq!(kept(X86.guard(Sector(63), Sector(63), 1)), Some((0, 2, 2)));
        assert_eq!(kept(X86.guard(Sector(63), Sector(65), 1)), None);
        assert_eq!(kept(X86.guard(Sector(2048), Sector(2048), 1)), Some((0, 2, 2)));
        assert_eq!(kept(X86.guard(Sector(2048), Sector(0), 1)), Some((2048, 2, 2050)));
        // A label without an MBR: the boot sectors are kept all the same.
        assert_eq!(kept(X86.guard(Sector(0), Sector(0), 1)), Some((0, 2, 63)));
        assert_eq!(kept(X86.guard(Sector(0), Sector(10), 1)), Some((0, 0, 53)));
    }

    #[test]
    fn two_sectors_elsewhere_and_large_sectors_count_whole() {
        let other = Port { label_sector: 0, slices: Slices::None };
        assert_eq!(other.slices(63, 63, None), [0]);
        assert_eq!(kept(other.guard(Sector(63), Sector(0), 1)), Some((0, 2, 2)));
        assert_eq!(kept(X86.guard(Sector(512), Sector(512), 8)), Some((0, 16, 16)));
    }

    #[test]
    fn slices_that_no_partition_names_are_looked_for() {
        assert_eq!(X86.slices(63, 2048, None), [63]);
        assert_eq!(ARM.slices(0, 2048, None), [2048, 0]);
        let mut mbr = [0; 512];
        mbr[510..].copy_from_slice(&MBR_MAGIC.1);
        for (number, (kind, start)) in [(0x0c, 2048u32), (169, 196_608)].iter().enumerate() {
            let partition = &mut mbr[446 + 16 * number..][..16];
            partition[4] = *kind;
            partition[8..12].copy_from_slice(&start.to_le_bytes());
        }
        assert_eq!(ARM.slices(0, 0, Some(&mbr)), [196_608, 0, 0]);
        assert_eq!(ARM.slices(0, 0, Some(&mbr[..511])), [0, 0], "half a sector is no MBR");
        mbr[511] = 0;
        assert_eq!(ARM.slices(0, 0, Some(&mbr)), [0, 0], "without its magic it is none");
        assert_eq!(kept(ARM.guard(Sector(196_608), Sector(0), 1)), Some((196_608, 2, 196_610)));
        assert_eq!(kept(ARM.guard(Sector(196_608), Sector(196_608), 1)), Some((0, 2, 2)));
        assert_eq!(kept(ARM.guard(Sector(0), Sector(2), 1)), None);
    }
}
