// SPDX-License-Identifier: BSD-2-Clause

//! aprint(9), printf(9), panic(9): the kernel's messages. Lines are kept for tests to read.

use std::backtrace::Backtrace;
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int};
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The most lines that are kept; older ones are dropped.
const RING: usize = 4096;

static LOG: Mutex<Log> = Mutex::new(Log { lines: VecDeque::new(), partial: String::new() });
static QUIET: AtomicBool = AtomicBool::new(false);

struct Log {
    lines: VecDeque<String>,
    partial: String,
}

/// Stops the machine with a message, as panic(9) does, and shows where.
macro_rules! kpanic {
    ($($arg:tt)*) => { $crate::console::stop_with(move || format!($($arg)*)) };
}

/// Stops the machine unless the condition holds: KASSERT(9), never compiled out.
macro_rules! kassert {
    ($cond:expr, $($arg:tt)*) => { if !$cond { $crate::console::kpanic!($($arg)*) } };
}

pub(crate) use {kassert, kpanic};

/// Prints the message and a backtrace on standard error and aborts the process.
#[cold]
#[inline(never)]
pub(crate) fn stop(message: &str) -> ! {
    let lwp = crate::lwp::describe();
    eprintln!("panic: {message}\nin {lwp}\n{}", Backtrace::force_capture());
    std::process::abort()
}

/// [`stop`] with a message that is made only then, away from the code of the one who checks.
#[cold]
#[inline(never)]
pub(crate) fn stop_with(message: impl FnOnce() -> String) -> ! {
    crate::frugal::within(|| stop(&message()))
}

pub(crate) fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

pub(crate) fn clear() {
    let mut log = LOG.lock().unwrap_or_else(|e| e.into_inner());
    log.lines.clear();
    log.partial.clear();
}

/// The kernel's messages, oldest first, a string a line.
pub fn lines() -> Vec<String> {
    LOG.lock().unwrap_or_else(|e| e.into_inner()).lines.iter().cloned().collect()
}

/// Prints a text on the console; a line ends with `\n`, as in printf(9).
pub fn print(text: &str) {
    let mut log = LOG.lock().unwrap_or_else(|e| e.into_inner());
    for piece in text.split_inclusive('\n') {
        log.partial.push_str(piece);
        if log.partial.ends_with('\n') {
            let mut line = std::mem::take(&mut log.partial);
            line.pop();
            if !QUIET.load(Ordering::Relaxed) {
                // Standard error may be closed; the kernel goes on.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            if log.lines.len() == RING {
                log.lines.pop_front();
            }
            log.lines.push_back(line);
        }
    }
}

/// Takes the text that the variadic functions of variadic.c have formatted.
///
/// # Safety
///
/// `text` is a NUL-terminated string.
#[unsafe(no_mangle)]
unsafe extern "C" fn dm_host_print(text: *const c_char) {
    // SAFETY: the caller's promise.
    print(&unsafe { CStr::from_ptr(text) }.to_string_lossy());
}

/// kern_reboot: ends the process, which is the machine. Nothing is cleaned up, as after a panic, since the next
/// machine is the next process.
#[unsafe(no_mangle)]
extern "C" fn kern_reboot(_howto: c_int, _bootstr: *mut c_char) -> ! {
    stop("the machine restarts")
}

/// panic(9), its message formatted.
///
/// # Safety
///
/// `text` is a NUL-terminated string.
#[unsafe(no_mangle)]
unsafe extern "C" fn dm_host_panic(text: *const c_char) -> ! {
    // SAFETY: the caller's promise.
    stop(&unsafe { CStr::from_ptr(text) }.to_string_lossy())
}
