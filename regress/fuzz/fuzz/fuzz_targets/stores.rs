#![no_main]
// SPDX-License-Identifier: BSD-2-Clause


libfuzzer_sys::fuzz_target!(|data: &[u8]| dm_fuzz::stores::run(data));
