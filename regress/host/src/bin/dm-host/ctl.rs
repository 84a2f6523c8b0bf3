//! `dm-host ctl`: the commands of dmsetup(8) and dmctl(8), one function for each.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::{fs, io};

use dm_core::ioctl::flags;
use dm_host::Errno;
use dm_host::wire::Kind;

use crate::cli::{By, Ctl, CtlCommand, Device, DeviceOrAll, Show, Style, TableText};
use crate::client::{Client, Failure};
use crate::show;
use crate::table::{self, Line};
use crate::xml::{self, Answer, Dict, Plist};

/// The kernel refuses property lists of 64 KiB; a table that makes a larger one goes in parts.
const REQUEST: usize = 60 * 1024;

/// Carries out a command, and returns what it prints.
///
/// # Errors
/// [`Failure`].
pub fn run(ctl: &Ctl) -> Result<String, Failure> {
    let client = Client::connect(ctl.socket.as_deref())?;
    let mut session = Session { client, style: ctl.style, verbose: ctl.verbose };
    session.obey(&ctl.command)
}

struct Session {
    client: Client,
    style: Style,
    verbose: bool,
}

/// A request to the driver, in the words of one of the tools.
struct Ask<'a> {
    command: &'static str,
    name: Option<&'a str>,
    by: Option<&'a By>,
    flags: u32,
    data: Option<Vec<Plist>>,
    more: Vec<(&'static str, Plist)>,
}

impl<'a> Ask<'a> {
    fn new(command: &'static str) -> Ask<'a> {
        Ask { command, name: None, by: None, flags: 0, data: None, more: Vec::new() }
    }

    fn name(command: &'static str, name: &'a str) -> Ask<'a> {
        Ask { name: Some(name), ..Ask::new(command) }
    }

    fn device(command: &'static str, device: &'a Device) -> Ask<'a> {
        Ask { name: device.name.as_deref(), by: Some(&device.by), ..Ask::new(command) }
    }

    fn flag(mut self, flag: u32, set: bool) -> Self {
        if set {
            self.flags |= flag;
        }
        self
    }

    fn with(mut self, key: &'static str, value: impl Into<Plist>) -> Self {
        self.more.push((key, value.into()));
        self
    }

    fn data(mut self, data: Vec<Plist>) -> Self {
        self.data = Some(data);
        self
    }

    /// What errors call it.
    fn what(&self) -> String {
        let by = |by: &By| match (&by.uuid, by.minor) {
            (Some(uuid), _) => Some(uuid.clone()),
            (None, minor) => minor.map(|minor| format!("minor {minor}")),
        };
        let device = self.name.map(String::from).or_else(|| self.by.and_then(by));
        match device {
            Some(device) => format!("{} {device}", self.command),
            None => self.command.into(),
        }
    }

    fn dict(&self, style: Style) -> Dict {
        let mut dict: Dict = BTreeMap::from([("command", self.command.into())]);
        let mut flags = self.flags;
        let version = Plist::Array([4, 0, 0].map(Plist::Signed).to_vec());
        if let Some(name) = self.name {
            dict.insert("name", name.into());
        }
        if let Some(by) = self.by {
            if let Some(uuid) = &by.uuid {
                dict.insert("uuid", uuid.as_str().into());
            }
            if let Some(minor) = by.minor {
                dict.insert("minor", u64::from(minor).into());
                flags |= flags::PERSISTENT_DEV;
            }
        }
        match style {
            // libdevmapper sends cmd_data and a flag with everything, and no version with what
            // it does not know NetBSD to have.
            Style::Dmsetup => {
                flags |= flags::EXISTS;
                dict.insert("cmd_data", Plist::Array(self.data.clone().unwrap_or_default()));
                let old = ["remove_all", "waitevent", "message", "setgeometry"];
                if !old.contains(&self.command) {
                    dict.insert("version", version);
                }
            }
            Style::Dmctl => {
                dict.insert("version", version);
                if let Some(data) = &self.data {
                    dict.insert("cmd_data", Plist::Array(data.clone()));
                }
            }
        }
        if flags != 0 {
            dict.insert("flags", u64::from(flags).into());
        }
        dict.extend(self.more.iter().cloned());
        dict
    }
}

/// What to do about an error.
fn hint(command: &str, errno: Errno) -> &'static str {
    match (command, errno) {
        ("create" | "rename", Errno::EEXIST) => {
            "a device has that name or uuid; `dm-host ctl info -c` shows them all"
        }
        ("create", Errno::EBUSY) => "a device has that minor number; `dm-host ctl ls` shows them",
        ("create" | "rename", Errno::EINVAL) => {
            "a name has 1 to 127 bytes and no slash, a uuid 1 to 128; a uuid is set only once"
        }
        ("remove", Errno::EBUSY) => {
            "it is open, or another device's table uses it: close it (an NBD client holds it \
             open), or use --deferred"
        }
        ("reload", Errno::ENOENT) => {
            "no such target, or no such component: `dm-host ctl targets` and `dm-host ctl disks` \
             list them"
        }
        ("reload", Errno::EROFS) => "load it with --readonly",
        (_, Errno::ENXIO) => "no such device; `dm-host ctl ls` lists the devices",
        (_, Errno::EPERM) => "the server was started with --as-user",
        _ => "",
    }
}

impl Session {
    fn ask(&mut self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        let text = xml::write(&ask.dict(self.style));
        match self.client.ask(Kind::Ioctl, &text)? {
            Ok(body) => Answer::parse(&body).map_err(Failure::Broken),
            Err((errno, said)) => Err(Failure::Refused {
                what: ask.what(),
                errno,
                said,
                hint: hint(ask.command, errno),
            }),
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

    /// Asks for something that prints nothing, unless the user wants to see the device after it.
    fn change(&mut self, ask: &Ask<'_>) -> Result<String, Failure> {
        let answer = self.ask(ask)?;
        Ok(if self.verbose { show::info(&answer) } else { String::new() })
    }

    fn other(&mut self, kind: Kind, what: &str, body: &str) -> Result<String, Failure> {
        match self.client.ask(kind, body)? {
            Ok(body) => Ok(String::from_utf8_lossy(&body).into_owned()),
            Err((errno, said)) => {
                Err(Failure::Refused { what: what.into(), errno, said, hint: hint(what, errno) })
            }
        }
    }

    fn obey(&mut self, command: &CtlCommand) -> Result<String, Failure> {
        use CtlCommand::*;
        match command {
            Create { name, table, notable, uuid, minor, readonly } => {
                let by = By { uuid: uuid.clone(), minor: *minor };
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
                let by = device.by.uuid.is_some() || device.by.minor.is_some();
                let file = device.name.clone().filter(|_| by).map(Into::into);
                let table =
                    TableText { file: table.file.clone().or(file), table: table.table.clone() };
                let name = device.name.as_deref().filter(|_| !by);
                let lines = lines(&table)?;
                let ask = || {
                    let ask = Ask { name, by: Some(&device.by), ..Ask::new("reload") };
                    ask.flag(flags::READONLY, *readonly)
                };
                self.load(&ask, &lines)
            }
            Resume { device } => self.change(&Ask::device("resume", device)),
            Suspend { device, noflush } => {
                let ask = Ask::device("suspend", device).flag(flags::SUSPEND, true);
                self.change(&ask.flag(NOFLUSH, *noflush))
            }
            Clear { device } => self.change(&Ask::device("clear", device)),
            Remove { device, deferred } => {
                let ask = Ask::device("remove", device);
                self.ask(&ask.flag(flags::DEFERRED_REMOVE, *deferred))?;
                Ok(String::new())
            }
            RemoveAll { deferred } => {
                let ask = Ask::name("remove_all", "");
                self.ask(&ask.flag(flags::DEFERRED_REMOVE, *deferred))?;
                Ok(String::new())
            }
            Rename { name, new, setuuid } => {
                let (to, uuid) = match (new, setuuid) {
                    (_, Some(uuid)) => (uuid, true),
                    (Some(new), None) => (new, false),
                    (None, None) => return Err(Failure::Usage("rename to what?".into())),
                };
                let ask = Ask::name("rename", name).flag(flags::UUID, uuid);
                self.change(&ask.data(vec![to.as_str().into()]))
            }
            Info { device, columns, noheadings, inactive } => {
                self.info(device, *columns, !*noheadings, *inactive)
            }
            Table { device, show } => self.status("table", device, show),
            // dmctl's `status` asks for the table, too.
            Status { device, show } if self.style == Style::Dmctl => {
                self.status("table", device, show)
            }
            Status { device, show } => self.status("status", device, show),
            Deps { device, inactive } => self.deps(device, *inactive),
            Ls => {
                let answer = self.ask(&Ask::new("names"))?;
                Ok(show::names(self.style, &answer))
            }
            Targets => {
                let answer = self.ask(&Ask::new("targets"))?;
                Ok(show::targets(self.style, &answer))
            }
            Version => {
                let answer = self.ask(&Ask::new("version"))?;
                Ok(show::version(self.style, &answer))
            }
            Wait { name, event_nr } => {
                let mut ask = Ask::name("waitevent", name);
                if let Some(event_nr) = event_nr {
                    ask = ask.with("event_nr", u64::from(*event_nr));
                }
                self.change(&ask)
            }
            Message { name, sector, text } => {
                let ask = Ask::name("message", name).with("sector", *sector);
                self.ask(&ask.with("message", text.join(" ").as_str()))?;
                Ok(String::new())
            }
            Setgeometry { name, cylinders, heads, sectors, start } => {
                let geometry = format!("{cylinders} {heads} {sectors} {start}");
                self.ask(&Ask::name("setgeometry", name).with("geometry", geometry.as_str()))?;
                Ok(String::new())
            }
            Mknodes { name } => {
                let names = name.clone().map_or_else(|| self.names(), |name| Ok(vec![name]))?;
                for name in names {
                    self.ask(&Ask::name("mknodes", &name))?;
                }
                Ok(String::new())
            }
            Sysctl { variable } => {
                let name = variable.split('=').next().unwrap_or_default();
                let value = self.other(Kind::Sysctl, &format!("sysctl {name}"), variable)?;
                Ok(format!("{name} = {value}\n"))
            }
            Disks => {
                let disks = self.other(Kind::Disks, "disks", "")?;
                Ok(show::disks(&disks))
            }
            Shutdown => self.other(Kind::Shutdown, "shutdown", "").map(|_| String::new()),
        }
    }

    /// `create`, then `reload` and `resume` if there is a table; what was done is undone when a
    /// later step fails.
    fn create(
        &mut self,
        name: &str,
        create: &Ask<'_>,
        lines: Option<Vec<Line>>,
        readonly: bool,
    ) -> Result<String, Failure> {
        let Some(lines) = lines else { return self.change(create) };
        self.ask(create)?;
        let reload = || Ask::name("reload", name).flag(flags::READONLY, readonly);
        let mut result = self.load(&reload, &lines).and_then(|_| {
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
        result
    }

    /// Sends a table, in as many requests as it needs.
    fn load<'a>(&mut self, ask: &dyn Fn() -> Ask<'a>, lines: &[Line]) -> Result<String, Failure> {
        let mut parts = parts(lines);
        let last = parts.pop().unwrap_or_default();
        if !parts.is_empty() && !self.takes_parts()? {
            return Err(Failure::Usage(format!(
                "the table is too large for this driver: {} lines do not fit into one request",
                lines.len()
            )));
        }
        for part in parts {
            let more = ask().flag(flags::RELOAD_MORE, true).data(part);
            self.ask(&more).map_err(|failure| place(failure, lines))?;
        }
        self.change(&ask().data(last)).map_err(|failure| place(failure, lines))
    }

    /// Whether the driver says that it takes tables in several requests.
    fn takes_parts(&mut self) -> Result<bool, Failure> {
        let version = self.ask(&Ask::new("version"))?;
        let bit = version.dictionaries("features").find_map(|f| f.number("reload_more"));
        Ok(bit == Some(u64::from(flags::RELOAD_MORE)))
    }

    fn names(&mut self) -> Result<Vec<String>, Failure> {
        let answer = self.ask(&Ask::new("names"))?;
        Ok(answer.dictionaries("cmd_data").map(|entry| entry.text("name").to_string()).collect())
    }

    /// Asks `command` about one device, or about each; a device that vanishes meanwhile is left
    /// out.
    fn each(
        &mut self,
        command: &'static str,
        device: &DeviceOrAll,
        flags: u32,
    ) -> Result<Option<Vec<Answer>>, Failure> {
        let one = device.name.is_some() || device.by.uuid.is_some() || device.by.minor.is_some();
        if one {
            let ask =
                Ask { by: Some(&device.by), name: device.name.as_deref(), ..Ask::new(command) };
            return Ok(Some(vec![self.question(&ask.flag(flags, true))?]));
        }
        if self.style == Style::Dmctl {
            return Err(Failure::Usage(format!("{command}: dmctl wants a device's name")));
        }
        let names = self.names()?;
        if names.is_empty() {
            return Ok(None);
        }
        let mut answers = Vec::new();
        for name in names {
            match self.question(&Ask::name(command, &name).flag(flags, true)) {
                Ok(answer) => answers.push(answer),
                Err(Failure::NoDevice(_)) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(Some(answers))
    }

    fn info(
        &mut self,
        device: &DeviceOrAll,
        columns: bool,
        headings: bool,
        inactive: bool,
    ) -> Result<String, Failure> {
        let flags = if inactive { flags::QUERY_INACTIVE_TABLE } else { 0 };
        let answers = match self.each("info", device, flags) {
            Err(Failure::NoDevice(what)) if self.style == Style::Dmsetup => {
                return Err(Failure::NoDevice(what));
            }
            result => result?,
        };
        let Some(answers) = answers else { return Ok(show::NONE.into()) };
        Ok(match (self.style, columns) {
            (_, true) => show::columns(&answers, headings),
            (Style::Dmsetup, false) => answers.iter().map(show::info).collect(),
            (Style::Dmctl, false) => answers.iter().map(show::dmctl_info).collect(),
        })
    }

    fn status(
        &mut self,
        command: &'static str,
        device: &DeviceOrAll,
        show: &Show,
    ) -> Result<String, Failure> {
        let mut flags = if command == "table" { flags::STATUS_TABLE } else { 0 };
        if show.inactive {
            flags |= flags::QUERY_INACTIVE_TABLE;
        }
        let Some(answers) = self.each(command, device, flags)? else {
            return Ok(show::NONE.into());
        };
        let all = device.name.is_none() && device.by.uuid.is_none() && device.by.minor.is_none();
        let of = |answer: &Answer| match self.style {
            Style::Dmsetup => show::table(answer, all, show.target.as_deref()),
            Style::Dmctl => show::dmctl_table(answer),
        };
        Ok(answers.iter().map(of).collect())
    }

    fn deps(&mut self, device: &DeviceOrAll, inactive: bool) -> Result<String, Failure> {
        let flags = if inactive { flags::QUERY_INACTIVE_TABLE } else { 0 };
        let Some(answers) = self.each("deps", device, flags)? else {
            return Ok(show::NONE.into());
        };
        let all = device.name.is_none() && device.by.uuid.is_none() && device.by.minor.is_none();
        Ok(answers.iter().map(|answer| show::deps(self.style, answer, all)).collect())
    }
}

/// DM_NOFLUSH_FLAG.
const NOFLUSH: u32 = 1 << 11;

/// The table that the command line gives.
fn lines(from: &TableText) -> Result<Vec<Line>, Failure> {
    let text = match (&from.table, &from.file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => read(path)?,
        (None, None) => read(Path::new("-"))?,
    };
    match table::parse(&text) {
        (lines, bad) if bad.is_empty() => Ok(lines),
        (_, bad) => Err(Failure::Table(bad)),
    }
}

/// Reads a file with a table; `-` is standard input.
///
/// # Errors
/// [`Failure::Usage`].
pub fn read(path: &Path) -> Result<String, Failure> {
    let text = match path == Path::new("-") {
        true => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map(|_| text)
        }
        false => fs::read_to_string(path),
    };
    text.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))
}

/// The lines as cmd_data, cut so that no request comes near the kernel's limit.
fn parts(lines: &[Line]) -> Vec<Vec<Plist>> {
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

/// The driver counts the lines that it was sent; says where they stand in the user's text.
fn place(mut failure: Failure, lines: &[Line]) -> Failure {
    if let Failure::Refused { said, .. } = &mut failure {
        let sent = said
            .rsplit_once("line ")
            .and_then(|(_, rest)| rest.split(':').next()?.parse::<usize>().ok())
            .and_then(|n| Some((n, lines.get(n.checked_sub(1)?)?)));
        if let Some((n, line)) = sent {
            if line.number != n {
                said.push_str(&format!("\n(it is line {} of the text)", line.number));
            }
            let text = format!("{} {} {} {}", line.start, line.length, line.kind, line.params);
            said.push_str(&format!("\n{}", text.chars().take(200).collect::<String>().trim_end()));
        }
    }
    failure
}
