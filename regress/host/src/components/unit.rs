// SPDX-License-Identifier: BSD-2-Clause

//! A disk: its I/O, its counts, its opens.

use std::cell::UnsafeCell;
use std::ffi::{CString, c_int};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::backend::{Store, Transfer};
use super::driver::Driver;
use super::faults::{Faults, Verdict};
use super::queue::{Completion, Pending, Queue};
use super::{Counters, label};
use crate::buf::{B_READ, biodone, bounds_check_with_label, bounds_check_with_mediasize};
use crate::console::kassert;
use crate::dev::{Dev, makedev};
use crate::disk;
use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::lwp::{self, MAXCPUS};
use crate::netbsd as nb;

/// The flag of an open for writing.
const FWRITE: c_int = nb::FWRITE;

/// A disk.
pub(crate) struct Unit {
    pub(super) name: String,
    cname: CString,
    pub(super) driver: &'static Driver,
    pub(super) number: u32,
    pub(super) backend: Store,
    pub(super) sectors: u64,
    pub(super) secsize: u32,
    pub(super) read_only: bool,
    pub(super) dump: bool,
    pub(super) discard: bool,
    pub(super) cache: i32,
    pub(super) align: (u32, u32),
    pub(super) queue: Queue,
    pub(super) faults: Faults,
    pub(super) disk: UnsafeCell<nb::disk>,
    pub(super) opens: Mutex<Opens>,
    /// `true` if the label's sector may be written (DIOCWLABEL).
    pub(super) wlabel: AtomicBool,
    me: Weak<Unit>,
    /// `true` if faults or a queue must be looked up before an I/O can complete.
    slow: AtomicBool,
    /// `true` if d_strategy may sleep, as vnd(4)'s does.
    sleeps: AtomicBool,
    /// `true` if the disk was detached while it was open.
    pub(super) gone: AtomicBool,
    percpu: [PerCpu; MAXCPUS],
    rare: Rare,
    /// Counts at the last reset.
    base: Mutex<Counters>,
}

// SAFETY: the disk structure is used under its own locks, and its geometry never changes.
unsafe impl Sync for Unit {}
// SAFETY: as above.
unsafe impl Send for Unit {}

/// The openings of a disk.
#[derive(Default)]
pub(super) struct Opens {
    /// The partitions that are open by their block nodes, as bits.
    pub(super) block: u32,
    /// The partitions that are open by their character nodes, as bits.
    pub(super) character: u32,
}

/// Counts of the I/O path, one set for each CPU.
#[repr(align(64))]
#[derive(Default)]
struct PerCpu {
    in_flight: AtomicI64,
    reads: AtomicU64,
    writes: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    fua: AtomicU64,
    dpo: AtomicU64,
    time_critical: AtomicU64,
    low_priority: AtomicU64,
}

#[derive(Default)]
pub(super) struct Rare {
    pub(super) flushes: AtomicU64,
    pub(super) opens: AtomicU64,
    pub(super) closes: AtomicU64,
    pub(super) discards: AtomicU64,
    pub(super) dumps: AtomicU64,
}

/// The parts that a new unit is made of.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) driver: &'static Driver,
    pub(super) number: u32,
    pub(super) backend: Store,
    pub(super) sectors: u64,
    pub(super) secsize: u32,
    pub(super) read_only: bool,
    pub(super) dump: bool,
    pub(super) discard: bool,
    pub(super) cache: i32,
    pub(super) align: (u32, u32),
    pub(super) completion: Completion,
    pub(super) label: nb::disklabel,
}

impl Unit {
    /// Attaches a disk(9) of these parts.
    pub(super) fn new(parts: Parts) -> Arc<Unit> {
        let label = parts.label;
        let unit = Arc::new_cyclic(|me| Unit {
            cname: CString::new(parts.name.clone()).unwrap_or_default(),
            name: parts.name,
            driver: parts.driver,
            number: parts.number,
            backend: parts.backend,
            sectors: parts.sectors,
            secsize: parts.secsize,
            read_only: parts.read_only,
            dump: parts.dump,
            discard: parts.discard,
            cache: parts.cache,
            align: parts.align,
            queue: Queue::new(parts.completion),
            faults: Faults::default(),
            // SAFETY: a disk is integers and pointers, for which zeros are valid.
            disk: UnsafeCell::new(unsafe { std::mem::zeroed() }),
            opens: Mutex::default(),
            wlabel: AtomicBool::new(false),
            me: me.clone(),
            slow: AtomicBool::new(false),
            sleeps: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            percpu: std::array::from_fn(|_| PerCpu::default()),
            rare: Rare::default(),
            base: Mutex::default(),
        });
        // SAFETY: the disk is ours, and stays where it is until it is destroyed.
        unsafe {
            let dk = unit.disk.get();
            disk::disk_init(dk, unit.cname.as_ptr(), ptr::null());
            disk::disk_attach(dk);
            *(*dk).dk_label = label;
            (*dk).dk_geom.dg_secsize = unit.secsize;
            (*dk).dk_geom.dg_secperunit = unit.sectors as i64;
            (*dk).dk_geom.dg_nsectors = 32;
            (*dk).dk_geom.dg_ntracks = 64;
            disk::disk_set_info(ptr::null_mut(), dk, c"HOSTED".as_ptr());
        }
        unit.update_slow();
        unit
    }

    /// Undoes the attachment of `new`.
    pub(super) fn destroy(&self) {
        // SAFETY: attached by `new`, and destroyed once, by the caller's word.
        unsafe {
            crate::dkwedge::dkwedge_delall(self.disk.get());
            disk::disk_detach(self.disk.get());
            disk::disk_destroy(self.disk.get());
        }
        self.queue.end();
    }

    pub(super) fn rare(&self) -> &Rare {
        &self.rare
    }

    pub(super) fn opens(&self) -> MutexGuard<'_, Opens> {
        self.opens.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn part_dev(&self, block: bool, part: u32) -> Dev {
        let major = if block { self.driver.block() } else { self.driver.character() };
        makedev(major, self.driver.minor(self.number, part))
    }

    pub(super) fn raw_dev(&self, block: bool) -> Dev {
        self.part_dev(block, nb::RAW_PART as u32)
    }

    pub(super) fn label(&self) -> Option<nb::disklabel> {
        // SAFETY: attached, so there is a label.
        (!self.driver.plain).then(|| unsafe { *(*self.disk.get()).dk_label })
    }

    /// Checks a request that changes data and that only some disks are `able` to carry out.
    ///
    /// # Errors
    /// ENODEV, ENXIO of a disk that has vanished, EROFS.
    pub(super) fn takes(&self, able: bool) -> Result<(), Errno> {
        match (able, self.faults.vanished(), self.read_only) {
            (false, ..) => Err(Errno::ENODEV),
            (_, true, _) => Err(Errno::ENXIO),
            (.., true) => Err(Errno::EROFS),
            _ => Ok(()),
        }
    }

    pub(super) fn in_flight(&self) -> i64 {
        self.percpu.iter().map(|c| c.in_flight.load(Ordering::SeqCst)).sum()
    }

    fn total(&self) -> Counters {
        let sum = |f: fn(&PerCpu) -> &AtomicU64| {
            self.percpu.iter().map(|c| f(c).load(Ordering::Relaxed)).sum::<u64>()
        };
        let rare = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Counters {
            reads: sum(|c| &c.reads),
            writes: sum(|c| &c.writes),
            bytes_read: sum(|c| &c.bytes_read),
            bytes_written: sum(|c| &c.bytes_written),
            fua: sum(|c| &c.fua),
            dpo: sum(|c| &c.dpo),
            time_critical: sum(|c| &c.time_critical),
            low_priority: sum(|c| &c.low_priority),
            flushes: rare(&self.rare.flushes),
            opens: rare(&self.rare.opens),
            closes: rare(&self.rare.closes),
            discards: rare(&self.rare.discards),
            dumps: rare(&self.rare.dumps),
        }
    }

    pub(super) fn counters(&self) -> Counters {
        let (now, base) = (self.total(), *self.base.lock().unwrap_or_else(|e| e.into_inner()));
        Counters {
            reads: now.reads - base.reads,
            writes: now.writes - base.writes,
            bytes_read: now.bytes_read - base.bytes_read,
            bytes_written: now.bytes_written - base.bytes_written,
            fua: now.fua - base.fua,
            dpo: now.dpo - base.dpo,
            time_critical: now.time_critical - base.time_critical,
            low_priority: now.low_priority - base.low_priority,
            flushes: now.flushes - base.flushes,
            opens: now.opens - base.opens,
            closes: now.closes - base.closes,
            discards: now.discards - base.discards,
            dumps: now.dumps - base.dumps,
        }
    }

    pub(super) fn reset_counters(&self) {
        *self.base.lock().unwrap_or_else(|e| e.into_inner()) = self.total();
    }

    pub(super) fn update_slow(&self) {
        let sleeps = self.sleeps.load(Ordering::SeqCst);
        let slow = sleeps || self.faults.any() || !self.queue.is_inline();
        self.slow.store(slow, Ordering::SeqCst);
    }

    pub(super) fn sleep_in_strategy(&self) {
        self.sleeps.store(true, Ordering::SeqCst);
        self.update_slow();
    }

    pub(super) fn hold(&self) {
        self.slow.store(true, Ordering::SeqCst);
        self.queue.hold();
    }

    pub(super) fn release(&self) {
        if let Some(me) = self.me.upgrade() {
            self.queue.release(&me);
        }
        self.update_slow();
    }

    pub(super) fn release_one(&self, index: usize) -> bool {
        self.me.upgrade().is_some_and(|me| self.queue.release_one(&me, index))
    }

    pub(super) fn held(&self) -> usize {
        self.queue.held()
    }

    pub(super) fn set_completion(&self, completion: Completion) {
        self.slow.store(true, Ordering::SeqCst);
        self.queue.set(completion);
        self.update_slow();
    }

    /// Size in blocks of 512 bytes.
    pub(super) fn blocks(&self) -> u64 {
        self.sectors * u64::from(self.secsize / 512)
    }

    /// First block and size of a partition, in blocks of 512 bytes.
    pub(super) fn range(&self, dev: Dev) -> (u64, u64) {
        let part = disk::part(dev);
        if self.driver.plain || part == nb::RAW_PART as usize {
            return (0, self.blocks());
        }
        let scale = u64::from(self.secsize / 512);
        // SAFETY: attached, so there is a label; one number is read, which may be an old one, as
        // in NetBSD.
        let p = unsafe { &(*(*self.disk.get()).dk_label).d_partitions[part] };
        (u64::from(p.p_offset) * scale, u64::from(p.p_size) * scale)
    }

    /// d_strategy
    ///
    /// # Safety
    ///
    /// `bp` is a buffer for this disk.
    #[inline]
    pub(super) unsafe fn strategy(&self, bp: *mut nb::buf) {
        let percpu = &self.percpu[lwp::current().cpu_index()];
        percpu.in_flight.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise; the buffer is ours until biodone.
        unsafe {
            match self.admit(bp) {
                Ok(true) => {}
                Ok(false) => return self.complete(bp),
                Err(error) => {
                    (*bp).b_error = error.0;
                    (*bp).b_resid = (*bp).b_bcount;
                    return self.complete(bp);
                }
            }
            let count = (*bp).b_bcount as u64;
            let flags = (*bp).b_flags;
            if flags & B_READ != 0 {
                percpu.reads.fetch_add(1, Ordering::Relaxed);
                percpu.bytes_read.fetch_add(count, Ordering::Relaxed);
            } else {
                percpu.writes.fetch_add(1, Ordering::Relaxed);
                percpu.bytes_written.fetch_add(count, Ordering::Relaxed);
            }
            if flags & nb::B_MEDIA_FLAGS as u32 != 0 {
                if flags & nb::B_MEDIA_FUA as u32 != 0 {
                    percpu.fua.fetch_add(1, Ordering::Relaxed);
                }
                if flags & nb::B_MEDIA_DPO as u32 != 0 {
                    percpu.dpo.fetch_add(1, Ordering::Relaxed);
                }
            }
            match (*bp).b_prio {
                2 => _ = percpu.time_critical.fetch_add(1, Ordering::Relaxed),
                0 => _ = percpu.low_priority.fetch_add(1, Ordering::Relaxed),
                _ => {}
            }
            if self.slow.load(Ordering::Relaxed) {
                kassert!(
                    !self.sleeps.load(Ordering::Relaxed)
                        || lwp::current().context() == lwp::Context::Thread,
                    "{}: d_strategy sleeps in an interrupt",
                    self.name
                );
                if let Some(me) = self.me.upgrade()
                    && self.queue.push(&me, Pending { bp }).is_none()
                {
                    return;
                }
            }
            self.finish(bp);
        }
    }

    /// Checks an I/O and finds its place, which goes to b_rawblkno. `false` if the I/O is to be completed as it is.
    #[inline]
    unsafe fn admit(&self, bp: *mut nb::buf) -> Result<bool, Errno> {
        fault::check(Site::Strategy, Errno::EIO)?;
        // SAFETY: as in `strategy`.
        unsafe {
            let scale = (self.secsize / 512) as i64;
            if (*bp).b_bcount as u32 & (self.secsize - 1) != 0 || (*bp).b_blkno & (scale - 1) != 0 {
                return Err(Errno::EINVAL);
            }
            if self.read_only && (*bp).b_flags & B_READ == 0 {
                return Err(Errno::EROFS);
            }
            if (*bp).b_bcount == 0 {
                (*bp).b_resid = 0;
                return Ok(false);
            }
            let dev = (*bp).b_dev;
            if self.driver.plain || disk::part(dev) == nb::RAW_PART as usize {
                if bounds_check_with_mediasize(bp, 512, self.blocks()) <= 0 {
                    return self.out_of_bounds(bp);
                }
                (*bp).b_rawblkno = (*bp).b_blkno;
            } else {
                let wlabel = self.wlabel.load(Ordering::Relaxed);
                if bounds_check_with_label(self.disk.get(), bp, wlabel.into()) <= 0 {
                    return self.out_of_bounds(bp);
                }
                (*bp).b_rawblkno = (*bp).b_blkno + self.range(dev).0 as i64;
            }
        }
        Ok(true)
    }

    /// Completes an I/O that a bounds check has refused, or in which it found nothing to transfer.
    unsafe fn out_of_bounds(&self, bp: *mut nb::buf) -> Result<bool, Errno> {
        // SAFETY: as in `strategy`.
        let error = unsafe { (*bp).b_error };
        if error != 0 { Err(Errno(error)) } else { Ok(false) }
    }

    /// Transfers the data and completes.
    #[inline]
    pub(super) fn finish(&self, bp: *mut nb::buf) {
        // SAFETY: as in `strategy`; the range was checked by `admit`.
        unsafe {
            let mut len = (*bp).b_bcount as usize;
            let block = (*bp).b_rawblkno as u64;
            if self.slow.load(Ordering::Relaxed) {
                match self.faults.judge(block..block + (len as u64).div_ceil(512)) {
                    Verdict::Good => {}
                    Verdict::Short(bytes) => len = len.min(bytes),
                    verdict @ (Verdict::Fail(error) | Verdict::FailAll(error)) => {
                        let moved = matches!(verdict, Verdict::FailAll(_));
                        (*bp).b_error = error.0;
                        (*bp).b_resid = if moved { 0 } else { (*bp).b_bcount };
                        return self.complete(bp);
                    }
                }
            }
            let (offset, data) = (block * 512, (*bp).b_data.cast::<u8>());
            let read = (*bp).b_flags & B_READ != 0;
            let fua = (*bp).b_flags & nb::B_MEDIA_FUA as u32 != 0;
            if self.backend.is_remote()
                && let Some(me) = self.me.upgrade()
            {
                let pending = Pending { bp };
                let transfer = Transfer { read, offset, data, len, fua };
                let done = move |result| me.transferred(pending, len, result);
                if self.backend.start(transfer, done).is_some() {
                    crate::console::stop("a transfer that did not start");
                }
                return;
            }
            let result = if self.backend.is_null() {
                Ok(())
            } else if read {
                self.backend.read(offset, data, len)
            } else {
                self.backend.write(offset, data, len, fua)
            };
            self.transferred(Pending { bp }, len, result);
        }
    }

    /// Completes an I/O of which `len` bytes have been transferred.
    #[inline]
    fn transferred(&self, pending: Pending, len: usize, result: Result<(), Errno>) {
        let bp = pending.bp;
        // SAFETY: as in `strategy`: the buffer is ours until biodone.
        unsafe {
            match result {
                Ok(()) => (*bp).b_resid = (*bp).b_bcount - len as c_int,
                Err(error) => {
                    (*bp).b_error = error.0;
                    (*bp).b_resid = (*bp).b_bcount;
                }
            }
        }
        self.complete(bp);
    }

    #[inline]
    fn complete(&self, bp: *mut nb::buf) {
        // The disk may be closed as soon as the buffer is done.
        self.percpu[lwp::current().cpu_index()].in_flight.fetch_sub(1, Ordering::Release);
        // SAFETY: the buffer is ours until now.
        unsafe { biodone(bp) };
    }

    pub(super) fn open(&self, dev: Dev, flag: c_int, block: bool) -> Result<(), Errno> {
        if self.gone.load(Ordering::Relaxed) || self.faults.vanished() {
            return Err(Errno::ENXIO);
        }
        if self.read_only && flag & FWRITE != 0 {
            return Err(Errno::EROFS);
        }
        let part = disk::part(dev);
        if let Some(label) = self.label()
            && part != nb::RAW_PART as usize
            && (part >= usize::from(label.d_npartitions)
                || (label.d_partitions[part].p_fstype == label::FS_UNUSED
                    && label.d_partitions[part].p_size == 0))
        {
            return Err(Errno::ENXIO);
        }
        let bit = 1 << if self.driver.plain { 0 } else { part };
        let mut opens = self.opens();
        if block {
            opens.block |= bit;
        } else {
            opens.character |= bit;
        }
        self.publish(&opens);
        self.rare.opens.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn close(&self, dev: Dev, block: bool) {
        let bit = 1 << if self.driver.plain { 0 } else { disk::part(dev) };
        let mut opens = self.opens();
        let mask = if block { &mut opens.block } else { &mut opens.character };
        kassert!(*mask & bit != 0, "{}: closed while not open", self.name);
        *mask &= !bit;
        if opens.block | opens.character == 0 {
            self.wlabel.store(false, Ordering::Relaxed);
            let left = self.in_flight();
            kassert!(left == 0, "{}: closed while {left} I/Os are under way", self.name);
        }
        self.publish(&opens);
        self.rare.closes.fetch_add(1, Ordering::Relaxed);
    }

    /// Publishes the opens as dk_openmask and its parts.
    fn publish(&self, opens: &Opens) {
        // SAFETY: written under the opens' lock only.
        unsafe {
            let dk = self.disk.get();
            (*dk).dk_bopenmask = opens.block as c_int;
            (*dk).dk_copenmask = opens.character as c_int;
            (*dk).dk_openmask = (opens.block | opens.character) as c_int;
        }
    }

    pub(super) fn is_open(&self) -> bool {
        let opens = self.opens();
        opens.block | opens.character != 0
    }
}
