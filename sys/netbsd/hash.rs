// SPDX-License-Identifier: BSD-2-Clause

//! The hash functions of libkern(9): `<sys/sha1.h>`, `<sys/sha2.h>`, `<sys/rmd160.h>`,
//! `<sys/md5.h>`. They are C and use no FPU, so that any context may call them.

use dm_core::hash::{Digest, Hash};

use super::sys;

/// Bytes that one call of an update function is given: some count them in an `unsigned int`.
const AT_ONCE: usize = 1 << 30;

/// A hash function made of its three C functions, whose first argument is its context.
macro_rules! hash {
    ($ty:ident, $name:literal, $size:ident, $context:ident, $init:ident, $update:ident, $last:ident) => {
        struct $ty;

        impl Hash for $ty {
            fn name(&self) -> &'static str {
                $name
            }

            fn size(&self) -> usize {
                sys::$size as usize
            }

            fn digest(&self, parts: &[&[u8]], digest: &mut Digest) {
                const { assert!(sys::$size as usize <= dm_core::hash::LARGEST) };
                // SAFETY: a context is numbers and bytes.
                let mut context: sys::$context = unsafe { core::mem::zeroed() };
                let context = &raw mut context;
                // SAFETY: the context is this function's own and begun first; each call is given
                // memory of the length that it is told of, and room for the digest.
                unsafe {
                    sys::$init(context);
                    for part in parts.iter().flat_map(|part| part.chunks(AT_ONCE)) {
                        sys::$update(context, part.as_ptr(), part.len() as _);
                    }
                    sys::$last(digest.as_mut_ptr(), context);
                }
            }
        }
    };
}

hash!(Md5, "md5", MD5_DIGEST_LENGTH, MD5_CTX, MD5Init, MD5Update, MD5Final);
hash!(Rmd160, "rmd160", RMD160_DIGEST_LENGTH, RMD160_CTX, RMD160Init, RMD160Update, RMD160Final);
hash!(Sha1, "sha1", SHA1_DIGEST_LENGTH, SHA1_CTX, SHA1Init, SHA1Update, SHA1Final);
hash!(Sha224, "sha224", SHA224_DIGEST_LENGTH, SHA224_CTX, SHA224_Init, SHA224_Update, SHA224_Final);
hash!(Sha256, "sha256", SHA256_DIGEST_LENGTH, SHA256_CTX, SHA256_Init, SHA256_Update, SHA256_Final);
hash!(Sha384, "sha384", SHA384_DIGEST_LENGTH, SHA384_CTX, SHA384_Init, SHA384_Update, SHA384_Final);
hash!(Sha512, "sha512", SHA512_DIGEST_LENGTH, SHA512_CTX, SHA512_Init, SHA512_Update, SHA512_Final);

/// All hash functions.
static HASHES: [&dyn Hash; 7] = [&Md5, &Rmd160, &Sha1, &Sha224, &Sha256, &Sha384, &Sha512];

/// The hash function of this name, if there is one.
pub fn find(name: &str) -> Option<&'static dyn Hash> {
    HASHES.into_iter().find(|hash| hash.name() == name)
}
