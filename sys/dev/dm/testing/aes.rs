// SPDX-License-Identifier: BSD-2-Clause

//! AES for tests, on RustCrypto. `RoundKeys` holds the key itself, where a kernel has its round
//! keys.

use dm_ciphers::{cbc, ecb, xts};

use crate::aes::{Aes, BLOCK, Data, RoundKeys, Way};

/// AES, as RustCrypto has it.
pub struct Rust;

/// The `Rust` that tests hand to the driver.
pub static RUST: Rust = Rust;

/// The key that `set_key` has stored in `keys`, padded with zeroes, and its length in bytes.
fn key(keys: &RoundKeys) -> ([u8; 32], usize) {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_mut(8).zip(keys.memory.iter()) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    (key, keys.rounds as usize)
}

fn way(keys: &RoundKeys) -> dm_ciphers::Way {
    match keys.way {
        Way::Encrypt => dm_ciphers::Way::Encrypt,
        Way::Decrypt => dm_ciphers::Way::Decrypt,
    }
}

/// Runs a cipher in place, on a copy where `data` has source and destination apart.
fn run(keys: &RoundKeys, data: Data<'_>, run: impl FnOnce(&[u8], &mut [u8])) {
    let (bytes, (key, length)) = (data.len(), key(keys));
    let data = match data {
        Data::Here(data) => data,
        Data::Apart(from, to) => {
            to[..bytes].copy_from_slice(&from[..bytes]);
            to
        }
    };
    run(&key[..length], &mut data[..bytes]);
}

impl Aes for Rust {
    fn set_key(&self, keys: &mut RoundKeys, key: &[u8]) {
        for (word, bytes) in keys.memory.iter_mut().zip(key.chunks(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().expect("whole words"));
        }
        keys.rounds = key.len() as u32;
    }

    fn block(&self, keys: &RoundKeys, block: &mut [u8; BLOCK]) {
        run(keys, Data::Here(block), |key, data| ecb(way(keys), key, data));
    }

    fn cbc(&self, keys: &RoundKeys, data: Data<'_>, iv: &mut [u8; BLOCK]) {
        run(keys, data, |key, data| cbc(way(keys), key, data, iv));
    }

    fn xts(&self, keys: &RoundKeys, data: Data<'_>, tweak: &mut [u8; BLOCK]) {
        run(keys, data, |key, data| xts(way(keys), key, data, tweak));
    }
}
