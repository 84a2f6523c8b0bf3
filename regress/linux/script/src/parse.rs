// SPDX-License-Identifier: BSD-2-Clause

//! Reads scripts. `share/doc/linux-judge.md` has the language.

use std::path::Path;

use crate::data;
use crate::script::{Action, End, Io, IoKind, Rule, Script, Stage, Step};
use crate::side::{Call, Disk, Line, Request};
use crate::words;

/// Lines of a table that one `times` may make.
const MOST_LINES: u64 = 1 << 20;

impl Script {
    /// Reads a script's text.
    ///
    /// # Errors
    /// The line, and what is wrong with it.
    pub fn parse(name: &str, text: &str) -> Result<Script, String> {
        script(name, text)
    }

    /// Reads a script's file.
    ///
    /// # Errors
    /// As [`Script::parse`], and the file's.
    pub fn read(path: &Path) -> Result<(Script, String), String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let script = Script::parse(&name, &text).map_err(|why| format!("{name}: {why}"))?;
        Ok((script, text))
    }
}

fn script(name: &str, text: &str) -> Result<Script, String> {
    let mut script = Script {
        name: name.to_owned(),
        needs: Vec::new(),
        quick: false,
        disks: Vec::new(),
        prepare: Vec::new(),
        check: Vec::new(),
        replays: Vec::new(),
        stages: Vec::new(),
    };
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let at = |why: String| format!("line {number}: {why}: {}", line.trim());
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            let lines = table_line(line.trim_start()).map_err(at)?;
            table_of(steps.last_mut()).map_err(at)?.extend(lines);
            continue;
        }
        let all = words::split(line).map_err(at)?;
        let mut words = Words { words: &all };
        let rest =
            |verb: &str| line.trim().strip_prefix(verb).unwrap_or_default().trim().to_owned();
        match words.next("a verb").map_err(at)? {
            "needs" => script.needs.extend(words.words.iter().cloned()),
            "quick" => script.quick = true,
            "disk" => script.disks.push(disk(&mut words).map_err(at)?),
            "prepare" => script.prepare.push(rest("prepare")),
            "check" => script.check.push(rest("check")),
            "replays" => {
                let mut disk = || -> Result<String, String> {
                    let name = words.next("a disk")?;
                    let known = script.disks.iter().any(|disk| disk.name == name);
                    known.then(|| name.to_owned()).ok_or_else(|| format!("there is no disk {name}"))
                };
                let pair = (disk().map_err(at)?, disk().map_err(at)?);
                words.end().map_err(at)?;
                script.replays.push(pair);
            }
            "differs" => {
                let step = steps.last_mut().ok_or_else(|| at("no step before it".into()))?;
                step.differs.push(rule(&mut words).map_err(at)?);
            }
            verb @ ("swap" | "restart") => {
                let end = End { swap: verb == "swap", crash: words.flag("crash") };
                words.end().map_err(at)?;
                script.stages.push(Stage { steps: std::mem::take(&mut steps), end });
            }
            "linux" => {
                let action = Action::Shell(rest("linux"));
                steps.push(Step {
                    line: number,
                    text: line.trim().into(),
                    action,
                    differs: vec![],
                });
            }
            verb => {
                let action = action(verb, &mut words, number).map_err(at)?;
                words.end().map_err(at)?;
                let text = line.trim().chars().take(200).collect();
                steps.push(Step { line: number, text, action, differs: vec![] });
            }
        }
    }
    script.stages.push(Stage { steps, end: End { swap: false, crash: false } });
    Ok(script)
}

/// A line's words, from front to back.
struct Words<'a> {
    words: &'a [String],
}

impl<'a> Words<'a> {
    fn take(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn next(&mut self, what: &str) -> Result<&'a str, String> {
        self.take().ok_or_else(|| format!("{what} is missing"))
    }

    fn number(&mut self, what: &str) -> Result<u64, String> {
        let word = self.next(what)?;
        word.parse().map_err(|_| format!("{what} is a number, not `{word}`"))
    }

    /// Takes the word if it comes next.
    fn flag(&mut self, word: &str) -> bool {
        let there = self.words.first().is_some_and(|next| next == word);
        if there {
            self.take();
        }
        there
    }

    /// Takes the word and the one behind it.
    fn option(&mut self, word: &str) -> Result<Option<&'a str>, String> {
        if self.flag(word) { self.next(word).map(Some) } else { Ok(None) }
    }

    fn rest(&mut self) -> String {
        std::mem::take(&mut self.words).join(" ")
    }

    fn end(&self) -> Result<(), String> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(format!("what is `{word}`?")),
        }
    }
}

fn disk(words: &mut Words<'_>) -> Result<Disk, String> {
    let name = words.next("a name")?.to_owned();
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err("a disk's name has letters and digits only".into());
    }
    let sectors = words.number("the size in sectors")?;
    let seed = Some(data::seed(&name));
    let mut disk = Disk { name, sectors, seed, readonly: false, block: 512, private: false };
    while let Some(word) = words.take() {
        match word {
            "zero" => disk.seed = None,
            "like" => disk.seed = Some(data::seed(words.next("a seed")?)),
            "readonly" => disk.readonly = true,
            "private" => disk.private = true,
            "block" => {
                disk.block = u32::try_from(words.number("bytes")?).map_err(|e| e.to_string())?;
            }
            _ => return Err(format!("what is `{word}`?")),
        }
    }
    Ok(disk)
}

fn rule(words: &mut Words<'_>) -> Result<Rule, String> {
    let linux = words.next("what Linux says")?.to_owned();
    let ours = words.next("what we say")?.to_owned();
    let reason = words.rest();
    if reason.is_empty() {
        return Err("a reason is missing".into());
    }
    Ok(Rule { linux, ours, reason })
}

/// A request about the device that the next word names: `uuid:U` for one by uuid, `-` for none.
fn about(call: Call, words: &mut Words<'_>) -> Result<Request, String> {
    let mut request = Request::new(call);
    match words.next("a device")? {
        "-" => {}
        word => match word.strip_prefix("uuid:") {
            Some(uuid) => request.uuid = Some(uuid.to_owned()),
            None => request.name = Some(word.to_owned()),
        },
    }
    Ok(request)
}

/// The flags and options that may follow a device.
fn options(request: &mut Request, words: &mut Words<'_>, known: &[&str]) -> Result<(), String> {
    while let Some(word) = words.take() {
        if !known.contains(&word) {
            return Err(format!("what is `{word}`?"));
        }
        match word {
            "readonly" => request.readonly = true,
            "noflush" => request.noflush = true,
            "nolockfs" => request.nolockfs = true,
            "inactive" => request.inactive = true,
            "deferred" => request.deferred = true,
            "uuid" => request.uuid = Some(words.next("a uuid")?.to_owned()),
            "minor" => {
                let minor = words.number("a minor")?;
                request.minor = Some(u32::try_from(minor).map_err(|e| e.to_string())?);
            }
            _ => return Err(format!("what is `{word}`?")),
        }
    }
    Ok(())
}

fn command(call: Call, words: &mut Words<'_>, known: &[&str]) -> Result<Action, String> {
    let mut request = about(call, words)?;
    options(&mut request, words, known)?;
    Ok(Action::Command(request))
}

fn action(verb: &str, words: &mut Words<'_>, line: usize) -> Result<Action, String> {
    Ok(match verb {
        "create" => command(Call::Create, words, &["uuid", "minor"])?,
        "make" | "try" => {
            let mut request = about(Call::Create, words)?;
            options(&mut request, words, &["uuid", "minor", "readonly"])?;
            if verb == "make" { Action::Make(request) } else { Action::Try(request) }
        }
        "gone" => Action::Gone(words.next("a device")?.to_owned()),
        "load" => command(Call::Load, words, &["readonly"])?,
        "resume" => command(Call::Resume, words, &["noflush", "nolockfs", "readonly"])?,
        "suspend" => command(Call::Suspend, words, &["noflush", "nolockfs"])?,
        "clear" => command(Call::Clear, words, &[])?,
        "remove" => command(Call::Remove, words, &["deferred"])?,
        "remove-all" => Action::Command(Request::new(Call::RemoveAll)),
        "names" => Action::Command(Request::new(Call::Names)),
        "info" => command(Call::Info, words, &["inactive"])?,
        "deps" => command(Call::Deps, words, &["inactive"])?,
        "status" => command(Call::Status, words, &["inactive", "noflush"])?,
        "table" => {
            let mut request = about(Call::Status, words)?;
            request.table = true;
            options(&mut request, words, &["inactive"])?;
            Action::Command(request)
        }
        "rename" | "set-uuid" => {
            let mut request = about(Call::Rename, words)?;
            request.set_uuid = verb == "set-uuid";
            words.next("the new one")?.clone_into(&mut request.text);
            Action::Command(request)
        }
        "message" => {
            let mut request = about(Call::Message, words)?;
            request.sector = words.number("a sector")?;
            request.text = words.rest();
            Action::Command(request)
        }
        "geometry" => {
            let mut request = about(Call::Geometry, words)?;
            request.text = words.rest();
            Action::Command(request)
        }
        "wait" => {
            let mut request = about(Call::Wait, words)?;
            let event = words.number("an event")?;
            request.event = u32::try_from(event).map_err(|e| e.to_string())?;
            Action::Command(request)
        }
        "until" => {
            let mut request = about(Call::Status, words)?;
            request.table = words.flag("table");
            Action::Until { request, glob: words.rest() }
        }
        "read" | "write" | "discard" | "flush" => Action::Io(io(verb, words, line)?),
        "start" => {
            let tag = words.next("a name for the I/O")?.to_owned();
            let verb = words.next("read, write, discard or flush")?;
            Action::Start { tag, io: io(verb, words, line)? }
        }
        "pending" => Action::Pending(words.next("an I/O's name")?.to_owned()),
        "finish" => Action::Finish(words.next("an I/O's name")?.to_owned()),
        "open" => {
            let place = words.next("a disk or device")?.to_owned();
            Action::Open { place, write: words.flag("write") }
        }
        "close" => Action::Close(words.next("a disk or device")?.to_owned()),
        "size" => Action::Size(words.next("a disk or device")?.to_owned()),
        "image" => {
            let disk = words.next("a disk")?.to_owned();
            let (sector, sectors) = (words.number("a sector")?, words.number("sectors")?);
            Action::Image { disk, sector, sectors, changed: words.flag("changed") }
        }
        _ => return Err("no such verb".into()),
    })
}

/// Sectors of one request: NetBSD has no larger ones (MAXPHYS).
const MOST_SECTORS: u64 = 128;

fn io(verb: &str, words: &mut Words<'_>, line: usize) -> Result<Io, String> {
    let place = words.next("a disk or device")?.to_owned();
    if verb == "flush" {
        return Ok(Io { place, sector: 0, sectors: 0, by: 1, kind: IoKind::Flush });
    }
    let (sector, sectors) = (words.number("a sector")?, words.number("sectors")?);
    let by = words.option("by")?.map(str::parse).transpose();
    let by = by.map_err(|_| "`by` wants a number".to_owned())?.unwrap_or(sectors);
    let kind = match verb {
        "read" => IoKind::Read,
        "discard" => IoKind::Discard,
        "write" if words.flag("zero") => IoKind::Write(None),
        // Data of its own for each line, unless the script wants the same twice.
        "write" => {
            let like = words.option("like")?;
            let own = like.map_or_else(|| data::seed(&format!("line {line}")), data::seed);
            IoKind::Write(Some(own))
        }
        _ => return Err(format!("no I/O called `{verb}`")),
    };
    if by == 0 || sectors == 0 || verb != "discard" && by > MOST_SECTORS {
        return Err(format!("a request has 1 to {MOST_SECTORS} sectors: say `by`"));
    }
    Ok(Io { place, sector, sectors, by, kind })
}

/// The table lines of a step, to add to.
fn table_of(step: Option<&mut Step>) -> Result<&mut Vec<Line>, String> {
    match step.map(|step| &mut step.action) {
        Some(Action::Make(request) | Action::Try(request)) => Ok(&mut request.lines),
        Some(Action::Command(request)) if request.call == Call::Load => Ok(&mut request.lines),
        _ => Err("a line of a table that follows no `load`, `make` or `try`".into()),
    }
}

/// The line of a text, or the lines that `times N : LINE` makes, with `{A+B*i}` in it computed.
fn table_line(text: &str) -> Result<Vec<Line>, String> {
    let Some(rest) = text.strip_prefix("times ") else { return one_line(text).map(|l| vec![l]) };
    let (count, line) = rest.split_once(':').ok_or("times N : LINE")?;
    let count: u64 = count.trim().parse().map_err(|_| "how many times?".to_owned())?;
    if count > MOST_LINES {
        return Err("too many times".into());
    }
    (0..count).map(|i| one_line(&counted(line.trim_start(), i)?)).collect()
}

fn counted(line: &str, i: u64) -> Result<String, String> {
    let Some((head, rest)) = line.split_once('{') else { return Ok(line.to_owned()) };
    let (formula, tail) = rest.split_once('}').ok_or("a brace does not end")?;
    let term = |term: &str| -> Option<u64> {
        term.split('*').try_fold(1u64, |product, factor| {
            let factor = if factor.trim() == "i" { i } else { factor.trim().parse().ok()? };
            product.checked_mul(factor)
        })
    };
    let sum = formula.split('+').try_fold(0u64, |sum, t| sum.checked_add(term(t)?));
    let sum = sum.ok_or_else(|| format!("`{formula}` is not like 64+128*i"))?;
    Ok(format!("{head}{sum}{}", counted(tail, i)?))
}

fn one_line(text: &str) -> Result<Line, String> {
    let word = |text: &str| -> (String, String) {
        let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        (word.to_owned(), rest.trim_start().to_owned())
    };
    let (start, rest) = word(text.trim_end());
    let (length, rest) = word(&rest);
    let (kind, params) = word(&rest);
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number of sectors"));
    if kind.is_empty() {
        return Err("a line is START LENGTH TARGET PARAMETERS".into());
    }
    Ok(Line { start: number(&start)?, length: number(&length)?, kind, params })
}

#[cfg(test)]
mod tests;
