// SPDX-License-Identifier: BSD-2-Clause

//! Loading tables, and making devices with them: in as many requests as it takes, and undone when
//! it is interrupted.

use dm_core::commands::flags;
use dm_core::refusal::Shown;
use dm_host::Errno;
use dm_host::wire::Kind;

use super::{Ask, Session};
use crate::cli::{By, Device};
use crate::concise;
use crate::failure::Failure;
use crate::table::Line;
use crate::xml::{self, Dict, Plist};

/// The kernel refuses property lists of 64 KiB; a table that makes a larger one goes in parts.
const REQUEST: usize = 60 * 1024;

impl Session {
    /// Carries out `create`, then `reload` and `resume` if there is a table. If a later step fails the steps before
    /// are undone; if this program is interrupted, by the server.
    pub(super) fn create(
        &mut self,
        name: &str,
        create: &Ask<'_>,
        lines: Option<Vec<Line>>,
        readonly: bool,
    ) -> Result<String, Failure> {
        let Some(lines) = lines else { return self.change(create) };
        self.client.catch_signals();
        let remove = xml::write(&Ask::name("remove", name).dict(self.style));
        let text = xml::write(&create.dict(self.style));
        let reply = self.client.ask_and_undo(&text, &remove)?;
        Session::reply(create, reply)?;
        let reload = || Ask::name("reload", name).flag(flags::READONLY, readonly);
        let mut result = self.load(&reload, &lines, false).and_then(|_| {
            // dmsetup leaves the table in the request.
            let resume = Ask::name("resume", name);
            let parts = parts(&lines);
            self.change(&match <[_; 1]>::try_from(parts) {
                Ok([data]) => resume.data(data),
                Err(_) => resume,
            })
        });
        if let Err(failure) = &mut result
            && let Err(also) = self.ask(&Ask::name("remove", name))
            && let Failure::Refused { said, .. } = failure
        {
            said.push_str(&format!("\nand the new device could not be removed again: {also}"));
        }
        // Nothing is left to undo.
        let _ = self.client.ask(Kind::AtEnd, "")?;
        result
    }

    /// Carries out `create --concise`, of devices on the command line or on standard input.
    pub(super) fn create_concise(
        &mut self,
        text: &str,
        next: Option<&str>,
    ) -> Result<String, Failure> {
        let text = match (text, next) {
            ("", Some(next)) => next.to_string(),
            ("", None) => super::read(std::path::Path::new("-"))?,
            (text, _) => text.to_string(),
        };
        let mut out = String::new();
        for device in concise::parse(text.trim_end_matches('\n')).map_err(Failure::Usage)? {
            let by = By { uuid: device.uuid.clone(), minor: device.minor, major: None };
            let create = Ask { by: Some(&by), ..Ask::name("create", &device.name) };
            let create = create.flag(flags::READONLY, device.read_only);
            let lines = (!device.lines.is_empty()).then_some(device.lines);
            out.push_str(&self.create(&device.name, &create, lines, device.read_only)?);
        }
        Ok(out)
    }

    /// Sends a table, in as many requests as it needs. With `undo` the server drops lines that
    /// are not followed by the rest.
    pub(super) fn load<'a>(
        &mut self,
        ask: &dyn Fn() -> Ask<'a>,
        lines: &[Line],
        undo: bool,
    ) -> Result<String, Failure> {
        let mut parts = parts(lines);
        let last = parts.pop().unwrap_or_default();
        if !parts.is_empty() {
            self.client.catch_signals();
            if !self.takes_parts()? {
                return Err(Failure::Usage(format!(
                    "the table is too large for this driver: {} lines do not fit into one request",
                    lines.len()
                )));
            }
        }
        let mut before = 0u64;
        for part in parts {
            let count = part.len() as u64;
            let more = ask().flag(flags::RELOAD_MORE, true).data(part).with("before", before);
            let reply = if undo && before == 0 {
                // Beginning anew with no lines drops those that are kept.
                let drop = ask().flag(flags::RELOAD_MORE, true).data(Vec::new());
                let drop = xml::write(&drop.with("before", 0).dict(self.style));
                let text = xml::write(&more.dict(self.style));
                let reply = self.client.ask_and_undo(&text, &drop)?;
                Session::reply(&more, reply)
            } else {
                self.ask(&more)
            };
            reply.map_err(|failure| place(failure, lines))?;
            before = before.saturating_add(count);
        }
        let result = self.ask(&ask().data(last).with("before", before));
        if undo && before > 0 {
            // Loaded or refused, no lines are kept any more.
            let _ = self.client.ask(Kind::AtEnd, "")?;
        }
        let answer = result.map_err(|failure| place(failure, lines))?;
        Ok(self.after(&answer))
    }

    /// Has all I/O of a device fail: a table of its size, of the target error, and resume.
    pub(super) fn wipe(&mut self, device: &Device) -> Result<String, Failure> {
        let table = Ask::device("table", device).flag(flags::STATUS_TABLE, true);
        let answer = self.question(&table)?;
        let end = |line: crate::xml::Answer| {
            let number = |key| line.number(key).unwrap_or(0);
            number("start").saturating_add(number("length"))
        };
        let length = answer.dictionaries("cmd_data").map(end).max().unwrap_or(0);
        if length > 0 {
            let kind = "error".into();
            let line = Line { number: 1, start: 0, length, kind, params: String::new() };
            self.load(&|| Ask::device("reload", device), &[line], true)?;
        }
        self.change(&Ask::device("resume", device))
    }

    /// `true` if the driver says that it takes tables in several requests.
    fn takes_parts(&mut self) -> Result<bool, Failure> {
        let version = self.ask(&Ask::new("version"))?;
        let bit = version.dictionaries("features").find_map(|f| f.number("reload_more"));
        Ok(bit == Some(u64::from(flags::RELOAD_MORE)))
    }
}

/// The lines as cmd_data, cut so that no request comes near the kernel's limit.
pub fn parts(lines: &[Line]) -> Vec<Vec<Plist>> {
    let mut parts = vec![Vec::new()];
    let mut size = 0usize;
    for line in lines {
        let dict = Dict::from([
            ("start", line.start.into()),
            ("length", line.length.into()),
            ("type", line.kind.as_str().into()),
            ("params", line.params.as_str().into()),
        ]);
        // The head of a property list is counted with every line: close enough.
        let bytes = xml::write(&dict).len();
        size = size.saturating_add(bytes);
        if size > REQUEST && parts.last().is_some_and(|part| !part.is_empty()) {
            parts.push(Vec::new());
            size = bytes;
        }
        if let Some(part) = parts.last_mut() {
            part.push(Plist::Dict(dict));
        }
    }
    parts
}

/// Replaces the driver's number of a line, which counts the lines that were sent, by that in the user's text.
fn place(mut failure: Failure, lines: &[Line]) -> Failure {
    if let Failure::Refused { errno, line: at, said, .. } = &mut failure {
        let sent = at.and_then(|sent| lines.get(sent.checked_sub(1)?));
        let large = || lines.iter().max_by_key(|line| line.params.len());
        // Without a line, a request that is too large has one that is.
        let too_large = *errno == Errno::E2BIG && at.is_none() && said.contains("65536");
        let Some(line) = sent.or_else(|| large().filter(|_| too_large)) else { return failure };
        *at = Some(line.number);
        let text = format!("{} {} {} {}", line.start, line.length, line.kind, line.params);
        let text: String = text.trim_end().chars().take(200).collect();
        said.push_str(&format!("\n{}", Shown(&text)));
    }
    failure
}
