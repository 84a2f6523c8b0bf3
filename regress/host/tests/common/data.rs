// SPDX-License-Identifier: BSD-2-Clause

//! Data that say where they belong.

use dm_host::{Dev, Disk, File, Io, IoResult, Request};

pub const SECTOR: usize = 512;

/// A generator of numbers that looks random and is the same each time (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Sectors that are unlike all others: of this seed, from this sector on. Within a sector the data
/// repeat, since no driver moves less than a sector.
pub fn pattern(seed: u64, sector: u64, sectors: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(sectors as usize * SECTOR);
    for n in sector..sector + sectors {
        let mut words = Random(seed.wrapping_mul(0x1_0000_0001).wrapping_add(n << 20));
        let unit = [words.next(), words.next()].map(u64::to_le_bytes).concat();
        out.extend(unit.repeat(SECTOR / unit.len()));
    }
    out
}

/// Fills a disk with the pattern of this seed.
pub fn fill(disk: &Disk, seed: u64) {
    let sectors = disk.sectors() * u64::from(disk.sector_size()) / SECTOR as u64;
    disk.write_at(0, &pattern(seed, 0, sectors));
}

/// The content of a disk from a sector (of 512 bytes) on.
pub fn on_disk(disk: &Disk, sector: u64, sectors: u64) -> Vec<u8> {
    let mut data = vec![0; sectors as usize * SECTOR];
    disk.read_at(sector * SECTOR as u64, &mut data);
    data
}

/// Says where two blocks of data differ first, if they do.
#[track_caller]
pub fn same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths differ");
    if found != expected {
        let at = found.iter().zip(expected).position(|(a, b)| a != b).unwrap();
        panic!("{what}: they differ from byte {at} on (sector {} of it)", at / SECTOR);
    }
}

/// Reads through a block device's strategy routine.
pub fn strategy_read(dev: Dev, sector: u64, sectors: u64) -> (IoResult, Vec<u8>) {
    let mut io = Io::new(sectors as usize * SECTOR);
    let result = io.run(dev, Request::read(sector as i64));
    (result, io.data().to_vec())
}

/// Writes through a block device's strategy routine.
pub fn strategy_write(dev: Dev, sector: u64, data: &[u8]) -> IoResult {
    Io::with_data(data.to_vec()).run(dev, Request::write(sector as i64))
}

/// Reads through an open node.
pub fn read(file: &File, sector: u64, sectors: u64) -> Vec<u8> {
    let mut data = vec![0xa5; sectors as usize * SECTOR];
    let got = file.pread(&mut data, sector * SECTOR as u64).unwrap();
    assert_eq!(got, data.len());
    data
}
