//! The targets. To add one: write its file here, and add a line to [`TARGETS`], which also enrols
//! it in the tests that hold for every target (`tests.rs`).

pub mod error;
pub mod linear;
pub mod striped;
pub mod zero;

#[cfg(test)]
mod tests;

use crate::target::TargetType;

/// Every kind of target, in the order that `targets` lists them.
pub const TARGETS: &[&TargetType] = &[&linear::TYPE, &striped::TYPE, &zero::TYPE, &error::TYPE];

/// The kind of target that a table calls `name`.
pub fn lookup(name: &str) -> Option<&'static TargetType> {
    TARGETS.iter().copied().find(|kind| kind.name == name)
}
