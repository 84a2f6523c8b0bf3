// SPDX-License-Identifier: BSD-2-Clause

//! Games of `crypt`: lines of several ciphers, spelled one way or another, whose keys are wiped and
//! set while the device is suspended.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::Errno;
use crate::testing::sim::{Disk, Game, Rng, SECTOR, World};

/// Sectors of a line.
const LINE: u64 = 64;

/// Ciphers: for each the spellings that mean the same, and the bytes of a key.
const CIPHERS: &[(&[&str], usize)] = &[
    (&["aes-xts-plain64", "capi:xts(aes)-plain64", "aes:1-xts-plain64"], 64),
    (&["aes-xts-plain"], 32),
    (&["aes-cbc-essiv:sha256", "capi:cbc(aes)-essiv:sha256"], 32),
    (&["aes-cbc-plain", "aes", "aes-plain"], 16),
    (&["aes-cbc-benbi"], 24),
    (&["aes:4-cbc-eboiv"], 64),
    (&["cipher_null-ecb", "cipher_null-ecb-null"], 0),
];

/// A game of `crypt`. The content stays as it is as long as each line has its key, however the line
/// is spelled.
#[derive(Default)]
pub struct Crypt {
    lines: Vec<Line>,
    /// Sectors in a physical sector of the disk.
    unit: u64,
    offset: u64,
}

struct Line {
    cipher: usize,
    key: String,
    iv_offset: u64,
    /// Bytes that are encrypted as one sector.
    sector_size: u64,
    large: bool,
}

impl Line {
    /// A key that is not the line's.
    fn other(&self) -> String {
        self.key.bytes().map(|digit| if digit == b'7' { 'a' } else { '7' }).collect()
    }
}

/// A key as a table spells it.
fn word(key: &str) -> &str {
    if key.is_empty() { "-" } else { key }
}

impl Game for Crypt {
    fn disks(&mut self, rng: &mut Rng) -> Vec<Disk> {
        self.unit = *rng.pick(&[1, 1, 8]);
        // Whole sectors of the largest that a line may have.
        self.offset = 8 * rng.below(3);
        for _ in 0..rng.between(1, 3) {
            let cipher = rng.index(CIPHERS.len());
            let digits = 2 * CIPHERS[cipher].1;
            let key = (0..digits).map(|_| char::from(*rng.pick(b"0123456789abcdef"))).collect();
            let mut sector_size = *rng.pick(&[512, 512, 1024, 4096]);
            // A power cut may tear one that is larger than the disk's own: in CBC nobody can read
            // then what is behind the tear. In XTS blocks do not depend on one another.
            if !CIPHERS[cipher].0[0].contains("xts") {
                sector_size = sector_size.min(self.unit * SECTOR as u64);
            }
            let step = sector_size / SECTOR as u64;
            let iv_offset = step * *rng.pick(&[0, 5, u64::MAX / step - 20, (1 << 32) / step - 20]);
            self.lines.push(Line { cipher, key, iv_offset, sector_size, large: rng.chance(1, 2) });
        }
        let sectors = self.offset + LINE * self.lines.len() as u64;
        let mut disk = Disk::junk(sectors + self.unit * rng.below(9), rng);
        disk.sector_size = (self.unit * SECTOR as u64) as u32;
        vec![disk]
    }

    fn largest_sector(&self) -> usize {
        4096
    }

    fn table(&mut self, _device: usize, rng: &mut Rng) -> String {
        let mut text = String::new();
        for (at, line) in (0..).zip(&self.lines) {
            let (start, offset) = (at * LINE, self.offset + at * LINE);
            let name = rng.pick(CIPHERS[line.cipher].0);
            let (key, iv_offset) = (word(&line.key), line.iv_offset);
            let mut features = vec![format!("sector_size:{}", line.sector_size)];
            if line.large {
                features.push("iv_large_sectors".into());
            }
            for word in ["allow_discards", "no_read_workqueue", "same_cpu_crypt"] {
                if rng.chance(1, 2) {
                    features.push(word.into());
                }
            }
            let (count, features) = (features.len(), features.join(" "));
            text += &format!(
                "{start} {LINE} crypt {name} {key} {iv_offset} d0 {offset} {count} {features}\n"
            );
        }
        text
    }

    fn act(&mut self, world: &World) {
        if world.is_suspended(0) || !world.is_started(0) {
            return;
        }
        for text in ["key wipe", "key set 00"] {
            assert_eq!(
                world.message(0, 0, text).err(),
                Some(Errno::EINVAL),
                "{text} while it runs"
            );
        }
    }

    fn stopped(&mut self, world: &World, device: usize) {
        let at = world.choose(|rng| rng.index(self.lines.len()));
        let (line, sector) = (&self.lines[at], at as u64 * LINE);
        let set = |key: &str| {
            let text = format!("key set {}", word(key));
            let done = world.message(device, sector, &text);
            assert!(done.is_ok(), "{text}: {done:?}");
        };
        if world.choose(|rng| rng.chance(1, 2)) {
            let done = world.message(device, sector, "key wipe");
            assert!(done.is_ok(), "a suspended device's key is not wiped: {done:?}");
        } else {
            set(&line.other());
        }
        set(&line.key);
    }
}
