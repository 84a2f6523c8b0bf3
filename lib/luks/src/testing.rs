// SPDX-License-Identifier: BSD-2-Clause

//! Disks made up for tests and fuzzers: small, quick to unlock, and with right checksums.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cipher::{Spelling, Way};
use crate::hash::Hash;
use crate::luks2::{BINARY, CHECKSUM, SECOND_MAGIC};
use crate::{VolumeKey, af, luks1};

/// Bytes of each copy of the header of [`luks2`].
pub const HEADER: usize = 0x4000;
/// The place of the only keyslot's area in [`sample1`] and [`sample2`].
pub const AREA: usize = 2 * HEADER;
/// The place of the samples' data.
pub const DATA: usize = AREA + 4096;
/// Stripes of their keyslot.
pub const STRIPES: usize = 8;
/// The samples' passphrase.
pub const PASSPHRASE: &[u8] = b"open sesame";
/// Their volume key.
pub const KEY: [u8; 32] = *b"0123456789abcdef0123456789ABCDEF";

/// A key of so many bytes that no disk has.
pub fn made_up_key(bytes: usize) -> VolumeKey {
    VolumeKey::made_up(bytes)
}

/// Decrypts data that begin with the first sector of a payload, in sectors of 512 bytes.
///
/// # Errors
/// As those of ciphers that are not known.
pub fn decrypt(cipher: &str, key: &[u8], data: &mut [u8]) -> Result<(), crate::Error> {
    Spelling::parse(cipher)?.run(key, data, Way::Decrypt)
}

/// Splits a key into stripes, as the splitter's other half.
fn split(key: &[u8], stripes: usize, hash: Hash) -> Vec<u8> {
    let mut all = Vec::new();
    let mut sum = vec![0; key.len()];
    for number in 1..stripes {
        let stripe: Vec<u8> =
            (0..key.len()).map(|at| (at * 7 + number * 31) as u8 ^ 0xa5).collect();
        sum.iter_mut().zip(&stripe).for_each(|(to, from)| *to ^= from);
        af::diffuse(&mut sum, hash);
        all.extend(stripe);
    }
    all.extend(key.iter().zip(&sum).map(|(key, sum)| key ^ sum));
    all
}

/// The area of a keyslot: whole sectors.
fn area(cipher: &str, derived: &[u8], hash: Hash) -> Vec<u8> {
    let mut area = split(&KEY, STRIPES, hash);
    area.resize(area.len().next_multiple_of(512), 0);
    if let Ok(cipher) = Spelling::parse(cipher) {
        cipher.run(derived, &mut area, Way::Encrypt).unwrap_or_default();
    }
    area
}

fn put(disk: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if disk.len() < end {
        disk.resize(end, 0);
    }
    disk[at..end].copy_from_slice(bytes);
}

/// A disk with this JSON in both copies of its header, and `sequence` in the first and in the second.
pub fn luks2(json: &[u8], sequence: [u64; 2]) -> Vec<u8> {
    let mut disk = vec![0; DATA + 4096];
    for (at, sequence) in [0, HEADER].into_iter().zip(sequence) {
        put(&mut disk, at, if at == 0 { luks1::MAGIC } else { SECOND_MAGIC });
        put(&mut disk, at + 6, &2_u16.to_be_bytes());
        put(&mut disk, at + 8, &(HEADER as u64).to_be_bytes());
        put(&mut disk, at + 16, &sequence.to_be_bytes());
        put(&mut disk, at + 24, b"a label");
        put(&mut disk, at + 72, b"sha256");
        put(&mut disk, at + 168, b"7f0a6a5c-0001-4000-8000-00805f9b34fb");
        put(&mut disk, at + 256, &(at as u64).to_be_bytes());
        let json = &json[..json.len().min(HEADER - BINARY - 1)];
        put(&mut disk, at + BINARY, json);
    }
    checksum(&mut disk);
    disk
}

/// Makes the checksums of both copies right.
pub fn checksum(disk: &mut [u8]) {
    for at in [0, HEADER] {
        if let Some(copy) = disk.get_mut(at..at + HEADER) {
            copy[CHECKSUM].fill(0);
            let sum = Hash::Sha256.of(&[copy]);
            copy[CHECKSUM][..sum.len()].copy_from_slice(&sum);
        }
    }
}

/// The JSON of [`sample2`].
pub fn json(kdf: &Value) -> Value {
    let mut digest = [0; 32];
    Hash::Sha256.pbkdf2(&KEY, b"salt of digest", 2, &mut digest);
    json!({
        "keyslots": {
            "1": {
                "type": "luks2", "key_size": KEY.len(), "priority": 2,
                "af": { "type": "luks1", "stripes": STRIPES, "hash": "sha256" },
                "area": {
                    "type": "raw", "offset": AREA.to_string(), "size": "4096",
                    "encryption": "aes-xts-plain64", "key_size": 32
                },
                "kdf": kdf
            }
        },
        "tokens": { "0": { "type": "systemd-tpm2", "keyslots": ["1"] } },
        "segments": {
            "0": {
                "type": "crypt", "offset": DATA.to_string(), "size": "dynamic", "iv_tweak": "0",
                "encryption": "aes-xts-plain64", "sector_size": 512
            }
        },
        "digests": {
            "0": {
                "type": "pbkdf2", "keyslots": ["1"], "segments": ["0"], "hash": "sha256",
                "iterations": 2, "salt": STANDARD.encode("salt of digest"),
                "digest": STANDARD.encode(digest)
            }
        },
        "config": { "json_size": "12288", "keyslots_size": "4096", "flags": ["allow-discards"] }
    })
}

/// A LUKS2 disk with a keyslot that [`PASSPHRASE`] opens.
pub fn sample2() -> Vec<u8> {
    let salt = STANDARD.encode("salt of keyslot");
    let kdf = json!({ "type": "pbkdf2", "hash": "sha256", "iterations": 3, "salt": salt });
    let mut derived = [0; 32];
    Hash::Sha256.pbkdf2(PASSPHRASE, b"salt of keyslot", 3, &mut derived);
    let mut disk = luks2(json(&kdf).to_string().as_bytes(), [5, 5]);
    put(&mut disk, AREA, &area("aes-xts-plain64", &derived, Hash::Sha256));
    disk
}

/// A LUKS1 disk with a keyslot, number 2, that [`PASSPHRASE`] opens.
pub fn sample1() -> Vec<u8> {
    let (mut derived, mut digest) = ([0; 32], [0; 20]);
    let [salt, other] = [[0x11; 32], [0x22; 32]];
    Hash::Sha1.pbkdf2(PASSPHRASE, &salt, 3, &mut derived);
    Hash::Sha1.pbkdf2(&KEY, &other, 2, &mut digest);
    let mut disk = vec![0; DATA + 4096];
    put(&mut disk, 0, luks1::MAGIC);
    put(&mut disk, 6, &1_u16.to_be_bytes());
    put(&mut disk, 8, b"aes");
    put(&mut disk, 40, b"cbc-essiv:sha256");
    put(&mut disk, 72, b"sha1");
    put(&mut disk, 104, &(DATA as u32 / 512).to_be_bytes());
    put(&mut disk, 108, &(KEY.len() as u32).to_be_bytes());
    put(&mut disk, 112, &digest);
    put(&mut disk, 132, &other);
    put(&mut disk, 164, &2_u32.to_be_bytes());
    put(&mut disk, 168, b"7f0a6a5c-0001-4000-8000-00805f9b34fb");
    for number in 0..8 {
        let at = 208 + number * 48;
        let state: u32 = if number == 2 { 0x00ac_71f3 } else { 0x0000_dead };
        put(&mut disk, at, &state.to_be_bytes());
        put(&mut disk, at + 4, &3_u32.to_be_bytes());
        put(&mut disk, at + 8, &salt);
        put(&mut disk, at + 40, &(AREA as u32 / 512).to_be_bytes());
        put(&mut disk, at + 44, &(STRIPES as u32).to_be_bytes());
    }
    put(&mut disk, AREA, &area("aes-cbc-essiv:sha256", &derived, Hash::Sha1));
    disk
}
