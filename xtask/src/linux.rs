// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask linux`: Linux's device mapper as a judge of ours. Makes a guest from Debian's
//! packages and has the scripts of regress/linux/scripts run in it and on the hosted driver.

mod guest;

use std::path::PathBuf;
use std::process::Command;

use crate::setup::{self, Need};
use crate::sh::{self, Result};

/// The folder of everything that the task makes.
fn dir() -> PathBuf {
    sh::target_dir().join("linux")
}

/// `cargo xtask linux [--quick] [--verbose] [SCRIPT...]`
pub fn main(args: &[String]) -> Result<()> {
    let (mut quick, mut verbose, mut scripts) = (false, false, Vec::new());
    for arg in args {
        match arg.as_str() {
            "--quick" => quick = true,
            "--verbose" | "-v" => verbose = true,
            _ if arg.starts_with('-') => return Err(format!("what is `{arg}`?")),
            name => scripts.push(script(name)?),
        }
    }
    setup::ensure(&[Need::Hosted, Need::Linux])?;
    let mut command = compare(&guest::make()?)?;
    if quick {
        command.arg("--quick");
    }
    if verbose {
        command.arg("--verbose");
    }
    if scripts.is_empty() {
        command.arg("--all");
        scripts.push(sh::root().join("regress/linux/scripts"));
    }
    sh::run(command.args(scripts))
}

/// The quick selection, as part of all tests; says why where it cannot be had.
pub fn quick() -> Result<()> {
    let made = setup::ensure(&[Need::Linux]).and_then(|_| guest::make());
    match made {
        Ok(guest) => {
            let mut command = compare(&guest)?;
            sh::run(command.args(["--quick", "--all"]).arg("regress/linux/scripts"))
        }
        Err(why) => {
            println!("skipped: no guest with Linux can be had here: {why}");
            Ok(())
        }
    }
}

/// Measures the instructions that Linux adds to an I/O, for `cargo xtask bench --linux`.
pub fn bench() -> Result<()> {
    setup::ensure(&[Need::Hosted, Need::Linux])?;
    let guest = guest::make()?;
    let mut command = program(&build()?);
    command.arg("bench").arg("--guest").arg(&guest).arg("--work").arg(dir().join("bench"));
    sh::run(&mut command)
}

/// The path of a script: a file, or the name of one in the repository.
fn script(name: &str) -> Result<PathBuf> {
    let known = sh::root().join("regress/linux/scripts").join(format!("{name}.dm"));
    let given = PathBuf::from(name);
    [given, known]
        .into_iter()
        .find(|path| path.exists())
        .map(|path| path.canonicalize().unwrap_or(path))
        .ok_or_else(|| format!("there is no script {name}, nor one in regress/linux/scripts"))
}

/// Builds the program that compares; where it is.
fn build() -> Result<PathBuf> {
    sh::run(sh::cargo().args(["build", "--quiet", "--release", "--package", "dm-compare"]))?;
    Ok(sh::target_dir().join("release/dm-compare"))
}

fn program(path: &std::path::Path) -> Command {
    sh::command(path)
}

/// The command that compares, but for the scripts.
fn compare(guest: &std::path::Path) -> Result<Command> {
    let mut command = program(&build()?);
    command.arg("run").arg("--guest").arg(guest);
    command.arg("--work").arg(dir().join("work"));
    command.args(["--differences", "regress/linux/differences"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_files_or_names_of_known_ones() {
        assert!(script("no-such-script").unwrap_err().contains("no-such-script"));
        assert!(script("linear").unwrap().ends_with("regress/linux/scripts/linear.dm"));
        let here = std::env::temp_dir();
        assert_eq!(script(&here.to_string_lossy()).unwrap(), here.canonicalize().unwrap());
    }
}
