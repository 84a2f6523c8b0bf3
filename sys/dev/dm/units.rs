// SPDX-License-Identifier: BSD-2-Clause

//! Sectors, devices and minors: numbers that must not be mixed up.

use core::fmt;

/// Bytes in a sector, as NetBSD's DEV_BSIZE: the unit of every table, whatever the disk's own
/// sector size is.
pub const DEV_BSIZE: u32 = 512;

/// A sector's address, or a count of sectors, of [`DEV_BSIZE`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Sector(pub u64);

impl Sector {
    /// Sector 0, or none at all.
    pub const ZERO: Sector = Sector(0);

    /// The largest address a disk can have: its size in bytes must fit NetBSD's off_t.
    pub const MAX: Sector = Sector((i64::MAX as u64) / DEV_BSIZE as u64);

    /// The number of sectors in `bytes`, if they are whole sectors.
    pub fn from_bytes(bytes: u64) -> Option<Sector> {
        bytes.is_multiple_of(u64::from(DEV_BSIZE)).then_some(Sector(bytes / u64::from(DEV_BSIZE)))
    }

    /// The number of bytes, unless that overflows.
    pub fn to_bytes(self) -> Option<u64> {
        self.0.checked_mul(u64::from(DEV_BSIZE))
    }

    /// The sum, unless it overflows or passes [`Sector::MAX`].
    pub fn checked_add(self, n: Sector) -> Option<Sector> {
        self.0.checked_add(n.0).map(Sector).filter(|s| *s <= Sector::MAX)
    }

    /// The difference, unless it is negative.
    pub fn checked_sub(self, n: Sector) -> Option<Sector> {
        self.0.checked_sub(n.0).map(Sector)
    }

    /// `true` if the sector lies on a border of blocks of `bytes` bytes, a power of two and at
    /// least [`DEV_BSIZE`].
    pub fn is_aligned(self, bytes: u32) -> bool {
        bytes >= DEV_BSIZE && self.0 & u64::from(bytes / DEV_BSIZE - 1) == 0
    }
}

/// A range of sectors: those from `start` on, `length` of them. [`SectorRange::new`] checks values
/// that userland or a disk gives; a literal is for ranges that are known to lie on a disk. Its end
/// saturates, so that none wraps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SectorRange {
    /// The first sector.
    pub start: Sector,
    /// The number of sectors.
    pub length: Sector,
}

impl SectorRange {
    /// The range without sectors, at sector 0.
    pub const EMPTY: SectorRange = SectorRange { start: Sector::ZERO, length: Sector::ZERO };

    /// The range, unless it ends beyond [`Sector::MAX`].
    pub fn new(start: Sector, length: Sector) -> Option<SectorRange> {
        start.checked_add(length).map(|_| SectorRange { start, length })
    }

    /// The range from `start` up to `end`, which is not in it; without sectors if `end` lies before
    /// `start`.
    pub fn between(start: Sector, end: Sector) -> SectorRange {
        SectorRange { start, length: Sector(end.0.saturating_sub(start.0)) }
    }

    /// The first sector behind the range.
    #[inline]
    pub fn end(self) -> Sector {
        Sector(self.start.0.saturating_add(self.length.0))
    }

    /// The last sector; that before `start` if the range has none.
    pub fn last(self) -> Sector {
        Sector(self.end().0.saturating_sub(1))
    }

    /// `true` if the range has no sector.
    pub fn is_empty(self) -> bool {
        self.length == Sector::ZERO
    }

    /// The place of `sector` in the range, counted from its start, if the range has that sector.
    pub fn place_of(self, sector: Sector) -> Option<Sector> {
        sector.checked_sub(self.start).filter(|at| *at < self.length)
    }

    /// `true` if both ranges have a sector in common.
    pub fn intersects(self, other: SectorRange) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// `true` if the range is whole blocks of `bytes` bytes, a power of two and at least
    /// [`DEV_BSIZE`].
    pub fn is_aligned(self, bytes: u32) -> bool {
        self.start.is_aligned(bytes) && self.length.is_aligned(bytes)
    }

    /// The range without its first `length` sectors.
    pub fn after(self, length: Sector) -> SectorRange {
        let start = self.start.0.saturating_add(length.0);
        SectorRange::between(Sector(start), self.end())
    }

    /// The range's sectors, in order.
    pub fn sectors(self) -> impl Iterator<Item = Sector> + use<> {
        (self.start.0..self.end().0).map(Sector)
    }
}

impl fmt::Display for SectorRange {
    /// Prints the range in words, as `sector 8` or `sectors 8 to 15`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.length {
            Sector(1) => write!(f, "sector {}", self.start),
            _ => write!(f, "sectors {} to {}", self.start, self.last()),
        }
    }
}

impl fmt::Display for Sector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A device number: NetBSD's dev_t, with a 12-bit major and a 20-bit minor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Dev(pub u64);

impl Dev {
    /// makedev(3), or `None` if a number is too large to be one.
    pub fn new(major: u32, minor: u32) -> Option<Dev> {
        (major <= 0xfff && minor <= 0xf_ffff).then_some(Dev(u64::from(
            (major << 8) & 0x000f_ff00 | (minor << 12) & 0xfff0_0000 | minor & 0xff,
        )))
    }

    /// The major number, of the driver.
    pub fn major(self) -> u32 {
        (self.0 as u32 & 0x000f_ff00) >> 8
    }

    /// The minor number, of the device among its driver's.
    pub fn minor(self) -> u32 {
        (self.0 as u32 & 0xfff0_0000) >> 12 | self.0 as u32 & 0xff
    }

    /// `true` if both have the same minor number, whatever their major.
    #[inline]
    pub fn same_minor(self, other: Dev) -> bool {
        (self.0 ^ other.0) as u32 & 0xfff0_00ff == 0
    }
}

impl fmt::Display for Dev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major(), self.minor())
    }
}

/// The minor number of a device-mapper device; 0 is the control node and never a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Minor(u32);

impl Minor {
    /// The largest minor number a device may have.
    pub const MAX: Minor = Minor(65_535);

    /// The minor with this number, if a device may have it.
    pub fn new(number: u64) -> Option<Minor> {
        u32::try_from(number).ok().filter(|n| (1..=Self::MAX.0).contains(n)).map(Minor)
    }

    /// The number, from 1.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_numbers_are_netbsds() {
        // As makedev(3) packs them: the recorded traffic has 0x13010 for ld1a, 48:... and so on.
        let dev = Dev::new(169, 1).unwrap();
        assert_eq!((dev.0, dev.major(), dev.minor()), (0xa901, 169, 1));
        let large = Dev::new(0xfff, 0xf_ffff).unwrap();
        assert_eq!((large.major(), large.minor()), (0xfff, 0xf_ffff));
        assert!(large.same_minor(Dev::new(0, 0xf_ffff).unwrap()) && !large.same_minor(dev));
        assert_eq!(Dev::new(4096, 0), None);
        assert_eq!(Dev::new(0, 1 << 20), None);
    }

    #[test]
    fn ranges_touch_at_their_edges_only() {
        let range = |start, length| SectorRange { start: Sector(start), length: Sector(length) };
        let label = range(63, 2);
        assert!(!label.intersects(range(0, 63)) && label.intersects(range(0, 64)));
        assert!(label.intersects(range(64, 1)) && !label.intersects(range(65, 100)));
        assert!(!label.intersects(SectorRange::EMPTY));
        let places = [62, 63, 64, 65].map(|at| label.place_of(Sector(at)));
        assert_eq!(places, [None, Some(Sector(0)), Some(Sector(1)), None]);
        assert!(label.sectors().eq([Sector(63), Sector(64)]));
        assert_eq!([label.after(Sector(1)), label.after(Sector(3))].map(|r| r.length.0), [1, 0]);
        assert_eq!(std::format!("{label}, {}", range(8, 1)), "sectors 63 to 64, sector 8");
    }

    #[test]
    fn ranges_end_on_a_disk() {
        assert_eq!(SectorRange::new(Sector(1), Sector::MAX), None);
        assert_eq!(SectorRange::new(Sector(1), Sector(u64::MAX)), None);
        assert_eq!(SectorRange::new(Sector(0), Sector::MAX).unwrap().end(), Sector::MAX);
        assert!(SectorRange::between(Sector(2), Sector(1)).is_empty());
        let far = SectorRange { start: Sector(u64::MAX - 1), length: Sector(8) };
        assert_eq!(far.end(), Sector(u64::MAX));
    }

    #[test]
    fn sectors_do_not_wrap() {
        assert_eq!(Sector(u64::MAX).checked_add(Sector(1)), None);
        assert_eq!(Sector::MAX.checked_add(Sector(1)), None);
        assert_eq!(Sector(1).checked_sub(Sector(2)), None);
        assert_eq!(Sector::from_bytes(513), None);
        assert!(Sector(8).is_aligned(4096) && !Sector(9).is_aligned(4096));
    }
}
