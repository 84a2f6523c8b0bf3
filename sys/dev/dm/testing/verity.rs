// SPDX-License-Identifier: BSD-2-Clause

//! Trees of digests for tests of the verity target, built the plain way: level by level from the
//! data up.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::hash;
use crate::hash::LARGEST;

/// The parameters of a tree, as a table has them.
#[derive(Clone, Debug)]
pub struct Format {
    /// The type: 0 or 1.
    pub kind: u32,
    /// Bytes in a data block.
    pub data_bytes: usize,
    /// Bytes in a hash block.
    pub hash_bytes: usize,
    /// The hash function's name.
    pub hash: &'static str,
    /// The salt of every digest.
    pub salt: Vec<u8>,
}

/// A tree over some data.
pub struct Built {
    /// The tree's blocks, from the top down; none over a single data block.
    pub tree: Vec<u8>,
    /// The digest of the top block, in hexadecimal.
    pub root: String,
}

/// The bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Format {
    /// The digest of a block.
    pub fn digest(&self, block: &[u8]) -> Vec<u8> {
        let hash = hash::find(self.hash).expect("a hash function");
        let mut digest = [0; LARGEST];
        match self.kind {
            0 => hash.digest(&[block, &self.salt], &mut digest),
            _ => hash.digest(&[&self.salt, block], &mut digest),
        }
        digest[..hash.size()].to_vec()
    }

    /// The tree over `data`, which is whole data blocks.
    pub fn build(&self, data: &[u8]) -> Built {
        let mut digests: Vec<Vec<u8>> =
            data.chunks(self.data_bytes).map(|block| self.digest(block)).collect();
        let mut tree = Vec::new();
        while digests.len() > 1 {
            // A block has a power of two of digests. Those of type 1 are padded to a power of two
            // of bytes.
            let size = digests[0].len();
            let mut per_block = 1;
            while per_block * 2 * size <= self.hash_bytes {
                per_block *= 2;
            }
            let step = if self.kind == 0 { size } else { self.hash_bytes / per_block };
            let mut level = Vec::new();
            for some in digests.chunks(per_block) {
                let mut block = Vec::new();
                for digest in some {
                    block.extend(digest);
                    block.resize(block.len() + step - size, 0);
                }
                block.resize(self.hash_bytes, 0);
                level.push(block);
            }
            digests = level.iter().map(|block| self.digest(block)).collect();
            tree.splice(0..0, level.concat());
        }
        Built { tree, root: hex(&digests[0]) }
    }

    /// The words of a table behind the two components, for a tree that begins at hash block
    /// `start`.
    pub fn words(&self, blocks: usize, start: u64, built: &Built) -> String {
        let Format { data_bytes, hash_bytes, hash, salt, .. } = self;
        let salt = if salt.is_empty() { "-".into() } else { hex(salt) };
        format!("{data_bytes} {hash_bytes} {blocks} {start} {hash} {} {salt}", built.root)
    }
}
