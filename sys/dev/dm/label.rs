//! The sectors at a component's start that belong to its disk's label and boot code.

use crate::Sector;

/// What a component that carries a label keeps for it; sectors count from the component's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guard {
    /// The sectors that hold the label: a write that would hit them fails with EROFS.
    pub label: GuardedRange,
    /// The first sector that neither the label nor the boot code uses.
    pub first_safe: Sector,
}

/// A range of sectors that is not to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuardedRange {
    /// The first.
    pub start: Sector,
    /// How many.
    pub length: Sector,
}

impl GuardedRange {
    /// Whether `length` sectors from `start` on touch it.
    pub fn hit(&self, start: Sector, length: Sector) -> bool {
        let end = start.0.saturating_add(length.0);
        start.0 < self.start.0.saturating_add(self.length.0) && self.start.0 < end
    }

    /// Each of its sectors.
    pub fn sectors(&self) -> impl Iterator<Item = Sector> + use<> {
        (self.start.0..self.start.0.saturating_add(self.length.0)).map(Sector)
    }
}

/// Where a port's disks keep their labels: the constants of its machine/disklabel.h, which the
/// side that knows the port fills in.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// LABELSECTOR: where the label is, from the start of the NetBSD slice or of the disk, in
    /// sectors of the disk.
    pub label_sector: u32,
    /// Whether labels count from the start of an MBR slice, as on i386 and amd64, where a disk's
    /// first 63 sectors belong to the boot code.
    pub mbr: bool,
}

/// Sectors of boot code on a disk with an MBR: its classic first track.
const BOOT_SECTORS: u64 = 63;

/// Sectors that a label takes with what stands before it, unless LABELSECTOR is larger.
const LABEL_SECTORS: u64 = 2;

impl Port {
    /// What is kept on a component that starts `offset` sectors into a labelled disk whose NetBSD
    /// slice starts at `slice`, and whose sectors hold `per_sector` times DEV_BSIZE; `None` when
    /// all of it lies before the component.
    ///
    /// On i386 and amd64 the label lies LABELSECTOR behind the start of the slice: sector 64 for
    /// the classic slice at 63, so that 65 is the first safe sector, as dm(4) says, and 2050 for
    /// a slice at 2048. Elsewhere it counts from the start of the disk, and 2 is safe.
    pub fn guard(&self, slice: Sector, offset: Sector, per_sector: u64) -> Option<Guard> {
        let start = if self.mbr { slice.0 } else { 0 };
        let sectors = LABEL_SECTORS.max(u64::from(self.label_sector).saturating_add(1));
        let end = start.checked_add(sectors.checked_mul(per_sector)?)?;
        let first_safe = if self.mbr { end.max(BOOT_SECTORS) } else { end };
        let first_safe = Sector(first_safe.checked_sub(offset.0).filter(|n| *n > 0)?);
        // A component behind the label has none of it, but may still hold boot code.
        let (start, end) = (start.saturating_sub(offset.0), end.saturating_sub(offset.0));
        let label =
            GuardedRange { start: Sector(start), length: Sector(end.saturating_sub(start)) };
        Some(Guard { label, first_safe })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86: Port = Port { label_sector: 1, mbr: true };

    fn kept(guard: Option<Guard>) -> Option<(u64, u64, u64)> {
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
        let other = Port { label_sector: 0, mbr: false };
        assert_eq!(kept(other.guard(Sector(63), Sector(0), 1)), Some((0, 2, 2)));
        assert_eq!(kept(X86.guard(Sector(512), Sector(512), 8)), Some((0, 16, 16)));
    }

    #[test]
    fn a_range_is_hit_at_its_edges_only() {
        let label = GuardedRange { start: Sector(63), length: Sector(2) };
        assert!(!label.hit(Sector(0), Sector(63)) && label.hit(Sector(0), Sector(64)));
        assert!(label.hit(Sector(64), Sector(1)) && !label.hit(Sector(65), Sector(100)));
    }
}
