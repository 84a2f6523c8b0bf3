// SPDX-License-Identifier: BSD-2-Clause

//! Sessions for the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

use crate::tool::{self, Done, Folder, TOOL};

/// The preloaded library beside the tool, built if cargo has not done so yet.
pub fn shim() -> PathBuf {
    static BUILT: Once = Once::new();
    let folder = Path::new(TOOL).parent().expect("the tool is in a folder");
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args(["build", "--quiet", "--package", "dm-shim"]);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.arg("--target-dir").arg(folder.parent().expect("target/PROFILE/dm-host"));
        assert!(cargo.status().expect("cargo runs").success(), "the library does not build");
    });
    folder.join("libdm_shim.so")
}

/// `false`, with words, if one of these programs is not installed.
pub fn has(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let missing = programs.iter().find(|name| !dirs.iter().any(|dir| dir.join(name).is_file()));
    if let Some(missing) = missing {
        eprintln!(
            "skipped: {missing} is not installed; `cargo xtask setup linux-tools` installs it"
        );
    }
    missing.is_none()
}

/// `false`, with words, where devices cannot be block devices.
pub fn has_blocks() -> bool {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    let why = WHY.get_or_init(|| {
        if !has(&["dmsetup"]) {
            return Some("dmsetup is not installed".into());
        }
        let done = tool::run(&mut command(&[], &["true"]), "");
        (done.code != 0 || !done.err.is_empty()).then_some(done.err)
    });
    if let Some(why) = why {
        eprintln!("skipped: no block devices here: {why}");
    }
    why.is_none()
}

/// `dm-host linux` with options and a program.
pub fn command(options: &[&str], program: &[&str]) -> Command {
    let mut command = Command::new(TOOL);
    command.arg("linux").args(options).arg("--").args(program);
    command.env("DM_HOST_SHIM", shim()).env("LC_ALL", "C").env_remove("LVM_SYSTEM_DIR");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// Disks wd0, wd1 and so on for sessions.
pub struct Disks {
    /// The folder of the disks, with room for more files.
    pub folder: Folder,
    options: Vec<String>,
}

impl Disks {
    /// Two of so many MiB.
    pub fn new(mib: u64) -> Disks {
        Disks::several(2, mib)
    }

    /// `count` disks of `mib` MiB each.
    pub fn several(count: usize, mib: u64) -> Disks {
        let folder = Folder::new();
        let option = |nth: usize| {
            let name = format!("wd{nth}");
            format!("--disk={name}={}", folder.disk(&name, mib * 2048).display())
        };
        let options = (0..count).map(option).collect();
        fs::create_dir(folder.path("mnt")).expect("a folder to mount at");
        Disks { folder, options }
    }

    /// A shell script in a session, with options; a command that fails ends it.
    pub fn script_with(&self, options: &[&str], script: &str) -> Done {
        let mut all: Vec<&str> = self.options.iter().map(String::as_str).collect();
        all.extend(options);
        let mut command = command(&all, &["sh", "-euc", script]);
        command.current_dir(self.folder.0.path());
        tool::run(&mut command, "")
    }

    /// A script in a session with block devices.
    pub fn script(&self, script: &str) -> Done {
        self.script_with(&[], script)
    }
}

/// The loop devices that sessions have for their devices: there should be none without a session.
pub fn loops_of(folder: &str) -> Vec<String> {
    let mut left = Vec::new();
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if file.contains(folder) {
            left.push(format!("{}: {file}", entry.file_name().display()));
        }
    }
    left
}

/// Checks that a session has left nothing behind.
#[track_caller]
pub fn nothing_is_left(folder: &Folder, session: &str) {
    let name = folder.0.path().display().to_string();
    // A loop device that a program has let go may be open for a moment: lvm(8) looks at each that its
    // session sees, also at those of other tests.
    let limit = Instant::now() + Duration::from_secs(60);
    while !loops_of(&name).is_empty() && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(loops_of(&name), [""; 0], "loop devices are left");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc");
    assert!(!mounts.contains(&name), "something is mounted:\n{mounts}");
    let session = Path::new("/run/dm-host-linux").join(session);
    assert!(!session.exists(), "{} is left", session.display());
}
