// SPDX-License-Identifier: BSD-2-Clause

//! Completion in shells: the script asks this program, which knows its own words and asks the
//! server for the devices' names.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::{env, io};

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};

use crate::client::Client;
use crate::failure::Failure;
use crate::xml::Dict;

/// The variable by which a script asks.
const ASKED: &str = "_DM_HOST_COMPLETE";

/// Answers a question of the shell's completion script about `words`, the command line, and ends
/// the program, if it was started for that.
pub fn answer(words: impl Fn() -> clap::Command) {
    CompleteEnv::with_factory(words).var(ASKED).complete();
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

/// Completes devices' names, if a server tells them.
pub fn devices() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let begun = current.to_string_lossy();
        let fits =
            |name: &String| name.starts_with(begun.as_ref()) && !name.chars().any(char::is_control);
        names().unwrap_or_default().into_iter().filter(fits).map(CompletionCandidate::new).collect()
    })
}

fn names() -> Option<Vec<String>> {
    let mut client = Client::connect(socket().as_deref()).ok()?;
    let answer = client.question(&Dict::from([("command", "names".into())])).ok()??;
    Some(answer.dictionaries("cmd_data").map(|entry| entry.text("name").to_string()).collect())
}

/// The control socket of the command line that is being completed.
fn socket() -> Option<PathBuf> {
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
