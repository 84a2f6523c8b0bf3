// SPDX-License-Identifier: BSD-2-Clause

//! AES as NetBSD's kernel offers it to its disk drivers (sys/crypto/aes), on RustCrypto's
//! crate, which uses the processor's own instructions where it has them.
//!
//! The hosted kernel and dm-core's tests stand on this. NetBSD keeps round keys in a structure of 240
//! bytes; RustCrypto's take more and are made anew from the key for each call, which costs some tens
//! of nanoseconds. They are wiped when the call returns.
//!
//! XTS and CBC are written here: the tweak of NetBSD's functions comes encrypted and goes back
//! advanced, which no crate offers.

#![forbid(unsafe_code)]

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128Dec, Aes128Enc, Aes192Dec, Aes192Enc, Aes256Dec, Aes256Enc, Block};

#[cfg(test)]
mod tests;

/// Bytes in a block of AES.
pub const BLOCK: usize = 16;

/// Blocks that are handed to the cipher at once: it computes so many side by side.
const BATCH: usize = 32;

/// The direction of a cipher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From plaintext to ciphertext.
    Encrypt,
    /// From ciphertext to plaintext.
    Decrypt,
}

/// A cipher's function on blocks, in place.
type Blocks<'a> = &'a dyn Fn(&mut [Block]);

/// Calls `then` with the block function of a key.
///
/// # Panics
/// If the key does not have 16, 24 or 32 bytes.
fn with<R>(way: Way, key: &[u8], then: impl FnOnce(Blocks<'_>) -> R) -> R {
    macro_rules! run {
        ($cipher:ty, $run:ident) => {{
            let cipher = <$cipher>::new_from_slice(key).expect("the length was looked at");
            then(&|blocks: &mut [Block]| cipher.$run(blocks))
        }};
    }
    match (way, key.len()) {
        (Way::Encrypt, 16) => run!(Aes128Enc, encrypt_blocks),
        (Way::Encrypt, 24) => run!(Aes192Enc, encrypt_blocks),
        (Way::Encrypt, 32) => run!(Aes256Enc, encrypt_blocks),
        (Way::Decrypt, 16) => run!(Aes128Dec, decrypt_blocks),
        (Way::Decrypt, 24) => run!(Aes192Dec, decrypt_blocks),
        (Way::Decrypt, 32) => run!(Aes256Dec, decrypt_blocks),
        (_, length) => panic!("AES has no keys of {length} bytes"),
    }
}

/// The blocks of some data.
///
/// # Panics
/// If it is no whole number of blocks.
fn blocks(data: &mut [u8]) -> &mut [Block] {
    let (blocks, rest) = Block::slice_as_chunks_mut(data);
    assert!(rest.is_empty(), "{} bytes beyond whole blocks", rest.len());
    blocks
}

fn xor(block: &mut Block, with: &[u8; BLOCK]) {
    let mixed = u128::from_ne_bytes((*block).into()) ^ u128::from_ne_bytes(*with);
    *block = mixed.to_ne_bytes().into();
}

/// Encrypts or decrypts single blocks, each by itself (ECB).
pub fn ecb(way: Way, key: &[u8], data: &mut [u8]) {
    with(way, key, |run| run(blocks(data)));
}

/// Encrypts or decrypts data in CBC mode. `iv` comes back as what follows it: the last block of
/// ciphertext.
pub fn cbc(way: Way, key: &[u8], data: &mut [u8], iv: &mut [u8; BLOCK]) {
    let blocks = blocks(data);
    with(way, key, |run| match way {
        Way::Encrypt => {
            for block in blocks {
                xor(block, iv);
                run(core::slice::from_mut(block));
                *iv = (*block).into();
            }
        }
        Way::Decrypt => {
            for batch in blocks.chunks_mut(BATCH) {
                let mut before = [[0; BLOCK]; BATCH];
                for (before, block) in before.iter_mut().zip(&*batch) {
                    *before = core::mem::replace(iv, (*block).into());
                }
                run(batch);
                batch.iter_mut().zip(&before).for_each(|(block, before)| xor(block, before));
            }
        }
    });
}

/// Encrypts or decrypts data in XTS mode. `tweak` comes encrypted with the second key, and goes back
/// as the one of the block that follows.
pub fn xts(way: Way, key: &[u8], data: &mut [u8], tweak: &mut [u8; BLOCK]) {
    let blocks = blocks(data);
    let mut next = u128::from_le_bytes(*tweak);
    with(way, key, |run| {
        for batch in blocks.chunks_mut(BATCH) {
            let mut tweaks = [[0; BLOCK]; BATCH];
            for (tweak, block) in tweaks.iter_mut().zip(&mut *batch) {
                *tweak = next.to_le_bytes();
                xor(block, tweak);
                // Times x in GF(2^128), modulo x^128 + x^7 + x^2 + x + 1.
                next = (next << 1) ^ ((next >> 127) * 0x87);
            }
            run(batch);
            batch.iter_mut().zip(&tweaks).for_each(|(block, tweak)| xor(block, tweak));
        }
    });
    *tweak = next.to_le_bytes();
}
