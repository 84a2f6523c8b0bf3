// SPDX-License-Identifier: BSD-2-Clause

//! The guest: a QEMU with a Linux that carries out jobs.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// The time that a guest may take to come up, and the bench to end: far longer than on a busy machine.
const BOOT: Duration = Duration::from_secs(180);
const BENCH: Duration = Duration::from_secs(540);

/// A running guest. Dropping it ends it.
pub struct Guest {
    qemu: Child,
    say: ChildStdin,
    hear: Receiver<String>,
    console: PathBuf,
    targets: Vec<String>,
}

/// Why a job was not done.
pub enum Failed {
    /// The guest said so; it goes on.
    Said(String),
    /// The guest is gone, or no good any more.
    Gone(String),
}

/// A QEMU with this kernel, its first serial port going to `console`, its second one to us.
fn qemu(guest: &Path, console: &Path, append: &str) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(guest.join("vmlinuz"));
    command.arg("-initrd").arg(guest.join("initramfs.gz"));
    command.args(["-append", &format!("console=ttyS0 quiet panic=-1 oops=panic {append}")]);
    command.arg("-chardev").arg(format!("file,id=console,path={}", console.display()));
    command.args(["-serial", "chardev:console"]);
    command.args(["-chardev", "stdio,id=jobs,signal=off", "-serial", "chardev:jobs"]);
    command
}

/// The lines of a program's standard output, as they come.
fn lines(child: &mut Child) -> Result<Receiver<String>, String> {
    let output = child.stdout.take().ok_or("no output of QEMU's")?;
    let (send, hear) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if send.send(line.trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    Ok(hear)
}

impl Guest {
    /// Boots a guest whose jobs are in folders below `share`.
    ///
    /// # Errors
    /// Words, with the end of its console.
    pub fn boot(guest: &Path, share: &Path, console: &Path) -> Result<Guest, String> {
        let mut command = qemu(guest, console, "dm.run=serve");
        // Without the processor's help: the same everywhere, also where that help is broken.
        command.args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024"]);
        command.arg("-virtfs").arg(format!(
            "local,path={},mount_tag=share,security_model=none,multidevs=remap",
            share.display()
        ));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut qemu = command.spawn().map_err(|error| format!("qemu-system-x86_64: {error}"))?;
        let hear = lines(&mut qemu)?;
        let say = qemu.stdin.take().ok_or("no input of QEMU's")?;
        let (console, targets) = (console.to_path_buf(), Vec::new());
        let mut guest = Guest { qemu, say, hear, console, targets };
        match guest.hear.recv_timeout(BOOT) {
            Ok(line) => match line.strip_prefix("ready ") {
                Some(targets) => {
                    guest.targets = targets.split(' ').map(str::to_owned).collect();
                    Ok(guest)
                }
                None => Err(format!("the guest said `{line}` at first")),
            },
            Err(_) => Err(format!("the guest does not come up\n{}", guest.last_words())),
        }
    }

    /// The targets that this Linux has.
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// Has a job carried out.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn job(&mut self, name: &str, limit: Duration) -> Result<(), Failed> {
        if let Err(error) = writeln!(self.say, "{name}").and_then(|()| self.say.flush()) {
            return Err(Failed::Gone(format!("{error}\n{}", self.last_words())));
        }
        match self.hear.recv_timeout(limit) {
            Ok(line) if line == format!("done {name}") => Ok(()),
            Ok(line) => Err(Failed::Said(line)),
            Err(RecvTimeoutError::Timeout) => {
                let limit = limit.as_secs();
                Err(Failed::Gone(format!("not done in {limit} s\n{}", self.last_words())))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(Failed::Gone(format!("the guest is gone\n{}", self.last_words())))
            }
        }
    }

    /// The end of its console.
    fn last_words(&self) -> String {
        last_words(&self.console)
    }
}

fn last_words(console: &Path) -> String {
    let text = std::fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<_> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default();
    format!("its console ({}) ends:\n  {}", console.display(), last.join("\n  "))
}

impl Drop for Guest {
    fn drop(&mut self) {
        // All that it wrote is on our side.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// Runs the bench in a guest whose time stamp counter counts instructions, and returns its output.
///
/// # Errors
/// Words, with the end of its console.
pub fn bench(guest: &Path, work: &Path) -> Result<String, String> {
    std::fs::create_dir_all(work).map_err(|error| format!("{}: {error}", work.display()))?;
    let console = work.join("console");
    let mut command = qemu(guest, &console, "dm.run=bench");
    command.args(["-accel", "tcg,thread=single", "-icount", "shift=0", "-smp", "1", "-m", "1024"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut qemu = command.spawn().map_err(|error| format!("qemu-system-x86_64: {error}"))?;
    let hear = lines(&mut qemu)?;
    let mut text = String::new();
    let result = loop {
        match hear.recv_timeout(BENCH) {
            Ok(line) if line == "end" => break Ok(text),
            Ok(line) => text.push_str(&format!("{line}\n")),
            Err(_) => break Err(format!("the bench does not end\n{}", last_words(&console))),
        }
    };
    let _ = qemu.kill();
    let _ = qemu.wait();
    result
}
