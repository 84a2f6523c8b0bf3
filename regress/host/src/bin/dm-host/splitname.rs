// SPDX-License-Identifier: BSD-2-Clause

//! `splitname`: a device's name as LVM makes it of its volume group, volume and layer.

use serde_json::json;

use crate::cli::Report;
use crate::failure::Failure;
use crate::show::json;
use crate::show::report::{self, Row};

/// Takes a name apart.
///
/// # Errors
/// [`Failure::Usage`].
pub fn run(
    name: &str,
    subsystem: Option<&str>,
    report: &Report,
    as_json: bool,
) -> Result<String, Failure> {
    if subsystem.is_some_and(|subsystem| !subsystem.eq_ignore_ascii_case("LVM")) {
        return Err(Failure::Usage("splitname: there is no subsystem but LVM".into()));
    }
    if as_json {
        let [group, volume, layer] = split(name);
        return Ok(json::text(&json!({ "vg_name": group, "lv_name": volume, "lv_layer": layer })));
    }
    let fields = report::fields(report, report::SPLIT).map_err(Failure::Usage)?;
    Ok(report::show(report, &fields, vec![Row::named(name)]))
}

/// Volume group, volume, layer: they are joined by hyphens, and a hyphen in one is doubled.
pub fn split(name: &str) -> [String; 3] {
    let mut parts = [String::new(), String::new(), String::new()];
    let mut at = 0;
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        // One at the end separates nothing.
        if c == '-' && rest.next_if_eq(&'-').is_none() && rest.peek().is_some() {
            at += 1;
        } else if let Some(part) = parts.get_mut(at) {
            part.push(c);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::split;

    /// Names are split as Debian's dmsetup 1.02.185 does.
    #[test]
    fn names_come_apart() {
        assert_eq!(split("vg-lv"), ["vg", "lv", ""]);
        assert_eq!(split("vg0-lv--a-real"), ["vg0", "lv-a", "real"]);
        for (name, parts) in [
            ("plain", ["plain", "", ""]),
            ("a--b", ["a-b", "", ""]),
            ("a---b", ["a-", "b", ""]),
            ("vg-lv-x-y", ["vg", "lv", "x"]),
            ("a-b--c-d--e-f", ["a", "b-c", "d-e"]),
            ("vg-", ["vg-", "", ""]),
            ("vg-lv-x-", ["vg", "lv", "x-"]),
            ("-lv", ["", "lv", ""]),
            ("--", ["-", "", ""]),
            ("---", ["--", "", ""]),
            ("a---", ["a--", "", ""]),
        ] {
            assert_eq!(split(name), parts, "{name}");
        }
    }
}
