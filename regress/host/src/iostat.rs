// SPDX-License-Identifier: BSD-2-Clause

//! iostat(9). As in NetBSD the caller must see to it that calls for one disk do not overlap.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::sync::Mutex;

use crate::callout::getmicrouptime;
use crate::console::{kassert, kpanic};
use crate::kmem::{kmem_free, kmem_zalloc};
use crate::netbsd as nb;

static ALL: Mutex<Vec<usize>> = Mutex::new(Vec::new());

fn now() -> nb::timeval {
    let mut tv = nb::timeval { tv_sec: 0, tv_usec: 0 };
    // SAFETY: a timeval of ours.
    unsafe { getmicrouptime(&mut tv) };
    tv
}

fn micros(tv: &nb::timeval) -> i64 {
    tv.tv_sec * 1_000_000 + i64::from(tv.tv_usec)
}

fn add(to: &mut nb::timeval, amount: i64) {
    let total = micros(to) + amount;
    to.tv_sec = total / 1_000_000;
    to.tv_usec = (total % 1_000_000) as nb::suseconds_t;
}

fn set_name(stats: &mut nb::io_stats, name: *const c_char) {
    // SAFETY: callers pass a string.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    stats.io_name = [0; 16];
    for (to, from) in stats.io_name.iter_mut().zip(name.iter().take(15)) {
        *to = *from as c_char;
    }
}

fn get<'a>(stats: *mut nb::io_stats) -> &'a mut nb::io_stats {
    // SAFETY: callers pass statistics from iostat_alloc and serialise their calls.
    unsafe { &mut *stats }
}

/// Statistics never freed, for the leak report.
pub(crate) fn leaks() -> Vec<String> {
    let all = std::mem::take(&mut *ALL.lock().unwrap_or_else(|e| e.into_inner()));
    all.into_iter().map(|at| format!("disk statistics at {at:#x} were not freed")).collect()
}

/// hw.disknames: names of the disks that are attached.
pub fn disk_names() -> Vec<String> {
    with_all(name)
}

/// The numbers of one disk: (reads, writes, bytes read, bytes written, busy now, busy time in
/// microseconds).
pub fn disk_stats(wanted: &str) -> Option<(u64, u64, u64, u64, i32, i64)> {
    with_all(|s| {
        let numbers =
            (s.io_rxfer, s.io_wxfer, s.io_rbytes, s.io_wbytes, s.io_busy, micros(&s.io_busytime));
        (name(s), numbers)
    })
    .into_iter()
    .find_map(|(name, numbers)| (name == wanted).then_some(numbers))
}

/// The time since a disk was attached, in microseconds.
pub fn disk_age(wanted: &str) -> Option<i64> {
    with_all(|s| (name(s), micros(&s.io_attachtime)))
        .into_iter()
        .find_map(|(name, then)| (name == wanted).then(|| (micros(&now()) - then).max(0)))
}

fn with_all<R>(f: impl Fn(&nb::io_stats) -> R) -> Vec<R> {
    let all = ALL.lock().unwrap_or_else(|e| e.into_inner());
    // SAFETY: listed statistics are allocated while the list is locked.
    all.iter().map(|at| f(unsafe { &*(*at as *const nb::io_stats) })).collect()
}

fn name(stats: &nb::io_stats) -> String {
    stats.io_name.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect()
}

/// The disk of a name, for disk_find(9).
pub(crate) fn parent(wanted: &str) -> *mut c_void {
    with_all(|s| (name(s), s.io_parent))
        .into_iter()
        .find_map(|(name, parent)| (name == wanted).then_some(parent))
        .unwrap_or(std::ptr::null_mut())
}

/// iostat_alloc(9)
///
/// # Safety
///
/// `name` is a string.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn iostat_alloc(
    kind: i32,
    parent: *mut c_void,
    name: *const c_char,
) -> *mut nb::io_stats {
    let stats = kmem_zalloc(size_of::<nb::io_stats>(), nb::KM_SLEEP as nb::km_flag_t)
        .cast::<nb::io_stats>();
    let s = get(stats);
    s.io_type = kind;
    s.io_parent = parent;
    s.io_attachtime = now();
    set_name(s, name);
    ALL.lock().unwrap_or_else(|e| e.into_inner()).push(stats as usize);
    stats
}

/// iostat_free(9)
///
/// # Safety
///
/// `stats` comes from iostat_alloc, as below.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn iostat_free(stats: *mut nb::io_stats) {
    let mut all = ALL.lock().unwrap_or_else(|e| e.into_inner());
    let Some(at) = all.iter().position(|s| *s == stats as usize) else {
        kpanic!("iostat_free: {stats:p} was not allocated");
    };
    all.remove(at);
    drop(all);
    kassert!(get(stats).io_busy == 0, "iostat_free: {} is busy", name(get(stats)));
    kmem_free(stats.cast(), size_of::<nb::io_stats>());
}

/// iostat_rename(9)
///
/// # Safety
///
/// As iostat_free; `name` is a string.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn iostat_rename(stats: *mut nb::io_stats, name: *const c_char) {
    let _all = ALL.lock().unwrap_or_else(|e| e.into_inner());
    set_name(get(stats), name);
}

/// iostat_wait(9)
///
/// # Safety
///
/// As iostat_free.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn iostat_wait(stats: *mut nb::io_stats) {
    let s = get(stats);
    kassert!(s.io_wait >= 0, "iostat_wait: {}", s.io_wait);
    let now = now();
    account_wait(s, &now);
    s.io_wait += 1;
}

fn account_wait(s: &mut nb::io_stats, now: &nb::timeval) {
    let passed = micros(now) - micros(&s.io_waitstamp);
    if s.io_wait != 0 {
        let waiting = i64::from(s.io_wait);
        add(&mut s.io_waitsum, passed * waiting);
        add(&mut s.io_waittime, passed);
    }
    s.io_waitstamp = *now;
}

fn account_busy(s: &mut nb::io_stats, now: &nb::timeval) {
    let passed = micros(now) - micros(&s.io_busystamp);
    if s.io_busy != 0 {
        let busy = i64::from(s.io_busy);
        add(&mut s.io_busysum, passed * busy);
        add(&mut s.io_busytime, passed);
    }
    s.io_busystamp = *now;
}

/// iostat_busy(9)
///
/// # Safety
///
/// As iostat_free.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn iostat_busy(stats: *mut nb::io_stats) {
    let s = get(stats);
    kassert!(s.io_busy >= 0, "iostat_busy: {}", s.io_busy);
    let now = now();
    account_wait(s, &now);
    s.io_wait = (s.io_wait - 1).max(0);
    account_busy(s, &now);
    s.io_busy += 1;
}

/// iostat_unbusy(9)
///
/// # Safety
///
/// As iostat_free.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn iostat_unbusy(
    stats: *mut nb::io_stats,
    bcount: c_long,
    read: c_int,
) {
    let s = get(stats);
    kassert!(s.io_busy > 0, "iostat_unbusy: {} is not busy", name(s));
    let now = now();
    s.io_timestamp = now;
    account_busy(s, &now);
    s.io_busy -= 1;
    if bcount > 0 {
        if read != 0 {
            s.io_rbytes += bcount as u64;
            s.io_rxfer += 1;
        } else {
            s.io_wbytes += bcount as u64;
            s.io_wxfer += 1;
        }
    }
}

/// iostat_isbusy(9)
///
/// # Safety
///
/// As iostat_free.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn iostat_isbusy(stats: *mut nb::io_stats) -> bool {
    get(stats).io_busy != 0
}

/// iostat_seek(9)
///
/// # Safety
///
/// As iostat_free.
#[unsafe(no_mangle)]
unsafe extern "C" fn iostat_seek(stats: *mut nb::io_stats) {
    get(stats).io_seek += 1;
}
