// SPDX-License-Identifier: BSD-2-Clause

//! Questions: the devices there are, their states, and their components.

use std::process::Command;

use dm_core::commands::flags;
use serde_json::json;

use super::{Ask, Session, each};
use crate::cli::{Devices, DevicesOrAll, Report, Show, Style};
use crate::failure::Failure;
use crate::say::say;
use crate::show::report::{self, Row};
use crate::show::tree::{self, Tree};
use crate::show::{self, json as as_json};
use crate::xml::Answer;

impl Session {
    /// Asks `command` about devices, or about all of them; of all, one that vanishes meanwhile is
    /// left out. `None` if there are no devices at all.
    fn each(
        &mut self,
        command: &'static str,
        devices: &DevicesOrAll,
        flags: u32,
    ) -> Result<Option<Vec<Answer>>, Failure> {
        if !is_all(devices) {
            let named = Devices { names: devices.names.clone(), by: devices.by.clone() };
            let mut answers = Vec::new();
            for device in each(&named) {
                let ask = Ask::device(command, &device).flag(flags, true);
                answers.push(self.question(&ask)?);
            }
            return Ok(Some(answers));
        }
        if self.style == Style::Dmctl {
            return Err(Failure::Usage(format!("{command}: dmctl wants a device's name")));
        }
        let names = self.names()?;
        if names.is_empty() {
            return Ok(None);
        }
        self.all(command, &names, flags).map(Some)
    }

    fn all(
        &mut self,
        command: &'static str,
        names: &[String],
        flags: u32,
    ) -> Result<Vec<Answer>, Failure> {
        let mut answers = Vec::new();
        for name in names {
            match self.question(&Ask::name(command, name).flag(flags, true)) {
                Ok(answer) => answers.push(answer),
                Err(Failure::NoDevice(_)) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(answers)
    }

    pub(super) fn info(
        &mut self,
        devices: &DevicesOrAll,
        report: &Report,
        inactive: bool,
    ) -> Result<String, Failure> {
        let flags = if inactive { flags::QUERY_INACTIVE_TABLE } else { 0 };
        let columns = report.columns || report.fields.is_some() || report.sort.is_some();
        let fields = report::fields(report, report::INFO).map_err(Failure::Usage)?;
        let answers = self.each("info", devices, flags)?;
        if self.json {
            let all = answers.iter().flatten().map(as_json::info).collect::<Vec<_>>();
            return Ok(as_json::text(&json!({ "devices": all })));
        }
        let Some(answers) = answers else { return Ok(show::NONE.into()) };
        if columns {
            let mut rows: Vec<_> = answers.into_iter().map(Row::new).collect();
            if fields.need_relations() {
                self.relate(&mut rows)?;
            }
            return Ok(report::show(report, &fields, rows));
        }
        Ok(match self.style {
            Style::Dmsetup => answers.iter().map(show::info).collect(),
            Style::Dmctl => answers.iter().map(show::dmctl_info).collect(),
        })
    }

    /// Finds the components of each device, and its users.
    fn relate(&mut self, rows: &mut [Row]) -> Result<(), Failure> {
        let tree = self.tree()?;
        for row in rows {
            row.uses = tree.below(row.minor()).to_vec();
            row.used_by = tree.above(row.minor());
            row.names = tree.names();
        }
        Ok(())
    }

    /// All devices, the devices below each, and the names of disks.
    fn tree(&mut self) -> Result<Tree, Failure> {
        let names = self.names()?;
        let infos = self.all("deps", &names, 0)?;
        let disks = self.other(dm_host::wire::Kind::Disks, "disks", "")?;
        Ok(Tree::new(&infos, &disks))
    }

    pub(super) fn status(
        &mut self,
        command: &'static str,
        devices: &DevicesOrAll,
        show: &Show,
        concise: bool,
    ) -> Result<String, Failure> {
        let mut flags = if command == "table" { flags::STATUS_TABLE } else { 0 };
        if show.inactive {
            flags |= flags::QUERY_INACTIVE_TABLE;
        }
        let answers = self.each(command, devices, flags)?;
        let target = show.target.as_deref();
        if self.json {
            let all = answers.iter().flatten().map(|answer| as_json::table(answer, target));
            return Ok(as_json::text(&json!({ "devices": all.collect::<Vec<_>>() })));
        }
        let Some(answers) = answers else { return Ok(show::NONE.into()) };
        if concise {
            let all: Vec<_> = answers.iter().map(crate::concise::show).collect();
            return Ok(format!("{}\n", all.join(";")));
        }
        let many = is_all(devices) || devices.names.len() > 1;
        let of = |answer: &Answer| match self.style {
            Style::Dmsetup => show::table(answer, many, target),
            Style::Dmctl => show::dmctl_table(answer),
        };
        Ok(answers.iter().map(of).collect())
    }

    pub(super) fn deps(
        &mut self,
        devices: &DevicesOrAll,
        inactive: bool,
        how: Option<&str>,
    ) -> Result<String, Failure> {
        let names = match how {
            None | Some("devno") => false,
            Some("blkdevname" | "devname") => true,
            Some(other) => {
                return Err(Failure::Usage(format!(
                    "-o {other}: it is devno, blkdevname or devname"
                )));
            }
        };
        let flags = if inactive { flags::QUERY_INACTIVE_TABLE } else { 0 };
        let answers = self.each("deps", devices, flags)?;
        if self.json {
            let all = answers.iter().flatten().map(as_json::deps).collect::<Vec<_>>();
            return Ok(as_json::text(&json!({ "devices": all })));
        }
        let Some(answers) = answers else { return Ok(show::NONE.into()) };
        let many = is_all(devices) || devices.names.len() > 1;
        let tree = if names { Some(self.tree()?) } else { None };
        let one = |answer| show::deps(self.style, answer, many, tree.as_ref());
        Ok(answers.iter().map(one).collect())
    }

    pub(super) fn ls(
        &mut self,
        target: Option<&str>,
        exec: Option<&str>,
        tree: bool,
        how: Option<&str>,
    ) -> Result<String, Failure> {
        let how = tree::How::parse(how.unwrap_or_default()).map_err(Failure::Usage)?;
        let answer = self.ask(&Ask::new("names"))?;
        let mut entries: Vec<_> = answer.dictionaries("cmd_data").collect();
        if let Some(target) = target {
            let mut kept = Vec::new();
            for entry in entries {
                let ask = Ask::name("table", entry.text("name"));
                let Ok(table) = self.question(&ask.flag(flags::STATUS_TABLE, true)) else {
                    continue;
                };
                if table.dictionaries("cmd_data").any(|line| line.text("type") == target) {
                    kept.push(entry);
                }
            }
            entries = kept;
        }
        if let Some(command) = exec {
            return execute(command, entries.iter().map(|entry| entry.text("name")));
        }
        if tree {
            let roots: Vec<_> = entries.iter().map(show::json::minor).collect();
            let all = self.tree()?;
            if self.json {
                return Ok(as_json::text(&all.json(&roots, how.inverted)));
            }
            let mut infos = Vec::new();
            if how.needs_infos() {
                let names = self.names()?;
                infos = self.all("info", &names, 0)?;
            }
            return Ok(all.show(&roots, &how, &infos));
        }
        Ok(match self.json {
            true => as_json::text(&as_json::names(&entries)),
            false => show::names(self.style, &entries, &how),
        })
    }

    pub(super) fn targets(&mut self, wanted: &[String]) -> Result<String, Failure> {
        let answer = self.ask(&Ask::new("targets"))?;
        let all: Vec<_> = answer.dictionaries("cmd_data").collect();
        let mut entries = Vec::new();
        for name in wanted {
            let found = all.iter().find(|entry| entry.text("name") == name);
            let what = || Failure::Usage(format!("{name}: no such target"));
            entries.push(found.cloned().ok_or_else(what)?);
        }
        let entries = if wanted.is_empty() { all } else { entries };
        Ok(match self.json {
            true => as_json::text(&as_json::targets(&entries)),
            false => show::targets(self.style, &entries),
        })
    }
}

fn is_all(devices: &DevicesOrAll) -> bool {
    devices.names.is_empty() && !devices.by.is_given()
}

/// Runs a command for each device, as dmsetup does: with the path of its node. A command that fails is reported, and
/// ends nothing.
fn execute<'n>(command: &str, names: impl Iterator<Item = &'n str>) -> Result<String, Failure> {
    let mut words = command.split_ascii_whitespace();
    let program =
        words.next().ok_or_else(|| Failure::Usage("--exec: there is no command".into()))?;
    let words: Vec<_> = words.collect();
    for name in names {
        let status = Command::new(program).args(&words).arg(format!("/dev/mapper/{name}")).status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => say(&format!("{command}: {status}")),
            Err(error) => return Err(Failure::Usage(format!("{program}: {error}"))),
        }
    }
    Ok(String::new())
}
