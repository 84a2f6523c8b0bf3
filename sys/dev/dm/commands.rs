// SPDX-License-Identifier: BSD-2-Clause

//! The commands of NETBSD_DM_IOCTL, as libdevmapper and dmctl(8) send them: one dictionary in, the
//! same dictionary out with keys set or replaced. `commands/request.rs` reads a request,
//! `commands/reply.rs` writes the reply; the system call's half, which copies property lists in and
//! out, is `sys/entry/ioctl.rs`.

mod change;
mod reply;
mod request;

use alloc::string::String;
use core::ffi::CStr;

use request::{Request, number, string};

use crate::device::{Driver, FileSystem, Load};
use crate::kernel::Kernel;
use crate::proplib::{Array, Dictionary, Value};
use crate::refusal::Shown;
use crate::worker::Quiesce;
use crate::{Errno, Refusal};

#[cfg(test)]
mod tests;

/// The version of the protocol: major, minor, patch level.
pub const VERSION: [u32; 3] = [4, 16, 0];

/// Bits of `flags`. Those of a device's state (`STATUS_FLAGS`) are set anew in every reply about
/// one; all others are echoed.
pub mod flags {
    /// The device, or the table to be loaded, takes no writes.
    pub const READONLY: u32 = 1 << 0;
    /// The device is suspended.
    pub const SUSPEND: u32 = 1 << 1;
    /// The device exists.
    pub const EXISTS: u32 = 1 << 2;
    /// The request's minor is the one that a new device must have.
    pub const PERSISTENT_DEV: u32 = 1 << 3;
    /// `params` shall be the table's parameters, not the targets' state.
    pub const STATUS_TABLE: u32 = 1 << 4;
    /// The device has an active table.
    pub const ACTIVE_PRESENT: u32 = 1 << 5;
    /// The device has an inactive table.
    pub const INACTIVE_PRESENT: u32 = 1 << 6;
    /// `suspend` and `resume` leave a file system alone that is mounted on the device.
    pub const SKIP_LOCKFS: u32 = 1 << 10;
    /// `suspend` need not complete what cannot be completed: the next table may.
    pub const NOFLUSH: u32 = 1 << 11;
    /// The request is about the inactive table.
    pub const QUERY_INACTIVE_TABLE: u32 = 1 << 12;
    /// `rename` sets the uuid.
    pub const UUID: u32 = 1 << 14;
    /// A device in use shall go at its last close; in a reply, that it will.
    pub const DEFERRED_REMOVE: u32 = 1 << 17;
    /// More lines of this table will come in further requests.
    pub const RELOAD_MORE: u32 = 1 << 30;
}

/// The bits of a device's state.
const STATUS_FLAGS: u32 = flags::READONLY
    | flags::SUSPEND
    | flags::EXISTS
    | flags::ACTIVE_PRESENT
    | flags::INACTIVE_PRESENT
    | flags::DEFERRED_REMOVE;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    Version,
    Targets,
    Names,
    Create,
    Reload,
    Resume,
    Suspend,
    Clear,
    Remove,
    RemoveAll,
    Rename,
    Info,
    Status,
    Deps,
    WaitEvent,
    Message,
    SetGeometry,
}

impl Command {
    fn parse(word: &str) -> Option<Command> {
        Some(match word {
            "version" => Command::Version,
            "targets" => Command::Targets,
            "names" => Command::Names,
            "create" => Command::Create,
            "reload" => Command::Reload,
            "resume" => Command::Resume,
            "suspend" => Command::Suspend,
            "clear" => Command::Clear,
            "remove" => Command::Remove,
            "remove_all" => Command::RemoveAll,
            "rename" => Command::Rename,
            "info" | "mknodes" => Command::Info,
            // STATUS_TABLE says which of the two it is.
            "status" | "table" => Command::Status,
            "deps" => Command::Deps,
            "waitevent" => Command::WaitEvent,
            "message" => Command::Message,
            "setgeometry" => Command::SetGeometry,
            _ => return None,
        })
    }

    /// `true` if an unprivileged user may give the command: it changes nothing.
    fn is_unprivileged(self) -> bool {
        use Command::*;
        matches!(self, Version | Targets | Names | Info | Status | Deps | WaitEvent)
    }

    /// `true` if a device that does not exist is an answer to the command, not an error.
    fn missing_is_an_answer(self) -> bool {
        matches!(self, Command::Info | Command::Status | Command::Deps)
    }
}

/// Carries out the request in `dict` and turns it into the reply. `writable` says whether the
/// descriptor it came through is open for writing.
///
/// # Errors
/// EINVAL for a request that is malformed, EIO for another version of the protocol, EBADF and
/// EPERM for one that its sender may not make, ENXIO for a device that does not exist, and those
/// of the command. Nothing has changed then, but for the exceptions that dm.4 lists under ERRORS,
/// such as I/O that has failed in a suspend which was called off. With sysctl
/// hw.dm.legacy_errors there are no errors. A request with the key `reasons` has them in the reply:
/// only those of signals are left.
pub fn execute<K: Kernel, D: Dictionary>(
    driver: &Driver<K>,
    dict: &mut D,
    writable: bool,
) -> Result<(), Errno> {
    let mut request = Request { driver, dict: &mut *dict, flags: 0, writable, warning: None };
    let result = request.run();
    let warning = request.warning.take();
    let legacy = driver.kernel().legacy_errors();
    if legacy && result.as_ref().is_err_and(|refusal| refusal.errno == Errno::ENXIO) {
        let flags = number(&*dict, c"flags").ok().flatten().unwrap_or(0);
        dict.set_unsigned(c"flags", flags & !u64::from(flags::EXISTS))?;
    }
    if matches!(number(&*dict, c"reasons"), Ok(Some(1..))) {
        return put_outcome(dict, result, warning, legacy);
    }
    match result {
        Err(_) if legacy => Ok(()),
        result => result.map_err(|refusal| refusal.errno),
    }
}

/// Prints on the console why a request was refused that has no reply, since it could not be read,
/// or its reply not be written.
pub fn refused_unread<K: Kernel>(driver: &Driver<K>, why: core::fmt::Arguments<'_>) {
    driver.say(format_args!("dm: request refused: {why}"));
}

/// Puts the outcome of a command into its reply, so that the system copies it out.
fn put_outcome<D: Dictionary>(
    dict: &mut D,
    result: Result<(), Refusal>,
    warning: Option<String>,
    legacy: bool,
) -> Result<(), Errno> {
    if let Some(warning) = warning {
        dict.set_string(c"warning", &warning)?;
    }
    let Err(refusal) = result else { return dict.set_unsigned(c"errno", 0) };
    // The system has its own way with calls that signals end: it may make them again.
    if !legacy && (refusal.errno == Errno::EINTR || refusal.errno.raw() < 0) {
        return Err(refusal.errno);
    }
    if let Some(line) = refusal.line {
        dict.set_unsigned(c"line", (line as u64).saturating_add(1))?;
    }
    dict.set_string(c"reason", &refusal.reason)?;
    let errno = if legacy { 0 } else { refusal.errno.raw().unsigned_abs() };
    dict.set_unsigned(c"errno", u64::from(errno))
}

impl<K: Kernel, D: Dictionary> Request<'_, K, D> {
    /// Checks the request and its sender, and carries it out.
    fn run(&mut self) -> Result<(), Refusal> {
        self.check_version()?;
        let word = string(&*self.dict, c"command")?
            .ok_or_else(|| Errno::EINVAL.because(format_args!("there is no command")))?;
        let command = Command::parse(word).ok_or_else(|| {
            Errno::EINVAL.because(format_args!("there is no command `{}`", Shown::word(word)))
        })?;
        let flags = number(&*self.dict, c"flags")?.unwrap_or(0);
        self.flags = u32::try_from(flags).map_err(|_| {
            Errno::EINVAL.because(format_args!("the flags {flags:#x} have more than 32 bits"))
        })?;
        if !command.is_unprivileged() {
            self.driver.kernel().authorize().map_err(|errno| {
                errno.because(format_args!("only the super-user may change devices"))
            })?;
            if !self.writable {
                return Err(
                    Errno::EBADF.because(format_args!("the control node is not open for writing"))
                );
            }
        }
        // Before the command, so that nothing can fail once it is done but its own reply.
        let mut version = D::Array::new()?;
        VERSION.iter().try_for_each(|n| version.push_unsigned(u64::from(*n)))?;
        self.dict.set_array(c"version", version)?;
        self.dispatch(command)
    }

    /// A missing version is accepted: libdevmapper leaves it out of some requests.
    fn check_version(&self) -> Result<(), Refusal> {
        let malformed = || Errno::EINVAL.because(format_args!("`version` is not three numbers"));
        let version = match self.dict.get(c"version") {
            None => return Ok(()),
            Some(Value::Array(version)) if version.len() == VERSION.len() => version,
            Some(_) => return Err(malformed()),
        };
        let part = |at| match version.get(at) {
            Some(Value::Unsigned(n)) => Ok(n),
            _ => Err(malformed()),
        };
        let (major, minor, _patch) = (part(0)?, part(1)?, part(2)?);
        if major != u64::from(VERSION[0]) || minor > u64::from(VERSION[1]) {
            let [own, most, _] = VERSION;
            return Err(Errno::EIO.because(format_args!(
                "the request speaks version {major}.{minor} of the protocol, the driver {own}.0 to \
                 {own}.{most}"
            )));
        }
        Ok(())
    }

    /// Carries out the command, and writes its reply.
    fn dispatch(&mut self, command: Command) -> Result<(), Refusal> {
        match command {
            Command::Version => return Ok(self.version()?),
            Command::Targets => return Ok(self.targets()?),
            Command::Names => return Ok(self.names()?),
            Command::RemoveAll => {
                self.driver.remove_all(self.has(flags::DEFERRED_REMOVE))?;
                return Ok(self.set_flags(self.flags)?);
            }
            Command::Create => return self.create(),
            _ => {}
        }
        let found = match self.driver.find(&self.selector()?) {
            Some(found) => found,
            None if command.missing_is_an_answer() => {
                return Ok(self.set_flags(self.flags & !STATUS_FLAGS)?);
            }
            None => return Err(Errno::ENXIO.because(format_args!("there is no such device"))),
        };
        let (driver, device) = (self.driver, &found.device);
        match command {
            Command::Reload => {
                let lines = self.lines().inspect_err(|_| {
                    device.forget_lines_of(driver.kernel().process());
                })?;
                let load = Load {
                    read_only: self.has(flags::READONLY),
                    more: self.has(flags::RELOAD_MORE),
                    before: number(&*self.dict, c"before")?,
                };
                self.warning = driver.reload(device, lines, load)?;
            }
            Command::Resume => driver.resume(device, self.quiesce(), self.mounted())?,
            Command::Suspend => driver.suspend(device, self.quiesce(), self.mounted())?,
            Command::Clear => driver.clear(device),
            Command::Remove => return self.remove(&found),
            Command::Rename => return self.rename(found),
            Command::Status => self.status(&device.snapshot())?,
            Command::Deps => self.deps(&device.snapshot())?,
            Command::WaitEvent => {
                let seen = number(&*self.dict, c"event_nr")?.unwrap_or(0);
                let seen = u32::try_from(seen).map_err(|_| {
                    Errno::EINVAL.because(format_args!("event numbers end at {}", u32::MAX))
                })?;
                driver.wait_event(device, seen).map_err(|errno| match errno {
                    Errno::EAGAIN => errno.because(format_args!("too many processes wait already")),
                    Errno::ENXIO => errno.because(format_args!("the device is gone")),
                    errno => errno.into(),
                })?;
                self.status(&device.snapshot())?;
            }
            Command::Message => self.message(device)?,
            Command::SetGeometry => device.set_geometry(self.geometry()?)?,
            _ => {}
        }
        Ok(self.reply(&found)?)
    }

    /// The treatment of a file system that is mounted on the device. One whose I/O may have to wait
    /// for the next table cannot be synchronised.
    fn mounted(&self) -> FileSystem {
        match self.has(flags::SKIP_LOCKFS) || self.has(flags::NOFLUSH) {
            true => FileSystem::Leave,
            false => FileSystem::Sync,
        }
    }

    /// The way in which the request has the device's I/O held: with NOFLUSH, what cannot complete
    /// is given back.
    fn quiesce(&self) -> Quiesce {
        if self.has(flags::NOFLUSH) { Quiesce::NoFlush } else { Quiesce::Flush }
    }

    /// `true` if the request has this one of [`flags`].
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn set_flags(&mut self, flags: u32) -> Result<(), Errno> {
        self.dict.set_unsigned(c"flags", u64::from(flags))
    }

    fn set(&mut self, key: &CStr, value: u32) -> Result<(), Errno> {
        self.dict.set_unsigned(key, u64::from(value))
    }
}
