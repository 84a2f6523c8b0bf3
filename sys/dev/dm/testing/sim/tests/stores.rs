// SPDX-License-Identifier: BSD-2-Clause

//! Several tables have a snapshot's store, and that of the device which has used it goes.

use alloc::vec::Vec;

use super::*;
use crate::job::Op;
use crate::targets::TARGETS;
use crate::worker::Quiesce;

const TABLE: &str = "0 64 snapshot d0 d1 P 8\n";

/// An origin on disk 0, as device 0, and a snapshot of it, as device 1, with its store on disk 1;
/// and the origin's content.
fn world(seed: u64) -> (World, Vec<u8>) {
    let disks = [Disk::junk(64, &mut Rng::new(seed)), Disk::new(128)].into();
    let world = World::new(seed, TARGETS, disks, 3, true);
    load(&world, 0, "0 64 snapshot-origin d0\n");
    load(&world, 1, TABLE);
    // A device that is suspended is read and written at sector 0.
    world.promise_nothing(1);
    let content = world.disk(0, |disk| disk.content(0, 64).to_vec());
    (world, content)
}

fn load(world: &World, device: usize, text: &str) {
    let loaded = world.load(device, text);
    if world.table(device).is_some() {
        world.suspend(device, Quiesce::Flush);
    }
    world.swap(device, loaded).unwrap();
}

/// Reads device 2, which must have what the origin had, unless it is lost. `true` if it is. Sector
/// 0 may have been written through device 1, see above.
fn is_lost(world: &World, content: &[u8]) -> bool {
    let lost = world.status(2, 0) == "Invalid";
    world.may_fail(2, lost);
    world.model(2, |model| model.holds(content));
    for start in (8..64).step_by(2) {
        world.submit(2, Op::Read, start, 2, false);
    }
    world.settle(2);
    world.promise_nothing(2);
    lost
}

#[test]
fn a_removal_ends_though_another_table_takes_the_store_over() {
    let mut lost = 0;
    for seed in 0..100 {
        let (world, content) = world(seed);
        let next = world.load(2, TABLE);
        world.suspend(1, Quiesce::Flush);
        world.stall(1, 1000);
        world.submit(0, Op::Write, 8, 1, false);
        world.meanwhile(|world| world.try_swap(2, next).unwrap());
        world.remove(1, Quiesce::Flush);
        // Of another chunk: it is not copied if the table that goes had begun its end.
        world.submit(0, Op::Write, 16, 1, false);
        world.settle(0);
        lost += u64::from(is_lost(&world, &content));
        world.take_down(Quiesce::Remove);
    }
    assert!((10..90).contains(&lost), "the store was taken over before and after: {lost}");
}

#[test]
fn a_table_is_lost_that_was_loaded_before_its_store_was_let_go() {
    for text in [TABLE, "0 64 snapshot d0 d1 N 8\n"] {
        let (world, content) = world(1);
        load(&world, 1, "0 64 error\n");
        load(&world, 1, text);
        world.submit(0, Op::Write, 0, 1, false);
        world.settle(0);
        let next = world.load(2, text);
        world.remove(1, Quiesce::Flush);
        world.submit(0, Op::Write, 8, 1, false);
        world.settle(0);
        world.swap(2, next).unwrap();
        assert!(is_lost(&world, &content));
        world.take_down(Quiesce::Remove);
    }
}

#[test]
fn a_table_that_is_loaded_after_a_store_was_let_go_reads_it() {
    let (world, content) = world(1);
    world.submit(0, Op::Write, 0, 1, false);
    world.settle(0);
    let lost = world.load(2, TABLE);
    world.remove(1, Quiesce::Flush);
    load(&world, 2, TABLE);
    drop(lost);
    world.submit(0, Op::Write, 8, 1, false);
    world.settle(0);
    assert!(!is_lost(&world, &content));
    assert_eq!(world.status(2, 0), "32/128 16");
    world.take_down(Quiesce::Remove);
}

#[test]
fn one_table_at_a_time_begins_on_a_store() {
    const MERGE: &str = "0 64 snapshot-merge d0 d1 P 8\n";
    let mut both = [0, 0];
    for seed in 0..100 {
        let (world, _) = world(seed);
        world.submit(0, Op::Write, 0, 1, false);
        world.settle(0);
        // The store is merged by device 0, and to be taken back by device 1.
        world.suspend(0, Quiesce::Flush);
        world.suspend(1, Quiesce::Flush);
        let merge = world.load(0, MERGE);
        world.try_swap(0, merge).unwrap();
        world.promise_nothing(0);
        world.suspend(0, Quiesce::Flush);
        world.stall(0, 1000);
        let (send, resumed) = std::sync::mpsc::channel();
        world.meanwhile(move |world| send.send(world.try_resume(0)).unwrap());
        let taken = world.try_resume(1);
        world.run(10_000);
        let resumed = resumed.try_recv().expect("a resume that is over");
        assert_ne!(taken.is_ok(), resumed.is_ok(), "{taken:?}, {resumed:?}");
        both[usize::from(taken.is_ok())] += 1;
        world.take_down(Quiesce::Remove);
    }
    assert!(both.iter().all(|count| *count > 5), "each was the first: {both:?}");
}

/// The store has larger sectors than the origin, whose last chunk does not end with one of them.
#[test]
fn an_origin_may_end_within_a_sector_of_the_store() {
    let mut store = Disk::new(2048);
    store.sector_size = 4096;
    let disks = [Disk::junk(1003, &mut Rng::new(1)), store].into();
    let world = World::new(1, TARGETS, disks, 2, true);
    load(&world, 0, "0 1003 snapshot-origin d0\n");
    load(&world, 1, "0 1000 snapshot d0 d1 P 16\n");
    let content = world.disk(0, |disk| disk.content(0, 1003).to_vec());
    world.model(1, |model| model.holds(&content));
    world.submit(0, Op::Write, 995, 8, false);
    world.settle(0);
    assert_eq!(world.status(1, 0), "48/2048 32");
    world.submit(1, Op::Read, 992, 8, false);
    world.settle(1);
    for device in [0, 1] {
        world.promise_nothing(device);
        world.suspend(device, Quiesce::Flush);
    }
    let merge = world.load(0, "0 1000 snapshot-merge d0 d1 P 16\n");
    world.swap(0, merge).unwrap();
    world.run(10_000);
    assert_eq!(world.status(0, 0), "32/2048 32");
    let merged = world.disk(0, |disk| disk.content(992, 11).to_vec());
    assert_eq!(merged, content[992 * SECTOR..]);
    world.take_down(Quiesce::Remove);
}

#[test]
fn what_lies_behind_the_exceptions_is_cleaned_in_few_requests() {
    const AREA: u64 = 2048;
    let (last, bytes) = (2 * AREA - 1, 64 * 1024);
    let mut store = Disk::new(4 * AREA);
    let mut header = [0; SECTOR];
    header[..16].copy_from_slice(b"SnAp\x01\0\0\0\x01\0\0\0\0\x08\0\0");
    store.set(0, &header);
    for sector in [AREA, AREA + 70, AREA + 90, last] {
        store.set(sector, &[0x55; SECTOR]);
    }
    // Nothing stands before the end of the exceptions.
    let mut first = [0x55; SECTOR];
    first[..16].fill(0);
    store.set(AREA, &first);
    let world = World::new(1, TARGETS, [Disk::new(64), store].into(), 1, true);
    world.take_io_of(bytes);
    load(&world, 0, "0 64 snapshot d0 d1 P 8\n");
    let counts = world.disk(1, |disk| disk.counts);
    let each = AREA / (bytes / SECTOR) as u64;
    assert!(counts.reads <= 2 * each + 2, "{counts:?}");
    let area = world.disk(1, |disk| disk.content(AREA, AREA).to_vec());
    assert!(area.iter().all(|byte| *byte == 0));
    assert_eq!(counts.writes, 2, "as few as that");
    world.take_down(Quiesce::Remove);
}
