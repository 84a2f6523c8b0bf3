// SPDX-License-Identifier: BSD-2-Clause

//! devsw(9): majors, and the calls of a driver's entry points.
//!
//! Simpler than NetBSD: devsw_detach does not wait for calls in progress.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::buf::biodone;
use crate::console::kassert;
use crate::dev::{Dev, NODEV, major, makedev, minor};
use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::lock;
use crate::netbsd as nb;

const MAJORS: usize = 512;

static BLOCK: [AtomicPtr<nb::bdevsw>; MAJORS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAJORS];
static CHARACTER: [AtomicPtr<nb::cdevsw>; MAJORS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAJORS];
static NAMES: Mutex<Vec<Driver>> = Mutex::new(Vec::new());

/// A line of kern.drivers: a driver's name and majors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Driver {
    /// The driver's name.
    pub name: String,
    /// Major number of its block devices.
    pub block: Option<u32>,
    /// Major number of its character devices.
    pub character: Option<u32>,
}

/// Majors that sys/conf/majors gives (amd64's where ports differ).
const MAJOR_TABLE: &[(&str, Option<u32>, u32)] = &[
    ("wd", Some(0), 3),
    ("sd", Some(4), 13),
    ("ld", Some(19), 69),
    ("dk", Some(168), 168),
    ("dm", Some(169), 194),
];

/// kern.drivers: the drivers that are attached.
pub fn drivers() -> Vec<Driver> {
    let mut all = NAMES.lock().unwrap_or_else(|e| e.into_inner()).clone();
    all.retain(|d| {
        d.block.is_some_and(|m| !block(m).is_null())
            || d.character.is_some_and(|m| !character(m).is_null())
    });
    all
}

fn block(major: u32) -> *mut nb::bdevsw {
    BLOCK.get(major as usize).map_or(ptr::null_mut(), |d| d.load(Ordering::Acquire))
}

fn character(major: u32) -> *mut nb::cdevsw {
    CHARACTER.get(major as usize).map_or(ptr::null_mut(), |d| d.load(Ordering::Acquire))
}

/// Drivers still attached, for the leak report.
pub(crate) fn leaks() -> Vec<String> {
    let left = drivers();
    NAMES.lock().unwrap_or_else(|e| e.into_inner()).clear();
    for major in 0..MAJORS {
        BLOCK[major].store(ptr::null_mut(), Ordering::Release);
        CHARACTER[major].store(ptr::null_mut(), Ordering::Release);
    }
    left.into_iter().map(|d| format!("devsw of {} was not detached", d.name)).collect()
}

/// devsw_attach(9). A major of -1 is looked up by name, as in the kernel's table; EEXIST where
/// another driver has it.
///
/// # Safety
///
/// `name` is a string; the tables stay until devsw_detach.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn devsw_attach(
    name: *const c_char,
    bdev: *const nb::bdevsw,
    bmajor: *mut nb::__devmajor_t,
    cdev: *const nb::cdevsw,
    cmajor: *mut nb::__devmajor_t,
) -> c_int {
    if let Err(e) = fault::check(Site::Devsw, Errno::EEXIST) {
        return e.0;
    }
    if name.is_null() || cdev.is_null() {
        return Errno::EINVAL.0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let name = CStr::from_ptr(name).to_string_lossy().into_owned();
        let mut names = NAMES.lock().unwrap_or_else(|e| e.into_inner());
        let known = MAJOR_TABLE.iter().find(|(known, ..)| *known == name);
        let free_block = || (200..MAJORS as u32).find(|m| block(*m).is_null());
        let free_char = || (300..MAJORS as u32).find(|m| character(*m).is_null());
        let mut block_major = None;
        if !bdev.is_null() {
            if *bmajor < 0 {
                let major = known.and_then(|k| k.1).or_else(free_block);
                *bmajor = major.unwrap_or(0) as nb::__devmajor_t;
            }
            let at = *bmajor as usize;
            if at >= MAJORS {
                return Errno::ENOMEM.0;
            }
            let old = BLOCK[at].load(Ordering::Acquire).cast_const();
            if !old.is_null() && old != bdev {
                return Errno::EEXIST.0;
            }
            block_major = Some(at as u32);
        }
        if *cmajor < 0 {
            let major = known.map(|k| k.2).or_else(free_char);
            *cmajor = major.unwrap_or(0) as nb::__devmajor_t;
        }
        let at = *cmajor as usize;
        if at >= MAJORS {
            return Errno::ENOMEM.0;
        }
        let old = CHARACTER[at].load(Ordering::Acquire).cast_const();
        if !old.is_null() && old != cdev {
            return Errno::EEXIST.0;
        }
        if let Some(major) = block_major {
            BLOCK[major as usize].store(bdev.cast_mut(), Ordering::Release);
        }
        CHARACTER[at].store(cdev.cast_mut(), Ordering::Release);
        names.retain(|d| d.name != name);
        names.push(Driver { name, block: block_major, character: Some(at as u32) });
    }
    0
}

/// devsw_detach(9)
///
/// # Safety
///
/// No call of the driver is in progress.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn devsw_detach(bdev: *const nb::bdevsw, cdev: *const nb::cdevsw) {
    let _names = NAMES.lock().unwrap_or_else(|e| e.into_inner());
    for major in 0..MAJORS {
        if !bdev.is_null() && ptr::eq(block(major as u32), bdev) {
            BLOCK[major].store(ptr::null_mut(), Ordering::Release);
        }
        if !cdev.is_null() && ptr::eq(character(major as u32), cdev) {
            CHARACTER[major].store(ptr::null_mut(), Ordering::Release);
        }
    }
}

/// bdevsw_lookup(9)
#[unsafe(no_mangle)]
pub(crate) extern "C" fn bdevsw_lookup(dev: Dev) -> *const nb::bdevsw {
    if dev == NODEV { ptr::null() } else { block(major(dev)) }
}

/// cdevsw_lookup(9)
#[unsafe(no_mangle)]
pub(crate) extern "C" fn cdevsw_lookup(dev: Dev) -> *const nb::cdevsw {
    if dev == NODEV { ptr::null() } else { character(major(dev)) }
}

/// bdevsw_lookup_major(9): -1 if the table is not attached.
#[unsafe(no_mangle)]
extern "C" fn bdevsw_lookup_major(bdev: *const nb::bdevsw) -> nb::__devmajor_t {
    (0..MAJORS as u32)
        .find(|m| !bdev.is_null() && ptr::eq(block(*m), bdev))
        .map_or(-1, |m| m as nb::__devmajor_t)
}

/// cdevsw_lookup_major(9)
#[unsafe(no_mangle)]
extern "C" fn cdevsw_lookup_major(cdev: *const nb::cdevsw) -> nb::__devmajor_t {
    (0..MAJORS as u32)
        .find(|m| !cdev.is_null() && ptr::eq(character(*m), cdev))
        .map_or(-1, |m| m as nb::__devmajor_t)
}

/// devsw_blk2chr(9)
#[unsafe(no_mangle)]
extern "C" fn devsw_blk2chr(dev: Dev) -> Dev {
    let names = NAMES.lock().unwrap_or_else(|e| e.into_inner());
    let driver = names.iter().find(|d| d.block == Some(major(dev)));
    driver.and_then(|d| d.character).map_or(NODEV, |m| makedev(m, minor(dev)))
}

/// devsw_chr2blk(9)
#[unsafe(no_mangle)]
pub(crate) extern "C" fn devsw_chr2blk(dev: Dev) -> Dev {
    let names = NAMES.lock().unwrap_or_else(|e| e.into_inner());
    let driver = names.iter().find(|d| d.character == Some(major(dev)));
    driver.and_then(|d| d.block).map_or(NODEV, |m| makedev(m, minor(dev)))
}

/// devsw_blk2name(9): null if no driver has the major. Simpler than NetBSD: only drivers of the
/// fixed table of majors.
#[unsafe(no_mangle)]
extern "C" fn devsw_blk2name(bmajor: nb::__devmajor_t) -> *const c_char {
    if block(bmajor as u32).is_null() {
        return ptr::null();
    }
    match bmajor {
        0 => c"wd".as_ptr(),
        4 => c"sd".as_ptr(),
        19 => c"ld".as_ptr(),
        168 => c"dk".as_ptr(),
        169 => c"dm".as_ptr(),
        _ => ptr::null(),
    }
}

/// bdevsw_getname: the same as devsw_blk2name.
#[unsafe(no_mangle)]
extern "C" fn bdevsw_getname(bmajor: nb::__devmajor_t) -> *const c_char {
    devsw_blk2name(bmajor)
}

/// The big lock, around an entry point of a driver that is not MP-safe.
struct Big(bool);

impl Big {
    fn enter(flags: c_int) -> Big {
        let needed = flags & nb::D_MPSAFE == 0;
        if needed {
            lock::kernel_lock();
        }
        Big(needed)
    }
}

impl Drop for Big {
    fn drop(&mut self) {
        if self.0 {
            lock::kernel_unlock();
        }
    }
}

/// Defines the entry points that block and character devices both have, as a pair of functions each, and the two sets
/// of them.
macro_rules! calls {
    ($($(#[$doc:meta])* $block:ident, $character:ident: $field:ident, $entry:ident(
        $($arg:ident: $type:ty),*) else $missing:expr;)*) => {
        $(
            calls!($(#[$doc])* $block, bdevsw_lookup, $entry($($arg: $type),*) else $missing);
            calls!($(#[$doc])* $character, cdevsw_lookup, $entry($($arg: $type),*) else $missing);
        )*

        /// The functions with which a kind of device is called.
        pub(crate) struct Calls {
            $(pub(crate) $field: extern "C" fn(Dev, $($type),*) -> c_int,)*
            pub(crate) kind: extern "C" fn(Dev) -> c_int,
        }

        /// The functions for block devices.
        pub(crate) static BLOCK_CALLS: Calls = Calls { $($field: $block,)* kind: bdev_type };
        /// The functions for character devices.
        pub(crate) static CHARACTER_CALLS: Calls =
            Calls { $($field: $character,)* kind: cdev_type };
    };
    ($(#[$doc:meta])* $name:ident, $table:ident, $entry:ident(
        $($arg:ident: $type:ty),*) else $missing:expr) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $name(d: Dev, $($arg: $type),*) -> c_int {
            // SAFETY: attached tables stay valid.
            let Some(table) = (unsafe { $table(d).as_ref() }) else { return Errno::ENXIO.0 };
            let Some(entry) = table.$entry else { return $missing.0 };
            let _big = Big::enter(table.d_flag);
            // SAFETY: an entry point of a driver, called as devsw(9) says.
            unsafe { entry(d, $($arg),*) }
        }
    };
}

calls! {
    /// d_open
    bdev_open, cdev_open: open, d_open(flag: c_int, kind: c_int, l: *mut nb::lwp)
        else Errno::ENXIO;
    /// d_cancel: ENODEV where the driver has none.
    bdev_cancel, cdev_cancel: cancel, d_cancel(flag: c_int, kind: c_int, l: *mut nb::lwp)
        else Errno::ENODEV;
    /// d_close
    bdev_close, cdev_close: close, d_close(flag: c_int, kind: c_int, l: *mut nb::lwp)
        else Errno::ENXIO;
    /// d_ioctl
    bdev_ioctl, cdev_ioctl: ioctl,
        d_ioctl(cmd: nb::u_long, data: *mut c_void, flag: c_int, l: *mut nb::lwp)
        else Errno::ENOTTY;
    /// d_discard
    bdev_discard, cdev_discard: discard, d_discard(pos: nb::__off_t, len: nb::__off_t)
        else Errno::ENODEV;
}

/// d_flag: a device's type, and its flags.
macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident: $table:ident, $missing:expr, $mask:expr;)*) => { $(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $name(d: Dev) -> c_int {
            // SAFETY: attached tables stay valid.
            unsafe { $table(d).as_ref() }.map_or($missing, |table| table.d_flag & $mask)
        }
    )* };
}

flags! {
    /// bdev_type: D_OTHER if there is no such device.
    bdev_type: bdevsw_lookup, nb::D_OTHER, nb::D_TYPEMASK;
    /// cdev_type
    cdev_type: cdevsw_lookup, nb::D_OTHER, nb::D_TYPEMASK;
    /// bdev_flags
    bdev_flags: bdevsw_lookup, 0, !nb::D_TYPEMASK;
    /// cdev_flags
    cdev_flags: cdevsw_lookup, 0, !nb::D_TYPEMASK;
}

/// Defines reading and writing, which only character devices have.
macro_rules! transfers {
    ($($(#[$doc:meta])* $name:ident: $entry:ident;)*) => { $(
        calls!($(#[$doc])* $name, cdevsw_lookup, $entry(uio: *mut nb::uio, flag: c_int)
            else Errno::ENODEV);
    )* };
}

transfers! {
    /// cdev_read
    cdev_read: d_read;
    /// cdev_write
    cdev_write: d_write;
}

/// bdev_strategy
///
/// # Safety
///
/// `bp` is a buffer ready for I/O.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn bdev_strategy(bp: *mut nb::buf) {
    // SAFETY: the caller's promise; attached tables stay valid.
    unsafe {
        kassert!(
            (*bp).b_oflags & crate::buf::BO_DONE == 0,
            "bdev_strategy: {bp:p} is done already"
        );
        kassert!((*bp).b_bcount >= 0, "bdev_strategy: b_bcount {}", (*bp).b_bcount);
        let table = bdevsw_lookup((*bp).b_dev);
        let entry = table.as_ref().and_then(|t| t.d_strategy);
        match entry {
            Some(strategy) if (*table).d_flag & nb::D_MPSAFE != 0 => strategy(bp),
            Some(strategy) => strategy_locked(strategy, bp),
            None => {
                (*bp).b_error = Errno::ENXIO.0;
                (*bp).b_resid = (*bp).b_bcount;
                biodone(bp);
            }
        }
    }
}

/// Calls a strategy routine under the big lock. Apart from [`bdev_strategy`], which so has nothing to undo.
#[inline(never)]
unsafe fn strategy_locked(strategy: unsafe extern "C" fn(*mut nb::buf), bp: *mut nb::buf) {
    let _big = Big::enter(0);
    // SAFETY: the caller's promise.
    unsafe { strategy(bp) };
}

/// bdev_dump. As in NetBSD the caller holds no lock and the driver takes none that can be held.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn bdev_dump(
    d: Dev,
    blkno: nb::daddr_t,
    va: *mut c_void,
    size: usize,
) -> c_int {
    // SAFETY: attached tables stay valid.
    match unsafe { bdevsw_lookup(d).as_ref() }.and_then(|t| t.d_dump) {
        // SAFETY: as devsw(9) says.
        Some(dump) => unsafe { dump(d, blkno, va, size) },
        None => Errno::ENXIO.0,
    }
}

/// bdev_size: -1 if there is no such device.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn bdev_size(d: Dev) -> c_int {
    // SAFETY: attached tables stay valid.
    match unsafe { bdevsw_lookup(d).as_ref() }.and_then(|t| Some((t.d_psize?, t.d_flag))) {
        Some((size, flag)) => {
            let _big = Big::enter(flag);
            // SAFETY: as devsw(9) says.
            unsafe { size(d) }
        }
        None => -1,
    }
}

/// The entry of a table for a function that a driver does not have (nodump, nodiscard, noread, nowrite, …).
#[unsafe(no_mangle)]
extern "C" fn devenodev() -> c_int {
    Errno::ENODEV.0
}

/// nostop
#[unsafe(no_mangle)]
extern "C" fn ttyvenodev(_tty: *mut nb::tty, _flag: c_int) {}

/// nommap
#[unsafe(no_mangle)]
extern "C" fn nommap(_d: Dev, _off: nb::__off_t, _prot: c_int) -> nb::paddr_t {
    nb::paddr_t::MAX
}

/// nopoll: always ready for what was asked.
#[unsafe(no_mangle)]
extern "C" fn seltrue(_d: Dev, events: c_int, _l: *mut nb::lwp) -> c_int {
    const POLLIN: c_int = 0x0001;
    const POLLOUT: c_int = 0x0004;
    const POLLRDNORM: c_int = 0x0040;
    events & (POLLIN | POLLOUT | POLLRDNORM)
}

/// nokqfilter. Simpler than NetBSD: no event queue is there to attach to.
#[unsafe(no_mangle)]
extern "C" fn seltrue_kqfilter(_d: Dev, _kn: *mut nb::knote) -> c_int {
    Errno::EINVAL.0
}
