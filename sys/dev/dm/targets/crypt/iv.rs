// SPDX-License-Identifier: BSD-2-Clause

//! The IVs (initialization vectors) of a crypt line's sectors, which make equal sectors differ.

use super::keys::{Keys, Part};
use super::words::Chain;
use crate::aes::{Aes, BLOCK, Data};
use crate::hash::Hash;

/// A way to make an IV of 16 bytes from a sector's number.
#[derive(Clone, Copy)]
pub(super) enum Iv {
    /// The low 32 bits of the number, little-endian: it wraps at 2 TiB.
    Plain,
    /// The number, little-endian.
    Plain64,
    /// The number, big-endian, at the end.
    Plain64Be,
    /// The number of the sector's first block, counted from 1, big-endian, at the end.
    Benbi,
    /// Zeroes.
    Null,
    /// The number in bytes, little-endian, encrypted as data is, with the first key for all
    /// sectors.
    Eboiv,
    /// The number, little-endian, encrypted with a hash of the key.
    Essiv(&'static dyn Hash),
}

impl Iv {
    /// The IV of a sector, which has `sector_size` bytes, and `part` of the keys.
    pub(super) fn of(
        self,
        sector: u64,
        sector_size: u32,
        (aes, chain, keys, part): (&dyn Aes, Chain, &Keys, &Part),
    ) -> [u8; BLOCK] {
        let low = |number: u64| {
            let mut iv = [0; BLOCK];
            if let Some(low) = iv.first_chunk_mut() {
                *low = number.to_le_bytes();
            }
            iv
        };
        let high = |number: u64| {
            let mut iv = [0; BLOCK];
            if let Some(high) = iv.last_chunk_mut() {
                *high = number.to_be_bytes();
            }
            iv
        };
        match self {
            Iv::Null => [0; BLOCK],
            Iv::Plain => low(u64::from(sector as u32)),
            Iv::Plain64 => low(sector),
            Iv::Plain64Be => high(sector),
            // 32 blocks in 512 bytes.
            Iv::Benbi => high((sector << 5).wrapping_add(1)),
            Iv::Eboiv => {
                let mut offset = low(sector.wrapping_mul(sector_size.into()));
                let mut iv = [0; BLOCK];
                // As Linux does, where others have the sector's own key.
                let part = keys.part(0).unwrap_or(part);
                part.encrypt(aes, chain, Data::Here(&mut iv), &mut offset);
                iv
            }
            Iv::Essiv(_) => {
                let mut iv = low(sector);
                part.salt(aes, &mut iv);
                iv
            }
        }
    }
}
