// SPDX-License-Identifier: BSD-2-Clause

use alloc::vec::Vec;

use super::*;

fn taken(ready: &Ready, runner: usize) -> Vec<usize> {
    let mut places = Vec::new();
    ready.take(runner, |at| places.push(at));
    places
}

#[test]
fn a_lane_is_its_runners_and_only_the_first_to_set_it_wakes() {
    for count in [1, 2, 3] {
        let runners: Vec<usize> = (0..200).map(|lane| lane % count).collect();
        let ready = Ready::new(&runners, count);
        assert_eq!(ready.runners(), count);
        for lane in [0, 1, 63, 64, 65, 127, 199] {
            assert_eq!(ready.runner(lane), lane % count);
            assert_eq!(ready.set(lane), Some(lane % count), "{lane} of {count}");
            assert_eq!(ready.set(lane), None);
            for runner in 0..count {
                assert_eq!(ready.any(runner), runner == lane % count);
                let mine =
                    if runner == lane % count { [lane / count].to_vec() } else { Vec::new() };
                assert_eq!(taken(&ready, runner), mine);
                assert!(!ready.any(runner));
            }
        }
    }
}

#[test]
fn lanes_lie_together_by_runner_however_they_are_given_out() {
    let runners = [1, 1, 0, 2, 1, 0];
    let ready = Ready::new(&runners, 4);
    for (lane, runner) in runners.iter().enumerate() {
        assert_eq!(ready.set(lane), Some(*runner));
    }
    let all: Vec<_> = (0..4).map(|runner| taken(&ready, runner)).collect();
    assert_eq!(all, [[0, 1].to_vec(), [0, 1, 2].to_vec(), [0].to_vec(), Vec::new()]);
    assert_eq!((ready.set(4), taken(&ready, 1)), (Some(1), [2].to_vec()));
    assert_eq!((ready.set(6), ready.set(usize::MAX)), (None, None));
}

#[test]
fn lanes_are_taken_lowest_first_or_as_a_scheduler_chooses() {
    let runners: Vec<usize> = (0..140).map(|lane| lane % 2).collect();
    let ready = Ready::new(&runners, 2);
    let all = [3, 9, 131, 139];
    all.iter().for_each(|lane| assert!(ready.set(*lane).is_some()));
    assert!(taken(&ready, 0).is_empty());
    assert_eq!(taken(&ready, 1), all.map(|lane| lane / 2));
    assert_eq!(ready.take_one(1, 0), None);
    all.iter().for_each(|lane| assert!(ready.set(*lane).is_some()));
    // The choice is taken modulo the number of lanes that are ready.
    assert_eq!(ready.take_one(1, 6), Some(131 / 2));
    assert_eq!(ready.take_one(1, 2), Some(139 / 2));
    assert_eq!(ready.take_one(1, 1), Some(9 / 2));
    assert_eq!(taken(&ready, 1), [3 / 2]);
}

#[test]
fn no_lane_at_all_and_one_beyond_are_nothing() {
    let none = Ready::new(&[], 0);
    assert_eq!((none.runners(), none.set(1000), none.any(0)), (1, None, false));
    assert_eq!(none.take_one(5, 0), None);
}
