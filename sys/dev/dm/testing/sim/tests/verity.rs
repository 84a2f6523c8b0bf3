// SPDX-License-Identifier: BSD-2-Clause

//! The memory in which a verity device's reads are verified.

use alloc::format;
use alloc::vec::Vec;

use super::*;
use crate::job::Op;
use crate::targets::TARGETS;
use crate::testing::verity::Format;
use crate::worker::Quiesce;

/// A device of 16 blocks of a sector on disk 0, with the tree on disk 1.
fn world(seed: u64, options: &str) -> World {
    let format =
        Format { kind: 1, data_bytes: 512, hash_bytes: 512, hash: "sha256", salt: Vec::new() };
    let data: Vec<u8> = (0..16 * 512u32).map(|at| (at / 7) as u8).collect();
    let built = format.build(&data);
    let words = format.words(16, 0, &built);
    let disks = [Disk::with(data.clone()), Disk::with(built.tree)].into();
    let world = World::new(seed, TARGETS, disks, 1, true);
    let loaded = world.load(0, &format!("0 16 verity 1 d0 d1 {words}{options}\n"));
    world.swap(0, loaded).unwrap();
    world.read_only(0);
    world.model(0, |model| model.holds(&data));
    world
}

fn read(world: &World, start: u64) {
    world.submit(0, Op::Read, start, 3, false);
    world.settle(0);
}

#[test]
fn a_block_is_read_again_before_it_is_corrupt() {
    for seed in 0..20 {
        let world = world(seed, "");
        for _ in 0..2 {
            world.disk(0, |disk| disk.faults.wrong_once = true);
            read(&world, 1);
            assert!(world.disk(0, |disk| !disk.faults.wrong_once), "the read was wrong");
            assert_eq!(world.status(0, 0), "V");
        }
        let events = world.raised(0);
        world.disk(0, |disk| disk.set(2, &[7; 512]));
        world.may_fail(0, true);
        read(&world, 1);
        assert_eq!((world.status(0, 0).as_str(), world.raised(0)), ("C", events + 1));
        world.take_down(Quiesce::Remove);
    }
}

/// A reader's own memory is written by whom the reader likes.
#[test]
fn a_block_is_right_once_and_for_all_in_a_lanes_memory_only() {
    let world = world(1, " 1 check_at_most_once");
    read(&world, 0);
    read(&world, 1);
    let story = world.story();
    let reads = |what: &str| {
        let mine = story.iter().filter(|line| line.contains("d0 Read") && line.contains("begins"));
        mine.filter(|line| line.contains(what)).count()
    };
    assert_eq!((reads("forwarded"), reads("lane")), (0, 2));
    read(&world, 0);
    let last = world.story().into_iter().rev().find(|line| line.contains("begins")).unwrap();
    assert!(!last.contains("lane"), "it was right before: {last}");
    world.take_down(Quiesce::Remove);
}
