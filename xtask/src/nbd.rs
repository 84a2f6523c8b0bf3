// SPDX-License-Identifier: BSD-2-Clause

//! The NBD server against nbdkit's file plugin, on the same image.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::setup::{self, Need};
use crate::sh::{self, Result};

/// Bytes of the image, which stays in memory, so that the servers are measured and not a disk.
const BYTES: u64 = 256 << 20;

/// The time that a server may take to listen.
const LIMIT: Duration = Duration::from_secs(60);

/// A server that ends with its owner.
struct Server(Child);

impl Server {
    fn start(command: &mut Command, socket: &Path) -> Result<Server> {
        let text = sh::text(command);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut server = Server(child.map_err(|error| format!("{text}: {error}"))?);
        let began = Instant::now();
        while UnixStream::connect(socket).is_err() {
            let ended = server.0.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || began.elapsed() > LIMIT {
                return Err(format!("{text} does not listen at {}", socket.display()));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn id(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the rows have told.
        let _ = Command::new("kill").arg(self.id()).status();
        let _ = self.0.wait();
    }
}

/// A folder that goes when its owner does.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `cargo xtask bench --nbd [ROW]`
pub fn bench(rows: &[String]) -> Result<()> {
    setup::ensure(&[Need::Hosted, Need::Tools])?;
    let release = ["build", "--release"];
    sh::run(sh::cargo().args(release).args(["--package", "dm-host"]))?;
    sh::run(sh::cargo().args(release).args(["--package", "dm-nbd", "--example", "bench"]))?;
    let programs = sh::target_dir().join("release");
    // A socket's path is short: not below a target folder that may lie deep.
    let folder = Folder(std::env::temp_dir().join(format!("dm-bench-{}", std::process::id())));
    sh::mkdir(&folder.0)?;
    let path = |name: &str| folder.0.join(name);
    fill(&path("image")).map_err(|error| format!("the image: {error}"))?;

    let mut ours = sh::command(programs.join("dm-host"));
    let disk = format!("wd0={}", path("image").display());
    ours.args(["serve", "--disk", &disk, "--control"]).arg(path("control"));
    let ours = Server::start(ours.arg("--nbd").arg(path("ours")), &path("ours"))?;
    let mut theirs = sh::command("nbdkit");
    theirs.args(["--foreground", "--unix"]).arg(path("theirs"));
    let theirs = Server::start(theirs.arg("file").arg(path("image")), &path("theirs"))?;

    let mut create = sh::command(programs.join("dm-host"));
    let table = format!("0 {} linear /dev/wd0 0", BYTES / 512);
    create.args(["ctl", "--socket"]).arg(path("control"));
    sh::run(create.args(["create", "bench", "--table", &table]))?;
    let uri =
        |name: &str, export: &str| format!("nbd+unix:///{export}?socket={}", path(name).display());
    sh::heading("dm-host, in times of nbdkit's file plugin");
    let mut compare = sh::command(programs.join("examples/bench"));
    compare.args([&uri("ours", "bench"), &ours.id(), &uri("theirs", ""), &theirs.id()]);
    sh::run(compare.args(rows))
}

fn fill(path: &Path) -> std::io::Result<()> {
    let mut random = File::open("/dev/urandom")?.take(BYTES);
    let mut image = File::create(path)?;
    std::io::copy(&mut random, &mut image)?;
    image.flush()
}
