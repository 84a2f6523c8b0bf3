// SPDX-License-Identifier: BSD-2-Clause

//! Threads and CPUs: curlwp, curcpu(9), cpu_intr_p, cpu_softintr_p, and the context that decides
//! what a thread may do.
//!
//! Each thread of the process that calls the kernel is an lwp of it. A thread gets a CPU when it
//! first needs one, in turn, and keeps it: the "CPU" is where per-CPU data live, not where the
//! thread really runs.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_uint};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::console::{kassert, kpanic};
use crate::netbsd as nb;

/// CPUs a machine may have at most.
pub const MAXCPUS: usize = 64;

/// Lwps with a magazine of their own in each pool cache; later ones share.
pub(crate) const MAXSLOTS: usize = 128;

/// The context of a thread, which decides the functions that it may call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Context {
    /// An ordinary thread: may sleep.
    Thread,
    /// A soft interrupt: may take adaptive mutexes, may not sleep otherwise.
    SoftInterrupt,
    /// A hard interrupt: may take spin mutexes only.
    HardInterrupt,
}

/// The name of an lwp, for [`crate::Machine::interrupt`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct LwpId(u64);

#[repr(C, align(64))]
pub(crate) struct Lwp {
    cpu: Cell<*const Cpu>,
    /// Spin mutexes held, plus [`HARD`] in a hard interrupt, plus [`FRUGAL`] while it holds I/O: with
    /// 0 an adaptive mutex can be taken without a closer look.
    pub(crate) nosleep: Cell<u32>,
    /// Adaptive mutexes held.
    pub(crate) held: Cell<u32>,
    context: Cell<Context>,
    /// The number of completions that the lwp is in. Other lwps read it in [`wait_for_completions`].
    completing: AtomicU32,
    /// Index of the lwp's magazines; [`MAXSLOTS`] for none.
    slot: Cell<u32>,
    id: Cell<u64>,
    /// Effective user of the hosted process; 0 is root.
    pub(crate) uid: Cell<u32>,
    /// Depth of [`crate::frugal::within`].
    pub(crate) inside: Cell<u32>,
    /// Depth of the big lock, lock.rs.
    pub(crate) biglock: Cell<u32>,
    /// The number of calls of mutex_enter(9) and its kin, for benchmarks.
    pub(crate) mutex_entries: Cell<u64>,
    /// The condition variable slept on, or 0 (condvar.rs).
    pub(crate) wchan: AtomicUsize,
    pub(crate) sleep: SleepState,
    /// The error that an interruptible sleep returns because of a pending signal; 0 without one.
    pub(crate) signal: AtomicI32,
}

/// A sleeping lwp's place in a sleep queue; all but `woken` belong to the queue's lock.
pub(crate) struct SleepState {
    pub(crate) next: UnsafeCell<*const Lwp>,
    pub(crate) interruptible: Cell<bool>,
    /// Tick at which the sleep ends, or `u64::MAX`.
    pub(crate) deadline: Cell<u64>,
    pub(crate) woken: AtomicU32,
}

/// The bit of `nosleep` that is set in a hard interrupt.
pub(crate) const HARD: u32 = 1 << 31;

/// Added to `nosleep` while the thread holds I/O.
const FRUGAL: u32 = 1 << 16;

#[repr(C, align(64))]
pub(crate) struct Cpu {
    index: u32,
}

static CPUS: [Cpu; MAXCPUS] = {
    let mut cpus = [const { Cpu { index: 0 } }; MAXCPUS];
    let mut i = 0;
    while i < MAXCPUS {
        cpus[i].index = i as u32;
        i += 1;
    }
    cpus
};

/// ncpu: number of CPUs of the machine.
#[allow(non_upper_case_globals, reason = "the kernel's name")]
#[unsafe(no_mangle)]
pub(crate) static ncpu: AtomicU32 = AtomicU32::new(1);

static NEXT_CPU: AtomicU32 = AtomicU32::new(0);
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static ALL: Mutex<All> = Mutex::new(All { lwps: Vec::new(), slots: [false; MAXSLOTS] });

struct All {
    lwps: Vec<LwpPtr>,
    slots: [bool; MAXSLOTS],
}

struct LwpPtr(*const Lwp);

// SAFETY: an entry is removed by its thread's exit, under the list's lock; what others touch
// through it is atomic, or set while the owner does not run (see `reset_cpus`).
unsafe impl Send for LwpPtr {}

thread_local! {
    static LWP: Lwp = const { Lwp {
        cpu: Cell::new(ptr::null()),
        nosleep: Cell::new(0),
        held: Cell::new(0),
        context: Cell::new(Context::Thread),
        completing: AtomicU32::new(0),
        slot: Cell::new(u32::MAX),
        id: Cell::new(0),
        uid: Cell::new(0),
        inside: Cell::new(0),
        biglock: Cell::new(0),
        mutex_entries: Cell::new(0),
        wchan: AtomicUsize::new(0),
        sleep: SleepState {
            next: UnsafeCell::new(ptr::null()),
            interruptible: Cell::new(false),
            deadline: Cell::new(u64::MAX),
            woken: AtomicU32::new(0),
        },
        signal: AtomicI32::new(0),
    } };

    static EXIT: Exit = const { Exit(Cell::new(ptr::null())) };
}

/// Removes a thread's lwp from the list when the thread ends.
struct Exit(Cell<*const Lwp>);

impl Drop for Exit {
    fn drop(&mut self) {
        let mut all = ALL.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(at) = all.lwps.iter().position(|l| l.0 == self.0.get()) {
            all.lwps.swap_remove(at);
            // SAFETY: an entry of the list is this living thread's own lwp.
            let lwp = unsafe { &*self.0.get() };
            if let Some(used) = all.slots.get_mut(lwp.slot.get() as usize) {
                *used = false;
            }
            drop(all);
            kassert!(lwp.held.get() == 0, "a thread ended with {} mutexes held", lwp.held.get());
            kassert!(lwp.spins() == 0, "a thread ended with a spin mutex held");
        }
    }
}

/// The calling thread's lwp.
#[inline(always)]
pub(crate) fn current() -> &'static Lwp {
    let lwp = LWP.with(|l| l as *const Lwp);
    // SAFETY: the reference is used by its own thread only and never outlives it: it is not stored
    // except in sleep queues, which the thread leaves before it goes on.
    unsafe { &*lwp }
}

impl Lwp {
    #[inline(always)]
    pub(crate) fn addr(&self) -> u64 {
        self as *const Lwp as u64
    }

    #[inline(always)]
    pub(crate) fn context(&self) -> Context {
        self.context.get()
    }

    #[inline(always)]
    fn cpu(&self) -> *const Cpu {
        let cpu = self.cpu.get();
        if cpu.is_null() { self.register() } else { cpu }
    }

    /// Index of the lwp's magazine in every pool cache, [`MAXSLOTS`] for none.
    #[inline(always)]
    pub(crate) fn slot(&self) -> usize {
        if self.cpu.get().is_null() {
            self.register();
        }
        self.slot.get() as usize
    }

    #[inline(always)]
    pub(crate) fn cpu_index(&self) -> usize {
        // SAFETY: `cpu` points into CPUS.
        unsafe { (*self.cpu()).index as usize }
    }

    #[cold]
    #[inline(never)]
    fn register(&self) -> *const Cpu {
        let index = NEXT_CPU.fetch_add(1, Ordering::Relaxed) % ncpu.load(Ordering::Relaxed);
        let cpu: *const Cpu = &CPUS[index as usize];
        self.cpu.set(cpu);
        if self.id.get() == 0 {
            self.id.set(NEXT_ID.fetch_add(1, Ordering::Relaxed));
            let mut all = ALL.lock().unwrap_or_else(|e| e.into_inner());
            let slot = all.slots.iter().position(|used| !used).unwrap_or(MAXSLOTS);
            if slot < MAXSLOTS {
                all.slots[slot] = true;
            }
            self.slot.set(slot as u32);
            all.lwps.push(LwpPtr(self));
            // A thread that is already past its destructors stays on the list; such a thread
            // calls no more kernel functions.
            let _ = EXIT.try_with(|exit| exit.0.set(self));
        }
        cpu
    }

    /// Spin mutexes held.
    #[inline]
    pub(crate) fn spins(&self) -> u32 {
        self.nosleep.get() & (FRUGAL - 1)
    }

    /// `true` if the thread holds I/O, so that it may not wait for memory.
    #[inline]
    pub(crate) fn is_frugal(&self) -> bool {
        self.nosleep.get() & !HARD >= FRUGAL
    }

    pub(crate) fn set_frugal(&self, on: bool) {
        kassert!(on || self.is_frugal(), "dm_shim_frugal: no promise to end");
        let before = self.nosleep.get();
        self.nosleep.set(if on { before + FRUGAL } else { before - FRUGAL });
    }

    /// Stops the machine if the thread may not sleep now, as ASSERT_SLEEPABLE() does.
    #[inline]
    pub(crate) fn assert_sleepable(&self, what: &str) {
        if self.nosleep.get() & (HARD | (FRUGAL - 1)) != 0 || self.context.get() != Context::Thread
        {
            self.not_sleepable(what)
        }
    }

    #[cold]
    fn not_sleepable(&self, what: &str) -> ! {
        match self.context.get() {
            Context::Thread => kpanic!("{what} while holding a spin mutex"),
            context => kpanic!("{what} in {context:?} context"),
        }
    }
}

/// Makes the calling thread, one of the kernel's own, known to [`wait_for_completions`] before its first completion.
pub(crate) fn begin() {
    current().cpu();
}

/// The calling thread, for [`crate::Machine::interrupt`].
pub fn current_lwp() -> LwpId {
    let lwp = current();
    lwp.cpu();
    LwpId(lwp.id.get())
}

/// A line about the calling thread, for messages.
pub(crate) fn describe() -> String {
    let lwp = current();
    let thread = std::thread::current();
    format!(
        "lwp {} ({}), {:?}, {} adaptive and {} spin mutexes held",
        lwp.id.get(),
        thread.name().unwrap_or("unnamed"),
        lwp.context.get(),
        lwp.held.get(),
        lwp.spins()
    )
}

/// Runs `f` as if in another context.
pub fn with_context<R>(context: Context, f: impl FnOnce() -> R) -> R {
    let lwp = current();
    let before = lwp.context.replace(context);
    let spins = lwp.nosleep.get();
    let hard = if context == Context::HardInterrupt { HARD } else { 0 };
    lwp.nosleep.set((spins & !HARD) | hard);
    let result = f();
    kassert!(
        lwp.nosleep.get() & !HARD == spins & !HARD,
        "{context:?} handler returned with a spin mutex held"
    );
    lwp.context.set(before);
    lwp.nosleep.set(spins);
    result
}

/// Runs `f` as the user `uid`; 0 is root.
pub fn as_user<R>(uid: u32, f: impl FnOnce() -> R) -> R {
    let lwp = current();
    let before = lwp.uid.replace(uid);
    let result = f();
    lwp.uid.set(before);
    result
}

/// The number of times that this thread has entered a mutex through mutex(9), for benchmarks.
pub fn mutex_entries() -> u64 {
    current().mutex_entries.get()
}

/// Gives the threads of a new machine their CPUs anew. Only the calling thread may be in the kernel.
pub(crate) fn reset_cpus(count: usize) {
    ncpu.store(count.clamp(1, MAXCPUS) as u32, Ordering::Relaxed);
    NEXT_CPU.store(0, Ordering::Relaxed);
    let all = ALL.lock().unwrap_or_else(|e| e.into_inner());
    for lwp in &all.lwps {
        // SAFETY: listed lwps live, and no other thread is in the kernel between two machines.
        unsafe { (*lwp.0).cpu.set(&CPUS[0]) };
    }
    let count = ncpu.load(Ordering::Relaxed);
    for (i, lwp) in all.lwps.iter().enumerate() {
        // SAFETY: as above.
        unsafe { (*lwp.0).cpu.set(&CPUS[i % count as usize]) };
    }
    NEXT_CPU.store(all.lwps.len() as u32, Ordering::Relaxed);
}

/// Posts a signal: an interruptible sleep of the lwp ends with `error`. `false` if the lwp is gone.
pub(crate) fn interrupt(id: LwpId, error: i32) -> bool {
    let post = |lwp: &Lwp| {
        lwp.signal.store(error, Ordering::SeqCst);
        crate::condvar::unsleep(lwp);
    };
    with(id, post).is_some()
}

/// `true` if the lwp sleeps on a condition variable.
pub(crate) fn sleeps(id: LwpId) -> bool {
    with(id, |lwp| lwp.wchan.load(Ordering::SeqCst) != 0).unwrap_or(false)
}

/// Calls `f` with an lwp, if that has not ended.
fn with<R>(id: LwpId, f: impl FnOnce(&Lwp) -> R) -> Option<R> {
    let all = ALL.lock().unwrap_or_else(|e| e.into_inner());
    // SAFETY: listed lwps live as long as the list is locked.
    let lwp = all.lwps.iter().map(|lwp| unsafe { &*lwp.0 }).find(|lwp| lwp.id.get() == id.0);
    lwp.map(f)
}

/// Runs a system call of the calling thread. On return no lock may be held, and signals are taken.
pub(crate) fn syscall<R>(f: impl FnOnce() -> R) -> R {
    let lwp = current();
    let result = f();
    kassert!(lwp.held.get() == 0, "system call returned with {} mutexes held", lwp.held.get());
    kassert!(lwp.nosleep.get() == 0, "system call returned with a spin mutex held, or holding I/O");
    kassert!(lwp.biglock.get() == 0, "system call returned with the kernel lock held");
    if lwp.signal.load(Ordering::Relaxed) != 0 {
        lwp.signal.store(0, Ordering::SeqCst);
    }
    result
}

/// curlwp, for a module.
#[unsafe(no_mangle)]
extern "C" fn x86_curlwp() -> *mut nb::lwp {
    (current() as *const Lwp).cast_mut().cast()
}

/// The process of a thread: each hosted thread is a process of its own.
#[unsafe(no_mangle)]
extern "C" fn dm_hosted_process() -> c_int {
    let lwp = current();
    lwp.cpu();
    lwp.id.get() as c_int
}

/// cpu_index(curcpu()), for the shim.
#[unsafe(no_mangle)]
extern "C" fn dm_hosted_cpu() -> c_uint {
    current().cpu_index() as c_uint
}

/// cpu_intr_p(9): `true` in a hard interrupt.
#[unsafe(no_mangle)]
extern "C" fn cpu_intr_p() -> bool {
    current().context() == Context::HardInterrupt
}

/// cpu_softintr_p(9): `true` in a soft interrupt.
#[unsafe(no_mangle)]
extern "C" fn cpu_softintr_p() -> bool {
    current().context() == Context::SoftInterrupt
}

/// Waits until every lwp that is in a completion now has left it.
pub(crate) fn wait_for_completions() {
    let all = ALL.lock().unwrap_or_else(|e| e.into_inner());
    for lwp in &all.lwps {
        // SAFETY: listed lwps live, and leave the list under its lock.
        while unsafe { (*lwp.0).completing.load(Ordering::Acquire) } != 0 {
            std::thread::yield_now();
        }
    }
}

/// Waits until `*word` is no longer `value`, or the thread is woken; spurious wakeups happen.
pub(crate) fn futex_wait(word: *const AtomicU32, value: u32) {
    // SAFETY: FUTEX_WAIT reads the word, which the caller keeps alive.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word,
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            value,
            ptr::null::<libc::timespec>(),
        );
    }
}

/// Wakes up to `count` waiters of the word, which may be gone already.
pub(crate) fn futex_wake(word: *const AtomicU32, count: c_int) {
    // SAFETY: FUTEX_WAKE does not touch the word.
    unsafe {
        libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, count);
    }
}

impl Lwp {
    /// Runs a completion, which may not sleep, in whatever context.
    #[inline(always)]
    pub(crate) fn in_softint<R>(&self, f: impl FnOnce() -> R) -> R {
        let before = self.context.replace(Context::SoftInterrupt);
        let depth = self.completing.load(Ordering::Relaxed);
        self.completing.store(depth.wrapping_add(1), Ordering::Relaxed);
        let result = f();
        self.completing.store(depth, Ordering::Release);
        self.context.set(before);
        result
    }
}
