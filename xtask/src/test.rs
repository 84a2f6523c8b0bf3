// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask test`: everything that must hold, in the order in which it fails soonest.

use std::path::PathBuf;

use crate::setup::{self, Need};
use crate::sh::{self, Result};
use crate::simulate;
use crate::{check, doc, linux};

/// `cargo xtask test`.
pub fn main(args: &[String]) -> Result<()> {
    if let Some(arg) = args.first() {
        return Err(format!("`test` takes no arguments, so not `{arg}`"));
    }
    setup::ensure(&[Need::Hosted, Need::Tools, Need::LinuxTools, Need::Kernel, Need::Lint])?;

    sh::heading("format");
    sh::run(sh::cargo().args(["fmt", "--all", "--check"]))?;

    sh::heading("lints");
    let mut clippy = sh::cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    sh::run(&mut clippy)?;

    sh::heading("tests");
    sh::run(sh::cargo().args(["test", "--workspace"]))?;

    sh::heading("simulation");
    // The same games each time: `cargo xtask simulate` plays others.
    simulate::main(&["--games", "300", "--seed", "1000"].map(String::from))?;

    sh::heading("the host's side of regress/anita");
    sh::run(sh::command("python3").args(["-B", "-m", "unittest", "discover", "regress/anita"]))?;

    sh::heading("kernel objects");
    check::main(&[])?;

    sh::heading("Linux's device mapper and ours");
    linux::quick()?;

    sh::heading("manual pages");
    lint_pages(&doc::pages()?)?;

    println!("\nAll tests passed.");
    Ok(())
}

/// Any complaint of mandoc's is a failure.
fn lint_pages(pages: &[PathBuf]) -> Result<()> {
    if pages.is_empty() {
        println!("share/man has no pages.");
        return Ok(());
    }
    // -Wwarning: what mandoc only wonders about depends on which other pages the system has.
    sh::run(sh::command("mandoc").args(["-Tlint", "-Wwarning"]).args(pages))?;
    println!("{} pages, no complaints.", pages.len());
    Ok(())
}

/// `cargo xtask bench`.
pub fn bench(args: &[String]) -> Result<()> {
    if let Some((first, rest)) = args.split_first()
        && first == "--nbd"
    {
        return crate::nbd::bench(rest);
    }
    setup::ensure(&[Need::Hosted])?;
    let rest = args.iter().filter(|arg| *arg != "--linux");
    sh::run(sh::cargo().args(["bench", "--package", "dm-host", "--bench", "io", "--"]).args(rest))?;
    if args.iter().any(|arg| arg == "--linux") {
        linux::bench()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_bad_page_is_a_failure() {
        // Without mandoc the test can do nothing; `cargo xtask test` installs it.
        if !sh::has("mandoc") {
            return;
        }
        let dir = std::env::temp_dir().join(format!("xtask-pages-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (good, bad) = (dir.join("good.4"), dir.join("bad.4"));
        let page = ".Dd January 1, 2026\n.Dt GOOD 4\n.Os\n.Sh NAME\n.Nm good\n.Nd a page\n";
        fs::write(&good, page).unwrap();
        fs::write(&bad, ".Sh NAME\n.Frobnicate\n").unwrap();
        lint_pages(&[good]).unwrap();
        lint_pages(&[bad]).unwrap_err();
        fs::remove_dir_all(dir).unwrap();
    }
}
