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
    // The worst order for a tree of whatever height: all in one place, backwards, by chance.
    for order in 0..3 {
        let (mut runs, mut rng) = (Runs::new(200), Rng::new(order));
        let mut model = BTreeMap::new();
        for at in 0..30_000u64 {
            while runs.room() == 0 {
                assert!(runs.grow(Block::default()).is_none());
            }
            let before = runs.room();
            let old = match order {
                0 => (at % 2) << 40 | (at / 2 * 2),
                1 => (30_000 - at) * 2,
                _ => rng.below(1 << 40),
            };
            assert!(runs.insert(Exception { old, new: at * 2 + 2 }));
            model.entry(old).or_insert(at * 2 + 2);
            assert!(runs.room() > 0 || before < FAN as u64 * 2);
        }
        check(&runs, &model);
    }
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
    assert!(model.len() > FAN * NODES * 9 / 10, "{}", model.len());
    check(&runs, &model);
}

#[test]
fn chunks_that_no_store_has_lead_nowhere() {
    let mut runs = runs(1);
    for (old, new) in [(5, u64::MAX), (6, 1 << 48), (7, NOWHERE), (8, NOWHERE - 1), (9, NOWHERE)] {
        assert!(runs.insert(Exception { old, new }));
        let found = runs.find(old).unwrap();
        assert_eq!(found, Found { new: new.min(NOWHERE), left: 1 });
    }
    assert!(runs.insert(Exception { old: u64::MAX, new: 2 }));
    assert_eq!(runs.find(u64::MAX), Some(Found { new: 2, left: 1 }));
}

#[test]
fn bytes_of_an_exception() {
    let count = 1_000_000u64;
    let fill = |exceptions: &mut dyn Iterator<Item = u64>| {
        let mut runs = Runs::new(4096);
        for (at, old) in exceptions.enumerate() {
            while runs.room() == 0 {
                assert!(runs.grow(Block::default()).is_none());
            }
            // As in a store: a chunk in 257 is an area.
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
