// SPDX-License-Identifier: BSD-2-Clause

//! `twin LOG DEV DEV`: two copies of one content, at the start of two components, and a log of
//! which regions may differ. It tries the engine and the simulation only.
//!
//! The log's sector 0 holds a magic number and a byte for each region: 1 where the copies may
//! differ. A write marks its region there before it goes to the copies. The background clears marks
//! of regions without writes, after a flush of both copies. A start copies what is marked.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use dm_sync::Spin;

use crate::job::{Job, Op, Place};
use crate::lane::{Aside, Lane, Signal};
use crate::mistake::Mistake;
use crate::target::{ComponentIndex, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType};
use crate::testing::sim::{Disk, Game, Rng, SECTOR, World};
use crate::worker::{Needs, Quiesce, Worker};
use crate::{Errno, Sector};

/// Sectors of a region.
const REGION: u64 = 8;
/// Regions that the log has room for.
const REGIONS: usize = SECTOR - MAGIC.len();
const MAGIC: &[u8] = b"twin log";
/// Jobs of a line.
const JOBS: usize = 12;

/// The bug of a variant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Nothing.
    None,
    /// Marks are cleared although the copies were not flushed.
    Unflushed,
    /// A write is acknowledged before it is done.
    Early,
    /// The copies are written before the log.
    LateLog,
    /// The log is written without FUA.
    CachedLog,
    /// A flush reaches the second copy only: a start takes the first for right.
    HalfFlush,
    /// A write with FUA is written without.
    NoFua,
}

static TYPE: TargetType =
    TargetType { name: "twin", version: [1, 0, 0], new: |l| new(l, Bug::None) };
static UNFLUSHED: TargetType =
    TargetType { name: "twin-unflushed", version: [1, 0, 0], new: |l| new(l, Bug::Unflushed) };
static EARLY: TargetType =
    TargetType { name: "twin-early", version: [1, 0, 0], new: |l| new(l, Bug::Early) };
static LATE_LOG: TargetType =
    TargetType { name: "twin-late-log", version: [1, 0, 0], new: |l| new(l, Bug::LateLog) };
static CACHED_LOG: TargetType =
    TargetType { name: "twin-cached-log", version: [1, 0, 0], new: |l| new(l, Bug::CachedLog) };
static HALF_FLUSH: TargetType =
    TargetType { name: "twin-half-flush", version: [1, 0, 0], new: |l| new(l, Bug::HalfFlush) };
static NO_FUA: TargetType =
    TargetType { name: "twin-no-fua", version: [1, 0, 0], new: |l| new(l, Bug::NoFua) };

static TYPES: &[&TargetType] =
    &[&TYPE, &UNFLUSHED, &EARLY, &LATE_LOG, &CACHED_LOG, &HALF_FLUSH, &NO_FUA];

/// The state of a region.
#[derive(Clone, Copy, Default)]
struct Region {
    /// The number of writes in flight.
    writes: u32,
    /// `true` if the log in memory says that the copies may differ.
    marked: bool,
    /// `true` if the log on its disk says so.
    logged: bool,
    /// `true` if the copies do differ: a write failed. Until the next start only the first copy is
    /// right.
    split: bool,
    /// `true` while the region's mark is being cleared.
    clearing: bool,
}

/// The target of a line.
pub struct Twin {
    bug: Bug,
    log: ComponentIndex,
    copies: [ComponentIndex; 2],
    regions: Spin<Vec<Region>>,
    /// `true` while a lane writes the log.
    logging: Spin<bool>,
    /// Jobs whose regions are being written or logged.
    waiting: Aside,
    changed: Signal,
    turn: AtomicU32,
}

fn new(line: &mut LineSpec<'_>, bug: Bug) -> Result<Made, Mistake> {
    let invalid = |why| Mistake::new(Errno::EINVAL, why);
    let regions = line.length.0.div_ceil(REGION) as usize;
    if regions > REGIONS {
        return Err(invalid("too long for its log"));
    }
    let log = line.params.path()?;
    let copies = [line.params.path()?, line.params.path()?];
    line.params.end()?;
    let log = line.component(log, Sector::ZERO, Sector(1))?;
    let length = line.length;
    let copies = [
        line.component(copies[0], Sector::ZERO, length)?,
        line.component(copies[1], Sector::ZERO, length)?,
    ];
    Ok(Made::serves(Twin {
        bug,
        log,
        copies,
        regions: Spin::new(vec![Region::default(); regions]),
        logging: Spin::new(false),
        waiting: Aside::new(JOBS),
        changed: Signal::new(),
        turn: AtomicU32::new(0),
    }))
}

impl Target for Twin {
    fn kind(&self) -> &'static TargetType {
        let bug = TYPES.iter().zip([
            Bug::None,
            Bug::Unflushed,
            Bug::Early,
            Bug::LateLog,
            Bug::CachedLog,
            Bug::HalfFlush,
            Bug::NoFua,
        ]);
        bug.into_iter().find(|(_, bug)| *bug == self.bug).map_or(&TYPE, |(kind, _)| *kind)
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        // One region at a time.
        let left = REGION - io.start.0 % REGION;
        Mapping::Take { length: Sector(io.length.0.min(left)), queue: usize::from(io.is_write()) }
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        for component in self.copies {
            each(Extent { component, start: Sector::ZERO, length });
        }
        each(Extent { component: self.log, start: Sector::ZERO, length: Sector(1) });
    }
}

impl Twin {
    fn places(&self, sector: Sector) -> [Place; 2] {
        self.copies.map(|component| Place { component, sector })
    }

    /// Writes the log. `true` if it is on its disk.
    async fn write_log(&self, lane: &mut Lane) -> bool {
        let mut marks = Vec::new();
        let buffer = lane.buffer();
        buffer[..SECTOR].fill(0);
        buffer[..MAGIC.len()].copy_from_slice(MAGIC);
        for (byte, region) in buffer[MAGIC.len()..].iter_mut().zip(self.regions.lock().iter()) {
            *byte = region.marked.into();
            marks.push(region.marked);
        }
        let place = Place { component: self.log, sector: Sector::ZERO };
        let fua = self.bug != Bug::CachedLog;
        let ok = lane.write(&[place], Sector(1), fua).await.ok().is_ok();
        for (region, mark) in self.regions.lock().iter_mut().zip(marks) {
            // A log that failed to be written may be there all the same.
            region.logged = if ok { mark } else { region.logged && mark };
        }
        ok
    }

    /// Has a region marked in the log on its disk.
    async fn mark(&self, region: usize, lane: &mut Lane) -> Result<(), Errno> {
        loop {
            if self.regions.lock()[region].logged {
                return Ok(());
            }
            let mine = !core::mem::replace(&mut *self.logging.lock(), true);
            if mine {
                self.regions.lock()[region].marked = true;
                let ok = self.write_log(lane).await;
                *self.logging.lock() = false;
                lane.resubmit(&self.waiting);
                lane.raise(&self.changed);
                if !ok {
                    return Err(Errno::EIO);
                }
            } else {
                let free = || (!*self.logging.lock()).then_some(());
                lane.until(&self.changed, free).await;
            }
        }
    }

    async fn write(&self, mut job: Job, lane: &mut Lane) {
        let region = (job.start().0 / REGION) as usize;
        {
            let mut regions = self.regions.lock();
            let state = &mut regions[region];
            // One write of a region at a time, or the copies get them in different orders. A write
            // that waits, for another or for the log, holds no lane: it is queued anew.
            if state.writes > 0 || !state.logged && *self.logging.lock() {
                drop(regions);
                return self.waiting.push(job);
            }
            state.writes += 1;
            state.marked = true;
            // A flush in flight may not cover it.
            state.clearing = false;
        }
        let places = self.places(job.start());
        if self.bug == Bug::LateLog {
            let _ = self.send(&mut job, &places, lane).await;
        }
        let result = match self.mark(region, lane).await {
            Ok(()) if self.bug == Bug::Early => return self.write_early(job, region, lane).await,
            Ok(()) => self.send(&mut job, &places, lane).await,
            Err(errno) => Err(errno),
        };
        {
            let state = &mut self.regions.lock()[region];
            state.writes -= 1;
            state.split |= result.is_err();
        }
        lane.resubmit(&self.waiting);
        match result {
            Err(_) if lane.keeps_failed() => job.give_back(),
            result => job.end(result),
        }
    }

    async fn send(&self, job: &mut Job, places: &[Place], lane: &mut Lane) -> Result<(), Errno> {
        if job.op() == Op::Discard {
            for place in places {
                match lane.discard(*place, job.length()).await {
                    Ok(()) | Err(Errno::EOPNOTSUPP) => {}
                    Err(errno) => return Err(errno),
                }
            }
            return Ok(());
        }
        if self.bug == Bug::NoFua {
            let bytes = job.with_data(|data| data.to_vec()).unwrap_or_default();
            lane.buffer()[..bytes.len()].copy_from_slice(&bytes);
            return lane.write(places, job.length(), false).await.ok();
        }
        lane.send(job, places).await.ok()
    }

    /// Answers a write, and then writes: the bug [`Bug::Early`].
    async fn write_early(&self, mut job: Job, region: usize, lane: &mut Lane) {
        let (places, length) = (self.places(job.start()), job.length());
        let bytes = job.with_data(|data| data.to_vec()).unwrap_or_default();
        lane.buffer()[..bytes.len()].copy_from_slice(&bytes);
        let is_write = job.is_write();
        job.done();
        if is_write {
            let _ = lane.write(&places, length, false).await;
        }
        self.regions.lock()[region].writes -= 1;
        lane.resubmit(&self.waiting);
    }

    async fn read(&self, job: Job, lane: &mut Lane) {
        let region = (job.start().0 / REGION) as usize;
        let split = self.regions.lock()[region].split;
        let places = self.places(job.start());
        // The commonest case needs no lane that waits.
        if !split && region.is_multiple_of(3) && !lane.keeps_failed() {
            return job.forward(places[0]);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) as usize % 2;
        let first = if split { 0 } else { turn };
        let mut result = lane.send(&job, &[places[first]]).await.ok();
        if result.is_err() && !split {
            result = lane.send(&job, &[places[1 - first]]).await.ok();
        }
        match result {
            Err(_) if lane.keeps_failed() => job.give_back(),
            result => job.end(result),
        }
    }

    /// Clears the marks of regions without writes.
    async fn clear(&self, lane: &mut Lane) {
        if core::mem::replace(&mut *self.logging.lock(), true) {
            return;
        }
        let mut some = false;
        for region in self.regions.lock().iter_mut() {
            region.clearing = region.marked && region.writes == 0 && !region.split;
            some |= region.clearing;
        }
        if some {
            let flushed = self.bug == Bug::Unflushed || lane.flush(&self.copies).await.ok().is_ok();
            for region in self.regions.lock().iter_mut() {
                if core::mem::take(&mut region.clearing) && flushed {
                    region.marked = false;
                    region.logged = false;
                }
            }
            let _ = self.write_log(lane).await;
        }
        *self.logging.lock() = false;
        lane.resubmit(&self.waiting);
        lane.raise(&self.changed);
    }
}

impl Worker for Twin {
    fn needs(&self) -> Needs {
        Needs {
            queues: vec![2, 3],
            background: 1,
            jobs: JOBS,
            fan: 1,
            width: 2,
            buffer: REGION as usize * SECTOR,
            background_buffer: SECTOR,
            residents: 0,
            resident_buffer: 0,
            grows: false,
            control_buffer: REGION as usize * SECTOR,
            threads: 2,
            ..Needs::default()
        }
    }

    async fn serve(&self, job: Job, lane: &mut Lane) {
        match job.op() {
            Op::Read => self.read(job, lane).await,
            Op::Write | Op::Discard => self.write(job, lane).await,
            Op::Flush => {
                let first = usize::from(self.bug == Bug::HalfFlush);
                let result = lane.flush(&self.copies[first..]).await.ok();
                job.end(result);
            }
        }
    }

    async fn background(&self, _number: usize, lane: &mut Lane) {
        while lane.sleep(20).await {
            self.clear(lane).await;
        }
    }

    async fn start(&self, lane: &mut Lane) -> Result<(), Errno> {
        let log = Place { component: self.log, sector: Sector::ZERO };
        lane.read(log, Sector(1)).await?;
        let sector = &lane.buffer()[..SECTOR];
        // Without a log nothing is known.
        let fresh = !sector.starts_with(MAGIC);
        let marks: Vec<bool> =
            sector[MAGIC.len()..].iter().map(|byte| fresh || *byte != 0).collect();
        for region in self.regions.lock().iter_mut() {
            *region = Region::default();
        }
        let regions = self.regions.lock().len();
        for (region, _) in marks.iter().take(regions).enumerate().filter(|(_, mark)| **mark) {
            let [from, to] = self.places(Sector(region as u64 * REGION));
            lane.read(from, Sector(REGION)).await?;
            lane.write(&[to], Sector(REGION), false).await.ok()?;
        }
        // The first too: what was copied from its cache must not be lost there.
        lane.flush(&self.copies).await.ok()?;
        if self.write_log(lane).await { Ok(()) } else { Err(Errno::EIO) }
    }

    async fn stop(&self, lane: &mut Lane) {
        self.clear(lane).await;
    }

    fn suspending(&self, _how: Quiesce) {}
}

/// A game of `twin`.
pub struct TwinGame {
    kind: &'static str,
    regions: u64,
    lies: bool,
}

impl TwinGame {
    /// A game of this variant of twin.
    pub fn new(kind: &'static str) -> TwinGame {
        TwinGame { kind, regions: 0, lies: false }
    }

    /// This game on disks that acknowledge flushes without doing them.
    pub fn lying(self) -> TwinGame {
        TwinGame { lies: true, ..self }
    }
}

impl Game for TwinGame {
    fn types(&self) -> &'static [&'static TargetType] {
        TYPES
    }

    fn disks(&mut self, rng: &mut Rng) -> Vec<Disk> {
        self.regions = rng.between(1, 12);
        let sectors = self.regions * REGION;
        let mut disks: Vec<Disk> = vec![Disk::new(1)];
        disks.extend((0..2).map(|_| Disk::junk(sectors, rng)));
        for disk in &mut disks {
            disk.faults.lies = self.lies;
        }
        disks
    }

    fn table(&mut self, _device: usize, _rng: &mut Rng) -> String {
        format!("0 {} {} d0 d1 d2", self.regions * REGION, self.kind)
    }

    // Copies may differ in what was discarded.
    fn discards(&self) -> bool {
        false
    }

    fn stopped(&mut self, world: &World, _device: usize) {
        let log = world.disk(0, |disk| disk.content(0, 1).to_vec());
        assert!(log.starts_with(MAGIC), "the log is not there");
        for (region, mark) in (0..self.regions).zip(&log[MAGIC.len()..]) {
            let copy = |disk| world.disk(disk, |d| d.content(region * REGION, REGION).to_vec());
            let same = copy(1) == copy(2);
            assert!(*mark != 0 || same, "region {region} is not marked, but its copies differ");
        }
    }
}
