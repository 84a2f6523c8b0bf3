// SPDX-License-Identifier: BSD-2-Clause

//! The command line: its words, and what `--help` teaches.

mod ctl;
mod luks;
mod replay;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use ctl::*;
pub use luks::*;
pub use replay::ReplayLog;

use crate::completion;

const AFTER: &str = "\
Exit codes:
  0  done
  1  the driver said no, the error and its name are on standard error; or the passphrase is wrong
  2  the command line, a table, a log or a LUKS header makes no sense
  3  no server answers at the control socket, or the LUKS disk is not open

Examples:
  Serve two disk images (made with truncate -s 64M a.img b.img):
    dm-host serve --disk wd0=a.img --disk wd1=b.img

  In another terminal, put half of each together as one device, and see it:
    printf '0 65536 linear /dev/wd0 0\\n65536 65536 linear /dev/wd1 0\\n' |
        dm-host ctl create both
    dm-host ctl table both
    nbdinfo \"$(dm-host uri both)\"

  See where a table sends each range, without starting anything:
    dm-host map both.table --disk wd0=a.img --disk wd1=b.img";

/// NetBSD's device mapper, dm(4), in a Unix process: serves devices, steers them, shows tables.
#[derive(Parser)]
#[command(name = "dm-host", version, after_help = AFTER, max_term_width = 100)]
#[command(disable_help_subcommand = true, infer_subcommands = false)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Serve(Serve),
    Ctl(Box<Ctl>),
    Map(Map),
    Uri(Uri),
    Luks(Luks),
    ReplayLog(ReplayLog),
    Completion(Completion),
    Linux(crate::linux::args::Linux),
    #[command(hide = true)]
    LuksKeeper(LuksKeeper),
    #[command(hide = true)]
    LinuxKeeper(crate::linux::args::Keeper),
}

const SERVE: &str = "\
The disks appear as /dev/NAME for the tables that `dm-host ctl` loads. Each device-mapper device is
an NBD export of its name, and appears and vanishes as the device does. An NBD connection holds its
device open, so a device that is connected to cannot be removed.

Ctrl-C (or SIGTERM) flushes, removes the devices, and ends with exit code 0. Clients have 5 seconds
to take their last answers; a second Ctrl-C does not wait for them.

Examples:
  dm-host serve --disk wd0=disk.img
  dm-host serve --disk wd0=old.img,ro --disk wd1=new.img,sector=4096 --tcp 127.0.0.1:10809
  dm-host serve --disk wd0=/dev/sdb,ro --disk 'wd1=nbd://other-machine/export'";

/// Boot the kernel in this process, attach images as disks, export every dm device over NBD.
#[derive(Args)]
#[command(after_help = SERVE)]
pub struct Serve {
    /// Attach a file, a block device or an NBD export (nbd://HOST/EXPORT,
    /// nbd+unix:///EXPORT?socket=PATH) as /dev/NAME. Options: `ro` (takes no writes),
    /// `sector=BYTES` (512 to 4096), `format=raw` (raw whatever it looks like), `nolock`,
    /// `timeout=SECONDS` (NBD). `,,` is a comma in FILE. May be given many times.
    #[arg(long = "disk", value_name = "NAME=FILE[,OPTION]...", required = true)]
    pub disks: Vec<String>,
    /// The control socket [default: control.sock in $XDG_RUNTIME_DIR/dm-host or /tmp/dm-host-UID].
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// The NBD socket [default: nbd.sock beside the default control socket].
    #[arg(long, value_name = "PATH")]
    pub nbd: Option<PathBuf>,
    /// Serve NBD on TCP too. There is no password: everybody who can connect can read and write.
    #[arg(long, value_name = "[ADDR:]PORT")]
    pub tcp: Option<String>,
    /// Run as someone who is not root: commands that change devices fail with EPERM.
    #[arg(long)]
    pub as_user: bool,
}

/// Print the NBD URI of a device, for nbdinfo, nbdcopy, qemu-img and their like.
#[derive(Args)]
pub struct Uri {
    /// The device.
    #[arg(value_parser = ctl::device_name, add = completion::devices())]
    pub name: String,
    /// The NBD socket, as `serve` has it.
    #[arg(long, value_name = "PATH")]
    pub nbd: Option<PathBuf>,
}

/// Print a completion script: `source <(dm-host completion bash)`.
#[derive(Args)]
pub struct Completion {
    /// The shell.
    pub shell: clap_complete::Shell,
}

const MAP: &str = "\
A table has a line for each range: START LENGTH TARGET PARAMETERS, in sectors of 512 bytes. Empty
lines and lines that begin with # are skipped. All mistakes are shown, each with its line.

Examples:
  dm-host map my.table --disk wd0=a.img --disk wd1:131072
  dm-host map my.table --disk wd0:131072 --disk mapper/base:2048 --svg my.svg
  echo '0 2048 zero' | dm-host map -";

/// Show where a table sends each range, and every mistake in it, without starting anything.
#[derive(Args)]
#[command(after_help = MAP)]
pub struct Map {
    /// The file with the table; `-` is standard input.
    pub table: PathBuf,
    /// A disk that the table may name: its file, or only its size. mapper/NAME:SECTORS is another
    /// device of the mapper's.
    #[arg(long = "disk", value_name = "NAME=FILE[,ro][,sector=BYTES]|NAME:SECTORS")]
    pub disks: Vec<String>,
    /// The table takes no writes.
    #[arg(short, long)]
    pub readonly: bool,
    /// Draw a bar for each component, or do not.
    #[arg(long, value_enum, default_value_t = Draw::Auto)]
    pub draw: Draw,
    /// Draw a picture, with the device above and the components below, and print nothing.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Draw {
    /// When standard output is a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}
