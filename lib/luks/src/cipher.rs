// SPDX-License-Identifier: BSD-2-Clause

//! Ciphers as headers spell them, and areas encrypted with them.

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::consts::U16;
use cbc::cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt,
    BlockSizeUser, InnerIvInit, KeyInit,
};
use serpent::Serpent;
use twofish::Twofish;
use xts_mode::Xts128;
use zeroize::Zeroizing;

use crate::Error;
use crate::hash::Hash;

/// Bytes in a sector of a keyslot's area.
const SECTOR: usize = 512;

type Iv = Array<u8, U16>;

/// A cipher, its mode, and how IVs are made: `aes-xts-plain64`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spelling {
    name: Name,
    mode: Mode,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    Aes,
    Serpent,
    Twofish,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Ecb,
    Cbc(IvKind),
    Xts(IvKind),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum IvKind {
    Plain,
    Plain64,
    Plain64be,
    Benbi,
    Null,
    Eboiv,
    Essiv(Hash),
}

/// The direction in which an area goes through a cipher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Decrypt,
    #[cfg_attr(not(any(test, feature = "testing")), expect(dead_code, reason = "only tests write"))]
    Encrypt,
}

/// `true` if this encrypts nothing.
pub fn is_null(text: &str) -> bool {
    text.split('-').next().is_some_and(|name| matches!(name, "cipher_null" | "null"))
}

impl Spelling {
    /// Reads a spelling.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn parse(text: &str) -> Result<Spelling, Error> {
        let unknown = || Error::Unsupported(format!("the cipher {text:?}"));
        let mut words = text.splitn(3, '-');
        let name = match words.next() {
            Some("aes") => Name::Aes,
            Some("serpent") => Name::Serpent,
            Some("twofish") => Name::Twofish,
            _ => return Err(unknown()),
        };
        let mode = words.next();
        let iv = match words.next() {
            None | Some("plain") => IvKind::Plain,
            Some("plain64") => IvKind::Plain64,
            Some("plain64be") => IvKind::Plain64be,
            Some("benbi") => IvKind::Benbi,
            Some("null") => IvKind::Null,
            Some("eboiv") => IvKind::Eboiv,
            Some(iv) => match iv.strip_prefix("essiv:") {
                Some(hash) => IvKind::Essiv(Hash::wanted(hash)?),
                None => return Err(unknown()),
            },
        };
        let given = text.bytes().filter(|byte| *byte == b'-').count() > 1;
        let mode = match mode {
            // As Linux reads a cipher that stands alone.
            None => Mode::Cbc(iv),
            // Its IVs, if it has some, are for nothing.
            Some("ecb") => Mode::Ecb,
            Some("cbc") if given => Mode::Cbc(iv),
            Some("xts") if given => Mode::Xts(iv),
            _ => return Err(unknown()),
        };
        Ok(Spelling { name, mode })
    }

    /// Decrypts or encrypts an area of whole sectors of 512 bytes, the first of which has the number 0.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the cipher has no key of that size; [`Error::Damaged`] for a part of a
    /// sector.
    pub fn run(&self, key: &[u8], area: &mut [u8], way: Way) -> Result<(), Error> {
        if !area.len().is_multiple_of(SECTOR) {
            return Err(Error::Damaged("an area is not made of whole sectors".into()));
        }
        let one = if matches!(self.mode, Mode::Xts(_)) { key.len() / 2 } else { key.len() };
        let odd = matches!(self.mode, Mode::Xts(_)) && !key.len().is_multiple_of(2);
        let done = match (self.name, one) {
            _ if odd => None,
            (Name::Aes, 16) => self.with::<Aes128>(key, area, way),
            (Name::Aes, 24) => self.with::<Aes192>(key, area, way),
            (Name::Aes, 32) => self.with::<Aes256>(key, area, way),
            (Name::Serpent, 16 | 24 | 32) => self.with::<Serpent>(key, area, way),
            (Name::Twofish, 16 | 24 | 32) => self.with::<Twofish>(key, area, way),
            _ => None,
        };
        done.ok_or_else(|| {
            Error::Unsupported(format!("{:?} with a key of {} bits", self.name, key.len() * 8))
        })
    }

    /// Encrypts or decrypts an area with the block cipher `C`; `None` if a key does not fit.
    fn with<C>(&self, key: &[u8], area: &mut [u8], way: Way) -> Option<()>
    where
        C: KeyInit
            + BlockSizeUser<BlockSize = U16>
            + BlockCipherDecrypt
            + BlockCipherEncrypt
            + Clone,
    {
        let sectors = (0_u64..).zip(area.chunks_exact_mut(SECTOR));
        match self.mode {
            Mode::Xts(iv) => {
                let (first, second) = key.split_at_checked(key.len() / 2)?;
                let (first, second) =
                    (C::new_from_slice(first).ok()?, C::new_from_slice(second).ok()?);
                let ivs = Ivs::new(self.name, iv, key)?;
                let xts = Xts128::new(first, second);
                sectors.for_each(|(number, sector)| match way {
                    Way::Decrypt => xts.decrypt_sector(sector, ivs.iv(number)),
                    Way::Encrypt => xts.encrypt_sector(sector, ivs.iv(number)),
                });
            }
            Mode::Cbc(iv) => {
                let cipher = C::new_from_slice(key).ok()?;
                let ivs = Ivs::new(self.name, iv, key)?;
                sectors.for_each(|(number, sector)| {
                    let (blocks, _) = Array::slice_as_chunks_mut(sector);
                    let iv = ivs.iv(number);
                    match way {
                        Way::Decrypt => cbc::Decryptor::inner_iv_init(cipher.clone(), &iv)
                            .decrypt_blocks(blocks),
                        Way::Encrypt => cbc::Encryptor::inner_iv_init(cipher.clone(), &iv)
                            .encrypt_blocks(blocks),
                    }
                });
            }
            Mode::Ecb => {
                let cipher = C::new_from_slice(key).ok()?;
                let (blocks, _) = Array::slice_as_chunks_mut(area);
                match way {
                    Way::Decrypt => cipher.decrypt_blocks(blocks),
                    Way::Encrypt => cipher.encrypt_blocks(blocks),
                }
            }
        }
        Some(())
    }
}

/// A maker of IVs.
struct Ivs {
    kind: IvKind,
    /// The cipher that they are encrypted with.
    cipher: Option<Box<dyn Encrypts>>,
}

/// A block cipher with a key.
trait Encrypts {
    fn encrypt(&self, block: &mut Iv);
}

impl<C: BlockSizeUser<BlockSize = U16> + BlockCipherEncrypt> Encrypts for C {
    fn encrypt(&self, block: &mut Iv) {
        self.encrypt_block(block);
    }
}

impl Ivs {
    /// `None` if the cipher has no key of that size.
    fn new(name: Name, kind: IvKind, key: &[u8]) -> Option<Ivs> {
        let cipher = match kind {
            // Its key is as long as the hash, whatever the key of the data has.
            IvKind::Essiv(hash) => Some(block_cipher(name, &Zeroizing::new(hash.of(&[key])))?),
            IvKind::Eboiv => Some(block_cipher(name, key)?),
            _ => None,
        };
        Some(Ivs { kind, cipher })
    }

    fn iv(&self, sector: u64) -> Iv {
        let mut iv = [0; 16];
        match self.kind {
            IvKind::Null => {}
            IvKind::Plain => put(&mut iv, 0, &(sector as u32).to_le_bytes()),
            IvKind::Plain64 | IvKind::Essiv(_) => put(&mut iv, 0, &sector.to_le_bytes()),
            IvKind::Plain64be => put(&mut iv, 8, &sector.to_be_bytes()),
            // The byte at which the sector begins.
            IvKind::Eboiv => put(&mut iv, 0, &(sector << 9).to_le_bytes()),
            // Blocks of 16 bytes, counted from 1.
            IvKind::Benbi => put(&mut iv, 8, &(sector << 5).wrapping_add(1).to_be_bytes()),
        }
        let mut iv = Array(iv);
        if let Some(cipher) = &self.cipher {
            cipher.encrypt(&mut iv);
        }
        iv
    }
}

/// A block cipher with a key; `None` if it has none of that size.
fn block_cipher(name: Name, key: &[u8]) -> Option<Box<dyn Encrypts>> {
    fn with<C>(key: &[u8]) -> Option<Box<dyn Encrypts>>
    where
        C: KeyInit + BlockSizeUser<BlockSize = U16> + BlockCipherEncrypt + 'static,
    {
        Some(Box::new(C::new_from_slice(key).ok()?))
    }
    match (name, key.len()) {
        (Name::Aes, 16) => with::<Aes128>(key),
        (Name::Aes, 24) => with::<Aes192>(key),
        (Name::Aes, 32) => with::<Aes256>(key),
        (Name::Serpent, 16 | 24 | 32) => with::<Serpent>(key),
        (Name::Twofish, 16 | 24 | 32) => with::<Twofish>(key),
        _ => None,
    }
}

fn put(iv: &mut [u8; 16], at: usize, bytes: &[u8]) {
    iv.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
}
