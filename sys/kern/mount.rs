//! vfs_suspend(9): the file system that is mounted on a block device.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use dm_core::{Dev, Errno};

use super::{cpu, sys};

/// Milliseconds after which a thread asks again that wants to suspend a file system while another one is being
/// suspended.
const AGAIN: u32 = 10;

/// A file system that is mounted on a block device.
///
/// # Invariants
/// The value has a reference to the mount.
pub struct Mounted(NonNull<sys::mount>);

impl Mounted {
    /// The file system that is mounted on a device, if there is one. May sleep while one is being mounted or suspended.
    pub fn on(dev: Dev) -> Option<Mounted> {
        let (mut node, mut mounts) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the functions are called as vnode(9) and vfs(9) have them, and each reference is given back:
        // the node's, and by the iterator that of each mount that it has shown. A mount that it shows does not
        // go meanwhile, so that what the node says can be compared with it.
        unsafe {
            if sys::vfinddev(dev.0, sys::vtype_VBLK, &raw mut node) == 0 {
                return None;
            }
            let mut found = None;
            // Most devices have none.
            if !sys::spec_node_getmountedfs(node).is_null() {
                sys::mountlist_iterator_init(&raw mut mounts);
                while found.is_none()
                    && let Some(mount) = NonNull::new(sys::mountlist_iterator_next(mounts))
                {
                    if sys::spec_node_getmountedfs(node) == mount.as_ptr() {
                        sys::vfs_ref(mount.as_ptr());
                        found = Some(Mounted(mount));
                    }
                }
                sys::mountlist_iterator_destroy(mounts);
            }
            sys::vrele(node);
            found
        }
    }

    /// Has the file system begin nothing new, and waits for what it has begun.
    ///
    /// # Errors
    /// EINTR or ERESTART when a signal came first; what the file system says, EOPNOTSUPP if it cannot do this.
    pub fn suspend(self) -> Result<Suspended, Errno> {
        loop {
            // SAFETY: the mount is referenced (invariant). This thread resumes it, since `Suspended` stays with it.
            match Errno::check(unsafe { sys::vfs_suspend(self.0.as_ptr(), 1) }) {
                Ok(()) => return Ok(Suspended(self, PhantomData)),
                // Another one is being suspended, or unmounted.
                Err(Errno::EAGAIN) => {}
                Err(errno) => return Err(errno),
            }
            // SAFETY: sleeps, with no lock.
            let slept = unsafe {
                sys::kpause(c"dmfreeze".as_ptr(), true, cpu::ticks_in(AGAIN), ptr::null_mut())
            };
            match Errno::check(slept) {
                Ok(()) | Err(Errno::EAGAIN) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: the reference is ours (invariant).
        unsafe { sys::vfs_rele(self.0.as_ptr()) }
    }
}

/// A file system that begins nothing new until the value is dropped. No other one in the system is suspended
/// or unmounted meanwhile, so that it must not be kept.
///
/// # Invariants
/// The calling thread has suspended the mount; the value stays with it.
pub struct Suspended(Mounted, PhantomData<*mut ()>);

impl Suspended {
    /// Has the file system write all that it has, and waits until that is on the device.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sync(&self) -> Result<(), Errno> {
        let mount = self.0.0.as_ptr();
        // SAFETY: the mount is referenced and suspended by this thread (invariant).
        Errno::check(unsafe {
            sys::vrele_flush(mount);
            sys::VFS_SYNC(mount, sys::MNT_WAIT, sys::kauth_cred_get())
        })
    }
}

impl Drop for Suspended {
    fn drop(&mut self) {
        // SAFETY: this thread has suspended it (invariant).
        unsafe { sys::vfs_resume(self.0.0.as_ptr()) }
    }
}
