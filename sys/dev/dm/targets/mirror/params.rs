// SPDX-License-Identifier: BSD-2-Clause

//! The parameters of a `mirror` line: read and checked, made a mirror of, and written as `table`
//! shows them.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32};

use dm_sync::Spin;

use super::blocks::{self, Blocks};
use super::failure::Errors;
use super::{JOBS, Leg, Mirror, State, format};
use crate::lane::{Aside, Signal};
use crate::mistake::Mistake;
use crate::target::{ComponentIndex, Devs, LineSpec, Made};
use crate::targets::bits::{Bits, SharedBits};
use crate::units::DEV_BSIZE;
use crate::{Errno, Sector, limits};

/// The log that the table names.
pub(super) struct Log {
    /// The log's device; `None` for a log in memory (`core`).
    pub(super) disk: Option<ComponentIndex>,
    /// The log's length.
    pub(super) sectors: Sector,
    /// The length of one of its device's sectors.
    pub(super) unit: Sector,
    /// The table's word about the content, if it has one.
    pub(super) word: Option<Word>,
}

/// The table's word about the content that it finds (`sync`, `nosync`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// `sync`: everything is to be copied.
    Sync,
    /// `nosync`: nothing needs to be copied.
    NoSync,
}

/// The features that the table names.
#[derive(Clone, Copy, Default)]
pub(super) struct Features {
    /// `true` if a write that a leg has not taken waits for another table: see `failure.rs`.
    pub(super) handle_errors: bool,
    /// `true` if such a write does not wait; only with `handle_errors`.
    pub(super) keep_log: bool,
}

fn invalid(why: &'static str) -> Mistake {
    Mistake::new(Errno::EINVAL, why)
}

/// Makes the target of a line: [`TargetType::new`](crate::target::TargetType::new).
pub(super) fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    let (mut log, region, mut features) = new_log(line)?;
    let regions = line.length.0.div_ceil(region);
    if regions > limits::MIRROR_REGIONS {
        return Err(invalid("too many regions")
            .about(format_args!("{regions}, of {} at most", limits::MIRROR_REGIONS)));
    }
    log.sectors = format::sectors(regions, (log.unit.0 as u32).wrapping_mul(DEV_BSIZE))
        .ok_or(invalid("too many regions"))?;
    if let Some(disk) = log.disk
        && line.size(disk) < log.sectors
    {
        return Err(invalid("the log's device is too small").about(format_args!(
            "{} sectors, of {} that {regions} regions take",
            line.size(disk),
            log.sectors
        )));
    }
    let legs = new_legs(line, region)?;
    features.add(line)?;
    line.params.end()?;
    // Two bytes and four bits for each region.
    let bytes = usize::try_from(regions).unwrap_or(usize::MAX).saturating_mul(5) / 2;
    line.reserve(bytes.saturating_add(size_of::<State>()).saturating_add(blocks::FLAGS))?;
    let state = State {
        clean: Bits::new(regions),
        logged: Bits::new(regions),
        idle: Bits::new(regions),
        writes: (0..regions).map(|_| 0).collect(),
        blocks: Blocks::new(),
        recovering: None,
        spoilt: false,
        synced: 0,
        in_sync: false,
        started: false,
        marked: false,
        log_busy: false,
        flushing: false,
        log_failed: None,
        errors: legs.iter().map(|_| Errors::default()).collect(),
        waiters: 0,
    };
    let mirror = Mirror {
        legs,
        log,
        length: line.length,
        shift: region.trailing_zeros(),
        regions,
        features,
        sync: SharedBits::new(regions),
        whole: AtomicBool::new(false),
        source: AtomicU32::new(0),
        used: AtomicBool::new(false),
        state: Spin::new(state),
        waiting: Aside::new(JOBS),
        marking: Aside::new(JOBS),
        flushes: Aside::new(JOBS),
        held: Aside::new(JOBS),
        changed: Signal::new(),
        dirtied: Signal::new(),
    };
    // The state that a status shows before the table is started.
    mirror.state.lock().synced = mirror.first_sync();
    Ok(Made::serves(mirror))
}

/// Reads the log's type and arguments, and sectors in a region.
fn new_log(line: &mut LineSpec<'_>) -> Result<(Log, u64, Features), Mistake> {
    let kind = line.params.word("the log's type is missing")?;
    let mut left = line.params.number("the number of log arguments is no number")?;
    let take = |left: u64, why| left.checked_sub(1).ok_or(invalid(why));
    let disk = match kind {
        "core" => None,
        "disk" => {
            left = take(left, "the log's device is missing")?;
            let path = line.params.path()?;
            Some(line.component(path, Sector::ZERO, Sector::ZERO)?)
        }
        _ => return Err(invalid("no such log type").about(format_args!("core or disk"))),
    };
    left = take(left, "the region size is missing")?;
    let region = u64::from(line.params.small_number("the region size is not a number of sectors")?);
    if !region.is_power_of_two() || region < 2 || region > line.length.0 {
        return Err(invalid("the region size is wrong").about(format_args!(
            "{region} sectors, where a power of two is wanted from 2 to the line's length"
        )));
    }
    let (mut word, mut features) = (None, Features::default());
    while left > 0 {
        left = left.wrapping_sub(1);
        let named = line.params.word("a log argument is missing")?;
        match named {
            "sync" if word.is_none() => word = Some(Word::Sync),
            "nosync" if word.is_none() => word = Some(Word::NoSync),
            // As lvm writes it that knows no features.
            "block_on_error" if !features.handle_errors => features.handle_errors = true,
            _ => return Err(invalid("the log takes no such argument")),
        }
    }
    let unit = disk.map_or(DEV_BSIZE, |disk| line.sector_size(disk));
    let unit = Sector(u64::from(unit / DEV_BSIZE).max(1));
    Ok((Log { disk, sectors: Sector::ZERO, unit, word }, region, features))
}

/// Reads the legs. A region must be whole sectors of each component.
fn new_legs(line: &mut LineSpec<'_>, region: u64) -> Result<Box<[Leg]>, Mistake> {
    let count = line.params.number("the number of legs is no number")?;
    if !(2..=limits::MIRROR_LEGS as u64).contains(&count) {
        return Err(invalid("the number of legs is wrong")
            .about(format_args!("{count}, where 2 to {} can be", limits::MIRROR_LEGS)));
    }
    let mut legs = Vec::new();
    for _ in 0..count {
        let path = line.params.path()?;
        let offset = Sector(line.params.number("an offset is not a number of sectors")?);
        let component = line.component(path, offset, line.length)?;
        line.aligned(component, Sector(region))?;
        legs.push(Leg { component, offset });
    }
    Ok(legs.into())
}

impl Features {
    /// Adds those that the table names at its end.
    fn add(&mut self, line: &mut LineSpec<'_>) -> Result<(), Mistake> {
        line.params.features(|word| {
            match word {
                "handle_errors" => self.handle_errors = true,
                "keep_log" => self.keep_log = true,
                _ => return false,
            }
            true
        })?;
        if self.keep_log && !self.handle_errors {
            return Err(invalid("keep_log is of use with handle_errors only"));
        }
        Ok(())
    }

    /// `true` if writes that some leg has not taken wait for another table.
    pub(super) fn hold(self) -> bool {
        self.handle_errors && !self.keep_log
    }
}

impl Mirror {
    /// Writes the line's parameters: [`Target::table`](crate::target::Target::table).
    pub(super) fn write_params(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        let (region, words) = (1u64.wrapping_shl(self.shift), u64::from(self.log.word.is_some()));
        match self.log.disk {
            None => write!(out, "core {} {region}", words.wrapping_add(1))?,
            Some(disk) => {
                write!(out, "disk {} {} {region}", words.wrapping_add(2), devs.get(disk))?;
            }
        }
        out.write_str(match self.log.word {
            None => "",
            Some(Word::Sync) => " sync",
            Some(Word::NoSync) => " nosync",
        })?;
        write!(out, " {}", self.legs.len())?;
        for leg in &self.legs {
            write!(out, " {} {}", devs.get(leg.component), leg.offset)?;
        }
        out.write_str(match (self.features.handle_errors, self.features.keep_log) {
            (false, _) => "",
            (true, false) => " 1 handle_errors",
            (true, true) => " 2 handle_errors keep_log",
        })
    }
}
