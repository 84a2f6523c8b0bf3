// SPDX-License-Identifier: BSD-2-Clause

//! Steps of a game, made from bytes.

use dm_core::testing::model::{Bytes, Line, Op, Who};

/// A step of a game.
#[derive(Debug)]
pub enum Step {
    /// A command, or an open or close of the character node.
    Control(Op),
    /// Open the character node for reading and writing.
    Open(u32),
    /// I/O as a file system does it.
    Strategy { minor: u32, block: i64, bytes: usize, write: bool },
    /// I/O by the character node, if it is open.
    Raw { minor: u32, sector: u64, bytes: usize, write: bool },
    /// fdiscard(2), if it is open.
    Discard { minor: u32, sector: u64, sectors: u64 },
    /// A crash dump.
    Dump { minor: u32, sector: u64, sectors: usize },
    /// Has this disk fail all I/O from now on.
    Break(usize),
    /// Has all disks work.
    Heal,
    /// Compare all there is to see.
    Look,
}

/// The bytes that steps are made from.
pub struct Steps<'b>(pub &'b [u8]);

impl Steps<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn minor(&mut self) -> Option<u32> {
        Some(u32::from(self.byte()? % 7) + 1)
    }

    /// Sectors of most devices, and a few beyond.
    fn sector(&mut self) -> Option<u64> {
        Some(u64::from(self.byte()? % 120))
    }

    fn count(&mut self) -> Option<u64> {
        Some(u64::from(self.byte()? % 40))
    }

    /// A number of bytes, mostly of whole sectors.
    fn bytes(&mut self) -> Option<usize> {
        let byte = usize::from(self.byte()?);
        Some(byte % 40 * 512 + if byte >= 240 { 100 } else { 0 })
    }

    /// A block number, mostly on a small device.
    fn block(&mut self) -> Option<i64> {
        Some(match self.byte()? {
            253 => -1,
            254 => 1 << 40,
            255 => i64::MAX,
            byte => i64::from(byte % 120),
        })
    }
}

impl Iterator for Steps<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let kind = self.byte()?;
        if kind < 128 {
            let mut bytes = Bytes(self.0);
            let op = Op::read(&mut bytes);
            self.0 = bytes.0;
            return op.map(Step::Control);
        }
        Some(match kind % 24 {
            n @ 0..=12 => {
                let (minor, write) = (self.minor()?, n > 5);
                Step::Strategy { minor, block: self.block()?, bytes: self.bytes()?, write }
            }
            n @ 13..=16 => {
                let (minor, write) = (self.minor()?, n > 14);
                Step::Raw { minor, sector: self.sector()?, bytes: self.bytes()?, write }
            }
            17 | 18 => Step::Open(self.minor()?),
            19 => Step::Discard {
                minor: self.minor()?,
                sector: self.sector()?,
                sectors: self.count()?,
            },
            20 => {
                // A dump of nothing is none.
                let (minor, sector) = (self.minor()?, self.sector()?);
                Step::Dump { minor, sector, sectors: self.count()? as usize + 1 }
            }
            21 => Step::Break(usize::from(self.byte()? % 4)),
            22 => Step::Heal,
            _ => Step::Look,
        })
    }
}

/// The start of many games: n0 stripes two disks, n1 has a part of it between other lines.
pub fn two_layers() -> Vec<Step> {
    let create = |name| Op::Create { name, uuid: None, minor: None, read_only: false };
    let load = |name, lines| {
        [
            Op::Reload { who: Who::Name(name), lines, read_only: false, more: false },
            Op::Resume(Who::Name(name)),
        ]
    };
    let line = |start, length, stripes: &[(u8, u64)], chunk| Line {
        start,
        length,
        stripes: stripes.to_vec(),
        chunk,
    };
    let lower = vec![line(0, 48, &[(0, 4), (1, 0)], Some(3)), line(48, 20, &[(0, 40)], None)];
    // Of the numbers of components, 4 is the device with minor 1.
    let upper = vec![line(0, 8, &[], None), line(8, 40, &[(4, 10)], None), line(48, 9, &[], None)];
    let ops =
        [create(0)].into_iter().chain(load(0, lower)).chain([create(1)]).chain(load(1, upper));
    ops.map(Step::Control).collect()
}
