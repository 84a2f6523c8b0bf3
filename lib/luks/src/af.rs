// SPDX-License-Identifier: BSD-2-Clause

//! The anti-forensic splitter: a key spread over many stripes, of which all are needed.

use zeroize::Zeroizing;

use crate::hash::Hash;

/// Puts a key of `key_bytes` together from its stripes; `split` has a whole number of them.
pub fn merge(split: &[u8], key_bytes: usize, hash: Hash) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(vec![0; key_bytes]);
    let mut stripes = split.chunks_exact(key_bytes.max(1)).peekable();
    while let Some(stripe) = stripes.next() {
        key.iter_mut().zip(stripe).for_each(|(to, from)| *to ^= from);
        if stripes.peek().is_some() {
            diffuse(&mut key, hash);
        }
    }
    key
}

/// Makes each byte depend on all of its block: block `n` becomes the hash of `n` and the block.
pub fn diffuse(key: &mut [u8], hash: Hash) {
    for (number, block) in (0_u32..).zip(key.chunks_mut(hash.bytes())) {
        let hashed = Zeroizing::new(hash.of(&[&number.to_be_bytes(), block]));
        block.iter_mut().zip(hashed.iter()).for_each(|(to, from)| *to = *from);
    }
}
