// SPDX-License-Identifier: BSD-2-Clause

//! The one thing that no tool does to an object: calls as NetBSD's module loader knows them.

use std::fs;
use std::path::Path;

use crate::sh::{self, Result};

/// Section type of relocations without addends, all that i386 has.
const SHT_REL: u32 = 9;
/// `R_386_PC32` and `R_386_PLT32`.
const PC32: u8 = 2;
const PLT32: u8 = 4;

/// Turns `R_386_PLT32` into `R_386_PC32` in an i386 object; others stay as they are.
///
/// LLVM writes the former for the calls of memcmp that it makes up itself. Nothing in a kernel
/// goes through a procedure linkage table, so both mean the same; but kobj(9) on i386 refuses to
/// load a module with a relocation it has not heard of.
pub fn plain_calls(object: &Path) -> Result<()> {
    let mut bytes = fs::read(object).map_err(|e| format!("{}: {e}", object.display()))?;
    match rewrite(&mut bytes) {
        Some(0) => Ok(()),
        Some(_) => sh::write(object, bytes),
        None => Err(format!("{} is no ELF object", object.display())),
    }
}

/// Rewrites relocations in place. The answer is the number of changes; `None` if this is no ELF object, or a broken
/// one.
fn rewrite(bytes: &mut [u8]) -> Option<usize> {
    if bytes.get(..4)? != b"\x7fELF" {
        return None;
    }
    // 32 bits, little-endian, EM_386.
    if bytes.get(4..6)? != [1, 1] || u16_at(bytes, 18)? != 3 {
        return Some(0);
    }
    let (sections, size, count) =
        (u32_at(bytes, 32)?, u32::from(u16_at(bytes, 46)?), u32::from(u16_at(bytes, 48)?));
    let mut changed = 0;
    for i in 0..count {
        let header = usize::try_from(sections.checked_add(i.checked_mul(size)?)?).ok()?;
        if u32_at(bytes, header.checked_add(4)?)? != SHT_REL {
            continue;
        }
        let start = usize::try_from(u32_at(bytes, header.checked_add(16)?)?).ok()?;
        let length = usize::try_from(u32_at(bytes, header.checked_add(20)?)?).ok()?;
        // r_offset and r_info, whose lowest byte is the type.
        for entry in bytes.get_mut(start..start.checked_add(length)?)?.chunks_exact_mut(8) {
            if let Some(kind) = entry.get_mut(4).filter(|kind| **kind == PLT32) {
                *kind = PC32;
                changed += 1;
            }
        }
    }
    Some(changed)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object with one section, of relocations of these types.
    fn object(kinds: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 52 + 40];
        bytes[..6].copy_from_slice(b"\x7fELF\x01\x01");
        bytes[18] = 3;
        bytes[32] = 52;
        bytes[46] = 40;
        bytes[48] = 1;
        bytes[52 + 4] = SHT_REL as u8;
        bytes[52 + 16] = 92;
        bytes[52 + 20] = kinds.len() as u8 * 8;
        for kind in kinds {
            bytes.extend([0, 0, 0, 0, *kind, 7, 0, 0]);
        }
        bytes
    }

    #[test]
    fn only_plt32_changes() {
        let mut bytes = object(&[1, PLT32, PC32, PLT32]);
        assert_eq!(rewrite(&mut bytes), Some(2));
        assert_eq!(bytes, object(&[1, PC32, PC32, PC32]));
        assert_eq!(rewrite(&mut bytes), Some(0));
    }

    #[test]
    fn others_are_left_alone_or_refused() {
        let mut amd64 = object(&[PLT32]);
        amd64[4] = 2;
        assert_eq!(rewrite(&mut amd64), Some(0));
        assert_eq!(rewrite(&mut b"!<arch>\n".to_vec()), None);
        let mut cut = object(&[PLT32]);
        cut.truncate(95);
        assert_eq!(rewrite(&mut cut), None);
    }
}
