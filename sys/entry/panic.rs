// SPDX-License-Identifier: BSD-2-Clause

//! A panic in Rust is panic(9), with file and line.

use core::fmt::Write;
use core::panic::PanicInfo;

use crate::netbsd::cpu::Text;
use crate::netbsd::sys;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut text = Text::new();
    // Text never refuses: what does not fit is cut.
    let _ = match info.location() {
        Some(at) => write!(text, "{} ({}:{})", info.message(), at.file(), at.line()),
        None => write!(text, "{}", info.message()),
    };
    // SAFETY: a string with its NUL; panic(9) does not return.
    unsafe { sys::dm_shim_panic(text.as_ptr()) }
}
