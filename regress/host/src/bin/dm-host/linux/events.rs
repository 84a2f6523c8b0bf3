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
    /// Has the next event told through a connection, after `answer` has answered the program there: no
    /// event comes before the answer, where the program would not look for one, and none that comes
    /// after it is missed.
    pub fn arm<R>(&self, stream: UnixStream, answer: impl FnOnce() -> R) -> R {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = answer();
        armed.push(stream);
        answered
    }

    /// `true` if no thread has waited for this device's events: the caller does so from now on.
    pub fn watch(&self, minor: u32) -> bool {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(minor)
    }

    /// Records that no thread waits for this device's events any more.
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn an_event_that_comes_while_it_is_armed_comes_after_the_answer() {
        let events = Events::default();
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        thread::scope(|scope| {
            let mut answers = ours.try_clone().expect("a descriptor");
            let other = events.arm(ours, || {
                assert!(events.armed.try_lock().is_err(), "an event could come before the answer");
                let other = scope.spawn(|| events.happened());
                Reply { errno: 7, body: Vec::new() }.write(&mut answers).expect("it takes it");
                other
            });
            other.join().expect("nobody panicked");
        });
        let mut heard = || Reply::read(&mut theirs).expect("a frame");
        assert_eq!(heard().errno, 7);
        // It was told, and told once.
        assert_eq!(heard().errno, 0);
        assert!(events.armed.lock().expect("nobody panicked").is_empty());
    }
}
