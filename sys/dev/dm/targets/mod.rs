// SPDX-License-Identifier: BSD-2-Clause

//! The targets. To add one: write its file here, and add a line to [`TARGETS`], which also enrols
//! it in the tests that hold for every target (`tests.rs`).

mod bits;
pub mod crypt;
pub mod delay;
mod disk_share;
pub mod dust;
pub mod error;
pub mod flakey;
pub mod linear;
pub mod log_writes;
pub mod mirror;
pub mod snapshot;
pub mod striped;
pub mod switch;
pub mod unstriped;
pub mod verity;
pub mod zero;

#[cfg(test)]
pub(crate) mod tests;

use core::fmt;

use crate::target::TargetType;

/// Every kind of target, in the order that `targets` lists them.
pub const TARGETS: &[&TargetType] = &[
    &linear::TYPE,
    &striped::TYPE,
    &zero::TYPE,
    &error::TYPE,
    &unstriped::TYPE,
    &switch::TYPE,
    &dust::TYPE,
    &flakey::TYPE,
    &delay::TYPE,
    &log_writes::TYPE,
    &mirror::TYPE,
    &verity::TYPE,
    &crypt::TYPE,
    &snapshot::TYPE,
    &snapshot::origin::TYPE,
    &snapshot::merge::TYPE,
];

/// The names of all kinds, for messages.
pub struct Names;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TARGETS.iter().enumerate().try_for_each(|(at, kind)| {
            f.write_str(if at == 0 { "" } else { ", " })?;
            f.write_str(kind.name)
        })
    }
}

/// `true` if there can be no target of this kind in a kernel without AES.
pub fn needs_aes(kind: &TargetType) -> bool {
    core::ptr::eq(kind, &crypt::TYPE)
}

/// The kind of target that a table calls `name`.
pub fn lookup(name: &str) -> Option<&'static TargetType> {
    TARGETS.iter().copied().find(|kind| kind.name == name)
}
