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

    /// `true` if the sector lies on a border of blocks of `bytes` bytes, a power of two and at least
    /// [`DEV_BSIZE`].
    pub fn is_aligned(self, bytes: u32) -> bool {
        bytes >= DEV_BSIZE && self.0 & u64::from(bytes / DEV_BSIZE - 1) == 0
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
    fn sectors_do_not_wrap() {
        assert_eq!(Sector(u64::MAX).checked_add(Sector(1)), None);
        assert_eq!(Sector::MAX.checked_add(Sector(1)), None);
        assert_eq!(Sector(1).checked_sub(Sector(2)), None);
        assert_eq!(Sector::from_bytes(513), None);
        assert!(Sector(8).is_aligned(4096) && !Sector(9).is_aligned(4096));
    }
}
