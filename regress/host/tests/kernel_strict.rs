// SPDX-License-Identifier: BSD-2-Clause

//! Errors at which the hosted kernel stops: each case runs in a process of its own, which must abort with the right
//! message.

mod common;

use dm_host::{Config, Machine, netbsd as nb};

#[global_allocator]
static HEAP: dm_host::frugal::Watched = dm_host::frugal::Watched;

/// The words of a case's process before it aborted.
fn dies(case: &str) -> String {
    common::dies("KERNEL_STRICT_CASE", case)
}

/// The body of the process that dies; no test by itself.
#[test]
fn case() {
    let Ok(case) = std::env::var("KERNEL_STRICT_CASE") else { return };
    let machine = Machine::boot(Config { modules: false, ..Config::test() }).expect("boots");
    // SAFETY: what follows breaks the rules on purpose; the kernel stops before harm is done.
    unsafe { break_rules(&case) };
    drop(machine);
}

unsafe fn mutex(ipl: i32) -> *mut nb::kmutex_t {
    // SAFETY: zeros are a mutex that is not initialised.
    let m = Box::into_raw(Box::new(unsafe { std::mem::zeroed::<nb::kmutex_t>() }));
    // SAFETY: fresh memory.
    unsafe { nb::mutex_init(m, 0, ipl) };
    m
}

unsafe fn break_rules(case: &str) {
    // SAFETY: as in `case`.
    unsafe {
        match case {
            "double biodone" => {
                let bp = nb::getiobuf(std::ptr::null_mut(), true);
                (*bp).b_bcount = 512;
                (*bp).b_resid = 0;
                nb::biodone(bp);
                nb::biodone(bp);
            }
            "resid" => {
                let bp = nb::getiobuf(std::ptr::null_mut(), true);
                (*bp).b_bcount = 512;
                (*bp).b_resid = 513;
                nb::biodone(bp);
            }
            "freed buffer" => {
                let bp = nb::getiobuf(std::ptr::null_mut(), true);
                nb::putiobuf(bp);
                nb::biodone(bp);
            }
            "kmem size" => {
                let p = nb::kmem_alloc(100, nb::KM_SLEEP as u32);
                nb::kmem_free(p, 101);
            }
            "kmem twice" => {
                let p = nb::kmem_alloc(100, nb::KM_SLEEP as u32);
                nb::kmem_free(p, 100);
                nb::kmem_free(p, 100);
            }
            "kmem overrun" => {
                let p = nb::kmem_alloc(100, nb::KM_SLEEP as u32);
                p.cast::<u8>().add(100).write(1);
                nb::kmem_free(p, 100);
            }
            "kmem leak" => {
                nb::kmem_alloc(100, nb::KM_SLEEP as u32);
            }
            "kmem under spin" => {
                let m = mutex(nb::IPL_VM);
                nb::mutex_enter(m);
                nb::kmem_alloc(100, nb::KM_SLEEP as u32);
            }
            "mutex twice" => {
                let m = mutex(nb::IPL_NONE);
                nb::mutex_enter(m);
                nb::mutex_enter(m);
            }
            "mutex of another" => {
                let m = mutex(nb::IPL_NONE) as usize;
                nb::mutex_enter(m as *mut _);
                let _ = std::thread::spawn(move || {
                    nb::mutex_exit(m as *mut _);
                })
                .join();
            }
            "mutex destroyed held" => {
                let m = mutex(nb::IPL_NONE);
                nb::mutex_enter(m);
                nb::mutex_destroy(m);
            }
            "mutex leak" => {
                mutex(nb::IPL_NONE);
            }
            "adaptive in interrupt" => {
                let m = mutex(nb::IPL_NONE);
                dm_host::lwp::with_context(dm_host::lwp::Context::HardInterrupt, || {
                    nb::mutex_enter(m);
                });
            }
            "adaptive under spin" => {
                let (a, b) = (mutex(nb::IPL_VM), mutex(nb::IPL_NONE));
                nb::mutex_enter(a);
                nb::mutex_enter(b);
            }
            "sleep in softint" => {
                let m = mutex(nb::IPL_NONE);
                let cv = Box::into_raw(Box::new(std::mem::zeroed::<nb::kcondvar_t>()));
                nb::cv_init(cv, c"test".as_ptr());
                dm_host::lwp::with_context(dm_host::lwp::Context::SoftInterrupt, || {
                    nb::mutex_enter(m);
                    nb::cv_wait(cv, m);
                });
            }
            "prop released twice" => {
                let d = nb::prop_dictionary_create();
                nb::prop_object_release(d.cast());
                nb::prop_object_release(d.cast());
            }
            "prop leak" => {
                nb::prop_dictionary_create();
            }
            "callout pending" => {
                let c = Box::into_raw(Box::new(std::mem::zeroed::<nb::callout_t>()));
                nb::callout_init(c, 0);
                nb::callout_reset(c, 10, Some(nothing), std::ptr::null_mut());
                nb::callout_destroy(c);
            }
            "pool twice" | "pool leak" => {
                let pc = nb::pool_cache_init(
                    64,
                    0,
                    0,
                    0,
                    c"test".as_ptr(),
                    std::ptr::null_mut(),
                    nb::IPL_BIO,
                    None,
                    None,
                    std::ptr::null_mut(),
                );
                let item = nb::pool_cache_get_paddr(pc, nb::PR_WAITOK, std::ptr::null_mut());
                if case == "pool leak" {
                    nb::pool_cache_destroy(pc);
                }
                nb::pool_cache_put_paddr(pc, item, 0);
                nb::pool_cache_put_paddr(pc, item, 0);
            }
            "frugal kmem" => {
                nb::dm_shim_frugal(true);
                nb::kmem_alloc(100, nb::KM_SLEEP as u32);
            }
            "frugal heap" => {
                nb::dm_shim_frugal(true);
                drop(std::hint::black_box(vec![0u8; 100]));
            }
            "frugal pool" => {
                let pc = nb::pool_cache_init(
                    64,
                    0,
                    0,
                    0,
                    c"test".as_ptr(),
                    std::ptr::null_mut(),
                    nb::IPL_BIO,
                    None,
                    None,
                    std::ptr::null_mut(),
                );
                let one = nb::pool_cache_get_paddr(pc, nb::PR_WAITOK, std::ptr::null_mut());
                nb::pool_cache_put_paddr(pc, one, 0);
                nb::dm_shim_frugal(true);
                // One that is there is no excuse.
                nb::pool_cache_get_paddr(pc, nb::PR_WAITOK, std::ptr::null_mut());
            }
            "frugal prop" => {
                nb::dm_shim_frugal(true);
                nb::prop_dictionary_create();
            }
            "frugal mutex" => {
                let m = mutex(nb::IPL_NONE);
                nb::dm_shim_frugal(true);
                nb::mutex_enter(m);
                nb::mutex_exit(m);
                nb::dm_shim_frugal(false);
                // Another thread may ask for memory, but not with this mutex.
                let m = m as usize;
                let _ = std::thread::spawn(move || {
                    drop(vec![0u8; 100]);
                    nb::mutex_enter(m as *mut _);
                    drop(std::hint::black_box(vec![0u8; 100]));
                })
                .join();
            }
            other => panic!("no case {other}"),
        }
    }
}

unsafe extern "C" fn nothing(_: *mut std::ffi::c_void) {}

macro_rules! deaths {
    ($($name:ident: $case:literal => $says:literal;)*) => { $(
        #[test]
        fn $name() {
            let said = dies($case);
            assert!(said.contains($says), "{said}");
        }
    )* };
}

deaths! {
    double_biodone: "double biodone" => "is done already";
    resid_above_bcount: "resid" => "b_resid 513 of b_bcount 512";
    buffer_after_putiobuf: "freed buffer" => "no longer in use";
    kmem_of_another_size: "kmem size" => "is 100 bytes, not 101";
    kmem_freed_twice: "kmem twice" => "free already";
    kmem_overrun: "kmem overrun" => "written past its 100 bytes";
    kmem_leak: "kmem leak" => "100 bytes of kmem";
    kmem_under_spin_mutex: "kmem under spin" => "while holding a spin mutex";
    mutex_entered_twice: "mutex twice" => "already held by this lwp";
    mutex_left_by_another: "mutex of another" => "held by another lwp";
    mutex_destroyed_held: "mutex destroyed held" => "is held";
    mutex_leak: "mutex leak" => "was not destroyed";
    adaptive_in_interrupt: "adaptive in interrupt" => "in a hard interrupt";
    adaptive_under_spin: "adaptive under spin" => "while holding a spin mutex";
    sleep_in_softint: "sleep in softint" => "SoftInterrupt";
    prop_released_twice: "prop released twice" => "is no object";
    prop_leak: "prop leak" => "prop_dictionary at";
    callout_destroyed_pending: "callout pending" => "is pending";
    memory_waited_for_with_io_held: "frugal kmem" => "kmem_alloc(KM_SLEEP) by a thread that holds I/O";
    heap_used_with_io_held: "frugal heap" => "an allocation by a thread that holds I/O";
    pool_waited_for_with_io_held: "frugal pool" => "pool_cache_get(PR_WAITOK) by a thread that holds";
    property_list_made_with_io_held: "frugal prop" => "proplib by a thread that holds I/O";
    memory_waited_for_under_a_mutex_of_such_a_thread:
        "frugal mutex" => "which is taken while I/O is held";
    pool_item_put_twice: "pool twice" => "put back twice";
    pool_destroyed_in_use: "pool leak" => "1 items are out";
}
