//! The command line: its words, and what `--help` teaches.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Exit codes, as the help states them.
pub mod exit {
    /// The driver said no.
    pub const REFUSED: u8 = 1;
    /// The command line, or a table's text, makes no sense.
    pub const USAGE: u8 = 2;
    /// No server answers.
    pub const UNREACHABLE: u8 = 3;
}

const AFTER: &str = "\
Exit codes:
  0  done
  1  the driver said no; the error and its name are on standard error
  2  the command line or a table makes no sense
  3  no server answers at the control socket

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
#[command(name = "dm-host", version, about, after_help = AFTER, max_term_width = 100)]
#[command(disable_help_subcommand = true, infer_subcommands = false)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Serve(Serve),
    Ctl(Ctl),
    Map(Map),
    Uri(Uri),
    Completion(Completion),
    Linux(crate::linux::args::Linux),
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
    /// Serve NBD on TCP too. There is no password: whoever connects can read and write.
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
    pub name: String,
    /// The NBD socket, as `serve` has it.
    #[arg(long, value_name = "PATH")]
    pub nbd: Option<PathBuf>,
}

/// Print a completion script: `source <(dm-host completion bash)`.
#[derive(Args)]
pub struct Completion {
    /// Which shell.
    pub shell: clap_complete::Shell,
}

const MAP: &str = "\
A table has a line for each range: START LENGTH TARGET PARAMETERS, in sectors of 512 bytes. Empty
lines and lines that begin with # are skipped. All mistakes are shown, each with its line.

Examples:
  dm-host map my.table --disk wd0=a.img --disk wd1:131072
  echo '0 2048 zero' | dm-host map -";

/// Show where a table sends each range, and every mistake in it, without starting anything.
#[derive(Args)]
#[command(after_help = MAP)]
pub struct Map {
    /// The file with the table; `-` is standard input.
    pub table: PathBuf,
    /// A disk that the table may name: its file, or only its size.
    #[arg(long = "disk", value_name = "NAME=FILE[,ro][,sector=BYTES]|NAME:SECTORS")]
    pub disks: Vec<String>,
    /// The table takes no writes.
    #[arg(short, long)]
    pub readonly: bool,
    /// Draw a bar for each component, or do not.
    #[arg(long, value_enum, default_value_t = Draw::Auto)]
    pub draw: Draw,
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

const CTL: &str = "\
The words and the output are those of dmsetup(8); with --style dmctl, those of dmctl(8). What is
sent is what those tools send.

A table has a line for each range: START LENGTH TARGET PARAMETERS, in sectors of 512 bytes:
  0 65536 linear /dev/wd0 2048
  65536 65536 striped 2 128 /dev/wd0 67584 /dev/wd1 0
  131072 2048 zero
  133120 2048 error

Examples:
  dm-host ctl create vol < vol.table          create, reload and resume in one
  dm-host ctl create vol --table '0 2048 zero'
  dm-host ctl reload vol new.table            load a new table beside the one in use
  dm-host ctl resume vol                      change to it, under I/O
  dm-host ctl info -c
  dm-host ctl remove vol";

/// Steer a served machine, as dmsetup(8) and dmctl(8) steer a NetBSD system.
#[derive(Args)]
#[command(after_help = CTL)]
pub struct Ctl {
    /// The control socket [default: as `serve`].
    #[arg(long, value_name = "PATH", env = "DM_HOST_CONTROL", global = true)]
    pub socket: Option<PathBuf>,
    /// Whose words, output and property lists.
    #[arg(long, value_enum, default_value_t = Style::Dmsetup, global = true)]
    pub style: Style,
    /// Show the device after each change, as dmsetup -v does.
    #[arg(short, long, global = true)]
    pub verbose: bool,
    #[command(subcommand)]
    pub command: CtlCommand,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// dmsetup(8), of LVM.
    Dmsetup,
    /// dmctl(8), of NetBSD.
    Dmctl,
}

/// A device: by name, or by something else.
#[derive(Args, Default)]
pub struct Device {
    /// The device's name.
    #[arg(required_unless_present_any = ["by_uuid", "by_minor"])]
    pub name: Option<String>,
    #[command(flatten)]
    pub by: By,
}

/// A device, or all of them.
#[derive(Args, Default)]
pub struct DeviceOrAll {
    /// The device's name; all devices if none is named.
    pub name: Option<String>,
    #[command(flatten)]
    pub by: By,
}

#[derive(Args, Default)]
pub struct By {
    /// Name the device by its uuid.
    #[arg(short = 'u', long = "uuid", value_name = "UUID", id = "by_uuid")]
    pub uuid: Option<String>,
    /// Name the device by its minor number.
    #[arg(short = 'm', long = "minor", value_name = "MINOR", id = "by_minor")]
    pub minor: Option<u32>,
}

#[derive(Args)]
pub struct TableText {
    /// The file with the table; standard input if there is none.
    #[arg(conflicts_with = "table")]
    pub file: Option<PathBuf>,
    /// The table itself; lines may be separated by a newline.
    #[arg(long, value_name = "TABLE")]
    pub table: Option<String>,
}

#[derive(Subcommand)]
pub enum CtlCommand {
    /// Create a device, load its table and resume it; a failure leaves nothing behind.
    Create {
        /// Its name: 1 to 127 bytes without a slash.
        name: String,
        #[command(flatten)]
        table: TableText,
        /// Only create it, without a table (with --style dmctl: always so).
        #[arg(long, conflicts_with_all = ["file", "table"])]
        notable: bool,
        /// A uuid, up to 128 bytes.
        #[arg(short, long)]
        uuid: Option<String>,
        /// The minor number it must have.
        #[arg(short, long)]
        minor: Option<u32>,
        /// It takes no writes.
        #[arg(short, long)]
        readonly: bool,
    },
    /// Load a table into a device's inactive slot; `resume` changes to it.
    #[command(visible_alias = "load")]
    Reload {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        table: TableText,
        /// The table takes no writes.
        #[arg(short, long)]
        readonly: bool,
    },
    /// Change to the inactive table, if there is one, and let I/O go on.
    Resume {
        #[command(flatten)]
        device: Device,
    },
    /// Hold I/O; returns when none is in flight.
    Suspend {
        #[command(flatten)]
        device: Device,
        /// Do not wait for what the targets hold back themselves.
        #[arg(long)]
        noflush: bool,
    },
    /// Show devices.
    Info {
        #[command(flatten)]
        device: DeviceOrAll,
        /// In columns.
        #[arg(short = 'c', short_alias = 'C', long)]
        columns: bool,
        /// Without the line of headings.
        #[arg(long)]
        noheadings: bool,
        /// About the inactive table.
        #[arg(long)]
        inactive: bool,
    },
    /// Show tables, as they can be loaded again.
    Table {
        #[command(flatten)]
        device: DeviceOrAll,
        #[command(flatten)]
        show: Show,
    },
    /// Show how the targets are.
    Status {
        #[command(flatten)]
        device: DeviceOrAll,
        #[command(flatten)]
        show: Show,
    },
    /// Show what block devices a device's table uses.
    Deps {
        #[command(flatten)]
        device: DeviceOrAll,
        /// About the inactive table.
        #[arg(long)]
        inactive: bool,
    },
    /// List the devices.
    Ls,
    /// List the kinds of target, with their versions.
    Targets,
    /// Change a device's name, or give it its first uuid.
    Rename {
        /// The device's name.
        name: String,
        /// The new name.
        #[arg(required_unless_present = "setuuid")]
        new: Option<String>,
        /// Set this uuid, and not the name.
        #[arg(long, value_name = "UUID", conflicts_with = "new")]
        setuuid: Option<String>,
    },
    /// Remove a device that is not open.
    Remove {
        #[command(flatten)]
        device: Device,
        /// If it is open, remove it at its last close.
        #[arg(long)]
        deferred: bool,
    },
    /// Remove every device that is not open.
    #[command(name = "remove_all")]
    RemoveAll {
        /// Remove the open ones at their last close.
        #[arg(long)]
        deferred: bool,
    },
    /// Drop the table in the inactive slot.
    Clear {
        #[command(flatten)]
        device: Device,
    },
    /// Wait for a device's next event, such as a change of its table.
    Wait {
        /// The device's name.
        name: String,
        /// Return as soon as the device's event number is another; 0 if none is given. `info`
        /// shows it.
        event_nr: Option<u32>,
    },
    /// Send a message to the target that holds a sector.
    Message {
        /// The device's name.
        name: String,
        /// The sector.
        sector: u64,
        /// The message's words.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        text: Vec<String>,
    },
    /// Set the geometry that a device reports.
    Setgeometry {
        /// The device's name.
        name: String,
        /// Cylinders.
        cylinders: u64,
        /// Heads.
        heads: u64,
        /// Sectors per track.
        sectors: u64,
        /// The sector the device starts at on the disk that it plays.
        start: u64,
    },
    /// Ask what mknodes asks; there are no nodes to make here.
    Mknodes {
        /// The device's name; all devices if none is named.
        name: Option<String>,
    },
    /// Show the versions of this program and of the driver.
    Version,
    /// Show or set a variable of sysctl(7), such as hw.dm.legacy_errors=1.
    Sysctl {
        /// NAME or NAME=VALUE.
        #[arg(value_name = "NAME[=VALUE]")]
        variable: String,
    },
    /// List the disks that tables may name.
    Disks,
    /// End the server, as Ctrl-C does.
    Shutdown,
}

#[derive(Args, Default)]
pub struct Show {
    /// The inactive table.
    #[arg(long)]
    pub inactive: bool,
    /// Only lines of this target.
    #[arg(long, value_name = "TYPE")]
    pub target: Option<String>,
}
