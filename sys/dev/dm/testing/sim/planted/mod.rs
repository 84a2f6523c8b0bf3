// SPDX-License-Identifier: BSD-2-Clause

//! Targets of the simulation's own, right and with planted bugs: a simulation that finds no bug in
//! these is not known to find any.

use alloc::boxed::Box;

mod logged;
mod shadow;
mod twin;

use super::game::Make;
use super::games::log_writes::LogWrites;
use super::games::merge::Merge;
use super::games::mirror::Mirror;
use super::games::snapshot::Snapshots;
use shadow::ShadowGame;
use twin::TwinGame;

/// The right targets' games.
pub const RIGHT: &[(&str, Make)] = &[
    ("twin", || Box::new(TwinGame::new("twin"))),
    ("shadow", || Box::new(ShadowGame::new("shadow"))),
];

/// The wrong targets' games, each with its bug in words.
pub const WRONG: &[(&str, Make)] = &[
    ("marks are cleared without a flush", || Box::new(TwinGame::new("twin-unflushed"))),
    ("a write is acknowledged too early", || Box::new(TwinGame::new("twin-early"))),
    ("data goes before its log", || Box::new(TwinGame::new("twin-late-log"))),
    ("a log goes into the cache only", || Box::new(TwinGame::new("twin-cached-log"))),
    ("a flush reaches one copy only", || Box::new(TwinGame::new("twin-half-flush"))),
    ("FUA is forgotten", || Box::new(TwinGame::new("twin-no-fua"))),
    ("a map is committed before its data", || Box::new(ShadowGame::new("shadow-committed"))),
    ("a map is committed without a flush", || Box::new(ShadowGame::new("shadow-unflushed"))),
    ("a log says that a flush was done which was not", || logged("log-unflushed")),
    ("a flush is acknowledged before it is logged", || logged("log-early")),
    ("a flush leaves a write out of the log", || logged("log-behind")),
    ("a log lies on a disk that does not flush", || Box::new(LogWrites::own().lying_log())),
    ("a mirror's legs do not flush", || Box::new(Mirror::new(true).lying_legs())),
    ("a mirror's log does not flush", || Box::new(Mirror::new(true).lying_log())),
    ("a snapshot's store does not flush", || Box::new(Snapshots::roomy().lying(1))),
    ("a snapshot is merged into an origin that does not flush", || {
        Box::new(Merge::alone().lying(0))
    }),
    ("a snapshot that is merged does not flush", || Box::new(Merge::alone().lying(1))),
    ("another snapshot of what is merged does not flush", || {
        Box::new(Merge::alone().two().lying(2))
    }),
    ("disks acknowledge flushes and do nothing", || Box::new(TwinGame::new("twin").lying())),
];

fn logged(target: &'static str) -> Box<dyn super::Game> {
    Box::new(LogWrites::of(target, logged::TYPES))
}
