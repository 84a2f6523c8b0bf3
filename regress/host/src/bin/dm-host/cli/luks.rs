// SPDX-License-Identifier: BSD-2-Clause

//! The words of `dm-host luks`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const AFTER: &str = "\
DISK is a file with a raw image, a block device, or an NBD export (nbd://HOST/EXPORT,
nbd+unix:///EXPORT?socket=PATH) with a LUKS1 or LUKS2 header. It may be only readable, and its header
is never written.

`open` serves the data in the background, as an NBD export of the name that is given, until `close`.

Examples:
  dm-host luks dump disk.img
  dm-host luks open disk.img home --readonly     # prints the URI of the data
  nbdcopy \"$(dm-host uri home)\" home.img
  dm-host luks close home
  dm-host luks test disk.img --key-slot 0";

/// Read Linux's encrypted disks: LUKS1 and LUKS2.
#[derive(Args)]
#[command(after_help = AFTER, disable_help_subcommand = true)]
pub struct Luks {
    #[command(subcommand)]
    pub command: LuksCommand,
}

#[derive(Subcommand)]
pub enum LuksCommand {
    /// Show the header: keyslots, data, and both copies of LUKS2.
    Dump {
        #[command(flatten)]
        disk: LuksDisk,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Serve the data over NBD, in the background, and print their URI.
    Open {
        #[command(flatten)]
        disk: LuksDisk,
        /// The name of the device and of the export.
        #[arg(value_parser = super::ctl::device_name)]
        name: String,
        #[command(flatten)]
        key: LuksKey,
        /// Only read the disk.
        #[arg(long)]
        readonly: bool,
        /// Pass on discards: the disk then shows which sectors are in use.
        #[arg(long)]
        allow_discards: bool,
        /// Stay in the foreground; Ctrl-C ends it.
        #[arg(long)]
        foreground: bool,
        #[command(flatten)]
        sockets: LuksSockets,
    },
    /// End what `open` began: flush, and forget the key.
    Close {
        /// The name that was given to `open`.
        #[arg(value_parser = super::ctl::device_name)]
        name: String,
        /// Close it even if a client is connected.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        sockets: LuksSockets,
    },
    /// Try a passphrase, and say which keyslot it opens.
    Test {
        #[command(flatten)]
        disk: LuksDisk,
        #[command(flatten)]
        key: LuksKey,
    },
    /// Print the device-mapper table of the data, with the key in it.
    Table {
        #[command(flatten)]
        disk: LuksDisk,
        #[command(flatten)]
        key: LuksKey,
        /// The name of the disk in the table.
        #[arg(long, value_name = "PATH", default_value = "/dev/wd0")]
        device: String,
    },
}

/// A disk on the command line.
#[derive(Args)]
pub struct LuksDisk {
    /// The file, block device, or NBD export.
    pub disk: String,
    /// The header is in this file, and the disk holds only the data.
    #[arg(long, value_name = "FILE")]
    pub header: Option<String>,
}

/// The source of the passphrase.
#[derive(Args)]
pub struct LuksKey {
    /// The passphrase is what this file holds, all of it, newline included; `-` is standard input.
    /// Otherwise it is asked for at the terminal, or is the first line of a standard input that is none.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Skip so many bytes of the key file.
    #[arg(long, value_name = "BYTES", default_value_t = 0, requires = "key_file")]
    pub keyfile_offset: u64,
    /// Take so many bytes of the key file.
    #[arg(long, value_name = "BYTES", requires = "key_file")]
    pub keyfile_size: Option<u64>,
    /// Try this keyslot only, also if it is one that is to be ignored.
    #[arg(long, value_name = "N")]
    pub key_slot: Option<u32>,
    /// The memory that argon2 may take, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4095))]
    pub memory: u32,
}

/// The sockets on which an opened disk is served.
#[derive(Args)]
pub struct LuksSockets {
    /// The control socket [default: luks-NAME.control beside `serve`'s].
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// The NBD socket [default: luks-NAME.nbd beside it].
    #[arg(long, value_name = "PATH")]
    pub nbd: Option<PathBuf>,
}

/// Keep a disk open: the process that `luks open` leaves behind. Its standard input has the table.
#[derive(Args)]
pub struct LuksKeeper {
    /// As `serve --disk` takes it.
    #[arg(long)]
    pub disk: String,
    /// The device's name.
    #[arg(long)]
    pub name: String,
    /// The device's uuid.
    #[arg(long)]
    pub uuid: String,
    /// The control socket.
    #[arg(long)]
    pub control: PathBuf,
    /// The NBD socket.
    #[arg(long)]
    pub nbd: PathBuf,
}
