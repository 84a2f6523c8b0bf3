// SPDX-License-Identifier: BSD-2-Clause

//! The words of `dm-host ctl`: those of dmsetup(8), NetBSD's and Linux's, and a few more.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand, ValueEnum};

use crate::completion;

const CTL: &str = "\
The words and the output are those of dmsetup(8); with --style dmctl, those of dmctl(8). What is
sent is what those tools send, and a wish to be told reasons.

A table has a line for each range: START LENGTH TARGET PARAMETERS, in sectors of 512 bytes:
  0 65536 linear /dev/wd0 2048
  65536 65536 striped 2 128 /dev/wd0 67584 /dev/wd1 0
  131072 2048 zero
  133120 2048 error

A device may be named NAME or /dev/mapper/NAME. Options of dmsetup that have no meaning here are
taken and do nothing: --noopencount --nolockfs --noudevsync --noudevrules --verifyudev --checks
--yes --readahead --addnodeonresume --addnodeoncreate --uid --gid --mode --manglename --udevcookie.

Examples:
  dm-host ctl create vol < vol.table          create, reload and resume in one
  dm-host ctl create vol --table '0 2048 zero'
  dm-host ctl reload vol new.table            load a new table beside the one in use
  dm-host ctl resume vol                      change to it, under I/O
  dm-host ctl info -c -o name,open,blkdevs_used
  dm-host ctl --json info
  dm-host ctl iostat -w 1
  dm-host ctl remove vol";

/// Steer a served machine, as dmsetup(8) and dmctl(8) steer a NetBSD system.
#[derive(Args)]
#[command(after_help = CTL, arg_required_else_help = true)]
pub struct Ctl {
    /// The control socket [default: as `serve`].
    #[arg(long, value_name = "PATH", env = "DM_HOST_CONTROL", global = true)]
    pub socket: Option<PathBuf>,
    /// The tool whose words, output and property lists are used.
    #[arg(long, value_enum, default_value_t = Style::Dmsetup, global = true)]
    pub style: Style,
    /// Show the device after each change, as dmsetup -v does.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Print what is listed as JSON; dm-host(8) has its form, which stays.
    #[arg(long, global = true)]
    pub json: bool,
    /// Show the versions, as `version` does.
    #[arg(long)]
    pub version: bool,
    #[command(flatten)]
    pub ignored: Ignored,
    #[command(subcommand)]
    pub command: Option<CtlCommand>,
}

/// Options of dmsetup's that have no meaning here.
#[derive(Args)]
pub struct Ignored {
    #[arg(long, global = true, hide = true)]
    noopencount: bool,
    #[arg(long, global = true, hide = true)]
    nolockfs: bool,
    #[arg(long, global = true, hide = true)]
    noudevsync: bool,
    #[arg(long, global = true, hide = true)]
    noudevrules: bool,
    #[arg(long, global = true, hide = true)]
    verifyudev: bool,
    #[arg(long, global = true, hide = true)]
    checks: bool,
    #[arg(short, long, global = true, hide = true)]
    yes: bool,
    #[arg(long, global = true, hide = true)]
    addnodeonresume: bool,
    #[arg(long, global = true, hide = true)]
    addnodeoncreate: bool,
    #[arg(long, global = true, hide = true, value_name = "SECTORS")]
    readahead: Option<String>,
    #[arg(short = 'U', long, global = true, hide = true)]
    uid: Option<String>,
    #[arg(short = 'G', long, global = true, hide = true)]
    gid: Option<String>,
    #[arg(short = 'M', long, global = true, hide = true)]
    mode: Option<String>,
    #[arg(long, global = true, hide = true)]
    manglename: Option<String>,
    #[arg(long, global = true, hide = true)]
    udevcookie: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// dmsetup(8), of LVM.
    Dmsetup,
    /// dmctl(8), of NetBSD.
    Dmctl,
}

/// Reads a device's name, or the path of its node.
pub fn device_name(text: &str) -> Result<String, String> {
    Ok(text.strip_prefix("/dev/mapper/").unwrap_or(text).into())
}

/// Reads a minor number.
fn minor(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("minor 0 is the control node's; devices have 1 to 65535".into()),
        Ok(minor) => Ok(minor),
        Err(_) => Err("a minor number is 1 to 65535".into()),
    }
}

/// A device: by name, or by something else.
#[derive(Args, Default)]
pub struct Device {
    /// The device's name.
    #[arg(required_unless_present_any = ["by_uuid", "by_minor"], value_parser = device_name,
        add = completion::devices())]
    pub name: Option<String>,
    #[command(flatten)]
    pub by: By,
}

/// Devices: by their names, or one by something else.
#[derive(Args, Default)]
pub struct Devices {
    /// The devices' names.
    #[arg(required_unless_present_any = ["by_uuid", "by_minor"], value_parser = device_name,
        add = completion::devices())]
    pub names: Vec<String>,
    #[command(flatten)]
    pub by: By,
}

/// Devices, or all of them.
#[derive(Args, Default)]
pub struct DevicesOrAll {
    /// The devices' names; all devices if none is named.
    #[arg(value_parser = device_name, add = completion::devices())]
    pub names: Vec<String>,
    #[command(flatten)]
    pub by: By,
    /// Does nothing here.
    #[arg(long, hide = true)]
    pub noflush: bool,
}

#[derive(Args, Default, Clone)]
pub struct By {
    /// Name the device by its uuid.
    #[arg(short = 'u', long = "uuid", value_name = "UUID", id = "by_uuid")]
    pub uuid: Option<String>,
    /// Name the device by its minor number.
    #[arg(short = 'm', long = "minor", value_name = "MINOR", id = "by_minor",
        value_parser = minor)]
    pub minor: Option<u32>,
    /// With --minor: the driver's major number.
    #[arg(short = 'j', long, value_name = "MAJOR", requires = "by_minor")]
    pub major: Option<u32>,
}

impl By {
    /// `true` if it names a device.
    pub fn is_given(&self) -> bool {
        self.uuid.is_some() || self.minor.is_some()
    }
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

/// Options of reports, as `info -c` makes them.
#[derive(Args, Default)]
pub struct Report {
    /// In columns.
    #[arg(short = 'c', short_alias = 'C', long)]
    pub columns: bool,
    /// The columns, separated by commas; with + before them, more columns. `help` lists them.
    #[arg(short = 'o', long = "options", value_name = "FIELDS", allow_hyphen_values = true)]
    pub fields: Option<String>,
    /// Sort by these fields, separated by commas; with - before one, downwards.
    #[arg(short = 'O', long = "sort", value_name = "FIELDS", allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// The text between columns, which are not padded then.
    #[arg(long, value_name = "TEXT")]
    pub separator: Option<String>,
    /// Without the line of headings.
    #[arg(long)]
    pub noheadings: bool,
    /// Before each value its name, as a shell reads it: DM_NAME='vol'.
    #[arg(long)]
    pub nameprefixes: bool,
}

#[derive(Subcommand)]
pub enum CtlCommand {
    /// Print the commands, or with -c the fields of `info -c -o`.
    Help {
        /// The fields.
        #[arg(short = 'c', short_alias = 'C', long)]
        columns: bool,
    },
    /// Create a device, load its table and resume it; a failure leaves nothing behind, nor does a
    /// signal.
    Create {
        /// The device's name: 1 to 127 bytes without a slash.
        #[arg(required_unless_present = "concise", value_parser = device_name)]
        name: Option<String>,
        #[command(flatten)]
        table: TableText,
        /// Devices with their tables, as `table --concise` prints them: NAME,UUID,MINOR,ro|rw,
        /// and the lines, separated by commas; devices are separated by semicolons.
        #[arg(long, value_name = "DEVICES", num_args = 0..=1, default_missing_value = "",
            conflicts_with_all = ["table", "notable", "new_uuid", "new_minor"])]
        concise: Option<String>,
        /// Only create it, without a table (with --style dmctl: always so).
        #[arg(short, long, conflicts_with_all = ["file", "table"])]
        notable: bool,
        /// A uuid, up to 128 bytes.
        #[arg(short, long, id = "new_uuid", value_name = "UUID")]
        uuid: Option<String>,
        /// The minor number it must have.
        #[arg(short, long, id = "new_minor", value_name = "MINOR", value_parser = minor)]
        minor: Option<u32>,
        /// With --minor: the driver's major number.
        #[arg(short = 'j', long, value_name = "MAJOR", requires = "new_minor")]
        major: Option<u32>,
        /// Create a device that takes no writes.
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
        devices: Devices,
        /// Does nothing here.
        #[arg(long, hide = true)]
        noflush: bool,
    },
    /// Hold I/O; returns when none is in flight.
    Suspend {
        #[command(flatten)]
        devices: Devices,
        /// Do not wait for what the targets hold back themselves.
        #[arg(long)]
        noflush: bool,
    },
    /// Show devices.
    Info {
        #[command(flatten)]
        devices: DevicesOrAll,
        #[command(flatten)]
        report: Report,
        /// About the inactive table.
        #[arg(long)]
        inactive: bool,
        /// Does nothing here.
        #[arg(short = 'n', long, hide = true)]
        notable: bool,
    },
    /// Show tables, as they can be loaded again.
    Table {
        #[command(flatten)]
        devices: DevicesOrAll,
        #[command(flatten)]
        show: Show,
        /// On one line, as `create --concise` takes them.
        #[arg(long)]
        concise: bool,
        /// Does nothing here.
        #[arg(long, hide = true)]
        showkeys: bool,
    },
    /// Show how the targets are.
    Status {
        #[command(flatten)]
        devices: DevicesOrAll,
        #[command(flatten)]
        show: Show,
    },
    /// Show what block devices a device's table uses.
    Deps {
        #[command(flatten)]
        devices: DevicesOrAll,
        /// About the inactive table.
        #[arg(long)]
        inactive: bool,
        /// The form of devices' names: `devno` or `blkdevname`.
        #[arg(short = 'o', long = "options", value_name = "HOW")]
        how: Option<String>,
    },
    /// List the devices.
    Ls {
        /// Only devices with a line of this target.
        #[arg(long, value_name = "TYPE")]
        target: Option<String>,
        /// Run a command for each device, with the path of its node.
        #[arg(long, value_name = "COMMAND", conflicts_with = "tree")]
        exec: Option<String>,
        /// As a tree, with what lies below each device.
        #[arg(long)]
        tree: bool,
        /// How: `devno`, `blkdevname`; for a tree also `ascii`, `utf`, `uuid`, `open`, `rw`,
        /// `active`, `inverted`, `nodevice`, separated by commas.
        #[arg(short = 'o', long = "options", value_name = "HOW")]
        how: Option<String>,
    },
    /// List the kinds of target, with their versions.
    Targets,
    /// Show the version of each target that is named, or of all.
    #[command(name = "target-version")]
    TargetVersion {
        /// The targets.
        targets: Vec<String>,
    },
    /// Change a device's name, or give it its first uuid.
    Rename {
        /// The device's name.
        #[arg(value_parser = device_name, add = completion::devices())]
        name: String,
        /// The new name, or with --setuuid the uuid.
        #[arg(value_parser = device_name)]
        new: String,
        /// Set the uuid, and not the name.
        #[arg(long)]
        setuuid: bool,
    },
    /// Remove devices that are not open.
    Remove {
        #[command(flatten)]
        devices: Devices,
        /// If one is open, remove it at its last close.
        #[arg(long)]
        deferred: bool,
        /// Give each a table first under which all I/O fails, so that what it used is free even
        /// if it is open and stays.
        #[arg(short, long)]
        force: bool,
        /// Try again while it is open, for 5 seconds.
        #[arg(long)]
        retry: bool,
    },
    /// Remove every device that is not open.
    #[command(name = "remove_all")]
    RemoveAll {
        /// Remove the open ones at their last close.
        #[arg(long)]
        deferred: bool,
        /// As for `remove`, for the devices that stay.
        #[arg(short, long)]
        force: bool,
    },
    /// Give devices a table of their size under which all I/O fails, and change to it.
    #[command(name = "wipe_table")]
    WipeTable {
        #[command(flatten)]
        devices: Devices,
        /// Does nothing here.
        #[arg(short, long, hide = true)]
        force: bool,
        /// As for `suspend`.
        #[arg(long)]
        noflush: bool,
    },
    /// Drop the table in the inactive slot.
    Clear {
        #[command(flatten)]
        devices: Devices,
    },
    /// Wait for a device's next event, such as a change of its table.
    Wait {
        /// The device's name.
        #[arg(value_parser = device_name, add = completion::devices())]
        name: String,
        /// Return as soon as the device's event number is another; 0 if none is given. `info`
        /// shows it.
        event_nr: Option<u32>,
        /// Does nothing here.
        #[arg(long, hide = true)]
        noflush: bool,
    },
    /// Send a message to the target that holds a sector.
    Message {
        /// The device's name.
        #[arg(value_parser = device_name, add = completion::devices())]
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
        #[arg(value_parser = device_name, add = completion::devices())]
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
        /// The devices' names; all devices if none is named.
        #[arg(value_parser = device_name, add = completion::devices())]
        names: Vec<String>,
    },
    /// Take a device's name apart, as LVM puts it together. No server is asked.
    Splitname {
        /// The name.
        name: String,
        /// The subsystem that the name is of; there is only LVM.
        subsystem: Option<String>,
        #[command(flatten)]
        report: Report,
    },
    /// Show the versions of this program and of the driver.
    Version,
    /// Show each device's reads, writes and held I/O: since it was made, then at an interval.
    Iostat {
        /// The devices' names; all devices if none is named.
        #[arg(value_parser = device_name, add = completion::devices())]
        names: Vec<String>,
        /// Go on, and report every so many seconds what came in them.
        #[arg(short = 'w', long = "wait", value_name = "SECONDS",
            value_parser = clap::value_parser!(u32).range(1..=86_400))]
        wait: Option<u32>,
        /// Reports; without it one, or with -w no end.
        #[arg(short = 'c', long = "count", value_name = "COUNT",
            value_parser = clap::value_parser!(u32).range(1..))]
        count: Option<u32>,
    },
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
