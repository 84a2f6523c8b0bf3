// SPDX-License-Identifier: BSD-2-Clause

//! Which way the driver's sources import one another, compared with the tables of
//! share/doc/architecture.md.

use std::collections::BTreeSet;

use crate::sh;

/// The layers of dm-core, from the top: the names of their modules.
type Layers = Vec<Vec<String>>;

/// The words in back quotes of a table's cell.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(String::from).collect()
}

/// The rows of the page's table that begins with this line, as the cells between the bars.
fn rows(head: &str) -> Vec<Vec<String>> {
    let page = sh::read(&sh::root().join("share/doc/architecture.md")).unwrap();
    let (_, table) = page.split_once(head).unwrap_or_else(|| panic!("no table `{head}`"));
    let rows = table.trim_start().lines().take_while(|line| line.starts_with('|')).skip(1);
    rows.map(|row| row.split('|').map(String::from).collect()).collect()
}

fn layers() -> Layers {
    rows("| what | modules |").iter().map(|row| quoted(&row[2])).collect()
}

/// A source's code: without comments, and without what is only for tests and for documentation.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut left_out = false;
    let mut code = String::new();
    for line in text.lines().map(|line| line.split("//").next().unwrap_or_default()) {
        left_out |= ["#[cfg(doc)]", "#[cfg(test)]"].contains(&line.trim());
        if !left_out {
            code += line;
        }
        // The end of the item that the attribute was for, or of its first line.
        left_out &= !line.ends_with([';', '{']);
        code.push('\n');
    }
    code
}

/// Adds the paths that begin with `path` and go on as `text` says, to the end of a group if there
/// is one, and returns what is left.
fn add_paths<'t>(mut text: &'t str, mut path: Vec<String>, all: &mut Vec<Vec<String>>) -> &'t str {
    loop {
        let word =
            text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        match word {
            "super" => drop(path.pop()),
            _ if !word.is_empty() => path.push(word.into()),
            _ => {}
        }
        text = &text[word.len()..];
        let Some(rest) = text.strip_prefix("::") else { break };
        text = rest;
        if let Some(group) = text.strip_prefix('{') {
            text = group.trim_start();
            while !text.is_empty() && !text.starts_with('}') {
                text = add_paths(text, path.clone(), all);
                // Behind a name: `as other`, or a comma.
                let end = text.find([',', '}']).unwrap_or(text.len());
                text = text[end..].trim_start_matches(',').trim_start();
            }
            return text.strip_prefix('}').unwrap_or(text);
        }
    }
    all.push(path);
    text
}

/// The paths that a module's code names, from the crate's root; dm-core's in another crate begin
/// with its name.
fn paths(code: &str, module: &[&str]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for (at, _) in code.match_indices("::") {
        let before = &code[..at];
        let start = before.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
        let first = match &before[start..] {
            "crate" => Vec::new(),
            "dm_core" => vec!["dm_core".to_string()],
            // A chain of them is read from its first.
            "super" if !before[..start].ends_with("super::") => {
                module.iter().rev().skip(1).rev().map(|name| name.to_string()).collect()
            }
            _ => continue,
        };
        let mut found = Vec::new();
        add_paths(&code[at..], first, &mut found);
        all.extend(found);
    }
    all
}

/// The modules of a source, by its path below its crate's folder.
fn module(file: &str) -> Vec<&str> {
    let mut module: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    module.pop_if(|last| *last == "mod");
    module
}

/// The imports of a source that go the wrong way. `file` is its path below `sys`.
fn wrong(file: &str, text: &str, layers: &Layers, targets: &BTreeSet<String>) -> Vec<String> {
    let (module, core) = match file.strip_prefix("dev/dm/") {
        Some(file) => (module(file), true),
        None => (module(file), false),
    };
    let layer = |name: &str| layers.iter().position(|layer| layer.iter().any(|m| m == name));
    let is_module = |name: &str| name.starts_with(|c: char| c.is_lowercase());
    let goes_wrong = |path: &Vec<String>| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path[..] {
            ["targets", other, ..] if core && module[0] == "targets" => {
                targets.contains(other) && module.get(1).is_some_and(|own| *own != other)
            }
            [other, ..] if core => is_module(other) && layer(other) < layer(module[0]),
            ["entry", ..] => module[0] == "netbsd",
            ["dm_core", other, ..] if module[0] == "netbsd" => {
                let last = layers.len().checked_sub(1);
                is_module(other) && layer(other) != last && other != "kernel"
            }
            _ => false,
        }
    };
    let paths = paths(&code(text), &module).into_iter().filter(goes_wrong);
    paths.map(|path| format!("sys/{file} names {}", path.join("::"))).collect()
}

/// The sources below a folder of `sys`, by their paths below `sys`: without tests, and what is
/// there for tests.
fn sources(folder: &str) -> Vec<(String, String)> {
    let sys = sh::root().join("sys");
    let mut sources = Vec::new();
    let mut folders = vec![sys.join(folder)];
    while let Some(dir) = folders.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !["tests", "testing", "target"].contains(&name.as_str()) {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let file = path.strip_prefix(&sys).unwrap().to_string_lossy().into_owned();
                sources.push((file, sh::read(&path).unwrap()));
            }
        }
    }
    sources
}

/// The names of the modules in `targets` that are targets.
fn targets(sources: &[(String, String)]) -> BTreeSet<String> {
    let is_target = |text: &str| text.contains("pub static TYPE: TargetType");
    let names = sources.iter().filter(|(_, text)| is_target(text)).filter_map(|(file, _)| {
        file.strip_prefix("dev/dm/targets/")?.strip_suffix(".rs").map(String::from)
    });
    names.filter(|name| !name.contains('/')).collect()
}

#[test]
fn imports_go_one_way() {
    let core = sources("dev/dm");
    let targets = targets(&core);
    assert!(targets.len() > 10, "{targets:?}");
    let all: Vec<_> = core.into_iter().chain(sources("netbsd")).collect();
    assert!(all.len() > 100, "{} files were looked at", all.len());
    let layers = layers();
    let wrong: Vec<String> =
        all.iter().flat_map(|(file, text)| wrong(file, text, &layers, &targets)).collect();
    assert!(wrong.is_empty(), "share/doc/architecture.md says otherwise: {wrong:#?}");
}

#[test]
fn the_page_has_every_module() {
    let lib = sh::read(&sh::root().join("sys/dev/dm/lib.rs")).unwrap();
    let modules = lib.lines().filter_map(|line| {
        line.trim_start_matches("pub ").strip_prefix("mod ")?.split([';', ' ']).next()
    });
    let modules: BTreeSet<String> =
        modules.filter(|name| *name != "testing").map(String::from).collect();
    let named: Vec<String> = layers().concat();
    assert_eq!(named.len(), modules.len());
    assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), modules);
}

#[test]
fn the_page_has_every_crate() {
    let root = sh::root();
    let workspace = sh::read(&root.join("Cargo.toml")).unwrap();
    let members = workspace.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
    let mut crates = BTreeSet::new();
    for folder in members.split('"').skip(1).step_by(2).chain(["."]) {
        let manifest = sh::read(&root.join(folder).join("Cargo.toml")).unwrap();
        let name = manifest.lines().find_map(|line| line.strip_prefix("name = ")).unwrap();
        let name = name.trim_matches('"');
        let used = manifest.lines().filter(|line| line.contains("{ path = "));
        let used = used.filter_map(|line| line.split(" = ").next()).filter(|used| *used != name);
        let folder = if folder == "." { "sys" } else { folder };
        let used: BTreeSet<String> = used.map(String::from).collect();
        crates.insert((name.to_string(), folder.to_string(), used));
    }
    let told = rows("| crate | folder | what | imports |").into_iter().map(|row| {
        let one = |cell: &str| quoted(cell).concat();
        (one(&row[1]), one(&row[2]), quoted(&row[4]).into_iter().collect())
    });
    assert_eq!(told.collect::<BTreeSet<_>>(), crates);
}

/// Each rule is broken once, in each way to write a path.
#[test]
fn an_import_that_goes_the_wrong_way_is_found() {
    let layers = layers();
    let targets = targets(&sources("dev/dm"));
    let found = |file: &str, text: &str| wrong(file, text, &layers, &targets);
    let [linear, log] = ["dev/dm/targets/linear.rs", "dev/dm/targets/mirror/log.rs"];

    assert_eq!(
        found(linear, "use crate::device::Driver;"),
        ["sys/dev/dm/targets/linear.rs names device::Driver"]
    );
    for (file, text) in [
        (linear, "fn f() {\n    crate::table::build();\n}"),
        (linear, "use crate::{Errno, job::Op, kernel::{\n    Kernel,\n}};"),
        (linear, "use super::{mirror::TYPE, bits};"),
        (log, "use super::super::verity::Verity;"),
        (log, "use super::super::super::commands::execute;"),
        (log, "use crate::targets::{bits, snapshot};"),
        ("dev/dm/targets/mod.rs", "use crate::table::Table;"),
        ("dev/dm/target.rs", "use crate::table::Table;"),
        ("dev/dm/target/words.rs", "use crate::targets::TARGETS;"),
        ("dev/dm/table.rs", "use crate::device;"),
        ("dev/dm/errno.rs", "use super::host::Host;"),
        ("dev/dm/pdev.rs", "use crate::testing::Disk;"),
        ("netbsd/buf.rs", "use crate::entry::slot::Slot;"),
        ("netbsd/buf.rs", "use super::super::entry;"),
        ("netbsd/buf.rs", "use dm_core::{Errno, device::Driver};"),
    ] {
        assert_eq!(found(file, text).len(), 1, "{file}: {text}");
    }

    for (file, text) in [
        (linear, "use crate::target::{Extent, Target};\nuse crate::{Errno, limits};"),
        (linear, "// use crate::table::Table;\n#[cfg(doc)]\nuse crate::table::Table;"),
        (linear, "use crate::job::Op;\n#[cfg(test)]\nmod tests {\n    use crate::table::Table;\n}"),
        (log, "use super::params::Word;\nuse crate::targets::bits;\nuse super::super::disk_share;"),
        ("dev/dm/targets/mod.rs", "pub mod linear;\nconst ALL: &[&T] = &[&linear::TYPE];"),
        ("dev/dm/table.rs", "use crate::targets::linear::Linear;"),
        ("dev/dm/kernel.rs", "use crate::pdev::Pdev;"),
        ("netbsd/buf.rs", "use super::sys;\nuse dm_core::kernel::Geometry;\nuse dm_core::Errno;"),
        ("entry/slot.rs", "use crate::netbsd::buf;\nuse dm_core::device::Driver;"),
    ] {
        assert_eq!(found(file, text), [""; 0], "{file}: {text}");
    }
}
