// SPDX-License-Identifier: BSD-2-Clause

//! The connection to a served machine.

use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::{io, thread};

use dm_host::Errno;
use dm_host::wire::{Kind, Reply, Request, WireError};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::Failure;
use crate::sockets;
use crate::xml::{self, Answer, Dict};

/// A connection to a served machine.
pub struct Client {
    stream: UnixStream,
    /// The signal that has come, if signals are caught; 0 for none.
    signal: Option<Arc<AtomicI32>>,
}

impl Client {
    /// Connects to the socket at `path`, or to the default one.
    ///
    /// # Errors
    /// [`Failure::Unreachable`].
    pub fn connect(path: Option<&Path>) -> Result<Client, Failure> {
        let path = path.map_or_else(sockets::default_control, Path::to_path_buf);
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Client { stream, signal: None }),
            Err(error) => Err(Failure::Unreachable(path, error)),
        }
    }

    /// Sends a request and waits for its answer: the answer's body, or the error and what was said about it.
    ///
    /// # Errors
    /// [`Failure::Broken`].
    pub fn ask(&mut self, kind: Kind, body: &str) -> Result<Asked, Failure> {
        let request = Request { kind, body: body.as_bytes().to_vec() };
        let reply = request.write(&mut self.stream).and_then(|()| Reply::read(&mut self.stream));
        reply.map(asked).map_err(|error| self.broken(&error))
    }

    /// Sends the driver a request of which only the answer matters: `None` if it refuses.
    ///
    /// # Errors
    /// [`Failure::Broken`].
    pub fn question(&mut self, request: &Dict) -> Result<Option<Answer>, Failure> {
        let reply = self.ask(Kind::Ioctl, &xml::write(request))?;
        Ok(reply.ok().and_then(|body| Answer::parse(&body).ok()))
    }

    /// Sends a request for the driver, and another that the server carries out when this connection ends before
    /// [`Kind::AtEnd`] says otherwise: also if this program dies meanwhile.
    ///
    /// # Errors
    /// [`Failure::Broken`].
    pub fn ask_and_undo(&mut self, body: &str, undo: &str) -> Result<Asked, Failure> {
        let request = Request { kind: Kind::Ioctl, body: body.as_bytes().to_vec() };
        let at_end = Request { kind: Kind::AtEnd, body: undo.as_bytes().to_vec() };
        let mut both = Vec::new();
        let reply = request
            .write(&mut both)
            .and_then(|()| at_end.write(&mut both))
            .and_then(|()| Ok(self.stream.write_all(&both)?))
            .and_then(|()| {
                let first = Reply::read(&mut self.stream)?;
                // If the first request failed there is nothing to undo, and the second is refused.
                Reply::read(&mut self.stream)?;
                Ok(first)
            });
        reply.map(asked).map_err(|error| self.broken(&error))
    }

    /// Has a signal end the connection from now on, and not the program: the program ends by the signal when the
    /// server has undone what was begun.
    pub fn catch_signals(&mut self) {
        if self.signal.is_some() {
            return;
        }
        let caught = Arc::new(AtomicI32::new(0));
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]);
        // Without a thread or a handler the program just ends, and the server undoes it soon.
        let (Ok(mut signals), Ok(stream)) = (signals, self.stream.try_clone()) else { return };
        let theirs = caught.clone();
        let waits = move || {
            if let Some(signal) = signals.forever().next() {
                theirs.store(signal, Ordering::SeqCst);
                let _ = stream.shutdown(Shutdown::Write);
            }
        };
        if thread::Builder::new().name("signals".into()).spawn(waits).is_ok() {
            self.signal = Some(caught);
        }
    }

    /// Turns the error of a connection that broke into a failure, or ends the process as a signal would have.
    fn broken(&mut self, error: &WireError) -> Failure {
        let signal = self.signal.as_ref().map_or(0, |signal| signal.load(Ordering::SeqCst));
        if signal != 0 {
            // The server closes it when it has undone what was begun.
            let _ = io::copy(&mut self.stream, &mut io::sink());
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
        Failure::Broken(error.to_string())
    }
}

/// An answer's body, or an error and its reason.
pub type Asked = Result<Vec<u8>, (Errno, String)>;

fn asked(reply: Reply) -> Asked {
    match reply.errno {
        0 => Ok(reply.body),
        errno => Err((Errno(errno), String::from_utf8_lossy(&reply.body).into_owned())),
    }
}
