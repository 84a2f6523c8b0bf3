//! `dm-host`: dm(4) in a Unix process, for people. dm-host(8) is its manual page.

mod cli;
mod client;
mod ctl;
mod disk;
mod image;
mod linux;
mod map;
mod serve;
mod server;
mod show;
mod sockets;
mod table;
mod xml;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command, Completion, Draw, Map, Uri};
use crate::client::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Serve(serve) => serve::run(serve),
        Command::Ctl(ctl) => ctl::run(ctl),
        Command::Map(map) => draw(map),
        Command::Uri(uri) => Ok(print_uri(uri)),
        Command::Completion(completion) => Ok(complete(completion)),
        Command::Linux(linux) => return linux::run(linux),
        Command::LinuxKeeper(keeper) => return linux::keeper::run(keeper),
    };
    let result = result.and_then(|text| match io::stdout().write_all(text.as_bytes()) {
        // Whoever read it has seen enough.
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

/// Says something on standard error, where nobody may listen: then it is not said.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "dm-host: {text}");
}

fn draw(map: &Map) -> Result<String, Failure> {
    let disks = disk::Disk::parse_all(&map.disks).map_err(Failure::Usage)?;
    let disks = map::Disks::new(&disks, map.readonly).map_err(Failure::Usage)?;
    let (lines, mut bad) = table::parse(&ctl::read(&map.table)?);
    let mapped = match map::check(&lines, &disks) {
        Ok(mapped) if bad.is_empty() => mapped,
        result => {
            // A line that is none leaves a gap: that is told only once.
            if bad.is_empty() {
                bad.extend(result.err().unwrap_or_default());
            } else {
                let others = result.err().unwrap_or_default().into_iter();
                bad.extend(others.filter(|mistake| !mistake.why.starts_with("there is a gap")));
                bad.sort_by_key(|line| line.number);
            }
            return Err(Failure::Table(bad));
        }
    };
    let terminal = match map.draw {
        Draw::Auto => io::stdout().is_terminal(),
        Draw::Always => true,
        Draw::Never => false,
    };
    Ok(mapped.show(terminal.then(width)))
}

/// Cells for a bar: the terminal's width, as far as the environment tells it.
fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse::<usize>().ok());
    columns.unwrap_or(80).clamp(24, 200).saturating_sub(6)
}

fn print_uri(uri: &Uri) -> String {
    let socket = uri.nbd.clone().unwrap_or_else(sockets::default_nbd);
    let socket = std::path::absolute(&socket).unwrap_or(socket);
    format!("{}\n", dm_nbd::uri::unix(&uri.name, &socket))
}

fn complete(completion: &Completion) -> String {
    let mut script = Vec::new();
    clap_complete::generate(completion.shell, &mut Cli::command(), "dm-host", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
