// SPDX-License-Identifier: BSD-2-Clause

//! The command line of `dm-host linux`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

const AFTER: &str = "\
dmsetup, lvm, cryptsetup and their like run as they are, as on a Linux kernel whose device mapper is
this driver. As root, with FUSE and loop devices there, each device is a block device that mkfs,
mount and the like can use; else only dmsetup(8) works. The program sees a /dev of its own, with
the disks and the devices, and mounts what it likes without anybody outside seeing it. At the end
everything is unmounted, flushed and gone.

Without a program the session stays until Ctrl-C, and further `dm-host linux -- PROGRAM` join it.
A program without --disk joins such a session; if there is none, it has one of its own, without
disks: a loop device, or what else has a node there, can be named in a table all the same.

Examples:
  truncate -s 64M a.img b.img
  dm-host linux --disk wd0=a.img -- dmsetup create one --table '0 2048 linear /dev/wd0 0'
  dm-host linux --disk wd0=a.img --disk wd1=b.img &
  dm-host linux -- lvm pvcreate /dev/wd0 /dev/wd1
  dm-host linux -- lvm vgcreate vg /dev/wd0 /dev/wd1
  dm-host linux -- sh";

/// Run an untouched Linux program (dmsetup, lvm, cryptsetup) with this driver as its device mapper.
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct Linux {
    /// Attach FILE, or a block device, as /dev/NAME, for a session of its own, as `serve` does. May
    /// be given many times.
    #[arg(long = "disk", value_name = "NAME=FILE[,OPTION...]")]
    pub disks: Vec<String>,
    /// The library that is preloaded [default: libdm_shim.so beside this program].
    #[arg(long, value_name = "PATH", env = "DM_HOST_SHIM")]
    pub shim: Option<PathBuf>,
    /// Do without block devices, also where they could be had.
    #[arg(long)]
    pub no_blocks: bool,
    /// The program and its arguments.
    #[arg(last = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}

/// The process behind a session; `dm-host linux` starts it.
#[derive(Args)]
pub struct Keeper {
    /// The session's folder.
    #[arg(long)]
    pub folder: PathBuf,
    /// The disks.
    #[arg(long = "disk")]
    pub disks: Vec<String>,
}
