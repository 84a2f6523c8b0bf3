// SPDX-License-Identifier: BSD-2-Clause

//! The words of a crypt line: the cipher, and the features behind the component.

use core::fmt;

use super::iv::Iv;
use crate::Errno;
use crate::hash::Hash;
use crate::mistake::Mistake;
use crate::target::LineSpec;
use crate::units::DEV_BSIZE;

/// The largest sectors that are encrypted as one, in bytes.
const LARGEST: u32 = 4096;

/// Keys that a line's key may be cut into.
const PARTS: usize = 64;

/// The longest name of a cipher that is taken, in bytes.
const NAME: usize = 128;

/// A mistake of which no word is shown: it could be a key that stands in the wrong place.
pub(super) fn wrong(why: &'static str) -> Mistake {
    Mistake::new(Errno::EINVAL, why)
}

/// The way in which a cipher's blocks are chained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Chain {
    /// `cipher_null`: nothing is changed.
    Null,
    /// AES, each block by itself.
    Ecb,
    /// AES in CBC.
    Cbc,
    /// AES in XTS: half of the key is for the tweak.
    Xts,
}

/// The cipher as a table names it.
pub(super) struct Cipher {
    /// The word itself.
    name: alloc::string::String,
    pub(super) chain: Chain,
    pub(super) iv: Iv,
    /// The number of keys that the line's key is cut into; a power of two.
    pub(super) parts: usize,
}

impl Cipher {
    /// Reads the word.
    ///
    /// # Errors
    /// EINVAL, ENOENT for a cipher or hash that is not there.
    pub(super) fn new(name: &str, line: &LineSpec<'_>) -> Result<Cipher, Mistake> {
        if name.len() > NAME {
            return Err(wrong("the cipher's name is too long"));
        }
        let find = |hash: &str| line.hash(hash);
        let parsed = match name.strip_prefix("capi:") {
            Some(rest) => by_kernels_name(rest, &find)?,
            None => by_own_name(name, &find)?,
        };
        let (chain, iv, parts) = parsed;
        Ok(Cipher { name: name.into(), chain, iv, parts })
    }

    /// `true` if so many bytes can be the line's key.
    pub(super) fn takes_key_of(&self, bytes: usize) -> bool {
        let one = bytes / self.parts;
        match self.chain {
            Chain::Null => bytes == 0,
            _ if one.saturating_mul(self.parts) != bytes => false,
            Chain::Ecb | Chain::Cbc => matches!(one, 16 | 24 | 32),
            Chain::Xts => matches!(one, 32 | 48 | 64),
        }
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

type Find<'a> = &'a dyn Fn(&str) -> Option<&'static dyn Hash>;
type Parsed = (Chain, Iv, usize);

/// Reads a cipher spelled `NAME[:KEYS][-CHAIN[-IV[:OPTIONS]]]`.
fn by_own_name(name: &str, find: Find<'_>) -> Result<Parsed, Mistake> {
    if name.contains('(') {
        return Err(wrong("the cipher's name has parentheses, and no `capi:` before them"));
    }
    let (cipher, rest) = split(name, '-');
    let (cipher, keys) = split(cipher, ':');
    let (mode, iv) = rest.map_or((None, None), |rest| {
        let (mode, iv) = split(rest, '-');
        (Some(mode), iv)
    });
    let parts = match keys {
        None => 1,
        Some(keys) => {
            let digits = !keys.is_empty() && keys.bytes().all(|byte| byte.is_ascii_digit());
            let keys = digits.then(|| keys.parse().ok()).flatten();
            keys.filter(|keys: &usize| keys.is_power_of_two() && *keys <= PARTS)
                .ok_or_else(|| wrong("the number of keys is no power of two up to 64"))?
        }
    };
    let (mode, iv) = match (mode, iv) {
        // The spelling of the oldest tables.
        (None, _) | (Some("plain"), None) => ("cbc", Some("plain")),
        (Some(mode), iv) => (mode, iv),
    };
    if iv.is_none() && mode != "ecb" {
        return Err(wrong("the cipher has no way to make IVs"));
    }
    let chain = chain(cipher, mode)?;
    let (iv, options) = iv.map_or((None, None), |iv| {
        let (iv, options) = split(iv, ':');
        (Some(iv), options)
    });
    Ok((chain, self::iv(chain, iv, options, find)?, parts))
}

/// `CHAIN(NAME)-IV[:OPTIONS]`, as Linux's cryptographic interface has names.
fn by_kernels_name(name: &str, find: Find<'_>) -> Result<Parsed, Mistake> {
    let (name, options) = match name.rsplit_once(':') {
        Some((name, options)) => (name, Some(options)),
        None => (name, None),
    };
    let (name, iv) = match name.rsplit_once('-') {
        Some((name, iv)) => (name, Some(iv)),
        None => (name, None),
    };
    let inner = name.split_once('(').and_then(|(mode, rest)| Some((rest.strip_suffix(')')?, mode)));
    let (cipher, mode) = inner.ok_or_else(no_cipher)?;
    let chain = chain(cipher, mode)?;
    Ok((chain, self::iv(chain, iv, options, find)?, 1))
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(first, rest)| (first, Some(rest)))
}

fn no_cipher() -> Mistake {
    Mistake::new(Errno::ENOENT, "there is no such cipher: there are aes with xts, cbc or ecb")
}

fn chain(cipher: &str, mode: &str) -> Result<Chain, Mistake> {
    match (cipher, mode) {
        ("aes", "xts") => Ok(Chain::Xts),
        ("aes", "cbc") => Ok(Chain::Cbc),
        ("aes", "ecb") => Ok(Chain::Ecb),
        ("cipher_null", "ecb") => Ok(Chain::Null),
        _ => Err(no_cipher()),
    }
}

fn iv(
    chain: Chain,
    name: Option<&str>,
    options: Option<&str>,
    find: Find<'_>,
) -> Result<Iv, Mistake> {
    if matches!(chain, Chain::Null | Chain::Ecb) {
        // These chains take no IV: a name is ignored.
        return Ok(Iv::Null);
    }
    match name {
        Some("plain") => Ok(Iv::Plain),
        Some("plain64") => Ok(Iv::Plain64),
        Some("plain64be") => Ok(Iv::Plain64Be),
        Some("benbi") => Ok(Iv::Benbi),
        Some("null") => Ok(Iv::Null),
        Some("eboiv") => Ok(Iv::Eboiv),
        Some("essiv") => {
            let name = options.ok_or_else(|| wrong("essiv wants the name of a hash"))?;
            let missing = || Mistake::new(Errno::ENOENT, "there is no such hash for essiv");
            let hash = find(name).ok_or_else(missing)?;
            match hash.size() {
                16 | 24 | 32 => Ok(Iv::Essiv(hash)),
                // As Linux says it, which has no cipher of that name then.
                _ => Err(Mistake::new(Errno::ENOENT, "essiv's hash is not as long as a key")),
            }
        }
        None => Err(wrong("the cipher has no way to make IVs")),
        Some(_) => Err(wrong("there is no such way to make IVs")),
    }
}

/// The features of a line.
pub(super) struct Features {
    pub(super) allow_discards: bool,
    same_cpu: bool,
    submit_from_crypt: bool,
    no_read_queue: bool,
    no_write_queue: bool,
    /// Bytes that are encrypted as one.
    pub(super) sector_size: u32,
    /// Sectors of that size are what IVs count.
    pub(super) large: bool,
}

impl Features {
    /// Reads their number and as many words.
    ///
    /// # Errors
    /// EINVAL.
    pub(super) fn new(line: &mut LineSpec<'_>) -> Result<Features, Mistake> {
        let mut features = Features {
            allow_discards: false,
            same_cpu: false,
            submit_from_crypt: false,
            no_read_queue: false,
            no_write_queue: false,
            sector_size: DEV_BSIZE,
            large: false,
        };
        if line.params.left() == 0 {
            return Ok(features);
        }
        let count = hidden(line.params.number("the number of features is none"))?;
        if count > 8 {
            return Err(wrong("there are more than 8 features"));
        }
        // More words are ignored, as Linux does.
        if count > line.params.left() as u64 {
            return Err(wrong("there are fewer features than it is said"));
        }
        for _ in 0..count {
            features.add(line.params.word("a feature is missing")?)?;
        }
        Ok(features)
    }

    fn add(&mut self, word: &str) -> Result<(), Mistake> {
        let is = |name: &str| word.eq_ignore_ascii_case(name);
        let flag = match () {
            () if is("allow_discards") => &mut self.allow_discards,
            () if is("same_cpu_crypt") => &mut self.same_cpu,
            () if is("submit_from_crypt_cpus") => &mut self.submit_from_crypt,
            () if is("no_read_workqueue") => &mut self.no_read_queue,
            () if is("no_write_workqueue") => &mut self.no_write_queue,
            () if is("iv_large_sectors") => &mut self.large,
            () => {
                let size = word.strip_prefix("sector_size:");
                let size = size.ok_or_else(|| wrong("there is no such feature"))?;
                let digits = size.bytes().all(|byte| byte.is_ascii_digit());
                let size = digits.then(|| size.parse().ok()).flatten();
                let fits = |n: &u32| n.is_power_of_two() && (DEV_BSIZE..=LARGEST).contains(n);
                let wrong = || wrong("the sector size is no power of two from 512 to 4096");
                self.sector_size = size.filter(fits).ok_or_else(wrong)?;
                return Ok(());
            }
        };
        *flag = true;
        Ok(())
    }
}

/// A mistake without the words that it is about, which may be a key.
pub(super) fn hidden<T>(result: Result<T, Mistake>) -> Result<T, Mistake> {
    result.map_err(|mut mistake| {
        dm_sync::wipe_text(&mut mistake.about);
        mistake
    })
}

/// The number of features, and each behind a space; nothing if there are none.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.allow_discards, "allow_discards"),
            (self.same_cpu, "same_cpu_crypt"),
            (self.submit_from_crypt, "submit_from_crypt_cpus"),
            (self.no_read_queue, "no_read_workqueue"),
            (self.no_write_queue, "no_write_workqueue"),
        ];
        let large = self.sector_size != DEV_BSIZE;
        let named = || words.into_iter().filter(|(is_set, _)| *is_set);
        let count = named().count() as u32 + u32::from(large) + u32::from(self.large);
        if count == 0 {
            return Ok(());
        }
        write!(f, " {count}")?;
        named().try_for_each(|(_, word)| write!(f, " {word}"))?;
        if large {
            write!(f, " sector_size:{}", self.sector_size)?;
        }
        f.write_str(if self.large { " iv_large_sectors" } else { "" })
    }
}
