//! What `dm-host serve` says on nbdkit's command line.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Mutex;

use nbdkit::{Error, Result};

/// A disk to be attached.
#[derive(Clone, Debug)]
pub struct Disk {
    /// It is /dev/NAME.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// It takes no writes.
    pub read_only: bool,
    /// Bytes in a sector.
    pub sector_size: u32,
}

/// The whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The disks, in the order given.
    pub disks: Vec<Disk>,
    /// The socket that control listens at.
    pub control_fd: Option<RawFd>,
    /// Sockets to be removed at the end.
    pub sockets: Vec<PathBuf>,
    /// Requests come from someone who is not root.
    pub user: bool,
}

static CONFIG: Mutex<Option<Config>> = Mutex::new(None);

/// Takes one `KEY=VALUE`.
///
/// # Errors
/// EINVAL, with words.
pub fn set(key: &str, value: &str) -> Result<()> {
    let wrong =
        || Error::new(libc::EINVAL, format!("{key}={value}: dm-host serve does not say so"));
    let mut config = CONFIG.lock().unwrap_or_else(|e| e.into_inner());
    let config = config.get_or_insert_default();
    match key {
        "disk" => {
            let words: Vec<_> = value.splitn(4, ',').collect();
            let [name, mode, sector_size, file] = words.as_slice() else { return Err(wrong()) };
            config.disks.push(Disk {
                name: (*name).into(),
                file: (*file).into(),
                read_only: *mode == "ro",
                sector_size: sector_size.parse().map_err(|_| wrong())?,
            });
        }
        "control-fd" => config.control_fd = Some(value.parse().map_err(|_| wrong())?),
        "socket" => config.sockets.push(value.into()),
        "user" => config.user = value == "1",
        _ => return Err(wrong()),
    }
    Ok(())
}

/// What has been set.
pub fn get() -> Config {
    CONFIG.lock().unwrap_or_else(|e| e.into_inner()).clone().unwrap_or_default()
}
