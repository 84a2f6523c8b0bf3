// SPDX-License-Identifier: BSD-2-Clause

//! A stand-in for C: the kernel's functions that a table and its I/O need, in Rust, since Miri does
//! not run C. Each does the least that its manual page says, and keeps the addresses that the
//! kernel would keep, so that Miri sees what becomes of them.
//!
//! Locks and sleeps spin, giving way; a disk is a number of bytes, with a thread of its own that
//! completes what is sent to it.

use std::alloc::Layout;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::netbsd::sys;

/// An I/O that is sent to the driver: a buffer, and whether it is done.
#[repr(C)]
pub struct TestIo {
    pub buf: sys::buf,
    pub done: AtomicBool,
}

/// `true` for as long as the pools are empty.
pub static NO_MEMORY: AtomicBool = AtomicBool::new(false);

/// `true` if disks complete in the thread that sends, `false` if in their own.
pub static AT_ONCE: AtomicBool = AtomicBool::new(false);

/// Bytes of each disk.
pub const DISK: usize = 64 * 512;

struct Address<T>(*mut T);

// SAFETY: what is behind these addresses has locks, or is one thread's at a time.
unsafe impl<T> Send for Address<T> {}

/// The stand-in's own data.
#[derive(Default)]
struct Kernel {
    /// Buffers that were sent to a disk, and the disk's number.
    queue: VecDeque<(u32, Address<sys::buf>)>,
    disks: BTreeMap<u32, Vec<u8>>,
    attached: BTreeMap<c_int, Address<sys::device>>,
    /// All attached disk(9)s, by the address that disk_attach was given.
    list: Vec<Address<sys::disk>>,
}

static KERNEL: Mutex<Option<Kernel>> = Mutex::new(None);
static DISK_ENDS: AtomicBool = AtomicBool::new(false);

fn kernel<R>(f: impl FnOnce(&mut Kernel) -> R) -> R {
    f(KERNEL.lock().unwrap().get_or_insert_default())
}

/// Runs `f` beside a thread that completes what disks are sent.
pub fn with_disks(f: impl FnOnce()) {
    DISK_ENDS.store(false, Ordering::SeqCst);
    let disk = thread::spawn(|| {
        while !DISK_ENDS.load(Ordering::SeqCst) {
            match kernel(|kernel| kernel.queue.pop_front()) {
                Some((disk, buf)) => transfer(disk, buf.0),
                None => thread::yield_now(),
            }
        }
    });
    f();
    DISK_ENDS.store(true, Ordering::SeqCst);
    disk.join().unwrap();
    *KERNEL.lock().unwrap() = None;
}

fn transfer(disk: u32, buf: *mut sys::buf) {
    // SAFETY: the buffer is the disk's until it is done.
    unsafe {
        let (at, length) = ((*buf).b_blkno as usize * 512, (*buf).b_bcount as usize);
        let data: *mut u8 = (*buf).b_data.cast();
        let read = (*buf).b_flags & sys::B_READ as u32 != 0;
        kernel(|kernel| {
            let bytes = kernel.disks.entry(disk).or_insert_with(|| vec![0; DISK]);
            let bytes = &mut bytes[at..at + length];
            match read {
                true => ptr::copy_nonoverlapping(bytes.as_ptr(), data, length),
                false => ptr::copy_nonoverlapping(data, bytes.as_mut_ptr(), length),
            }
        });
        (*buf).b_resid = 0;
        biodone(buf);
    }
}

// mutex(9): one word, 0 if it is free.

unsafe fn word<'a>(mutex: *mut sys::kmutex_t) -> &'a AtomicUsize {
    // SAFETY: a kmutex_t begins with a word, and the callers keep it alive.
    unsafe { AtomicUsize::from_ptr(mutex.cast()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dm_shim_mutex_init(mutex: *mut sys::kmutex_t) {
    // SAFETY: the caller's promise.
    unsafe { mutex.cast::<usize>().write(0) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dm_shim_mutex_init_bio(mutex: *mut sys::kmutex_t) {
    // SAFETY: the caller's promise.
    unsafe { dm_shim_mutex_init(mutex) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_enter(mutex: *mut sys::kmutex_t) {
    // SAFETY: the caller's promise.
    while unsafe { word(mutex) }.swap(1, Ordering::Acquire) != 0 {
        thread::yield_now();
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_exit(mutex: *mut sys::kmutex_t) {
    // SAFETY: the caller's promise.
    unsafe { word(mutex) }.store(0, Ordering::Release);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_spin_enter(mutex: *mut sys::kmutex_t) {
    // SAFETY: the caller's promise.
    unsafe { mutex_enter(mutex) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_spin_exit(mutex: *mut sys::kmutex_t) {
    // SAFETY: the caller's promise.
    unsafe { mutex_exit(mutex) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mutex_destroy(mutex: *mut sys::kmutex_t) {
    // SAFETY: nobody has it any more (caller).
    assert_eq!(unsafe { mutex.cast::<usize>().read() }, 0, "a mutex is destroyed while it is held");
}

// condvar(9): one word, which counts broadcasts.

unsafe fn broadcasts<'a>(cv: *mut sys::kcondvar_t) -> &'a AtomicUsize {
    // SAFETY: a kcondvar_t begins with a word, and the callers keep it alive.
    unsafe { AtomicUsize::from_ptr(cv.cast()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cv_init(cv: *mut sys::kcondvar_t, _: *const c_char) {
    // SAFETY: the caller's promise.
    unsafe { cv.cast::<usize>().write(0) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cv_wait(cv: *mut sys::kcondvar_t, mutex: *mut sys::kmutex_t) {
    // SAFETY: the caller's promise.
    unsafe {
        let before = broadcasts(cv).load(Ordering::Acquire);
        mutex_exit(mutex);
        while broadcasts(cv).load(Ordering::Acquire) == before {
            thread::yield_now();
        }
        mutex_enter(mutex);
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cv_wait_sig(cv: *mut sys::kcondvar_t, mutex: *mut sys::kmutex_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { cv_wait(cv, mutex) };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cv_timedwait(
    _: *mut sys::kcondvar_t,
    mutex: *mut sys::kmutex_t,
    _: c_int,
) -> c_int {
    // SAFETY: the caller's promise. Its time is soon over.
    unsafe {
        mutex_exit(mutex);
        thread::yield_now();
        mutex_enter(mutex);
    }
    sys::EWOULDBLOCK as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cv_broadcast(cv: *mut sys::kcondvar_t) {
    // SAFETY: the caller's promise.
    unsafe { broadcasts(cv) }.fetch_add(1, Ordering::Release);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cv_destroy(_: *mut sys::kcondvar_t) {}

// callout(9): none is ever called.

#[unsafe(no_mangle)]
unsafe extern "C" fn callout_init(_: *mut sys::callout_t, _: c_uint) {}

#[unsafe(no_mangle)]
unsafe extern "C" fn callout_setfunc(
    _: *mut sys::callout_t,
    _: Option<unsafe extern "C" fn(*mut c_void)>,
    _: *mut c_void,
) {
}

#[unsafe(no_mangle)]
unsafe extern "C" fn callout_schedule(_: *mut sys::callout_t, _: c_int) {}

#[unsafe(no_mangle)]
unsafe extern "C" fn callout_halt(_: *mut sys::callout_t, _: *mut c_void) -> bool {
    false
}

#[unsafe(no_mangle)]
unsafe extern "C" fn callout_destroy(_: *mut sys::callout_t) {}

// pool_cache(9): keeps nothing, so that each object that goes back is gone.

struct Pool {
    layout: Layout,
    constructor: unsafe extern "C" fn(*mut c_void, *mut c_void, c_int) -> c_int,
    destructor: unsafe extern "C" fn(*mut c_void, *mut c_void),
}

#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "the kernel's")]
unsafe extern "C" fn pool_cache_init(
    size: usize,
    align: c_uint,
    _: c_uint,
    _: c_uint,
    _: *const c_char,
    _: *mut sys::pool_allocator,
    _: c_int,
    constructor: Option<unsafe extern "C" fn(*mut c_void, *mut c_void, c_int) -> c_int>,
    destructor: Option<unsafe extern "C" fn(*mut c_void, *mut c_void)>,
    _: *mut c_void,
) -> sys::pool_cache_t {
    let layout = Layout::from_size_align(size, align as usize).unwrap();
    let (constructor, destructor) = (constructor.unwrap(), destructor.unwrap());
    Box::into_raw(Box::new(Pool { layout, constructor, destructor })).cast()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pool_cache_destroy(pool: sys::pool_cache_t) {
    // SAFETY: `pool_cache_init` made it.
    drop(unsafe { Box::from_raw(pool.cast::<Pool>()) });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dm_shim_pool_get(pool: sys::pool_cache_t, flags: c_int) -> *mut c_void {
    if flags & sys::PR_NOWAIT as c_int != 0 && NO_MEMORY.load(Ordering::Relaxed) {
        return ptr::null_mut();
    }
    // SAFETY: `pool_cache_init` made it, and the size is not 0.
    unsafe {
        let pool = &*pool.cast::<Pool>();
        let object = std::alloc::alloc(pool.layout).cast();
        (pool.constructor)(ptr::null_mut(), object, 0);
        object
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dm_shim_pool_put(pool: sys::pool_cache_t, object: *mut c_void) {
    // SAFETY: `dm_shim_pool_get` made it of this pool.
    unsafe {
        let pool = &*pool.cast::<Pool>();
        (pool.destructor)(ptr::null_mut(), object);
        std::alloc::dealloc(object.cast(), pool.layout);
    }
}

// The CPU, the clock, the kernel lock.

#[unsafe(no_mangle)]
extern "C" fn dm_shim_hz() -> c_int {
    100
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_ncpu() -> c_uint {
    2
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_cpu() -> c_uint {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local!(static CPU: u32 = NEXT.fetch_add(1, Ordering::Relaxed) % 2);
    CPU.with(|cpu| *cpu)
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_in_thread() -> bool {
    true
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_process() -> c_int {
    1
}

static TICKS: AtomicU32 = AtomicU32::new(0);

#[unsafe(no_mangle)]
extern "C" fn getticks() -> c_int {
    TICKS.fetch_add(1, Ordering::Relaxed) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getmicrouptime(time: *mut sys::timeval) {
    let now = i64::from(TICKS.fetch_add(1, Ordering::Relaxed));
    // SAFETY: the caller's promise.
    unsafe { time.write(sys::timeval { tv_sec: now / 100, tv_usec: 0 }) };
}

#[unsafe(no_mangle)]
extern "C" fn kpause(_: *const c_char, _: bool, _: c_int, _: *mut sys::kmutex_t) -> c_int {
    thread::yield_now();
    0
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_frugal(_: bool) {}
#[unsafe(no_mangle)]
extern "C" fn dm_shim_kernel_lock() {}
#[unsafe(no_mangle)]
extern "C" fn dm_shim_kernel_unlock() {}
#[unsafe(no_mangle)]
extern "C" fn dm_shim_barrier() {}
#[unsafe(no_mangle)]
extern "C" fn dm_shim_print(_: *const c_char) {}

// kthread(9).

#[unsafe(no_mangle)]
unsafe extern "C" fn dm_shim_thread(
    body: *mut c_void,
    _: *const c_char,
    lwp: *mut *mut sys::lwp,
) -> c_int {
    let body = Address(body);
    let thread = thread::spawn(move || {
        let body = body;
        // SAFETY: the body is this thread's.
        unsafe { crate::netbsd::kthread::dm_thread_main(body.0) };
    });
    // SAFETY: the caller's promise.
    unsafe { lwp.write(Box::into_raw(Box::new(thread)).cast()) };
    0
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_uspace() -> usize {
    16384
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kthread_join(lwp: *mut sys::lwp) -> c_int {
    // SAFETY: `dm_shim_thread` made it.
    unsafe { Box::from_raw(lwp.cast::<JoinHandle<()>>()) }.join().unwrap();
    0
}

// buffers.

#[unsafe(no_mangle)]
extern "C" fn buf_init(_: *mut sys::buf) {}
#[unsafe(no_mangle)]
extern "C" fn buf_destroy(_: *mut sys::buf) {}

#[unsafe(no_mangle)]
unsafe extern "C" fn biodone(buf: *mut sys::buf) {
    // SAFETY: the caller gives the buffer back: to who nested it, or to the test.
    unsafe {
        // As the kernel does: under the buffer's lock, and not touched any more after the call.
        let lock = (*buf).b_objlock;
        if !lock.is_null() {
            mutex_enter(lock);
            (*buf).b_oflags |= sys::BO_DONE as u32;
            mutex_exit(lock);
        }
        match (*buf).b_iodone.take() {
            Some(iodone) => iodone(buf),
            None => (*buf.cast::<TestIo>()).done.store(true, Ordering::Release),
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn bounds_check_with_mediasize(_: *mut sys::buf, _: c_int, _: u64) -> c_int {
    1
}

// vnode(9): its number is all that there is to a device.

fn vnode(dev: sys::dev_t) -> *mut sys::vnode {
    // SAFETY: plain memory.
    let vnode: Box<sys::vnode> = Box::new(unsafe { std::mem::zeroed() });
    let vnode = Box::into_raw(vnode);
    // SAFETY: fresh memory.
    let lock = Box::into_raw(Box::new(unsafe { std::mem::zeroed::<sys::kmutex_t>() }));
    // SAFETY: as above.
    unsafe {
        (*vnode).v_size = dev as i64;
        (*vnode).v_interlock = lock;
    }
    vnode
}

#[unsafe(no_mangle)]
unsafe extern "C" fn vrele(vnode: *mut sys::vnode) {
    // SAFETY: `vnode` made both.
    unsafe {
        drop(Box::from_raw((*vnode).v_interlock));
        drop(Box::from_raw(vnode));
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dm_shim_namei(path: *const c_char, found: *mut *mut sys::vnode) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let last = std::ffi::CStr::from_ptr(path).to_bytes().last().copied().unwrap_or(0);
        found.write(vnode(u64::from(last)));
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dm_shim_rdev(vnode: *const sys::vnode) -> sys::dev_t {
    // SAFETY: the caller's promise.
    unsafe { (*vnode).v_size as sys::dev_t }
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_isblock(_: *const sys::vnode) -> bool {
    true
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bdevvp(dev: sys::dev_t, found: *mut *mut sys::vnode) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { found.write(vnode(dev)) };
    0
}

#[unsafe(no_mangle)]
extern "C" fn kauth_cred_get() -> sys::kauth_cred_t {
    ptr::null_mut()
}

#[unsafe(no_mangle)]
extern "C" fn vn_lock(_: *mut sys::vnode, _: c_int) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn VOP_UNLOCK(_: *mut sys::vnode) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn vdead_check(_: *mut sys::vnode, _: c_int) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn VOP_OPEN(_: *mut sys::vnode, _: c_int, _: sys::kauth_cred_t) -> c_int {
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn vn_close(vnode: *mut sys::vnode, _: c_int, _: sys::kauth_cred_t) -> c_int {
    // SAFETY: the caller's last use of it.
    unsafe { vrele(vnode) };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getdisksize(_: *mut sys::vnode, size: *mut u64, bytes: *mut c_uint) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        size.write(DISK as u64 / 512);
        bytes.write(512);
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn VOP_IOCTL(
    _: *mut sys::vnode,
    _: sys::u_long,
    _: *mut c_void,
    _: c_int,
    _: sys::kauth_cred_t,
) -> c_int {
    sys::ENOTTY as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VOP_STRATEGY(vnode: *mut sys::vnode, buf: *mut sys::buf) -> c_int {
    // SAFETY: the device is open until the buffer is done.
    let disk = unsafe { dm_shim_rdev(vnode) } as u32;
    match AT_ONCE.load(Ordering::Relaxed) {
        true => transfer(disk, buf),
        false => kernel(|kernel| kernel.queue.push_back((disk, Address(buf)))),
    }
    0
}

// disk(9): keeps the addresses that it is given.

#[unsafe(no_mangle)]
extern "C" fn dm_shim_disk_init(_: *mut sys::disk, _: *const c_char) {}

#[unsafe(no_mangle)]
unsafe extern "C" fn disk_attach(disk: *mut sys::disk) {
    // SAFETY: the caller's promise; plain numbers.
    unsafe {
        (*disk).dk_stats = Box::into_raw(Box::new(std::mem::zeroed()));
        (*disk).dk_label = Box::into_raw(Box::new(std::mem::zeroed()));
    }
    kernel(|kernel| kernel.list.push(Address(disk)));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn disk_set_info(_: sys::device_t, disk: *mut sys::disk, kind: *const c_char) {
    // SAFETY: the caller's promise.
    unsafe { (*disk).dk_name = kind };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn disk_detach(disk: *mut sys::disk) {
    let kept = kernel(|kernel| {
        let at = kernel.list.iter().position(|known| known.0 == disk).expect("an attached disk");
        kernel.list.remove(at)
    });
    // SAFETY: by the address that was kept since `disk_attach`, as the kernel's list has it.
    unsafe {
        drop(Box::from_raw((*kept.0).dk_stats));
        drop(Box::from_raw((*kept.0).dk_label));
    }
}

#[unsafe(no_mangle)]
extern "C" fn disk_destroy(_: *mut sys::disk) {}

// autoconf(9), devsw(9), module(9), sysctl(9), pmf(9).

struct Device(c_int);

#[unsafe(no_mangle)]
unsafe extern "C" fn dm_shim_cfdata_init(cfdata: sys::cfdata_t, unit: c_uint) {
    // SAFETY: the caller's promise.
    unsafe { (*cfdata).set_cf_unit(unit as _) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn config_attach_pseudo(cfdata: sys::cfdata_t) -> sys::device_t {
    // SAFETY: the caller's promise; the device is there from here on.
    unsafe {
        let device: sys::device_t =
            Box::into_raw(Box::new(Device((*cfdata).cf_unit() as c_int))).cast();
        crate::entry::autoconf::dm_attach(ptr::null_mut(), device, ptr::null_mut());
        kernel(|kernel| kernel.attached.insert((*cfdata).cf_unit() as c_int, Address(device)));
        device
    }
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_attached(unit: c_uint) -> bool {
    kernel(|kernel| kernel.attached.contains_key(&(unit as c_int)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dm_shim_detach(unit: c_uint) -> c_int {
    let device = kernel(|kernel| kernel.attached.get(&(unit as c_int)).map(|device| device.0));
    let Some(device) = device else { return sys::ENXIO as c_int };
    // SAFETY: the device is there until this ends.
    unsafe {
        let error = crate::entry::autoconf::dm_detach(device, 0);
        if error == 0 {
            kernel(|kernel| kernel.attached.remove(&(unit as c_int)));
            drop(Box::from_raw(device.cast::<Device>()));
        }
        error
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn device_unit(device: sys::device_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { (*device.cast::<Device>()).0 }
}

#[unsafe(no_mangle)]
extern "C" fn device_xname(_: sys::device_t) -> *const c_char {
    c"dm".as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_pmf_register(_: sys::device_t) -> bool {
    true
}

#[unsafe(no_mangle)]
extern "C" fn pmf_device_deregister(_: sys::device_t) {}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_bmajor() -> c_int {
    169
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_config_attach() -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_config_detach() -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_devsw_attach() -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_devsw_detach() {}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_sysctl_attach() -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_sysctl_detach() {}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_curlwp() -> *mut sys::lwp {
    ptr::null_mut()
}

#[unsafe(no_mangle)]
extern "C" fn dm_shim_may_write(_: *mut sys::vnode) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn bdev_open(_: sys::dev_t, _: c_int, _: c_int, _: *mut sys::lwp) -> c_int {
    0
}
