// SPDX-License-Identifier: BSD-2-Clause

//! Sessions whose processes are killed: nothing is left, or the next session clears it up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::session::{Disks, command, has, has_blocks, loops_of};
use crate::tool;

/// Waits for what will come about.
#[track_caller]
fn until(what: &str, done: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < limit, "{what} does not come about");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A session with a mounted file system, in which a program sleeps.
struct Running {
    disks: Disks,
    /// `dm-host linux`.
    front: Child,
    /// The session's folder.
    folder: PathBuf,
}

impl Running {
    fn start() -> Running {
        let disks = Disks::new(16);
        let options: Vec<String> = ["wd0", "wd1"]
            .map(|name| format!("--disk={name}={}", disks.folder.path(name).display()))
            .to_vec();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let script = "dmsetup create one --table '0 16384 linear /dev/wd0 0'
             mkfs.ext4 -q /dev/mapper/one; mount /dev/mapper/one mnt
             cp /etc/passwd mnt/; sync; (sleep 1000; true) & echo $! >child; touch ready; wait";
        let mut command = command(&options, &["sh", "-euc", script]);
        command.current_dir(disks.folder.0.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let front = command.stderr(Stdio::null()).spawn().expect("it starts");
        let folder = Path::new("/run/dm-host-linux").join(front.id().to_string());
        until("the session", || disks.folder.path("ready").exists());
        Running { disks, front, folder }
    }

    fn keeper(&self) -> u32 {
        let state = fs::read_to_string(self.folder.join("state")).expect("a state");
        state.split(' ').next().and_then(|word| word.parse().ok()).expect("a number")
    }

    /// The number of the first loop device that the session has.
    fn base(&self) -> u32 {
        let state = fs::read_to_string(self.folder.join("state")).expect("a state");
        state.split(' ').nth(2).and_then(|word| word.parse().ok()).expect("a number")
    }

    fn child(&self) -> u32 {
        let child = fs::read_to_string(self.disks.folder.path("child")).expect("its number");
        child.trim().parse().expect("a number")
    }

    /// Waits until everything is gone, and looks that the file system is whole.
    fn gone(mut self, base: u32, child: u32) {
        let _ = self.front.wait();
        let name = self.disks.folder.0.path().display().to_string();
        let gone = |process: u32| !Path::new(&format!("/proc/{process}/fd/0")).exists();
        until("the end of the programs", || gone(child));
        until("the end of the loop devices", || {
            // Another test's session may have these numbers by now.
            loops_of(&name).is_empty()
                && (!Path::new(&format!("/sys/block/loop{}", base + 1)).exists()
                    || bases().contains(&base))
        });
        until("the end of the folder", || !self.folder.exists());
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc");
        assert!(!mounts.contains(&name), "something is mounted:\n{mounts}");
        let again = self.disks.script(
            "dmsetup create one --table '0 16384 linear /dev/wd0 0'
             e2fsck -fy /dev/mapper/one >/dev/null 2>&1 || test $? -eq 1
             mount /dev/mapper/one mnt; cmp /etc/passwd mnt/passwd; umount mnt",
        );
        again.ok();
    }
}

/// The number of the first loop device of each session that there is.
fn bases() -> Vec<u32> {
    let sessions = fs::read_dir("/run/dm-host-linux").into_iter().flatten().flatten();
    let states =
        sessions.filter_map(|session| fs::read_to_string(session.path().join("state")).ok());
    states.filter_map(|state| state.split(' ').nth(2)?.parse().ok()).collect()
}

fn possible() -> bool {
    has_blocks() && has(&["mkfs.ext4", "e2fsck"])
}

/// A session that is over before it begins: it clears up after others.
fn next_session() {
    tool::run(&mut command(&[], &["true"]), "").ok();
}

#[test]
fn interrupted() {
    if !possible() {
        return;
    }
    let running = Running::start();
    let (base, child) = (running.base(), running.child());
    tool::signal(child, "KILL");
    running.gone(base, child);
}

#[test]
fn the_front() {
    if !possible() {
        return;
    }
    let running = Running::start();
    let (base, child, keeper) = (running.base(), running.child(), running.keeper());
    tool::signal(running.front.id(), "KILL");
    // The keeper ends by itself; its folder is what the next session finds, perhaps another test's.
    until("the keeper's end", || !Path::new(&format!("/proc/{keeper}/exe")).exists());
    next_session();
    running.gone(base, child);
}

#[test]
fn the_keeper() {
    if !possible() {
        return;
    }
    let running = Running::start();
    let (base, child) = (running.base(), running.child());
    tool::signal(running.keeper(), "KILL");
    // The next session, perhaps another test's, ends it as well.
    let _ = Command::new("sh").args(["-c", &format!("kill -KILL {child} 2>/dev/null")]).status();
    running.gone(base, child);
}

#[test]
fn both() {
    if !possible() {
        return;
    }
    let running = Running::start();
    let (base, child) = (running.base(), running.child());
    tool::signal(running.keeper(), "KILL");
    tool::signal(running.front.id(), "KILL");
    next_session();
    running.gone(base, child);
}

/// A session ends although a program that is none of its own, by its environment, has the control node open.
#[test]
fn a_program_that_outlives_its_session_keeps_nobody() {
    if !has(&["dmsetup"]) {
        return;
    }
    let disks = Disks::new(1);
    // Its other files are closed: this waits for the end of what has them.
    let script = "exec 3</dev/mapper/control
         env -i sleep 1000 </dev/null >/dev/null 2>&1 & echo $!
         until grep -qx sleep /proc/$!/comm; do :; done";
    let done = disks.script_with(&["--no-blocks"], script);
    let stays = done.out.trim();
    let command = fs::read_to_string(format!("/proc/{stays}/comm")).unwrap_or_default();
    tool::signal(stays.parse().expect("a number"), "KILL");
    assert_eq!(command, "sleep\n");
    assert_eq!((done.code, done.err.as_str()), (0, ""));
}
