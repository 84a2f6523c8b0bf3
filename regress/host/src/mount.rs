// SPDX-License-Identifier: BSD-2-Clause

//! vfs(9), vfs_suspend(9): file systems that are mounted on block devices, as far as a driver sees them.
//!
//! There is none in this kernel: a test mounts what it says that one does ([`Machine::mount`](crate::Machine::mount)), and
//! counts. As in NetBSD one file system at a time is suspended, by a thread that also resumes it. Stricter: a
//! thread that holds I/O may not suspend one, for that waits for what may want the I/O.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::console::kassert;
use crate::dev::Dev;
use crate::errno::Errno;
use crate::frugal;
use crate::lwp;
use crate::mutex::{self, mutex_tryenter};
use crate::netbsd as nb;
use crate::specfs;

/// vfs_suspend_lock: held while a file system is suspended.
static SUSPENDING: SuspendLock = SuspendLock(UnsafeCell::new(mutex::static_adaptive()));

struct SuspendLock(UnsafeCell<nb::kmutex_t>);

// SAFETY: a mutex is made to be shared.
unsafe impl Sync for SuspendLock {}

// SAFETY: the flags are changed under `mnt_updating`, the mutex is made to be shared, and the rest is atomic.
unsafe impl Sync for FileSystem {}
// SAFETY: nothing of it belongs to a thread.
unsafe impl Send for FileSystem {}

static MOUNTS: Mutex<Vec<Arc<FileSystem>>> = Mutex::new(Vec::new());

/// A mounted file system: a `struct mount *` is a pointer to this.
#[repr(C)]
struct FileSystem {
    /// Its flags and `mnt_updating` are what the kernel's own would be; the rest is 0.
    mount: UnsafeCell<nb::mount>,
    updating: UnsafeCell<nb::kmutex_t>,
    dev: Dev,
    sync: Box<dyn Fn() -> Result<(), Errno> + Send + Sync>,
    references: AtomicUsize,
    /// The lwp that has suspended the file system, or 0.
    owner: AtomicU64,
    refused: AtomicI32,
    suspensions: AtomicUsize,
    gone: AtomicBool,
}

/// A mounted file system, until it is dropped.
pub struct Mount(Arc<FileSystem>);

impl Mount {
    pub(crate) fn new(
        dev: Dev,
        sync: Box<dyn Fn() -> Result<(), Errno> + Send + Sync>,
    ) -> Result<Mount, Errno> {
        specfs::set_mounted(dev, true)?;
        let new = Arc::new(FileSystem {
            // SAFETY: numbers and pointers.
            mount: UnsafeCell::new(unsafe { std::mem::zeroed() }),
            updating: UnsafeCell::new(mutex::static_adaptive()),
            dev,
            sync,
            references: AtomicUsize::new(0),
            owner: AtomicU64::new(0),
            refused: AtomicI32::new(0),
            suspensions: AtomicUsize::new(0),
            gone: AtomicBool::new(false),
        });
        // SAFETY: nobody else knows the mount yet; the mutex lives as long.
        unsafe { (*new.mount.get()).mnt_updating = new.updating.get() };
        mounts().push(new.clone());
        Ok(Mount(new))
    }

    /// Sets mnt_flag: `netbsd::MNT_…`. Nothing else uses the mount meanwhile.
    pub fn set_flags(&self, flags: i32) {
        // SAFETY: the caller's promise.
        unsafe { (*self.0.mount.get()).mnt_flag = flags };
    }

    /// mnt_flag.
    pub fn flags(&self) -> i32 {
        // SAFETY: it is changed with `mnt_updating` held, by a thread that the test has waited for.
        unsafe { (*self.0.mount.get()).mnt_flag }
    }

    /// The number of times that the file system was suspended.
    pub fn suspensions(&self) -> usize {
        self.0.suspensions.load(Ordering::SeqCst)
    }

    /// `true` while the file system is suspended.
    pub fn is_suspended(&self) -> bool {
        self.0.owner.load(Ordering::SeqCst) != 0
    }

    /// Has vfs_suspend(9) fail with this error, or with `None` work.
    pub fn refuse(&self, error: Option<Errno>) {
        self.0.refused.store(error.map_or(0, |error| error.0), Ordering::SeqCst);
    }

    /// Suspends the file system for as long as `f` runs, as another driver would.
    pub fn suspended<R>(&self, f: impl FnOnce() -> R) -> R {
        let mount = Arc::as_ptr(&self.0).cast_mut().cast();
        // SAFETY: the mount lives.
        let result = unsafe { vfs_suspend(mount, 0) };
        assert_eq!(result, 0, "vfs_suspend");
        let result = f();
        // SAFETY: as above; it was suspended here.
        unsafe { vfs_resume(mount) };
        result
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::SeqCst);
        mounts().retain(|mount| !Arc::ptr_eq(mount, &self.0));
        let references = self.0.references.load(Ordering::SeqCst);
        kassert!(references == 0, "a file system is unmounted that has {references} references");
        // Its device may be gone.
        let _ = specfs::set_mounted(self.0.dev, false);
    }
}

fn mounts() -> std::sync::MutexGuard<'static, Vec<Arc<FileSystem>>> {
    MOUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file_system<'a>(mount: *mut nb::mount) -> &'a FileSystem {
    // SAFETY: callers have a reference, or what the iterator shows.
    unsafe { &*mount.cast() }
}

/// A walk over all mounts, of which the one that was shown last is busy.
struct Walk {
    left: Vec<Arc<FileSystem>>,
    shown: Option<Arc<FileSystem>>,
}

/// mountlist_iterator_init(9)
///
/// # Safety
///
/// `walk` receives the iterator.
#[unsafe(no_mangle)]
unsafe extern "C" fn mountlist_iterator_init(walk: *mut *mut nb::mount_iterator_t) {
    lwp::current().assert_sleepable("mountlist_iterator_init");
    frugal::assert_may_wait("mountlist_iterator_init");
    let new = Box::new(Walk { left: mounts().clone(), shown: None });
    // SAFETY: the caller's promise.
    unsafe { *walk = Box::into_raw(new).cast() };
}

/// mountlist_iterator_trynext(9): passes over those that are suspended.
///
/// # Safety
///
/// `walk` is an iterator.
#[unsafe(no_mangle)]
unsafe extern "C" fn mountlist_iterator_trynext(walk: *mut nb::mount_iterator_t) -> *mut nb::mount {
    // SAFETY: the caller's promise.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    let busy = |mount: &Arc<FileSystem>| mount.owner.load(Ordering::SeqCst) != 0;
    walk.shown = walk.left.iter().position(|mount| !busy(mount)).map(|at| walk.left.remove(at));
    walk.shown.as_ref().map_or(ptr::null_mut(), |mount| Arc::as_ptr(mount).cast_mut().cast())
}

/// mountlist_iterator_destroy(9)
///
/// # Safety
///
/// `walk` is an iterator, and not used again.
#[unsafe(no_mangle)]
unsafe extern "C" fn mountlist_iterator_destroy(walk: *mut nb::mount_iterator_t) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(walk.cast::<Walk>()) });
}

/// spec_node_getmountedfs(9): the file system that is mounted on a device's node.
///
/// # Safety
///
/// `vp` is referenced by the caller.
#[unsafe(no_mangle)]
unsafe extern "C" fn spec_node_getmountedfs(vp: *mut nb::vnode) -> *mut nb::mount {
    let dev = specfs::rdev(vp);
    let mounts = mounts();
    let found = mounts.iter().find(|mount| mount.dev == dev);
    found.map_or(ptr::null_mut(), |mount| Arc::as_ptr(mount).cast_mut().cast())
}

/// vfs_ref(9)
///
/// # Safety
///
/// The mount does not go meanwhile.
#[unsafe(no_mangle)]
unsafe extern "C" fn vfs_ref(mount: *mut nb::mount) {
    file_system(mount).references.fetch_add(1, Ordering::SeqCst);
}

/// vfs_rele(9)
///
/// # Safety
///
/// The caller has a reference, and no more.
#[unsafe(no_mangle)]
unsafe extern "C" fn vfs_rele(mount: *mut nb::mount) {
    let before = file_system(mount).references.fetch_sub(1, Ordering::SeqCst);
    kassert!(before != 0, "vfs_rele: a mount without references");
}

/// vfs_suspend(9): EWOULDBLOCK if another one is suspended and `nowait` is set.
///
/// # Safety
///
/// The mount does not go meanwhile.
#[unsafe(no_mangle)]
unsafe extern "C" fn vfs_suspend(mount: *mut nb::mount, nowait: c_int) -> c_int {
    let lwp = lwp::current();
    lwp.assert_sleepable("vfs_suspend");
    frugal::assert_may_wait("vfs_suspend");
    let file_system = file_system(mount);
    // SAFETY: the mutex is static.
    if nowait != 0 && unsafe { mutex_tryenter(SUSPENDING.0.get()) } == 0 {
        return Errno::EAGAIN.0;
    }
    if nowait == 0 {
        mutex::enter(SUSPENDING.0.get(), lwp);
    }
    let refused = file_system.refused.load(Ordering::SeqCst);
    let gone = file_system.gone.load(Ordering::SeqCst);
    if refused != 0 || gone {
        mutex::exit(SUSPENDING.0.get(), lwp);
        return if gone { Errno::ENOENT.0 } else { refused };
    }
    file_system.owner.store(lwp.addr(), Ordering::SeqCst);
    file_system.suspensions.fetch_add(1, Ordering::SeqCst);
    0
}

/// vfs_resume(9)
///
/// # Safety
///
/// The caller has suspended it.
#[unsafe(no_mangle)]
unsafe extern "C" fn vfs_resume(mount: *mut nb::mount) {
    let lwp = lwp::current();
    let owner = file_system(mount).owner.swap(0, Ordering::SeqCst);
    kassert!(owner == lwp.addr(), "vfs_resume: it was suspended by another lwp, or not at all");
    mutex::exit(SUSPENDING.0.get(), lwp);
}

/// vrele_flush(9): here vrele never defers work.
///
/// # Safety
///
/// The mount is suspended by the caller.
#[unsafe(no_mangle)]
unsafe extern "C" fn vrele_flush(mount: *mut nb::mount) {
    let owner = file_system(mount).owner.load(Ordering::SeqCst);
    kassert!(owner == lwp::current().addr(), "vrele_flush: the file system is not suspended");
}

/// VFS_SYNC(9)
///
/// # Safety
///
/// The caller has a reference.
#[unsafe(no_mangle)]
unsafe extern "C" fn VFS_SYNC(
    mount: *mut nb::mount,
    wait: c_int,
    _cred: nb::kauth_cred_t,
) -> c_int {
    kassert!(wait == nb::MNT_WAIT as c_int, "VFS_SYNC: only MNT_WAIT is known here");
    // SAFETY: the caller has a reference.
    let flags = unsafe { (*mount).mnt_flag };
    kassert!(flags & nb::MNT_RDONLY == 0, "VFS_SYNC: the file system is mounted read-only");
    kassert!(flags & nb::MNT_ASYNC == 0, "VFS_SYNC: writes would be delayed (MNT_ASYNC)");
    match (file_system(mount).sync)() {
        Ok(()) => 0,
        Err(error) => error.0,
    }
}
