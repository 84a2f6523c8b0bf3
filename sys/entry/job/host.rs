// SPDX-License-Identifier: BSD-2-Clause

//! NetBSD as the engine's host: threads, the clock, the console, and calls of the other files'
//! functions.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt::{self, Write as _};
use core::ptr;
use core::sync::atomic::Ordering;

use dm_core::Errno;
use dm_core::executor::Runner;
use dm_core::host::{Answer, Completions, End, Host, Request};
use dm_core::job::{JobInfo, Place};
use dm_core::lane::Outcome;
use dm_core::target::ComponentIndex;
use dm_core::units::{Minor, Sector, SectorRange};

use super::TableIo;
use super::parent::{GIVEN_BACK, JobParent};
use crate::entry::io::parker::Parker;
use crate::entry::slot::Current;
use crate::entry::{dm_background_share, journey};
use crate::netbsd::cpu::Text;
use crate::netbsd::kthread::Thread;
use crate::netbsd::{cpu, sys};

impl Host for TableIo {
    fn run(self: Arc<Self>, runners: Vec<Runner>) -> Result<(), Errno> {
        // SAFETY: no thread polls lanes yet, and no I/O comes before this is over.
        unsafe { *self.engine.get() = runners.first().map(|runner| runner.executor().clone()) };
        let mut threads = Vec::new();
        let start = |threads: &mut Vec<Thread>| {
            for mut runner in runners {
                let table = self.clone();
                threads.push(Thread::start(&name(self.minor), move || {
                    let number = runner.number();
                    let parker = table.parker(number);
                    loop {
                        let next = runner.run();
                        if table.is_ending() {
                            return;
                        }
                        let work = || table.ready.any(number) || table.is_ending();
                        parker.park(work, next.map(cpu::ticks_in));
                    }
                })?);
            }
            for which in 0..self.errands.len() {
                let table = self.clone();
                threads.push(Thread::start(&name(self.minor), move || {
                    let errands = &table.errands[which];
                    while !table.is_ending() {
                        table.do_errands(errands);
                        let work = || !errands.is_empty() || table.is_ending();
                        errands.parker.park(work, None);
                    }
                })?);
            }
            Ok(())
        };
        let started = start(&mut threads);
        *self.threads.lock() = threads;
        if started.is_err() {
            self.end_threads();
        }
        started
    }

    fn end_threads(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.parkers.iter().for_each(Parker::unpark);
        self.errands.iter().for_each(|errands| errands.parker.unpark());
        let threads = core::mem::take(&mut *self.threads.lock());
        // Waits for each.
        drop(threads);
        // A component's completion may have woken a lane, which has ended since, and not have
        // returned yet: nothing else keeps this memory. It is counted in by now.
        self.slot.completing.drain(cpu::pause);
        // SAFETY: nothing is in flight, and the threads have ended.
        drop(unsafe { (*self.engine.get()).take() });
    }

    fn kick(&self, runner: usize) {
        self.parker(runner).unpark();
    }

    fn begin(&self, lane: usize, request: Request, places: &[Place]) {
        self.begin_request(lane, request, places);
    }

    fn send(&self, lane: usize, job: &JobInfo, part: SectorRange, places: &[Place]) {
        self.send_job(lane, job, part, places);
    }

    fn answer(&self, lane: usize) -> Option<Answer> {
        self.take_answer(lane)
    }

    fn outcome(&self, lane: usize) -> Option<Outcome> {
        self.take_outcome(lane)
    }

    fn data(&self, job: usize, use_it: &mut dyn FnMut(&mut [u8])) {
        let cell = self.job(job);
        // SAFETY: the caller has the job, so that its cell and its piece are the caller's. The
        // data is mapped until the I/O is complete, and while the job is not with a component
        // no other context has it.
        unsafe {
            let Some((io, offset, bytes)) = (*cell.parent.get()).part() else {
                return use_it(&mut []);
            };
            let data = io.data(offset, bytes);
            if !data.is_null() {
                use_it(core::slice::from_raw_parts_mut(data, bytes as usize));
            }
        }
    }

    fn end(&self, job: usize, result: Result<(), Errno>) {
        let parent = self.job(job).parent.get();
        // SAFETY: the caller has the job, so that its cell is the caller's; what is read is written
        // over.
        unsafe {
            if let (Ok(()), JobParent::Whole(io, journey)) = (result, &*parent) {
                let (io, journey) = (ptr::read(io), ptr::read(journey));
                parent.write(JobParent::Nothing);
                return self.slot.finish(io, journey, self.slot.here());
            }
        }
        self.answer_parent(self.take_parent(job), result.map_err(|errno| (0, errno)));
    }

    fn give_back(&self, job: usize) {
        match self.take_parent(job) {
            JobParent::Whole(io, journey) => self.slot.hold_given_back(io, journey),
            JobParent::Piece(split, ..) => {
                // SAFETY: the piece keeps the split; the flag is looked at by the last to leave.
                unsafe { &(*split.as_ptr()).given_back }.store(true, Ordering::Relaxed);
                self.slot.release(split, self.slot.here());
            }
            JobParent::Thread(answer) => self.answer_thread(answer, GIVEN_BACK),
            JobParent::Nothing => {}
        }
    }

    fn forward(&self, job: &JobInfo, to: Place) {
        self.forward_to(job, to);
    }

    fn forward_each(&self, job: &JobInfo, to: &[Place]) {
        self.forward_to_each(job, to);
    }

    fn forward_changed(&self, job: &JobInfo, data: Box<[u8]>, to: Place) {
        self.forward_other_data(job, data, to);
    }

    fn take_changed(&self, job: usize) -> Option<Box<[u8]>> {
        // SAFETY: the caller has the job, so that its cell is the caller's, and no place that has
        // the data.
        unsafe { (*self.job(job).changed.get()).take() }
    }

    fn in_thread(&self) -> bool {
        cpu::in_thread()
    }

    fn may_compute(&self, job: usize) -> bool {
        // SAFETY: the caller has the job, so that its cell is the caller's.
        let part = unsafe { (*self.job(job).parent.get()).part() };
        cpu::in_thread() && part.is_none_or(|(io, ..)| journey::is_at_sender(io))
    }

    fn keeps_fua(&self, component: ComponentIndex) -> bool {
        self.component(component).is_some_and(|opened| opened.keeps_fua)
    }

    fn completing(&self) -> &'static Completions {
        &self.slot.completing
    }

    fn freed(&self, line: usize) -> bool {
        let split = self.waiting_of(line).lock().pop();
        if let Some(split) = split {
            self.slot.go_on(split);
        }
        // A flush or a discard may wait, too.
        self.announce();
        split.is_some()
    }

    fn say(&self, what: fmt::Arguments<'_>) {
        let mut text = Text::new();
        // Text never refuses: what does not fit is cut.
        let _ = writeln!(text, "dm{}: {what}", self.minor);
        text.print();
    }

    fn end_system(&self, end: End, why: &CStr) {
        match end {
            End::Restart => cpu::restart(why),
            End::Panic => cpu::panic(why),
        }
    }

    fn background_share(&self) -> u32 {
        dm_background_share.load(Ordering::Relaxed).unsigned_abs()
    }

    fn now(&self) -> u32 {
        cpu::milliseconds()
    }

    fn max_io(&self) -> usize {
        sys::MAXPHYS as usize
    }

    fn size(&self, component: ComponentIndex) -> Sector {
        let Some(opened) = self.component(component) else { return Sector::ZERO };
        // Another driver's device is not asked again: the ioctl takes locks whose owners may wait
        // for memory.
        let dev = opened.disk.device().dev();
        let below = self.slot.below(dev).filter(|slot| slot.serves(dev));
        below.and_then(|slot| slot.peek(Current::size)).flatten().unwrap_or(opened.size)
    }

    fn wait(&self, done: &mut dyn FnMut() -> bool) {
        let mut guard = self.control.lock();
        while !done() {
            self.announced.wait(&mut guard);
        }
    }

    fn announce(&self) {
        let guard = self.control.lock();
        self.announced.broadcast();
        drop(guard);
    }
}

impl TableIo {
    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }
}

/// The name that ps(1) shows of a device's threads.
fn name(minor: Minor) -> alloc::ffi::CString {
    alloc::ffi::CString::new(alloc::format!("dm{minor}")).unwrap_or_default()
}
