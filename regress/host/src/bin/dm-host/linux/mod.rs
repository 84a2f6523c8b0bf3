// SPDX-License-Identifier: BSD-2-Clause

//! `dm-host linux`: a Linux program with this driver as its device mapper. `share/doc/linux.md`
//! tells how it works.

pub mod args;
mod blocks;
mod events;
mod folder;
mod fuse;
mod host;
pub mod keeper;
mod loops;
mod space;
mod tree;
mod users;

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use folder::State;

use crate::disk::Disk;

/// Runs the program, and returns its exit code; 128 and a signal's number if one ended it.
pub fn run(linux: &args::Linux) -> ExitCode {
    let result = match linux.program.is_empty() {
        true => stay(linux),
        false => execute(linux),
    };
    result.unwrap_or_else(|why| {
        eprintln!("dm-host: {why}");
        ExitCode::from(crate::failure::exit::USAGE)
    })
}

/// The name of the session that others join.
const COMMON: &str = "common";

fn execute(linux: &args::Linux) -> Result<ExitCode, String> {
    let shim = shim(linux)?;
    let common = folder::all().join(COMMON);
    if linux.disks.is_empty() && folder::is_kept(&common) {
        let state = State::read(&common).filter(|state| state.keeper != 0);
        let state = state.ok_or("the session that this would join is about to begin: try again")?;
        return program(linux, &shim, &common, &state);
    }
    let session = Session::start(linux, &std::process::id().to_string())?;
    let code = session.state().and_then(|state| program(linux, &shim, &session.folder, &state));
    session.end()?;
    code
}

/// A session for others to join, until a signal comes.
fn stay(linux: &args::Linux) -> Result<ExitCode, String> {
    shim(linux)?;
    if linux.disks.is_empty() {
        return Err("give a program to run (after --), or --disk for a session that stays".into());
    }
    use nix::sys::signal::{SigSet, Signal};
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(|error| format!("signals: {error}"))?;
    let session = Session::start(linux, COMMON)?;
    println!("`dm-host linux -- PROGRAM` runs programs here. Ctrl-C ends it.");
    // Whichever came, it is the end.
    let _ = signals.wait();
    session.end()?;
    Ok(ExitCode::SUCCESS)
}

/// The preloaded library: named by the user, or beside this program.
fn shim(linux: &args::Linux) -> Result<PathBuf, String> {
    const FILE: &str = "libdm_shim.so";
    if let Some(path) = &linux.shim {
        return fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()));
    }
    let own = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    let places = [beside.join(FILE), beside.join("../lib/dm-host").join(FILE)];
    places.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        format!(
            "{} is not there: build it with `cargo build --package dm-shim`, or name it with --shim",
            beside.join(FILE).display()
        )
    })
}

/// A session of our own.
struct Session {
    folder: PathBuf,
    keeper: Option<Child>,
}

impl Session {
    /// Starts one, and waits until programs may come.
    fn start(linux: &args::Linux, name: &str) -> Result<Session, String> {
        let lock = folder::lock_all()?;
        folder::clear_leftovers(&lock);
        let folder = folder::all().join(name);
        if folder.exists() {
            return Err(format!("a session is there already: {}", folder.display()));
        }
        let usable = match linux.no_blocks {
            true => Err("--no-blocks".into()),
            false => loops::usable(),
        };
        let loops = match &usable {
            Ok(()) => Some((folder::free_base(&lock).ok_or("too many sessions")?, loops::shift())),
            Err(_) => None,
        };
        if let Err(why) = &usable
            && !linux.no_blocks
        {
            eprintln!("dm-host: without block devices, only dmsetup works: {why}");
        }
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut session = Session { folder, keeper: None };
        State { keeper: 0, major: 0, loops }.write(&session.folder)?;
        Disk::parse_all(&linux.disks)?;
        let mut keeper = session.keeper_command(&linux.disks)?;
        let mut child = keeper.spawn().map_err(|error| format!("the session: {error}"))?;
        let out = child.stdout.take();
        session.keeper = Some(child);
        let mut line = String::new();
        if let Some(out) = out {
            // Nothing comes from one that does not start.
            let _ = BufReader::new(out).read_line(&mut line);
        }
        if line.trim() != keeper::READY {
            session.finish(&lock)?;
            return Err("the session did not start".into());
        }
        Ok(session)
    }

    fn keeper_command(&self, disks: &[String]) -> Result<Command, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(own);
        command.arg("linux-keeper").arg("--folder").arg(&self.folder);
        // It is in our folder as well, so that a file's name means the same.
        command.args(disks.iter().map(|disk| format!("--disk={disk}")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C is for the program; the session ends when it has.
        command.process_group(0);
        Ok(command)
    }

    fn state(&self) -> Result<State, String> {
        State::read(&self.folder).ok_or_else(|| "the session's state cannot be read".into())
    }

    /// Ends it, and waits until nothing is left.
    fn end(mut self) -> Result<(), String> {
        let keeper = self.keeper.as_mut();
        let ended = keeper.map(|keeper| {
            drop(keeper.stdin.take());
            keeper.wait()
        });
        // Its end may take a while: others need not wait for that.
        drop(ended);
        self.finish(&folder::lock_all()?)
    }

    /// Clears up after it. All sessions are locked.
    fn finish(&mut self, lock: &folder::Lock) -> Result<(), String> {
        let Some(mut keeper) = self.keeper.take() else { return Ok(()) };
        drop(keeper.stdin.take());
        let status = keeper.wait().map_err(|error| format!("the session: {error}"));
        folder::clear(&self.folder);
        folder::remove_all(lock);
        match status? {
            status if status.success() => Ok(()),
            status => Err(format!("the session ended badly: {status}")),
        }
    }
}

/// Runs the program in a session.
fn program(
    linux: &args::Linux,
    shim: &Path,
    folder: &Path,
    state: &State,
) -> Result<ExitCode, String> {
    let (name, arguments) = linux.program.split_first().ok_or("no program")?;
    let mut command = Command::new(name);
    command.args(arguments);
    let mut preload = OsString::from(shim);
    if let Some(others) = std::env::var_os("LD_PRELOAD") {
        preload.push(" ");
        preload.push(others);
    }
    command.env("LD_PRELOAD", preload);
    command.env("DM_HOST_LINUX_SOCKET", folder.join("socket"));
    command.env("DM_HOST_LINUX_MAJOR", state.major.to_string());
    command.env(users::MARK, folder);
    match state.loops {
        Some((base, shift)) => command.env("DM_HOST_LINUX_LOOPS", format!("{base} {shift}")),
        None => {
            command.env_remove("DM_HOST_LINUX_LOOPS");
            command.env("DM_DEV_DIR", folder.join("dev"))
        }
    };
    command.env("DM_DISABLE_UDEV", "1").env("LVM_SUPPRESS_FD_WARNINGS", "1");
    if std::env::var_os("LVM_SYSTEM_DIR").is_none() {
        command.env("LVM_SYSTEM_DIR", folder.join("lvm"));
    }
    if state.loops.is_some() {
        let place = format!("/proc/{}/ns/mnt", state.keeper);
        let space = fs::File::open(&place).map_err(|error| format!("{place}: {error}"))?;
        let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
        let join = move || {
            nix::sched::setns(space.as_fd(), nix::sched::CloneFlags::CLONE_NEWNS)?;
            // The folder of this name in there: to be in the one out here would keep it busy.
            nix::unistd::chdir(&here)?;
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls, and allocates nothing but a path on
        // the stack.
        unsafe { command.pre_exec(join) };
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            return Err(format!("{}: {error}", name.to_string_lossy()));
        }
    };
    let ignored = ignore_keys();
    let status = child.wait().map_err(|error| format!("waiting: {error}"));
    drop(ignored);
    let status = status?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// The keys of the terminal that end programs are the program's business while it runs.
fn ignore_keys() -> impl Drop {
    use nix::sys::signal::{SigHandler, Signal, signal};
    struct Ignored([(Signal, Option<SigHandler>); 2]);
    impl Drop for Ignored {
        fn drop(&mut self) {
            for (which, before) in self.0 {
                if let Some(before) = before {
                    // SAFETY: what stood there before; this program sets no handlers of its own.
                    let _ = unsafe { signal(which, before) };
                }
            }
        }
    }
    Ignored([Signal::SIGINT, Signal::SIGQUIT].map(|which| {
        // SAFETY: to ignore a signal calls no code.
        (which, unsafe { signal(which, SigHandler::SigIgn) }.ok())
    }))
}
