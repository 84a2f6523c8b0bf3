// SPDX-License-Identifier: BSD-2-Clause

//! A slot's disk(9), and its users: opens, ioctls, and the removal that waits for them.

use alloc::sync::Arc;
use core::mem::ManuallyDrop;
use core::sync::atomic::Ordering;

use dm_core::Errno;

use super::Slot;
use crate::entry::stats::Folded;
use crate::netbsd::disk::Disk;

/// A device's disk(9) and the number of its users. All fields: under [`Slot::node`].
#[derive(Default)]
pub(super) struct NodeState {
    /// The device's disk(9), while it is attached. [`Folded::disk`] is the other reference to it;
    /// [`Slot::take_disk`] drops both, outside the locks, which detaches it.
    disk: Option<Arc<Disk>>,
    /// `true` if opens are refused: the device is being removed, or is gone.
    closing: bool,
    /// [`DiskUse`]s: ioctls, closes, and updates of the disk's size and geometry.
    users: usize,
}

impl Slot {
    /// Attaches the device's disk. Context: a thread that makes a device.
    pub(crate) fn set_disk(&self, disk: Disk) {
        let disk = Arc::new(disk);
        self.folded.lock().disk = Some(disk.clone());
        self.flushed.store(self.written(), Ordering::Relaxed);
        let mut node = self.node.lock();
        node.disk = Some(disk);
        node.closing = false;
    }

    /// Detaches the disk, when no [`DiskUse`] is left. Context: a thread that removes the device,
    /// which has no `DiskUse` itself; sleeps, deaf to signals. The device's I/O is over.
    pub(crate) fn take_disk(&self) {
        let mut node = self.node.lock();
        node.closing = true;
        while node.users > 0 {
            self.unused.wait(&mut node);
        }
        let disk = node.disk.take();
        drop(node);
        // Counts of this device are not the next one's.
        self.fold();
        let mut folded = self.folded.lock();
        let old = core::mem::replace(&mut *folded, Folded::starting_from(self.tallies()));
        drop(folded);
        // The I/O is over, but an I/O that was turned away, or is just leaving, raises the gate's
        // count for a moment, and a fold may have taken that for I/O in flight; disk_detach(9)
        // wants none.
        if let Some(disk) = &old.disk {
            disk.rest();
        }
        drop((old, disk));
    }

    /// References the disk(9) of a device, if it is attached and the slot is still that device's.
    /// It is attached after [`Slot::refuse_opens`], too: closes that come of a forced detach need
    /// it. Context: thread; takes `node`.
    pub(crate) fn disk(&self, minor: u32) -> Option<DiskUse<'_>> {
        let mut node = self.node.lock();
        // While a disk is attached the slot's minor does not change.
        let disk = node.disk.clone().filter(|_| self.minor() == minor)?;
        node.users = node.users.saturating_add(1);
        Some(DiskUse { slot: self, disk: ManuallyDrop::new(disk) })
    }

    /// Runs `f` on the disk unless opens are refused, with no open, close or removal in between.
    /// Context: thread (d_open); takes `node`, and `f` the disk's dk_openlock.
    ///
    /// # Errors
    /// ENXIO when they are, or those of `f`.
    pub(crate) fn open_with(
        &self,
        f: impl FnOnce(&Disk) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let node = self.node.lock();
        match &node.disk {
            Some(disk) if !node.closing => f(disk),
            _ => Err(Errno::ENXIO),
        }
    }

    /// Refuses opens from now on, unless a node is open. Context: thread; takes `node` and the
    /// disk's dk_openlock.
    ///
    /// # Errors
    /// EBUSY when one is and `force` is not set.
    pub(crate) fn refuse_opens(&self, force: bool) -> Result<(), Errno> {
        let mut node = self.node.lock();
        if !force && node.disk.as_ref().is_some_and(|disk| disk.open_count() > 0) {
            return Err(Errno::EBUSY);
        }
        node.closing = true;
        Ok(())
    }
}

/// A reference to a slot's disk(9), which is not detached while it lives: [`Slot::take_disk`]
/// waits. So a thread that has one must not remove the device, nor wait for one that does.
///
/// # Invariants
/// It is counted in [`NodeState::users`]. The reference is taken in `drop` only.
#[must_use = "dropped at once, the disk is not kept"]
pub(crate) struct DiskUse<'s> {
    slot: &'s Slot,
    disk: ManuallyDrop<Arc<Disk>>,
}

impl core::ops::Deref for DiskUse<'_> {
    type Target = Disk;

    fn deref(&self) -> &Disk {
        &self.disk
    }
}

impl Drop for DiskUse<'_> {
    fn drop(&mut self) {
        let mut node = self.slot.node.lock();
        // Under the lock, so that the last reference is never this one: `take_disk`, which detaches
        // the disk, has its own until the count is 0.
        // SAFETY: taken here only (invariant).
        drop(unsafe { ManuallyDrop::take(&mut self.disk) });
        assert!(node.users > 0, "dm: a disk(9) was let go too often");
        node.users = node.users.wrapping_sub(1);
        if node.users == 0 {
            self.slot.unused.broadcast();
        }
    }
}
