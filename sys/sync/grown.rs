// SPDX-License-Identifier: BSD-2-Clause

//! A list that only grows, whose items are read without a lock.

use alloc::boxed::Box;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A list of boxes that has room for so many, is added to, and keeps all until it goes.
pub struct Grown<T> {
    /// Null, or what [`Box::into_raw`] gave: written once, and then not changed before the list is
    /// dropped.
    items: Box<[AtomicPtr<T>]>,
    /// The items that are there, which are the first.
    len: AtomicUsize,
    owns: PhantomData<Box<T>>,
}

// SAFETY: it owns its boxes, which any thread may drop that `T` may go to.
unsafe impl<T: Send> Send for Grown<T> {}
// SAFETY: whoever shares it gets `&T` of its items, and hands it boxes that another thread may
// drop.
unsafe impl<T: Send + Sync> Sync for Grown<T> {}

impl<T> Grown<T> {
    /// An empty list with room for so many items.
    pub fn new(room: usize) -> Grown<T> {
        let items = (0..room).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
        Grown { items, len: AtomicUsize::new(0), owns: PhantomData }
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// `true` if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of items that there is room for.
    pub fn room(&self) -> usize {
        self.items.len()
    }

    /// Adds an item. Returns the item if there is no room, or another thread adds one just now.
    pub fn push(&self, item: Box<T>) -> Option<Box<T>> {
        let at = self.len.load(Ordering::Acquire);
        let Some(place) = self.items.get(at) else { return Some(item) };
        let raw = Box::into_raw(item);
        match place.compare_exchange(ptr::null_mut(), raw, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => {
                self.len.store(at.wrapping_add(1), Ordering::Release);
                None
            }
            // SAFETY: from the box above, and nobody else has seen it.
            Err(_) => Some(unsafe { Box::from_raw(raw) }),
        }
    }

    /// An item, if it is there.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&T> {
        let item = self.items.get(at)?.load(Ordering::Acquire);
        // SAFETY: null, or a box's that stays as long as the list, which is borrowed (invariant of
        // `items`).
        unsafe { item.as_ref() }
    }
}

impl<T> Drop for Grown<T> {
    fn drop(&mut self) {
        for item in &mut self.items {
            let item = *item.get_mut();
            if !item.is_null() {
                // SAFETY: a box's (invariant), and nobody borrows the list any more.
                drop(unsafe { Box::from_raw(item) });
            }
        }
    }
}
