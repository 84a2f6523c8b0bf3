// SPDX-License-Identifier: BSD-2-Clause

//! A client's connection: sends, receives, and connects anew.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::{ClientError, Export, Limits, Operation, Outcome, PAUSE, hello};
use crate::proto::{self, Error, RawRequest, chunk, command};
use crate::socket::Socket;
use crate::uri::Uri;

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

/// A connection to an export, which is made anew when it is lost.
pub(super) struct Connection {
    uri: Uri,
    limits: Limits,
    pub(super) export: Export,
    state: Mutex<State>,
    /// Held while a request is sent.
    sending: Mutex<()>,
}

/// Ends operations, with no lock held: an outcome may call the client.
fn fail(pending: impl IntoIterator<Item = Pending>, error: Error) {
    pending.into_iter().for_each(|pending| pending.outcome.done(Err(error)));
}

impl Connection {
    /// Connects to an export, and has a thread receive.
    ///
    /// # Errors
    /// In words, within the time of `limits.connect`.
    pub(super) fn start(uri: &Uri, limits: Limits) -> Result<Arc<Connection>, ClientError> {
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
        let connection = Arc::new(Connection {
            uri: uri.clone(),
            limits,
            export,
            state: Mutex::new(state),
            sending: Mutex::new(()),
        });
        let own = connection.clone();
        let thread = thread::Builder::new()
            .name("nbd-client".into())
            .spawn(move || own.run(Some(socket)))
            .map_err(|error| ClientError(format!("no thread: {error}")))?;
        connection.state().thread = Some(thread);
        Ok(connection)
    }

    /// Ends the connection. Operations in flight end with an error.
    pub(super) fn close(&self) {
        let (socket, thread) = {
            let mut state = self.state();
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
            let _ = self.send(&socket, &goodbye, &[]);
            socket.cut();
        }
        if let Some(thread) = thread {
            // One that panicked has nothing more to say.
            let _ = thread.join();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Sends a request; its outcome comes from another thread, or from this one.
    pub(super) fn submit(self: &Arc<Self>, operation: Operation, outcome: Box<dyn Outcome>) {
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
