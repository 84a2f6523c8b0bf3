// SPDX-License-Identifier: BSD-2-Clause

//! The parameters of a `snapshot` line, which are also those of `snapshot-merge`: read and checked,
//! made a snapshot of, and written as `table` shows them.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::cow::{self, Cow, Kind};
use super::format::{self, Geometry};
use super::origin::Origin;
use super::{CHUNK, Snapshot, WAITING};
use crate::mistake::Mistake;
use crate::target::{Devs, LineSpec, Made};
use crate::units::DEV_BSIZE;
use crate::{Errno, Sector, limits};

/// The features that the table names.
#[derive(Clone, Copy, Default)]
pub(super) struct Features {
    /// `discard_zeroes_cow`: a discard of a chunk that has an exception makes that read as zeroes.
    pub(super) zeroes: bool,
    /// `discard_passdown_origin`: discards go to the origin, too.
    pub(super) passes: bool,
}

/// The number of the next table.
static TABLES: AtomicU64 = AtomicU64::new(1);

/// A mistake of the user's, for EINVAL.
pub(super) fn invalid(why: &'static str) -> Mistake {
    Mistake::new(Errno::EINVAL, why)
}

/// Makes the target of a `snapshot` line: [`TargetType::new`](crate::target::TargetType::new).
pub(super) fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    Ok(Made::serves(parse(line, false)?))
}

/// Makes a snapshot of a line's parameters; `merges` for a line of `snapshot-merge`, whose origin
/// is written.
pub(super) fn parse(line: &mut LineSpec<'_>, merges: bool) -> Result<Snapshot, Mistake> {
    let origin_path = line.params.path()?;
    let origin = line.only_read(origin_path, Sector::ZERO, line.length)?;
    let path = line.params.path()?;
    let store = line.component(path, Sector::ZERO, Sector::ZERO)?;
    if store == origin {
        return Err(invalid("a snapshot's store lies on its origin"));
    }
    let kind = new_kind(line.params.word("the kind of store is missing")?)?;
    let named = line.params.small_number("the chunk size is not a number of sectors")?;
    let least = line.sector_size(store).max(line.sector_size(origin)) / DEV_BSIZE;
    let chunk = if named == 0 { CHUNK.max(least) } else { named };
    let geometry = Geometry::new(chunk).filter(|_| chunk >= least).ok_or_else(|| {
        invalid("the chunk size is wrong").about(format_args!(
            "{named} sectors, where a power of two is wanted from {least} to {}",
            1u32 << 21
        ))
    })?;
    let chunks = geometry.chunk_of(line.size(store));
    if chunks > limits::SNAPSHOT_CHUNKS {
        return Err(invalid("the store has too many chunks")
            .about(format_args!("{chunks}, of {} at most", limits::SNAPSHOT_CHUNKS)));
    }
    if kind != Kind::Transient && chunks < format::FIRST {
        return Err(invalid("the store is too small")
            .about(format_args!("{} sectors, of two chunks at least", line.size(store))));
    }
    let features = new_features(line)?;
    line.params.end()?;
    if features.passes || merges {
        // Discards or merging write the origin.
        line.component(origin_path, Sector::ZERO, line.length)?;
    }
    let unit = line.sector_size(store) as usize;
    line.reserve(WAITING.saturating_add(cow::BYTES))?;
    let purse = line.purse();
    let cow = line.shared(store, |cow: &Cow| !cow.is_gone(), || Cow::new(&purse, unit));
    let shared = line.shared(origin, Origin::fits, Origin::default);
    {
        let mut state = cow.state.lock();
        let dev = line.dev(origin);
        if state.closing {
            return Err(Mistake::new(Errno::EBUSY, "the table that has the store is going"));
        }
        if state.tables >= 2 {
            return Err(Mistake::new(Errno::EINVAL, "two tables use the store already"));
        }
        if state.origin.is_some_and(|of| of != dev) {
            return Err(Mistake::new(Errno::EINVAL, "the store is another origin's"));
        }
        let opening = line.opening(store);
        if state.tables > 0 && state.opening != opening {
            // What is in memory may be another disk's; or that of this disk, without what could not
            // be written while it was away.
            return Err(invalid("a table has the store from before its disk was taken away"));
        }
        (state.origin, state.opening) = (Some(dev), opening);
        if !state.loaded && state.tables == 0 {
            // The state that a status shows before the table is started.
            let next_free = if kind == Kind::Transient { 0 } else { format::FIRST };
            (state.kind, state.geometry, state.next_free) = (kind, geometry, next_free);
            (state.cow_size, state.origin_size) = (line.size(store), line.size(origin));
        }
        state.tables = state.tables.saturating_add(1);
    }
    shared.enter();
    Ok(Snapshot {
        table: TABLES.fetch_add(1, Ordering::Relaxed),
        cow,
        signals: Arc::default(),
        shared,
        purse,
        origin,
        store,
        unit: Sector((unit / DEV_BSIZE as usize) as u64),
        origin_unit: Sector(u64::from(line.sector_size(origin) / DEV_BSIZE)),
        length: line.length,
        kind,
        chunk,
        named,
        features,
        // Set when the origin knows of it.
        merges: false,
        begun: AtomicBool::new(false),
    })
}

fn new_kind(word: &str) -> Result<Kind, Mistake> {
    let mut letters = word.bytes().map(|byte| byte.to_ascii_uppercase());
    match (letters.next(), letters.next()) {
        (Some(b'P'), None) => Ok(Kind::Persistent { overflow: false }),
        (Some(b'P'), Some(b'O')) => Ok(Kind::Persistent { overflow: true }),
        (Some(b'N'), _) => Ok(Kind::Transient),
        _ => Err(invalid("no such kind of store").about(format_args!("P, PO or N"))),
    }
}

fn new_features(line: &mut LineSpec<'_>) -> Result<Features, Mistake> {
    let mut features = Features::default();
    line.params.features(|word| {
        match word {
            "discard_zeroes_cow" => features.zeroes = true,
            "discard_passdown_origin" => features.passes = true,
            _ => return false,
        }
        true
    })?;
    if features.passes && !features.zeroes {
        return Err(invalid("discard_passdown_origin is of use with discard_zeroes_cow only"));
    }
    Ok(features)
}

impl Snapshot {
    /// Writes the line's parameters: [`Target::table`](crate::target::Target::table).
    pub(super) fn write_params(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        let chunk = {
            let state = self.cow.state.lock();
            let kept = state.loaded && state.is_kept_by(self.table);
            let named = if self.is_source(&state) { 0 } else { u64::from(self.named) };
            if kept { state.geometry.chunk().0 } else { named }
        };
        let kind = match self.kind {
            Kind::Persistent { overflow: false } => "P",
            Kind::Persistent { overflow: true } => "PO",
            Kind::Transient => "N",
        };
        write!(out, "{} {} {kind} {chunk}", devs.get(self.origin), devs.get(self.store))?;
        out.write_str(match (self.features.zeroes, self.features.passes) {
            (false, _) => "",
            (true, false) => " 1 discard_zeroes_cow",
            (true, true) => " 2 discard_zeroes_cow discard_passdown_origin",
        })
    }
}
