// SPDX-License-Identifier: BSD-2-Clause

//! AES (sys/crypto/aes), on RustCrypto.
//!
//! Simpler than NetBSD: where the kernel keeps round keys, the key itself is kept, and the round keys
//! are made anew by each call. As strict as NetBSD with DIAGNOSTIC, and stricter: keys must be aligned,
//! data must be whole blocks, and the caller must be a thread or a soft interrupt, since the kernel's
//! functions use the FPU.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use dm_ciphers::{BLOCK, Way, cbc, ecb, xts};

use crate::console::kassert;
use crate::lwp;

/// `true` if the kernel has AES.
static THERE: AtomicBool = AtomicBool::new(true);

pub(crate) fn configure(there: bool) {
    THERE.store(there, Ordering::SeqCst);
}

/// `true` if the kernel has AES: a Unix linker cannot leave the functions out for one machine only.
#[unsafe(no_mangle)]
extern "C" fn dm_hosted_aes() -> bool {
    THERE.load(Ordering::SeqCst)
}

thread_local! {
    /// Bytes that this thread has had ciphers work on.
    static BYTES: Cell<u64> = const { Cell::new(0) };
}

/// Bytes that the calling thread has had ciphers work on.
pub fn bytes_of_thread() -> u64 {
    BYTES.get()
}

/// The content of the memory for round keys.
#[repr(C, align(16))]
struct Keys {
    key: [u8; 32],
    length: u8,
    decrypts: bool,
}

/// Stores a key, and returns the number of rounds.
///
/// # Safety
/// `keys` has room for 240 bytes, `key` has `length`.
unsafe fn set(keys: *mut c_void, key: *const u8, length: usize, decrypts: bool) -> u32 {
    let keys = keys.cast::<Keys>();
    kassert!(keys.is_aligned(), "round keys that are not aligned to 16 bytes");
    let mut kept = Keys { key: [0; 32], length: length as u8, decrypts };
    // SAFETY: the caller's promise.
    unsafe {
        kept.key[..length].copy_from_slice(std::slice::from_raw_parts(key, length));
        keys.write(kept);
    }
    // FIPS 197: 10, 12 or 14.
    6 + length as u32 / 4
}

/// The stored key.
///
/// # Safety
/// `set` made it, and nobody changes it meanwhile.
unsafe fn kept<'a>(keys: *const c_void, rounds: u32, way: Way) -> &'a [u8] {
    // SAFETY: the caller's promise.
    let keys = unsafe { &*keys.cast::<Keys>() };
    kassert!(keys.decrypts == (way == Way::Decrypt), "round keys for the other way");
    kassert!(rounds == 6 + u32::from(keys.length) / 4, "{rounds} rounds");
    &keys.key[..keys.length.into()]
}

/// Copies data to its destination, and calls `run` on it there with the key and the IV.
///
/// # Safety
/// The pointers are as NetBSD's functions have them; the two ends of the data are the same or apart.
unsafe fn run(
    (keys, rounds, way): (*const c_void, u32, Way),
    (from, to, bytes): (*const u8, *mut u8, usize),
    iv: *mut [u8; BLOCK],
    run: impl FnOnce(&[u8], &mut [u8], &mut [u8; BLOCK]),
) {
    kassert!(bytes > 0 && bytes.is_multiple_of(BLOCK), "{bytes} bytes for a cipher");
    let context = lwp::current().context();
    kassert!(context != lwp::Context::HardInterrupt, "the FPU in {context:?} context");
    BYTES.set(BYTES.get() + bytes as u64);
    // SAFETY: the caller's promise.
    unsafe {
        if !std::ptr::eq(from, to) {
            to.copy_from_nonoverlapping(from, bytes);
        }
        run(kept(keys, rounds, way), std::slice::from_raw_parts_mut(to, bytes), &mut *iv);
    }
}

macro_rules! set_key {
    ($($name:ident $length:literal $decrypts:literal;)*) => {$(
        #[doc = concat!(stringify!($name), ": <crypto/aes/aes.h>.")]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(keys: *mut c_void, key: *const u8) -> u32 {
            // SAFETY: the caller has keys and a key of this length, as the header says.
            unsafe { set(keys, key, $length, $decrypts) }
        }
    )*};
}

set_key! {
    aes_setenckey128 16 false;
    aes_setenckey192 24 false;
    aes_setenckey256 32 false;
    aes_setdeckey128 16 true;
    aes_setdeckey192 24 true;
    aes_setdeckey256 32 true;
}

macro_rules! block {
    ($($name:ident $way:ident;)*) => {$(
        #[doc = concat!(stringify!($name), ": <crypto/aes/aes.h>.")]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(keys: *const c_void, from: *const u8, to: *mut u8, rounds: u32) {
            let (keys, data) = ((keys, rounds, Way::$way), (from, to, BLOCK));
            let mut none = [0; BLOCK];
            // SAFETY: the caller has keys and blocks, as the header says.
            unsafe { run(keys, data, &raw mut none, |key, data, _| ecb(Way::$way, key, data)) }
        }
    )*};
}

block! {
    aes_enc Encrypt;
    aes_dec Decrypt;
}

macro_rules! chain {
    ($($name:ident $function:ident $way:ident;)*) => {$(
        #[doc = concat!(stringify!($name), ": <crypto/aes/", stringify!($function), ".h>.")]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            keys: *mut c_void,
            from: *const u8,
            to: *mut u8,
            bytes: usize,
            iv: *mut [u8; BLOCK],
            rounds: u32,
        ) {
            let (keys, data) = ((keys.cast_const(), rounds, Way::$way), (from, to, bytes));
            // SAFETY: the caller has keys, data and an IV, as the header says.
            unsafe { run(keys, data, iv, |key, data, iv| $function(Way::$way, key, data, iv)) }
        }
    )*};
}

chain! {
    aes_cbc_enc cbc Encrypt;
    aes_cbc_dec cbc Decrypt;
    aes_xts_enc xts Encrypt;
    aes_xts_dec xts Decrypt;
}
