// SPDX-License-Identifier: BSD-2-Clause

//! Carries out scripts of device-mapper commands and I/O on the Linux that it runs on, which should be a guest: it
//! takes all devices for its own.
//!
//! `dm-guest serve SHARE PORT`: takes the names of jobs from a serial port, a line each, and
//! carries out what stands in the folders of these names below SHARE ([`dm_script::job`]).
//!
//! `dm-guest bench`: what an I/O costs in instructions, where the time stamp counter counts them.

mod bench;
mod dm;
mod errno;
mod linux;
mod loops;
mod node;
mod raw;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["serve", share, port] => serve::main(share, port),
        ["bench"] => bench::main(),
        _ => Err("usage: dm-guest serve SHARE PORT | dm-guest bench".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("dm-guest: {why}");
            ExitCode::FAILURE
        }
    }
}
