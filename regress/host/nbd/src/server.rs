// SPDX-License-Identifier: BSD-2-Clause

//! The server: accepts clients, counts them, and ends them in bounded time.

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{self, Shutdown};

use crate::connection;
use crate::proto::Error;
use crate::socket::Socket;

/// Clients at a time; the connections of more are closed at once.
pub const CLIENTS: usize = 256;

/// Bytes of stack of a thread that serves: as the hosted kernel needs, and some more.
const STACK: usize = 1 << 20;

/// The description of an export for clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Description {
    /// The size in bytes.
    pub size: u64,
    /// `true` if the export takes writes.
    pub writable: bool,
    /// Bytes of the least request that costs no more than itself.
    pub least: u32,
    /// Bytes of the least request that is fast.
    pub best: u32,
}

/// A range of a device in one state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The length in bytes.
    pub length: u64,
    /// `true` if nothing is allocated for the range.
    pub hole: bool,
    /// `true` if the range is known to read as zeroes.
    pub zero: bool,
}

/// Why an export cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// `true` if there is no export of that name; otherwise it exists, and the text says why it is refused.
    pub unknown: bool,
    /// A text for the person at the client.
    pub text: String,
}

/// The exports of a server.
pub trait Exports: Send + Sync + 'static {
    /// An export, as one connection uses it.
    type Device: Device;

    /// The exports' names.
    ///
    /// # Errors
    /// When they cannot be told now.
    fn names(&self) -> Result<Vec<String>, Refusal>;

    /// The description of an export, as far as it can be told without opening it.
    ///
    /// # Errors
    /// [`Refusal`]
    fn describe(&self, name: &str) -> Result<Description, Refusal>;

    /// Opens an export. An empty name is the default export's.
    ///
    /// # Errors
    /// [`Refusal`]
    fn open(&self, name: &str) -> Result<(Self::Device, Description), Refusal>;

    /// Reports an error that no client can be told; `text` is a line without its end.
    fn complain(&self, text: &str);
}

/// An open export. Ranges are within the size that it was described with, and not empty.
pub trait Device: Send + Sync + 'static {
    /// Reads `buf.len()` bytes from byte `offset` on.
    ///
    /// # Errors
    /// Those of the device.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Error>;

    /// Writes `buf` from byte `offset` on; with `fua` to the medium itself.
    ///
    /// # Errors
    /// Those of the device.
    fn write(&self, buf: &[u8], offset: u64, fua: bool) -> Result<(), Error>;

    /// Brings to the medium all that was written through any connection.
    ///
    /// # Errors
    /// Those of the device.
    fn flush(&self) -> Result<(), Error>;

    /// Says that a range need not be kept.
    ///
    /// # Errors
    /// Those of the device.
    fn trim(&self, offset: u64, length: u64) -> Result<(), Error>;

    /// Makes a range read as zeroes without writing them: all of it, or none.
    ///
    /// # Errors
    /// [`Error::NotSup`] where zeroes must be written; those of the device.
    fn punch(&self, offset: u64, length: u64) -> Result<(), Error>;

    /// The allocation of a range, from its beginning on, for at least its first byte; at most `count` extents, and
    /// not beyond the range.
    ///
    /// # Errors
    /// Those of the device.
    fn extents(&self, offset: u64, length: u64, count: usize) -> Result<Vec<Extent>, Error>;
}

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// A Unix socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

impl Listener {
    fn accept(&self) -> io::Result<OwnedFd> {
        Ok(match self {
            Listener::Unix(listener) => listener.accept()?.0.into(),
            Listener::Tcp(listener) => listener.accept()?.0.into(),
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Unix(listener) => listener.as_fd(),
            Listener::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// The threads and sockets of a server. Its owner ends it: [`Server::stop_reading`], then
/// [`Server::wait`], then [`Server::cut`] if that took too long, then [`Server::join`].
pub struct Server {
    listeners: Vec<Arc<Listener>>,
    threads: Arc<Threads>,
}

/// All threads, and the sockets that they serve.
pub(crate) struct Threads {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopping: bool,
    /// Connections that are open.
    clients: Vec<Weak<Socket>>,
    handles: Vec<JoinHandle<()>>,
    /// Threads that have not ended.
    running: usize,
}

impl Threads {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Starts a thread.
    ///
    /// # Errors
    /// The system's, when there can be no more.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        name: &str,
        f: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let threads = self.clone();
        // Held until the handle is noted: the thread may be quick.
        let mut state = self.state();
        let spawned =
            thread::Builder::new().name(name.into()).stack_size(STACK).spawn(move || {
                f();
                let mut state = threads.state();
                state.running = state.running.saturating_sub(1);
                drop(state);
                threads.changed.notify_all();
            })?;
        state.handles.retain(|handle| !handle.is_finished());
        state.handles.push(spawned);
        state.running = state.running.saturating_add(1);
        Ok(())
    }

    /// Records a client. `false` if there are too many, or none are accepted any more.
    fn admit(&self, socket: &Arc<Socket>) -> bool {
        let mut state = self.state();
        state.clients.retain(|client| client.strong_count() > 0);
        let room = !state.stopping && state.clients.len() < CLIENTS;
        if room {
            state.clients.push(Arc::downgrade(socket));
        }
        room
    }

    fn each_client(&self, f: impl Fn(&Socket)) {
        let clients = self.state().clients.clone();
        clients.iter().filter_map(Weak::upgrade).for_each(|socket| f(&socket));
    }
}

impl Server {
    /// Serves the clients that connect to these sockets.
    ///
    /// # Errors
    /// The system's, when there can be no threads.
    pub fn start<E: Exports>(listeners: Vec<Listener>, exports: Arc<E>) -> io::Result<Server> {
        let threads = Arc::new(Threads { state: Mutex::default(), changed: Condvar::new() });
        let listeners: Vec<_> = listeners.into_iter().map(Arc::new).collect();
        let server = Server { listeners, threads };
        for listener in &server.listeners {
            let (listener, exports) = (listener.clone(), exports.clone());
            let threads = server.threads.clone();
            let accepts = move || accept(&listener, &exports, &threads);
            server.threads.spawn("nbd-accept", accepts)?;
        }
        Ok(server)
    }

    /// Accepts no more clients and reads no more requests. What clients have sent already is still
    /// carried out and answered.
    pub fn stop_reading(&self) {
        self.threads.state().stopping = true;
        for listener in &self.listeners {
            // Those who connect now are refused, and accept(2) returns.
            let _ = net::shutdown(listener, Shutdown::Both);
        }
        self.threads.each_client(Socket::stop_receiving);
    }

    /// Waits until all clients have been served; `false` if that took longer.
    pub fn wait(&self, limit: Duration) -> bool {
        let end = Instant::now().checked_add(limit);
        let mut state = self.threads.state();
        while state.running > 0 {
            let left = end.map_or(limit, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            let changed = self.threads.changed.wait_timeout(state, left);
            state = changed.unwrap_or_else(|e| e.into_inner()).0;
        }
        true
    }

    /// Ends all connections: answers that clients have not taken are lost.
    pub fn cut(&self) {
        self.threads.each_client(Socket::cut);
    }

    /// Waits for all threads, after [`Server::wait`] said that they have ended.
    pub fn join(self) {
        let handles = std::mem::take(&mut self.threads.state().handles);
        for handle in handles {
            // One that panicked has nothing more to say.
            let _ = handle.join();
        }
    }
}

fn accept<E: Exports>(listener: &Listener, exports: &Arc<E>, threads: &Arc<Threads>) {
    let mut crowded = false;
    loop {
        let accepted = listener.accept();
        if threads.state().stopping {
            return;
        }
        let Ok(fd) = accepted else {
            // Out of descriptors or memory: clients that go make room, in their own time.
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let socket = Arc::new(Socket::from(fd));
        if !threads.admit(&socket) {
            if !std::mem::replace(&mut crowded, true) {
                exports.complain(&format!("there are {CLIENTS} clients: no more until one goes"));
            }
            continue;
        }
        crowded = false;
        socket.prepare();
        let (theirs, own) = (exports.clone(), threads.clone());
        let spawned = threads.spawn("nbd", move || connection::serve(socket, &theirs, &own));
        if let Err(error) = spawned {
            exports.complain(&format!("no thread for a client: {error}"));
        }
    }
}
