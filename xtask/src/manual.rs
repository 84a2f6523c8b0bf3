// SPDX-License-Identifier: BSD-2-Clause

//! Tests that the pages have each text with which the driver refuses a table, tells the console, or panics, and each
//! flag of a request.

use std::path::{Path, PathBuf};

use crate::sh;

/// The texts of dm-core that look like a reason and are none: what stands behind a reason's colon, answers to messages,
/// and reasons that no table can have, since something else is refused first.
const NO_REASONS: [&str; 8] = [
    "badblocks cleared",
    "no badblocks found",
    "not found",
    "core or disk",
    "P, PO or N",
    "the cipher is missing",
    "the key is missing",
    "a block must have a sector",
];

/// A string literal of the driver's.
struct Literal {
    file: PathBuf,
    text: String,
    /// The code of its statement that stands before it.
    before: String,
}

/// Returns the string literals of the driver's sources below a folder, without those of its tests.
fn literals(folder: &str) -> Vec<Literal> {
    let (mut found, mut folders) = (Vec::new(), vec![sh::root().join(folder)]);
    while let Some(dir) = folders.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if name == "tests" || name == "testing" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let source = sh::read(&path).unwrap();
                found.extend(literals_of(&path, &source));
            }
        }
    }
    found
}

/// Returns the string literals of a source, up to its `mod tests`. Raw strings are not known.
fn literals_of(path: &Path, source: &str) -> Vec<Literal> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code: Vec<&str> = source.lines().map(|line| line.split("//").next().unwrap()).collect();
    let code = code.join("\n").replace("'\"'", "' '");
    let (mut found, mut rest, mut before) = (Vec::new(), code.as_str(), String::new());
    while let Some((until, behind)) = rest.split_once('"') {
        before += until;
        let (mut text, mut escaped, mut end) = (String::new(), false, behind.len());
        for (at, c) in behind.char_indices() {
            match (escaped, c) {
                (false, '"') => {
                    end = at;
                    break;
                }
                (false, '\\') => escaped = true,
                (true, '\n') => {
                    text.push('\n');
                    escaped = false;
                }
                (_, c) => {
                    text.push(c);
                    escaped = false;
                }
            }
        }
        // A backslash at a line's end takes the line's break and the blanks before the next word away.
        let mut lines = text.split('\n');
        let first = lines.next().unwrap().to_owned();
        let text = lines.fold(first, |text, line| text + line.trim_start());
        let start = before.rfind([';', '{', '}']).map_or(0, |at| at + 1);
        let statement = before.split_off(start);
        found.push(Literal { file: path.to_owned(), text, before: statement.clone() });
        before = statement + "\"\"";
        rest = behind.get(end + 1..).unwrap_or("");
    }
    found
}

/// Returns a text's parts between what is filled in, `{…}`.
fn fixed_parts(text: &str) -> Vec<&str> {
    text.split('{')
        .enumerate()
        .map(|(n, part)| match n {
            0 => part,
            _ => part.split_once('}').map_or(part, |(_, rest)| rest),
        })
        .filter(|part| !part.is_empty())
        .collect()
}

/// Returns `true` if `parts` stand in `text`, in their order.
fn has_in_order(text: &str, parts: &[&str]) -> bool {
    let mut rest = text;
    parts.iter().all(|part| match rest.split_once(part) {
        Some((_, behind)) => {
            rest = behind;
            true
        }
        None => false,
    })
}

fn manual() -> String {
    sh::read(&sh::root().join("share/man/man4/dm.4")).unwrap().replace("\\(ga", "`")
}

/// Returns the section of the manual with a title.
fn section<'t>(manual: &'t str, title: &str) -> &'t str {
    let (_, rest) = manual.split_once(&format!("\n.Sh {title}\n")).unwrap();
    rest.split("\n.Sh ").next().unwrap()
}

/// Returns the items of the lists of reasons in DIAGNOSTICS, without their errnos.
fn listed_reasons(manual: &str) -> Vec<String> {
    let lists = section(manual, "DIAGNOSTICS").split(".Bl -item -compact\n").skip(1);
    let lists = lists.map(|list| list.split(".El\n").next().unwrap());
    let items = lists.flat_map(|list| list.split(".It\n").skip(1));
    let plain = |item: &str| {
        let words = item.lines().filter(|line| !line.starts_with('.'));
        words.collect::<Vec<_>>().join(" ")
    };
    items.map(plain).collect()
}

/// Returns the messages of DIAGNOSTICS.
fn listed_messages(manual: &str) -> Vec<&str> {
    section(manual, "DIAGNOSTICS").lines().filter_map(|line| line.strip_prefix(".It ")).collect()
}

/// Returns the reasons without figures for which dm-core refuses a table.
fn reasons() -> Vec<Literal> {
    let mut found = literals("sys/dev/dm");
    found.retain(|literal| {
        let text = literal.text.as_str();
        let other = ["assert", "must_use", "panic!", "unreachable!", "expect("];
        text.contains(' ')
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.starts_with("dm: ")
            && !text.ends_with(' ')
            && !text.contains('{')
            && !NO_REASONS.contains(&text)
            && !other.iter().any(|what| literal.before.contains(what))
            && !literal.file.components().any(|part| part.as_os_str() == "commands")
            && !literal.file.ends_with("commands.rs")
    });
    found
}

#[test]
fn dm_4_lists_each_reason_for_which_a_table_is_refused() {
    let manual = manual();
    let (listed, reasons) = (listed_reasons(&manual), reasons());
    assert!(reasons.len() > 120, "{} reasons found", reasons.len());
    let missing: Vec<&str> = reasons.iter().map(|literal| literal.text.as_str()).collect();
    let missing = missing.into_iter().filter(|text| !listed.iter().any(|listed| listed == text));
    let missing: Vec<&str> = missing.collect();
    assert!(missing.is_empty(), "dm.4 does not list: {missing:#?}");
    let formatted = formatted(&literals("sys/dev/dm"), "because(format_args!(");
    for reason in &listed {
        let said = reasons.iter().any(|literal| literal.text == *reason);
        let said = said || formatted.iter().any(|text| text.starts_with(reason.as_str()));
        assert!(said, "dm.4 lists what nothing says: {reason}");
    }
}

/// Returns the texts with figures that stand behind `opening`.
fn formatted(literals: &[Literal], opening: &str) -> Vec<String> {
    let here = |literal: &&Literal| literal.before.trim_end().ends_with(opening);
    let texts = literals.iter().filter(here).map(|literal| literal.text.clone());
    texts.filter(|text| text.contains(' ')).collect()
}

#[test]
fn dm_4_lists_each_message() {
    let manual = manual();
    let (messages, reasons) = (listed_messages(&manual), listed_reasons(&manual));
    let mut core = literals("sys/dev/dm");
    core.retain(|literal| !literal.file.components().any(|part| part.as_os_str() == "commands"));
    let refused = |literal: &Literal| literal.file.ends_with("commands.rs");
    let mut said = formatted(&core, "say(format_args!(");
    said.extend(formatted(&literals("sys/entry"), "say(format_args!("));
    said.extend(formatted(&core, "let warning = alloc::format!("));
    core.retain(|literal| !refused(literal));
    let tables = formatted(&core, "because(format_args!(");
    assert!(said.len() >= 8 && tables.len() >= 3, "{said:?} {tables:?}");
    let is_message = |text: &str| {
        let parts = fixed_parts(text);
        messages.iter().any(|message| has_in_order(message, &parts))
    };
    for text in said {
        assert!(is_message(&text), "dm.4 does not list: {text}");
    }
    for text in tables {
        // A reason that is in the lists, perhaps, and what it is about.
        let reason = text.split(": {").next().unwrap();
        let listed = is_message(&text) || reasons.iter().any(|listed| listed == reason);
        assert!(listed, "dm.4 does not list: {text}");
    }
}

#[test]
fn dm_4_lists_each_flag() {
    let manual = manual();
    let source = sh::read(&sh::root().join("sys/dev/dm/commands.rs")).unwrap();
    let flags: Vec<(&str, &str)> = (source.lines())
        .filter_map(|line| line.trim().strip_prefix("pub const "))
        .filter_map(|rest| rest.strip_suffix(';')?.split_once(": u32 = "))
        .filter(|(_, bit)| bit.starts_with("1 << "))
        .collect();
    assert!(flags.len() >= 13, "{flags:?}");
    for (name, bit) in flags {
        let row = format!("\n.It {name} Ta {bit} Ta ");
        assert!(manual.contains(&row), "dm.4 has no row {name}, {bit}");
    }
}

#[test]
fn debugging_md_lists_each_panic() {
    let page = sh::read(&sh::root().join("share/doc/debugging.md")).unwrap();
    let mut panics = literals("sys");
    panics.retain(|literal| {
        literal.text.starts_with("dm: ") && !literal.before.trim_end().ends_with("format_args!(")
    });
    assert!(panics.len() >= 10, "{} panics found", panics.len());
    for Literal { text, .. } in panics {
        assert!(page.contains(&text), "share/doc/debugging.md does not list: {text}");
    }
}
