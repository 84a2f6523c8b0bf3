// SPDX-License-Identifier: BSD-2-Clause

//! The promises of the protocol, one test each. A request that fails is tried with a picture of the
//! driver before and after: nothing may have changed.

mod commands;
mod errors;
mod keys;
mod limits;
mod parts;
mod reasons;
mod removal;
mod rows;
mod sequences;
mod tables;
mod waiting;

use crate::testing::Bench;
use crate::testing::plist::{Dict, Object};

/// A table of one linear line on `/dev/a`.
const LINEAR: &[(u64, u64, &str, &str)] = &[(0, 1000, "linear", "/dev/a 2048")];

/// A bench with the device `d`, active, of 1,000 sectors.
fn one() -> Bench {
    let bench = Bench::new();
    bench.device("d", LINEAR);
    bench
}

/// The parameters of each line in a reply.
fn params(reply: &Dict) -> Vec<String> {
    let lines = reply.array("cmd_data").expect("lines").iter();
    let text = |line: &Object| line.dict().and_then(|l| l.string("params")).map(String::from);
    lines.map(|line| text(line).expect("params")).collect()
}

use alloc::string::String;
use alloc::vec::Vec;
