// SPDX-License-Identifier: BSD-2-Clause

//! Cryptographic hash functions, as a kernel has them.

/// Bytes of the longest digest.
pub const LARGEST: usize = 64;

/// Room for a digest. A shorter one leaves the rest as it was.
pub type Digest = [u8; LARGEST];

/// A hash function. It neither sleeps nor allocates, and may be called on several CPUs at once.
pub trait Hash: Send + Sync {
    /// The function's name, as tables have it: `sha256`.
    fn name(&self) -> &'static str;

    /// Bytes of a digest; at most [`LARGEST`].
    fn size(&self) -> usize;

    /// Puts the digest of some bytes, which come in parts, at the start of `digest`.
    fn digest(&self, parts: &[&[u8]], digest: &mut Digest);
}
