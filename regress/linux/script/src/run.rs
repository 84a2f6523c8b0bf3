//! Carries out steps on a side, and says what came of each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::data::{self, SECTOR};
use crate::glob;
use crate::image;
use crate::script::{Action, Io, IoKind, Step};
use crate::side::{Call, Line, Node, Place, Reply, Request, Side};

/// How long an I/O may take, and `until` asks: far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Carries out the steps of a stage.
pub struct Runner<'a, S: Side> {
    side: &'a mut S,
    /// Where the images of the attached disks are.
    images: PathBuf,
    open: BTreeMap<String, Vec<Box<dyn Node>>>,
    started: BTreeMap<String, Receiver<Vec<String>>>,
}

fn on(call: Call, name: &str) -> Request {
    Request { name: Some(name.to_owned()), ..Request::new(call) }
}

fn about(call: Call, request: &Request) -> Request {
    Request { name: request.name.clone(), ..Request::new(call) }
}

/// What a step says: lines to compare, and lines to read.
pub type Said = (Vec<String>, Vec<String>);

impl<'a, S: Side> Runner<'a, S> {
    pub fn new(side: &'a mut S, images: PathBuf) -> Runner<'a, S> {
        Runner { side, images, open: BTreeMap::new(), started: BTreeMap::new() }
    }

    /// What the driver has said to the system's log since it was asked last.
    pub fn said(&self) -> Vec<String> {
        self.side.said()
    }

    /// Carries out a step.
    ///
    /// # Errors
    /// Words, where the stage cannot go on: the script is wrong.
    pub fn step(&mut self, step: &Step) -> Result<Said, String> {
        let only = |outcome: Vec<String>| Ok((outcome, Vec::new()));
        let one = |outcome: &str| Ok((vec![outcome.to_owned()], Vec::new()));
        match &step.action {
            Action::Command(request) => only(self.command(request)?),
            Action::Make(request) => only(self.make(request)?),
            Action::Try(request) => {
                let mut said = self.make(request)?;
                if said == ["ok"]
                    && let Err(error) = self.side.command(&about(Call::Remove, request))
                {
                    said.push(format!("remove {error}"));
                }
                only(said)
            }
            Action::Gone(name) => {
                let begun = Instant::now();
                let there = || self.names().iter().any(|(there, _)| there == name);
                while there() && begun.elapsed() < PATIENCE {
                    thread::sleep(Duration::from_millis(5));
                }
                one(if there() { "there" } else { "gone" })
            }
            Action::Io(io) => match self.begin(io)? {
                Ok(receive) => match receive.recv_timeout(PATIENCE) {
                    Ok(outcome) => only(outcome),
                    Err(_) => Err("the I/O does not end".into()),
                },
                Err(error) => one(&error),
            },
            Action::Open { place, write } => {
                let node = match self.place(place)? {
                    Ok(found) => self.side.open(&found, *write),
                    Err(error) => Err(error),
                };
                match node {
                    Ok(node) => {
                        self.open.entry(place.clone()).or_default().push(node);
                        one("ok")
                    }
                    Err(error) => one(&error),
                }
            }
            Action::Close(place) => match self.open.get_mut(place).and_then(Vec::pop) {
                Some(node) => {
                    drop(node);
                    one("ok")
                }
                // Where one side could not open it, it is no error of the script.
                None => one("not open"),
            },
            Action::Size(place) => {
                let node = match self.place(place)? {
                    Ok(found) => self.side.open(&found, false),
                    Err(error) => Err(error),
                };
                match node.and_then(|node| node.sectors()) {
                    Ok(sectors) => one(&format!("{sectors} sectors")),
                    Err(error) => one(&error),
                }
            }
            Action::Start { tag, io } => match self.begin(io)? {
                Ok(receive) => {
                    self.started.insert(tag.clone(), receive);
                    one("started")
                }
                Err(error) => one(&error),
            },
            Action::Pending(tag) => {
                let receive = self.started.get(tag).ok_or_else(|| format!("no I/O {tag}"))?;
                match receive.recv_timeout(Duration::from_millis(100)) {
                    Ok(outcome) => {
                        self.started.remove(tag);
                        only(outcome)
                    }
                    Err(_) => one("pending"),
                }
            }
            Action::Finish(tag) => {
                let receive = self.started.remove(tag).ok_or_else(|| format!("no I/O {tag}"))?;
                match receive.recv_timeout(PATIENCE) {
                    Ok(outcome) => only(outcome),
                    Err(_) => Err(format!("the I/O {tag} does not end")),
                }
            }
            Action::Until { request, glob } => self.until(request, glob),
            Action::Image { disk, sector, sectors } => {
                let data = image::read(&self.images.join(disk), *sector, *sectors)?;
                one(&format!("sum {:016x}", data::checksum(&data)))
            }
            Action::Shell(command) => {
                let printed = self.side.shell(command)?;
                Ok((vec!["ok".into()], printed.lines().map(str::to_owned).collect()))
            }
        }
    }

    /// Closes what is open, lets go what is held, and removes all devices.
    ///
    /// # Errors
    /// Words: I/O that does not end.
    pub fn end(mut self) -> Result<(), String> {
        self.open.clear();
        for (name, _) in self.names() {
            // What is suspended holds I/O; where it is not, nothing happens.
            let _ = self.side.command(&on(Call::Resume, &name));
        }
        for (tag, receive) in std::mem::take(&mut self.started) {
            if let Err(TryRecvError::Empty) = receive.try_recv()
                && receive.recv_timeout(PATIENCE).is_err()
            {
                return Err(format!("the I/O {tag} does not end"));
            }
        }
        self.remove_all();
        for (name, _) in self.names() {
            // It may stand on itself: without a component it does not.
            let kind = "error".to_owned();
            let line = Line { start: 0, length: 1, kind, params: String::new() };
            let load = Request { lines: vec![line], ..on(Call::Load, &name) };
            let _ = self.side.command(&load);
            let _ = self.side.command(&on(Call::Resume, &name));
        }
        self.remove_all();
        let left: Vec<String> = self.names().into_iter().map(|(name, _)| name).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("these stay: {}", left.join(" "))) }
    }

    /// Removes devices as long as some go: those on top first, whichever they are.
    fn remove_all(&self) {
        let mut before = usize::MAX;
        loop {
            let left = self.names();
            if left.is_empty() || left.len() >= before {
                return;
            }
            before = left.len();
            for (name, _) in left {
                let _ = self.side.command(&on(Call::Remove, &name));
            }
        }
    }

    fn names(&self) -> Vec<(String, u32)> {
        self.side.command(&Request::new(Call::Names)).map(|reply| reply.names).unwrap_or_default()
    }

    /// What a script's word names: a disk, else a device.
    fn place(&self, word: &str) -> Result<Result<Place, String>, String> {
        if self.side.disk(word).is_some() {
            return Ok(Ok(Place::Disk(word.to_owned())));
        }
        let info = Request { name: Some(word.to_owned()), ..Request::new(Call::Info) };
        Ok(match self.side.command(&info) {
            Ok(reply) if reply.exists => Ok(Place::Device(reply.minor)),
            Ok(_) => Err("ENXIO".into()),
            Err(error) => Err(error),
        })
    }

    /// Begins an I/O in a thread of its own: one that waits for ever keeps nobody else.
    fn begin(&self, io: &Io) -> Result<Result<Receiver<Vec<String>>, String>, String> {
        let place = match self.place(&io.place)? {
            Ok(place) => place,
            Err(error) => return Ok(Err(error)),
        };
        let write = !matches!(io.kind, IoKind::Read);
        let node = match self.side.open(&place, write) {
            Ok(node) => node,
            Err(error) => return Ok(Err(format!("open {error}"))),
        };
        let (send, receive) = channel();
        let io = io.clone();
        thread::spawn(move || {
            let outcome = perform(node.as_ref(), &io);
            // Closed before anybody goes on.
            drop(node);
            // The stage may have ended meanwhile.
            let _ = send.send(outcome);
        });
        Ok(Ok(receive))
    }

    /// Puts this side's numbers and paths for `@name` and `%name`.
    fn resolve(&self, lines: &[Line]) -> Result<Vec<Line>, String> {
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        let mut number = |word: &str| -> Result<String, String> {
            if let Some(number) = known.get(word) {
                return Ok(number.clone());
            }
            let number = match self.side.disk(word) {
                Some((major, minor, _)) => format!("{major}:{minor}"),
                None => match self.place(word)? {
                    Ok(Place::Device(minor)) => format!("{}:{minor}", self.side.major()),
                    _ => return Err(format!("there is no disk or device {word}")),
                },
            };
            known.insert(word.to_owned(), number.clone());
            Ok(number)
        };
        let mut resolved = lines.to_vec();
        for line in resolved.iter_mut().filter(|line| line.params.contains(['@', '%'])) {
            let words = line.params.split(' ').map(|word| match word.split_at_checked(1) {
                Some(("@", name)) => number(name),
                Some(("%", name)) => match self.side.disk(name) {
                    Some((_, _, path)) => Ok(path),
                    None => Err(format!("there is no disk {name}")),
                },
                _ => Ok(word.to_owned()),
            });
            line.params = words.collect::<Result<Vec<_>, _>>()?.join(" ");
        }
        Ok(resolved)
    }

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

    fn send(&self, request: &Request) -> Result<Result<Reply, String>, String> {
        let lines = self.resolve(&request.lines)?;
        Ok(self.side.command(&Request { lines, ..request.clone() }))
    }

    fn command(&self, request: &Request) -> Result<Vec<String>, String> {
        Ok(match self.send(request)? {
            Ok(reply) => self.show(request, &reply),
            Err(error) => vec![error],
        })
    }

    fn show(&self, request: &Request, reply: &Reply) -> Vec<String> {
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

    /// `dmsetup create` with a table: what was made goes again when a later step fails.
    fn make(&self, make: &Request) -> Result<Vec<String>, String> {
        let create = Request { lines: Vec::new(), readonly: false, ..make.clone() };
        if let Err(error) = self.side.command(&create) {
            return Ok(vec![format!("create {error}")]);
        }
        let on = |call| about(call, make);
        let load = Request { lines: make.lines.clone(), readonly: make.readonly, ..on(Call::Load) };
        let failed = match self.send(&load)? {
            Err(error) => format!("load {error}"),
            Ok(_) => match self.side.command(&on(Call::Resume)) {
                Ok(_) => return Ok(vec!["ok".into()]),
                Err(error) => format!("resume {error}"),
            },
        };
        match self.side.command(&on(Call::Remove)) {
            Ok(_) => Ok(vec![failed]),
            Err(error) => Ok(vec![failed, format!("remove {error}")]),
        }
    }

    fn until(&self, request: &Request, wanted: &str) -> Result<Said, String> {
        let begun = Instant::now();
        loop {
            let lines = self.command(request)?;
            if lines.iter().any(|line| glob::captures(wanted, line).is_some()) {
                return Ok((vec![format!("it is {wanted}")], lines));
            }
            if begun.elapsed() > PATIENCE {
                return Ok((vec![format!("it never is {wanted}")], lines));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Carries out an I/O, in as many requests as it has; what failed or was short, and a sum.
fn perform(node: &dyn Node, io: &Io) -> Vec<String> {
    if io.kind == IoKind::Flush {
        return vec![node.flush().map_or_else(|error| error, |()| "ok".into())];
    }
    let mut said = Vec::new();
    let mut read = Vec::new();
    let mut bad: Option<(u64, u64, String)> = None;
    let tell = |bad: &mut Option<(u64, u64, String)>, said: &mut Vec<String>| {
        if let Some((from, to, what)) = bad.take() {
            said.push(format!("{from}+{} {what}", to - from));
        }
    };
    let end = io.sector.saturating_add(io.sectors);
    let mut at = io.sector;
    while at < end {
        let sectors = io.by.min(end - at);
        let bytes = sectors as usize * SECTOR;
        let result = match io.kind {
            IoKind::Read => {
                let mut data = vec![0xa5; bytes];
                let result = node.read(at, &mut data);
                if let Ok(got) = result {
                    read.extend_from_slice(data.get(..got).unwrap_or_default());
                }
                result
            }
            IoKind::Write(Some(seed)) => node.write(at, &data::pattern(seed, at, sectors)),
            IoKind::Write(None) => node.write(at, &vec![0; bytes]),
            IoKind::Discard => node.discard(at, sectors).map(|()| bytes),
            IoKind::Flush => Ok(bytes),
        };
        let wrong = match result {
            Ok(done) if done == bytes => None,
            Ok(done) => Some(format!("short, {done} bytes of {bytes}")),
            Err(error) => Some(error),
        };
        match (&mut bad, wrong) {
            // The same again: one line for all.
            (Some((_, to, what)), Some(new)) if *what == new && *to == at => *to = at + sectors,
            (_, new) => {
                tell(&mut bad, &mut said);
                bad = new.map(|what| (at, at + sectors, what));
            }
        }
        at += sectors;
    }
    tell(&mut bad, &mut said);
    if io.kind == IoKind::Read {
        said.push(format!("{} bytes, sum {:016x}", read.len(), data::checksum(&read)));
    } else if said.is_empty() {
        said.push("ok".into());
    }
    said
}
