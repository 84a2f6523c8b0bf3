// SPDX-License-Identifier: BSD-2-Clause

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

/// `true` if a file's name ends in the number of a manual's section.
fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext.to_string_lossy().parse::<u8>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All files with this extension below a folder of the project's, and their texts.
    fn files(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
        let mut files = Vec::new();
        let mut folders = vec![sh::root().join(folder)];
        while let Some(dir) = folders.pop() {
            for path in entries(&dir).unwrap() {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ext| ext == extension) {
                    let text = sh::read(&path).unwrap();
                    files.push((path, text));
                }
            }
        }
        files
    }

    /// All Rust sources below a folder of the project's.
    fn sources(folder: &str) -> String {
        files(folder, "rs").into_iter().map(|(_, text)| text).collect()
    }

    fn safety() -> String {
        sh::read(&sh::root().join("share/doc/safety.md")).unwrap()
    }

    fn section<'t>(text: &'t str, title: &str) -> &'t str {
        let (_, rest) = text.split_once(title).unwrap_or_else(|| panic!("no section {title}"));
        rest.split("\n## ").next().unwrap()
    }

    #[test]
    fn safety_counts_every_unsafe_block() {
        let text = safety();
        let count = |folder: &str, what: &str| sources(folder).matches(what).count();
        let (blocks, impls) = (count("sys", "unsafe {"), count("sys", "unsafe impl"));
        let stated = format!("there are {blocks} blocks and {impls} `unsafe impl`s");
        assert!(text.contains(&stated), "share/doc/safety.md should say: {stated}");
        for (column, folder) in [(2, "sys/netbsd"), (3, "sys/entry")] {
            let rows = section(&text, "\n## `unsafe`").lines();
            let cells =
                rows.filter_map(|row| row.split('|').nth(column)?.trim().parse::<usize>().ok());
            assert_eq!(cells.sum::<usize>(), count(folder, "unsafe {"), "the rows of {folder}");
        }
    }

    /// Returns the words of a text that are commits' names, shortened to seven digits.
    fn commits(text: &str) -> Vec<&str> {
        let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let words = text.split(|c: char| !c.is_alphanumeric());
        words.filter(|word| word.len() == 7 && word.chars().all(digit)).collect()
    }

    #[test]
    fn each_commit_of_testeds_status_is_in_its_log() {
        let text = sh::read(&sh::root().join("share/doc/tested.md")).unwrap();
        let named = commits(section(&text, "\n## Status"));
        let log = commits(section(&text, "\n## What was tried"));
        assert!(named.len() > 40, "{named:?}");
        for commit in named {
            assert!(log.contains(&commit), "tested.md's log has no run of {commit}");
        }
    }

    #[test]
    fn each_commit_of_the_pages_is_in_the_history() {
        let git = |args: &[&str]| sh::output(sh::command("git").args(args));
        // Not shallow, and this folder is the repository's first.
        let whole = git(&["rev-parse", "--is-shallow-repository", "--show-prefix"]);
        if whole.as_deref() != Ok("false\n\n") {
            eprintln!("not looked at: the history is not here");
            return;
        }
        let history = git(&["rev-list", "HEAD"]).unwrap();
        let mut history: Vec<&str> = history.lines().filter_map(|name| name.get(..7)).collect();
        history.sort_unstable();
        let mut pages = files("share", "md");
        let single = ["README.md", "CHANGES.md", "CONTRIBUTING.md"];
        pages.extend(single.map(|page| (page.into(), sh::read(&sh::root().join(page)).unwrap())));
        let mut looked = 0;
        for (page, text) in &pages {
            // Not numbers, nor words.
            let digits = |word: &&str| word.chars().any(|c| c.is_ascii_digit());
            let letters = |word: &&str| word.chars().any(|c| c.is_ascii_lowercase());
            for commit in commits(text).into_iter().filter(digits).filter(letters) {
                looked += 1;
                let known = history.binary_search(&commit).is_ok();
                assert!(known, "{}: {commit} is not in the history", page.display());
            }
        }
        assert!(looked > 100, "{looked} commits");
    }

    #[test]
    fn comments_of_the_driver_end_by_column_100() {
        let mut long = Vec::new();
        for (path, text) in files("sys", "rs") {
            let lines = text.lines().zip(1..).filter(|(line, _)| line.trim().starts_with("//"));
            let lines = lines.filter(|(line, _)| line.chars().count() > 100);
            long.extend(lines.map(|(_, number)| format!("{}:{number}", path.display())));
        }
        assert!(long.is_empty(), "comments beyond column 100: {long:#?}");
    }

    #[test]
    fn tests_that_c_driver_names_exist() {
        let text = sh::read(&sh::root().join("share/doc/c-driver.md")).unwrap();
        let tests = sources("sys/dev/dm") + &sources("regress/host/tests");
        let rows = section(&text, "\n## What it does wrong").lines();
        let names: Vec<&str> = rows
            .filter_map(|row| row.strip_prefix('|')?.split('|').nth(1))
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect();
        assert!(names.len() > 40, "{names:?}");
        for name in names {
            assert!(tests.contains(&format!("fn {name}() {{")), "there is no test {name}");
        }
    }

    /// The line that each source, page and configuration begins with, in a comment, but for `#!`.
    const LICENCE: &str = "SPDX-License-Identifier: BSD-2-Clause";

    /// `true` if a file of this path has a licence line. Others are data, or have no comments.
    fn has_licence(path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let sources = ["rs", "c", "h", "ld", "py", "sh"];
        let others = ["Makefile", "exports", "kernel-symbols", "files.dm", "files.rustdm"];
        sources.contains(&&*extension)
            || others.contains(&&*name)
            || name.starts_with("RUSTDM.")
            || is_page(path)
    }

    #[test]
    fn every_file_names_its_licence() {
        let mut folders = vec![sh::root()];
        let (mut looked, mut lacking) = (0, Vec::new());
        while let Some(dir) = folders.pop() {
            for path in entries(&dir).unwrap() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                // Build results, hidden files, and a fuzzer's files.
                let skipped = ["target", "corpus", "artifacts", "__pycache__"];
                if name.starts_with('.') || skipped.contains(&name.as_str()) {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else if has_licence(&path) {
                    looked += 1;
                    let text = sh::read(&path).unwrap();
                    if !text.lines().take(2).any(|line| line.contains(LICENCE)) {
                        lacking.push(path);
                    }
                }
            }
        }
        assert!(looked > 500, "{looked} files were looked at");
        assert!(lacking.is_empty(), "these do not begin with `{LICENCE}`: {lacking:#?}");
    }

    #[test]
    fn names_of_pages() {
        assert!(is_page(Path::new("man4/dm.4")));
        assert!(!is_page(Path::new("man4/dm.4.orig")));
        assert!(!is_page(Path::new("man4/Makefile")));
    }
}
