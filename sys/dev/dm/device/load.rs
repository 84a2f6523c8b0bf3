// SPDX-License-Identifier: BSD-2-Clause

//! The load of a table: lines from userland, the components they name, the inactive slot.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::opener::TableOpener;
use super::{Device, Driver, IoState, Loaded};
use crate::executor::{self, Executor};
use crate::host::Ready;
use crate::kernel::{Kernel, LabelGuard, LiveTable, Mutex};
use crate::mistake::{Mistake, TableError};
use crate::purse::Share;
use crate::table::{Builder, Table};
use crate::target::Target;
use crate::units::{Minor, SectorRange};
use crate::{Errno, Refusal, limits};

/// Lines of a table that comes in several requests. They belong to the process that sent them:
/// another one neither adds to them nor loads them, and begins anew with its own. All fields: under
/// [`Device::parts`].
#[derive(Default)]
pub(super) struct Parts {
    /// The process that sent them: [`Kernel::process`].
    sender: u64,
    /// The lines so far.
    lines: Vec<LineRequest>,
    /// The memory that they take of [`limits::ALL_TABLES`].
    share: Option<Share>,
}

impl Parts {
    /// Makes the lines `sender`'s, and returns those that have to go for that, to be dropped
    /// outside the lock.
    fn claim(&mut self, sender: u64, before: Option<u64>) -> Parts {
        match self.sender != sender || before == Some(0) {
            true => core::mem::replace(self, Parts { sender, ..Parts::default() }),
            false => Parts::default(),
        }
    }
}

/// The arguments of [`Driver::reload`] beside the lines.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Load {
    /// `true` if the table takes no writes.
    pub read_only: bool,
    /// `true` if more lines will come in further requests.
    pub more: bool,
    /// The number of lines that the requests before have brought; 0 begins a table anew. `None`
    /// adds lines to those that the same process has sent before, however many.
    pub before: Option<u64>,
}

/// A line as userland sends it.
#[derive(Clone, Debug)]
pub struct LineRequest {
    /// The first sector.
    pub start: u64,
    /// The number of sectors.
    pub length: u64,
    /// The target's name.
    pub kind: String,
    /// The target's parameters.
    pub params: String,
}

/// Parameters may hold keys.
impl Drop for LineRequest {
    fn drop(&mut self) {
        dm_sync::wipe_text(&mut self.params);
    }
}

impl LineRequest {
    /// Bytes of the target's name and parameters.
    fn text(&self) -> usize {
        self.kind.len().saturating_add(self.params.len())
    }

    /// An upper bound, in bytes, on what the line takes of [`limits::ALL_TABLES`]: a stripe has at
    /// least four characters (`p 0 `), and 32 bytes in a table.
    fn cost(&self) -> usize {
        self.text().saturating_mul(8).saturating_add(64)
    }
}

impl<K: Kernel> Driver<K> {
    /// Builds a table and puts it into the inactive slot, in place of what was there. With
    /// [`Load::more`] the lines are kept until the request that brings the last of them. Returns a
    /// warning about a table that is loaded all the same, if there is one. Context: a thread in an
    /// ioctl, with no lock held; sleeps for file systems, components' drivers and memory, and for
    /// the end of the table that goes.
    ///
    /// # Errors
    /// The mistake in the table. Both slots are as they were then, and lines that the same process
    /// has sent before are dropped.
    pub fn reload(
        &self,
        device: &Arc<Device<K>>,
        lines: Vec<LineRequest>,
        load: Load,
    ) -> Result<Option<String>, Refusal> {
        let result = self.load(device, lines, load);
        if let Err(refusal) = &result {
            device.forget_lines_of(self.kernel.process());
            if !refusal.reason.is_empty() {
                self.say(format_args!("dm{}: table refused: {refusal}", device.minor));
            }
        }
        result
    }

    fn load(
        &self,
        device: &Arc<Device<K>>,
        lines: Vec<LineRequest>,
        load: Load,
    ) -> Result<Option<String>, Refusal> {
        let Some(Parts { lines, share, .. }) = self.collect(device, lines, load)? else {
            return Ok(None);
        };
        let share = RefCell::new(share);
        let read_only = load.read_only || device.state.lock().created_read_only;
        let (mut table, warning) = self.build(device.minor, &lines, read_only, &share)?;
        let mut share = share.into_inner();
        self.engage(device, &mut table, &mut share)?;
        let loaded = Loaded { table: Arc::new(table), read_only, share: share.map(Arc::new) };
        self.install(device, loaded).map_err(|errno| match errno {
            Errno::ELOOP => errno.because(format_args!(
                "the table would map a device to itself, or stack more than {} on one another",
                limits::DEPTH
            )),
            errno => errno.into(),
        })?;
        Ok(warning)
    }

    /// Adds lines to those that the same process has sent before. Returns all of them, with the
    /// memory that is charged for them, unless more are to come.
    ///
    /// # Errors
    /// ENOMEM or E2BIG if they are too many, EAGAIN if those that were sent before are not here.
    #[inline(never)]
    fn collect(
        &self,
        device: &Arc<Device<K>>,
        lines: Vec<LineRequest>,
        load: Load,
    ) -> Result<Option<Parts>, Refusal> {
        let sender = self.kernel.process();
        // Lines that another process sent, or of a table that was given up, go first: they are paid
        // for.
        let stale = device.parts.lock().claim(sender, load.before);
        drop(stale);
        let cost = lines.iter().map(LineRequest::cost).fold(0usize, usize::saturating_add);
        let share = self
            .purse
            .take(cost)
            .map_err(|errno| errno.because(format_args!("all tables together are too large")))?;
        // Dropped after the lock: another request may have been quicker.
        let stale;
        let mut parts = device.parts.lock();
        stale = parts.claim(sender, load.before);
        let kept = parts.lines.len();
        let all = if load.before.is_some_and(|before| usize::try_from(before) != Ok(kept)) {
            Err(Errno::EAGAIN.because(format_args!(
                "of the lines that were sent before, {kept} are here: begin anew"
            )))
        } else {
            parts.lines.extend(lines);
            match &mut parts.share {
                Some(all) => all.join(share),
                none => *none = Some(share),
            }
            let bytes =
                parts.lines.iter().map(LineRequest::text).fold(0usize, usize::saturating_add);
            if parts.lines.len() > limits::LINES || bytes > limits::TABLE_BYTES {
                Err(Errno::E2BIG.because(format_args!(
                    "too many lines: {}, of {} at most, with {bytes} bytes of targets and \
                     parameters, of {} at most",
                    parts.lines.len(),
                    limits::LINES,
                    limits::TABLE_BYTES
                )))
            } else if load.more {
                Ok(None)
            } else {
                Ok(Some(core::mem::take(&mut *parts)))
            }
        };
        drop(parts);
        drop(stale);
        all
    }

    #[inline(never)]
    fn build(
        &self,
        minor: Minor,
        lines: &[LineRequest],
        read_only: bool,
        share: &RefCell<Option<Share>>,
    ) -> Result<(LiveTable<K>, Option<String>), TableError> {
        let opener = TableOpener { driver: self, minor, read_only, share };
        let mut builder = Builder::new(&opener);
        for line in lines {
            builder.line(line.start, line.length, &line.kind, &line.params)?;
        }
        let table = builder.build()?;
        let warning = self.check_labels(minor, &table)?;
        Ok((table, warning))
    }

    /// Looks whether a table reaches into sectors that are kept for a component's label, and warns
    /// of the first.
    ///
    /// # Errors
    /// EINVAL if it does and hw.dm.label_guard is 2.
    #[inline(never)]
    fn check_labels(
        &self,
        minor: Minor,
        table: &LiveTable<K>,
    ) -> Result<Option<String>, TableError> {
        let guard = self.kernel.label_guard();
        let mut first = None;
        if guard != LabelGuard::Off {
            table.reserved(&mut |dev, at, safe| first = first.or(Some((dev, at, safe))));
        }
        let Some((dev, at, safe)) = first else { return Ok(None) };
        let warning = alloc::format!(
            "the table uses sector {at} of {dev}, which is kept for its label and boot code; the \
             first safe sector is {safe}"
        );
        self.say(format_args!("dm{minor}: {warning}"));
        if guard == LabelGuard::Tables {
            let why = "the table uses sectors kept for a component's label";
            let mistake = Mistake::new(Errno::EINVAL, why)
                .about(format_args!("sector {at} of {dev}, and {safe} is the first safe one"));
            return Err(TableError { line: None, mistake });
        }
        Ok(Some(warning))
    }

    /// Makes the engine of a table whose targets serve I/O themselves, and starts its threads.
    #[inline(never)]
    fn engage(
        &self,
        device: &Arc<Device<K>>,
        table: &mut LiveTable<K>,
        share: &mut Option<Share>,
    ) -> Result<(), Refusal> {
        if table.serving().is_empty() {
            return Ok(());
        }
        let wrong = |errno: Errno, why: &str| errno.because(format_args!("{why}"));
        let lines = table.serving().to_vec();
        let plan = executor::plan(&lines);
        let threads = plan.threads.saturating_add(plan.errand_threads());
        let threads = threads.saturating_mul(self.kernel.thread_bytes());
        let bytes = lines.iter().map(|(_, target)| target.needs().bytes(K::NESTED));
        let bytes = bytes.fold(threads, usize::saturating_add);
        let paid = self.purse.take(bytes);
        let paid = paid.map_err(|errno| wrong(errno, "all tables together are too large"))?;
        match share {
            Some(all) => all.join(paid),
            none => *none = Some(paid),
        }
        let ready = Arc::new(Ready::new(&plan.runners, plan.threads));
        let host = self.kernel.host(device.minor, &plan, ready.clone(), table.components())?;
        let device = Arc::downgrade(device);
        let raise = move || {
            if let Some(device) = device.upgrade() {
                device.raise_event();
            }
        };
        let (engine, runners) = Executor::new(host, ready, lines, Box::new(raise));
        let started = engine.shared_host().run(runners);
        // Dropping the table ends the engine from here on.
        table.set_engine(engine);
        started.map_err(|errno| wrong(errno, "the table's threads could not be started"))?;
        Ok(())
    }

    /// Puts a built table into the inactive slot. Loops are looked for here, under the lock that
    /// all tables are installed under, so that two tables cannot close one together.
    #[inline(never)]
    fn install(&self, device: &Device<K>, loaded: Loaded<K>) -> Result<(), Errno> {
        let devices = self.devices.lock();
        let below =
            devices.depth_below(self.kernel.block_major(), loaded.table.devs(), device.minor)?;
        if below > 0 {
            devices.depth_above(self.kernel.block_major(), device.minor, below)?;
        }
        let mut state = device.state.lock();
        if state.io == IoState::Gone {
            return Err(Errno::ENXIO);
        }
        let old = state.inactive.replace(loaded);
        // Dropping a table closes components: not under these locks.
        drop(state);
        drop(devices);
        drop(old);
        Ok(())
    }

    /// Drops, on all devices, the lines of tables that are not complete: the control node was
    /// closed. Context: a thread (d_close) with no lock held; may drop the last reference to a
    /// device that another thread removes.
    pub fn forget_all_lines(&self) {
        let devices = self.devices.lock();
        let all: Vec<_> = devices.list.iter().filter_map(|e| e.device().cloned()).collect();
        drop(devices);
        for device in all {
            device.forget_lines();
        }
    }

    /// Drops the inactive table. Context: a thread with no lock held; sleeps for the table's end.
    pub fn clear(&self, device: &Device<K>) {
        let mut state = device.state.lock();
        let old = state.inactive.take();
        state.cleared = state.starting.is_some();
        drop(state);
        drop(old);
        device.forget_lines();
    }
}

impl<K: Kernel> Device<K> {
    /// Drops the lines that were kept for a table in several requests. Context: a thread; takes
    /// `parts`.
    pub fn forget_lines(&self) {
        let parts = core::mem::take(&mut *self.parts.lock());
        drop(parts);
    }

    /// Drops the lines that were kept for a table in several requests, if `sender` sent them.
    /// Context: a thread; takes `parts`.
    pub fn forget_lines_of(&self, sender: u64) {
        let mut kept = self.parts.lock();
        let parts = match kept.sender == sender {
            true => core::mem::take(&mut *kept),
            false => Parts::default(),
        };
        drop(kept);
        drop(parts);
    }
}

/// Turns a table back into the lines that would load it.
pub fn lines<C>(table: &Table<C>) -> Vec<LineRequest> {
    let line = |(range, target): (SectorRange, &dyn Target)| LineRequest {
        start: range.start.0,
        length: range.length.0,
        kind: target.kind().name.into(),
        params: table.secrets(target),
    };
    table.lines().map(line).collect()
}
