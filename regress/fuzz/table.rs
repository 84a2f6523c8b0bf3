// SPDX-License-Identifier: BSD-2-Clause

//! Tables as text, a line each: `start length target parameters`.

use std::cell::Cell;

use dm_core::aes::Aes;
use dm_core::device;
use dm_core::guard::GuardedSectors;
use dm_core::hash::Hash;
use dm_core::job::Op;
use dm_core::table::{Builder, Component, Opener, Piece, Table};
use dm_core::testing::{aes, hash, range};
use dm_core::units::Dev;
use dm_core::{Errno, limits};
use dm_core::{Sector, SectorRange};

struct Disk {
    dev: Dev,
    size: u64,
    sector_size: u32,
}

impl Component for Disk {
    fn dev(&self) -> Dev {
        self.dev
    }

    fn size(&self) -> Sector {
        Sector(self.size)
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn writable(&self) -> bool {
        true
    }

    fn guard(&self) -> Option<GuardedSectors> {
        let label = SectorRange { start: Sector(63), length: Sector(2) };
        (self.dev.minor() == 0).then_some(GuardedSectors { label, first_safe: Sector(65) })
    }
}

/// An opener's means: disks, and bytes that targets may keep yet.
struct Disks(Cell<usize>);

impl Opener for Disks {
    type Component = Disk;

    fn open(&self, path: &str) -> Result<Disk, Errno> {
        let (minor, size, sector_size) = match path {
            "a" | "4:0" => (0, 1 << 20, 512),
            "b" | "4:1" => (1, 1 << 33, 512),
            "c" | "4:2" => (2, 1 << 16, 4096),
            _ => return Err(Errno::ENOENT),
        };
        Ok(Disk { dev: Dev::new(4, minor).ok_or(Errno::ENXIO)?, size, sector_size })
    }

    fn reserve(&self, bytes: usize) -> Result<(), Errno> {
        self.0.set(self.0.get().checked_sub(bytes).ok_or(Errno::ENOMEM)?);
        Ok(())
    }

    fn aes(&self) -> Option<&'static dyn Aes> {
        Some(&aes::RUST)
    }

    fn hash(&self, name: &str) -> Option<&'static dyn Hash> {
        hash::find(name)
    }

    fn read_only(&self) -> bool {
        true
    }
}

fn build<'l>(lines: impl Iterator<Item = (u64, u64, &'l str, &'l str)>) -> Option<Table<Disk>> {
    let disks = Disks(Cell::new(64 << 20));
    let mut builder = Builder::new(&disks);
    let mut good = true;
    for (start, length, kind, params) in lines {
        good &= builder.line(start, length, kind, params).is_ok();
    }
    let table = builder.build();
    good.then_some(table.ok()).flatten()
}

/// Loads a table. One that loads covers its device without a gap, sends nothing beyond a
/// component, and loads again from what `table` prints to the same mapping.
pub fn run(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let line = |line: &'_ str| {
        let mut words = line.splitn(4, ' ');
        let (start, length) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        // The parts outlive the closure: they borrow the text.
        Some((start, length, words.next()?.to_owned(), words.next().unwrap_or("").to_owned()))
    };
    let lines: Vec<_> = text.lines().take(limits::LINES).filter_map(line).collect();
    let borrowed = lines.iter().map(|(s, l, k, p)| (*s, *l, k.as_str(), p.as_str()));
    let Some(table) = build(borrowed) else { return };
    let printed = device::lines(&table);
    let again = printed.iter().map(|l| (l.start, l.length, l.kind.as_str(), l.params.as_str()));
    let again = build(again).expect("a table's own output loads");
    assert_eq!(table.size(), again.size());
    assert_eq!(device::lines(&again).len(), printed.len());
    // The borders of every line, and places within.
    for l in &printed {
        for at in [l.start, l.start + l.length / 2, l.start + l.length - 1] {
            check(&table, &again, Sector(at));
        }
    }
    assert!(table.map(range(table.size().0, 1), Op::Read).is_none());
}

fn check(table: &Table<Disk>, again: &Table<Disk>, at: Sector) {
    let wanted = range(at.0, (table.size().0 - at.0).min(300));
    let (a, b) = (table.map(wanted, Op::Write), again.map(wanted, Op::Write));
    let (a, b) = (a.expect("within the device"), b.expect("within the device"));
    assert!(a.length() > Sector::ZERO && a.length() <= wanted.length);
    match (a, b) {
        (Piece::Send(c, s), Piece::Send(d, t)) | (Piece::Track(c, s, _), Piece::Track(d, t, _)) => {
            assert_eq!((c.dev, s), (d.dev, t));
            assert!(s.end().0 <= c.size, "sent beyond its component");
        }
        (Piece::Zero(l), Piece::Zero(m)) => assert_eq!(l, m),
        (Piece::Fail(l, e), Piece::Fail(m, f)) => assert_eq!((l, e), (m, f)),
        (Piece::Take(l, a), Piece::Take(m, b)) => assert_eq!((l, a), (m, b)),
        _ => panic!("the mapping changed with its own output"),
    }
}
