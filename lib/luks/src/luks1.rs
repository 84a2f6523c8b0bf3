// SPDX-License-Identifier: BSD-2-Clause

//! LUKS1: one header of 592 bytes.

use crate::bytes::Fields;
use crate::error::damaged;
use crate::header::{Af, Area, Digest, Header, Keyslot, Priority, Segment, Slot, Version};
use crate::{Error, Kdf, SECTOR};

/// Bytes of the header.
pub const BYTES: usize = 592;
/// The bytes that a header begins with.
pub const MAGIC: &[u8] = b"LUKS\xba\xbe";

const KEYSLOTS: u32 = 8;
const ENABLED: u32 = 0x00ac_71f3;
const DISABLED: u32 = 0x0000_dead;
/// Bytes of the longest key that is taken.
pub const KEY: u32 = 512;
/// Bytes of the largest area that is read.
pub const AREA: u64 = 16 << 20;

/// Reads the header.
///
/// # Errors
/// [`Error::Damaged`].
pub fn parse(bytes: &[u8; BYTES]) -> Result<Header, Error> {
    let mut fields = Fields(bytes);
    let (_magic, _version) = (fields.bytes(6), fields.u16());
    let (name, mode, hash) = (fields.text(32), fields.text(32), fields.text(32));
    let (offset, key_bytes) = (fields.u32(), fields.u32());
    let (digest, salt, iterations) = (fields.bytes(20), fields.bytes(32), fields.u32());
    let uuid = fields.text(40);
    if name.is_empty() || hash.is_empty() {
        return damaged("it names no cipher or no hash");
    }
    if !(1..=KEY).contains(&key_bytes) {
        return damaged(format!("a key of {key_bytes} bytes"));
    }
    let key_bytes = key_bytes as usize;
    let cipher = if mode.is_empty() { name } else { format!("{name}-{mode}") };
    let mut keyslots = Vec::new();
    for number in 0..KEYSLOTS {
        let (state, iterations, salt) = (fields.u32(), fields.u32(), fields.bytes(32));
        let (at, stripes) = (fields.u32(), fields.u32());
        match state {
            ENABLED => {}
            DISABLED => continue,
            other => return damaged(format!("keyslot {number} is neither on nor off: {other:#x}")),
        }
        let bytes = key_bytes as u64 * u64::from(stripes);
        if stripes == 0 || bytes > AREA {
            return damaged(format!("keyslot {number} has {stripes} stripes"));
        }
        let offset = u64::from(at) * SECTOR;
        if offset < BYTES as u64 {
            return damaged(format!("keyslot {number} lies in the header"));
        }
        let area = Area { offset, bytes, cipher: cipher.clone(), key_bytes };
        let kdf = Kdf::Pbkdf2 { hash: hash.clone(), iterations, salt: salt.to_vec() };
        let slot = Slot { key_bytes, kdf, area, af: Af { stripes, hash: hash.clone() } };
        keyslots.push(Keyslot { number, priority: Priority::Normal, slot: Ok(slot) });
    }
    let digest = Digest {
        number: 0,
        keyslots: keyslots.iter().map(|slot| slot.number).collect(),
        segments: vec![0],
        hash,
        iterations,
        salt: salt.to_vec(),
        digest: digest.to_vec(),
    };
    let segment = Segment {
        number: 0,
        kind: "crypt".into(),
        offset: u64::from(offset) * SECTOR,
        bytes: None,
        cipher,
        iv_offset: 0,
        sector_bytes: 512,
        integrity: None,
        flags: Vec::new(),
    };
    Ok(Header {
        version: Version::One,
        uuid,
        label: String::new(),
        subsystem: String::new(),
        keyslots,
        digests: vec![digest],
        segments: vec![segment],
        tokens: Vec::new(),
        flags: Vec::new(),
        requirements: Vec::new(),
        copies: Vec::new(),
    })
}
