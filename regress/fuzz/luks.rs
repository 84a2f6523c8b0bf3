// SPDX-License-Identifier: BSD-2-Clause

//! Headers of LUKS disks, as a hostile disk may have them.

use dm_luks::testing::{self, AREA, HEADER, PASSPHRASE};
use dm_luks::{Header, Limits, SECTOR};

/// Little enough for many disks in a second.
const LIMITS: Limits =
    Limits { pbkdf2_rounds: 64, argon2_kib: 64, argon2_work_kib: 128, argon2_lanes: 2 };

/// Reads a LUKS header. The first byte says what the others are: a disk, the JSON of a LUKS2 header, or changes to a
/// good disk. The header must be refused, or be usable without harm: the mapped ranges lie on the disk and leave no
/// gap, and keys are as long as their keyslots say.
pub fn run(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let disk = match kind % 4 {
        0 => {
            let mut disk = data.to_vec();
            disk.resize(disk.len().max(AREA), 0);
            disk
        }
        1 => {
            let mut disk = testing::luks2(data, [1, 2]);
            let sample = testing::sample2();
            disk.truncate(AREA);
            disk.extend(sample.get(AREA..).unwrap_or_default());
            disk
        }
        2 => changed(testing::sample1(), data),
        _ => {
            let mut disk = changed(testing::sample2(), data);
            testing::checksum(&mut disk);
            disk
        }
    };
    look_at(&disk);
}

/// A disk with some bytes changed: a place in two bytes, and a byte.
fn changed(mut disk: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.chunks_exact(3) {
        if let &[high, low, byte] = change {
            let at = usize::from(u16::from_be_bytes([high, low]));
            // In both copies of a LUKS2 header, so that none is good without the change.
            for at in [at, at + HEADER] {
                if let Some(old) = disk.get_mut(at) {
                    *old ^= byte;
                }
            }
        }
    }
    disk
}

fn look_at(disk: &[u8]) {
    let header = match Header::read(disk) {
        Ok(header) => header,
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control));
            return;
        }
    };
    let bytes = disk.len() as u64;
    match header.payload(bytes) {
        Ok(lines) => {
            let mut end = 0;
            for line in &lines {
                assert_eq!(line.start, end);
                assert!(line.length > 0 && (line.offset + line.length) * SECTOR <= bytes);
                end += line.length;
                let text = line.text(&testing::made_up_key(4), "disk", &[]);
                assert_eq!(text.split(' ').nth(2), Some("crypt"));
                assert!(!text.contains(char::is_control));
            }
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
    let numbers = header.keyslots.iter().map(|slot| slot.number);
    for number in numbers.map(Some).chain([None]) {
        match header.unlock(disk, PASSPHRASE, number, &LIMITS) {
            Ok(key) => {
                let slot = header.keyslot(key.keyslot).expect("its keyslot");
                let slot = slot.slot.as_ref().expect("a keyslot with a key");
                assert_eq!(key.expose().len(), slot.key_bytes);
            }
            Err(error) => assert!(!error.to_string().contains(char::is_control)),
        }
    }
}
