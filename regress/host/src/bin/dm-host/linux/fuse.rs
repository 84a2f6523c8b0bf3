// SPDX-License-Identifier: BSD-2-Clause

//! The devices as files, for loop devices to stand on: a file system with a file for each.
//!
//! Reads and writes of a device are carried out by threads of its own, so that a device that is
//! suspended holds up nobody else.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use dm_host::{Errno, File, netbsd};
use fuser::{
    FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
    Request, WriteFlags,
};

/// Threads for each device.
const THREADS: usize = 4;
/// The kernel caches no attributes: a device's size changes with its table.
const NEVER: Duration = Duration::ZERO;

enum Job {
    Read { offset: u64, size: u32, reply: ReplyData },
    Write { offset: u64, data: Vec<u8>, reply: ReplyWrite },
    Flush { reply: ReplyEmpty },
}

/// A device's raw node, open for a loop device.
pub struct Node {
    /// The node's number, which no other node has.
    pub id: u64,
    /// Bytes.
    pub size: AtomicU64,
    file: Arc<RwLock<Option<File>>>,
    jobs: Mutex<Option<Sender<Job>>>,
}

impl Node {
    /// Takes over the node of a device of `size` bytes, and starts its threads.
    ///
    /// # Errors
    /// Those of threads.
    pub fn new(file: File, size: u64) -> std::io::Result<Node> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let file = Arc::new(RwLock::new(Some(file)));
        for _ in 0..THREADS {
            let (file, jobs) = (file.clone(), receiver.clone());
            let work = move || work(&file, &jobs);
            thread::Builder::new().name("blocks".into()).spawn(work)?;
        }
        Ok(Node { id, size: AtomicU64::new(size), file, jobs: Mutex::new(Some(sender)) })
    }

    /// Closes the node when I/O in flight has ended. No I/O comes after it. Of two threads that close it, neither
    /// returns before it is closed.
    pub fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.file.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn send(&self, job: Job) {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = match &*jobs {
            Some(sender) => sender.send(job).err().map(|error| error.0),
            None => Some(job),
        };
        match refused {
            Some(Job::Read { reply, .. }) => reply.error(fuser::Errno::EIO),
            Some(Job::Write { reply, .. }) => reply.error(fuser::Errno::EIO),
            Some(Job::Flush { reply }) => reply.error(fuser::Errno::EIO),
            None => {}
        }
    }
}

fn work(file: &RwLock<Option<File>>, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let file = file.read().unwrap_or_else(PoisonError::into_inner);
        let open = file.as_ref().ok_or(Errno::EIO);
        match job {
            Job::Read { offset, size, reply } => {
                let mut data = vec![0; size as usize];
                match open.and_then(|file| file.pread(&mut data, offset)) {
                    Ok(got) => reply.data(data.get(..got).unwrap_or_default()),
                    Err(errno) => reply.error(error(errno)),
                }
            }
            Job::Write { offset, data, reply } => {
                match open.and_then(|file| file.pwrite(&data, offset)) {
                    Ok(put) => reply.written(u32::try_from(put).unwrap_or(0)),
                    Err(errno) => reply.error(error(errno)),
                }
            }
            Job::Flush { reply } => {
                let mut force = 0i32;
                let sync = netbsd::DIOCCACHESYNC as u32 as u64;
                match open.and_then(|file| file.ioctl(sync, &mut force)) {
                    Ok(()) => reply.ok(),
                    Err(errno) => reply.error(error(errno)),
                }
            }
        }
    }
}

fn error(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(dm_host::linux::abi::errno(errno))
}

/// The nodes, by minor number.
#[derive(Default)]
pub struct Nodes(Mutex<BTreeMap<u32, Arc<Node>>>);

impl Nodes {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Node>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node of a device.
    pub fn get(&self, minor: u32) -> Option<Arc<Node>> {
        self.all().get(&minor).cloned()
    }

    /// Makes a device's node known. One that it had before is closed.
    pub fn put(&self, minor: u32, node: Node) {
        let before = self.all().insert(minor, Arc::new(node));
        if let Some(before) = before {
            before.close();
        }
    }

    /// Closes a device's node, and forgets it then: when this returns, the node is closed, even if
    /// another thread had begun to close it.
    pub fn take(&self, minor: u32) {
        if let Some(node) = self.get(minor) {
            self.end(minor, &node);
        }
    }

    /// Closes a device's node if it has this id, and forgets it then; `false` if the device has another
    /// node by now, or none.
    pub fn take_this(&self, minor: u32, id: u64) -> bool {
        let node = self.get(minor).filter(|node| node.id == id);
        node.is_some_and(|node| {
            self.end(minor, &node);
            true
        })
    }

    fn end(&self, minor: u32, node: &Node) {
        node.close();
        let mut all = self.all();
        if all.get(&minor).is_some_and(|known| known.id == node.id) {
            all.remove(&minor);
        }
    }
}

/// The file system; its files have the minor numbers as names.
pub struct Devices {
    /// The nodes behind the files.
    pub nodes: Arc<Nodes>,
    /// Is told when a file was closed for the last time: the minor number, the node's id.
    pub closed: Sender<(u32, u64)>,
}

/// Inode 1 is the folder.
fn minor(inode: INodeNo) -> Option<u32> {
    u32::try_from(u64::from(inode)).ok()?.checked_sub(1).filter(|minor| *minor > 0)
}

fn attributes(inode: u64, size: u64) -> FileAttr {
    let folder = inode == 1;
    FileAttr {
        ino: INodeNo(inode),
        size,
        blocks: size / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if folder { FileType::Directory } else { FileType::RegularFile },
        perm: if folder { 0o700 } else { 0o600 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: 4096,
    }
}

impl Filesystem for Devices {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let minor = name.to_str().and_then(|name| name.parse::<u32>().ok());
        let minor = minor.filter(|_| u64::from(parent) == 1);
        match minor.and_then(|minor| Some((minor, self.nodes.get(minor)?))) {
            Some((minor, node)) => {
                let size = node.size.load(Ordering::Acquire);
                reply.entry(&NEVER, &attributes(u64::from(minor) + 1, size), Generation(0));
            }
            None => reply.error(fuser::Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if u64::from(inode) == 1 {
            return reply.attr(&NEVER, &attributes(1, 0));
        }
        let node = minor(inode).and_then(|minor| self.nodes.get(minor));
        // A file that is open may be that of a device that has gone.
        let size = node.map_or(0, |node| node.size.load(Ordering::Acquire));
        reply.attr(&NEVER, &attributes(inode.into(), size));
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match minor(inode).and_then(|minor| self.nodes.get(minor)) {
            // The loop device remembers what it read; to do so once more would only go stale.
            Some(node) => reply.opened(FileHandle(node.id), FopenFlags::FOPEN_DIRECT_IO),
            None => reply.error(fuser::Errno::ENOENT),
        }
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match minor(inode).and_then(|minor| self.nodes.get(minor)) {
            Some(node) => node.send(Job::Read { offset, size, reply }),
            None => reply.error(fuser::Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match minor(inode).and_then(|minor| self.nodes.get(minor)) {
            Some(node) => node.send(Job::Write { offset, data: data.to_vec(), reply }),
            None => reply.error(fuser::Errno::EIO),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match minor(inode).and_then(|minor| self.nodes.get(minor)) {
            Some(node) => node.send(Job::Flush { reply }),
            None => reply.error(fuser::Errno::EIO),
        }
    }

    /// A loop device that discards wants zeros from then on, which the driver does not promise.
    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(fuser::Errno::EOPNOTSUPP);
    }

    fn release(
        &self,
        _: &Request,
        inode: INodeNo,
        file: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
        if let Some(minor) = minor(inode) {
            // The session may have ended; nobody wants to know then.
            let _ = self.closed.send((minor, file.into()));
        }
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if u64::from(inode) == 1 && offset == 0 {
            let _full = reply.add(INodeNo(1), 1, FileType::Directory, ".");
        }
        reply.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64) -> Node {
        let (sender, _) = mpsc::channel();
        Node { id, size: 0.into(), file: Arc::default(), jobs: Mutex::new(Some(sender)) }
    }

    /// A thread that finds no node takes the device for closed: the driver would refuse to remove
    /// one that another thread has yet to close.
    #[test]
    fn a_node_is_known_until_it_is_closed() {
        let node = node(1);
        let file = node.file.clone();
        let nodes = Nodes::default();
        nodes.put(7, node);
        let node = nodes.get(7).expect("it is known");
        let under_way = file.read().expect("nobody panicked");
        thread::scope(|scope| {
            scope.spawn(|| nodes.take(7));
            // From then on, the other thread waits for what is under way.
            while node.jobs.lock().expect("nobody panicked").is_some() {
                thread::yield_now();
            }
            assert!(nodes.get(7).is_some());
            drop(under_way);
        });
        assert!(nodes.get(7).is_none());
    }

    /// The end of an old node is heard of late: the number may be another device's.
    #[test]
    fn the_end_of_a_node_leaves_the_next_one() {
        let nodes = Nodes::default();
        nodes.put(7, node(1));
        nodes.put(7, node(2));
        assert!(!nodes.take_this(7, 1));
        let next = nodes.get(7).expect("it is known");
        assert!(next.jobs.lock().expect("nobody panicked").is_some(), "it was closed");
        assert!(nodes.take_this(7, 2) && nodes.get(7).is_none());
    }
}
