// SPDX-License-Identifier: BSD-2-Clause

//! The bodies of the fuzz targets. `fuzz/` hands these functions to cargo-fuzz, which needs a nightly compiler; the
//! tests here run them on stable, over the committed corpus and mutations of it.
//!
//! Each takes any bytes and panics if a promise is broken.

pub mod dictionaries;
pub mod hosted;
pub mod luks;
pub mod sequences;
pub mod stores;
pub mod table;

#[cfg(test)]
mod tests;

/// A fuzz target: its name, which is also that of the corpus' folder, and what to run.
pub type FuzzTarget = (&'static str, fn(&[u8]));

/// The fuzz targets.
pub const TARGETS: &[FuzzTarget] = &[
    ("table", table::run),
    ("dictionaries", dictionaries::run),
    ("proplib", hosted::proplib),
    ("ioctl", hosted::ioctl),
    ("requests", hosted::requests),
    ("sequences", sequences::run),
    ("luks", luks::run),
    ("stores", stores::run),
];
