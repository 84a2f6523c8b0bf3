// SPDX-License-Identifier: BSD-2-Clause

//! Every property list that NetBSD's tools and kernel were seen to exchange is read, and the kernel's are written
//! byte for byte as they were.

use dm_host::proplib::xml::round_trip;

#[test]
fn recorded_lists() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors");
    let Ok(entries) = std::fs::read_dir(folder) else {
        eprintln!("{folder} is not there: nothing to compare");
        return;
    };
    let mut seen = 0;
    for entry in entries.flatten().filter(|e| e.path().extension().is_some_and(|e| e == "jsonl")) {
        let text = std::fs::read_to_string(entry.path()).expect("a text");
        for line in text.lines() {
            for (field, exact) in [("in", false), ("out", true)] {
                let Some(list) = string_field(line, field).filter(|l| l.contains("<plist")) else {
                    continue;
                };
                let again = round_trip(&list);
                assert!(again.is_some(), "refused: {list}");
                if exact {
                    assert_eq!(again.as_deref(), Some(list.as_str()));
                } else {
                    // The tools write the same in another form than the kernel.
                    let twice = again.as_deref().and_then(round_trip);
                    assert_eq!(twice, again);
                }
                seen += 1;
            }
        }
    }
    eprintln!("{seen} property lists");
    assert!(seen > 0);
}

/// The string of a field of a JSON object, its escapes resolved.
fn string_field(line: &str, field: &str) -> Option<String> {
    let start = line.find(&format!("\"{field}\": \""))? + field.len() + 5;
    let mut out = String::new();
    let mut chars = line[start..].chars();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'u' => {
                    let code: String = chars.by_ref().take(4).collect();
                    out.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                }
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
}
