// SPDX-License-Identifier: BSD-2-Clause

//! pool_cache(9).
//!
//! Each lwp has a magazine of its own in each pool cache, which it reaches without taking a lock
//! that others take; behind the magazines stands one list. Items carry a header that says whose
//! they are and whether they are out, so that a second put, or a put to another pool, stops the
//! machine. As in NetBSD the constructor runs when an item is made, not each time it is got.
//!
//! Simpler than NetBSD: memory never goes back before the pool cache is invalidated or destroyed.
//! With DM_HOST_POOLS=none in the environment it goes back with each put, for sanitizers to see
//! what is used after that.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Condvar, LazyLock, Mutex};

use crate::console::{kassert, kpanic};
use crate::errno::Errno;
use crate::fault::{self, PLAN, Site};
use crate::frugal;
use crate::kmem;
use crate::lwp::{self, MAXSLOTS};
use crate::netbsd as nb;

/// `false` if the environment variable DM_HOST_POOLS is `none`: pools keep no items then.
static KEEPS: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("DM_HOST_POOLS").is_none_or(|value| value != "none"));

/// Items a magazine holds.
const ROUNDS: usize = 15;

type Ctor = unsafe extern "C" fn(*mut c_void, *mut c_void, c_int) -> c_int;
type Dtor = unsafe extern "C" fn(*mut c_void, *mut c_void);

struct PoolCache {
    name: String,
    size: usize,
    align: usize,
    /// Bytes from the start of the memory to the item.
    offset: usize,
    ctor: Option<Ctor>,
    dtor: Option<Dtor>,
    arg: *mut c_void,
    depot: Mutex<Depot>,
    back: Condvar,
    /// Nonzero while an lwp lacks an item: items are put into the depot, where others find them.
    hungry: AtomicU32,
    magazines: Box<[Magazine]>,
}

struct Depot {
    free: Vec<*mut u8>,
    /// Items made and not destroyed.
    made: usize,
}

#[repr(align(64))]
struct Magazine {
    busy: AtomicBool,
    rounds: UnsafeCell<Rounds>,
    /// Items got minus items put through this magazine.
    out: AtomicI64,
}

struct Rounds {
    count: usize,
    items: [*mut u8; ROUNDS],
}

/// The header in front of each item.
struct Header {
    pool: AtomicPtr<PoolCache>,
    state: AtomicU32,
}

const OUT: u32 = 0x6f75_7421;
const FREE: u32 = 0x6672_6565;

static ALL: Mutex<Vec<usize>> = Mutex::new(Vec::new());

fn header<'a>(item: *mut u8) -> &'a Header {
    // SAFETY: an item of a pool has a header in front.
    unsafe { &*item.sub(size_of::<Header>()).cast::<Header>() }
}

impl PoolCache {
    fn layout(&self) -> Layout {
        match Layout::from_size_align(self.offset + self.size, self.align) {
            Ok(layout) => layout,
            Err(_) => kpanic!("pool_cache {}: {} bytes", self.name, self.size),
        }
    }

    fn make(&self, flags: c_int) -> *mut u8 {
        // SAFETY: the size is above 0.
        let memory = unsafe { alloc(self.layout()) };
        kassert!(!memory.is_null(), "pool_cache {}: the process has no memory", self.name);
        // SAFETY: the block holds a header and an item.
        let item = unsafe { memory.add(self.offset) };
        kmem::fill_fresh(item, self.size);
        // SAFETY: the header's place is ours and aligned.
        unsafe {
            item.sub(size_of::<Header>()).cast::<Header>().write(Header {
                pool: AtomicPtr::new(ptr::from_ref(self).cast_mut()),
                state: AtomicU32::new(FREE),
            });
        }
        if let Some(ctor) = self.ctor {
            // SAFETY: the driver's constructor, with the argument it gave.
            if unsafe { ctor(self.arg, item.cast(), flags) } != 0 {
                // SAFETY: allocated above.
                unsafe { dealloc(memory, self.layout()) };
                return ptr::null_mut();
            }
        }
        self.depot().made += 1;
        item
    }

    fn unmake(&self, item: *mut u8) {
        if let Some(dtor) = self.dtor {
            // SAFETY: the driver's destructor, for an item that was constructed.
            unsafe { dtor(self.arg, item.cast()) };
        }
        // SAFETY: `make` allocated it so.
        unsafe {
            ptr::write_bytes(item, 0xdf, self.size);
            dealloc(item.sub(self.offset), self.layout());
        }
    }

    fn depot(&self) -> std::sync::MutexGuard<'_, Depot> {
        self.depot.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn magazine(&self) -> &Magazine {
        &self.magazines[lwp::current().slot()]
    }

    #[inline(always)]
    fn get(&self, flags: c_int) -> *mut u8 {
        if flags & nb::PR_NOWAIT == 0 {
            frugal::assert_may_wait("pool_cache_get(PR_WAITOK)");
        } else if fault::check(Site::Pool, Errno::ENOMEM).is_err() {
            return ptr::null_mut();
        }
        let magazine = self.magazine();
        let mut item = magazine.with(|r| {
            if r.count == 0 {
                return ptr::null_mut();
            }
            r.count -= 1;
            r.items[r.count]
        });
        if item.is_null() {
            item = self.get_slowly(flags);
            if item.is_null() {
                return item;
            }
        }
        let state = &header(item).state;
        kassert!(
            state.load(Ordering::Relaxed) == FREE,
            "pool_cache {}: {item:p} is damaged",
            self.name
        );
        state.store(OUT, Ordering::Relaxed);
        magazine.count(1);
        item
    }

    #[inline(never)]
    fn get_slowly(&self, flags: c_int) -> *mut u8 {
        if flags & nb::PR_WAITOK != 0 {
            lwp::current().assert_sleepable("pool_cache_get(PR_WAITOK)");
        }
        let mut depot = self.depot();
        loop {
            if let Some(item) = depot.free.pop() {
                return item;
            }
            if !PLAN.exhausted() {
                drop(depot);
                return frugal::within(|| self.make(flags));
            }
            // Items in other lwps' magazines count as free.
            drop(depot);
            if let Some(item) = self.steal() {
                return item;
            }
            if flags & nb::PR_WAITOK == 0 {
                return ptr::null_mut();
            }
            self.hungry.fetch_add(1, Ordering::SeqCst);
            depot = self.depot();
            while depot.free.is_empty() && PLAN.exhausted() {
                let slice = std::time::Duration::from_millis(1);
                depot = self.back.wait_timeout(depot, slice).unwrap_or_else(|e| e.into_inner()).0;
            }
            self.hungry.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn steal(&self) -> Option<*mut u8> {
        self.magazines.iter().find_map(|m| {
            m.with(|r| {
                r.count = r.count.checked_sub(1)?;
                Some(r.items[r.count])
            })
        })
    }

    #[inline(always)]
    fn put(&self, item: *mut u8) {
        let header = header(item);
        kassert!(
            ptr::eq(header.pool.load(Ordering::Relaxed), self),
            "pool_cache {}: {item:p} is not an item of it",
            self.name
        );
        kassert!(
            header.state.load(Ordering::Relaxed) == OUT,
            "pool_cache {}: {item:p} is put back twice",
            self.name
        );
        header.state.store(FREE, Ordering::Relaxed);
        let magazine = self.magazine();
        magazine.count(-1);
        let kept = self.hungry.load(Ordering::Relaxed) == 0
            && magazine.with(|r| {
                if r.count == ROUNDS {
                    return false;
                }
                r.items[r.count] = item;
                r.count += 1;
                true
            });
        if !kept {
            self.depot().free.push(item);
            self.back.notify_one();
        }
    }

    /// Items that are out.
    fn out(&self) -> i64 {
        self.magazines.iter().map(|m| m.out.load(Ordering::Relaxed)).sum()
    }

    /// Destroys every item that is not out.
    fn drain(&self) {
        let mut items = std::mem::take(&mut self.depot().free);
        while let Some(item) = self.steal() {
            items.push(item);
        }
        self.depot().made -= items.len();
        for item in items {
            self.unmake(item);
        }
    }

    /// Makes items until `count` are there that are not out.
    fn fill(&self, count: usize) {
        while self.depot().free.len() < count {
            let item = self.make(nb::PR_WAITOK);
            if item.is_null() {
                return;
            }
            self.depot().free.push(item);
        }
    }
}

impl Magazine {
    /// Runs `f` on the rounds. Only lwps that share a slot, and one that steals or drains, ever wait here.
    #[inline(always)]
    fn with<R>(&self, f: impl FnOnce(&mut Rounds) -> R) -> R {
        while self.busy.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
        // SAFETY: `busy` makes us the only one.
        let result = f(unsafe { &mut *self.rounds.get() });
        self.busy.store(false, Ordering::Release);
        result
    }

    #[inline(always)]
    fn count(&self, by: i64) {
        self.out.fetch_add(by, Ordering::Relaxed);
    }
}

/// Pool caches never destroyed, and items out, for the leak report.
pub(crate) fn leaks() -> Vec<String> {
    let all = std::mem::take(&mut *ALL.lock().unwrap_or_else(|e| e.into_inner()));
    all.into_iter()
        .map(|pc| {
            // SAFETY: listed pool caches are not destroyed.
            let pc = unsafe { &*(pc as *const PoolCache) };
            format!("pool_cache {} was not destroyed; {} items are out", pc.name, pc.out())
        })
        .collect()
}

fn pool<'a>(pc: nb::pool_cache_t) -> &'a PoolCache {
    // SAFETY: a pool_cache_t of ours is a PoolCache.
    unsafe { &*pc.cast::<PoolCache>() }
}

/// pool_cache_init(9)
///
/// # Safety
///
/// `name` is a string; the constructor and destructor take `arg` and an item.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "the kernel's signature")]
unsafe extern "C" fn pool_cache_init(
    size: usize,
    align: c_uint,
    align_offset: c_uint,
    _flags: c_uint,
    name: *const c_char,
    _allocator: *mut nb::pool_allocator,
    _ipl: c_int,
    ctor: Option<Ctor>,
    dtor: Option<Dtor>,
    arg: *mut c_void,
) -> nb::pool_cache_t {
    kassert!(size != 0 && align_offset == 0, "pool_cache_init: size {size}, offset {align_offset}");
    let align = (align as usize).next_power_of_two().max(16);
    let magazines = (0..=MAXSLOTS)
        .map(|_| Magazine {
            busy: AtomicBool::new(false),
            rounds: UnsafeCell::new(Rounds { count: 0, items: [ptr::null_mut(); ROUNDS] }),
            out: AtomicI64::new(0),
        })
        .collect();
    let pc = Box::into_raw(Box::new(PoolCache {
        // SAFETY: the caller's promise.
        name: unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned(),
        size,
        align,
        offset: align.max(size_of::<Header>()),
        ctor,
        dtor,
        arg,
        depot: Mutex::new(Depot { free: Vec::new(), made: 0 }),
        back: Condvar::new(),
        hungry: AtomicU32::new(0),
        magazines,
    }));
    ALL.lock().unwrap_or_else(|e| e.into_inner()).push(pc as usize);
    pc.cast()
}

/// pool_cache_destroy(9). Items that are out stop the machine.
///
/// # Safety
///
/// `pc` comes from pool_cache_init, as below.
#[unsafe(no_mangle)]
unsafe extern "C" fn pool_cache_destroy(pc: nb::pool_cache_t) {
    let mut all = ALL.lock().unwrap_or_else(|e| e.into_inner());
    let Some(at) = all.iter().position(|p| *p == pc as usize) else {
        kpanic!("pool_cache_destroy: {pc:p} is not a pool cache");
    };
    all.swap_remove(at);
    drop(all);
    let pool = pool(pc);
    kassert!(pool.out() == 0, "pool_cache_destroy: {}: {} items are out", pool.name, pool.out());
    pool.drain();
    kassert!(pool.depot().made == 0, "pool_cache_destroy: {}: items are lost", pool.name);
    // SAFETY: from Box::into_raw in pool_cache_init, and no longer listed.
    drop(unsafe { Box::from_raw(pc.cast::<PoolCache>()) });
}

/// pool_cache_get(9)
///
/// # Safety
///
/// `pc` is a pool cache; `paddr` is null or receives the address.
#[unsafe(no_mangle)]
unsafe extern "C" fn pool_cache_get_paddr(
    pc: nb::pool_cache_t,
    flags: c_int,
    paddr: *mut nb::paddr_t,
) -> *mut c_void {
    let item = pool(pc).get(flags);
    if !paddr.is_null() && !item.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *paddr = item as nb::paddr_t };
    }
    item.cast()
}

/// pool_cache_put(9)
///
/// # Safety
///
/// `item` comes from pool_cache_get on `pc`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pool_cache_put_paddr(
    pc: nb::pool_cache_t,
    item: *mut c_void,
    _paddr: nb::paddr_t,
) {
    match *KEEPS {
        true => pool(pc).put(item.cast()),
        // SAFETY: the caller's promise.
        false => unsafe { pool_cache_destruct_object(pc, item) },
    }
}

/// pool_cache_destruct_object(9): puts back an item that is not to be used again as it is.
///
/// # Safety
///
/// As pool_cache_put.
#[unsafe(no_mangle)]
unsafe extern "C" fn pool_cache_destruct_object(pc: nb::pool_cache_t, item: *mut c_void) {
    let pool = pool(pc);
    let item = item.cast::<u8>();
    kassert!(header(item).state.load(Ordering::Relaxed) == OUT, "pool_cache: {item:p} is not out");
    pool.magazine().count(-1);
    pool.depot().made -= 1;
    pool.unmake(item);
}

/// pool_cache_invalidate(9): destroys the items that are not out.
///
/// # Safety
///
/// As pool_cache_get.
#[unsafe(no_mangle)]
unsafe extern "C" fn pool_cache_invalidate(pc: nb::pool_cache_t) {
    pool(pc).drain();
}

/// pool_cache_reclaim(9)
///
/// # Safety
///
/// As pool_cache_get.
#[unsafe(no_mangle)]
unsafe extern "C" fn pool_cache_reclaim(pc: nb::pool_cache_t) -> bool {
    pool(pc).drain();
    true
}

/// pool_cache_setlowat(9): `count` items are made now and kept in reserve.
///
/// # Safety
///
/// As pool_cache_get.
#[unsafe(no_mangle)]
unsafe extern "C" fn pool_cache_setlowat(pc: nb::pool_cache_t, count: c_int) {
    let pool = pool(pc);
    pool.fill(count as usize);
}

/// pool_cache_prime(9): `count` more items are made now.
///
/// # Safety
///
/// As pool_cache_get.
#[unsafe(no_mangle)]
unsafe extern "C" fn pool_cache_prime(pc: nb::pool_cache_t, count: c_int) {
    let pool = pool(pc);
    let free = pool.depot().free.len();
    pool.fill(free + count as usize);
}

/// pool_cache_sethiwat(9): a hint, not needed here.
#[unsafe(no_mangle)]
extern "C" fn pool_cache_sethiwat(_pc: nb::pool_cache_t, _count: c_int) {}

/// A pool cache of the hosted kernel itself, which the leak report leaves out.
pub(crate) fn internal(name: &CStr, size: usize) -> nb::pool_cache_t {
    // SAFETY: no constructor, no destructor.
    let pc = unsafe {
        pool_cache_init(
            size,
            16,
            0,
            0,
            name.as_ptr(),
            ptr::null_mut(),
            0,
            None,
            None,
            ptr::null_mut(),
        )
    };
    ALL.lock().unwrap_or_else(|e| e.into_inner()).retain(|p| *p != pc as usize);
    pc
}

/// Destroys a pool cache. The answer is the number of items that are out, if there are any.
pub(crate) fn internal_destroy(pc: nb::pool_cache_t) -> Option<i64> {
    let out = pool(pc).out();
    if out != 0 {
        // The items may still be used: the pool stays.
        return Some(out);
    }
    ALL.lock().unwrap_or_else(|e| e.into_inner()).push(pc as usize);
    // SAFETY: from `internal`.
    unsafe { pool_cache_destroy(pc) };
    None
}

pub(crate) fn internal_get(pc: nb::pool_cache_t, flags: c_int) -> *mut c_void {
    pool(pc).get(flags).cast()
}

pub(crate) fn internal_put(pc: nb::pool_cache_t, item: *mut c_void) {
    pool(pc).put(item.cast());
}
