// SPDX-License-Identifier: BSD-2-Clause

//! Plays recorded traffic of the real tools through the ioctl of a hosted kernel: property lists
//! as proplib reads and writes them, disks of the recorded names, sizes and device numbers.
//!
//! The runs of regress/vectors are played, and those in the folder that the environment's
//! `DM_VECTORS` names.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Bench, Mapped, Request};
use dm_core::Errno;
use dm_core::testing::plist::Dict;
use dm_core::testing::replay::{Player, Run, RunDisk, replay};
use dm_host::{DiskSpec, File, Flags, Node};

/// The driver may not ask it for memory while it holds I/O.
#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

/// The driver in a hosted kernel.
struct HostPlayer {
    bench: Bench,
    /// Nodes that a tool has open, by minor.
    open: BTreeMap<u32, Vec<File>>,
}

impl Player for HostPlayer {
    fn disk(&mut self, disk: &RunDisk) {
        let dev = dm_host::makedev(disk.dev.major(), disk.dev.minor());
        // A name that leads to the number; the recorded path is one more name.
        let name = format!("b{}_{}", disk.dev.major(), disk.dev.minor());
        self.bench.attach(DiskSpec::null(&name, disk.size.0).plain().dev(dev));
        self.bench.machine.mknod(&disk.path, dev, true).unwrap();
    }

    fn node(&mut self, path: &str, dev: Option<dm_core::Dev>) {
        match dev {
            Some(dev) => {
                let dev = dm_host::makedev(dev.major(), dev.minor());
                self.bench.machine.mknod(path, dev, true).unwrap();
            }
            None => self.bench.machine.unlink(path).unwrap(),
        }
    }

    fn open(&mut self, minor: u32, count: u32) {
        let device = Mapped { minor };
        let nodes = self.open.entry(minor).or_default();
        let info = Request::new("info").with("minor", u64::from(minor));
        // A device that carries another is open already.
        let open = |bench: &Bench| bench.send(&info).unwrap().number("open_count").unwrap_or(0);
        while open(&self.bench) > u64::from(count) && nodes.pop().is_some() {}
        for node in [Node::Character(device.rdev()), Node::Block(device.dev())] {
            if open(&self.bench) < u64::from(count)
                && let Ok(file) = self.bench.machine.open(node, Flags::READ)
            {
                nodes.push(file);
            }
        }
    }

    fn ioctl(&mut self, request: &Dict) -> Result<Dict, Errno> {
        let reply = self.bench.control.plist_ioctl(&request.print());
        let reply = reply.map_err(|errno| Errno::from_raw(errno.0).unwrap())?;
        Ok(Dict::parse(&reply).unwrap_or_else(|why| panic!("{why}: {reply}")))
    }
}

/// Plays one file.
fn play(path: &Path) {
    let text = fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let run = Run::parse(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let mut player = HostPlayer { bench: Bench::new(), open: BTreeMap::new() };
    let report = replay(&run, &mut player);
    println!(
        "{}: {} exchanges, {} as recorded to the letter, differences met: {:?}",
        path.display(),
        report.played,
        report.identical,
        report.met
    );
    let wrong = &report.wrong;
    assert!(wrong.is_empty(), "{}: {} wrong:\n{}", path.display(), wrong.len(), wrong.join("\n"));
    assert!(report.played > 0, "{}: nothing to play", path.display());
    player.open.clear();
    player.bench.end();
}

/// The runs in a folder.
fn runs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut runs: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "jsonl")).collect();
    runs.sort();
    runs
}

#[test]
fn replay_of_the_recorded_runs() {
    let ours = runs(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors")));
    assert!(ours.len() >= 2, "the recordings are missing");
    ours.iter().for_each(|run| play(run));
    if let Some(folder) = std::env::var_os("DM_VECTORS") {
        let given = runs(Path::new(&folder));
        assert!(!given.is_empty(), "DM_VECTORS names a folder without runs");
        given.iter().for_each(|run| play(run));
    }
}
