// SPDX-License-Identifier: BSD-2-Clause

//! Scripts of device-mapper commands and I/O that run on two drivers, and the comparison of what
//! each said and did.
//!
//! A script ([`Script`], `share/doc/linux-judge.md` teaches the language) is carried out by one
//! interpreter ([`job::run`]) over a [`side::Side`]: Linux's kernel, in a guest, or NetBSD's
//! driver of this repository, in a process. Each side writes a [`transcript`] and leaves disk
//! images; [`compare`] holds them against each other.
//!
//! The same code reads the script, makes the data and prints the answers on both sides, so that
//! what differs is what the kernels did.

pub mod compare;
pub mod data;
pub mod glob;
pub mod image;
pub mod job;
mod parse;
mod run;
pub mod script;
pub mod side;
pub mod transcript;
mod words;

pub use script::Script;
