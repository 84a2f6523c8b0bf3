// SPDX-License-Identifier: BSD-2-Clause

//! The threads of a server, and its clients.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::socket::Socket;

/// Clients at a time; the connections of more are closed at once.
pub const CLIENTS: usize = 256;

/// Bytes of stack of a thread that serves: as the hosted kernel needs, and some more.
const STACK: usize = 1 << 20;

/// All threads, and the sockets that they serve.
#[derive(Default)]
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
    pub(crate) fn admit(&self, socket: &Arc<Socket>) -> bool {
        let mut state = self.state();
        state.clients.retain(|client| client.strong_count() > 0);
        let room = !state.stopping && state.clients.len() < CLIENTS;
        if room {
            state.clients.push(Arc::downgrade(socket));
        }
        room
    }

    /// Calls `f` with the socket of each client that is there.
    pub(crate) fn each_client(&self, f: impl Fn(&Socket)) {
        let clients = self.state().clients.clone();
        clients.iter().filter_map(Weak::upgrade).for_each(|socket| f(&socket));
    }

    /// Has no more clients admitted.
    pub(crate) fn stop(&self) {
        self.state().stopping = true;
    }

    /// `true` if no more clients are admitted.
    pub(crate) fn are_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Waits until all threads have ended; `false` if that took longer.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let end = Instant::now().checked_add(limit);
        let mut state = self.state();
        while state.running > 0 {
            let left = end.map_or(limit, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            let changed = self.changed.wait_timeout(state, left);
            state = changed.unwrap_or_else(|e| e.into_inner()).0;
        }
        true
    }

    /// Waits for all threads.
    pub(crate) fn join(&self) {
        let handles = std::mem::take(&mut self.state().handles);
        for handle in handles {
            // One that panicked has nothing more to say.
            let _ = handle.join();
        }
    }
}
