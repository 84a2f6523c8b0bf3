// SPDX-License-Identifier: BSD-2-Clause

//! The games, one for each kind of target. A target's file here has its tables, and the checks
//! beside that of the content.

use alloc::boxed::Box;

mod crypt;
pub mod log_writes;
mod maps;
pub mod merge;
pub mod mirror;
pub mod snapshot;
mod verity;

use super::game::Make;

/// The games by name, which is the target's where a game is one target's.
pub const GAMES: &[(&str, Make)] = &[
    ("linear", || Box::new(maps::Maps::new(&["linear"]))),
    ("striped", || Box::new(maps::Maps::new(&["striped"]))),
    ("zero", || Box::new(maps::Maps::new(&["zero", "linear"]))),
    ("error", || Box::new(maps::Maps::new(&["error", "striped"]))),
    ("unstriped", || Box::new(maps::Maps::new(&["unstriped"]))),
    ("switch", || Box::new(maps::Maps::new(&["switch"]))),
    ("dust", || Box::new(maps::Maps::new(&["dust", "linear"]))),
    ("delay", || Box::new(maps::Maps::new(&["delay", "striped"]))),
    ("flakey", || Box::new(maps::Maps::new(&["flakey", "linear"]))),
    ("mirror", || Box::new(mirror::Mirror::new(true))),
    ("mirror-core", || Box::new(mirror::Mirror::new(false))),
    ("crypt", || Box::new(crypt::Crypt::default())),
    ("log-writes", || Box::new(log_writes::LogWrites::own())),
    ("verity", || Box::new(verity::Verity::default())),
    ("snapshot", || Box::new(snapshot::Snapshots::roomy())),
    ("snapshot-origin", || Box::new(snapshot::Snapshots::roomy().two())),
    ("snapshot-merge", || Box::new(merge::Merge::alone())),
    ("snapshot-merge-two", || Box::new(merge::Merge::alone().two())),
    ("snapshot-merge-faults", || Box::new(merge::Merge::alone().two().faults())),
    ("snapshot-full", || Box::new(snapshot::Snapshots::roomy().full())),
    ("snapshot-faults", || Box::new(snapshot::Snapshots::roomy().faults())),
    ("mixed", || {
        Box::new(maps::Maps::new(&["linear", "striped", "zero", "error", "delay", "flakey"]))
    }),
];

/// The game of this name.
pub fn find(name: &str) -> Option<Make> {
    GAMES.iter().find(|(known, _)| *known == name).map(|(_, make)| *make)
}
