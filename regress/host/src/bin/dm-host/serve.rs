// SPDX-License-Identifier: BSD-2-Clause

//! `dm-host serve`: opens the disks, makes the sockets, boots the kernel, and shuts everything down.

use std::fs::File;
use std::io::{self, Write};
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, SystemTime};
use std::{fs, process, thread};

use dm_nbd::Listener;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::cli::Serve;
use crate::disk::{Disk, From};
use crate::failure::Failure;
use crate::image::{self, Opened};
use crate::say::say;
use crate::server::{Boot, Server};
use crate::sockets;

/// The line that is printed at the end.
pub const ENDED: &str = "flushed and ended";

/// The time that clients have to take their last answers.
const GRACE: Duration = Duration::from_secs(5);

/// The time that the shutdown may take after that: the disks are flushed then.
const LAST: Duration = Duration::from_secs(60);

/// Serves until a signal, or `ctl shutdown`.
///
/// # Errors
/// [`Failure::Usage`] when it could not start, [`Failure::Broken`] when it did not end well.
pub fn run(serve: &Serve) -> Result<String, Failure> {
    // Before there is anything that a signal could leave behind.
    let (send, told_to_end) = mpsc::channel();
    listen_for_signals(send.clone()).map_err(|e| Failure::Usage(format!("signals: {e}")))?;
    let (server, made) = start(serve, send).map_err(Failure::Usage)?;
    // The channel stays: the server has an end of it.
    let _ = told_to_end.recv();
    end(server, made, &told_to_end)?;
    say(ENDED);
    Ok(String::new())
}

fn start(serve: &Serve, end: Sender<()>) -> Result<(Server, Made), String> {
    let disks = Disk::parse_all(&serve.disks)?;
    let opened = disks.iter().map(image::open).collect::<Result<Vec<Opened>, _>>()?;
    if serve.control.is_none() || serve.nbd.is_none() {
        sockets::make_folder()?;
    }
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let control = absolute(serve.control.clone().unwrap_or_else(sockets::default_control))?;
    let nbd = absolute(serve.nbd.clone().unwrap_or_else(sockets::default_nbd))?;
    let tcp = serve.tcp.as_deref().map(tcp).transpose()?;
    let control_socket = sockets::listen(&control)?;
    let mut made = Made(vec![Socket::at(&control)]);
    let nbd_socket = sockets::listen(&nbd)?;
    made.0.push(Socket::at(&nbd));

    let mut told = Vec::new();
    for (disk, opened) in disks.iter().zip(&opened) {
        opened.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
        let place = match &disk.from {
            From::File(path) => path.display().to_string(),
            _ => opened.place.clone(),
        };
        told.push(format!("disk:    /dev/{} is {place}", disk.name));
    }
    told.push(format!("NBD:     {}", dm_nbd::uri::unix("NAME", &nbd)));
    let mut listeners = vec![Listener::Unix(nbd_socket)];
    if let Some(tcp) = tcp {
        let at = tcp.local_addr().map_err(|error| format!("--tcp: {error}"))?;
        told.push(format!("NBD:     nbd://{at}/NAME"));
        if !at.ip().is_loopback() {
            say(&format!("warning: whoever reaches {at} can read and write the devices"));
        }
        listeners.push(Listener::Tcp(tcp));
    }
    told.push(format!("control: {}", control.display()));
    told.push("Ctrl-C ends it.".into());
    let disks = disks.into_iter().zip(opened).collect();
    let boot = Boot { as_user: serve.as_user, quiet: false };
    let server = Server::start(disks, listeners, control_socket, boot, end)?;
    tell(&told);
    Ok((server, made))
}

/// Prints the lines that tell where the server listens. A standard output that takes nothing is no reason not to
/// serve.
fn tell(lines: &[String]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    // Past the buffer of `io::stdout`, which would try again at the end.
    let out = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    match out.and_then(|mut out| out.write_all(text.as_bytes())) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format!("warning: standard output: {error}"));
        }
        _ => {}
    }
}

/// Ends the server, in bounded time.
///
/// # Errors
/// Leaks, as a [`Failure::Refused`].
pub fn end(server: Server, made: Made, told_to_end: &Receiver<()>) -> Result<(), Failure> {
    let at_last = Watchdog::start(made.0.clone());
    server.stop_reading();
    // A second signal: whoever has not taken his answers gets none.
    let impatient = || told_to_end.try_recv().is_ok();
    if !server.wait(GRACE, impatient) {
        server.cut();
    }
    let left = server.shut_down();
    drop(made);
    at_last.stand_down();
    if left.is_empty() {
        return Ok(());
    }
    Err(Failure::Refused {
        line: None,
        what: "left over at shutdown, which is a bug".into(),
        errno: dm_host::Errno::EBUSY,
        said: left.join("\n"),
        hint: "",
    })
}

/// Sockets to be removed at the end.
pub struct Made(pub Vec<Socket>);

impl Drop for Made {
    fn drop(&mut self) {
        self.0.iter().for_each(Socket::remove);
    }
}

/// A socket that this process has made.
#[derive(Clone)]
pub struct Socket {
    path: PathBuf,
    /// The inode, and when it came: numbers of inodes are given again.
    made: Option<(u64, Option<SystemTime>)>,
}

impl Socket {
    /// The socket that was just made at a path.
    pub fn at(path: &Path) -> Socket {
        Socket { path: path.into(), made: Socket::made(path) }
    }

    fn made(path: &Path) -> Option<(u64, Option<SystemTime>)> {
        let found = fs::symlink_metadata(path).ok()?;
        Some((found.ino(), found.created().ok()))
    }

    /// Removes the socket. Nobody answers there any more: another server may have put its own at the path.
    fn remove(&self) {
        if Socket::made(&self.path) == self.made {
            // It may have gone meanwhile.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Ends the process when its end takes too long: a disk's file system may hang.
struct Watchdog(Sender<()>);

impl Watchdog {
    fn start(sockets: Vec<Socket>) -> Watchdog {
        let (send, receive) = mpsc::channel::<()>();
        let waits = move || {
            if receive.recv_timeout(GRACE + LAST) == Err(mpsc::RecvTimeoutError::Timeout) {
                say("a disk does not answer: ended without flushing it");
                sockets.iter().for_each(Socket::remove);
                process::exit(1);
            }
        };
        // Without the thread the end may take as long as the disk does.
        let _ = thread::Builder::new().name("watchdog".into()).spawn(waits);
        Watchdog(send)
    }

    fn stand_down(self) {
        // The thread may be missing.
        let _ = self.0.send(());
    }
}

/// Listens on TCP; loopback unless an address is given.
fn tcp(at: &str) -> Result<TcpListener, String> {
    let at = if at.contains(':') { at.to_string() } else { format!("127.0.0.1:{at}") };
    let wrong = |error: io::Error| format!("--tcp {at}: {error}");
    let addresses: Vec<_> = at.to_socket_addrs().map_err(wrong)?.collect();
    TcpListener::bind(addresses.as_slice()).map_err(wrong)
}

/// Has signals sent to a channel. One that was ignored when the program started stays so: that is
/// how nohup(1) works.
///
/// # Errors
/// Those of threads and signals.
pub fn listen_for_signals(to: Sender<()>) -> io::Result<()> {
    let wanted: Vec<_> =
        [SIGINT, SIGHUP, SIGQUIT].into_iter().filter(|n| !is_ignored(*n)).collect();
    let mut signals = signal_hook::iterator::Signals::new(wanted.iter().chain(&[SIGTERM]))?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in signals.forever() {
            if to.send(()).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: sigaction(2) stores the present action, for which zeros are valid, and changes none.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut now) == 0
            && now.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that ends takes a while, and one that begins meanwhile replaces what nobody answers at.
    #[test]
    fn the_end_leaves_a_socket_that_another_server_has_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let first = sockets::listen(&path).expect("it listens");
        let ends = Made(vec![Socket::at(&path)]);
        drop(first);
        let second = sockets::listen(&path).expect("nobody answers there");
        let begins = Made(vec![Socket::at(&path)]);
        drop(ends);
        assert!(path.exists(), "the other server's socket is gone");
        drop((second, begins));
        assert!(!path.exists());
    }
}
