//! The hosted kernel inside nbdkit: each dm device is an NBD export.
//!
//! nbdkit loads this library as a plugin, hands it the command line (`config.rs`), and calls it for
//! each connection (`export.rs`). The kernel boots when the command line is complete
//! (`server.rs`); `dm-host ctl` reaches it on a socket of its own (`control.rs`). `dm-host serve`
//! makes the sockets and starts nbdkit. share/doc/nbd.md says why it is made like this.

mod config;
mod control;
mod ending;
mod export;
mod plugin;
mod server;
