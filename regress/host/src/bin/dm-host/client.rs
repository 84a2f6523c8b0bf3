//! The connection to a served machine, and what can go wrong with it.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use dm_host::Errno;
use dm_host::wire::{Kind, Reply, Request, WireError};

use crate::cli::exit;
use crate::sockets;
use crate::table::BadLine;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The driver said no.
    Refused {
        /// What was asked, in words.
        what: String,
        /// The error.
        errno: Errno,
        /// What the console said about it.
        said: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A question about a device that is not there.
    NoDevice(String),
    /// The command line makes no sense, or a file on it cannot be read.
    Usage(String),
    /// A table's text makes no sense.
    Table(Vec<BadLine>),
    /// No server.
    Unreachable(PathBuf, io::Error),
    /// The server does not speak as it should.
    Broken(String),
}

impl Failure {
    /// The exit code of the program.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Refused { .. } | Failure::NoDevice(_) => exit::REFUSED,
            Failure::Usage(_) | Failure::Table(_) => exit::USAGE,
            Failure::Unreachable(..) | Failure::Broken(_) => exit::UNREACHABLE,
        }
    }
}

/// An error with its text and its name.
pub fn errno_text(errno: Errno) -> String {
    match errno.name() {
        Some(name) => format!("{} ({name})", errno.text()),
        None => format!("error {}", errno.0),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused { what, errno, said, hint } => {
                write!(f, "{what}: {}", errno_text(*errno))?;
                if !said.is_empty() {
                    write!(f, "\n  {}", said.trim_end().replace('\n', "\n  "))?;
                }
                if !hint.is_empty() {
                    write!(f, "\n  {hint}")?;
                }
                Ok(())
            }
            Failure::NoDevice(what) => {
                write!(f, "{what}: no such device\n  `dm-host ctl ls` lists the devices")
            }
            Failure::Usage(why) => f.write_str(why),
            Failure::Table(bad) => {
                f.write_str("the table makes no sense; nothing was changed")?;
                bad.iter().try_for_each(|line| write!(f, "\n  {line}"))
            }
            Failure::Unreachable(path, error) => write!(
                f,
                "no server at {}: {error}\n  start one with `dm-host serve --disk NAME=FILE`, or \
                 name its socket with --socket",
                path.display()
            ),
            Failure::Broken(why) => write!(f, "talking to the server: {why}"),
        }
    }
}

/// A connection.
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the socket at `path`, or to the default one.
    ///
    /// # Errors
    /// [`Failure::Unreachable`].
    pub fn connect(path: Option<&Path>) -> Result<Client, Failure> {
        let path = path.map_or_else(sockets::default_control, Path::to_path_buf);
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Client { stream }),
            Err(error) => Err(Failure::Unreachable(path, error)),
        }
    }

    /// Asks, and waits for the answer: its body, or the error and what was said about it.
    ///
    /// # Errors
    /// [`Failure::Broken`].
    pub fn ask(
        &mut self,
        kind: Kind,
        body: &str,
    ) -> Result<Result<Vec<u8>, (Errno, String)>, Failure> {
        let broken = |error: WireError| Failure::Broken(error.to_string());
        let request = Request { kind, body: body.as_bytes().to_vec() };
        request.write(&mut self.stream).map_err(broken)?;
        let reply = Reply::read(&mut self.stream).map_err(broken)?;
        Ok(match reply.errno {
            0 => Ok(reply.body),
            errno => Err((Errno(errno), String::from_utf8_lossy(&reply.body).into_owned())),
        })
    }
}
