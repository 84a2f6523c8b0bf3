// SPDX-License-Identifier: BSD-2-Clause

//! A disk log as it lies on its device, which is Linux's: a header in the first 1,024 bytes, then
//! a bit for each region, 1 where the legs agree and no write is in flight.
//!
//! | byte | what |
//! |---|---|
//! | 0 | magic number, u32, little-endian as everything here |
//! | 4 | version, u32: 2, or 1 for the same |
//! | 8 | number of regions, u64 |
//! | 1,024 | bit n is bit n % 8 of byte n / 8; whole words of 32 bits |

use crate::targets::bits::words;
use crate::units::{DEV_BSIZE, Sector};

/// The bitmap's offset in the log, in bytes.
pub const BITMAP: usize = 1024;

const MAGIC: u32 = 0x4d69_5272;
const VERSION: u32 = 2;

/// A log's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header {
    /// A log that knows of so many regions. lvm writes 2^64 - 1 to say that every bit counts.
    Log(u64),
    /// No log.
    None,
    /// A log of a version that this driver does not know.
    Unknown,
}

impl Header {
    /// Reads a header at the start of `bytes`.
    pub fn read(bytes: &[u8]) -> Header {
        let u32_at = |at: usize| {
            let bytes = bytes.get(at..)?.first_chunk::<4>()?;
            Some(u32::from_le_bytes(*bytes))
        };
        let regions = bytes.get(8..).and_then(|bytes| bytes.first_chunk::<8>());
        match (u32_at(0), u32_at(4), regions) {
            (Some(MAGIC), Some(1 | VERSION), Some(regions)) => {
                Header::Log(u64::from_le_bytes(*regions))
            }
            (Some(MAGIC), ..) => Header::Unknown,
            _ => Header::None,
        }
    }
}

/// The size of a log of so many regions in sectors, on a device with sectors of `unit` bytes.
pub fn sectors(regions: u64, unit: u32) -> Option<Sector> {
    let bitmap = u64::try_from(words(regions)).ok()?.checked_mul(4)?;
    let bytes = bitmap.checked_add(BITMAP as u64)?.checked_next_multiple_of(unit.into())?;
    Some(Sector(bytes / u64::from(DEV_BSIZE)))
}

/// Fills `bytes` with the content of a log of so many regions from byte `from` on, which is a
/// multiple of 512: the header, and the words of the bitmap.
pub fn write(bytes: &mut [u8], from: usize, regions: u64, bitmap: &[u32]) {
    bytes.fill(0);
    if from == 0 {
        let header = [MAGIC.to_le_bytes(), VERSION.to_le_bytes()];
        let header = header.iter().flatten().copied().chain(regions.to_le_bytes());
        bytes.iter_mut().zip(header).for_each(|(to, byte)| *to = byte);
    }
    let (skip, first) = words_in(from);
    let words = bytes.get_mut(skip..).unwrap_or(&mut []).as_chunks_mut::<4>().0;
    for (to, word) in words.iter_mut().zip(bitmap.get(first..).unwrap_or(&[])) {
        *to = word.to_le_bytes();
    }
}

/// Reads the words of the bitmap in `bytes`, which begin at byte `from` of a log: `each` is called
/// with the number of each and the word.
pub fn read(bytes: &[u8], from: usize, mut each: impl FnMut(usize, u32)) {
    let (skip, first) = words_in(from);
    let words = bytes.get(skip..).unwrap_or(&[]).as_chunks::<4>().0;
    words.iter().zip(first..).for_each(|(word, at)| each(at, u32::from_le_bytes(*word)));
}

/// The bytes before the first word of the bitmap in a buffer that begins at byte `from` of the log,
/// and the word's number.
fn words_in(from: usize) -> (usize, usize) {
    (BITMAP.saturating_sub(from), from.saturating_sub(BITMAP) / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn what_is_written_is_read() {
        let bitmap: Vec<u32> = (1..400).collect();
        let mut bytes = vec![0xff; 4096];
        for from in [0, 512, 1024, 1536] {
            write(&mut bytes, from, 12_345, &bitmap);
            let header = if from == 0 { Header::Log(12_345) } else { Header::None };
            assert_eq!(Header::read(&bytes), header);
            let mut seen = 0;
            read(&bytes, from, |at, word| {
                assert_eq!(word, bitmap.get(at).copied().unwrap_or(0), "{from}: {at}");
                seen += 1;
            });
            assert_eq!(seen, (4096 - BITMAP.saturating_sub(from)) / 4);
        }
    }

    #[test]
    fn headers_are_known() {
        let header = |magic: &[u8; 4], version: u32| {
            let mut bytes = vec![0; 512];
            bytes[..4].copy_from_slice(magic);
            bytes[4..8].copy_from_slice(&version.to_le_bytes());
            bytes[8..16].fill(0xff);
            Header::read(&bytes)
        };
        assert_eq!(header(b"rRiM", 2), Header::Log(u64::MAX));
        assert_eq!(header(b"rRiM", 1), Header::Log(u64::MAX));
        assert_eq!(header(b"rRiM", 3), Header::Unknown);
        assert_eq!(header(b"MiRr", 2), Header::None);
        assert_eq!(Header::read(b"rRiM"), Header::Unknown);
    }

    #[test]
    fn a_log_is_whole_sectors() {
        assert_eq!(sectors(1, 512), Some(Sector(3)));
        assert_eq!(sectors(4096, 512), Some(Sector(3)));
        assert_eq!(sectors(4097, 512), Some(Sector(4)));
        assert_eq!(sectors(1, 4096), Some(Sector(8)));
        assert_eq!(sectors(u64::MAX, 512), Some(Sector((1 << 52) + 2)));
    }
}
