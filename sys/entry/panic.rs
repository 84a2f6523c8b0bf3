//! A panic in Rust is panic(9), with file and line.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use crate::kern::sys;

/// Text on the stack: nothing is allocated any more. What does not fit is cut.
struct Text {
    bytes: [u8; 160],
    len: usize,
}

impl Write for Text {
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

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut text = Text { bytes: [0; 160], len: 0 };
    // Text takes all that is written to it.
    let _ = match info.location() {
        Some(at) => write!(text, "{} ({}:{})", info.message(), at.file(), at.line()),
        None => write!(text, "{}", info.message()),
    };
    // SAFETY: a string with its NUL; panic(9) does not return.
    unsafe { sys::dm_shim_panic(text.bytes.as_ptr().cast()) }
}
