// SPDX-License-Identifier: BSD-2-Clause

//! Reads of an origin that are counted without a lock, beside an exception that becomes visible and the origin's write.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::model;
use crate::tracker::Tracker;
use crate::version::Version;

/// A snapshot with one chunk.
struct Snapshot {
    version: Version,
    /// 1 once the chunk has its exception.
    exception: AtomicUsize,
    tracker: Tracker,
    /// The state's lock, and the number of times that those were woken who wait.
    turn: Mutex<usize>,
    woken: Condvar,
    /// The chunk on the origin: loom sees a read beside a write.
    origin: UnsafeCell<usize>,
}

// SAFETY: loom checks the accesses to the cell.
unsafe impl Sync for Snapshot {}
// SAFETY: as above.
unsafe impl Send for Snapshot {}

impl Snapshot {
    fn new() -> Arc<Snapshot> {
        Arc::new(Snapshot {
            version: Version::default(),
            exception: AtomicUsize::new(0),
            tracker: Tracker::default(),
            turn: Mutex::new(0),
            woken: Condvar::new(),
            origin: UnsafeCell::new(0),
        })
    }

    /// The look of [`Snapshot::read`] and [`Snapshot::overwrite`]: what `look` says, unless something changes.
    fn look<T>(&self, mut look: impl FnMut() -> T, undo: impl Fn(T)) -> T {
        loop {
            if let Some(seen) = self.version.look() {
                let found = look();
                if self.version.is(seen) {
                    return found;
                }
                undo(found);
            }
            drop(self.turn.lock().unwrap());
        }
    }

    fn end(&self) {
        if self.tracker.end() {
            let mut turn = self.turn.lock().unwrap();
            if self.tracker.drained() {
                *turn += 1;
                self.woken.notify_all();
            }
        }
    }

    /// `Snapshot::map` of a read, and its end.
    fn read(&self) {
        let is_there = || self.exception.load(Ordering::Relaxed) != 0;
        let counted = self.look(
            || !is_there() && self.tracker.begin(),
            |counted| {
                if counted {
                    self.end();
                }
            },
        );
        if counted {
            // SAFETY: loom checks that nobody writes.
            assert_eq!(self.origin.with(|content| unsafe { *content }), 0, "overwritten");
            self.end();
        }
    }

    /// Publishes an exception, as `Cow::publish` does.
    fn publish(&self) {
        let mut turn = self.turn.lock().unwrap();
        self.version.begin();
        self.exception.store(1, Ordering::Relaxed);
        self.tracker.drain();
        self.version.end();
        *turn += 1;
        self.woken.notify_all();
    }

    /// A write of the origin: `Cow::clear`, as often as it takes. The first time it has not had the lock before.
    fn overwrite(&self) {
        let is_clear = || {
            let is_there = || self.exception.load(Ordering::Relaxed) != 0;
            self.look(|| is_there() && !self.tracker.is_draining(), |_| {})
        };
        while !is_clear() {
            let turn = *self.turn.lock().unwrap();
            if is_clear() {
                break;
            }
            let mut now = self.turn.lock().unwrap();
            while *now == turn {
                now = self.woken.wait(now).unwrap();
            }
        }
        // SAFETY: loom checks that nobody reads.
        self.origin.with_mut(|content| unsafe { *content = 1 });
    }
}

/// A read of the origin is over before the origin is written, and the write does not wait for ever. Three preemptions.
#[test]
fn the_origin_waits_for_a_read_that_takes_no_lock() {
    model(3, || {
        let snapshot = Snapshot::new();
        let threads = [Snapshot::read, Snapshot::overwrite].map(|run| {
            let snapshot = snapshot.clone();
            thread::spawn(move || run(&snapshot))
        });
        snapshot.publish();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// The origin's write waits for two reads. Two preemptions.
#[test]
fn the_origin_waits_for_both_reads() {
    model(2, || {
        let snapshot = Snapshot::new();
        let threads = [Snapshot::read, Snapshot::read].map(|run| {
            let snapshot = snapshot.clone();
            thread::spawn(move || run(&snapshot))
        });
        snapshot.publish();
        snapshot.overwrite();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
