// SPDX-License-Identifier: BSD-2-Clause

//! AES, as a kernel has it, for the target `crypt`.

use alloc::boxed::Box;

use dm_sync::wipe;

/// Bytes in a block.
pub const BLOCK: usize = 16;

/// Room for round keys, in words of 8 bytes: 240 bytes that begin at a multiple of 16, wherever in
/// memory the words lie.
pub const ROOM: usize = 32;

/// The direction of a cipher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From plaintext to ciphertext.
    Encrypt,
    /// From ciphertext to plaintext.
    Decrypt,
}

/// The round keys of one key, for one way. Their form is the kernel's own. They stay where they
/// were made, since kernels want them aligned, and are wiped when they are dropped.
pub struct RoundKeys {
    /// The memory that the kernel's functions use.
    pub memory: Box<[u64; ROOM]>,
    /// The number of rounds, as the kernel counts them.
    pub rounds: u32,
    /// The way that they are for.
    pub way: Way,
}

impl RoundKeys {
    /// The schedule of a key of 16, 24 or 32 bytes; `None` for another size.
    pub fn new(aes: &dyn Aes, way: Way, key: &[u8]) -> Option<RoundKeys> {
        if ![16, 24, 32].contains(&key.len()) {
            return None;
        }
        let mut keys = RoundKeys { memory: Box::new([0; ROOM]), rounds: 0, way };
        aes.set_key(&mut keys, key);
        Some(keys)
    }
}

impl Drop for RoundKeys {
    fn drop(&mut self) {
        wipe(&mut self.memory[..]);
    }
}

/// The data that a cipher is given.
pub enum Data<'a> {
    /// Bytes that are replaced by the result.
    Here(&'a mut [u8]),
    /// Bytes that stay, and as many that the result goes to.
    Apart(&'a [u8], &'a mut [u8]),
}

impl Data<'_> {
    /// The number of bytes: of whole blocks, and of those that both sides have.
    pub fn len(&self) -> usize {
        let bytes = match self {
            Data::Here(data) => data.len(),
            Data::Apart(from, to) => from.len().min(to.len()),
        };
        bytes & !(BLOCK - 1)
    }

    /// `true` if there is not even a block.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A kernel's AES. It neither sleeps nor allocates, may be called on several CPUs at once, and uses
/// the FPU: by threads and soft interrupts, not from a hard one. The CPU takes no interrupts
/// meanwhile, so that a call should be for a disk's sector, not for much more.
///
/// Data is [`Data::len`] bytes; what is beyond stays.
pub trait Aes: Send + Sync {
    /// Makes the round keys of a key of 16, 24 or 32 bytes for `keys.way`.
    fn set_key(&self, keys: &mut RoundKeys, key: &[u8]);

    /// Turns one block into another.
    fn block(&self, keys: &RoundKeys, block: &mut [u8; BLOCK]);

    /// CBC. `iv` comes back as the last block of ciphertext.
    fn cbc(&self, keys: &RoundKeys, data: Data<'_>, iv: &mut [u8; BLOCK]);

    /// XTS. `tweak` comes encrypted with the second key, and goes back as that of the block that
    /// follows.
    fn xts(&self, keys: &RoundKeys, data: Data<'_>, tweak: &mut [u8; BLOCK]);
}
