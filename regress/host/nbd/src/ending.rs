//! Ending connections: nbdkit waits for its clients to go, however long they stay.

use std::mem::ManuallyDrop;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, thread};

/// Tells every client, now and until the process ends, that nothing more is read from it. What it
/// has asked for is still answered.
pub fn stop_reading(sockets: Vec<PathBuf>) {
    // A connection may have been accepted a moment before nbdkit stopped doing so.
    let sweep = move || loop {
        connections(&sockets);
        thread::sleep(Duration::from_millis(50));
    };
    // Without the thread, clients that stay keep the server: a second signal is no worse off.
    if let Err(error) = thread::Builder::new().name("ending".into()).spawn(sweep) {
        eprintln!("dm-host: waiting for clients to go: {error}");
    }
}

fn connections(sockets: &[PathBuf]) {
    let Ok(open) = fs::read_dir("/proc/self/fd") else { return };
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for fd in numbers.collect::<Vec<RawFd>>() {
        // SAFETY: only asked what it is, and told to read no more, which is safe for any number;
        // it is closed by whom it belongs to.
        let unix = ManuallyDrop::new(unsafe { UnixStream::from_raw_fd(fd) });
        let ours = |name: &std::os::unix::net::SocketAddr| {
            name.as_pathname().is_some_and(|path| sockets.iter().any(|own| own == path))
        };
        // Only a connection has a peer; a socket that listens has none.
        if unix.peer_addr().is_ok() && unix.local_addr().is_ok_and(|name| ours(&name)) {
            let _ = unix.shutdown(Shutdown::Read);
        }
        // SAFETY: as above.
        let tcp = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(fd) });
        if tcp.peer_addr().is_ok() {
            let _ = tcp.shutdown(Shutdown::Read);
        }
    }
}
