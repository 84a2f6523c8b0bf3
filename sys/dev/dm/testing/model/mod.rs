// SPDX-License-Identifier: BSD-2-Clause

//! A slow, obvious model of all control state: names, uuids, minors, slots, flags, events, open
//! devices.
//!
//! [`play`] turns bytes into commands, gives each to the model and to a driver on the fake kernel,
//! and compares their answers and their pictures. It is the body of a property test and of a fuzz
//! target.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

mod ops;
mod state;

pub use ops::{Bytes, Line, Op, Who};
pub use state::Model;

use super::kernel::{BLOCK_MAJOR, Disk};
use super::picture::{check, picture};
use super::{Bench, Request};
use crate::{Dev, Errno, Sector};

/// The disks of a game, by path. They are small, so that lines go beyond their ends.
pub fn disks() -> [(&'static str, Disk); 4] {
    [
        ("/dev/m0", Disk::new(30, 0, 64)),
        ("/dev/m1", Disk::new(30, 1, 64)),
        ("/dev/m2", Disk { sector_size: 2048, ..Disk::new(30, 2, 64) }),
        ("/dev/m3", Disk { writable: false, ..Disk::new(30, 3, 64) }),
    ]
}

/// The number of times that each command was answered with each errno: 0 for success.
pub type Tally = BTreeMap<(&'static str, i32), usize>;

/// Plays one game.
///
/// # Panics
/// When the driver does something other than the model.
pub fn play(bytes: &[u8]) -> Tally {
    let bench = Bench::new();
    for (path, disk) in disks() {
        bench.kernel.disk(path, disk);
    }
    let (mut model, mut bytes, mut played) = (Model::default(), Bytes(bytes), Vec::new());
    let mut tally = Tally::new();
    while let Some(op) = Op::read(&mut bytes) {
        played.push(op.clone());
        let story = || format!("{played:#?}");
        match &op {
            Op::Open(minor) => {
                let opened = bench.kernel.unit(*minor).map(|unit| unit.open_node());
                assert_eq!(opened == Some(Ok(())), model.open(*minor), "{}", story());
            }
            Op::Close(minor) => {
                if model.close(*minor)
                    && let Some(unit) = bench.kernel.unit(*minor)
                {
                    unit.close_node();
                }
            }
            Op::FailOpen(disk, errno) => {
                if let Some((_, disk)) = disks().get(*disk) {
                    bench.kernel.fail_open(disk.dev, *errno);
                    model.fail_open(disk.dev, *errno);
                }
            }
            Op::FailAttach(errno) => {
                bench.kernel.fail_attach(*errno);
                model.fail_attach = *errno;
            }
            Op::FailQuiesce(errno) => {
                bench.kernel.fail_quiesce(*errno);
                model.fail_quiesce = *errno;
            }
            Op::Change { disk, sectors, writable } => {
                if let Some((path, disk)) = disks().get(*disk) {
                    let now = Disk { size: Sector(*sectors), writable: *writable, ..disk.clone() };
                    model.change(&now);
                    bench.kernel.disk(path, now);
                }
            }
            Op::Revoke(disk) => {
                if let Some((_, disk)) = disks().get(*disk) {
                    bench.kernel.revoke(disk.dev);
                    model.revoke(disk.dev);
                }
            }
            op => {
                let request = request(op);
                let (expected, reply) = (model.apply(op), bench.send(&request));
                let errno = reply.as_ref().map_or_else(|errno| errno.raw(), |_| 0);
                *tally.entry((op.command().0, errno)).or_default() += 1;
                match (&expected, &reply) {
                    (Ok(keys), Ok(reply)) => {
                        for (key, value) in keys {
                            assert_eq!(reply.at(key), value.as_ref(), "{key}\n{}", story());
                        }
                    }
                    (Err(expected), Err(errno)) => assert_eq!(expected, errno, "{}", story()),
                    _ => panic!("{expected:?} expected, not {reply:?}\n{}", story()),
                }
            }
        }
        assert_eq!(model.picture(), picture(&bench.driver), "\n{}", story());
        check(&bench.driver);
    }
    tally
}

/// The name with this number.
fn name(number: u8) -> String {
    format!("n{number}")
}

/// The uuid with this number.
fn uuid(number: u8) -> String {
    format!("uuid-{number}")
}

/// The component with this number, its path and device number: disks first, then our own devices,
/// then none.
fn component(number: u8) -> (String, Result<Dev, Errno>) {
    let disks = disks();
    match (disks.get(usize::from(number)), number) {
        (Some((path, disk)), n) if n.is_multiple_of(2) => ((*path).into(), Ok(disk.dev)),
        (Some((_, disk)), _) => (format!("{}", disk.dev), Ok(disk.dev)),
        (None, 4..=11) => {
            let dev = Dev::new(BLOCK_MAJOR, u32::from(number) - 3);
            (format!("{BLOCK_MAJOR}:{}", number - 3), dev.ok_or(Errno::ENXIO))
        }
        (None, 12) => ("/dev/char".into(), Err(Errno::ENOTBLK)),
        _ => ("/dev/nosuch".into(), Err(Errno::ENOENT)),
    }
}

/// A line's parameters, with its components as `show` writes them.
fn params(line: &Line, show: &dyn Fn(u8) -> String) -> String {
    match line {
        Line { stripes, chunk: None, .. } => {
            let (number, offset) = stripes.first().copied().unwrap_or_default();
            format!("{} {offset}", show(number))
        }
        Line { stripes, chunk: Some(chunk), .. } => {
            let mut text = format!("{} {chunk}", stripes.len());
            for (number, offset) in stripes {
                text += &format!(" {} {offset}", show(*number));
            }
            text
        }
    }
}

/// A command as userland sends it.
pub fn request(op: &Op) -> Request {
    let (command, flags) = op.command();
    let mut request = Request::new(command).flags(flags);
    if let Some(who) = op.who() {
        request = match who {
            Who::Name(n) => request.with("name", name(*n).as_str()),
            Who::Uuid(n) => request.with("uuid", uuid(*n).as_str()),
            Who::Minor(n) => request.with("minor", u64::from(*n)),
        };
    }
    match op {
        Op::Create { name: n, uuid: u, minor, .. } => {
            request = request.with("name", name(*n).as_str());
            if let Some(u) = u {
                request = request.with("uuid", uuid(*u).as_str());
            }
            if let Some(minor) = minor {
                request = request.with("minor", u64::from(*minor));
            }
            request
        }
        Op::Reload { lines, .. } => {
            let lines = lines.iter().map(|line| {
                let text = match line.kind() {
                    "zero" | "error" => String::new(),
                    _ => params(line, &|number| component(number).0),
                };
                super::request::line(line.start, line.length, line.kind(), &text).into()
            });
            request.with("cmd_data", lines.collect::<Vec<_>>())
        }
        Op::Rename(_, n) => request.with("cmd_data", alloc::vec![name(*n).as_str().into()]),
        Op::SetUuid(_, n) => request.with("cmd_data", alloc::vec![uuid(*n).as_str().into()]),
        Op::Cancel(_) => request.with("message", "@cancel_deferred_remove"),
        _ => request,
    }
}

/// A component's size, its sectors' size in bytes, and `true` if it takes writes.
type Shape = (Sector, u32, bool);
