// SPDX-License-Identifier: BSD-2-Clause

//! The share of a component's time that work in the background takes while the line has I/O of its
//! users too.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::lane::Lane;

/// Milliseconds of work after which a background lane rests, if there is other I/O.
const STRETCH: u32 = 20;

/// A background lane's account of the time that it may work (`hw.dm.background_share`).
pub struct DiskShare {
    /// The moment at which the present stretch of work began.
    since: u32,
}

impl DiskShare {
    /// An account whose first stretch begins now.
    pub fn new(lane: &Lane) -> DiskShare {
        DiskShare { since: lane.now() }
    }

    /// Sleeps if the stretch is over and there was other I/O in it: `used` says so, and is cleared.
    /// `false` when the device is being suspended.
    pub async fn pass(&mut self, used: &AtomicBool, lane: &mut Lane) -> bool {
        let spent = lane.now().wrapping_sub(self.since);
        if spent >= STRETCH {
            let share = lane.background_share();
            if used.swap(false, Ordering::Relaxed) && share < 100 {
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
