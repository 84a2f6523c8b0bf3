// SPDX-License-Identifier: BSD-2-Clause

//! Waiting for another thread to get somewhere, without a guess at how long it takes.

use std::time::{Duration, Instant};

/// Far longer than anything takes: only a test that hangs meets it.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until a condition holds.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited in vain until {what}");
        std::thread::yield_now();
    }
}
