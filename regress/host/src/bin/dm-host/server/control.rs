//! The control socket: `dm_host::wire` on one side, the control node on the other.
//!
//! A connection has two threads. One reads requests, so that it notices when the client goes; the
//! other carries them out, and may sleep in the kernel as long as it likes (`wait`). When the
//! client goes, what is under way for it is interrupted, as ^C would interrupt it in NetBSD.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dm_host::wire::{Kind, Reply, Request, WireError};
use dm_host::{Errno, LwpId};

use super::kernel::Kernel;

/// Connections at a time; more are closed at once.
const CONNECTIONS: usize = 64;

/// The control server.
pub struct Control {
    shared: Arc<Shared>,
    listener: Option<(UnixListener, JoinHandle<()>)>,
}

struct Shared {
    kernel: Arc<Kernel>,
    state: Mutex<State>,
    /// What `shutdown` does.
    end: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    stopping: bool,
    /// The connections that are open, by number.
    open: Vec<(u64, UnixStream)>,
    threads: Vec<JoinHandle<()>>,
    next: u64,
}

impl Shared {
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
            for (_, stream) in &state.open {
                // One that is gone already cannot be shut, and need not be.
                let _ = stream.shutdown(Shutdown::Both);
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
    use std::os::fd::AsRawFd;
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
            continue;
        }
        let number = state.next;
        state.next = number.wrapping_add(1);
        let Ok(second) = stream.try_clone() else { continue };
        state.open.push((number, second));
        let own = shared.clone();
        let spawned = thread::Builder::new().name("control-read".into()).spawn(move || {
            serve(stream, &own);
            own.state().open.retain(|(other, _)| *other != number);
        });
        match spawned {
            Ok(thread) => state.threads.push(thread),
            Err(_) => state.open.retain(|(other, _)| *other != number),
        }
    }
}

/// Serves one connection until its client goes or says something malformed.
fn serve(mut stream: UnixStream, shared: &Arc<Shared>) {
    // One request may wait while another is carried out; a client that sends more has to wait.
    let (to, from) = mpsc::sync_channel::<Request>(1);
    let (name, worker_is) = mpsc::sync_channel::<LwpId>(1);
    let Ok(answers) = stream.try_clone() else { return };
    let own = shared.clone();
    let worker = thread::Builder::new().name("control-work".into()).spawn(move || {
        if name.send(own.kernel.current()).is_ok() {
            work(answers, &from, &own);
        }
    });
    let Ok(worker) = worker else { return };
    let Ok(lwp) = worker_is.recv() else { return };
    let error = loop {
        match Request::read(&mut stream) {
            Ok(request) => {
                if to.send(request).is_err() {
                    break WireError::Closed;
                }
            }
            Err(error) => break error,
        }
    };
    drop(to);
    if let WireError::Malformed(why) = &error {
        // Before the answer to this frame come those to the frames before it.
        let _ = worker.join();
        let reply = Reply { errno: Errno::EINVAL.0, body: why.as_bytes().to_vec() };
        // The client may be gone; then nobody misses the answer.
        let _ = reply.write(&mut stream);
        let _ = stream.shutdown(Shutdown::Write);
        drain(&mut stream);
    } else {
        // A signal ends only the system call that is under way, and one may be about to begin.
        while !worker.is_finished() {
            shared.kernel.interrupt(lwp);
            thread::sleep(Duration::from_millis(5));
        }
        let _ = worker.join();
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// Takes a little of what a client still sends: closing a socket with unread data would take the
/// answer away from it.
fn drain(stream: &mut UnixStream) {
    let mut rest = [0; 4096];
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    for _ in 0..1024 {
        if !matches!(stream.read(&mut rest), Ok(n) if n > 0) {
            return;
        }
    }
}

fn work(mut stream: UnixStream, from: &Receiver<Request>, shared: &Shared) {
    while let Ok(request) = from.recv() {
        let reply = answer(&request, &shared.kernel);
        let sent = reply.write(&mut stream).is_ok();
        if request.kind == Kind::Shutdown && reply.errno == 0 {
            (shared.end)();
        }
        if !sent {
            return;
        }
    }
}

fn answer(request: &Request, kernel: &Kernel) -> Reply {
    let Ok(text) = str::from_utf8(&request.body) else {
        return Reply { errno: Errno::EINVAL.0, body: b"the request is not UTF-8".to_vec() };
    };
    let result = match request.kind {
        Kind::Ioctl => kernel.ioctl(text),
        Kind::Sysctl => kernel.sysctl(text),
        Kind::Disks => Ok(kernel.disks()),
        Kind::Shutdown => kernel.may_end(),
    };
    match result {
        Ok(body) => Reply { errno: 0, body: body.into_bytes() },
        Err((errno, said)) => Reply { errno: errno.0, body: said.into_bytes() },
    }
}
