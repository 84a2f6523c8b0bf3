// SPDX-License-Identifier: BSD-2-Clause

//! Keys from passphrases.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use crate::hash::Hash;
use crate::{Error, Limits};

/// A function that makes a key of a passphrase.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kdf {
    /// PBKDF2 with HMAC.
    Pbkdf2 {
        /// The hash.
        hash: String,
        /// Iterations.
        iterations: u32,
        /// The salt.
        salt: Vec<u8>,
    },
    /// Argon2, version 1.3.
    Argon2 {
        /// The variant of Argon2.
        kind: Argon2Kind,
        /// Passes over the memory.
        time: u32,
        /// Memory in KiB.
        kib: u32,
        /// Lanes, each of which may be a thread.
        lanes: u32,
        /// The salt.
        salt: Vec<u8>,
    },
    /// A function that is not known here, by its name.
    Other(String),
}

/// The variant of argon2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Argon2Kind {
    /// argon2i
    I,
    /// argon2id
    Id,
}

impl Kdf {
    /// The name that headers have for it.
    pub fn name(&self) -> &str {
        match self {
            Kdf::Pbkdf2 { .. } => "pbkdf2",
            Kdf::Argon2 { kind: Argon2Kind::I, .. } => "argon2i",
            Kdf::Argon2 { kind: Argon2Kind::Id, .. } => "argon2id",
            Kdf::Other(name) => name,
        }
    }

    /// Makes a key of `bytes`, if that costs no more than `limits` allow.
    ///
    /// # Errors
    /// [`Error::Costly`], [`Error::NoMemory`], [`Error::Unsupported`]; [`Error::Damaged`] for parameters
    /// that make no sense.
    pub(crate) fn derive(
        &self,
        passphrase: &[u8],
        bytes: usize,
        limits: &Limits,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut key = Zeroizing::new(vec![0; bytes]);
        match self {
            Kdf::Pbkdf2 { hash, iterations, salt } => {
                let hash = Hash::wanted(hash)?;
                pbkdf2(hash, passphrase, salt, *iterations, &mut key, limits)?;
            }
            Kdf::Argon2 { kind, time, kib, lanes, salt } => {
                limits.argon2(*time, *kib, *lanes)?;
                let algorithm = match kind {
                    Argon2Kind::I => Algorithm::Argon2i,
                    Argon2Kind::Id => Algorithm::Argon2id,
                };
                let senseless = |error| Error::Damaged(format!("argon2: {error}"));
                let params = Params::new(*kib, *time, *lanes, Some(bytes)).map_err(senseless)?;
                let count = params.block_count();
                let mut memory = Zeroizing::new(Vec::new());
                memory.try_reserve_exact(count).map_err(|_| Error::NoMemory { kib: *kib })?;
                memory.resize(count, Block::new());
                let argon2 = Argon2::new(algorithm, Version::V0x13, params);
                argon2
                    .hash_password_into_with_memory(passphrase, salt, &mut key, &mut *memory)
                    .map_err(senseless)?;
            }
            Kdf::Other(name) => {
                return Err(Error::Unsupported(format!("keys derived by {name:?}")));
            }
        }
        Ok(key)
    }
}

/// PBKDF2 within limits.
///
/// # Errors
/// [`Error::Costly`]; [`Error::Damaged`] for no iterations.
pub fn pbkdf2(
    hash: Hash,
    secret: &[u8],
    salt: &[u8],
    iterations: u32,
    out: &mut [u8],
    limits: &Limits,
) -> Result<(), Error> {
    if iterations == 0 {
        return Err(Error::Damaged("PBKDF2 without iterations".into()));
    }
    limits.pbkdf2(iterations, out.len(), hash.bytes())?;
    hash.pbkdf2(secret, salt, iterations, out);
    Ok(())
}
