// SPDX-License-Identifier: BSD-2-Clause

//! Hashes by name, and PBKDF2 with them.

use blake2::{Blake2b512, Blake2s256};
use hmac::digest::{Digest, FixedOutput, Update};
use hmac::{Hmac, SimpleHmac};
use ripemd::Ripemd160;
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};
use sha3::{Sha3_224, Sha3_256, Sha3_384, Sha3_512};
use whirlpool::Whirlpool;

use crate::Error;

/// A hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hash {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha3_224,
    Sha3_256,
    Sha3_384,
    Sha3_512,
    Ripemd160,
    Whirlpool,
    Blake2b512,
    Blake2s256,
}

/// Evaluates an expression with `$h` standing for the hash's type: the first for hashes that HMAC can
/// prepare its key for, the second for others.
macro_rules! with {
    ($hash:expr, $h:ident => $body:expr) => {
        with!($hash, $h => $body, $body)
    };
    ($hash:expr, $h:ident => $eager:expr, $lazy:expr) => {
        match $hash {
            Hash::Sha1 => { type $h = Sha1; $eager }
            Hash::Sha224 => { type $h = Sha224; $eager }
            Hash::Sha256 => { type $h = Sha256; $eager }
            Hash::Sha384 => { type $h = Sha384; $eager }
            Hash::Sha512 => { type $h = Sha512; $eager }
            Hash::Sha3_224 => { type $h = Sha3_224; $eager }
            Hash::Sha3_256 => { type $h = Sha3_256; $eager }
            Hash::Sha3_384 => { type $h = Sha3_384; $eager }
            Hash::Sha3_512 => { type $h = Sha3_512; $eager }
            Hash::Ripemd160 => { type $h = Ripemd160; $eager }
            Hash::Whirlpool => { type $h = Whirlpool; $eager }
            Hash::Blake2b512 => { type $h = Blake2b512; $lazy }
            Hash::Blake2s256 => { type $h = Blake2s256; $lazy }
        }
    };
}

impl Hash {
    /// The hash that a header calls so.
    pub fn named(name: &str) -> Option<Hash> {
        Some(match name {
            "sha1" => Hash::Sha1,
            "sha224" => Hash::Sha224,
            "sha256" => Hash::Sha256,
            "sha384" => Hash::Sha384,
            "sha512" => Hash::Sha512,
            "sha3-224" => Hash::Sha3_224,
            "sha3-256" => Hash::Sha3_256,
            "sha3-384" => Hash::Sha3_384,
            "sha3-512" => Hash::Sha3_512,
            "ripemd160" => Hash::Ripemd160,
            "whirlpool" => Hash::Whirlpool,
            "blake2b-512" => Hash::Blake2b512,
            "blake2s-256" => Hash::Blake2s256,
            _ => return None,
        })
    }

    /// The hash of this name, as [`Hash::named`] has it.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn wanted(name: &str) -> Result<Hash, Error> {
        Hash::named(name).ok_or_else(|| Error::Unsupported(format!("the hash {name:?}")))
    }

    /// Bytes of its output.
    pub fn bytes(self) -> usize {
        with!(self, H => <H as Digest>::output_size())
    }

    /// The hash of these pieces, one after the other.
    pub fn of(self, pieces: &[&[u8]]) -> Vec<u8> {
        with!(self, H => {
            let mut hash = H::default();
            pieces.iter().for_each(|piece| Update::update(&mut hash, piece));
            hash.finalize_fixed().to_vec()
        })
    }

    /// Fills `out` by PBKDF2 with HMAC of this hash.
    pub fn pbkdf2(self, secret: &[u8], salt: &[u8], iterations: u32, out: &mut [u8]) {
        // The only error is of keys that HMAC does not take, and it takes all.
        let _ = with!(
            self,
            H => pbkdf2::pbkdf2::<Hmac<H>>(secret, salt, iterations, out),
            pbkdf2::pbkdf2::<SimpleHmac<H>>(secret, salt, iterations, out)
        );
    }
}
