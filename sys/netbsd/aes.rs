// SPDX-License-Identifier: BSD-2-Clause

//! The kernel's AES: `<crypto/aes/aes.h>`, by way of ciphers.h, which says where it is from.
//!
//! The functions hold an FPU section (fpu_kern_enter) while they run: no interrupt comes to the
//! CPU, and the caller must not be in one itself.

use core::ffi::c_void;

use dm_core::aes::{Aes, BLOCK, Data, ROOM, RoundKeys, Way};

use super::sys;

/// The kernel's AES, which is there.
struct Kernel;

/// The kernel's AES, if it has one.
pub fn find() -> Option<&'static dyn Aes> {
    // SAFETY: looks whether functions are there.
    unsafe { sys::dm_shim_aes() }.then_some(&Kernel as &dyn Aes)
}

/// The first aligned place in the memory of round keys, where they begin. It is always the same,
/// for the memory stays where it is.
fn start(memory: *mut u64) -> *mut c_void {
    const { assert!(ROOM * size_of::<u64>() >= (sys::DM_AES_KEYS + sys::DM_AES_ALIGN) as usize - 8) };
    memory.wrapping_add(memory.align_offset(sys::DM_AES_ALIGN as usize)).cast()
}

/// The round keys as C has them, which only reads them.
fn made(keys: &RoundKeys) -> *mut c_void {
    start(keys.memory.as_ptr().cast_mut())
}

fn decrypts(keys: &RoundKeys) -> bool {
    keys.way == Way::Decrypt
}

/// The two ends of a cipher's way, and the number of bytes.
fn ends(data: Data<'_>) -> (*const u8, *mut u8, usize) {
    let bytes = data.len();
    match data {
        Data::Here(data) => {
            let here = data.as_mut_ptr();
            (here, here, bytes)
        }
        Data::Apart(from, to) => (from.as_ptr(), to.as_mut_ptr(), bytes),
    }
}

impl Aes for Kernel {
    fn set_key(&self, keys: &mut RoundKeys, key: &[u8]) {
        let decrypts = decrypts(keys);
        let memory = start(keys.memory.as_mut_ptr());
        // SAFETY: the memory is ours, aligned, and has room for round keys behind the first aligned
        // place; the key has as many bytes as it is said to have.
        keys.rounds =
            unsafe { sys::dm_shim_aes_setkey(decrypts, memory, key.as_ptr(), key.len() as _) };
    }

    fn block(&self, keys: &RoundKeys, block: &mut [u8; BLOCK]) {
        let (memory, block) = (made(keys), block.as_mut_ptr());
        // SAFETY: `set_key` made the keys, which are only read; the block is ours, and may be where
        // the result goes.
        unsafe { sys::dm_shim_aes_block(decrypts(keys), memory, keys.rounds, block, block) }
    }

    fn cbc(&self, keys: &RoundKeys, data: Data<'_>, iv: &mut [u8; BLOCK]) {
        let (memory, (from, to, bytes)) = (made(keys), ends(data));
        // The functions want a block at least.
        if bytes == 0 {
            return;
        }
        // SAFETY: `set_key` made the keys, which are only read; both ends have so many bytes, and
        // they are the same memory or none of it.
        unsafe {
            let iv = iv.as_mut_ptr();
            sys::dm_shim_aes_cbc(decrypts(keys), memory, keys.rounds, from, to, bytes as _, iv);
        }
    }

    fn xts(&self, keys: &RoundKeys, data: Data<'_>, tweak: &mut [u8; BLOCK]) {
        let (memory, (from, to, bytes)) = (made(keys), ends(data));
        if bytes == 0 {
            return;
        }
        // SAFETY: `set_key` made the keys, which are only read; both ends have so many bytes, and
        // they are the same memory or none of it.
        unsafe {
            let tweak = tweak.as_mut_ptr();
            sys::dm_shim_aes_xts(decrypts(keys), memory, keys.rounds, from, to, bytes as _, tweak);
        }
    }
}
