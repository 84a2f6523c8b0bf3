// SPDX-License-Identifier: BSD-2-Clause

//! Linux's device-mapper ioctl, answered by NetBSD's driver: `struct dm_ioctl` to a property list,
//! and the answer back. dm-host(8) says what programs it is for, `share/doc/linux.md` how they
//! reach it.
//!
//! [`ioctl`] is all of the translation, and knows nothing of sockets or block devices: [`Host`]
//! asks the driver, and knows which disk of the machine is which device of Linux's. What Linux
//! answers where NetBSD's protocol answers something else is decided here:
//!
//! - a device that does not exist is ENXIO, a taken name or uuid EBUSY;
//! - a device is not suspended when it is created, only by a suspend, table or no table;
//! - a lookup by more than one of name, uuid and device finds nothing;
//! - an answer that does not fit sets BUFFER_FULL, and is no error;
//! - device numbers in tables, states and dependencies are Linux's. A word of a table's that is
//!   a path or two numbers with a colon is a device, whatever the target.
//!
//! A minor number is the same on both sides. NetBSD's minor 0 is the control node, so no device
//! has it here.

pub mod abi;
mod lists;
mod plist;

use zeroize::{Zeroize, Zeroizing};

use crate::Errno;
use abi::{Command, at, flag};
use plist::{Reply, Request};

/// An error, as Linux numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault(pub i32);

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        Fault(abi::errno(errno))
    }
}

/// The major number of the driver's block devices in NetBSD.
pub const NETBSD_MAJOR: u32 = 169;

/// A change that a command has made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A device is new.
    Created(u32),
    /// A device may have another table, size or mode, or another name.
    Altered(u32),
    /// A device is gone.
    Removed(u32),
}

/// The translation's interface to the process that it runs in.
pub trait Host {
    /// Sends a property list to the driver.
    ///
    /// # Errors
    /// The driver's, in NetBSD's numbers.
    fn ask(&self, request: &str) -> Result<Zeroizing<String>, Errno>;

    /// The major number that the device mapper has for Linux programs.
    fn major(&self) -> u32;

    /// The NetBSD name of a device that a table names, by path or by number (`7:0`). Numbers of
    /// the device mapper's own are not asked for.
    ///
    /// # Errors
    /// Linux's, such as ENOENT and ENOTBLK.
    fn disk(&self, word: &str) -> Result<String, Fault>;

    /// The Linux number of a NetBSD disk.
    fn number(&self, major: u32, minor: u32) -> Option<(u32, u32)>;

    /// The number of opens of a device, as Linux would count; `told` is the driver's count.
    fn open_count(&self, minor: u32, told: u32) -> u32;

    /// Releases a device that is to be removed; with `deferred` at its last close.
    ///
    /// # Errors
    /// EBUSY if it is open, unless the removal is deferred.
    fn let_go(&self, minor: u32, deferred: bool) -> Result<(), Fault>;

    /// Called after each change.
    fn changed(&self, change: Change);
}

/// A request that is being carried out.
struct Call<'a, H: Host> {
    host: &'a H,
    /// The structure, and room for the answer.
    bytes: &'a mut [u8],
    /// `data_size`: the end of the request, and the room for the answer.
    size: usize,
    flags: u32,
}

/// Carries out the command with the ioctl number `number`. `bytes` is the request, `struct
/// dm_ioctl` and `data_size` bytes in all; it becomes the answer, as long as its `data_size` says.
/// With SECURE_DATA the caller wipes `bytes` when it has sent it.
///
/// # Errors
/// As Linux numbers them; of `bytes` only the version is of use then.
pub fn ioctl<H: Host>(host: &H, number: u32, bytes: &mut [u8]) -> Result<(), Fault> {
    let command = Command::parse(number).ok_or(Fault(libc::ENOTTY))?;
    let size = abi::u32_at(bytes, at::DATA_SIZE) as usize;
    if bytes.len() < abi::SIZE || size < abi::MINIMUM || size > bytes.len() {
        return Err(Fault(libc::EINVAL));
    }
    let asked = [abi::u32_at(bytes, at::VERSION), abi::u32_at(bytes, at::VERSION + 4)];
    for (place, part) in abi::VERSION.into_iter().enumerate() {
        abi::put(bytes, at::VERSION + 4 * place, &part.to_le_bytes());
    }
    if asked[0] != abi::VERSION[0] || asked[1] > abi::VERSION[1] {
        return Err(Fault(libc::EINVAL));
    }
    let outgoing = flag::BUFFER_FULL | flag::UEVENT_GENERATED | flag::DATA_OUT;
    let flags = abi::u32_at(bytes, at::FLAGS) & !outgoing;
    // Nothing comes back behind the structure, unless `answer` puts it there.
    abi::put(bytes, at::DATA_SIZE, &(abi::MINIMUM as u32).to_le_bytes());
    let mut call = Call { host, bytes, size, flags };
    call.obey(command)?;
    let flags = call.flags;
    abi::put(bytes, at::FLAGS, &flags.to_le_bytes());
    Ok(())
}

impl<H: Host> Call<'_, H> {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn set(&mut self, flag: u32, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }

    fn name(&self) -> Result<&str, Fault> {
        abi::text(self.bytes, at::NAME, abi::NAME).ok_or(Fault(libc::EINVAL))
    }

    fn uuid(&self) -> Result<&str, Fault> {
        abi::text(self.bytes, at::UUID, abi::UUID).ok_or(Fault(libc::EINVAL))
    }

    /// The offset of the request's data, which has `least` bytes at least.
    fn data(&self, least: usize) -> Result<usize, Fault> {
        let start = abi::u32_at(self.bytes, at::DATA_START) as usize;
        let fits = start.checked_add(least).is_some_and(|end| end <= self.size);
        if start < abi::MINIMUM || !fits { Err(Fault(libc::EINVAL)) } else { Ok(start) }
    }

    fn ask(&self, request: Request) -> Result<Reply, Fault> {
        let text = request.end();
        Reply::parse(&self.host.ask(&text)?)
    }

    fn obey(&mut self, command: Command) -> Result<(), Fault> {
        use Command::*;
        match command {
            Version | DevArmPoll => return Ok(()),
            RemoveAll => return self.remove_all(),
            ListVersions => return self.versions(None),
            ListDevices => return self.names(),
            GetTargetVersion => {
                let name = self.name()?.to_owned();
                return self.versions(Some(&name));
            }
            DevCreate => return self.create(),
            _ => {}
        }
        match command {
            DevRemove => self.remove(),
            DevRename => self.rename(),
            DevSuspend => self.suspend(),
            DevStatus => self.info().map(drop),
            DevWait => {
                let mut request = self.request("waitevent")?;
                request.number("event_nr", abi::u32_at(self.bytes, at::EVENT_NR).into());
                let reply = self.ask(request)?;
                self.about(&reply)?;
                self.lines(&reply)
            }
            TableLoad => self.load(),
            TableClear => {
                let reply = self.ask(self.request("clear")?)?;
                self.about(&reply)?;
                self.host.changed(Change::Altered(reply.word("minor")));
                Ok(())
            }
            TableDeps => self.deps(),
            TableStatus => {
                let table = self.has(flag::STATUS_TABLE);
                let reply = self.ask(self.request(if table { "table" } else { "status" })?)?;
                self.about(&reply)?;
                self.lines(&reply)
            }
            TargetMsg => self.message(),
            DevSetGeometry => {
                let start = self.data(1)?;
                let text = abi::text(self.bytes, start, self.size - start);
                let text = text.ok_or(Fault(libc::EINVAL))?;
                let mut request = self.request("setgeometry")?;
                request.text("geometry", text);
                let reply = self.ask(request)?;
                self.about(&reply)
            }
            _ => Err(Fault(libc::ENOTTY)),
        }
    }

    /// A request about the device that the structure names.
    fn request(&self, command: &str) -> Result<Request, Fault> {
        let passed = flag::STATUS_TABLE
            | flag::SKIP_LOCKFS
            | flag::NOFLUSH
            | flag::QUERY_INACTIVE_TABLE
            | flag::SECURE_DATA;
        self.request_with(command, passed)
    }

    /// Makes a request as [`Call::request`] does; `passed` are the flags that the driver shall see.
    fn request_with(&self, command: &str, passed: u32) -> Result<Request, Fault> {
        let (name, uuid) = (self.name()?, self.uuid()?);
        let (major, minor) = abi::decode(abi::u64_at(self.bytes, at::DEV));
        let numbered = abi::u64_at(self.bytes, at::DEV) != 0;
        if !name.is_empty() && !uuid.is_empty() {
            return Err(Fault(libc::EINVAL));
        }
        let given = [!name.is_empty(), !uuid.is_empty(), numbered];
        let known = !numbered || major == self.host.major() && minor != 0;
        if given.into_iter().filter(|given| *given).count() != 1 || !known {
            return Err(Fault(libc::ENXIO));
        }
        let mut request = Request::new(command);
        request.number("flags", (self.flags & passed).into());
        if numbered {
            request.number("minor", minor.into());
        } else if uuid.is_empty() {
            request.text("name", name);
        } else {
            request.text("uuid", uuid);
        }
        Ok(request)
    }

    /// Fills the structure in from an answer about a device.
    ///
    /// # Errors
    /// ENXIO if the answer says that there is no such device.
    fn about(&mut self, reply: &Reply) -> Result<(), Fault> {
        let told = reply.word("flags");
        if told & flag::EXISTS == 0 {
            return Err(Fault(libc::ENXIO));
        }
        let truth = flag::READONLY
            | flag::SUSPEND
            | flag::EXISTS
            | flag::ACTIVE_PRESENT
            | flag::INACTIVE_PRESENT
            | flag::DEFERRED_REMOVE;
        self.flags = self.flags & !truth | told & truth;
        self.set(flag::INTERNAL_SUSPEND, false);
        let minor = reply.word("minor");
        let opens = self.host.open_count(minor, reply.word("open_count"));
        let dev = abi::encode(self.host.major(), minor);
        abi::put(self.bytes, at::TARGET_COUNT, &reply.word("target_count").to_le_bytes());
        abi::put(self.bytes, at::OPEN_COUNT, &opens.to_le_bytes());
        abi::put(self.bytes, at::EVENT_NR, &reply.word("event_nr").to_le_bytes());
        abi::put(self.bytes, at::DEV, &dev.to_le_bytes());
        self.put_text(at::NAME, abi::NAME, reply.text("name"));
        self.put_text(at::UUID, abi::UUID, reply.text("uuid"));
        Ok(())
    }

    fn put_text(&mut self, place: usize, room: usize, text: &str) {
        let mut bytes = text.as_bytes().to_vec();
        bytes.truncate(room - 1);
        bytes.resize(room, 0);
        abi::put(self.bytes, place, &bytes);
    }

    /// The state of the device that the structure names; it is filled in.
    fn info(&mut self) -> Result<Reply, Fault> {
        let reply = self.ask(self.request("info")?)?;
        self.about(&reply)?;
        Ok(reply)
    }

    /// Puts the answer's data into its place. Data that do not fit leave the room as it is, and set a flag.
    fn answer(&mut self, data: &[u8]) {
        let end = abi::SIZE.saturating_add(data.len());
        abi::put(self.bytes, at::DATA_START, &(abi::SIZE as u32).to_le_bytes());
        if end > self.size {
            return self.set(flag::BUFFER_FULL, true);
        }
        abi::put(self.bytes, abi::SIZE, data);
        abi::put(self.bytes, at::DATA_SIZE, &(end as u32).to_le_bytes());
    }

    fn create(&mut self) -> Result<(), Fault> {
        let (name, uuid) = (self.name()?, self.uuid()?);
        let mut request = Request::new("create");
        request.text("name", name);
        request.text("uuid", uuid);
        if self.has(flag::PERSISTENT_DEV) {
            let (_, minor) = abi::decode(abi::u64_at(self.bytes, at::DEV));
            if minor == 0 {
                return Err(Fault(libc::EINVAL));
            }
            request.number("minor", minor.into());
            request.number("flags", flag::PERSISTENT_DEV.into());
        }
        let reply = self.ask(request).map_err(taken)?;
        // In NetBSD a device is created suspended.
        let mut resume = Request::new("resume");
        resume.number("minor", reply.word("minor").into());
        let reply = self.ask(resume)?;
        self.about(&reply)?;
        self.host.changed(Change::Created(reply.word("minor")));
        Ok(())
    }

    fn remove(&mut self) -> Result<(), Fault> {
        let deferred = self.has(flag::DEFERRED_REMOVE);
        let before = self.info()?;
        let minor = before.word("minor");
        self.host.let_go(minor, deferred)?;
        let mut request = Request::new("remove");
        request.number("minor", minor.into());
        request.number("flags", (if deferred { flag::DEFERRED_REMOVE } else { 0 }).into());
        let reply = self.ask(request).inspect_err(|_| {
            self.host.changed(Change::Altered(minor));
        })?;
        let later = reply.word("flags") & flag::EXISTS != 0;
        self.set(flag::DEFERRED_REMOVE, later);
        self.host.changed(if later { Change::Altered(minor) } else { Change::Removed(minor) });
        Ok(())
    }

    /// Removes devices that nothing uses, in rounds, until a round finds none: a device may keep those below it.
    fn remove_all(&mut self) -> Result<(), Fault> {
        let deferred = self.has(flag::DEFERRED_REMOVE);
        loop {
            let mut removed = false;
            for entry in self.ask(Request::new("names"))?.array("cmd_data") {
                let Some(minor) = number_in(entry, "dev") else { continue };
                if self.host.let_go(minor, deferred).is_err() {
                    continue;
                }
                let mut request = Request::new("remove");
                request.number("minor", minor.into());
                request.number("flags", (if deferred { flag::DEFERRED_REMOVE } else { 0 }).into());
                let gone = match self.ask(request) {
                    Ok(reply) => reply.word("flags") & flag::EXISTS == 0,
                    Err(_) => false,
                };
                removed |= gone;
                self.host.changed(match gone {
                    true => Change::Removed(minor),
                    false => Change::Altered(minor),
                });
            }
            if !removed {
                return Ok(());
            }
        }
    }

    fn rename(&mut self) -> Result<(), Fault> {
        let start = self.data(1)?;
        let uuid = self.has(flag::UUID);
        let room = (if uuid { abi::UUID } else { abi::NAME }).min(self.size - start);
        let new = abi::text(self.bytes, start, room).filter(|new| !new.is_empty());
        let new = new.ok_or(Fault(libc::EINVAL))?;
        let minor = self.ask(self.request("info")?)?;
        if minor.word("flags") & flag::EXISTS == 0 {
            return Err(Fault(libc::ENXIO));
        }
        let mut request = Request::new("rename");
        request.number("minor", minor.word("minor").into());
        request.number("flags", (if uuid { flag::UUID } else { 0 }).into());
        request.array("cmd_data", |list| list.element(new));
        let reply = self.ask(request).map_err(taken)?;
        self.about(&reply)?;
        self.host.changed(Change::Altered(reply.word("minor")));
        Ok(())
    }

    /// DM_DEV_SUSPEND suspends with the SUSPEND flag, and resumes without.
    fn suspend(&mut self) -> Result<(), Fault> {
        let command = if self.has(flag::SUSPEND) { "suspend" } else { "resume" };
        let reply = self.ask(self.request(command)?)?;
        self.host.changed(Change::Altered(reply.word("minor")));
        // Again: the host may have opened or closed the device meanwhile.
        self.about(&reply)
    }

    fn load(&mut self) -> Result<(), Fault> {
        let count = abi::u32_at(self.bytes, at::TARGET_COUNT);
        if count == 0 {
            return Err(Fault(libc::EINVAL));
        }
        let mut lines = Vec::new();
        let mut place = self.data(abi::SPEC)?;
        for _ in 0..count {
            let end = place.checked_add(abi::SPEC).filter(|end| *end <= self.size);
            let params = end.ok_or(Fault(libc::EINVAL))?;
            let kind = abi::text(self.bytes, place + 24, abi::TARGET);
            let kind = kind.ok_or(Fault(libc::EINVAL))?.to_owned();
            let params = abi::text(self.bytes, params, self.size - params);
            let params = self.to_netbsd(params.ok_or(Fault(libc::EINVAL))?)?;
            let (start, length) =
                (abi::u64_at(self.bytes, place), abi::u64_at(self.bytes, place + 8));
            let next = abi::u32_at(self.bytes, place + 20) as usize;
            lines.push((start, length, kind, params));
            // The next entry lies behind this one; behind the last, nothing is read.
            if next < abi::SPEC && lines.len() < count as usize {
                return Err(Fault(libc::EINVAL));
            }
            place = place.checked_add(next).ok_or(Fault(libc::EINVAL))?;
        }
        let mut request = self.request_with("reload", flag::READONLY | flag::SECURE_DATA)?;
        // Escaped, a character takes up to five.
        let bytes = lines.iter().map(|(.., kind, params)| 5 * (kind.len() + params.len()) + 256);
        request.reserve(bytes.sum::<usize>() + 256);
        request.array("cmd_data", |list| {
            for (start, length, kind, params) in &lines {
                list.dictionary(|line| {
                    line.number("start", *start);
                    line.number("length", *length);
                    line.text("type", kind);
                    line.text("params", params);
                });
            }
        });
        let reply = self.ask(request).map_err(unknown)?;
        self.about(&reply)?;
        self.host.changed(Change::Altered(reply.word("minor")));
        Ok(())
    }

    /// A line's parameters with NetBSD's names for the devices in them.
    fn to_netbsd(&self, params: &str) -> Result<Zeroizing<String>, Fault> {
        let mut out = Zeroizing::new(String::with_capacity(params.len() * 2 + 32));
        for (place, word) in params.split(' ').enumerate() {
            if place > 0 {
                out.push(' ');
            }
            match numbers(word) {
                Some((major, minor)) if major == self.host.major() => {
                    out.push_str(&format!("{NETBSD_MAJOR}:{minor}"));
                }
                None if !word.starts_with('/') => out.push_str(word),
                _ => out.push_str(&self.host.disk(word)?),
            }
        }
        Ok(out)
    }

    /// The Linux number of a NetBSD device.
    fn to_linux(&self, major: u32, minor: u32) -> Option<(u32, u32)> {
        match major {
            NETBSD_MAJOR => Some((self.host.major(), minor)),
            _ => self.host.number(major, minor),
        }
    }

    /// Sends a message to the target that holds a sector. The target's answer is returned as text.
    fn message(&mut self) -> Result<(), Fault> {
        let start = self.data(9)?;
        let text = abi::text(self.bytes, start + 8, self.size - start - 8);
        let text = text.ok_or(Fault(libc::EINVAL))?;
        let mut request = self.request("message")?;
        request.reserve(5 * text.len() + 256);
        request.number("sector", abi::u64_at(self.bytes, start));
        request.text("message", text);
        let reply = self.ask(request)?;
        self.about(&reply)?;
        self.host.changed(Change::Altered(reply.word("minor")));
        let said = reply.text(REPLY);
        if said.is_empty() {
            return Ok(());
        }
        self.set(flag::DATA_OUT, true);
        let mut data = said.as_bytes().to_vec();
        data.push(0);
        self.answer(&data);
        data.zeroize();
        Ok(())
    }
}

/// The key under which a target's answer to a message comes (dm.4).
pub const REPLY: &str = "message_reply";

/// A name or uuid that is taken is EEXIST in NetBSD's protocol.
fn taken(fault: Fault) -> Fault {
    if fault.0 == libc::EEXIST { Fault(libc::EBUSY) } else { fault }
}

/// A target that is not known is ENOENT in NetBSD's protocol; components have been found before.
fn unknown(fault: Fault) -> Fault {
    if fault.0 == libc::ENOENT { Fault(libc::EINVAL) } else { fault }
}

fn number_in(entry: &::plist::Value, key: &str) -> Option<u32> {
    u32::try_from(plist::number(entry.as_dictionary()?.get(key)?)?).ok()
}

/// `major:minor`, and nothing else.
fn numbers(word: &str) -> Option<(u32, u32)> {
    let (major, minor) = word.split_once(':')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(major) && digits(minor)).then(|| Some((major.parse().ok()?, minor.parse().ok()?)))?
}
