// SPDX-License-Identifier: BSD-2-Clause

//! Commands of a game, made from bytes.

use alloc::vec::Vec;

use crate::Errno;
use crate::commands::flags;

/// The device that a command is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// The device with the name of this number.
    Name(u8),
    /// The device with the uuid of this number.
    Uuid(u8),
    /// The device with this minor.
    Minor(u32),
}

/// A line of a table. One without stripes is zero or, if its length is odd, error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The first sector.
    pub start: u64,
    /// The number of sectors.
    pub length: u64,
    /// The numbers of the line's components, and the offsets there.
    pub stripes: Vec<(u8, u64)>,
    /// The chunk of a striped line.
    pub chunk: Option<u64>,
}

impl Line {
    /// The name of the line's target.
    pub fn kind(&self) -> &'static str {
        match (self.stripes.is_empty(), self.chunk) {
            (true, _) if self.length.is_multiple_of(2) => "zero",
            (true, _) => "error",
            (false, None) => "linear",
            (false, Some(_)) => "striped",
        }
    }
}

/// A command, or something else that happens in a game.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "they are the commands")]
pub enum Op {
    Create {
        name: u8,
        uuid: Option<u8>,
        minor: Option<u32>,
        read_only: bool,
    },
    Reload {
        who: Who,
        lines: Vec<Line>,
        read_only: bool,
        more: bool,
    },
    Resume(Who),
    Suspend(Who),
    Clear(Who),
    Remove(Who, bool),
    RemoveAll(bool),
    Rename(Who, u8),
    SetUuid(Who, u8),
    Cancel(Who),
    Info(Who),
    Table(Who, bool),
    Deps(Who, bool),
    Names,
    Open(u32),
    Close(u32),
    FailOpen(usize, Option<Errno>),
    FailAttach(Option<Errno>),
    FailQuiesce(Option<Errno>),
    /// Gives a disk another size, and has it take writes or none, from now on.
    Change {
        disk: usize,
        sectors: u64,
        writable: bool,
    },
    /// Revokes a disk, which is there again at once.
    Revoke(usize),
}

/// The bytes that a game is made from.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number below `n`.
    fn below(&mut self, n: u8) -> Option<u8> {
        self.next()?.checked_rem(n)
    }

    fn one_in(&mut self, n: u8) -> Option<bool> {
        Some(self.below(n)? == 0)
    }

    fn who(&mut self) -> Option<Who> {
        let n = self.next()?;
        Some(match n % 8 {
            0 => Who::Uuid(n / 8 % 3),
            1 | 2 => Who::Minor(u32::from(n / 8 % 6) + 1),
            _ => Who::Name(n / 8 % 5),
        })
    }

    /// Lines that mostly make a table without gaps.
    fn lines(&mut self) -> Option<Vec<Line>> {
        let (count, mut end, mut lines) = (self.below(4)?, 0u64, Vec::new());
        for _ in 0..=count {
            let kind = self.next()?;
            let step = if kind & 0x80 != 0 { 1 } else { 4 };
            let length = u64::from(kind >> 4 & 7) * step;
            let mut start = end;
            if self.one_in(20)? {
                start = u64::from(self.below(12)?);
            }
            end = start + length;
            let mut stripe = || Some((self.below(15)?, u64::from(self.below(12)?) * step));
            let mut line = Line { start, length, stripes: Vec::new(), chunk: None };
            match kind % 4 {
                0 => {}
                1 | 2 => line.stripes.push(stripe()?),
                _ => {
                    line.stripes = [stripe()?, stripe()?].into();
                    line.chunk = Some(u64::from(self.below(4)?) * step);
                }
            }
            lines.push(line);
        }
        Some(lines)
    }
}

impl Op {
    /// The next command, or `None` when the bytes are used up.
    pub fn read(bytes: &mut Bytes<'_>) -> Option<Op> {
        Some(match bytes.below(32)? {
            0..=5 => Op::Create {
                name: bytes.below(5)?,
                uuid: Some(bytes.below(6)?).filter(|uuid| *uuid < 3),
                minor: Some(u32::from(bytes.below(24)?)).filter(|minor| *minor < 7),
                read_only: bytes.one_in(6)?,
            },
            6..=11 => Op::Reload {
                who: bytes.who()?,
                read_only: bytes.one_in(4)?,
                more: bytes.one_in(12)?,
                lines: bytes.lines()?,
            },
            12..=15 => Op::Resume(bytes.who()?),
            16 | 17 => Op::Suspend(bytes.who()?),
            18 => Op::Clear(bytes.who()?),
            19 | 20 => Op::Remove(bytes.who()?, bytes.one_in(2)?),
            21 => match bytes.below(8)? {
                0 => Op::RemoveAll(bytes.one_in(2)?),
                _ => Op::Names,
            },
            22 => Op::Rename(bytes.who()?, bytes.below(5)?),
            23 => Op::SetUuid(bytes.who()?, bytes.below(3)?),
            24 => Op::Cancel(bytes.who()?),
            25 => Op::Info(bytes.who()?),
            26 => Op::Table(bytes.who()?, bytes.one_in(2)?),
            27 => Op::Deps(bytes.who()?, bytes.one_in(2)?),
            28 => Op::Open(u32::from(bytes.below(6)?) + 1),
            29 | 30 => Op::Close(u32::from(bytes.below(6)?) + 1),
            _ => match bytes.below(18)? {
                n @ 0..=7 => {
                    let errno = Some(Errno::EIO).filter(|_| n < 4);
                    Op::FailOpen(usize::from(n % 4), errno)
                }
                n @ (8 | 9) => Op::FailAttach(Some(Errno::ENOMEM).filter(|_| n == 8)),
                n @ (10 | 11) => Op::FailQuiesce(Some(Errno::EINTR).filter(|_| n == 10)),
                n @ 12..=15 => Op::Change {
                    disk: usize::from(n % 4),
                    sectors: u64::from(bytes.below(4)?) * 32 + 16,
                    writable: !bytes.one_in(3)?,
                },
                _ => Op::Revoke(usize::from(bytes.below(4)?)),
            },
        })
    }

    /// The command's name and its flags.
    pub fn command(&self) -> (&'static str, u32) {
        let when = |set: &bool, flag: u32| if *set { flag } else { 0 };
        match self {
            Op::Create { minor, read_only, .. } => {
                let persistent = when(&minor.is_some(), flags::PERSISTENT_DEV);
                ("create", persistent | when(read_only, flags::READONLY))
            }
            Op::Reload { read_only, more, .. } => {
                let more = when(more, flags::RELOAD_MORE);
                ("reload", more | when(read_only, flags::READONLY))
            }
            Op::Resume(_) => ("resume", 0),
            Op::Suspend(_) => ("suspend", flags::SUSPEND),
            Op::Clear(_) => ("clear", 0),
            Op::Remove(_, deferred) => ("remove", when(deferred, flags::DEFERRED_REMOVE)),
            Op::RemoveAll(deferred) => ("remove_all", when(deferred, flags::DEFERRED_REMOVE)),
            Op::Rename(..) => ("rename", flags::EXISTS),
            Op::SetUuid(..) => ("rename", flags::UUID),
            Op::Cancel(_) => ("message", 0),
            Op::Info(_) => ("info", flags::EXISTS),
            Op::Table(_, inactive) => {
                let query = when(inactive, flags::QUERY_INACTIVE_TABLE);
                ("table", flags::STATUS_TABLE | query)
            }
            Op::Deps(_, inactive) => ("deps", when(inactive, flags::QUERY_INACTIVE_TABLE)),
            Op::Names => ("names", 0),
            Op::Open(_) | Op::Close(_) | Op::FailOpen(..) => ("", 0),
            Op::FailAttach(_) | Op::FailQuiesce(_) => ("", 0),
            Op::Change { .. } | Op::Revoke(_) => ("", 0),
        }
    }

    /// The device that the command is about.
    pub fn who(&self) -> Option<&Who> {
        match self {
            Op::Reload { who, .. } => Some(who),
            Op::Resume(who) | Op::Suspend(who) | Op::Clear(who) | Op::Cancel(who) => Some(who),
            Op::Remove(who, _) | Op::Table(who, _) | Op::Deps(who, _) => Some(who),
            Op::Rename(who, _) | Op::SetUuid(who, _) | Op::Info(who) => Some(who),
            _ => None,
        }
    }
}
