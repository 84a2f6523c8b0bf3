// SPDX-License-Identifier: BSD-2-Clause

//! The current CPU and thread, the clock's ticks, the kernel lock, and the console.

use alloc::ffi::CString;
use alloc::string::String;
use core::ffi::{CStr, c_char};
use core::fmt;
use core::marker::PhantomData;

use super::sys;

/// The number of CPUs, those that are offline too.
pub fn count() -> usize {
    // SAFETY: reads a variable that is set before any driver attaches.
    unsafe { sys::dm_shim_ncpu() as usize }
}

/// The number of the CPU this runs on, from 0. The thread may be on another one by the time the
/// caller looks at it.
#[inline]
pub fn current() -> usize {
    // SAFETY: asks no more than which CPU this is.
    unsafe { sys::dm_shim_cpu() as usize }
}

/// Ticks of the clock since it started, hz(9) a second; wraps.
#[inline]
pub fn ticks() -> i32 {
    // SAFETY: reads the clock.
    unsafe { sys::getticks() }
}

/// Ticks in a second.
pub fn hz() -> i32 {
    // SAFETY: the kernel sets it once, before any driver attaches.
    unsafe { sys::dm_shim_hz() }
}

/// `true` in a thread that is not an interrupt's, hard or soft.
pub fn in_thread() -> bool {
    // SAFETY: looks at the current lwp and CPU only.
    unsafe { sys::dm_shim_in_thread() }
}

/// Milliseconds since some moment, precise to a tick; they wrap.
pub fn milliseconds() -> u32 {
    let mut now = sys::timeval { tv_sec: 0, tv_usec: 0 };
    // SAFETY: there is room for the answer.
    unsafe { sys::getmicrouptime(&raw mut now) };
    (now.tv_sec as u32).wrapping_mul(1000).wrapping_add(now.tv_usec as u32 / 1000)
}

/// Ticks in so many milliseconds, rounded up, at least one.
pub fn ticks_in(milliseconds: u32) -> i32 {
    let ticks = u64::from(milliseconds).saturating_mul(u64::from(hz().cast_unsigned()));
    i32::try_from(ticks.div_ceil(1000)).unwrap_or(i32::MAX).max(1)
}

/// Sleeps for a tick of the clock. Context: a thread that holds no lock.
pub fn pause() {
    // SAFETY: the caller may sleep, and holds no lock.
    unsafe { sys::kpause(c"dmpause".as_ptr(), false, 1, core::ptr::null_mut()) };
}

/// Runs `f` with the kernel lock, which autoconf(9) asks for. Context: a thread; a sleep in `f`
/// gives the lock up meanwhile.
pub fn with_kernel_lock<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: the lock is taken and let go by this thread, in this order.
    unsafe { sys::dm_shim_kernel_lock() };
    let result = f();
    // SAFETY: this thread has taken the lock above.
    unsafe { sys::dm_shim_kernel_unlock() };
    result
}

/// The calling thread's promise to do nothing that may wait for memory, while it lives. NetBSD does
/// not look; the hosted kernel stops at a breach.
pub struct Frugal(PhantomData<*mut ()>);

impl Frugal {
    /// Makes the promise.
    #[allow(clippy::new_without_default, reason = "a promise is not made by default")]
    pub fn new() -> Frugal {
        // SAFETY: notes it for the calling thread.
        unsafe { sys::dm_shim_frugal(true) };
        Frugal(PhantomData)
    }
}

impl Drop for Frugal {
    fn drop(&mut self) {
        // SAFETY: notes it for the calling thread, which made the promise: the value does not leave
        // it.
        unsafe { sys::dm_shim_frugal(false) };
    }
}

/// Restarts the machine. Nothing is written out first. Context: a thread: kern_reboot(9) is not for
/// a soft interrupt.
pub fn restart(why: &CStr) -> ! {
    // SAFETY: a string with its NUL; it does not return.
    unsafe { sys::dm_shim_restart(why.as_ptr()) }
}

/// panic(9).
pub fn panic(why: &CStr) -> ! {
    // SAFETY: a string with its NUL; panic(9) does not return.
    unsafe { sys::dm_shim_panic(why.as_ptr()) }
}

/// Text on the stack, for where nothing may be allocated. It refuses nothing: what does not fit is
/// cut.
pub struct Text {
    bytes: [u8; 160],
    len: usize,
}

impl Text {
    /// An empty text.
    #[allow(clippy::new_without_default, reason = "no text is a default")]
    pub const fn new() -> Text {
        Text { bytes: [0; 160], len: 0 }
    }

    /// Prints the text on the console. Context: any.
    pub fn print(&self) {
        // SAFETY: a string with its NUL, which the function only reads.
        unsafe { sys::dm_shim_print(self.as_ptr()) }
    }

    /// The text, as a C string.
    pub fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The last byte stays a NUL.
        let room = self.bytes.len() - 1;
        for byte in text.bytes() {
            if let Some(place) = self.bytes.get_mut(self.len).filter(|_| self.len < room) {
                *place = byte;
                self.len += 1;
            }
        }
        Ok(())
    }
}

/// Prints a line on the console. Context: a thread; waits for memory.
pub fn say(what: fmt::Arguments<'_>) {
    let mut text = String::new();
    // A String takes all that is written to it.
    let _ = fmt::write(&mut text, format_args!("{what}\n"));
    // Text from userland cannot hold a NUL, since proplib's strings end there; if it did, the line
    // would only end early.
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: a string with its NUL, which the function only reads.
    unsafe { sys::dm_shim_print(text.as_ptr()) }
}
