// SPDX-License-Identifier: BSD-2-Clause

//! The place of each sector, found one sector at a time from the table's text.

use dm_host::Disk;

use super::data::{SECTOR, on_disk};

/// The place of a sector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Sector .1 of disk .0.
    Disk(usize, u64),
    Zero,
    Error,
}

/// A table, sector by sector.
pub struct Model(pub Vec<Place>);

impl Model {
    /// Reads a table whose components are paths of `disks`.
    pub fn new(table: &str, disks: &[Disk]) -> Model {
        let disk = |path: &str| {
            let at = |d: &Disk| d.path() == path || d.major_minor() == path;
            disks.iter().position(at).unwrap_or_else(|| panic!("no disk {path}"))
        };
        let mut places = Vec::new();
        for line in table.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let number = |at: usize| words[at].parse::<u64>().unwrap();
            assert_eq!(number(0), places.len() as u64, "the model wants lines in order");
            for n in 0..number(1) {
                places.push(match words[2] {
                    "linear" => Place::Disk(disk(words[3]), number(4) + n),
                    "striped" => {
                        let (stripes, chunk) = (number(3), number(4));
                        let stripe = n / chunk % stripes;
                        let on_stripe = n / chunk / stripes * chunk + n % chunk;
                        let at = 5 + 2 * stripe as usize;
                        Place::Disk(disk(words[at]), number(at + 1) + on_stripe)
                    }
                    "zero" => Place::Zero,
                    "error" => Place::Error,
                    kind => panic!("no model of {kind}"),
                });
            }
        }
        Model(places)
    }

    pub fn sectors(&self) -> u64 {
        self.0.len() as u64
    }

    /// The first of these sectors that fails, if one does.
    pub fn first_error(&self, sector: u64, sectors: u64) -> Option<u64> {
        (sector..sector + sectors).find(|n| self.0[*n as usize] == Place::Error)
    }

    /// The data that a read must give, if the disks hold the right ones.
    pub fn read(&self, disks: &[Disk], sector: u64, sectors: u64) -> Vec<u8> {
        let mut data = Vec::new();
        for n in sector..sector + sectors {
            match self.0[n as usize] {
                Place::Disk(disk, at) => data.extend(on_disk(&disks[disk], at, 1)),
                Place::Zero => data.extend([0; SECTOR]),
                Place::Error => panic!("sector {n} cannot be read"),
            }
        }
        data
    }
}
