// SPDX-License-Identifier: BSD-2-Clause

//! `dm-host ctl`: the commands of dmsetup(8) and dmctl(8), one function for each.

mod ask;
mod iostat;
mod list;
mod load;

use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use clap::CommandFactory;
use dm_core::commands::flags;
use dm_core::refusal::Shown;
use dm_host::Errno;
use dm_host::wire::Kind;
use serde_json::json;

use crate::cli::{By, Cli, Ctl, CtlCommand, Device, Devices, Style, TableText};
use crate::client::Client;
use crate::failure::Failure;
use crate::say::say;
use crate::show::{self, report};
use crate::splitname;
use crate::table::{self, Line};
use crate::xml::{self, Answer};
use ask::{Ask, hint};
pub use load::parts;

/// Executes a command, and returns the text that it prints.
///
/// # Errors
/// [`Failure`].
pub fn run(ctl: &Ctl) -> Result<String, Failure> {
    let version = CtlCommand::Version;
    let command = match &ctl.command {
        _ if ctl.version => &version,
        Some(command) => command,
        None => return Ok(help()),
    };
    // Commands that need no server.
    match command {
        CtlCommand::Help { columns: true } => return Ok(report::help()),
        CtlCommand::Help { columns: false } => return Ok(help()),
        CtlCommand::Info { report, .. } | CtlCommand::Splitname { report, .. }
            if report.fields.as_deref().is_some_and(report::asks_for_help) =>
        {
            return Ok(report::help());
        }
        CtlCommand::Splitname { name, subsystem, report } => {
            return splitname::run(name, subsystem.as_deref(), report, ctl.json);
        }
        _ => {}
    }
    let client = Client::connect(ctl.socket.as_deref())?;
    let mut session =
        Session { client, style: ctl.style, verbose: ctl.verbose > 0, json: ctl.json };
    session.obey(command)
}

fn help() -> String {
    let mut all = Cli::command();
    all.build();
    let ctl = all.find_subcommand_mut("ctl").map(|ctl| ctl.render_help().to_string());
    ctl.unwrap_or_default()
}

struct Session {
    client: Client,
    style: Style,
    verbose: bool,
    json: bool,
}

impl Session {
    fn ask(&mut self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        let text = xml::write(&ask.dict(self.style));
        let reply = self.client.ask(Kind::Ioctl, &text)?;
        Self::reply(ask, reply)
    }

    /// Reads the driver's reply, and passes a warning in it on.
    fn reply(ask: &Ask<'_>, reply: Result<Vec<u8>, (Errno, String)>) -> Result<Answer, Failure> {
        let refused = |errno, line, said: String| {
            let hint = hint(ask.command, errno, &said);
            Failure::Refused { what: ask.what(), errno, line, said, hint }
        };
        let answer = match reply {
            Ok(body) => Answer::parse(&body).map_err(Failure::Broken)?,
            Err((errno, said)) => return Err(refused(errno, None, said)),
        };
        if !answer.text("warning").is_empty() {
            say(&format!("warning: {}", answer.text("warning")));
        }
        let line = answer.number("line").and_then(|line| usize::try_from(line).ok());
        match answer.number("errno").map(i32::try_from) {
            None | Some(Ok(0)) => Ok(answer),
            Some(Ok(errno)) => Err(refused(Errno(errno), line, answer.text("reason").into())),
            Some(Err(_)) => Err(Failure::Broken("the reply's errno is no error".into())),
        }
    }

    /// Asks about a device; there must be one.
    fn question(&mut self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        let answer = self.ask(ask)?;
        if answer.number("flags").unwrap_or(0) & u64::from(flags::EXISTS) == 0 {
            return Err(Failure::NoDevice(ask.what()));
        }
        Ok(answer)
    }

    /// Sends a request whose reply is not printed, unless the user wants to see the device afterwards.
    fn change(&mut self, ask: &Ask<'_>) -> Result<String, Failure> {
        let answer = self.ask(ask)?;
        Ok(self.after(&answer))
    }

    fn after(&self, answer: &Answer) -> String {
        match (self.verbose, self.json) {
            (false, _) => String::new(),
            (true, false) => show::info(answer),
            (true, true) => show::json::text(&json!({ "devices": [show::json::info(answer)] })),
        }
    }

    /// Changes one device after another; the first failure ends it.
    fn changes(
        &mut self,
        command: &'static str,
        devices: &Devices,
        flags: u32,
    ) -> Result<String, Failure> {
        let mut out = String::new();
        for device in each(devices) {
            out.push_str(&self.change(&Ask::device(command, &device).flag(flags, true))?);
        }
        Ok(out)
    }

    fn other(&mut self, kind: Kind, what: &str, body: &str) -> Result<String, Failure> {
        match self.client.ask(kind, body)? {
            Ok(body) => Ok(String::from_utf8_lossy(&body).into_owned()),
            Err((errno, said)) => {
                let hint = hint(what, errno, &said);
                Err(Failure::Refused { what: what.into(), errno, line: None, said, hint })
            }
        }
    }

    fn obey(&mut self, command: &CtlCommand) -> Result<String, Failure> {
        use CtlCommand::*;
        match command {
            Create { concise: Some(text), name, .. } => self.create_concise(text, name.as_deref()),
            Create { name, table, notable, uuid, minor, readonly, .. } => {
                let name = name.as_deref().unwrap_or_default();
                let by = By { uuid: uuid.clone(), minor: *minor, major: None };
                let create = Ask { by: Some(&by), ..Ask::name("create", name) };
                let create = create.flag(flags::READONLY, *readonly);
                let lines = match *notable || self.style == Style::Dmctl {
                    true => None,
                    false => Some(lines(table)?),
                };
                self.create(name, &create, lines, *readonly)
            }
            Reload { device, table, readonly } => {
                // With a uuid or a minor, the first word is the file.
                let by = device.by.is_given();
                let file = device.name.clone().filter(|_| by).map(Into::into);
                let table =
                    TableText { file: table.file.clone().or(file), table: table.table.clone() };
                let name = device.name.as_deref().filter(|_| !by);
                let lines = lines(&table)?;
                let ask = || {
                    let ask = Ask { name, by: Some(&device.by), ..Ask::new("reload") };
                    ask.flag(flags::READONLY, *readonly)
                };
                self.load(&ask, &lines, true)
            }
            Resume { devices, .. } => self.changes("resume", devices, 0),
            Suspend { devices, noflush } => {
                let noflush = if *noflush { flags::NOFLUSH } else { 0 };
                self.changes("suspend", devices, flags::SUSPEND | noflush)
            }
            Clear { devices } => self.changes("clear", devices, 0),
            Remove { devices, deferred, force, retry } => {
                for device in each(devices) {
                    self.remove(&device, *deferred, *force, *retry)?;
                }
                Ok(String::new())
            }
            RemoveAll { deferred, force } => self.remove_all(*deferred, *force),
            WipeTable { devices, .. } => {
                let mut out = String::new();
                for device in each(devices) {
                    out.push_str(&self.wipe(&device)?);
                }
                Ok(out)
            }
            Rename { name, new, setuuid } => {
                let ask = Ask::name("rename", name).flag(flags::UUID, *setuuid);
                self.change(&ask.data(vec![new.as_str().into()]))
            }
            Info { devices, report, inactive, .. } => self.info(devices, report, *inactive),
            Table { devices, show, concise, .. } => self.status("table", devices, show, *concise),
            // dmctl's `status` asks for the table, too.
            Status { devices, show } if self.style == Style::Dmctl => {
                self.status("table", devices, show, false)
            }
            Status { devices, show } => self.status("status", devices, show, false),
            Deps { devices, inactive, how } => self.deps(devices, *inactive, how.as_deref()),
            Ls { target, exec, tree, how } => {
                self.ls(target.as_deref(), exec.as_deref(), *tree, how.as_deref())
            }
            Targets => self.targets(&[]),
            TargetVersion { targets } => self.targets(targets),
            Version => {
                let answer = self.ask(&Ask::new("version"))?;
                Ok(match self.json {
                    true => show::json::text(&show::json::version(&answer)),
                    false => show::version(self.style, &answer),
                })
            }
            Wait { name, event_nr, .. } => {
                let mut ask = Ask::name("waitevent", name);
                if let Some(event_nr) = event_nr {
                    ask = ask.with("event_nr", u64::from(*event_nr));
                }
                self.change(&ask)
            }
            Message { name, sector, text } => {
                let ask = Ask::name("message", name).with("sector", *sector);
                let answer = self.ask(&ask.with("message", text.join(" ").as_str()))?;
                let reply = answer.text(dm_host::linux::REPLY);
                Ok(if reply.is_empty() { String::new() } else { format!("{reply}\n") })
            }
            Setgeometry { name, cylinders, heads, sectors, start } => {
                let geometry = format!("{cylinders} {heads} {sectors} {start}");
                self.ask(&Ask::name("setgeometry", name).with("geometry", geometry.as_str()))?;
                Ok(String::new())
            }
            Mknodes { names } => {
                let names = if names.is_empty() { self.names()? } else { names.clone() };
                for name in names {
                    self.ask(&Ask::name("mknodes", &name))?;
                }
                Ok(String::new())
            }
            Iostat { names, wait, count } => self.iostat(names, *wait, *count),
            Sysctl { variable } => {
                let name = variable.split('=').next().unwrap_or_default();
                let value = self.other(Kind::Sysctl, &format!("sysctl {name}"), variable)?;
                Ok(match self.json {
                    true => show::json::text(&json!({ "name": name, "value": value })),
                    false => format!("{name} = {value}\n"),
                })
            }
            Disks => {
                let disks = self.other(Kind::Disks, "disks", "")?;
                Ok(match self.json {
                    true => show::json::text(&show::json::disks(&disks)),
                    false => show::disks(&disks),
                })
            }
            Shutdown => self.other(Kind::Shutdown, "shutdown", "").map(|_| String::new()),
            Help { .. } | Splitname { .. } => Ok(String::new()),
        }
    }

    fn remove(
        &mut self,
        device: &Device,
        deferred: bool,
        force: bool,
        retry: bool,
    ) -> Result<(), Failure> {
        const RETRY: Duration = Duration::from_secs(5);
        let begun = Instant::now();
        let ask = || Ask::device("remove", device).flag(flags::DEFERRED_REMOVE, deferred);
        if force {
            let open = self.question(&Ask::device("info", device))?.number("open_count");
            if open.is_some_and(|open| open > 0) {
                self.wipe(device)?;
            }
        }
        loop {
            match self.ask(&ask()) {
                Err(Failure::Refused { errno: Errno::EBUSY, .. })
                    if retry && begun.elapsed() < RETRY =>
                {
                    thread::sleep(Duration::from_millis(200));
                }
                result => return result.map(drop),
            }
        }
    }

    fn remove_all(&mut self, deferred: bool, force: bool) -> Result<String, Failure> {
        let ask = || Ask::name("remove_all", "").flag(flags::DEFERRED_REMOVE, deferred);
        self.ask(&ask())?;
        if force {
            for name in self.names()? {
                let device = Device { name: Some(name), by: By::default() };
                match self.wipe(&device) {
                    Err(Failure::NoDevice(_)) | Ok(_) => {}
                    Err(failure) => return Err(failure),
                }
            }
            self.ask(&ask())?;
        }
        Ok(String::new())
    }

    fn names(&mut self) -> Result<Vec<String>, Failure> {
        let answer = self.ask(&Ask::new("names"))?;
        Ok(answer.dictionaries("cmd_data").map(|entry| entry.text("name").to_string()).collect())
    }
}

/// The devices that a command names, one by one.
fn each(devices: &Devices) -> Vec<Device> {
    if devices.by.is_given() {
        return vec![Device { name: None, by: devices.by.clone() }];
    }
    let named = |name: &String| Device { name: Some(name.clone()), by: By::default() };
    devices.names.iter().map(named).collect()
}

/// The table that the command line gives.
fn lines(from: &TableText) -> Result<Vec<Line>, Failure> {
    let text = match (&from.table, &from.file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => read(path)?,
        (None, None) => read(Path::new("-"))?,
    };
    match table::parse(&text) {
        (lines, bad) if bad.is_empty() => Ok(lines),
        (_, bad) => Err(Failure::Table { bad, kept: true }),
    }
}

/// Reads a file with a table; `-` is standard input.
///
/// # Errors
/// [`Failure::Usage`].
pub fn read(path: &Path) -> Result<String, Failure> {
    let text = match path == Path::new("-") {
        true => {
            if io::stdin().is_terminal() {
                say("reading the table from the terminal; Ctrl-D ends it");
            }
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map(|_| text)
        }
        false => fs::read_to_string(path),
    };
    text.map_err(|error| {
        Failure::Usage(format!("cannot read {}: {error}", Shown(&path.to_string_lossy())))
    })
}
