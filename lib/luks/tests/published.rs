// SPDX-License-Identifier: BSD-2-Clause

//! The images that cryptsetup's own tests use, unpacked into a folder that `DM_LUKS_IMAGES` names.
//! A file that begins like LUKS is an image; files named `keyfile…` hold passphrases, and so do
//! `compatkey` and `aaa…`, which cryptsetup's tests know by heart.

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use dm_luks::{Error, Header, Limits, testing};

/// Passphrases that cryptsetup's tests have in their text.
const KNOWN: &[&[u8]] =
    &[b"compatkey", b"aaa", b"aaablabl", b"bbb", b"ccc", b"93R4P4pIqAH8", b"mymJeD8ivEhE"];

fn files(folder: &Path, to: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, to);
        } else {
            to.push(path);
        }
    }
}

fn begins(path: &Path, with: &[u8]) -> bool {
    let mut bytes = vec![0; with.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut bytes)).is_ok() && bytes == with
}

#[test]
fn cryptsetups_own_images() {
    let Some(folder) = std::env::var_os("DM_LUKS_IMAGES") else {
        eprintln!("skipped: DM_LUKS_IMAGES names no folder with cryptsetup's images");
        return;
    };
    let mut all = Vec::new();
    files(Path::new(&folder), &mut all);
    all.sort();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut keys: Vec<Vec<u8>> = KNOWN.iter().map(|key| key.to_vec()).collect();
    keys.extend(
        all.iter()
            .filter(|path| name(path).starts_with("keyfile"))
            .map(|path| fs::read(path).expect("a key file")),
    );
    let (mut images, mut opened) = (0, 0);
    for path in all.iter().filter(|path| begins(path, b"LUKS\xba\xbe")) {
        images += 1;
        let disk = File::open(path).expect("the image");
        let header = match Header::read(&disk) {
            Ok(header) => header,
            Err(error) => {
                eprintln!("{}: {error}", name(path));
                continue;
            }
        };
        let limits = Limits { pbkdf2_rounds: 2_000_000, ..Limits::default() };
        let mut why = String::from("no passphrase of it is known");
        for key in &keys {
            match header.unlock(&disk, key, None, &limits) {
                Ok(found) => {
                    why = check(path, &header, found.expose());
                    opened += 1;
                    break;
                }
                Err(Error::WrongKey { skipped, .. }) if skipped.is_empty() => {}
                Err(error) => why = error.to_string(),
            }
        }
        eprintln!("{}: {why}", name(path));
    }
    assert!(opened > 0, "{images} images in {folder:?}, and none was opened");
}

/// Headers made by cryptsetup's generators are read or refused as its own test says, which has to lie in
/// the folder too: `luks2-validation-test`, with lines of an image and a verdict.
#[test]
fn verdicts_of_cryptsetups_own_test() {
    let Some(folder) = std::env::var_os("DM_LUKS_IMAGES") else {
        eprintln!("skipped: DM_LUKS_IMAGES names no folder with cryptsetup's images");
        return;
    };
    let mut all = Vec::new();
    files(Path::new(&folder), &mut all);
    let named = |name: &str| all.iter().find(|path| path.file_name().is_some_and(|n| n == name));
    let Some(test) = named("luks2-validation-test") else {
        eprintln!("skipped: there is no luks2-validation-test in it");
        return;
    };
    let (mut same, mut wrong) = (0, Vec::new());
    for line in fs::read_to_string(test).expect("the test").lines() {
        let mut words = line.split_whitespace();
        let (Some("RUN"), Some(image), Some(verdict)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let Some(path) = named(image) else { continue };
        let disk = File::open(path).expect("the image");
        let read = Header::read(&disk);
        // Mistakes about the data are reported when they are to be used.
        let data = match &read {
            Ok(header) if header.segments.iter().any(|segment| segment.kind == "crypt") => {
                match header.payload(1 << 40) {
                    Err(Error::Damaged(why)) => Some(why),
                    Err(Error::Unsupported(why)) if why.contains("the cipher \"\"") => Some(why),
                    _ => None,
                }
            }
            _ => None,
        };
        match (verdict, &read, &data) {
            ("\"F\"", Ok(_), None) => wrong.push(format!("{image}: read, and should not be")),
            ("\"F\"", ..) => same += 1,
            (_, Err(error), _) => wrong.push(format!("{image}: {error}")),
            _ => same += 1,
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(same > 0, "it has none of the images");
    eprintln!("{same} verdicts are the same");
}

/// The description of an image's data; a FAT file system among them has the serial number dead-babe.
fn check(path: &Path, header: &Header, key: &[u8]) -> String {
    let disk = fs::read(path).expect("the image");
    let lines = match header.payload(disk.len() as u64) {
        Ok(lines) => lines,
        Err(error) => return format!("opened; {error}"),
    };
    let first = lines[0].offset as usize * 512;
    let mut data = disk[first..first + 512].to_vec();
    if let Err(error) = testing::decrypt(&lines[0].cipher, key, &mut data) {
        return format!("opened; {error}");
    }
    let serial: [u8; 4] = data[39..43].try_into().expect("four bytes");
    match data[510..] == [0x55, 0xaa] && data[54..57] == *b"FAT" {
        true => {
            assert_eq!(serial, [0xbe, 0xba, 0xad, 0xde], "{}", path.display());
            "opened; a FAT file system, as it should be".into()
        }
        false => "opened; its data are no FAT file system".into(),
    }
}
