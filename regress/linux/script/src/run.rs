// SPDX-License-Identifier: BSD-2-Clause

//! Carries out steps on a side, and records the outcome of each.

mod io;
mod show;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use self::io::perform;
use crate::data;
use crate::glob;
use crate::image;
use crate::script::{Action, Io, IoKind, Step};
use crate::side::{Call, Line, Node, Place, Reply, Request, Side};

/// The time that an I/O may take, and that `until` asks: far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Carries out the steps of a stage.
pub struct Runner<'a, S: Side> {
    side: &'a mut S,
    /// The folder of the attached disks' images.
    images: PathBuf,
    open: BTreeMap<String, Vec<Box<dyn Node>>>,
    started: BTreeMap<String, Receiver<Vec<String>>>,
    /// The sums of sectors of the disks, as they were asked last.
    sums: BTreeMap<(String, u64, u64), u64>,
}

fn on(call: Call, name: &str) -> Request {
    Request { name: Some(name.to_owned()), ..Request::new(call) }
}

fn about(call: Call, request: &Request) -> Request {
    Request { name: request.name.clone(), ..Request::new(call) }
}

/// The outcome of a step: lines to compare, and lines to read.
pub type Said = (Vec<String>, Vec<String>);

fn only(outcome: Vec<String>) -> Said {
    (outcome, Vec::new())
}

fn one(outcome: &str) -> Said {
    only(vec![outcome.to_owned()])
}

impl<'a, S: Side> Runner<'a, S> {
    pub fn new(side: &'a mut S, images: PathBuf) -> Runner<'a, S> {
        Runner {
            side,
            images,
            open: BTreeMap::new(),
            started: BTreeMap::new(),
            sums: BTreeMap::new(),
        }
    }

    /// The driver's messages in the system's log since the last call.
    pub fn said(&self) -> Vec<String> {
        self.side.said()
    }

    /// Carries out a step.
    ///
    /// # Errors
    /// Words, where the stage cannot go on: the script is wrong.
    pub fn step(&mut self, step: &Step) -> Result<Said, String> {
        Ok(match &step.action {
            Action::Command(request) => only(self.command(request)?),
            Action::Make(request) => only(self.make(request)?),
            Action::Try(request) => only(self.attempt(request)?),
            Action::Gone(name) => one(self.gone(name)),
            Action::Io(io) => match self.begin(io)? {
                Ok(receive) => {
                    only(receive.recv_timeout(PATIENCE).map_err(|_| "the I/O does not end")?)
                }
                Err(error) => one(&error),
            },
            Action::Open { place, write } => match self.node(place, *write)? {
                Ok(node) => {
                    self.open.entry(place.clone()).or_default().push(node);
                    one("ok")
                }
                Err(error) => one(&error),
            },
            Action::Close(place) => match self.open.get_mut(place).and_then(Vec::pop) {
                Some(node) => {
                    drop(node);
                    one("ok")
                }
                // If one side could not open the node, that is no error of the script.
                None => one("not open"),
            },
            Action::Size(place) => match self.node(place, false)?.and_then(|node| node.sectors()) {
                Ok(sectors) => one(&format!("{sectors} sectors")),
                Err(error) => one(&error),
            },
            Action::Start { tag, io } => match self.begin(io)? {
                Ok(receive) => {
                    self.started.insert(tag.clone(), receive);
                    one("started")
                }
                Err(error) => one(&error),
            },
            Action::Pending(tag) => self.pending(tag)?,
            Action::Finish(tag) => {
                let receive = self.started.remove(tag).ok_or_else(|| format!("no I/O {tag}"))?;
                let outcome = receive.recv_timeout(PATIENCE);
                only(outcome.map_err(|_| format!("the I/O {tag} does not end"))?)
            }
            Action::Until { request, glob } => self.until(request, glob)?,
            Action::Image { disk, sector, sectors, changed } => {
                one(&self.sum(disk, *sector, *sectors, *changed)?)
            }
            Action::Shell(command) => {
                let printed = self.side.shell(command)?;
                (vec!["ok".into()], printed.lines().map(str::to_owned).collect())
            }
        })
    }

    /// Closes open nodes, ends I/O that waits, and removes all devices.
    ///
    /// # Errors
    /// Words: I/O that does not end.
    pub fn end(mut self) -> Result<(), String> {
        self.open.clear();
        for (name, _) in self.names() {
            // A suspended device holds I/O; for others resume does nothing.
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

    /// The place that a script's word names: a disk, else a device.
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

    /// Opens the node that a script's word names.
    fn node(&self, word: &str, write: bool) -> Result<Result<Box<dyn Node>, String>, String> {
        Ok(self.place(word)?.and_then(|place| self.side.open(&place, write)))
    }

    /// Begins an I/O in a thread of its own, so that one that waits for ever holds up no other.
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

    /// Makes a device with a table, as `dmsetup create` does; undoes that when a later step fails.
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

    /// Makes a device as [`Runner::make`] does, and removes it.
    fn attempt(&self, make: &Request) -> Result<Vec<String>, String> {
        let mut said = self.make(make)?;
        if said == ["ok"]
            && let Err(error) = self.side.command(&about(Call::Remove, make))
        {
            said.push(format!("remove {error}"));
        }
        Ok(said)
    }

    /// Waits until there is no such device.
    fn gone(&self, name: &str) -> &'static str {
        let begun = Instant::now();
        let there = || self.names().iter().any(|(there, _)| there == name);
        while there() && begun.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        if there() { "there" } else { "gone" }
    }

    /// Gives an I/O some time, in which it should not end.
    fn pending(&mut self, tag: &str) -> Result<Said, String> {
        let receive = self.started.get(tag).ok_or_else(|| format!("no I/O {tag}"))?;
        Ok(match receive.recv_timeout(Duration::from_millis(100)) {
            Ok(outcome) => {
                self.started.remove(tag);
                only(outcome)
            }
            Err(_) => one("pending"),
        })
    }

    /// The sum of a disk's sectors, past all devices; if `changed`, waits until it is another than
    /// it was.
    fn sum(
        &mut self,
        disk: &str,
        sector: u64,
        sectors: u64,
        changed: bool,
    ) -> Result<String, String> {
        let path = self.images.join(disk);
        let place = (disk.to_owned(), sector, sectors);
        let before = self.sums.get(&place).copied();
        let begun = Instant::now();
        let mut last = None;
        loop {
            let sum = data::checksum(&image::read(&path, sector, sectors)?);
            // The same twice: not in the middle of a write.
            if !changed || Some(sum) != before && last.replace(sum) == Some(sum) {
                self.sums.insert(place, sum);
                return Ok(format!("sum {sum:016x}"));
            }
            if begun.elapsed() > PATIENCE {
                return Ok("it does not change".into());
            }
            thread::sleep(Duration::from_millis(5));
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
