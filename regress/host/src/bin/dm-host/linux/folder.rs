// SPDX-License-Identifier: BSD-2-Clause

//! A session's folder, and what a session that was killed has left behind.
//!
//! Root's sessions are below /run/dm-host-linux, others' in the folder of the default sockets. A
//! session's folder has a file `alive`, locked by the process that keeps the session for as long
//! as it lives, and a file `state` that says which loop devices are the session's. Who starts a
//! session takes the lock of all sessions first, and clears up after those that nobody keeps.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{loops, users};
use crate::sockets;

/// The number of sessions at a time.
const SESSIONS: u32 = 60;

/// The state of a session that other processes need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The process that keeps it.
    pub keeper: u32,
    /// The device mapper's major number.
    pub major: u32,
    /// The first loop device and the shift of loop devices' minors; `None` without block devices.
    pub loops: Option<(u32, u32)>,
}

impl State {
    /// Writes it down, whole or not at all.
    ///
    /// # Errors
    /// In words.
    pub fn write(&self, folder: &Path) -> Result<(), String> {
        let (base, shift) = self.loops.unwrap_or((0, 0));
        let text = format!("{} {} {base} {shift}\n", self.keeper, self.major);
        let new = folder.join("state.new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, folder.join("state")));
        written.map_err(|error| format!("{}: {error}", new.display()))
    }

    /// Reads it; `None` where there is none yet.
    pub fn read(folder: &Path) -> Option<State> {
        let text = fs::read_to_string(folder.join("state")).ok()?;
        let mut numbers = text.split_whitespace().map(|word| word.parse::<u32>().ok());
        let mut next = || numbers.next().flatten();
        let (keeper, major, base, shift) = (next()?, next()?, next()?, next()?);
        let loops = (base > 0 && shift < 20).then_some((base, shift));
        Some(State { keeper, major, loops })
    }
}

/// The folder of all sessions.
pub fn all() -> PathBuf {
    match nix::unistd::geteuid().is_root() {
        true => PathBuf::from("/run/dm-host-linux"),
        false => sockets::folder().join("linux"),
    }
}

/// A lock on a file, given up when it is closed.
pub struct Lock(File);

/// Locks a file that is created if necessary: `None` if another process has it locked.
fn lock(path: &Path, wait: bool) -> io::Result<Option<Lock>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    let how = libc::LOCK_EX | if wait { 0 } else { libc::LOCK_NB };
    // SAFETY: flock(2) on a descriptor that `file` keeps open.
    match unsafe { libc::flock(file.as_raw_fd(), how) } {
        0 => Ok(Some(Lock(file))),
        _ if !wait => Ok(None),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Locks all sessions, and makes their folder.
///
/// # Errors
/// In words.
pub fn lock_all() -> Result<Lock, String> {
    let folder = all();
    if !nix::unistd::geteuid().is_root() {
        sockets::make_folder()?;
    }
    let words = |error: io::Error| format!("{}: {error}", folder.display());
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(words(error)),
        _ => {}
    }
    loop {
        if let Some(locked) = lock_in(&folder).map_err(words)? {
            return Ok(locked);
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(words)?;
    }
}

/// Locks the sessions of a folder. Who ended the last session has removed folder and file, perhaps
/// while we waited: `None` then.
fn lock_in(folder: &Path) -> io::Result<Option<Lock>> {
    let path = folder.join("lock");
    let locked = match lock(&path, true) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        locked => locked?,
    };
    Ok(locked.filter(|locked| {
        let (ours, now) = (locked.0.metadata(), fs::metadata(&path));
        matches!((ours, now), (Ok(ours), Ok(now)) if ours.ino() == now.ino())
    }))
}

/// Says that this process keeps the session, for as long as it lives. Nobody else does: who starts
/// one has all sessions locked, and makes the folder. Who has the file locked only looks.
///
/// # Errors
/// In words.
pub fn keep(folder: &Path) -> Result<Lock, String> {
    let locked = lock(&folder.join("alive"), true);
    locked.map_err(|error| error.to_string())?.ok_or_else(|| "the session is another's".into())
}

/// `true` if a process keeps the session.
pub fn is_kept(folder: &Path) -> bool {
    folder.join("alive").exists() && !matches!(lock(&folder.join("alive"), false), Ok(Some(_)))
}

/// The folders of all sessions.
pub fn sessions() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(all()) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Clears up after sessions that were killed. All sessions are locked.
pub fn clear_leftovers(_lock: &Lock) {
    for folder in sessions() {
        if !is_kept(&folder) {
            clear(&folder);
        }
    }
}

/// Ends what a session without a keeper has left: programs, loop devices, files. Its mounts and
/// nodes have gone with its last program.
pub fn clear(folder: &Path) {
    users::kill_marked(folder);
    if let Some((base, _)) = State::read(folder).and_then(|state| state.loops) {
        // What was mounted is unmounted by the kernel, soon after the last program has gone.
        let until = Instant::now() + Duration::from_secs(10);
        while !loops::remove_all(base) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    remove(folder);
}

/// Removes the folder, and that of all sessions if it was the last.
pub fn remove(folder: &Path) {
    // What is left is told by the next one, who tries it again.
    let _ = fs::remove_dir_all(folder);
}

/// Removes the folder of all sessions when there is none any more. All sessions are locked.
pub fn remove_all(_lock: &Lock) {
    if sessions().is_empty() {
        let _ = fs::remove_file(all().join("lock"));
        let _ = fs::remove_dir(all());
    }
}

/// The first loop device for a new session. All sessions are locked.
pub fn free_base(_lock: &Lock) -> Option<u32> {
    let taken: Vec<u32> = sessions()
        .iter()
        .filter_map(|folder| State::read(folder)?.loops)
        .map(|(base, _)| base)
        .collect();
    (1..=SESSIONS).map(|number| number * loops::PER_SESSION).find(|base| !taken.contains(base))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The end of the last session takes the folder away from who has just found it there.
    #[test]
    fn a_folder_that_has_just_gone_is_no_error() {
        let own = tempfile::tempdir().expect("a folder");
        assert!(lock_in(&own.path().join("gone")).expect("no error").is_none());
        let locked = lock_in(own.path()).expect("no error").expect("it is free");
        fs::remove_file(own.path().join("lock")).expect("it is there");
        assert!(lock_in(own.path()).expect("no error").is_some(), "that lock is nobody's any more");
        drop(locked);
    }

    /// `true` if anybody waits for a lock on this file, says proc(5).
    fn is_waited_for(path: &Path) -> bool {
        let inode = format!(":{} ", fs::metadata(path).expect("a file").ino());
        let locks = fs::read_to_string("/proc/locks").expect("proc");
        locks.lines().any(|line| line.contains("->") && line.contains(&inode))
    }

    #[test]
    fn who_looks_whether_a_session_is_kept_is_in_nobodys_way() {
        let own = tempfile::tempdir().expect("a folder");
        let alive = own.path().join("alive");
        // As `is_kept` does, for a moment.
        let looks = lock(&alive, false).expect("a lock").expect("it is free");
        thread::scope(|scope| {
            let keeps = scope.spawn(|| keep(own.path()));
            while !keeps.is_finished() && !is_waited_for(&alive) {
                thread::yield_now();
            }
            drop(looks);
            let kept = keeps.join().expect("nobody panicked");
            assert!(kept.is_ok(), "{:?}", kept.err());
            assert!(is_kept(own.path()));
        });
    }
}
