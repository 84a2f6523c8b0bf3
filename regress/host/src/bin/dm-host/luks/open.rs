// SPDX-License-Identifier: BSD-2-Clause

//! `luks open` and `luks close`. The passphrase is asked for and the key found here, where the terminal is;
//! then a process of its own, the keeper, gets the table through a pipe and serves the data.

use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use dm_core::commands::flags;
use dm_core::refusal::Shown;
use dm_host::Errno;
use dm_host::wire::Kind;
use dm_luks::{Header, Version, VolumeKey};
use dm_nbd::Uri;
use zeroize::Zeroizing;

use super::Opened;
use super::keeper::{self, READY};
use crate::cli::{LuksKeeper, LuksKey, LuksSockets};
use crate::client::Client;
use crate::failure::Failure;
use crate::sockets;
use crate::xml::Dict;

/// The path of the disk in the table.
const DEVICE: &str = "/dev/wd0";

/// The longest that `close` waits for the end: a server gives clients 5 seconds and its disks 60.
const END: Duration = Duration::from_secs(70);

/// The time that `close` waits for connections to end, as `ctl remove --retry`: a client that has just gone may be
/// connected for a moment.
const BUSY: Duration = Duration::from_secs(5);

/// The manner in which a disk is opened.
pub struct How<'a> {
    pub name: &'a str,
    pub readonly: bool,
    pub allow_discards: bool,
    pub foreground: bool,
    pub sockets: &'a LuksSockets,
}

/// Opens a disk, and returns the URI of its data.
///
/// # Errors
/// [`Failure::Locked`] for a wrong passphrase, or the reason why the disk could not be served.
pub fn open(opened: &Opened<'_>, from: &LuksKey, how: &How<'_>) -> Result<String, Failure> {
    let lines = opened.lines()?;
    let (control, nbd) = places(how.name, how.sockets)?;
    if Client::connect(Some(&control)).is_ok() {
        let text = format!("{} is open already: `dm-host luks close {0}` ends it", how.name);
        return Err(Failure::Usage(text));
    }
    let key = opened.unlock(from)?;
    let mut options = opened.options();
    if how.allow_discards && !options.contains(&"allow_discards") {
        options.push("allow_discards");
    }
    let table = table(&lines, &key, &options);
    drop(key);
    let words = LuksKeeper {
        disk: disk(&opened.names.disk, how.readonly)?,
        name: how.name.into(),
        uuid: uuid(&opened.header, how.name),
        control,
        nbd: nbd.clone(),
    };
    if how.foreground {
        return keeper::stay(&words, table).map(|()| String::new());
    }
    start(&words, &table)?;
    Ok(format!("{}\n", dm_nbd::uri::unix(how.name, &nbd)))
}

/// The sockets, as absolute paths.
fn places(name: &str, given: &LuksSockets) -> Result<(PathBuf, PathBuf), Failure> {
    if dm_core::name::Name::new(name).is_err() {
        let text = format!("{}: a device's name has 1 to 127 bytes and no slash", Shown(name));
        return Err(Failure::Usage(text));
    }
    if given.control.is_none() || given.nbd.is_none() {
        sockets::make_folder().map_err(Failure::Usage)?;
    }
    let (control, nbd) = sockets::of_luks(name);
    let absolute = |given: &Option<PathBuf>, default: PathBuf| {
        let path = given.clone().unwrap_or(default);
        let wrong = |error| Failure::Usage(format!("{}: {error}", path.display()));
        std::path::absolute(&path).map_err(wrong)
    };
    Ok((absolute(&given.control, control)?, absolute(&given.nbd, nbd)?))
}

/// The table, a line each.
fn table(lines: &[dm_luks::Line], key: &VolumeKey, options: &[&str]) -> Zeroizing<String> {
    let lines: Vec<_> = lines.iter().map(|line| line.text(key, DEVICE, options)).collect();
    let room = lines.iter().map(|line| line.len() + 1).sum();
    let mut text = Zeroizing::new(String::with_capacity(room));
    for line in &lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The disk as `serve --disk` takes it.
fn disk(name: &str, readonly: bool) -> Result<String, Failure> {
    let place = match Uri::is_one(name) {
        true => name.to_string(),
        false => {
            let path = std::path::absolute(name);
            let path = path.map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
            path.display().to_string()
        }
    };
    let place = place.replace(',', ",,");
    Ok(format!("wd0={place}{}", if readonly { ",ro" } else { "" }))
}

/// The uuid that cryptsetup gives to such devices: `CRYPT-LUKS2-`, the disk's without dashes, and the name.
fn uuid(header: &Header, name: &str) -> String {
    let version = match header.version {
        Version::One => 1,
        Version::Two => 2,
    };
    let hex: String = header.uuid.chars().filter(char::is_ascii_hexdigit).take(32).collect();
    format!("CRYPT-LUKS{version}-{hex}-{name}").chars().take(128).collect()
}

/// Starts the keeper, and waits until it serves.
fn start(words: &LuksKeeper, table: &Zeroizing<String>) -> Result<(), Failure> {
    let wrong = |what: &str| {
        let what = what.to_string();
        move |error: std::io::Error| Failure::Usage(format!("{what}: {error}"))
    };
    let own = env::current_exe().map_err(wrong("this program"))?;
    let mut command = Command::new(own);
    command.arg("luks-keeper").args(["--disk", &words.disk, "--name", &words.name]);
    command.args(["--uuid", &words.uuid]).arg("--control").arg(&words.control);
    command.arg("--nbd").arg(&words.nbd);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(wrong("starting the server"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that is gone says why.
        let _ = stdin.write_all(table.as_bytes());
    }
    let mut said = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        // Ends when the keeper has said what it has to say.
        stdout.read_to_string(&mut said).map_err(wrong("the server"))?;
    }
    match said.split_once('\n') {
        Some((READY, _)) => Ok(()),
        Some((keeper::REFUSED, why)) => Err(Failure::Locked(why.trim_end().into())),
        Some((_, why)) => Err(Failure::Usage(why.trim_end().into())),
        None => {
            let status = child.wait().map_err(wrong("the server"))?;
            Err(Failure::Usage(format!("the server ended before it served: {status}")))
        }
    }
}

/// Closes a disk: when this returns, all is written, and the key is forgotten.
///
/// # Errors
/// EBUSY while somebody is connected, unless it is forced; [`Failure::Unreachable`].
pub fn close(name: &str, force: bool, given: &LuksSockets) -> Result<String, Failure> {
    let (control, _) = places(name, given)?;
    let mut client = match Client::connect(Some(&control)) {
        Err(Failure::Unreachable(path, error)) => {
            let text = format!("{name} is not open: {}: {error}", path.display());
            return Err(Failure::Closed(text));
        }
        client => client?,
    };
    let begun = Instant::now();
    while !force && is_open(&mut client, name)? {
        if begun.elapsed() > BUSY {
            return Err(Failure::Refused {
                what: format!("luks close {name}"),
                errno: Errno::EBUSY,
                line: None,
                said: "somebody is connected".into(),
                hint: "with --force the connection is ended",
            });
        }
        thread::sleep(Duration::from_millis(20));
    }
    if let Err((errno, said)) = client.ask(Kind::Shutdown, "")? {
        let what = format!("luks close {name}");
        return Err(Failure::Refused { what, errno, line: None, said, hint: "" });
    }
    let begun = Instant::now();
    // The last thing that goes is its socket.
    while fs::symlink_metadata(&control).is_ok_and(|found| found.file_type().is_socket()) {
        if begun.elapsed() > END {
            return Err(Failure::Broken("the server does not end".into()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(String::new())
}

/// `true` while a connection holds the device open.
fn is_open(client: &mut Client, name: &str) -> Result<bool, Failure> {
    let info = Dict::from([
        ("command", "info".into()),
        ("name", name.into()),
        ("flags", u64::from(flags::EXISTS).into()),
    ]);
    let open = client.question(&info)?.and_then(|answer| answer.number("open_count"));
    Ok(open.is_some_and(|open| open > 0))
}
