// SPDX-License-Identifier: BSD-2-Clause

//! The answers of commands as lines.

use std::collections::BTreeMap;

use super::Runner;
use crate::side::{Call, Line, Reply, Request, Side};

impl<S: Side> Runner<'_, S> {
    /// The names of this side's numbers.
    fn numbers(&self) -> BTreeMap<String, String> {
        let mut numbers = BTreeMap::new();
        if let Ok(reply) = self.side.command(&Request::new(Call::Names)) {
            for (name, minor) in reply.names {
                numbers.insert(format!("{}:{minor}", self.side.major()), format!("@{name}"));
            }
        }
        for entry in std::fs::read_dir(&self.images).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some((major, minor, _)) = self.side.disk(&name) {
                numbers.insert(format!("{major}:{minor}"), format!("@{name}"));
            }
        }
        numbers
    }

    /// The lines for a command's answer, with names for device numbers.
    pub(super) fn show(&self, request: &Request, reply: &Reply) -> Vec<String> {
        let question = matches!(request.call, Call::Info | Call::Status | Call::Deps | Call::Wait);
        if question && !reply.exists {
            return vec!["ENXIO".into()];
        }
        match request.call {
            Call::Info => {
                let yes = |b: bool| if b { "yes" } else { "no" };
                let mut lines = vec![format!(
                    "suspended={} live={} inactive={} readonly={} deferred={}",
                    yes(reply.suspended),
                    yes(reply.live),
                    yes(reply.inactive),
                    yes(reply.readonly),
                    yes(reply.deferred)
                )];
                lines.push(format!("open={}", reply.open));
                lines.push(format!("event={}", reply.event));
                lines.push(format!("targets={}", reply.targets));
                lines.push(format!("name={}", reply.name));
                lines.push(format!("uuid={}", reply.uuid));
                if request.minor.is_some() {
                    lines.push(format!("minor={}", reply.minor));
                }
                lines
            }
            Call::Status | Call::Wait => {
                let numbers = self.numbers();
                let word = |word: &str| match numbers.get(word) {
                    Some(name) => name.clone(),
                    None => word.to_owned(),
                };
                let line = |line: &Line| {
                    let params: Vec<_> = line.params.split(' ').map(word).collect();
                    format!("{} {} {} {}", line.start, line.length, line.kind, params.join(" "))
                };
                match reply.lines.is_empty() {
                    true => vec!["no lines".into()],
                    false => reply.lines.iter().map(line).collect(),
                }
            }
            Call::Deps => {
                let numbers = self.numbers();
                let name = |(major, minor): &(u32, u32)| {
                    let number = format!("{major}:{minor}");
                    numbers.get(&number).cloned().unwrap_or(number)
                };
                // In which order is nowhere said.
                let mut names: Vec<_> = reply.deps.iter().map(name).collect();
                names.sort();
                vec![format!("{} {}", names.len(), names.join(" "))]
            }
            Call::Names => {
                let mut names: Vec<_> = reply.names.iter().map(|(name, _)| name.clone()).collect();
                names.sort();
                vec![format!("{} {}", names.len(), names.join(" "))]
            }
            Call::Message => match &reply.text {
                Some(text) => text.lines().map(|line| format!("= {line}")).collect(),
                None => vec!["ok".into()],
            },
            _ => vec!["ok".into()],
        }
    }
}
