// SPDX-License-Identifier: BSD-2-Clause

use alloc::vec::Vec;

use super::*;
use crate::targets::snapshot::runs::{BLOCK, Block, NODES};
use crate::testing::sim::Rng;

fn grow(runs: &mut Runs, enough: impl Fn(&Runs) -> bool) {
    while !enough(runs) {
        assert!(runs.grow(Block::default()).is_none());
    }
}

/// Inserts a batch as the load of a store does.
fn insert(batch: &mut Batch, runs: &mut Runs) {
    if batch.is_to_be_sorted() {
        let nodes = batch.sorting();
        grow(runs, |runs| runs.has_nodes(nodes));
        let mut sorter = Sorter::default();
        sorter.begin(batch);
        while sorter.work(batch, runs).unwrap() {}
        if sorter.begin_back(batch) {
            while sorter.work(batch, runs).unwrap() {}
        }
    }
    if batch.is_a_tree(runs) {
        let branches = batch.branches();
        grow(runs, |runs| runs.has_nodes(branches));
        let mut above = Above::default();
        while batch.build(&mut above, runs).unwrap() {}
    }
    while !batch.is_empty() {
        grow(runs, |runs| runs.has_room(100));
        assert!(batch.insert(100, runs));
    }
}

fn load(exceptions: &[Exception]) -> Runs {
    let (mut runs, mut batch) = (Runs::new(4096), Batch::default());
    for some in exceptions.chunks(512) {
        if !batch.rises() {
            insert(&mut batch, &mut runs);
        }
        grow(&mut runs, |runs| runs.has_room(512));
        some.iter().for_each(|exception| assert!(batch.add(*exception, &mut runs)));
    }
    insert(&mut batch, &mut runs);
    runs
}

fn all(runs: &Runs) -> Vec<(u64, u64, u64)> {
    let mut all = Vec::new();
    runs.each(&mut |old, new| all.push((old.start, old.end, new)));
    all
}

/// The nodes that lookups reach.
fn in_tree(runs: &Runs, number: usize) -> usize {
    let node = runs.node(number).unwrap();
    let below = (0..node.len()).filter_map(|at| node.entry(at)).map(|(_, below)| below as usize);
    1 + if node.is_branch() { below.map(|below| in_tree(runs, below)).sum() } else { 0 }
}

/// Checks that a batch gives the tree that single insertions give, also where a chunk is there
/// twice.
fn check(exceptions: &[Exception]) {
    let loaded = load(exceptions);
    let mut plain = Runs::new(4096);
    for exception in exceptions {
        grow(&mut plain, |runs| runs.has_room(1));
        assert!(plain.insert(*exception));
    }
    assert!(all(&loaded) == all(&plain));
    assert_eq!(loaded.len(), plain.len());
    assert_eq!(loaded.used - loaded.freed, in_tree(&loaded, loaded.tree.root()));
    go_on(loaded, plain);
}

/// A tree that was built takes and gives back exceptions as one that was filled by insertions does.
fn go_on(mut one: Runs, mut other: Runs) {
    let mut keys = Vec::new();
    one.each(&mut |old, _| keys.push(old.end));
    let step = (keys.len() / 700).max(1);
    let more: Vec<Exception> = keys
        .iter()
        .step_by(step)
        .zip((1 << 40..).step_by(2))
        .map(|(old, new)| Exception { old: *old, new })
        .collect();
    for runs in [&mut one, &mut other] {
        grow(runs, |runs| runs.has_room(more.len()));
        more.iter().for_each(|exception| assert!(runs.insert(*exception)));
    }
    assert!(all(&one) == all(&other));
    for exception in more.iter().rev() {
        let gone = [&mut one, &mut other].map(|runs| runs.remove(exception.old, 1));
        assert_eq!(gone[0], gone[1]);
    }
    assert!(all(&one) == all(&other));
    assert_eq!(one.len(), other.len());
    assert_eq!(one.used - one.freed, in_tree(&one, one.tree.root()));
}

#[test]
fn a_tree_is_the_same_however_it_is_made() {
    let mut sorted = 0;
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let range = *rng.pick(&[3000, 1 << 20, 1 << 40, u64::MAX]);
        let (mut old, mut new) = (0u64, 2);
        let (rises, uneven) = (rng.chance(3, 4), rng.chance(1, 3));
        let length = *rng.pick(&[10, 3000, 60_000, 120_000]);
        let mut exceptions = Vec::new();
        for _ in 0..rng.between(length / 2, length) {
            let far = rng.below(range) >> if uneven { rng.below(64) } else { 0 };
            old = if rng.chance(2, 3) { far } else { old.wrapping_add(1) };
            // A gap now and then, as an area of the store makes one.
            new += 1 + rng.below(20) / 19;
            let new = if rises { new } else { new ^ rng.below(4) };
            exceptions.push(Exception { old, new });
        }
        let mut batch = Batch::default();
        let mut runs = Runs::new(100);
        grow(&mut runs, |runs| !runs.can_grow());
        exceptions.iter().for_each(|exception| assert!(batch.add(*exception, &mut runs)));
        sorted += usize::from(batch.is_to_be_sorted());
        check(&exceptions);
    }
    assert!(sorted > 6, "{sorted}");
}

#[test]
fn the_first_of_a_chunk_counts() {
    let chunks = |n: u64| (0..n).map(|at| at * 7919 % 10_007);
    let exceptions: Vec<Exception> =
        chunks(60_000).zip(2..).map(|(old, new)| Exception { old, new: new * 2 }).collect();
    let runs = load(&exceptions);
    assert_eq!(runs.len(), 10_007);
    for exception in &exceptions[..10_007] {
        assert_eq!(runs.find(exception.old).map(|found| found.new), Some(exception.new));
    }
    check(&exceptions);
}

/// A batch that is in order does not become the tree where there is one: a store's chunks have
/// fallen, and rise again.
#[test]
fn a_batch_comes_to_the_tree_that_there_is() {
    let new = (5000..8000).step_by(2).chain((2..).step_by(2));
    check(&(0..3000).zip(new).map(|(at, new)| Exception { old: at * 2, new }).collect::<Vec<_>>());
}

#[test]
fn long_runs_and_chunks_that_no_store_has() {
    let mut exceptions: Vec<Exception> =
        (0..200_000).map(|at| Exception { old: 1_000_000 - 1000 + at, new: 2 + at }).collect();
    check(&exceptions);
    // More exceptions, in no order.
    let ends = [(5, u64::MAX), (u64::MAX, 3), (1_100_000, 7), (0, 1 << 48), (0, 9)];
    exceptions.extend(ends.map(|(old, new)| Exception { old, new }));
    check(&exceptions);
}

#[test]
fn what_a_batch_takes_becomes_the_tree() {
    let mut rng = Rng::new(3);
    let count = 300_000;
    let exceptions: Vec<Exception> =
        (0..count).map(|at| Exception { old: rng.below(1 << 40), new: 2 + at * 2 }).collect();
    let runs = load(&exceptions);
    // A leaf for every 55 exceptions, and the nodes that sorting used, which are free by now: a
    // block for each of the 40 bits of a chunk.
    let most = (count as usize / 55 * 57 / 55).div_ceil(NODES) + 40 + 4;
    assert!(runs.bytes() <= most * BLOCK, "{} of {most}", runs.bytes() / BLOCK);
}

/// An exception that is lost would be stale data of the snapshot's.
#[test]
fn a_sorter_without_nodes_says_so() {
    let (mut runs, mut batch) = (Runs::new(4096), Batch::default());
    for new in 0..40_000 {
        grow(&mut runs, |runs| runs.has_nodes(1));
        assert!(batch.add(Exception { old: new * 7919 % 65536, new: 2 + 2 * new }, &mut runs));
    }
    let mut sorter = Sorter::default();
    sorter.begin(&batch);
    while sorter.work(&mut batch, &mut runs).is_some_and(|more| more) {}
    assert_eq!(sorter.work(&mut batch, &mut runs), None);
}

/// Sorting uses no more nodes than it asks for, also where every dealing leaves as many partly
/// filled nodes as it can.
#[test]
fn there_are_nodes_to_sort_with() {
    for (ways, crowd) in [(1, 40_000), (255, 30_000), (255, 200_000), (16, 100_000)] {
        let (mut runs, mut batch) = (Runs::new(4096), Batch::default());
        let alone = (0..8).flat_map(|level| (1..=ways).map(move |way| way << (56 - level * 8)));
        let crowd = (0..crowd).map(|at| at * 7919 % 256);
        let new = (2u64..).step_by(2);
        let exceptions: Vec<Exception> =
            crowd.chain(alone).zip(new).map(|(old, new)| Exception { old, new }).collect();
        for exception in &exceptions {
            grow(&mut runs, |runs| runs.has_nodes(1));
            assert!(batch.add(*exception, &mut runs));
        }
        assert!(batch.is_to_be_sorted());
        let nodes = batch.sorting();
        assert!(nodes <= 64 * NODES + 2);
        grow(&mut runs, |runs| runs.has_nodes(nodes));
        let mut sorter = Sorter::default();
        let before = runs.used - runs.freed;
        let mut most = before;
        sorter.begin(&batch);
        for _ in 0..2 {
            while sorter.work(&mut batch, &mut runs).unwrap() {
                most = most.max(runs.used - runs.freed);
            }
            sorter.begin_back(&mut batch);
        }
        assert!(most <= before + nodes, "{most} of {before} and {nodes}");
        check(&exceptions);
    }
}
