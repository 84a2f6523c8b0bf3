// SPDX-License-Identifier: BSD-2-Clause

//! The hash functions of libkern(9): `<sys/sha1.h>`, `<sys/sha2.h>`, `<sys/rmd160.h>`, `<sys/md5.h>`, on
//! RustCrypto's, which use what the processor has for them.
//!
//! Contexts are NetBSD's, so that nothing is allocated: the state is handed to the block functions. A
//! context counts bytes, not bits as NetBSD's do; nothing but these functions looks at the count.

#![allow(non_snake_case, reason = "the kernel's names")]

use std::ffi::c_int;

use digest::block_api::UpdateCore;
use digest::common::hazmat::SerializableState;
use ripemd::block_api::Ripemd160Core;

use crate::netbsd as nb;

/// A context whose blocks have `N` bytes.
trait Context<const N: usize> {
    /// `true` if numbers are written with their high byte first.
    const BIG_ENDIAN: bool = true;
    /// The bytes of data so far.
    fn count(&self) -> u64;
    fn set_count(&mut self, count: u64);
    /// The last bytes of data, those that do not fill a block.
    fn buffer(&mut self) -> &mut [u8; N];
    /// Mixes blocks into the state.
    fn compress(&mut self, blocks: &[[u8; N]]);

    fn update(&mut self, mut data: &[u8]) {
        let used = (self.count() % N as u64) as usize;
        self.set_count(self.count() + data.len() as u64);
        if used > 0 {
            let (now, rest) = data.split_at(data.len().min(N - used));
            self.buffer()[used..used + now.len()].copy_from_slice(now);
            if used + now.len() < N {
                return;
            }
            let block = *self.buffer();
            self.compress(&[block]);
            data = rest;
        }
        let (blocks, rest) = data.as_chunks::<N>();
        self.compress(blocks);
        self.buffer()[..rest.len()].copy_from_slice(rest);
    }

    /// Appends the padding: a bit, zeroes up to the last eighth of a block, and the number of bits there.
    fn pad(&mut self) {
        let bits = self.count() * 8;
        let used = (self.count() % N as u64) as usize;
        let zeroes = (2 * N - used - 1 - N / 8) % N;
        self.update(&[0x80]);
        self.update(&[0; N][..zeroes]);
        let mut length = [0; N];
        let length = &mut length[..N / 8];
        match Self::BIG_ENDIAN {
            true => length[N / 8 - 8..].copy_from_slice(&bits.to_be_bytes()),
            false => length[..8].copy_from_slice(&bits.to_le_bytes()),
        }
        self.update(length);
    }
}

impl Context<64> for nb::MD5_CTX {
    const BIG_ENDIAN: bool = false;

    fn count(&self) -> u64 {
        u64::from(self.count[0]) | u64::from(self.count[1]) << 32
    }

    fn set_count(&mut self, count: u64) {
        self.count = [count as u32, (count >> 32) as u32];
    }

    fn buffer(&mut self) -> &mut [u8; 64] {
        &mut self.buffer
    }

    fn compress(&mut self, blocks: &[[u8; 64]]) {
        md5::block_api::compress(&mut self.state, blocks);
    }
}

impl Context<64> for nb::RMD160_CTX {
    const BIG_ENDIAN: bool = false;

    fn count(&self) -> u64 {
        self.count
    }

    fn set_count(&mut self, count: u64) {
        self.count = count;
    }

    fn buffer(&mut self) -> &mut [u8; 64] {
        &mut self.buffer
    }

    fn compress(&mut self, blocks: &[[u8; 64]]) {
        // The crate's block function is reached by way of a state that it has written: five words and a
        // count of blocks.
        let mut state = Ripemd160Core::default().serialize();
        for (bytes, word) in state.chunks_exact_mut(4).zip(&self.state) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut core = Ripemd160Core::deserialize(&state).expect("it has its size");
        for block in blocks {
            core.update_blocks(&[(*block).into()]);
        }
        for (bytes, word) in core.serialize().chunks_exact(4).zip(&mut self.state) {
            *word = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        }
    }
}

impl Context<64> for nb::SHA1_CTX {
    fn count(&self) -> u64 {
        u64::from(self.count[0]) | u64::from(self.count[1]) << 32
    }

    fn set_count(&mut self, count: u64) {
        self.count = [count as u32, (count >> 32) as u32];
    }

    fn buffer(&mut self) -> &mut [u8; 64] {
        &mut self.buffer
    }

    fn compress(&mut self, blocks: &[[u8; 64]]) {
        sha1::block_api::compress(&mut self.state, blocks);
    }
}

impl Context<64> for nb::SHA256_CTX {
    fn count(&self) -> u64 {
        self.bitcount
    }

    fn set_count(&mut self, count: u64) {
        self.bitcount = count;
    }

    fn buffer(&mut self) -> &mut [u8; 64] {
        &mut self.buffer
    }

    fn compress(&mut self, blocks: &[[u8; 64]]) {
        sha2::block_api::compress256(&mut self.state, blocks);
    }
}

impl Context<128> for nb::SHA512_CTX {
    fn count(&self) -> u64 {
        self.bitcount[0]
    }

    fn set_count(&mut self, count: u64) {
        self.bitcount[0] = count;
    }

    fn buffer(&mut self) -> &mut [u8; 128] {
        &mut self.buffer
    }

    fn compress(&mut self, blocks: &[[u8; 128]]) {
        sha2::block_api::compress512(&mut self.state, blocks);
    }
}

/// The three functions of a hash, whose contexts begin with a state and whose digests are of `$size` bytes.
macro_rules! hash {
    ($context:ident, $block:literal, $size:literal, $init:ident, $update:ident, $last:ident,
     $length:ty, $returns:ty = $value:expr, $state:expr) => {
        /// # Safety
        ///
        /// There is room for a context.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $init(context: *mut nb::$context) -> $returns {
            // SAFETY: the caller's promise; zeroes are a context.
            unsafe {
                context.write(std::mem::zeroed());
                (*context).state = $state;
            }
            $value
        }

        /// # Safety
        ///
        /// The context is one that was begun; `data` has `length` bytes.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $update(
            context: *mut nb::$context,
            data: *const u8,
            length: $length,
        ) -> $returns {
            if length > 0 {
                // SAFETY: the caller's promise.
                let data = unsafe { std::slice::from_raw_parts(data, length as usize) };
                // SAFETY: the caller's promise.
                Context::<$block>::update(unsafe { &mut *context }, data);
            }
            $value
        }

        /// # Safety
        ///
        /// The context is one that was begun; there is room for the digest.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $last(digest: *mut u8, context: *mut nb::$context) -> $returns {
            // SAFETY: the caller's promise.
            let context = unsafe { &mut *context };
            // SAFETY: the caller's promise.
            let digest = unsafe { std::slice::from_raw_parts_mut(digest, $size) };
            Context::<$block>::pad(context);
            const WORD: usize = size_of_val(&$state) / $state.len();
            for (bytes, word) in digest.chunks_mut(WORD).zip(context.state) {
                let word = match <nb::$context as Context<$block>>::BIG_ENDIAN {
                    true => word.to_be_bytes(),
                    false => word.to_le_bytes(),
                };
                bytes.copy_from_slice(&word[..bytes.len()]);
            }
            $value
        }
    };
}

/// The state in which MD5 begins; SHA-1 and RIPEMD-160 add a word.
const FOUR: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
const FIVE: [u32; 5] = [FOUR[0], FOUR[1], FOUR[2], FOUR[3], 0xc3d2_e1f0];

// The states of FIPS 180-4, 5.3.
const SHA224: [u32; 8] = [
    0xc105_9ed8,
    0x367c_d507,
    0x3070_dd17,
    0xf70e_5939,
    0xffc0_0b31,
    0x6858_1511,
    0x64f9_8fa7,
    0xbefa_4fa4,
];
const SHA256: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
const SHA384: [u64; 8] = [
    0xcbbb_9d5d_c105_9ed8,
    0x629a_292a_367c_d507,
    0x9159_015a_3070_dd17,
    0x152f_ecd8_f70e_5939,
    0x6733_2667_ffc0_0b31,
    0x8eb4_4a87_6858_1511,
    0xdb0c_2e0d_64f9_8fa7,
    0x47b5_481d_befa_4fa4,
];
const SHA512: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

hash!(MD5_CTX, 64, 16, MD5Init, MD5Update, MD5Final, u32, () = (), FOUR);
hash!(RMD160_CTX, 64, 20, RMD160Init, RMD160Update, RMD160Final, u32, () = (), FIVE);
hash!(SHA1_CTX, 64, 20, SHA1Init, SHA1Update, SHA1Final, u32, () = (), FIVE);
hash!(SHA224_CTX, 64, 28, SHA224_Init, SHA224_Update, SHA224_Final, usize, c_int = 1, SHA224);
hash!(SHA256_CTX, 64, 32, SHA256_Init, SHA256_Update, SHA256_Final, usize, c_int = 1, SHA256);
hash!(SHA384_CTX, 128, 48, SHA384_Init, SHA384_Update, SHA384_Final, usize, c_int = 1, SHA384);
hash!(SHA512_CTX, 128, 64, SHA512_Init, SHA512_Update, SHA512_Final, usize, c_int = 1, SHA512);
