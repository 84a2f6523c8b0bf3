// SPDX-License-Identifier: BSD-2-Clause

//! The state of a snapshot: shared by its tables, the old one and the new one while they are
//! exchanged, and asked by the origin.
//!
//! An *exception* is a chunk of the origin whose content, as it was or as it was written through
//! the snapshot, lies in a chunk of the store. One that is being made is *pending*, in the order in
//! which the chunks of the store were given out:
//!
//! | pending | its chunk of the store | next |
//! |---|---|---|
//! | queued | nothing | a resident lane copies it |
//! | copying | being written, by a lane or a write of all of it | copied, or the snapshot fails |
//! | copied | written | if it is the first, and none is in flight or there are many: committed |
//! | committing | written, flushed | its entry is written and flushed, in order with others |
//!
//! Then it is *visible*: reads find it, and I/O that waits looks once more. Reads of the origin
//! that began before may still be in flight; each [`Tracker`] counts those of its chunks, and while
//! it is *draining* the origin's writes of these chunks wait, and so do new reads.
//!
//! Mapping I/O of the snapshot, and looking for exceptions before a write of the origin, do not
//! take the state's lock: what they need is in a view (`cow/view.rs`), and only while that is being
//! changed they wait for the lock's holder. A view changes with the state, all at once to a reader
//! (`Version`), so that an I/O which sees an exception sees that the reads of its chunk are
//! drained. The line that merges takes the lock for each I/O.
//!
//! Context of what is called for I/O ([`Cow::tracker`], [`Cow::drained`], [`Cow::clear`],
//! [`Cow::ask_for`], [`Cow::write`], [`Cow::put`], [`Cow::copied`], [`Cow::fail`]): thread or soft
//! interrupt; it neither sleeps nor allocates. The rest is called by lanes.
//!
//! | health | reads, writes | origin | next |
//! |---|---|---|---|
//! | good | yes | waits for copies | failing |
//! | failing | EIO | waits | the store's header is marked: invalid |
//! | invalid | EIO, and reads that were in flight | waits for nothing | — |

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::format::Geometry;
use super::runs::{BLOCK, Block, FoundRun, Runs};
use crate::lane::Signal;
use crate::purse::{Purse, Share};
use crate::tracker::Tracker;
use crate::{Sector, limits};

mod making;
mod merging;
mod state;
mod view;

pub use making::{BATCH, Task};
pub use merging::{MERGED, Put, Run};
use state::{Cannot, Step};
pub use state::{Keeper, State, Tail};
pub use view::Shared;

/// Pending exceptions at one time.
pub const PENDING: usize = 128;

/// Room for insertions that is to be there, in exceptions.
const ROOM: usize = 512;

/// Buckets of reads that are in flight.
const READS: usize = 1024;

/// Bytes of a [`Cow`] without blocks of exceptions: itself, its trackers, and places for the blocks
/// and their charges.
pub const BYTES: usize = size_of::<Cow>()
    + size_of::<[Tracker; READS]>()
    + limits::SNAPSHOT_BLOCKS * (size_of::<usize>() + size_of::<Share>());

/// The kinds of store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The store is on its device, in Linux's form.
    Persistent {
        /// `true` if a full store fails writes of the snapshot, and not the snapshot.
        overflow: bool,
    },
    /// The exceptions are in memory: only the data are on the device.
    Transient,
}

/// The states of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// The snapshot's content is right.
    Good,
    /// The snapshot's content is not right any more, and its store does not say so yet.
    Failing,
    /// The snapshot is lost.
    Invalid,
}

/// The state that all tables on one store share.
pub struct Cow {
    /// The state that changes, behind its lock, and the part of it that is read without.
    pub state: Shared,
    /// Trackers of the origin's reads in flight, by chunk, of which several share one.
    reads: Box<[Tracker; READS]>,
    /// `true` once the table is gone that had the store. It stays so: tables that are loaded from
    /// then on begin with another `Cow`. Read without the state's lock.
    gone: AtomicBool,
}

/// The signals that one table's resident lanes wait for.
#[derive(Default)]
pub struct Signals {
    /// Raised when a chunk is queued to be copied.
    pub work: Signal,
    /// Raised when the lane that commits may have something to do.
    pub ready: Signal,
    /// Raised when memory is wanted.
    pub hungry: Signal,
    /// Raised when the lane that merges may go on.
    pub merge: Signal,
}

/// The answer to a write of the origin: it goes on, or waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// The write waits for no copy.
    Clear,
    /// The write must wait, and ask again.
    Wait,
}

/// The answer to a write of the snapshot: where it goes, that it waits, or that it fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// The chunk has an exception, in a store of so many sectors.
    There(FoundRun, Sector),
    /// The write must wait, and ask again.
    Wait,
    /// The write makes its exception itself: the number of the pending exception, and the chunk of
    /// the store to write.
    Own(u64, u64),
    /// The write fails.
    Fail,
}

impl Cow {
    /// A snapshot without a store yet, for a store's device with sectors of so many bytes.
    pub fn new(purse: &Purse, unit: usize) -> Cow {
        let mut runs = Runs::new(limits::SNAPSHOT_BLOCKS);
        let mut paid = Vec::with_capacity(limits::SNAPSHOT_BLOCKS);
        while !runs.has_room(ROOM)
            && let Ok(share) = purse.take(BLOCK)
        {
            runs.grow(Block::default());
            paid.push(share);
        }
        let state = State {
            origin: None,
            opening: 0,
            tables: 0,
            keeper: None,
            running: false,
            loading: false,
            loaded: false,
            closing: false,
            kind: Kind::Transient,
            geometry: Geometry { shift: 5 },
            length: Sector::ZERO,
            origin_size: Sector::ZERO,
            cow_size: Sector::ZERO,
            merging: None,
            full_at: None,
            ask_size: false,
            sealed: false,
            health: Health::Good,
            overflow: false,
            busy: false,
            event: false,
            runs,
            paid,
            starved: false,
            next_free: 0,
            dense: true,
            floor: 0,
            tail: Tail::default(),
            pending: VecDeque::with_capacity(PENDING),
            first: 0,
            unit: alloc::vec![0; unit].into(),
        };
        let reads: Box<[Tracker]> = (0..READS).map(|_| Tracker::default()).collect();
        match reads.try_into() {
            Ok(reads) => Cow { state: Shared::new(state), reads, gone: AtomicBool::new(false) },
            Err(_) => unreachable!(),
        }
    }

    /// `true` if the table is gone that had the store. In any context.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Notes that the table is gone that had the store: the snapshot is lost for the tables that
    /// have this state. With the state's lock.
    pub fn let_go(&self, state: &mut State) {
        (state.closing, state.health) = (true, Health::Invalid);
        self.gone.store(true, Ordering::Relaxed);
    }

    /// The tracker of reads of a chunk of the origin, which some other chunks share.
    #[inline]
    pub fn tracker(&self, chunk: u64) -> &Tracker {
        let [first, ..] = &*self.reads;
        self.reads.get(chunk as usize % READS).unwrap_or(first)
    }

    /// Ends a tracker's draining if its reads are over. `true` if it did: jobs of the origin may
    /// wait for that. In any context.
    pub fn drained(&self, tracker: &Tracker) -> bool {
        let _state = self.state.lock();
        tracker.drained()
    }

    /// Sets every tracker to ask: each read that is in flight looks at its end whether the snapshot
    /// is lost.
    pub fn ask_all(&self) {
        self.reads.iter().for_each(Tracker::ask);
    }

    /// The sectors from `start` on, at most `length`, that the origin may write at once. If there
    /// are none, those of its chunk.
    pub fn clear(&self, start: Sector, length: Sector) -> Result<Sector, Sector> {
        loop {
            match self.clear_now(start, length) {
                Some(clear) => return clear,
                // The thread that changes the state holds the lock until it is done.
                None => drop(self.state.lock()),
            }
        }
    }

    /// [`Cow::clear`], unless something changes meanwhile.
    #[inline]
    fn clear_now(&self, start: Sector, length: Sector) -> Option<Result<Sector, Sector>> {
        let view = self.state.view();
        let seen = view.look()?;
        let mode = view.mode();
        let clear = if mode.asks_nothing() || start >= view.length() {
            Ok(length)
        } else {
            let geometry = mode.geometry();
            let (chunk, first) = (geometry.chunk_of(start), geometry.within(start, length));
            let is_draining = |on| self.tracker(chunk.wrapping_add(on)).is_draining();
            match view.find(chunk) {
                None => Err(first),
                Some(_) if is_draining(0) => Err(first),
                Some(found) => {
                    // As many of the run's chunks as do not drain.
                    let (mut clear, mut on) = (first, 1u64);
                    while clear < length && on < found.left && !is_draining(on) {
                        clear = Sector(clear.0.saturating_add(geometry.chunk().0)).min(length);
                        on = on.saturating_add(1);
                    }
                    Ok(clear)
                }
            }
        };
        view.is(seen).then_some(clear)
    }

    /// Says whether a write of the origin may go on. Chunks of it that have no exception get one.
    /// The lock is held for a look-up in the tree for each chunk of the write.
    pub fn ask_for(&self, start: Sector, length: Sector) -> Ask {
        let mut state = self.state.lock();
        if state.asks_nothing() || start >= state.length {
            return Ask::Clear;
        }
        let geometry = state.geometry;
        let end = start.0.saturating_add(length.0).min(state.length.0);
        let (mut chunk, last) =
            (geometry.chunk_of(start), geometry.chunk_of(Sector(end.wrapping_sub(1))));
        let mut answer = Ask::Clear;
        while chunk <= last {
            if state.health == Health::Failing {
                return Ask::Wait;
            }
            if state.runs.find(chunk).is_some() {
                if self.tracker(chunk).is_draining() {
                    answer = Ask::Wait;
                }
            } else if state.pending(chunk) {
                answer = Ask::Wait;
            } else if !state.closing && !state.merges() {
                answer = Ask::Wait;
                match state.allocate(chunk, Step::Queued) {
                    Ok(_) => state.raise(|signals| &signals.work),
                    Err(why) => self.cannot(&mut state, why, false),
                }
            }
            chunk = chunk.wrapping_add(1);
        }
        answer
    }

    /// Says what a write of the snapshot to a chunk is to do; `whole` if it writes all of the
    /// chunk. A chunk that has no exception gets one.
    pub fn write(&self, chunk: u64, whole: bool) -> Write {
        let mut state = self.state.lock();
        if state.health != Health::Good || state.overflow {
            return Write::Fail;
        }
        if let Some(found) = state.runs.find(chunk) {
            return Write::There(found, state.cow_size);
        }
        if state.pending(chunk) {
            return Write::Wait;
        }
        let step = if whole { Step::Copying } else { Step::Queued };
        match state.allocate(chunk, step) {
            Ok((number, new)) if whole => Write::Own(number, new),
            Ok(_) => {
                state.raise(|signals| &signals.work);
                Write::Wait
            }
            Err(why) => {
                self.cannot(&mut state, why, true);
                if state.overflow { Write::Fail } else { Write::Wait }
            }
        }
    }

    /// Handles the case that an exception cannot be begun now; `snapshot` if a write of the
    /// snapshot wanted it.
    fn cannot(&self, state: &mut State, why: Cannot, snapshot: bool) {
        match why {
            Cannot::Busy => {}
            Cannot::Memory if state.starved => self.fail(state),
            Cannot::Memory => state.raise(|signals| &signals.hungry),
            Cannot::Full if state.full_at != Some(state.cow_size) => {
                state.ask_size = true;
                state.raise(|signals| &signals.ready);
            }
            Cannot::Full if snapshot && state.kind == (Kind::Persistent { overflow: true }) => {
                (state.overflow, state.event) = (true, true);
                state.raise(|signals| &signals.ready);
            }
            Cannot::Full => self.fail(state),
        }
    }

    /// Fails the snapshot, whose content is not right any more. With the state's lock.
    pub fn fail(&self, state: &mut State) {
        if state.health == Health::Good {
            state.health = Health::Failing;
            state.raise(|signals| &signals.ready);
        }
    }

    /// Takes memory that was made for more exceptions.
    pub fn feed(&self, block: Block, share: Share) {
        let mut state = self.state.lock();
        let left = state.runs.grow(block);
        if left.is_none() && state.paid.len() < state.paid.capacity() {
            state.paid.push(share);
        }
        drop(state);
        drop(left);
    }

    /// `true` if memory is wanted, for the lane of the keeper's table that gets it.
    pub fn is_hungry(&self, table: u64) -> bool {
        let state = self.state.lock();
        state.is_kept_by(table)
            && !state.runs.has_room(ROOM)
            && !state.starved
            && state.health == Health::Good
    }

    /// Notes that no more memory is to be had: a snapshot that needs some is lost.
    pub fn starve(&self) {
        self.state.lock().starved = true;
    }
}
