//! `cargo xtask doc`: the manual pages and the code's documentation, for a browser.

use std::fs;
use std::path::{Path, PathBuf};

use crate::setup::{self, Need};
use crate::sh::{self, Result};

/// `cargo xtask doc`.
pub fn main(args: &[String]) -> Result<()> {
    if let Some(arg) = args.first() {
        return Err(format!("`doc` takes no arguments, so not `{arg}`"));
    }
    setup::ensure(&[Need::Hosted, Need::Lint])?;
    let to = sh::target_dir().join("doc/man");
    sh::mkdir(&to)?;
    for page in pages()? {
        let mut mandoc = sh::command("mandoc");
        mandoc.args(["-T", "html", "-O", "toc,man=%N.%S.html"]).arg(&page);
        let html = sh::output(&mut mandoc)?;
        let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = to.join(format!("{name}.html"));
        sh::write(&file, html)?;
        println!("{}", file.display());
    }
    sh::run(sh::cargo().args(["doc", "--workspace", "--no-deps", "--document-private-items"]))?;
    println!("{}", sh::target_dir().join("doc/rustdm/index.html").display());
    Ok(())
}

/// The manual pages, in share/man/man*.
pub fn pages() -> Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for section in entries(&sh::root().join("share/man"))? {
        if section.is_dir() {
            pages.extend(entries(&section)?.into_iter().filter(|path| is_page(path)));
        }
    }
    pages.sort();
    Ok(pages)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Whether a file's name ends in the number of a section.
fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext.to_string_lossy().parse::<u8>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pages() {
        assert!(is_page(Path::new("man4/dm.4")));
        assert!(!is_page(Path::new("man4/dm.4.orig")));
        assert!(!is_page(Path::new("man4/Makefile")));
    }
}
