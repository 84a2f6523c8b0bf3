// SPDX-License-Identifier: BSD-2-Clause

//! The hosted kernel: NetBSD's kernel functions, under their own names and with NetBSD's
//! structures, in a Unix process.
//!
//! The dm(4) driver of this repository calls a NetBSD kernel; linked with this crate it calls
//! these functions instead and runs, unchanged, as part of a program. [`Machine::boot`] starts the
//! kernel, [`Machine::attach_disk`] gives it disks, [`Machine::open`] opens a device node, and
//! what can be done with a node in NetBSD (ioctl, read, write, discard) can be done with the
//! [`File`] that comes back.
//!
//! ```no_run
//! use dm_host::{Config, DiskSpec, Flags, Machine};
//!
//! let machine = Machine::boot(Config::default())?;
//! let disk = machine.attach_disk(DiskSpec::memory("wd0", 2048))?;
//! let control = machine.open("/dev/mapper/control", Flags::READ_WRITE)?;
//! let reply = control.plist_ioctl("<plist version=\"1.0\"><dict>...</dict></plist>")?;
//! # let _ = (disk, reply);
//! # Ok::<(), dm_host::Errno>(())
//! ```
//!
//! It is stricter than a kernel with DIAGNOSTIC and LOCKDEBUG. What a kernel would only notice by
//! chance stops the process with a message and a backtrace: a buffer completed twice, memory freed
//! with another size, a lock left held, sleeping where NetBSD may not sleep, anything left over at
//! shutdown. Each file is named after the manual page of section 9 whose functions it holds, and
//! says where it is simpler than NetBSD.
//!
//! Only one machine runs at a time in a process; [`Machine::boot`] waits for its turn.

pub mod aes;
pub mod autoconf;
pub mod buf;
pub mod callout;
pub mod components;
pub mod condvar;
pub mod console;
pub mod copy;
mod dev;
pub mod devsw;
pub mod disk;
pub mod disklabel;
pub mod dkwedge;
pub mod errno;
pub mod fault;
mod file;
pub mod frugal;
mod hash;
pub mod iostat;
pub mod kauth;
pub mod kmem;
mod kthread;
pub mod linux;
pub mod lock;
pub mod lwp;
pub mod machine;
pub mod module;
mod mount;
pub mod mutex;
pub mod physio;
pub mod pool_cache;
pub mod proplib;
pub mod reasons;
mod registry;
pub mod specfs;
mod strategy;
pub mod sysctl;
pub mod wire;
pub mod write_log;
mod xcall;

/// NetBSD's structures and constants, as bindgen read them from NetBSD's headers.
pub use rustdm::netbsd::sys as netbsd;

pub use components::{Allocation, Backend, Completion, Counters, Disk, DiskSpec, Label, Partition};
pub use dev::{Dev, NODEV, major, makedev, minor};
pub use errno::Errno;
pub use fault::{FaultPlan, Site};
pub use file::{File, Flags, Node};
pub use lwp::{LwpId, current_lwp};
pub use machine::{Clock, Config, Kthread, Machine, Pmf};
pub use mount::Mount;
pub use strategy::{Io, IoResult, Request, run_all};
pub use sysctl::Value;
