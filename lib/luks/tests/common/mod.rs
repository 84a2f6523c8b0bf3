// SPDX-License-Identifier: BSD-2-Clause

//! Programs of others, run against files of a test's own.
#![allow(dead_code, reason = "no test uses all of it")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dm_luks::{Header, Limits};
use tempfile::TempDir;

/// Enough for what the tests make, and little for what a flipped bit asks for.
pub const LIMITS: Limits = Limits {
    pbkdf2_rounds: 100_000,
    argon2_kib: 1024,
    argon2_work_kib: 16 * 1024,
    argon2_lanes: 4,
};

/// A folder that goes with its test.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a new folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file of so many MiB of nothing.
    pub fn empty(&self, name: &str, mib: u64) -> PathBuf {
        let path = self.path(name);
        File::create(&path).expect("a new file").set_len(mib << 20).expect("its size");
        path
    }

    /// A file that holds this.
    pub fn holds(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a new file");
        path
    }
}

/// Runs a program, which must be there: its output, if it succeeds.
pub fn try_run<S: AsRef<OsStr>>(name: &str, args: &[S]) -> Result<String, String> {
    let dirs = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = std::env::split_paths(&dirs).map(|dir| dir.join(name)).find(|at| at.is_file());
    let found = found.unwrap_or_else(|| {
        panic!("{name} is not installed: `cargo xtask setup tools` installs it")
    });
    let output = Command::new(found).args(args).stdin(Stdio::null()).output().expect("it runs");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[track_caller]
pub fn run<S: AsRef<OsStr> + std::fmt::Debug>(name: &str, args: &[S]) -> String {
    try_run(name, args).unwrap_or_else(|why| panic!("{name} {args:?}: {why}"))
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// The volume key that we find.
#[track_caller]
pub fn key(disk: &Path, passphrase: &[u8]) -> Vec<u8> {
    let file = File::open(disk).expect("the image");
    let header = Header::read(&file).unwrap_or_else(|e| panic!("{}: {e}", disk.display()));
    let key = header.unlock(&file, passphrase, None, &LIMITS);
    key.unwrap_or_else(|e| panic!("{}: {e}", disk.display())).expose().to_vec()
}
