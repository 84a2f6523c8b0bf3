// SPDX-License-Identifier: BSD-2-Clause

//! Fault injection: the kernel's fallible functions that fail, and the calls on which they do.
//!
//! A test counts the calls of an operation that succeeds, or repeats it with call 1, 2, 3 …
//! failing until a run in which none did: [`FaultPlan::failing`] is one such run.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use crate::errno::Errno;

/// A function, or group of functions, that can be told to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Site {
    /// kmem_alloc(9) and kmem_zalloc(9) with KM_NOSLEEP: a null pointer.
    Kmem,
    /// pool_cache_get(9) with PR_NOWAIT: a null pointer, even where items are in reserve.
    Pool,
    /// The creating and setting functions of proplib(3), which say that they may fail though a
    /// kernel's wait for memory: a null pointer, or false.
    Prop,
    /// namei_simple_kernel: ENOENT.
    Namei,
    /// bdevvp: ENOMEM.
    Bdevvp,
    /// VOP_OPEN(9) of a device node: EIO.
    Open,
    /// VOP_IOCTL(9) of a device node: EIO.
    Ioctl,
    /// config_attach_pseudo: a null pointer.
    ConfigAttach,
    /// config_cfdriver_attach, config_cfattach_attach: EEXIST.
    ConfigTables,
    /// devsw_attach: EEXIST.
    Devsw,
    /// copyin(9) and its kin: EFAULT.
    Copyin,
    /// copyout(9) and its kin: EFAULT.
    Copyout,
    /// sysctl_createv: ENOMEM.
    Sysctl,
    /// pmf_device_register1: false.
    Pmf,
    /// An I/O of any component: EIO.
    Strategy,
    /// kthread_create: EAGAIN.
    Kthread,
}

/// All sites, in the order of their declaration.
const SITES: [Site; 16] = [
    Site::Kmem,
    Site::Pool,
    Site::Prop,
    Site::Namei,
    Site::Bdevvp,
    Site::Open,
    Site::Ioctl,
    Site::ConfigAttach,
    Site::ConfigTables,
    Site::Devsw,
    Site::Copyin,
    Site::Copyout,
    Site::Sysctl,
    Site::Pmf,
    Site::Strategy,
    Site::Kthread,
];

struct SiteState {
    calls: AtomicU64,
    /// The call that fails, counted from 1; 0 for none, `u64::MAX` for every one.
    failing: AtomicU64,
    error: AtomicI32,
    failed: AtomicU64,
}

/// The one plan of the process; [`crate::Machine::faults`] hands it out.
pub struct FaultPlan {
    /// `true` if there is anything to count or to fail. Read on every fallible call, also on the I/O path.
    active: AtomicBool,
    exhausted: AtomicBool,
    sites: [SiteState; SITES.len()],
    /// The calls that fail as in `failing`, counted over all sites together.
    any_failing: AtomicU64,
    any_calls: AtomicU64,
}

pub(crate) static PLAN: FaultPlan = FaultPlan {
    active: AtomicBool::new(false),
    exhausted: AtomicBool::new(false),
    sites: [const {
        SiteState {
            calls: AtomicU64::new(0),
            failing: AtomicU64::new(0),
            error: AtomicI32::new(0),
            failed: AtomicU64::new(0),
        }
    }; SITES.len()],
    any_failing: AtomicU64::new(0),
    any_calls: AtomicU64::new(0),
};

/// Counts a call, which fails with `error` or the plan's if it is to fail.
#[inline(always)]
pub(crate) fn check(site: Site, error: Errno) -> Result<(), Errno> {
    if PLAN.active.load(Ordering::Relaxed) { PLAN.check(site, error) } else { Ok(()) }
}

impl FaultPlan {
    /// Forgets every count and order; nothing fails any more.
    pub fn reset(&self) {
        self.active.store(false, Ordering::Relaxed);
        self.any_failing.store(0, Ordering::Relaxed);
        self.any_calls.store(0, Ordering::Relaxed);
        for site in &self.sites {
            site.calls.store(0, Ordering::Relaxed);
            site.failing.store(0, Ordering::Relaxed);
            site.error.store(0, Ordering::Relaxed);
            site.failed.store(0, Ordering::Relaxed);
        }
        self.exhaust_memory(false);
    }

    /// Starts counting calls, from 0, without failing any.
    pub fn count(&self) {
        self.reset();
        self.active.store(true, Ordering::Relaxed);
    }

    /// Calls of a site since the last [`FaultPlan::count`] or [`FaultPlan::reset`].
    pub fn calls(&self, site: Site) -> u64 {
        self.sites[site as usize].calls.load(Ordering::Relaxed)
    }

    /// Failures injected at a site.
    pub fn failures(&self, site: Site) -> u64 {
        self.sites[site as usize].failed.load(Ordering::Relaxed)
    }

    /// Has the `nth` call of the site from now on fail, counted from 1. Earlier orders for the site are dropped.
    pub fn fail(&self, site: Site, nth: u64) {
        let state = &self.sites[site as usize];
        state.calls.store(0, Ordering::Relaxed);
        state.failing.store(nth, Ordering::Relaxed);
        self.active.store(true, Ordering::Relaxed);
    }

    /// Has a call fail as [`FaultPlan::fail`] does, with an error of the test's choice.
    pub fn fail_with(&self, site: Site, nth: u64, error: Errno) {
        self.sites[site as usize].error.store(error.0, Ordering::Relaxed);
        self.fail(site, nth);
    }

    /// Has every call of the site fail until [`FaultPlan::reset`].
    pub fn fail_always(&self, site: Site) {
        self.fail(site, u64::MAX);
    }

    /// Exhausts the memory, or ends that: a call that may fail fails, except for items that a pool cache holds in
    /// reserve; a call that may sleep waits for items to come back, or until memory returns.
    pub fn exhaust_memory(&self, exhausted: bool) {
        self.exhausted.store(exhausted, Ordering::SeqCst);
        if !exhausted {
            crate::kmem::memory_returned();
        }
    }

    #[inline(always)]
    pub(crate) fn exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// Runs `operation` with its `nth` fallible call failing, of any site. The answer says at which
    /// site that was, `None` if it made fewer calls. Afterwards nothing fails any more.
    pub fn failing<R>(&self, nth: u64, operation: impl FnOnce() -> R) -> (R, Option<Site>) {
        self.reset();
        self.any_failing.store(nth, Ordering::Relaxed);
        self.active.store(true, Ordering::Relaxed);
        let result = operation();
        let site = SITES.into_iter().find(|site| self.failures(*site) > 0);
        self.reset();
        (result, site)
    }

    #[cold]
    #[inline(never)]
    fn check(&self, site: Site, error: Errno) -> Result<(), Errno> {
        let state = &self.sites[site as usize];
        let call = state.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let any = self.any_calls.fetch_add(1, Ordering::Relaxed) + 1;
        let failing = state.failing.load(Ordering::Relaxed);
        if failing == u64::MAX || call == failing || any == self.any_failing.load(Ordering::Relaxed)
        {
            state.failed.fetch_add(1, Ordering::Relaxed);
            let chosen = state.error.load(Ordering::Relaxed);
            return Err(if chosen != 0 { Errno(chosen) } else { error });
        }
        Ok(())
    }
}
