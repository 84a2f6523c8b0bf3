// SPDX-License-Identifier: BSD-2-Clause

//! The users of a block device, from proc(5), since loop devices do not tell.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

/// The environment variable that marks a session's programs, with the session's folder.
pub const MARK: &str = "DM_HOST_LINUX_FOLDER";

/// The numbers of all processes.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The number of users of a block device.
#[derive(Clone, Copy, Default)]
pub struct Users {
    /// Users in the session, which see its /dev: open files, mounts, loop devices on top and swap.
    pub inside: u32,
    /// Users outside the session, such as programs of the machine that look at each new block device: open files.
    pub outside: u32,
}

/// The number of users of the block device `dev`: open files, mounts, loop devices on top and swap. Our own
/// descriptors are not counted.
pub fn count(dev: u64) -> u32 {
    let users = of(dev);
    users.inside.saturating_add(users.outside)
}

/// Counts the users of the block device `dev`, ourselves apart.
pub fn of(dev: u64) -> Users {
    let own = std::process::id();
    let mut open: Vec<(u32, u32)> = Vec::new();
    for process in processes().filter(|process| *process != own) {
        for descriptor in open_in(process, dev) {
            // A child has its parent's open files.
            if !open.iter().any(|other| is_same_file(*other, (process, descriptor))) {
                open.push((process, descriptor));
            }
        }
    }
    let stacked = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let stacked = stacked.filter(|entry| {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        is(file.trim_end(), dev)
    });
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let swaps = swaps.lines().filter_map(|line| line.split_whitespace().next());
    let swaps = swaps.filter(|path| is(path, dev)).count();
    let mounted = usize::from(mounts().iter().any(|(number, _)| *number == dev));
    let space = |process: u32| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let here = space(own);
    let outside = open.iter().filter(|(process, _)| space(*process) != here).count();
    let inside = open.len() - outside + stacked.count() + swaps + mounted;
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Users { inside: number(inside), outside: number(outside) }
}

/// The descriptors that a process has for it.
fn open_in(process: u32, dev: u64) -> Vec<u32> {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    descriptors
        .filter(|entry| {
            let path = entry.path();
            // Not every file may be looked at without waiting: only those that could be one.
            let to = fs::read_link(&path).unwrap_or_default();
            let text = to.to_string_lossy();
            let device = text.contains("/dev/") || text.contains("/mapper/");
            device && path.to_str().is_some_and(|path| is(path, dev))
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// `true` if two descriptors are one open file, by kcmp(2). Where the kernel does not tell, they are two.
fn is_same_file((process, descriptor): (u32, u32), (other, second): (u32, u32)) -> bool {
    const KCMP_FILE: libc::c_int = 0;
    // SAFETY: kcmp(2) takes numbers only.
    unsafe { libc::syscall(libc::SYS_kcmp, process, other, KCMP_FILE, descriptor, second) == 0 }
}

/// `true` for a node of that device.
fn is(path: &str, dev: u64) -> bool {
    path.starts_with('/')
        && fs::metadata(path)
            .is_ok_and(|found| found.file_type().is_block_device() && found.rdev() == dev)
}

/// The mounts of this name space: the device's number and the place, in the order of mounting. Where a file
/// system has a number of its own, as btrfs does, the device's is that of its source.
pub fn mounts() -> Vec<(u64, String)> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let plain =
        |text: &str| text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    let mount = |line: &str| {
        let (first, second) = line.split_once(" - ")?;
        let mut words = first.split(' ').skip(2);
        let (major, minor) = words.next()?.split_once(':')?;
        let place = plain(words.nth(1)?);
        let mut dev = libc::makedev(major.parse().ok()?, minor.parse().ok()?);
        let source = plain(second.split(' ').nth(1)?);
        if major == "0"
            && source.starts_with('/')
            && let Ok(found) = fs::metadata(source)
            && found.file_type().is_block_device()
        {
            dev = found.rdev();
        }
        Some((dev, place))
    };
    text.lines().filter_map(mount).collect()
}

/// The processes that a session's programs and their children are.
fn marked(folder: &Path) -> Vec<i32> {
    let mark = format!("{MARK}={}", folder.display());
    let own = std::process::id();
    processes()
        .filter(|process| *process != own)
        .filter(|process| {
            let all = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            all.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
        })
        .filter_map(|process| i32::try_from(process).ok())
        .collect()
}

/// `true` if a process is gone, or has closed all that it had open. A killed process has lost its memory,
/// and with it its environment, long before that.
fn is_over(process: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    threads.into_iter().all(|thread| {
        // A thread that cannot be read is gone.
        let text = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = text.rsplit(") ").next().unwrap_or_default();
        state.is_empty() || state.starts_with(['Z', 'X'])
    })
}

/// Ends a session's programs, and waits a while until they are gone.
pub fn kill_marked(folder: &Path) {
    let mut killed = BTreeSet::new();
    for _ in 0..500 {
        let left = marked(folder);
        if left.is_empty() && killed.iter().all(|process| is_over(*process)) {
            return;
        }
        for process in left {
            killed.insert(process);
            let process = nix::unistd::Pid::from_raw(process);
            // It may have gone by itself.
            let _ = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A program that is dying has files open when its environment is gone already. This one has memory
    /// to give back first.
    #[test]
    fn killed_programs_are_waited_for() {
        let folder = Path::new("/nowhere/killed");
        let mut child = Command::new("dd")
            .args(["if=/dev/zero", "of=/dev/null", "bs=400M"])
            .env(MARK, folder)
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("dd");
        let resident = || {
            let text = fs::read_to_string(format!("/proc/{}/statm", child.id())).expect("proc");
            text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages")
        };
        while resident() < 350 << 8 {
            std::thread::yield_now();
        }
        kill_marked(folder);
        // Not waited for by us yet: there it is, and is nothing any more.
        assert!(is_over(i32::try_from(child.id()).expect("a number")));
        child.wait().expect("it ends");
    }

    #[test]
    fn who_is_over() {
        assert!(!is_over(i32::try_from(std::process::id()).expect("a number")));
        assert!(is_over(i32::MAX));
    }
}
