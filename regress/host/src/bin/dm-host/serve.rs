//! `dm-host serve`: makes the sockets, then becomes nbdkit with the kernel in it.
//!
//! nbdkit speaks NBD; its plugin, libdm_host_nbd.so, is the hosted kernel. nbdkit listens at one
//! kind of socket only, unless it is handed sockets that listen already (as systemd does): so the
//! sockets are made here, and clients may connect before the kernel has booted.

use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use crate::cli::Serve;
use crate::client::Failure;
use crate::disk::{Disk, From};
use crate::sockets;

/// The first file descriptor that a program is handed sockets in: sd_listen_fds(3).
const FIRST: RawFd = 3;

/// Serves; returns only when it could not start.
///
/// # Errors
/// [`Failure::Usage`].
pub fn run(serve: &Serve) -> Failure {
    match start(serve) {
        Ok(never) => match never {},
        Err(why) => Failure::Usage(why),
    }
}

enum Never {}

fn start(serve: &Serve) -> Result<Never, String> {
    let disks = Disk::parse_all(&serve.disks)?;
    let plugin = plugin(serve)?;
    let mut arguments = Vec::new();
    for disk in &disks {
        let From::File(file) = &disk.from else {
            return Err(format!("--disk {}: a disk that is served needs a file", disk.name));
        };
        disk.sectors()?;
        let mode = if disk.read_only { "ro" } else { "rw" };
        if file.to_str().is_none() {
            return Err(format!("disk {}: its path is not UTF-8", disk.name));
        }
        // nbdkit cuts at the first `=`, the plugin at the first three commas.
        let file = fs::canonicalize(file).map_err(|e| format!("disk {}: {e}", disk.name))?;
        let file = file.display();
        arguments.push(format!("disk={},{mode},{},{file}", disk.name, disk.sector_size));
    }
    if serve.control.is_none() || serve.nbd.is_none() {
        sockets::make_folder()?;
    }
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let control = absolute(serve.control.clone().unwrap_or_else(sockets::default_control))?;
    let nbd = absolute(serve.nbd.clone().unwrap_or_else(sockets::default_nbd))?;
    let tcp = serve.tcp.as_deref().map(tcp).transpose()?;
    hold_signals();
    let control_socket = sockets::listen(&control)?;
    let mut made = Made(vec![control.clone()]);
    let nbd_socket = sockets::listen(&nbd)?;
    made.0.push(nbd.clone());

    let mut listening: Vec<OwnedFd> = vec![nbd_socket.into()];
    let mut told = vec![format!("NBD:     {}", uri(None, &nbd))];
    if let Some(tcp) = tcp {
        let at = tcp.local_addr().map_err(|error| format!("--tcp: {error}"))?;
        told.push(format!("NBD:     nbd://{at}/NAME"));
        if !at.ip().is_loopback() {
            eprintln!("dm-host: warning: whoever reaches {at} can read and write the devices");
        }
        listening.push(tcp.into());
    }
    let count = listening.len();
    listening.push(control_socket.into());
    let control_fd = FIRST.saturating_add(RawFd::try_from(count).map_err(|e| e.to_string())?);
    arguments.push(format!("control-fd={control_fd}"));
    arguments.push(format!("socket={}", control.display()));
    arguments.push(format!("socket={}", nbd.display()));
    if serve.as_user {
        arguments.push("user=1".into());
    }

    for disk in &disks {
        if let From::File(file) = &disk.from {
            println!("disk:    /dev/{} is {}", disk.name, file.display());
        }
    }
    told.iter().for_each(|line| println!("{line}"));
    println!("control: {}", control.display());
    println!("Ctrl-C ends it.");

    let mut nbdkit = Command::new(&serve.nbdkit);
    nbdkit.arg("--foreground").arg(&plugin).args(&arguments);
    nbdkit.env("LISTEN_PID", std::process::id().to_string());
    nbdkit.env("LISTEN_FDS", count.to_string());
    hand_over(&listening).map_err(|error| format!("handing the sockets over: {error}"))?;
    let error = nbdkit.exec();
    let nbdkit = serve.nbdkit.display();
    Err(match error.kind() {
        io::ErrorKind::NotFound => format!(
            "nbdkit, which speaks NBD for dm-host, is not there as `{nbdkit}`: install it \
             (Debian: apt install nbdkit), or name it with --nbdkit"
        ),
        _ => format!("{nbdkit}: {error}"),
    })
}

/// Sockets to be removed again, should the server not start.
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            // The server does not start: that is told, and more than this cannot be done.
            let _ = fs::remove_file(path);
        }
    }
}

/// The plugin: named by the user, or beside this program, as cargo and an installation leave it.
fn plugin(serve: &Serve) -> Result<PathBuf, String> {
    const FILE: &str = "libdm_host_nbd.so";
    if let Some(path) = &serve.plugin {
        return fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()));
    }
    let own = env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    let places = [folder.join(FILE), folder.join("../lib/dm-host").join(FILE)];
    places.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        format!(
            "{} is not there: build it with `cargo build --package dm-host-nbd`, or name it with \
             --plugin",
            folder.join(FILE).display()
        )
    })
}

/// Listens on TCP; loopback unless an address is given.
fn tcp(at: &str) -> Result<TcpListener, String> {
    let at = if at.contains(':') { at.to_string() } else { format!("127.0.0.1:{at}") };
    let wrong = |error: io::Error| format!("--tcp {at}: {error}");
    let addresses: Vec<_> = at.to_socket_addrs().map_err(wrong)?.collect();
    TcpListener::bind(addresses.as_slice()).map_err(wrong)
}

/// The NBD URI of an export, or of the server.
pub fn uri(export: Option<&str>, socket: &Path) -> String {
    let encode = |text: &str| -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
        text.bytes()
            .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect()
    };
    let socket = encode(&socket.to_string_lossy());
    format!("nbd+unix:///{}?socket={socket}", export.map_or("NAME".into(), encode))
}

/// Holds back Ctrl-C and its like until the plugin has booted and lets them through: before, there
/// is nobody to end well, and the sockets would be left.
fn hold_signals() {
    // SAFETY: plain calls on a set of our own; the mask is kept by exec.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
            libc::sigaddset(&mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

/// Moves the sockets to the descriptors from [`FIRST`] on, to be kept by the next program.
fn hand_over(sockets: &[OwnedFd]) -> io::Result<()> {
    let count = RawFd::try_from(sockets.len()).unwrap_or(RawFd::MAX);
    let beyond = FIRST.saturating_add(count);
    // First out of the way: a socket may stand where another has to go.
    let mut moved = Vec::new();
    for socket in sockets {
        // SAFETY: fcntl(2) duplicates a descriptor that is open; the copy is closed nowhere but
        // by exec.
        moved.push(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_DUPFD_CLOEXEC, beyond) });
    }
    for (from, to) in moved.into_iter().zip(FIRST..) {
        // SAFETY: what stood at `to` is a descriptor of this program's, which uses none of them
        // again: exec comes next, or the end.
        if from < 0 || unsafe { libc::dup2(from, to) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_escaped() {
        assert_eq!(
            uri(Some("a vol"), Path::new("/tmp/x y")),
            "nbd+unix:///a%20vol?socket=/tmp/x%20y"
        );
    }
}
