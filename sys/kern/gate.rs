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

/// A gate in front of a `T`. For each CPU it keeps an `L` beside the count: whatever else its user
/// wants to keep apart for each CPU.
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

/// A CPU's count, and a cache line to keep the next CPU's off it. Padding instead of alignment,
/// which kmem(9) does not give.
struct Cell<L> {
    inside: AtomicUsize,
    local: L,
    _apart: [usize; 6],
}

/// The right to be inside. It goes back to the gate that it came from, and to no other: it costs
/// less not to carry along which one that is, so that who gives it back answers for it.
#[must_use = "whoever entered must leave"]
pub struct Pass<'g, L>(&'g Cell<L>);

impl<'g, L> Pass<'g, L> {
    /// What is kept for the CPU on which its holder entered. Others may be at it too.
    #[inline]
    pub fn local(&self) -> &'g L {
        &self.0.local
    }
}

// SAFETY: the value is shared between all who are inside, and changed by one thread alone.
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

    /// What is kept for each CPU.
    pub fn locals(&self) -> impl Iterator<Item = &L> {
        self.cells.iter().map(|cell| &cell.local)
    }

    /// Enters, if the door is open. `cpu` is the CPU this runs on, or was until now.
    #[inline]
    pub fn enter(&self, cpu: usize) -> Option<Pass<'_, L>> {
        let pass = self.admit(cpu);
        full_fence();
        if self.door.load(Ordering::SeqCst) == OPEN {
            return Some(pass);
        }
        // Not inside: whoever waits for the count must look at it again, which `enter`'s caller
        // makes them do.
        // SAFETY: the pass is from the line above.
        unsafe { self.leave(pass) };
        None
    }

    /// Enters through a door that is shut: for the one who shut it, to let in those that it holds.
    #[inline]
    pub fn admit(&self, cpu: usize) -> Pass<'_, L> {
        // SAFETY: the mask is the number of cells less one, and that number a power of two.
        let cell = unsafe { self.cells.get_unchecked(cpu & self.mask) };
        cell.inside.fetch_add(1, Ordering::SeqCst);
        Pass(cell)
    }

    /// Leaves. If the answer is true, the door is not open, and whoever waits for the gate to be
    /// empty should look again.
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

    /// The value, to someone who is inside.
    ///
    /// # Safety
    /// The pass is this gate's: another one's does not keep the value from being changed.
    #[inline]
    pub unsafe fn value<'p>(&'p self, inside: &'p Pass<'_, L>) -> &'p T {
        debug_assert!(self.gave(inside));
        // SAFETY: the value does not change while someone is inside (invariant), as the holder of
        // a pass of this gate's is (caller).
        unsafe { &*self.value.get() }
    }

    /// `true` if a pass is this gate's.
    fn gave(&self, pass: &Pass<'_, L>) -> bool {
        self.cells.iter().any(|cell| core::ptr::eq(cell, pass.0))
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
        let count = |cell: &Cell<L>| cell.inside.load(Ordering::SeqCst);
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
