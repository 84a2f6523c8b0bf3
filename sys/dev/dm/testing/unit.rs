// SPDX-License-Identifier: BSD-2-Clause

//! The fake kernel's view of a device: a unit that counts the I/O that a test begins, keeps the
//! table, and records the driver's calls.

use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::kernel::{Disk, Fake};
use crate::kernel::{Geometry, LiveTable, Unit};
use crate::units::DEV_BSIZE;
use crate::{Dev, Errno, Minor, Sector};

/// A call of the driver's to a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// Suspend the file system that is mounted on the device.
    SuspendFileSystem,
    /// Resume that file system.
    ResumeFileSystem,
    /// Hold I/O, and wait for I/O in flight.
    Quiesce,
    /// Release the I/O that is held.
    Release,
    /// Take a table of so many sectors; `true` if it takes no writes.
    SetTable(u64, bool),
    /// Refuse opens from now on.
    BeginDetach,
    /// Fail all I/O from now on.
    Kill,
    /// Detach.
    Detach,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    table: Option<Arc<LiveTable<Fake>>>,
    read_only: bool,
    held: bool,
    in_flight: usize,
    opens: u32,
    detaching: bool,
    dead: bool,
    disk_gone: bool,
    geometry: Option<Geometry>,
    mounted: bool,
    gives_back: bool,
}

/// A device's unit, by reference: a clone is the same unit.
#[derive(Clone)]
pub struct FakeUnit {
    minor: Minor,
    kernel: Fake,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl FakeUnit {
    pub(super) fn new(minor: Minor, kernel: Fake) -> FakeUnit {
        FakeUnit { minor, kernel, shared: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unit's minor.
    pub fn minor(&self) -> Minor {
        self.minor
    }

    /// The calls so far. They are forgotten.
    pub fn calls(&self) -> Vec<Call> {
        core::mem::take(&mut self.state().calls)
    }

    /// `true` if I/O is held.
    pub fn held(&self) -> bool {
        self.state().held
    }

    /// `true` if the table's targets were to give back what could not complete when I/O was held
    /// last.
    pub fn gives_back(&self) -> bool {
        self.state().gives_back
    }

    /// The geometry that the driver has set.
    pub fn geometry(&self) -> Option<Geometry> {
        self.state().geometry
    }

    /// The size of the unit's table.
    pub fn size(&self) -> Option<Sector> {
        self.state().table.as_ref().map(|table| table.size())
    }

    /// `true` if the unit's table takes no writes.
    pub fn read_only(&self) -> bool {
        self.state().read_only
    }

    /// Opens a node, as a user would.
    ///
    /// # Errors
    /// ENXIO once the unit is being detached.
    pub fn open_node(&self) -> Result<(), Errno> {
        let mut state = self.state();
        if state.detaching {
            return Err(Errno::ENXIO);
        }
        state.opens += 1;
        Ok(())
    }

    /// Closes a node. The driver is told of the last close.
    pub fn close_node(&self) {
        let mut state = self.state();
        assert!(state.opens > 0 || std::thread::panicking(), "a close without an open");
        state.opens = state.opens.saturating_sub(1);
        let last = state.opens == 0;
        drop(state);
        if last {
            self.kernel.last_close(self.minor);
        }
    }

    /// Begins an I/O. `false` if it is held or refused.
    pub fn begin_io(&self) -> bool {
        let mut state = self.state();
        let goes = !state.held && !state.dead && state.table.is_some();
        state.in_flight += usize::from(goes);
        goes
    }

    /// Mounts a file system on the device.
    pub fn mount(&self) {
        self.state().mounted = true;
    }

    /// Ends an I/O that [`FakeUnit::begin_io`] began.
    pub fn end_io(&self) {
        let mut state = self.state();
        state.in_flight = state.in_flight.checked_sub(1).expect("an I/O in flight");
        self.shared.1.notify_all();
    }

    /// The unit as a disk, for a device above. A unit without a table has no sectors.
    pub(super) fn as_disk(&self, dev: Dev) -> Result<Disk, Errno> {
        let state = self.state();
        if state.detaching {
            return Err(Errno::ENXIO);
        }
        let shape = |table: &Arc<LiveTable<Fake>>| (table.size(), table.sector_size());
        let (size, sector_size) = state.table.as_ref().map_or((Sector::ZERO, DEV_BSIZE), shape);
        Ok(Disk { dev, size, sector_size, writable: !state.read_only, guard: None })
    }
}

/// The file system on a unit, while it is suspended.
pub struct Suspended(FakeUnit);

impl Drop for Suspended {
    fn drop(&mut self) {
        self.0.state().calls.push(Call::ResumeFileSystem);
    }
}

impl Unit<Fake> for FakeUnit {
    type Suspended = Suspended;

    fn suspend_file_system(&self) -> Result<Option<Suspended>, Errno> {
        let mut state = self.state();
        if !state.mounted || state.held {
            return Ok(None);
        }
        state.calls.push(Call::SuspendFileSystem);
        Ok(Some(Suspended(self.clone())))
    }

    fn quiesce(&self) -> Result<(), Errno> {
        let failure = self.kernel.world().fail_quiesce;
        let mut state = self.state();
        assert!(!state.held, "quiesced twice");
        state.calls.push(Call::Quiesce);
        state.held = true;
        let engine = state.table.as_ref().and_then(|table| table.engine());
        state.gives_back = engine.is_some_and(|engine| engine.keeps_failed());
        if let Some(errno) = failure {
            return Err(errno);
        }
        while state.in_flight > 0 {
            state = self.shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    fn release(&self) {
        let mut state = self.state();
        assert!(state.held, "released without being held");
        let engine = state.table.as_ref().and_then(|table| table.engine());
        assert!(
            engine.is_none_or(|engine| engine.is_running()),
            "I/O is let go while its engine is stopped"
        );
        state.calls.push(Call::Release);
        state.held = false;
    }

    fn set_table(
        &self,
        table: Arc<LiveTable<Fake>>,
        read_only: bool,
    ) -> Option<Arc<LiveTable<Fake>>> {
        let mut state = self.state();
        assert!(state.held && state.in_flight == 0, "a table was changed under I/O");
        state.calls.push(Call::SetTable(table.size().0, read_only));
        state.read_only = read_only;
        state.table.replace(table)
    }

    fn tell(&self, table: &LiveTable<Fake>) {
        let state = self.state();
        assert!(!state.held, "told of a table, for which memory is waited for, while I/O is held");
        let active = state.table.as_ref().map(|table| table.size());
        assert_eq!(active, Some(table.size()), "told of a table that is not active");
    }

    fn set_geometry(&self, geometry: Geometry) {
        self.state().geometry = Some(geometry);
    }

    fn open_count(&self) -> u32 {
        self.state().opens
    }

    fn begin_detach(&self, force: bool) -> Result<(), Errno> {
        let mut state = self.state();
        if state.opens > 0 && !force {
            return Err(Errno::EBUSY);
        }
        state.calls.push(Call::BeginDetach);
        state.detaching = true;
        Ok(())
    }

    fn kill(&self) -> Option<Arc<LiveTable<Fake>>> {
        let mut state = self.state();
        assert!(state.detaching, "killed without begin_detach");
        state.calls.push(Call::Kill);
        state.dead = true;
        while state.in_flight > 0 {
            state = self.shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.table.take()
    }

    fn detach_disk(&self) {
        let mut state = self.state();
        assert!(state.dead && state.in_flight == 0, "a disk was detached without kill");
        assert!(!state.disk_gone, "a disk was detached twice");
        state.disk_gone = true;
    }

    fn detach(&self) -> Result<(), Errno> {
        let mut state = self.state();
        assert!(state.disk_gone, "detached without detach_disk");
        state.calls.push(Call::Detach);
        drop(state);
        let mut world = self.kernel.world();
        if let Some(errno) = world.fail_detach {
            return Err(errno);
        }
        assert!(world.units.remove(&self.minor).is_some(), "detached twice");
        Ok(())
    }
}
