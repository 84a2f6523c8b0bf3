// SPDX-License-Identifier: BSD-2-Clause

//! A line's parameters: read, checked, printed.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use super::tree::Tree;
use crate::hash::{Digest, Hash, LARGEST};
use crate::mistake::Mistake;
use crate::refusal::Shown;
use crate::target::{ComponentIndex, Devs, LineSpec};
use crate::units::DEV_BSIZE;
use crate::{Errno, Sector, limits};

/// The parameters of a verity line: the tree, and the data that it covers.
pub struct Params {
    /// The type of the tree: 1, or 0 as the first format had it.
    pub kind: u32,
    /// The component with the data, from its first sector on.
    pub data: ComponentIndex,
    /// The component with the tree.
    pub tree: ComponentIndex,
    /// Bytes in a data block.
    pub data_bytes: u32,
    /// Bytes in a hash block.
    pub hash_bytes: u32,
    /// The number of data blocks.
    pub blocks: u64,
    /// The hash block that the tree begins with.
    pub start: u64,
    /// The hash function.
    pub hash: &'static dyn Hash,
    /// The digest of the tree's first block.
    pub root: Digest,
    /// Bytes that each block is hashed with.
    pub salt: Box<[u8]>,
    /// The reaction to a block that is not the one that was hashed.
    pub mode: Mode,
    /// `ignore_zero_blocks`: blocks that are to be zeroes are not compared.
    pub ignore_zeroes: bool,
    /// `check_at_most_once`: a data block that was right once is not looked at again.
    pub once: bool,
}

/// The ways to take it that a block is not the one that was hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The read fails with EIO.
    Fail,
    /// The read gives the data, wrong as they are.
    Ignore,
    /// The machine starts anew.
    Restart,
    /// The machine panics.
    Panic,
}

impl Mode {
    /// The word for it in a table.
    fn word(self) -> Option<&'static str> {
        match self {
            Mode::Fail => None,
            Mode::Ignore => Some("ignore_corruption"),
            Mode::Restart => Some("restart_on_corruption"),
            Mode::Panic => Some("panic_on_corruption"),
        }
    }
}

fn invalid(why: &'static str) -> Mistake {
    Mistake::new(Errno::EINVAL, why)
}

/// Sectors of 512 bytes in so many blocks; `None` if no device has them.
fn sectors(blocks: u64, bytes: u32) -> Option<Sector> {
    let all = blocks.checked_mul(u64::from(bytes / DEV_BSIZE)).map(Sector);
    all.filter(|all| *all <= Sector::MAX)
}

impl Params {
    /// Reads a line's parameters, and the tree's shape.
    pub fn new(line: &mut LineSpec<'_>) -> Result<(Params, Tree), Mistake> {
        if !line.is_read_only() {
            return Err(invalid("a verity table must be loaded read-only"));
        }
        let kind = line.params.small_number("the type of the tree is not 0 or 1")?;
        if kind > 1 {
            return Err(invalid("the type of the tree is not 0 or 1").about(format_args!("{kind}")));
        }
        let (data, tree) = (line.params.path()?, line.params.path()?);
        let data_bytes = block_size(line)?;
        let hash_bytes = block_size(line)?;
        let blocks = line.params.number("the number of data blocks is no number")?;
        let start = line.params.number("the first hash block is no number")?;
        let hash = hash(line)?;
        let digest = hash.size();
        if digest.saturating_mul(2) > hash_bytes as usize {
            return Err(invalid("a hash block has no room for two digests"));
        }
        let root = line.params.word("the root's digest is missing")?;
        let root = hex(root).filter(|root| root.len() == digest).ok_or_else(|| {
            let about = format_args!("{} has {digest} bytes", hash.name());
            invalid("the root's digest is not one, in hexadecimal").about(about)
        })?;
        let salt = match line.params.word("the salt is missing")? {
            "-" => Vec::new(),
            word => hex(word).ok_or(invalid("the salt is not `-` or bytes in hexadecimal"))?,
        };
        let mut params = Params {
            kind,
            data: ComponentIndex(0),
            tree: ComponentIndex(0),
            data_bytes,
            hash_bytes,
            blocks,
            start,
            hash,
            root: digest_of(&root),
            salt: salt.into(),
            mode: Mode::Fail,
            ignore_zeroes: false,
            once: false,
        };
        params.options(line)?;
        line.params.end()?;
        let shape = params.open(line, data, tree)?;
        Ok((params, shape))
    }

    /// Opens the components, which must hold all data blocks of the line and the tree.
    fn open(&mut self, line: &mut LineSpec<'_>, data: &str, tree: &str) -> Result<Tree, Mistake> {
        let covered = sectors(self.blocks, self.data_bytes)
            .ok_or(invalid("there are more data blocks than any disk has"))?;
        if line.length > covered {
            return Err(invalid("the line is longer than its data blocks").about(format_args!(
                "{} sectors, and {} blocks have {covered}",
                line.length, self.blocks
            )));
        }
        if !line.length.is_aligned(self.data_bytes) {
            return Err(invalid("the line ends within a data block"));
        }
        self.data = line.component(data, Sector::ZERO, line.length)?;
        self.tree = line.component(tree, Sector::ZERO, Sector::ZERO)?;
        for (component, bytes) in [(self.data, self.data_bytes), (self.tree, self.hash_bytes)] {
            let sector = line.sector_size(component);
            if bytes < sector {
                return Err(invalid("a block is smaller than its component's sectors")
                    .about(format_args!("{bytes} bytes, and {sector}")));
            }
        }
        let too_big = |why| Mistake::new(Errno::E2BIG, why);
        if sectors(self.start, self.hash_bytes).is_none() {
            return Err(invalid("the tree begins beyond any disk"));
        }
        let (kind, digest) = (self.kind, self.hash.size());
        let shape = Tree::new(kind, self.blocks, self.start, self.hash_bytes, digest)
            .ok_or(too_big("the tree ends beyond any disk"))?;
        let (end, size) = (sectors(shape.end(), self.hash_bytes), line.size(self.tree));
        match end.filter(|end| *end <= size) {
            Some(_) => Ok(shape),
            None => Err(too_big("the tree ends beyond its component").about(format_args!(
                "hash block {} of {} bytes, and the component has {size} sectors",
                shape.end(),
                self.hash_bytes
            ))),
        }
    }

    /// Reads the words behind the salt.
    fn options(&mut self, line: &mut LineSpec<'_>) -> Result<(), Mistake> {
        if line.params.left() == 0 {
            return Ok(());
        }
        let count = line.params.small_number("the number of options is no number")?;
        for _ in 0..count {
            let word = line.params.word("an option is missing")?;
            let is = |name: &str| word.eq_ignore_ascii_case(name);
            let modes = [Mode::Ignore, Mode::Restart, Mode::Panic];
            if let Some(mode) = modes.into_iter().find(|mode| mode.word().is_some_and(is)) {
                if self.mode != Mode::Fail {
                    return Err(invalid("more than one option says what corruption leads to"));
                }
                self.mode = mode;
            } else if is("ignore_zero_blocks") {
                self.ignore_zeroes = true;
            } else if is("check_at_most_once") {
                self.once = true;
            } else if ["use_fec_from_device", "fec_roots", "fec_blocks", "fec_start"]
                .into_iter()
                .any(is)
            {
                return Err(invalid("error correction is not in this driver"));
            } else if is("root_hash_sig_key_desc") {
                return Err(invalid("signatures of the root are not in this driver"));
            } else {
                let about = format_args!("`{}`", Shown::word(word));
                return Err(invalid("no such option").about(about));
            }
        }
        Ok(())
    }

    /// Sectors of 512 bytes in a data block.
    pub fn data_sectors(&self) -> u64 {
        u64::from(self.data_bytes / DEV_BSIZE).max(1)
    }

    /// Sectors of 512 bytes in a hash block.
    pub fn hash_sectors(&self) -> u64 {
        u64::from(self.hash_bytes / DEV_BSIZE).max(1)
    }

    /// The digest of a block, with the salt.
    pub fn digest(&self, block: &[u8]) -> Digest {
        let mut digest = [0; LARGEST];
        match self.kind {
            0 => self.hash.digest(&[block, &self.salt], &mut digest),
            _ => self.hash.digest(&[&self.salt, block], &mut digest),
        }
        digest
    }

    /// Writes the parameters as `table` shows them.
    pub fn print(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        let Params { kind, data_bytes, hash_bytes, blocks, start, .. } = self;
        let (data, tree) = (devs.get(self.data), devs.get(self.tree));
        write!(out, "{kind} {data} {tree} {data_bytes} {hash_bytes} {blocks} {start} ")?;
        write!(out, "{} ", self.hash.name())?;
        let root = self.root.iter().take(self.hash.size());
        root.into_iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
        out.write_str(if self.salt.is_empty() { " -" } else { " " })?;
        self.salt.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
        let zeroes = self.ignore_zeroes.then_some("ignore_zero_blocks");
        let once = self.once.then_some("check_at_most_once");
        let options = [self.mode.word(), zeroes, once];
        match options.iter().flatten().count() {
            0 => Ok(()),
            count => {
                write!(out, " {count}")?;
                options.iter().flatten().try_for_each(|word| write!(out, " {word}"))
            }
        }
    }
}

/// Reads the size of a block.
fn block_size(line: &mut LineSpec<'_>) -> Result<u32, Mistake> {
    let bytes = line.params.small_number("the size of a block is not a number of bytes")?;
    match bytes.is_power_of_two() && (DEV_BSIZE..=limits::VERITY_BLOCK).contains(&bytes) {
        true => Ok(bytes),
        false => Err(invalid("the size of a block is wrong").about(format_args!(
            "{bytes} bytes, where a power of two is wanted from {DEV_BSIZE} to {}",
            limits::VERITY_BLOCK
        ))),
    }
}

/// Reads the name of a hash function.
fn hash(line: &mut LineSpec<'_>) -> Result<&'static dyn Hash, Mistake> {
    let name = line.params.word("the hash function is missing")?;
    line.hash(name).ok_or_else(|| {
        let about = format_args!("`{}`", Shown::word(name));
        Mistake::new(Errno::ENOENT, "the kernel has no such hash function").about(about)
    })
}

/// Reads bytes in hexadecimal.
fn hex(word: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = word.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| Some((digit(*high)? << 4 | digit(*low)?) as u8);
    pairs.iter().map(byte).collect()
}

/// The digest whose first bytes these are.
fn digest_of(bytes: &[u8]) -> Digest {
    let mut digest = [0; LARGEST];
    digest.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_pairs_of_digits() {
        assert_eq!(hex("00fFA5").as_deref(), Some(&[0, 255, 0xa5][..]));
        assert_eq!(hex("").as_deref(), Some(&[][..]));
        for wrong in ["0", "000", "0g", "+1", "é", "-"] {
            assert!(hex(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn sectors_do_not_wrap() {
        assert_eq!(sectors(3, 4096), Some(Sector(24)));
        assert!(sectors(u64::MAX, 4096).is_none() && sectors(1 << 61, 4096).is_none());
    }
}
