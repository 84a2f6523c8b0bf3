// SPDX-License-Identifier: BSD-2-Clause

//! Mirrors whose legs fail a flush at a moment that games hardly meet.

use super::disk::Command;
use super::*;
use crate::job::Op;
use crate::targets::TARGETS;
use crate::worker::Quiesce;

/// Sectors of a region, of which a mirror here has [`REGIONS`].
const REGION: u64 = 256;
const REGIONS: u64 = 3;

/// Milliseconds after which a mirror looks for regions that are not written any more.
const REST: u32 = 500;

/// The bitmap's offset in the log, in bytes.
const BITMAP: usize = 1024;

const LEGS: [usize; 2] = [0, 1];
const LOG: usize = 2;

/// The seeds to try: what a flush that fails loses, and what a power cut leaves, is chance.
const SEEDS: core::ops::Range<u64> = 0..16;

/// A device with a mirror of two legs that are the same.
struct Mirror(World);

impl Mirror {
    /// A mirror whose log, if `log` is one on a disk, calls the regions clean that have a bit in
    /// `clean`.
    fn new(seed: u64, log: &str, clean: u8, features: &str) -> Mirror {
        let leg = Disk::junk(REGIONS * REGION, &mut Rng::new(seed));
        let mut content = [0; 8 * SECTOR];
        content[..9].copy_from_slice(b"rRiM\x02\0\0\0\x03");
        content[BITMAP] = clean;
        let disks = alloc::vec![leg.clone(), leg, Disk::with(content.into())];
        let world = World::new(seed, TARGETS, disks, 1, false);
        {
            let mut state = world.shared.lock();
            state.temper.at_once = 0;
            state.max_io = 1 << 16;
        }
        for leg in LEGS {
            world.disk(leg, |disk| disk.faults.drops = true);
        }
        let sectors = REGIONS * REGION;
        let table = alloc::format!("0 {sectors} mirror {log} 2 d0 0 d1 0{features}");
        world.swap(0, world.load(0, &table)).unwrap();
        Mirror(world)
    }

    /// Has all happen that can, but the answers of the commands that `held` names.
    fn run_but(&self, held: impl Fn(usize, Command, u64) -> bool) {
        self.0.shared.run_all_but(|disk, transfer| held(disk, transfer.command, transfer.sector));
    }

    fn run(&self) {
        self.run_but(|_, _, _| false);
    }

    fn flushes_fail(&self, leg: usize, fail: bool) {
        self.0.disk(leg, |disk| disk.faults.flush = if fail { 1000 } else { 0 });
    }

    /// Begins a write to a region.
    fn write(&self, region: u64) {
        self.0.submit(0, Op::Write, region * REGION, 8, false);
    }

    fn flush(&self) {
        self.0.submit(0, Op::Flush, 0, 0, false);
    }

    /// `true` if the status has this.
    fn says(&self, what: &str) -> bool {
        self.0.status(0, 0).contains(what)
    }

    /// Cuts the power, and brings the disks up.
    fn crash(&self) {
        self.0.cut_after(0);
        self.0.run(1);
        self.0.take_down(Quiesce::Remove);
        self.0.power_up();
    }

    /// Cuts the power, after which the legs agree wherever the log calls a region clean.
    #[track_caller]
    fn crashes_true(&self, seed: u64) {
        self.crash();
        for region in 0..REGIONS {
            let clean = self.is_clean(region);
            assert!(!clean || self.agrees(region), "seed {seed}: region {region}");
        }
    }

    /// `true` if the log calls a region clean.
    fn is_clean(&self, region: u64) -> bool {
        self.0.disk(LOG, |log| log.content(2, 1)[0] >> region & 1 != 0)
    }

    /// `true` if both legs have the same content in a region.
    fn agrees(&self, region: u64) -> bool {
        let [first, second] =
            LEGS.map(|leg| self.0.disk(leg, |disk| disk.content(region * REGION, REGION).to_vec()));
        first == second
    }
}

#[test]
fn a_region_recovered_during_a_flush_keeps_its_mark() {
    for seed in SEEDS {
        // Region 0 is being recovered all the while.
        let mirror = Mirror::new(seed, "disk 2 d2 256", 0b110, "");
        let recovery =
            |disk, command, sector| disk == LEGS[0] && command == Command::Read && sector < REGION;
        let pass = || {
            mirror.0.pass(REST);
            mirror.run_but(recovery);
        };
        mirror.run_but(recovery);
        // Region 1 is written, and then no more for a while.
        mirror.write(1);
        mirror.run_but(recovery);
        pass();
        // The leg loses what was written.
        mirror.flushes_fail(LEGS[1], true);
        mirror.flush();
        mirror.run_but(recovery);
        mirror.flushes_fail(LEGS[1], false);
        assert!(mirror.0.is_idle() && mirror.says(" 1/3 1 AF "), "{}", mirror.0.status(0, 0));
        // The mark of region 2 is to go. Meanwhile regions 0 and 1 are copied.
        mirror.write(2);
        mirror.run_but(recovery);
        pass();
        let flush = |disk, command, _| disk == LEGS[1] && command == Command::Flush;
        mirror.0.pass(REST);
        mirror.run_but(|disk, command, sector| {
            recovery(disk, command, sector) || flush(disk, command, sector)
        });
        mirror.run_but(flush);
        assert!(!mirror.says(" 1/3 "), "region 1 is not copied");
        mirror.run();
        assert!(mirror.is_clean(2));
        mirror.crashes_true(seed);
    }
}

#[test]
fn a_region_whose_copy_a_leg_may_have_lost_is_not_in_sync() {
    for seed in SEEDS {
        let mirror = Mirror::new(seed, "disk 2 d2 256", 0b110, "");
        mirror.0.disk(LEGS[1], |disk| disk.set(0, &[7; SECTOR]));
        // The first half is copied, and lost; then comes the second.
        let second =
            |disk, command, sector| disk == LEGS[0] && command == Command::Read && sector == 128;
        mirror.run_but(second);
        mirror.flushes_fail(LEGS[1], true);
        mirror.flush();
        mirror.run_but(second);
        mirror.flushes_fail(LEGS[1], false);
        mirror.run();
        for _ in 0..3 {
            mirror.0.pass(REST);
            mirror.run();
        }
        mirror.crashes_true(seed);
    }
}

#[test]
fn a_log_in_memory_is_true_after_a_resume() {
    for seed in SEEDS {
        let mirror = Mirror::new(seed, "core 2 256 nosync", 0, "");
        mirror.write(1);
        mirror.run();
        mirror.0.suspend(0, Quiesce::Flush);
        mirror.0.resume(0).unwrap();
        mirror.flushes_fail(LEGS[1], true);
        mirror.flush();
        mirror.run();
        assert!(mirror.0.is_idle() && mirror.says(" 1 AF "), "{}", mirror.0.status(0, 0));
        let synced = mirror.says(" 3/3 ");
        mirror.crash();
        assert!(!synced || mirror.agrees(1), "seed {seed}: what is in sync differs");
    }
}

#[test]
fn a_flush_waits_where_the_first_leg_has_lost_writes() {
    for seed in SEEDS {
        let mirror = Mirror::new(seed, "disk 2 d2 256", 0b111, " 1 handle_errors");
        mirror.write(1);
        mirror.run();
        // The mirror's own flush, which nobody waits for.
        mirror.flushes_fail(LEGS[0], true);
        for _ in 0..2 {
            mirror.0.pass(REST);
            mirror.run();
        }
        mirror.flushes_fail(LEGS[0], false);
        assert!(mirror.0.is_idle() && mirror.says(" 2/3 1 FA "), "{}", mirror.0.status(0, 0));
        mirror.flush();
        mirror.run();
        assert!(
            !mirror.0.is_idle(),
            "seed {seed}: a flush is done that the first leg is not part of"
        );
        mirror.0.take_down(Quiesce::Remove);
    }
}
