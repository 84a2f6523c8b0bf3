// SPDX-License-Identifier: BSD-2-Clause

//! A device's gate with the queue in front of it: how I/O is held, drained, let go and refused.
//!
//! ```text
//!             quiesce                         release, when the queue is empty
//!    Open ───────────────► Suspended ─────────────────────────────────────────► Open
//!      │                       │
//!      │ kill                  │ kill                (Dead → Open: only as a recycled slot,
//!      └────────► Dead ◄───────┘                      before any I/O can find it)
//! ```
//!
//! Every change of the door but that of a recycled slot is made with the queue's lock held, and so
//! is the look at the door that decides whether an I/O is queued. [`IoGate::enter`] and
//! [`IoGate::leave`] take the lock only when they find the door shut, to wake a drain that their
//! count may have kept asleep, so that their callers need not.
//!
//! Compare fstrans(9), which does this for file systems, and localcount(9), which cannot be opened
//! again. `regress/models` includes this file and checks it under loom.

use core::ffi::CStr;

use super::condvar::{Condvar, Interrupted};
use super::gate::{Door, Gate, Here, Pass};
use super::mutex::SpinMutex;
use super::queue::{Held, Ordered};

/// A gate in front of a `T`, with a queue `Q` of what waits for it. For each CPU it keeps an `L`.
pub struct IoGate<T, L, Q: Ordered> {
    gate: Gate<T, L>,
    /// I/O that waits: see [`Held`]. The door is moved under this lock.
    held: SpinMutex<Held<Q>>,
    /// The gate may be empty, or its door has moved.
    moved: Condvar,
}

/// The number of queues that [`IoGate::release`] lets go in front of newer I/O.
pub const ROUNDS: u32 = 16;

/// Why an I/O was not queued; it comes back.
pub enum NotQueued<I> {
    /// The gate is open (again).
    Open(I),
    /// The gate is dead: the device goes.
    Dead(I),
}

impl<T, L: Default, Q: Ordered> IoGate<T, L, Q> {
    /// An open gate for `cpus` CPUs; `name` is what ps(1) shows of a thread that sleeps at it.
    pub fn new(value: T, cpus: usize, name: &'static CStr) -> Self {
        let (held, moved) = (SpinMutex::new(Held::default()), Condvar::new(name));
        IoGate { gate: Gate::new(value, cpus), held, moved }
    }

    /// Each CPU's `L`.
    pub fn locals(&self) -> impl Iterator<Item = &L> {
        self.gate.locals()
    }

    /// The part of the gate that the CPU `cpu` has: the CPU this runs on, or did until now.
    #[inline]
    pub fn here(&self, cpu: usize) -> Here<'_, L> {
        self.gate.here(cpu)
    }

    /// Enters, if the door is open. `cpu` is the CPU this runs on, or was until now.
    ///
    /// Context: thread or soft interrupt; does not sleep. With the door shut it takes the queue's
    /// lock, which the caller must not hold.
    #[inline]
    pub fn enter(&self, cpu: usize) -> Option<(Pass<'_>, Here<'_, L>)> {
        let entered = self.gate.enter(cpu);
        if entered.is_none() {
            // The counts that were raised may have hidden from a drain that the gate is empty.
            self.wake_drain();
        }
        entered
    }

    /// Gives the holder of a pass another one, whatever the door's state. Context: any.
    ///
    /// # Safety
    /// The pass is this gate's.
    #[inline]
    pub unsafe fn enter_also<'g>(&'g self, inside: &Pass<'g>, cpu: usize) -> Pass<'g> {
        // SAFETY: the pass is this gate's (caller).
        unsafe { self.gate.enter_also(inside, cpu) }
    }

    /// Leaves. Context: as for [`IoGate::enter`]; on any CPU, in any thread.
    ///
    /// # Safety
    /// Both are this gate's.
    #[inline]
    pub unsafe fn leave(&self, pass: Pass<'_>, here: Here<'_, L>) {
        // SAFETY: both are this gate's (caller).
        if unsafe { self.gate.leave(pass, here) } {
            self.wake_drain();
        }
    }

    /// Wakes a drain, to look again whether the gate is empty. With the lock, so that it is not
    /// between its look and its sleep.
    #[cold]
    fn wake_drain(&self) {
        let held = self.held.lock();
        self.moved.broadcast();
        drop(held);
    }

    /// The value, to the holder of a pass.
    ///
    /// # Safety
    /// The pass is this gate's.
    #[inline]
    pub unsafe fn value<'p>(&'p self, inside: &'p Pass<'_>) -> &'p T {
        // SAFETY: the pass is this gate's (caller).
        unsafe { self.gate.value(inside) }
    }

    /// The state of the door. It may be another one by the time the caller looks at it.
    #[inline]
    pub fn door(&self) -> Door {
        self.gate.door()
    }

    /// The number of I/Os inside. Exact only when the door is not open and the number is 0.
    pub fn inside(&self) -> usize {
        self.gate.inside()
    }

    /// Queues an I/O until the gate is opened: behind those that wait, or, if it was inside and
    /// `comes_back`, behind others that came back and before the rest. Context: as for
    /// [`IoGate::enter`].
    ///
    /// # Errors
    /// The I/O, if the gate is open by now, or dead.
    pub fn hold(&self, io: Q::Item, comes_back: bool) -> Result<(), NotQueued<Q::Item>> {
        let mut held = self.held.lock();
        match self.gate.door() {
            Door::Open => return Err(NotQueued::Open(io)),
            Door::Dead => return Err(NotQueued::Dead(io)),
            Door::Suspended if comes_back => held.push_returned(io),
            Door::Suspended => held.push(io),
        }
        Ok(())
    }

    /// Sleeps while the door is suspended, until it is open or dead, and says which. Context: a
    /// thread that is not inside the gate and holds no lock.
    ///
    /// # Errors
    /// When a signal comes first, unless the caller is `deaf` to signals.
    pub fn wait(&self, deaf: bool) -> Result<Door, Interrupted> {
        let mut held = self.held.lock();
        loop {
            match self.gate.door() {
                Door::Suspended if deaf => self.moved.wait(&mut held),
                Door::Suspended => self.moved.wait_sig(&mut held)?,
                door => return Ok(door),
            }
        }
    }

    /// Shuts the door, and sleeps until no pass is out. Context: as for [`IoGate::wait`]; the
    /// caller serialises it with [`IoGate::release`], [`IoGate::kill`] and [`IoGate::replace`].
    ///
    /// # Errors
    /// When a signal comes first. The door is shut then too: [`IoGate::release`] must follow.
    pub fn quiesce(&self) -> Result<(), Interrupted> {
        let mut held = self.held.lock();
        self.gate.hold();
        while !self.gate.is_empty() {
            self.moved.wait_sig(&mut held)?;
        }
        Ok(())
    }

    /// Lets queued I/O go, each with its pass, and opens the door when the queue is empty: I/O that
    /// comes meanwhile waits behind. After [`ROUNDS`] queues the door opens before the last of them
    /// goes, which newer I/O may overtake then: senders that keep sending do not keep this from its
    /// end. `cpu` is the CPU this runs on. Context: as for [`IoGate::quiesce`], which came before;
    /// no lock is held when `go` is called.
    pub fn release<'g>(&'g self, cpu: impl Fn() -> usize, mut go: impl FnMut(Pass<'g>, Q::Item)) {
        for round in 1.. {
            let mut held = self.held.lock();
            let opens = held.is_empty() || round == ROUNDS;
            let mut queue = core::mem::take(&mut *held);
            if opens {
                self.gate.open();
                self.moved.broadcast();
            }
            drop(held);
            while let Some(io) = queue.pop() {
                go(self.gate.admit(cpu()), io);
            }
            if opens {
                return;
            }
        }
    }

    /// Shuts the door for good, sleeps until no pass is out, deaf to signals, and returns what was
    /// queued, for the caller to fail. Context: as for [`IoGate::quiesce`].
    pub fn kill(&self) -> Held<Q> {
        let mut held = self.held.lock();
        self.gate.kill();
        self.moved.broadcast();
        let queue = core::mem::take(&mut *held);
        while !self.gate.is_empty() {
            self.moved.wait(&mut held);
        }
        queue
    }

    /// Opens the gate of a slot that serves no device, for the next one.
    pub fn reopen(&self) {
        self.gate.open();
    }

    /// Changes the value, and returns the old one.
    ///
    /// # Safety
    /// [`IoGate::quiesce`] has succeeded, or [`IoGate::kill`] has returned, and no
    /// [`IoGate::release`] since; no other thread calls this.
    pub unsafe fn replace(&self, value: T) -> T {
        // SAFETY: the door is shut, the gate was seen empty, and only `release` admits (caller).
        unsafe { self.gate.replace(value) }
    }
}
