// SPDX-License-Identifier: BSD-2-Clause

//! The keys of a crypt line, and the round keys made of them. All of them are wiped when they are
//! dropped, and essiv's hash of a key when its round keys are made.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use dm_sync::wipe;

use super::iv::Iv;
use super::words::{Chain, Cipher};
use crate::aes::{Aes, BLOCK, Data, RoundKeys, Way};
use crate::hash;

/// A key in bytes.
pub(super) struct Secret(Box<[u8]>);

impl Secret {
    /// Reads hexadecimal digits, of both cases; `-` for no key at all. `None` if it is something
    /// else.
    pub(super) fn parse(text: &str) -> Option<Secret> {
        if text == "-" {
            return Some(Secret([].into()));
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        // Whole at once: what grows leaves what it had behind.
        let mut secret = Secret(alloc::vec![0; pairs.len()].into());
        for (byte, [high, low]) in secret.0.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        rest.is_empty().then_some(secret)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// A key as a table has it; one that is not to be shown is zeroes.
pub(super) struct Digits<'a> {
    pub(super) keys: Option<&'a Keys>,
    pub(super) bytes: usize,
}

impl fmt::Display for Digits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes == 0 {
            return f.write_str("-");
        }
        match self.keys {
            Some(keys) => keys.secret.0.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            None => (0..self.bytes).try_for_each(|_| f.write_str("00")),
        }
    }
}

/// A line's key, and the round keys made of it.
pub(super) struct Keys {
    secret: Secret,
    parts: Box<[Part]>,
}

/// A part of a line's key, of those that it is cut into.
pub(super) struct Part {
    encrypt: RoundKeys,
    decrypt: RoundKeys,
    /// The schedule that encrypts XTS's tweak.
    tweak: Option<RoundKeys>,
    /// The schedule that encrypts essiv's IVs.
    salt: Option<RoundKeys>,
}

impl Keys {
    /// Makes the round keys. `None` if the key is not of the cipher's size.
    pub(super) fn new(aes: &dyn Aes, cipher: &Cipher, secret: Secret) -> Option<Keys> {
        if !cipher.takes_key_of(secret.len()) {
            return None;
        }
        let mut parts = Vec::new();
        if cipher.chain != Chain::Null {
            let bytes = secret.len().checked_div(cipher.parts)?;
            for key in secret.0.chunks_exact(bytes) {
                parts.push(Part::new(aes, cipher, key)?);
            }
        }
        Some(Keys { secret, parts: parts.into() })
    }

    /// Bytes that those of a cipher take.
    pub(super) fn room(cipher: &Cipher) -> usize {
        const ROUND_KEYS: usize = 256;
        cipher.parts.saturating_mul(size_of::<Part>().saturating_add(4 * ROUND_KEYS))
    }

    /// The key of a sector; `None` for the cipher that has none.
    pub(super) fn part(&self, sector: u64) -> Option<&Part> {
        let last = self.parts.len().checked_sub(1)?;
        // There is a power of two of parts.
        self.parts.get(sector as usize & last)
    }
}

impl Part {
    fn new(aes: &dyn Aes, cipher: &Cipher, key: &[u8]) -> Option<Part> {
        let (data, tweak) = match cipher.chain {
            Chain::Xts => {
                let (data, tweak) = key.split_at_checked(key.len() / 2)?;
                (data, Some(RoundKeys::new(aes, Way::Encrypt, tweak)?))
            }
            _ => (key, None),
        };
        let salt = match cipher.iv {
            Iv::Essiv(hash) => {
                let mut digest = [0; hash::LARGEST];
                hash.digest(&[key], &mut digest);
                let salt = digest.get(..hash.size());
                let salt = salt.and_then(|salt| RoundKeys::new(aes, Way::Encrypt, salt));
                wipe(&mut digest);
                Some(salt?)
            }
            _ => None,
        };
        let encrypt = RoundKeys::new(aes, Way::Encrypt, data)?;
        let decrypt = RoundKeys::new(aes, Way::Decrypt, data)?;
        Some(Part { encrypt, decrypt, tweak, salt })
    }

    /// Encrypts a sector.
    pub(super) fn encrypt(
        &self,
        aes: &dyn Aes,
        chain: Chain,
        data: Data<'_>,
        iv: &mut [u8; BLOCK],
    ) {
        self.run(aes, chain, &self.encrypt, data, iv);
    }

    /// Decrypts a sector.
    pub(super) fn decrypt(
        &self,
        aes: &dyn Aes,
        chain: Chain,
        data: Data<'_>,
        iv: &mut [u8; BLOCK],
    ) {
        self.run(aes, chain, &self.decrypt, data, iv);
    }

    fn run(
        &self,
        aes: &dyn Aes,
        chain: Chain,
        keys: &RoundKeys,
        data: Data<'_>,
        iv: &mut [u8; BLOCK],
    ) {
        match chain {
            Chain::Null => {}
            Chain::Ecb => each_block(data, |block| aes.block(keys, block)),
            Chain::Cbc => aes.cbc(keys, data, iv),
            Chain::Xts => {
                if let Some(tweak) = &self.tweak {
                    aes.block(tweak, iv);
                }
                aes.xts(keys, data, iv);
            }
        }
    }

    /// Encrypts an IV of essiv's.
    pub(super) fn salt(&self, aes: &dyn Aes, iv: &mut [u8; BLOCK]) {
        if let Some(salt) = &self.salt {
            aes.block(salt, iv);
        }
    }
}

/// Calls `change` with each block, where the result goes.
fn each_block(data: Data<'_>, mut change: impl FnMut(&mut [u8; BLOCK])) {
    let bytes = data.len();
    let result = match data {
        Data::Here(result) => result,
        Data::Apart(from, to) => {
            if let (Some(from), Some(to)) = (from.get(..bytes), to.get_mut(..bytes)) {
                to.copy_from_slice(from);
            }
            to
        }
    };
    let (blocks, _) = result.as_chunks_mut::<BLOCK>();
    blocks.iter_mut().take(bytes / BLOCK).for_each(&mut change);
}
