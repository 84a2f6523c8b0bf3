// SPDX-License-Identifier: BSD-2-Clause

//! The sockets: their paths, and how they are made.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The folder of the default sockets: dm-host in $XDG_RUNTIME_DIR, else /tmp/dm-host-UID.
pub fn folder() -> PathBuf {
    match env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => Path::new(&dir).join("dm-host"),
        None => PathBuf::from(format!("/tmp/dm-host-{}", uid())),
    }
}

/// The default path of the control socket.
pub fn default_control() -> PathBuf {
    folder().join("control.sock")
}

/// The default path of the NBD socket.
pub fn default_nbd() -> PathBuf {
    folder().join("nbd.sock")
}

/// The paths of the control and NBD sockets of the disk that `luks open` serves by this name.
pub fn of_luks(name: &str) -> (PathBuf, PathBuf) {
    let folder = folder();
    (folder.join(format!("luks-{name}.control")), folder.join(format!("luks-{name}.nbd")))
}

fn uid() -> u32 {
    // SAFETY: geteuid(2) reads one number of the process's and cannot fail.
    unsafe { libc::geteuid() }
}

/// Makes the folder of the default sockets; nobody else may enter it.
///
/// # Errors
/// In words, also when the folder is there but is not ours alone.
pub fn make_folder() -> Result<(), String> {
    let folder = folder();
    let text = |error: io::Error| format!("{}: {error}", folder.display());
    match DirBuilder::new().mode(0o700).create(&folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(text(error)),
    }
    let found = fs::symlink_metadata(&folder).map_err(text)?;
    if !found.is_dir() || found.uid() != uid() || found.permissions().mode() & 0o077 != 0 {
        return Err(format!(
            "{} is not a folder of yours alone (mode 0700): remove it, or name the sockets with \
             --control and --nbd",
            folder.display()
        ));
    }
    Ok(())
}

/// Listens at `path`. A socket that a server left behind is replaced.
///
/// # Errors
/// In words.
pub fn listen(path: &Path) -> Result<UnixListener, String> {
    let text = |error: io::Error| format!("cannot listen at {}: {error}", path.display());
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        result => return result.map_err(text),
    }
    if !fs::symlink_metadata(path).map_err(text)?.file_type().is_socket() {
        return Err(format!("{} is there and is no socket; it was left alone", path.display()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(format!(
            "a server already listens at {}: end it with `dm-host ctl shutdown`, or name another \
             path",
            path.display()
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(text)?;
            UnixListener::bind(path).map_err(text)
        }
        Err(error) => Err(text(error)),
    }
}
