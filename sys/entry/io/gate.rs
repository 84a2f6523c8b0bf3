// SPDX-License-Identifier: BSD-2-Clause

//! The lock-free part of a device's gate: counts of references to a value, spread over CPUs, which
//! can be shut. Its one user is `iogate.rs`, which adds the lock, the queue and the sleep.
//!
//! The value almost never changes. An I/O that enters takes a reference ([`Pass`]), uses the value
//! until it gives the reference back, which may be in another thread or soft interrupt, on another
//! CPU, much later; no lock is taken and nothing waits. To change the value, shut the door and wait
//! until no pass is out.
//!
//! Each CPU has two counts, which only rise: of what has entered on it, and of what has left on it.
//! So the I/O path writes no count of another CPU's, wherever an I/O completes, unless its thread
//! was moved meanwhile. No pass is out when as many have left as have entered, on all CPUs
//! together. A drain reads all counts of what has left first, and then those of what has entered:
//! whoever it saw leave, it sees enter, so that equal sums mean that no pass was out in between.
//!
//! Entering is *count, then look at the door*; closing is *shut the door, then look at the counts*.
//! All four steps are sequentially consistent, so that one of the two always sees the other. An I/O
//! that enters and finds the door shut leaves at once.
//!
//! `regress/models` includes this file and checks it under loom.

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::marker::PhantomData;

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

/// A gate in front of a `T`. Beside each CPU's counts it keeps an `L`: whatever its user wants to
/// have apart for each CPU.
///
/// # Invariants
/// The value is changed only while the door is not open and [`Gate::is_empty`] was true since it
/// was shut.
pub struct Gate<T, L> {
    door: AtomicUsize,
    value: UnsafeCell<T>,
    /// The mask that turns a CPU's number into a cell's.
    mask: usize,
    cells: Box<[Cell<L>]>,
}

/// A CPU's counts, which wrap, and its `L`, with padding that keeps the next CPU's off most of
/// their cache line (COHERENCY_UNIT). Padding instead of alignment, which kmem(9) does not give.
#[repr(C)]
struct Cell<L> {
    entered: AtomicUsize,
    left: AtomicUsize,
    local: L,
    _apart: [usize; 5],
}

/// A reference to a gate's value: the right to be inside. It may be returned in any context and on
/// any CPU, to the gate that it came from and to no other. A pass records its gate only where debug
/// assertions are enabled; the caller answers for it.
#[must_use = "a pass must be returned with `leave`"]
pub struct Pass<'g> {
    gate: PhantomData<&'g ()>,
    #[cfg(debug_assertions)]
    door: &'g AtomicUsize,
}

/// The part of a gate that one CPU has: its counts and its `L`.
pub struct Here<'g, L>(&'g Cell<L>);

impl<L> Clone for Here<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Here<'_, L> {}

impl<'g, L> Here<'g, L> {
    /// The CPU's `L`. Other contexts may use it at the same time.
    #[inline]
    pub fn local(self) -> &'g L {
        &self.0.local
    }
}

// SAFETY: the value is shared between all holders of a pass, and changed by one thread alone.
unsafe impl<T: Send + Sync, L: Send + Sync> Sync for Gate<T, L> {}
// SAFETY: it is only the value and what is kept for each CPU.
unsafe impl<T: Send, L: Send> Send for Gate<T, L> {}

impl<T, L: Default> Gate<T, L> {
    /// An open gate for `cpus` CPUs.
    pub fn new(value: T, cpus: usize) -> Self {
        let count = cpus.next_power_of_two();
        let cell = |_| Cell {
            entered: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
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

    /// The part of the gate that the CPU `cpu` has: the CPU this runs on, or did until now.
    #[inline]
    pub fn here(&self, cpu: usize) -> Here<'_, L> {
        // SAFETY: the mask is the number of cells less one, and that number a power of two.
        Here(unsafe { self.cells.get_unchecked(cpu & self.mask) })
    }

    /// Enters on the CPU `cpu`, if the door is open.
    ///
    /// On `None` the counts were raised. A drain may have read them one by one and gone to sleep:
    /// the caller takes the lock under which drains sleep, and wakes them.
    #[inline]
    pub fn enter(&self, cpu: usize) -> Option<(Pass<'_>, Here<'_, L>)> {
        let (pass, here) = (self.admit(cpu), self.here(cpu));
        full_fence();
        if self.door.load(Ordering::SeqCst) == OPEN {
            return Some((pass, here));
        }
        // SAFETY: both are from above.
        unsafe { self.leave(pass, here) };
        None
    }

    /// Enters whatever the door's state: for the thread that shut it, until its next quiesce, to
    /// let in the I/O that was held.
    #[inline]
    pub fn admit(&self, cpu: usize) -> Pass<'_> {
        self.here(cpu).0.entered.fetch_add(1, Ordering::SeqCst);
        Pass {
            gate: PhantomData,
            #[cfg(debug_assertions)]
            door: &self.door,
        }
    }

    /// Gives the holder of a pass another one, whatever the door's state.
    ///
    /// # Safety
    /// The pass is this gate's: another one's does not keep the value from being changed.
    #[inline]
    pub unsafe fn enter_also<'g>(&'g self, inside: &Pass<'g>, cpu: usize) -> Pass<'g> {
        self.assert_gave(inside);
        self.admit(cpu)
    }

    /// Leaves, on the CPU of `here`. `true` if the door is not open: the caller wakes drains, as
    /// for [`Gate::enter`].
    ///
    /// # Safety
    /// Both are this gate's: another one's would count out a holder that still uses the value.
    #[inline]
    pub unsafe fn leave(&self, pass: Pass<'_>, here: Here<'_, L>) -> bool {
        self.assert_gave(&pass);
        debug_assert!(self.cells.iter().any(|cell| core::ptr::eq(cell, here.0)));
        here.0.left.fetch_add(1, Ordering::SeqCst);
        full_fence();
        self.door.load(Ordering::SeqCst) != OPEN
    }

    /// The value, to the holder of a pass.
    ///
    /// # Safety
    /// The pass is this gate's: another one's does not keep the value from being changed.
    #[inline]
    pub unsafe fn value<'p>(&'p self, inside: &'p Pass<'_>) -> &'p T {
        self.assert_gave(inside);
        // SAFETY: the value does not change while a pass of this gate is out (invariant), as the
        // caller's is (caller).
        unsafe { &*self.value.get() }
    }

    /// Asserts that a pass is this gate's, where debug assertions are enabled.
    #[inline(always)]
    #[cfg_attr(not(debug_assertions), expect(unused_variables, clippy::unused_self))]
    fn assert_gave(&self, pass: &Pass<'_>) {
        #[cfg(debug_assertions)]
        assert!(core::ptr::eq(&raw const self.door, pass.door), "dm: a pass of another gate");
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

    /// The number of I/Os inside. Exact only when the door is not open and the number is 0.
    pub fn inside(&self) -> usize {
        // In this order: see this file's head.
        let left = self.sum(|cell| &cell.left);
        self.sum(|cell| &cell.entered).wrapping_sub(left)
    }

    /// The sum of a count over all CPUs; wraps.
    fn sum(&self, count: impl Fn(&Cell<L>) -> &AtomicUsize) -> usize {
        let counts = self.cells.iter().map(|cell| count(cell).load(Ordering::SeqCst));
        counts.fold(0, usize::wrapping_add)
    }

    /// `true` if no pass is out, the door being shut. Then it stays so, but for callers of `enter`
    /// that turn back.
    pub fn is_empty(&self) -> bool {
        self.inside() == 0
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
