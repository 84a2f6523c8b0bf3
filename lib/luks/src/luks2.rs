// SPDX-License-Identifier: BSD-2-Clause

//! LUKS2: two copies of a binary header of 4096 bytes with JSON behind it.

mod json;

use subtle::ConstantTimeEq;

use crate::bytes::{Fields, ReadAt};
use crate::error::damaged;
use crate::hash::Hash;
use crate::header::{Copy, Header};
use crate::{Error, luks1};

/// Bytes of the binary header.
pub const BINARY: usize = 4096;
/// The bytes that the second copy begins with.
pub const SECOND_MAGIC: &[u8] = b"SKUL\xba\xbe";
/// The place of the checksum in the header.
pub const CHECKSUM: std::ops::Range<usize> = 448..512;

/// Bytes that a copy may have; the second one begins behind the first.
pub const SIZES: [u64; 9] =
    [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];

/// A copy that is good.
struct Found {
    bytes: u64,
    sequence: u64,
    header: Header,
}

/// Reads both copies, and takes the newer good one.
///
/// # Errors
/// [`Error::NotLuks`] if there is no trace of either; [`Error::Damaged`], [`Error::Io`].
pub fn read<D: ReadAt + ?Sized>(disk: &D, size: u64) -> Result<Header, Error> {
    let first = copy(disk, size, 0)?;
    let mut seconds: Vec<u64> = SIZES.to_vec();
    if let Some(Ok(found)) = &first {
        // Only there can it be.
        seconds = vec![found.bytes];
    }
    let mut second: Option<(u64, Result<Found, String>)> = None;
    for at in seconds {
        match copy(disk, size, at)? {
            Some(Ok(found)) => {
                second = Some((at, Ok(found)));
                break;
            }
            Some(Err(why)) => {
                second.get_or_insert((at, Err(why)));
            }
            None => {}
        }
    }
    let missing = || Err("there is none".to_string());
    if first.is_none() && second.is_none() {
        return Err(Error::NotLuks);
    }
    let first = first.unwrap_or_else(missing);
    let (second_at, second) = match second {
        Some((at, second)) => (at, second),
        None => (first.as_ref().map_or(0, |found| found.bytes), missing()),
    };
    let state = |copy: &Result<Found, String>| match copy {
        Ok(found) => Ok((found.bytes, found.sequence)),
        Err(why) => Err(why.clone()),
    };
    let states = [(0, state(&first)), (second_at, state(&second))];
    let (used, found) = match (first, second) {
        (Ok(first), Ok(second)) if second.sequence > first.sequence => (1, second),
        (Ok(first), _) => (0, first),
        (Err(_), Ok(second)) => (1, second),
        (Err(first), Err(second)) => {
            return damaged(format!("its first copy: {first}; its second: {second}"));
        }
    };
    let mut header = found.header;
    header.copies = states
        .into_iter()
        .enumerate()
        .map(|(at, (offset, state))| Copy { offset, state, used: at == used })
        .collect();
    Ok(header)
}

/// Reads one copy: `None` if there is no trace of one, an inner error if it is damaged.
fn copy<D: ReadAt + ?Sized>(
    disk: &D,
    size: u64,
    at: u64,
) -> Result<Option<Result<Found, String>>, Error> {
    let mut binary = [0; BINARY];
    if size.checked_sub(at).is_none_or(|rest| rest < BINARY as u64) {
        return Ok(None);
    }
    disk.read_at(at, &mut binary)?;
    let mut fields = Fields(&binary);
    let magic = if at == 0 { luks1::MAGIC } else { SECOND_MAGIC };
    if fields.bytes(6) != magic {
        return Ok(None);
    }
    let wrong = |why: String| Ok(Some(Err(why)));
    let version = fields.u16();
    if version != 2 {
        return wrong(format!("version {version}"));
    }
    let (bytes, sequence, label) = (fields.u64(), fields.u64(), fields.text(48));
    let (checksum, _salt, uuid) = (fields.text(32), fields.bytes(64), fields.text(40));
    let (subsystem, offset) = (fields.text(48), fields.u64());
    if !SIZES.contains(&bytes) || (at != 0 && bytes != at) {
        return wrong(format!("{bytes} bytes, which no header here has"));
    }
    if offset != at {
        return wrong(format!("it says that it stands at byte {offset}"));
    }
    if size - at < bytes {
        return wrong("it goes on beyond the end of the disk".into());
    }
    let Some(hash) = Hash::named(&checksum) else {
        return wrong(format!("a checksum by {checksum:?}, which is not known"));
    };
    // At most 4 MiB.
    let mut all = vec![0; bytes as usize];
    disk.read_at(at, &mut all)?;
    if !is_sound(&mut all, hash) {
        return wrong("the checksum is not that of what it holds".into());
    }
    let text = all.get(BINARY..).unwrap_or_default();
    let Some((text, rest)) = text.iter().position(|byte| *byte == 0).map(|end| text.split_at(end))
    else {
        return wrong("its JSON does not end".into());
    };
    if !text.starts_with(b"{") || rest.iter().any(|byte| *byte != 0) {
        return wrong("there is something beside its JSON".into());
    }
    match json::parse(text, bytes) {
        Ok(mut header) => {
            (header.uuid, header.label, header.subsystem) = (uuid, label, subsystem);
            Ok(Some(Ok(Found { bytes, sequence, header })))
        }
        Err(why) => wrong(why),
    }
}

/// `true` if the checksum is right. The field of the checksum is zeros then.
fn is_sound(all: &mut [u8], hash: Hash) -> bool {
    let Some(field) = all.get_mut(CHECKSUM) else { return false };
    let said = field.to_vec();
    field.fill(0);
    let is = hash.of(&[all]);
    // A longer field than the hash's is zeros behind it.
    let said = said.get(..is.len()).unwrap_or_default();
    bool::from(said.ct_eq(&is))
}
