// SPDX-License-Identifier: BSD-2-Clause

//! A header, of either version: LUKS1 is one digest and one segment.

use crate::Kdf;

/// The version of a header's format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// LUKS1: fields of fixed size, up to 8 keyslots.
    One,
    /// LUKS2: JSON, twice.
    Two,
}

/// The content of a header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The format of the header.
    pub version: Version,
    /// The UUID, as text.
    pub uuid: String,
    /// The label; empty if there is none.
    pub label: String,
    /// The subsystem, a second label; empty if there is none.
    pub subsystem: String,
    /// The keyslots in use, by number.
    pub keyslots: Vec<Keyslot>,
    /// Digests of keys, by which a right one is known.
    pub digests: Vec<Digest>,
    /// The stretches of the disk that hold data.
    pub segments: Vec<Segment>,
    /// Tokens: other ways to a passphrase.
    pub tokens: Vec<Token>,
    /// Flags that stay with the disk, such as `allow-discards`.
    pub flags: Vec<String>,
    /// Features without which a program may not change or use this disk, such as `online-reencrypt`.
    pub requirements: Vec<String>,
    /// The copies of a LUKS2 header, the one at the beginning first; LUKS1 has none.
    pub copies: Vec<Copy>,
}

/// A copy of a LUKS2 header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copy {
    /// Byte at which it stands.
    pub offset: u64,
    /// The copy's bytes, JSON included, and the sequence number that goes up with each change; or the fault of the
    /// copy.
    pub state: Result<(u64, u64), String>,
    /// `true` for the one that was read.
    pub used: bool,
}

/// A keyslot that is in use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keyslot {
    /// The keyslot's number.
    pub number: u32,
    /// When it is tried.
    pub priority: Priority,
    /// The key that it holds; or the name of its type, if that is none that holds a key.
    pub slot: Result<Slot, String>,
}

/// When a keyslot is tried, if none is named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Priority {
    /// Never.
    Ignore,
    /// After those of high priority.
    Normal,
    /// Tried first.
    High,
}

/// A key, as a keyslot holds it: split into stripes, encrypted with a key made from a passphrase.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Bytes of the volume key.
    pub key_bytes: usize,
    /// The function that makes the key of the area of a passphrase.
    pub kdf: Kdf,
    /// The area that the stripes are in.
    pub area: Area,
    /// The way in which the volume key was split.
    pub af: Af,
}

/// An encrypted area.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Area {
    /// The area's first byte.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
    /// The cipher, such as `aes-xts-plain64`.
    pub cipher: String,
    /// Bytes of the cipher's key.
    pub key_bytes: usize,
}

/// The anti-forensic splitter's parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Af {
    /// Number of stripes, each as long as the key.
    pub stripes: u32,
    /// The hash between them.
    pub hash: String,
}

/// A digest of a volume key: PBKDF2 of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digest {
    /// The digest's number.
    pub number: u32,
    /// Keyslots that hold this key.
    pub keyslots: Vec<u32>,
    /// Segments that this key opens.
    pub segments: Vec<u32>,
    /// The hash, such as `sha256`.
    pub hash: String,
    /// Iterations of PBKDF2.
    pub iterations: u32,
    /// The salt.
    pub salt: Vec<u8>,
    /// The digest.
    pub digest: Vec<u8>,
}

/// A part of the disk that holds data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The segment's number.
    pub number: u32,
    /// `crypt`, `linear`, or what else there may be.
    pub kind: String,
    /// The segment's first byte.
    pub offset: u64,
    /// Bytes; without, up to the end of the disk.
    pub bytes: Option<u64>,
    /// The cipher, such as `aes-xts-plain64`.
    pub cipher: String,
    /// The number that the IV of its first sector has, in sectors of 512 bytes.
    pub iv_offset: u64,
    /// Bytes in a sector that is encrypted as one.
    pub sector_bytes: u32,
    /// The integrity mode of the data, if they are authenticated.
    pub integrity: Option<String>,
    /// Flags, such as `in-reencryption`.
    pub flags: Vec<String>,
}

/// A token: where a passphrase can be got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// The token's number.
    pub number: u32,
    /// The token's type, such as `systemd-tpm2`.
    pub kind: String,
    /// Keyslots that it opens.
    pub keyslots: Vec<u32>,
}

impl Header {
    /// The keyslot of this number, if it is in use.
    pub fn keyslot(&self, number: u32) -> Option<&Keyslot> {
        self.keyslots.iter().find(|slot| slot.number == number)
    }

    /// The digests of the keys that a keyslot holds.
    pub fn digests_of(&self, keyslot: u32) -> impl Iterator<Item = &Digest> {
        self.digests.iter().filter(move |digest| digest.keyslots.contains(&keyslot))
    }
}
