//! The engine's threads: lanes are woken, jobs are handed over, the thread that polls sleeps.
//!
//! `ready.rs` and `parker.rs` are the driver's own. The queue and the signal are the few lines of
//! `executor.rs` and `lane.rs` that join them, in the models' own words; a change there belongs
//! here too.

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::parker::Parker;
use crate::ready::Ready;

fn model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

/// One table's engine with lanes that take jobs from one queue.
struct Engine {
    ready: Ready,
    parker: Parker,
    ending: AtomicUsize,
    queue: Mutex<Queue>,
    served: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<usize>,
    idle: usize,
}

impl Engine {
    fn new(lanes: usize) -> Arc<Engine> {
        Arc::new(Engine {
            ready: Ready::new(lanes, 1),
            parker: Parker::new(c"lanes"),
            ending: AtomicUsize::new(0),
            queue: Mutex::new(Queue::default()),
            served: AtomicUsize::new(0),
        })
    }

    fn wake(&self, lane: usize) {
        if self.ready.set(lane).is_some() {
            self.parker.unpark();
        }
    }

    fn end(&self) {
        self.ending.store(1, Ordering::SeqCst);
        self.parker.unpark();
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst) != 0
    }

    /// The thread of `TableIo::run`.
    fn run(&self, mut poll: impl FnMut(usize)) {
        loop {
            while self.ready.take(0, &mut poll) {}
            if self.is_ending() {
                return;
            }
            self.parker.park(|| self.ready.any(0) || self.is_ending(), None);
        }
    }

    /// `Executor::submit`.
    fn submit(&self, job: usize) {
        let mut queue = self.queue.lock().unwrap();
        queue.jobs.push(job);
        let idle = queue.idle;
        queue.idle &= idle.wrapping_sub(1);
        drop(queue);
        if idle != 0 {
            self.wake(idle.trailing_zeros() as usize);
        }
    }

    /// A serving lane that is polled: it takes jobs until there are none, and waits for more.
    fn serve(&self, lane: usize) {
        loop {
            let mut queue = self.queue.lock().unwrap();
            match queue.jobs.pop() {
                Some(_) => queue.idle &= !(1 << lane),
                None => {
                    queue.idle |= 1 << lane;
                    return;
                }
            }
            drop(queue);
            self.served.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A lane that is woken while its thread polls, is about to sleep, or sleeps, is polled again.
#[test]
fn a_wake_is_not_lost() {
    model(3, || {
        let engine = Engine::new(2);
        let wakers: Vec<_> = (0..2)
            .map(|lane| {
                let engine = engine.clone();
                thread::spawn(move || engine.wake(lane))
            })
            .collect();
        let mut polled = [false; 2];
        engine.run(|lane| {
            polled[lane] = true;
            if polled == [true; 2] {
                engine.ending.store(1, Ordering::SeqCst);
            }
        });
        for waker in wakers {
            waker.join().unwrap();
        }
    });
}

/// A thread that sleeps without work ends when it is told to.
#[test]
fn the_end_wakes_a_sleeper() {
    model(3, || {
        let engine = Engine::new(1);
        let ender = {
            let engine = engine.clone();
            thread::spawn(move || engine.end())
        };
        engine.run(|_| unreachable!());
        ender.join().unwrap();
    });
}

/// Each job is served once, whoever comes while lanes go idle; then the engine stops.
#[test]
fn jobs_are_handed_over() {
    model(2, || {
        let engine = Engine::new(2);
        let submitters: Vec<_> = (0..2)
            .map(|job| {
                let engine = engine.clone();
                thread::spawn(move || engine.submit(job))
            })
            .collect();
        engine.wake(0);
        engine.wake(1);
        engine.run(|lane| {
            engine.serve(lane);
            if engine.served.load(Ordering::SeqCst) == 2 {
                engine.ending.store(1, Ordering::SeqCst);
            }
        });
        for submitter in submitters {
            submitter.join().unwrap();
        }
        assert_eq!(engine.served.load(Ordering::SeqCst), 2);
    });
}

/// `Lane::until` and `Lane::raise`: the bit is set before the condition is looked at, and the
/// condition changed before the bits are taken.
#[test]
fn a_signal_is_not_lost() {
    model(3, || {
        let engine = Engine::new(1);
        let (waiting, condition) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let raiser = {
            let (engine, waiting, condition) = (engine.clone(), waiting.clone(), condition.clone());
            thread::spawn(move || {
                condition.store(1, Ordering::SeqCst);
                loom::sync::atomic::fence(Ordering::SeqCst);
                if waiting.swap(0, Ordering::SeqCst) != 0 {
                    engine.wake(0);
                }
            })
        };
        engine.wake(0);
        engine.run(|_| {
            waiting.fetch_or(1, Ordering::SeqCst);
            loom::sync::atomic::fence(Ordering::SeqCst);
            if condition.load(Ordering::SeqCst) == 1 {
                engine.ending.store(1, Ordering::SeqCst);
            }
        });
        raiser.join().unwrap();
    });
}

/// `Executor::run_begins` and `Executor::stop`: a background lane that has counted itself in and
/// found the engine running is waited for.
#[test]
fn a_stop_waits_for_the_background() {
    model(3, || {
        let (running, busy) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicUsize::new(0)));
        let working = Arc::new(AtomicUsize::new(0));
        let lane = {
            let (running, busy, working) = (running.clone(), busy.clone(), working.clone());
            thread::spawn(move || {
                busy.fetch_add(1, Ordering::SeqCst);
                loom::sync::atomic::fence(Ordering::SeqCst);
                if running.load(Ordering::SeqCst) == 1 {
                    working.store(1, Ordering::SeqCst);
                    working.store(0, Ordering::SeqCst);
                }
                busy.fetch_sub(1, Ordering::SeqCst);
            })
        };
        running.store(0, Ordering::SeqCst);
        loom::sync::atomic::fence(Ordering::SeqCst);
        if busy.load(Ordering::SeqCst) == 0 {
            assert_eq!(working.load(Ordering::SeqCst), 0, "stopped under the background");
        }
        lane.join().unwrap();
    });
}
