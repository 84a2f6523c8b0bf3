// SPDX-License-Identifier: BSD-2-Clause

//! Tables of one device that end while contexts of them, and of the device's other tables, are counted in.

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::completing::Completions;
use crate::model;

/// The count's interface, which wrong variants implement too.
trait Count: Send + Sync + Default + 'static {
    type Entered<'c>;
    fn enter(&self) -> Self::Entered<'_>;
    fn drain(&self, pause: &mut dyn FnMut());
}

impl Count for Completions {
    type Entered<'c> = crate::completing::Completing<'c>;

    fn enter(&self) -> Self::Entered<'_> {
        Completions::enter(self)
    }

    fn drain(&self, pause: &mut dyn FnMut()) {
        Completions::drain(self, pause);
    }
}

/// A table, whose memory is gone when `gone` is 1. `entered` is its I/O, which keeps it until its context is counted
/// in.
struct Table {
    gone: AtomicUsize,
    entered: (Mutex<bool>, Condvar),
}

impl Table {
    fn new() -> Arc<Table> {
        Arc::new(Table { gone: AtomicUsize::new(0), entered: (Mutex::new(false), Condvar::new()) })
    }

    /// A completion of the table's, which uses its memory after its I/O is over.
    fn complete<C: Count>(&self, count: &C) {
        let entered = count.enter();
        self.entered();
        assert_eq!(self.gone.load(Ordering::SeqCst), 0, "a table's memory is used after its end");
        drop(entered);
    }

    /// The table's I/O is over: its context is counted in.
    fn entered(&self) {
        *self.entered.0.lock().unwrap() = true;
        self.entered.1.notify_all();
    }

    /// The table's end, when its I/O is over.
    fn end<C: Count>(&self, count: &C) {
        let mut entered = self.entered.0.lock().unwrap();
        while !*entered {
            entered = self.entered.1.wait(entered).unwrap();
        }
        drop(entered);
        count.drain(&mut thread::yield_now);
        self.gone.store(1, Ordering::SeqCst);
    }
}

/// Two tables end one after the other, each with a completion in progress; the second's comes while the first is
/// waited for.
fn two_tables_end<C: Count>() {
    model(3, || {
        let count = Arc::new(C::default());
        let tables = [Table::new(), Table::new()];
        let threads = tables.clone().map(|table| {
            let count = count.clone();
            thread::spawn(move || table.complete(&*count))
        });
        tables.iter().for_each(|table| table.end(&*count));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_table_stays_while_its_completions_run() {
    two_tables_end::<Completions>();
}

/// Two tables end at the same time, with no completion in progress: one waits for the other, and a third drain finds
/// all in order.
#[test]
fn two_tables_may_end_at_a_time() {
    model(2, || {
        let count = Arc::new(Completions::default());
        let other = {
            let count = count.clone();
            thread::spawn(move || Count::drain(&*count, &mut thread::yield_now))
        };
        Count::drain(&*count, &mut thread::yield_now);
        other.join().unwrap();
        drop(count.enter());
        Count::drain(&*count, &mut thread::yield_now);
    });
}

/// A drain ends although other contexts are counted in all the time: each comes before the one before it leaves.
fn newcomers<C: Count>() {
    model(2, || {
        let count = C::default();
        let latest = Mutex::new(Some(count.enter()));
        let mut pauses = 0;
        count.drain(&mut || {
            // The next one comes before the one before it leaves, so that their sum is never 0.
            let next = count.enter();
            *latest.lock().unwrap() = Some(next);
            pauses += 1;
            assert!(pauses < 5, "a drain waits for newcomers");
        });
        assert_eq!(pauses, 1);
        drop(latest);
    });
}

#[test]
fn a_drain_does_not_wait_for_newcomers() {
    newcomers::<Completions>();
}

/// Counts with bugs, which the model must find.
mod wrong {
    use std::marker::PhantomData;

    use super::*;

    /// Counts, one or two.
    #[derive(Default)]
    struct Parts {
        counts: [AtomicUsize; 2],
        current: AtomicUsize,
    }

    struct Entered<'c>(&'c AtomicUsize);

    impl Drop for Entered<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Parts {
        fn enter(&self) -> Entered<'_> {
            let count = &self.counts[self.current.load(Ordering::SeqCst)];
            count.fetch_add(1, Ordering::SeqCst);
            Entered(count)
        }

        fn wait(&self, at: usize, pause: &mut dyn FnMut()) {
            loom::sync::atomic::fence(Ordering::SeqCst);
            while self.counts[at].load(Ordering::SeqCst) != 0 {
                pause();
            }
        }
    }

    /// A count that drains as `D` does.
    #[derive(Default)]
    struct Wrong<D>(Parts, PhantomData<D>);

    trait Drain: Default + Send + Sync + 'static {
        fn drain(parts: &Parts, pause: &mut dyn FnMut());
    }

    impl<D: Drain> Count for Wrong<D> {
        type Entered<'c> = Entered<'c>;

        fn enter(&self) -> Entered<'_> {
            self.0.enter()
        }

        fn drain(&self, pause: &mut dyn FnMut()) {
            D::drain(&self.0, pause);
        }
    }

    /// Does not look at the count that late contexts of before are in.
    #[derive(Default)]
    struct LooksAtOne;

    impl Drain for LooksAtOne {
        fn drain(parts: &Parts, pause: &mut dyn FnMut()) {
            let now = parts.current.load(Ordering::SeqCst);
            parts.current.store(1 - now, Ordering::SeqCst);
            parts.wait(now, pause);
        }
    }

    #[test]
    #[should_panic(expected = "used after its end")]
    fn one_that_forgets_late_contexts_is_found() {
        two_tables_end::<Wrong<LooksAtOne>>();
    }

    /// Waits before it moves newcomers on, and not after.
    #[derive(Default)]
    struct WaitsOnce;

    impl Drain for WaitsOnce {
        fn drain(parts: &Parts, pause: &mut dyn FnMut()) {
            let now = parts.current.load(Ordering::SeqCst);
            parts.wait(1 - now, pause);
            parts.current.store(1 - now, Ordering::SeqCst);
        }
    }

    #[test]
    #[should_panic(expected = "used after its end")]
    fn one_that_does_not_wait_is_found() {
        two_tables_end::<Wrong<WaitsOnce>>();
    }

    /// Has one count, which other tables' contexts may keep from being 0.
    #[derive(Default)]
    struct Samples;

    impl Drain for Samples {
        fn drain(parts: &Parts, pause: &mut dyn FnMut()) {
            parts.wait(0, pause);
        }
    }

    #[test]
    #[should_panic(expected = "waits for newcomers")]
    fn one_that_samples_is_found() {
        newcomers::<Wrong<Samples>>();
    }
}
