// SPDX-License-Identifier: BSD-2-Clause

//! kthread(9): threads of the kernel's.

use alloc::boxed::Box;
use core::ffi::{CStr, c_void};
use core::ptr::{self, NonNull};

use dm_core::Errno;

use super::sys;

/// A thread's body.
type Body = Box<dyn FnOnce() + Send>;

/// A thread that was started and is to be joined: dropping it waits for its end.
pub struct Thread(NonNull<sys::lwp>);

// SAFETY: an lwp is named by its address from any thread.
unsafe impl Send for Thread {}

impl Thread {
    /// Starts a thread at I/O priority that runs `body`. `name` is what ps(1) shows.
    ///
    /// # Errors
    /// ENOMEM, EAGAIN when the system has too many.
    pub fn start(name: &CStr, body: impl FnOnce() + Send + 'static) -> Result<Thread, Errno> {
        // Two boxes: one pointer to it is all that fits through kthread_create(9).
        let body: Box<Body> = Box::new(Box::new(body));
        let (body, mut lwp) = (Box::into_raw(body), ptr::null_mut());
        // SAFETY: the thread, once made, calls `dm_thread_main` with the box, once.
        let error = unsafe { sys::dm_shim_thread(body.cast(), name.as_ptr(), &raw mut lwp) };
        match (Errno::check(error), NonNull::new(lwp)) {
            (Ok(()), Some(lwp)) => Ok(Thread(lwp)),
            (result, _) => {
                // SAFETY: there is no thread that could have taken it.
                drop(unsafe { Box::from_raw(body) });
                Err(result.err().unwrap_or(Errno::ENOMEM))
            }
        }
    }
}

/// Bytes of a thread's u-area, which has its stack.
pub fn bytes() -> usize {
    // SAFETY: a constant of the port's.
    unsafe { sys::dm_shim_uspace() }
}

impl Drop for Thread {
    /// Waits for the thread's end. Context: another thread, which holds no lock that this one
    /// takes.
    fn drop(&mut self) {
        // SAFETY: made with KTHREAD_MUSTJOIN, and joined once, here. An error would say that it
        // was not.
        unsafe { sys::kthread_join(self.0.as_ptr()) };
    }
}

/// A thread's first function; kthread_exit(9) follows in the shim.
///
/// # Safety
/// `dm_shim_thread` was given `body` for this call alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dm_thread_main(body: *mut c_void) {
    // SAFETY: `Thread::start` made the pointer of such a box (caller).
    let body: Box<Body> = unsafe { Box::from_raw(body.cast()) };
    body();
}
