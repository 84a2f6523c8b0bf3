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
    if batch.digits().next().is_some() {
        grow(runs, |runs| runs.has_nodes(SORTING));
        let mut chains = Chains::default();
        for digit in batch.digits() {
            while batch.deal(digit, &mut chains, runs) {}
        }
        for digit in batch.digits_back(&runs.tree().clone()) {
            while batch.deal(digit, &mut chains, runs) {}
        }
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

/// Checks that a batch gives the tree that single insertions give, also where a chunk is there twice.
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
}

#[test]
fn a_tree_is_the_same_however_it_is_made() {
    let mut sorted = 0;
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let range = *rng.pick(&[3000, 1 << 20, 1 << 40, u64::MAX]);
        let (mut old, mut new) = (0u64, 2);
        let rises = rng.chance(3, 4);
        let length = *rng.pick(&[10, 3000, 120_000]);
        let mut exceptions = Vec::new();
        for _ in 0..rng.between(1, length) {
            old = if rng.chance(2, 3) { rng.below(range) } else { old.wrapping_add(1) };
            // A gap now and then, as an area of the store makes one.
            new += 1 + rng.below(20) / 19;
            let new = if rises { new } else { new ^ rng.below(4) };
            exceptions.push(Exception { old, new });
        }
        let mut batch = Batch::default();
        let mut runs = Runs::new(100);
        grow(&mut runs, |runs| !runs.can_grow());
        exceptions.iter().for_each(|exception| assert!(batch.add(*exception, &mut runs)));
        sorted += usize::from(batch.digits().next().is_some());
        check(&exceptions);
    }
    assert!(sorted > 4, "{sorted}");
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
    // A leaf for every 55 exceptions, and the nodes that sorting used, which are free by now.
    let most = (count as usize / 55 * 57 / 55).div_ceil(NODES) + SORTING.div_ceil(NODES) + 4;
    assert!(runs.bytes() <= most * BLOCK, "{} of {most}", runs.bytes() / BLOCK);
}
