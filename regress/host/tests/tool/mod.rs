// SPDX-License-Identifier: BSD-2-Clause

//! A served machine for the tests of the tool, and programs run against it.
#![allow(dead_code, reason = "no test uses all of it")]

use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// A time within which every wait of a test ends unless something hangs: also that for a long script,
/// on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(600);

pub const TOOL: &str = env!("CARGO_BIN_EXE_dm-host");

/// Says what to install when a program of someone else's is missing.
pub fn program(name: &str) -> Command {
    let dirs = std::env::var("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs).any(|dir| dir.join(name).is_file());
    assert!(found, "{name} is not installed: `cargo xtask setup tools` installs it");
    Command::new(name)
}

/// A folder of a test's own, with a short path, that goes with the test.
pub struct Folder(pub TempDir);

impl Folder {
    pub fn new() -> Folder {
        // A server takes no folder for sockets that others can write to.
        let own = Permissions::from_mode(0o700);
        let made = tempfile::Builder::new().prefix("dm-host-").permissions(own).tempdir();
        Folder(made.expect("a new folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file of so many sectors of 512 bytes.
    pub fn disk(&self, name: &str, sectors: u64) -> PathBuf {
        let path = self.path(name);
        File::create(&path).expect("a new file").set_len(sectors * 512).expect("its size");
        path
    }
}

/// The result of a program.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    /// The program's output. The program must have succeeded without complaints.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0 && self.err.is_empty(), "{self:?}");
        self.out
    }

    /// The program's complaints. The program must have failed with this exit code.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert!(self.code == code && self.out.is_empty(), "{self:?}");
        self.err
    }
}

fn done(output: Output) -> Done {
    Done {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Runs a program with `input`, and gives it up if it hangs.
pub fn run(command: &mut Command, input: &str) -> Done {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let text = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{text}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_string();
    let (send, receive) = mpsc::channel();
    let id = child.id();
    thread::spawn(move || {
        // A program that does not want its input may be gone.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let _ = send.send(child.wait_with_output());
    });
    match receive.recv_timeout(LIMIT) {
        Ok(output) => done(output.expect("it ends")),
        Err(_) => {
            signal(id, "KILL");
            panic!("{text} hangs");
        }
    }
}

pub fn signal(id: u32, name: &str) {
    let kill = format!("kill -{name} {id}");
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh").success(), "{kill}");
}

pub fn tool(args: &[&str], input: &str) -> Done {
    run(Command::new(TOOL).args(args).env_remove("DM_HOST_CONTROL"), input)
}

/// The command that serves these disks, its sockets in the folder.
pub fn serve(folder: &Folder, disks: &[impl AsRef<str>], more: &[&str]) -> Command {
    let mut command = Command::new(TOOL);
    command.arg("serve");
    for disk in disks {
        command.arg("--disk").arg(disk.as_ref());
    }
    command.arg("--control").arg(folder.path("control")).arg("--nbd").arg(folder.path("nbd"));
    command.args(more).stdin(Stdio::null());
    command
}

/// A served machine.
pub struct Server {
    pub folder: Folder,
    /// The lines that the server printed when it started.
    pub told: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Disks wd0 and wd1 of 8192 sectors, wd2 of 2048 sectors that takes no writes.
    pub fn start() -> Server {
        Server::with(&[])
    }

    pub fn with(more: &[&str]) -> Server {
        let folder = Folder::new();
        let disks = [("wd0", 8192, ""), ("wd1", 8192, ""), ("wd2", 2048, ",ro")];
        let disks = disks.map(|(name, sectors, options)| {
            format!("{name}={}{options}", folder.disk(name, sectors).display())
        });
        Server::on(folder, &disks, more)
    }

    /// A machine with these disks.
    pub fn on(folder: Folder, disks: &[impl AsRef<str>], more: &[&str]) -> Server {
        let mut command = serve(&folder, disks, more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the tool");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        // The line about the end comes after those about the sockets.
        let mut lines = out.lines().map_while(Result::ok);
        let mut told = Vec::new();
        let ready = lines.any(|line| {
            told.push(line);
            told.last().is_some_and(|line| line.starts_with("Ctrl-C"))
        });
        if !ready {
            panic!("the server did not start: {:?}", done(child.wait_with_output().expect("ends")));
        }
        Server { folder, told, child: Some(child) }
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn ctl_with(&self, args: &[&str], input: &str) -> Done {
        let control = self.folder.path("control").display().to_string();
        let mut all = vec!["ctl", "--socket", control.as_str()];
        all.extend(args);
        tool(&all, input)
    }

    pub fn ctl(&self, args: &[&str]) -> Done {
        self.ctl_with(args, "")
    }

    pub fn uri(&self, device: &str) -> String {
        format!("nbd+unix:///{device}?socket={}", self.folder.path("nbd").display())
    }

    /// Waits for the server's end, and returns its output.
    pub fn wait(&mut self) -> (ExitStatus, String) {
        let child = self.child.take().expect("it runs");
        let (send, receive) = mpsc::channel();
        let id = child.id();
        thread::spawn(move || send.send(child.wait_with_output()));
        match receive.recv_timeout(LIMIT) {
            Ok(output) => {
                let output = output.expect("it ends");
                (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
            }
            Err(_) => {
                signal(id, "KILL");
                panic!("the server does not end");
            }
        }
    }

    /// Ends the server with Ctrl-C. It must end well, and leave no sockets.
    #[track_caller]
    pub fn end(mut self) -> String {
        signal(self.id(), "INT");
        let sockets = ["control", "nbd"].map(|name| self.folder.path(name));
        let (status, said) = self.wait();
        assert!(status.success(), "{status}: {said}");
        assert!(said.contains("flushed and ended"), "{said}");
        assert!(!said.contains("left over"), "{said}");
        assert!(sockets.iter().all(|socket| !socket.exists()), "a socket is left");
        said
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
