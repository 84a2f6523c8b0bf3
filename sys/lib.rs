// SPDX-License-Identifier: BSD-2-Clause

//! NetBSD's device-mapper driver, dm(4).
//!
//! [`netbsd`] makes NetBSD's kernel interface safe; [`entry`] puts `dm-core` behind the C interface
//! that the kernel calls. In a kernel this crate is the driver's object; in a Unix process
//! (feature `hosted`) the functions it calls are those of `regress/host`.

#![cfg_attr(not(feature = "hosted"), no_std)]

extern crate alloc;

pub mod entry;
pub mod netbsd;
