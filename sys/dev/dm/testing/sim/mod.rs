// SPDX-License-Identifier: BSD-2-Clause

//! Games with power cuts: devices on disks that lose power, with events in the order that a seed
//! gives, checked against a slow and obvious model.
//!
//! share/doc/simulation.md says how to play and how to add a game.

pub mod disk;
pub mod game;
pub mod games;
mod host;
mod io;
pub mod model;
pub mod planted;
pub mod rng;
mod shared;
pub mod world;

#[cfg(test)]
mod tests;

pub use disk::{Disk, SECTOR};
pub use game::{Game, Lost, Make, play, shorten, story};
pub use io::Attached;
pub use model::{Model, Value};
pub use rng::Rng;
pub use world::{Loaded, Totals, World};
