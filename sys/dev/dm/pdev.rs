// SPDX-License-Identifier: BSD-2-Clause

//! Components, opened once for all tables that use them, and looked up anew for each.
//!
//! A block device can be open only once in NetBSD, so all tables share one opening. They do not
//! share its properties: it may have grown, shrunk, or become read-only since another table was
//! loaded, and each table keeps the properties that it was checked against. A component that was
//! taken away, and whose number has come back, is opened anew for the next table, beside the dead
//! opening, which other tables may still have.
//!
//! Components are opened for writing where they can be, since the next table may write. A table's
//! read-only flag is enforced for each dm device, not here.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::Errno;
use crate::guard::GuardedSectors;
use crate::kernel::{Answer, Condvar, Kernel, Mutex};
use crate::table::Component;
use crate::units::{DEV_BSIZE, Dev, Sector};

/// All components that some table uses.
pub struct Pdevs<K: Kernel> {
    /// The openings, one for each device number.
    set: K::Mutex<Vec<Entry<K>>>,
    /// An entry has come out of [`State::Moving`]. With `set`.
    settled: K::Condvar,
}

/// The opening of a component that the next table shares. All fields: under [`Pdevs::set`].
struct Entry<K: Kernel> {
    dev: Dev,
    /// The number of [`Pdev`]s that have the opening; hosts are not counted.
    users: usize,
    state: State<K>,
}

/// The states of a component's opening.
///
/// ```text
///            share          kernel.open          the last Pdev drops       closed
///  (no entry) ────► Moving ────────────► Open ─────────────────────► Moving ────► (no entry)
///                     │                   │
///                     └► (no entry)       └► dead: in no entry any more; tables that
///                        it failed           have it keep it, the last closes it
/// ```
///
/// The thread that makes an entry Moving opens or closes the component, without the lock; others
/// wait for it in [`Pdevs::share`] (`dmpdev`). A component that was taken away or revoked is found
/// dead by the next table's `share`.
enum State<K: Kernel> {
    /// Being opened or closed.
    Moving,
    /// Open, for its users.
    Open(Arc<K::Disk>),
}

impl<K: Kernel> Entry<K> {
    fn has(&self, disk: &Arc<K::Disk>) -> bool {
        matches!(&self.state, State::Open(mine) if Arc::ptr_eq(mine, disk))
    }
}

/// A reference to an opened component, with its size, sectors, label and mode when the table was
/// loaded. Dropping the last reference closes the component, and may sleep.
///
/// # Invariants
/// Beside `Pdev`s only the host of the same table has the disk ([`Pdev::share`]), and the table
/// drops its host first. Nothing that outlives a table keeps its host or its engine: jobs and lanes
/// have ended, and a thread that has hastened the engine has a weak reference to the table
/// (`device/control.rs`). So the last `Pdev`'s reference is the disk's last.
pub struct Pdev<K: Kernel> {
    // Empty only while it is being dropped.
    disk: Option<Arc<K::Disk>>,
    handle: K::Handle,
    dev: Dev,
    answer: Answer,
    set: Arc<Pdevs<K>>,
}

/// The number of times that a component is opened if it goes away while its properties are read.
const TRIES: usize = 3;

impl<K: Kernel> Pdevs<K> {
    /// An empty set.
    pub fn new() -> Arc<Pdevs<K>> {
        Arc::new(Pdevs { set: K::Mutex::new(Vec::new()), settled: K::Condvar::new(c"dmpdev") })
    }

    /// Opens `dev`, or shares it if it is open, and looks up its properties: size, sectors, label
    /// and mode. Context: a thread with no lock held; sleeps in the component's driver, and while
    /// another thread opens or closes it.
    ///
    /// # Errors
    /// Those of [`Kernel::open`] and [`Kernel::ask`]; EINTR.
    pub fn open(self: &Arc<Self>, kernel: &K, dev: Dev) -> Result<Pdev<K>, Errno> {
        let mut left = TRIES;
        loop {
            let mut pdev = self.share(kernel, dev)?;
            left = left.saturating_sub(1);
            match kernel.ask(pdev.disk()) {
                Ok(answer) => {
                    pdev.answer = answer;
                    return Ok(pdev);
                }
                Err(_) if left > 0 && kernel.is_gone(pdev.disk()) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// The opening of `dev`, shared or new.
    fn share(self: &Arc<Self>, kernel: &K, dev: Dev) -> Result<Pdev<K>, Errno> {
        let answer =
            Answer { size: Sector::ZERO, sector_size: DEV_BSIZE, writable: false, guard: None };
        let pdev = |disk: Arc<K::Disk>| {
            let handle = K::handle(&disk);
            Pdev { disk: Some(disk), handle, dev, answer, set: self.clone() }
        };
        let mut set = self.set.lock();
        loop {
            match set.iter_mut().find(|e| e.dev == dev) {
                None => break,
                Some(Entry { users, state: State::Open(disk), .. }) => {
                    *users = users.saturating_add(1);
                    let shared = pdev(disk.clone());
                    drop(set);
                    if !kernel.is_gone(shared.disk()) {
                        return Ok(shared);
                    }
                    // The users of the dead opening keep it; the last of them, perhaps this one,
                    // drops it.
                    set = self.set.lock();
                    if let Some(dead) = &shared.disk {
                        set.retain(|e| !e.has(dead));
                    }
                    drop(set);
                    drop(shared);
                    set = self.set.lock();
                }
                Some(_) => self.settled.wait_sig(&mut set)?,
            }
        }
        set.push(Entry { dev, users: 1, state: State::Moving });
        drop(set);
        let opened = kernel.open(dev).map(Arc::new);
        let mut set = self.set.lock();
        self.settled.broadcast();
        match opened {
            Ok(disk) => {
                if let Some(entry) = set.iter_mut().find(|e| e.dev == dev) {
                    entry.state = State::Open(disk.clone());
                }
                Ok(pdev(disk))
            }
            Err(errno) => {
                set.retain(|e| e.dev != dev);
                Err(errno)
            }
        }
    }
}

impl<K: Kernel> Drop for Pdev<K> {
    /// Closes the component if no table has it any more. Context: a thread with no lock held;
    /// sleeps in its driver.
    fn drop(&mut self) {
        let mut disk = self.disk.take();
        let Some(own) = &disk else { return };
        let mut set = self.set.set.lock();
        let mut last = None;
        if let Some(entry) = set.iter_mut().find(|e| e.has(own)) {
            entry.users = entry.users.saturating_sub(1);
            match entry.users {
                0 => last = Some(core::mem::replace(&mut entry.state, State::Moving)),
                // Given back before the last user can be: that one's reference is the disk's last,
                // and it waits until the disk is closed.
                _ => disk = None,
            }
        }
        drop(set);
        let closed = last.is_some();
        drop((last, disk));
        if closed {
            let mut set = self.set.set.lock();
            set.retain(|e| e.dev != self.dev);
            self.set.settled.broadcast();
        }
    }
}

impl<K: Kernel> Pdev<K> {
    /// The handle to start I/O with, while the table has this.
    #[inline]
    pub fn handle(&self) -> K::Handle {
        self.handle
    }

    /// The opened component.
    ///
    /// # Panics
    /// While this is being dropped, when nothing can call it.
    pub fn disk(&self) -> &K::Disk {
        self.opened()
    }

    fn opened(&self) -> &Arc<K::Disk> {
        let Some(disk) = &self.disk else { panic!("dm: a component is used while it is dropped") };
        disk
    }
}

impl<K: Kernel> Pdev<K> {
    /// Takes the component as it will be when its table is active: it has none yet.
    pub(crate) fn will_be(&mut self, size: Sector, sector_size: u32, read_only: bool) {
        let writable = self.answer.writable && !read_only;
        self.answer = Answer { size, sector_size, writable, ..self.answer };
    }

    /// Takes the component for one that takes writes: it will when its inactive table is active.
    pub(crate) fn will_take_writes(&mut self) {
        self.answer.writable = true;
    }

    /// The opened component, to be kept by a part of the same table that is dropped before this.
    pub fn share(&self) -> Arc<K::Disk> {
        self.opened().clone()
    }
}

impl<K: Kernel> Component for Pdev<K> {
    fn dev(&self) -> Dev {
        self.dev
    }

    fn size(&self) -> Sector {
        self.answer.size
    }

    fn sector_size(&self) -> u32 {
        self.answer.sector_size
    }

    fn writable(&self) -> bool {
        self.answer.writable
    }

    fn guard(&self) -> Option<GuardedSectors> {
        self.answer.guard
    }

    fn opening(&self) -> usize {
        Arc::as_ptr(self.opened()).addr()
    }
}
