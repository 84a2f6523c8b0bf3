// SPDX-License-Identifier: BSD-2-Clause

//! The control socket: `dm_host::wire` on one side, the control node on the other.
//!
//! A connection has two threads. One reads requests, so that it notices when the client goes; the
//! other carries them out, and may sleep in the kernel as long as it likes (`wait`). When the
//! client goes, requests in progress for it are interrupted, as ^C would interrupt it in NetBSD.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dm_host::wire::{Kind, Reply, Request, WireError};
use dm_host::{Errno, File, LwpId, reasons};

use super::kernel::Kernel;
use crate::say::say;

/// Connections at a time. As many may wait in the kernel as it lets wait, and there is still room
/// for others: where there is none, the connection that has been idle longest is closed.
const CONNECTIONS: usize = dm_core::limits::WAITERS + 128;

/// The control server.
pub struct Control {
    shared: Arc<Shared>,
    listener: Option<(UnixListener, JoinHandle<()>)>,
}

struct Shared {
    kernel: Arc<Kernel>,
    state: Mutex<State>,
    /// The function that `shutdown` calls.
    end: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    stopping: bool,
    /// The connections that are open; those that have been idle longest come first.
    open: Vec<Open>,
    threads: Vec<JoinHandle<()>>,
    next: u64,
}

/// A connection, as others see it.
struct Open {
    number: u64,
    stream: Arc<UnixStream>,
    /// Requests that have come and are not answered.
    pending: Arc<AtomicUsize>,
}

impl Open {
    /// `true` if a request has come that is not answered, whether or not a thread has come to read it
    /// yet.
    fn is_busy(&self) -> bool {
        let mut entry =
            libc::pollfd { fd: self.stream.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, whose descriptor is open as long as the stream is there.
        let unread = unsafe { libc::poll(&raw mut entry, 1, 0) } > 0;
        unread || self.pending.load(Ordering::Relaxed) > 0
    }
}

impl Shared {
    /// Records that a connection was used: others are closed before it.
    fn used(&self, number: u64) {
        let mut state = self.state();
        if let Some(at) = state.open.iter().position(|open| open.number == number) {
            state.open.get_mut(at..).unwrap_or_default().rotate_left(1);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Control {
    /// Listens at a socket that is bound; `end` shall end the server.
    ///
    /// # Errors
    /// Those of threads and sockets.
    pub fn start(
        listener: UnixListener,
        kernel: Arc<Kernel>,
        end: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Control> {
        let shared = Arc::new(Shared { kernel, state: Mutex::default(), end: Box::new(end) });
        let (own, theirs) = (shared.clone(), listener.try_clone()?);
        let thread =
            thread::Builder::new().name("control".into()).spawn(move || accept(&theirs, &own))?;
        Ok(Control { shared, listener: Some((listener, thread)) })
    }

    /// Ends all connections, and waits until none is left.
    pub fn stop(&mut self) {
        let threads = {
            let mut state = self.shared.state();
            state.stopping = true;
            for open in &state.open {
                // One that is gone already cannot be shut, and need not be.
                let _ = open.stream.shutdown(Shutdown::Both);
            }
            std::mem::take(&mut state.threads)
        };
        if let Some((listener, thread)) = self.listener.take() {
            wake(&listener);
            // A thread that panicked has ended the process: panics abort.
            let _ = thread.join();
        }
        for thread in threads {
            let _ = thread.join();
        }
    }
}

/// Makes accept(2) return.
fn wake(listener: &UnixListener) {
    // SAFETY: shutdown(2) on a socket that `listener` keeps open.
    unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let mut state = shared.state();
        if state.stopping {
            return;
        }
        state.threads.retain(|thread| !thread.is_finished());
        let Ok(stream) = stream else {
            drop(state);
            // Out of descriptors or memory: clients that go make room.
            thread::yield_now();
            continue;
        };
        if state.open.len() >= CONNECTIONS {
            let idle = |open: &Open| !open.is_busy();
            let Some(at) = state.open.iter().position(idle) else { continue };
            let _ = state.open.remove(at).stream.shutdown(Shutdown::Both);
        }
        let number = state.next;
        state.next = number.wrapping_add(1);
        let stream = Arc::new(stream);
        let connection = Connection {
            number,
            stream: stream.clone(),
            pending: Arc::default(),
            shared: shared.clone(),
        };
        let pending = connection.pending.clone();
        state.open.push(Open { number, stream, pending });
        let own = shared.clone();
        let spawned = thread::Builder::new().name("control-read".into()).spawn(move || {
            serve(connection);
            own.state().open.retain(|open| open.number != number);
        });
        match spawned {
            Ok(thread) => state.threads.push(thread),
            Err(_) => state.open.retain(|open| open.number != number),
        }
    }
}

/// A connection, as its two threads see it.
#[derive(Clone)]
struct Connection {
    number: u64,
    stream: Arc<UnixStream>,
    pending: Arc<AtomicUsize>,
    shared: Arc<Shared>,
}

/// Serves one connection until its client goes or sends a malformed request, and then carries out the requests that
/// undo what the client had begun.
fn serve(connection: Connection) {
    // One request may wait while another is carried out; a client that sends more has to wait.
    let (to, from) = mpsc::sync_channel::<Request>(1);
    let (name, worker_is) = mpsc::sync_channel::<LwpId>(1);
    let kernel = connection.shared.kernel.clone();
    let mut stream = &*connection.stream;
    let own = connection.clone();
    let worker = thread::Builder::new().name("control-work".into()).spawn(move || {
        match name.send(own.shared.kernel.current()) {
            Ok(()) => work(&own, &from),
            Err(_) => None,
        }
    });
    let Ok(worker) = worker else { return };
    let Ok(lwp) = worker_is.recv() else { return };
    let error = loop {
        match Request::read(&mut stream) {
            Ok(request) => {
                connection.pending.fetch_add(1, Ordering::Relaxed);
                connection.shared.used(connection.number);
                if to.send(request).is_err() {
                    break WireError::Closed;
                }
            }
            Err(error) => break error,
        }
    };
    drop(to);
    let malformed = match &error {
        WireError::Malformed(why) => Some(*why),
        _ => None,
    };
    // A signal ends only the system call in progress, and one may be about to begin.
    while malformed.is_none() && !worker.is_finished() {
        kernel.interrupt(lwp);
        thread::sleep(Duration::from_millis(5));
    }
    // A thread that panicked has ended the process: panics abort. It has given its control node
    // back, and with it the lines of a table that is not whole.
    if let Ok(Some(undo)) = worker.join() {
        let undone = kernel.control().map_err(plain).and_then(|node| kernel.ioctl(&node, &undo));
        // Someone else may have removed the device.
        if let Err((errno, why)) = undone
            && errno != Errno::ENXIO
        {
            say(&format!("undoing what a client began: {} {why}", errno.text()));
        }
    }
    if let Some(why) = malformed {
        // Before the answer to this frame came those to the frames before it.
        let reply = Reply { errno: Errno::EINVAL.0, body: why.as_bytes().to_vec() };
        // The client may be gone; then nobody misses the answer.
        let _ = reply.write(&mut stream);
        let _ = stream.shutdown(Shutdown::Write);
        drain(stream);
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn plain(errno: Errno) -> (Errno, String) {
    (errno, String::new())
}

/// Reads a little of the data that a client still sends: closing a socket with unread data would take the answer away
/// from it.
fn drain(mut stream: &UnixStream) {
    let mut rest = [0; 4096];
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    for _ in 0..1024 {
        if !matches!(stream.read(&mut rest), Ok(n) if n > 0) {
            return;
        }
    }
}

/// Executes requests as one process of the kernel's. The answer is the request that undoes what was begun.
fn work(connection: &Connection, from: &Receiver<Request>) -> Option<String> {
    let shared = &connection.shared;
    // Open as long as the connection is, as a program has it.
    let mut control = None;
    let mut undo = None;
    let mut done = false;
    while let Ok(request) = from.recv() {
        let reply = match (request.kind, String::from_utf8(request.body)) {
            (Kind::AtEnd, Ok(body)) => match done {
                true => {
                    undo = Some(body).filter(|body| !body.is_empty());
                    Reply { errno: 0, body: Vec::new() }
                }
                false => Reply { errno: Errno::ECANCELED.0, body: Vec::new() },
            },
            (kind, Ok(text)) => answer(kind, &text, &shared.kernel, &mut control),
            (_, Err(_)) => {
                let body = b"the request is not UTF-8".to_vec();
                Reply { errno: Errno::EINVAL.0, body }
            }
        };
        done = reply.errno == 0 && !reasons::is_failure(&reply.body);
        let sent = reply.write(&mut &*connection.stream).is_ok();
        connection.pending.fetch_sub(1, Ordering::Relaxed);
        if request.kind == Kind::Shutdown && reply.errno == 0 {
            (shared.end)();
        }
        if !sent {
            break;
        }
    }
    undo
}

fn answer(kind: Kind, text: &str, kernel: &Kernel, control: &mut Option<File>) -> Reply {
    let result = match kind {
        Kind::Ioctl => match control.take().map_or_else(|| kernel.control(), Ok) {
            Ok(node) => kernel.ioctl(control.insert(node), text),
            Err(errno) => Err(plain(errno)),
        },
        Kind::Sysctl => kernel.sysctl(text),
        Kind::Disks => Ok(kernel.disks()),
        Kind::Shutdown => kernel.may_end(),
        Kind::Statistics => kernel.statistics().map_err(plain),
        // Not for the kernel.
        Kind::AtEnd => Ok(String::new()),
        Kind::Linux | Kind::LinuxEvents => {
            Err((Errno::EOPNOTSUPP, "`dm-host linux` answers Linux's programs".into()))
        }
    };
    match result {
        Ok(body) => Reply { errno: 0, body: body.into_bytes() },
        Err((errno, said)) => Reply { errno: errno.0, body: said.into_bytes() },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A client does not lose its place to others because its thread has not come to run yet.
    #[test]
    fn a_connection_with_a_request_that_nobody_has_read_is_not_idle() {
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        let open = Open { number: 0, stream: Arc::new(ours), pending: Arc::default() };
        assert!(!open.is_busy());
        theirs.write_all(b"r").expect("it takes it");
        assert!(open.is_busy());
        (&*open.stream).read_exact(&mut [0]).expect("a byte");
        assert!(!open.is_busy());
        open.pending.fetch_add(1, Ordering::Relaxed);
        assert!(open.is_busy());
    }
}
