// SPDX-License-Identifier: BSD-2-Clause

//! mutex(9).

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::fixed::Fixed;
use super::sys;

/// A kind of mutex: the contexts that may take it, and whether its holder may sleep.
pub trait Kind {
    /// Initialises a mutex of this kind.
    ///
    /// # Safety
    /// `raw` points to memory for a mutex that is not in use.
    unsafe fn init(raw: *mut sys::kmutex_t);

    /// Takes a mutex of this kind.
    ///
    /// # Safety
    /// `raw` points to an initialised mutex of this kind.
    unsafe fn enter(raw: *mut sys::kmutex_t);

    /// Releases a mutex of this kind.
    ///
    /// # Safety
    /// As for [`Kind::enter`], and the caller holds it.
    unsafe fn exit(raw: *mut sys::kmutex_t);
}

/// An adaptive mutex (IPL_NONE): threads take it, and sleep until it is free. A soft interrupt may,
/// but does not here: the holder may sleep.
pub struct Adaptive;

/// A spin mutex at IPL_BIO, for what b_iodone uses too, in soft interrupts. Its holder does not
/// sleep.
pub struct Spin;

impl Kind for Adaptive {
    unsafe fn init(raw: *mut sys::kmutex_t) {
        // SAFETY: the caller's promise.
        unsafe { sys::dm_shim_mutex_init(raw) }
    }

    unsafe fn enter(raw: *mut sys::kmutex_t) {
        // SAFETY: the caller's promise.
        unsafe { sys::mutex_enter(raw) }
    }

    unsafe fn exit(raw: *mut sys::kmutex_t) {
        // SAFETY: the caller's promise.
        unsafe { sys::mutex_exit(raw) }
    }
}

impl Kind for Spin {
    unsafe fn init(raw: *mut sys::kmutex_t) {
        // SAFETY: the caller's promise.
        unsafe { sys::dm_shim_mutex_init_bio(raw) }
    }

    unsafe fn enter(raw: *mut sys::kmutex_t) {
        // SAFETY: the caller's promise.
        unsafe { sys::mutex_spin_enter(raw) }
    }

    unsafe fn exit(raw: *mut sys::kmutex_t) {
        // SAFETY: the caller's promise.
        unsafe { sys::mutex_spin_exit(raw) }
    }
}

/// A mutex that owns its data.
///
/// # Invariants
/// The kernel's mutex is initialised as long as this value lives.
pub struct Mutex<T, K: Kind = Adaptive> {
    raw: Fixed<sys::kmutex_t>,
    data: UnsafeCell<T>,
    kind: PhantomData<K>,
}

/// A mutex at IPL_BIO.
pub type SpinMutex<T> = Mutex<T, Spin>;

// SAFETY: the mutex gives the data to one thread at a time, which is what `Send` allows.
unsafe impl<T: Send, K: Kind> Send for Mutex<T, K> {}
// SAFETY: as above; the mutex itself is made to be shared.
unsafe impl<T: Send, K: Kind> Sync for Mutex<T, K> {}

impl<T, K: Kind> Mutex<T, K> {
    /// A new mutex around `data`.
    pub fn new(data: T) -> Self {
        // SAFETY: kmutex_t is plain memory that mutex_init(9) fills; all zeroes is a value of it.
        let raw = Fixed::new(unsafe { core::mem::zeroed() });
        // SAFETY: `raw` is fresh and stays where it is.
        unsafe { K::init(raw.get()) };
        Mutex { raw, data: UnsafeCell::new(data), kind: PhantomData }
    }

    /// Takes the mutex. Context: as the mutex's [`Kind`] says.
    pub fn lock(&self) -> Guard<'_, T, K> {
        // SAFETY: the mutex is initialised (invariant).
        unsafe { K::enter(self.raw.get()) };
        Guard { mutex: self, _not_send: PhantomData }
    }
}

impl<T, K: Kind> Drop for Mutex<T, K> {
    fn drop(&mut self) {
        // SAFETY: initialised (invariant), and nobody holds it: that would borrow it.
        unsafe { sys::mutex_destroy(self.raw.get()) }
    }
}

impl<T: Send> dm_core::kernel::Mutex<T> for Mutex<T> {
    type Guard<'a>
        = Guard<'a, T, Adaptive>
    where
        T: 'a;

    fn new(data: T) -> Self {
        Mutex::new(data)
    }

    fn lock(&self) -> Guard<'_, T, Adaptive> {
        self.lock()
    }
}

/// dm-core's spin mutexes in this kernel: mutex(9) at IPL_BIO.
static CALLS: dm_sync::Calls = dm_sync::Calls { alloc, free, enter, exit };

/// Makes the kernel's mutexes dm-core's spin mutexes, of those that are made from now on.
pub fn provide() {
    dm_sync::use_calls(&CALLS);
}

/// Takes the kernel's mutexes from dm-core again: the driver ends, and its spin mutexes are all
/// gone.
pub fn withdraw() {
    dm_sync::use_own();
}

fn alloc() -> NonNull<()> {
    // SAFETY: kmutex_t is plain memory that mutex_init(9) fills; all zeroes is a value of it.
    let raw: Box<sys::kmutex_t> = Box::new(unsafe { core::mem::zeroed() });
    let raw = Box::into_raw(raw);
    // SAFETY: fresh memory that stays where it is until `free`.
    unsafe {
        Spin::init(raw);
        NonNull::new_unchecked(raw.cast())
    }
}

/// # Safety
/// `alloc` gave `raw`, no thread holds the mutex, and none will.
unsafe fn free(raw: NonNull<()>) {
    // SAFETY: the caller's promise.
    unsafe {
        let raw: *mut sys::kmutex_t = raw.as_ptr().cast();
        sys::mutex_destroy(raw);
        drop(Box::from_raw(raw));
    }
}

/// # Safety
/// `alloc` gave `raw`.
unsafe fn enter(raw: NonNull<()>) {
    // SAFETY: the caller's promise.
    unsafe { Spin::enter(raw.as_ptr().cast()) }
}

/// # Safety
/// `alloc` gave `raw`, and this CPU holds it.
unsafe fn exit(raw: NonNull<()>) {
    // SAFETY: the caller's promise.
    unsafe { Spin::exit(raw.as_ptr().cast()) }
}

/// A held mutex. The thread that took it releases it: a guard is not `Send`.
#[must_use = "dropped at once, the mutex is free again"]
pub struct Guard<'a, T, K: Kind> {
    mutex: &'a Mutex<T, K>,
    _not_send: PhantomData<*mut ()>,
}

impl<T, K: Kind> Guard<'_, T, K> {
    /// The kernel's mutex, for cv_wait(9).
    pub(super) fn raw(&self) -> *mut sys::kmutex_t {
        self.mutex.raw.get()
    }
}

impl<T, K: Kind> Deref for Guard<'_, T, K> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mutex is held, so nobody else has the data.
        unsafe { &*self.mutex.data.get() }
    }
}

impl<T, K: Kind> DerefMut for Guard<'_, T, K> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the mutex is held, so nobody else has the data, and `self` is borrowed mutably.
        unsafe { &mut *self.mutex.data.get() }
    }
}

impl<T, K: Kind> Drop for Guard<'_, T, K> {
    fn drop(&mut self) {
        // SAFETY: this thread holds the mutex: the guard is neither Send nor copied.
        unsafe { K::exit(self.mutex.raw.get()) }
    }
}
