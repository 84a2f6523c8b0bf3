// SPDX-License-Identifier: BSD-2-Clause

//! The volume key, from a passphrase and the keyslots.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::bytes::ReadAt;
use crate::cipher::{self, Spelling, Way};
use crate::hash::Hash;
use crate::header::{Digest, Header, Keyslot, Priority, Slot};
use crate::kdf::pbkdf2;
use crate::{Error, Limits, SECTOR, af};

/// A volume key, and where it was found. Its memory is wiped when it is dropped; shown for debugging, it
/// has its size only.
pub struct VolumeKey {
    bytes: Zeroizing<Vec<u8>>,
    /// The keyslot that the passphrase opened.
    pub keyslot: u32,
    /// The digest that the key was found good by.
    pub digest: u32,
}

impl VolumeKey {
    /// The key itself.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn made_up(bytes: usize) -> VolumeKey {
        VolumeKey { bytes: Zeroizing::new(vec![0x5a; bytes]), keyslot: 0, digest: 0 }
    }
}

impl fmt::Debug for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VolumeKey({} bytes, keyslot {})", self.bytes.len(), self.keyslot)
    }
}

impl Header {
    /// Finds the volume key. The keyslot `slot` is tried, or all in the order of their priorities that are
    /// not to be ignored. Only keyslots of keys that open a segment are tried.
    ///
    /// # Errors
    /// [`Error::WrongKey`]; with `slot` also why just that one cannot be tried.
    pub fn unlock<D: ReadAt + ?Sized>(
        &self,
        disk: &D,
        passphrase: &[u8],
        slot: Option<u32>,
        limits: &Limits,
    ) -> Result<VolumeKey, Error> {
        if let Some(number) = slot {
            let keyslot = self.keyslot(number).ok_or(Error::NoSlot(number))?;
            let key = self.try_slot(disk, keyslot, passphrase, limits)?;
            return key.ok_or(Error::WrongKey { tried: 1, skipped: Vec::new() });
        }
        let mut slots: Vec<&Keyslot> =
            self.keyslots.iter().filter(|slot| slot.priority != Priority::Ignore).collect();
        slots.sort_by_key(|slot| (std::cmp::Reverse(slot.priority), slot.number));
        let (mut tried, mut skipped) = (0, Vec::new());
        for keyslot in slots {
            match self.try_slot(disk, keyslot, passphrase, limits) {
                Ok(Some(key)) => return Ok(key),
                Ok(None) => tried += 1,
                Err(why) => skipped.push((keyslot.number, why.to_string())),
            }
        }
        Err(Error::WrongKey { tried, skipped })
    }

    /// `None` if the passphrase is not that of this keyslot.
    fn try_slot<D: ReadAt + ?Sized>(
        &self,
        disk: &D,
        keyslot: &Keyslot,
        passphrase: &[u8],
        limits: &Limits,
    ) -> Result<Option<VolumeKey>, Error> {
        let number = keyslot.number;
        let slot = match &keyslot.slot {
            Ok(slot) => slot,
            Err(kind) => return Err(Error::Unsupported(format!("a keyslot of type {kind:?}"))),
        };
        let mut digests = self.digests_of(number).filter(|d| !d.segments.is_empty()).peekable();
        if digests.peek().is_none() {
            return Err(Error::Unsupported("its key opens no segment".into()));
        }
        let key = slot.key(disk, passphrase, limits)?;
        for digest in digests {
            if digest.is_of(&key, limits)? {
                return Ok(Some(VolumeKey { bytes: key, keyslot: number, digest: digest.number }));
            }
        }
        Ok(None)
    }
}

impl Slot {
    /// The key that the passphrase gives, be it right or wrong.
    fn key<D: ReadAt + ?Sized>(
        &self,
        disk: &D,
        passphrase: &[u8],
        limits: &Limits,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        if cipher::is_null(&self.area.cipher) {
            // Any passphrase would do, and whoever made the disk would know the key.
            return Err(Error::Unsupported("a keyslot that is not encrypted".into()));
        }
        let cipher = Spelling::parse(&self.area.cipher)?;
        let hash = Hash::wanted(&self.af.hash)?;
        let split = self.key_bytes as u64 * u64::from(self.af.stripes);
        let area = split.next_multiple_of(SECTOR);
        let end = self.area.offset.checked_add(area);
        if end.is_none_or(|end| disk.size().is_ok_and(|size| end > size)) {
            return Err(Error::Damaged("its area lies beyond the end of the disk".into()));
        }
        // At most 16 MiB, as was checked.
        let mut area = Zeroizing::new(vec![0; area as usize]);
        disk.read_at(self.area.offset, &mut area)?;
        let key = self.kdf.derive(passphrase, self.area.key_bytes, limits)?;
        cipher.run(&key, &mut area, Way::Decrypt)?;
        let split = area.get(..split as usize).unwrap_or_default();
        Ok(af::merge(split, self.key_bytes, hash))
    }
}

impl Digest {
    /// `true` if this is the digest of a key.
    fn is_of(&self, key: &[u8], limits: &Limits) -> Result<bool, Error> {
        let hash = Hash::wanted(&self.hash)?;
        if self.digest.len() < 16 {
            return Err(Error::Damaged(format!("digest {} is too short", self.number)));
        }
        let mut is = vec![0; self.digest.len()];
        pbkdf2(hash, key, &self.salt, self.iterations, &mut is, limits)?;
        Ok(is.ct_eq(&self.digest).into())
    }
}
