// SPDX-License-Identifier: BSD-2-Clause

//! The words of `dm-host replay-log`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

const AFTER: &str = "\
LOG is a file or a block device that the target log-writes, Linux's of the same name, or QEMU's driver
blklogwrites has written. DISK has to hold what the logged disk held when logging began. Then it gets
what was written, in the order of the log, up to the entry or mark that is asked for, or all of it.

Examples:
  dm-host replay-log --list my.log
  cp before.img disk.img
  dm-host replay-log my.log disk.img --to 'after mkdir'
  dm-host replay-log my.log disk.img --after 17 --entry 40   # it has the first 17 already";

/// Make a disk's image as of a mark, or after an entry, from a log of the writes to it.
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct ReplayLog {
    /// The log.
    pub log: PathBuf,
    /// The image or block device that is written to.
    #[arg(required_unless_present = "list")]
    pub disk: Option<PathBuf>,
    /// End at the first mark of this name.
    #[arg(long, value_name = "MARK", conflicts_with = "entry")]
    pub to: Option<OsString>,
    /// End after entry N; 0 is before the first.
    #[arg(long, value_name = "N")]
    pub entry: Option<u64>,
    /// Begin after entry N: DISK has those up to it already.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub after: u64,
    /// Leave what was discarded as it is; otherwise it becomes zeroes.
    #[arg(long)]
    pub no_discard: bool,
    /// Print the entries, and write nothing.
    #[arg(long, conflicts_with_all = ["disk", "no_discard"])]
    pub list: bool,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}
