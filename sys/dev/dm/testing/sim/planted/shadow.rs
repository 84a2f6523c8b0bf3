// SPDX-License-Identifier: BSD-2-Clause

//! `shadow MAP DATA`: chunks that are never overwritten in place. Each has two slots on DATA, and a
//! byte in sector 0 of MAP says which of them is current: a write fills the other and then changes
//! the byte. So each write of a chunk happens wholly or not at all, and survives a crash when it is
//! answered; a commit before its data is the bug to be found.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use dm_sync::Spin;

use crate::job::{Job, Op, Place};
use crate::lane::Lane;
use crate::mistake::Mistake;
use crate::target::{ComponentIndex, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType};
use crate::testing::sim::{Disk, Game, Rng, SECTOR, World};
use crate::worker::{Needs, Worker};
use crate::{Errno, Sector};

/// Sectors of a chunk.
const CHUNK: u64 = 8;

/// The bug of a variant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    /// Nothing.
    None,
    /// The map is written before the data.
    Committed,
    /// The data is not flushed before the map is written.
    Unflushed,
}

static TYPE: TargetType =
    TargetType { name: "shadow", version: [1, 0, 0], new: |l| new(l, Bug::None) };
static COMMITTED: TargetType =
    TargetType { name: "shadow-committed", version: [1, 0, 0], new: |l| new(l, Bug::Committed) };
static UNFLUSHED: TargetType =
    TargetType { name: "shadow-unflushed", version: [1, 0, 0], new: |l| new(l, Bug::Unflushed) };
static TYPES: &[&TargetType] = &[&TYPE, &COMMITTED, &UNFLUSHED];

/// The target of a line.
struct Shadow {
    bug: Bug,
    map: ComponentIndex,
    data: ComponentIndex,
    /// The current slot of each chunk. Only the one serving lane and the control lane change it.
    current: Spin<Vec<u8>>,
}

fn new(line: &mut LineSpec<'_>, bug: Bug) -> Result<Made, Mistake> {
    let chunks = line.length.0 / CHUNK;
    if chunks > SECTOR as u64 || !line.length.0.is_multiple_of(CHUNK) {
        return Err(Mistake::new(Errno::EINVAL, "not a length of a shadow"));
    }
    let (map, data) = (line.params.path()?, line.params.path()?);
    line.params.end()?;
    let map = line.component(map, Sector::ZERO, Sector(1))?;
    let data = line.component(data, Sector::ZERO, Sector(2 * line.length.0))?;
    let current = Spin::new(vec![0; chunks as usize]);
    Ok(Made::serves(Shadow { bug, map, data, current }))
}

impl Shadow {
    fn slot(&self, chunk: u64, slot: u8) -> Place {
        let sector = Sector((2 * chunk + u64::from(slot)) * CHUNK);
        Place { component: self.data, sector }
    }

    /// Writes `map` to MAP.
    async fn commit(&self, map: &[u8], lane: &mut Lane) -> Result<(), Errno> {
        let at = CHUNK as usize * SECTOR;
        let sector = &mut lane.buffer()[at..at + SECTOR];
        sector.fill(0);
        sector[..map.len()].copy_from_slice(map);
        let place = Place { component: self.map, sector: Sector::ZERO };
        lane.write_at(&[place], Sector(1), Sector(CHUNK), true).await.ok()
    }

    async fn write(&self, job: &mut Job, lane: &mut Lane) -> Result<(), Errno> {
        let chunk = job.start().0 / CHUNK;
        let mut map = self.current.lock().clone();
        let old = map[chunk as usize];
        map[chunk as usize] = 1 - old;
        if job.length().0 < CHUNK {
            lane.read(self.slot(chunk, old), Sector(CHUNK)).await?;
        }
        let at = (job.start().0 % CHUNK) as usize * SECTOR;
        job.with_data(|data| lane.buffer()[at..at + data.len()].copy_from_slice(data));
        if self.bug == Bug::Committed {
            self.commit(&map, lane).await?;
        }
        let fill = lane.write(&[self.slot(chunk, 1 - old)], Sector(CHUNK), false).await;
        fill.ok()?;
        if self.bug != Bug::Unflushed {
            lane.flush(&[self.data]).await.ok()?;
        }
        // If this fails, the new slot may be current after a power cut: its content is one that the
        // device may show.
        self.commit(&map, lane).await?;
        *self.current.lock() = map;
        Ok(())
    }
}

impl Target for Shadow {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        let (chunk, within) = (io.start.0 / CHUNK, io.start.0 % CHUNK);
        let length = Sector(io.length.0.min(CHUNK - within));
        match io.op {
            Op::Read => {
                let slot = self.current.lock()[chunk as usize];
                let place = self.slot(chunk, slot);
                let start = Sector(place.sector.0 + within);
                Mapping::Send { component: place.component, start, length }
            }
            Op::Discard => Mapping::Fail { length, error: Errno::EOPNOTSUPP },
            _ => Mapping::Take { length, queue: 0 },
        }
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        let length = Sector(2 * length.0);
        each(Extent { component: self.data, start: Sector::ZERO, length });
        each(Extent { component: self.map, start: Sector::ZERO, length: Sector(1) });
    }
}

impl Worker for Shadow {
    fn needs(&self) -> Needs {
        Needs {
            queues: vec![1],
            jobs: 6,
            buffer: (CHUNK as usize + 1) * SECTOR,
            control_buffer: SECTOR,
            ..Needs::default()
        }
    }

    async fn serve(&self, mut job: Job, lane: &mut Lane) {
        let result = match job.op() {
            // Every write is durable when it is answered.
            Op::Flush => Ok(()),
            _ => self.write(&mut job, lane).await,
        };
        match result {
            Err(_) if lane.keeps_failed() => job.give_back(),
            result => job.end(result),
        }
    }

    async fn start(&self, lane: &mut Lane) -> Result<(), Errno> {
        let map = Place { component: self.map, sector: Sector::ZERO };
        lane.read(map, Sector(1)).await?;
        let mut current = self.current.lock();
        for (slot, byte) in current.iter_mut().zip(lane.buffer().iter()) {
            *slot = byte & 1;
        }
        Ok(())
    }
}

/// A game of `shadow`.
pub struct ShadowGame {
    kind: &'static str,
    chunks: u64,
}

impl ShadowGame {
    /// A game of this variant of shadow.
    pub fn new(kind: &'static str) -> ShadowGame {
        ShadowGame { kind, chunks: 0 }
    }
}

impl Game for ShadowGame {
    fn types(&self) -> &'static [&'static TargetType] {
        TYPES
    }

    fn disks(&mut self, rng: &mut Rng) -> Vec<Disk> {
        self.chunks = rng.between(1, 8);
        vec![Disk::new(1), Disk::junk(2 * self.chunks * CHUNK, rng)]
    }

    fn table(&mut self, _device: usize, _rng: &mut Rng) -> String {
        format!("0 {} {} d0 d1", self.chunks * CHUNK, self.kind)
    }

    fn end(&mut self, world: &World) {
        let map = world.disk(0, |disk| disk.content(0, 1).to_vec());
        assert!(map.iter().all(|slot| *slot < 2), "the map holds something else");
    }
}
