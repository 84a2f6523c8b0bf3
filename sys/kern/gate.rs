//! A gate: counts who is inside, spread over CPUs, and can be closed.
//!
//! It guards a value that almost never changes. Whoever enters may use the value until they
//! leave, which may be in another thread much later; nobody waits and no lock is taken. To change
//! the value, close the gate and wait until it is empty.
//!
//! Entering is a count and a look at the door, closing is shutting the door and a look at the
//! counts, so that one of the two always sees the other. The one who enters and finds the door
//! shut takes the count back.
//!
//! `regress/models` includes this file and checks it under loom.

use alloc::boxed::Box;
use core::cell::UnsafeCell;

use super::atomic::{AtomicUsize, Ordering, full_fence};

const OPEN: usize = 0;
const HELD: usize = 1;
const DEAD: usize = 2;

/// What the door is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// Anyone may enter.
    Open,
    /// Nobody may enter for now.
    Held,
    /// Nobody will enter again.
    Dead,
}

/// A gate in front of a `T`.
///
/// # Invariants
/// The value is changed only while the door is not open and every count has been seen 0 since.
pub struct Gate<T, const CELLS: usize> {
    door: AtomicUsize,
    /// The mask that turns a CPU's number into a cell's.
    mask: usize,
    cells: Box<[Cell]>,
    value: UnsafeCell<T>,
}

/// How many things a gate counts beside who is inside.
pub const TALLIES: usize = 7;

/// A CPU's counts: a cache line of them, and one to keep the next CPU's off it. Padding instead of
/// alignment, which kmem(9) does not give.
struct Cell {
    inside: AtomicUsize,
    tally: [AtomicUsize; TALLIES],
    _apart: [usize; TALLIES + 1],
}

/// The right to be inside. It must be given back to the gate that it came from.
#[derive(Debug)]
#[must_use = "whoever entered must leave"]
pub struct Pass(u32);

impl Pass {
    /// Which cell counts it: what to keep while an I/O is under way.
    #[inline]
    pub fn cell(&self) -> u32 {
        self.0
    }

    /// The pass that a cell stands for.
    ///
    /// # Safety
    /// Whoever had the pass entered and has not left, and one of the two passes leaves, not both.
    pub unsafe fn from_raw(cell: u32) -> Pass {
        Pass(cell)
    }
}

// SAFETY: the value is shared between all who are inside, and changed by one thread alone.
unsafe impl<T: Send + Sync, const CELLS: usize> Sync for Gate<T, CELLS> {}
// SAFETY: it is only the value and counts.
unsafe impl<T: Send, const CELLS: usize> Send for Gate<T, CELLS> {}

impl<T, const CELLS: usize> Gate<T, CELLS> {
    /// An open gate for `cpus` CPUs, which share at most `CELLS` counts.
    pub fn new(value: T, cpus: usize) -> Self {
        let count = cpus.next_power_of_two().min(CELLS.next_power_of_two());
        let zero = |_| AtomicUsize::new(0);
        let cell = |_| Cell {
            inside: zero(0),
            tally: core::array::from_fn(zero),
            _apart: [0; TALLIES + 1],
        };
        let cells: Box<[Cell]> = (0..count).map(cell).collect();
        Gate {
            door: AtomicUsize::new(OPEN),
            mask: count.wrapping_sub(1),
            cells,
            value: UnsafeCell::new(value),
        }
    }

    fn cell(&self, index: usize) -> &Cell {
        // SAFETY: the mask is the number of cells less one, and that number a power of two.
        unsafe { self.cells.get_unchecked(index & self.mask) }
    }

    /// Adds to one of the tallies, on the cell of someone who is inside.
    #[inline]
    pub fn tally(&self, inside: &Pass, which: usize, n: usize) {
        if let Some(tally) = self.cell(inside.0 as usize).tally.get(which) {
            tally.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// The sums of the tallies; each wraps.
    pub fn tallies(&self) -> [usize; TALLIES] {
        let mut sums = [0usize; TALLIES];
        for cell in &self.cells {
            for (sum, tally) in sums.iter_mut().zip(&cell.tally) {
                *sum = sum.wrapping_add(tally.load(Ordering::Relaxed));
            }
        }
        sums
    }

    /// Enters, if the door is open. `cpu` is the CPU this runs on, or was until now.
    #[inline]
    pub fn enter(&self, cpu: usize) -> Option<Pass> {
        let pass = self.admit(cpu);
        full_fence();
        if self.door.load(Ordering::SeqCst) == OPEN {
            return Some(pass);
        }
        // Not inside: whoever waits for the count must look at it again, which `enter`'s caller
        // makes them do.
        self.leave(pass);
        None
    }

    /// Enters through a door that is shut: for the one who shut it, to let in those that it holds.
    #[inline]
    pub fn admit(&self, cpu: usize) -> Pass {
        self.cell(cpu).inside.fetch_add(1, Ordering::SeqCst);
        Pass((cpu & self.mask) as u32)
    }

    /// Leaves. If the answer is true, the door is not open, and whoever waits for the gate to be
    /// empty should look again.
    #[inline]
    pub fn leave(&self, pass: Pass) -> bool {
        self.cell(pass.0 as usize).inside.fetch_sub(1, Ordering::SeqCst);
        full_fence();
        self.door.load(Ordering::SeqCst) != OPEN
    }

    /// The value, to someone who is inside.
    #[inline]
    pub fn value<'p>(&'p self, _inside: &'p Pass) -> &'p T {
        // SAFETY: the value does not change while someone is inside (invariant).
        unsafe { &*self.value.get() }
    }

    /// Shuts the door.
    pub fn hold(&self) {
        self.door.store(HELD, Ordering::SeqCst);
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

    /// What the door is like.
    #[inline]
    pub fn door(&self) -> Door {
        match self.door.load(Ordering::SeqCst) {
            OPEN => Door::Open,
            HELD => Door::Held,
            _ => Door::Dead,
        }
    }

    /// How many are inside. Exact only when the door is not open and the answer is 0.
    pub fn inside(&self) -> usize {
        let count = |cell: &Cell| cell.inside.load(Ordering::SeqCst);
        self.cells.iter().map(count).fold(0, usize::wrapping_add)
    }

    /// Whether nobody is inside, the door being shut. Each count is looked at by itself: one that
    /// is 0 with the door shut stays so, but for those who enter and turn back.
    pub fn is_empty(&self) -> bool {
        self.cells.iter().all(|cell| cell.inside.load(Ordering::SeqCst) == 0)
    }

    /// Changes the value.
    ///
    /// # Safety
    /// The door is not open, [`Gate::is_empty`] was true since it was shut, nobody was admitted
    /// since, and no other thread calls this.
    pub unsafe fn replace(&self, value: T) -> T {
        // SAFETY: nobody is inside, so nobody has a reference to the value.
        core::mem::replace(unsafe { &mut *self.value.get() }, value)
    }
}
