// SPDX-License-Identifier: BSD-2-Clause

//! A store as it lies on its device, which is Linux's.
//!
//! The device is cut into chunks. Chunk 0 has the header, and an *area* is a chunk of exceptions,
//! sixteen bytes each: the chunk of the origin, and the chunk of the store that has its content.
//! Area `a` is chunk 1 + a × (E + 1), where E is the number of exceptions in one; the chunks
//! between are data. Exceptions stand in the order in which they were allocated; the first whose
//! chunk of the store is 0 ends them.
//!
//! | byte of the header | what |
//! |---|---|
//! | 0 | magic number, u32, little-endian as everything here |
//! | 4 | 1 if the store is valid, else 0, u32 |
//! | 8 | version, u32: 1 |
//! | 12 | sectors in a chunk, u32 |

use crate::units::{DEV_BSIZE, Sector};

const MAGIC: u32 = 0x7041_6e53;
const VERSION: u32 = 1;

/// Bytes of an exception.
pub const ENTRY: usize = 16;

/// The first chunk that may hold data.
pub const FIRST: u64 = 2;

/// A store's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header {
    /// No header, since the sectors are zeroes: the store is new.
    New,
    /// The header of a store.
    Store {
        /// `false` once the snapshot is lost.
        valid: bool,
        /// Sectors in a chunk, which may be anything.
        chunk: u32,
    },
    /// A store of a version that this driver does not know.
    Unknown,
    /// Something else.
    Foreign,
}

impl Header {
    /// Reads a header at the start of `bytes`.
    pub fn read(bytes: &[u8]) -> Header {
        let word = |at: usize| {
            let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<4>());
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        match (word(0), word(8)) {
            (0, _) => Header::New,
            (MAGIC, VERSION) => Header::Store { valid: word(4) != 0, chunk: word(12) },
            (MAGIC, _) => Header::Unknown,
            _ => Header::Foreign,
        }
    }

    /// Fills `bytes` with a store's header, and zeroes after it.
    pub fn write(bytes: &mut [u8], valid: bool, chunk: u32) {
        bytes.fill(0);
        let words = [MAGIC, u32::from(valid), VERSION, chunk];
        let words = words.iter().flat_map(|word| word.to_le_bytes());
        bytes.iter_mut().zip(words).for_each(|(to, byte)| *to = byte);
    }
}

/// An exception: a chunk of the origin whose content is elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exception {
    /// The chunk of the origin.
    pub old: u64,
    /// The chunk of the store that has it.
    pub new: u64,
}

impl Exception {
    /// Reads the exceptions in `bytes`, the empty ones too.
    pub fn read_all(bytes: &[u8]) -> impl Iterator<Item = Exception> {
        bytes.as_chunks::<ENTRY>().0.iter().map(|bytes| {
            let word = |at: usize| {
                let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<8>());
                bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
            };
            Exception { old: word(0), new: word(8) }
        })
    }

    /// Writes it as number `at` of those in `bytes`.
    pub fn write(self, bytes: &mut [u8], at: usize) {
        let Some(bytes) = bytes.as_chunks_mut::<ENTRY>().0.get_mut(at) else { return };
        let words = self.old.to_le_bytes().into_iter().chain(self.new.to_le_bytes());
        bytes.iter_mut().zip(words).for_each(|(to, byte)| *to = byte);
    }
}

/// The size of a store's chunks, and what follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Sectors in a chunk, as a power of two; below 22.
    pub shift: u32,
}

impl Geometry {
    /// The geometry of chunks of `chunk` sectors; `None` unless that is a power of two, with at
    /// most 2^31 bytes.
    pub fn new(chunk: u32) -> Option<Geometry> {
        let fits = chunk.is_power_of_two() && chunk <= i32::MAX as u32 / DEV_BSIZE;
        fits.then_some(Geometry { shift: chunk.trailing_zeros() })
    }

    /// Sectors in a chunk.
    pub fn chunk(self) -> Sector {
        Sector(1u64.wrapping_shl(self.shift))
    }

    /// Exceptions in an area.
    pub fn entries(self) -> u64 {
        self.chunk().0.wrapping_mul(u64::from(DEV_BSIZE) / ENTRY as u64)
    }

    /// Chunks from one area to the next.
    fn stride(self) -> u64 {
        self.entries().wrapping_add(1)
    }

    /// The chunk that is an area; `None` where no device is that large.
    pub fn area(self, area: u64) -> Option<u64> {
        area.checked_mul(self.stride())?.checked_add(1)
    }

    /// `true` if a chunk may hold data.
    pub fn is_data(self, chunk: u64) -> bool {
        chunk >= FIRST && chunk.checked_rem(self.stride()) != Some(1)
    }

    /// The chunk itself if it may hold data, else the next that may.
    pub fn data_from(self, chunk: u64) -> u64 {
        let chunk = chunk.max(FIRST);
        if self.is_data(chunk) { chunk } else { chunk.saturating_add(1) }
    }

    /// The chunk that has a sector.
    #[inline]
    pub fn chunk_of(self, sector: Sector) -> u64 {
        sector.0.wrapping_shr(self.shift)
    }

    /// A chunk's first sector; `None` where no device is that large.
    #[inline]
    pub fn sector(self, chunk: u64) -> Option<Sector> {
        let sector = Sector(chunk.wrapping_shl(self.shift));
        (self.chunk_of(sector) == chunk && sector < Sector::MAX).then_some(sector)
    }

    /// Sectors from the start of its chunk to a sector.
    #[inline]
    pub fn offset(self, sector: Sector) -> u64 {
        sector.0 & self.chunk().0.wrapping_sub(1)
    }

    /// The sectors from `start` to the end of its chunk, of which there are `length` at most.
    #[inline]
    pub fn within(self, start: Sector, length: Sector) -> Sector {
        Sector(length.0.min(self.chunk().0.wrapping_sub(self.offset(start))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn headers_are_known() {
        let mut bytes = vec![0xff; 512];
        Header::write(&mut bytes, true, 8);
        assert_eq!(&bytes[..16], b"SnAp\x01\0\0\0\x01\0\0\0\x08\0\0\0");
        assert!(bytes[16..].iter().all(|byte| *byte == 0));
        assert_eq!(Header::read(&bytes), Header::Store { valid: true, chunk: 8 });
        Header::write(&mut bytes, false, 1 << 31);
        assert_eq!(Header::read(&bytes), Header::Store { valid: false, chunk: 1 << 31 });
        bytes[8] = 2;
        assert_eq!(Header::read(&bytes), Header::Unknown);
        bytes[0] = 1;
        assert_eq!(Header::read(&bytes), Header::Foreign);
        assert_eq!(Header::read(&[0; 512]), Header::New);
        assert_eq!(Header::read(b""), Header::New);
    }

    #[test]
    fn exceptions_are_written_as_they_are_read() {
        let mut bytes = vec![0; 64];
        let (one, other) = (Exception { old: 0, new: 2 }, Exception { old: 7, new: u64::MAX });
        one.write(&mut bytes, 0);
        other.write(&mut bytes, 2);
        other.write(&mut bytes, 4);
        let read: Vec<Exception> = Exception::read_all(&bytes).collect();
        assert_eq!(read, [one, Exception::default(), other, Exception::default()]);
    }

    #[test]
    fn areas_lie_between_data() {
        let geometry = Geometry::new(8).unwrap();
        assert_eq!(geometry.entries(), 256);
        assert_eq!((geometry.area(0), geometry.area(1)), (Some(1), Some(258)));
        assert!(!geometry.is_data(0) && !geometry.is_data(1) && geometry.is_data(257));
        assert_eq!(
            [0, 1, 2, 257, 258, 259].map(|n| geometry.data_from(n)),
            [2, 2, 2, 257, 259, 259]
        );
        assert_eq!(geometry.area(u64::MAX / 2), None);
        let small = Geometry::new(1).unwrap();
        assert_eq!((small.entries(), small.area(2)), (32, Some(67)));
    }

    #[test]
    fn chunks_that_cannot_be_are_refused() {
        for chunk in [0, 3, 1 << 22, u32::MAX] {
            assert_eq!(Geometry::new(chunk), None, "{chunk}");
        }
        let geometry = Geometry::new(1 << 21).unwrap();
        assert_eq!(geometry.sector(u64::MAX), None);
        assert_eq!(geometry.sector(1 << 40), None);
        assert_eq!(geometry.sector(3), Some(Sector(3 << 21)));
        assert_eq!(geometry.within(Sector(5), Sector(1 << 30)), Sector((1 << 21) - 5));
    }
}
