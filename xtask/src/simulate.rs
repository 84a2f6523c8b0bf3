// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask simulate`: games that crash, played on.

use crate::sh::{self, Result};

/// `cargo xtask simulate [OPTION...]`.
pub fn main(args: &[String]) -> Result<()> {
    let mut cargo = sh::cargo();
    cargo.args(["run", "--quiet", "--profile", "simulate", "--package", "dm-core"]);
    cargo.args(["--features", "testing", "--bin", "dm-simulate", "--"]);
    sh::run(cargo.args(args))
}
