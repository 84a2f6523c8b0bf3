// SPDX-License-Identifier: BSD-2-Clause

//! The slots of all devices, found by the minor number without a lock.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use dm_core::units::Minor;

use super::slot::Slot;
use crate::netbsd::fixed::Fixed;
use crate::netbsd::mutex::Mutex;

/// Minors in a chunk, and chunks.
const CHUNK: usize = 256;

/// The slots of all devices, by minor. Lookups are for any context; slots are taken, published and
/// given back by threads.
///
/// Fields are marked by what protects them: (a) atomic; (l) a lock of its own, adaptive, with which
/// no other lock is taken.
pub struct Slots {
    /// (a) The chunks of slots, by the minor's upper half. Published with a release store, found
    /// with an acquire load; a chunk stays until [`Slots::clear`].
    chunks: [AtomicPtr<Chunk>; CHUNK],
    /// (l) Slots that serve no device.
    free: Mutex<Vec<&'static Slot>>,
    /// (l) Every slot, until [`Slots::clear`].
    all: Mutex<Vec<Fixed<Slot>>>,
}

/// The slots of 256 minors in a row; null where no device is.
type Chunk = [AtomicPtr<Slot>; CHUNK];

const _: () = assert!(CHUNK * CHUNK > Minor::MAX.get() as usize);

impl Slots {
    /// No slots.
    pub(crate) fn new() -> Slots {
        let chunks = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNK];
        Slots { chunks, free: Mutex::new(Vec::new()), all: Mutex::new(Vec::new()) }
    }

    /// The slot of a minor number, if a device has it. Context: any.
    #[inline]
    pub fn get(&self, minor: u32) -> Option<&'static Slot> {
        let (chunk, at) = (minor as usize / CHUNK, minor as usize % CHUNK);
        // SAFETY: chunks and slots are published after they are made, and not freed while the
        // driver is there.
        unsafe {
            let chunk = self.chunks.get(chunk)?.load(Ordering::Acquire).as_ref()?;
            chunk.get(at)?.load(Ordering::Acquire).as_ref()
        }
    }

    /// A slot for a new device, which no lookup finds yet.
    pub(crate) fn take(&self, minor: Minor) -> &'static Slot {
        let recycled = self.free.lock().pop();
        let slot = recycled.unwrap_or_else(|| self.make());
        slot.gate.reopen();
        slot.label_writable.store(false, Ordering::Relaxed);
        // The callout has not seen it withdrawn.
        slot.is_due.store(false, Ordering::SeqCst);
        slot.set_minor(minor.get());
        slot
    }

    /// Makes one more slot, which lives until [`Slots::clear`]. Waits for memory.
    fn make(&self) -> &'static Slot {
        let slot = Fixed::new(Slot::new());
        // SAFETY: it is not freed while the driver is there, and nothing but references that are
        // shared is made to it meanwhile.
        let made = unsafe { &*slot.get() };
        self.all.lock().push(slot);
        made
    }

    /// Publishes a slot: from here on lookups by this minor find it.
    pub(crate) fn publish(&self, minor: Minor, slot: &'static Slot) {
        self.set(minor, ptr::from_ref(slot).cast_mut());
    }

    /// Withdraws the slot of a minor: lookups find none from here on. An I/O that has found it may
    /// go on using it.
    pub(crate) fn withdraw(&self, minor: Minor) {
        self.set(minor, ptr::null_mut());
    }

    /// Stores what lookups of a minor find. Waits for memory where a chunk is made.
    fn set(&self, minor: Minor, slot: *mut Slot) {
        let (chunk, at) = (minor.get() as usize / CHUNK, minor.get() as usize % CHUNK);
        let Some(place) = self.chunks.get(chunk) else { return };
        // No lock is held here: two threads that make devices may race to make this chunk.
        if place.load(Ordering::Acquire).is_null() {
            let new: Box<Chunk> = Box::new([const { AtomicPtr::new(ptr::null_mut()) }; CHUNK]);
            let new = Box::into_raw(new);
            let null = ptr::null_mut();
            if place.compare_exchange(null, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
                // SAFETY: it was not published: no other thread has its address.
                drop(unsafe { Box::from_raw(new) });
            }
        }
        // SAFETY: published above or before, and not freed while the driver is there.
        if let Some(chunk) = unsafe { place.load(Ordering::Acquire).as_ref() }
            && let Some(place) = chunk.get(at)
        {
            place.store(slot, Ordering::Release);
        }
    }

    /// Takes back the slot of a removed device, to serve another one later.
    pub(crate) fn give_back(&self, slot: &'static Slot) {
        slot.set_minor(0);
        self.free.lock().push(slot);
    }

    /// `true` while a device has a slot, if only for its last instructions. Context: a thread; no
    /// device is being made.
    pub(crate) fn are_in_use(&self) -> bool {
        let free = self.free.lock().len();
        free < self.all.lock().len()
    }

    /// Frees every slot. Their reserves go back to the driver's pools, which are still there.
    ///
    /// # Safety
    /// The driver ends: no thread has a slot, or looks for one, from here on.
    pub(crate) unsafe fn clear(&self) {
        for chunk in &self.chunks {
            let chunk = chunk.swap(ptr::null_mut(), Ordering::AcqRel);
            if !chunk.is_null() {
                // SAFETY: `set` made it, and no thread looks there any more (caller).
                drop(unsafe { Box::from_raw(chunk) });
            }
        }
        let free = core::mem::take(&mut *self.free.lock());
        let all = core::mem::take(&mut *self.all.lock());
        drop((free, all));
    }

    /// Calls `f` with every slot that serves a device. Context: any, as far as `f` allows.
    pub(crate) fn each(&self, mut f: impl FnMut(&'static Slot)) {
        for chunk in &self.chunks {
            // SAFETY: a chunk is published after it is made, and not freed while the driver is
            // there.
            let Some(chunk) = (unsafe { chunk.load(Ordering::Acquire).as_ref() }) else { continue };
            for slot in chunk {
                // SAFETY: a slot is published after it is made, and not freed while the driver is
                // there.
                if let Some(slot) = unsafe { slot.load(Ordering::Acquire).as_ref() } {
                    f(slot);
                }
            }
        }
    }
}
