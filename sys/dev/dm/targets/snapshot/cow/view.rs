// SPDX-License-Identifier: BSD-2-Clause

//! The part of a snapshot's state that I/O is mapped by, without its lock.
//!
//! [`Shared`] has the state behind the lock, and shows this part of it in a [`View`] when it has
//! changed. All that is changed while the lock is held is one change of the view's version,
//! exceptions too.

use alloc::sync::Arc;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dm_sync::{Guard, Spin};

use super::{Health, State};
use crate::Sector;
use crate::targets::snapshot::format::Geometry;
use crate::targets::snapshot::runs::{FoundRun, NOWHERE, Tree};
use crate::version::{Seen, Version};

/// The bits of a mode: [`Geometry::shift`], and flags of the snapshot.
const SHIFT: usize = 0xff;
const GOOD: usize = 1 << 8;
const OVERFLOW: usize = 1 << 9;
const ASKS_NOTHING: usize = 1 << 10;

/// The part of a snapshot's state that I/O is mapped by. Values read after [`View::look`] are valid
/// only if [`View::is`] answers `true` afterwards.
pub struct View {
    version: Version,
    mode: AtomicUsize,
    /// Chunks of the store's device, at most [`NOWHERE`].
    chunks: AtomicU64,
    /// Sectors of the snapshot.
    length: AtomicU64,
    /// The number of the table whose lanes do the work, or 0; 0 too until the store was read.
    keeper: AtomicU64,
    tree: Arc<Tree>,
}

/// The state of a snapshot in a few bits.
#[derive(Clone, Copy)]
pub struct Mode(usize);

impl Mode {
    #[inline]
    pub fn geometry(self) -> Geometry {
        Geometry { shift: (self.0 & SHIFT) as u32 }
    }

    /// `true` if reads may be answered, or also writes where `write` is `true`.
    #[inline]
    pub fn serves(self, write: bool) -> bool {
        self.0 & GOOD != 0 && !(write && self.0 & OVERFLOW != 0)
    }

    /// `true` if the origin never waits for this snapshot.
    #[inline]
    pub fn asks_nothing(self) -> bool {
        self.0 & ASKS_NOTHING != 0
    }
}

impl View {
    /// Begins to look. `None` while something changes.
    #[inline]
    pub fn look(&self) -> Option<Seen> {
        self.version.look()
    }

    /// `true` if nothing has changed since [`View::look`].
    #[inline]
    pub fn is(&self, seen: Seen) -> bool {
        self.version.is(seen)
    }

    #[inline]
    pub fn mode(&self) -> Mode {
        Mode(self.mode.load(Ordering::Relaxed))
    }

    /// The exception of a chunk of the origin.
    #[inline]
    pub fn find(&self, chunk: u64) -> Option<FoundRun> {
        self.tree.find(chunk)
    }

    /// The chunks of the store's device.
    #[inline]
    pub fn chunks(&self) -> u64 {
        self.chunks.load(Ordering::Relaxed)
    }

    /// The sectors that the snapshot has.
    #[inline]
    pub fn length(&self) -> Sector {
        Sector(self.length.load(Ordering::Relaxed))
    }

    /// `true` if the store was read, and this table's lanes do the work.
    #[inline]
    pub fn is_kept_by(&self, table: u64) -> bool {
        self.keeper.load(Ordering::Relaxed) == table
    }

    fn show(&self, state: &State) {
        let geometry = state.geometry;
        let bit = |is: bool, bit: usize| if is { bit } else { 0 };
        let mode = geometry.shift as usize & SHIFT
            | bit(state.health == Health::Good, GOOD)
            | bit(state.overflow, OVERFLOW)
            | bit(state.asks_nothing(), ASKS_NOTHING);
        let keeper = state.keeper.as_ref().filter(|_| state.loaded).map_or(0, |k| k.table);
        self.mode.store(mode, Ordering::Relaxed);
        let chunks = geometry.chunk_of(state.cow_size).min(NOWHERE);
        self.chunks.store(chunks, Ordering::Relaxed);
        self.length.store(state.length.0, Ordering::Relaxed);
        self.keeper.store(keeper, Ordering::Relaxed);
    }
}

/// The state behind its lock, and the parts that are read without.
pub struct Shared {
    state: Spin<State>,
    view: View,
}

impl Shared {
    pub fn new(state: State) -> Shared {
        let view = View {
            version: Version::default(),
            mode: AtomicUsize::new(0),
            chunks: AtomicU64::new(0),
            length: AtomicU64::new(0),
            keeper: AtomicU64::new(0),
            tree: state.runs.tree().clone(),
        };
        view.show(&state);
        Shared { state: Spin::new(state), view }
    }

    /// Takes the lock.
    pub fn lock(&self) -> StateGuard<'_> {
        StateGuard { changes: false, view: &self.view, state: self.state.lock() }
    }

    /// The part of the state that I/O reads without the lock.
    #[inline]
    pub fn view(&self) -> &View {
        &self.view
    }
}

/// A guard of the state. The first mutable borrow makes the version odd, and the end of the guard
/// makes it even.
pub struct StateGuard<'a> {
    changes: bool,
    view: &'a View,
    state: Guard<'a, State>,
}

impl Deref for StateGuard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for StateGuard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        if !self.changes {
            self.changes = true;
            self.view.version.begin();
        }
        &mut self.state
    }
}

impl Drop for StateGuard<'_> {
    fn drop(&mut self) {
        if self.changes {
            self.view.show(&self.state);
            self.view.version.end();
        }
    }
}
