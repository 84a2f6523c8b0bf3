// SPDX-License-Identifier: BSD-2-Clause

//! bdevsw and cdevsw: open, close, read, write, size, dump, discard.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use dm_core::job::Op;
use dm_core::kernel::LiveTable;
use dm_core::pdev::Pdev;
use dm_core::table::{Component, Piece};
use dm_core::units::{DEV_BSIZE, Dev, Minor, Sector, SectorRange};
use dm_core::{Errno, errno};

use super::calls::Calls;
use super::kernel::NetBsd;
use super::slot::{Current, Slot};
use super::strategy::dmstrategy;
use super::{Global, autoconf, global};
use crate::netbsd::disk::Node;
use crate::netbsd::sys;

/// The control nodes that are open, a bit each: NetBSD calls d_close for the last of several opens
/// only. Changed by a thread that is counted in [`CALLS`].
static CONTROL_OPEN: AtomicU32 = AtomicU32::new(0);

/// The opens, closes and ioctls that are in progress, of control nodes and devices.
pub(crate) static CALLS: Calls = Calls { begun: AtomicUsize::new(0), ended: AtomicUsize::new(0) };

/// `true` if a control node is open.
pub(crate) fn control_is_open() -> bool {
    CONTROL_OPEN.load(Ordering::SeqCst) != 0
}

/// The bit of [`CONTROL_OPEN`] for a node of this kind.
fn control_bit(mode: c_int) -> u32 {
    match node(mode) {
        Node::Block => 1,
        Node::Character => 2,
    }
}

/// The kind of node that an open or close came through.
fn node(mode: c_int) -> Node {
    if mode & sys::S_IFMT == sys::S_IFBLK { Node::Block } else { Node::Character }
}

/// The slot of a device, by its device number.
///
/// # Errors
/// ENXIO if there is no such device.
pub(crate) fn slot(dev: sys::dev_t) -> Result<(&'static Global, &'static Slot), Errno> {
    let global = global().ok_or(Errno::ENXIO)?;
    let slot = global.slots.get(Dev(dev).minor()).ok_or(Errno::ENXIO)?;
    Ok((global, slot))
}

/// d_open(9). ENXIO for a device that does not exist, EROFS for writing to one that takes none.
/// Context: a thread; takes `Slot::node`.
#[unsafe(no_mangle)]
pub extern "C" fn dmopen(dev: sys::dev_t, flags: c_int, mode: c_int, _: *mut sys::lwp) -> c_int {
    errno::raw(open(dev, flags, mode))
}

fn open(dev: sys::dev_t, flags: c_int, mode: c_int) -> Result<(), Errno> {
    let _call = CALLS.begin();
    if Dev(dev).minor() == 0 {
        if autoconf::is_unloading() {
            return Err(Errno::ENXIO);
        }
        CONTROL_OPEN.fetch_or(control_bit(mode), Ordering::SeqCst);
        return Ok(());
    }
    let (global, slot) = slot(dev)?;
    let minor = Minor::new(u64::from(Dev(dev).minor())).ok_or(Errno::ENXIO)?;
    if flags & sys::FWRITE != 0 && global.driver.is_read_only(minor) {
        return Err(Errno::EROFS);
    }
    slot.open_with(|disk| {
        if slot.minor() != minor.get() {
            return Err(Errno::ENXIO);
        }
        disk.open(node(mode));
        Ok(())
    })
}

/// d_close(9). Context: a thread with no lock held; sleeps, deaf to signals, to flush the
/// components, and where this is the last close of a device whose removal was deferred, until its
/// I/O is over. It may drop the last reference to a table, and sleeps for that then: see
/// [`Table`](dm_core::table::Table).
#[unsafe(no_mangle)]
pub extern "C" fn dmclose(dev: sys::dev_t, _: c_int, mode: c_int, _: *mut sys::lwp) -> c_int {
    let _call = CALLS.begin();
    let number = Dev(dev).minor();
    if number == 0 {
        let bit = control_bit(mode);
        let before = CONTROL_OPEN.fetch_and(!bit, Ordering::SeqCst);
        if before == bit
            && let Some(global) = global()
        {
            // No process is left that could send the rest of a table.
            global.driver.forget_all_lines();
        }
        return 0;
    }
    let Ok((global, slot)) = slot(dev) else { return 0 };
    // The reference to the disk(9) is dropped here: last_close() waits for all of them.
    let last = match slot.disk(number) {
        Some(disk) => disk.close(node(mode)),
        None => false,
    };
    slot.fold();
    if last {
        slot.label_writable.store(false, Ordering::Relaxed);
        slot.flush_after_close();
        if let Some(minor) = Minor::new(u64::from(number)) {
            global.driver.last_close(minor);
        }
    }
    0
}

/// d_read(9). Context: a thread; sleeps in physio(9).
///
/// # Safety
/// `uio` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmread(dev: sys::dev_t, uio: *mut sys::uio, _: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { transfer(dev, uio, sys::B_READ) }
}

/// d_write(9). Context: a thread; sleeps in physio(9).
///
/// # Safety
/// `uio` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmwrite(dev: sys::dev_t, uio: *mut sys::uio, _: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { transfer(dev, uio, sys::B_WRITE) }
}

/// d_read(9) and d_write(9), by physio(9).
///
/// # Safety
/// `uio` is valid.
unsafe fn transfer(dev: sys::dev_t, uio: *mut sys::uio, direction: c_int) -> c_int {
    if let Err(errno) = slot(dev) {
        return errno.raw();
    }
    // SAFETY: `uio` is valid (caller), the routines are the driver's.
    unsafe {
        let null = core::ptr::null_mut();
        sys::physio(Some(dmstrategy), null, dev, direction, Some(dm_minphys), uio)
    }
}

/// minphys(9): the kernel's own bound is ours. Context: a thread in physio(9).
///
/// # Safety
/// `bp` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dm_minphys(bp: *mut sys::buf) {
    // SAFETY: the caller's promise.
    unsafe { sys::minphys(bp) }
}

/// d_psize(9): the size for swap(4) and dumps, in DEV_BSIZE, INT_MAX if it is larger; -1 for no
/// device, no table, or a device that is suspended: nothing may be waited for here. Context:
/// thread, or a system that goes down, where this takes no lock.
#[unsafe(no_mangle)]
pub extern "C" fn dmsize(dev: sys::dev_t) -> c_int {
    let Ok((_, slot)) = slot(dev) else { return -1 };
    let size = slot.peek(|current| current.table.as_ref().map(|table| table.size()));
    size.flatten().map_or(-1, |size| c_int::try_from(size.0).unwrap_or(c_int::MAX))
}

/// d_dump(9): writes `size` bytes at `va` to sector `blkno` on, when the system is going down: it
/// neither sleeps nor allocates, and takes no lock but dust's, for its list, which a stopped CPU
/// may hold for ever. ENXIO while the device is suspended, ENODEV for a line whose target can serve
/// I/O. Context: a panic, with the other CPUs stopped.
///
/// # Safety
/// `va` has `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dmdump(
    dev: sys::dev_t,
    blkno: sys::daddr_t,
    va: *mut c_void,
    size: usize,
) -> c_int {
    let Ok((_, slot)) = slot(dev) else { return Errno::ENXIO.raw() };
    // SAFETY: the caller's promise.
    let dump = |current: &Current| unsafe { dump(slot, current, blkno, va, size) };
    errno::raw(slot.peek(dump).unwrap_or(Err(Errno::ENXIO)))
}

/// Writes a dump to the components, piece by piece. Context: as for [`dmdump`].
///
/// # Safety
/// `va` has `size` bytes.
unsafe fn dump(
    slot: &Slot,
    current: &Current,
    blkno: sys::daddr_t,
    mut va: *mut c_void,
    size: usize,
) -> Result<(), Errno> {
    let table = current.table.as_ref().ok_or(Errno::ENXIO)?;
    let start = Sector(u64::try_from(blkno).map_err(|_| Errno::EINVAL)?);
    let length = Sector::from_bytes(size as u64).ok_or(Errno::EINVAL)?;
    let mut left = table.range(start, length).ok_or(Errno::EINVAL)?;
    if current.read_only || table.hits_label(left) && slot.label_is_guarded() {
        return Err(Errno::EROFS);
    }
    while !left.is_empty() {
        // Its lanes do not run any more, and a look at its state may take a lock.
        if table.is_served(left.start) {
            return Err(Errno::ENODEV);
        }
        let piece = table.map(left, Op::Write).ok_or(Errno::EINVAL)?;
        let length = piece.length();
        let bytes = length.to_bytes().and_then(|b| usize::try_from(b).ok()).ok_or(Errno::EINVAL)?;
        match piece {
            Piece::Send(component, at) => {
                let blkno = i64::try_from(at.start.0).map_err(|_| Errno::EINVAL)?;
                // SAFETY: `bytes` of what is left at `va`. The component is open.
                Errno::check(unsafe { sys::bdev_dump(component.dev().0, blkno, va, bytes) })?;
            }
            Piece::Zero(_) => {}
            Piece::Fail(_, errno) => return Err(errno),
            Piece::Take(..) | Piece::Track(..) => return Err(Errno::ENODEV),
        }
        // SAFETY: `bytes` of them have been dumped.
        va = unsafe { va.cast::<u8>().add(bytes).cast() };
        left = left.after(length);
    }
    Ok(())
}

/// d_discard(9): frees `len` bytes from `pos` on, on every component that can. A component that
/// cannot is no error, unless none can. Context: a thread; sleeps while the device is suspended,
/// and for the components.
#[unsafe(no_mangle)]
pub extern "C" fn dmdiscard(dev: sys::dev_t, pos: i64, len: i64) -> c_int {
    errno::raw(discard(dev, pos, len))
}

fn discard(dev: sys::dev_t, pos: i64, len: i64) -> Result<(), Errno> {
    let (_, slot) = slot(dev)?;
    let sectors = |n: i64| u64::try_from(n).ok().and_then(Sector::from_bytes).ok_or(Errno::EINVAL);
    let mut left = SectorRange { start: sectors(pos)?, length: sectors(len)? };
    let (mut refused, mut done) = (None, left.is_empty());
    loop {
        // Each piece enters anew: the range may be the whole device in a million pieces, for which
        // a suspend or a removal does not wait.
        let inside = slot.enter_sleeping()?;
        let table = inside.current().table.as_ref().filter(|_| slot.serves(Dev(dev)));
        let table = table.ok_or(Errno::ENXIO)?;
        let range = table.range(left.start, left.length);
        let range = range.filter(|range| range.is_aligned(table.sector_size()));
        left = range.ok_or(Errno::EINVAL)?;
        if inside.current().read_only || table.hits_label(left) && slot.label_is_guarded() {
            return Err(Errno::EROFS);
        }
        if !left.is_empty() {
            let piece = table.map(left, Op::Discard).ok_or(Errno::EINVAL)?;
            left = left.after(piece.length());
            match discard_piece(inside.current(), table, piece) {
                Ok(()) => done = true,
                // EAGAIN: given back on the way into a suspend; a discard need not be done.
                Err(
                    errno @ (Errno::ENODEV | Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EAGAIN),
                ) => refused = Some(errno),
                Err(errno) => return Err(errno),
            }
        }
        if left.is_empty() {
            break;
        }
    }
    match refused {
        Some(errno) if !done => Err(errno),
        _ => Ok(()),
    }
}

/// Discards one piece. Context: a thread inside the gate.
///
/// # Errors
/// Those of the component or target; EAGAIN if the target gives the piece back.
fn discard_piece(
    current: &Current,
    table: &LiveTable<NetBsd>,
    piece: Piece<'_, Pdev<NetBsd>>,
) -> Result<(), Errno> {
    match piece {
        Piece::Send(component, at) => component.disk().device().discard(at),
        Piece::Zero(_) => Ok(()),
        Piece::Fail(_, errno) => Err(errno),
        // Targets track reads only.
        Piece::Track(..) => Err(Errno::EOPNOTSUPP),
        Piece::Take(length, taken) => {
            let job = current.host.as_ref().zip(table.engine());
            let (host, engine) = job.ok_or(Errno::EIO)?;
            let line = engine.serving(taken.line).ok_or(Errno::EIO)?;
            let given_back = !host.barrier(engine, line, Op::Discard, (taken.start, length))?;
            if given_back { Err(Errno::EAGAIN) } else { Ok(()) }
        }
    }
}

const _: () = assert!(DEV_BSIZE == sys::DEV_BSIZE as u32);
