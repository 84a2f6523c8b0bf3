// SPDX-License-Identifier: BSD-2-Clause

//! Linux's own tools on the driver, through `dm-host linux`: what they print, what they accept and
//! refuse, what file systems find on the devices, and what is left afterwards.
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
