// SPDX-License-Identifier: BSD-2-Clause

use std::string::ToString;

use super::{Refusal, Shown};
use crate::Errno;

#[test]
fn control_characters_are_shown_by_number() {
    assert_eq!(Shown("a\n\x1b[2J\x7f\u{9b}").to_string(), "a\\x0a\\x1b[2J\\x7f\\x9b");
    assert_eq!(Shown("/dev/mapper/äö b").to_string(), "/dev/mapper/äö b");
}

#[test]
fn a_long_word_is_cut_between_two_characters() {
    let word = "ä".repeat(100);
    assert_eq!(Shown::word(&word).to_string(), "ä".repeat(32));
    assert_eq!(Shown::word("short").to_string(), "short");
}

#[test]
fn a_refusal_without_a_reason_says_what_the_error_says() {
    let refusal = Refusal::from(Errno::ENXIO);
    assert_eq!(refusal.to_string(), "Device not configured");
    let refusal = Refusal { line: Some(2), ..Errno::EINVAL.because(format_args!("no")) };
    assert_eq!(refusal.to_string(), "line 3: no");
}
