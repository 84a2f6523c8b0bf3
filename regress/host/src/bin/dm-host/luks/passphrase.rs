// SPDX-License-Identifier: BSD-2-Clause

//! Passphrases: from a file, from the terminal without echo, or from a standard input that is no
//! terminal.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use zeroize::Zeroizing;

use crate::cli::LuksKey;
use crate::failure::Failure;

/// Bytes of the longest key file, and of the longest passphrase that is typed, as in cryptsetup.
const FILE: u64 = 8 << 20;
const TYPED: usize = 512;

/// A passphrase.
pub struct Passphrase {
    /// The passphrase's bytes.
    pub bytes: Zeroizing<Vec<u8>>,
    /// `true` if it was typed, so that another may be typed.
    pub typed: bool,
}

impl Passphrase {
    /// Gets one from where the command line says.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub fn get(from: &LuksKey, disk: &str) -> Result<Passphrase, Failure> {
        let (bytes, typed) = match &from.key_file {
            Some(path) => (key_file(path, from), false),
            None if io::stdin().is_terminal() => (typed(disk), true),
            None => (line(&mut unbuffered().map_err(Failure::Usage)?), false),
        };
        Ok(Passphrase { bytes: bytes.map_err(Failure::Usage)?, typed })
    }
}

/// Standard input without the buffer that `io::stdin` would leave things in.
///
/// # Errors
/// In words.
pub fn unbuffered() -> Result<File, String> {
    let fd = io::stdin().as_fd().try_clone_to_owned();
    fd.map(File::from).map_err(|error| format!("standard input: {error}"))
}

fn key_file(path: &Path, from: &LuksKey) -> Result<Zeroizing<Vec<u8>>, String> {
    let name = path.display();
    let wrong = |error: io::Error| format!("{name}: {error}");
    let mut file = match path == Path::new("-") {
        true => unbuffered()?,
        false => File::open(path).map_err(wrong)?,
    };
    io::copy(&mut (&mut file).take(from.keyfile_offset), &mut io::sink()).map_err(wrong)?;
    let most = from.keyfile_size.unwrap_or(FILE + 1);
    if from.keyfile_size.is_some_and(|size| size > FILE) {
        return Err(format!("{name}: more than {FILE} bytes are no key"));
    }
    let bytes = all(&mut file.take(most)).map_err(wrong)?;
    if bytes.len() as u64 > FILE {
        return Err(format!("{name}: it has more than {FILE} bytes; --keyfile-size takes some"));
    }
    if from.keyfile_size.is_some_and(|size| size != bytes.len() as u64) {
        return Err(format!("{name}: it has not as many bytes as --keyfile-size says"));
    }
    Ok(bytes)
}

/// Reads to the end, and leaves no copy behind when the buffer grows.
///
/// # Errors
/// Those of reading.
pub fn all(from: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    let mut piece = Zeroizing::new([0; 4096]);
    loop {
        let read = from.read(piece.as_mut())?;
        let Some(some) = piece.get(..read).filter(|some| !some.is_empty()) else {
            return Ok(bytes);
        };
        if bytes.len() + read > bytes.capacity() {
            let mut more = Zeroizing::new(Vec::with_capacity(bytes.capacity() * 2));
            more.extend_from_slice(&bytes);
            bytes = more;
        }
        bytes.extend_from_slice(some);
    }
}

/// Reads a line, without its newline.
fn line(from: &mut impl Read) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(TYPED));
    let mut byte = Zeroizing::new([0]);
    let mut ended = false;
    loop {
        match from.read(byte.as_mut()) {
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => {
                ended = true;
                break;
            }
            Ok(_) if bytes.len() == TYPED => {
                return Err(format!(
                    "a passphrase has at most {TYPED} bytes; --key-file takes more"
                ));
            }
            Ok(_) => bytes.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("reading the passphrase: {error}")),
        }
    }
    match bytes.is_empty() && !ended {
        true => Err("there is no passphrase on standard input".into()),
        false => Ok(bytes),
    }
}

/// Asks at the terminal, without echo.
fn typed(disk: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("the terminal: {error}");
    let mut terminal = unbuffered()?;
    let _silence = Silence::begin(&terminal).map_err(|error| wrong(&error))?;
    let mut out = io::stderr();
    let _ = write!(out, "Passphrase for {}: ", dm_core::refusal::Shown(disk));
    let line = line(&mut terminal);
    let _ = writeln!(out);
    line
}

/// A terminal without echo, until this is dropped or a signal ends the program.
struct Silence {
    terminal: File,
    before: Termios,
    signals: signal_hook::iterator::Handle,
    waiter: Option<thread::JoinHandle<()>>,
}

impl Silence {
    fn begin(terminal: &File) -> io::Result<Silence> {
        let before = termios::tcgetattr(terminal)?;
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
        let handle = signals.handle();
        let (theirs, shown) = (terminal.try_clone()?, before.clone());
        // Its C structure is the thread's own.
        let waits = move || {
            if let Some(signal) = signals.forever().next() {
                let _ = termios::tcsetattr(&theirs, SetArg::TCSANOW, &shown);
                let _ = writeln!(io::stderr());
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        };
        let waiter = thread::Builder::new().name("signals".into()).spawn(waits)?;
        let silence = Silence {
            terminal: terminal.try_clone()?,
            before: before.clone(),
            signals: handle,
            waiter: Some(waiter),
        };
        let mut silent = before;
        silent.local_flags.remove(LocalFlags::ECHO);
        silent.local_flags.remove(LocalFlags::ECHONL);
        // Input from before the question is dropped.
        termios::tcsetattr(terminal, SetArg::TCSAFLUSH, &silent)?;
        Ok(silence)
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before);
        self.signals.close();
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.join();
        }
    }
}
