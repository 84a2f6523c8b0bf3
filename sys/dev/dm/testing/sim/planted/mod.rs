//! Targets of the simulation's own, and the same with a bug planted in them: what finds no bug in
//! these is not known to find one.

use alloc::boxed::Box;

pub mod twin;

use super::game::Make;

/// The right one.
pub const TWIN: Make = || Box::new(twin::TwinGame::new("twin"));

/// Wrong ones, each with what is wrong with it.
pub const BUGS: &[(&str, Make)] = &[
    ("cleared without a flush", || Box::new(twin::TwinGame::new("twin-unflushed"))),
    ("acknowledged too early", || Box::new(twin::TwinGame::new("twin-early"))),
    ("data before its log", || Box::new(twin::TwinGame::new("twin-late-log"))),
    ("a log in the cache only", || Box::new(twin::TwinGame::new("twin-cached-log"))),
    ("a flush for one copy", || Box::new(twin::TwinGame::new("twin-half-flush"))),
    ("FUA forgotten", || Box::new(twin::TwinGame::new("twin-no-fua"))),
    ("disks that lie", || Box::new(twin::TwinGame::new("twin").lying())),
];
