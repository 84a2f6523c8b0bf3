// SPDX-License-Identifier: BSD-2-Clause

//! Recovery: regions that are out of sync are copied from the source to the other legs, in order.

use super::failure::Kind;
use super::{COPY, Mirror, State};
use crate::lane::Lane;
use crate::targets::disk_share::DiskShare;
use crate::units::DEV_BSIZE;
use crate::{Errno, Sector};

impl Mirror {
    /// Recovers each region that is out of sync, once.
    pub(super) async fn recover(&self, lane: &mut Lane) {
        let mut share = DiskShare::new(lane);
        let mut from = 0;
        while let Some(region) = self.begin_region(from) {
            from = region.saturating_add(1);
            let drained = || {
                let state = self.state.lock();
                let writes = state.writes.get(region as usize).copied();
                (writes.unwrap_or(0) == 0).then_some(())
            };
            let alone = lane.until_stopping(&self.changed, drained).await;
            let copied = match alone {
                Some(()) => self.copy(region, &mut share, lane).await,
                None => None,
            };
            self.end_region(region, copied.is_some_and(|result| result.is_ok()), lane);
            if copied.is_none() {
                return;
            }
        }
    }

    /// Takes the next region that is out of sync: no write of it begins until
    /// [`Mirror::end_region`].
    fn begin_region(&self, from: u64) -> Option<u64> {
        // No lock for the search, which may be long: recovery alone brings regions into sync now.
        let region = self.sync.next_clear(from, self.regions)?;
        let mut state = self.state.lock();
        (state.recovering, state.spoilt) = (Some(region), false);
        Some(region)
    }

    /// Lets writes of a region go on; `synced` if it was copied.
    fn end_region(&self, region: u64, synced: bool, lane: &Lane) {
        let (done, waiters) = {
            let mut state = self.state.lock();
            let State { recovering, spoilt, synced: count, marked, idle, .. } = &mut *state;
            *recovering = None;
            if synced && !*spoilt && self.sync.put(region, true) {
                *count = count.saturating_add(1);
                // The region's mark goes with a flush that begins later.
                idle.put(region, false);
                *marked = true;
            }
            let waiters = core::mem::take(&mut state.waiters);
            (self.all_in_sync(&mut state), waiters)
        };
        if synced {
            lane.raise(&self.dirtied);
        }
        if waiters != 0 {
            lane.resubmit(&self.waiting);
        }
        if done {
            lane.raise_event();
            // Writes that some leg has not taken can go on.
            lane.resubmit(&self.held);
        }
    }

    /// Copies a region. `None`: the device is being suspended.
    async fn copy(
        &self,
        region: u64,
        share: &mut DiskShare,
        lane: &mut Lane,
    ) -> Option<Result<(), Errno>> {
        let start = region.wrapping_shl(self.shift);
        let end = start.saturating_add(1u64.wrapping_shl(self.shift)).min(self.length.0);
        let source = self.source();
        let mut at = start;
        while at < end {
            if !share.pass(&self.used, lane).await {
                return None;
            }
            let most = COPY as u64 / u64::from(DEV_BSIZE);
            let length = Sector(most.min(end.wrapping_sub(at)));
            if let Err(errno) = self.copy_some(source, Sector(at), length, lane).await {
                return Some(Err(errno));
            }
            at = at.saturating_add(length.0);
        }
        Some(Ok(()))
    }

    async fn copy_some(
        &self,
        source: usize,
        at: Sector,
        length: Sector,
        lane: &mut Lane,
    ) -> Result<(), Errno> {
        let Some(from) = self.legs.get(source) else { return Err(Errno::EIO) };
        if let Err(errno) = lane.read(from.place(at), length).await {
            self.leg_failed(source, Kind::Sync, lane);
            return Err(errno);
        }
        let (places, count) = self.places(at, Some(source));
        let written = lane.write(places.get(..count).unwrap_or(&places), length, false).await;
        let others = (0..self.legs.len()).filter(|leg| *leg != source);
        for (place, leg) in others.enumerate() {
            if written.has_failed(place) {
                self.leg_failed(leg, Kind::Sync, lane);
            }
        }
        written.ok()
    }
}
