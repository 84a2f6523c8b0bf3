// SPDX-License-Identifier: BSD-2-Clause

//! Turns of work in the background: it lets others have the disks, if there are any.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::lane::Lane;

/// Milliseconds of work after which others have the disks.
const TURN: u32 = 20;

/// A background lane's share of time (`hw.dm.background_share`).
pub struct Turns {
    /// When the turn began.
    since: u32,
}

impl Turns {
    /// The first turn begins.
    pub fn new(lane: &Lane) -> Turns {
        Turns { since: lane.now() }
    }

    /// Sleeps if it is others' turn: `used` says that there were some, and is taken back. `false` when the device is being
    /// suspended.
    pub async fn pass(&mut self, used: &AtomicBool, lane: &mut Lane) -> bool {
        let spent = lane.now().wrapping_sub(self.since);
        if spent >= TURN {
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
