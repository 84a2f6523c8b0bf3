// SPDX-License-Identifier: BSD-2-Clause

//! `dm-host`: dm(4) in a Unix process, for people. dm-host(8) is its manual page.

mod cli;
mod client;
mod completion;
mod concise;
mod ctl;
mod disk;
mod failure;
mod image;
mod linux;
mod luks;
mod map;
mod replay;
mod say;
mod serve;
mod server;
mod show;
mod sockets;
mod splitname;
mod table;
mod wiping;
mod xml;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command, Uri};
use crate::failure::Failure;
use crate::say::say;

#[global_allocator]
static ALLOCATOR: wiping::Wiping = wiping::Wiping;

fn main() -> ExitCode {
    completion::answer(Cli::command);
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Serve(serve) => serve::run(serve),
        Command::Ctl(ctl) => ctl::run(ctl),
        Command::Map(map) => map::run(map),
        Command::Luks(luks) => luks::run(luks),
        Command::ReplayLog(replay) => replay::run(replay),
        Command::Uri(uri) => Ok(print_uri(uri)),
        Command::Linux(linux) => return linux::run(linux),
        Command::LuksKeeper(keeper) => return luks::keeper::run(keeper),
        Command::LinuxKeeper(keeper) => return linux::keeper::run(keeper),
        Command::Completion(completion) => completion::script(completion.shell),
    };
    let result = result.and_then(|text| match io::stdout().write_all(text.as_bytes()) {
        // The reader has closed the pipe: it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::Usage(format!("standard output: {error}"))),
        Ok(()) => Ok(()),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.to_string());
            failure.code().into()
        }
    }
}

fn print_uri(uri: &Uri) -> String {
    let socket = uri.nbd.clone().unwrap_or_else(|| {
        // A disk that `luks open` serves has a socket of its own.
        let (_, opened) = sockets::of_luks(&uri.name);
        if opened.exists() { opened } else { sockets::default_nbd() }
    });
    let socket = std::path::absolute(&socket).unwrap_or(socket);
    format!("{}\n", dm_nbd::uri::unix(&uri.name, &socket))
}
