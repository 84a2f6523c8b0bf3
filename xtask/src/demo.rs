// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask demo`: real file systems on mapped disk images, with a table changed under a
//! reader, and everything read back and compared.
//!
//! The kernel is `dm-host serve`; whatever makes, copies or checks a file system is somebody
//! else's program. Everything is left in target/demo.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, io};

use crate::setup::{self, Need};
use crate::sh::{self, Result};

/// A time within which every program of the demo ends unless something is wrong.
const LIMIT: Duration = Duration::from_secs(120);

/// The size of each disk image, in MiB.
const DISK: u64 = 192;
/// The sizes of the two devices, in MiB.
const LIN: u64 = 96;
const STR: u64 = 64;
/// Bytes of files that go into each file system, at most.
const FILES: u64 = 28 << 20;

/// The linear device: three lines across both disks. The third line will move.
const LIN_TABLE: &str = "\
0      65536 linear /dev/wd0 2048
65536  65536 linear /dev/wd1 2048
131072 65536 linear /dev/wd0 67584
";
/// The table with its third line on the other disk.
const MOVED_TABLE: &str = "\
0      65536 linear /dev/wd0 2048
65536  65536 linear /dev/wd1 2048
131072 65536 linear /dev/wd1 200704
";
/// Two stripes, in chunks of 64 KiB.
const STR_TABLE: &str = "0 131072 striped 2 128 /dev/wd0 133120 /dev/wd1 133120\n";

/// `cargo xtask demo`
pub fn main(args: &[String]) -> Result<()> {
    if let Some(arg) = args.first() {
        return Err(format!("demo takes no arguments, and got `{arg}`"));
    }
    sh::heading("What is needed");
    if setup::ensure(&[Need::Hosted, Need::Tools])? == 0 {
        println!("Everything is there.");
    }
    sh::heading("Building dm-host (the first time takes a few minutes)");
    let packages = ["--package", "dm-host"];
    sh::run(sh::cargo().arg("build").arg("--release").args(packages))?;
    run(&sh::target_dir())
}

/// The demo itself, with what cargo has put into `target`/release.
fn run(target: &Path) -> Result<()> {
    let began = Instant::now();
    let demo = Demo::new(target)?;
    let (files, bytes) = demo.files()?;
    demo.images()?;
    let mut server = demo.serve()?;
    demo.load()?;
    demo.fill()?;
    demo.change()?;
    demo.read_back()?;
    demo.show()?;
    server.end()?;
    println!("The server flushed, checked itself for leaks, and ended with exit code 0.");
    println!("\nEverything is in {} for you to look at.", demo.dir.display());
    println!(
        "demo: passed in {:.0} s: {files} files ({:.1} MB) and two file systems came back identical \
         from two devices on two disks, through a table change under a reader.",
        began.elapsed().as_secs_f64(),
        bytes as f64 / 1e6
    );
    Ok(())
}

struct Demo {
    /// The folder for all files.
    dir: PathBuf,
    /// The sockets, in a folder of their own: their paths must be short.
    sockets: Sockets,
    tool: PathBuf,
}

/// A folder for sockets that goes with the demo.
struct Sockets(PathBuf);

impl Drop for Sockets {
    fn drop(&mut self) {
        // The server has removed its sockets, or failed and said so.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Demo {
    fn new(target: &Path) -> Result<Demo> {
        let dir = target.join("demo");
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(|e| format!("cannot empty {}: {e}", dir.display()))?;
        }
        sh::mkdir(&dir)?;
        let sockets = env::temp_dir().join(format!("dm-host-demo-{}", std::process::id()));
        // Private, and new: nobody else's sockets are there.
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&sockets)
            .map_err(|e| format!("cannot make {}: {e}", sockets.display()))?;
        let tool = target.join("release/dm-host");
        if !tool.is_file() {
            return Err(format!("{} is not there: did the build fail?", tool.display()));
        }
        Ok(Demo { dir, sockets: Sockets(sockets), tool })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.sockets.0.join(name)
    }

    /// A program of someone else's, whose messages are shown only if it fails.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.current_dir(&self.dir);
        // The folders of programs for the administrator.
        let path = env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        command
    }

    fn ctl(&self) -> Command {
        let mut command = Command::new(&self.tool);
        command.current_dir(&self.dir);
        command.arg("ctl").arg("--socket").arg(self.socket("control"));
        command
    }

    fn uri(&self, device: &str) -> String {
        format!("nbd+unix:///{device}?socket={}", self.socket("nbd").display())
    }

    /// Takes files from this machine's documentation, up to [`FILES`].
    fn files(&self) -> Result<(u64, u64)> {
        sh::heading("Real files: this machine's own documentation");
        let to = self.path("files");
        sh::mkdir(&to)?;
        let mut taken = Taken { files: 0, bytes: 0 };
        // A machine without documentation still has the project.
        let project = sh::root();
        for from in [Path::new("/usr/share/doc"), &project.join("sys"), &project.join("regress")] {
            let name = from.file_name().unwrap_or(OsStr::new("files"));
            taken.take(from, &to.join(name))?;
        }
        println!("{} files, {:.1} MB, in {}", taken.files, mb(taken.bytes), to.display());
        if taken.files == 0 {
            return Err("no files were found to fill a file system with".into());
        }
        Ok((taken.files, taken.bytes))
    }

    /// Makes the disks, and the file systems that will go onto them.
    fn images(&self) -> Result<()> {
        sh::heading("Two disks, and two file systems made by other people's tools");
        for name in ["wd0.img", "wd1.img"] {
            let file = File::create(self.path(name)).map_err(|e| format!("{name}: {e}"))?;
            file.set_len(DISK << 20).map_err(|e| format!("{name}: {e}"))?;
            println!("{name}: {DISK} MiB of nothing");
        }
        let mut mke2fs = self.program("mke2fs");
        mke2fs.args(["-q", "-t", "ext4", "-d", "files", "lin.ext4", &format!("{LIN}M")]);
        quiet(&mut mke2fs)?;
        println!("lin.ext4: {LIN} MiB, by mke2fs -d");
        let mut makefs = self.program("makefs");
        makefs.args(["-t", "ffs", "-s", &format!("{STR}m"), "str.ffs", "files"]);
        quiet(&mut makefs)?;
        println!("str.ffs:  {STR} MiB, by makefs -t ffs");
        Ok(())
    }

    fn serve(&self) -> Result<Server> {
        sh::heading("NetBSD's device mapper, in a process of this machine");
        let mut command = Command::new(&self.tool);
        command.current_dir(&self.dir);
        command.arg("serve").args(["--disk", "wd0=wd0.img", "--disk", "wd1=wd1.img"]);
        command.arg("--control").arg(self.socket("control"));
        command.arg("--nbd").arg(self.socket("nbd"));
        println!("$ {}", shown(&command));
        Server::start(&mut command)
    }

    fn load(&self) -> Result<()> {
        sh::heading("Two devices, loaded through the ioctl");
        for (name, table) in [("lin", LIN_TABLE), ("str", STR_TABLE)] {
            let file = format!("{name}.table");
            sh::write(&self.path(&file), table)?;
            self.say_ctl(&["create", name, &file])?;
        }
        self.say_ctl(&["table"])?;
        self.say_ctl(&["info", "-c"])
    }

    fn fill(&self) -> Result<()> {
        sh::heading("The file systems, copied in over NBD by nbdcopy");
        self.copy("lin.ext4", &self.uri("lin"))?;
        self.copy("str.ffs", &self.uri("str"))
    }

    /// Moves the third line of `lin` to the other disk, while someone reads.
    fn change(&self) -> Result<()> {
        sh::heading("A line moves to the other disk, while someone reads");
        let expected = self.path("lin.ext4");
        let reader = Reader::start(self.program("nbdcopy"), self.uri("lin"), expected)?;
        // Windows onto the old place and the new: a device for each.
        self.say_ctl(&["create", "old", "--table", "0 65536 linear /dev/wd0 67584"])?;
        self.say_ctl(&["create", "new", "--table", "0 65536 linear /dev/wd1 200704"])?;
        self.copy(&self.uri("old"), &self.uri("new"))?;
        sh::write(&self.path("moved.table"), MOVED_TABLE)?;
        self.say_ctl(&["reload", "lin", "moved.table"])?;
        self.say_ctl(&["resume", "lin"])?;
        let passes = reader.finish()?;
        println!("The reader read all of it {passes} times meanwhile, and always the same.");
        // Reads from now on cannot come from the old place any more.
        self.say_ctl(&["create", "nothing", "--table", "0 65536 zero"])?;
        self.copy(&self.uri("nothing"), &self.uri("old"))?;
        ["old", "new", "nothing"].iter().try_for_each(|name| self.say_ctl(&["remove", name]))
    }

    fn read_back(&self) -> Result<()> {
        sh::heading("Everything read back and checked");
        self.copy(&self.uri("lin"), "back.ext4")?;
        self.copy(&self.uri("str"), "back.ffs")?;
        for (original, back) in [("lin.ext4", "back.ext4"), ("str.ffs", "back.ffs")] {
            let sum = self.checksum(original)?;
            if sum != self.checksum(back)? {
                return Err(format!("{back} is not what {original} was: look at both"));
            }
            println!("{back} has the SHA-256 of {original}: {}…", sum.get(..16).unwrap_or(&sum));
        }
        let mut fsck = self.program("e2fsck");
        fsck.args(["-f", "-n", "back.ext4"]);
        quiet(&mut fsck)?;
        println!("e2fsck -fn finds back.ext4 clean");
        sh::mkdir(&self.path("back"))?;
        let mut debugfs = self.program("debugfs");
        // -f would stop at the first complaint; what matters is compared below.
        debugfs.args(["-R", "rdump / back", "back.ext4"]);
        quiet(&mut debugfs)?;
        let files = same(&self.path("files"), &self.path("back"))?;
        println!("each of the {files} files in it is byte for byte what went in");
        Ok(())
    }

    fn show(&self) -> Result<()> {
        sh::heading("How it is now");
        self.say_ctl(&["table"])?;
        self.say_ctl(&["status"])?;
        let mut map = Command::new(&self.tool);
        map.current_dir(&self.dir).args(["map", "moved.table"]);
        map.args(["--disk", "wd0=wd0.img", "--disk", "wd1=wd1.img"]);
        println!("$ {}", shown(&map));
        bounded(&mut map)
    }

    fn say_ctl(&self, args: &[&str]) -> Result<()> {
        println!("$ dm-host ctl {}", args.iter().map(|a| quoted(a)).collect::<Vec<_>>().join(" "));
        bounded(self.ctl().args(args))
    }

    fn copy(&self, from: &str, to: &str) -> Result<()> {
        let short = |name: &str| name.split('?').next().unwrap_or(name).to_string();
        println!("$ nbdcopy {} {}", short(from), short(to));
        let began = Instant::now();
        let mut command = self.program("nbdcopy");
        if io::stdout().is_terminal() {
            command.arg("--progress");
        }
        bounded(command.arg("--flush").args([from, to]))?;
        println!("  {:.1} s", began.elapsed().as_secs_f64());
        Ok(())
    }

    fn checksum(&self, file: &str) -> Result<String> {
        let out = quiet(self.program("sha256sum").arg(file))?;
        let sum = out.split_whitespace().next().map(String::from);
        sum.ok_or_else(|| format!("sha256sum said nothing of {file}"))
    }
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn quoted(arg: &str) -> String {
    if arg.contains(' ') { format!("'{arg}'") } else { arg.into() }
}

/// The command as one would type it, without the folders.
fn shown(command: &Command) -> String {
    let short = |word: &OsStr| match word.to_string_lossy() {
        path if path.starts_with('/') => path.rsplit('/').next().unwrap_or_default().to_string(),
        word => quoted(&word),
    };
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(short).collect::<Vec<_>>().join(" ")
}

struct Taken {
    files: u64,
    bytes: u64,
}

impl Taken {
    /// Copies regular files and folders until there is enough; links and what may not be read are
    /// left.
    fn take(&mut self, from: &Path, to: &Path) -> Result<()> {
        let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
        let mut entries: Vec<_> = entries.filter_map(io::Result::ok).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        sh::mkdir(to)?;
        for entry in entries {
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                self.take(&from, &to)?;
            } else if kind.is_file() {
                let size = entry.metadata().map_or(u64::MAX, |m| m.len());
                if self.bytes.saturating_add(size) > FILES || File::open(&from).is_err() {
                    continue;
                }
                sh::copy(&from, &to)?;
                self.files += 1;
                self.bytes += size;
            }
        }
        Ok(())
    }
}

/// Compares every file below `one` with that of the same name below `other`, and counts them.
fn same(one: &Path, other: &Path) -> Result<u64> {
    let wrong = |path: &Path, e: io::Error| format!("{}: {e}", path.display());
    let mut count = 0;
    for entry in fs::read_dir(one).map_err(|e| wrong(one, e))? {
        let entry = entry.map_err(|e| wrong(one, e))?;
        let (path, there) = (entry.path(), other.join(entry.file_name()));
        if entry.file_type().map_err(|e| wrong(&path, e))?.is_dir() {
            count += same(&path, &there)?;
        } else {
            let first = fs::read(&path).map_err(|e| wrong(&path, e))?;
            let second = fs::read(&there).map_err(|e| wrong(&there, e))?;
            if first != second {
                return Err(format!("{} came back changed: {}", path.display(), there.display()));
            }
            count += 1;
        }
    }
    Ok(count)
}

/// Waits for a program, no longer than [`LIMIT`].
fn wait(child: &mut Child, name: &str) -> Result<std::process::ExitStatus> {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if began.elapsed() < LIMIT => thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                // The program is a child of ours, and would never end.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("`{name}` did not end in {} s", LIMIT.as_secs()));
            }
            Err(error) => return Err(format!("waiting for `{name}`: {error}")),
        }
    }
}

fn spawn(command: &mut Command) -> Result<Child> {
    command.spawn().map_err(|error| {
        let name = command.get_program().to_string_lossy().into_owned();
        format!("cannot start {name}: {error}; `cargo xtask setup` installs what is missing")
    })
}

/// Runs a program on our terminal.
fn bounded(command: &mut Command) -> Result<()> {
    let name = sh::text(command);
    let mut child = spawn(command.stdin(Stdio::null()))?;
    let status = wait(&mut child, &name)?;
    if status.success() { Ok(()) } else { Err(format!("`{name}` failed ({status})")) }
}

/// Runs a program and returns its output, which is shown only if the program fails.
fn quiet(command: &mut Command) -> Result<String> {
    let name = sh::text(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let out = thread::spawn(move || drain(out));
    let err = thread::spawn(move || drain(err));
    let status = wait(&mut child, &name)?;
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    if status.success() { Ok(out) } else { Err(format!("`{name}` failed ({status})\n{out}{err}")) }
}

fn drain(from: Option<impl Read>) -> String {
    let mut text = Vec::new();
    if let Some(mut from) = from {
        // The text up to a read error is what there is to show.
        let _ = from.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The server, ended when the demo is.
struct Server {
    child: Child,
    ended: bool,
}

impl Server {
    /// Starts it, and waits until it has said where it listens.
    fn start(command: &mut Command) -> Result<Server> {
        let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let out = child.stdout.take();
        let mut server = Server { child, ended: false };
        // Its words end with the line that says how to end it; if it fails, they end too.
        for line in BufReader::new(out.ok_or("the server has no output")?).lines() {
            let line = line.map_err(|error| format!("the server's output: {error}"))?;
            if line.starts_with("Ctrl-C") {
                return Ok(server);
            }
            println!("{line}");
        }
        let status = wait(&mut server.child, "dm-host serve")?;
        server.ended = true;
        Err(format!("dm-host serve did not start ({status}); it says why above"))
    }

    /// Ends the server with Ctrl-C.
    fn end(&mut self) -> Result<()> {
        sh::heading("Ctrl-C");
        let mut kill = Command::new("sh");
        kill.args(["-c", &format!("kill -INT {}", self.child.id())]);
        bounded(&mut kill)?;
        let status = wait(&mut self.child, "dm-host serve")?;
        self.ended = true;
        if status.success() { Ok(()) } else { Err(format!("the server ended badly: {status}")) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.ended {
            // The demo has failed, and says so; the server is ours.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Reads a device again and again, and compares it with a file each time.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<u32>>,
}

impl Reader {
    /// Starts a reader, and returns when its first pass is in progress.
    fn start(mut nbdcopy: Command, uri: String, expected: PathBuf) -> Result<Reader> {
        let stop = Arc::new(AtomicBool::new(false));
        nbdcopy.args([&uri, "-"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let first = spawn(&mut nbdcopy)?;
        let seen = stop.clone();
        let thread = thread::spawn(move || {
            let mut child = first;
            let mut passes = 0;
            loop {
                let same = compare(&mut child, &expected);
                let status = wait(&mut child, "nbdcopy, the reader,")?;
                if !status.success() {
                    return Err(format!("the reader failed ({status})"));
                }
                same?;
                passes += 1;
                if seen.load(Ordering::SeqCst) {
                    return Ok(passes);
                }
                child = spawn(&mut nbdcopy)?;
            }
        });
        Ok(Reader { stop, thread })
    }

    /// Lets the present pass be the last.
    fn finish(self) -> Result<u32> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_else(|_| Err("the reader broke down".into()))
    }
}

/// Compares a program's output with a file.
fn compare(child: &mut Child, expected: &Path) -> Result<()> {
    let mut out = child.stdout.take().ok_or("the reader has no output")?;
    let mut file = File::open(expected).map_err(|e| format!("{}: {e}", expected.display()))?;
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0u64;
    loop {
        let n = out.read(&mut one).map_err(|e| format!("the reader: {e}"))?;
        let (Some(got), Some(want)) = (one.get(..n), other.get_mut(..n)) else { return Ok(()) };
        if n == 0 {
            let size = file.metadata().map_or(0, |m| m.len());
            let whole = at == size;
            return if whole {
                Ok(())
            } else {
                Err(format!("the reader got {at} of {size} bytes"))
            };
        }
        file.read_exact(want).map_err(|_| "the reader got more than there is".to_string())?;
        if got != want {
            return Err(format!("the reader got other bytes than expected, near {at}"));
        }
        at += n as u64;
    }
}
