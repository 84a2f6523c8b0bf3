// SPDX-License-Identifier: BSD-2-Clause

//! Data that say where they belong, and sums of data.

/// Bytes in a sector.
pub const SECTOR: usize = 512;

/// A number that looks random, from a number (the finalizer of splitmix64).
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The pattern of `seed` on a disk, from `sector` on: each word of 8 bytes is unlike all others.
pub fn pattern(seed: u64, sector: u64, sectors: u64) -> Vec<u8> {
    let per_sector = (SECTOR / 8) as u64;
    let first = sector.wrapping_mul(per_sector);
    let words = sectors.saturating_mul(per_sector);
    (0..words).flat_map(|n| mix(mix(seed) ^ first.wrapping_add(n)).to_le_bytes()).collect()
}

/// A seed made from a text.
pub fn seed(text: &str) -> u64 {
    sum(text.bytes().map(u64::from))
}

fn sum(words: impl Iterator<Item = u64>) -> u64 {
    words.fold(0xcbf2_9ce4_8422_2325, |sum, word| {
        (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
    })
}

/// A sum of data: the data that two sides read are the same if their sums are.
pub fn checksum(data: &[u8]) -> u64 {
    let words = data.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(word)
    });
    mix(sum(words) ^ data.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_depends_on_seed_and_place_alone() {
        let whole = pattern(7, 10, 4);
        assert_eq!(whole.len(), 4 * SECTOR);
        assert_eq!(whole[SECTOR..3 * SECTOR], pattern(7, 11, 2));
        assert_ne!(pattern(8, 10, 4), whole);
        let words: std::collections::BTreeSet<_> = whole.chunks(8).collect();
        assert_eq!(words.len(), 4 * SECTOR / 8);
    }

    #[test]
    fn a_sum_sees_order_length_and_every_byte() {
        let data = pattern(1, 0, 1);
        let mut other = data.clone();
        other.rotate_left(8);
        assert_ne!(checksum(&data), checksum(&other));
        assert_ne!(checksum(&[0; 512]), checksum(&[0; 1024]));
        let mut flipped = data.clone();
        flipped[511] ^= 1;
        assert_ne!(checksum(&data), checksum(&flipped));
    }
}
