// SPDX-License-Identifier: BSD-2-Clause

//! The client: uses an export of another server as a disk.
//!
//! Requests are sent as they come and answered in the server's order, by a thread that receives.
//! Nothing waits for ever: a request that is not answered in time, or whose connection is lost, is
//! sent once more over a new connection; if that fails too, it ends with [`Error::Io`]. So does
//! what comes within [`PAUSE`] of a server that could not be reached; what comes later tries again.

mod hello;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::proto::{self, Error, RawRequest, can, chunk, command};
use crate::socket::Socket;
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

struct Pending {
    operation: Arc<Operation>,
    outcome: Box<dyn Outcome>,
    deadline: Instant,
    /// `true` if the operation was sent over a connection that is gone.
    tried: bool,
    /// Bytes of a read that have been received.
    got: u64,
    error: Option<Error>,
}

enum Link {
    Up(Arc<Socket>),
    /// A thread is connecting.
    Connecting,
    /// The link is down since then; `true` if another try may be made at once.
    Down(Instant, bool),
}

struct State {
    link: Link,
    pending: BTreeMap<u64, Pending>,
    next: u64,
    closing: bool,
    /// `true` if writes were answered after the last flush that was.
    dirty: bool,
    /// `true` if such writes were answered over a connection that is gone: the next flush fails.
    lost: bool,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    uri: Uri,
    limits: Limits,
    export: Export,
    state: Mutex<State>,
    /// Held while a request is sent.
    sending: Mutex<()>,
}

/// An export of a server.
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Connects to an export.
    ///
    /// # Errors
    /// In words, within the time of `limits.connect`.
    pub fn connect(uri: &Uri, limits: Limits) -> Result<Client, ClientError> {
        let (socket, export) = hello::connect(uri, limits.connect)?;
        let socket = Arc::new(socket);
        let state = State {
            link: Link::Up(socket.clone()),
            pending: BTreeMap::new(),
            next: 0,
            closing: false,
            dirty: false,
            lost: false,
            thread: None,
        };
        let shared = Arc::new(Shared {
            uri: uri.clone(),
            limits,
            export,
            state: Mutex::new(state),
            sending: Mutex::new(()),
        });
        let own = shared.clone();
        let thread = thread::Builder::new()
            .name("nbd-client".into())
            .spawn(move || own.run(Some(socket)))
            .map_err(|error| ClientError(format!("no thread: {error}")))?;
        shared.state().thread = Some(thread);
        Ok(Client { shared })
    }

    /// The export's size and abilities. They stay as they were, over all connections.
    pub fn export(&self) -> &Export {
        &self.shared.export
    }

    /// Sends a request; its outcome comes from another thread, or from this one.
    pub fn submit(&self, operation: Operation, outcome: Box<dyn Outcome>) {
        self.shared.submit(operation, outcome);
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
        let (socket, thread) = {
            let mut state = self.shared.state();
            state.closing = true;
            let socket = match &state.link {
                Link::Up(socket) => Some(socket.clone()),
                _ => None,
            };
            (socket, state.thread.take())
        };
        if let Some(socket) = socket {
            let goodbye = RawRequest { kind: command::DISCONNECT, ..RawRequest::default() };
            // A server that is gone needs no farewell.
            let _ = self.shared.send(&socket, &goodbye, &[]);
            socket.cut();
        }
        if let Some(thread) = thread {
            // One that panicked has nothing more to say.
            let _ = thread.join();
        }
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

/// Ends operations, with no lock held: an outcome may call the client.
fn fail(pending: impl IntoIterator<Item = Pending>, error: Error) {
    pending.into_iter().for_each(|pending| pending.outcome.done(Err(error)));
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn submit(self: &Arc<Self>, operation: Operation, outcome: Box<dyn Outcome>) {
        let operation = Arc::new(operation);
        let pending = Pending {
            operation: operation.clone(),
            outcome,
            deadline: self.deadline(),
            tried: false,
            got: 0,
            error: None,
        };
        let mut state = self.state();
        let resting =
            matches!(state.link, Link::Down(since, again) if !again && since.elapsed() < PAUSE);
        if state.closing || resting {
            drop(state);
            return fail([pending], Error::Io);
        }
        let cookie = state.next;
        state.next = cookie.wrapping_add(1);
        state.pending.insert(cookie, pending);
        match &state.link {
            Link::Up(socket) => {
                let socket = socket.clone();
                drop(state);
                self.send_operation(&socket, cookie, &operation);
            }
            // The thread that connects sends the pending operations.
            Link::Connecting => {}
            Link::Down(..) => {
                state.link = Link::Connecting;
                let before = state.thread.take();
                let own = self.clone();
                let spawned = thread::Builder::new().name("nbd-client".into()).spawn(move || {
                    if let Some(before) = before {
                        // The thread before has set the link down, as its last act.
                        let _ = before.join();
                    }
                    own.run(None);
                });
                match spawned {
                    Ok(thread) => state.thread = Some(thread),
                    Err(_) => {
                        state.link = Link::Down(Instant::now(), false);
                        let all = std::mem::take(&mut state.pending);
                        drop(state);
                        fail(all.into_values(), Error::NoMem);
                    }
                }
            }
        }
    }

    fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.limits.answer).unwrap_or(now)
    }

    fn send_operation(&self, socket: &Socket, cookie: u64, operation: &Operation) {
        let request = RawRequest {
            flags: operation.flags,
            kind: operation.kind,
            cookie,
            offset: operation.offset,
            length: operation.length,
        };
        if self.send(socket, &request, &operation.payload).is_err() {
            // The thread that receives notices, and does what is to be done.
            socket.cut();
        }
    }

    fn send(&self, socket: &Socket, request: &RawRequest, payload: &[u8]) -> io::Result<()> {
        let _sending = self.sending.lock().unwrap_or_else(|e| e.into_inner());
        socket.send(&request.encode(), payload)
    }

    /// Receives, and connects anew when the connection is lost: the thread's body. Ends when the link is down.
    fn run(self: Arc<Self>, mut socket: Option<Arc<Socket>>) {
        loop {
            let link = match socket.take() {
                Some(socket) => Some(socket),
                None => self.reconnect(),
            };
            let Some(link) = link else { return self.give_up() };
            self.receive_all(&link);
            link.cut();
            if !self.lose() {
                return;
            }
        }
    }

    /// Records that the connection is gone. `true` if there are operations to connect anew for.
    fn lose(&self) -> bool {
        let mut state = self.state();
        state.lost |= std::mem::take(&mut state.dirty);
        let closing = state.closing;
        let mut over = Vec::new();
        let deadline = self.deadline();
        for (cookie, pending) in std::mem::take(&mut state.pending) {
            if pending.tried || closing {
                over.push(pending);
            } else {
                let again = Pending { tried: true, deadline, got: 0, error: None, ..pending };
                state.pending.insert(cookie, again);
            }
        }
        let again = !state.pending.is_empty() && !closing;
        state.link = match again {
            true => Link::Connecting,
            false => Link::Down(Instant::now(), true),
        };
        drop(state);
        fail(over, Error::Io);
        again
    }

    /// Gives up the server, which cannot be reached: all operations end with an error.
    fn give_up(&self) {
        let mut state = self.state();
        state.link = Link::Down(Instant::now(), false);
        let all = std::mem::take(&mut state.pending);
        drop(state);
        fail(all.into_values(), Error::Io);
    }

    /// Connects anew, and lets a thread send the pending operations. `None` when that fails, or when the export has
    /// changed.
    fn reconnect(self: &Arc<Self>) -> Option<Arc<Socket>> {
        let (socket, export) = hello::connect(&self.uri, self.limits.connect).ok()?;
        if export != self.export {
            return None;
        }
        let socket = Arc::new(socket);
        let mut state = self.state();
        if state.closing {
            return None;
        }
        state.link = Link::Up(socket.clone());
        let deadline = self.deadline();
        let mut again: Vec<(u64, Arc<Operation>)> = Vec::new();
        for (cookie, pending) in &mut state.pending {
            pending.deadline = deadline;
            again.push((*cookie, pending.operation.clone()));
        }
        drop(state);
        // Not from here: the answers must be received meanwhile.
        let (own, to) = (self.clone(), socket.clone());
        let sends = move || {
            for (cookie, operation) in again {
                own.send_operation(&to, cookie, &operation);
            }
        };
        let spawned = thread::Builder::new().name("nbd-resend".into()).spawn(sends);
        spawned.ok().map(|_| socket)
    }

    /// Receives until the connection fails, or an answer is too late.
    fn receive_all(&self, socket: &Socket) {
        let mut head = [0; 4];
        while self.receive(socket, &mut head).is_some() {
            let done = match u32::from_be_bytes(head) {
                proto::SIMPLE_MAGIC => self.simple(socket, head),
                proto::CHUNK_MAGIC => self.chunk(socket, head),
                _ => None,
            };
            if done.is_none() {
                return;
            }
        }
    }

    /// Receives exactly so many bytes; `None` when the connection fails or an answer is too late.
    fn receive(&self, socket: &Socket, mut to: &mut [u8]) -> Option<()> {
        while !to.is_empty() {
            match socket.receive(to) {
                Ok(0) => return None,
                Ok(got) => to = to.get_mut(got..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let state = self.state();
                    let now = Instant::now();
                    if state.closing || state.pending.values().any(|p| p.deadline < now) {
                        return None;
                    }
                }
                Err(_) => return None,
            }
        }
        Some(())
    }

    fn simple(&self, socket: &Socket, head: [u8; 4]) -> Option<()> {
        let mut bytes = [0; proto::SIMPLE];
        let (first, rest) = bytes.split_at_mut(4);
        first.copy_from_slice(&head);
        self.receive(socket, rest)?;
        let (cookie, error) = proto::parse_simple(&bytes)?;
        let mut pending = self.take(cookie)?;
        let reads = pending.operation.kind == command::READ;
        if reads && self.export.structured {
            self.put_back(cookie, pending);
            return None;
        }
        if error == 0 && reads {
            let length = pending.operation.length as usize;
            let result = self.data(socket, &mut pending, 0, length);
            if result.is_none() {
                self.put_back(cookie, pending);
                return None;
            }
        }
        let result = if error == 0 { Ok(()) } else { Err(Error::from_number(error)) };
        self.finish(pending, result);
        Some(())
    }

    fn chunk(&self, socket: &Socket, head: [u8; 4]) -> Option<()> {
        let mut bytes = [0; proto::CHUNK];
        let (first, rest) = bytes.split_at_mut(4);
        first.copy_from_slice(&head);
        self.receive(socket, rest)?;
        let header = proto::parse_chunk(&bytes)?;
        let mut pending = self.take(header.cookie)?;
        if self.chunk_body(socket, &header, &mut pending).is_none() {
            self.put_back(header.cookie, pending);
            return None;
        }
        if header.flags & chunk::DONE == 0 {
            self.put_back(header.cookie, pending);
            return Some(());
        }
        let whole = pending.operation.kind != command::READ
            || pending.got == u64::from(pending.operation.length);
        let result = match pending.error {
            Some(error) => Err(error),
            // Less data than were asked for, and no error.
            None if !whole => Err(Error::Io),
            None => Ok(()),
        };
        self.finish(pending, result);
        Some(())
    }

    fn chunk_body(
        &self,
        socket: &Socket,
        header: &proto::ChunkHeader,
        pending: &mut Pending,
    ) -> Option<()> {
        let length = header.length as usize;
        match header.kind {
            chunk::NONE if length == 0 => {}
            chunk::OFFSET_DATA if length > 8 && pending.operation.kind == command::READ => {
                let mut place = [0; 8];
                self.receive(socket, &mut place)?;
                let at = u64::from_be_bytes(place).checked_sub(pending.operation.offset)?;
                self.data(socket, pending, at, length.checked_sub(8)?)?;
            }
            chunk::OFFSET_HOLE if length == 12 && pending.operation.kind == command::READ => {
                let (mut place, mut count) = ([0; 8], [0; 4]);
                self.receive(socket, &mut place)?;
                self.receive(socket, &mut count)?;
                let at = u64::from_be_bytes(place).checked_sub(pending.operation.offset)?;
                let count = u32::from_be_bytes(count);
                pending.check(at, count.into())?;
                let zeroes = vec![0; count as usize];
                pending.outcome.data(usize::try_from(at).ok()?, &zeroes);
            }
            chunk::BLOCK_STATUS if (4..=1 << 20).contains(&length) => {
                let mut data = vec![0; length];
                self.receive(socket, &mut data)?;
                let (context, extents) = proto::parse_extents(&data)?;
                if Some(context) == self.export.holes {
                    pending.outcome.extents(&extents);
                }
            }
            kind if chunk::is_error(kind) && (6..=1 << 16).contains(&length) => {
                let mut data = vec![0; length];
                self.receive(socket, &mut data)?;
                let number = data.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                pending.error.get_or_insert(Error::from_number(number));
            }
            _ => return None,
        }
        Some(())
    }

    /// Receives a part of a read's data.
    fn data(&self, socket: &Socket, pending: &mut Pending, at: u64, length: usize) -> Option<()> {
        pending.check(at, length as u64)?;
        let mut at = usize::try_from(at).ok()?;
        let mut buffer = vec![0; length.min(256 << 10)];
        let mut left = length;
        while left > 0 {
            let count = left.min(buffer.len());
            let bytes = buffer.get_mut(..count)?;
            self.receive(socket, bytes)?;
            pending.outcome.data(at, bytes);
            at = at.saturating_add(count);
            left = left.saturating_sub(count);
        }
        Some(())
    }

    fn take(&self, cookie: u64) -> Option<Pending> {
        self.state().pending.remove(&cookie)
    }

    fn put_back(&self, cookie: u64, pending: Pending) {
        self.state().pending.insert(cookie, pending);
    }

    fn finish(&self, pending: Pending, mut result: Result<(), Error>) {
        {
            let mut state = self.state();
            let kind = pending.operation.kind;
            let durable = pending.operation.flags & command::FUA != 0;
            match kind {
                command::WRITE | command::WRITE_ZEROES if !durable => state.dirty = true,
                command::FLUSH if result.is_ok() => {
                    state.dirty = false;
                    if std::mem::take(&mut state.lost) {
                        result = Err(Error::Io);
                    }
                }
                _ => {}
            }
        }
        pending.outcome.done(result);
    }
}

impl Pending {
    /// Checks that data lie in the range that was asked for, and have not all come before.
    fn check(&mut self, at: u64, length: u64) -> Option<()> {
        let asked = u64::from(self.operation.length);
        self.got = self.got.checked_add(length)?;
        (at.checked_add(length)? <= asked && self.got <= asked).then_some(())
    }
}
