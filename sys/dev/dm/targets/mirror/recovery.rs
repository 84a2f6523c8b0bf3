//! Recovery: regions that are out of sync are copied from the source to the other legs, in order.

use super::failure::Kind;
use super::{COPY, Mirror, State};
use crate::lane::Lane;
use crate::units::DEV_BSIZE;
use crate::{Errno, Sector};
use core::sync::atomic::Ordering;

/// Milliseconds of copying after which recovery lets others have the disks, if there are any.
const TURN: u32 = 20;

/// Recovery's share of time, for the others not to be held up.
struct Turns {
    /// When the turn began.
    since: u32,
}

impl Turns {
    /// Sleeps if it is others' turn. `false` when the device is being suspended.
    async fn pass(&mut self, mirror: &Mirror, lane: &mut Lane) -> bool {
        let spent = lane.now().wrapping_sub(self.since);
        if spent >= TURN {
            let share = lane.background_share();
            if mirror.used.swap(false, Ordering::Relaxed) && share < 100 {
                let rest = spent.saturating_mul(100u32.saturating_sub(share)) / share.max(1);
                if !lane.sleep(rest).await {
                    return false;
                }
            }
            self.since = lane.now();
        }
        !lane.stopping()
    }
}

impl Mirror {
    /// Recovers each region that is out of sync, once.
    pub(super) async fn recover(&self, lane: &mut Lane) {
        let mut turns = Turns { since: lane.now() };
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
                Some(()) => self.copy(region, &mut turns, lane).await,
                None => None,
            };
            self.end_region(region, copied.is_some_and(|result| result.is_ok()), lane);
            if copied.is_none() {
                return;
            }
        }
    }

    /// Takes the next region that is out of sync: no write of it begins until [`Mirror::end_region`].
    fn begin_region(&self, from: u64) -> Option<u64> {
        let mut state = self.state.lock();
        let region = self.sync.next_clear(from, self.regions)?;
        state.recovering = Some(region);
        Some(region)
    }

    fn end_region(&self, region: u64, synced: bool, lane: &Lane) {
        let (done, waiters) = {
            let mut state = self.state.lock();
            let State { recovering, synced: count, marked, .. } = &mut *state;
            *recovering = None;
            if synced && self.sync.put(region, true) {
                *count = count.saturating_add(1);
                // It has no mark any more when the legs were flushed.
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
            // Those that some leg has not taken can go on.
            lane.resubmit(&self.held);
        }
    }

    /// Copies a region. `None`: the device is being suspended.
    async fn copy(
        &self,
        region: u64,
        turns: &mut Turns,
        lane: &mut Lane,
    ) -> Option<Result<(), Errno>> {
        let start = region.wrapping_shl(self.shift);
        let end = start.saturating_add(1u64.wrapping_shl(self.shift)).min(self.length.0);
        let source = self.source();
        let mut at = start;
        while at < end {
            if !turns.pass(self, lane).await {
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
