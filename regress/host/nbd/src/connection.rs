// SPDX-License-Identifier: BSD-2-Clause

//! A connection after its handshake: its threads, one of which reads.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, TryLockError};

use crate::execute::{Buffer, execute};
use crate::export::{Device, Exports};
use crate::haggle::haggle;
use crate::handoff::{Successors, about_to_block, is_reader, with_place};
use crate::proto::{RawRequest, Terms};
use crate::reader::Reader;
use crate::socket::Socket;
use crate::threads::Threads;

/// Threads of a connection, and so its most requests in flight.
pub const WORKERS: usize = 16;

/// The most bytes of replies that are kept.
const KEPT: usize = 1024;

/// The state that a connection's threads share.
pub(crate) struct Connection<D> {
    pub(crate) device: D,
    pub(crate) terms: Terms,
    socket: Arc<Socket>,
    /// Held while a reply, or a chunk of one, is sent. Its value is the replies that are to be sent with the next
    /// one. A thread that waits keeps none.
    sending: Mutex<Vec<u8>>,
    /// Held by the one request that uses a large buffer.
    pub(crate) large: Mutex<()>,
    state: Mutex<State>,
    /// Woken when the place as the reader is free, and at the end.
    wake: Condvar,
    threads: Arc<Threads>,
}

struct State {
    /// The place as the reader, while no thread has it.
    place: Option<Box<Reader>>,
    ended: bool,
    workers: usize,
    /// Workers that wait for the place.
    idle: usize,
}

/// Serves a client, from the handshake on; in a thread of its own.
pub(crate) fn serve<E: Exports>(socket: Arc<Socket>, exports: &Arc<E>, threads: &Arc<Threads>) {
    // However the handshake fails, the client is gone or will be.
    let Ok(Some((device, terms))) = haggle(&socket, exports.as_ref()) else { return };
    let connection = Arc::new(Connection {
        device,
        terms,
        sending: Mutex::default(),
        large: Mutex::new(()),
        state: Mutex::new(State { place: None, ended: false, workers: 1, idle: 0 }),
        wake: Condvar::new(),
        threads: threads.clone(),
        socket: socket.clone(),
    });
    let reader = Box::new(Reader::new(socket));
    work(connection, Some(reader));
}

fn work<D: Device>(connection: Arc<Connection<D>>, mut place: Option<Box<Reader>>) {
    let mut buffer = Buffer::default();
    let own: Arc<dyn Successors> = connection.clone();
    while let Some(mut reader) = place.take().or_else(|| connection.wait_for_place()) {
        if !reader.has_request() {
            connection.send_kept();
        }
        match reader.request() {
            Ok(Some(request)) => {
                place = connection.carry_out(&own, reader, &request, &mut buffer);
            }
            // The socket's reason for its end is of no use.
            Ok(None) | Err(_) => connection.end(),
        }
    }
    connection.send_kept();
    connection.state().workers -= 1;
}

impl<D: Device> Successors for Connection<D> {
    fn take_over(self: Arc<Self>, reader: Box<Reader>) {
        self.send_kept();
        let spawn = {
            let mut state = self.state();
            state.place = Some(reader);
            let spawn = state.idle == 0 && state.workers < WORKERS && !state.ended;
            state.workers += usize::from(spawn);
            spawn
        };
        if !spawn {
            self.wake.notify_one();
            return;
        }
        let own = self.clone();
        if self.threads.spawn("nbd-worker", move || work(own, None)).is_err() {
            // The workers that there are take the place when they have time.
            self.state().workers -= 1;
        }
    }
}

impl<D: Device> Connection<D> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits for the place as the reader; `None` at the end.
    fn wait_for_place(&self) -> Option<Box<Reader>> {
        let mut state = self.state();
        loop {
            if state.ended {
                return None;
            }
            if let Some(reader) = state.place.take() {
                return Some(reader);
            }
            state.idle += 1;
            state = self.wake.wait(state).unwrap_or_else(|e| e.into_inner());
            state.idle -= 1;
        }
    }

    /// Stops reading. Replies in flight are still sent.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.wake.notify_all();
    }

    /// Ends the connection of a client that cannot be answered any more.
    pub(crate) fn give_up(&self) {
        self.socket.cut();
        self.end();
    }

    /// Sends a reply, or a chunk of one, after those that were kept.
    pub(crate) fn send(&self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let mut kept = match self.sending.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                about_to_block();
                self.sending.lock().unwrap_or_else(|e| e.into_inner())
            }
        };
        if kept.is_empty() {
            return self.socket.send(head, body);
        }
        kept.extend(head);
        let sent = self.socket.send(&kept, body);
        kept.clear();
        sent
    }

    /// Keeps a reply, to be sent with the next one, which the caller is about to make; unless the
    /// caller is not the reader any more: then it is another's to say when there is nothing more.
    pub(crate) fn keep(&self, reply: &[u8]) -> io::Result<()> {
        if !is_reader() {
            return self.send(reply, &[]);
        }
        match self.sending.try_lock() {
            Ok(mut kept) if kept.len() < KEPT => {
                kept.extend(reply);
                Ok(())
            }
            Ok(kept) => {
                drop(kept);
                self.send(reply, &[])
            }
            Err(_) => self.send(reply, &[]),
        }
    }

    /// Sends the replies that were kept. A thread that sends meanwhile does it in the caller's place.
    fn send_kept(&self) {
        let Ok(mut kept) = self.sending.try_lock() else { return };
        if !kept.is_empty() {
            let sent = self.socket.send(&kept, &[]);
            kept.clear();
            drop(kept);
            if sent.is_err() {
                self.give_up();
            }
        }
    }

    /// Carries a request out; gives the place back if it is still the caller's.
    fn carry_out(
        &self,
        own: &Arc<dyn Successors>,
        reader: Box<Reader>,
        request: &RawRequest,
        buffer: &mut Buffer,
    ) -> Option<Box<Reader>> {
        let (reader, prepared) = execute(self, reader, request, buffer);
        let (Some(reader), Some(mut job)) = (reader, prepared) else {
            return None;
        };
        let place = with_place(own.clone(), reader, || job.run(self, buffer));
        if self.state().ended { None } else { place }
    }
}
