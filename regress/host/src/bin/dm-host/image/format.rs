// SPDX-License-Identifier: BSD-2-Clause

//! Formats of disk images that are not raw, and the bytes they are known by.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::disk::Disk;

/// A format that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    /// The format's name for people.
    name: &'static str,
    /// The way to use an image of the format.
    way: Way,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// qemu-nbd, which calls it so.
    Qemu(&'static str),
    /// A program that makes a raw file of the image.
    Unpack(&'static str),
}

/// Bytes at the start: their offset, the bytes, the format.
const FORMATS: &[(u64, &[u8], &str, Way)] = &[
    (0, b"QFI\xfb\0\0\0\x01", "a qcow image", Way::Qemu("qcow")),
    (0, b"QFI\xfb", "a qcow2 image", Way::Qemu("qcow2")),
    (0, b"QED\0", "a QED image", Way::Qemu("qed")),
    (0, b"KDMV", "a VMDK image", Way::Qemu("vmdk")),
    (0, b"COWD", "a VMDK image", Way::Qemu("vmdk")),
    (0, b"# Disk DescriptorFile", "a VMDK image's description", Way::Qemu("vmdk")),
    (64, b"\x7f\x10\xda\xbe", "a VDI image", Way::Qemu("vdi")),
    (0, b"vhdxfile", "a VHDX image", Way::Qemu("vhdx")),
    (0, b"conectix", "a VHD image", Way::Qemu("vpc")),
    (0, b"WithoutFreeSpace", "a Parallels image", Way::Qemu("parallels")),
    (0, b"WithouFreSpacExt", "a Parallels image", Way::Qemu("parallels")),
    (0, b"Bochs Virtual HD Image", "a Bochs image", Way::Qemu("bochs")),
    (0, b"\x3a\xff\x26\xed", "an Android sparse image", Way::Unpack("simg2img")),
    (0, b"\xfd7zXZ\0", "an image compressed by xz", Way::Unpack("xz -d")),
    (0, b"\x1f\x8b\x08", "an image compressed by gzip", Way::Unpack("gzip -d")),
    (0, b"\x28\xb5\x2f\xfd", "an image compressed by zstd", Way::Unpack("zstd -d")),
    (0, b"BZh", "an image compressed by bzip2", Way::Unpack("bzip2 -d")),
    (0, b"PK\x03\x04", "a ZIP archive", Way::Unpack("unzip")),
];

/// Bytes at the end: their offset from it, the bytes, the format.
const ENDS: &[(u64, &[u8], &str, Way)] = &[
    (512, b"conectix", "a VHD image", Way::Qemu("vpc")),
    (511, b"conectix", "a VHD image", Way::Qemu("vpc")),
    (512, b"koly", "a DMG image", Way::Qemu("dmg")),
];

/// The format of a file of so many bytes, if it is not raw. LUKS is raw here: other programs unlock it.
///
/// # Errors
/// Those of reading.
pub fn find(file: &File, bytes: u64) -> io::Result<Option<Format>> {
    let places = FORMATS.iter().map(|(at, magic, name, way)| (Some(*at), *magic, *name, *way));
    let ends =
        ENDS.iter().map(|(at, magic, name, way)| (bytes.checked_sub(*at), *magic, *name, *way));
    for (at, magic, name, way) in places.chain(ends) {
        let mut found = vec![0; magic.len()];
        let Some(at) = at.filter(|at| at.saturating_add(magic.len() as u64) <= bytes) else {
            continue;
        };
        file.read_exact_at(&mut found, at)?;
        if found == magic {
            return Ok(Some(Format { name, way }));
        }
    }
    Ok(None)
}

impl Format {
    /// The format's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Why the disk is refused, and what would serve it.
    pub fn refusal(&self, disk: &Disk, path: &Path) -> String {
        let (name, path) = (&disk.name, path.display());
        let how = match self.way {
            Way::Qemu(format) => {
                let mode = if disk.read_only { " --read-only" } else { "" };
                format!(
                    "qemu-nbd serves what it holds:\n  \
                     qemu-nbd{mode} --persistent --shared=8 --format={format} \
                     --socket=/tmp/{name}.sock '{path}' &\n  \
                     dm-host serve --disk '{name}=nbd+unix:///?socket=/tmp/{name}.sock'"
                )
            }
            Way::Unpack(program) => format!("`{program}` makes a raw image of it"),
        };
        format!(
            "disk {name}: {path} is {}, not a raw image; {how}\n(with ,format=raw its bytes are \
             served as they are)",
            self.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_by_what_they_begin_or_end_with() {
        let file = tempfile::tempfile().unwrap();
        let len = 4096u64;
        let check = |at: u64, magic: &[u8]| {
            file.set_len(0).unwrap();
            file.set_len(len).unwrap();
            file.write_all_at(magic, at).unwrap();
            find(&file, len).unwrap()
        };
        for (at, magic, name, _) in FORMATS {
            assert_eq!(check(*at, magic).map(|f| f.name), Some(*name));
            assert_eq!(check(at + 1, magic), None, "{name}, shifted");
        }
        for (at, magic, name, _) in ENDS {
            assert_eq!(check(len - at, magic).map(|f| f.name), Some(*name));
        }
        for raw in [&b"LUKS\xba\xbe"[..], b"\x53\xef", b"\xeb\x63\x90", b""] {
            assert_eq!(check(0, raw), None);
        }
        // Shorter than any of them.
        for bytes in 0..80 {
            file.set_len(bytes).unwrap();
            find(&file, bytes).unwrap();
        }
    }
}
