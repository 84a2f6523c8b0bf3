// SPDX-License-Identifier: BSD-2-Clause

//! Completion in shells: the script asks this program, which knows its own words and asks the
//! server for the devices' names.

use std::path::PathBuf;
use std::{env, io};

use clap::CommandFactory;
use clap_complete::env::{CompleteEnv, Shells};

use crate::cli::Cli;
use crate::client::Failure;

/// The variable by which a script asks.
const ASKED: &str = "_DM_HOST_COMPLETE";

/// Answers a question of the shell's completion script and ends the program, if it was started for that.
pub fn answer() {
    CompleteEnv::with_factory(Cli::command).var(ASKED).complete();
}

/// The script for a shell.
///
/// # Errors
/// [`Failure::Usage`].
pub fn script(shell: clap_complete::Shell) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::Usage(format!("completion: {error}"));
    let own = env::current_exe().map_err(failed)?;
    let shells = Shells::builtins();
    let adapter = shells
        .completer(&shell.to_string())
        .ok_or_else(|| Failure::Usage(format!("completion: {shell} is not known")))?;
    let mut script = Vec::new();
    let own = own.to_string_lossy();
    adapter.write_registration(ASKED, "dm-host", "dm-host", &own, &mut script).map_err(failed)?;
    // Under `set -u` a function that is called by hand would end there.
    Ok(String::from_utf8_lossy(&script).replace("${COMP_TYPE}", "${COMP_TYPE-9}"))
}

/// The control socket of the command line that is being completed.
pub fn socket() -> Option<PathBuf> {
    let mut words = env::args().skip_while(|word| word != "--");
    while let Some(word) = words.next() {
        if word == "--socket" {
            return words.next().map(Into::into);
        }
        if let Some(path) = word.strip_prefix("--socket=") {
            return Some(path.into());
        }
    }
    env::var_os("DM_HOST_CONTROL").map(Into::into)
}
