// SPDX-License-Identifier: BSD-2-Clause

//! The commands, as libdevmapper and dmctl(8) send them: one dictionary in, the same dictionary
//! out with keys set or replaced.

use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use dm_sync::wipe_text;

use crate::device::{Device, Driver, FileSystem, Found, Line, Load, Selector, Snapshot};
use crate::kernel::{Geometry, Kernel};
use crate::name::{Name, Uuid};
use crate::proplib::{Array, Dictionary, Value};
use crate::refusal::Shown;
use crate::targets::{self, TARGETS};
use crate::units::{Minor, Sector};
use crate::worker::Quiesce;
use crate::{Errno, Refusal, limits};

#[cfg(test)]
mod tests;

/// The version of the protocol: major, minor, patch level.
pub const VERSION: [u32; 3] = [4, 16, 0];

/// Bits of `flags`. Those of a device's state ([`STATUS_FLAGS`]) are set anew in every reply about one; all others are
/// echoed.
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
    /// There is an active table.
    pub const ACTIVE_PRESENT: u32 = 1 << 5;
    /// There is an inactive table.
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

    /// `true` if anyone may give the command: it changes nothing.
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
/// of the command. Nothing has changed then. With sysctl hw.dm.legacy_errors there are none. A
/// request with the key `reasons` is told of them in the reply: only those of signals are left.
pub fn ioctl<K: Kernel, D: Dictionary>(
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

/// Prints on the console why a request was refused that has no reply, since it could not be read, or its
/// reply not be written.
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

struct Request<'a, K: Kernel, D: Dictionary> {
    driver: &'a Driver<K>,
    dict: &'a mut D,
    flags: u32,
    /// The descriptor that the request came through is open for writing.
    writable: bool,
    /// A warning about a command that was carried out all the same.
    warning: Option<String>,
}

impl<K: Kernel, D: Dictionary> Request<'_, K, D> {
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
        self.obey(command)
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

    fn obey(&mut self, command: Command) -> Result<(), Refusal> {
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
            Command::Resume => driver.resume(device, self.mounted())?,
            Command::Suspend => {
                let how = if self.has(flags::NOFLUSH) { Quiesce::NoFlush } else { Quiesce::Flush };
                driver.suspend(device, how, self.mounted())?;
            }
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

    /// What is to be done about a file system that is mounted on the device. One whose I/O may have to wait
    /// for the next table cannot be synchronised.
    fn mounted(&self) -> FileSystem {
        match self.has(flags::SKIP_LOCKFS) || self.has(flags::NOFLUSH) {
            true => FileSystem::Leave,
            false => FileSystem::Sync,
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn set_flags(&mut self, flags: u32) -> Result<(), Errno> {
        self.dict.set_unsigned(c"flags", u64::from(flags))
    }

    fn set(&mut self, key: &CStr, value: u32) -> Result<(), Errno> {
        self.dict.set_unsigned(key, u64::from(value))
    }

    fn name(&self) -> Result<Option<Name>, Refusal> {
        string(&*self.dict, c"name")?.filter(|s| !s.is_empty()).map(new_name).transpose()
    }

    fn uuid(&self) -> Result<Option<Uuid>, Refusal> {
        string(&*self.dict, c"uuid")?.filter(|s| !s.is_empty()).map(new_uuid).transpose()
    }

    fn minor(&self) -> Result<Option<u64>, Refusal> {
        Ok(number(&*self.dict, c"minor")?.filter(|minor| *minor != 0))
    }

    /// The minor wins over the name, and the name over the uuid. A name that no device can have
    /// selects none; one that is too long is an error, wherever it stands.
    fn selector(&self) -> Result<Selector, Refusal> {
        let given = |key: &CStr, max| match string(&*self.dict, key)? {
            Some(text) if text.len() > max => Err(Errno::EINVAL.because(format_args!(
                "the {} has {} bytes, of {max} at most",
                key.to_str().unwrap_or_default(),
                text.len()
            ))),
            text => Ok(text.filter(|text| !text.is_empty())),
        };
        let (name, uuid) = (given(c"name", Name::MAX)?, given(c"uuid", Uuid::MAX)?);
        let selector = match (self.minor()?, name, uuid) {
            (Some(minor), ..) => Minor::new(minor).map(Selector::Minor),
            (None, Some(name), _) => Name::new(name).ok().map(Selector::Name),
            (None, None, uuid) => uuid.and_then(|uuid| Uuid::new(uuid).ok()).map(Selector::Uuid),
        };
        Ok(selector.unwrap_or(Selector::None))
    }

    /// Tells all there is to tell about a device.
    fn reply(&mut self, found: &Found<K>) -> Result<(), Errno> {
        let now = found.device.snapshot();
        let (about, read_only) = match self.has(flags::QUERY_INACTIVE_TABLE) {
            true => (&now.inactive, now.inactive_read_only),
            false => (&now.active, now.read_only),
        };
        let lines = about.as_ref().map_or(0, |table| table.len());
        let truth = [
            (true, flags::EXISTS),
            (now.suspended, flags::SUSPEND),
            (read_only, flags::READONLY),
            (now.active.is_some(), flags::ACTIVE_PRESENT),
            (now.inactive.is_some(), flags::INACTIVE_PRESENT),
            (now.remove_at_close, flags::DEFERRED_REMOVE),
        ];
        let truth = truth.iter().filter(|(set, _)| *set).fold(0, |all, (_, flag)| all | flag);
        self.set_flags(self.flags & !STATUS_FLAGS | truth)?;
        self.identify(found)?;
        self.set(c"open_count", now.open_count)?;
        self.dict.set_unsigned(c"target_count", lines as u64)?;
        self.set(c"event_nr", now.event_nr)
    }

    fn identify(&mut self, found: &Found<K>) -> Result<(), Errno> {
        self.dict.set_string(c"name", found.name.as_str())?;
        self.dict.set_string(c"uuid", found.uuid.as_ref().map_or("", Uuid::as_str))?;
        self.set(c"minor", found.device.minor().get())
    }

    /// Old tools do not look at `features`; new ones learn there what goes beyond the C driver.
    fn version(&mut self) -> Result<(), Errno> {
        let mut features = D::new()?;
        features.set_unsigned(c"reload_more", u64::from(flags::RELOAD_MORE))?;
        features.set_unsigned(c"lines", limits::LINES as u64)?;
        features.set_unsigned(c"stripes", limits::STRIPES as u64)?;
        features.set_unsigned(c"reasons", 1)?;
        let mut list = D::Array::new()?;
        list.push_dictionary(features)?;
        self.dict.set_array(c"features", list)?;
        self.set_flags(self.flags)
    }

    fn targets(&mut self) -> Result<(), Errno> {
        let mut list = D::Array::new()?;
        let has_aes = self.driver.kernel().aes().is_some();
        for kind in TARGETS.iter().filter(|kind| has_aes || !targets::needs_aes(kind)) {
            let (mut entry, mut version) = (D::new()?, D::Array::new()?);
            entry.set_string(c"name", kind.name)?;
            kind.version.iter().try_for_each(|n| version.push_signed(i64::from(*n)))?;
            entry.set_array(c"ver", version)?;
            list.push_dictionary(entry)?;
        }
        self.dict.set_array(c"cmd_data", list)?;
        self.set_flags(self.flags)
    }

    fn names(&mut self) -> Result<(), Errno> {
        let mut list = D::Array::new()?;
        for (name, minor) in self.driver.names() {
            let mut entry = D::new()?;
            entry.set_string(c"name", name.as_str())?;
            entry.set_unsigned(c"dev", u64::from(minor.get()))?;
            list.push_dictionary(entry)?;
        }
        self.dict.set_array(c"cmd_data", list)?;
        self.set_flags(self.flags)
    }

    fn create(&mut self) -> Result<(), Refusal> {
        let name = self
            .name()?
            .ok_or_else(|| Errno::EINVAL.because(format_args!("a device needs a name")))?;
        let uuid = self.uuid()?;
        let minor = match self.minor()?.filter(|_| self.has(flags::PERSISTENT_DEV)) {
            Some(minor) => Some(Minor::new(minor).ok_or_else(|| {
                Errno::EINVAL.because(format_args!(
                    "minor numbers go from 1 to {}, and {minor} is none of them",
                    Minor::MAX
                ))
            })?),
            None => None,
        };
        let taken = |errno| match errno {
            Errno::EEXIST => {
                errno.because(format_args!("another device has this name, or this uuid"))
            }
            Errno::EBUSY => errno.because(format_args!("another device has this minor number")),
            Errno::ENOSPC => {
                errno.because(format_args!("there are {} devices at most", limits::DEVICES))
            }
            errno => Refusal::from(errno),
        };
        let created = self.driver.create(name, uuid, minor, self.has(flags::READONLY));
        let found = created.map_err(taken)?;
        self.reply(&found).inspect_err(|_| {
            // Who does not learn of the device must not have made it. It cannot be in use yet but
            // by someone who guessed its minor, and then it stays.
            let _ = self.driver.remove(&found.device, false);
        })?;
        Ok(())
    }

    fn remove(&mut self, found: &Found<K>) -> Result<(), Refusal> {
        let removed = self.driver.remove(&found.device, self.has(flags::DEFERRED_REMOVE));
        let gone = removed.map_err(|errno| match errno {
            Errno::EBUSY => errno.because(format_args!(
                "the device is open: {} of its nodes are, by programs, mounts or other devices",
                found.device.snapshot().open_count
            )),
            errno => errno.into(),
        })?;
        if !gone {
            return Ok(self.reply(found)?);
        }
        self.set_flags(self.flags & !STATUS_FLAGS)?;
        self.identify(found)?;
        self.set(c"open_count", 0)?;
        self.set(c"target_count", 0)?;
        Ok(self.set(c"event_nr", found.device.snapshot().event_nr)?)
    }

    fn rename(&mut self, mut found: Found<K>) -> Result<(), Refusal> {
        let data = self.cmd_data()?;
        let Some(Value::String(new)) = data.get(0) else {
            return Err(Errno::EINVAL.because(format_args!("`cmd_data` does not hold a name")));
        };
        if self.has(flags::UUID) {
            let uuid = new_uuid(new)?;
            self.driver.set_uuid(&found.device, uuid.clone()).map_err(|errno| match errno {
                Errno::EEXIST => errno.because(format_args!("another device has this uuid")),
                Errno::EINVAL => errno.because(format_args!("the device has another uuid already")),
                errno => errno.into(),
            })?;
            found.uuid = Some(uuid);
        } else {
            let name = new_name(new)?;
            self.driver.rename(&found.device, name.clone()).map_err(|errno| match errno {
                Errno::EEXIST => errno.because(format_args!("another device has this name")),
                errno => errno.into(),
            })?;
            found.name = name;
        }
        Ok(self.reply(&found)?)
    }

    fn cmd_data(&self) -> Result<D::Array, Refusal> {
        match self.dict.get(c"cmd_data") {
            Some(Value::Array(data)) => Ok(data),
            _ => Err(Errno::EINVAL.because(format_args!("`cmd_data` is not an array"))),
        }
    }

    fn lines(&self) -> Result<Vec<Line>, Refusal> {
        let data = self.cmd_data()?;
        if data.len() > limits::LINES {
            return Err(Errno::E2BIG.because(format_args!(
                "too many lines: {}, of {} at most",
                data.len(),
                limits::LINES
            )));
        }
        let line = |at| {
            let malformed = |what: &str| Refusal {
                line: Some(at),
                ..Errno::EINVAL.because(format_args!("the line has no {what}"))
            };
            let Some(Value::Dictionary(line)) = data.get(at) else {
                return Err(malformed("dictionary"));
            };
            let text = |key: &CStr| {
                let text = string(&line, key).ok().flatten().map(String::from);
                text.ok_or_else(|| malformed(key.to_str().unwrap_or_default()))
            };
            let count = |key: &CStr| {
                let count = number(&line, key).ok().flatten();
                count.ok_or_else(|| malformed(key.to_str().unwrap_or_default()))
            };
            Ok(Line {
                start: count(c"start")?,
                length: count(c"length")?,
                kind: text(c"type")?,
                params: text(c"params")?,
            })
        };
        (0..data.len()).map(line).collect()
    }

    fn status(&mut self, now: &Snapshot<K>) -> Result<(), Errno> {
        let mut list = D::Array::new()?;
        // Keys are for those who could have loaded them.
        let secrets = self.has(flags::STATUS_TABLE)
            && self.writable
            && self.driver.kernel().authorize().is_ok();
        if let Some(table) = self.chosen(now) {
            for (start, length, target) in table.lines() {
                let mut line = D::new()?;
                line.set_unsigned(c"start", start.0)?;
                line.set_unsigned(c"length", length.0)?;
                line.set_string(c"type", target.kind().name)?;
                line.set_signed(c"status", i64::from(now.slot))?;
                let mut params = match secrets {
                    true => table.secrets(target),
                    false => table.describe(target, self.has(flags::STATUS_TABLE)),
                };
                let set = line.set_string(c"params", &params);
                wipe_text(&mut params);
                set?;
                list.push_dictionary(line)?;
            }
        }
        self.dict.set_array(c"cmd_data", list)
    }

    fn chosen<'s>(&self, now: &'s Snapshot<K>) -> Option<&'s crate::kernel::LiveTable<K>> {
        match self.has(flags::QUERY_INACTIVE_TABLE) {
            true => now.inactive.as_deref(),
            false => now.active.as_deref(),
        }
    }

    fn deps(&mut self, now: &Snapshot<K>) -> Result<(), Errno> {
        let mut list = D::Array::new()?;
        let devs = self.chosen(now).map_or(&[][..], |table| table.devs());
        // A dev_t has 32 bits.
        devs.iter().try_for_each(|dev| list.push_signed(dev.0.cast_signed()))?;
        self.dict.set_array(c"cmd_data", list)
    }

    fn message(&mut self, device: &Device<K>) -> Result<(), Refusal> {
        let sector = Sector(number(&*self.dict, c"sector")?.unwrap_or(0));
        let text = string(&*self.dict, c"message")?
            .ok_or_else(|| Errno::EINVAL.because(format_args!("there is no message")))?;
        if text.len() > limits::MESSAGE {
            return Err(Errno::ENAMETOOLONG.because(format_args!(
                "the message has {} bytes, of {} at most",
                text.len(),
                limits::MESSAGE
            )));
        }
        let mut reply = String::new();
        device.message(sector, text, &mut reply).map_err(|errno| match errno {
            Errno::EINVAL => {
                errno.because(format_args!("nobody who takes such a message is at sector {sector}"))
            }
            Errno::ENXIO => errno.because(format_args!("the device has no table")),
            errno => errno.into(),
        })?;
        if reply.is_empty() {
            return Ok(());
        }
        Ok(self.dict.set_string(c"message_reply", &reply)?)
    }

    /// `cylinders heads sectors start`, as dmsetup(8) sends them.
    fn geometry(&self) -> Result<Geometry, Refusal> {
        let wrong = || {
            Errno::EINVAL.because(format_args!(
                "a geometry is four numbers: cylinders up to 65535, heads and sectors up to 255, \
                 and a start not above their product"
            ))
        };
        let text = string(&*self.dict, c"geometry")?.ok_or_else(wrong)?;
        let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
        let mut next = |max: u64| match numbers.next() {
            Some(Ok(n)) if n <= max => Ok(n),
            _ => Err(wrong()),
        };
        // The bounds are those of struct disklabel's fields, so that none is cut.
        let (cylinders, heads, sectors) =
            (next(65_535)? as u32, next(255)? as u32, next(255)? as u32);
        let start = Sector(next(Sector::MAX.0)?);
        let whole = u64::from(cylinders) * u64::from(heads) * u64::from(sectors);
        if numbers.next().is_some() || start.0 > whole {
            return Err(wrong());
        }
        Ok(Geometry { cylinders, heads, sectors, start })
    }
}

/// A device's name, or why it cannot be one.
fn new_name(text: &str) -> Result<Name, Refusal> {
    Name::new(text).map_err(|errno| {
        let why = match text {
            "" => "a name has a byte at least",
            "control" => "that is the name of the control node",
            "." | ".." => "that is the name of a directory",
            _ if text.contains('/') => "a name has no slash",
            _ => "a name has 127 bytes at most",
        };
        errno.because(format_args!("`{}` cannot be a device's name: {why}", Shown::word(text)))
    })
}

/// A device's uuid, or why it cannot be one.
fn new_uuid(text: &str) -> Result<Uuid, Refusal> {
    Uuid::new(text).map_err(|errno| {
        let (bytes, max) = (text.len(), Uuid::MAX);
        errno.because(format_args!("the uuid has {bytes} bytes, and may have 1 to {max}"))
    })
}

/// A key that holds a string, or is not there.
fn string<'d, D: Dictionary>(dict: &'d D, key: &CStr) -> Result<Option<&'d str>, Refusal> {
    match dict.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong_type(key, "a string")),
    }
}

fn wrong_type(key: &CStr, kind: &str) -> Refusal {
    Errno::EINVAL.because(format_args!("`{}` is not {kind}", key.to_str().unwrap_or_default()))
}

/// A key that holds a number of 0 or more, or is not there.
fn number<D: Dictionary>(dict: &D, key: &CStr) -> Result<Option<u64>, Refusal> {
    match dict.get(key) {
        None => Ok(None),
        Some(Value::Unsigned(n)) => Ok(Some(n)),
        Some(_) => Err(wrong_type(key, "a number of 0 or more")),
    }
}
