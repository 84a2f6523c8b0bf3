// SPDX-License-Identifier: BSD-2-Clause

//! vnodes: their locks, references and devices.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use super::{Guard, Specfs, specfs};
use crate::console::{kassert, kpanic};
use crate::dev::{Dev, NODEV, major, minor};
use crate::devsw;
use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::lock;
use crate::lwp::{self, MAXCPUS};
use crate::mutex;
use crate::netbsd as nb;

pub(super) const VREG: nb::vtype = 1;
pub(crate) const VBLK: nb::vtype = 3;
pub(crate) const VCHR: nb::vtype = 4;

/// device_lock's and specfs_iocv's: a close has ended.
static CHANGED: Condvar = Condvar::new();
static UNLOCKED: Mutex<()> = Mutex::new(());
static UNLOCKED_CV: Condvar = Condvar::new();
static LOCK_WAITERS: AtomicU32 = AtomicU32::new(0);

/// A vnode. Its C structure comes first: a `struct vnode *` points to the whole.
#[repr(C)]
pub(super) struct Node {
    vnode: UnsafeCell<nb::vnode>,
    pub(super) spec: UnsafeCell<nb::specnode>,
    interlock: UnsafeCell<nb::kmutex_t>,
    dev: *const Device,
    pub(super) name: String,
    /// Lwp that holds the vnode lock, or 0.
    locked: AtomicU64,
    /// Revoked, or about to be: the driver is not called through it any more.
    dead: AtomicBool,
}

/// The state that all nodes of one device share: NetBSD's specdev.
pub(super) struct Device {
    pub(super) specdev: UnsafeCell<nb::specdev>,
    pub(super) key: (nb::vtype, Dev),
    /// Operations in flight, counted where they began: sd_iocnt, without a shared cache line.
    active: [Active; MAXCPUS],
    nodes: AtomicI32,
    /// Lwp that is in the driver's d_close, or 0.
    pub(super) closer: AtomicU64,
}

#[repr(align(64))]
struct Active(AtomicI64);

/// An operation in flight: the driver is called, or about to be.
pub(super) struct Operation<'n>(&'n AtomicI64);

impl Drop for Operation<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// A referenced vnode of a name.
pub(super) fn vget(specfs: &mut Specfs, name: String, kind: nb::vtype, dev: Dev) -> *mut nb::vnode {
    if let Some(node) = specfs.nodes.get(&name) {
        // SAFETY: nodes in the table live; the count belongs to the table's lock.
        unsafe { (*(**node).vnode.get()).v_usecount += 1 };
        return node.cast();
    }
    let device = *specfs.devices.entry((kind, dev)).or_insert_with(|| {
        Box::into_raw(Box::new(Device {
            // SAFETY: a specdev is integers and pointers, for which zeros are valid.
            specdev: UnsafeCell::new(unsafe { std::mem::zeroed() }),
            key: (kind, dev),
            active: [const { Active(AtomicI64::new(0)) }; MAXCPUS],
            nodes: AtomicI32::new(0),
            closer: AtomicU64::new(0),
        }))
    });
    // SAFETY: as above; the node is ours until it is in the table.
    unsafe {
        (*device).nodes.fetch_add(1, Ordering::Relaxed);
        let node = Box::into_raw(Box::new(Node {
            vnode: UnsafeCell::new(std::mem::zeroed()),
            spec: UnsafeCell::new(std::mem::zeroed()),
            interlock: UnsafeCell::new(mutex::static_adaptive()),
            dev: device,
            name: name.clone(),
            locked: AtomicU64::new(0),
            dead: AtomicBool::new(false),
        }));
        let vp = (*node).vnode.get();
        let sn = (*node).spec.get();
        (*sn).sn_dev = (*device).specdev.get();
        (*sn).sn_rdev = dev;
        (*vp).v_usecount = 1;
        (*vp).v_type = kind;
        (*vp).v_interlock = (*node).interlock.get();
        (*vp).v_un.vu_specnode = sn;
        crate::condvar::init_unlisted(&raw mut (*vp).v_cv, c"vnode".as_ptr());
        specfs.nodes.insert(name, node);
        node.cast()
    }
}

pub(super) fn node<'a>(vp: *mut nb::vnode) -> &'a Node {
    // SAFETY: every vnode here is a Node that its user has a reference to.
    unsafe { &*vp.cast::<Node>() }
}

impl Node {
    pub(super) fn vp(&self) -> *mut nb::vnode {
        self.vnode.get()
    }

    pub(super) fn kind(&self) -> nb::vtype {
        // SAFETY: set once, before the node was known to anybody.
        unsafe { (*self.vnode.get()).v_type }
    }

    #[inline(always)]
    pub(super) fn device(&self) -> &Device {
        // SAFETY: a device lives as long as its nodes.
        unsafe { &*self.dev }
    }

    pub(super) fn lock(&self) {
        let lwp = lwp::current();
        kassert!(
            self.locked.load(Ordering::Relaxed) != lwp.addr(),
            "vn_lock: {} is already locked by this lwp",
            self.name
        );
        lwp.assert_sleepable("vn_lock");
        let free = || {
            self.locked
                .compare_exchange(0, lwp.addr(), Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        };
        if free() {
            return;
        }
        let big = lock::release_all(lwp);
        LOCK_WAITERS.fetch_add(1, Ordering::SeqCst);
        let mut guard = UNLOCKED.lock().unwrap_or_else(|e| e.into_inner());
        while !free() {
            guard = UNLOCKED_CV.wait(guard).unwrap_or_else(|e| e.into_inner());
        }
        drop(guard);
        LOCK_WAITERS.fetch_sub(1, Ordering::SeqCst);
        lock::reacquire(big, lwp);
    }

    pub(super) fn unlock(&self) {
        self.assert_locked("VOP_UNLOCK");
        self.locked.store(0, Ordering::SeqCst);
        if LOCK_WAITERS.load(Ordering::SeqCst) != 0 {
            drop(UNLOCKED.lock().unwrap_or_else(|e| e.into_inner()));
            UNLOCKED_CV.notify_all();
        }
    }

    pub(super) fn assert_locked(&self, what: &str) {
        kassert!(
            self.locked.load(Ordering::Relaxed) == lwp::current().addr(),
            "{what}: {} is not locked by this lwp",
            self.name
        );
    }

    pub(super) fn assert_unlocked(&self, what: &str) {
        kassert!(
            self.locked.load(Ordering::Relaxed) != lwp::current().addr(),
            "{what}: {} is locked by this lwp",
            self.name
        );
    }

    pub(super) fn specdev(&self) -> *mut nb::specdev {
        self.device().specdev.get()
    }

    /// The functions with which the node's kind of device is called.
    #[inline(always)]
    pub(super) fn calls(&self) -> &'static devsw::Calls {
        if self.kind() == VBLK { &devsw::BLOCK_CALLS } else { &devsw::CHARACTER_CALLS }
    }

    /// The mode that its kind of device is opened and closed with.
    pub(super) fn mode(&self) -> c_int {
        if self.kind() == VBLK { nb::S_IFBLK } else { nb::S_IFCHR }
    }

    /// Begins an operation; `None` if the node was revoked. The thread that revokes it waits for operations that have
    /// begun.
    #[inline(always)]
    pub(super) fn io_enter(&self) -> Option<Operation<'_>> {
        let count = &self.device().active[lwp::current().cpu_index()].0;
        count.fetch_add(1, Ordering::SeqCst);
        let operation = Operation(count);
        (!self.is_dead()).then_some(operation)
    }

    /// Begins an operation on a node that the caller has open.
    #[inline(always)]
    pub(super) fn io_enter_open(&self, what: &str) -> Option<Operation<'_>> {
        let operation = self.io_enter()?;
        if self.opens().load(Ordering::Relaxed) == 0 && !self.is_dead() {
            self.not_open(what);
        }
        Some(operation)
    }

    /// sn_opencnt: the number of opens. Changed under the table's lock, and read without.
    pub(super) fn opens(&self) -> &AtomicU32 {
        // SAFETY: the count lives as long as the node, and is reached in no other way.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.spec.get()).sn_opencnt) }
    }

    #[cold]
    fn not_open(&self, what: &str) -> ! {
        kpanic!("{what}: {} is not open", self.name)
    }

    #[inline(always)]
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(super) fn set_dead(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    pub(super) fn drain(&self) {
        while self.device().active.iter().map(|a| a.0.load(Ordering::SeqCst)).sum::<i64>() != 0 {
            std::thread::yield_now();
        }
    }
}

/// Waits until no close of the device is in progress.
pub(super) fn wait_for_close(mut guard: Guard, n: &Node) -> Guard {
    // SAFETY: the mark belongs to the table's lock.
    while unsafe { (*n.specdev()).sd_closing } {
        kassert!(
            n.device().closer.load(Ordering::SeqCst) != lwp::current().addr(),
            "specfs: {} waits for its own close",
            n.name
        );
        guard = Guard(CHANGED.wait(guard.0).unwrap_or_else(|e| e.into_inner()));
    }
    guard
}

/// Says that a close has ended; with the table's lock held.
pub(super) fn close_has_ended() {
    CHANGED.notify_all();
}

/// VOP_LOCK(9)
///
/// # Safety
///
/// As VOP_OPEN; not locked.
#[unsafe(no_mangle)]
unsafe extern "C" fn VOP_LOCK(vp: *mut nb::vnode, _flags: c_int) -> c_int {
    node(vp).lock();
    0
}

/// VOP_UNLOCK(9)
///
/// # Safety
///
/// As VOP_OPEN; locked.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn VOP_UNLOCK(vp: *mut nb::vnode) -> c_int {
    node(vp).unlock();
    0
}

/// VOP_ISLOCKED(9)
///
/// # Safety
///
/// As VOP_OPEN.
#[unsafe(no_mangle)]
unsafe extern "C" fn VOP_ISLOCKED(vp: *mut nb::vnode) -> c_int {
    match node(vp).locked.load(Ordering::Relaxed) {
        0 => 0,
        owner if owner == lwp::current().addr() => nb::LK_EXCLUSIVE,
        // LK_EXCLOTHER
        _ => 0x10,
    }
}

/// vn_lock(9). LK_SHARED is taken as LK_EXCLUSIVE; LK_NOWAIT gives EBUSY. Without LK_RETRY a
/// revoked node gives ENOENT.
///
/// # Safety
///
/// As VOP_LOCK.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn vn_lock(vp: *mut nb::vnode, flags: c_int) -> c_int {
    let n = node(vp);
    if flags & nb::LK_NOWAIT != 0 && n.locked.load(Ordering::Relaxed) != 0 {
        return Errno::EBUSY.0;
    }
    n.lock();
    if flags & nb::LK_RETRY == 0 && n.is_dead() {
        n.unlock();
        return Errno::ENOENT.0;
    }
    0
}

/// vdead_check(9): ENOENT for a revoked node, which here is dead at once.
///
/// # Safety
///
/// `vp` is referenced, and its interlock held.
#[unsafe(no_mangle)]
unsafe extern "C" fn vdead_check(vp: *mut nb::vnode, _flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    kassert!(unsafe { mutex::owned((*vp).v_interlock) }, "vdead_check: no interlock");
    if node(vp).is_dead() { Errno::ENOENT.0 } else { 0 }
}

/// vref(9)
///
/// # Safety
///
/// `vp` is referenced.
#[unsafe(no_mangle)]
unsafe extern "C" fn vref(vp: *mut nb::vnode) {
    let _guard = specfs();
    // SAFETY: the caller's promise; the count belongs to the table's lock.
    unsafe {
        kassert!((*vp).v_usecount > 0, "vref: {} has no references", node(vp).name);
        (*vp).v_usecount += 1;
    }
}

/// vrele(9)
///
/// # Safety
///
/// `vp` is referenced and not locked by the caller.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn vrele(vp: *mut nb::vnode) {
    let n = node(vp);
    n.assert_unlocked("vrele");
    let mut guard = specfs();
    // SAFETY: the caller's promise; with the last reference gone the node is nobody's.
    unsafe {
        kassert!((*vp).v_usecount > 0, "vrele: {} has no references", n.name);
        (*vp).v_usecount -= 1;
        if (*vp).v_usecount > 0 {
            return;
        }
        kassert!(n.opens().load(Ordering::Relaxed) == 0, "vrele: {} is still open", n.name);
        kassert!(
            (*vp).v_writecount == 0,
            "vrele: v_writecount of {} is {}",
            n.name,
            (*vp).v_writecount
        );
        kassert!((*vp).v_numoutput == 0, "vrele: writes to {} are under way", n.name);
        if n.is_dead() {
            guard.dead.retain(|dead| !std::ptr::eq(*dead, n));
        } else {
            guard.nodes.remove(&n.name);
        }
        let device = n.dev.cast_mut();
        if (*device).nodes.fetch_sub(1, Ordering::Relaxed) == 1 {
            guard.devices.remove(&(*device).key);
            drop(Box::from_raw(device));
        }
        mutex::destroy_unlisted((*vp).v_interlock);
        drop(Box::from_raw(vp.cast::<Node>()));
    }
}

/// vfinddev(9): a vnode of a device that has one, referenced. 0 if it has none.
///
/// # Safety
///
/// `vpp` receives the vnode.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn vfinddev(
    dev: Dev,
    kind: nb::vtype,
    vpp: *mut *mut nb::vnode,
) -> c_int {
    lwp::current().assert_sleepable("vfinddev");
    let mut guard = specfs();
    // SAFETY: nodes in the table live.
    let is_it = |node: &*mut Node| unsafe { (**node).device().key == (kind, dev) };
    let Some(found) = guard.nodes.values().copied().find(is_it) else { return 0 };
    // SAFETY: as above, and the name is copied before the table is changed.
    let name = unsafe { (*found).name.clone() };
    // SAFETY: the caller's promise.
    unsafe { *vpp = vget(&mut guard, name, kind, dev) };
    1
}

/// vput(9)
///
/// # Safety
///
/// `vp` is referenced and locked by the caller.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn vput(vp: *mut nb::vnode) {
    node(vp).unlock();
    // SAFETY: the caller's promise.
    unsafe { vrele(vp) };
}

/// bdevvp(9): a vnode of a block device, by number.
///
/// # Safety
///
/// `vpp` receives the vnode.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn bdevvp(dev: Dev, vpp: *mut *mut nb::vnode) -> c_int {
    lwp::current().assert_sleepable("bdevvp");
    crate::frugal::assert_may_wait("bdevvp");
    if let Err(e) = fault::check(Site::Bdevvp, Errno::ENOMEM) {
        return e.0;
    }
    let made = make_node(VBLK, dev);
    // SAFETY: the caller's promise.
    unsafe { *vpp = made };
    if made.is_null() { Errno::ENXIO.0 } else { 0 }
}

fn make_node(kind: nb::vtype, dev: Dev) -> *mut nb::vnode {
    if dev == NODEV {
        return std::ptr::null_mut();
    }
    // Every bdevvp makes a node of its own.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let letter = if kind == VBLK { "block" } else { "character" };
    let name = format!("{letter} device {},{} (node {number})", major(dev), minor(dev));
    vget(&mut specfs(), name, kind, dev)
}

/// A referenced vnode of a device number.
pub(crate) fn vnode_of(block: bool, dev: Dev) -> Result<*mut nb::vnode, Errno> {
    let vp = make_node(if block { VBLK } else { VCHR }, dev);
    if vp.is_null() { Err(Errno::ENXIO) } else { Ok(vp) }
}

/// `Some(true)` for a block device's vnode, `Some(false)` for a character device's, else `None`.
pub(crate) fn is_block(vp: *mut nb::vnode) -> Option<bool> {
    match node(vp).kind() {
        VBLK => Some(true),
        VCHR => Some(false),
        _ => None,
    }
}

/// The device of a vnode.
pub(crate) fn rdev(vp: *mut nb::vnode) -> Dev {
    node(vp).device().key.1
}
