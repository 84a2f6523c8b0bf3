// SPDX-License-Identifier: BSD-2-Clause

//! Those who wait for an event of any device: DM_DEV_ARM_POLL, then poll(2).

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use dm_host::wire::Reply;

/// Connections that wait for something to happen, and devices whose events are waited for.
#[derive(Default)]
pub struct Events {
    armed: Mutex<Vec<UnixStream>>,
    watched: Mutex<BTreeSet<u32>>,
}

impl Events {
    /// The next event is told through this connection.
    pub fn arm(&self, stream: UnixStream) {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
    }

    /// `true` if nobody has waited for this device's events: the caller does so from now on.
    pub fn watch(&self, minor: u32) -> bool {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(minor)
    }

    /// Nobody waits for this device's events any more.
    pub fn unwatch(&self, minor: u32) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&minor);
    }

    /// Tells those who wait, once.
    pub fn happened(&self) {
        let waiting =
            std::mem::take(&mut *self.armed.lock().unwrap_or_else(PoisonError::into_inner));
        for mut stream in waiting {
            // One that is gone needs no word.
            let _ = Reply::write_event(&mut stream);
        }
    }
}
