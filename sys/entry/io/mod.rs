// SPDX-License-Identifier: BSD-2-Clause

//! The parts of the I/O path that hold for any device: the gate that I/O enters, the queue in front
//! of it, the reserve for when memory is short, the place where a table's thread sleeps. They use
//! neither buffers nor tables, and of the kernel only locks and condition variables, so that
//! `regress/models` compiles these very files on loom's and runs them through every interleaving.

mod gate;
pub mod iogate;
pub mod parker;
pub mod queue;
pub mod reserve;

pub use gate::{Door, Here, Pass};

use crate::netbsd::{atomic, condvar, mutex};
