// SPDX-License-Identifier: BSD-2-Clause

//! dm-core's [`Kernel`] for NetBSD.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::Ordering;

use dm_core::aes::Aes;
use dm_core::clock::Clock;
use dm_core::hash::Hash;
use dm_core::host::{Host, Plan, Ready};
use dm_core::kernel::{Answer, Kernel, LabelGuard};
use dm_core::pdev::Pdev;
use dm_core::table::Component;
use dm_core::units::{Dev, Minor};
use dm_core::{Errno, errno};

use super::component::{Disk, guarded};
use super::job::{self, Opened, TableIo};
use super::unit::Unit;
use super::{dm_label_guard, dm_legacy_errors, global};
use crate::netbsd::condvar::Condvar;
use crate::netbsd::mutex::{Adaptive, Guard, Mutex};
use crate::netbsd::vnode::{self, Vnode};
use crate::netbsd::{aes, cpu, hash, kthread, sys};

/// NetBSD's kernel, as dm-core sees it.
pub struct NetBsd;

impl Kernel for NetBsd {
    type Mutex<T: Send> = Mutex<T>;
    type Condvar = Condvar;
    type Disk = Disk;
    type Handle = Vnode;
    type Unit = Unit;
    type Frugal = cpu::Frugal;

    fn handle(disk: &Disk) -> Vnode {
        disk.device().vnode()
    }

    fn find(&self, path: &str) -> Result<Dev, Errno> {
        vnode::find(path)
    }

    fn open(&self, dev: Dev) -> Result<Disk, Errno> {
        Disk::open(dev)
    }

    fn ask(&self, disk: &Disk) -> Result<Answer, Errno> {
        let device = disk.device();
        let writable = device.ask_writable()?;
        let own = device.dev().major() == self.block_major();
        let (size, sector_size) = if own { device.own_size()? } else { device.size()? };
        // A dm device has no label of its driver's: the label sectors below it are guarded there.
        // And it may be suspended, to be resumed by this very thread, so that reading it must not
        // wait.
        let looked_for = self.label_guard() != LabelGuard::Off && !own;
        let guard = if looked_for { guarded(device, size, sector_size)? } else { None };
        Ok(Answer { size, sector_size, writable, guard })
    }

    fn is_gone(&self, disk: &Disk) -> bool {
        disk.device().is_dead()
    }

    const NESTED: usize = job::NESTED;

    fn thread_bytes(&self) -> usize {
        kthread::bytes()
    }

    fn host(
        &self,
        minor: Minor,
        plan: &Plan,
        ready: Arc<Ready>,
        components: &[Pdev<NetBsd>],
    ) -> Result<Arc<dyn Host>, Errno> {
        let slot = global().and_then(|global| global.slots.get(minor.get()));
        // A device of ours may be suspended, and answer only when it no longer is; and its next
        // table may answer otherwise. So it is flushed after a write.
        let own = self.block_major();
        let opened = |pdev: &Pdev<NetBsd>| {
            let disk = pdev.share();
            let keeps_fua = disk.device().dev().major() != own && disk.device().keeps_fua();
            Opened { size: pdev.size(), disk, keeps_fua }
        };
        let slot = slot.ok_or(Errno::ENXIO)?;
        let components = components.iter().map(opened).collect();
        Ok(TableIo::new(slot, minor, plan, ready, components))
    }

    fn attach(&self, minor: Minor) -> Result<Unit, Errno> {
        Unit::attach(minor)
    }

    fn block_major(&self) -> u32 {
        // SAFETY: looks the driver's own table up.
        u32::try_from(unsafe { sys::dm_shim_bmajor() }).unwrap_or(u32::MAX)
    }

    fn authorize(&self) -> Result<(), Errno> {
        // SAFETY: asks about the calling thread.
        errno::Errno::check(unsafe { sys::dm_shim_authorize() })
    }

    fn process(&self) -> u64 {
        // SAFETY: asks about the calling thread.
        u64::from(unsafe { sys::dm_shim_process() }.cast_unsigned())
    }

    fn legacy_errors(&self) -> bool {
        dm_legacy_errors.load(Ordering::Relaxed) != 0
    }

    fn label_guard(&self) -> LabelGuard {
        match dm_label_guard.load(Ordering::Relaxed) {
            0 => LabelGuard::Off,
            2 => LabelGuard::Tables,
            _ => LabelGuard::Writes,
        }
    }

    fn frugal(&self) -> cpu::Frugal {
        cpu::Frugal::new()
    }

    fn seconds(&self) -> u32 {
        seconds()
    }

    fn clock(&self) -> Clock {
        Clock::new(seconds)
    }

    fn hash(&self, name: &str) -> Option<&'static dyn Hash> {
        hash::find(name)
    }

    fn aes(&self) -> Option<&'static dyn Aes> {
        aes::find()
    }

    fn cpus(&self) -> usize {
        cpu::count()
    }

    fn say(&self, what: fmt::Arguments<'_>) {
        cpu::say(what);
    }
}

/// Seconds of the clock that counts ticks(9).
fn seconds() -> u32 {
    cpu::ticks().cast_unsigned() / cpu::hz().cast_unsigned().max(1)
}

impl dm_core::kernel::Condvar<NetBsd> for Condvar {
    fn new(name: &'static core::ffi::CStr) -> Condvar {
        Condvar::new(name)
    }

    fn wait<T: Send>(&self, guard: &mut Guard<'_, T, Adaptive>) {
        self.wait(guard);
    }

    fn wait_sig<T: Send>(&self, guard: &mut Guard<'_, T, Adaptive>) -> Result<(), Errno> {
        self.wait_sig(guard)
    }

    fn broadcast(&self) {
        self.broadcast();
    }
}
