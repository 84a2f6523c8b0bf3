// SPDX-License-Identifier: BSD-2-Clause

//! The engine under the simulation's host, with a target of the tests' own that records its calls.

use alloc::string::{String, ToString};
use alloc::vec;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::job::{Job, Op, Place};
use crate::lane::{Lane, Outcome};
use crate::mistake::Mistake;
use crate::target::{ComponentIndex, IoRange, LineSpec, Made, Mapping, Target, TargetType};
use crate::testing::sim::{Disk, World};
use crate::worker::{Needs, Quiesce, Worker};
use crate::{Errno, Sector};

/// `pulse DEV`: a target whose background lane counts every 10 milliseconds, and flushes when it is
/// stopped.
struct Pulse {
    component: ComponentIndex,
    beats: AtomicU32,
    runs: AtomicU32,
    served: AtomicU32,
}

static PULSE: TargetType = TargetType { name: "pulse", version: [1, 0, 0], new };
static TYPES: &[&TargetType] = &[&PULSE];

fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    let path = line.params.path()?;
    let length = line.length;
    let component = line.component(path, Sector::ZERO, length)?;
    let zero = || AtomicU32::new(0);
    Ok(Made::serves(Pulse { component, beats: zero(), runs: zero(), served: zero() }))
}

impl Target for Pulse {
    fn kind(&self) -> &'static TargetType {
        &PULSE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        Mapping::Take { length: io.length, queue: 0 }
    }

    fn message(&self, text: &str, reply: &mut String) -> Result<(), Errno> {
        let count = match text {
            "beats" => &self.beats,
            "runs" => &self.runs,
            _ => &self.served,
        };
        *reply = count.load(Ordering::Relaxed).to_string();
        Ok(())
    }
}

impl Worker for Pulse {
    fn needs(&self) -> Needs {
        Needs { queues: vec![1], jobs: 2, background: 1, control_buffer: 512, ..Needs::default() }
    }

    async fn serve(&self, job: Job, lane: &mut Lane) {
        self.served.fetch_add(1, Ordering::Relaxed);
        match job.op() {
            Op::Read => {
                let sector = job.start();
                job.forward(Place { component: self.component, sector });
            }
            _ => {
                let place = Place { component: self.component, sector: job.start() };
                let result = lane.send(&job, &[place]).await.ok();
                job.end(result);
            }
        }
    }

    async fn background(&self, _number: usize, lane: &mut Lane) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        while !lane.stopping() {
            lane.sleep(10).await;
            self.beats.fetch_add(u32::from(!lane.stopping()), Ordering::Relaxed);
        }
        // The lane does not return in the poll in which it sees that it must.
        let _ = lane.flush(&[self.component]).await;
    }

    async fn start(&self, lane: &mut Lane) -> Result<(), Errno> {
        let from = Place { component: self.component, sector: Sector::ZERO };
        lane.read(from, Sector(1)).await
    }
}

fn world(seed: u64) -> World {
    World::new(seed, TYPES, vec![Disk::new(64)], 1, false)
}

fn count(world: &World, what: &str) -> u32 {
    world.message(0, 0, what).unwrap().parse().unwrap()
}

/// Lets `milliseconds` milliseconds pass, with all events in each.
fn pass(world: &World, milliseconds: u32) {
    for _ in 0..milliseconds {
        world.pass(1);
        world.run(4);
    }
}

#[test]
fn the_background_runs_from_start_to_stop() {
    for seed in 0..20 {
        let world = world(seed);
        let table = world.load(0, "0 64 pulse d0");
        world.run(50);
        assert_eq!(count_of(&table, "runs"), "0", "it runs before the start");
        world.swap(0, table).unwrap();
        pass(&world, 100);
        let beats = count(&world, "beats");
        // Without another event the clock goes to the next beat by itself.
        assert!(beats >= 10, "{beats} beats in 100 milliseconds and some");
        world.suspend(0, Quiesce::Flush);
        let beats = count(&world, "beats");
        pass(&world, 100);
        assert_eq!(count(&world, "beats"), beats, "it runs after the stop");
        world.resume(0).unwrap();
        pass(&world, 100);
        assert!(count(&world, "beats") > beats);
        assert_eq!(count(&world, "runs"), 2);
        world.take_down(Quiesce::Remove);
    }
}

fn count_of(table: &crate::testing::sim::Loaded, what: &str) -> String {
    let mut reply = String::new();
    table.target(Sector::ZERO).unwrap().message(what, &mut reply).unwrap();
    reply
}

#[test]
fn the_background_goes_on_after_a_suspend_that_was_called_off() {
    for seed in 0..200 {
        let world = world(seed);
        world.swap(0, world.load(0, "0 64 pulse d0")).unwrap();
        pass(&world, 20);
        world.suspend_interrupted(0, Quiesce::Flush, seed % 8);
        pass(&world, 20);
        let beats = count(&world, "beats");
        pass(&world, 100);
        assert!(count(&world, "beats") > beats, "seed {seed}: the background has ended");
        world.take_down(Quiesce::Remove);
    }
}

#[test]
fn a_target_that_did_not_start_sees_no_io() {
    for seed in 0..20 {
        let world = world(seed);
        world.swap(0, world.load(0, "0 64 pulse d0")).unwrap();
        world.suspend(0, Quiesce::Flush);
        let served = count(&world, "served");
        world.disk(0, |disk| disk.faults.dead = true);
        assert_eq!(world.resume(0), Err(Errno::EIO));
        world.release(0);
        world.disk(0, |disk| disk.faults.dead = false);
        for sector in 0..8 {
            world.submit(0, Op::Write, sector, 1, false);
        }
        world.settle(0);
        assert!(world.is_idle());
        assert_eq!(count(&world, "served"), served);
        world.suspend(0, Quiesce::Flush);
        world.resume(0).unwrap();
        world.submit(0, Op::Write, 0, 1, false);
        world.settle(0);
        assert_eq!(count(&world, "served"), served + 1);
        world.take_down(Quiesce::Remove);
    }
}

#[test]
fn io_beyond_the_number_of_jobs_waits_for_one() {
    for seed in 0..20 {
        let world = world(seed);
        world.swap(0, world.load(0, "0 64 pulse d0")).unwrap();
        let served = count(&world, "served");
        for sector in 0..50 {
            world.submit(0, if sector % 3 == 0 { Op::Write } else { Op::Read }, sector, 2, false);
        }
        world.settle(0);
        assert!(world.is_idle());
        assert_eq!(count(&world, "served"), served + 50);
        world.take_down(Quiesce::Remove);
    }
}

/// The plan of lines with these needs.
fn plan<const LINES: usize>(lines: [Needs; LINES]) -> crate::host::Plan {
    struct Wants(Needs);
    impl crate::worker::Lanes for Wants {
        fn needs(&self) -> Needs {
            self.0.clone()
        }
        fn at_once(&self, job: Job) -> Option<Job> {
            Some(job)
        }
        fn answered(&self, job: Job, _: Outcome) -> Option<Job> {
            Some(job)
        }
        fn suspending(&self, _: Quiesce) {}
        fn future(self: alloc::sync::Arc<Self>, _: Lane) -> crate::worker::LaneFuture {
            alloc::boxed::Box::pin(async {})
        }
    }
    super::plan(&lines.map(|needs| (0, alloc::sync::Arc::new(Wants(needs)) as _)))
}

/// Lines that compute share no thread with a line that does not, and a line's lanes are on no more
/// threads than the line asks for.
#[test]
fn lines_that_ask_for_one_thread_share_none_with_those_that_compute() {
    let with = |threads| Needs { queues: vec![3], threads, ..Needs::default() };
    let runners = |plan: crate::host::Plan| (plan.threads, plan.runners);
    assert_eq!(runners(plan([with(1), with(0)])), (1, vec![0; 8]));
    assert_eq!(runners(plan([with(3)])), (3, vec![0, 1, 2, 0]));
    assert_eq!(runners(plan([with(2), with(3)])), (3, vec![0, 1, 0, 1, 0, 1, 2, 0]));
    let mixed = plan([with(1), with(3), with(1), with(2)]);
    assert_eq!(runners(mixed), (4, vec![0, 0, 0, 0, 1, 2, 3, 1, 0, 0, 0, 0, 1, 2, 1, 2]));
}

#[test]
fn a_line_has_a_lane_for_all_that_it_needs() {
    let two = plan([Needs { queues: vec![2, 3], background: 1, width: 2, ..Needs::default() }]);
    assert_eq!(two.lanes, [2; 7]);
}

#[test]
#[should_panic = "dm: a target with strange needs"]
fn no_line_has_more_lanes_than_a_signal_has_bits() {
    plan([Needs { queues: vec![16, 15], background: 1, ..Needs::default() }]);
}

#[test]
#[should_panic = "dm: a target with strange needs"]
fn no_request_goes_to_more_places_than_an_answer_has_bits() {
    plan([Needs { width: 33, ..Needs::default() }]);
}

#[test]
#[should_panic = "dm: a target with strange needs"]
fn no_line_does_without_jobs() {
    plan([Needs { jobs: 0, ..Needs::default() }]);
}
