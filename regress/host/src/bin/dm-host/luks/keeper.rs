// SPDX-License-Identifier: BSD-2-Clause

//! The process that keeps a disk open: the machine with the device on it, served over NBD until it is told to
//! end. It gets the table through its standard input, so that no key is on a command line or in a file.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};

use dm_core::commands::flags;
use dm_host::Errno;
use dm_nbd::Listener;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use zeroize::Zeroizing;

use super::passphrase;
use crate::cli::LuksKeeper;
use crate::disk::Disk;
use crate::failure::Failure;
use crate::say::say;
use crate::serve::{self, Made, Socket};
use crate::server::{Boot, Server};
use crate::xml::Answer;
use crate::{image, sockets, wiping};

/// The line that the keeper prints when it serves.
pub const READY: &str = "ready";
/// The word that the keeper prints before a failure of the driver's.
pub const REFUSED: &str = "refused";
/// The word that the keeper prints before another failure.
const FAILED: &str = "failed";

/// Runs the keeper as the body of a process.
pub fn run(words: &LuksKeeper) -> ExitCode {
    wiping::begin();
    let begun = table().map_err(Failure::Usage).and_then(|table| begin(words, table));
    let running = begun.and_then(|running| match stand_apart() {
        Ok(()) => Ok(running),
        Err(error) => Err(Failure::Usage(format!("going into the background: {error}"))),
    });
    match running {
        Ok(running) => match running.wait() {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.code().into(),
        },
        Err(failure) => {
            let kind = if failure.code() == 1 { REFUSED } else { FAILED };
            println!("{kind}\n{failure}");
            failure.code().into()
        }
    }
}

/// Runs in the foreground, until a signal or `close`.
///
/// # Errors
/// As [`begin`], and what `serve` says at its end.
pub fn stay(words: &LuksKeeper, table: Zeroizing<String>) -> Result<(), Failure> {
    let running = begin(words, table)?;
    let mut out = io::stdout();
    // Standard output may be closed.
    let _ = writeln!(out, "{}\nCtrl-C ends it.", dm_nbd::uri::unix(&words.name, &words.nbd));
    let _ = out.flush();
    running.wait()?;
    say(serve::ENDED);
    Ok(())
}

fn table() -> Result<Zeroizing<String>, String> {
    let wrong = |error: io::Error| format!("standard input: {error}");
    let bytes = passphrase::all(&mut passphrase::unbuffered()?).map_err(wrong)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "the table is no text".to_string())?;
    Ok(Zeroizing::new(text.to_string()))
}

/// Leaves the terminal, the folder and the standard files of the parent, having told it that the disk is served.
fn stand_apart() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    setsid()?;
    std::env::set_current_dir("/")?;
    let mut out = io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    dup2_stdin(&null)?;
    dup2_stderr(&null)?;
    // Last: the parent waits until standard output is closed.
    dup2_stdout(&null)?;
    Ok(())
}

/// A machine that serves.
struct Running {
    server: Server,
    made: Made,
    told_to_end: Receiver<()>,
}

impl Running {
    fn wait(self) -> Result<(), Failure> {
        // The server has an end of it.
        let _ = self.told_to_end.recv();
        serve::end(self.server, self.made, &self.told_to_end)
    }
}

/// Boots the machine, makes the device and serves it.
fn begin(words: &LuksKeeper, table: Zeroizing<String>) -> Result<Running, Failure> {
    let (send, told_to_end) = mpsc::channel();
    let signals = serve::listen_for_signals(send.clone());
    signals.map_err(|error| Failure::Usage(format!("signals: {error}")))?;
    let (server, made) = start(words, send).map_err(Failure::Usage)?;
    match make(&server, words, &table) {
        Ok(()) => Ok(Running { server, made, told_to_end }),
        Err(failure) => {
            let ended = serve::end(server, made, &told_to_end);
            if let Err(also) = ended {
                say(&also.to_string());
            }
            Err(failure)
        }
    }
}

fn start(words: &LuksKeeper, end: Sender<()>) -> Result<(Server, Made), String> {
    let disk = Disk::parse_all(&[&words.disk].map(String::clone))?;
    let opened = disk.iter().map(image::open).collect::<Result<Vec<_>, _>>();
    // Options that `serve` has, and this command calls otherwise.
    let opened = opened.map_err(|why| {
        why.replace("with `,ro`", "with --readonly")
            .replace("; `,nolock` serves it all the same", "")
    })?;
    let (control, nbd): (PathBuf, PathBuf) = (words.control.clone(), words.nbd.clone());
    let control_socket = sockets::listen(&control)?;
    let mut made = Made(vec![Socket::at(&control)]);
    let nbd_socket = sockets::listen(&nbd)?;
    made.0.insert(0, Socket::at(&nbd));
    let disks = disk.into_iter().zip(opened).collect();
    let listeners = vec![Listener::Unix(nbd_socket)];
    // The console's messages about the table are in the reply.
    let boot = Boot { as_user: false, quiet: true };
    let server = Server::start(disks, listeners, control_socket, boot, end)?;
    Ok((server, made))
}

/// Makes the device, with its table.
fn make(server: &Server, words: &LuksKeeper, table: &str) -> Result<(), Failure> {
    let readonly = if words.disk.ends_with(",ro") { flags::READONLY } else { 0 };
    let ask = |command: &str, flags: u32, more: &str| {
        let mut xml = Zeroizing::new(String::with_capacity(more.len() + 1024));
        for piece in [
            "<plist version=\"1.0\"><dict><key>command</key><string>",
            command,
            "</string><key>name</key><string>",
            &escape(&words.name),
            "</string><key>reasons</key><integer>0x1</integer><key>flags</key><integer>",
            &format!("{flags:#x}"),
            "</integer>",
            more,
            "</dict></plist>",
        ] {
            xml.push_str(piece);
        }
        // A reply may have what was sent.
        let reply = server.ask(&xml).map(Zeroizing::new);
        let (errno, said) = match reply {
            Ok(reply) if !dm_host::reasons::is_failure(reply.as_bytes()) => return Ok(()),
            Ok(reply) => {
                let answer = Answer::parse(reply.as_bytes()).map_err(Failure::Broken)?;
                let errno = answer.number("errno").and_then(|errno| i32::try_from(errno).ok());
                (Errno(errno.unwrap_or(0)), answer.text("reason").to_string())
            }
            Err(refused) => refused,
        };
        let what = format!("{command} {}", words.name);
        Err(Failure::Refused { what, errno, line: None, said, hint: "" })
    };
    let uuid = format!("<key>uuid</key><string>{}</string>", escape(&words.uuid));
    ask("create", readonly, &uuid)?;
    ask("reload", readonly, &lines(table)?)?;
    ask("resume", 0, "")
}

/// The table as a request has it.
fn lines(table: &str) -> Result<Zeroizing<String>, Failure> {
    let room = table.lines().map(|line| line.len() + 256).sum::<usize>() + 64;
    let mut xml = Zeroizing::new(String::with_capacity(room));
    xml.push_str("<key>cmd_data</key><array>");
    for line in table.lines() {
        let wrong = || Failure::Broken("the table makes no sense".into());
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().ok_or_else(wrong);
        let number = |word: &str| word.parse::<u64>().map_err(|_| wrong());
        let (start, length, kind, params) = (number(word()?)?, number(word()?)?, word()?, word()?);
        for piece in [
            "<dict><key>start</key><integer>",
            &format!("{start:#x}"),
            "</integer><key>length</key><integer>",
            &format!("{length:#x}"),
            "</integer><key>type</key><string>",
            kind,
            "</string><key>params</key><string>",
            params,
            "</string></dict>",
        ] {
            xml.push_str(piece);
        }
    }
    xml.push_str("</array>");
    Ok(xml)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
