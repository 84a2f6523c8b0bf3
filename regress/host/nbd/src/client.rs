// SPDX-License-Identifier: BSD-2-Clause

//! The client: uses an export of another server as a disk.
//!
//! Requests are sent as they come and answered in the server's order, by a thread that receives.
//! Nothing waits for ever: a request that is not answered in time, or whose connection is lost, is
//! sent once more over a new connection; if that fails too, it ends with [`Error::Io`]. So does
//! what comes within [`PAUSE`] of a server that could not be reached; what comes later tries again.

mod connection;
mod hello;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use connection::Connection;

use crate::proto::{Error, can, command};
use crate::uri::Uri;

/// The time for which a server that cannot be reached is left alone.
pub const PAUSE: Duration = Duration::from_secs(1);

/// The time limits of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The time to connect and to agree on terms.
    pub connect: Duration,
    /// The time from a request to its answer.
    pub answer: Duration,
}

impl Default for Limits {
    /// Ten seconds to connect, thirty for an answer.
    fn default() -> Limits {
        Limits { connect: Duration::from_secs(10), answer: Duration::from_secs(30) }
    }
}

/// Why an export cannot be used; in words.
#[derive(Debug)]
pub struct ClientError(pub String);

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ClientError {}

/// An export's size and abilities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Export {
    /// The size in bytes.
    pub size: u64,
    /// Transmission flags, `proto::can::*`.
    pub flags: u16,
    /// Bytes of the least, the best and the largest request.
    pub blocks: (u32, u32, u32),
    /// `true` if replies to reads are structured.
    pub structured: bool,
    /// The number of the context that tells holes, if the server has it.
    pub holes: Option<u32>,
}

impl Export {
    /// `true` if the export takes writes.
    pub fn is_writable(&self) -> bool {
        self.can(can::HAS_FLAGS) && !self.can(can::READ_ONLY)
    }

    /// `true` if the export can do this, one of `proto::can::*`.
    pub fn can(&self, what: u16) -> bool {
        self.flags & what != 0
    }
}

/// An operation that a server is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// The command, one of `proto::command`.
    pub kind: u16,
    /// The command's flags, of `proto::command`.
    pub flags: u16,
    /// The first byte.
    pub offset: u64,
    /// The length in bytes.
    pub length: u32,
    /// The data of a write.
    pub payload: Vec<u8>,
}

impl Operation {
    /// A read of `length` bytes.
    pub fn read(offset: u64, length: u32) -> Operation {
        Operation { kind: command::READ, flags: 0, offset, length, payload: Vec::new() }
    }

    /// A write of `payload`.
    pub fn write(offset: u64, payload: Vec<u8>, fua: bool) -> Operation {
        let flags = if fua { command::FUA } else { 0 };
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        Operation { kind: command::WRITE, flags, offset, length, payload }
    }

    /// A command without payload.
    pub fn plain(kind: u16, flags: u16, offset: u64, length: u32) -> Operation {
        Operation { kind, flags, offset, length, payload: Vec::new() }
    }
}

/// The receiver of an operation's outcome.
pub trait Outcome: Send {
    /// Receives a part of a read's data, `at` bytes from the read's beginning. Each byte comes at most once in one
    /// attempt.
    fn data(&mut self, at: usize, bytes: &[u8]);

    /// Receives a part of the answer to a block status request: length in bytes and `proto::state` of each extent.
    fn extents(&mut self, _extents: &[(u32, u32)]) {}

    /// Receives the end of the operation; called once.
    fn done(self: Box<Self>, result: Result<(), Error>);
}

/// An export of a server.
pub struct Client {
    connection: Arc<Connection>,
}

impl Client {
    /// Connects to an export.
    ///
    /// # Errors
    /// In words, within the time of `limits.connect`.
    pub fn connect(uri: &Uri, limits: Limits) -> Result<Client, ClientError> {
        Ok(Client { connection: Connection::start(uri, limits)? })
    }

    /// The export's size and abilities. They stay as they were, over all connections.
    pub fn export(&self) -> &Export {
        &self.connection.export
    }

    /// Sends a request; its outcome comes from another thread, or from this one.
    pub fn submit(&self, operation: Operation, outcome: Box<dyn Outcome>) {
        self.connection.submit(operation, outcome);
    }

    /// Sends a request and waits for its end.
    ///
    /// # Errors
    /// The server's; [`Error::Io`] when it cannot be reached.
    pub fn call(&self, operation: Operation) -> Result<(), Error> {
        self.wait_for(operation).0
    }

    /// The allocation of the export, at most from `offset` to its end: length in bytes and `proto::state` of each
    /// extent.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn extents(&self, offset: u64, length: u32) -> Result<Vec<(u32, u32)>, Error> {
        let (result, _, extents) =
            self.wait_for(Operation::plain(command::BLOCK_STATUS, 0, offset, length));
        result.map(|()| extents)
    }

    /// Reads `length` bytes from byte `offset` on.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn read(&self, offset: u64, length: u32) -> Result<Vec<u8>, Error> {
        let (result, data, _) = self.wait_for(Operation::read(offset, length));
        result.map(|()| data)
    }

    fn wait_for(&self, operation: Operation) -> Collected {
        let length = if operation.kind == command::READ { operation.length as usize } else { 0 };
        let shared = Arc::new((Mutex::new(None), Condvar::new()));
        let waiter = Waiter { data: vec![0; length], extents: Vec::new(), shared: shared.clone() };
        self.submit(operation, Box::new(waiter));
        crate::about_to_block();
        let mut slot = shared.0.lock().unwrap_or_else(|e| e.into_inner());
        loop {
            if let Some(collected) = slot.take() {
                return collected;
            }
            slot = shared.1.wait(slot).unwrap_or_else(|e| e.into_inner());
        }
    }
}

impl Drop for Client {
    /// Ends the connection. Operations in flight end with an error.
    fn drop(&mut self) {
        self.connection.close();
    }
}

type Collected = (Result<(), Error>, Vec<u8>, Vec<(u32, u32)>);

struct Waiter {
    data: Vec<u8>,
    extents: Vec<(u32, u32)>,
    shared: Arc<(Mutex<Option<Collected>>, Condvar)>,
}

impl Outcome for Waiter {
    fn data(&mut self, at: usize, bytes: &[u8]) {
        let to = self.data.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len()));
        if let Some(to) = to {
            to.copy_from_slice(bytes);
        }
    }

    fn extents(&mut self, extents: &[(u32, u32)]) {
        self.extents.extend(extents);
    }

    fn done(self: Box<Self>, result: Result<(), Error>) {
        let collected = (result, self.data, self.extents);
        *self.shared.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(collected);
        self.shared.1.notify_one();
    }
}
