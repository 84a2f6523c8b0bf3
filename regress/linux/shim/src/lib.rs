// SPDX-License-Identifier: BSD-2-Clause

//! The library that `dm-host linux` preloads into a program: functions of the C library that libdevmapper and the
//! programs above it call, and that must answer as if the kernel had a device mapper.
//!
//! | the program | here |
//! |---|---|
//! | opens, or looks at, a path that ends in `/mapper/control` | a connection to the server; a character device 10:236 |
//! | an ioctl of type 0xFD, on whatever descriptor | goes to the server as it is, `control.rs` |
//! | looks at a node 7:BASE+N | sees MAJOR:N, `numbers.rs` |
//! | makes a node MAJOR:N | makes 7:BASE+N, a loop device that the server has attached |
//! | reads `/proc/devices`, `/proc/misc`, `/proc/self/mountinfo` | with the device mapper in them, `proc.rs` |
//! | reads below `/sys/block/dm-N` or `/sys/dev/block/MAJOR:N` | the server's folder of that shape, `place.rs` |
//!
//! Without block devices (the server could not have them) a node is an empty file, which looks
//! like a block device and cannot be opened.
//!
//! Everything else goes to the C library, as does everything in a program that was not started by
//! `dm-host linux`. The functions with variable arguments are declared here with those that they
//! can have: on the machines that Debian runs on with this driver's tools (x86_64, aarch64)
//! both are passed alike.

mod control;
mod file;
mod numbers;
mod place;
mod proc;
mod real;
mod settings;
mod status;
