//! vnode(9), vnodeops(9), namei(9) for device nodes: what miscfs/specfs does, over a name space of
//! its own.
//!
//! The rules are specfs's: a block device is open once at most, through whatever node (EBUSY,
//! also while it is being closed or is mounted); character devices as often as anyone likes, and
//! the driver's d_close comes at the last close; the vnode lock is given up around d_open and
//! d_close. Simpler than NetBSD: a shared vnode lock is an exclusive one, nodes are never revoked,
//! there is no buffer cache to flush. Stricter: the lock's state is checked at every operation,
//! and a vnode given back while open stops the machine.

use std::cell::UnsafeCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::buf::{B_READ, biodone};
use crate::console::{kassert, kpanic};
use crate::devsw;
use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::lock;
use crate::lwp::{self, MAXCPUS};
use crate::mutex;
use crate::netbsd as nb;
use crate::{Dev, NODEV};

const VREG: nb::vtype = 1;
const VBLK: nb::vtype = 3;
const VCHR: nb::vtype = 4;
const FNONBLOCK: c_int = 4;

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    Block(Dev),
    Character(Dev),
    /// Something that is no device.
    Regular,
    Link(String),
}

/// A vnode. The C structure comes first: a `struct vnode *` is a pointer to this.
#[repr(C)]
struct Node {
    vnode: UnsafeCell<nb::vnode>,
    spec: UnsafeCell<nb::specnode>,
    interlock: UnsafeCell<nb::kmutex_t>,
    dev: *const Device,
    name: String,
    /// Lwp that holds the vnode lock, or 0.
    locked: AtomicU64,
}

/// What all nodes of one device share: NetBSD's specdev.
struct Device {
    specdev: UnsafeCell<nb::specdev>,
    key: (nb::vtype, Dev),
    /// Operations under way, counted where they began: sd_iocnt, without the shared line.
    active: [Active; MAXCPUS],
    nodes: AtomicI32,
}

#[repr(align(64))]
struct Active(AtomicI64);

struct Specfs {
    names: BTreeMap<String, Entry>,
    nodes: HashMap<String, *mut Node>,
    devices: HashMap<(nb::vtype, Dev), *mut Device>,
}

// SAFETY: nodes and devices in the tables live; they are used under the lock or by reference.
unsafe impl Send for Specfs {}

static SPECFS: Mutex<Option<Specfs>> = Mutex::new(None);
/// device_lock and specfs_iocv.
static CHANGED: Condvar = Condvar::new();
static UNLOCKED: Mutex<()> = Mutex::new(());
static UNLOCKED_CV: Condvar = Condvar::new();
static LOCK_WAITERS: AtomicU32 = AtomicU32::new(0);

struct Guard(MutexGuard<'static, Option<Specfs>>);

impl std::ops::Deref for Guard {
    type Target = Specfs;
    fn deref(&self) -> &Specfs {
        match self.0.as_ref() {
            Some(specfs) => specfs,
            None => kpanic!("specfs: the machine is down"),
        }
    }
}

impl std::ops::DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut Specfs {
        match self.0.as_mut() {
            Some(specfs) => specfs,
            None => kpanic!("specfs: the machine is down"),
        }
    }
}

fn specfs() -> Guard {
    Guard(SPECFS.lock().unwrap_or_else(|e| e.into_inner()))
}

pub(crate) fn start() {
    *SPECFS.lock().unwrap_or_else(|e| e.into_inner()) =
        Some(Specfs { names: BTreeMap::new(), nodes: HashMap::new(), devices: HashMap::new() });
}

/// Ends the name space; says which vnodes are still referenced or open.
pub(crate) fn stop() -> Vec<String> {
    let Some(specfs) = SPECFS.lock().unwrap_or_else(|e| e.into_inner()).take() else {
        return Vec::new();
    };
    let mut left = Vec::new();
    for node in specfs.nodes.into_values() {
        // SAFETY: nodes in the table live.
        unsafe {
            left.push(format!(
                "vnode of {} has {} references and is open {} times",
                (*node).name,
                (*(*node).vnode.get()).v_usecount,
                (*(*node).spec.get()).sn_opencnt
            ));
        }
    }
    left
}

fn canonical(path: &str) -> String {
    let mut out = String::new();
    for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
        out.push('/');
        out.push_str(part);
    }
    out
}

pub(crate) fn add_name(path: &str, entry: Entry) -> Result<(), Errno> {
    let mut specfs = specfs();
    let path = canonical(path);
    if specfs.names.contains_key(&path) {
        return Err(Errno::EEXIST);
    }
    specfs.names.insert(path, entry);
    Ok(())
}

pub(crate) fn remove_name(path: &str) -> Result<(), Errno> {
    specfs().names.remove(&canonical(path)).map(|_| ()).ok_or(Errno::ENOENT)
}

/// Names below a directory, sorted, with what they stand for.
pub(crate) fn names() -> Vec<(String, Entry)> {
    specfs().names.iter().map(|(name, entry)| (name.clone(), entry.clone())).collect()
}

pub(crate) fn lookup(path: &str) -> Result<(String, Entry), Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    if path.len() >= nb::MAXPATHLEN as usize || path.split('/').any(|part| part.len() > 255) {
        return Err(Errno::ENAMETOOLONG);
    }
    let specfs = specfs();
    let mut path = canonical(path);
    for _ in 0..32 {
        match specfs.names.get(&path) {
            Some(Entry::Link(to)) => path = canonical(to),
            Some(entry) => return Ok((path, entry.clone())),
            None => {
                let mut at = path.as_str();
                while let Some((parent, _)) = at.rsplit_once('/') {
                    if specfs.names.contains_key(parent) {
                        return Err(Errno::ENOTDIR);
                    }
                    at = parent;
                }
                return Err(Errno::ENOENT);
            }
        }
    }
    Err(Errno::ELOOP)
}

/// A referenced vnode of a name.
fn vget(specfs: &mut Specfs, name: String, kind: nb::vtype, dev: Dev) -> *mut Node {
    if let Some(node) = specfs.nodes.get(&name) {
        // SAFETY: nodes in the table live; the count belongs to the table's lock.
        unsafe { (*(**node).vnode.get()).v_usecount += 1 };
        return *node;
    }
    let device = *specfs.devices.entry((kind, dev)).or_insert_with(|| {
        Box::into_raw(Box::new(Device {
            // SAFETY: a specdev is integers and pointers, for which zeros are valid.
            specdev: UnsafeCell::new(unsafe { std::mem::zeroed() }),
            key: (kind, dev),
            active: [const { Active(AtomicI64::new(0)) }; MAXCPUS],
            nodes: AtomicI32::new(0),
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
        node
    }
}

fn node<'a>(vp: *mut nb::vnode) -> &'a Node {
    // SAFETY: every vnode here is a Node that its user has a reference to.
    unsafe { &*vp.cast::<Node>() }
}

impl Node {
    fn vp(&self) -> *mut nb::vnode {
        self.vnode.get()
    }

    fn kind(&self) -> nb::vtype {
        // SAFETY: set once, before the node was known to anybody.
        unsafe { (*self.vnode.get()).v_type }
    }

    #[inline(always)]
    fn device(&self) -> &Device {
        // SAFETY: a device lives as long as its nodes.
        unsafe { &*self.dev }
    }

    fn lock(&self) {
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

    fn unlock(&self) {
        self.assert_locked("VOP_UNLOCK");
        self.locked.store(0, Ordering::SeqCst);
        if LOCK_WAITERS.load(Ordering::SeqCst) != 0 {
            drop(UNLOCKED.lock().unwrap_or_else(|e| e.into_inner()));
            UNLOCKED_CV.notify_all();
        }
    }

    fn assert_locked(&self, what: &str) {
        kassert!(
            self.locked.load(Ordering::Relaxed) == lwp::current().addr(),
            "{what}: {} is not locked by this lwp",
            self.name
        );
    }

    fn assert_unlocked(&self, what: &str) {
        kassert!(
            self.locked.load(Ordering::Relaxed) != lwp::current().addr(),
            "{what}: {} is locked by this lwp",
            self.name
        );
    }

    #[inline(always)]
    fn io_enter(&self) -> &AtomicI64 {
        let count = &self.device().active[lwp::current().cpu_index()].0;
        count.fetch_add(1, Ordering::Relaxed);
        count
    }

    fn drain(&self) {
        while self.device().active.iter().map(|a| a.0.load(Ordering::SeqCst)).sum::<i64>() != 0 {
            std::thread::yield_now();
        }
    }
}

fn fakeopen_flags(flags: c_int) -> c_int {
    flags & (nb::FREAD | nb::FWRITE | FNONBLOCK)
}

/// VOP_OPEN(9) of a device node.
///
/// # Safety
///
/// `vp` is a locked vnode of this file; so for the other operations, locked or not as they say.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn VOP_OPEN(
    vp: *mut nb::vnode,
    mode: c_int,
    _cred: nb::kauth_cred_t,
) -> c_int {
    let n = node(vp);
    n.assert_locked("VOP_OPEN");
    if let Err(e) = fault::check(Site::Open, Errno::EIO) {
        return e.0;
    }
    let (sn, sd) = (n.spec.get(), n.device().specdev.get());
    let dev = n.device().key.1;
    let lwp = lwp::current();
    // SAFETY: the counts belong to the table's lock.
    unsafe {
        let mut guard = specfs();
        if n.kind() == VBLK {
            if (*sd).sd_opencnt != 0 || !(*sd).sd_mountpoint.is_null() || (*sd).sd_closing {
                return Errno::EBUSY.0;
            }
            (*sd).sd_opencnt = 1;
            (*sn).sn_opencnt = 1;
            (*sd).sd_bdevvp = vp;
        } else {
            loop {
                let closing = (*sd).sd_closing;
                if !closing {
                    break;
                }
                guard = Guard(CHANGED.wait(guard.0).unwrap_or_else(|e| e.into_inner()));
            }
            (*sd).sd_opencnt += 1;
            (*sn).sn_opencnt += 1;
        }
        drop(guard);
        n.unlock();
        let active = n.io_enter();
        let l = lwp.addr() as *mut nb::lwp;
        let error = if n.kind() == VBLK {
            devsw::bdev_open(dev, fakeopen_flags(mode), nb::S_IFBLK, l)
        } else {
            devsw::cdev_open(dev, fakeopen_flags(mode), nb::S_IFCHR, l)
        };
        active.fetch_sub(1, Ordering::Release);
        n.lock();
        let mut needclose = false;
        {
            let _guard = specfs();
            if error == 0 {
                (*sd).sd_opened = true;
            } else if (*sd).sd_opencnt == 1 && (*sd).sd_opened {
                // Others opened and closed it meanwhile, and left the driver's close to us.
                needclose = true;
            } else {
                (*sd).sd_opencnt -= 1;
                (*sn).sn_opencnt -= 1;
                if n.kind() == VBLK {
                    (*sd).sd_bdevvp = ptr::null_mut();
                }
            }
        }
        if needclose {
            VOP_CLOSE(vp, FNONBLOCK, ptr::null_mut());
        }
        if error == 0 {
            set_size(n, dev, l);
        }
        error
    }
}

/// Gives a disk's node the size of the disk, as spec_open does.
unsafe fn set_size(n: &Node, dev: Dev, l: *mut nb::lwp) {
    let block = n.kind() == VBLK;
    let kind = if block { devsw::bdev_type(dev) } else { devsw::cdev_type(dev) };
    if kind != nb::D_DISK {
        return;
    }
    let ioctl = |cmd: nb::u_long, data: *mut c_void| {
        if block {
            devsw::bdev_ioctl(dev, cmd, data, nb::FREAD, l)
        } else {
            devsw::cdev_ioctl(dev, cmd, data, nb::FREAD, l)
        }
    };
    // SAFETY: the commands fill structures of these types.
    unsafe {
        let mut pi: nb::partinfo = std::mem::zeroed();
        let mut size: i64 = 0;
        let mut error = ioctl(nb::DIOCGPARTINFO as nb::u_long, (&raw mut pi).cast());
        if error == 0 {
            size = (pi.pi_size as i64).wrapping_mul(i64::from(pi.pi_secsize));
        } else if error == Errno::ENOTTY.0 {
            error = ioctl(nb::DIOCGMEDIASIZE as nb::u_long, (&raw mut size).cast());
        }
        if error == 0 {
            (*n.vp()).v_size = size;
            (*n.vp()).v_writesize = size;
        }
    }
}

/// VOP_CLOSE(9)
///
/// # Safety
///
/// As VOP_OPEN; locked.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn VOP_CLOSE(
    vp: *mut nb::vnode,
    flags: c_int,
    _cred: nb::kauth_cred_t,
) -> c_int {
    let n = node(vp);
    n.assert_locked("VOP_CLOSE");
    let (sn, sd) = (n.spec.get(), n.device().specdev.get());
    let dev = n.device().key.1;
    // SAFETY: the counts belong to the table's lock.
    unsafe {
        {
            let _guard = specfs();
            kassert!((*sn).sn_opencnt > 0, "VOP_CLOSE: {} is not open", n.name);
            (*sn).sn_opencnt -= 1;
            (*sd).sd_opencnt -= 1;
            if n.kind() == VBLK {
                (*sd).sd_bdevvp = ptr::null_mut();
            }
            if (*sd).sd_opencnt != 0 {
                return 0;
            }
            (*sd).sd_opened = false;
            (*sd).sd_closing = true;
        }
        let unlock = flags & FNONBLOCK == 0;
        if unlock {
            n.unlock();
        }
        let l = lwp::current().addr() as *mut nb::lwp;
        let block = n.kind() == VBLK;
        let mode = if block { nb::S_IFBLK } else { nb::S_IFCHR };
        let cancelled = if block {
            devsw::bdev_cancel(dev, flags, mode, l)
        } else {
            devsw::cdev_cancel(dev, flags, mode, l)
        };
        if cancelled == 0 {
            n.drain();
        }
        let error = if block {
            devsw::bdev_close(dev, flags, mode, l)
        } else {
            devsw::cdev_close(dev, flags, mode, l)
        };
        n.drain();
        {
            let _guard = specfs();
            (*sd).sd_closing = false;
            CHANGED.notify_all();
        }
        if unlock {
            n.lock();
        }
        error
    }
}

/// VOP_IOCTL(9): the vnode is not locked.
///
/// # Safety
///
/// As VOP_OPEN; `data` is what the command takes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn VOP_IOCTL(
    vp: *mut nb::vnode,
    cmd: nb::u_long,
    data: *mut c_void,
    flag: c_int,
    _cred: nb::kauth_cred_t,
) -> c_int {
    let n = node(vp);
    n.assert_unlocked("VOP_IOCTL");
    if let Err(e) = fault::check(Site::Ioctl, Errno::EIO) {
        return e.0;
    }
    n.assert_open("VOP_IOCTL");
    let dev = n.device().key.1;
    let l = lwp::current().addr() as *mut nb::lwp;
    let active = n.io_enter();
    let error = if n.kind() == VBLK {
        devsw::bdev_ioctl(dev, cmd, data, flag, l)
    } else {
        devsw::cdev_ioctl(dev, cmd, data, flag, l)
    };
    active.fetch_sub(1, Ordering::Release);
    error
}

impl Node {
    #[inline(always)]
    fn assert_open(&self, what: &str) {
        // SAFETY: a racy read is good enough for a check of the caller.
        let open = unsafe { (*self.spec.get()).sn_opencnt };
        kassert!(open > 0, "{what}: {} is not open", self.name);
    }
}

/// VOP_STRATEGY(9)
///
/// # Safety
///
/// As VOP_OPEN; `bp` is a buffer ready for I/O.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn VOP_STRATEGY(vp: *mut nb::vnode, bp: *mut nb::buf) -> c_int {
    let n = node(vp);
    // SAFETY: the caller's promise.
    unsafe {
        n.assert_open("VOP_STRATEGY");
        (*bp).b_dev = n.device().key.1;
        if (*bp).b_flags & B_READ == 0 && !(*bp).b_vp.is_null() {
            kassert!(
                (*(*bp).b_vp).v_numoutput > 0,
                "VOP_STRATEGY: a write of {} that v_numoutput does not count",
                n.name
            );
        }
        let active = n.io_enter();
        devsw::bdev_strategy(bp);
        active.fetch_sub(1, Ordering::Release);
    }
    0
}

/// VOP_FDISCARD(9): the vnode is locked.
///
/// # Safety
///
/// As VOP_OPEN.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn VOP_FDISCARD(
    vp: *mut nb::vnode,
    pos: nb::__off_t,
    len: nb::__off_t,
) -> c_int {
    let n = node(vp);
    n.assert_locked("VOP_FDISCARD");
    n.assert_open("VOP_FDISCARD");
    let dev = n.device().key.1;
    if n.kind() == VBLK {
        devsw::bdev_discard(dev, pos, len)
    } else {
        devsw::cdev_discard(dev, pos, len)
    }
}

/// VOP_READ(9) of a character node: locked in NetBSD only while the operation is entered.
///
/// # Safety
///
/// As VOP_OPEN; `uio` is a transfer.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn VOP_READ(
    vp: *mut nb::vnode,
    uio: *mut nb::uio,
    flag: c_int,
    _cred: nb::kauth_cred_t,
) -> c_int {
    let n = node(vp);
    kassert!(n.kind() == VCHR, "VOP_READ: {} is no character device", n.name);
    let active = n.io_enter();
    let error = devsw::cdev_read(n.device().key.1, uio, flag);
    active.fetch_sub(1, Ordering::Release);
    error
}

/// VOP_WRITE(9) of a character node.
///
/// # Safety
///
/// As VOP_READ.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn VOP_WRITE(
    vp: *mut nb::vnode,
    uio: *mut nb::uio,
    flag: c_int,
    _cred: nb::kauth_cred_t,
) -> c_int {
    let n = node(vp);
    kassert!(n.kind() == VCHR, "VOP_WRITE: {} is no character device", n.name);
    let active = n.io_enter();
    let error = devsw::cdev_write(n.device().key.1, uio, flag);
    active.fetch_sub(1, Ordering::Release);
    error
}

/// VOP_FSYNC(9): there is no cache to write back.
#[unsafe(no_mangle)]
extern "C" fn VOP_FSYNC(
    _vp: *mut nb::vnode,
    _cred: nb::kauth_cred_t,
    _flag: c_int,
    _lo: nb::__off_t,
    _hi: nb::__off_t,
) -> c_int {
    0
}

/// VOP_GETATTR(9): the type, the device number and the size.
///
/// # Safety
///
/// As VOP_OPEN; `va` points to a vattr.
#[unsafe(no_mangle)]
unsafe extern "C" fn VOP_GETATTR(
    vp: *mut nb::vnode,
    va: *mut nb::vattr,
    _cred: nb::kauth_cred_t,
) -> c_int {
    let n = node(vp);
    // SAFETY: the caller's promise; zeros are valid.
    unsafe {
        *va = std::mem::zeroed();
        (*va).va_type = n.kind();
        (*va).va_rdev = n.device().key.1;
        (*va).va_size = (*vp).v_size as nb::u_quad_t;
        (*va).va_mode = 0o640;
    }
    0
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

/// vn_lock(9). LK_SHARED is taken as LK_EXCLUSIVE; LK_NOWAIT gives EBUSY.
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
    0
}

/// vn_close(9): closes, and gives up the reference.
///
/// # Safety
///
/// `vp` is open, referenced and not locked.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn vn_close(
    vp: *mut nb::vnode,
    flags: c_int,
    cred: nb::kauth_cred_t,
) -> c_int {
    let n = node(vp);
    n.lock();
    // SAFETY: the caller's promise; the count belongs to the interlock.
    unsafe {
        if flags & nb::FWRITE != 0 {
            let lwp = lwp::current();
            mutex::enter((*vp).v_interlock, lwp);
            kassert!((*vp).v_writecount > 0, "vn_close: v_writecount of {} below 0", n.name);
            (*vp).v_writecount -= 1;
            mutex::exit((*vp).v_interlock, lwp);
        }
        let error = VOP_CLOSE(vp, flags, cred);
        vput(vp);
        error
    }
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
        kassert!((*n.spec.get()).sn_opencnt == 0, "vrele: {} is still open", n.name);
        kassert!(
            (*vp).v_writecount == 0,
            "vrele: v_writecount of {} is {}",
            n.name,
            (*vp).v_writecount
        );
        kassert!((*vp).v_numoutput == 0, "vrele: writes to {} are under way", n.name);
        guard.nodes.remove(&n.name);
        let device = n.dev.cast_mut();
        if (*device).nodes.fetch_sub(1, Ordering::Relaxed) == 1 {
            guard.devices.remove(&(*device).key);
            drop(Box::from_raw(device));
        }
        mutex::destroy_unlisted((*vp).v_interlock);
        drop(Box::from_raw(vp.cast::<Node>()));
    }
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
        return ptr::null_mut();
    }
    // Every bdevvp makes a node of its own.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let letter = if kind == VBLK { "block" } else { "character" };
    let name =
        format!("{letter} device {},{} (node {number})", crate::major(dev), crate::minor(dev));
    node(vget(&mut specfs(), name, kind, dev).cast()).vp()
}

/// A referenced vnode of a device number.
pub(crate) fn vnode_of(block: bool, dev: Dev) -> Result<*mut nb::vnode, Errno> {
    let vp = make_node(if block { VBLK } else { VCHR }, dev);
    if vp.is_null() { Err(Errno::ENXIO) } else { Ok(vp) }
}

/// A referenced vnode of a path.
pub(crate) fn namei(path: &str) -> Result<*mut nb::vnode, Errno> {
    let (name, entry) = lookup(path)?;
    let (kind, dev) = match entry {
        Entry::Block(dev) => (VBLK, dev),
        Entry::Character(dev) => (VCHR, dev),
        Entry::Regular | Entry::Link(_) => (VREG, NODEV),
    };
    Ok(node(vget(&mut specfs(), name, kind, dev).cast()).vp())
}

/// Is the vnode a block device's? A character device's? Neither?
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

/// Marks a block device as mounted, or not: then it cannot be opened.
pub(crate) fn set_mounted(dev: Dev, mounted: bool) -> Result<(), Errno> {
    let specfs = specfs();
    let device = specfs.devices.get(&(VBLK, dev)).ok_or(Errno::ENXIO)?;
    let mark = if mounted { ptr::dangling_mut() } else { ptr::null_mut() };
    // SAFETY: devices in the table live; the field belongs to its lock.
    unsafe { (*(**device).specdev.get()).sd_mountpoint = mark };
    Ok(())
}

/// How often the device is open, over all its nodes: (block, character).
pub(crate) fn opens(block: Dev, character: Dev) -> (u32, u32) {
    let specfs = specfs();
    let count = |key| {
        // SAFETY: devices in the table live; the count belongs to its lock.
        specfs.devices.get(&key).map_or(0, |d| unsafe { (*(**d).specdev.get()).sd_opencnt })
    };
    (count((VBLK, block)), count((VCHR, character)))
}

/// namei_simple_kernel(9)
///
/// # Safety
///
/// `path` is a string; `vpp` receives the vnode.
#[unsafe(no_mangle)]
unsafe extern "C" fn namei_simple_kernel(
    path: *const c_char,
    _flags: nb::namei_simple_flags_t,
    vpp: *mut *mut nb::vnode,
) -> c_int {
    lwp::current().assert_sleepable("namei");
    if let Err(e) = fault::check(Site::Namei, Errno::ENOENT) {
        return e.0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        match namei(&CStr::from_ptr(path).to_string_lossy()) {
            Ok(vp) => {
                *vpp = vp;
                0
            }
            Err(e) => e.0,
        }
    }
}

macro_rules! simple_flags {
    ($($name:ident),*) => { $(
        /// A way to look names up; the hosted kernel has only one.
        #[unsafe(no_mangle)]
        static $name: usize = 0;
    )* };
}

simple_flags!(
    NSM_NOFOLLOW_NOEMULROOT,
    NSM_NOFOLLOW_TRYEMULROOT,
    NSM_FOLLOW_NOEMULROOT,
    NSM_FOLLOW_TRYEMULROOT
);

/// bdev_strategy of a device that may be gone, for the hosted kernel's own users.
pub(crate) unsafe fn fail(bp: *mut nb::buf, error: Errno) {
    // SAFETY: the caller's buffer.
    unsafe {
        (*bp).b_error = error.0;
        (*bp).b_resid = (*bp).b_bcount;
        biodone(bp);
    }
}
