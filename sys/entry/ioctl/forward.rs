// SPDX-License-Identifier: BSD-2-Clause

//! A disk's ioctls that its components answer: flushes, caches, the queue, alignment.

use alloc::sync::Arc;
use core::ffi::c_int;

use dm_core::Errno;
use dm_core::job::Op;
use dm_core::kernel::LiveTable;
use dm_core::table::Component;
use dm_core::units::{DEV_BSIZE, Sector};

use super::{Device, copy};
use crate::entry::kernel::NetBsd;
use crate::netbsd::sys;
use crate::netbsd::vnode::BlockDevice;

impl Device<'_> {
    /// The active table, once the device is not suspended; the wait is deaf to signals if `deaf`.
    /// Its components stay open as long as it is kept, but this thread is not inside the gate for
    /// it: a component's driver may wait for memory in an ioctl, and a resume or suspend holds I/O
    /// while it waits for threads inside. Dropping the table may sleep
    /// ([`Table`](dm_core::table::Table)), and is not to be done inside the gate.
    ///
    /// # Errors
    /// ENXIO without a table or if the device goes; EINTR if not `deaf`.
    fn table(&self, deaf: bool) -> Result<Arc<LiveTable<NetBsd>>, Errno> {
        let inside = self.slot.enter_waiting(deaf)?;
        inside.current().table.clone().ok_or(Errno::ENXIO)
    }

    /// Calls `f` with every component, once each.
    fn components(
        &self,
        mut f: impl FnMut(&BlockDevice) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let table = self.table(false)?;
        let mut result = Ok(());
        for component in table.components() {
            result = result.and(f(component.disk().device()));
        }
        result
    }

    /// DIOCCACHESYNC: every line whose target serves I/O flushes itself, and every component that
    /// another line reaches is flushed. The first error is returned, when all have been asked.
    /// Waits for a resume deaf to signals, as the I/O does that the flush is to order: wapbl(4) and
    /// ffs go on with what comes after it whatever it returns.
    pub(super) fn sync(&self, force: c_int) -> Result<(), Errno> {
        let (table, mut result) = loop {
            let table = self.table(true)?;
            table.may_flush()?;
            if let Some(result) = self.flush_lines(&table)? {
                break (table, result);
            }
        };
        let left = table.engine().map(|_| table.reached_by_others());
        for (at, component) in table.components().iter().enumerate() {
            if left.as_ref().is_none_or(|left| left.contains(&at)) {
                result = result.and(component.disk().device().flush(force));
            }
        }
        result
    }

    /// Flushes the lines of a table whose targets serve I/O, inside the gate, as every job is.
    /// `None` if that table is not the active one any more, or a target gave its job back.
    ///
    /// # Errors
    /// ENXIO if the device goes.
    fn flush_lines(
        &self,
        table: &Arc<LiveTable<NetBsd>>,
    ) -> Result<Option<Result<(), Errno>>, Errno> {
        let Some(engine) = table.engine() else { return Ok(Some(Ok(()))) };
        let inside = self.slot.enter_waiting(true)?;
        let current = inside.current();
        let (Some(host), Some(active)) = (&current.host, &current.table) else { return Ok(None) };
        if !Arc::ptr_eq(active, table) {
            return Ok(None);
        }
        let mut result = Ok(());
        for line in 0..engine.lines() {
            match host.barrier(engine, line, Op::Flush, (Sector::ZERO, Sector::ZERO)) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(errno) => result = result.and(Err(errno)),
            }
        }
        Ok(Some(result))
    }

    /// DIOCGCACHE: the features that all components have; a write cache of one is a write cache.
    /// FUA and DPO are left out: who asks, asks once, and the next table's components may ignore
    /// them.
    pub(super) fn cache(&self) -> Result<c_int, Errno> {
        let either = (sys::DKCACHE_WRITE | sys::DKCACHE_WCHANGE) as c_int;
        let mut all = None;
        self.components(|device| {
            let mut bits: c_int = 0;
            // SAFETY: DIOCGCACHE gives an int.
            unsafe { device.ioctl(sys::DIOCGCACHE as u32, &mut bits)? };
            all = Some(all.map_or(bits, |all: c_int| all & bits | (all | bits) & either));
            Ok(())
        })?;
        Ok(all.unwrap_or(0) & !((sys::DKCACHE_FUA | sys::DKCACHE_DPO) as c_int))
    }

    /// DIOCGSTRATEGY: the queue is the component's, if there is one component.
    pub(super) fn strategy(&self, info: &mut sys::disk_strategy) -> Result<(), Errno> {
        let mut count = 0usize;
        self.components(|_| {
            count = count.saturating_add(1);
            Ok(())
        })?;
        if count == 1 {
            // SAFETY: DIOCGSTRATEGY gives a struct disk_strategy.
            return self
                .components(|device| unsafe { device.ioctl(sys::DIOCGSTRATEGY as u32, info) });
        }
        copy(&mut info.dks_name, b"none", |c| c as _);
        Ok(())
    }

    /// DIOCGSECTORALIGN: the place of a device's first sector in its component's large sectors.
    /// With several components it is told only if it is the same for all.
    pub(super) fn alignment(&self) -> Result<sys::disk_sectoralign, Errno> {
        let table = self.table(false)?;
        let none = sys::disk_sectoralign { dsa_firstaligned: 0, dsa_alignment: 1 };
        let mut all: Option<sys::disk_sectoralign> = None;
        let mut differ = false;
        for (range, target) in table.lines() {
            target.extents(range.length, &mut |extent| {
                let component = table.components().get(extent.component.0 as usize);
                let Some(component) = component else { return };
                let device = component.disk().device();
                let mut one = none;
                // SAFETY: DIOCGSECTORALIGN gives a struct disk_sectoralign.
                let asked = unsafe { device.ioctl(sys::DIOCGSECTORALIGN as u32, &mut one) };
                if asked.is_err() || one.dsa_alignment == 0 {
                    one = none;
                }
                let unit = u64::from(component.sector_size() / DEV_BSIZE).max(1);
                let alignment = u64::from(one.dsa_alignment);
                // Sector s of the component is sector s - extent.start + range.start of the device.
                let shift = (extent.start.0 / unit + alignment - range.start.0 / unit % alignment)
                    % alignment;
                let first =
                    (u64::from(one.dsa_firstaligned) % alignment + alignment - shift) % alignment;
                one.dsa_firstaligned = u32::try_from(first).unwrap_or(0);
                differ |= all.is_some_and(|all| {
                    (all.dsa_firstaligned, all.dsa_alignment)
                        != (one.dsa_firstaligned, one.dsa_alignment)
                });
                all = Some(one);
            });
        }
        Ok(all.filter(|_| !differ).unwrap_or(none))
    }
}
