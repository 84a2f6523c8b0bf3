// SPDX-License-Identifier: BSD-2-Clause

//! The drivers of disks: device switches, nodes below /dev, attachment.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::backend::{Allocation, Store};
use super::ioctl;
use super::label::fabricated;
use super::unit::Parts;
pub(super) use super::unit::Unit;
use super::{Disk, DiskSpec};
use crate::dev::{Dev, major, minor};
use crate::devsw::{devsw_attach, devsw_detach};
use crate::errno::Errno;
use crate::netbsd as nb;
use crate::specfs::{self, Entry, VBLK, VCHR};

/// Units of one driver.
const UNITS: usize = 1024;
const MAJORS: usize = 512;

/// A driver, of all disks whose names begin with its name.
pub(super) struct Driver {
    name: CString,
    /// `true` if each disk has one node and no partitions.
    pub(super) plain: bool,
    bdevsw: nb::bdevsw,
    cdevsw: nb::cdevsw,
    block: AtomicI32,
    character: AtomicI32,
    units: [AtomicPtr<Unit>; UNITS],
}

// SAFETY: the tables never change, the rest is atomic.
unsafe impl Sync for Driver {}
// SAFETY: as above.
unsafe impl Send for Driver {}

/// The driver of each block major, and of each character major.
static BLOCK: [AtomicPtr<Driver>; MAJORS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAJORS];
static CHARACTER: [AtomicPtr<Driver>; MAJORS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAJORS];
static STATE: Mutex<Option<State>> = Mutex::new(None);

#[derive(Default)]
struct State {
    drivers: HashMap<(String, bool), &'static Driver>,
    /// Drivers that this machine knows.
    attached: Vec<&'static Driver>,
    disks: Vec<Arc<Unit>>,
    /// Detached disks, which may still be referred to.
    graves: Vec<Arc<Unit>>,
}

fn state() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(|e| e.into_inner())
}

impl Driver {
    pub(super) fn block(&self) -> u32 {
        self.block.load(Ordering::Relaxed) as u32
    }

    pub(super) fn character(&self) -> u32 {
        self.character.load(Ordering::Relaxed) as u32
    }

    /// The minor number of a unit's partition.
    pub(super) fn minor(&self, unit: u32, part: u32) -> u32 {
        if self.plain { unit } else { unit * nb::MAXPARTITIONS as u32 + part }
    }

    fn unit(&self, minor: u32) -> Option<&Unit> {
        let unit = if self.plain { minor } else { minor / nb::MAXPARTITIONS as u32 };
        // SAFETY: detached units stay in memory until the machine is down.
        unsafe { self.units.get(unit as usize)?.load(Ordering::Acquire).as_ref() }
    }
}

fn block_unit<'a>(dev: Dev) -> Option<&'a Unit> {
    // SAFETY: drivers are never freed.
    unsafe { BLOCK.get(major(dev) as usize)?.load(Ordering::Acquire).as_ref() }?.unit(minor(dev))
}

fn character_unit<'a>(dev: Dev) -> Option<&'a Unit> {
    // SAFETY: as above.
    unsafe { CHARACTER.get(major(dev) as usize)?.load(Ordering::Acquire).as_ref() }?
        .unit(minor(dev))
}

fn code(result: Result<(), Errno>) -> c_int {
    result.err().map_or(0, |e| e.0)
}

unsafe extern "C" fn bopen(dev: Dev, flag: c_int, _kind: c_int, _l: *mut nb::lwp) -> c_int {
    block_unit(dev).map_or(Errno::ENXIO.0, |u| code(u.open(dev, flag, true)))
}

unsafe extern "C" fn copen(dev: Dev, flag: c_int, _kind: c_int, _l: *mut nb::lwp) -> c_int {
    character_unit(dev).map_or(Errno::ENXIO.0, |u| code(u.open(dev, flag, false)))
}

unsafe extern "C" fn bclose(dev: Dev, _flag: c_int, _kind: c_int, _l: *mut nb::lwp) -> c_int {
    block_unit(dev).map_or(Errno::ENXIO.0, |u| {
        u.close(dev, true);
        0
    })
}

unsafe extern "C" fn cclose(dev: Dev, _flag: c_int, _kind: c_int, _l: *mut nb::lwp) -> c_int {
    character_unit(dev).map_or(Errno::ENXIO.0, |u| {
        u.close(dev, false);
        0
    })
}

unsafe extern "C" fn strategy(bp: *mut nb::buf) {
    // SAFETY: devsw(9) passes a buffer for a device of the driver's major.
    unsafe {
        match block_unit((*bp).b_dev) {
            Some(unit) => unit.strategy(bp),
            None => specfs::fail(bp, Errno::ENXIO),
        }
    }
}

/// d_strategy as physio calls it: b_dev is the character device's.
unsafe extern "C" fn raw_strategy(bp: *mut nb::buf) {
    // SAFETY: as above.
    unsafe {
        match character_unit((*bp).b_dev) {
            Some(unit) => unit.strategy(bp),
            None => specfs::fail(bp, Errno::ENXIO),
        }
    }
}

unsafe extern "C" {
    fn physio(
        strategy: Option<unsafe extern "C" fn(*mut nb::buf)>,
        obp: *mut nb::buf,
        dev: Dev,
        flags: c_int,
        min_phys: Option<unsafe extern "C" fn(*mut nb::buf)>,
        uio: *mut nb::uio,
    ) -> c_int;
    fn minphys(bp: *mut nb::buf);
    fn ttyvenodev(tty: *mut nb::tty, flag: c_int);
    fn seltrue(dev: Dev, events: c_int, l: *mut nb::lwp) -> c_int;
    fn nommap(dev: Dev, off: nb::__off_t, prot: c_int) -> nb::paddr_t;
    fn seltrue_kqfilter(dev: Dev, kn: *mut nb::knote) -> c_int;
}

unsafe extern "C" fn read(dev: Dev, uio: *mut nb::uio, _flag: c_int) -> c_int {
    // SAFETY: the transfer is devsw(9)'s.
    unsafe { physio(Some(raw_strategy), ptr::null_mut(), dev, nb::B_READ, Some(minphys), uio) }
}

unsafe extern "C" fn write(dev: Dev, uio: *mut nb::uio, _flag: c_int) -> c_int {
    // SAFETY: the transfer is devsw(9)'s.
    unsafe { physio(Some(raw_strategy), ptr::null_mut(), dev, nb::B_WRITE, Some(minphys), uio) }
}

unsafe extern "C" fn bioctl(
    dev: Dev,
    cmd: nb::u_long,
    data: *mut c_void,
    flag: c_int,
    l: *mut nb::lwp,
) -> c_int {
    // SAFETY: devsw(9) passes what the command takes.
    block_unit(dev).map_or(Errno::ENXIO.0, |u| unsafe { ioctl::ioctl(u, dev, cmd, data, flag, l) })
}

unsafe extern "C" fn cioctl(
    dev: Dev,
    cmd: nb::u_long,
    data: *mut c_void,
    flag: c_int,
    l: *mut nb::lwp,
) -> c_int {
    character_unit(dev)
        // SAFETY: as above.
        .map_or(Errno::ENXIO.0, |u| unsafe { ioctl::ioctl(u, dev, cmd, data, flag, l) })
}

unsafe extern "C" fn dump(dev: Dev, blkno: nb::daddr_t, va: *mut c_void, size: usize) -> c_int {
    // SAFETY: the memory is the dump's.
    block_unit(dev)
        .map_or(Errno::ENXIO.0, |u| code(unsafe { ioctl::dump(u, dev, blkno, va, size) }))
}

unsafe extern "C" fn size(dev: Dev) -> c_int {
    block_unit(dev).map_or(-1, |u| ioctl::size(u, dev))
}

unsafe extern "C" fn bdiscard(dev: Dev, pos: nb::__off_t, len: nb::__off_t) -> c_int {
    block_unit(dev).map_or(Errno::ENXIO.0, |u| code(ioctl::discard(u, dev, pos, len)))
}

unsafe extern "C" fn cdiscard(dev: Dev, pos: nb::__off_t, len: nb::__off_t) -> c_int {
    character_unit(dev).map_or(Errno::ENXIO.0, |u| code(ioctl::discard(u, dev, pos, len)))
}

/// The allocation of a disk at `offset`, a byte of the partition `dev`, for at most `len` bytes; and `true` if
/// discarded sectors read as zeros. `None` if `dev` is no disk, or `offset` beyond its end.
pub(crate) fn allocation(dev: Dev, offset: u64, len: u64) -> Option<(Allocation, bool)> {
    let unit = block_unit(dev)?;
    let (first, blocks) = unit.range(dev);
    let end = offset.checked_add(len)?;
    if len == 0 || end > blocks.checked_mul(512)? {
        return None;
    }
    let zeros = unit.discard && unit.backend.discards_to_zeros();
    Some((unit.backend.allocation(first * 512 + offset, len), zeros))
}

/// Bytes in a sector of a disk; `None` if `dev` is no disk.
pub(crate) fn sector_size(dev: Dev) -> Option<u32> {
    Some(block_unit(dev)?.secsize)
}

fn make_driver(name: &str, plain: bool) -> &'static Driver {
    let flags = nb::D_DISK | nb::D_MPSAFE;
    Box::leak(Box::new(Driver {
        name: CString::new(name).unwrap_or_default(),
        plain,
        bdevsw: nb::bdevsw {
            d_open: Some(bopen),
            d_cancel: None,
            d_close: Some(bclose),
            d_strategy: Some(strategy),
            d_ioctl: Some(bioctl),
            d_dump: Some(dump),
            d_psize: Some(size),
            d_discard: Some(bdiscard),
            d_devtounit: None,
            d_cfdriver: ptr::null_mut(),
            d_flag: flags,
        },
        cdevsw: nb::cdevsw {
            d_open: Some(copen),
            d_cancel: None,
            d_close: Some(cclose),
            d_read: Some(read),
            d_write: Some(write),
            d_ioctl: Some(cioctl),
            d_stop: Some(ttyvenodev),
            d_tty: None,
            d_poll: Some(seltrue),
            d_mmap: Some(nommap),
            d_kqfilter: Some(seltrue_kqfilter),
            d_discard: Some(cdiscard),
            d_devtounit: None,
            d_cfdriver: ptr::null_mut(),
            d_flag: flags,
        },
        block: AtomicI32::new(-1),
        character: AtomicI32::new(-1),
        units: [const { AtomicPtr::new(ptr::null_mut()) }; UNITS],
    }))
}

impl State {
    /// The driver of a name, attached to devsw(9).
    fn driver(
        &mut self,
        name: &str,
        plain: bool,
        dev: Option<Dev>,
    ) -> Result<&'static Driver, Errno> {
        let bytes = name.as_bytes();
        if let Some(driver) = self.attached.iter().find(|d| d.name.as_bytes() == bytes) {
            let wanted = dev.is_none_or(|dev| major(dev) == driver.block());
            return if driver.plain == plain && wanted { Ok(driver) } else { Err(Errno::EINVAL) };
        }
        let driver = *self
            .drivers
            .entry((name.to_owned(), plain))
            .or_insert_with(|| make_driver(name, plain));
        let mut block = dev.map_or(-1, |dev| major(dev) as i32);
        let mut character = -1;
        // SAFETY: the tables and the name are never freed.
        let error = unsafe {
            devsw_attach(
                driver.name.as_ptr(),
                &driver.bdevsw,
                &mut block,
                &driver.cdevsw,
                &mut character,
            )
        };
        Errno::check(error)?;
        driver.block.store(block, Ordering::Relaxed);
        driver.character.store(character, Ordering::Relaxed);
        let at = ptr::from_ref(driver).cast_mut();
        BLOCK[block as usize].store(at, Ordering::Release);
        CHARACTER[character as usize].store(at, Ordering::Release);
        self.attached.push(driver);
        Ok(driver)
    }
}

/// The names of a disk's nodes: path and entry.
fn nodes(unit: &Unit) -> Vec<(String, Entry)> {
    let name = &unit.name;
    let mut all = vec![
        (format!("/dev/{name}"), Entry::Block(unit.raw_dev(true))),
        (format!("/dev/r{name}"), Entry::Character(unit.raw_dev(false))),
    ];
    if !unit.driver.plain {
        for part in 0..nb::MAXPARTITIONS as u32 {
            let letter = (b'a' + part as u8) as char;
            let (block, character) = (unit.part_dev(true, part), unit.part_dev(false, part));
            all.push((format!("/dev/{name}{letter}"), Entry::Block(block)));
            all.push((format!("/dev/r{name}{letter}"), Entry::Character(character)));
        }
    }
    all
}

/// Attaches a disk: EEXIST if the name is taken, EINVAL for a specification that cannot be.
pub(crate) fn attach(spec: DiskSpec) -> Result<Disk, Errno> {
    let digits = spec.name.len() - spec.name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (driver_name, number) = spec.name.split_at(spec.name.len() - digits);
    let secsize = spec.secsize;
    if driver_name.is_empty()
        || spec.name.len() > 15
        || spec.name.contains('/')
        || !secsize.is_power_of_two()
        || secsize < 512
    {
        return Err(Errno::EINVAL);
    }
    let mut guard = state();
    let state = guard.get_or_insert_default();
    let driver = state.driver(driver_name, spec.plain, spec.dev)?;
    let number = match spec.dev {
        Some(dev) if driver.plain => minor(dev),
        Some(dev) => minor(dev) / nb::MAXPARTITIONS as u32,
        None => number.parse().unwrap_or_default(),
    };
    let slot = driver.units.get(number as usize).ok_or(Errno::EINVAL)?;
    if !slot.load(Ordering::Acquire).is_null() || state.disks.iter().any(|d| d.name == spec.name) {
        return Err(Errno::EEXIST);
    }
    let bytes = spec.sectors.checked_mul(u64::from(secsize)).ok_or(Errno::EINVAL)?;
    let (backend, bytes) = Store::open(spec.backend, bytes)?;
    let sectors = bytes / u64::from(secsize);
    let label = match &spec.label {
        Some(wanted) => {
            let label = wanted.build(secsize, sectors);
            if !spec.read_only {
                for (sector, data) in wanted.sectors(&label, secsize as usize) {
                    if sector >= sectors {
                        return Err(Errno::EINVAL);
                    }
                    // SAFETY: `data` is a sector, within the store.
                    unsafe {
                        let at = sector * u64::from(secsize);
                        backend.write(at, data.as_ptr(), data.len(), false)?;
                    }
                }
            }
            label
        }
        None => fabricated(secsize, sectors),
    };
    let unit = Unit::new(Parts {
        name: spec.name,
        driver,
        number,
        backend,
        sectors,
        secsize,
        read_only: spec.read_only,
        dump: spec.dump,
        discard: spec.discard,
        cache: spec.cache,
        align: spec.align,
        completion: spec.completion,
        label,
    });
    slot.store(Arc::as_ptr(&unit).cast_mut(), Ordering::Release);
    for (path, entry) in nodes(&unit) {
        // A test may have made the name already.
        let _ = specfs::add_name(&path, entry);
    }
    state.disks.push(unit.clone());
    Ok(Disk(unit))
}

/// Detaches a disk: EBUSY while it is open, unless forced. A forced detach fails its I/O, held or to come, and
/// revokes its open nodes, as ld(4) does.
pub(super) fn detach(unit: &Arc<Unit>, force: bool) -> Result<(), Errno> {
    {
        let guard = state();
        let known = guard.as_ref().is_some_and(|s| s.disks.iter().any(|d| Arc::ptr_eq(d, unit)));
        if !known || unit.gone.swap(true, Ordering::SeqCst) {
            return Err(Errno::ENXIO);
        }
        if unit.is_open() && !force {
            unit.gone.store(false, Ordering::SeqCst);
            return Err(Errno::EBUSY);
        }
        for (path, _) in nodes(unit) {
            let _ = specfs::remove_name(&path);
        }
    }
    unit.faults.vanish(true);
    unit.release();
    while unit.in_flight() > 0 {
        std::thread::yield_now();
    }
    let parts = if unit.driver.plain { 1 } else { nb::MAXPARTITIONS as u32 };
    let first = unit.driver.minor(unit.number, 0);
    let (first, last) = (first as c_int, (first + parts - 1) as c_int);
    // SAFETY: opens are refused, and nobody sleeps in a disk.
    unsafe {
        specfs::vdevgone(unit.driver.block() as c_int, first, last, VBLK);
        specfs::vdevgone(unit.driver.character() as c_int, first, last, VCHR);
    }
    let mut guard = state();
    let Some(state) = guard.as_mut() else { return Err(Errno::ENXIO) };
    state.disks.retain(|disk| !Arc::ptr_eq(disk, unit));
    unit.driver.units[unit.number as usize].store(ptr::null_mut(), Ordering::Release);
    unit.destroy();
    state.graves.push(unit.clone());
    Ok(())
}

/// Lets held I/O go, so that the machine can come down.
pub(crate) fn release_all() {
    let disks: Vec<Arc<Unit>> = state().as_ref().map_or(Vec::new(), |s| s.disks.clone());
    for disk in disks {
        disk.release();
    }
}

/// Detaches all disks and drivers.
pub(crate) fn detach_all() {
    let mut guard = state();
    let Some(state) = guard.as_mut() else { return };
    for unit in state.disks.drain(..) {
        unit.driver.units[unit.number as usize].store(ptr::null_mut(), Ordering::Release);
        unit.destroy();
    }
    state.graves.clear();
    for driver in state.attached.drain(..) {
        BLOCK[driver.block() as usize].store(ptr::null_mut(), Ordering::Release);
        CHARACTER[driver.character() as usize].store(ptr::null_mut(), Ordering::Release);
        // SAFETY: attached by `State::driver`.
        unsafe { devsw_detach(&driver.bdevsw, &driver.cdevsw) };
    }
}
