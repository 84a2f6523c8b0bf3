// SPDX-License-Identifier: BSD-2-Clause

use std::collections::VecDeque;
use std::ffi::CStr;
use std::sync::Arc as StdArc;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::gate::Pass;
use crate::iogate::{IoGate, NotQueued, ROUNDS};
use crate::model;
use crate::queue::{Ordered, Queue};
use crate::reserve::{Next, Reserve};

/// I/O that waits.
#[derive(Default)]
struct Waiting(VecDeque<usize>);

impl Queue for Waiting {
    type Item = usize;

    fn push(&mut self, item: usize) {
        self.0.push_back(item);
    }

    fn pop(&mut self) -> Option<usize> {
        self.0.pop_front()
    }
}

impl Ordered for Waiting {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A device's I/O side: the driver's own gate, and behind it a table that knows whether it is still in use.
struct Device {
    gate: IoGate<Arc<Table>, (), Waiting>,
    done: Mutex<Vec<usize>>,
}

struct Table {
    dropped: AtomicBool,
}

impl Table {
    fn new() -> Arc<Table> {
        Arc::new(Table { dropped: AtomicBool::new(false) })
    }
}

impl Device {
    fn new(name: &'static CStr) -> Arc<Device> {
        let gate = IoGate::new(Table::new(), 2, name);
        Arc::new(Device { gate, done: Mutex::new(Vec::new()) })
    }

    /// Sends an I/O as dmstrategy does: it enters, or waits in the queue. `false` if the device is dead.
    fn submit(&self, cpu: usize, io: usize) -> bool {
        loop {
            if let Some((pass, _)) = self.gate.enter(cpu) {
                self.run(pass, cpu, io);
                return true;
            }
            match self.gate.hold(io, false) {
                Ok(()) => return true,
                Err(NotQueued::Open(_)) => {}
                Err(NotQueued::Dead(_)) => return false,
            }
        }
    }

    /// An I/O, from the table to its completion, perhaps in another thread, which runs on `cpu`.
    fn run(&self, pass: Pass<'_>, cpu: usize, io: usize) {
        // SAFETY: a device has one gate, which gave the pass.
        let table = unsafe { self.gate.value(&pass) }.clone();
        assert!(!table.dropped.load(Ordering::Relaxed), "the table went while I/O used it");
        self.done.lock().unwrap().push(io);
        assert!(!table.dropped.load(Ordering::Relaxed), "the table went while I/O used it");
        // SAFETY: as above.
        unsafe { self.gate.leave(pass, self.gate.here(cpu)) };
    }

    /// Sends I/O `cpu` on a CPU; it completes on the other one, the first in a thread of its own.
    fn submit_elsewhere(device: &Arc<Device>, cpu: usize) {
        match device.gate.enter(cpu) {
            Some((pass, _)) if cpu == 0 => {
                // SAFETY: the thread has the device, and with it the gate, for as long as it has the pass.
                let pass = unsafe { std::mem::transmute::<Pass<'_>, Pass<'static>>(pass) };
                let device = device.clone();
                thread::spawn(move || device.run(pass, 1, 0)).join().unwrap();
            }
            Some((pass, _)) => device.run(pass, 0, cpu),
            None => assert!(device.submit(cpu, cpu)),
        }
    }

    fn quiesce(&self) -> bool {
        self.gate.quiesce().is_ok()
    }

    fn swap(&self) {
        // SAFETY: only the models' one controlling thread calls this, between quiesce and release.
        let old = unsafe { self.gate.replace(Table::new()) };
        old.dropped.store(true, Ordering::Relaxed);
    }

    fn release(&self) {
        self.gate.release(|| 0, |pass, io| self.run(pass, 0, io));
    }

    fn kill(&self) -> usize {
        let mut held = self.gate.kill();
        std::iter::from_fn(|| held.pop()).count()
    }
}

/// Two threads, one a CPU, each of which sends one I/O, while a third suspends, changes the table and resumes: no I/O sees a
/// table that is gone, none is lost or done twice, and no thread sleeps for ever.
fn io_while_the_table_changes(preemptions: usize, submit: fn(&Arc<Device>, usize)) {
    model(preemptions, move || {
        let device = Device::new(c"dmgate");
        let io: Vec<_> = (0..2)
            .map(|cpu| {
                let device = device.clone();
                thread::spawn(move || submit(&device, cpu))
            })
            .collect();
        assert!(device.quiesce());
        device.swap();
        device.release();
        io.into_iter().for_each(|t| t.join().unwrap());
        let mut done = device.done.lock().unwrap().clone();
        done.sort_unstable();
        assert_eq!(done, [0, 1]);
        assert_eq!(device.gate.inside(), 0);
    });
}

/// Each I/O completes on the CPU that it was sent on. Three preemptions.
#[test]
fn a_table_is_changed_under_io() {
    io_while_the_table_changes(3, |device, cpu| assert!(device.submit(cpu, cpu)));
}

/// Each I/O completes on the other CPU, one of them in a thread of its own. Two preemptions.
#[test]
fn io_completes_on_another_cpu() {
    io_while_the_table_changes(2, Device::submit_elsewhere);
}

/// One thread sends three I/Os in turn while another suspends and resumes: they are done in the order they were sent.
/// Three preemptions.
#[test]
fn held_io_keeps_its_order() {
    model(3, || {
        let device = Device::new(c"dmgate");
        let sender = {
            let device = device.clone();
            thread::spawn(move || (0..3).for_each(|io| assert!(device.submit(0, io))))
        };
        assert!(device.quiesce());
        device.release();
        sender.join().unwrap();
        assert_eq!(*device.done.lock().unwrap(), [0, 1, 2]);
    });
}

/// Two I/Os come back from inside, in turn, while a third is sent: they go first, in the order in
/// which they came back. Three preemptions.
#[test]
fn io_that_comes_back_keeps_its_order() {
    model(3, || {
        let device = Device::new(c"dmgate");
        assert!(device.quiesce());
        let sender = {
            let device = device.clone();
            thread::spawn(move || assert!(device.submit(0, 2)))
        };
        (0..2).for_each(|io| assert!(device.gate.hold(io, true).is_ok()));
        device.release();
        sender.join().unwrap();
        assert_eq!(*device.done.lock().unwrap(), [0, 1, 2]);
    });
}

/// Each I/O that is let go is followed by another one: a resume ends all the same, and none is lost.
#[test]
fn release_ends_under_senders_that_keep_sending() {
    model(0, || {
        let device = Device::new(c"dmgate");
        assert!(device.quiesce());
        assert!(device.submit(0, 0));
        let sent = std::cell::Cell::new(1);
        device.gate.release(
            || 0,
            |pass, io| {
                if sent.get() < 100 {
                    assert!(device.submit(0, sent.replace(sent.get() + 1)));
                }
                device.run(pass, 0, io);
            },
        );
        assert_eq!(sent.get(), ROUNDS as usize + 1);
        assert_eq!(device.done.lock().unwrap().len(), sent.get());
    });
}

/// Two I/Os while the device is suspended and then taken away: each is done or failed, once, and
/// the one who takes it away comes back. Three preemptions.
#[test]
fn a_dead_device_fails_what_it_held() {
    model(3, || {
        let device = Device::new(c"dmgate");
        let io: Vec<_> = (0..2)
            .map(|cpu| {
                let device = device.clone();
                thread::spawn(move || usize::from(!device.submit(cpu, cpu)))
            })
            .collect();
        assert!(device.quiesce());
        let failed = device.kill();
        device.swap();
        let refused: usize = io.into_iter().map(|t| t.join().unwrap()).sum();
        assert_eq!(device.done.lock().unwrap().len() + failed + refused, 2);
    });
}

/// A suspend that gives up (a signal came) lets everything go on, and one that comes after it
/// still works. Two preemptions.
#[test]
fn a_suspend_that_gives_up_changes_nothing() {
    model(2, || {
        let device = Device::new(c"signal");
        let io = {
            let device = device.clone();
            thread::spawn(move || assert!(device.submit(1, 1)))
        };
        // Interrupted where it would have slept; else nobody was inside.
        device.quiesce();
        device.release();
        // If the first quiesce was not interrupted, this one may be.
        if !device.quiesce() {
            device.release();
            assert!(device.quiesce());
        }
        device.swap();
        device.release();
        io.join().unwrap();
        assert_eq!(*device.done.lock().unwrap(), [1]);
    });
}

/// A device whose pools are empty: all I/O lives on the reserve.
struct Starving {
    reserve: Reserve<(), (), Waiting, Waiting>,
    done: [AtomicUsize; 4],
}

impl Starving {
    fn new() -> StdArc<Starving> {
        let done = std::array::from_fn(|_| AtomicUsize::new(0));
        StdArc::new(Starving { reserve: Reserve::new(Some(()), Some(())), done })
    }

    /// An I/O in one piece, complete at once.
    fn whole(&self, io: usize) {
        match self.reserve.take_child() {
            Some(child) => {
                self.done[io].fetch_add(1, Ordering::Relaxed);
                self.reserve.put_child(child);
                self.serve();
            }
            None => {
                self.reserve.starve(io);
                self.serve();
            }
        }
    }

    /// An I/O in two pieces.
    fn split(&self, io: usize) {
        match self.reserve.take_split() {
            Some(()) => self.advance(io),
            None => {
                self.reserve.starve(io);
                self.serve();
            }
        }
    }

    fn advance(&self, io: usize) {
        while self.done[io].load(Ordering::Relaxed) < 2 {
            let Some(child) = self.reserve.take_child_or_halt(io) else { return };
            self.done[io].fetch_add(1, Ordering::Relaxed);
            self.reserve.put_child(child);
            self.serve();
        }
        self.reserve.put_split(());
        self.serve();
    }

    fn serve(&self) {
        self.reserve.serve(|next| match next {
            Next::Starved(io) if io < 2 => self.whole(io),
            Next::Starved(io) => self.split(io),
            Next::Halted(io) => self.advance(io),
        });
    }
}

/// Three threads share a reserve of one, two with whole I/O and one with a split: all is done, and none is forgotten
/// in the queue. Two preemptions.
#[test]
fn nobody_starves_in_line() {
    model(2, || {
        let device = StdArc::new(Starving::new());
        let threads: Vec<_> = (0..2)
            .map(|io| {
                let device = device.clone();
                thread::spawn(move || device.whole(io))
            })
            .collect();
        device.split(2);
        threads.into_iter().for_each(|t| t.join().unwrap());
        let done = device.done.each_ref().map(|n| n.load(Ordering::Relaxed));
        assert_eq!(done, [1, 1, 2, 0]);
    });
}

/// Two splits and a whole I/O on one reserve. Two preemptions.
#[test]
fn splits_take_turns() {
    model(2, || {
        let device = StdArc::new(Starving::new());
        let other = {
            let device = device.clone();
            thread::spawn(move || device.split(3))
        };
        device.split(2);
        device.whole(0);
        other.join().unwrap();
        let done = device.done.each_ref().map(|n| n.load(Ordering::Relaxed));
        assert_eq!(done, [1, 0, 2, 2]);
    });
}
