// SPDX-License-Identifier: BSD-2-Clause

//! The server: accepts clients, counts them, and ends them in bounded time.

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::net::{self, Shutdown};

use crate::connection;
use crate::export::Exports;
use crate::socket::Socket;
use crate::threads::{CLIENTS, Threads};

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

impl Server {
    /// Serves the clients that connect to these sockets.
    ///
    /// # Errors
    /// The system's, when there can be no threads.
    pub fn start<E: Exports>(listeners: Vec<Listener>, exports: Arc<E>) -> io::Result<Server> {
        let threads = Arc::new(Threads::default());
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
        self.threads.stop();
        for listener in &self.listeners {
            // Those who connect now are refused, and accept(2) returns.
            let _ = net::shutdown(listener, Shutdown::Both);
        }
        self.threads.each_client(Socket::stop_receiving);
    }

    /// Waits until all clients have been served; `false` if that took longer.
    pub fn wait(&self, limit: Duration) -> bool {
        self.threads.wait(limit)
    }

    /// Ends all connections: answers that clients have not taken are lost.
    pub fn cut(&self) {
        self.threads.each_client(Socket::cut);
    }

    /// Waits for all threads, after [`Server::wait`] said that they have ended.
    pub fn join(self) {
        self.threads.join();
    }
}

fn accept<E: Exports>(listener: &Listener, exports: &Arc<E>, threads: &Arc<Threads>) {
    let mut crowded = false;
    loop {
        let accepted = listener.accept();
        if threads.are_stopping() {
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
