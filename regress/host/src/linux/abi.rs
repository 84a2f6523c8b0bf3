// SPDX-License-Identifier: BSD-2-Clause

//! Linux's device-mapper ioctl as bytes: `struct dm_ioctl` and what follows it.
//!
//! Numbers are little-endian here: the programs run on this machine, and so does the server.

/// Bytes of `struct dm_ioctl`.
pub const SIZE: usize = 312;

/// Bytes up to its last member: a request must have that many.
pub const MINIMUM: usize = 305;

/// The type of the ioctl commands, `_IOC_TYPE`.
pub const TYPE: u32 = 0xfd;

/// The version that programs are told: major, minor, patch level. 4.45 is the first that lists
/// uuids with the names.
pub const VERSION: [u32; 3] = [4, 45, 0];

/// Bytes of a name, and of a uuid, with the zero at the end.
pub const NAME: usize = 128;
/// See [`NAME`].
pub const UUID: usize = 129;
/// Bytes of a target's name, with the zero at the end.
pub const TARGET: usize = 16;

/// Bytes of `struct dm_target_spec`, before a line's parameters.
pub const SPEC: usize = 40;

/// The flag of an entry in a list of names that has a uuid behind it.
pub const HAS_UUID: u32 = 1;
/// The flag of an entry in a list of names whose device has no uuid.
pub const HAS_NO_UUID: u32 = 2;

/// Places in `struct dm_ioctl`.
pub mod at {
    #![allow(missing_docs, reason = "they have the members' names")]
    pub const VERSION: usize = 0;
    pub const DATA_SIZE: usize = 12;
    pub const DATA_START: usize = 16;
    pub const TARGET_COUNT: usize = 20;
    pub const OPEN_COUNT: usize = 24;
    pub const FLAGS: usize = 28;
    pub const EVENT_NR: usize = 32;
    pub const DEV: usize = 40;
    pub const NAME: usize = 48;
    pub const UUID: usize = 176;
}

/// Bits of `flags`.
pub mod flag {
    #![allow(missing_docs, reason = "they have Linux's names")]
    pub const READONLY: u32 = 1 << 0;
    pub const SUSPEND: u32 = 1 << 1;
    pub const EXISTS: u32 = 1 << 2;
    pub const PERSISTENT_DEV: u32 = 1 << 3;
    pub const STATUS_TABLE: u32 = 1 << 4;
    pub const ACTIVE_PRESENT: u32 = 1 << 5;
    pub const INACTIVE_PRESENT: u32 = 1 << 6;
    pub const BUFFER_FULL: u32 = 1 << 8;
    pub const SKIP_LOCKFS: u32 = 1 << 10;
    pub const NOFLUSH: u32 = 1 << 11;
    pub const QUERY_INACTIVE_TABLE: u32 = 1 << 12;
    pub const UEVENT_GENERATED: u32 = 1 << 13;
    pub const UUID: u32 = 1 << 14;
    pub const SECURE_DATA: u32 = 1 << 15;
    pub const DATA_OUT: u32 = 1 << 16;
    pub const DEFERRED_REMOVE: u32 = 1 << 17;
    pub const INTERNAL_SUSPEND: u32 = 1 << 18;
}

/// A command's number, `_IOC_NR`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "they have Linux's names")]
#[repr(u32)]
pub enum Command {
    Version,
    RemoveAll,
    ListDevices,
    DevCreate,
    DevRemove,
    DevRename,
    DevSuspend,
    DevStatus,
    DevWait,
    TableLoad,
    TableClear,
    TableDeps,
    TableStatus,
    ListVersions,
    TargetMsg,
    DevSetGeometry,
    DevArmPoll,
    GetTargetVersion,
}

impl Command {
    const ALL: [Command; 18] = {
        use Command::*;
        [
            Version,
            RemoveAll,
            ListDevices,
            DevCreate,
            DevRemove,
            DevRename,
            DevSuspend,
            DevStatus,
            DevWait,
            TableLoad,
            TableClear,
            TableDeps,
            TableStatus,
            ListVersions,
            TargetMsg,
            DevSetGeometry,
            DevArmPoll,
            GetTargetVersion,
        ]
    };

    /// The command of an ioctl number, if it is one of the device mapper's.
    pub fn parse(ioctl: u32) -> Option<Command> {
        let number = ioctl & 0xff;
        let ours = ioctl >> 8 & 0xff == TYPE && ioctl >> 30 == 3;
        Command::ALL.into_iter().find(|command| ours && *command as u32 == number)
    }

    /// The ioctl number, as `_IOWR` makes it.
    pub fn ioctl(self) -> u32 {
        3 << 30 | (SIZE as u32) << 16 | TYPE << 8 | self as u32
    }
}

/// `number` as Linux packs a device's major and minor.
pub fn encode(major: u32, minor: u32) -> u64 {
    u64::from(minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12)
}

/// The major and minor of a packed device number.
pub fn decode(dev: u64) -> (u32, u32) {
    let dev = dev as u32;
    (dev >> 8 & 0xfff, dev & 0xff | dev >> 12 & 0xf_ff00)
}

/// The number at a place; 0 beyond the end.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    found.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The 64-bit number at a place; see [`u32_at`].
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    found.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Stores bytes at a place; nothing beyond the end.
pub fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(to) = at.checked_add(what.len()).and_then(|end| bytes.get_mut(at..end)) {
        to.copy_from_slice(what);
    }
}

/// The text from a place to the next zero; `None` if there is no zero within `max` bytes, or the
/// text is not UTF-8.
pub fn text(bytes: &[u8], at: usize, max: usize) -> Option<&str> {
    let rest = bytes.get(at..)?;
    let rest = rest.get(..max.min(rest.len()))?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    str::from_utf8(rest.get(..end)?).ok()
}

/// Linux's number of an error.
pub fn errno(errno: crate::Errno) -> i32 {
    use crate::Errno as E;
    match errno {
        E::EDEADLK => 35,
        E::EAGAIN => 11,
        E::EINPROGRESS => 115,
        E::EALREADY => 114,
        E::EOPNOTSUPP | E::ENOTSUP => 95,
        E::ETIMEDOUT => 110,
        E::ELOOP => 40,
        E::ENAMETOOLONG => 36,
        E::ENOTEMPTY => 39,
        E::EFTYPE => 22,
        E::EOVERFLOW => 75,
        E::EILSEQ => 84,
        E::ECANCELED => 125,
        E::ERESTART => 4,
        E::EPASSTHROUGH => 25,
        // Up to ERANGE both systems have Unix's.
        E(number @ 1..=34) => number,
        _ => 5,
    }
}
