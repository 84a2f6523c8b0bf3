// SPDX-License-Identifier: BSD-2-Clause

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::*;
use crate::testing::sim::Rng;

fn runs(blocks: usize) -> Runs {
    let mut runs = Runs::new(blocks);
    for _ in 0..blocks {
        assert!(runs.grow(Block::default()).is_none());
    }
    runs
}

fn check(runs: &Runs, model: &BTreeMap<u64, u64>) {
    let mut seen = Vec::new();
    runs.each(&mut |old, new| seen.extend(old.zip(new..)));
    assert!(seen.iter().copied().eq(model.iter().map(|(old, new)| (*old, *new))));
    assert_eq!(runs.len(), model.len() as u64);
    for (old, new) in model {
        let found = runs.find(*old).unwrap();
        assert_eq!(found.new, *new);
        for on in 0..found.left {
            assert_eq!(model.get(&(old + on)), Some(&(new + on)));
        }
    }
}

#[test]
fn a_tree_has_what_was_put_into_it() {
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let (mut runs, mut model) = (runs(60), BTreeMap::new());
        let range = *rng.pick(&[100, 10_000, 1 << 40]);
        let (mut old, mut new) = (0, 2);
        for _ in 0..rng.between(1, 8000) {
            old = match rng.below(4) {
                0 => rng.below(range),
                1 => u64::saturating_sub(old, 1),
                _ => old + 1,
            };
            new += rng.below(2) * rng.below(2) + 1;
            assert!(runs.insert(Exception { old, new }));
            model.entry(old).or_insert(new);
            let other = rng.below(range);
            assert_eq!(runs.find(other).map(|f| f.new), model.get(&other).copied());
        }
        check(&runs, &model);
    }
}

#[test]
fn the_room_is_there() {
    // The worst orders for a tree: all in one place, backwards, random.
    for order in 0..3 {
        let (mut runs, mut rng) = (Runs::new(200), Rng::new(order));
        let mut model = BTreeMap::new();
        for at in 0..30_000u64 {
            while !runs.has_room(1) {
                assert!(runs.grow(Block::default()).is_none());
            }
            let old = match order {
                0 => (at % 2) << 40 | (at / 2 * 2),
                1 => (30_000 - at) * 2,
                _ => rng.below(1 << 40),
            };
            assert!(runs.insert(Exception { old, new: at * 2 + 2 }));
            model.entry(old).or_insert(at * 2 + 2);
        }
        check(&runs, &model);
    }
}

/// Insertions for which there is room succeed, all of them, each where it takes most: into leaves
/// that were filled in order.
#[test]
fn the_room_is_there_for_the_worst_that_comes_at_once() {
    for burst in [1, 30, 128, 500] {
        let mut runs = Runs::new(300);
        let room = |runs: &mut Runs, n: usize| {
            while !runs.has_room(n) {
                assert!(runs.grow(Block::default()).is_none());
            }
        };
        let mut new = (2..).step_by(2);
        let mut insert = |runs: &mut Runs, old: u64| {
            let new = new.next().unwrap();
            assert!(runs.insert(Exception { old, new }), "{burst}: {old}");
        };
        for at in 0..60_000 {
            room(&mut runs, 1);
            insert(&mut runs, at * 64);
        }
        // Each insertion of a burst goes to another leaf.
        for round in 1..60 {
            room(&mut runs, burst);
            (0..burst as u64).for_each(|at| insert(&mut runs, at * 64 * 70 + round));
        }
    }
}

#[test]
fn what_is_taken_away_is_gone() {
    for seed in 0..24 {
        let mut rng = Rng::new(seed);
        let (mut runs, mut model) = (runs(60), BTreeMap::new());
        // In the order of their chunks of the store.
        let mut order: Vec<(u64, u64)> = Vec::new();
        let range = *rng.pick(&[100, 10_000, 1 << 40]);
        let (mut old, mut new) = (0, 2);
        for _ in 0..6 {
            for _ in 0..rng.between(1, 3000) {
                old = if rng.chance(1, 3) { rng.below(range) } else { old + 1 };
                new += rng.below(2) * rng.below(2) + 1;
                if runs.find(old).is_none() {
                    model.insert(old, new);
                    assert!(runs.insert(Exception { old, new }));
                    order.push((old, new));
                }
            }
            check(&runs, &model);
            // From the last one backwards, consecutive ones at once. Some are left, but for the
            // last time.
            let left = *rng.pick(&[0, order.len() / 2, order.len().saturating_sub(3)]);
            while order.len() > left {
                let (last, chunk) = *order.last().unwrap();
                let most = rng.between(1, 40);
                let run = (0..most).take_while(|n| {
                    let at = order.len().checked_sub(1 + *n as usize);
                    at.is_some_and(|at| {
                        order[at] == (last.wrapping_sub(*n), chunk.wrapping_sub(*n))
                    })
                });
                let run = run.count() as u64;
                let gone = runs.remove(last, run);
                assert!((1..=run).contains(&gone), "{last}");
                (0..gone).for_each(|_| {
                    model.remove(&order.pop().unwrap().0);
                });
                assert_eq!(runs.find(last), None);
                assert_eq!(runs.remove(last, 1), 0, "it is gone");
            }
            check(&runs, &model);
        }
    }
}

#[test]
fn what_does_not_end_its_run_stays() {
    let mut runs = runs(1);
    for at in 0..10 {
        assert!(runs.insert(Exception { old: 100 + at, new: 2 + at }));
    }
    for old in [0, 99, 100, 105, 108, 110, u64::MAX] {
        assert_eq!(runs.remove(old, 100), 0, "{old}");
    }
    assert_eq!((runs.remove(109, 3), runs.len()), (3, 7));
    assert_eq!((runs.remove(106, 100), runs.len()), (7, 0));
    assert!(runs.insert(Exception { old: u64::MAX, new: 2 }));
    assert_eq!(runs.remove(u64::MAX, 1), 1);
}

/// Nodes are used once more: a tree that is emptied and filled several times takes no more than one
/// that was filled once.
#[test]
fn nodes_are_free_again() {
    let mut runs = Runs::new(100);
    let mut blocks = 0;
    for round in 0..20 {
        let mut rng = Rng::new(round);
        let mut order: Vec<u64> = Vec::new();
        for at in 0..20_000 {
            while !runs.has_room(1) {
                assert!(runs.grow(Block::default()).is_none());
            }
            let old = rng.below(1 << 40);
            if runs.find(old).is_none() {
                assert!(runs.insert(Exception { old, new: 2 + 2 * at }));
                order.push(old);
            }
        }
        if round == 0 {
            blocks = runs.bytes() / BLOCK;
        }
        while let Some(old) = order.pop() {
            assert_eq!(runs.remove(old, 5), 1);
        }
        assert_eq!((runs.len(), runs.used - runs.freed, runs.branches), (0, 1, 0));
    }
    // Some more at random.
    assert!(runs.bytes() / BLOCK <= blocks + blocks / 10 + 1, "{blocks}: {}", runs.bytes() / BLOCK);
}

#[test]
fn a_tree_without_room_says_so_and_stays_as_it_was() {
    let mut runs = Runs::new(1);
    assert!(!runs.insert(Exception { old: 1, new: 2 }));
    assert_eq!(runs.find(1), None);
    assert!(runs.grow(Block::default()).is_none());
    assert!(runs.grow(Block::default()).is_some());
    let mut model = BTreeMap::new();
    for old in 0.. {
        if !runs.insert(Exception { old: old * 3, new: old * 2 + 2 }) {
            break;
        }
        model.insert(old * 3, old * 2 + 2);
    }
    assert!(model.len() > FAN * NODES * 8 / 10, "{}", model.len());
    check(&runs, &model);
}

#[test]
fn chunks_that_no_store_has_lead_nowhere() {
    let mut runs = runs(1);
    for (old, new) in [(5, u64::MAX), (6, 1 << 48), (7, NOWHERE), (8, NOWHERE - 1), (9, NOWHERE)] {
        assert!(runs.insert(Exception { old, new }));
        let found = runs.find(old).unwrap();
        assert_eq!(found, FoundRun { new: new.min(NOWHERE), left: 1 });
    }
    assert!(runs.insert(Exception { old: u64::MAX, new: 2 }));
    assert_eq!(runs.find(u64::MAX), Some(FoundRun { new: 2, left: 1 }));
}

#[test]
fn bytes_of_an_exception() {
    let count = 1_000_000u64;
    let fill = |exceptions: &mut dyn Iterator<Item = u64>| {
        let mut runs = Runs::new(4096);
        for (at, old) in exceptions.enumerate() {
            while !runs.has_room(1) {
                assert!(runs.grow(Block::default()).is_none());
            }
            // As in a store: one chunk in 257 is an area.
            assert!(runs.insert(Exception { old, new: 2 + at as u64 + at as u64 / 256 }));
        }
        runs.bytes() as f64 / runs.len() as f64
    };
    let in_order = fill(&mut (0..count));
    let mut rng = Rng::new(7);
    let by_chance = fill(&mut (0..count).map(|_| rng.below(1 << 40)));
    std::println!("{in_order:.2} bytes in order, {by_chance:.1} by chance");
    assert!(in_order <= 4.0 && by_chance <= 40.0, "{in_order} {by_chance}");
}
