// SPDX-License-Identifier: BSD-2-Clause

//! Carries out jobs that the host names.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use dm_script::image;
use dm_script::job::{self, Job};
use dm_script::side::Side;
use dm_script::transcript::one_line;

use crate::linux::Linux;
use crate::raw;

/// The folder for the images in use: in memory.
const WORK: &str = "/run/work";

/// Takes the names of jobs from `port`, a line each, until it ends. `ready` with the names of all
/// targets is said first, then `done NAME` or `failed NAME WHY`.
///
/// # Errors
/// Words, where nothing can be carried out.
pub fn main(share: &str, port: &str) -> Result<(), String> {
    let open = || OpenOptions::new().read(true).write(true).open(port);
    let node = open().map_err(|error| format!("{port}: {error}"))?;
    raw::set_raw(&node).map_err(|error| format!("{port}: {error}"))?;
    let mut say = node.try_clone().map_err(|error| error.to_string())?;
    let mut linux = Linux::open()?;
    tell(&mut say, &format!("ready {}", linux.targets()?.join(" ")))?;
    for line in BufReader::new(node).lines() {
        let line = line.map_err(|error| format!("{port}: {error}"))?;
        let name = line.trim();
        let answer = match one(&mut linux, &Path::new(share).join(name)) {
            Ok(()) => format!("done {name}"),
            Err(why) => format!("failed {name} {}", one_line(&why)),
        };
        tell(&mut say, &answer)?;
    }
    Ok(())
}

fn one(linux: &mut Linux, folder: &Path) -> Result<(), String> {
    let work = Path::new(WORK);
    image::fresh_folder(work)?;
    job::run(linux, &Job::at(folder), work)
}

fn tell(say: &mut File, text: &str) -> Result<(), String> {
    say.write_all(format!("{text}\n").as_bytes()).map_err(|error| error.to_string())
}
