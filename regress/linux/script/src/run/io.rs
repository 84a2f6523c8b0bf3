// SPDX-License-Identifier: BSD-2-Clause

//! Carries out I/O.

use crate::data::{self, SECTOR};
use crate::script::{Io, IoKind};
use crate::side::Node;

/// Carries out an I/O, in as many requests as it has; what failed or was short, and a sum.
pub(super) fn perform(node: &dyn Node, io: &Io) -> Vec<String> {
    if io.kind == IoKind::Flush {
        return vec![node.flush().map_or_else(|error| error, |()| "ok".into())];
    }
    let mut said = Vec::new();
    let mut read = Vec::new();
    let mut bad: Option<(u64, u64, String)> = None;
    let tell = |bad: &mut Option<(u64, u64, String)>, said: &mut Vec<String>| {
        if let Some((from, to, what)) = bad.take() {
            said.push(format!("{from}+{} {what}", to - from));
        }
    };
    let end = io.sector.saturating_add(io.sectors);
    let mut at = io.sector;
    while at < end {
        let sectors = io.by.min(end - at);
        let bytes = sectors as usize * SECTOR;
        let result = match io.kind {
            IoKind::Read => {
                let mut data = vec![0xa5; bytes];
                let result = node.read(at, &mut data);
                if let Ok(got) = result {
                    read.extend_from_slice(data.get(..got).unwrap_or_default());
                }
                result
            }
            IoKind::Write(Some(seed)) => node.write(at, &data::pattern(seed, at, sectors)),
            IoKind::Write(None) => node.write(at, &vec![0; bytes]),
            IoKind::Discard => node.discard(at, sectors).map(|()| bytes),
            IoKind::Flush => Ok(bytes),
        };
        let wrong = match result {
            Ok(done) if done == bytes => None,
            Ok(done) => Some(format!("short, {done} bytes of {bytes}")),
            Err(error) => Some(error),
        };
        match (&mut bad, wrong) {
            // The same again: one line for all.
            (Some((_, to, what)), Some(new)) if *what == new && *to == at => *to = at + sectors,
            (_, new) => {
                tell(&mut bad, &mut said);
                bad = new.map(|what| (at, at + sectors, what));
            }
        }
        at += sectors;
    }
    tell(&mut bad, &mut said);
    if io.kind == IoKind::Read {
        said.push(format!("{} bytes, sum {:016x}", read.len(), data::checksum(&read)));
    } else if said.is_empty() {
        said.push("ok".into());
    }
    said
}
