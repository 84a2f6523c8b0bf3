// SPDX-License-Identifier: BSD-2-Clause

//! Notices to the user.

use std::io::{self, Write};

/// Prints a text on standard error. Failures are ignored: nobody may be listening.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "dm-host: {text}");
}
