// SPDX-License-Identifier: BSD-2-Clause

//! The lock-free part of a device's gate: a count of references to a value, spread over CPUs, which
//! can be shut. Its one user is `iogate.rs`, which adds the lock, the queue and the sleep.
//!
//! The value almost never changes. An I/O that enters takes a reference ([`Pass`]), uses the value until it
//! gives the reference back, which may be in another thread or soft interrupt, on another CPU, much later;
//! no lock is taken and nothing waits. To change the value, shut the door and wait until no pass is out.
//!
//! Entering is *count, then look at the door*; closing is *shut the door, then look at the counts*. All four
//! steps are sequentially consistent, so that one of the two always sees the other. An I/O that enters and finds
//! the door shut takes its count back.
//!
//! `regress/models` includes this file and checks it under loom.

use alloc::boxed::Box;
use core::cell::UnsafeCell;

use super::atomic::{AtomicUsize, Ordering, full_fence};

const OPEN: usize = 0;
const SUSPENDED: usize = 1;
const DEAD: usize = 2;

/// The state of a gate's door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// I/O enters.
    Open,
    /// No I/O enters for now.
    Suspended,
    /// No I/O enters again.
    Dead,
}

/// A gate in front of a `T`. Beside each CPU's count it keeps an `L`: whatever its user wants to have
/// apart for each CPU.
///
/// # Invariants
/// The value is changed only while the door is not open and every count has been seen 0 since.
pub struct Gate<T, L, const CELLS: usize> {
    door: AtomicUsize,
    value: UnsafeCell<T>,
    /// The mask that turns a CPU's number into a cell's.
    mask: usize,
    cells: Box<[Cell<L>]>,
}

/// A CPU's count and its `L`, with padding that keeps the next CPU's off most of their cache line
/// (COHERENCY_UNIT). Padding instead of alignment, which kmem(9) does not give.
struct Cell<L> {
    inside: AtomicUsize,
    local: L,
    _apart: [usize; 6],
}

/// A reference to a gate's value: the right to be inside. It may be returned in any context and on any
/// CPU, to the gate that it came from and to no other. A pass does not record its gate, to stay small; the caller
/// answers for it.
#[must_use = "a pass must be returned with `leave`"]
pub struct Pass<'g, L>(&'g Cell<L>);

impl<'g, L> Pass<'g, L> {
    /// The `L` of the CPU on which its holder entered. Other contexts may use it at the same time.
    #[inline]
    pub fn local(&self) -> &'g L {
        &self.0.local
    }
}

// SAFETY: the value is shared between all holders of a pass, and changed by one thread alone.
unsafe impl<T: Send + Sync, L: Send + Sync, const CELLS: usize> Sync for Gate<T, L, CELLS> {}
// SAFETY: it is only the value and what is kept for each CPU.
unsafe impl<T: Send, L: Send, const CELLS: usize> Send for Gate<T, L, CELLS> {}

impl<T, L: Default, const CELLS: usize> Gate<T, L, CELLS> {
    /// An open gate for `cpus` CPUs, which share at most `CELLS` counts.
    pub fn new(value: T, cpus: usize) -> Self {
        let count = cpus.next_power_of_two().min(CELLS.next_power_of_two());
        let cell = |_| Cell {
            inside: AtomicUsize::new(0),
            local: L::default(),
            _apart: Default::default(),
        };
        Gate {
            door: AtomicUsize::new(OPEN),
            value: UnsafeCell::new(value),
            mask: count.wrapping_sub(1),
            cells: (0..count).map(cell).collect(),
        }
    }

    /// Each CPU's `L`.
    pub fn locals(&self) -> impl Iterator<Item = &L> {
        self.cells.iter().map(|cell| &cell.local)
    }

    /// Enters, if the door is open. `cpu` is the CPU this runs on, or was until now.
    ///
    /// On `None` the count was raised and taken back. A drain may have seen it and gone to sleep: the
    /// caller takes the lock under which drains sleep, and wakes them.
    #[inline]
    pub fn enter(&self, cpu: usize) -> Option<Pass<'_, L>> {
        let pass = self.admit(cpu);
        full_fence();
        if self.door.load(Ordering::SeqCst) == OPEN {
            return Some(pass);
        }
        // SAFETY: the pass is from the line above.
        unsafe { self.leave(pass) };
        None
    }

    /// Enters through a door that is shut: for the thread that shut it, to let in the I/O that it holds.
    #[inline]
    pub fn admit(&self, cpu: usize) -> Pass<'_, L> {
        // SAFETY: the mask is the number of cells less one, and that number a power of two.
        let cell = unsafe { self.cells.get_unchecked(cpu & self.mask) };
        cell.inside.fetch_add(1, Ordering::SeqCst);
        Pass(cell)
    }

    /// Gives the holder of a pass another one, whatever the door's state.
    #[inline]
    pub fn enter_also<'g>(&'g self, inside: &Pass<'g, L>) -> Pass<'g, L> {
        debug_assert!(self.gave(inside));
        inside.0.inside.fetch_add(1, Ordering::SeqCst);
        Pass(inside.0)
    }

    /// Leaves. `true` if the door is not open: the caller wakes drains, as for [`Gate::enter`].
    ///
    /// # Safety
    /// The pass is this gate's: given by another one it would be that one's count that falls, while
    /// its value is in use.
    #[inline]
    pub unsafe fn leave(&self, pass: Pass<'_, L>) -> bool {
        debug_assert!(self.gave(&pass));
        pass.0.inside.fetch_sub(1, Ordering::SeqCst);
        full_fence();
        self.door.load(Ordering::SeqCst) != OPEN
    }

    /// The value, to the holder of a pass.
    ///
    /// # Safety
    /// The pass is this gate's: another one's does not keep the value from being changed.
    #[inline]
    pub unsafe fn value<'p>(&'p self, inside: &'p Pass<'_, L>) -> &'p T {
        debug_assert!(self.gave(inside));
        // SAFETY: the value does not change while a pass of this gate is out (invariant), as the caller's is (caller).
        unsafe { &*self.value.get() }
    }

    /// `true` if a pass is this gate's.
    fn gave(&self, pass: &Pass<'_, L>) -> bool {
        self.cells.iter().any(|cell| core::ptr::eq(cell, pass.0))
    }

    /// Shuts the door.
    pub fn hold(&self) {
        self.door.store(SUSPENDED, Ordering::SeqCst);
        full_fence();
    }

    /// Shuts it for good.
    pub fn kill(&self) {
        self.door.store(DEAD, Ordering::SeqCst);
        full_fence();
    }

    /// Opens it.
    pub fn open(&self) {
        self.door.store(OPEN, Ordering::SeqCst);
    }

    /// The state of the door.
    #[inline]
    pub fn door(&self) -> Door {
        match self.door.load(Ordering::SeqCst) {
            OPEN => Door::Open,
            SUSPENDED => Door::Suspended,
            _ => Door::Dead,
        }
    }

    /// The number of I/Os inside. Exact only when the door is not open and the answer is 0.
    pub fn inside(&self) -> usize {
        let count = |cell: &Cell<L>| cell.inside.load(Ordering::SeqCst);
        self.cells.iter().map(count).fold(0, usize::wrapping_add)
    }

    /// `true` if no pass is out, the door being shut. Each count is looked at by itself: one that
    /// is 0 with the door shut stays so, but for callers of `enter` that turn back.
    pub fn is_empty(&self) -> bool {
        self.cells.iter().all(|cell| cell.inside.load(Ordering::SeqCst) == 0)
    }

    /// Changes the value.
    ///
    /// # Safety
    /// The door is not open, [`Gate::is_empty`] was true since it was shut, no pass was admitted
    /// since, and no other thread calls this.
    pub unsafe fn replace(&self, value: T) -> T {
        // SAFETY: no pass is out, so no reference to the value exists.
        core::mem::replace(unsafe { &mut *self.value.get() }, value)
    }
}
