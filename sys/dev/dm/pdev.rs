//! Components, opened once however many tables use them.
//!
//! A block device can be open only once in NetBSD, so all tables share one opening. It is opened
//! for writing where it can be, since the table that comes next may write; that a device is
//! read-only is the device's own affair.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::Errno;
use crate::kernel::{Condvar, Kernel, Mutex};
use crate::label::Guard;
use crate::table::Component;
use crate::units::{Dev, Sector};

/// All components that some table uses.
pub struct Pdevs<K: Kernel> {
    set: K::Mutex<Vec<Entry<K>>>,
    /// An entry has come out of [`State::Moving`].
    settled: K::Condvar,
}

struct Entry<K: Kernel> {
    dev: Dev,
    users: usize,
    state: State<K>,
}

enum State<K: Kernel> {
    /// Being opened or closed, without the lock.
    Moving,
    Open(Arc<K::Disk>),
}

/// One use of an opened component. Dropping the last one closes it, and may sleep.
pub struct Pdev<K: Kernel> {
    // Empty only while it is being dropped.
    disk: Option<Arc<K::Disk>>,
    dev: Dev,
    set: Arc<Pdevs<K>>,
}

impl<K: Kernel> Pdevs<K> {
    /// An empty set.
    pub fn new() -> Arc<Pdevs<K>> {
        Arc::new(Pdevs { set: K::Mutex::new(Vec::new()), settled: K::Condvar::new(c"dmpdev") })
    }

    /// Opens `dev`, or shares it if it is open.
    ///
    /// # Errors
    /// Those of [`Kernel::open`].
    pub fn open(self: &Arc<Self>, kernel: &K, dev: Dev) -> Result<Pdev<K>, Errno> {
        let mut set = self.set.lock();
        loop {
            match set.iter_mut().find(|e| e.dev == dev) {
                None => break,
                Some(Entry { users, state: State::Open(disk), .. }) => {
                    *users = users.saturating_add(1);
                    let disk = Some(disk.clone());
                    return Ok(Pdev { disk, dev, set: self.clone() });
                }
                Some(_) => self.settled.wait(&mut set),
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
                Ok(Pdev { disk: Some(disk), dev, set: self.clone() })
            }
            Err(errno) => {
                set.retain(|e| e.dev != dev);
                Err(errno)
            }
        }
    }
}

impl<K: Kernel> Drop for Pdev<K> {
    fn drop(&mut self) {
        let mut set = self.set.set.lock();
        self.disk = None;
        let Some(entry) = set.iter_mut().find(|e| e.dev == self.dev) else { return };
        entry.users = entry.users.saturating_sub(1);
        if entry.users > 0 {
            return;
        }
        let last = core::mem::replace(&mut entry.state, State::Moving);
        drop(set);
        // Closes the disk: this is its last reference.
        drop(last);
        let mut set = self.set.set.lock();
        set.retain(|e| e.dev != self.dev);
        self.set.settled.broadcast();
    }
}

impl<K: Kernel> Pdev<K> {
    /// The opened component.
    #[inline]
    pub fn disk(&self) -> Option<&K::Disk> {
        self.disk.as_deref()
    }
}

impl<K: Kernel> Pdev<K> {
    /// The opened component, to be kept by a part of the same table that is dropped before this.
    pub fn share(&self) -> Option<Arc<K::Disk>> {
        self.disk.clone()
    }
}

impl<K: Kernel> Component for Pdev<K> {
    fn dev(&self) -> Dev {
        self.dev
    }

    fn size(&self) -> Sector {
        self.disk().map_or(Sector::ZERO, Component::size)
    }

    fn sector_size(&self) -> u32 {
        self.disk().map_or(crate::units::DEV_BSIZE, Component::sector_size)
    }

    fn writable(&self) -> bool {
        self.disk().is_some_and(Component::writable)
    }

    fn guard(&self) -> Option<Guard> {
        self.disk().and_then(Component::guard)
    }
}
