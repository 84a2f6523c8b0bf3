// SPDX-License-Identifier: BSD-2-Clause

//! A machine: its boot and its shutdown, and the requests of tests and tools in between.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use crate::components::{self, Allocation, Disk, DiskSpec};
use crate::console::kassert;
use crate::dev::{Dev, NODEV, makedev};
use crate::devsw::{self, Driver};
use crate::errno::Errno;
use crate::fault::{FaultPlan, PLAN};
use crate::file::{File, Flags, Node};
use crate::lwp::{self, LwpId};
use crate::mount::Mount;
use crate::netbsd as nb;
use crate::specfs::{self, Entry};
use crate::strategy;
use crate::sysctl;
use crate::{
    aes, autoconf, buf, callout, condvar, console, dkwedge, iostat, kmem, kthread, module,
};
use crate::{mutex, pool_cache, proplib, xcall};

/// The machine's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Clock {
    /// The system's clock.
    #[default]
    Real,
    /// Time passes when a test says so: [`Machine::advance_ticks`].
    Manual,
}

/// The configuration that a machine is booted with.
#[derive(Clone, Debug)]
pub struct Config {
    /// CPUs, 1 to 64.
    pub ncpu: usize,
    /// User of the booting thread; 0 is root. See [`Machine::as_user`].
    pub uid: u32,
    /// The clock.
    pub clock: Clock,
    /// The pattern that fresh kernel memory is filled with, four bytes at a time; 0 for none.
    pub pattern: u32,
    /// `true` to record who allocated each block of kmem(9), for the leak report. Slow.
    pub trace_memory: bool,
    /// `true` to keep the console's lines without printing them.
    pub quiet: bool,
    /// `true` to initialise the modules that are linked in.
    pub modules: bool,
    /// `true` if the kernel has AES, which a kernel has only if its configuration asks for it.
    pub aes: bool,
}

impl Default for Config {
    /// Two CPUs, root, a real clock, a quiet console, the modules initialised.
    fn default() -> Config {
        Config {
            ncpu: 2,
            uid: 0,
            clock: Clock::Real,
            pattern: 0xdead_beef,
            trace_memory: false,
            quiet: true,
            modules: true,
            aes: true,
        }
    }
}

impl Config {
    /// The default with a manual clock, for tests.
    pub fn test() -> Config {
        Config { clock: Clock::Manual, ..Config::default() }
    }

    /// The default without filling memory, for benchmarks.
    pub fn bench() -> Config {
        Config { pattern: 0, ..Config::default() }
    }
}

/// An event that pmf(9) tells devices of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pmf {
    /// The machine goes to sleep.
    Suspend,
    /// The machine wakes up.
    Resume,
    /// The machine shuts down.
    Shutdown,
}

static RUNNING: Mutex<bool> = Mutex::new(false);
static STOPPED: Condvar = Condvar::new();

/// A running kernel. Dropping it shuts it down, and aborts the process if something is left over.
pub struct Machine {
    softbio: Option<JoinHandle<()>>,
    clock: Option<JoinHandle<()>>,
    manual: bool,
    loaded: Mutex<bool>,
    down: bool,
}

/// A thread in the kernel, from [`Machine::spawn`].
pub struct Kthread<T> {
    handle: JoinHandle<T>,
    lwp: LwpId,
}

impl<T> Kthread<T> {
    /// Waits for the thread to end; a panic of its goes on in the caller.
    pub fn join(self) -> T {
        self.handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The thread's lwp, for [`Machine::interrupt`].
    pub fn lwp(&self) -> LwpId {
        self.lwp
    }

    /// `true` if the thread sleeps on a condition variable.
    pub fn sleeps(&self) -> bool {
        lwp::sleeps(self.lwp)
    }

    /// `true` if the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl Machine {
    /// Boots a machine; waits until the one before it, if there is one, is shut down. The error
    /// is that of the first module that does not initialise.
    pub fn boot(config: Config) -> Result<Machine, Errno> {
        {
            let mut running = RUNNING.lock().unwrap_or_else(|e| e.into_inner());
            while *running {
                running = STOPPED.wait(running).unwrap_or_else(|e| e.into_inner());
            }
            *running = true;
        }
        PLAN.reset();
        console::clear();
        console::set_quiet(config.quiet);
        kmem::configure(config.pattern, config.trace_memory);
        lwp::reset_cpus(config.ncpu);
        aes::configure(config.aes);
        lwp::current().uid.set(0);
        specfs::start();
        let machine = Machine {
            softbio: Some(buf::start()),
            clock: callout::start(config.clock == Clock::Manual),
            manual: config.clock == Clock::Manual,
            loaded: Mutex::new(false),
            down: false,
        };
        machine.mknod_control();
        if config.modules
            && let Err(error) = machine.modload()
        {
            let left = machine.shutdown();
            assert!(left.is_empty(), "a failed boot left {left:#?}");
            return Err(error);
        }
        lwp::current().uid.set(config.uid);
        Ok(machine)
    }

    fn mknod_control(&self) {
        let control = Entry::Character(makedev(194, 0));
        // The name space is empty: there is nothing to collide with.
        let _ = specfs::add_name("/dev/mapper/control", control);
    }

    /// Shuts the machine down. The answer is a list of leaks, which should be empty.
    pub fn shutdown(mut self) -> Vec<String> {
        self.stop()
    }

    fn stop(&mut self) -> Vec<String> {
        if std::mem::replace(&mut self.down, true) {
            return Vec::new();
        }
        PLAN.reset();
        lwp::current().uid.set(0);
        let mut left = Vec::new();
        components::release_all();
        let stuck = autoconf::detach_all(nb::DETACH_SHUTDOWN);
        left.extend(stuck.iter().map(|name| format!("device {name} would not detach")));
        if *self.loaded.lock().unwrap_or_else(|e| e.into_inner())
            && let Err(error) = self.modunload()
        {
            left.push(format!("the module would not be unloaded: {error}"));
        }
        components::detach_all();
        left.extend(specfs::stop());
        left.extend(dkwedge::leaks());
        left.extend(autoconf::leaks());
        left.extend(devsw::leaks());
        left.extend(sysctl::leaks());
        left.extend(iostat::leaks());
        if let Some(softbio) = self.softbio.take() {
            left.extend(buf::stop(softbio));
        }
        left.extend(callout::stop(self.clock.take()));
        left.extend(kthread::leaks());
        left.extend(pool_cache::leaks());
        left.extend(proplib::leaks());
        left.extend(mutex::leaks());
        left.extend(condvar::leaks());
        left.extend(kmem::leaks());
        *RUNNING.lock().unwrap_or_else(|e| e.into_inner()) = false;
        STOPPED.notify_one();
        left
    }

    /// Initialises the modules that are linked in (modload(8)).
    pub fn modload(&self) -> Result<(), Errno> {
        let mut loaded = self.loaded.lock().unwrap_or_else(|e| e.into_inner());
        if *loaded {
            return Err(Errno::EEXIST);
        }
        for module in module::builtin() {
            lwp::syscall(|| module.command(nb::modcmd_MODULE_CMD_INIT))?;
        }
        *loaded = true;
        Ok(())
    }

    /// Finalises the modules that are linked in (modunload(8)): EBUSY while they are in use.
    pub fn modunload(&self) -> Result<(), Errno> {
        let mut loaded = self.loaded.lock().unwrap_or_else(|e| e.into_inner());
        if !*loaded {
            return Err(Errno::ENOENT);
        }
        for module in module::builtin() {
            let before = xcall::barriers();
            lwp::syscall(|| module.command(nb::modcmd_MODULE_CMD_FINI))?;
            // The module's memory goes now, while another CPU may still be on its way out of its code.
            kassert!(
                xcall::barriers() > before,
                "{}: unloaded without waiting for other CPUs (xc_barrier)",
                module.name()
            );
        }
        *loaded = false;
        Ok(())
    }

    /// Names of the modules that are linked in.
    pub fn modules(&self) -> Vec<String> {
        module::builtin().into_iter().map(module::Module::name).collect()
    }

    /// Attaches a disk and makes its nodes below /dev.
    pub fn attach_disk(&self, spec: DiskSpec) -> Result<Disk, Errno> {
        components::attach(spec)
    }

    /// The allocation of a disk at a byte of `dev`, for at most `len` bytes, and `true` if discarded sectors read as
    /// zeros. `None` if `dev` is no attached disk, and beyond its end.
    pub fn allocation(&self, dev: Dev, offset: u64, len: u64) -> Option<(Allocation, bool)> {
        components::allocation(dev, offset, len)
    }

    /// Bytes in a sector of an attached disk; `None` if `dev` is no attached disk.
    pub fn sector_size(&self, dev: Dev) -> Option<u32> {
        components::sector_size(dev)
    }

    /// mknod(2), block or character: EEXIST if the name is taken.
    pub fn mknod(&self, path: &str, dev: Dev, block: bool) -> Result<(), Errno> {
        specfs::add_name(path, if block { Entry::Block(dev) } else { Entry::Character(dev) })
    }

    /// Makes a file that is no device: ENOTBLK for an open of it as one.
    pub fn mkfile(&self, path: &str) -> Result<(), Errno> {
        specfs::add_name(path, Entry::Regular)
    }

    /// symlink(2)
    pub fn symlink(&self, target: &str, path: &str) -> Result<(), Errno> {
        specfs::add_name(path, Entry::Link(target.to_owned()))
    }

    /// Sets the function that resolves names which are not in the table, such as those of devices that come and go,
    /// for which udev or devfs would make nodes.
    pub fn set_resolver(&self, resolver: Arc<specfs::Resolver>) {
        specfs::set_resolver(resolver);
    }

    /// unlink(2): ENOENT if there is no such name.
    pub fn unlink(&self, path: &str) -> Result<(), Errno> {
        specfs::remove_name(path)
    }

    /// The names below a directory, such as `/dev/mapper`, sorted.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let below = format!("{}/", directory.trim_end_matches('/'));
        specfs::names().into_iter().map(|n| n.0).filter(|n| n.starts_with(&below)).collect()
    }

    /// The device number of a name, and whether it is a block device; None for other names.
    pub fn stat(&self, path: &str) -> Option<(Dev, bool)> {
        match specfs::lookup(path).ok()?.1 {
            Entry::Block(dev) => Some((dev, true)),
            Entry::Character(dev) => Some((dev, false)),
            Entry::Regular | Entry::Link(_) => None,
        }
    }

    /// open(2)
    pub fn open<'a>(&self, node: impl Into<Node<'a>>, flags: Flags) -> Result<File, Errno> {
        File::open(node.into(), flags)
    }

    /// Mounts a file system on an open block device. `sync` writes the file system's data.
    ///
    /// # Errors
    /// ENXIO if the device is not open.
    pub fn mount(
        &self,
        dev: Dev,
        sync: impl Fn() -> Result<(), Errno> + Send + Sync + 'static,
    ) -> Result<Mount, Errno> {
        Mount::new(dev, Box::new(sync))
    }

    /// Marks an open block device as mounted, or not: while it is, it cannot be opened.
    pub fn set_mounted(&self, dev: Dev, mounted: bool) -> Result<(), Errno> {
        specfs::set_mounted(dev, mounted)
    }

    /// The number of times that a block device is open, over all its nodes.
    pub fn block_opens(&self, dev: Dev) -> u32 {
        specfs::opens(dev, NODEV).0
    }

    /// The number of times that a character device is open, over all its nodes.
    pub fn character_opens(&self, dev: Dev) -> u32 {
        specfs::opens(NODEV, dev).1
    }

    /// d_psize: the size of a block device for swapping, in blocks of 512 bytes.
    pub fn psize(&self, dev: Dev) -> Option<i64> {
        strategy::psize(dev)
    }

    /// d_dump: writes a piece of a crash dump. The driver may neither sleep nor allocate.
    pub fn dump(&self, dev: Dev, blkno: i64, data: &[u8]) -> Result<(), Errno> {
        strategy::dump(dev, blkno, data)
    }

    /// Reads a sysctl(7) node by its dotted name.
    pub fn sysctl_get(&self, name: &str) -> Result<sysctl::Value, Errno> {
        lwp::syscall(|| sysctl::get(name))
    }

    /// Reads a node that is a number.
    pub fn sysctl_int(&self, name: &str) -> Result<i64, Errno> {
        match self.sysctl_get(name)? {
            sysctl::Value::Int(v) => Ok(v.into()),
            sysctl::Value::Quad(v) => Ok(v),
            sysctl::Value::String(_) => Err(Errno::EINVAL),
        }
    }

    /// Reads a node that is a text.
    pub fn sysctl_text(&self, name: &str) -> Result<String, Errno> {
        match self.sysctl_get(name)? {
            sysctl::Value::String(v) => Ok(v),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Writes a sysctl(7) node by its dotted name.
    pub fn sysctl_set(&self, name: &str, value: &sysctl::Value) -> Result<(), Errno> {
        lwp::syscall(|| sysctl::set(name, value))
    }

    /// Names of the sysctl(7) nodes that drivers made, sorted.
    pub fn sysctl_names(&self) -> Vec<String> {
        sysctl::names()
    }

    /// kern.drivers
    pub fn drivers(&self) -> Vec<Driver> {
        devsw::drivers()
    }

    /// Names of the devices that autoconf(9) knows, such as `dm1`.
    pub fn devices(&self) -> Vec<String> {
        autoconf::devices()
    }

    /// hw.disknames
    pub fn disk_names(&self) -> Vec<String> {
        iostat::disk_names()
    }

    /// drvctl -d: detaches a device; `flags` are `netbsd::DETACH_*`.
    pub fn detach_device(&self, name: &str, flags: i32) -> Result<(), Errno> {
        lwp::syscall(|| autoconf::detach_by_name(name, flags))
    }

    /// config_detach_all: detaches devices as a shutdown does. The answer is the names of those that would not
    /// detach.
    pub fn detach_all_devices(&self, flags: i32) -> Vec<String> {
        lwp::syscall(|| autoconf::detach_all(flags))
    }

    /// pmf(9): tells all devices of an event. The error is the name of the first that refuses.
    pub fn pmf(&self, what: Pmf) -> Result<(), String> {
        lwp::syscall(|| match what {
            Pmf::Suspend => autoconf::power(false),
            Pmf::Resume => autoconf::power(true),
            Pmf::Shutdown => {
                autoconf::pmf_shutdown();
                Ok(())
            }
        })
    }

    /// Runs `f` as a user; 0 is root. For the calling thread.
    pub fn as_user<R>(&self, uid: u32, f: impl FnOnce() -> R) -> R {
        lwp::as_user(uid, f)
    }

    /// Starts a thread whose lwp is known, so that it can be interrupted.
    pub fn spawn<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Kthread<T> {
        let (send, receive) = std::sync::mpsc::channel();
        let handle = std::thread::spawn(move || {
            // The receiver waits for exactly this.
            let _ = send.send(lwp::current_lwp());
            f()
        });
        match receive.recv() {
            Ok(lwp) => Kthread { handle, lwp },
            Err(_) => unreachable!("the thread sends before it does anything else"),
        }
    }

    /// Posts a signal to a thread: an interruptible sleep of its system call ends with EINTR. `false` if the thread
    /// is gone.
    pub fn interrupt(&self, lwp: LwpId) -> bool {
        lwp::interrupt(lwp, Errno::EINTR.0)
    }

    /// Sends a signal as [`Machine::interrupt`] does, after which the call is restarted (ERESTART).
    pub fn interrupt_restart(&self, lwp: LwpId) -> bool {
        lwp::interrupt(lwp, Errno::ERESTART.0)
    }

    /// Moves a manual clock on by so many ticks, of which a second has 100. Callouts and timed
    /// sleeps that are due run before this returns.
    pub fn advance_ticks(&self, count: u64) {
        assert!(self.manual, "the clock is not a manual one");
        callout::advance(count);
    }

    /// The kernel's messages, a string a line.
    pub fn console(&self) -> Vec<String> {
        console::lines()
    }

    /// Forgets the kernel's messages.
    pub fn clear_console(&self) {
        console::clear();
    }

    /// The plan of the calls that fail.
    pub fn faults(&self) -> &'static FaultPlan {
        &PLAN
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let left = self.stop();
        if !left.is_empty() {
            eprintln!("left over at shutdown:");
            for line in &left {
                eprintln!("  {line}");
            }
            if !std::thread::panicking() {
                console::stop("something is left over at shutdown");
            }
        }
    }
}
