// SPDX-License-Identifier: BSD-2-Clause

//! vfs_suspend(9): the file system that is mounted on a block device. Context of everything here: a
//! thread that holds no lock.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use dm_core::{Dev, Errno};

use super::{cpu, sys};

/// Milliseconds after which a thread looks again that waits for a file system: nothing would wake
/// it.
const AGAIN: u32 = 10;

/// A file system that is mounted on a block device.
///
/// # Invariants
/// The value has a reference to the mount.
pub struct Mounted(NonNull<sys::mount>);

impl Mounted {
    /// The file system that is mounted on a device, if there is one. Sleeps while that is being
    /// mounted, suspended or unmounted.
    ///
    /// # Errors
    /// EINTR or ERESTART when a signal came first.
    pub fn on(dev: Dev) -> Result<Option<Mounted>, Errno> {
        let mut node = ptr::null_mut();
        // SAFETY: `node` receives a referenced node, which is given back.
        unsafe {
            if sys::vfinddev(dev.0, sys::vtype_VBLK, &raw mut node) == 0 {
                return Ok(None);
            }
            let mut found = Ok(None);
            // Most devices have none.
            while matches!(found, Ok(None)) && !sys::spec_node_getmountedfs(node).is_null() {
                found = match Mounted::of(node) {
                    Some(mounted) => Ok(Some(mounted)),
                    None => pause().map(|()| None),
                };
            }
            sys::vrele(node);
            found
        }
    }

    /// The file system that is mounted on a device's node, unless it is being suspended or goes.
    ///
    /// # Safety
    /// The node is referenced.
    unsafe fn of(node: *mut sys::vnode) -> Option<Mounted> {
        let (mut mounts, mut found) = (ptr::null_mut(), None);
        // SAFETY: the iterator gives back the reference to each mount that it has shown. One that
        // it shows does not go meanwhile, so that what the node says can be compared with it.
        unsafe {
            sys::mountlist_iterator_init(&raw mut mounts);
            while found.is_none()
                && let Some(mount) = NonNull::new(sys::mountlist_iterator_trynext(mounts))
            {
                if sys::spec_node_getmountedfs(node) == mount.as_ptr() {
                    sys::vfs_ref(mount.as_ptr());
                    found = Some(Mounted(mount));
                }
            }
            sys::mountlist_iterator_destroy(mounts);
        }
        found
    }

    /// Suspends the file system: it begins no operation, and operations that have begun are waited
    /// for.
    ///
    /// # Errors
    /// EINTR or ERESTART when a signal came first; those of the file system, EOPNOTSUPP if it
    /// cannot be suspended.
    pub fn suspend(self) -> Result<Suspended, Errno> {
        loop {
            // SAFETY: the mount is referenced (invariant). This thread resumes it, since
            // `Suspended` stays with it.
            match Errno::check(unsafe { sys::vfs_suspend(self.0.as_ptr(), 1) }) {
                Ok(()) => return Ok(Suspended(self, PhantomData)),
                // Another file system is being suspended, or unmounted.
                Err(Errno::EAGAIN) => {}
                Err(errno) => return Err(errno),
            }
            pause()?;
        }
    }
}

/// Sleeps for a moment before a thread looks again at a file system.
///
/// # Errors
/// EINTR or ERESTART when a signal came.
fn pause() -> Result<(), Errno> {
    let ticks = cpu::ticks_in(AGAIN);
    // SAFETY: sleeps, with no lock.
    match Errno::check(unsafe { sys::kpause(c"dmfreeze".as_ptr(), true, ticks, ptr::null_mut()) }) {
        Err(Errno::EAGAIN) => Ok(()),
        result => result,
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: the reference is ours (invariant).
        unsafe { sys::vfs_rele(self.0.as_ptr()) }
    }
}

/// A file system that begins nothing new until the value is dropped. No other one in the system is
/// suspended or unmounted meanwhile, so that it must not be kept.
///
/// # Invariants
/// The calling thread has suspended the mount; the value stays with it.
pub struct Suspended(Mounted, PhantomData<*mut ()>);

impl Suspended {
    /// Writes out all that the file system has, and waits until it is on the device.
    ///
    /// # Errors
    /// The file system's.
    pub fn sync(&self) -> Result<(), Errno> {
        let mount = self.0.0.as_ptr();
        // SAFETY: the mount is referenced and suspended by this thread (invariant).
        Errno::check(unsafe {
            sys::vrele_flush(mount);
            sys::dm_shim_sync(mount)
        })
    }
}

impl Drop for Suspended {
    fn drop(&mut self) {
        // SAFETY: this thread has suspended it (invariant).
        unsafe { sys::vfs_resume(self.0.0.as_ptr()) }
    }
}
