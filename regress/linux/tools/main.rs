// SPDX-License-Identifier: BSD-2-Clause

//! Linux's own tools on the driver, through `dm-host linux`: their output, the commands that they accept and refuse,
//! the file systems on the devices, and things left behind.
//!
//! A test whose tools or devices are not to be had on this machine says so and is passed.

#[path = "../../host/tests/tool/mod.rs"]
mod tool;

mod blocks;
mod cryptsetup;
mod dmsetup;
mod killed;
mod lvm;
mod lvm_mirror;
mod lvm_snapshot;
mod session;
mod verity;
