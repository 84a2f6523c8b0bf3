// SPDX-License-Identifier: BSD-2-Clause

//! Two devices have a table with the same snapshot's store, and one of them goes.

use super::*;
use crate::job::Op;
use crate::targets::TARGETS;
use crate::worker::Quiesce;

const TABLE: &str = "0 64 snapshot d0 d1 P 8\n";

/// An origin on disk 0, as device 0, and a snapshot of it, as device 1, with its store on disk 1.
fn world(seed: u64) -> World {
    let disks = [64, 128].map(Disk::new).into();
    let world = World::new(seed, TARGETS, disks, 3, true);
    let load = |device, text| {
        let loaded = world.load(device, text);
        world.swap(device, loaded).unwrap();
    };
    load(0, "0 64 snapshot-origin d0\n");
    load(1, TABLE);
    world
}

#[test]
fn a_removal_ends_though_another_table_takes_the_store_over() {
    for seed in 0..100 {
        let world = world(seed);
        let next = world.load(2, TABLE);
        world.suspend(1, Quiesce::Flush);
        world.stall(1, 1000);
        world.submit(0, Op::Write, 8, 1, false);
        world.swap_later(2, next);
        world.remove(1, Quiesce::Flush);
        world.settle(0);
        world.take_down(Quiesce::Remove);
    }
}
