// SPDX-License-Identifier: BSD-2-Clause

//! The engine's threads: lanes are woken, jobs are handed over, the thread that polls sleeps.
//!
//! `ready.rs` and `parker.rs` are the driver's own. The queue and the signal are the few lines of
//! `executor/` and `lane.rs` that join them, in the models' own words; a change there belongs
//! here too.

use std::mem::ManuallyDrop;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::model;
use crate::numbers::{InTurn, Numbers};
use crate::parker::Parker;
use crate::ready::Ready;

/// The parker's interface to the engine.
trait Park: Send + Sync + 'static {
    fn new() -> Self;
    fn park(&self, work: impl FnOnce() -> bool);
    fn unpark(&self);
}

impl Park for Parker {
    fn new() -> Self {
        Parker::new(c"lanes")
    }

    fn park(&self, work: impl FnOnce() -> bool) {
        Parker::park(self, work, None);
    }

    fn unpark(&self) {
        Parker::unpark(self);
    }
}

/// One table's engine with lanes that take jobs from one queue.
struct Engine<P = Parker> {
    ready: Ready,
    parker: P,
    ending: AtomicUsize,
    queue: Mutex<Queue>,
    served: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<usize>,
    idle: usize,
}

impl<P: Park> Engine<P> {
    fn new(lanes: usize) -> Arc<Engine<P>> {
        Arc::new(Engine {
            ready: Ready::new(&vec![0; lanes], 1),
            parker: P::new(),
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
            self.ready.take(0, &mut poll);
            if self.ready.any(0) {
                continue;
            }
            if self.is_ending() {
                return;
            }
            self.parker.park(|| self.ready.any(0) || self.is_ending());
        }
    }

    /// Sends a job, as `Executor::submit` does.
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
    wakes::<Parker>();
}

fn wakes<P: Park>() {
    model(3, || {
        // When a model fails, loom's own objects cannot be dropped any more.
        let engine = ManuallyDrop::new(Engine::<P>::new(2));
        let wakers: Vec<_> = (0..2)
            .map(|lane| {
                let engine = engine.clone();
                thread::spawn(move || {
                    engine.wake(lane);
                    drop(ManuallyDrop::into_inner(engine));
                })
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
        drop(ManuallyDrop::into_inner(engine));
    });
}

/// A thread that sleeps without work ends when it is told to.
#[test]
fn the_end_wakes_a_sleeper() {
    model(3, || {
        let engine = Engine::<Parker>::new(1);
        let ender = {
            let engine = engine.clone();
            thread::spawn(move || engine.end())
        };
        engine.run(|_| unreachable!());
        ender.join().unwrap();
    });
}

/// Each job is served once, also one that comes while lanes become idle; then the engine stops.
#[test]
fn jobs_are_handed_over() {
    model(2, || {
        let engine = Engine::<Parker>::new(2);
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
        let engine = Engine::<Parker>::new(1);
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

/// I/O that finds no number for its job waits, as in `TableIo::queue_for_number`, and goes on when one is freed, as in
/// `Executor::unclaim`: no number is free while I/O waits.
#[test]
fn a_freed_number_is_not_missed() {
    model(3, || {
        let line = Arc::new(Line::new(1, 0));
        assert_eq!(line.numbers.take(), Some(5));
        let io = {
            let line = line.clone();
            thread::spawn(move || line.submit(0))
        };
        line.unclaim(5, 0);
        io.join().unwrap();
        assert_eq!(line.gone_on.load(Ordering::SeqCst), 1);
    });
}

/// Two contexts free numbers while three I/Os wait for one, of which the first ends as soon as it goes on and frees
/// its own: none waits for ever, and none goes on inside another.
#[test]
fn what_goes_on_does_so_one_after_the_other() {
    model(2, || {
        let line = Arc::new(Line::new(2, 1));
        assert_eq!((line.numbers.take(), line.numbers.take()), (Some(5), Some(6)));
        (0..3).for_each(|_| line.submit(0));
        let other = {
            let line = line.clone();
            thread::spawn(move || line.unclaim(6, 0))
        };
        line.unclaim(5, 0);
        other.join().unwrap();
        let left = *line.waiting.lock().unwrap();
        assert_eq!((left, line.gone_on.load(Ordering::SeqCst)), (0, 3));
    });
}

/// A line's numbers, with I/O that waits for them: `Executor::let_go_on`, `TableIo::queue_for_number`, `TableIo::freed`.
/// `depth` counts calls of `freed` on the stack.
struct Line {
    numbers: Numbers,
    going_on: InTurn,
    waiting: Mutex<usize>,
    gone_on: AtomicUsize,
    /// The number of I/Os that end as soon as they go on; those after them keep their numbers.
    ends: usize,
}

impl Line {
    fn new(numbers: usize, ends: usize) -> Line {
        Line {
            numbers: Numbers::new(5, numbers),
            going_on: InTurn::default(),
            waiting: Mutex::new(0),
            gone_on: AtomicUsize::new(0),
            ends,
        }
    }

    /// An I/O that takes a number, or waits for one.
    fn submit(&self, depth: usize) {
        if let Some(number) = self.numbers.take() {
            assert!(depth <= 1, "the stack grows");
            if self.gone_on.fetch_add(1, Ordering::SeqCst) < self.ends {
                self.unclaim(number, depth);
            }
            return;
        }
        self.numbers.add_waiter();
        *self.waiting.lock().unwrap() += 1;
        if let Some(number) = self.numbers.take() {
            self.unclaim(number, depth);
        }
    }

    fn unclaim(&self, number: usize, depth: usize) {
        if self.numbers.put(number) {
            self.going_on.ask(|| {
                while self.numbers.any() && self.freed(depth + 1) {
                    self.numbers.remove_waiter();
                }
            });
        }
    }

    /// The first that waits goes on.
    fn freed(&self, depth: usize) -> bool {
        let mut waiting = self.waiting.lock().unwrap();
        if *waiting == 0 {
            return false;
        }
        *waiting -= 1;
        drop(waiting);
        self.submit(depth);
        true
    }
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

/// Parkers with bugs, which the model must find: each loses a wake.
mod wrong {
    use loom::sync::atomic::fence;

    use super::*;
    use crate::condvar::Condvar;
    use crate::mutex::SpinMutex;

    /// The parts of a parker, put together by each in its own way.
    struct Parts {
        asleep: AtomicUsize,
        lock: SpinMutex<()>,
        woken: Condvar,
    }

    impl Parts {
        fn new() -> Parts {
            let (lock, woken) = (SpinMutex::new(()), Condvar::new(c"lanes"));
            Parts { asleep: AtomicUsize::new(0), lock, woken }
        }

        fn sleep_unless(&self, work: bool) {
            let mut guard = self.lock.lock();
            if !work {
                self.woken.wait(&mut guard);
            }
            self.asleep.store(0, Ordering::SeqCst);
        }

        fn wake(&self) {
            if self.asleep.load(Ordering::SeqCst) != 0 {
                let guard = self.lock.lock();
                self.woken.broadcast();
                drop(guard);
            }
        }
    }

    macro_rules! parker {
        ($name:ident, $parts:ident, $work:ident, $park:block, $unpark:block) => {
            struct $name(Parts);

            impl Park for $name {
                fn new() -> Self {
                    $name(Parts::new())
                }

                fn park(&self, $work: impl FnOnce() -> bool) {
                    let $parts = &self.0;
                    $park
                }

                fn unpark(&self) {
                    let $parts = &self.0;
                    $unpark
                }
            }
        };
    }

    // It looks for work before it says that it is about to sleep.
    parker!(
        LooksFirst,
        parts,
        work,
        {
            let found = work();
            parts.asleep.store(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            parts.sleep_unless(found);
        },
        {
            fence(Ordering::SeqCst);
            parts.wake();
        }
    );

    // It looks for work without the lock that the waker takes.
    parker!(
        LooksUnlocked,
        parts,
        work,
        {
            parts.asleep.store(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            parts.sleep_unless(work());
        },
        {
            fence(Ordering::SeqCst);
            parts.wake();
        }
    );

    // Nothing orders the waker's work before its look at the sleeper.
    parker!(
        NoFence,
        parts,
        work,
        {
            let mut guard = parts.lock.lock();
            parts.asleep.store(1, Ordering::Relaxed);
            if !work() {
                parts.woken.wait(&mut guard);
            }
            parts.asleep.store(0, Ordering::SeqCst);
        },
        {
            if parts.asleep.load(Ordering::Relaxed) != 0 {
                let guard = parts.lock.lock();
                parts.woken.broadcast();
                drop(guard);
            }
        }
    );

    #[test]
    #[should_panic(expected = "deadlock")]
    fn one_that_looks_first_is_found() {
        wakes::<LooksFirst>();
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn one_that_looks_without_the_lock_is_found() {
        wakes::<LooksUnlocked>();
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn one_without_fences_is_found() {
        wakes::<NoFence>();
    }
}
