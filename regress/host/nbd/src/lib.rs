// SPDX-License-Identifier: BSD-2-Clause

//! NBD, the protocol for block devices over a socket: a server and a client.
//!
//! Neither knows what a device is. [`proto`] takes messages apart and puts them together, and does
//! nothing else; [`haggle`] is the server's side of the handshake; [`Server`] accepts clients and
//! carries out what they ask of a [`Device`]; [`Client`] asks others. The protocol is the one of
//! the NBD project's `doc/proto.md`: fixed newstyle, structured replies, block status.
#![forbid(unsafe_code)]

mod client;
mod connection;
mod execute;
mod export;
pub mod haggle;
mod handoff;
pub mod proto;
mod reader;
mod server;
mod socket;
mod threads;
pub mod uri;

pub use client::{Client, ClientError, Export, Limits, Operation, Outcome};
pub use export::{Description, Device, Exports, Extent, Refusal};
pub use handoff::{about_to_block, is_reader};
pub use proto::Error;
pub use server::{Listener, Server};
pub use uri::Uri;
