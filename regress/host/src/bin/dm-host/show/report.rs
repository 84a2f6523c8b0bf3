// SPDX-License-Identifier: BSD-2-Clause

//! Reports in columns: `info -c` and `splitname`, with dmsetup's fields, headings and widths.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use dm_core::commands::flags;
use dm_core::refusal::Shown;
use dm_core::units::Dev;

use super::{BLOCK_MAJOR, has, number};
use crate::cli::Report;
use crate::splitname;
use crate::xml::Answer;

/// The default columns of `info -c`.
pub const INFO: &str = "name,major,minor,attr,open,segments,events,uuid";

/// The default columns of `splitname`.
pub const SPLIT: &str = "vg_name,lv_name,lv_layer";

/// The names of block devices by their major and minor numbers.
pub type Names = Arc<BTreeMap<u64, String>>;

/// A device in a report.
pub struct Row {
    answer: Option<Answer>,
    name: String,
    /// The devices below, and those above.
    pub uses: Vec<Dev>,
    pub used_by: Vec<Dev>,
    /// The names of these devices.
    pub names: Names,
}

impl Row {
    /// A device, from the driver's answer about it.
    pub fn new(answer: Answer) -> Row {
        let name = answer.text("name").to_string();
        Row { answer: Some(answer), ..Row::named(name) }
    }

    /// A device of which nothing but the name is known.
    pub fn named(name: impl Into<String>) -> Row {
        Row {
            answer: None,
            name: name.into(),
            uses: Vec::new(),
            used_by: Vec::new(),
            names: Names::default(),
        }
    }

    /// The device's minor number.
    pub fn minor(&self) -> u64 {
        self.number("minor")
    }

    fn number(&self, key: &str) -> u64 {
        self.answer.as_ref().map_or(0, |answer| number(answer, key))
    }

    fn has(&self, flag: u32) -> bool {
        self.answer.as_ref().is_some_and(|answer| has(answer, flag))
    }

    fn called(&self, devs: &[Dev], own: bool) -> String {
        let name = |dev: &Dev| match self.names.get(&dev.0) {
            // The disk's name is the end of its path.
            Some(name) => Some(name.rsplit('/').next().unwrap_or(name).to_string()),
            None => Some(dev.to_string()),
        };
        let wanted = devs.iter().filter(|dev| !own || dev.major() == BLOCK_MAJOR);
        wanted.filter_map(name).collect::<Vec<_>>().join(",")
    }

    fn block_names(&self) -> String {
        let name = |dev: &Dev| match dev.major() {
            BLOCK_MAJOR => format!("dm{}", dev.minor()),
            _ => self.called(&[*dev], false),
        };
        self.uses.iter().map(name).collect::<Vec<_>>().join(",")
    }
}

fn devnos(devs: &[Dev]) -> String {
    devs.iter().map(Dev::to_string).collect::<Vec<_>>().join(",")
}

/// A group of fields, by the names they may be asked with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Name,
    Info,
    Deps,
    Split,
}

const GROUPS: [(Group, &str, &str); 4] = [
    (Group::Name, "name_all", "Mapped Device Name Fields"),
    (Group::Info, "info_all", "Mapped Device Information Fields"),
    (Group::Deps, "deps_all", "Mapped Device Relationship Information Fields"),
    (Group::Split, "splitname_all", "Mapped Device Name Components Fields"),
];

/// A field of a report.
struct Field {
    group: Group,
    name: &'static str,
    heading: &'static str,
    /// The least width of its column.
    width: usize,
    /// `true` for a number, which is aligned right and sorted by value.
    numeric: bool,
    about: &'static str,
    value: fn(&Row) -> String,
}

macro_rules! fields {
    ($($group:ident $name:literal $heading:literal $width:literal $numeric:literal $about:literal
       $value:expr;)*) => {
        &[$(Field {
            group: Group::$group, name: $name, heading: $heading, width: $width,
            numeric: $numeric, about: $about, value: $value,
        },)*]
    };
}

fn text(row: &Row, key: &str) -> String {
    row.answer.as_ref().map_or("", |answer| answer.text(key)).into()
}

fn attr(row: &Row) -> String {
    let flag = |flag, set, clear| if row.has(flag) { set } else { clear };
    let all = [
        flag(flags::ACTIVE_PRESENT, 'L', '-'),
        flag(flags::INACTIVE_PRESENT, 'I', '-'),
        flag(flags::SUSPEND, 's', '-'),
        flag(flags::READONLY, 'r', 'w'),
    ];
    all.iter().collect()
}

fn tables(row: &Row) -> String {
    match (row.has(flags::ACTIVE_PRESENT), row.has(flags::INACTIVE_PRESENT)) {
        (true, true) => "Both",
        (true, false) => "Live",
        (false, true) => "Inactive",
        (false, false) => "None",
    }
    .into()
}

fn part(row: &Row, at: usize) -> String {
    splitname::split(&row.name).get(at).cloned().unwrap_or_default()
}

const FIELDS: &[Field] = fields! {
    Name "name" "Name" 16 false "Name of mapped device." |row| row.name.clone();
    Name "mangled_name" "MangledName" 16 false "The same here." |row| row.name.clone();
    Name "unmangled_name" "UnmangledName" 16 false "The same here." |row| row.name.clone();
    Name "uuid" "UUID" 32 false "Unique (optional) identifier for mapped device."
        |row| text(row, "uuid");
    Name "mangled_uuid" "MangledUUID" 32 false "The same here." |row| text(row, "uuid");
    Name "unmangled_uuid" "UnmangledUUID" 32 false "The same here." |row| text(row, "uuid");
    Name "read_ahead" "RAhead" 6 true "Read ahead value: always 0 here." |_| "0".into();
    Info "blkdevname" "BlkDevName" 16 false "Name of block device."
        |row| format!("dm{}", row.minor());
    Info "attr" "Stat" 4 false "(L)ive, (I)nactive, (s)uspended, (r)ead-only, read-(w)rite." attr;
    Info "tables_loaded" "Tables" 6 false
        "Which of the live and inactive table slots are filled." tables;
    Info "suspended" "Suspended" 9 false "Whether the device is suspended."
        |row| if row.has(flags::SUSPEND) { "Suspended" } else { "Active" }.into();
    Info "readonly" "Read-only" 9 false "Whether the device is read-only or writeable."
        |row| if row.has(flags::READONLY) { "Read-only" } else { "Writeable" }.into();
    Info "devno" "DevNo" 5 false "Device major and minor numbers"
        |row| format!("{BLOCK_MAJOR}:{}", row.minor());
    Info "major" "Maj" 3 true "Block device major number." |_| BLOCK_MAJOR.to_string();
    Info "minor" "Min" 3 true "Block device minor number." |row| row.minor().to_string();
    Info "open" "Open" 4 true "How many of its nodes are open."
        |row| row.number("open_count").to_string();
    Info "segments" "Targ" 4 true "Number of segments in live table, if present."
        |row| row.number("target_count").to_string();
    Info "events" "Event" 6 true "Number of most recent event."
        |row| row.number("event_nr").to_string();
    Info "deferred_remove" "Deferred" 8 false "Whether the device goes at its last close."
        |row| if row.has(flags::DEFERRED_REMOVE) { "Deferred" } else { "" }.into();
    Deps "device_count" "#Devs" 5 true "Number of devices used by this one."
        |row| row.uses.len().to_string();
    Deps "devs_used" "DevNamesUsed" 16 false "List of names of mapped devices used by this one."
        |row| row.called(&row.uses, true);
    Deps "devnos_used" "DevNosUsed" 16 false
        "List of device numbers of devices used by this one." |row| devnos(&row.uses);
    Deps "blkdevs_used" "BlkDevNamesUsed" 16 false
        "List of names of block devices used by this one." |row| row.block_names();
    Deps "device_ref_count" "#Refs" 5 true "Number of mapped devices referencing this one."
        |row| row.used_by.len().to_string();
    Deps "names_using_dev" "DevNamesUsing" 16 false
        "List of names of mapped devices using this one." |row| row.called(&row.used_by, true);
    Deps "devnos_using_dev" "DevNosUsing" 16 false
        "List of device numbers of mapped devices using this one." |row| devnos(&row.used_by);
    Split "subsystem" "Subsys" 6 false "Userspace subsystem responsible for this device."
        |_| "LVM".into();
    Split "vg_name" "VG" 4 false "LVM Volume Group name." |row| part(row, 0);
    Split "lv_name" "LV" 4 false "LVM Logical Volume name." |row| part(row, 1);
    Split "lv_layer" "LVLayer" 7 false "LVM device layer." |row| part(row, 2);
};

/// The fields of a report, and how it is sorted.
pub struct Fields {
    columns: Vec<&'static Field>,
    /// Field, and `true` for downwards.
    sort: Vec<(&'static Field, bool)>,
}

impl Fields {
    /// `true` if what uses what must be known.
    pub fn need_relations(&self) -> bool {
        let sort = self.sort.iter().map(|(field, _)| *field);
        self.columns.iter().copied().chain(sort).any(|field| field.group == Group::Deps)
    }
}

/// `true` if the list of fields is asked for instead of a report.
pub fn asks_for_help(fields: &str) -> bool {
    fields.trim_start_matches('+').split(',').any(|field| matches!(field, "help" | "?"))
}

/// The fields that can be asked for.
pub fn help() -> String {
    let mut out = String::new();
    for (group, all, title) in GROUPS {
        let _ = writeln!(out, "{title}\n{}", "-".repeat(title.len()));
        let _ = writeln!(out, "  {all:<22}- All fields in this section.");
        for field in FIELDS.iter().filter(|field| field.group == group) {
            let _ = writeln!(out, "  {:<22}- {}", field.name, field.about);
        }
        out.push_str(" \n");
    }
    out.push_str("Special Fields\n--------------\n  help                  - Show help.\n");
    out
}

fn named(list: &str, into: &mut Vec<&'static Field>) -> Result<(), String> {
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let all = if name == "all" { Some(None) } else { None };
        let group = GROUPS.iter().find(|(_, all, _)| *all == name).map(|(group, ..)| Some(*group));
        match group.or(all) {
            Some(group) => {
                into.extend(FIELDS.iter().filter(|f| group.is_none_or(|group| f.group == group)));
            }
            None => into.push(FIELDS.iter().find(|field| field.name == name).ok_or_else(|| {
                format!("unrecognised field: {}; `-o help` lists them", Shown(name))
            })?),
        }
    }
    Ok(())
}

/// Reads the fields of a report, or takes `usual`.
///
/// # Errors
/// A field that there is none.
pub fn fields(report: &Report, usual: &str) -> Result<Fields, String> {
    let mut columns = Vec::new();
    match report.fields.as_deref() {
        None => named(usual, &mut columns)?,
        Some(more) if more.starts_with('+') => {
            named(usual, &mut columns)?;
            named(more.trim_start_matches('+'), &mut columns)?;
        }
        Some(fields) => named(fields, &mut columns)?,
    }
    let mut sort = Vec::new();
    for key in report.sort.as_deref().unwrap_or_default().split(',').filter(|k| !k.is_empty()) {
        let mut one = Vec::new();
        named(key.trim_start_matches(['+', '-']), &mut one)?;
        sort.extend(one.into_iter().map(|field| (field, key.starts_with('-'))));
    }
    Ok(Fields { columns, sort })
}

fn compare(field: &Field, a: &Row, b: &Row) -> Ordering {
    let (a, b) = ((field.value)(a), (field.value)(b));
    match (field.numeric, a.parse::<u64>(), b.parse::<u64>()) {
        (true, Ok(a), Ok(b)) => a.cmp(&b),
        _ => a.cmp(&b),
    }
}

/// A report as text.
pub fn show(report: &Report, fields: &Fields, mut rows: Vec<Row>) -> String {
    rows.sort_by(|a, b| {
        let keys = fields.sort.iter().map(|(field, down)| {
            let order = compare(field, a, b);
            if *down { order.reverse() } else { order }
        });
        keys.fold(Ordering::Equal, Ordering::then)
    });
    let cell = |field: &&'static Field, row: &Row| {
        let value = Shown(&(field.value)(row)).to_string();
        match report.nameprefixes {
            true => format!("DM_{}='{value}'", field.name.to_uppercase()),
            false => value,
        }
    };
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| fields.columns.iter().map(|f| cell(f, row)).collect()).collect();
    let headings = !report.noheadings && !report.nameprefixes;
    let mut out = String::new();
    if let Some(separator) = &report.separator {
        let names = fields.columns.iter().map(|field| field.heading.to_string()).collect();
        let lines = headings.then_some(names).into_iter().chain(cells);
        lines.for_each(|line: Vec<String>| {
            let _ = writeln!(out, "{}", line.join(separator));
        });
        return out;
    }
    let length = |text: &str| text.chars().count();
    let widths: Vec<usize> = fields
        .columns
        .iter()
        .enumerate()
        .map(|(at, field)| {
            let least = match report.nameprefixes {
                true => 0,
                false => field.width.max(length(field.heading)),
            };
            cells.iter().filter_map(|row| row.get(at)).map(|c| length(c)).fold(least, usize::max)
        })
        .collect();
    let mut line = |cells: Vec<(&str, bool)>| {
        let cells = cells.into_iter().zip(&widths).map(|((text, right), width)| match right {
            true => format!("{text:>width$}"),
            false => format!("{text:<width$}"),
        });
        let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join(" "));
    };
    if headings {
        line(fields.columns.iter().map(|field| (field.heading, false)).collect());
    }
    for row in &cells {
        let right = |field: &&Field| field.numeric && !report.nameprefixes;
        let cells = row.iter().zip(&fields.columns);
        line(cells.map(|(text, field)| (text.as_str(), right(field))).collect());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(report: &Report, name: &str) -> String {
        show(report, &fields(report, SPLIT).unwrap(), vec![Row::named(name)])
    }

    /// Reports are printed as Debian's dmsetup 1.02.185 prints them.
    #[test]
    fn reports_are_dmsetups() {
        let report = Report::default();
        assert_eq!(split(&report, "vg-lv"), "VG   LV   LVLayer\nvg   lv          \n");
        let more = Report { fields: Some("+subsystem".into()), ..Report::default() };
        assert_eq!(split(&more, "vg-lv"), "VG   LV   LVLayer Subsys\nvg   lv           LVM   \n");
        let bare = Report { separator: Some("|".into()), ..Report::default() };
        assert_eq!(split(&bare, "vg-lv"), "VG|LV|LVLayer\nvg|lv|\n");
        let bare = Report { noheadings: true, ..bare };
        assert_eq!(split(&bare, "vg0-lv--a-real"), "vg0|lv-a|real\n");
    }

    #[test]
    fn fields_are_found_sorted_and_refused() {
        let report = Report { fields: Some("bogus".into()), ..Report::default() };
        assert!(fields(&report, INFO).is_err_and(|why| why.contains("bogus")));
        assert!(asks_for_help("help") && asks_for_help("+?") && !asks_for_help("name"));
        let report = Report {
            fields: Some("name".into()),
            sort: Some("-name".into()),
            noheadings: true,
            ..Report::default()
        };
        let rows = ["a", "c", "b"].map(Row::named).into();
        let text = show(&report, &fields(&report, INFO).unwrap(), rows);
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["c", "b", "a"]);
        let all = fields(&Report { fields: Some("deps_all".into()), ..Report::default() }, INFO);
        assert!(all.unwrap().need_relations());
        for field in FIELDS {
            assert!(help().contains(&format!("  {:<22}- ", field.name)), "{}", field.name);
        }
    }
}
