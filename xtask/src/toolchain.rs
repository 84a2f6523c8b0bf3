// SPDX-License-Identifier: BSD-2-Clause

//! Finding a Rust compiler that can build `core` for a kernel: one that came with its sources.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sh::{self, Result};

/// A compiler and the cargo that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
}

/// The first release whose target specifications are written as ours are.
const OLDEST: (u32, u32) = (1, 91);

impl Toolchain {
    /// The toolchain's cargo, ready to build for a target of our own.
    pub fn cargo(&self) -> Command {
        let mut cargo = sh::command(&self.cargo);
        // The cargo that runs this task sets these for its own toolchain.
        for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
            cargo.env_remove(name);
        }
        cargo.env("RUSTC", &self.rustc);
        // Building core is for nightly compilers, or for those who say that they mean it.
        cargo.env("RUSTC_BOOTSTRAP", "1");
        cargo
    }

    /// The version of its LLVM, without the minor number.
    pub fn llvm(&self) -> Result<u32> {
        let about = sh::output(sh::command(&self.rustc).arg("-vV"))?;
        let version = about.lines().find_map(|line| line.strip_prefix("LLVM version: "));
        let major = version.and_then(|version| version.split('.').next()?.parse().ok());
        major.ok_or_else(|| format!("{} does not tell its LLVM's version", self.rustc.display()))
    }

    fn at(rustc: PathBuf) -> Option<Toolchain> {
        let version = sh::output(sh::command(&rustc).arg("--version")).ok()?;
        let sysroot = sh::output(sh::command(&rustc).args(["--print", "sysroot"])).ok()?;
        let sysroot = Path::new(sysroot.trim());
        let library = sysroot.join("lib/rustlib/src/rust/library");
        if number(&version)? < OLDEST || !library.join("core/src/lib.rs").is_file() {
            return None;
        }
        // rustup's rustc on the path is a stand-in; the real one lies in the sysroot, and its
        // cargo beside it.
        let bin = sysroot.join("bin");
        let beside = [bin.as_path(), rustc.parent()?];
        let cargo = beside.iter().map(|dir| dir.join("cargo")).find(|path| path.is_file())?;
        let rustc = Some(bin.join("rustc")).filter(|path| path.is_file()).unwrap_or(rustc);
        Some(Toolchain { rustc, cargo })
    }
}

/// The numbers of `rustc 1.96.0 (...)`.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split_whitespace().nth(1)?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The toolchain to build a kernel's object with: the one that runs us if it has its sources
/// (rustup's component rust-src), else the system's, or pkgsrc's.
pub fn find() -> Result<Toolchain> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|dir| dir.join("rustc"));
    let ours = env::var_os("RUSTC").map(PathBuf::from).into_iter().chain(on_path);
    ours.chain(["/usr/bin/rustc", "/usr/pkg/bin/rustc"].map(PathBuf::from))
        .filter(|path| path.is_file())
        .find_map(Toolchain::at)
        .ok_or_else(|| {
            format!(
                "no Rust compiler from {}.{} on that has its own sources, which a kernel's `core` \
                 is built from: install rustc-web, cargo-web and rust-web-src (Debian; `cargo xtask \
                 setup kernel` does), or `rustup component add rust-src`, or rust and rust-src from \
                 pkgsrc",
                OLDEST.0, OLDEST.1
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(number("rustc 1.96.0 (ac68faa20 2026-05-25)"), Some((1, 96)));
        assert_eq!(number("rustc 1.97.0-nightly (x y)"), Some((1, 97)));
        assert_eq!(number("gcc"), None);
        assert!(number("rustc 1.63.0").unwrap() < OLDEST);
    }
}
